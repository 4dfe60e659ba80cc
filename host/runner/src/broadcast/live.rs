//! One live broadcast, from its first call to its last reply.
//!
//! One task carries it. It asks for one sandbox at a time, so that broadcasts which wait for room take turns, however many
//! subscribers each has; what is called runs on the guests' threads and says there that it has ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use wharf_core::bounds;
use wharf_core::ids::{JobId, PluginId};
use wharf_core::outcome::{Failure, Interruption};
use wharf_core::rollcall::{Answer, Mode, Reply, Rollcall};
use wharf_core::topic::Topic;
use wharf_engine::{Admission, Allowance, Asked, Call, Control, Plugin, Receive, Share};

use super::called::Called;
use super::{Broadcasts, Chain};
use crate::catalog::Catalog;
use crate::notice::{BroadcastEnded, BroadcastEnding, Notice};

/// How many answers are taken in before anything else is looked at.
const ANSWERS_PER_TURN: usize = 256;

pub(super) struct Live {
    pub(super) broadcasts: Arc<Broadcasts>,
    pub(super) id: JobId,
    pub(super) topic: Topic,
    pub(super) payload: Arc<[u8]>,
    pub(super) timeout: Duration,
    pub(super) mode: Mode,
    pub(super) began: Instant,
    /// What led to this broadcast.
    pub(super) chain: Chain,
    /// Of the moment in which it began: it is kept to the end, whatever is reloaded meanwhile.
    pub(super) catalog: Arc<Catalog>,
    pub(super) called: Vec<Arc<Plugin>>,
    pub(super) told: UnboundedSender<Reply>,
}

/// What was heard of one subscriber's call.
type Heard = (PluginId, Answer);

/// Who is called as soon as there is a sandbox.
struct Next<'a> {
    plugin: &'a Arc<Plugin>,
    receive: &'a Receive,
    admission: BoxFuture<'static, Admission>,
}

/// The calls of a broadcast so far.
struct Calls {
    rollcall: Rollcall,
    running: HashMap<PluginId, Control>,
    /// Of replies that were kept.
    bytes: u64,
    answers: [u64; Answer::KINDS.len()],
}

impl Live {
    /// Holds its place until nobody is waited for any more.
    pub(super) async fn run(self, place: OwnedSemaphorePermit, gone: CancellationToken) {
        let mut calls = Calls {
            rollcall: Rollcall::open(self.called.iter().map(|plugin| plugin.id.clone()), self.mode),
            running: HashMap::new(),
            bytes: 0,
            answers: [0; Answer::KINDS.len()],
        };
        let ending = self.call_all(&mut calls, gone).await;
        self.end(&mut calls, ending);
        drop(place);
    }

    async fn call_all(&self, calls: &mut Calls, gone: CancellationToken) -> BroadcastEnding {
        let depth = self.chain.depth + 1;
        let until = self.began + self.timeout;
        let (to_me, mut answers) = unbounded_channel::<Heard>();
        let mut heard = Vec::new();
        let mut waiting = self.called.iter();
        let mut next: Option<Next<'_>> = None;
        let mut deadline = std::pin::pin!(sleep_until(until));
        let mut gone = std::pin::pin!(gone.cancelled_owned());
        let mut stopping = std::pin::pin!(self.broadcasts.stopping.cancelled());
        loop {
            while next.is_none() {
                let Some(plugin) = waiting.next() else { break };
                // Who subscribes says how it is called.
                let Some(receive) = &plugin.manifest.receive else {
                    self.take(calls, &plugin.id, Answer::Skipped("it subscribes to nothing any more".to_owned()));
                    continue;
                };
                if self.chain.has(&plugin.id) && !receive.reentrant {
                    let why = "it waits itself, further up this chain of broadcasts; `reentrant = true` under [receive] in its manifest would call it again";
                    self.take(calls, &plugin.id, Answer::Skipped(why.to_owned()));
                    continue;
                }
                let engine = &self.broadcasts.inserting.shared.engine;
                let admission = engine.admit(Share::Broadcasts { depth }, plugin).boxed();
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
                    let control = self.start(plugin, receive, admission, until, &to_me);
                    calls.running.insert(plugin.id.clone(), control);
                }
            }
        }
    }

    fn start(
        &self,
        plugin: &Arc<Plugin>,
        receive: &Receive,
        admission: Admission,
        until: Instant,
        to_me: &UnboundedSender<Heard>,
    ) -> Control {
        let control = Control::new();
        let left = until.saturating_duration_since(Instant::now());
        let own = Allowance::of(&receive.task);
        let allowance = Allowance { timeout: own.timeout.min(left), ..own };
        let call = Call {
            asked: Asked::Message {
                id: self.id.to_string(),
                topic: self.topic.to_string(),
                payload: Arc::clone(&self.payload),
            },
            allowance,
        };
        let called = Arc::new(Called {
            broadcasts: Arc::clone(&self.broadcasts),
            catalog: Arc::clone(&self.catalog),
            plugin: Arc::clone(plugin),
            topic: self.topic.clone(),
            chain: self.chain.then(plugin.id.clone()),
            children: Mutex::default(),
        });
        let (attending, to_me, id) = (Arc::clone(&called), to_me.clone(), plugin.id.clone());
        let ended = move |ended: wharf_engine::Ended| {
            let answer = Answer::from(ended.outcome);
            let children = called.children();
            if children.is_empty() || !matches!(answer, Answer::Replied(_)) {
                // A broadcast that is over hears no more.
                let _ = to_me.send((id, answer));
                return;
            }
            let (broadcasts, limits) = (Arc::clone(&called.broadcasts), Arc::clone(called.catalog.limits()));
            let home = broadcasts.home.clone();
            let tasks = broadcasts.inserting.shared.tasks.clone();
            let insert = async move {
                let answer = match broadcasts.inserting.insert(children, limits).await {
                    Ok(_) => answer,
                    Err(error) => {
                        let why = format!("it replied, but the jobs that it enqueued could not be added: {error}");
                        Answer::Failed(Failure::Retry(why))
                    }
                };
                let _ = to_me.send((id, answer));
            };
            tasks.spawn_on(insert, &home);
        };
        let engine = &self.broadcasts.inserting.shared.engine;
        engine.start(admission, Arc::clone(plugin), call, attending, control.clone(), ended);
        control
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

    /// Whoever was not heard gets an answer all the same, and is stopped.
    fn end(&self, calls: &mut Calls, ending: BroadcastEnding) {
        let running = std::mem::take(&mut calls.running);
        for control in running.values() {
            control.stop(Interruption::Host, "the broadcast is over".to_owned());
        }
        let closed = calls.rollcall.close(self.began.elapsed(), |plugin| {
            let began = running.contains_key(plugin);
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
        for reply in closed {
            self.tell(calls, reply);
        }
        let answers = Answer::KINDS.into_iter().zip(calls.answers).filter(|(_, count)| *count > 0).collect();
        let (topic, took) = (self.topic.clone(), self.began.elapsed());
        let ended = BroadcastEnded { topic, id: self.id, depth: self.chain.depth + 1, ending, answers, took };
        (self.broadcasts.inserting.shared.tell)(&Notice::BroadcastEnded(Box::new(ended)));
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
async fn admitted<'a>(next: &mut Option<Next<'a>>) -> (&'a Arc<Plugin>, &'a Receive, Admission) {
    match next {
        Some(Next { plugin, receive, admission }) => (*plugin, *receive, admission.await),
        None => std::future::pending().await,
    }
}
