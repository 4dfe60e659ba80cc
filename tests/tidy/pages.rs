//! Everything that users can name stands in its page: routes, problem codes, commands, settings, grants and metrics.

use std::collections::{BTreeMap, BTreeSet};

use crate::{files_below, read, root};

fn page(name: &str) -> String {
    read(&root().join("host/docs").join(name))
}

/// Returns the cells of the rows of all tables whose first cell begins with a name in backticks, by these names.
fn rows(page: &str) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<String> = line.trim_end_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
        let name = cells[0].split('`').next().expect("a name").to_owned();
        found.insert(name, cells);
    }
    found
}

/// Returns the rows of the tables of all pages: a subject with a page of its own has its settings and metrics there.
fn rows_of_all_pages() -> BTreeMap<String, Vec<String>> {
    let pages = files_below(&root().join("host/docs"), "md");
    pages.iter().flat_map(|page| rows(&read(page))).collect()
}

/// Returns the first string of each place in `code` that follows `before`.
fn strings_after<'c>(code: &'c str, before: &str) -> Vec<&'c str> {
    let first = |part: &'c str| part.trim_start().strip_prefix('"')?.split('"').next();
    code.split(before).skip(1).filter_map(first).collect()
}

#[test]
fn every_route_stands_in_its_page_with_its_scope() {
    let rows = rows(&page("http-api.md"));
    let scopes = read(&root().join("host/server/src/http/scope.rs"));
    let table = scopes.split("const NEEDS").nth(1).expect("the table of needs").split("];").next().expect("its end");
    let mut routes = BTreeSet::new();
    for line in table.lines().filter_map(|line| line.trim().strip_prefix("(Method::")) {
        let (method, rest) = line.split_once(", \"").expect("a method");
        let (path, need) = rest.split_once("\", Need::").expect("a path and a need");
        let need = need.trim_end_matches("),");
        // The router knows one name for the segment; for a durable broadcast it is an ID.
        let path = if (method, path) == ("GET", "/v1/broadcasts/{topic}") { "/v1/broadcasts/{id}" } else { path };
        let route = format!("{method} {path}");
        let row = rows.get(&route).unwrap_or_else(|| panic!("http-api.md has no row for `{route}`"));
        let scope = row.last().expect("a scope");
        let expected = match need {
            "Read" | "ReadAll" => "`read`",
            "Operate" | "OperateAll" => "`operate`",
            "Enqueue" => "`enqueue:PLUGIN/TASK`",
            "Broadcast" => "`broadcast:TOPIC`",
            "Admin" => "`admin`",
            other => panic!("the scope of `Need::{other}` is known here"),
        };
        assert!(scope.starts_with(expected), "`{route}` needs {expected}, and its row says {scope}");
        let is_closed_to_keys = ["ReadAll", "OperateAll", "Broadcast"].contains(&need);
        assert_eq!(
            scope.contains('*'),
            is_closed_to_keys,
            "`{route}`: a star says that a token with a key can't use it"
        );
        routes.insert(route);
    }
    for path in ["/openapi.json", "/health", "/ready"] {
        routes.insert(format!("GET {path}"));
    }
    assert!(routes.len() > 35, "the routes are found: {}", routes.len());
    let methods = ["GET ", "POST ", "PUT ", "DELETE "];
    let told = rows.keys().filter(|name| methods.iter().any(|method| name.starts_with(method)));
    let unknown: Vec<_> = told.filter(|name| !routes.contains(*name)).collect();
    assert!(unknown.is_empty(), "http-api.md has rows for routes that are not there: {unknown:?}");
}

#[test]
fn every_problem_code_stands_in_its_page() {
    let rows = rows(&page("http-api.md"));
    let codes = read(&root().join("host/server/tests/snapshots/problem-codes.txt"));
    for line in codes.lines() {
        let (status, code) = line.split_once(' ').expect("a status and a code");
        let row = rows.get(code).unwrap_or_else(|| panic!("http-api.md has no row for the code `{code}`"));
        assert_eq!(row[1], status, "the status of `{code}`");
    }
    assert!(codes.lines().count() > 30, "the codes are found");
}

