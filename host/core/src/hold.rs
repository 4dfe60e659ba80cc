//! Holds: an operator's pauses. A held job is not claimed; jobs are still enqueued, and running ones go on.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::author::Author;
use crate::bounds;
use crate::ids::{Group, ParseIdError, PluginId, TaskName};
use crate::key::{Key, Lane};
use crate::time::Timestamp;

/// The jobs that a hold keeps waiting. Its text is "all", "plugin:P", "task:P/T", "group:G", "key:K" or "group:G key:K".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldScope {
    /// Every job.
    All,
    /// The jobs of a plugin.
    Plugin(PluginId),
    /// The jobs of a task.
    Task(TaskName),
    /// The jobs of a limit group.
    Group(Group),
    /// The jobs of a key: those of one group, or of all groups if `group` is `None`.
    Key {
        /// The limit group.
        group: Option<Group>,
        /// The key.
        key: Key,
    },
}

impl HoldScope {
    /// Returns every scope that a job of this task and lane is in, the widest first.
    pub fn of_job(task: &TaskName, lane: &Lane) -> Vec<HoldScope> {
        let mut scopes = vec![
            HoldScope::All,
            HoldScope::Plugin(task.plugin()),
            HoldScope::Task(task.clone()),
            HoldScope::Group(lane.group.clone()),
        ];
        if let Some(key) = &lane.key {
            scopes.push(HoldScope::Key { group: None, key: key.clone() });
            scopes.push(HoldScope::Key { group: Some(lane.group.clone()), key: key.clone() });
        }
        scopes
    }

    /// Returns every scope that contains all jobs of one of these tasks, each with the group that its jobs have.
    pub fn of_tasks(tasks: &[(TaskName, Group)]) -> BTreeSet<HoldScope> {
        let of_task = |(task, group): &(TaskName, Group)| {
            [HoldScope::Plugin(task.plugin()), HoldScope::Task(task.clone()), HoldScope::Group(group.clone())]
        };
        tasks.iter().flat_map(of_task).chain([HoldScope::All]).collect()
    }

    /// Returns true if the scope contains jobs of this key alone.
    pub fn is_of_key(&self, of: &Key) -> bool {
        matches!(self, HoldScope::Key { key, .. } if key == of)
    }
}

impl fmt::Display for HoldScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HoldScope::All => f.write_str("all"),
            HoldScope::Plugin(plugin) => write!(f, "plugin:{plugin}"),
            HoldScope::Task(task) => write!(f, "task:{task}"),
            HoldScope::Group(group) => write!(f, "group:{group}"),
            HoldScope::Key { group: None, key } => write!(f, "key:{key}"),
            HoldScope::Key { group: Some(group), key } => write!(f, "group:{group} key:{key}"),
        }
    }
}

impl FromStr for HoldScope {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<HoldScope, ParseIdError> {
        let unknown = || {
            let expected = "expected `all`, `plugin:P`, `task:P/T`, `group:G`, `key:K` or `group:G key:K`";
            ParseIdError::new("scope of a hold", text, expected)
        };
        if text == "all" {
            return Ok(HoldScope::All);
        }
        match text.split_once(':').ok_or_else(unknown)? {
            ("plugin", plugin) => plugin.parse().map(HoldScope::Plugin),
            ("task", task) => task.parse().map(HoldScope::Task),
            ("key", key) => Ok(HoldScope::Key { group: None, key: key.parse()? }),
            // A group's name has no space, and a key may have any.
            ("group", rest) => match rest.split_once(' ') {
                None => rest.parse().map(HoldScope::Group),
                Some((group, key)) => {
                    let key = key.strip_prefix("key:").ok_or_else(unknown)?;
                    Ok(HoldScope::Key { group: Some(group.parse()?), key: key.parse()? })
                }
            },
            _ => Err(unknown()),
        }
    }
}

