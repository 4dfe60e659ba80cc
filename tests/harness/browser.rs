//! A real browser: headless Chromium as Debian packages it, driven through its own driver by WebDriver's JSON over HTTP.
//!
//! If it is missing, its programs and the libraries that this machine lacks are taken out of Debian's packages, without installing
//! them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{eventually, eventually_within};

/// Prints the folder below which Chromium is, and fetches it into the folder `$1` if it is missing.
const PROGRAM: &str = r#"
set -eu
if [ -x /usr/lib/chromium/chromium-headless-shell ] && command -v chromedriver >/dev/null; then echo /; exit; fi
mkdir -p "$1"; cd "$1"
exec 9>lock; flock 9
# What was fetched before may lack libraries that the machine had then.
libraries="$PWD/usr/lib/$(uname -m)-linux-gnu"
is_whole() {
    [ -e done ] && ! LD_LIBRARY_PATH="$libraries:$libraries/pulseaudio:$libraries/nss" ldd usr/lib/chromium/chromium-headless-shell | grep -q 'not found'
}
if ! is_whole; then
    { needed() { apt-get install --simulate --no-install-recommends chromium-headless-shell | awk '/^Inst/ { print $2 }'; }
      fetch() { apt-get download $(needed) chromium-driver; }
      rm -f ./*.deb; fetch || { apt-get update && fetch; }
      for package in ./*.deb; do dpkg-deb --extract "$package" .; done
      rm -f ./*.deb; touch done; } >&2
fi
pwd
"#;

/// Prints the path of axe-core, and fetches it from npm into the folder `$1` if it is missing.
const AXE: &str = r#"
set -eu
mkdir -p "$1"; cd "$1"
exec 9>lock; flock 9
if [ ! -e package/axe.min.js ]; then npm pack --silent axe-core@4.14.1 >&2; tar -xzf axe-core-*.tgz; fi
echo "$1/package/axe.min.js"
"#;

/// Fonts that people have, where the machine has them: its own default is wide and heavy.
const FONTS: &str = r#"<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig><include ignore_missing="yes">/etc/fonts/fonts.conf</include><dir>ROOT/usr/share/fonts</dir>
<alias binding="strong"><family>system-ui</family><prefer><family>Inter</family></prefer></alias>
<alias binding="strong"><family>sans-serif</family><prefer><family>Inter</family></prefer></alias>
<alias binding="strong"><family>monospace</family><prefer><family>JetBrains Mono</family></prefer></alias></fontconfig>"#;

/// The member of WebDriver's documents that names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The result of a script, or what went wrong.
type Answered = Result<Value, String>;

pub(crate) struct Browser {
    agent: ureq::Agent,
    session: String,
    driver: Child,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser with one empty page.
    #[track_caller]
    pub(crate) fn start() -> Browser {
        let root = program();
        let profile = tempfile::Builder::new().prefix("wharf-browser-").tempdir().expect("a temporary folder");
        // A port that was just free.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let at = |path: &str| root.join(path);
        let folders = ["x86_64-linux-gnu", "x86_64-linux-gnu/pulseaudio", "x86_64-linux-gnu/nss", "aarch64-linux-gnu"];
        let mut libraries: Vec<PathBuf> = folders.iter().map(|folder| at(&format!("usr/lib/{folder}"))).collect();
        let inherited = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        libraries.extend(std::env::split_paths(&inherited).filter(|path| !path.as_os_str().is_empty()));
        let libraries = std::env::join_paths(libraries).expect("a folder without a colon");
        let fonts = profile.path().join("fonts.conf");
        std::fs::write(&fonts, FONTS.replace("ROOT", &root.display().to_string()))
            .expect("the fonts' settings can be written");
        let mut command = Command::new(at("usr/bin/chromedriver"));
        if root != Path::new("/") {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let driver = command
            .arg(format!("--port={port}"))
            .env("HOME", profile.path())
            .env("FONTCONFIG_FILE", &fonts)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(120)))
            .build();
        let address = format!("http://127.0.0.1:{port}");
        let mut browser = Browser { agent: config.into(), session: address.clone(), driver, _profile: profile };
        eventually("chromedriver listens", || browser.call("GET", "/status", &Value::Null).ok());
        // The program itself, not Debian's script around it: the script would leave the browser behind.
        let options = json!({
            "binary": at("usr/lib/chromium/chromium-headless-shell"),
            "args": ["--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--window-size=1280,900"],
        });
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = browser.call("POST", "/session", &capabilities).expect("a session");
        browser.session = format!("{address}/session/{}", session["sessionId"].as_str().expect("an ID"));
        browser
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Answered {
        let address = format!("{}{path}", self.session);
        let sent = match method {
            "GET" => self.agent.get(&address).call(),
            "DELETE" => self.agent.delete(&address).call(),
            _ => self.agent.post(&address).send_json(body),
        };
        let mut response = sent.map_err(|error| error.to_string())?;
        let text =
            response.body_mut().with_config().limit(64 << 20).read_to_string().map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        match answer["value"]["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", answer["value"]["message"])),
            None => Ok(answer["value"].clone()),
        }
    }

    /// Opens an address.
    #[track_caller]
    pub(crate) fn open(&self, address: &str) {
        self.call("POST", "/url", &json!({"url": address})).unwrap_or_else(|error| panic!("{address}: {error}"));
    }

    /// The address of the page.
    #[track_caller]
    pub(crate) fn address(&self) -> String {
        self.call("GET", "/url", &Value::Null).expect("an address").as_str().expect("text").to_owned()
    }

    /// Calls one command of the browser's own protocol.
    #[track_caller]
    pub(crate) fn command(&self, name: &str, with: Value) -> Value {
        self.call("POST", "/goog/cdp/execute", &json!({"cmd": name, "params": with})).expect(name)
    }

    /// The size of the page in pixels, and whether it is dark.
    pub(crate) fn look(&self, width: u32, height: u32, dark: bool) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.command("Emulation.setDeviceMetricsOverride", size);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.command("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Turns the scripts of pages off, or on again.
    pub(crate) fn scripts(&self, on: bool) {
        self.command("Emulation.setScriptExecutionDisabled", json!({"value": !on}));
    }

    /// Runs a script of the test in the page; `return` gives its result.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> Value {
        self.try_run(script).unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    fn try_run(&self, script: &str) -> Answered {
        self.call("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until the page has a text: what a click leads to comes later.
    #[track_caller]
    pub(crate) fn until(&self, text: &str) {
        let quoted = serde_json::to_string(text).expect("text");
        let script = format!("return document.readyState === 'complete' && document.body.innerText.includes({quoted})");
        self.until_true(&format!("the page says {text:?}"), &script);
    }

    /// Waits until a script returns true.
    #[track_caller]
    pub(crate) fn until_true(&self, what: &str, script: &str) {
        eventually_within(Duration::from_secs(60), what, || {
            (self.try_run(script) == Ok(Value::Bool(true))).then_some(())
        });
    }

    fn element(&self, selector: &str) -> Result<String, String> {
        let found = self.call("POST", "/element", &json!({"using": "css selector", "value": selector}))?;
        found[ELEMENT].as_str().map(str::to_owned).ok_or_else(|| found.to_string())
    }

    /// Waits for an element, and clicks it.
    #[track_caller]
    pub(crate) fn click(&self, selector: &str) {
        eventually(&format!("{selector} can be clicked"), || {
            let element = self.element(selector).ok()?;
            self.call("POST", &format!("/element/{element}/click"), &json!({})).ok()
        });
    }

    /// Waits for an element, and types into it.
    #[track_caller]
    pub(crate) fn fill(&self, selector: &str, text: &str) {
        eventually(&format!("{selector} can be filled"), || {
            let element = self.element(selector).ok()?;
            self.call("POST", &format!("/element/{element}/clear"), &json!({})).ok()?;
            self.call("POST", &format!("/element/{element}/value"), &json!({"text": text})).ok()
        });
    }

    /// Presses keys, whatever has the focus.
    #[track_caller]
    pub(crate) fn keys(&self, text: &str) {
        let press = |key: char| [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        let actions: Vec<Value> = text.chars().flat_map(press).collect();
        let all = json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]});
        self.call("POST", "/actions", &all).expect("keys");
    }

    /// What the browser has complained about since it was asked before: errors, and what the policy for content refused.
    #[track_caller]
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.call("POST", "/se/log", &json!({"type": "browser"})).expect("the log");
        let entries = log.as_array().cloned().unwrap_or_default();
        let severe = entries.iter().filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// What axe finds on the page that keeps people from using it, each with its places.
    #[track_caller]
    pub(crate) fn barriers(&self) -> Vec<String> {
        let source = std::fs::read_to_string(axe()).expect("axe can be read");
        self.run(&source);
        let script = "const done = arguments[0];
            axe.run(document, {resultTypes: ['violations'], preload: false}).then((found) => done(found.violations
                .filter((v) => v.impact === 'serious' || v.impact === 'critical')
                .map((v) => `${v.id}: ${v.nodes.map((n) => n.target + ' ' + n.html).slice(0, 5).join(', ')}`)), (error) => done([String(error)]))";
        let found = self.call("POST", "/execute/async", &json!({"script": script, "args": []})).expect("axe runs");
        found.as_array().expect("a list").iter().map(|each| each.as_str().unwrap_or_default().to_owned()).collect()
    }

    /// A picture of what is seen, as PNG in base64.
    #[track_caller]
    pub(crate) fn picture(&self) -> String {
        self.call("GET", "/screenshot", &Value::Null).expect("a picture").as_str().expect("text").to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        _ = self.call("DELETE", "", &Value::Null);
        _ = self.driver.kill();
        _ = self.driver.wait();
    }
}

fn fetched(script: &str, name: &str, advice: &str) -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let output = Command::new("sh").args(["-c", script, "program"]).arg(cache).output().expect("sh runs");
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(
        output.status.success() && !path.is_empty(),
        "{name} is missing: {}\n{advice}",
        String::from_utf8_lossy(&output.stderr)
    );
    path.into()
}

fn program() -> PathBuf {
    fetched(PROGRAM, "chromium", "install it (Debian: apt-get install chromium-headless-shell chromium-driver)")
}

fn axe() -> PathBuf {
    fetched(AXE, "axe-core", "install npm, which fetches it")
}
