//! What operators do: holds, limits, failure groups, bulk operations and the audit log.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use wharf_core::audit::{ActKind, NewAct};
use wharf_core::author::Author;
use wharf_core::backlog::Backlog;
use wharf_core::bulk::BulkOperation;
use wharf_core::failure::{FailureDetails, FailureGroup, FailureState};
use wharf_core::fingerprint::Fingerprint;
use wharf_core::hold::{Hold, HoldScope, NewHold};
use wharf_core::ids::{Group, JobId};
use wharf_core::key::Key;
use wharf_core::limits::{Limits, Override};
use wharf_store::{ActFilter, ActPage, FailureFilter, FailurePage, HoldPage, StoreError};

use super::Host;
use crate::holds_view::{self, HoldError, HoldSet};
use crate::limits_view::{self, GroupLimits, LimitError};
use crate::notice::Notice;
use crate::operations::{self, OperationError, OperationRequest, Preview, StartedOperation};

/// Number of holds of one request that are on their way to the store at once.
const HOLDS_AT_ONCE: usize = 100;

impl Host {
    /// Holds jobs, on all nodes: they are enqueued and wait. What runs goes on.
    ///
    /// # Errors
    ///
    /// Returns [`HoldError::Ended`] if the hold would end at once, `TooMany` if there are too many holds, and `Store` if the store
    /// failed.
    pub async fn hold(&self, new: NewHold) -> Result<HoldSet, HoldError> {
        let set = holds_view::set(&self.0.store, &self.view(), new).await?;
        self.0.held_subscribers.forget();
        self.notify(&Notice::HoldSet { hold: Box::new(set.hold.clone()) });
        Ok(set)
    }

    /// Sets many holds, as [`Host::hold`] sets one; the store commits many at once. Those before an error stay set, so that the
    /// same request may be sent again.
    ///
    /// # Errors
    ///
    /// Returns the first error, as [`Host::hold`] does.
    pub async fn hold_many(&self, new: Vec<NewHold>) -> Result<Vec<HoldSet>, HoldError> {
        stream::iter(new).map(|new| self.hold(new)).buffered(HOLDS_AT_ONCE).try_collect().await
    }

