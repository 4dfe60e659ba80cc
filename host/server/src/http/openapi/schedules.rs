//! The operations on schedules.

use serde_json::{Value, json};

use super::operation::Operation;
use super::schemas::Schemas;
use crate::http::api::{
    AfterQuery, PauseRequest, PutScheduleQuery, Schedule, SchedulePage, ScheduleRequest, ScheduleRun,
};
use crate::http::problem::Kind;

/// Returns the operations, and adds the schemas that they use.
pub(super) fn operations(schemas: &mut Schemas) -> Vec<Operation> {
    let schedule = schemas.response::<Schedule>();
    let request = schemas.request::<ScheduleRequest>("ScheduleRequest", "When to enqueue which job.");
    let pause = schemas.request::<PauseRequest>("PauseRequest", "Until when, and why.");
    let of_one = |name, method, path, summary| {
        Operation::new("schedules", name, method, path, summary).segment("id", "ID of the schedule.").uses_store()
    };
    const ONE: &str = "/v1/schedules/{id}";
    vec![
        Operation::new("schedules", "listSchedules", "get", "/v1/schedules", "Lists schedules, in the order of their IDs")
            .query(schemas.query::<AfterQuery>())
            .response(200, "One page, and the address of the next page.", json_of(schemas.response::<SchedulePage>()))
            .uses_store(),
        of_one("getSchedule", "get", ONE, "Returns one schedule, with its next moments and its last ticks")
            .response(200, "The schedule.", json_of(schedule.clone()))
            .problems(&[Kind::SCHEDULE_UNKNOWN]),
        of_one("putSchedule", "put", ONE, "Defines a schedule, or gives one another definition")
            .description(
                "At each tick one job is enqueued, by any host of the store that has its task, once. Fixed times that a clock \
                 skips come at the first moment after the gap, and those that it shows twice come once, the first time; hours \
                 with `*`, and intervals, follow real time. Besides `operate` the token needs `enqueue` for the task. A schedule \
                 of a settings file is changed there.",
            )
            .query(schemas.query::<PutScheduleQuery>())
            .body(true, "The definition.", json_of(request))
            .response(200, "The schedule, which there was before.", json_of(schedule.clone()))
            .response(201, "The schedule, which is new.", json_of(schedule.clone()))
            .problems(&[
                Kind::SCHEDULE_IN_FILE,
                Kind::SCHEDULE_EXISTS,
                Kind::TOO_MANY_SCHEDULES,
                Kind::JOB_INVALID,
                Kind::PLUGIN_LOADING,
                Kind::PLUGIN_ELSEWHERE,
            ]),
        of_one("deleteSchedule", "delete", ONE, "Deletes a schedule; its jobs stay")
            .response(204, "The schedule is gone.", Value::Null)
            .problems(&[Kind::SCHEDULE_UNKNOWN, Kind::SCHEDULE_IN_FILE]),
        of_one("runSchedule", "post", "/v1/schedules/{id}/run", "Enqueues a job of a schedule now")
            .description("The job belongs to no tick. It waits for holds and limits as any job does.")
            .response(200, "The job.", json_of(schemas.response::<ScheduleRun>()))
            .problems(&[
                Kind::SCHEDULE_UNKNOWN,
                Kind::SCHEDULE_NOT_RUN,
                Kind::JOB_INVALID,
                Kind::PLUGIN_LOADING,
                Kind::PLUGIN_ELSEWHERE,
            ]),
        of_one("pauseSchedule", "post", "/v1/schedules/{id}/pause", "Pauses a schedule")
            .description("Ticks in a pause do not come, and count as neither missed nor skipped.")
            .body(false, "The end of the pause, and the reason.", json_of(pause))
            .response(200, "The schedule.", json_of(schedule.clone()))
            .problems(&[Kind::SCHEDULE_UNKNOWN]),
        of_one("resumeSchedule", "post", "/v1/schedules/{id}/resume", "Ends the pause of a schedule")
            .response(200, "The schedule.", json_of(schedule))
            .problems(&[Kind::SCHEDULE_UNKNOWN]),
    ]
}

fn json_of(schema: Value) -> Value {
    json!({ "application/json": schema })
}
