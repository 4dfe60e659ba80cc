//! Which lines of ready jobs a bounded look at the backlog goes over: each in turn, and at every look those with the oldest jobs.

use std::collections::{BTreeMap, BTreeSet};

use crate::bounds;
use crate::find::WaitKind;
use crate::ids::TaskName;
use crate::time::Timestamp;

/// The beginning of the next look at the backlog. A look that went over all lines leaves nothing behind; one that was cut goes on where it
/// ended, and begins with the lines whose jobs it knows to be the oldest, so that their ages are shown at each look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineWalk {
    /// The last line that was looked at in order; the next look goes on behind it, and around.
    behind: Option<i64>,
    /// The lines to begin with.
    first: BTreeSet<i64>,
}

/// A line that was looked at, of jobs whose age is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenLine {
    /// The number of the line.
    pub line: i64,
    /// The task of its jobs.
    pub task: TaskName,
    /// Why they wait.
    pub kind: WaitKind,
    /// The moment from which the first of them is due.
    pub oldest: Timestamp,
}

impl LineWalk {
    /// Returns the lines to begin with, at most `bounds::BACKLOG_LINES_FIRST`.
    pub fn first(&self) -> impl Iterator<Item = i64> + '_ {
        self.first.iter().copied()
    }

    /// Returns how much to look at in each of the lines to begin with, if `max` is what a whole look may read: all of them together take
    /// no more than half of it, but for the first few jobs of each.
    pub fn share_of_first(&self, max: u32) -> u32 {
        let lines = u32::try_from(self.first.len()).unwrap_or(u32::MAX).max(1);
        (max / 2 / lines).max(bounds::BACKLOG_LINE_MIN)
    }

    /// Returns the line behind which to go on; afterwards all lines up to this one follow.
    pub fn behind(&self) -> i64 {
        self.behind.unwrap_or(i64::MIN)
    }

    /// Returns the walk after a look. `cut_at` is the last line that it looked at in order, if that look did not reach all lines.
    pub fn after(&self, cut_at: Option<i64>, seen: impl IntoIterator<Item = SeenLine>) -> LineWalk {
        let Some(last) = cut_at else { return LineWalk::default() };
        let mut oldest: BTreeMap<(TaskName, WaitKind), (Timestamp, i64)> = BTreeMap::new();
        for SeenLine { line, task, kind, oldest: at } in seen {
            let known = oldest.entry((task, kind)).or_insert((at, line));
            *known = (*known).min((at, line));
        }
        let by_age: BTreeSet<(Timestamp, i64)> = oldest.into_values().collect();
        let first = by_age.into_iter().take(bounds::BACKLOG_LINES_FIRST).map(|(_, line)| line).collect();
        LineWalk { behind: Some(last), first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(line: i64, task: &str, kind: WaitKind, oldest: u64) -> SeenLine {
        SeenLine { line, task: task.parse().unwrap(), kind, oldest: Timestamp::from_millis(oldest) }
    }

    #[test]
    fn a_look_that_was_cut_goes_on_and_begins_with_the_oldest() {
        let walk = LineWalk::default();
        assert_eq!((walk.behind(), walk.first().count()), (i64::MIN, 0));
        let lines = [
            seen(3, "words/count", WaitKind::Ready, 50),
            seen(4, "words/count", WaitKind::Ready, 40),
            seen(5, "words/count", WaitKind::Blocked, 30),
            seen(6, "words/list", WaitKind::Ready, 90),
        ];
        let walk = walk.after(Some(6), lines);
        assert_eq!((walk.behind(), walk.first().collect::<Vec<_>>()), (6, vec![4, 5, 6]));
        // Line 4 is empty by now: another one is the oldest.
        let walk = walk.after(Some(9), [seen(9, "words/count", WaitKind::Ready, 60)]);
        assert_eq!((walk.behind(), walk.first().collect::<Vec<_>>()), (9, vec![9]));
        assert_eq!(walk.after(None, [seen(1, "words/count", WaitKind::Ready, 1)]), LineWalk::default());
    }

    #[test]
    fn the_lines_to_begin_with_are_few_and_leave_room_for_others() {
        let many = (0..2000).map(|n: u32| seen(n.into(), &format!("words/t{n}"), WaitKind::Ready, (5000 - n).into()));
        let walk = LineWalk::default().after(Some(7), many);
        assert_eq!(walk.first().count(), bounds::BACKLOG_LINES_FIRST);
        assert_eq!(walk.first().last(), Some(1999), "the oldest are among them");
        assert_eq!(walk.share_of_first(4096), bounds::BACKLOG_LINE_MIN);
        let one = LineWalk::default().after(Some(7), [seen(7, "words/count", WaitKind::Ready, 1)]);
        assert_eq!(one.share_of_first(4096), 2048);
    }
}
