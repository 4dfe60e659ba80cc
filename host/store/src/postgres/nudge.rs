//! Nudges between nodes: LISTEN and NOTIFY, which may lose any of them. Whoever waits also looks by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::{Notify, watch};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, NoTls, Socket};
use tracing::debug;
use wharf_core::ids::NodeId;

use super::address::Address;
use super::session::{Session, Sessions};
use super::tls::connector;

/// Nudges that come faster than this go out as one.
const APART: Duration = Duration::from_millis(10);
/// After a connection was lost.
const AGAIN: Duration = Duration::from_secs(1);

/// What stands before the node in a word that there are letters for it; no voice begins so.
const BELL: &str = "letters ";

pub(super) struct Nudger {
    here: watch::Sender<u64>,
    letters: watch::Sender<u64>,
    /// The node that collects its letters here; 0 before it first did.
    node: AtomicU64,
    elsewhere: Notify,
    channel: String,
    /// Tells what this store said from what others say.
    voice: String,
}

impl Nudger {
    pub(super) fn new(address: &Address, voice: String) -> Nudger {
        let channel = format!("wharf_{}", address.schema);
        let (here, letters) = (watch::Sender::new(0), watch::Sender::new(0));
        Nudger { here, letters, node: AtomicU64::new(0), elsewhere: Notify::new(), channel, voice }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.here.subscribe()
    }

    pub(super) fn letters(&self) -> watch::Receiver<u64> {
        self.letters.subscribe()
    }

    /// From now on, letters to this node are heard of.
    pub(super) fn collects(&self, node: NodeId) {
        self.node.store(node.0, Ordering::Relaxed);
    }

    /// Tells a node that there are letters for it. One that does not hear it looks by itself.
    pub(super) async fn ring(&self, session: &Session, node: NodeId) {
        let bell = format!("{BELL}{node}");
        if let Err(fault) =
            session.ask("SELECT pg_notify($1, $2)", &[(&self.channel, Type::TEXT), (&bell, Type::TEXT)]).await
        {
            debug!("a nudge was lost: {fault}");
        }
    }

    fn heard(&self, said: &str) {
        match said.strip_prefix(BELL) {
            Some(node) if node == NodeId(self.node.load(Ordering::Relaxed)).to_string() => {
                self.letters.send_modify(|count| *count += 1);
            }
            Some(_) => {}
            None if said != self.voice => self.look_here(),
            None => {}
        }
    }

    /// After a commit: whoever waits here or elsewhere may look.
    pub(super) fn look_again(&self) {
        self.look_here();
        self.elsewhere.notify_one();
    }

    fn look_here(&self) {
        self.here.send_modify(|count| *count += 1);
    }
}

/// Tells the other nodes, for ever. Not in the transactions: the server lets those that notify commit one by one.
pub(super) async fn tell(nudger: Arc<Nudger>, sessions: Sessions) {
    loop {
        nudger.elsewhere.notified().await;
        if let Ok(session) = sessions.session().await {
            let args = [(&nudger.channel as _, Type::TEXT), (&nudger.voice as _, Type::TEXT)];
            // Nothing that may be lost needs to wait for the disk.
            let text = "SELECT pg_notify($1, $2), set_config('synchronous_commit', 'off', true)";
            if let Err(fault) = session.ask(text, &args).await {
                debug!("a nudge was lost: {fault}");
            }
        }
        tokio::time::sleep(APART).await;
    }
}

/// Hears the other nodes, for ever, on a connection of its own.
pub(super) async fn hear(nudger: Arc<Nudger>, address: Address) {
    loop {
        let heard = match connector(address.root_certificates.as_deref()) {
            Ok(tls) if address.wants_tls() => listen(&nudger, &address, tls).await,
            _ => listen(&nudger, &address, NoTls).await,
        };
        if let Err(error) = heard {
            debug!("nudges of other nodes are not heard: {error}");
        }
        tokio::time::sleep(AGAIN).await;
        // What was said in between was missed.
        nudger.look_here();
    }
}

async fn listen<T>(nudger: &Nudger, address: &Address, tls: T) -> Result<(), tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send,
{
    let (client, mut connection) = address.config.connect(tls).await?;
    let mut messages = std::pin::pin!(stream::poll_fn(move |cx| connection.poll_message(cx)));
    let listen = format!("LISTEN {}", nudger.channel);
    let mut asked = std::pin::pin!(client.batch_execute(&listen));
    let mut listening = false;
    loop {
        tokio::select! {
            done = &mut asked, if !listening => {
                done?;
                listening = true;
                // Letters that were announced before this are found now.
                nudger.letters.send_modify(|count| *count += 1);
            }
            message = messages.next() => match message {
                Some(Ok(AsyncMessage::Notification(said))) => nudger.heard(said.payload()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
        }
    }
}
