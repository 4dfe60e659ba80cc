//! One live broadcast, from its first call to its last reply.
//!
//! One task carries it. It asks for one sandbox at a time, so that broadcasts which wait for room take turns, however many
//! subscribers each has; what is called runs on the guests' threads and says there that it has ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Fuse, FusedFuture};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::ids::{NodeId, PluginId};
use wharf_core::node_message::MessageBody;
use wharf_core::outcome::Interruption;
use wharf_core::rollcall::{Answer, Mode, Reply, Rollcall};
use wharf_engine::{AttemptHandle, Permit, PermitPool, Plugin, Receive};

use super::cluster::Heard;
use super::subscriber_call::SubscriberCall;
use crate::notice::{BroadcastEnded, BroadcastEnding, Notice};

/// Whether the nodes that call for it are still there is looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// For the letters of a broadcast that was over before they were written.
const ASKING_PATIENCE: Duration = Duration::from_secs(5);
/// How many answers are taken in before anything else is looked at.
const ANSWERS_PER_TURN: usize = 256;

pub(super) struct Live {
    pub(super) calling: SubscriberCall,
    pub(super) timeout: Duration,
    pub(super) mode: Mode,
    pub(super) began: Instant,
    /// Who is called here.
    pub(super) called: Vec<Arc<Plugin>>,
    /// Who is called by which other node.
    pub(super) elsewhere: Vec<(NodeId, Vec<PluginId>)>,
    pub(super) told: UnboundedSender<Reply>,
}

/// Whom another node could not be asked to call, and why.
type Unasked = (PluginId, String);
type Asking<'a> = Fuse<BoxFuture<'a, Vec<Unasked>>>;

/// Who is called as soon as there is a sandbox.
struct Next<'a> {
    plugin: &'a Arc<Plugin>,
    receive: &'a Receive,
    admission: BoxFuture<'static, Permit>,
}

/// The calls of a broadcast so far.
struct Calls {
    rollcall: Rollcall,
    running: HashMap<PluginId, AttemptHandle>,
    /// Of replies that were kept.
    bytes: u64,
    answers: [u64; Answer::KINDS.len()],
}

impl Live {
    /// Holds its place until nobody is waited for any more.
    pub(super) async fn run(self, place: OwnedSemaphorePermit, gone: CancellationToken) {
        let here = self.called.iter().map(|plugin| plugin.id.clone());
        let there = self.elsewhere.iter().flat_map(|(_, plugins)| plugins).cloned();
        let mut calls = Calls {
            rollcall: Rollcall::open(here.chain(there), self.mode),
            running: HashMap::new(),
            bytes: 0,
            answers: [0; Answer::KINDS.len()],
        };
        let (to_me, answers) = unbounded_channel();
        let mut asking = self.ask_others(to_me.clone()).boxed().fuse();
        let ending = self.call_all(&mut calls, gone, to_me, answers, &mut asking).await;
        let unheard = self.end(&mut calls, ending);
        drop(place);
        // A letter that takes a call back must not overtake the one that asks for it.
        if !asking.is_terminated() {
            let _ = tokio::time::timeout(ASKING_PATIENCE, asking).await;
        }
        self.tell_others(&unheard).await;
    }

