//! A job's payload from the command line: `--input JSON`, `--input @FILE`, `--input -`.

use std::fs::File;
use std::io::Read;

use anyhow::Context as _;
use bytesize::ByteSize;
use wharf_core::bounds;

use crate::cli_error::CliError;

/// Reads the payload that the value of `--input` names; `null` without one. JSON on the command line is checked here, close to
/// where it was typed; files and the standard input are taken byte for byte.
///
/// # Errors
/// When it cannot be read, is larger than a payload may be, or is not JSON on the command line.
pub(crate) fn read(input: Option<&str>) -> anyhow::Result<Vec<u8>> {
    match input {
        None => Ok(b"null".to_vec()),
        Some("-") => read_bounded(std::io::stdin().lock(), "the standard input"),
        Some(text) => match text.strip_prefix('@') {
            Some("") => Err(CliError::usage("the file name after `--input @` is missing; write --input @FILE").into()),
            Some(path) => {
                let file = File::open(path)
                    .map_err(|error| CliError::usage(format!("could not open {path} for --input: {error}")))?;
                read_bounded(file, path)
            }
            None => json(text),
        },
    }
}

fn json(text: &str) -> anyhow::Result<Vec<u8>> {
    match serde_json::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => Ok(text.as_bytes().to_vec()),
        Err(error) => {
            let shown: String = text.chars().take(60).collect();
            let hint =
                "; write --input @FILE for a file, --input - for the standard input, or '\"text\"' for a JSON string";
            Err(CliError::usage(format!("--input `{shown}` is not JSON: {error}{hint}")).into())
        }
    }
}

fn read_bounded(from: impl Read, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(bounds::PAYLOAD_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("could not read {name} for --input"))?;
    if bytes.len() as u64 > bounds::PAYLOAD_BYTES_MAX {
        let max = ByteSize(bounds::PAYLOAD_BYTES_MAX).display().iec();
        return Err(CliError::usage(format!("{name} is too large for a payload; the limit is {max}")).into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_as_it_was_written() {
        assert_eq!(read(Some("{\"b\": 1e400}")).unwrap(), b"{\"b\": 1e400}");
        assert_eq!(read(None).unwrap(), b"null");
    }

    #[test]
    fn the_error_for_invalid_json_names_the_alternatives() {
        let error = read(Some("photo.jpg")).unwrap_err();
        assert!(error.to_string().contains("--input `photo.jpg` is not JSON"), "{error}");
        assert!(error.to_string().contains("--input @FILE"), "{error}");
    }

    #[test]
    fn files_are_taken_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.bin");
        std::fs::write(&path, [0xff, 0x00]).unwrap();
        assert_eq!(read(Some(&format!("@{}", path.display()))).unwrap(), [0xff, 0x00]);
        let missing = read(Some("@/no/such/file")).unwrap_err().to_string();
        assert!(missing.starts_with("could not open /no/such/file for --input"), "{missing}");
    }

    #[test]
    fn a_payload_that_is_too_large_is_refused_before_it_is_sent() {
        let endless = std::io::repeat(b'x');
        let error = read_bounded(endless, "photo.raw").unwrap_err().to_string();
        assert_eq!(error, "photo.raw is too large for a payload; the limit is 32.0 MiB");
    }
}
