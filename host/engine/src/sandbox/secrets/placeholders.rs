//! The placeholders of one attempt. The guest has them in its environment; in the headers of a request to a host of a secret, the value
//! takes the place of its placeholder.

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine as _};
use http::header::{ACCEPT_CHARSET, ACCEPT_ENCODING, HOST, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Uri};
use tokio_rustls::rustls::crypto::SecureRandom;
use wharf_core::bounds;

use super::matcher::Matcher;
use crate::spec::secret::{SecretGrant, SecretGrants};

/// The beginning of every placeholder. No character of one is changed by percent-encoding.
const PREFIX: &str = "wharf_secret_";
/// Random bytes of a placeholder.
const RANDOM_BYTES: usize = 16;
/// Base64 as programs send it, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The placeholders of one attempt, and the values that take their places.
#[derive(Debug)]
pub(crate) struct Placeholders {
    all: Vec<Placeholder>,
    /// Finds them in bodies. Made for the first one.
    matcher: OnceLock<Matcher>,
}

#[derive(Debug)]
struct Placeholder {
    text: String,
    grant: SecretGrant,
}

/// The place that a request goes to.
#[derive(Clone, Copy)]
pub(crate) struct Destination<'a> {
    pub(crate) tls: bool,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
}

/// A part of a request in which a placeholder goes out as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A header that is not for a host of the secret, or whose value is unknown here.
    Header,
    Url,
    Body,
}

impl Part {
    /// Returns the name that metrics carry. Never changed once released.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Part::Header => "header",
            Part::Url => "url",
            Part::Body => "body",
        }
    }
}

/// More placeholders stand in the headers of a request than are replaced.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Placeholders {
    /// Makes the placeholders of an attempt; `None` if its plugin has no secrets.
    ///
    /// # Errors
    /// When the machine has no random numbers.
    pub(crate) fn new(secrets: &SecretGrants, random: &dyn SecureRandom) -> Result<Option<Arc<Placeholders>>, String> {
        if secrets.is_empty() {
            return Ok(None);
        }
        let mut all = Vec::new();
        for grant in secrets.iter() {
            let mut bytes = [0; RANDOM_BYTES];
            random.fill(&mut bytes).map_err(|_| "could not get random numbers for a placeholder".to_owned())?;
            let mut text = format!("{PREFIX}{}_", grant.name);
            for byte in bytes {
                // Writing to a string does not fail.
                let _ = write!(text, "{byte:02x}");
            }
            all.push(Placeholder { text, grant: grant.clone() });
        }
        Ok(Some(Arc::new(Placeholders { all, matcher: OnceLock::new() })))
    }

    /// Returns the environment variables of the guest.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (String, &str)> {
        self.all.iter().map(|one| (one.grant.name.variable(), one.text.as_str()))
    }

    /// Returns a secret by its place in the plugin's list.
    pub(crate) fn grant(&self, at: usize) -> Option<&SecretGrant> {
        self.all.get(at).map(|one| &one.grant)
    }

    /// Returns true if a request to this place may have the value of a secret.
    pub(crate) fn is_for(&self, to: Destination<'_>) -> bool {
        self.all.iter().any(|one| one.may_go(to))
    }

    /// Finds them in bytes, as a body has them.
    pub(super) fn matcher(&self) -> &Matcher {
        self.matcher.get_or_init(|| Matcher::new(self.all.iter().map(|one| one.text.as_bytes())))
    }

    /// Puts the values into the headers of a request, and returns the placeholders that go out as they are: each with its place in the
    /// plugin's list and the part of the request.
    ///
    /// # Errors
    /// [`TooMany`] if the request is not to be sent.
    pub(crate) fn put(
        &self,
        uri: &Uri,
        headers: &mut HeaderMap,
        to: Destination<'_>,
    ) -> Result<Vec<(usize, Part)>, TooMany> {
        let mut strays = self.strays(&uri.to_string(), Part::Url);
        let names: Vec<&str> = headers.keys().map(http::HeaderName::as_str).collect();
        strays.extend(names.into_iter().flat_map(|name| self.strays(name, Part::Header)));
        let mut put = 0;
        for (_, value) in headers.iter_mut().filter(|(name, _)| *name != HOST) {
            // In bytes: a name before a placeholder may be in Latin-1.
            let replaced = match basic(value.as_bytes()) {
                Some((scheme, decoded)) if has(&decoded, PREFIX) => self
                    .replaced(&decoded, to, &mut strays, &mut put)
                    .map(|bytes| [scheme, b" ", BASE64.encode(bytes).as_bytes()].concat()),
                _ if has(value.as_bytes(), PREFIX) => self.replaced(value.as_bytes(), to, &mut strays, &mut put),
                _ => None,
            };
            if put > bounds::SECRETS_PUT_MAX {
                return Err(TooMany);
            }
            let replaced = replaced.and_then(|bytes| HeaderValue::from_bytes(&bytes).ok());
            if let Some(mut replaced) = replaced {
                replaced.set_sensitive(true);
                *value = replaced;
            }
        }
        if self.is_for(to) {
            // A compressed response would hide a value from its mask, as would a part of one, and one of another charset.
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            for name in [RANGE, IF_RANGE, ACCEPT_CHARSET] {
                headers.remove(name);
            }
        }
        Ok(strays)
    }

    /// Returns bytes with values in place of their placeholders; `None` if they stay as they are.
    fn replaced(
        &self,
        bytes: &[u8],
        to: Destination<'_>,
        strays: &mut Vec<(usize, Part)>,
        put: &mut usize,
    ) -> Option<Vec<u8>> {
        let mut whole: Option<Vec<u8>> = None;
        for (at, one) in self.all.iter().enumerate() {
            let count = count(bytes, one.text.as_bytes());
            if count == 0 {
                continue;
            }
            match one.grant.value().filter(|_| one.may_go(to)) {
                Some(value) => {
                    *put += count;
                    if *put > bounds::SECRETS_PUT_MAX {
                        return None;
                    }
                    // No value can have a placeholder of this attempt.
                    let before = whole.as_deref().unwrap_or(bytes);
                    whole = Some(with(before, one.text.as_bytes(), value.as_str().as_bytes()));
                }
                None => strays.push((at, Part::Header)),
            }
        }
        whole
    }

    fn strays(&self, text: &str, part: Part) -> Vec<(usize, Part)> {
        if !text.contains(PREFIX) {
            return Vec::new();
        }
        let found = self.all.iter().enumerate().filter(|(_, one)| text.contains(one.text.as_str()));
        found.map(|(at, _)| (at, part)).collect()
    }
}

