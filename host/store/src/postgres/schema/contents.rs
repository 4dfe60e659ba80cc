//! What stands in a schema, told by what is there: nothing, Wharf's tables, or what is not to be touched.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use super::super::session::{Session, SessionError};

/// What Wharf's mark says, and the tables by which it is known.
const APPLICATION: &str = "wharf";
const LAYOUT: i32 = 1;

/// All tables and sequences of the first version, which had no mark.
const FIRST: [&str; 15] = [
    "ended",
    "entries",
    "held",
    "jobs",
    "last_forgotten",
    "letters",
    "lines",
    "names",
    "nodes",
    "numbers",
    "overrides",
    "places",
    "queued",
    "sources",
    "version",
];

/// How many strange tables are named.
const NAMED_MAX: usize = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    Nothing,
    Wharf,
    /// What stands there instead, and what to do.
    Refused(String),
}

/// Tables, views and sequences with their columns; what came with an extension is left out.
type Found = BTreeMap<String, Vec<String>>;

const FIND: &str = "SELECT relname::text, coalesce(array_agg(attname::text ORDER BY attnum) FILTER (WHERE attnum > 0 AND NOT attisdropped), '{}')
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace LEFT JOIN pg_attribute ON attrelid = pg_class.oid
    WHERE nspname = $1 AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')
    GROUP BY relname";

impl Contents {
    /// Reads and changes nothing.
    pub(super) async fn of(session: &Session, schema: &str) -> Result<Contents, SessionError> {
        let rows = session.ask(FIND, &[(&schema, Type::TEXT)]).await?;
        let found: Found = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let mut marks = Vec::new();
        if has_mark(&found) {
            let rows = session.ask("SELECT application::text, layout::int FROM wharf.mark", &[]).await?;
            marks.extend(rows.iter().map(|row| (row.get(0), row.get(1))));
        }
        Ok(judge(schema, &found, &marks))
    }
}

fn has_mark(found: &Found) -> bool {
    found.get("mark").is_some_and(|columns| columns == &["application", "layout"])
}

fn judge(schema: &str, found: &Found, marks: &[(String, i32)]) -> Contents {
    let has = |table: &&str| found.contains_key(*table);
    let is_versioned = found.get("version").is_some_and(|columns| columns == &["version", "oldest"]);
    let names_another = "name another schema in the address (?schema=)";
    match marks {
        _ if found.is_empty() => Contents::Nothing,
        [(application, LAYOUT)] if application == APPLICATION && is_versioned => Contents::Wharf,
        [(application, layout)] if application == APPLICATION => Contents::Refused(format!(
            "schema {schema} has Wharf's tables in layout {layout}, and this host knows layout {LAYOUT}; run the Wharf that made \
             them, or {names_another}"
        )),
        [] if is_versioned && FIRST.iter().all(has) => Contents::Wharf,
        [] if is_versioned && ["jobs", "entries", "overrides"].iter().all(has) => Contents::Refused(format!(
            "its tables are of a layout from before the first release, which no host reads any more; {names_another}, or \
                 DROP SCHEMA {schema} CASCADE, which removes all of its jobs"
        )),
        _ => {
            let mut named: Vec<&str> = found.keys().take(NAMED_MAX).map(String::as_str).collect();
            if found.len() > NAMED_MAX {
                named.push("…");
            }
            Contents::Refused(format!(
                "schema {schema} holds something else ({}), and nothing in it was changed; {names_another}",
                named.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(names: &[&str]) -> Found {
        let columns = |name: &str| match name {
            "version" => vec!["version".to_owned(), "oldest".to_owned()],
            "mark" => vec!["application".to_owned(), "layout".to_owned()],
            _ => vec!["id".to_owned()],
        };
        names.iter().map(|name| ((*name).to_owned(), columns(name))).collect()
    }

    fn refused(found: &Found, marks: &[(String, i32)]) -> String {
        match judge("jobs", found, marks) {
            Contents::Refused(why) => why,
            taken => panic!("{taken:?}: {found:?}"),
        }
    }

    #[test]
    fn tables_are_known_for_what_they_are() {
        let mark = |application: &str, layout| vec![(application.to_owned(), layout)];
        assert_eq!(judge("jobs", &tables(&[]), &[]), Contents::Nothing);
        assert_eq!(judge("jobs", &tables(&FIRST), &[]), Contents::Wharf, "the first version");
        // Whoever operates it may have added something.
        let more: Vec<&str> = FIRST.into_iter().chain(["kv", "kv_usage", "my_view"]).collect();
        assert_eq!(judge("jobs", &tables(&more), &[]), Contents::Wharf);
        let marked = tables(&["mark", "version"]);
        assert_eq!(judge("jobs", &marked, &mark("wharf", LAYOUT)), Contents::Wharf);

        let layout = refused(&marked, &mark("wharf", 2));
        assert!(layout.contains("layout 2") && layout.contains("?schema="), "{layout}");
        let early = refused(&tables(&["version", "jobs", "entries", "overrides", "names"]), &[]);
        assert!(early.contains("before the first release"), "{early}");
        for (found, marks) in [
            (tables(&["customers", "jobs", "orders", "version"]), vec![]),
            (tables(&["version"]), vec![]),
            (tables(&["mark", "version"]), mark("another", 1)),
            (tables(&["mark", "version"]), vec![]),
        ] {
            let why = refused(&found, &marks);
            assert!(why.contains("schema jobs") && why.contains("version") == (found.len() < 4), "{why}");
        }
    }
}
