//! Masks the values of secrets in what a plugin receives: each byte of one becomes `*`, so that lengths stay as they were told.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::encodings::forms;
use super::matcher::{Matcher, Place};
use crate::spec::secret::SecretGrants;

/// The masks of the secrets of one plugin.
#[derive(Debug)]
pub(crate) struct Mask {
    matcher: Matcher,
    /// For each text of the matcher: the place of its secret in the plugin's list, and whether it is base64.
    texts: Vec<(usize, bool)>,
    /// The values as names of headers have them.
    names: Vec<String>,
}

impl Mask {
    /// Returns the masks of these secrets; `None` if there is no value to mask.
    pub(crate) fn new(secrets: &SecretGrants) -> Option<Mask> {
        let values: Vec<(usize, &str)> =
            secrets.iter().enumerate().filter_map(|(at, grant)| Some((at, grant.value()?.as_str()))).collect();
        let mut all: Vec<(Vec<u8>, usize, bool)> = Vec::new();
        for (at, value) in &values {
            all.extend(forms(value).into_iter().map(|form| (form.bytes, *at, form.is_base64)));
        }
        if all.is_empty() {
            return None;
        }
        let matcher = Matcher::new(all.iter().map(|(text, _, _)| text.as_slice()));
        let texts = all.iter().map(|(_, at, is_base64)| (*at, *is_base64)).collect();
        let names = values.iter().map(|(_, value)| value.to_ascii_lowercase()).collect();
        Some(Mask { matcher, texts, names })
    }

    /// Masks headers. Returns the places of the secrets that were found.
    pub(crate) fn headers(&self, headers: &mut HeaderMap) -> Vec<usize> {
        let mut found = Vec::new();
        let named: Vec<HeaderName> = headers
            .keys()
            .filter(|name| self.names.iter().any(|value| name.as_str().contains(value.as_str())))
            .cloned()
            .collect();
        for name in named {
            headers.remove(name);
        }
        for value in headers.values_mut() {
            let mut scan = Scan::default();
            let mut masked = scan.feed(self, Bytes::copy_from_slice(value.as_bytes())).to_vec();
            masked.extend_from_slice(&scan.finish());
            if !scan.found.is_empty() {
                // The rest is as it was, and `*` may stand anywhere.
                *value = HeaderValue::from_bytes(&masked).unwrap_or(HeaderValue::from_static("*"));
                found.append(&mut scan.found);
            }
        }
        found
    }
}

/// A search through one body.
#[derive(Debug, Default)]
pub(super) struct Scan {
    place: Place,
    /// Bytes that may be the beginning of a value.
    held: Bytes,
    /// The character after the last match has bits of the value if it is one of base64.
    is_next_masked: bool,
    /// The places of the secrets that were found, each once.
    pub(super) found: Vec<usize>,
}

impl Scan {
    /// Takes the next bytes, and returns those that are no part of a value that goes on: masked, and in order.
    pub(super) fn feed(&mut self, mask: &Mask, bytes: Bytes) -> Bytes {
        let known = self.held.len();
        let mut whole = bytes;
        if known > 0 {
            let mut joined = BytesMut::with_capacity(known + whole.len());
            joined.extend_from_slice(&self.held);
            joined.extend_from_slice(&whole);
            whole = joined.freeze();
        }
        // From and to of what is masked, in order and apart.
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for at in known..whole.len() {
            if std::mem::take(&mut self.is_next_masked) && is_base64(whole[at]) {
                add(&mut spans, at, at + 1);
            }
            self.place = mask.matcher.step(self.place, whole[at]);
            let Some((text, length)) = mask.matcher.found(self.place) else { continue };
            let (secret, in_base64) = mask.texts[text];
            let from = (at + 1).saturating_sub(length);
            let before = in_base64 && from > 0 && is_base64(whole[from - 1]);
            add(&mut spans, if before { from - 1 } else { from }, at + 1);
            self.is_next_masked = in_base64;
            if !self.found.contains(&secret) {
                self.found.push(secret);
            }
        }
        if !spans.is_empty() {
            let mut masked = BytesMut::from(whole);
            for (from, to) in spans {
                masked[from..to].fill(b'*');
            }
            whole = masked.freeze();
        }
        // One more than may be a beginning: it may be masked with it.
        let depth = mask.matcher.depth(self.place);
        let kept = if depth == 0 { 0 } else { (depth + 1).min(whole.len()) };
        self.held = whole.split_off(whole.len() - kept);
        whole
    }

    /// Returns true if nothing is held back.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Returns what was held back, at the end.
    pub(super) fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held)
    }
}

