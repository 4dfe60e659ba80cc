//! The fields of a form, or of a query that a form wrote.

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use percent_encoding::percent_decode;
use wharf_core::ids::ParseIdError;

use crate::http::problem::{Kind, Problem};

/// The number of fields up to which a form is read: the rows of a full page, selected, and some more.
const FIELDS_MAX: usize = 2000;

/// The fields of a form, in their order. A field may be there more than once. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Form(Arc<[(String, String)]>);

impl Form {
    /// Reads the body of a form.
    ///
    /// # Errors
    /// If a field is not UTF-8, or there are too many.
    pub(super) fn parse(body: &[u8]) -> Result<Form, Problem> {
        let text = |bytes: &[u8]| {
            let spaces: Vec<u8> = bytes.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
            let decoded = percent_decode(&spaces).decode_utf8().map(|text| text.into_owned());
            decoded.map_err(|_| Problem::bad_request("invalid form: a field is not UTF-8"))
        };
        let pairs = || body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
        if pairs().nth(FIELDS_MAX).is_some() {
            return Err(Problem::bad_request(format!("invalid form: expected at most {FIELDS_MAX} fields")));
        }
        let read = pairs().map(|pair| {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            Ok((text(parts.next().unwrap_or_default())?, text(parts.next().unwrap_or_default())?))
        });
        read.collect::<Result<_, _>>().map(Form)
    }

    /// Reads the query of an address.
    ///
    /// # Errors
    /// If a parameter is not UTF-8, or there are too many.
    pub(super) fn of_query(uri: &Uri) -> Result<Form, Problem> {
        Form::parse(uri.query().unwrap_or_default().as_bytes())
    }

    /// Returns the first value of a field; `None` if it is absent or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next().map(str::trim).filter(|value| !value.is_empty())
    }

    /// Returns the first value of a field as it was sent, with its spaces.
    pub(super) fn as_sent(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    /// Returns each value of a field.
    pub(super) fn all<'f>(&'f self, name: &str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Returns the fields whose names begin with `prefix`, without it.
    pub(super) fn below<'f>(&'f self, prefix: &str) -> impl Iterator<Item = (&'f str, &'f str)> {
        self.0.iter().filter_map(move |(field, value)| Some((field.strip_prefix(prefix)?, value.as_str())))
    }

    /// Reads a field that must be there.
    ///
    /// # Errors
    /// If it is absent or invalid.
    pub(super) fn parsed<T: FromStr<Err = ParseIdError>>(&self, name: &str) -> Result<T, Problem> {
        // As it was sent: a key may begin or end with a space.
        self.as_sent(name).parse().map_err(|error| Problem::bad_request(format!("`{name}`: {error}")))
    }

    /// Reads a field that may be left empty.
    ///
    /// # Errors
    /// If it is invalid.
    pub(super) fn optional<T: FromStr<Err = ParseIdError>>(&self, name: &str) -> Result<Option<T>, Problem> {
        self.get(name).map(|_| self.parsed(name)).transpose()
    }

    /// Reads a number that may be left empty.
    ///
    /// # Errors
    /// If it is not a number.
    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Problem> {
        let read = |text: &str| {
            let invalid = |_| Problem::bad_request(format!("`{name}`: expected a whole number, got `{text}`"));
            text.parse().map_err(invalid)
        };
        self.get(name).map(read).transpose()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Form {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Form, Problem> {
        let unread = || Problem::new(Kind::INTERNAL, "a bug in Wharf: the form was not read before its route");
        parts.extensions.get::<Form>().cloned().ok_or_else(unread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_and_may_repeat() {
        let form = Form::parse(b"id=a&id=b%26&note=x+y%2Bz&empty=&json.n=1").unwrap();
        assert_eq!(form.all("id").collect::<Vec<_>>(), ["a", "b&"]);
        assert_eq!((form.get("note"), form.get("empty"), form.get("absent")), (Some("x y+z"), None, None));
        assert_eq!(form.below("json.").collect::<Vec<_>>(), [("n", "1")]);
        assert_eq!(form.number::<u32>("json.n").unwrap(), Some(1));
        assert!(form.number::<u32>("note").is_err() && Form::parse(b"a=%ff").is_err());
    }

    #[test]
    fn fields_are_counted_before_they_are_read() {
        assert!(Form::parse("id=a&".repeat(FIELDS_MAX).as_bytes()).is_ok());
        let refused = Form::parse("=&".repeat(FIELDS_MAX + 1).as_bytes()).unwrap_err();
        assert!(refused.detail().contains("at most 2000 fields"), "{}", refused.detail());
    }
}
