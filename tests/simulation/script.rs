//! What an attempt will do, drawn when it starts.

use std::time::Duration;

use wharf_core::outcome::{Failure, Outcome, TimeoutKind};

use crate::faults::Odds;

#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) takes: Duration,
    /// Chunks, evenly spread.
    pub(crate) chunks: u32,
    pub(crate) outcome: Outcome,
    /// How long after a request to cancel it ends; `None` does not care.
    pub(crate) heeds_cancel: Option<Duration>,
    pub(crate) children: u32,
}

impl Script {
    pub(crate) fn draw(rng: &mut fastrand::Rng, odds: &Odds, may_have_children: bool) -> Script {
        // Most are short; some outlast several leases.
        let takes = match rng.u32(0..20) {
            _ if odds.all_last => Duration::from_millis(rng.u64(1000..20_000)),
            0 => Duration::from_secs(rng.u64(20..100)),
            1..5 => Duration::from_millis(rng.u64(500..8000)),
            _ => Duration::from_micros(rng.u64(200..80_000)),
        };
        let outcome =
            if rng.u32(0..1000) < odds.attempt_fails { failure(rng) } else { Outcome::Returned(b"done".to_vec()) };
        Script {
            takes,
            chunks: if rng.u32(0..3) == 0 { rng.u32(1..6) } else { 0 },
            outcome,
            heeds_cancel: rng.bool().then(|| Duration::from_millis(rng.u64(0..2000))),
            children: if may_have_children && rng.u32(0..12) == 0 { rng.u32(1..3) } else { 0 },
        }
    }
}

fn failure(rng: &mut fastrand::Rng) -> Outcome {
    match rng.u32(0..7) {
        0 => Outcome::Failed(Failure::RetryAfter("busy".into(), Duration::from_secs(rng.u64(0..20)))),
        1 => Outcome::Failed(Failure::Discard("nonsense".into())),
        2 => Outcome::Trapped("unreachable".into()),
        3 => Outcome::TimedOut { clock: TimeoutKind::Wall, limit: Duration::from_secs(1), report: "late".into() },
        4 => Outcome::OutOfMemory { limit_bytes: 1, report: "hoard".into() },
        _ => Outcome::Failed(Failure::Retry("not now".into())),
    }
}