/// Why an operator holds jobs. Any text of at most `bounds::HOLD_REASON_BYTES_MAX` bytes without control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldReason(Arc<str>);

impl HoldReason {
    /// Returns the reason's text, which may be empty.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HoldReason {
    /// Returns the reason that a guest writes: cut to its length, with spaces in place of control characters.
    pub fn of_guest(text: &str) -> HoldReason {
        let cut = &text[..text.floor_char_boundary(bounds::HOLD_REASON_BYTES_MAX)];
        let plain: String = cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        // A control character of two bytes becomes a shorter one, so that it fits.
        HoldReason(plain.into())
    }

    /// Returns the reason with a mark of who lengthened its hold last, in place of an earlier mark. The reason is cut where there is no room
    /// for both.
    fn lengthened_by(&self, who: &str) -> HoldReason {
        const BEGIN: &str = "(lengthened by ";
        let mark = format!("{BEGIN}{who})");
        let room = bounds::HOLD_REASON_BYTES_MAX.saturating_sub(mark.len() + 1);
        let mut words = self.0.trim_end();
        while let Some(begin) = words.rfind(BEGIN).filter(|_| words.ends_with(')')) {
            words = words[..begin].trim_end();
        }
        let kept = words[..words.floor_char_boundary(room)].trim_end();
        HoldReason(format!("{kept} {mark}").trim_start().into())
    }
}

impl FromStr for HoldReason {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<HoldReason, ParseIdError> {
        let max = bounds::HOLD_REASON_BYTES_MAX;
        let reason = match text.len() {
            n if n > max => format!("expected at most {max} bytes, got {n}"),
            _ if text.chars().any(char::is_control) => "control characters are not allowed".to_owned(),
            _ => return Ok(HoldReason(text.into())),
        };
        Err(ParseIdError::new("reason", text, reason))
    }
}

/// The end of a new hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldLength {
    /// It ends at a fixed time.
    Until(Timestamp),
    /// It ends after a length of time, measured by the store's clock.
    For(Duration),
}

impl HoldLength {
    /// Returns the end of what begins at `now`.
    pub fn end(self, now: Timestamp) -> Timestamp {
        match self {
            HoldLength::Until(until) => until,
            HoldLength::For(length) => now + length,
        }
    }
}

/// A hold that an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewHold {
    /// The jobs to hold.
    pub scope: HoldScope,
    /// When the hold ends by itself; `None` if it lasts until somebody releases it.
    pub length: Option<HoldLength>,
    /// The author's reason.
    pub reason: HoldReason,
    /// The author: an operator, or a plugin whose job asks to hold its own key.
    pub by: Author,
}

impl NewHold {
    /// Returns the hold as it is set at `now` in place of an earlier one of its scope; `None` if the earlier one stays: a plugin only
    /// lengthens what keeps its jobs waiting, and by a second at least.
    pub fn set_over(&self, earlier: Option<&Hold>, now: Timestamp) -> Option<Hold> {
        let mut hold = self.set_at(now);
        let stays = |earlier: &Hold| {
            let end = earlier.until.map_or(HoldEnd::Released, |until| HoldEnd::At(until + Duration::from_secs(1)));
            earlier.is_in_force(now) && end > hold.end()
        };
        if !self.by.is_plugin() {
            return Some(hold);
        }
        if earlier.is_some_and(stays) {
            return None;
        }
        // What an operator said stays, and who lengthened it is said beside it.
        if let Some(earlier) = earlier.filter(|earlier| earlier.is_in_force(now) && !earlier.is_of_plugin()) {
            let reason = earlier.reason.lengthened_by(self.by.name().unwrap_or_default());
            (hold.by, hold.reason, hold.since) = (earlier.by.clone(), reason, earlier.since);
        }
        Some(hold)
    }

