//! Log lines with or without the part of the program that they come from: it changes with the level.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats events with their target as long as that is wanted.
pub(super) struct WithTargets<F> {
    are_shown: Arc<AtomicBool>,
    with: F,
    without: F,
}

impl<F> WithTargets<F> {
    /// Makes the two formats by `format`, which is called with true for the one that has the target.
    pub(super) fn new(are_shown: Arc<AtomicBool>, format: impl Fn(bool) -> F) -> WithTargets<F> {
        WithTargets { are_shown, with: format(true), without: format(false) }
    }
}

impl<S, N, F> FormatEvent<S, N> for WithTargets<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let format = if self.are_shown.load(Ordering::Relaxed) { &self.with } else { &self.without };
        format.format_event(context, writer, event)
    }
}
