//! The holds of a store.

use async_trait::async_trait;
use wharf_core::author::Author;
use wharf_core::hold::{Hold, HoldScope, NewHold};

use super::error::StoreError;

/// The holds of a store. Claims read them inside their transaction. A hold ends by the store's clock, and claims after its
/// end take its jobs without anybody's help; its row stays until `delete_ended_holds`.
#[async_trait]
pub trait HoldStore: Send + Sync {
    /// Sets a hold, in place of an earlier one of the same scope. No claim that begins after this returns takes a job of the
    /// scope. Returns `None`, and sets nothing, if there are `NewHold::others_max` holds of other scopes. The act of an
    /// operator who sets a hold is added to the audit log.
    async fn set_hold(&self, hold: NewHold) -> Result<Option<Hold>, StoreError>;

    /// Removes the hold of exactly this scope. Returns it if it was in force; then the act is added to the audit log.
    async fn release_hold(&self, scope: HoldScope, by: Author) -> Result<Option<Hold>, StoreError>;

    /// Returns the first `max` holds in force whose scopes come after `after`, in the order of the scopes' texts.
    async fn holds(&self, after: Option<HoldScope>, max: u32) -> Result<HoldPage, StoreError>;

    /// Returns the holds in force that have exactly one of these scopes, in no particular order.
    async fn holds_of(&self, scopes: Vec<HoldScope>) -> Result<Vec<Hold>, StoreError>;

    /// Deletes at most `max` holds that have ended. Returns how many.
    async fn delete_ended_holds(&self, max: u32) -> Result<u32, StoreError>;
}

/// A page of a list of holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldPage {
    /// The holds, in the order of their scopes' texts.
    pub holds: Vec<Hold>,
    /// True if there are more.
    pub more: bool,
}

impl HoldPage {
    /// Returns a page of the first `max` of these holds, of which there are at most `max + 1`.
    pub(crate) fn new(mut holds: Vec<Hold>, max: usize) -> HoldPage {
        let more = holds.len() > max;
        holds.truncate(max);
        HoldPage { holds, more }
    }
}
