//! What a group of operations has to see before it begins: asked for in one go.

use std::collections::BTreeSet;

use wharf_core::ids::JobId;
use wharf_core::job::NewJob;
use wharf_core::lifecycle::Event;
use wharf_core::limits::OnConflict;

use super::lane_rows::{LaneRow, Names};
use super::node_marks::Expired;
use super::rows::signed;
use super::running_cache::Running;
use super::session::SessionError;
use super::writer::WriteRequest;

#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Jobs that are not read, since it is remembered how they stand.
    pub(super) remembered: BTreeSet<JobId>,
    /// Jobs by id.
    pub(super) jobs: BTreeSet<i64>,
    /// Of these those whose lease is looked at.
    pub(super) expiring: BTreeSet<i64>,
    /// Of these the lanes: they may wait again.
    pub(super) returning: BTreeSet<i64>,
    /// Of these the number of the last entry.
    pub(super) wrote: BTreeSet<i64>,
    pub(super) tokens: Vec<(Vec<u8>, i32)>,
    pub(super) lanes: BTreeSet<LaneRow>,
    pub(super) groups: BTreeSet<i32>,
    /// Of these the groups, wherever their jobs were ever enqueued.
    pub(super) tasks: BTreeSet<i32>,
    /// Who runs in the groups.
    pub(super) holders: bool,
    /// Slots of claims.
    pub(super) free: u32,
    pub(super) claims: bool,
}

/// The jobs that a wish adds.
fn added(wish: &WriteRequest) -> Vec<&NewJob> {
    match wish {
        WriteRequest::Insert(jobs, ..) | WriteRequest::LeaveBehind(jobs, ..) => jobs.iter().collect(),
        WriteRequest::Record(events) => events.iter().flat_map(|(_, event)| children(event)).collect(),
        _ => Vec::new(),
    }
}

fn children(event: &Event) -> &[NewJob] {
    match event {
        Event::Succeeded { children, .. } => children,
        _ => &[],
    }
}

/// The jobs that wishes add.
pub(super) fn all_added<'w>(wishes: impl Iterator<Item = &'w WriteRequest>) -> Vec<&'w NewJob> {
    wishes.flat_map(added).collect()
}

/// Every task and group that wishes name.
pub(super) fn names<'w>(wishes: impl Iterator<Item = &'w WriteRequest>) -> BTreeSet<&'w str> {
    let mut names = BTreeSet::new();
    for wish in wishes {
        for job in added(wish) {
            names.extend([job.task.as_str(), job.lane.group.as_str()]);
        }
        match wish {
            WriteRequest::Claim(claim) => {
                names.extend(claim.tasks.iter().flat_map(|(task, group)| [task.as_str(), group.as_str()]));
            }
            WriteRequest::SetOverride(change) => _ = names.insert(change.group.as_str()),
            _ => {}
        }
    }
    names
}

impl Needs {
    /// What wishes need. That a new job is there already is found out when it is written, but `again` it is looked for.
    pub(super) fn of<'w>(
        wishes: impl Iterator<Item = &'w WriteRequest>,
        names: &Names,
        running: &Running,
        again: bool,
    ) -> Result<Needs, SessionError> {
        let mut needs = Needs::default();
        for wish in wishes {
            for job in added(wish) {
                needs.add(job, names, again)?;
            }
            match wish {
                WriteRequest::Insert(..) | WriteRequest::LeaveBehind(..) => {}
                WriteRequest::Record(events) => {
                    for (id, event) in events {
                        match running.find(*id, event) {
                            Some(hot) => {
                                needs.remembered.insert(*id);
                                needs.groups.insert(hot.lane.group);
                                needs.holders = true;
                            }
                            None => needs.event(*id, event),
                        }
                    }
                }
                WriteRequest::Expire(over) => {
                    let event = |of: &Expired| Event::LeaseExpired { attempt: of.attempt, mark: of.mark };
                    over.iter().for_each(|expired| needs.event(expired.job, &event(expired)));
                }
                WriteRequest::Claim(claim) => {
                    (needs.claims, needs.holders) = (true, true);
                    needs.free += claim.free;
                    for (task, group) in claim.tasks.iter() {
                        needs.tasks.insert(names.number(task.as_str())?);
                        needs.groups.insert(names.number(group.as_str())?);
                    }
                }
                WriteRequest::SetOverride(change) => _ = needs.groups.insert(names.number(change.group.as_str())?),
            }
        }
        Ok(needs)
    }

    fn add(&mut self, job: &NewJob, names: &Names, again: bool) -> Result<(), SessionError> {
        let lane = names.lane_row(&job.lane)?;
        // Others of its lane may keep it out.
        self.holders |= job.on_conflict != OnConflict::Wait;
        if again {
            self.jobs.insert(signed(job.id.number()));
        }
        self.groups.insert(lane.group);
        self.lanes.insert(lane);
        if let Some(token) = &job.token {
            self.tokens.push((token.as_str().as_bytes().to_vec(), names.number(job.task.as_str())?));
        }
        Ok(())
    }

    fn event(&mut self, id: JobId, event: &Event) {
        let id = signed(id.number());
        self.jobs.insert(id);
        self.holders |= !matches!(event, Event::Wrote { .. });
        match event {
            Event::Wrote { .. } => _ = self.wrote.insert(id),
            Event::LeaseExpired { .. } => {
                self.expiring.insert(id);
                self.returning.insert(id);
            }
            Event::Failed { retry_in: Some(_), .. } | Event::Released { .. } | Event::RetryAsked => {
                self.returning.insert(id);
            }
            _ => {}
        }
    }
}