/// Adds a span that ends no earlier than those before it.
fn add(spans: &mut Vec<(usize, usize)>, mut from: usize, to: usize) {
    while let Some(last) = spans.last().filter(|last| last.1 >= from) {
        from = from.min(last.0);
        spans.pop();
    }
    spans.push((from, to));
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;
    use crate::spec::grants::PluginSettings;
    use crate::spec::secret::{Secret, SecretValue};

    const VALUE: &str = "sk_live/7f\"3+a&~9?";

    fn mask(values: &[&str]) -> Mask {
        let names: Vec<String> = (0..values.len()).map(|at| format!("'s{at}'")).collect();
        let mut settings: PluginSettings =
            crate::spec::toml_diagnostics::read(&format!("secrets = [{}]", names.join(", "))).unwrap();
        settings.secrets.resolve(|name| {
            let value = Ok(SecretValue::of(values[name.as_str()[1..].parse::<usize>().unwrap()]).unwrap());
            Some(Arc::new(Secret { hosts: Vec::new(), value }))
        });
        Mask::new(&settings.secrets).unwrap()
    }

    /// Masks a text that arrives in pieces of these lengths, one after the other and again.
    fn masked(mask: &Mask, text: &[u8], lengths: &[usize]) -> Vec<u8> {
        let (mut scan, mut out, mut at) = (Scan::default(), Vec::new(), 0);
        for length in lengths.iter().cycle() {
            let to = (at + length).min(text.len());
            out.extend_from_slice(&scan.feed(mask, Bytes::copy_from_slice(&text[at..to])));
            at = to;
            if at == text.len() {
                break;
            }
        }
        out.extend_from_slice(&scan.finish());
        assert_eq!(out.len(), text.len());
        out
    }

    #[test]
    fn every_form_is_masked_however_it_is_split() {
        let mask = mask(&[VALUE]);
        let hex = |upper: bool| {
            VALUE.bytes().map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }).collect::<String>()
        };
        let percent = |encoded: &str| -> String {
            let one = |c: char| if encoded.contains(c) { format!("%{:02X}", c as u32) } else { c.to_string() };
            VALUE.chars().map(one).collect()
        };
        let mut forms = vec![
            VALUE.to_owned(),
            serde_json::to_string(VALUE).unwrap().trim_matches('"').to_owned(),
            VALUE.replace('/', "\\/").replace('"', "\\\"").replace('&', "\\u0026"),
            VALUE.replace('&', "&amp;").replace('"', "&quot;"),
            percent("/\"+&?"),
            percent("/\"+&~?"),
            VALUE.bytes().map(|b| format!("%{b:02x}")).collect(),
            hex(false),
            hex(true),
        ];
        for before in ["", "u", "us", "user:", "user12:"] {
            for text in [format!("{before}{VALUE}"), format!("{before}{VALUE}x"), format!("{before}{VALUE}xy")] {
                let basic = STANDARD.encode(&text);
                forms.extend([STANDARD.encode(format!("Basic {basic}")), URL_SAFE.encode(&basic)]);
                forms.extend(basic.bytes().map(|b| format!("{b:02x}")).reduce(|text, more| text + &more));
                forms.extend([basic, URL_SAFE.encode(&text)]);
            }
        }
        for form in forms {
            let text = format!("{{\"echo\": \"{form}\"}}, and {form}: end");
            for length in [1, 2, 3, 7, 16, 1000] {
                let masked = String::from_utf8(masked(&mask, text.as_bytes(), &[length])).unwrap();
                assert!(masked.starts_with("{\"echo\": \""), "{masked}");
                assert!(masked.ends_with(": end"), "{masked}");
                assert!(!masked.contains(VALUE) && masked.matches('*').count() >= 2 * VALUE.len(), "{form}: {masked}");
                // Of base64, the bytes around it may be left.
                let middle = &form.as_bytes()[form.len() / 2 - 4..form.len() / 2 + 4];
                assert!(!masked.contains(std::str::from_utf8(middle).unwrap()), "{form}: {masked}");
            }
        }
    }

    #[test]
    fn other_text_stays_and_goes_on_at_once() {
        let mask = mask(&[VALUE, "another-value"]);
        let mut scan = Scan::default();
        assert_eq!(scan.feed(&mask, Bytes::from_static(b"data: {\"a\": 1}\n\n")), "data: {\"a\": 1}\n\n");
        assert_eq!(scan.feed(&mask, Bytes::from_static(b"sk_live/7")), "");
        assert_eq!(scan.feed(&mask, Bytes::from_static(b" is none\n")), "sk_live/7 is none\n");
        assert!(scan.found.is_empty());
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let pieces = ["sk_live", "/7f", "another", "-value", VALUE, "another-value", "x", "%73", "c2tf"];
            let text: String = (0..30).map(|_| pieces[random.usize(..pieces.len())]).collect();
            let lengths: Vec<usize> = (0..5).map(|_| random.usize(1..20)).collect();
            let split = masked(&mask, text.as_bytes(), &lengths);
            let expected = [VALUE, "another-value"]
                .iter()
                .fold(text.clone(), |text, value| text.replace(value, &"*".repeat(value.len())));
            assert_eq!(String::from_utf8(split).unwrap(), expected, "seed {seed}: {text} in {lengths:?}");
        }
    }

    #[test]
    fn headers_are_masked_too() {
        let mask = mask(&["abcdefgh-12", VALUE]);
        let mut headers = HeaderMap::new();
        headers.insert("x-abcdefgh-12", HeaderValue::from_static("1"));
        headers.insert("location", HeaderValue::from_static("/to?key=abcdefgh-12&more"));
        headers.append("x-many", HeaderValue::from_static("plain"));
        headers.append("x-many", HeaderValue::from_str(&STANDARD.encode("user:abcdefgh-12")).unwrap());
        assert_eq!(mask.headers(&mut headers), [0, 0]);
        assert_eq!(headers.len(), 3);
        assert_eq!(headers["location"], "/to?key=***********&more");
        let many: Vec<_> = headers.get_all("x-many").iter().collect();
        assert_eq!(many[0], "plain");
        assert!(many[1].to_str().unwrap().contains("************"), "{many:?}");
    }
}
