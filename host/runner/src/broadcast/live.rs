//! One live broadcast, from its first call to its last reply.
//!
//! One task runs it. It waits for one sandbox at a time, so that broadcasts which wait for sandboxes take turns, however many
//! subscribers each has. The subscribers run on the guest threads, which send their answers to this task.

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
use wharf_core::budget::MemoryUse;
use wharf_core::ids::{NodeId, PluginId};
use wharf_core::node_message::MessageBody;
use wharf_core::outcome::Interruption;
use wharf_core::rollcall::{Answer, Mode, Reply, Rollcall};
use wharf_engine::{AttemptHandle, Budget, Permit, Plugin, Receive, Reservation};

use super::cluster::{Cluster, PluginAnswer};
use super::subscriber_call::{Admitted, SubscriberCall};
use crate::notice::{BroadcastEnded, BroadcastEnding, Notice};

/// Interval at which it is checked that the nodes which call subscribers are still live.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(1);
/// Time for which the end of a broadcast waits for call messages that are still being written.
const CALL_MESSAGES_TIMEOUT: Duration = Duration::from_secs(5);
/// Replies below this size are not counted in the budget of memory: few hundred of them take little.
const SMALL_REPLY_BYTES: u64 = 4096;
/// Number of answers that are received before anything else is checked.
const ANSWERS_PER_TURN: usize = 256;

/// A live broadcast.
pub(super) struct Live {
    pub(super) call: SubscriberCall,
    pub(super) cluster: Arc<Cluster>,
    /// The host is stopping.
    pub(super) stopping: CancellationToken,
    pub(super) timeout: Duration,
    pub(super) mode: Mode,
    pub(super) started: Instant,
    /// The subscribers that are called on this node.
    pub(super) here: Vec<Arc<Plugin>>,
    /// The subscribers that other nodes call.
    pub(super) elsewhere: Vec<(NodeId, Vec<PluginId>)>,
    pub(super) replies: UnboundedSender<Reply>,
}

/// A subscriber whose call could not be sent to another node, and why.
type Unsent = (PluginId, String);
type SendingCalls<'a> = Fuse<BoxFuture<'a, Vec<Unsent>>>;

/// The subscriber that is called as soon as a sandbox is free.
struct Next<'a> {
    plugin: &'a Arc<Plugin>,
    receive: &'a Receive,
    permit: BoxFuture<'static, Permit>,
}

/// The calls of a broadcast so far.
struct Calls {
    rollcall: Rollcall,
    running: HashMap<PluginId, AttemptHandle>,
    /// The size in bytes of the replies that were kept.
    reply_bytes: u64,
    /// The room of these replies.
    replies: Vec<Reservation>,
    budget: Budget,
    depth: u32,
    /// The number of answers of each of `Answer::KINDS`.
    answers: [u64; Answer::KINDS.len()],
}

/// The channel on which the answers to the calls arrive.
struct Answers {
    sender: UnboundedSender<PluginAnswer>,
    receiver: UnboundedReceiver<PluginAnswer>,
}

impl Live {
    /// Runs the broadcast. The permit is released when no reply is missing any more.
    pub(super) async fn run(self, permit: OwnedSemaphorePermit, caller_gone: CancellationToken) {
        let here = self.here.iter().map(|plugin| plugin.id.clone());
        let elsewhere = self.elsewhere.iter().flat_map(|(_, plugins)| plugins).cloned();
        let mut calls = Calls {
            rollcall: Rollcall::open(here.chain(elsewhere), self.mode),
            running: HashMap::new(),
            reply_bytes: 0,
            replies: Vec::new(),
            budget: self.call.context.engine.budget().clone(),
            depth: self.call.depth(),
            answers: [0; Answer::KINDS.len()],
        };
        let (sender, receiver) = unbounded_channel();
        let mut sending = self.send_calls(sender.clone()).boxed().fuse();
        let ending = self.call_all(&mut calls, caller_gone, Answers { sender, receiver }, &mut sending).await;
        let unanswered = self.end(&mut calls, ending);
        drop(permit);
        // The message that ends a call must not overtake the one that requests it.
        if !sending.is_terminated() {
            let _ = tokio::time::timeout(CALL_MESSAGES_TIMEOUT, sending).await;
        }
        self.send_end(&unanswered).await;
    }

