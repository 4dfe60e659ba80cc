//! Tells the service manager that started this process, such as systemd, how far the host is: that it is ready, reads its settings
//! again, stops, and that its loop turns. `NOTIFY_SOCKET` names who listens; without it nobody is told.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tracing::warn;
use wharf_runner::Host;

use crate::config::has_service_manager;

/// Number of messages that wait for a service manager that does not read; further ones are dropped.
const MESSAGES_MAX: usize = 64;
/// The loop is asked this often within the time after which the service manager takes the host for hung.
const TURNS_PER_TIMEOUT: u32 = 3;
/// A host that ends waits for this time at most until the service manager was told.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// An order to the thread that sends.
enum Message {
    /// Tells the service manager.
    Tell(Vec<NotifyState<'static>>),
    /// Answers once all earlier messages are sent.
    Answer(oneshot::Sender<()>),
}

/// The state of the host, as the service manager was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Starting,
    Ready,
    Reloading,
    Stopping,
}

struct Listener {
    told: Mutex<Told>,
    /// A thread of its own sends: the socket of a service manager that hangs must not hold up the host.
    messages: SyncSender<Message>,
}

/// The service manager of this process, if it listens. Clones tell the same one.
#[derive(Clone)]
pub(crate) struct ServiceManager(Option<Arc<Listener>>);

impl ServiceManager {
    /// Returns the service manager that the environment names.
    pub(crate) fn of_environment() -> ServiceManager {
        if !has_service_manager() {
            return ServiceManager(None);
        }
        let (messages, to_send) = sync_channel(MESSAGES_MAX);
        let sends = thread::Builder::new().name("notify".to_owned()).spawn(move || send(&to_send));
        if let Err(error) = sends {
            warn!("could not start the thread that tells the service manager how far the host is: {error}");
            return ServiceManager(None);
        }
        ServiceManager::to(messages)
    }

    fn to(messages: SyncSender<Message>) -> ServiceManager {
        ServiceManager(Some(Arc::new(Listener { told: Mutex::new(Told::Starting), messages })))
    }

    /// Tells that `host` is ready once it is, and then that its loop turns, as often as the service manager wants to know. A loop
    /// that hangs tells nothing.
    pub(crate) async fn watch(self, host: Host) {
        if self.0.is_none() {
            return;
        }
        host.ready().await;
        let interval = sd_notify::watchdog_enabled().map(|timeout| timeout / TURNS_PER_TIMEOUT);
        while host.turned().await {
            self.change(&[Told::Starting], Told::Ready);
            let Some(interval) = interval else { return };
            if let Some(listener) = &self.0 {
                listener.tell(vec![NotifyState::Watchdog]);
            }
            tokio::time::sleep(interval).await;
        }
    }

    /// Tells that the host reads its settings again. Before it is ready and while it stops, this tells nothing.
    pub(crate) fn reloading(&self) {
        self.change(&[Told::Ready], Told::Reloading);
    }

    /// Tells that the host has read its settings again.
    pub(crate) fn reloaded(&self) {
        self.change(&[Told::Reloading], Told::Ready);
    }

    /// Tells that the host stops.
    pub(crate) fn stopping(&self) {
        self.change(&[Told::Starting, Told::Ready, Told::Reloading], Told::Stopping);
    }

    /// Waits until the service manager was told all, so that the end of the process loses nothing. One that does not read is not waited
    /// for long.
    pub(crate) async fn told(&self) {
        let Some(listener) = &self.0 else { return };
        let (answer, answered) = oneshot::channel();
        if listener.messages.try_send(Message::Answer(answer)).is_ok() {
            // In vain if the time is over, or if the thread has ended.
            let _ = tokio::time::timeout(SEND_TIMEOUT, answered).await;
        }
    }

