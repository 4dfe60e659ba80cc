//! Tells the service manager that started this process, such as systemd, how far the host is: that it is ready, reads its settings
//! again, stops, and that its loop turns. `NOTIFY_SOCKET` names who listens; without it nobody is told.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use sd_notify::NotifyState;
use tracing::warn;
use wharf_runner::Host;

use crate::config::has_service_manager;

/// Number of messages that wait for a service manager that does not read; further ones are dropped.
const MESSAGES_MAX: usize = 64;
/// The loop is asked this often within the time after which the service manager takes the host for hung.
const TURNS_PER_TIMEOUT: u32 = 3;

type Message = Vec<NotifyState<'static>>;

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
                listener.send(vec![NotifyState::Watchdog]);
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

    /// Tells that the host is in another state, if it is in one of `from`.
    fn change(&self, from: &[Told], to: Told) {
        let Some(listener) = &self.0 else { return };
        let mut told = listener.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !from.contains(&told) {
            return;
        }
        *told = to;
        // Under the lock, so that messages are in the order of the states.
        listener.send(match to {
            Told::Starting => return,
            Told::Ready => vec![NotifyState::Ready],
            // systemd asks for the moment, to tell the answer to one reload from the answer to the next.
            Told::Reloading => [NotifyState::Reloading].into_iter().chain(NotifyState::monotonic_usec_now()).collect(),
            Told::Stopping => vec![NotifyState::Stopping],
        });
    }
}

impl Listener {
    fn send(&self, message: Message) {
        // Full if nobody reads.
        let _ = self.messages.try_send(message);
    }
}

/// Sends messages until nobody is left who has one. Reports the first of the failures that follow each other.
fn send(messages: &Receiver<Message>) {
    let mut failed = false;
    for message in messages {
        let sent = sd_notify::notify(&message);
        if let (Err(error), false) = (&sent, failed) {
            warn!("could not tell the service manager how far the host is: {error}; NOTIFY_SOCKET names its socket");
        }
        failed = sent.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let first = |message: Message| message[0].to_string();
        let told: Vec<String> = told.try_iter().map(first).collect();
        assert_eq!(told, ["READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "STOPPING=1"]);
    }

    #[test]
    fn a_reload_is_told_with_its_moment() {
        let (messages, told) = sync_channel(MESSAGES_MAX);
        let manager = ServiceManager::to(messages);
        manager.change(&[Told::Starting], Told::Ready);
        manager.reloading();
        let told: Vec<String> = told.try_iter().flatten().map(|part| part.to_string()).collect();
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
}
