//! How much a job's row grows when an attempt ends. A row that keeps its size is overwritten where it lies; one that grows
//! is taken out of its page and put in again, and the page split when it is full, which costs as much as all the rest.
//! So a row is made with room to spare (the column `room`, the last one), and gives it up as it grows.

/// Enough for an attempt's end with a small result: two moments, the bill, and about 16 bytes.
pub(super) const ALL: i64 = 48;

/// The room that is left in a row of which these columns were empty, zero or one.
pub(super) fn left(numbers: impl Iterator<Item = Option<i64>>, output: &[u8]) -> i64 {
    // From 58 bytes on, the length of a blob takes a second byte.
    let output = output.len() as i64 + i64::from(output.len() >= 58);
    let numbers: i64 = numbers.flatten().map(bytes).sum();
    (ALL - numbers - output).max(0)
}

/// What an integer takes in a record. Source: https://www.sqlite.org/fileformat2.html#record_format
fn bytes(number: i64) -> i64 {
    // The bits that are the sign's are one more than the leading ones or zeros say.
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
    fn integers_take_what_sqlite_gives_them() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, number INTEGER, room BLOB)").unwrap();
        let edges = [7, 8, 15, 16, 23, 24, 31, 32, 47, 48, 62].map(|bits| 1i64 << bits);
        let numbers: Vec<i64> =
            edges.iter().flat_map(|edge| [edge - 1, *edge, -edge, -edge - 1]).chain([0, 1, -1]).collect();
        // Rows of one size fill as many pages whatever their numbers are.
        let pages = |number: i64| -> i64 {
            conn.execute("DELETE FROM t", []).unwrap();
            let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                INSERT INTO t SELECT i, ?1, zeroblob(?2) FROM n";
            conn.execute(many, params![number, left([Some(number)].into_iter(), &[])]).unwrap();
            conn.query_row(
                "SELECT count(*), sum(payload) FROM dbstat WHERE name = 't' AND pagetype = 'leaf'",
                [],
                |row| row.get(1),
            )
            .unwrap()
        };
        let like = pages(0);
        for number in numbers {
            assert_eq!(pages(number), like, "{number}");
        }
    }
}
