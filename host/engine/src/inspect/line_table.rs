//! Which line of its sources a component's code was made from. Read out of its debug sections when it is compiled, in the
//! process that may die of them, into a table of bounded size; a report only looks things up in that.

use std::collections::HashMap;

use gimli::{AttributeValue, DebugLine, DebugLineOffset, DebugLineStr, DebugStr, EndianSlice, LittleEndian};
use serde::{Deserialize, Serialize};
use wharf_core::bounds;

use crate::inspect::strip::Module;
use crate::spec::problem::cut;

/// One place: an offset in the component, a file by number, a line. Little-endian, in this order.
const ROW_BYTES: usize = 4 + 2 + 4;
/// Rows that are read of one component, however few of them are kept.
const ROWS_READ_MAX: usize = 4_000_000;
/// WebAssembly's addresses have four bytes.
const ADDRESS_BYTES: u8 = 4;
/// Parts of the names of files that no author of a plugin wrote: the standard library's and those of dependencies.
const NOT_THE_AUTHOR_S: [&str; 3] = ["/rustc/", "/.cargo/registry/", "/.rustup/"];

/// Ordered by offset. Each row holds until the next one begins; line 0 says that nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lines {
    files: Vec<String>,
    /// Kept in a file of their own.
    #[serde(skip)]
    rows: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    offset: u32,
    /// Of two rows for one offset the one with a line counts: it is the last.
    line: u32,
    file: u16,
}

impl Lines {
    /// The file and the line of an offset in the component that was compiled.
    pub(crate) fn place(&self, offset: usize) -> Option<(&str, u32)> {
        let offset = u32::try_from(offset).ok()?;
        let (mut low, mut high) = (0, self.rows.len() / ROW_BYTES);
        while low < high {
            let middle = low.midpoint(high);
            if self.row(middle)?.offset <= offset { low = middle + 1 } else { high = middle }
        }
        let row = self.row(low.checked_sub(1)?)?;
        let file = self.files.get(usize::from(row.file))?;
        (row.line > 0).then_some((file, row.line))
    }

    fn row(&self, number: usize) -> Option<Row> {
        let bytes = self.rows.get(number * ROW_BYTES..(number + 1) * ROW_BYTES)?;
        let [a, b, c, d, e, f, g, h, i, j] = <[u8; ROW_BYTES]>::try_from(bytes).ok()?;
        Some(Row {
            offset: u32::from_le_bytes([a, b, c, d]),
            file: u16::from_le_bytes([e, f]),
            line: u32::from_le_bytes([g, h, i, j]),
        })
    }

    pub(crate) fn rows(&self) -> &[u8] {
        &self.rows
    }

    pub(crate) fn with_rows(self, rows: Vec<u8>) -> Lines {
        Lines { rows, ..self }
    }

