//! One form for a plugin's section, whoever wrote it: what all hosts of a store should have of it.

use toml::de::DeValue;

use super::values::in_one_form;

/// The tables of a plugin's section whose values may be secrets.
pub(super) const SECRET_TABLES: [&str; 2] = ["env", "config"];
/// The keys whose texts are names, even if they look like a duration or a size.
const NAMES: [&str; 3] = ["group", "topics", "secrets"];
/// The form of a section without any setting.
pub(super) const EMPTY: &str = "{}";

/// Returns what all hosts should have of a plugin's section: of secrets the names alone, and of folders not where they are.
pub(super) fn shared(section: &DeValue<'_>) -> String {
    form(section, &mut Vec::new())
}

/// Returns a value in one form, however it is written. `path` are the keys that lead to it.
fn form<'v>(value: &'v DeValue<'_>, path: &mut Vec<&'v str>) -> String {
    match value {
        // A value of a plugin's own that stands outside of the file.
        DeValue::Table(_) if path.len() > 1 && SECRET_TABLES.contains(&path[0]) => "_".to_owned(),
        DeValue::Table(table) => {
            let mut members: Vec<(&str, String)> = Vec::new();
            for (name, value) in table {
                let name = name.get_ref().as_ref();
                if path.as_slice() == ["dirs"] && name == "host" {
                    continue;
                }
                path.push(name);
                members.push((name, form(value.get_ref(), path)));
                path.pop();
            }
            members.sort_unstable();
            let members: Vec<String> = members.into_iter().map(|(name, value)| format!("{name:?} = {value}")).collect();
            format!("{{{}}}", members.join(", "))
        }
        DeValue::Array(values) => {
            let values: Vec<String> = values.iter().map(|value| form(value.get_ref(), path)).collect();
            format!("[{}]", values.join(", "))
        }
        _ if path.first().is_some_and(|table| SECRET_TABLES.contains(table)) => "_".to_owned(),
        DeValue::String(text) => {
            let is_name = path.last().is_some_and(|key| NAMES.contains(key));
            in_one_form(text).filter(|_| !is_name).unwrap_or_else(|| format!("{text:?}"))
        }
        DeValue::Boolean(is_true) => is_true.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Datetime(moment) => moment.to_string(),
    }
}
