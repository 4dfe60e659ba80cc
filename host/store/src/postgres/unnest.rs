//! Arrays as rows.

/// Returns SQL that turns the parameters `$1`, `$2`, … into rows: each is an array, and becomes a column with the name and
/// element type of its place in `columns` ("id bigint, key text").
/// The arrays are expanded in the select list: in FROM the server would write down each array before it reads the first row,
/// which takes three times as long.
pub(super) fn unnest(columns: &str) -> String {
    let column = |(position, column): (usize, &str)| {
        let (name, element) = column.trim().split_once(' ').expect("a name and a type");
        format!("unnest(${}::{element}[]) AS {name}", position + 1)
    };
    let columns: Vec<String> = columns.split(',').enumerate().map(column).collect();
    format!("(SELECT {})", columns.join(", "))
}
