//! `[[tokens]]`: tokens with a name, scopes and perhaps a key.

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;
use wharf_core::author::RESERVED_PREFIXES;
use wharf_core::key::Key;

use super::environment::Environment;
use super::origin::{Origin, Problems};
use super::outside::Source;
use crate::access::{Access, Scope, TokenHash};

/// The shortest token, in characters.
pub(super) const TOKEN_CHARS_MIN: usize = 16;
/// The longest token, in bytes, which fits into a request's head.
const TOKEN_BYTES_MAX: usize = 4096;
/// The longest name of a token, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// The most tokens that a file may have: each request is compared with all of them.
const TOKENS_MAX: usize = 1000;

/// The most hashes that one token may have: two are enough to rotate it.
const HASHES_MAX: usize = 4;

/// One table of `[[tokens]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawToken {
    name: Spanned<String>,
    hash: Option<Spanned<Hashes>>,
    from: Option<Spanned<String>>,
    can: Spanned<Vec<Spanned<String>>>,
    key: Option<Spanned<String>>,
}

/// One hash, or several while a token is rotated.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a hash or an array of hashes")]
enum Hashes {
    One(String),
    Many(Vec<String>),
}

impl Hashes {
    fn all(&self) -> &[String] {
        match self {
            Hashes::One(hash) => std::slice::from_ref(hash),
            Hashes::Many(hashes) => hashes,
        }
    }
}

/// One table of `[[tokens]]`, checked but for what it reads from outside of the file.
#[derive(Debug)]
pub(crate) struct TokenSection {
    /// Keys and values, for `wharf config`.
    pub(crate) shown: Vec<(String, String, Origin)>,
    access: Access,
    hashes: Vec<(TokenHash, Origin)>,
    from: Option<(Source, Origin)>,
}

impl TokenSection {
    /// Returns what all hosts of a store should have of the token: not its hashes, nor where it is read from.
    pub(super) fn shared(&self) -> String {
        let is_shared = |key: &str| matches!(key.rsplit('.').next(), Some("can" | "key"));
        let lines = self.shown.iter().filter(|(key, ..)| is_shared(key));
        lines.map(|(key, value, _)| format!("{key:?} = {value:?}")).collect::<Vec<_>>().join(", ")
    }

    /// Returns the file that the token is read from.
    pub(crate) fn file(&self, environment: &Environment) -> Option<PathBuf> {
        self.from.as_ref()?.0.file(environment)
    }
}

/// Checks the tables of `[[tokens]]` in a file. `place` gives the origin of an offset in the file.
pub(super) fn check(
    raw: Vec<Spanned<RawToken>>,
    place: impl Fn(usize) -> Origin,
    problems: &mut Problems,
) -> Vec<TokenSection> {
    if raw.len() > TOKENS_MAX {
        let at = place(raw[TOKENS_MAX].span().start);
        problems.add(&at, format_args!("`tokens`: expected at most {TOKENS_MAX}, got {}", raw.len()));
        return Vec::new();
    }
    let mut names: Vec<String> = Vec::new();
    let mut sections = Vec::new();
    for token in raw {
        let (at, token) = (place(token.span().start), token.into_inner());
        let name = token.name.get_ref();
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(|c| c.is_control()) {
            let text = format!("`name`: expected 1 to {NAME_BYTES_MAX} bytes without control characters");
            problems.add(&place(token.name.span().start), text);
        } else if let Some(prefix) = RESERVED_PREFIXES.iter().find(|prefix| name.starts_with(**prefix)) {
            let text =
                format!("`name`: `{prefix}` begins the names of other authors in the audit log; choose another name");
            problems.add(&place(token.name.span().start), text);
        } else if names.contains(name) {
            let text =
                format!("`name`: a second token is called `{name}`; give each its own name, or one token two hashes");
            problems.add(&place(token.name.span().start), text);
        }
        names.push(name.clone());
        sections.extend(section(token, at, &place, problems));
    }
    sections
}

