//! What the operator grants one plugin. Nothing is granted by default: no network, no files, no environment.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};
use wharf_core::bounds;

use crate::spec::ip_policy::{self, IpRange};
use crate::spec::raw::{HumanSize, RawReceive, RawTask, Subscription};

/// `[plugins.NAME]` of the settings file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PluginSettings {
    /// Where the plugin may send HTTP requests: "https://api.example.com", "https://*.example.com:8443".
    #[serde(default)]
    pub http: Vec<HttpGrant>,
    /// Addresses outside the public internet that granted names may lead to: "10.0.0.0/8".
    #[serde(default)]
    pub addresses: Vec<AddressGrant>,
    /// Its environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Folders of this machine that it sees.
    #[serde(default)]
    pub dirs: Vec<DirGrant>,
    /// What it reads through `wasi:config`.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Whether it may keep values in the store, and how many bytes of them: `true`, or a size.
    #[serde(default)]
    pub kv: KvGrant,
    /// In place of its manifest's; empty, and no broadcast reaches it.
    pub topics: Option<Vec<Subscription>>,
    /// On top of its manifest, as `tasks` is.
    pub receive: Option<RawReceive>,
    #[serde(default)]
    pub tasks: BTreeMap<String, RawTask>,
}

/// A folder of this machine, and where the plugin sees it. Read-only unless said.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DirGrant {
    pub host: PathBuf,
    pub guest: String,
    #[serde(default)]
    pub writable: bool,
}

/// One entry of the HTTP allow list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGrant {
    tls: bool,
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(String),
    /// All names below this one, not itself.
    Below(String),
    Address(IpAddr),
}

/// What a plugin may keep in the store; nothing unless said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvGrant(Option<u64>);

/// Addresses that are not of the public internet, granted all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressGrant(IpRange);

impl PluginSettings {
    /// Whether a request to this place is granted, before its name is resolved.
    pub(crate) fn grants_request(&self, tls: bool, host: &str, port: u16) -> bool {
        let host = Host::asked(host);
        self.http.iter().any(|grant| grant.tls == tls && grant.port == port && grant.host.covers(&host))
    }

    /// How many bytes of keys and values it may keep, if it may keep any.
    pub fn kv_bytes_max(&self) -> Option<u64> {
        self.kv.0
    }

    /// Whether a connection to an address is granted, for a granted request to this place.
    ///
    /// An address in the allow list opens itself only: a name is in the hands of whoever answers for it,
    /// and would else choose among all addresses that were meant for other requests.
    pub(crate) fn grants_address(&self, tls: bool, host: &str, port: u16, address: IpAddr) -> bool {
        let is_itself =
            || Host::asked(host) == Host::Address(address.to_canonical()) && self.grants_request(tls, host, port);
        ip_policy::is_public(address) || self.addresses.iter().any(|grant| grant.0.holds(address)) || is_itself()
    }
}

impl Host {
    fn asked(text: &str) -> Host {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            Ok(address) => Host::Address(address.to_canonical()),
            Err(_) => Host::Name(bare.trim_end_matches('.').to_ascii_lowercase()),
        }
    }

    fn covers(&self, asked: &Host) -> bool {
        match (self, asked) {
            (Host::Below(parent), Host::Name(name)) => {
                name.strip_suffix(parent.as_str()).is_some_and(|head| head.len() > 1 && head.ends_with('.'))
            }
            (granted, asked) => granted == asked,
        }
    }
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        match &self.host {
            Host::Name(name) => write!(f, "{scheme}://{name}:{}", self.port),
            Host::Below(name) => write!(f, "{scheme}://*.{name}:{}", self.port),
            Host::Address(IpAddr::V6(v6)) => write!(f, "{scheme}://[{v6}]:{}", self.port),
            Host::Address(v4) => write!(f, "{scheme}://{v4}:{}", self.port),
        }
    }
}

impl FromStr for HttpGrant {
    type Err = String;
    fn from_str(text: &str) -> Result<HttpGrant, String> {
        let bad = |why: &str| {
            format!(
                "`{text}` {why}: \"https://api.example.com\", \"https://*.example.com\" or \"http://10.1.2.3:8080\" would be right"
            )
        };
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(bad("does not begin with https:// or http://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(bad("names more than a scheme, a host and a port"));
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| bad("has no usable port"))?),
            _ => (rest, if tls { 443 } else { 80 }),
        };
        let host = match host.strip_prefix("*.") {
            Some(parent) if is_host_name(parent) => Host::Below(parent.to_ascii_lowercase()),
            Some(_) => return Err(bad("has no name after `*.`")),
            None => Host::asked(host),
        };
        match &host {
            Host::Name(name) if !is_host_name(name) => Err(bad("has no usable host")),
            _ => Ok(HttpGrant { tls, host, port }),
        }
    }
}

fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .split('.')
            .all(|label| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'))
}

impl<'de> Deserialize<'de> for HttpGrant {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<HttpGrant, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for AddressGrant {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<AddressGrant, D::Error> {
        String::deserialize(from)?.parse().map(AddressGrant).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for KvGrant {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<KvGrant, D::Error> {
        struct TrueOrSize;
        impl de::Visitor<'_> for TrueOrSize {
            type Value = KvGrant;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, or how much it may keep, such as \"64MiB\"")
            }
            fn visit_bool<E: de::Error>(self, granted: bool) -> Result<KvGrant, E> {
                Ok(KvGrant(granted.then_some(bounds::KV_BYTES_DEFAULT)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<KvGrant, E> {
                let HumanSize(bytes) = HumanSize::deserialize(de::value::StrDeserializer::<E>::new(text))?;
                if bytes > bounds::KV_BYTES_MAX {
                    let max = bounds::KV_BYTES_MAX / (1024 * bounds::MIB);
                    return Err(E::custom(format!("`{text}` is more than a plugin can keep: {max} GiB is the most")));
                }
                Ok(KvGrant(Some(bytes)))
            }
        }
        from.deserialize_any(TrueOrSize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> PluginSettings {
        crate::spec::toml_diagnostics::read(text).unwrap()
    }

    #[test]
    fn nothing_is_granted_by_default() {
        let none = PluginSettings::default();
        assert!(!none.grants_request(true, "example.com", 443));
        assert!(!none.grants_address(false, "127.0.0.1", 80, "127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_may_be_kept_is_nothing_unless_said_or_a_size() {
        assert_eq!(settings("").kv_bytes_max(), None);
        assert_eq!(settings("kv = false").kv_bytes_max(), None);
        assert_eq!(settings("kv = true").kv_bytes_max(), Some(bounds::KV_BYTES_DEFAULT));
        assert_eq!(settings("kv = '1MiB'").kv_bytes_max(), Some(bounds::MIB));
        let told = |text: &str| crate::spec::toml_diagnostics::read::<PluginSettings>(text).unwrap_err()[0].to_string();
        assert!(told("kv = '1TiB'").contains("64 GiB is the most"), "{}", told("kv = '1TiB'"));
        assert!(told("kv = 3").contains("such as \"64MiB\""), "{}", told("kv = 3"));
        assert!(told("kv = 'much'").contains("is not a size"), "{}", told("kv = 'much'"));
    }

    #[test]
    fn the_allow_list_means_scheme_host_and_port() {
        let some = settings(r#"http = ["https://api.example.com", "https://*.example.org:8443", "http://[::1]:9000"]"#);
        assert!(some.grants_request(true, "API.example.com.", 443));
        assert!(!some.grants_request(false, "api.example.com", 443));
        assert!(!some.grants_request(true, "api.example.com", 444));
        assert!(!some.grants_request(true, "api.example.com.evil.net", 443));
        assert!(some.grants_request(true, "a.b.example.org", 8443));
        assert!(!some.grants_request(true, "example.org", 8443));
        assert!(!some.grants_request(true, "evilexample.org", 8443));
        assert!(some.grants_request(false, "[::1]", 9000));
    }

    #[test]
    fn an_address_in_the_allow_list_opens_itself_only() {
        let some = settings(r#"http = ["http://[::1]:9000", "http://127.0.0.1:9000", "http://name.example:9000"]"#);
        let reaches = |tls, host, port, address: &str| some.grants_address(tls, host, port, address.parse().unwrap());
        assert!(reaches(false, "[::1]", 9000, "::1"));
        assert!(reaches(false, "127.0.0.1", 9000, "127.0.0.1"));
        assert!(!reaches(false, "[::1]", 9000, "::2"));
        assert!(!reaches(false, "[::1]", 9000, "127.0.0.1"));
        assert!(!reaches(false, "[::1]", 9001, "::1"));
        assert!(!reaches(true, "[::1]", 9000, "::1"));
        assert!(!reaches(false, "name.example", 9000, "::1"));
        assert!(!reaches(false, "name.example", 9000, "127.0.0.1"));
    }

    #[test]
    fn private_addresses_are_granted_by_address() {
        let some = settings(r#"addresses = ["10.0.0.0/8"]"#);
        assert!(some.grants_address(true, "name.example", 443, "10.9.9.9".parse().unwrap()));
        assert!(!some.grants_address(true, "name.example", 443, "192.168.0.1".parse().unwrap()));
    }

    #[test]
    fn a_bad_entry_says_what_would_be_right() {
        for text in ["example.com", "https://", "https://a/b", "https://*.", "https://x:99999", "https://u@h"] {
            let told = text.parse::<HttpGrant>().unwrap_err();
            assert!(told.contains("would be right"), "{told}");
        }
    }
}
