//! `[secrets.NAME]`: values that the host puts into the headers of plugins' requests. Only a host reads them, and `wharf call` those of
//! its plugin.

use std::sync::Arc;

use toml::Spanned;
use toml::de::DeValue;
use wharf_engine::spec::secret::{Secret, SecretHost, SecretName, SecretValue};

use super::environment::Environment;
use super::origin::{Origin, Problems, nearest};
use super::outside::Source;

/// The most bytes that are read of a source.
const READ_BYTES_MAX: usize = 64 * 1024;
/// The most hosts of one secret.
const HOSTS_MAX: usize = 100;
/// Why a command has no value.
const NOT_READ: &str = "only a host and `wharf call` read it";

/// One secret of the file.
#[derive(Debug)]
pub(crate) struct SecretSection {
    pub(crate) name: SecretName,
    pub(super) source: Source,
    /// The place of `from`.
    pub(super) at: Origin,
    /// The secret, without its value until that is read.
    pub(crate) secret: Arc<Secret>,
    /// Keys and values as they are written, for `wharf config`.
    pub(crate) shown: Vec<(String, String, Origin)>,
}

impl SecretSection {
    /// Returns what all hosts of a store should have of it: the name and the hosts. Where the value stands is a matter of one machine.
    pub(super) fn shared(&self) -> String {
        let mut hosts: Vec<String> = self.secret.hosts.iter().map(ToString::to_string).collect();
        hosts.sort_unstable();
        format!("secrets.{} = {hosts:?}", self.name)
    }

    /// Reads the value.
    ///
    /// # Errors
    /// When it cannot be read or sent; the error never quotes it.
    pub(super) fn read(&self, environment: &Environment) -> Result<SecretValue, String> {
        let name = match &self.source {
            Source::Variable(name) => format!("the variable {name}"),
            Source::File(path) => path.clone(),
        };
        let text = self.source.read(environment, READ_BYTES_MAX)?;
        SecretValue::of(&text).map_err(|why| format!("the value in {name} is not one that can be sent: {why}"))
    }
}

/// Reads one section. `place` gives the origin of an offset in the file. No problem quotes a value: it may be the secret itself.
pub(super) fn section(
    name: &Spanned<impl AsRef<str>>,
    section: &Spanned<DeValue<'_>>,
    place: &dyn Fn(usize) -> Origin,
    problems: &mut Problems,
) -> Option<SecretSection> {
    let here = place(name.span().start);
    let name: SecretName = match name.get_ref().as_ref().parse() {
        Ok(name) => name,
        Err(error) => {
            problems.add(&here, format_args!("{error}; write `[secrets.NAME]`"));
            return None;
        }
    };
    let DeValue::Table(table) = section.get_ref() else {
        problems.add(&here, format_args!("`secrets.{name}`: expected a table with `from` and `hosts`"));
        return None;
    };
    let mut is_sound = true;
    for (key, _) in table {
        let key_name = key.get_ref().as_ref();
        if !["from", "hosts"].contains(&key_name) {
            is_sound = false;
            let hint = match key_name {
                "value" => "; a value never stands in the file: write `from = \"file:PATH\"` or `from = \"env:NAME\"`"
                    .to_owned(),
                _ => nearest(key_name, ["from", "hosts"]),
            };
            problems.add(&place(key.span().start), format_args!("`secrets.{name}`: unknown key `{key_name}`{hint}"));
        }
    }
    let source = match table.get("from") {
        None => {
            problems.add(&here, format_args!("`secrets.{name}`: `from` is missing: `env:NAME` or `file:PATH`"));
            None
        }
        Some(from) => {
            let at = place(from.span().start);
            let source = match from.get_ref() {
                DeValue::String(text) => {
                    Source::parse(text).map(|source| (source, at.clone(), text.as_ref().to_owned()))
                }
                _ => None,
            };
            if source.is_none() {
                problems.add(&at, format_args!("`secrets.{name}.from`: expected `env:NAME` or `file:PATH`"));
            }
            source
        }
    };
    let hosts = hosts(&name, table.get("hosts"), &here, place, problems);
    let ((source, at, from), (hosts, hosts_at)) = (source?, hosts?);
    let written: Vec<String> = hosts.iter().map(|host| format!("\"{host}\"")).collect();
    let shown = vec![
        (format!("secrets.{name}.from"), format!("\"{from}\""), at.clone()),
        (format!("secrets.{name}.hosts"), format!("[{}]", written.join(", ")), hosts_at),
    ];
    let secret = Arc::new(Secret { hosts, value: Err(NOT_READ.to_owned()), earlier: Vec::new() });
    is_sound.then_some(SecretSection { name, source, at, secret, shown })
}

fn hosts(
    name: &SecretName,
    value: Option<&Spanned<DeValue<'_>>>,
    here: &Origin,
    place: &dyn Fn(usize) -> Origin,
    problems: &mut Problems,
) -> Option<(Vec<SecretHost>, Origin)> {
    let expected = "expected the hosts that it may be sent to, such as [\"api.example.com\"]";
    let Some(value) = value else {
        problems.add(here, format_args!("`secrets.{name}`: `hosts` is missing: {expected}"));
        return None;
    };
    let at = place(value.span().start);
    let list = match value.get_ref() {
        DeValue::Array(list) if (1..=HOSTS_MAX).contains(&list.len()) => list,
        DeValue::Array(list) if list.len() > HOSTS_MAX => {
            problems.add(&at, format_args!("`secrets.{name}.hosts`: too many hosts; the limit is {HOSTS_MAX}"));
            return None;
        }
        _ => {
            problems.add(&at, format_args!("`secrets.{name}.hosts`: {expected}"));
            return None;
        }
    };
    let mut hosts = Vec::new();
    for item in list {
        let host = match item.get_ref() {
            DeValue::String(text) => text.parse::<SecretHost>(),
            _ => Err(expected.to_owned()),
        };
        match host {
            Ok(host) => hosts.push(host),
            Err(error) => problems.add(&place(item.span().start), format_args!("`secrets.{name}.hosts`: {error}")),
        }
    }
    (hosts.len() == list.len()).then_some((hosts, at))
}