    /// Out of the debug sections of a component's modules.
    pub(crate) fn of(modules: &[Module<'_>]) -> Lines {
        let mut reading = Reading::default();
        for module in modules {
            reading.module(module);
        }
        reading.table()
    }
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;

#[derive(Default)]
struct Reading {
    rows: Vec<Row>,
    files: Vec<String>,
    numbers: HashMap<String, u16>,
    file_bytes: usize,
    read: usize,
}

impl Reading {
    /// What is damaged ends the reading of one module: nothing is known of the rest.
    fn module(&mut self, module: &Module<'_>) {
        let section = |name: &str| Slice::new(module.debug.get(name).copied().unwrap_or_default(), LittleEndian);
        let lines = DebugLine::from(section(".debug_line"));
        let strings = Strings(DebugStr::from(section(".debug_str")), DebugLineStr::from(section(".debug_line_str")));
        let mut at = 0;
        while let Some(next) = self.program(&lines, at, &strings, module) {
            at = next;
        }
    }

    /// Reads the program at `at`; returns where the next one begins.
    fn program(
        &mut self,
        lines: &DebugLine<Slice<'_>>,
        at: usize,
        strings: &Strings<'_>,
        module: &Module<'_>,
    ) -> Option<usize> {
        let program = lines.program(DebugLineOffset(at), ADDRESS_BYTES, None, None).ok()?;
        let header = program.header();
        let next =
            at.checked_add(header.unit_length())?.checked_add(usize::from(header.format().initial_length_size()))?;
        let mut files: HashMap<u64, u16> = HashMap::new();
        let mut rows = program.rows();
        // What a linker left out lies at address 0, where no function can be.
        let mut is_left_out = None;
        while let Ok(Some((header, row))) = rows.next_row() {
            self.read += 1;
            if self.read > ROWS_READ_MAX {
                return None;
            }
            let left_out = *is_left_out.get_or_insert(row.address() == 0);
            if row.end_sequence() {
                is_left_out = None;
            }
            // The end of a sequence ends it here, wherever it says that it lies.
            let address = usize::try_from(row.address()).unwrap_or(usize::MAX);
            let address = if row.end_sequence() { address.min(module.code.len()) } else { address };
            if left_out || address > module.code.len() {
                continue;
            }
            let line = if row.end_sequence() { 0 } else { row.line().map_or(0, u64::from) };
            let file = *files.entry(row.file_index()).or_insert_with(|| {
                let name = row.file(header).map(|file| {
                    let directory =
                        file.directory(header).map(|directory| strings.text(&directory)).unwrap_or_default();
                    let name = strings.text(&file.path_name());
                    if directory.is_empty() || name.starts_with('/') { name } else { format!("{directory}/{name}") }
                });
                self.file(name.unwrap_or_default())
            });
            self.rows.push(Row {
                offset: u32::try_from(module.code.start + address).ok()?,
                line: if usize::from(file) == NO_FILE { 0 } else { u32::try_from(line).unwrap_or(0) },
                file,
            });
        }
        Some(next)
    }

    fn file(&mut self, mut name: String) -> u16 {
        name = name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
        cut(&mut name, bounds::FUNCTION_NAME_BYTES_MAX);
        if let Some(number) = self.numbers.get(&name) {
            return *number;
        }
        let bytes = self.file_bytes + name.len();
        if name.is_empty() || self.files.len() >= bounds::SOURCE_FILES_MAX || bytes > bounds::SOURCE_FILES_BYTES_MAX {
            return NO_FILE as u16;
        }
        let number = self.files.len() as u16;
        self.file_bytes = bytes;
        self.files.push(name.clone());
        self.numbers.insert(name, number);
        number
    }

    fn table(mut self) -> Lines {
        self.rows.sort_unstable();
        // The last of one offset, then only where something changes.
        self.rows.reverse();
        self.rows.dedup_by_key(|row| row.offset);
        self.rows.reverse();
        let changes =
            |rows: &mut Vec<Row>| rows.dedup_by_key(|row| (row.line, if row.line == 0 { 0 } else { row.file }));
        changes(&mut self.rows);
        if self.rows.len() > bounds::SOURCE_LINES_MAX {
            let is_foreign: Vec<bool> =
                self.files.iter().map(|file| NOT_THE_AUTHOR_S.iter().any(|part| file.contains(part))).collect();
            for row in &mut self.rows {
                if is_foreign.get(usize::from(row.file)).copied().unwrap_or_default() {
                    row.line = 0;
                }
            }
            changes(&mut self.rows);
        }
        if self.rows.len() > bounds::SOURCE_LINES_MAX || self.files.is_empty() {
            return Lines::default();
        }
        let mut rows = Vec::with_capacity(self.rows.len() * ROW_BYTES);
        for row in &self.rows {
            rows.extend_from_slice(&row.offset.to_le_bytes());
            rows.extend_from_slice(&row.file.to_le_bytes());
            rows.extend_from_slice(&row.line.to_le_bytes());
        }
        Lines { files: self.files, rows }
    }
}

/// In place of a file's number, where there is none or no room for its name.
const NO_FILE: usize = u16::MAX as usize;

/// Where names of files may stand.
struct Strings<'a>(DebugStr<Slice<'a>>, DebugLineStr<Slice<'a>>);

impl Strings<'_> {
    fn text(&self, value: &AttributeValue<Slice<'_>>) -> String {
        let found = match value {
            AttributeValue::String(text) => Some(*text),
            AttributeValue::DebugStrRef(offset) => self.0.get_str(*offset).ok(),
            AttributeValue::DebugLineStrRef(offset) => self.1.get_str(*offset).ok(),
            _ => None,
        };
        found.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(rows: &[(u32, u32, u16)], files: &[&str]) -> Lines {
        let rows = rows.iter().map(|(offset, line, file)| Row { offset: *offset, line: *line, file: *file }).collect();
        Reading { rows, files: files.iter().map(|file| (*file).to_owned()).collect(), ..Reading::default() }.table()
    }

    #[test]
    fn a_row_holds_until_the_next_one_begins() {
        // Two functions, given in the wrong order; the end of the first is where the second begins.
        let lines = reading(&[(30, 7, 1), (40, 0, 1), (10, 1, 0), (20, 2, 0), (30, 0, 0)], &["a.rs", "b.rs"]);
        let found: Vec<_> = [9, 10, 19, 20, 29, 30, 39, 40, 1000].map(|offset| lines.place(offset)).into();
        let (a1, a2, b7) = (Some(("a.rs", 1)), Some(("a.rs", 2)), Some(("b.rs", 7)));
        assert_eq!(found, [None, a1, a1, a2, a2, b7, b7, None, None]);
        assert_eq!(Lines::default().place(5), None);
    }

    #[test]
    fn past_the_bound_the_author_s_own_lines_stay() {
        let max = bounds::SOURCE_LINES_MAX as u32;
        let files = ["src/lib.rs", "/rustc/1/library/core/src/iter.rs"];
        let rows: Vec<_> = (0..2 * max).map(|at| (at * 4, at + 1, u16::from(at > 100))).collect();
        let lines = reading(&rows, &files);
        assert_eq!(lines.place(400), Some(("src/lib.rs", 101)));
        assert_eq!(lines.place(404), None);
        let rows: Vec<_> = (0..2 * max).map(|at| (at * 4, at + 1, 0)).collect();
        assert_eq!(reading(&rows, &files), Lines::default(), "too many of its own");
    }

    #[test]
    fn rows_that_lie_are_no_place() {
        let lines = Lines { files: vec!["a.rs".to_owned()], rows: vec![0xff; 25] };
        for offset in [0, 5, u32::MAX as usize, usize::MAX] {
            assert_eq!(lines.place(offset), None);
        }
    }
}