#[test]
fn every_command_stands_in_its_page() {
    let page = page("cli.md");
    let help = read(&root().join("host/server/tests/snapshots/help.txt"));
    let mut found = 0;
    for part in help.split("$ wharf ").skip(1) {
        let (command, text) = part.split_once("--help\n").expect("a command and its help");
        // A command with commands of its own is named with each of these.
        if command.is_empty() || text.contains("\nCommands:\n") {
            continue;
        }
        found += 1;
        let name = format!("`wharf {}`", command.trim());
        assert!(page.contains(&name), "cli.md does not name {name}");
    }
    assert!(found > 50, "the commands are found: {found}");
}

#[test]
fn every_setting_stands_in_its_page_with_its_default() {
    let mut all = rows_of_all_pages();
    all.extend(rows(&page("configuration.md")));
    let table = read(&root().join("host/server/src/config/table.rs"));
    let table = table.split("const SETTINGS").nth(1).expect("the table").split("\n];").next().expect("its end");
    let mut found = 0;
    for part in table.split("\n    setting(").skip(1) {
        let mut strings = part.split('"').skip(1).step_by(2);
        let (key, default) = (strings.next().expect("a key"), strings.next().expect("a default"));
        found += 1;
        let row = all.get(key).unwrap_or_else(|| panic!("no page of host/docs has a row for the setting `{key}`"));
        let shown = &row[1];
        assert!(
            default.is_empty() || shown == &format!("`{default}`"),
            "the default of `{key}` is {default:?}, not {shown}"
        );
        for word in ["live", "shared"] {
            let flags = row.last().expect("a cell");
            assert_eq!(
                flags.contains(word),
                part.contains(&format!(".{word}()")),
                "`{key}` is {word}, or its row says so"
            );
        }
    }
    assert!(found > 20, "the settings are found: {found}");
}

#[test]
fn every_grant_stands_in_its_page() {
    let pages: String = files_below(&root().join("host/docs"), "md").iter().map(|page| read(page)).collect();
    let grants = read(&root().join("host/engine/src/spec/grants.rs"));
    let fields = grants.split("pub struct PluginSettings {").nth(1).expect("the struct").split("\n}").next();
    let mut found = 0;
    for line in fields.expect("its end").lines().filter_map(|line| line.trim().strip_prefix("pub ")) {
        let key = line.split(':').next().expect("a name").replace('_', "-");
        found += 1;
        let named =
            [format!("| `{key}` |"), format!("| `[plugins.NAME.{key}]` |"), format!("| `[plugins.NAME.{key}.TASK]` |")];
        assert!(
            named.iter().any(|row| pages.contains(row)),
            "no page of host/docs has a row for `{key}` of [plugins.NAME]"
        );
    }
    assert!(found > 10, "the keys are found: {found}");
}

#[test]
fn every_metric_stands_in_its_page() {
    let (page, all) = (rows(&page("metrics.md")), rows_of_all_pages());
    let (server, mut code) = (root().join("host/server/src"), read(&root().join("host/server/src/metrics.rs")));
    files_below(&server.join("metrics"), "rs").iter().for_each(|file| code.push_str(&read(file)));
    code.push_str(&read(&server.join("http/health.rs")));
    // The name in a row has the prefix of the host, and what its kind or its unit adds.
    let names = |name: &str| {
        let ends = ["", "_total", "_seconds", "_bytes", "_info"].into_iter();
        ends.flat_map(|end| [format!("wharf_{name}{end}"), format!("{name}{end}")]).collect::<Vec<_>>()
    };
    let mut found = BTreeSet::new();
    let registers =
        ["counters(", "histograms(", "register(", "register_with_unit(", ".plain(", "labelled(", "seconds("];
    for name in registers.iter().flat_map(|before| strings_after(&code, before)) {
        assert!(names(name).iter().any(|name| all.contains_key(name)), "no page of host/docs has a row for {name:?}");
        found.insert(name);
    }
    assert!(found.len() > 40, "the metrics are found: {}", found.len());
    let literals: BTreeSet<&str> = code.split('"').collect();
    let is_there = |row: &&String| literals.iter().any(|name| names(name).contains(row));
    let unknown: Vec<_> = page.keys().filter(|row| !is_there(row)).collect();
    assert!(unknown.is_empty(), "metrics.md has rows for metrics that are not there: {unknown:?}");
}

#[test]
fn the_searches_find_what_is_there() {
    let found = rows("| `a` | x | `b` |\n| `c/d` and more | y |\n| no |\n");
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "c/d"]);
    assert_eq!(found["a"], ["a`", "x", "`b`"]);
    assert_eq!(strings_after("f(\"a\", 1); f(\n  \"b\"); f(c)", "f("), ["a", "b"]);
}