    async fn call_all(
        &self,
        calls: &mut Calls,
        caller_gone: CancellationToken,
        mut answers: Answers,
        sending: &mut SendingCalls<'_>,
    ) -> BroadcastEnding {
        let until = self.started + self.timeout;
        let mut received = Vec::new();
        let mut waiting = self.here.iter();
        let mut next: Option<Next<'_>> = None;
        let mut deadline = std::pin::pin!(sleep_until(until));
        let mut caller_gone = std::pin::pin!(caller_gone.cancelled_owned());
        let mut stopping = std::pin::pin!(self.stopping.cancelled());
        let mut liveness = tokio::time::interval(LIVENESS_INTERVAL);
        let holds =
            if self.here.is_empty() { Default::default() } else { self.call.context.held.holds(self.timeout).await };
        loop {
            while next.is_none() {
                let Some(plugin) = waiting.next() else { break };
                match self.call.receive(plugin, &holds) {
                    Ok(receive) => next = Some(Next { plugin, receive, permit: self.call.admit(plugin).boxed() }),
                    Err(answer) => self.take(calls, &plugin.id, answer),
                }
            }
            if calls.rollcall.is_over() {
                return if calls.rollcall.has_enough() { BroadcastEnding::Enough } else { BroadcastEnding::AllReplied };
            }
            tokio::select! {
                biased;
                () = &mut caller_gone => return BroadcastEnding::CallerGone,
                () = &mut stopping => return BroadcastEnding::Stopping,
                () = &mut deadline => return BroadcastEnding::Deadline,
                _ = answers.receiver.recv_many(&mut received, ANSWERS_PER_TURN) => {
                    for (plugin, answer) in received.drain(..) {
                        self.take(calls, &plugin, answer);
                    }
                }
                admitted = admitted(&mut next) => {
                    next = None;
                    let (sender, id) = (answers.sender.clone(), admitted.plugin.id.clone());
                    let called = id.clone();
                    let remaining = until.saturating_duration_since(Instant::now());
                    // A broadcast that is over receives no more answers.
                    let on_answer = move |answer| drop(sender.send((id, answer)));
                    let handle = self.call.start(admitted, remaining, on_answer);
                    calls.running.insert(called, handle);
                }
                unsent = &mut *sending, if !sending.is_terminated() => {
                    for (plugin, why) in unsent {
                        self.take(calls, &plugin, Answer::Skipped(why));
                    }
                }
                _ = liveness.tick(), if !self.elsewhere.is_empty() => self.give_up_lost_nodes(calls),
            }
        }
    }

    /// Sends the calls to the nodes that have subscribers which this one does not have. Returns those that could not be sent.
    async fn send_calls(&self, answers: UnboundedSender<PluginAnswer>) -> Vec<Unsent> {
        if self.elsewhere.is_empty() {
            return Vec::new();
        }
        let (call, cluster) = (&self.call, &self.cluster);
        cluster.await_answers(call.id, answers);
        let body = |plugins: &[PluginId]| MessageBody::Call {
            plugins: plugins.to_vec(),
            topic: call.topic.clone(),
            payload: call.payload.clone(),
            until: cluster.store().now() + self.timeout.saturating_sub(self.started.elapsed()),
            depth: call.chain.depth,
            chain: call.chain.plugins().to_vec(),
        };
        let messages =
            self.elsewhere.iter().map(|(node, plugins)| cluster.message(*node, call.id, body(plugins))).collect();
        match cluster.send("sending a broadcast to other nodes", messages).await {
            Ok(()) => Vec::new(),
            Err(error) => {
                let why =
                    format!("it was not called: only another node has it, and the call could not be sent: {error}");
                let plugins = self.elsewhere.iter().flat_map(|(_, plugins)| plugins);
                plugins.map(|plugin| (plugin.clone(), why.clone())).collect()
            }
        }
    }

    fn give_up_lost_nodes(&self, calls: &mut Calls) {
        let (others, now) = (self.cluster.others(), self.cluster.store().now());
        for (node, plugins) in self.elsewhere.iter().filter(|(node, _)| !others.is_live(*node, now)) {
            for plugin in plugins {
                let why = format!("node {} went away before it replied for this subscriber", others.name(*node));
                self.take(calls, plugin, Answer::Skipped(why));
            }
        }
    }

    /// Notifies the nodes that still call subscribers for this broadcast of its end.
    async fn send_end(&self, unanswered: &[PluginId]) {
        if self.elsewhere.is_empty() {
            return;
        }
        let (id, cluster) = (self.call.id, &self.cluster);
        cluster.stop_awaiting(id);
        let is_unanswered = |plugins: &[PluginId]| plugins.iter().any(|plugin| unanswered.contains(plugin));
        let busy = self.elsewhere.iter().filter(|(_, plugins)| is_unanswered(plugins));
        let messages: Vec<_> = busy.map(|(node, _)| cluster.message(*node, id, MessageBody::Over)).collect();
        if !messages.is_empty() {
            // If this fails, they find out by themselves that the deadline is over.
            let _ = cluster.send("sending the end of a broadcast", messages).await;
        }
    }

