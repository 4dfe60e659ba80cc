//! Letters between nodes: rows that are written once, taken out once, and need not outlive the server.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::ids::{NodeId, PluginId};
use wharf_core::node_message::{MessageBody, NodeMessage};
use wharf_core::outcome::Failure;
use wharf_core::rollcall::Answer;

use super::rows::{job_id, length, micros, moment, parse, signed};
use super::session::{Session, SessionError, damaged};
use super::time::{NOW, Time};

/// What a node that died left in the box is thrown away after this.
const KEPT: Duration = Duration::from_secs(900);

/// The columns of a letter that only some kinds of it have.
#[derive(Default)]
struct Columns<'a> {
    kind: &'static str,
    plugins: Vec<&'a str>,
    topic: Option<&'a str>,
    until: Option<i64>,
    depth: Option<i64>,
    chain: Vec<&'a str>,
    /// Of an answer: the text, and how long to wait before trying again.
    said: Option<&'a str>,
    after: Option<i64>,
    body: Option<&'a [u8]>,
}

fn names(plugins: &[PluginId]) -> Vec<&str> {
    plugins.iter().map(PluginId::as_str).collect()
}

fn columns(about: &MessageBody) -> Columns<'_> {
    match about {
        MessageBody::Call { plugins, topic, payload, until, depth, chain } => Columns {
            kind: "call",
            plugins: names(plugins),
            topic: Some(topic.as_str()),
            until: Some(micros(*until)),
            depth: Some(i64::from(*depth)),
            chain: names(chain),
            body: Some(payload),
            ..Columns::default()
        },
        MessageBody::Reply { plugin, answer } => Columns { plugins: vec![plugin.as_str()], ..answer_columns(answer) },
        MessageBody::Over => Columns { kind: "over", ..Columns::default() },
    }
}

fn answer_columns(answer: &Answer) -> Columns<'_> {
    let said = |kind, text| Columns { kind, said: Some(text), ..Columns::default() };
    match answer {
        Answer::Replied(reply) => Columns { kind: "replied", body: Some(reply), ..Columns::default() },
        Answer::Failed(Failure::Retry(text)) => said("retry", text),
        Answer::Failed(Failure::RetryAfter(text, after)) => {
            Columns { after: Some(length(*after)), ..said("retry-after", text) }
        }
        Answer::Failed(Failure::Discard(text)) => said("discard", text),
        Answer::Trapped(text) => said("trapped", text),
        Answer::TimedOut(text) => said("timed-out", text),
        Answer::Skipped(text) => said("skipped", text),
    }
}

pub(super) async fn send(session: &Session, time: &Time, letter: &NodeMessage) -> Result<(), SessionError> {
    let text = format!(
        "INSERT INTO wharf.letters
             (at, sender, receiver, broadcast, kind, plugins, topic, until, depth, chain, said, after, body)
         VALUES (coalesce($1::bigint, {NOW}), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
    );
    let (now, from, to) = (time.given(), signed(letter.from.0), signed(letter.to.0));
    let (broadcast, of) = (signed(letter.broadcast.number()), columns(&letter.about));
    // A guest may say what PostgreSQL does not take for text.
    let said = of.said.map(|said| said.replace('\0', "\u{fffd}"));
    let args = [
        (&now as _, Type::INT8),
        (&from as _, Type::INT8),
        (&to as _, Type::INT8),
        (&broadcast as _, Type::INT8),
        (&of.kind as _, Type::TEXT),
        (&of.plugins as _, Type::TEXT_ARRAY),
        (&of.topic as _, Type::TEXT),
        (&of.until as _, Type::INT8),
        (&of.depth as _, Type::INT8),
        (&of.chain as _, Type::TEXT_ARRAY),
        (&said as _, Type::TEXT),
        (&of.after as _, Type::INT8),
        (&of.body as _, Type::BYTEA),
    ];
    session.ask(&text, &args).await.map(drop)
}

/// Takes the letters to this node out of the box, in the order in which they were put there.
pub(super) async fn receive(session: &Session, time: &Time, node: NodeId) -> Result<Vec<NodeMessage>, SessionError> {
    let text = format!(
        "WITH old AS (DELETE FROM wharf.letters WHERE at < coalesce($1::bigint, {NOW}) - $2 AND receiver <> $3),
              mine AS (DELETE FROM wharf.letters WHERE receiver = $3 RETURNING *)
         SELECT * FROM mine ORDER BY id"
    );
    let (now, kept, to) = (time.given(), length(KEPT), signed(node.0));
    let found =
        session.ask(&text, &[(&now as _, Type::INT8), (&kept as _, Type::INT8), (&to as _, Type::INT8)]).await?;
    found.iter().map(letter).collect()
}

fn letter(row: &Row) -> Result<NodeMessage, SessionError> {
    let node = |column: &str| NodeId(row.get::<_, i64>(column) as u64);
    Ok(NodeMessage {
        from: node("sender"),
        to: node("receiver"),
        broadcast: job_id(row.get("broadcast"))?,
        about: about(row)?,
    })
}

fn about(row: &Row) -> Result<MessageBody, SessionError> {
    let kind: String = row.get("kind");
    let plugins = || parsed(row, "plugins");
    let body = || row.get::<_, Option<Vec<u8>>>("body").unwrap_or_default();
    match kind.as_str() {
        "call" => Ok(MessageBody::Call {
            plugins: plugins()?,
            topic: parse("a topic", row.get::<_, Option<&str>>("topic").unwrap_or_default())?,
            payload: Arc::from(body()),
            until: moment(row, "until"),
            depth: row.get::<_, Option<i64>>("depth").unwrap_or_default() as u32,
            chain: parsed(row, "chain")?,
        }),
        "over" => Ok(MessageBody::Over),
        kind => {
            let plugin = plugins()?.pop().ok_or_else(|| damaged("a reply of nobody", kind))?;
            Ok(MessageBody::Reply { plugin, answer: answer(kind, row, body)? })
        }
    }
}

fn answer(kind: &str, row: &Row, body: impl FnOnce() -> Vec<u8>) -> Result<Answer, SessionError> {
    let said = || row.get::<_, Option<String>>("said").unwrap_or_default();
    let after = || Duration::from_micros(row.get::<_, Option<i64>>("after").unwrap_or_default() as u64);
    Ok(match kind {
        "replied" => Answer::Replied(body()),
        "retry" => Answer::Failed(Failure::Retry(said())),
        "retry-after" => Answer::Failed(Failure::RetryAfter(said(), after())),
        "discard" => Answer::Failed(Failure::Discard(said())),
        "trapped" => Answer::Trapped(said()),
        "timed-out" => Answer::TimedOut(said()),
        "skipped" => Answer::Skipped(said()),
        other => return Err(damaged("a letter about something", other)),
    })
}

fn parsed(row: &Row, column: &str) -> Result<Vec<PluginId>, SessionError> {
    row.get::<_, Vec<String>>(column).iter().map(|text| parse("a plugin", text)).collect()
}
