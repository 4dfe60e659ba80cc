//! Messages between nodes: rows that are written once, read once, and may be lost in a crash of the server.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::ids::{JobId, NodeId, PluginId};
use wharf_core::node_message::{MessageBody, NodeMessage};
use wharf_core::outcome::Failure;
use wharf_core::rollcall::Answer;

use super::rows::{self, job_id};
use super::session::{Session, SessionError, value};
use super::time::{NOW, Time};
use super::{PostgresStore, nodes};
use crate::columns::{DamagedData, duration_us, parse, signed, timestamp_us};
use crate::store::{NodeMessages, Nudges, StoreError};

const TABLE: &str = "node_messages";

/// Messages to a node that died are deleted after this.
const KEPT: Duration = Duration::from_secs(900);

/// The columns of a message that depend on its kind.
#[derive(Default)]
struct BodyColumns<'a> {
    kind: &'static str,
    plugins: Vec<&'a str>,
    topic: Option<&'a str>,
    deadline_at: Option<i64>,
    depth: Option<i64>,
    chain: Vec<&'a str>,
    /// The text of a reply, or the name of an operator.
    text: Option<&'a str>,
    /// The time to wait before the next try, in microseconds.
    retry_after_us: Option<i64>,
    body: Option<&'a [u8]>,
}

fn ids(plugins: &[PluginId]) -> Vec<&str> {
    plugins.iter().map(PluginId::as_str).collect()
}

fn body_columns(body: &MessageBody) -> BodyColumns<'_> {
    match body {
        MessageBody::Call { plugins, topic, payload, until, depth, chain } => BodyColumns {
            kind: "call",
            plugins: ids(plugins),
            topic: Some(topic.as_str()),
            deadline_at: Some(timestamp_us(*until)),
            depth: Some(i64::from(*depth)),
            chain: ids(chain),
            body: Some(payload),
            ..BodyColumns::default()
        },
        MessageBody::Reply { plugin, answer } => {
            BodyColumns { plugins: vec![plugin.as_str()], ..reply_columns(answer) }
        }
        MessageBody::Over => BodyColumns { kind: "over", ..BodyColumns::default() },
        MessageBody::SetDrained { drained, by, until } => {
            let kind = if *drained { "drain" } else { "resume" };
            let deadline_at = Some(timestamp_us(*until));
            BodyColumns { kind, text: by.as_deref(), deadline_at, ..BodyColumns::default() }
        }
    }
}

fn reply_columns(answer: &Answer) -> BodyColumns<'_> {
    let with_text = |kind, text| BodyColumns { kind, text: Some(text), ..BodyColumns::default() };
    match answer {
        Answer::Replied(reply) => BodyColumns { kind: "replied", body: Some(reply), ..BodyColumns::default() },
        Answer::Failed(Failure::Retry(text)) => with_text("retry", text),
        Answer::Failed(Failure::RetryAfter(text, after)) => {
            BodyColumns { retry_after_us: Some(duration_us(*after)), ..with_text("retry-after", text) }
        }
        Answer::Failed(Failure::Discard(text)) => with_text("discard", text),
        Answer::Trapped(text) => with_text("trapped", text),
        Answer::TimedOut(text) => with_text("timed-out", text),
        Answer::Skipped(text) => with_text("skipped", text),
    }
}

/// Writes a message.
pub(super) async fn send(session: &Session, time: &Time, message: &NodeMessage) -> Result<(), SessionError> {
    let text = format!(
        "INSERT INTO $schema.node_messages
             (sent_at, sender, receiver, broadcast, kind, plugins, topic, deadline_at, depth, chain, text, retry_after_us, body)
         VALUES (coalesce($1::bigint, {NOW}), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"
    );
    let (now, from, to) = (time.manual_micros(), signed(message.from.0), signed(message.to.0));
    let (broadcast, columns) = (signed(message.broadcast.number()), body_columns(&message.about));
    // A guest may write a NUL, which PostgreSQL does not accept in a text.
    let reply_text = columns.text.map(|text| text.replace('\0', "\u{fffd}"));
    let args = [
        (&now as _, Type::INT8),
        (&from as _, Type::INT8),
        (&to as _, Type::INT8),
        (&broadcast as _, Type::INT8),
        (&columns.kind as _, Type::TEXT),
        (&columns.plugins as _, Type::TEXT_ARRAY),
        (&columns.topic as _, Type::TEXT),
        (&columns.deadline_at as _, Type::INT8),
        (&columns.depth as _, Type::INT8),
        (&columns.chain as _, Type::TEXT_ARRAY),
        (&reply_text as _, Type::TEXT),
        (&columns.retry_after_us as _, Type::INT8),
        (&columns.body as _, Type::BYTEA),
    ];
    session.query(&text, &args).await.map(drop)
}

/// Deletes the messages to this node and returns them, in the order in which they were sent.
pub(super) async fn receive(session: &Session, time: &Time, node: NodeId) -> Result<Vec<NodeMessage>, SessionError> {
    let text = format!(
        "WITH old AS (
                 DELETE FROM $schema.node_messages WHERE sent_at < coalesce($1::bigint, {NOW}) - $2 AND receiver <> $3),
              received AS (DELETE FROM $schema.node_messages WHERE receiver = $3 RETURNING *)
         SELECT * FROM received ORDER BY id"
    );
    let (now, kept, to) = (time.manual_micros(), duration_us(KEPT), signed(node.0));
    let args = [(&now as _, Type::INT8), (&kept as _, Type::INT8), (&to as _, Type::INT8)];
    session.query(&text, &args).await?.iter().map(read).collect()
}