    /// Takes in the answer of a subscriber; only the first one counts.
    fn take(&self, calls: &mut Calls, plugin: &PluginId, answer: Answer) {
        calls.running.remove(plugin);
        let reply = Reply { plugin: plugin.clone(), answer: calls.bounded(answer), elapsed: self.started.elapsed() };
        if calls.rollcall.take(&reply) {
            self.send_reply(calls, reply);
        }
    }

    fn send_reply(&self, calls: &mut Calls, reply: Reply) {
        calls.answers[reply.answer.kind_index()] += 1;
        // The caller may be gone.
        let _ = self.replies.send(reply);
    }

    /// Stops the subscribers that have not answered, and replies for them. Returns which these are.
    fn end(&self, calls: &mut Calls, ending: BroadcastEnding) -> Vec<PluginId> {
        let running = std::mem::take(&mut calls.running);
        for handle in running.values() {
            handle.stop(Interruption::Host, "the broadcast is over".to_owned());
        }
        let closed = calls.rollcall.close(self.started.elapsed(), |plugin| {
            let was_called =
                running.contains_key(plugin) || self.elsewhere.iter().any(|(_, plugins)| plugins.contains(plugin));
            match ending {
                BroadcastEnding::Deadline if running.get(plugin).is_some_and(AttemptHandle::waits_for_memory) => {
                    Answer::Skipped(format!(
                        "it waited for memory when the broadcast's timeout of {:?} was over: the host's budget of memory was full",
                        self.timeout
                    ))
                }
                BroadcastEnding::Deadline if was_called => {
                    Answer::TimedOut(format!("it was stopped: the broadcast's timeout of {:?} was over", self.timeout))
                }
                BroadcastEnding::Deadline => Answer::Skipped(format!(
                    "it was not called: no sandbox, or no room in the host's budget of memory, was free within the broadcast's \
                     timeout of {:?}",
                    self.timeout
                )),
                BroadcastEnding::Stopping => Answer::Skipped("the host is stopping".to_owned()),
                BroadcastEnding::CallerGone => Answer::Skipped("the caller went away".to_owned()),
                BroadcastEnding::Enough | BroadcastEnding::AllReplied if was_called => {
                    Answer::Skipped("it was stopped: enough others had replied".to_owned())
                }
                BroadcastEnding::Enough | BroadcastEnding::AllReplied => {
                    Answer::Skipped("it was not called: enough others had replied".to_owned())
                }
            }
        });
        let unanswered = closed.iter().map(|reply| reply.plugin.clone()).collect();
        for reply in closed {
            self.send_reply(calls, reply);
        }
        let answers = Answer::KINDS.into_iter().zip(calls.answers).filter(|(_, count)| *count > 0).collect();
        let (topic, took) = (self.call.topic.clone(), self.started.elapsed());
        let (id, depth) = (self.call.id, self.call.depth());
        let ended = BroadcastEnded { topic, id, depth, ending, answers, took };
        self.call.context.listener.notify(&Notice::BroadcastEnded(Box::new(ended)));
        unanswered
    }
}

impl Calls {
    /// Returns the answer if its reply fits beside those that are kept; otherwise the answer that replaces it.
    fn bounded(&mut self, answer: Answer) -> Answer {
        let Answer::Replied(reply) = &answer else { return answer };
        let bytes = reply.len() as u64;
        if self.reply_bytes + bytes > bounds::REPLIES_BYTES_MAX {
            return Answer::Trapped(format!(
                "its reply of {bytes} bytes was dropped: the other replies have {} bytes, and the limit for all is {}",
                self.reply_bytes,
                bounds::REPLIES_BYTES_MAX
            ));
        }
        if bytes >= SMALL_REPLY_BYTES {
            let of = MemoryUse::Broadcasts { depth: self.depth };
            let Some(room) = self.budget.try_reserve(of, bytes) else {
                return Answer::Skipped(format!(
                    "it replied, but the host's budget of memory had no room for the reply of {bytes} bytes"
                ));
            };
            self.replies.push(room);
        }
        self.reply_bytes += bytes;
        answer
    }
}

/// Waits until the next subscriber has a sandbox; forever if there is no next one.
async fn admitted<'a>(next: &mut Option<Next<'a>>) -> Admitted<'a> {
    match next {
        Some(Next { plugin, receive, permit }) => Admitted { plugin, receive, permit: permit.await },
        None => std::future::pending().await,
    }
}