    /// Returns how many other holds there may be for this one to be set. Plugins leave room for operators, and operators that hold keys
    /// leave room for wider holds.
    pub fn others_max(&self) -> u32 {
        match &self.scope {
            _ if self.by.is_plugin() => bounds::HOLDS_WITH_PLUGINS_MAX,
            HoldScope::Key { .. } => bounds::HOLDS_MAX,
            HoldScope::All | HoldScope::Plugin(_) | HoldScope::Task(_) | HoldScope::Group(_) => {
                bounds::HOLDS_WITH_WIDE_MAX
            }
        }
    }

    /// Returns the hold as it is set at `now`.
    pub fn set_at(&self, now: Timestamp) -> Hold {
        let NewHold { scope, length, reason, by } = self.clone();
        let until = length.map(|length| length.end(now));
        Hold { scope, until, reason, by: by.name().map(str::to_owned), since: now }
    }
}

/// A hold: it keeps the jobs of its scope waiting until a moment, or until somebody releases it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The jobs that it holds.
    pub scope: HoldScope,
    /// When it ends by itself; `None` if it lasts until somebody releases it.
    pub until: Option<Timestamp>,
    /// The operator's reason.
    pub reason: HoldReason,
    /// The author's name; `None` if the host asked for no token.
    pub by: Option<String>,
    /// When it was set.
    pub since: Timestamp,
}

impl Hold {
    /// Returns true if the hold has not ended by itself.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }

    /// Returns true if a plugin set the hold.
    pub fn is_of_plugin(&self) -> bool {
        Author::from_parts(self.by.as_deref(), None).is_plugin()
    }

    /// Returns how the hold ends.
    pub fn end(&self) -> HoldEnd {
        self.until.map_or(HoldEnd::Released, HoldEnd::At)
    }
}

/// The end of a hold. A later end is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HoldEnd {
    /// It ends by itself at this time.
    At(Timestamp),
    /// It lasts until somebody releases it.
    Released,
}

/// The holds of a store. Looking one up costs the same with one hold or with a hundred thousand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldTable {
    holds: HashMap<HoldScope, Hold>,
    /// The holds that end by themselves, the first to end first.
    ends: BTreeSet<(Timestamp, HoldScope)>,
    /// Number of holds of each kind that is on lanes: of groups, of keys in all groups, of keys in one group.
    of_lanes: [usize; 3],
}

