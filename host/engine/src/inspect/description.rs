//! What the host knows of a file that was read, bounded whatever the file contains. Made in the child process, cached
//! by the file's digest, and all that the host ever sees besides the code.

use serde::{Deserialize, Serialize};
use wharf_core::bounds;

use crate::inspect::line_table::LineTable;
use crate::inspect::plain_exports::PlainExports;
use crate::spec::problem::Problem;
use crate::wasmtime_config::EngineKind;

/// The description of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    pub(crate) kind: EngineKind,
    pub(crate) form: CodeForm,
    /// The exports in place of the contract; `None` if it exports the contract.
    pub(crate) plain: Option<PlainExports>,
    /// The manifest in its custom section.
    pub(crate) manifest: Option<String>,
    /// The names of interfaces, with their versions.
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
    /// Languages, SDKs and tools that name themselves as its producers.
    pub(crate) producers: Vec<String>,
    /// Why it cannot be loaded; empty if it can.
    pub(crate) problems: Vec<Problem>,
    /// Notes on everything that does not work as one might expect.
    pub(crate) notes: Vec<Problem>,
    pub(crate) lines: LineTable,
    /// SHA-256 of its compiled code; `None` exactly if there are problems.
    pub(crate) code: Option<String>,
    /// Number of times that its reader was ended from outside, for example by a machine short of memory; `problems` then explains
    /// it.
    pub(crate) interrupted: u32,
    /// Limits within which its reader ended, if it did: with more, the file is read again.
    pub(crate) ended_within: Option<ReaderLimits>,
}

/// The form of a file that is WebAssembly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CodeForm {
    Component,
    /// A core module.
    Module,
}

/// The limits of a component's reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReaderLimits {
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_seconds: u64,
}

impl ReaderLimits {
    fn are_within(self, other: ReaderLimits) -> bool {
        self.memory_bytes <= other.memory_bytes && self.cpu_seconds <= other.cpu_seconds
    }
}

/// After so many ends of its reader from outside, the file counts as the cause.
pub(crate) const INTERRUPTED_MAX: u32 = 2;

impl Description {
    pub(crate) fn refused(problems: Vec<Problem>) -> Description {
        Description {
            kind: EngineKind::Sync,
            form: CodeForm::Component,
            plain: None,
            manifest: None,
            imports: Vec::new(),
            exports: Vec::new(),
            producers: Vec::new(),
            problems,
            notes: Vec::new(),
            lines: LineTable::default(),
            code: None,
            interrupted: 0,
            ended_within: None,
        }
    }

    /// Returns true if reading the file again within these limits would give nothing new.
    pub(crate) fn is_final(&self, limits: ReaderLimits) -> bool {
        (self.interrupted == 0 || self.interrupted >= INTERRUPTED_MAX)
            && self.ended_within.is_none_or(|before| limits.are_within(before))
    }

    /// Returns the description, or one that refuses the file if this one would be larger than its reader takes: it would count as
    /// damaged, and the file would be read again and again.
    pub(crate) fn bounded(self) -> Result<Description, String> {
        let (bytes, max) = (self.to_bytes()?.len() as u64, bounds::DESCRIPTION_BYTES_MAX);
        if bytes <= max {
            return Ok(self);
        }
        let [bytes, max] = [bytes, max].map(|bytes| bytesize::ByteSize(bytes).display().iec());
        let what = format!("its exports, imports and lines take {bytes} to describe; the limit is {max}");
        Ok(Description::refused(vec![Problem::new(what).hint("export fewer functions, or shorten their names")]))
    }

    /// Serializes the description: a line of JSON, followed by the rows of `lines` as they are.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let mut bytes = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        bytes.push(b'\n');
        bytes.extend_from_slice(self.lines.rows());
        Ok(bytes)
    }

    /// Reads a description; `None` if it is damaged.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Description> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (json, rows) = (bytes.get(..end)?, bytes.get(end + 1..)?);
        let description: Description = serde_json::from_slice(json).ok()?;
        Some(Description { lines: description.lines.clone().with_rows(rows.to_vec()), ..description })
    }
}

/// Shortens each of the names, and their list to [`bounds::COMPONENT_NAMES_MAX`].
pub(crate) fn shown(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names = names;
    let mut shown: Vec<String> = names.by_ref().take(bounds::COMPONENT_NAMES_MAX).collect();
    for name in &mut shown {
        crate::spec::problem::cut(name, bounds::COMPONENT_NAME_BYTES_MAX);
    }
    let more = names.count();
    if more > 0 {
        shown.push(format!("... and {more} more"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_description_is_read_back_and_within_its_bound() {
        // Six bytes of JSON for each byte.
        let long = |bytes: usize| "\u{1}".repeat(bytes);
        let problem = Problem::new(long(bounds::REFUSAL_BYTES_MAX));
        let names = || shown((0..100_000).map(|_| long(1000)));
        let lines = LineTable::default().with_rows(b"\n\0\xff\n".to_vec());
        let manifest = Some(long(bounds::MANIFEST_BYTES_MAX as usize));
        let max =
            Description { manifest, imports: names(), exports: names(), lines, ..Description::refused(vec![problem]) };
        let bytes = max.to_bytes().unwrap();
        assert!((bytes.len() as u64) < bounds::DESCRIPTION_BYTES_MAX);
        assert_eq!(Description::from_bytes(&bytes), Some(max.clone()));
        assert_eq!(max.clone().bounded(), Ok(max.clone()));
        let too_large = Description { manifest: Some("a".repeat(bounds::DESCRIPTION_BYTES_MAX as usize)), ..max };
        let refused = too_large.bounded().unwrap();
        assert!(
            refused.problems[0].to_string().contains("to describe; the limit is 3.0 MiB"),
            "{:?}",
            refused.problems
        );
        for damaged in [&bytes[1..], &bytes[..100], &[]] {
            assert_eq!(Description::from_bytes(damaged), None);
        }
    }
}
