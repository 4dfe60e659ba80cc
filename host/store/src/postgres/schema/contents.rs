//! The contents of a schema, by its tables: nothing, Wharf's tables, or something that must not be changed.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use super::super::session::{Session, SessionError, computed, value};

/// The values of the table `mark` in a schema of this layout.
const APPLICATION: &str = "wharf";
const LAYOUT: i32 = 2;

/// The layout of Wharf 0.1.
const LAYOUT_0_1: i32 = 1;

/// Tables by which a schema of Wharf 0.1 is recognized that has no mark: its first releases wrote none.
const UNMARKED_0_1: [&str; 3] = ["jobs", "entries", "overrides"];

/// The maximum number of unknown tables that an error lists.
const LISTED_MAX: usize = 3;

/// The contents of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    Empty,
    Wharf,
    /// Something else: the reason to refuse it, and what to do.
    Refused(String),
}

/// Tables, views and sequences with their columns, without those of extensions.
type Tables = BTreeMap<String, Vec<String>>;

const TABLES: &str = "SELECT relname::text, coalesce(array_agg(attname::text ORDER BY attnum) FILTER (WHERE attnum > 0 AND NOT attisdropped), '{}')
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace LEFT JOIN pg_attribute ON attrelid = pg_class.oid
    WHERE nspname = $1 AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')
    GROUP BY relname";

impl Contents {
    /// Reads the contents of a schema. Changes nothing.
    pub(super) async fn read(session: &Session, schema: &str) -> Result<Contents, SessionError> {
        let mut tables = Tables::new();
        for row in session.query(TABLES, &[(&schema, Type::TEXT)]).await? {
            tables.insert(computed(&row, 0)?, computed(&row, 1)?);
        }
        let mut marks = Vec::new();
        if has_mark(&tables) {
            for row in session.query("SELECT application::text, layout::int FROM $schema.mark", &[]).await? {
                marks.push((value(&row, "mark", 0)?, value(&row, "mark", 1)?));
            }
        }
        Ok(classify(schema, &tables, &marks))
    }
}

fn has_mark(tables: &Tables) -> bool {
    tables.get("mark").is_some_and(|columns| columns == &["application", "layout"])
}

/// Classifies a schema by its tables and the rows of `mark`. Versions are not compared: those of 0.1 count other migrations.
fn classify(schema: &str, tables: &Tables, marks: &[(String, i32)]) -> Contents {
    let has = |table: &&str| tables.contains_key(*table);
    let has_version = tables.get("version").is_some_and(|columns| columns == &["version", "oldest"]);
    let is_unmarked_0_1 = has_version && !has(&"mark") && UNMARKED_0_1.iter().all(has);
    let name_another = "name another schema with ?schema=NAME";
    let from_0_1 = || {
        Contents::Refused(format!(
            "its schema `{schema}` was written by Wharf 0.1, whose stores this version can't read; finish its jobs with \
             Wharf 0.1, or {name_another}"
        ))
    };
    match marks {
        _ if tables.is_empty() => Contents::Empty,
        [(application, LAYOUT)] if application == APPLICATION && has_version => Contents::Wharf,
        [(application, LAYOUT_0_1)] if application == APPLICATION => from_0_1(),
        [(application, layout)] if application == APPLICATION => Contents::Refused(format!(
            "its schema `{schema}` has Wharf's tables in layout {layout}, and this version can only read layout {LAYOUT}; run the \
             Wharf that made them, or {name_another}"
        )),
        [] if is_unmarked_0_1 => from_0_1(),
        _ => {
            let mut listed: Vec<&str> = tables.keys().take(LISTED_MAX).map(String::as_str).collect();
            if tables.len() > LISTED_MAX {
                listed.push("…");
            }
            Contents::Refused(format!(
                "its schema `{schema}` holds something else ({}), and nothing in it was changed; {name_another}",
                listed.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(names: &[&str]) -> Tables {
        let columns = |name: &str| match name {
            "version" => vec!["version".to_owned(), "oldest".to_owned()],
            "mark" => vec!["application".to_owned(), "layout".to_owned()],
            _ => vec!["id".to_owned()],
        };
        names.iter().map(|name| ((*name).to_owned(), columns(name))).collect()
    }

    fn refused(tables: &Tables, marks: &[(String, i32)]) -> String {
        match classify("jobs", tables, marks) {
            Contents::Refused(reason) => reason,
            accepted => panic!("{accepted:?}: {tables:?}"),
        }
    }

    #[test]
    fn schemas_are_classified_by_their_tables_and_mark() {
        let mark = |application: &str, layout| vec![(application.to_owned(), layout)];
        assert_eq!(classify("jobs", &tables(&[]), &[]), Contents::Empty);
        // An operator may have added something.
        for names in [&["mark", "version"][..], &["mark", "version", "jobs", "my_view"]] {
            assert_eq!(classify("jobs", &tables(names), &mark("wharf", LAYOUT)), Contents::Wharf);
        }

        let newer = refused(&tables(&["mark", "version"]), &mark("wharf", 3));
        assert!(newer.contains("layout 3") && newer.contains("?schema=NAME"), "{newer}");
        for (tables, marks) in [
            (tables(&["mark", "version", "jobs", "entries", "overrides"]), mark("wharf", 1)),
            (tables(&["version", "jobs", "entries", "overrides", "names"]), vec![]),
        ] {
            let old = refused(&tables, &marks);
            assert!(old.contains("`jobs` was written by Wharf 0.1") && old.contains("?schema=NAME"), "{old}");
        }
        for (tables, marks) in [
            (tables(&["customers", "jobs", "orders", "version"]), vec![]),
            (tables(&["version"]), vec![]),
            (tables(&["mark", "version"]), mark("another", 1)),
            (tables(&["mark", "version"]), vec![]),
        ] {
            let reason = refused(&tables, &marks);
            assert!(
                reason.contains("schema `jobs` holds something else")
                    && reason.contains("version") == (tables.len() < 4),
                "{reason}"
            );
        }
    }
}