fn read(row: &Row) -> Result<NodeMessage, SessionError> {
    let node = |column: &str| value::<i64>(row, TABLE, column).map(|id| NodeId(id as u64));
    Ok(NodeMessage {
        from: node("sender")?,
        to: node("receiver")?,
        broadcast: job_id(row, TABLE, "broadcast")?,
        about: read_body(row)?,
    })
}

fn read_body(row: &Row) -> Result<MessageBody, SessionError> {
    let kind: String = value(row, TABLE, "kind")?;
    let plugins = |column: &str| {
        let texts: Vec<String> = value(row, TABLE, column)?;
        Ok::<_, SessionError>(texts.iter().map(|text| parse("plugin", text)).collect::<Result<Vec<PluginId>, _>>()?)
    };
    match kind.as_str() {
        "call" => Ok(MessageBody::Call {
            plugins: plugins("plugins")?,
            topic: parse("topic", value::<Option<&str>>(row, TABLE, "topic")?.unwrap_or_default())?,
            payload: value::<Option<&[u8]>>(row, TABLE, "body")?.unwrap_or_default().into(),
            until: rows::timestamp(row, TABLE, "deadline_at")?,
            depth: value::<Option<i64>>(row, TABLE, "depth")?.unwrap_or_default() as u32,
            chain: plugins("chain")?,
        }),
        "over" => Ok(MessageBody::Over),
        "drain" | "resume" => Ok(MessageBody::SetDrained {
            drained: kind == "drain",
            by: value(row, TABLE, "text")?,
            until: rows::timestamp(row, TABLE, "deadline_at")?,
        }),
        kind => {
            let plugin =
                plugins("plugins")?.pop().ok_or_else(|| DamagedData::invalid("reply without a plugin", kind))?;
            Ok(MessageBody::Reply { plugin, answer: read_answer(kind, row)? })
        }
    }
}

fn read_answer(kind: &str, row: &Row) -> Result<Answer, SessionError> {
    let text = || value::<Option<String>>(row, TABLE, "text").map(Option::unwrap_or_default);
    let retry_after = || {
        let micros: Option<i64> = value(row, TABLE, "retry_after_us")?;
        Ok::<_, SessionError>(Duration::from_micros(micros.unwrap_or_default() as u64))
    };
    Ok(match kind {
        "replied" => Answer::Replied(value::<Option<Vec<u8>>>(row, TABLE, "body")?.unwrap_or_default()),
        "retry" => Answer::Failed(Failure::Retry(text()?)),
        "retry-after" => Answer::Failed(Failure::RetryAfter(text()?, retry_after()?)),
        "discard" => Answer::Failed(Failure::Discard(text()?)),
        "trapped" => Answer::Trapped(text()?),
        "timed-out" => Answer::TimedOut(text()?),
        "skipped" => Answer::Skipped(text()?),
        other => return Err(DamagedData::invalid("kind of message", other).into()),
    })
}

#[async_trait]
impl NodeMessages for PostgresStore {
    async fn cancel_requests(&self, node: NodeId) -> Result<Vec<JobId>, StoreError> {
        self.urgent(async |session| nodes::cancel_requests(session, node).await).await
    }

    async fn send_messages(&self, messages: Vec<NodeMessage>) -> Result<(), StoreError> {
        let session = self.session().await?;
        let sent =
            futures_util::future::try_join_all(messages.iter().map(|message| send(&session, &self.time, message)));
        let sent = sent.await;
        if sent.is_ok() {
            let receivers: BTreeSet<NodeId> = messages.iter().map(|message| message.to).collect();
            for node in receivers {
                self.nudger.nudge_about_messages(&session, node).await;
            }
        }
        self.finish(session, sent.map(drop))
    }

    async fn receive_messages(&self, node: NodeId) -> Result<Vec<NodeMessage>, StoreError> {
        self.nudger.set_node(node);
        self.urgent(async |session| receive(session, &self.time, node).await).await
    }

    fn message_nudges(&self) -> Nudges {
        self.nudger.message_nudges()
    }
}
