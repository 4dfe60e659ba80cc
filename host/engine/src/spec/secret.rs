//! Secrets: values that the host puts into the headers of a plugin's requests, and that the plugin never sees.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, de};
use wharf_core::bounds;

use crate::spec::http_grant::HttpGrant;

/// The name of a secret: lower-case letters, digits and dashes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretName(String);

impl SecretName {
    /// Returns the name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the environment variable in which a plugin reads the placeholder of the secret. No two names have the same one.
    pub fn variable(&self) -> String {
        format!("WHARF_SECRET_{}", self.0.to_ascii_uppercase().replace('-', "_"))
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SecretName {
    type Err = String;

    fn from_str(text: &str) -> Result<SecretName, String> {
        let is_valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_short = (1..=bounds::SECRET_NAME_BYTES_MAX).contains(&text.len());
        if is_short && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(is_valid) {
            return Ok(SecretName(text.to_owned()));
        }
        // Whoever confuses the name with the value has it in no error.
        Err(format!(
            "invalid name of a secret: expected a lower-case letter, then lower-case letters, digits and `-`, at most {} in all",
            bounds::SECRET_NAME_BYTES_MAX
        ))
    }
}

/// A place that a secret may be sent to: a host, by TLS only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretHost(HttpGrant);

impl SecretHost {
    /// Returns true if a request to this place may have the secret.
    pub(crate) fn is_for(&self, tls: bool, host: &str, port: u16) -> bool {
        self.0.grants(tls, host, port)
    }

    /// Returns true if a request to this place may be granted by one of these grants.
    pub(crate) fn is_within(&self, grants: &[HttpGrant]) -> bool {
        grants.iter().any(|grant| grant.covers(&self.0) || self.0.covers(grant))
    }
}

impl FromStr for SecretHost {
    type Err = String;

    fn from_str(text: &str) -> Result<SecretHost, String> {
        let place = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let grant: HttpGrant = place.parse().map_err(|_| {
            "invalid host: expected one such as \"api.example.com\" or \"api.example.com:8443\"".to_owned()
        })?;
        if grant.is_tls() {
            Ok(SecretHost(grant))
        } else {
            Err("invalid host: a secret is sent over https only; leave out `http://`".to_owned())
        }
    }
}

impl fmt::Display for SecretHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The value of a secret. Its bytes are printable ASCII, so that any header can have it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Box<str>);

impl SecretValue {
    /// Returns the value in a text that was read, without one line end at its end: most programs that write a file add one.
    ///
    /// # Errors
    /// A reason that does not quote the text.
    pub fn of(text: &str) -> Result<SecretValue, String> {
        let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        if text.len() < bounds::SECRET_BYTES_MIN {
            return Err(format!(
                "it is shorter than {} bytes: it could not be told from other text in a response",
                bounds::SECRET_BYTES_MIN
            ));
        }
        if text.len() > bounds::SECRET_BYTES_MAX {
            return Err(format!("it is longer than {} bytes", bounds::SECRET_BYTES_MAX));
        }
        if let Some(at) = text.bytes().position(|byte| !(b' '..=b'~').contains(&byte)) {
            let what = if text.as_bytes()[at] == b'\n' { "a line end" } else { "no printable ASCII character" };
            return Err(format!("byte {} is {what}, which no header can have", at + 1));
        }
        if text.starts_with(' ') || text.ends_with(' ') {
            return Err("it begins or ends with a space, which a header would lose".to_owned());
        }
        Ok(SecretValue(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

/// A secret of the settings file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// The hosts that it may be sent to.
    pub hosts: Vec<SecretHost>,
    /// The value, or why this process does not have it.
    pub value: Result<SecretValue, String>,
    /// The values that the secret had before in this process, the newest first: a server may still send them back.
    pub earlier: Vec<SecretValue>,
}

impl Secret {
    /// Takes over from `old`, this secret as it was read before, the values that it had: at most `bounds::SECRET_EARLIER_MAX` of them.
    pub fn succeed(&mut self, old: &Secret) {
        let had = old.value.iter().chain(&old.earlier).filter(|had| self.value.as_ref() != Ok(*had));
        self.earlier = had.take(bounds::SECRET_EARLIER_MAX).cloned().collect();
    }
}

/// A secret that a plugin may have put into its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretGrant {
    /// The name of the secret.
    pub name: SecretName,
    /// The secret; `None` as long as the settings of the plugin stand alone.
    pub secret: Option<Arc<Secret>>,
}

impl SecretGrant {
    /// Returns the value, if this process has it.
    pub(crate) fn value(&self) -> Option<&SecretValue> {
        self.secret.as_ref()?.value.as_ref().ok()
    }

    /// Returns the value and those that it replaced, as far as this process has them.
    pub(crate) fn values(&self) -> impl Iterator<Item = &SecretValue> {
        self.secret.iter().flat_map(|secret| secret.value.iter().chain(&secret.earlier))
    }

    /// Returns why requests have the placeholder and not the value, if that is so.
    pub fn missing(&self) -> Option<&str> {
        match &self.secret {
            Some(secret) => secret.value.as_ref().err().map(String::as_str),
            None => Some("it is not in the settings file"),
        }
    }

    /// Returns true if a request to this place may have the value.
    pub(crate) fn is_for(&self, tls: bool, host: &str, port: u16) -> bool {
        self.secret.as_ref().is_some_and(|secret| secret.hosts.iter().any(|at| at.is_for(tls, host, port)))
    }
}

/// The secrets of one plugin, in the order of the list in its settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretGrants(Vec<SecretGrant>);

impl SecretGrants {
    /// Returns the grants.
    pub fn iter(&self) -> impl Iterator<Item = &SecretGrant> {
        self.0.iter()
    }

    /// Returns true if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives each grant the secret of its name.
    pub fn resolve(&mut self, secret: impl Fn(&SecretName) -> Option<Arc<Secret>>) {
        for grant in &mut self.0 {
            grant.secret = secret(&grant.name);
        }
    }

    /// Returns true if `new` lacks one of these secrets, or one of its hosts. Another value is no less.
    pub(crate) fn has_more_than(&self, new: &SecretGrants) -> bool {
        let has_hosts = |old: &SecretGrant, new: &SecretGrant| {
            let hosts =
                |grant: &SecretGrant| grant.secret.as_ref().map(|secret| secret.hosts.clone()).unwrap_or_default();
            let new = hosts(new);
            hosts(old).iter().all(|old| new.iter().any(|new| new.0.covers(&old.0)))
        };
        !self.0.iter().all(|old| new.0.iter().any(|new| new.name == old.name && has_hosts(old, new)))
    }
}

impl<'de> Deserialize<'de> for SecretGrants {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<SecretGrants, D::Error> {
        struct Names;
        impl<'de> de::Visitor<'de> for Names {
            type Value = SecretGrants;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of names of secrets")
            }

            fn visit_str<E: de::Error>(self, _: &str) -> Result<SecretGrants, E> {
                // The usual error would quote it, and it may be a value.
                Err(E::custom("expected a list of names of secrets, such as [\"stripe\"]"))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<SecretGrants, A::Error> {
                let mut grants: Vec<SecretGrant> = Vec::new();
                while let Some(name) = list.next_element::<String>()? {
                    let name: SecretName = name.parse().map_err(de::Error::custom)?;
                    if grants.iter().any(|grant| grant.name == name) {
                        return Err(de::Error::custom(format!("the secret `{name}` is named twice; leave one out")));
                    }
                    if grants.len() == bounds::PLUGIN_SECRETS_MAX {
                        let max = bounds::PLUGIN_SECRETS_MAX;
                        return Err(de::Error::custom(format!("too many secrets; the limit is {max} for a plugin")));
                    }
                    grants.push(SecretGrant { name, secret: None });
                }
                Ok(SecretGrants(grants))
            }
        }
        from.deserialize_seq(Names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_not_part_of_a_value_and_what_no_header_can_have_is_refused() {
        for text in ["sk_live_1", "sk_live_1\n", "sk_live_1\r\n"] {
            assert_eq!(SecretValue::of(text).unwrap().as_str(), "sk_live_1", "{text:?}");
        }
        let long = "x".repeat(bounds::SECRET_BYTES_MAX + 1);
        for (text, why) in [
            ("", "it is empty"),
            ("\n", "it is empty"),
            ("sk_live", "it is shorter than 8 bytes"),
            (long.as_str(), "it is longer than 2048 bytes"),
            ("sk_live_1\n\n", "byte 10 is a line end"),
            ("sk_live_1\nmore", "byte 10 is a line end"),
            ("sk_live\u{e9}1", "byte 8 is no printable ASCII character"),
            ("sk_live\t1", "byte 8 is no printable ASCII character"),
            (" sk_live_1", "it begins or ends with a space"),
        ] {
            let error = SecretValue::of(text).unwrap_err();
            assert!(error.starts_with(why), "{text:?}: {error}");
            assert!(text.len() < 4 || !error.contains(text), "{error}");
        }
        assert_eq!(format!("{:?}", SecretValue::of("sk_live_1").unwrap()), "(not shown)");
    }

    #[test]
    fn the_last_values_before_are_kept() {
        let value = |text: &str| SecretValue::of(text);
        let read = |text: &str, old: &Secret| {
            let mut new = Secret { hosts: Vec::new(), value: value(text), earlier: Vec::new() };
            new.succeed(old);
            new
        };
        let texts = |secret: &Secret| secret.earlier.iter().map(|value| value.as_str().to_owned()).collect::<Vec<_>>();
        let first = Secret { hosts: Vec::new(), value: value("value-one"), earlier: Vec::new() };
        let second = read("value-two", &first);
        assert_eq!(texts(&second), ["value-one"]);
        assert_eq!(read("value-two", &second), second, "nothing changed");
        let third = read("value-three", &second);
        assert_eq!(texts(&third), ["value-two", "value-one"]);
        assert_eq!(texts(&read("value-four", &third)), ["value-three", "value-two"]);
        assert_eq!(texts(&read("value-one", &third)), ["value-three", "value-two"], "it is the value again");
    }

    #[test]
    fn names_and_hosts_are_checked() {
        assert_eq!("stripe-live".parse::<SecretName>().unwrap().variable(), "WHARF_SECRET_STRIPE_LIVE");
        for name in ["", "Stripe", "a_b", "1a", "-a", "a b", "sk_live_key", &"a".repeat(65)] {
            let error = name.parse::<SecretName>().unwrap_err();
            assert!(
                error.starts_with("invalid name of a secret") && (name.len() < 3 || !error.contains(name)),
                "{error}"
            );
        }
        let host = |text: &str| text.parse::<SecretHost>();
        assert!(host("api.stripe.com").unwrap().is_for(true, "API.stripe.com.", 443));
        assert!(!host("api.stripe.com").unwrap().is_for(false, "api.stripe.com", 443));
        assert!(!host("api.stripe.com").unwrap().is_for(true, "api.stripe.com", 8443));
        assert!(!host("api.stripe.com").unwrap().is_for(true, "api.stripe.com.evil.example", 443));
        assert!(host("*.stripe.com:8443").unwrap().is_for(true, "a.stripe.com", 8443));
        assert_eq!(host("https://127.0.0.1:8443").unwrap().to_string(), "https://127.0.0.1:8443");
        assert!(host("http://api.stripe.com").unwrap_err().contains("over https only"));
        for bad in ["", "a/b", "a b", "*", "ftp://a", "https://"] {
            assert!(host(bad).unwrap_err().starts_with("invalid host: "), "{bad}");
        }
    }
}