fn section(
    token: RawToken,
    at: Origin,
    place: &impl Fn(usize) -> Origin,
    problems: &mut Problems,
) -> Option<TokenSection> {
    let name = token.name.get_ref().clone();
    let mut hashes = Vec::new();
    if let Some(written) = &token.hash {
        let here = place(written.span().start);
        let count = written.get_ref().all().len();
        if count > HASHES_MAX {
            problems.add(&here, format_args!("`hash`: expected at most {HASHES_MAX}, got {count}"));
            return None;
        }
        for hash in written.get_ref().all() {
            match hash.parse::<TokenHash>() {
                Ok(parsed) => hashes.push((parsed, here.clone())),
                Err(error) => problems.add(&here, format_args!("`hash`: {error}")),
            }
        }
    }
    let from = token.from.as_ref().and_then(|from| {
        let here = place(from.span().start);
        match Source::parse(from.get_ref()) {
            Some(source) => Some((source, here)),
            None => {
                problems.add(&here, "`from`: expected `env:NAME` or `file:PATH`");
                None
            }
        }
    });
    let has_hash = token.hash.as_ref().is_some_and(|written| !written.get_ref().all().is_empty());
    // A list without a hash would be a token that nobody has, and tokens that nobody has would ask for none.
    if !has_hash && token.from.is_none() {
        let text = "the token has neither `hash` nor `from`; `wharf token new` prints a token with its hash";
        problems.add(&at, text);
    }
    let mut scopes: Vec<Scope> = Vec::new();
    for scope in token.can.get_ref() {
        match scope.get_ref().parse() {
            Ok(parsed) => scopes.push(parsed),
            Err(error) => problems.add(&place(scope.span().start), format_args!("`can`: {error}")),
        }
    }
    if token.can.get_ref().is_empty() {
        problems
            .add(&place(token.can.span().start), "`can`: it is empty; list what the token may do, such as \"read\"");
    }
    let key = token.key.as_ref().and_then(|key| {
        let parsed = key.get_ref().parse::<Key>();
        parsed.map_err(|error| problems.add(&place(key.span().start), format_args!("`key`: {error}"))).ok()
    });
    if token.key.is_some() {
        for scope in &scopes {
            // A broadcast reaches every subscriber, and an admin sees every key.
            if matches!(scope, Scope::Broadcast(_) | Scope::Admin) {
                let text = format!("`can`: a token with a `key` cannot have `{scope}`, which reaches beyond one key");
                problems.add(&place(token.can.span().start), text);
            }
        }
    }
    let mut shown = vec![(format!("tokens.{name}.can"), format!("[{}]", list(&scopes)), place(token.can.span().start))];
    shown.extend(hashes.iter().map(|(hash, at)| (format!("tokens.{name}.hash"), hash.to_string(), at.clone())));
    if let Some(from) = &token.from {
        shown.push((format!("tokens.{name}.from"), from.get_ref().clone(), place(from.span().start)));
    }
    if let Some(key) = &token.key {
        shown.push((format!("tokens.{name}.key"), key.get_ref().clone(), place(key.span().start)));
    }
    Some(TokenSection { shown, access: Access::new(&name, scopes, key), hashes, from })
}

fn list(scopes: &[Scope]) -> String {
    scopes.iter().map(|scope| format!("\"{scope}\"")).collect::<Vec<_>>().join(", ")
}

/// Returns the hash and the rights of each token, and reads those that are outside of the file. Only a host does so: commands
/// in its folder may lack the rights to read them.
///
/// # Errors
/// When a token cannot be read or stands there twice; the error lists every problem.
pub(super) fn resolve(
    sections: &[TokenSection],
    environment: &Environment,
) -> Result<Vec<(TokenHash, Access)>, Problems> {
    let mut problems = Problems::default();
    let mut tokens: Vec<(TokenHash, Access)> = Vec::new();
    for section in sections {
        let outside = section.from.as_ref().map(|(source, at)| (read(source, environment), at));
        let outside =
            outside.and_then(|(token, at)| match token.and_then(|token| check_token(&token).map(|()| token)) {
                Ok(token) => Some((TokenHash::of(&token), at)),
                Err(error) => {
                    problems.add(at, format_args!("`from`: {error}"));
                    None
                }
            });
        for (hash, at) in section.hashes.iter().map(|(hash, at)| (*hash, at)).chain(outside) {
            if tokens.iter().any(|(known, _)| *known == hash) {
                problems.add(at, "the same token stands in `tokens` twice; leave one out");
            }
            tokens.push((hash, section.access.clone()));
        }
    }
    problems.or(tokens)
}

/// Reads a token. Editors and `echo` end a file with a newline, which is no part of it.
fn read(source: &Source, environment: &Environment) -> Result<String, String> {
    let text = source.read(environment, TOKEN_BYTES_MAX + 2)?;
    Ok(match source {
        Source::File(_) => text.trim_end_matches(['\n', '\r']).to_owned(),
        Source::Variable(_) => text,
    })
}

/// Checks the form of a token in clear.
pub(super) fn check_token(token: &str) -> Result<(), String> {
    match token {
        short if short.len() < TOKEN_CHARS_MIN => {
            Err(format!("it is shorter than {TOKEN_CHARS_MIN} characters; create one with `wharf token new`"))
        }
        long if long.len() > TOKEN_BYTES_MAX => Err(format!("it is longer than {TOKEN_BYTES_MAX} bytes")),
        odd if !odd.bytes().all(|c| c.is_ascii_graphic()) => {
            Err("it has characters that an HTTP header cannot carry; use ASCII letters, digits and punctuation".into())
        }
        _ => Ok(()),
    }
}