impl Placeholder {
    fn may_go(&self, to: Destination<'_>) -> bool {
        to.tls && self.grant.is_for(to.tls, to.host, to.port)
    }
}

/// Returns the scheme of the value of a header for basic authentication, and what it encodes.
fn basic(value: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let value = value.trim_ascii_start();
    let (scheme, rest) = value.split_at(value.iter().position(|byte| *byte == b' ')?);
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    Some((scheme, BASE64.decode(rest.trim_ascii()).ok()?))
}

fn has(bytes: &[u8], text: &str) -> bool {
    find(bytes, text.as_bytes()).is_some()
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

fn count(mut bytes: &[u8], text: &[u8]) -> usize {
    let mut count = 0;
    while let Some(at) = find(bytes, text) {
        count += 1;
        bytes = &bytes[at + text.len()..];
    }
    count
}

/// Returns bytes with `new` in each place of `old`.
fn with(mut bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(bytes.len());
    while let Some(at) = find(bytes, old) {
        whole.extend_from_slice(&bytes[..at]);
        whole.extend_from_slice(new);
        bytes = &bytes[at + old.len()..];
    }
    whole.extend_from_slice(bytes);
    whole
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::crypto::ring::default_provider;

    use super::*;
    use crate::spec::grants::PluginSettings;
    use crate::spec::secret::{Secret, SecretValue};

    const STRIPE: &str = "sk_live_7f3a";
    const HERE: Destination<'static> = Destination { tls: true, host: "api.stripe.com", port: 443 };

    fn placeholders() -> Arc<Placeholders> {
        let mut settings: PluginSettings =
            crate::spec::toml_diagnostics::read("secrets = ['stripe', 'other', 'absent']").unwrap();
        settings.secrets.resolve(|name| {
            let (host, value) = match name.as_str() {
                "stripe" => ("api.stripe.com", SecretValue::of(STRIPE)),
                "other" => ("other.example", SecretValue::of("other-value")),
                _ => ("api.stripe.com", Err("it is not here".to_owned())),
            };
            Some(Arc::new(Secret { hosts: vec![host.parse().unwrap()], value, earlier: Vec::new() }))
        });
        Placeholders::new(&settings.secrets, default_provider().secure_random).unwrap().unwrap()
    }

    fn put(of: &Placeholders, headers: &[(&str, &str)], to: Destination<'_>) -> (Vec<String>, Vec<(usize, Part)>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let strays = of.put(&Uri::from_static("https://api.stripe.com/"), &mut map, to).unwrap();
        let text = |name: &str| map.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        (headers.iter().map(|(name, _)| text(name)).collect(), strays)
    }

    #[test]
    fn values_go_into_headers_to_their_hosts_and_nowhere_else() {
        let of = placeholders();
        let all: Vec<(String, &str)> = of.variables().collect();
        assert_eq!(all[0].0, "WHARF_SECRET_STRIPE");
        let (stripe, other, absent) = (all[0].1, all[1].1, all[2].1);
        let bearer = format!("Bearer {stripe}");
        let sent = |headers: &[(&str, &str)], to| put(&of, headers, to);
        assert_eq!(sent(&[("authorization", &bearer)], HERE), (vec![format!("Bearer {STRIPE}")], vec![]));
        let basic = |text: &str| format!("bAsic {}", BASE64.encode(text));
        let (value, strays) = sent(&[("authorization", &basic(&format!("user:{stripe}")))], HERE);
        assert_eq!((value, strays), (vec![basic(&format!("user:{STRIPE}"))], vec![]));
        let unpadded = basic(&format!("user:{stripe}")).trim_end_matches('=').to_owned();
        assert_eq!(sent(&[("authorization", &unpadded)], HERE).0, [basic(&format!("user:{STRIPE}"))]);
        // A name in Latin-1, as browsers and old programs send it.
        let latin = |secret: &str| format!("Basic {}", BASE64.encode([b"\xfcser:", secret.as_bytes()].concat()));
        assert_eq!(sent(&[("authorization", &latin(stripe))], HERE), (vec![latin(STRIPE)], vec![]));
        let elsewhere = Destination { host: "else.example", ..HERE };
        assert_eq!(
            sent(&[("authorization", &latin(stripe))], elsewhere),
            (vec![latin(stripe)], vec![(0, Part::Header)])
        );
        let two = format!("{stripe}, {stripe}");
        assert_eq!(sent(&[("x-a", &two)], HERE).0, [format!("{STRIPE}, {STRIPE}")]);

        for (to, why) in [
            (Destination { tls: false, ..HERE }, "without TLS"),
            (Destination { host: "stripe.com", ..HERE }, "another host"),
            (Destination { host: "api.stripe.com.evil.example", ..HERE }, "a longer name"),
            (Destination { port: 8443, ..HERE }, "another port"),
        ] {
            assert_eq!(
                sent(&[("authorization", &bearer)], to),
                (vec![bearer.clone()], vec![(0, Part::Header)]),
                "{why}"
            );
        }
        // Each goes to its own hosts, and one without a value nowhere.
        let (values, strays) = sent(&[("x-a", other), ("x-b", absent)], HERE);
        assert_eq!(
            (values, strays),
            (vec![other.to_owned(), absent.to_owned()], vec![(1, Part::Header), (2, Part::Header)])
        );
        // In a name of a header it stays.
        assert_eq!(sent(&[(stripe, "1")], HERE), (vec!["1".to_owned()], vec![(0, Part::Header)]));
        let uri: Uri = format!("https://api.stripe.com/a?key={stripe}").parse().unwrap();
        assert_eq!(of.put(&uri, &mut HeaderMap::new(), HERE).unwrap(), [(0, Part::Url)]);
    }

    #[test]
    fn placeholders_differ_and_too_many_are_refused() {
        let (of, again) = (placeholders(), placeholders());
        let text = |of: &Placeholders| of.variables().next().unwrap().1.to_owned();
        assert_ne!(text(&of), text(&again), "each attempt has its own");
        assert_eq!(put(&again, &[("x-a", &text(&of))], HERE), (vec![text(&of)], vec![]), "that of another is a text");
        let many = |count| {
            let mut map = HeaderMap::new();
            map.insert("x-a", HeaderValue::from_str(&text(&of).repeat(count)).unwrap());
            of.put(&Uri::from_static("/"), &mut map, HERE).map(drop)
        };
        assert_eq!(many(bounds::SECRETS_PUT_MAX), Ok(()));
        assert_eq!(many(bounds::SECRETS_PUT_MAX + 1), Err(TooMany));
    }

    #[test]
    fn only_whole_and_plain_responses_are_asked_for_where_a_value_may_come_back() {
        let of = placeholders();
        let mut map = HeaderMap::new();
        let asked = [(ACCEPT_ENCODING, "gzip"), (RANGE, "bytes=0-3"), (IF_RANGE, "\"a\""), (ACCEPT_CHARSET, "utf-16")];
        for (name, value) in &asked {
            map.append(name, HeaderValue::from_static(value));
            map.append(name, HeaderValue::from_static(value));
        }
        of.put(&Uri::from_static("/"), &mut map, Destination { host: "else.example", ..HERE }).unwrap();
        for (name, value) in asked {
            assert_eq!((&map[&name], map.get_all(&name).iter().count()), (&HeaderValue::from_static(value), 2));
        }
        of.put(&Uri::from_static("/"), &mut map, HERE).unwrap();
        assert_eq!((map.len(), &map[ACCEPT_ENCODING]), (1, &HeaderValue::from_static("identity")));
    }
}
