//! Nudges between nodes: LISTEN and NOTIFY, which may lose any of them. Whoever waits also looks by itself.

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

/// Nudges that come faster than this go out as one.
const APART: Duration = Duration::from_millis(10);
/// A nudge of one's own comes back by then, where any are heard.
const ECHO_PATIENCE: Duration = Duration::from_secs(5);
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
    /// Whether its own nudges come back. Locked for a few assignments, never across an await.
    echo: Mutex<Echo>,
}

/// Behind a pooler that shares sessions nudges go out and none comes back, and nobody says so.
#[derive(Default)]
struct Echo {
    /// When the first nudge went out that did not come back.
    awaited: Option<Instant>,
    is_deaf: bool,
}

impl Echo {
    fn told(&mut self) {
        self.awaited.get_or_insert_with(Instant::now);
    }

    fn heard(&mut self) {
        self.awaited = None;
        if std::mem::take(&mut self.is_deaf) {
            info!("nudges of other hosts are heard");
        }
    }

    fn look(&mut self) {
        if !self.is_deaf && self.awaited.is_some_and(|since| since.elapsed() >= ECHO_PATIENCE) {
            self.is_deaf = true;
            warn!(
                "nudges of other hosts are not heard, as behind a pooler that shares sessions: this host looks by \
                 itself every second; with ?listen=no in its address it does not try to hear them"
            );
        }
    }
}

impl Nudger {
    pub(super) fn new(address: &Address, voice: String) -> Nudger {
        let channel = format!("wharf_{}", address.schema);
        let (here, letters) = (watch::Sender::new(0), watch::Sender::new(0));
        Nudger {
            here,
            letters,
            node: AtomicU64::new(0),
            elsewhere: Notify::new(),
            channel,
            voice,
            echo: Mutex::default(),
        }
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
            None => self.echo().heard(),
        }
    }

    fn echo(&self) -> MutexGuard<'_, Echo> {
        self.echo.lock().unwrap_or_else(PoisonError::into_inner)
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
/// Where `listens`, their echo is waited for.
pub(super) async fn tell(nudger: Arc<Nudger>, sessions: Sessions, listens: bool) {
    loop {
        if tokio::time::timeout(ECHO_PATIENCE, nudger.elsewhere.notified()).await.is_err() {
            nudger.echo().look();
            continue;
        }
        if let Ok(session) = sessions.session().await {
            let args = [(&nudger.channel as _, Type::TEXT), (&nudger.voice as _, Type::TEXT)];
            // Nothing that may be lost needs to wait for the disk.
            let text = "SELECT pg_notify($1, $2), set_config('synchronous_commit', 'off', true)";
            if listens {
                // Before it goes out: it may be back before its sender hears that it went.
                nudger.echo().told();
            }
            if let Err(fault) = session.ask(text, &args).await {
                nudger.echo().awaited = None;
                debug!("a nudge was lost: {fault}");
            }
        }
        nudger.echo().look();
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
                // What went out before this cannot come back; one more shows whether any does.
                nudger.echo().awaited = None;
                nudger.elsewhere.notify_one();
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