impl HoldTable {
    /// Returns true if there is no hold, not even one that has ended.
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }

    /// Returns the number of holds, including those that have ended and were not removed.
    pub fn len(&self) -> usize {
        self.holds.len()
    }

    /// Returns the hold of exactly this scope, in force or not.
    pub fn get(&self, scope: &HoldScope) -> Option<&Hold> {
        self.holds.get(scope)
    }

    /// Sets a hold. It replaces an earlier one of the same scope.
    pub fn set(&mut self, hold: Hold) {
        self.remove(&hold.scope);
        if let Some(kind) = kind_on_lanes(&hold.scope) {
            self.of_lanes[kind] += 1;
        }
        self.ends.extend(hold.until.map(|until| (until, hold.scope.clone())));
        self.holds.insert(hold.scope.clone(), hold);
    }

    /// Removes the hold of exactly this scope.
    pub fn remove(&mut self, scope: &HoldScope) -> Option<Hold> {
        let hold = self.holds.remove(scope)?;
        if let Some(kind) = kind_on_lanes(scope) {
            self.of_lanes[kind] -= 1;
        }
        if let Some(until) = hold.until {
            self.ends.remove(&(until, scope.clone()));
        }
        Some(hold)
    }

    /// Returns all holds in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Hold> {
        self.holds.values()
    }

    /// Returns the hold on a job that lasts longest; of those that last equally long, the one with the widest scope.
    pub fn on_job(&self, task: &TaskName, lane: &Lane, now: Timestamp) -> Option<&Hold> {
        if self.is_empty() {
            return None;
        }
        let scopes = HoldScope::of_job(task, lane);
        // `max_by_key` returns the last one of several.
        scopes.iter().rev().filter_map(|scope| self.in_force(scope, now)).max_by_key(|hold| hold.end())
    }

    /// Returns true if a lane is held, by its group or its key.
    pub fn is_on_lane(&self, lane: &Lane, now: Timestamp) -> bool {
        let [_, keys, lanes] = self.of_lanes;
        let of_key = |group| {
            let scope = lane.key.clone().map(|key| HoldScope::Key { group, key });
            scope.is_some_and(|scope| self.in_force(&scope, now).is_some())
        };
        (keys > 0 && of_key(None))
            || (lanes > 0 && of_key(Some(lane.group.clone())))
            || self.is_on_group(&lane.group, now)
    }

    /// Returns true if this group is held.
    pub fn is_on_group(&self, group: &Group, now: Timestamp) -> bool {
        self.of_lanes[0] > 0 && self.in_force(&HoldScope::Group(group.clone()), now).is_some()
    }

    /// Returns those of these tasks whose jobs may start, as far as all, their plugin, themselves or their group are concerned;
    /// `None` if all of them may.
    pub fn open_tasks(&self, tasks: &[(TaskName, Group)], now: Timestamp) -> Option<Vec<(TaskName, Group)>> {
        if self.is_empty() {
            return None;
        }
        let is_held = |scope: &HoldScope| self.in_force(scope, now).is_some();
        if is_held(&HoldScope::All) {
            return Some(Vec::new());
        }
        let is_open = |(task, group): &&(TaskName, Group)| {
            let own =
                [HoldScope::Plugin(task.plugin()), HoldScope::Task(task.clone()), HoldScope::Group(group.clone())];
            !own.iter().any(is_held)
        };
        let open: Vec<_> = tasks.iter().filter(is_open).cloned().collect();
        (open.len() < tasks.len()).then_some(open)
    }

    /// Returns when the next hold ends by itself.
    pub fn next_end(&self, now: Timestamp) -> Option<Timestamp> {
        self.ends.range(after(now)..).next().map(|(until, _)| *until)
    }

    /// Returns the first `max` holds that have ended by `now`.
    pub fn ended(&self, now: Timestamp, max: usize) -> Vec<HoldScope> {
        self.ends.range(..after(now)).take(max).map(|(_, scope)| scope.clone()).collect()
    }

    /// Returns the holds that ended after `since`, and have ended by `now`.
    pub fn ended_since(&self, since: Timestamp, now: Timestamp) -> Vec<HoldScope> {
        if since >= now {
            return Vec::new();
        }
        self.ends.range(after(since)..after(now)).map(|(_, scope)| scope.clone()).collect()
    }

    fn in_force(&self, scope: &HoldScope, now: Timestamp) -> Option<&Hold> {
        self.holds.get(scope).filter(|hold| hold.is_in_force(now))
    }
}

impl FromIterator<Hold> for HoldTable {
    fn from_iter<I: IntoIterator<Item = Hold>>(holds: I) -> HoldTable {
        let mut table = HoldTable::default();
        holds.into_iter().for_each(|hold| table.set(hold));
        table
    }
}

/// Returns the place in `HoldTable::ends` behind all holds that end at `time`.
fn after(time: Timestamp) -> (Timestamp, HoldScope) {
    (time + Duration::from_micros(1), HoldScope::All)
}

/// Returns the index in `HoldTable::of_lanes` of a hold of this scope; `None` if it holds tasks only.
fn kind_on_lanes(scope: &HoldScope) -> Option<usize> {
    match scope {
        HoldScope::All | HoldScope::Plugin(_) | HoldScope::Task(_) => None,
        HoldScope::Group(_) => Some(0),
        HoldScope::Key { group: None, .. } => Some(1),
        HoldScope::Key { group: Some(_), .. } => Some(2),
    }
}

#[cfg(test)]
mod tests;
