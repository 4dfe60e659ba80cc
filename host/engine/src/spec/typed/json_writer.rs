//! Writes the JSON text of a result, within the bound of one.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wharf_core::bounds;

/// The text so far.
pub(crate) struct JsonWriter {
    text: String,
    bytes_max: usize,
}

/// Why a value has no text.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub(crate) enum NoText {
    /// The result would be too large.
    #[error("the result is more than {} MiB as JSON", bounds::OUTPUT_BYTES_MAX / bounds::MIB)]
    TooLarge,
    /// JSON has no such number.
    #[error("the result has a number that JSON does not have: {0}")]
    NotFinite(f64),
}

type Written = Result<(), NoText>;

impl Default for JsonWriter {
    fn default() -> JsonWriter {
        JsonWriter { text: String::new(), bytes_max: bounds::OUTPUT_BYTES_MAX as usize }
    }
}

impl JsonWriter {
    pub(crate) fn finish(self) -> Vec<u8> {
        self.text.into_bytes()
    }

    /// Makes room for so many bytes more. The buffer grows to the bound and never beyond.
    fn has_room(&mut self, more: usize) -> Written {
        let needed = self.text.len().saturating_add(more);
        if needed > self.bytes_max {
            return Err(NoText::TooLarge);
        }
        if needed > self.text.capacity() {
            let capacity = (self.text.capacity() * 2).min(self.bytes_max).max(needed);
            self.text.reserve_exact(capacity - self.text.len());
        }
        Ok(())
    }

    /// Writes a part as it is.
    pub(crate) fn part(&mut self, part: &str) -> Written {
        self.has_room(part.len())?;
        self.text.push_str(part);
        Ok(())
    }

    pub(crate) fn integer(&mut self, number: i128) -> Written {
        // No integer has more digits.
        self.has_room(20)?;
        match i64::try_from(number) {
            Ok(number) => drop(write!(self.text, "{number}")),
            Err(_) => drop(write!(self.text, "{number}")),
        }
        Ok(())
    }

    pub(crate) fn f64(&mut self, number: f64) -> Written {
        if !number.is_finite() {
            return Err(NoText::NotFinite(number));
        }
        // The shortest text that is read as this number again.
        let text = serde_json::Number::from_f64(number).map(|number| number.to_string()).unwrap_or_default();
        self.part(&text)
    }

    pub(crate) fn f32(&mut self, number: f32) -> Written {
        if !number.is_finite() {
            return Err(NoText::NotFinite(number.into()));
        }
        self.has_room(48)?;
        let exponential = !(1e-5..1e16).contains(&number.abs()) && number != 0.0;
        let _ = if exponential { write!(self.text, "{number:e}") } else { write!(self.text, "{number:?}") };
        Ok(())
    }

    pub(crate) fn string(&mut self, text: &str) -> Written {
        self.has_room(text.len() + 2)?;
        self.text.push('"');
        let mut rest = text;
        while let Some(place) = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)) {
            self.part(&rest[..place])?;
            self.has_room(6)?;
            match rest.as_bytes()[place] {
                b'"' => self.text.push_str("\\\""),
                b'\\' => self.text.push_str("\\\\"),
                b'\n' => self.text.push_str("\\n"),
                b'\r' => self.text.push_str("\\r"),
                b'\t' => self.text.push_str("\\t"),
                control => drop(write!(self.text, "\\u{control:04x}")),
            }
            rest = &rest[place + 1..];
        }
        self.part(rest)?;
        self.part("\"")
    }

    /// Writes bytes in base64.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Written {
        self.has_room(bytes.len() / 3 * 4 + 6)?;
        self.text.push('"');
        STANDARD.encode_string(bytes, &mut self.text);
        self.text.push('"');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut JsonWriter) -> Written) -> Result<String, NoText> {
        let mut writer = JsonWriter { text: String::new(), bytes_max: 100 };
        write(&mut writer).map(|()| String::from_utf8(writer.finish()).unwrap())
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for text in ["", "plain", "a\"b\\c\n\r\t\u{1}\u{1f}é😀/", "\\", "\"\""] {
            let json = written(|writer| writer.string(text)).unwrap();
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text, "{json}");
        }
        for number in [0.0, -0.0, 1.0, 0.1, 1e300, 5e-324, f64::MAX, 123_456_789.123] {
            let json = written(|writer| writer.f64(number)).unwrap();
            assert_eq!(json.parse::<f64>().unwrap().to_bits(), number.to_bits(), "{json}");
            assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
        }
        for number in [0.0, -0.0, 1.0, 0.1, 1e30, 1e-45, f32::MAX, f32::MIN_POSITIVE, 16_777_216.0, 1.5e16] {
            let json = written(|writer| writer.f32(number)).unwrap();
            assert_eq!(json.parse::<f32>().unwrap().to_bits(), number.to_bits(), "{json}");
            assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
        }
        assert_eq!(written(|writer| writer.integer(u64::MAX.into())).unwrap(), "18446744073709551615");
        assert_eq!(written(|writer| writer.integer(i64::MIN.into())).unwrap(), "-9223372036854775808");
        assert_eq!(written(|writer| writer.bytes(b"\xff\0a")).unwrap(), "\"/wBh\"");
    }

    #[test]
    fn the_buffer_never_grows_beyond_the_bound() {
        let mut writer = JsonWriter { text: String::new(), bytes_max: 1_000_000 };
        while writer.integer(1234).is_ok() {}
        assert!(writer.text.len() > 999_900 && writer.text.capacity() <= 1_000_000, "{}", writer.text.capacity());
    }

    #[test]
    fn what_has_no_text_is_refused() {
        assert_eq!(written(|writer| writer.f64(f64::INFINITY)), Err(NoText::NotFinite(f64::INFINITY)));
        assert!(written(|writer| writer.f32(f32::NAN)).is_err());
        assert_eq!(written(|writer| writer.string(&"x".repeat(99))), Err(NoText::TooLarge));
        assert_eq!(written(|writer| writer.string(&"\u{1}".repeat(20))), Err(NoText::TooLarge));
        assert_eq!(written(|writer| writer.bytes(&[0; 75])), Err(NoText::TooLarge));
        assert!(written(|writer| writer.bytes(&[0; 69])).is_ok());
    }
}
