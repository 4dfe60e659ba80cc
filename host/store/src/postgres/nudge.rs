//! Nudges between nodes, by LISTEN and NOTIFY, which may lose any of them. Receivers also poll.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::{Notify, watch};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, NoTls, Socket};
use tracing::{debug, info, warn};
use wharf_core::ids::NodeId;

use super::address::Address;
use super::session::{Session, Sessions};
use super::tls::connector;

/// Nudges within this interval are sent as one.
const SEND_INTERVAL: Duration = Duration::from_millis(10);
/// A host's own nudge comes back within this time if nudges arrive at all.
const ECHO_TIMEOUT: Duration = Duration::from_secs(5);
/// The wait before a lost connection is made again.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// The prefix of a nudge about messages, before the node that they are for. No host's random sender starts with it.
const MESSAGES_PREFIX: &str = "messages ";

/// Sends and receives nudges.
pub(super) struct Nudger {
    /// Counts nudges about jobs.
    jobs: watch::Sender<u64>,
    /// Counts nudges about messages to this node.
    messages: watch::Sender<u64>,
    /// The node that receives its messages here; 0 until it first did.
    node: AtomicU64,
    /// Notified when other nodes must be nudged.
    outgoing: Notify,
    channel: String,
    /// A random text that tells this store's nudges from those of others.
    sender: String,
    /// Locked for a few assignments, never across an await.
    echo: Mutex<Echo>,
}

/// The state of the check that a host's own nudges come back. Behind a pooler that shares sessions nudges are sent and none
/// arrives, without an error.
#[derive(Default)]
struct Echo {
    /// The moment when the first nudge was sent that did not come back.
    awaited_since: Option<Instant>,
    is_missing: bool,
}

impl Echo {
    fn sent(&mut self) {
        self.awaited_since.get_or_insert_with(Instant::now);
    }

    fn received(&mut self) {
        self.awaited_since = None;
        if std::mem::take(&mut self.is_missing) {
            info!("nudges of other hosts arrive again");
        }
    }

    fn check(&mut self) {
        if !self.is_missing && self.awaited_since.is_some_and(|since| since.elapsed() >= ECHO_TIMEOUT) {
            self.is_missing = true;
            warn!(
                "nudges of other hosts do not arrive, as behind a pooler that shares sessions: this host polls every second; \
                 with ?listen=no in its address it does not listen for them"
            );
        }
    }
}

impl Nudger {
    pub(super) fn new(address: &Address, sender: String) -> Nudger {
        Nudger {
            jobs: watch::Sender::new(0),
            messages: watch::Sender::new(0),
            node: AtomicU64::new(0),
            outgoing: Notify::new(),
            channel: address.channel(),
            sender,
            echo: Mutex::default(),
        }
    }

    /// Returns a counter that changes when jobs may have changed.
    pub(super) fn job_nudges(&self) -> watch::Receiver<u64> {
        self.jobs.subscribe()
    }

    /// Returns a counter that changes when there may be messages.
    pub(super) fn message_nudges(&self) -> watch::Receiver<u64> {
        self.messages.subscribe()
    }

    /// Sets the node whose messages are received here.
    pub(super) fn set_node(&self, node: NodeId) {
        self.node.store(node.0, Ordering::Relaxed);
    }

    /// Nudges a node that has messages. If the nudge is lost, the node finds them when it polls.
    pub(super) async fn nudge_about_messages(&self, session: &Session, node: NodeId) {
        let payload = format!("{MESSAGES_PREFIX}{node}");
        let args = [(&self.channel as _, Type::TEXT), (&payload as _, Type::TEXT)];
        if let Err(error) = session.query("SELECT pg_notify($1, $2)", &args).await {
            debug!("could not send a nudge: {error}");
        }
    }

    fn received(&self, payload: &str) {
        match payload.strip_prefix(MESSAGES_PREFIX) {
            Some(node) if node == NodeId(self.node.load(Ordering::Relaxed)).to_string() => {
                self.messages.send_modify(|count| *count += 1);
            }
            Some(_) => {}
            None if payload != self.sender => self.nudge_here(),
            None => self.echo().received(),
        }
    }

    fn echo(&self) -> MutexGuard<'_, Echo> {
        self.echo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nudges this host and, soon, all others. Called after a commit.
    pub(super) fn nudge_all(&self) {
        self.nudge_here();
        self.outgoing.notify_one();
    }

    fn nudge_here(&self) {
        self.jobs.send_modify(|count| *count += 1);
    }
}

/// Nudges the other nodes, for ever. Not in the transactions of the writer: the server commits those that notify one by one.
/// If this host `listens`, it checks that its own nudges come back.
pub(super) async fn send_nudges(nudger: Arc<Nudger>, sessions: Sessions, listens: bool) {
    loop {
        if tokio::time::timeout(ECHO_TIMEOUT, nudger.outgoing.notified()).await.is_err() {
            nudger.echo().check();
            continue;
        }
        if let Ok(session) = sessions.session().await {
            let args = [(&nudger.channel as _, Type::TEXT), (&nudger.sender as _, Type::TEXT)];
            // A nudge may be lost, so its commit need not wait for the disk.
            let text = "SELECT pg_notify($1, $2), set_config('synchronous_commit', 'off', true)";
            if listens {
                // Before it is sent: it may come back before the response does.
                nudger.echo().sent();
            }
            if let Err(error) = session.query(text, &args).await {
                nudger.echo().awaited_since = None;
                debug!("could not send a nudge: {error}");
            }
        }
        nudger.echo().check();
        tokio::time::sleep(SEND_INTERVAL).await;
    }
}

/// Receives nudges of the other nodes, for ever, on its own connection.
pub(super) async fn receive_nudges(nudger: Arc<Nudger>, address: Address) {
    loop {
        let received = match connector(address.root_certificates.as_deref()) {
            Ok(tls) if address.wants_tls() => listen(&nudger, &address, tls).await,
            _ => listen(&nudger, &address, NoTls).await,
        };
        if let Err(error) = received {
            debug!("could not receive nudges of other nodes: {error}");
        }
        tokio::time::sleep(RECONNECT_DELAY).await;
        // Nudges in between were missed.
        nudger.nudge_here();
    }
}

async fn listen<T>(nudger: &Nudger, address: &Address, tls: T) -> Result<(), tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send,
{
    let (client, mut connection) = address.config.connect(tls).await?;
    let mut messages = std::pin::pin!(stream::poll_fn(move |cx| connection.poll_message(cx)));
    let listen = format!("LISTEN \"{}\"", nudger.channel);
    let mut request = std::pin::pin!(client.batch_execute(&listen));
    let mut is_listening = false;
    loop {
        tokio::select! {
            response = &mut request, if !is_listening => {
                response?;
                is_listening = true;
                // Nudges from before this can't come back; one more shows whether any does.
                nudger.echo().awaited_since = None;
                nudger.outgoing.notify_one();
                // Messages whose nudges were sent before this are found now.
                nudger.messages.send_modify(|count| *count += 1);
            }
            message = messages.next() => match message {
                Some(Ok(AsyncMessage::Notification(nudge))) => nudger.received(nudge.payload()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
        }
    }
}