    /// Releases the hold of exactly this scope; returns it if it was in force.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn release(&self, scope: HoldScope, by: Author) -> Result<Option<Hold>, StoreError> {
        let (store, name) = (&self.0.store, by.name().map(str::to_owned));
        let released = store.call_with_timeout("releasing a hold", store.release_hold(scope.clone(), by)).await?;
        self.0.held_subscribers.forget();
        if released.is_some() {
            self.notify(&Notice::HoldReleased { scope, by: name });
        }
        Ok(released)
    }

    /// Returns the first `max` holds in force whose scopes come after `after`, in the order of the scopes' texts.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn holds(&self, after: Option<HoldScope>, max: u32) -> Result<HoldPage, StoreError> {
        self.0.store.holds(after, max).await
    }

    /// Returns the limits of every group, with what holds slots now.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn limits(&self) -> Result<Vec<GroupLimits>, StoreError> {
        self.limits_of(&self.backlog().await?).await
    }

    /// Returns the limits of every group, with what holds slots in a backlog that was read before.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn limits_of(&self, backlog: &Backlog) -> Result<Vec<GroupLimits>, StoreError> {
        limits_view::limits(&self.0.store, &self.catalog(), backlog).await
    }

    /// Puts an override in force, on all nodes. Raising acts at once; lowering never kills, it drains.
    ///
    /// # Errors
    ///
    /// Returns [`LimitError::UnknownGroup`] or `Loading` if no plugin of any node has the group, `Nothing` or `TotalOfKey` if the
    /// override sets nothing that can be set, and `Store` if the store failed.
    pub async fn set_limit(&self, change: Override, by: Author) -> Result<(), LimitError> {
        let (group, key) = (change.group.to_string(), change.key.as_ref().map(ToString::to_string));
        let notice = Notice::LimitSet { group, key, limits: change.limits, by: by.name().map(str::to_owned) };
        limits_view::set(&self.0.store, &self.0.plugins, change, by).await?;
        self.notify(&notice);
        Ok(())
    }

    /// Ends an override; returns false if there was none.
    ///
    /// # Errors
    ///
    /// Returns [`LimitError::UnknownGroup`] or `Loading` if there was none and no plugin of any node has the group, and `Store` if
    /// the store failed.
    pub async fn clear_limit(&self, group: Group, key: Option<Key>, by: Author) -> Result<bool, LimitError> {
        let (of, key_text) = (group.to_string(), key.as_ref().map(ToString::to_string));
        let by_name = by.name().map(str::to_owned);
        let notice = Notice::LimitSet { group: of, key: key_text, limits: Limits::default(), by: by_name };
        let cleared = limits_view::clear(&self.0.store, &self.0.plugins, (group, key), by).await?;
        if cleared {
            self.notify(&notice);
        }
        Ok(cleared)
    }

    /// Returns failure groups, the one that failed last first.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn failures(&self, filter: FailureFilter) -> Result<FailurePage, StoreError> {
        self.0.store.failures(filter).await
    }

    /// Returns one failure group with its versions and samples; `None` if there is no such group.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn failure(&self, fingerprint: Fingerprint) -> Result<Option<FailureDetails>, StoreError> {
        self.0.store.failure_details(fingerprint).await
    }

    /// Sets the state of a failure group, and writes who did so into the audit log. Returns `None` if there is no such group.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn set_failure_state(
        &self,
        fingerprint: Fingerprint,
        state: FailureState,
        by: Author,
    ) -> Result<Option<FailureGroup>, StoreError> {
        let store = &self.0.store;
        let set = store.set_failure_state(fingerprint, state, by.clone());
        let group = store.call_with_timeout("setting the state of a failure group", set).await?;
        if group.is_some() {
            let by = by.name().map(str::to_owned);
            self.notify(&Notice::FailureStateSet { fingerprint, state, by });
        }
        Ok(group)
    }

    /// Counts the jobs that a bulk operation would change if it began now, up to a bound and for this time, and returns the first of
    /// them.
    ///
    /// # Errors
    ///
    /// Returns [`OperationError::Invalid`] if the request is not valid, and [`OperationError::Store`] if the store failed.
    pub async fn preview_operation(
        &self,
        request: OperationRequest,
        time: Duration,
    ) -> Result<Preview, OperationError> {
        operations::preview(&self.0.store, &self.0.plugins, &self.0.budget, &request, time).await
    }

    /// Starts a bulk operation: one act on all jobs that meet a query now, each at most once. It is durable when this returns,
    /// and goes on whatever happens to this host, as long as there is another one or this one starts again.
    ///
    /// # Errors
    ///
    /// Returns [`OperationError::Invalid`] if the request is not valid, [`OperationError::TooMany`] if too many operations are
    /// open, and [`OperationError::Store`] if the store failed.
    pub async fn start_operation(&self, request: OperationRequest) -> Result<StartedOperation, OperationError> {
        let started = operations::start(&self.0.store, &self.0.plugins, &request).await?;
        if !started.is_known {
            self.notify(&Notice::OperationStarted { operation: Box::new(started.operation.clone()) });
            self.0.operation_started.notify_one();
        }
        Ok(started)
    }

    /// Returns a bulk operation; `None` if there is none with this ID.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn operation(&self, id: JobId) -> Result<Option<BulkOperation>, StoreError> {
        self.0.store.operation(id).await
    }

    /// Returns at most `max` bulk operations with lower IDs than `before`, the newest first.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn operations(&self, before: Option<JobId>, max: u32) -> Result<Vec<BulkOperation>, StoreError> {
        self.0.store.operations(before, max).await
    }

    /// Cancels a bulk operation before its next step: what it has changed stays changed. Returns it as it was left; `None` if
    /// there is none, or it has ended.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn cancel_operation(&self, id: JobId, by: Author) -> Result<Option<BulkOperation>, StoreError> {
        let store = &self.0.store;
        let cancelled = store.call_with_timeout("cancelling a bulk operation", store.cancel_operation(id, by)).await?;
        if let Some(operation) = &cancelled {
            self.notify(&Notice::OperationEnded { operation: Box::new(operation.clone()) });
        }
        Ok(cancelled)
    }

    /// Returns a page of the acts of operators, newest first.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn acts(&self, filter: ActFilter) -> Result<ActPage, StoreError> {
        self.0.store.acts(filter).await
    }

    /// Adds the act of this host having read other settings: `digest` is that of the new ones, `detail` says what changed.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub async fn add_settings_act(&self, digest: &str, detail: &str) -> Result<(), StoreError> {
        let act = NewAct::new(Author::host(&self.0.name), ActKind::SettingsChanged, digest, detail, 1);
        self.0.store.call_with_timeout("adding an act", self.0.store.add_act(act)).await
    }
}
