//! Server-sent events, read from a stream of lines.

use std::io::{self, BufRead, Read};

use wharf_core::bounds;

/// The longest event that is read, in bytes. More than any host sends: a result whose text is all escapes.
const EVENT_BYTES_MAX: u64 = 8 * bounds::OUTPUT_BYTES_MAX;

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: String,
    /// Of the stream: the last one that was seen, up to and with this event.
    pub(crate) id: Option<String>,
}

/// The events of a response, in order.
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

    /// The next event; `None` at the end. An event that was not ended by an empty line is not one.
    fn read(&mut self) -> io::Result<Option<Event>> {
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
                    return Ok(Some(Event { name, data, id: self.id.clone() }));
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
                // Comments keep the connection alive; other fields are not ours.
                _ => {}
            }
        }
    }
}

fn too_long(most: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("an event has more than {most} bytes; is this a Wharf host?"))
}

impl<R: BufRead> Iterator for Events<R> {
    type Item = io::Result<Event>;
    fn next(&mut self) -> Option<io::Result<Event>> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Vec<Event> {
        Events::new(text.as_bytes()).map(Result::unwrap).collect()
    }

    fn event(name: &str, data: &str, id: Option<&str>) -> Event {
        Event { name: name.to_owned(), data: data.to_owned(), id: id.map(str::to_owned) }
    }

    #[test]
    fn events_come_in_order_with_their_ids() {
        let text = "id: 1\nevent: chunk\ndata: {\"a\":1}\n\n: keep-alive\n\nid:2\nevent:log\ndata:x\n\nevent: state\ndata: {}\n\n";
        let expected =
            [event("chunk", "{\"a\":1}", Some("1")), event("log", "x", Some("2")), event("state", "{}", Some("2"))];
        assert_eq!(events(text), expected);
    }

    #[test]
    fn an_event_without_an_end_is_not_kept() {
        let mut events = Events { from: io::BufReader::new(io::repeat(b'x')), id: None, event_bytes_max: 1000 };
        assert_eq!(events.next().unwrap().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let comments = ": keep-alive\n\n".repeat(1000) + "data: x\n\n";
        let mut events = Events { from: comments.as_bytes(), id: None, event_bytes_max: 1000 };
        assert_eq!(events.next().unwrap().unwrap(), event("", "x", None));
    }

    #[test]
    fn data_of_several_lines_is_joined_and_line_ends_of_windows_are_fine() {
        assert_eq!(events("data: one\r\ndata:\r\ndata: three\r\n\r\n"), [event("", "one\n\nthree", None)]);
    }

    #[test]
    fn an_event_without_data_or_without_an_end_is_none() {
        assert_eq!(events("event: chunk\n\ndata: cut off"), []);
    }
}
