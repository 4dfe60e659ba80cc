//! The operator's settings for one plugin. Nothing is granted by default: no network, no files, no environment.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use wharf_core::bounds;

use crate::spec::duration::HumanDuration;
use crate::spec::http_grant::{HttpGrant, is_address};
use crate::spec::ip_policy::{self, IpRange};
use crate::spec::problem::Problem;
use crate::spec::raw::{HumanSize, RawReceive, RawTask, Subscription};
use crate::spec::secret::SecretGrants;

/// The table `[plugins.NAME]` of the settings file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PluginSettings {
    /// Places to which the plugin may send HTTP requests, such as `"https://api.example.com"` or
    /// `"https://*.example.com:8443"`.
    #[serde(default)]
    pub http: Vec<HttpGrant>,
    /// Addresses outside the public internet to which granted names may lead, such as "10.0.0.0/8".
    #[serde(default)]
    pub addresses: Vec<AddressGrant>,
    /// Environment variables of the plugin.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Folders of this machine that the plugin may use.
    #[serde(default)]
    pub dirs: Vec<DirGrant>,
    /// Values that the plugin reads through `wasi:config`.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Secrets that the host puts into the headers of the plugin's requests.
    #[serde(default)]
    pub secrets: SecretGrants,
    /// Grant of values in the store, with the maximum of bytes: `true`, or a size.
    #[serde(default)]
    pub kv: KvGrant,
    /// Grant to hold the keys of its own jobs: for how long at most.
    #[serde(default)]
    pub hold_key: HoldKeyGrant,
    /// True if the key of a job is held when a request of the job is answered with 429 or 503 and `Retry-After`.
    #[serde(default)]
    pub honour_retry_after: bool,
    /// Maximum number of its jobs that wait, in place of the host's own setting.
    pub waiting_max: Option<u32>,
    /// Maximum number of generations of jobs that enqueue one another, in place of the host's own setting.
    pub generations_max: Option<u32>,
    /// Replaces the topics of the manifest; if it is empty, no broadcast reaches the plugin.
    pub topics: Option<Vec<Subscription>>,
    /// Overrides `[receive]` of the manifest.
    pub receive: Option<RawReceive>,
    /// Overrides the tasks of the manifest, by the name within the plugin.
    #[serde(default)]
    pub tasks: BTreeMap<String, RawTask>,
}

/// A folder of this machine, and where the plugin sees it. Read-only by default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DirGrant {
    /// The folder on this machine.
    pub host: PathBuf,
    /// The path under which the plugin sees it.
    pub guest: String,
    /// True if the plugin may write in it.
    #[serde(default)]
    pub writable: bool,
}

/// The grant of values in the store: nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvGrant(Option<u64>);

/// The grant to hold the keys of the plugin's jobs: not at all by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldKeyGrant(Option<Duration>);

impl<'de> Deserialize<'de> for HoldKeyGrant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HoldKeyGrant, D::Error> {
        let HumanDuration(length) = HumanDuration::deserialize(deserializer)?;
        let max = bounds::KEY_HOLD_MAX;
        if length.is_zero() || length > max {
            return Err(de::Error::custom(format!(
                "invalid `hold-key`: expected more than zero and at most {} hours, got {length:?}",
                max.as_secs() / 3600
            )));
        }
        Ok(HoldKeyGrant(Some(length)))
    }
}

/// A grant of addresses that are not of the public internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressGrant(IpRange);

impl PluginSettings {
    /// Returns a note on each folder that is granted and not there: no attempt of the plugin begins until it is.
    pub(crate) fn missing_folders(&self) -> Vec<Problem> {
        let missing = self.dirs.iter().filter(|dir| !dir.host.is_dir());
        let note = |dir: &DirGrant| {
            Problem::new(format!(
                "the folder {} that is granted to it is not there: its jobs wait until it is",
                dir.host.display()
            ))
            .hint("make the folder, or change `dirs`")
        };
        missing.map(note).collect()
    }

    /// Returns true if a request to this place is granted, before its name is resolved.
    pub(crate) fn grants_request(&self, tls: bool, host: &str, port: u16) -> bool {
        self.http.iter().any(|grant| grant.grants(tls, host, port))
    }

    /// Returns how many bytes of keys and values the plugin may keep; `None` if it may keep none.
    pub fn kv_bytes_max(&self) -> Option<u64> {
        self.kv.0
    }

    /// Returns for how long at most the plugin may hold the key of a job; `None` if it may not.
    pub fn hold_key_max(&self) -> Option<Duration> {
        self.hold_key.0
    }

    /// Returns for how long at most the key of a job is held for a `Retry-After`; `None` if it is not.
    pub(crate) fn retry_after_max(&self) -> Option<Duration> {
        self.honour_retry_after.then(|| self.hold_key_max().unwrap_or(bounds::RETRY_AFTER_HOLD_MAX))
    }

    /// Returns true if a connection to an address is granted, for a granted request to this place.
    ///
    /// An address in the allow list grants itself only: the owner of a name decides to which address it leads, and
    /// could otherwise choose among all addresses that were meant for other requests.
    pub(crate) fn grants_address(&self, tls: bool, host: &str, port: u16, address: IpAddr) -> bool {
        let is_itself = || is_address(host, address) && self.grants_request(tls, host, port);
        ip_policy::is_public(address) || self.addresses.iter().any(|grant| grant.0.contains(address)) || is_itself()
    }
}

impl AddressGrant {
    /// Returns true if every address that `other` grants is granted by this one, too.
    pub(crate) fn covers(&self, other: &AddressGrant) -> bool {
        self.0.covers(&other.0)
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
                f.write_str("true or a size, such as \"64MiB\"")
            }
            fn visit_bool<E: de::Error>(self, granted: bool) -> Result<KvGrant, E> {
                Ok(KvGrant(granted.then_some(bounds::KV_BYTES_DEFAULT)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<KvGrant, E> {
                let HumanSize(bytes) = HumanSize::deserialize(de::value::StrDeserializer::<E>::new(text))?;
                if bytes > bounds::KV_BYTES_MAX {
                    let max = bounds::KV_BYTES_MAX / (1024 * bounds::MIB);
                    return Err(E::custom(format!("`{text}` is too large; the limit is {max} GiB")));
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
    fn a_granted_folder_that_is_not_there_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let (there, missing) = (folder.path().display(), folder.path().join("missing"));
        let missing = missing.display();
        let text = format!("dirs = [{{ host = '{there}', guest = '/a' }}, {{ host = '{missing}', guest = '/b' }}]");
        let settings = self::settings(&text);
        let notes: Vec<String> = settings.missing_folders().iter().map(ToString::to_string).collect();
        assert_eq!(notes.len(), 1);
        assert!(notes[0].starts_with(&format!("the folder {missing} that is granted to it is not there")), "{notes:?}");
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
        let message =
            |text: &str| crate::spec::toml_diagnostics::read::<PluginSettings>(text).unwrap_err()[0].to_string();
        assert!(message("kv = '1TiB'").contains("the limit is 64 GiB"), "{}", message("kv = '1TiB'"));
        assert!(message("kv = 3").contains("such as \"64MiB\""), "{}", message("kv = 3"));
        assert!(message("kv = 'much'").contains("invalid size `much`"), "{}", message("kv = 'much'"));
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
}
