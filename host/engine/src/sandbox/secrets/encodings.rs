//! The forms in which a response may have the value of a secret.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::escapers::{in_html, in_json};

/// The longest value that is looked for encoded twice, in bytes: what logs in to something is shorter, and tokens, which may be longer,
/// are sent as they are.
const TWICE_BYTES_MAX: usize = 512;

/// One form of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Form {
    pub(super) bytes: Vec<u8>,
    /// True if it is base64: the characters before and after it may have bits of the value, too.
    pub(super) is_base64: bool,
}

/// Returns every form of a value that is looked for: as it is, in JSON, in HTML, in a URL, in hex, and in base64 wherever in the
/// encoded bytes it begins; and what is in base64 in each of these forms once more. All of them are printable ASCII, as values are.
pub(super) fn forms(value: &str) -> Vec<Form> {
    let bytes = value.as_bytes();
    let mut texts = vec![value.to_owned()];
    texts.extend(in_json(value).chain(in_html(value)));
    for upper in [false, true] {
        // As `encodeURIComponent`, as RFC 3986, as a form, and with every byte encoded.
        texts.push(percent(bytes, upper, |byte| byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte)));
        texts.push(percent(bytes, upper, |byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)));
        let form = percent(bytes, upper, |byte| byte.is_ascii_alphanumeric() || b"-_.* ".contains(&byte));
        texts.push(form.replace(' ', "+"));
        texts.push(percent(bytes, upper, |_| false));
        texts.push(hex(bytes, upper));
    }
    let mut forms: Vec<Form> =
        texts.into_iter().map(|text| Form { bytes: text.into_bytes(), is_base64: false }).collect();
    for encoded in in_base64(bytes) {
        let base64 = |text: String| Form { bytes: text.into_bytes(), is_base64: true };
        let encoded_bytes = encoded.as_bytes();
        // Basic authentication encodes the value, and a server may encode what it was sent once more.
        if bytes.len() <= TWICE_BYTES_MAX {
            forms.extend(in_base64(encoded_bytes).map(base64));
            forms.extend(in_json(&encoded).chain(in_html(&encoded)).map(base64));
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
            for upper in [false, true] {
                forms.push(base64(hex(encoded_bytes, upper)));
                forms.push(base64(percent(encoded_bytes, upper, |_| false)));
                forms.push(base64(percent(encoded_bytes, upper, plain)));
            }
        }
        forms.push(base64(encoded));
    }
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// Returns bytes in base64, in both alphabets and wherever in a longer text they begin: without the characters that also have bits of
/// what stands before and after.
fn in_base64(bytes: &[u8]) -> impl Iterator<Item = String> {
    (0..3).flat_map(move |before| {
        let mut padded = vec![0; before];
        padded.extend_from_slice(bytes);
        let (first, last) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        let texts = [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)];
        texts.map(|text| text[first..last].to_owned())
    })
}

fn percent(bytes: &[u8], upper: bool, is_plain: impl Fn(u8) -> bool) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        match is_plain(*byte) {
            true => text.push(char::from(*byte)),
            false if upper => _ = write!(text, "%{byte:02X}"),
            false => _ = write!(text, "%{byte:02x}"),
        }
        text
    })
}

fn hex(bytes: &[u8], upper: bool) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = if upper { write!(text, "{byte:02X}") } else { write!(text, "{byte:02x}") };
        text
    })
}
