//! The author of a change: an operator, a plugin or a host, and the address that the request came from.

use std::sync::Arc;

use crate::bounds;
use crate::ids::PluginId;

/// The prefixes of the names of plugins and hosts as authors. No token has a name that begins with one.
pub const RESERVED_PREFIXES: [&str; 2] = ["plugin:", "host:"];

/// The author of a change. Clones share the texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    name: Option<Arc<str>>,
    address: Option<Arc<str>>,
}

impl Author {
    /// Returns a client of a host that asks for no token: it has no name.
    pub fn anyone() -> Author {
        Author::default()
    }

    /// Returns the owner of the token with this name.
    pub fn token(name: &str) -> Author {
        Author { name: Some(bounded(name, bounds::AUTHOR_BYTES_MAX).into()), address: None }
    }

    /// Returns a plugin: its name is "plugin:ID".
    pub fn plugin(plugin: &PluginId) -> Author {
        Author::token(&format!("plugin:{plugin}"))
    }

    /// Returns the host with this name, which changed something by itself: its name is "host:NAME".
    pub fn host(name: &str) -> Author {
        Author::token(&format!("host:{name}"))
    }

    /// Returns true if the author is a plugin.
    pub fn is_plugin(&self) -> bool {
        self.name().is_some_and(|name| name.starts_with(RESERVED_PREFIXES[0]))
    }

    /// Returns this author with the network address of the client.
    pub fn at_address(self, address: &str) -> Author {
        Author { address: Some(bounded(address, bounds::AUTHOR_BYTES_MAX).into()), ..self }
    }

    /// Returns the author with these texts, as a store read them.
    pub fn from_parts(name: Option<&str>, address: Option<&str>) -> Author {
        let text = |text: &str| Arc::from(bounded(text, bounds::AUTHOR_BYTES_MAX));
        Author { name: name.map(text), address: address.map(text) }
    }

    /// Returns the name of the token, or "plugin:ID" or "host:NAME"; `None` if the host asked for no token.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the network address of the client, if it is known.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }
}

/// Returns a text without control characters, cut to at most `max` bytes. A text that was cut ends in "…".
pub(crate) fn bounded(text: &str, max: usize) -> String {
    const CUT: &str = "…";
    let clean = |text: &str| text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>();
    if text.len() <= max {
        let whole = clean(text);
        if whole.len() <= max {
            return whole;
        }
    }
    let cut = clean(&text[..text.floor_char_boundary(max)]);
    format!("{}{CUT}", &cut[..cut.floor_char_boundary(max.saturating_sub(CUT.len()))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_without_a_token_differs_from_a_token_called_none() {
        assert_eq!(Author::anyone().name(), None);
        assert_eq!(Author::token("none").name(), Some("none"));
        assert_ne!(Author::anyone(), Author::token("none"));
    }

    #[test]
    fn plugins_and_hosts_have_names_that_no_token_has() {
        let (plugin, host) = (Author::plugin(&"words".parse().unwrap()), Author::host("box:7070"));
        assert_eq!((plugin.name(), host.name()), (Some("plugin:words"), Some("host:box:7070")));
        assert!(
            RESERVED_PREFIXES
                .iter()
                .all(|prefix| [&plugin, &host].iter().any(|author| author.name().unwrap().starts_with(prefix)))
        );
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        assert_eq!(bounded("short", 5), "short");
        assert_eq!(bounded("shorts", 5), "sh…");
        assert_eq!(bounded("üüüü", 6), "ü…");
        assert_eq!(bounded("a\u{0}b\nc", 20), "a\u{fffd}b\u{fffd}c");
        for max in 3..40 {
            for text in ["\u{0}".repeat(50), "é".repeat(50), "a".repeat(50)] {
                let cut = bounded(&text, max);
                assert!(cut.len() <= max && cut.ends_with('…'), "{max}: {cut}");
            }
        }
        let author = Author::token(&"n".repeat(10_000)).at_address(&"9".repeat(10_000));
        assert!(author.name().unwrap().len() <= bounds::AUTHOR_BYTES_MAX);
        assert!(author.address().unwrap().len() <= bounds::AUTHOR_BYTES_MAX);
    }
}
