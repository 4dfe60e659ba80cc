//! Messages between nodes: each is received once, unchanged, by the node that it is for.

use std::time::Duration;

use wharf_core::ids::{JobId, NodeId};
use wharf_core::node_message::{MessageBody, NodeMessage};
use wharf_core::outcome::Failure;
use wharf_core::rollcall::Answer;
use wharf_core::shared_bytes::SharedBytes;
use wharf_core::time::Timestamp;
use wharf_store::{NodeMessages as _, PostgresStore};

use crate::server::shared_address;
use crate::stage::{HandClock, Kind, Stage, block_on};

const ANN: NodeId = NodeId(u64::MAX - 1);
const BEN: NodeId = NodeId(7);

fn of_every_kind() -> Vec<MessageBody> {
    let reply = |answer| MessageBody::Reply { plugin: "words".parse().unwrap(), answer };
    vec![
        MessageBody::Call {
            plugins: vec!["words".parse().unwrap(), "summary".parse().unwrap()],
            topic: "document.saved".parse().unwrap(),
            payload: SharedBytes::from(b"\x00\xff{}"),
            until: Timestamp::from_millis(1_900_000_000_123),
            depth: 2,
            chain: vec!["asker".parse().unwrap()],
        },
        reply(Answer::Replied(vec![0, 1, 255])),
        reply(Answer::Replied(Vec::new())),
        reply(Answer::Failed(Failure::Retry("later".into()))),
        reply(Answer::Failed(Failure::RetryAfter("busy".into(), Duration::from_millis(1500)))),
        reply(Answer::Failed(Failure::Discard("never".into()))),
        reply(Answer::Trapped("line\nline".into())),
        reply(Answer::TimedOut("late".into())),
        reply(Answer::Skipped("full".into())),
        MessageBody::Over,
        MessageBody::SetDrained {
            drained: true,
            by: Some("ops".into()),
            until: Timestamp::from_millis(1_900_000_000_123),
        },
        MessageBody::SetDrained { drained: false, by: None, until: Timestamp::from_millis(1) },
    ]
}

#[test]
fn messages_are_received_once_and_in_order_by_their_node() {
    block_on(async {
        let address = shared_address();
        let clock = HandClock::new();
        let (sender, receiver) = (
            PostgresStore::open_with_clock(&address, clock.clone()).await.unwrap(),
            PostgresStore::open_with_clock(&address, clock.clone()).await.unwrap(),
        );
        assert_eq!(receiver.receive_messages(ANN).await.unwrap(), []);
        let messages: Vec<NodeMessage> = of_every_kind()
            .into_iter()
            .zip(1..)
            .map(|(about, n)| NodeMessage { from: BEN, to: ANN, broadcast: JobId::from_number(n).unwrap(), about })
            .collect();
        let mut nudges = receiver.message_nudges();
        nudges.mark_unchanged();
        sender.send_messages(messages.clone()).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), nudges.changed()).await.expect("the receiver is nudged").unwrap();
        assert_eq!(sender.receive_messages(BEN).await.unwrap(), [], "they are not for their sender");
        assert_eq!(receiver.receive_messages(ANN).await.unwrap(), messages);
        assert_eq!(receiver.receive_messages(ANN).await.unwrap(), [], "each is received once");

        // The messages to a node that died are deleted by the next node that receives its own.
        sender.send_messages(messages).await.unwrap();
        clock.pass(Duration::from_secs(3600));
        sender.receive_messages(BEN).await.unwrap();
        assert_eq!(receiver.receive_messages(ANN).await.unwrap(), []);
    });
}

#[test]
fn a_store_of_one_node_has_no_messages() {
    block_on(async {
        for kind in [Kind::Memory, Kind::Sqlite] {
            let stage = Stage::new(kind).await;
            assert!(stage.store.messages().is_none(), "there is no other node");
        }
    });
}
