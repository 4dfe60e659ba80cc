//! Arrays as rows.

/// The parameters `$1`, `$2`, … as rows: each is an array, and a column with this name and element type ("id bigint, key text").
/// They are taken apart in the list of what is selected: behind FROM the server would write down each array before it
/// reads the first row, which takes three times as long.
pub(super) fn unnested(columns: &str) -> String {
    let column = |(place, column): (usize, &str)| {
        let (name, of) = column.trim().split_once(' ').expect("a name and a type");
        format!("unnest(${}::{of}[]) AS {name}", place + 1)
    };
    let columns: Vec<String> = columns.split(',').enumerate().map(column).collect();
    format!("(SELECT {})", columns.join(", "))
}
