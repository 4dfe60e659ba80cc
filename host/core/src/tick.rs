//! The tick of a schedule that a job was enqueued for.

use std::fmt;
use std::str::FromStr;

use crate::ids::ParseIdError;
use crate::time::Timestamp;

/// The variables by which a program knows the tick of its job: the tick, the one before it, and the number of ticks without a job between
/// the two.
pub const VARIABLES: [&str; 3] = ["WHARF_TICK", "WHARF_PREVIOUS_TICK", "WHARF_TICKS_MISSED"];

/// The tick of a job, and what came before it. Written as three numbers: `tick,previous,missed`, moments in microseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobTick {
    /// The nominal moment, without the spread of the schedule.
    pub tick: Timestamp,
    /// The last earlier tick that was fired; `None` if there was none.
    pub previous: Option<Timestamp>,
    /// Number of ticks since then that have no job: missed, or skipped for any reason.
    pub missed: u64,
}

impl fmt::Display for JobTick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let previous = self.previous.map(|at| at.as_micros().to_string()).unwrap_or_default();
        write!(f, "{},{previous},{}", self.tick.as_micros(), self.missed)
    }
}

impl FromStr for JobTick {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<JobTick, ParseIdError> {
        let number = |text: &str| text.parse::<u64>().ok();
        let parse = || {
            let (tick, rest) = text.split_once(',')?;
            let (previous, missed) = rest.split_once(',')?;
            let previous = match previous {
                "" => None,
                previous => Some(Timestamp::from_micros(number(previous)?)),
            };
            Some(JobTick { tick: Timestamp::from_micros(number(tick)?), previous, missed: number(missed)? })
        };
        parse().ok_or_else(|| ParseIdError::new("tick of a job", text, "expected `tick,previous,missed`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_read_as_it_is_written() {
        for previous in [None, Some(Timestamp::from_micros(1_000_000))] {
            let tick = JobTick { tick: Timestamp::from_micros(2_000_000), previous, missed: 7 };
            assert_eq!(tick.to_string().parse(), Ok(tick));
        }
        for text in ["", "1", "1,2", "1,x,3", "x,,0", "1,,", "1,2,3,4"] {
            assert!(text.parse::<JobTick>().is_err(), "{text}");
        }
    }
}
