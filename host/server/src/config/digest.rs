//! The digest of the settings that all hosts of a store should share. It has no secrets, and nothing of one machine.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::raw::RawSettings;
use super::shared_form::EMPTY;
use super::table::SETTINGS;
use super::values::in_one_form;

/// Returns the digest in hex. Settings that are written in another order, with other spaces or in other units have the same one.
pub(crate) fn digest(raw: &RawSettings) -> String {
    let mut text = String::new();
    for setting in SETTINGS.iter().filter(|setting| setting.shared) {
        let (value, _) = raw.of(setting.key);
        let value = in_one_form(value).unwrap_or_else(|| value.to_owned());
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} = {value:?}", setting.key);
    }
    let plugins = raw.plugins.iter().filter(|section| section.shared != EMPTY);
    let mut sections: Vec<String> =
        plugins.map(|section| format!("plugins.{} = {}\n", section.id, section.shared)).collect();
    sections.extend(raw.tokens.iter().map(|token| format!("{}\n", token.shared())));
    let schedules = raw.schedules.iter();
    sections.extend(schedules.map(|section| format!("schedules.{} = {:016x}\n", section.id, section.spec.digest())));
    sections.extend(raw.secrets.iter().map(|section| format!("{}\n", section.shared())));
    sections.sort_unstable();
    text.extend(sections);
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
