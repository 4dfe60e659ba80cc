//! Free bytes in a job's row for what the end of an attempt adds to it.
//!
//! A row that keeps its size is overwritten in place. One that grows is removed from its page and inserted again, and the page
//! is split if it is full, which costs as much as everything else. So a row is created with free bytes (the column `padding`,
//! the last one), which shrink as the row grows.

/// Padding of a new row in bytes: enough for the end of an attempt with a small result, which is two moments, the usage and
/// about 16 bytes.
pub(super) const BYTES: i64 = 48;

/// Returns the padding in bytes that is left in a row after these integers and this output were written to columns that were
/// null, zero or one.
pub(super) fn remaining(numbers: impl Iterator<Item = Option<i64>>, output: &[u8]) -> i64 {
    // From 58 bytes on, the length of a blob takes a second byte.
    let output = output.len() as i64 + i64::from(output.len() >= 58);
    let numbers: i64 = numbers.flatten().map(integer_bytes).sum();
    (BYTES - numbers - output).max(0)
}

/// Returns how many bytes an integer takes in a record. Source: https://www.sqlite.org/fileformat2.html#record_format
fn integer_bytes(number: i64) -> i64 {
    // The sign needs one bit more than the number of leading ones or zeros leaves.
    let bits = 65 - (number ^ (number >> 63)).leading_zeros();
    match bits {
        _ if number == 0 || number == 1 => 0,
        0..=8 => 1,
        9..=16 => 2,
        17..=24 => 3,
        25..=32 => 4,
        33..=48 => 6,
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, params};

    use super::*;

    #[test]
    fn integers_take_as_many_bytes_as_sqlite_gives_them() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, number INTEGER, padding BLOB)").unwrap();
        let edges = [7, 8, 15, 16, 23, 24, 31, 32, 47, 48, 62].map(|bits| 1i64 << bits);
        let numbers: Vec<i64> =
            edges.iter().flat_map(|edge| [edge - 1, *edge, -edge, -edge - 1]).chain([0, 1, -1]).collect();
        // Rows of the same size take as many bytes whatever their numbers are.
        let table_bytes = |number: i64| -> i64 {
            conn.execute("DELETE FROM t", []).unwrap();
            let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                INSERT INTO t SELECT i, ?1, zeroblob(?2) FROM n";
            conn.execute(fill, params![number, remaining([Some(number)].into_iter(), &[])]).unwrap();
            conn.query_row(
                "SELECT count(*), sum(payload) FROM dbstat WHERE name = 't' AND pagetype = 'leaf'",
                [],
                |row| row.get(1),
            )
            .unwrap()
        };
        let expected = table_bytes(0);
        for number in numbers {
            assert_eq!(table_bytes(number), expected, "{number}");
        }
    }
}
