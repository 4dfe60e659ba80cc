//! A reverse proxy before a host: nginx as Debian sets it up, gone with the test process.
//!
//! If it is missing, its program is taken out of Debian's package, without installing it: its service would start.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::eventually;

const CONFIG: &str = "
daemon off;
master_process off;
pid DIR/pid;
error_log stderr;
events {}
http {
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    default_type application/octet-stream;
    gzip on;
    access_log DIR/access.log;
    client_body_temp_path DIR/body;
    proxy_temp_path DIR/proxy;
    fastcgi_temp_path DIR/fastcgi;
    uwsgi_temp_path DIR/uwsgi;
    scgi_temp_path DIR/scgi;
    server {
        listen 127.0.0.1:PORTTLS;
        location PREFIX/ {
            proxy_pass HOST/;PARAMS
        }
    }
}
";

/// What the documentation of the dashboard tells to pass on.
const DASHBOARD_PARAMS: &str = "
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;";

/// What a server needs that speaks TLS, behind its port.
const TLS: &str = " ssl;
        ssl_certificate DIR/server.pem;
        ssl_certificate_key DIR/server.key";

/// Makes a key and a certificate in the folder `$1`.
const KEY: &str = "
set -eu
cd \"$1\"
openssl req -x509 -days 2 -subj /CN=jobs.example.com -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \\
    -keyout server.key -out server.pem 2>openssl.log || { cat openssl.log >&2; exit 1; }";

/// Debian's `proxy_params`, which sites include to pass on who asked.
const PROXY_PARAMS: &str = "
            proxy_set_header Host $http_host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;";

/// Prints the path of nginx, and fetches it into the folder `$1` if it is missing.
const PROGRAM: &str = r#"
set -eu
PATH=$PATH:/usr/sbin:/usr/local/sbin
if command -v nginx; then exit; fi
mkdir -p "$1"; cd "$1"
exec 9>lock; flock 9
if [ ! -x nginx ]; then
    { apt-get download nginx || { apt-get update && apt-get download nginx; }
      dpkg-deb --fsys-tarfile nginx_*.deb | tar -x --to-stdout ./usr/sbin/nginx >new
      chmod +x new; mv new nginx; } >&2
fi
echo "$1/nginx"
"#;

pub(crate) struct ReverseProxy {
    address: String,
    dir: TempDir,
    process: Child,
}

impl ReverseProxy {
    /// Serves the host at this address below a prefix, such as `/queue`, or at the root, with nothing but `proxy_pass`.
    #[track_caller]
    pub(crate) fn before(host: &str, prefix: &str) -> ReverseProxy {
        ReverseProxy::start(host, prefix, "", false)
    }

    /// Serves the host in the same way, and passes on the name that was asked for and the address of the client.
    #[track_caller]
    pub(crate) fn with_params_before(host: &str, prefix: &str) -> ReverseProxy {
        ReverseProxy::start(host, prefix, PROXY_PARAMS, false)
    }

    /// Serves the host as the documentation of the dashboard says.
    #[track_caller]
    pub(crate) fn of_dashboard_before(host: &str, prefix: &str) -> ReverseProxy {
        ReverseProxy::start(host, prefix, DASHBOARD_PARAMS, false)
    }

    /// Serves the host over TLS with nothing but `proxy_pass`; its certificate is signed by nobody.
    #[track_caller]
    pub(crate) fn encrypted_before(host: &str, prefix: &str) -> ReverseProxy {
        ReverseProxy::start(host, prefix, "", true)
    }

    #[track_caller]
    fn start(host: &str, prefix: &str, params: &str, encrypts: bool) -> ReverseProxy {
        let dir = tempfile::Builder::new().prefix("wharf-nginx-").tempdir().expect("a temporary folder");
        // A port that was just free.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        if encrypts {
            let made = Command::new("sh").args(["-c", KEY, "key"]).arg(dir.path()).status().expect("sh runs");
            assert!(made.success(), "openssl makes a certificate");
        }
        let config = CONFIG
            .replace("TLS", if encrypts { TLS } else { "" })
            .replace("DIR", &dir.path().display().to_string())
            .replace("PORT", &port.to_string())
            .replace("PREFIX", prefix)
            .replace("HOST", host)
            .replace("PARAMS", params);
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, config).expect("the configuration can be written");
        let process = Command::new(program())
            .args(["-e", "stderr", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx starts");
        let proxy = ReverseProxy {
            address: format!("http{}://127.0.0.1:{port}", if encrypts { "s" } else { "" }),
            dir,
            process,
        };
        eventually("nginx listens", || TcpStream::connect(("127.0.0.1", port)).ok());
        proxy
    }

    /// One line for each request so far, with its status.
    pub(crate) fn requests(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default()
    }

    /// The proxy's address, without the prefix.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for ReverseProxy {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn program() -> PathBuf {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nginx");
    let output = Command::new("sh").args(["-c", PROGRAM, "program"]).arg(cache).output().expect("sh runs");
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(
        output.status.success() && !path.is_empty(),
        "nginx is missing: {}\ninstall it (Debian: apt-get install nginx)",
        String::from_utf8_lossy(&output.stderr)
    );
    path.into()
}
