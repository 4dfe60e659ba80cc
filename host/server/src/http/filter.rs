//! Filters of jobs in requests.

use wharf_core::find::JobQuery;
use wharf_core::time::Timestamp;

use super::api::ListQuery;
use super::problem::Problem;
use super::query::with_hint;
use crate::access::Access;

/// Reads the filter of a list: the parameter `where`, and the conditions that are parameters of their own.
pub(crate) fn of_parameters(parameters: &ListQuery, now: Timestamp) -> Result<JobQuery, Problem> {
    let mut filter = parse("where", parameters.r#where.as_deref().unwrap_or_default(), now)?;
    for (name, value) in pairs(parameters).into_iter().filter(|(name, _)| *name != "where") {
        let Some(value) = value else { continue };
        let values: Vec<String> = match name {
            "state" | "task" | "plugin" | "outcome" | "fingerprint" | "digest" => {
                value.split(',').map(str::to_owned).collect()
            }
            _ => vec![value.to_owned()],
        };
        let field = name.replace('_', "-");
        filter
            .add(&field, &values, now)
            .map_err(|reason| Problem::bad_request(format!("`{name}`: {}", with_hint(&reason))))?;
    }
    Ok(filter)
}

/// Reads the text of a filter in this member or parameter.
pub(crate) fn parse(name: &str, text: &str, now: Timestamp) -> Result<JobQuery, Problem> {
    JobQuery::parse(text, now)
        .map_err(|error| Problem::bad_request(format!("`{name}`: {}", with_hint(&error.to_string()))))
}

/// Cuts a filter to what a client sees; `None` if it sees no job that meets the filter. A client that is bound to a key does not
/// learn which jobs, perhaps of other keys, have enqueued its own.
pub(crate) fn seen_by(access: &Access, filter: JobQuery) -> Option<JobQuery> {
    match access.key() {
        Some(_) if filter.parent().is_some() => None,
        Some(key) => filter.with_key(key),
        None => Some(filter),
    }
}

/// Returns the parameters that are conditions, with their names.
pub(crate) fn pairs(parameters: &ListQuery) -> [(&'static str, Option<&str>); 15] {
    [
        ("where", parameters.r#where.as_deref()),
        ("state", parameters.state.as_deref()),
        ("task", parameters.task.as_deref()),
        ("plugin", parameters.plugin.as_deref()),
        ("key", parameters.key.as_deref()),
        ("batch", parameters.batch.as_deref()),
        ("parent", parameters.parent.as_deref()),
        ("outcome", parameters.outcome.as_deref()),
        ("fingerprint", parameters.fingerprint.as_deref()),
        ("digest", parameters.digest.as_deref()),
        ("since", parameters.since.as_deref()),
        ("until", parameters.until.as_deref()),
        ("finished_since", parameters.finished_since.as_deref()),
        ("finished_until", parameters.finished_until.as_deref()),
        ("text", parameters.text.as_deref()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: ListQuery) -> Result<String, String> {
        let now = Timestamp::from_millis(1_786_622_400_000);
        of_parameters(&parameters, now).map(|filter| filter.to_string()).map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn parameters_and_the_filter_are_conditions_together() {
        let text = |text: &str| Some(text.to_owned());
        let both = ListQuery {
            r#where: text("payload./a=1 task:a/b"),
            state: text("ready,failed"),
            key: text("a,b"),
            finished_since: text("2h"),
            ..ListQuery::default()
        };
        let expected =
            "state:ready,failed task:a/b key:\"a,b\" finished-since:2026-08-13T10:00:00.000000Z payload./a=1";
        assert_eq!(read(both).unwrap(), expected);
        let twice = ListQuery { r#where: text("state:failed"), state: text("failed"), ..ListQuery::default() };
        assert!(read(twice).unwrap_err().contains("`state`: `state` is given twice"));
    }

    #[test]
    fn a_misspelt_word_is_refused_with_the_nearest() {
        let text = |text: &str| Some(text.to_owned());
        for (parameters, expected) in [
            (
                ListQuery { state: text("runing"), ..ListQuery::default() },
                ["`state`: unknown state `runing`", "did you mean `running`?"],
            ),
            (
                ListQuery { r#where: text("stat:failed"), ..ListQuery::default() },
                ["at character 1: unknown field `stat`", "did you mean `state`?"],
            ),
            (
                ListQuery { outcome: text("traped"), ..ListQuery::default() },
                ["unknown outcome `traped`", "did you mean `trapped`?"],
            ),
        ] {
            let error = read(parameters).unwrap_err();
            expected.iter().for_each(|part| assert!(error.contains(part), "{part}: {error}"));
        }
    }
}
