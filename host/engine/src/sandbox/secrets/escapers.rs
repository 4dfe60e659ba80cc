//! How servers write a text within JSON and HTML. Each escaper has characters of its own that it writes in another way, and writes all of
//! them so: forms of two escapers are never mixed.

use std::fmt::Write as _;

/// The characters that an escaper of JSON writes as `\u` and digits, besides the quote and the backslash, which every one escapes.
const JSON: [&str; 6] = [
    "",       // Go, Rails.
    "<>&",    // .NET's JavaScriptSerializer, templates of Django.
    "<>&'",   // Gson.
    "<>&'=",  // Newtonsoft and PHP, where the text is for a page.
    "<>&'\"", // System.Text.Json.
    "<>&'\"+`",
];

/// The text that an escaper of HTML writes for a character, besides `&amp;`, `&lt;` and `&gt;`, which every one writes.
const HTML: [&[(char, &str)]; 12] = [
    &[],
    &[('"', "&quot;")],
    // Ruby, .NET's WebUtility, most of JavaScript.
    &[('"', "&quot;"), ('\'', "&#39;")],
    // Python, React.
    &[('"', "&quot;"), ('\'', "&#x27;")],
    // XML.
    &[('"', "&quot;"), ('\'', "&apos;")],
    // PHP.
    &[('"', "&quot;"), ('\'', "&#039;")],
    // Go, Jinja.
    &[('"', "&#34;"), ('\'', "&#39;")],
    // Templates of Go.
    &[('"', "&#34;"), ('\'', "&#39;"), ('+', "&#43;")],
    // ASP.NET.
    &[('"', "&quot;"), ('\'', "&#x27;"), ('+', "&#x2B;"), ('`', "&#x60;")],
    // Mustache.
    &[('"', "&quot;"), ('\'', "&#39;"), ('/', "&#x2F;"), ('`', "&#x60;"), ('=', "&#x3D;")],
    // Underscore.
    &[('"', "&quot;"), ('\'', "&#x27;"), ('`', "&#x60;")],
    // As OWASP advises.
    &[('"', "&quot;"), ('\'', "&#x27;"), ('/', "&#x2F;")],
];

/// Returns a text as the escapers of JSON write it, some of them several times.
pub(super) fn in_json(text: &str) -> impl Iterator<Item = String> {
    let one = |escaped: &str, upper: bool, slashes: bool| {
        text.chars().fold(String::new(), |mut text, c| {
            match c {
                // Writing to a string does not fail.
                _ if escaped.contains(c) && upper => _ = write!(text, "\\u{:04X}", u32::from(c)),
                _ if escaped.contains(c) => _ = write!(text, "\\u{:04x}", u32::from(c)),
                '"' | '\\' => text.extend(['\\', c]),
                // PHP.
                '/' if slashes => text.push_str("\\/"),
                _ => text.push(c),
            }
            text
        })
    };
    JSON.into_iter().flat_map(move |escaped| {
        [(false, false), (false, true), (true, false), (true, true)]
            .map(|(upper, slashes)| one(escaped, upper, slashes))
    })
}

/// Returns a text as the escapers of HTML write it, some of them several times.
pub(super) fn in_html(text: &str) -> impl Iterator<Item = String> {
    HTML.into_iter().map(move |escaped| {
        text.chars().fold(String::new(), |mut text, c| {
            match (c, escaped.iter().find(|(escaped, _)| *escaped == c)) {
                ('&', _) => text.push_str("&amp;"),
                ('<', _) => text.push_str("&lt;"),
                ('>', _) => text.push_str("&gt;"),
                (_, Some((_, written))) => text.push_str(written),
                (_, None) => text.push(c),
            }
            text
        })
    })
}
