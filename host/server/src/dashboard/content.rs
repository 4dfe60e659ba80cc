//! Payloads, results and replies on a page: JSON spread over lines, text as it is, pictures as pictures, other bytes as a download.

use maud::{Markup, html};

use crate::http::bytes::media_type;
use crate::output::spread;

use super::text::{lines, size};

/// The bytes of a text that are shown. The rest is in the download.
const SHOWN_BYTES_MAX: usize = 64 * 1024;

/// The kind of some bytes, as a page shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Json,
    Text,
    /// A picture whose format has no scripts.
    Picture,
    /// A picture that may have scripts: it is shown only as an image, from an answer that forbids all of them.
    Svg,
    Bytes,
}

impl Shown {
    /// Returns what these bytes are.
    pub(super) fn of(bytes: &[u8]) -> Shown {
        // What is cut on the page anyway is judged by its beginning: to read all of it would take long.
        let cut = bytes.len() > SHOWN_BYTES_MAX;
        match media_type(if cut { beginning(bytes) } else { bytes }) {
            "application/json" if cut => Shown::Text,
            "application/json" => Shown::Json,
            kind if kind.starts_with("image/") => Shown::Picture,
            kind if kind.starts_with("text/") && is_svg(bytes) => Shown::Svg,
            kind if kind.starts_with("text/") => Shown::Text,
            _ => Shown::Bytes,
        }
    }
}

/// Returns the bytes that are shown, up to the end of a character.
fn beginning(bytes: &[u8]) -> &[u8] {
    let head = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let is_inside = |byte: &u8| byte & 0b1100_0000 == 0b1000_0000;
    let trailing = bytes[head.len()..].iter().take(3).take_while(|byte| is_inside(byte)).count();
    &bytes[..head.len() + trailing]
}

fn is_svg(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(1024)];
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    text.starts_with("<svg") || (text.starts_with("<?xml") && text.contains("<svg"))
}

/// The beginning of some bytes, which is all that a page shows of them.
pub(super) struct Beginning {
    head: Vec<u8>,
    shown: Shown,
    /// The number of all bytes.
    length: usize,
}

impl Beginning {
    /// Copies how these bytes begin.
    pub(super) fn of(bytes: &[u8]) -> Beginning {
        Beginning { head: beginning(bytes).to_vec(), shown: Shown::of(bytes), length: bytes.len() }
    }
}

/// Returns a section with bytes; `page` is the address of the bytes themselves.
pub(super) fn section(title: &str, bytes: &Beginning, page: &str) -> Markup {
    html! {
        section {
            header {
                h2 { (title) }
                span class="dim" {
                    (size(bytes.length as u64))
                    @if bytes.length > 0 { " · " a href=(page) download { "download" } }
                }
            }
            @match bytes.shown {
                Shown::Picture => img class="picture" src=(page) alt={ (title) ", a picture" };,
                Shown::Svg => {
                    img class="picture" src={ (page) "?as=picture" } alt={ (title) ", a picture" };
                    details { summary { "Its text" } (text(title, bytes)) }
                },
                Shown::Json | Shown::Text => (text(title, bytes)),
                Shown::Bytes if bytes.length == 0 => p class="note" { "Empty." },
                Shown::Bytes => p class="note" { "Bytes, not text." },
            }
        }
    }
}

fn text(title: &str, bytes: &Beginning) -> Markup {
    let shown = &bytes.head;
    let text = String::from_utf8_lossy(shown);
    let is_json = bytes.shown == Shown::Json;
    html! {
        pre tabindex="0" role="region" aria-label=(title) {
            @if is_json { (json(&spread(&text))) } @else { (lines(&text)) }
        }
        @if shown.len() < bytes.length { p class="note" { "The first " (size(shown.len() as u64)) ". The download has all." } }
    }
}

/// Returns JSON with its names and texts marked.
pub(super) fn json(text: &str) -> Markup {
    let mut parts: Vec<(&str, &str)> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('"') {
        let (plain, from) = rest.split_at(at);
        parts.push(("", plain));
        let end = end_of_string(from);
        let (string, after) = from.split_at(end);
        let is_name = after.trim_start().starts_with(':');
        parts.push((if is_name { "k" } else { "v" }, string));
        rest = after;
    }
    parts.push(("", rest));
    html! {
        @for (class, part) in parts {
            @if class.is_empty() { (lines(part)) } @else { span class=(class) { (lines(part)) } }
        }
    }
}

/// Returns the length of the string of JSON with which `text` begins.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_by_what_they_are_and_never_as_markup() {
        let of = |text: &str| Shown::of(text.as_bytes());
        assert_eq!(
            [of("{\"a\": 1}"), of("a"), of("<b>"), of("")],
            [Shown::Json, Shown::Text, Shown::Text, Shown::Bytes]
        );
        assert_eq!(
            [of("<svg onload=x>"), of("<?xml?>\n<svg>"), of("<!-- <svg -->")],
            [Shown::Svg, Shown::Svg, Shown::Text]
        );
        assert_eq!(Shown::of(b"\x89PNG\r\n\x1a\nrest"), Shown::Picture);
        let hostile = r#"{"<script>": "</pre><script>alert(1)</script>", "n": "\"<"}"#;
        let page = section("Payload", &Beginning::of(hostile.as_bytes()), "x").into_string();
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"), "{page}");
    }

    #[test]
    fn names_and_texts_of_json_are_told_apart() {
        let marked = json(r#"{"a\"": "b", "c": [1, "d"]}"#).into_string();
        let expected = "{<span class=\"k\">&quot;a\\&quot;&quot;</span>: <span class=\"v\">&quot;b&quot;</span>, \
                        <span class=\"k\">&quot;c&quot;</span>: [1, <span class=\"v\">&quot;d&quot;</span>]}";
        assert_eq!(marked, expected);
        assert_eq!(json("\"open").into_string(), "<span class=\"v\">&quot;open</span>");
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = "x".repeat(SHOWN_BYTES_MAX + 10);
        let page = section("Result", &Beginning::of(long.as_bytes()), "x").into_string();
        assert_eq!(Shown::of(&[b"[\"", long.as_bytes(), b"\"]"].concat()), Shown::Text, "JSON that is cut is text");
        assert_eq!(Shown::of(&[long.as_bytes(), b"\xff"].concat()), Shown::Text, "its beginning is text");
        let wide = "x".repeat(SHOWN_BYTES_MAX - 1) + "日本";
        assert_eq!((Shown::of(wide.as_bytes()), beginning(wide.as_bytes()).len()), (Shown::Text, SHOWN_BYTES_MAX + 2));
        assert!(page.len() < SHOWN_BYTES_MAX + 2000 && page.contains("The first 64.0 KiB"), "{}", page.len());
    }
}