    async fn call_all(
        &self,
        calls: &mut Calls,
        gone: CancellationToken,
        to_me: UnboundedSender<Heard>,
        mut answers: UnboundedReceiver<Heard>,
        asking: &mut Asking<'_>,
    ) -> BroadcastEnding {
        let until = self.began + self.timeout;
        let mut heard = Vec::new();
        let mut waiting = self.called.iter();
        let mut next: Option<Next<'_>> = None;
        let mut deadline = std::pin::pin!(sleep_until(until));
        let mut gone = std::pin::pin!(gone.cancelled_owned());
        let broadcasts = &self.calling.broadcasts;
        let mut stopping = std::pin::pin!(broadcasts.stopping.cancelled());
        let mut looks = tokio::time::interval(LOOK);
        loop {
            while next.is_none() {
                let Some(plugin) = waiting.next() else { break };
                let receive = match self.calling.receive(plugin) {
                    Ok(receive) => receive,
                    Err(answer) => {
                        self.take(calls, &plugin.id, answer);
                        continue;
                    }
                };
                let share = PermitPool::Broadcasts { depth: self.calling.depth() };
                let admission = broadcasts.inserting.shared.engine.admit(share, plugin).boxed();
                next = Some(Next { plugin, receive, admission });
            }
            if calls.rollcall.is_over() {
                return if calls.rollcall.has_enough() {
                    BroadcastEnding::Enough
                } else {
                    BroadcastEnding::AllAnswered
                };
            }
            tokio::select! {
                biased;
                () = &mut gone => return BroadcastEnding::CallerGone,
                () = &mut stopping => return BroadcastEnding::Stopping,
                () = &mut deadline => return BroadcastEnding::Deadline,
                _ = answers.recv_many(&mut heard, ANSWERS_PER_TURN) => {
                    for (plugin, answer) in heard.drain(..) {
                        self.take(calls, &plugin, answer);
                    }
                }
                (plugin, receive, admission) = admitted(&mut next) => {
                    next = None;
                    let (to_me, id) = (to_me.clone(), plugin.id.clone());
                    let left = until.saturating_duration_since(Instant::now());
                    // A broadcast that is over hears no more.
                    let heard = move |answer| drop(to_me.send((id, answer)));
                    let control = self.calling.start(plugin, receive, admission, left, heard);
                    calls.running.insert(plugin.id.clone(), control);
                }
                unasked = &mut *asking, if !asking.is_terminated() => {
                    for (plugin, why) in unasked {
                        self.take(calls, &plugin, Answer::Skipped(why));
                    }
                }
                _ = looks.tick(), if !self.elsewhere.is_empty() => self.give_up_the_gone(calls),
            }
        }
    }

    /// Writes to the nodes that have who is not here. Answers with whom they could not be asked for, and why.
    async fn ask_others(&self, to_me: UnboundedSender<Heard>) -> Vec<Unasked> {
        if self.elsewhere.is_empty() {
            return Vec::new();
        }
        let calling = &self.calling;
        let (cluster, shared) = (&calling.broadcasts.cluster, &calling.broadcasts.inserting.shared);
        cluster.wait(calling.id, to_me);
        let call = |plugins: &[PluginId]| MessageBody::Call {
            plugins: plugins.to_vec(),
            topic: calling.topic.clone(),
            payload: Arc::clone(&calling.payload),
            until: shared.store.now() + self.timeout.saturating_sub(self.began.elapsed()),
            depth: calling.chain.depth,
            chain: calling.chain.plugins().to_vec(),
        };
        let letters =
            self.elsewhere.iter().map(|(node, plugins)| cluster.letter(*node, calling.id, call(plugins))).collect();
        match shared.ask("posting a broadcast", shared.store.send_messages(letters)).await {
            Ok(()) => Vec::new(),
            Err(error) => {
                let why = format!("only another node has it, which could not be asked: {error}");
                self.elsewhere
                    .iter()
                    .flat_map(|(_, plugins)| plugins)
                    .map(|plugin| (plugin.clone(), why.clone()))
                    .collect()
            }
        }
    }

    fn give_up_the_gone(&self, calls: &mut Calls) {
        let shared = &self.calling.broadcasts.inserting.shared;
        let (others, now) = (shared.others.load(), shared.store.now());
        for (node, plugins) in self.elsewhere.iter().filter(|(node, _)| !others.is_there(*node, now)) {
            for plugin in plugins {
                let why = format!("node {} went away, which was to call it", others.name(*node));
                self.take(calls, plugin, Answer::Skipped(why));
            }
        }
    }

