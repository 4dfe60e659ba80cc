//! A parser of server-sent events.

use std::io::{self, BufRead, Read};

use wharf_core::bounds;

/// The longest event that is read, in bytes. More than any host sends: a result whose text is all escapes.
const EVENT_BYTES_MAX: u64 = 8 * bounds::OUTPUT_BYTES_MAX;

/// A server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    pub(crate) name: String,
    pub(crate) data: String,
    /// The last ID in the stream so far, this event included.
    pub(crate) id: Option<String>,
}

/// An iterator over the events of a response.
#[derive(Debug)]
pub(crate) struct Events<R> {
    from: R,
    id: Option<String>,
    event_bytes_max: u64,
}

impl<R: BufRead> Events<R> {
    pub(crate) fn new(from: R) -> Events<R> {
        Events { from, id: None, event_bytes_max: EVENT_BYTES_MAX }
    }

    /// Reads the next event, or `None` at the end. An event that no empty line ends is ignored.
    fn read(&mut self) -> io::Result<Option<SseEvent>> {
        let (mut name, mut data, mut line) = (String::new(), None::<String>, String::new());
        let mut from = self.from.by_ref().take(self.event_bytes_max);
        loop {
            line.clear();
            if from.read_line(&mut line)? == 0 || !line.ends_with('\n') {
                return if from.limit() > 0 { Ok(None) } else { Err(too_long(self.event_bytes_max)) };
            }
            let text = line.trim_end_matches(['\n', '\r']);
            if text.is_empty() {
                if let Some(data) = data.take() {
                    return Ok(Some(SseEvent { name, data, id: self.id.clone() }));
                }
                name.clear();
                from.set_limit(self.event_bytes_max);
                continue;
            }
            let (field, value) = text.split_once(':').unwrap_or((text, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => name = value.to_owned(),
                "id" => self.id = Some(value.to_owned()),
                "data" => match &mut data {
                    Some(lines) => {
                        lines.push('\n');
                        lines.push_str(value);
                    }
                    None => data = Some(value.to_owned()),
                },
                // Comments keep the connection alive; other fields are not used.
                _ => {}
            }
        }
    }
}

fn too_long(most: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("an event has more than {most} bytes; is this a Wharf host?"))
}

impl<R: BufRead> Iterator for Events<R> {
    type Item = io::Result<SseEvent>;
    fn next(&mut self) -> Option<io::Result<SseEvent>> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Vec<SseEvent> {
        Events::new(text.as_bytes()).map(Result::unwrap).collect()
    }

    fn event(name: &str, data: &str, id: Option<&str>) -> SseEvent {
        SseEvent { name: name.to_owned(), data: data.to_owned(), id: id.map(str::to_owned) }
    }

    #[test]
    fn events_come_in_order_with_their_ids() {
        let text = "id: 1\nevent: chunk\ndata: {\"a\":1}\n\n: keep-alive\n\nid:2\nevent:log\ndata:x\n\nevent: state\ndata: {}\n\n";
        let expected =
            [event("chunk", "{\"a\":1}", Some("1")), event("log", "x", Some("2")), event("state", "{}", Some("2"))];
        assert_eq!(events(text), expected);
    }

    #[test]
    fn data_of_several_lines_is_joined_and_windows_line_ends_are_accepted() {
        assert_eq!(events("data: one\r\ndata:\r\ndata: three\r\n\r\n"), [event("", "one\n\nthree", None)]);
    }

    #[test]
    fn an_event_without_data_or_without_an_end_is_ignored() {
        assert_eq!(events("event: chunk\n\ndata: cut off"), []);
    }
}