    /// Tells that the host is in another state, if it is in one of `from`.
    fn change(&self, from: &[Told], to: Told) {
        let Some(listener) = &self.0 else { return };
        let mut told = listener.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !from.contains(&told) {
            return;
        }
        *told = to;
        // Under the lock, so that messages are in the order of the states.
        listener.tell(match to {
            Told::Starting => return,
            Told::Ready => vec![NotifyState::Ready],
            // systemd asks for the moment, to tell the answer to one reload from the answer to the next.
            Told::Reloading => [NotifyState::Reloading].into_iter().chain(NotifyState::monotonic_usec_now()).collect(),
            Told::Stopping => vec![NotifyState::Stopping],
        });
    }
}

impl Listener {
    fn tell(&self, states: Vec<NotifyState<'static>>) {
        // Full if nobody reads.
        let _ = self.messages.try_send(Message::Tell(states));
    }
}

/// Sends messages until nobody is left who has one. Reports the first of the failures that follow each other.
fn send(messages: &Receiver<Message>) {
    let mut failed = false;
    for message in messages {
        let states = match message {
            Message::Tell(states) => states,
            Message::Answer(answer) => {
                // Nobody waits any more if it took too long.
                let _ = answer.send(());
                continue;
            }
        };
        let sent = sd_notify::notify(&states);
        if let (Err(error), false) = (&sent, failed) {
            warn!("could not tell the service manager how far the host is: {error}; NOTIFY_SOCKET names its socket");
        }
        failed = sent.is_err();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn states(message: Message) -> Vec<NotifyState<'static>> {
        match message {
            Message::Tell(states) => states,
            Message::Answer(_) => Vec::new(),
        }
    }

    #[test]
    fn each_state_is_told_once_and_in_order() {
        let (messages, told) = sync_channel(MESSAGES_MAX);
        let manager = ServiceManager::to(messages);
        manager.reloading();
        manager.reloaded();
        manager.change(&[Told::Starting], Told::Ready);
        manager.change(&[Told::Starting], Told::Ready);
        manager.reloaded();
        manager.reloading();
        manager.reloading();
        manager.reloaded();
        manager.reloading();
        manager.stopping();
        manager.reloaded();
        manager.stopping();
        manager.reloading();
        let first = |message: Message| states(message)[0].to_string();
        let told: Vec<String> = told.try_iter().map(first).collect();
        assert_eq!(told, ["READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "STOPPING=1"]);
    }

    #[test]
    fn a_reload_is_told_with_its_moment() {
        let (messages, told) = sync_channel(MESSAGES_MAX);
        let manager = ServiceManager::to(messages);
        manager.change(&[Told::Starting], Told::Ready);
        manager.reloading();
        let told: Vec<String> = told.try_iter().flat_map(states).map(|part| part.to_string()).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told[2].strip_prefix("MONOTONIC_USEC=").is_some_and(|moment| moment.parse::<u64>().is_ok()),
            "{told:?}"
        );
    }

    #[test]
    fn a_service_manager_that_does_not_read_holds_up_nothing() {
        let (messages, _told) = sync_channel(1);
        let manager = ServiceManager::to(messages);
        manager.change(&[Told::Starting], Told::Ready);
        manager.reloading();
        manager.stopping();
    }

    #[tokio::test]
    async fn a_host_that_ends_waits_until_all_is_told() {
        let (messages, to_tell) = sync_channel(MESSAGES_MAX);
        let manager = ServiceManager::to(messages);
        manager.stopping();
        let mut told = std::pin::pin!(manager.told());
        tokio::select! {
            biased;
            () = &mut told => panic!("nothing was sent"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(states(to_tell.recv().unwrap())[0].to_string(), "STOPPING=1");
        let Message::Answer(answer) = to_tell.recv().unwrap() else { panic!("it waits for no answer") };
        answer.send(()).unwrap();
        told.await;
    }

    #[tokio::test]
    async fn a_host_that_ends_does_not_wait_for_a_service_manager_that_does_not_read() {
        let (messages, told) = sync_channel(2);
        let manager = ServiceManager::to(messages);
        let begin = Instant::now();
        manager.stopping();
        manager.told().await;
        assert!(begin.elapsed() >= SEND_TIMEOUT, "the thread may still send");
        // There is no room for another message, and then no thread.
        manager.told().await;
        drop(told);
        manager.told().await;
    }
}