    /// Who still calls somebody for this broadcast need not go on.
    async fn tell_others(&self, unheard: &[PluginId]) {
        if self.elsewhere.is_empty() {
            return;
        }
        let calling = &self.calling;
        let (cluster, shared) = (&calling.broadcasts.cluster, &calling.broadcasts.inserting.shared);
        cluster.wait_no_more(calling.id);
        let busy = self.elsewhere.iter().filter(|(_, plugins)| plugins.iter().any(|plugin| unheard.contains(plugin)));
        let letters: Vec<_> = busy.map(|(node, _)| cluster.letter(*node, calling.id, MessageBody::Over)).collect();
        if !letters.is_empty() {
            // They would see by themselves that its deadline is over.
            let _ = shared.ask("posting the end of a broadcast", shared.store.send_messages(letters)).await;
        }
    }

    fn take(&self, calls: &mut Calls, plugin: &PluginId, answer: Answer) {
        calls.running.remove(plugin);
        let reply = Reply { plugin: plugin.clone(), answer: calls.bounded(answer), elapsed: self.began.elapsed() };
        if calls.rollcall.take(&reply) {
            self.tell(calls, reply);
        }
    }

    fn tell(&self, calls: &mut Calls, reply: Reply) {
        calls.answers[reply.answer.kind_index()] += 1;
        // Nobody may listen any more.
        let _ = self.told.send(reply);
    }

    /// Whoever was not heard gets an answer all the same, and is stopped. Answers with who that was.
    fn end(&self, calls: &mut Calls, ending: BroadcastEnding) -> Vec<PluginId> {
        let running = std::mem::take(&mut calls.running);
        for control in running.values() {
            control.stop(Interruption::Host, "the broadcast is over".to_owned());
        }
        let closed = calls.rollcall.close(self.began.elapsed(), |plugin| {
            let began = running.contains_key(plugin) || self.elsewhere.iter().any(|(_, there)| there.contains(plugin));
            match ending {
                BroadcastEnding::Deadline if began => {
                    Answer::TimedOut(format!("it was stopped: the broadcast had {:?} for all", self.timeout))
                }
                BroadcastEnding::Deadline => Answer::Skipped(format!(
                    "it was not called: no sandbox was free within the {:?} that the broadcast had",
                    self.timeout
                )),
                BroadcastEnding::Stopping => Answer::Skipped("the host is stopping".to_owned()),
                BroadcastEnding::CallerGone => Answer::Skipped("the caller went away".to_owned()),
                BroadcastEnding::Enough | BroadcastEnding::AllAnswered if began => {
                    Answer::Skipped("it was stopped: as many had replied as were wanted".to_owned())
                }
                BroadcastEnding::Enough | BroadcastEnding::AllAnswered => {
                    Answer::Skipped("it was not called: as many had replied as were wanted".to_owned())
                }
            }
        });
        let unheard = closed.iter().map(|reply| reply.plugin.clone()).collect();
        for reply in closed {
            self.tell(calls, reply);
        }
        let answers = Answer::KINDS.into_iter().zip(calls.answers).filter(|(_, count)| *count > 0).collect();
        let (topic, took) = (self.calling.topic.clone(), self.began.elapsed());
        let (id, depth) = (self.calling.id, self.calling.depth());
        let ended = BroadcastEnded { topic, id, depth, ending, answers, took };
        (self.calling.broadcasts.inserting.shared.tell)(&Notice::BroadcastEnded(Box::new(ended)));
        unheard
    }
}

impl Calls {
    /// The answer, if there is still room for it among those that are kept.
    fn bounded(&mut self, answer: Answer) -> Answer {
        let Answer::Replied(reply) = &answer else { return answer };
        let bytes = reply.len() as u64;
        if self.bytes + bytes > bounds::REPLIES_BYTES_MAX {
            return Answer::Trapped(format!(
                "its reply of {bytes} bytes was not kept: all replies to one broadcast may have {} bytes, and the others have {}",
                bounds::REPLIES_BYTES_MAX,
                self.bytes
            ));
        }
        self.bytes += bytes;
        answer
    }
}

/// The sandbox that is waited for, if any is.
async fn admitted<'a>(next: &mut Option<Next<'a>>) -> (&'a Arc<Plugin>, &'a Receive, Permit) {
    match next {
        Some(Next { plugin, receive, admission }) => (*plugin, *receive, admission.await),
        None => std::future::pending().await,
    }
}
