//! Finds the source line of an instruction. The child process reads a component's debug sections, of which it may die,
//! into a table of bounded size; a report only looks lines up in the table.

use std::collections::HashMap;

use gimli::{AttributeValue, DebugLine, DebugLineOffset, DebugLineStr, DebugStr, EndianSlice, LittleEndian};
use serde::{Deserialize, Serialize};
use wharf_core::bounds;

use crate::inspect::strip::Module;
use crate::spec::problem::cut;

/// Size of a row in bytes: an offset in the component, the number of a file, and a line; little-endian, in this order.
const ROW_BYTES: usize = 4 + 2 + 4;
/// Maximum number of rows that are read of one component, however few of them are kept.
const ROWS_READ_MAX: usize = 4_000_000;
/// WebAssembly's addresses have four bytes.
const ADDRESS_BYTES: u8 = 4;
/// Parts of the paths of files that are not the plugin author's: the standard library's and those of dependencies.
const FOREIGN_PATHS: [&str; 3] = ["/rustc/", "/.cargo/registry/", "/.rustup/"];

/// A table of source lines, ordered by offset. Each row is valid up to the offset of the next one; line 0 means
/// unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LineTable {
    files: Vec<String>,
    /// Serialized apart: see `Description::to_bytes`.
    #[serde(skip)]
    rows: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    offset: u32,
    /// If two rows have one offset, the one with a line counts: it is the last.
    line: u32,
    file: u16,
}

impl LineTable {
    /// Returns the file and the line of an offset in the component that was compiled.
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

    /// Returns the encoded rows, to be stored apart from the rest.
    pub(crate) fn rows(&self) -> &[u8] {
        &self.rows
    }

    /// Returns the table with rows that were stored apart.
    pub(crate) fn with_rows(self, rows: Vec<u8>) -> LineTable {
        LineTable { rows, ..self }
    }

    /// Reads the debug sections of a component's modules.
    pub(crate) fn of(modules: &[Module<'_>]) -> LineTable {
        let mut builder = TableBuilder::default();
        for module in modules {
            builder.module(module);
        }
        builder.table()
    }
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;

#[derive(Default)]
struct TableBuilder {
    rows: Vec<Row>,
    files: Vec<String>,
    numbers: HashMap<String, u16>,
    file_bytes: usize,
    read: usize,
}

impl TableBuilder {
    /// Reads the line programs of one module. Damaged data ends the reading: nothing is known of the rest.
    fn module(&mut self, module: &Module<'_>) {
        let section = |name: &str| Slice::new(module.debug.get(name).copied().unwrap_or_default(), LittleEndian);
        let lines = DebugLine::from(section(".debug_line"));
        let strings = Strings(DebugStr::from(section(".debug_str")), DebugLineStr::from(section(".debug_line_str")));
        let mut at = 0;
        while let Some(next) = self.program(&lines, at, &strings, module) {
            at = next;
        }
    }

    /// Reads the line program at `at`. Returns where the next one starts.
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
        // Code that a linker left out has address 0, where no function can be.
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
            // The end of a sequence ends it here, whatever address it has.
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

    fn table(mut self) -> LineTable {
        self.rows.sort_unstable();
        // Keeps the last row of each offset, and of those the ones where something changes.
        self.rows.reverse();
        self.rows.dedup_by_key(|row| row.offset);
        self.rows.reverse();
        let changes =
            |rows: &mut Vec<Row>| rows.dedup_by_key(|row| (row.line, if row.line == 0 { 0 } else { row.file }));
        changes(&mut self.rows);
        if self.rows.len() > bounds::SOURCE_LINES_MAX {
            let is_foreign: Vec<bool> =
                self.files.iter().map(|file| FOREIGN_PATHS.iter().any(|part| file.contains(part))).collect();
            for row in &mut self.rows {
                if is_foreign.get(usize::from(row.file)).copied().unwrap_or_default() {
                    row.line = 0;
                }
            }
            changes(&mut self.rows);
        }
        if self.rows.len() > bounds::SOURCE_LINES_MAX || self.files.is_empty() {
            return LineTable::default();
        }
        let mut rows = Vec::with_capacity(self.rows.len() * ROW_BYTES);
        for row in &self.rows {
            rows.extend_from_slice(&row.offset.to_le_bytes());
            rows.extend_from_slice(&row.file.to_le_bytes());
            rows.extend_from_slice(&row.line.to_le_bytes());
        }
        LineTable { files: self.files, rows }
    }
}

/// Takes the place of a file's number where there is no name or no space for it.
const NO_FILE: usize = u16::MAX as usize;

/// The sections that names of files may be in.
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

    fn builder(rows: &[(u32, u32, u16)], files: &[&str]) -> LineTable {
        let rows = rows.iter().map(|(offset, line, file)| Row { offset: *offset, line: *line, file: *file }).collect();
        TableBuilder { rows, files: files.iter().map(|file| (*file).to_owned()).collect(), ..TableBuilder::default() }
            .table()
    }

    #[test]
    fn a_row_holds_until_the_next_one_begins() {
        // Two functions in the wrong order; the end of the first is where the second starts.
        let lines = builder(&[(30, 7, 1), (40, 0, 1), (10, 1, 0), (20, 2, 0), (30, 0, 0)], &["a.rs", "b.rs"]);
        let found: Vec<_> = [9, 10, 19, 20, 29, 30, 39, 40, 1000].map(|offset| lines.place(offset)).into();
        let (a1, a2, b7) = (Some(("a.rs", 1)), Some(("a.rs", 2)), Some(("b.rs", 7)));
        assert_eq!(found, [None, a1, a1, a2, a2, b7, b7, None, None]);
        assert_eq!(LineTable::default().place(5), None);
    }

    #[test]
    fn past_the_bound_the_author_s_own_lines_stay() {
        let max = bounds::SOURCE_LINES_MAX as u32;
        let files = ["src/lib.rs", "/rustc/1/library/core/src/iter.rs"];
        let rows: Vec<_> = (0..2 * max).map(|at| (at * 4, at + 1, u16::from(at > 100))).collect();
        let lines = builder(&rows, &files);
        assert_eq!(lines.place(400), Some(("src/lib.rs", 101)));
        assert_eq!(lines.place(404), None);
        let rows: Vec<_> = (0..2 * max).map(|at| (at * 4, at + 1, 0)).collect();
        assert_eq!(builder(&rows, &files), LineTable::default(), "too many of its own");
    }

    #[test]
    fn rows_that_lie_are_no_place() {
        let lines = LineTable { files: vec!["a.rs".to_owned()], rows: vec![0xff; 25] };
        for offset in [0, 5, u32::MAX as usize, usize::MAX] {
            assert_eq!(lines.place(offset), None);
        }
    }
}
