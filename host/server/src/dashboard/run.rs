//! Running one job by hand: its task, its payload as fields or as JSON, its key and its time.

use axum::extract::State;
use axum::http::Uri;
use maud::{Markup, html};
use wharf_core::ids::TaskName;
use wharf_engine::Task;
use wharf_runner::{self as runner, Enqueued, Host};

use crate::http::problem::{Kind, Problem};
use crate::http::scope::forbidden;
use crate::http::{enqueue, job_lookup, length, memory};
use crate::output::{escape_json, spread};

use super::answer::{Answer, lead_to};
use super::entry::FORM_BYTES_MAX;
use super::form::Form;
use super::layout::{Frame, Section, marks, page};
use super::schema_form::{Field, Object, fields, hold, inputs, payload};
use super::text::{is_kept, line, size};
use super::visitor::Visitor;

/// The number of tasks that the page offers.
const TASKS: usize = 500;

/// The values that the fields begin with.
#[derive(Default)]
struct Like {
    key: String,
    payload: String,
    object: Option<Object>,
    note: Option<&'static str>,
}

/// Shows the form.
pub(super) async fn show(State(host): State<Host>, visitor: Visitor, uri: Uri) -> Answer {
    let form = Form::of_query(&uri)?;
    let access = visitor.access()?;
    let (mut task, mut like) = (form.optional::<TaskName>("task")?, Like::default());
    if let Some(id) = form.get("like") {
        if !access.reads() {
            return Err(forbidden(&access, "read").into());
        }
        let id = job_lookup::job_id(id)?;
        let _reading = memory::to_read_a_job(host.budget()).await;
        let job = job_lookup::whole_job(&host, &access, id).await?.seen.job;
        like = like_job(job.lane.key.as_ref().map(ToString::to_string), &job.payload);
        task = Some(job.task);
    }
    let catalog = host.catalog();
    let tasks: Vec<&Task> = catalog.tasks().filter(|task| access.enqueues(&task.name)).take(TASKS).collect();
    let chosen = task.as_ref().and_then(|name| tasks.iter().find(|task| task.name == *name)).copied();
    let as_json = form.get("as") == Some("json");
    // A form must not drop or change what a payload has: such a one is shown as JSON.
    let holds = |fields: &Vec<Field>| match (&like.object, form.get("like")) {
        (Some(object), _) => hold(fields, object),
        (None, like) => like.is_none(),
    };
    let schema = chosen.and_then(|task| task.schema.as_ref()).filter(|_| !as_json);
    let shape = schema.and_then(|schema| fields(schema.text())).filter(holds);
    let main = content(&visitor, &tasks, task.as_ref(), shape.as_deref(), &like);
    Ok(page(&visitor, &Frame::still("Run a job", Section::Jobs), &main))
}

fn like_job(key: Option<String>, payload: &[u8]) -> Like {
    let key = key.unwrap_or_default();
    match std::str::from_utf8(payload) {
        Ok(text) if payload.len() as u64 <= FORM_BYTES_MAX / 3 => {
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            if !is_json && !is_kept(text) {
                let note = Some("The payload of that job has characters that a form cannot hold.");
                return Like { key, note, ..Like::default() };
            }
            // JSON has escapes of its own for what cannot be seen. Any other text stays as it is.
            let payload = if is_json { escape_json(&spread(text)).into_owned() } else { text.to_owned() };
            Like { key, payload, object: serde_json::from_str(text).ok(), note: None }
        }
        Ok(_) => Like { key, note: Some("The payload of that job is too large for a form."), ..Like::default() },
        Err(_) => Like {
            key,
            note: Some("The payload of that job is not text, so a form cannot hold it."),
            ..Like::default()
        },
    }
}

fn content(
    visitor: &Visitor,
    tasks: &[&Task],
    chosen: Option<&TaskName>,
    shape: Option<&[Field]>,
    like: &Like,
) -> Markup {
    html! {
        div class="head" { h1 { "Run a job" } }
        form class="filter" action=(visitor.link("run")) {
            label { span class="vh" { "Task" }
                select name="task" {
                    @for task in tasks {
                        option value=(task.name) selected[chosen == Some(&task.name)] { (line(task.name.as_str())) }
                    }
                }
            }
            button { "Choose" }
        }
        @if tasks.is_empty() { p class="empty" { "No task that you may run is loaded." } }
        @if let Some(task) = chosen {
            @if !tasks.iter().any(|known| known.name == *task) {
                div class="say retrying" {
                    p {
                        "Task "
                        (line(task.as_str()))
                        " is not loaded on this host, or you may not run it; another host may have it."
                    }
                }
            }
            @if let Some(note) = like.note { div class="say retrying" { p { (note) } } }
            form class="fields" method="post" action=(visitor.link("run")) {
                (marks(visitor))
                input type="hidden" name="task" value=(task);
                @match shape {
                    Some(fields) => {
                        input type="hidden" name="as" value="fields";
                        (inputs(fields, like.object.as_ref()))
                        p class="note" {
                            a href=(visitor.link(&format!("run?as=json&task={}", crate::http::encode(task.as_str())))) {
                                "Write it as JSON"
                            }
                        }
                    },
                    None => label class="field" {
                        span { "Payload" }
                        textarea name="payload" rows="12" spellcheck="false" { "\n" (like.payload) }
                        small {
                            "JSON, or any text. At most "
                            (size(FORM_BYTES_MAX / 3))
                            "; "
                            code { "wharf job enqueue --input @FILE" }
                            " takes more, and bytes."
                        }
                    },
                }
                div class="row" {
                    label class="field grow" {
                        span { "Key" }
                        input type="text" name="key" value=(like.key) placeholder="from the payload, if the task says so" autocomplete="off" spellcheck="false";
                    }
                    label class="field" { span { "Priority" } input type="number" name="priority" placeholder="0"; }
                    label class="field" {
                        span { "Not before" }
                        input type="text" name="delay" placeholder="now, or 10m";
                    }
                }
                div { button class="primary" { "Run " (line(task.as_str())) } }
            }
        }
    }
}

/// Enqueues the job, and leads to it.
pub(super) async fn run(State(host): State<Host>, visitor: Visitor, form: Form) -> Answer {
    let access = visitor.access()?;
    let task: TaskName = form.parsed("task")?;
    if !access.enqueues(&task) {
        return Err(forbidden(&access, &format!("enqueue:{task}")).into());
    }
    let catalog = host.catalog();
    let shape = catalog.task(&task).and_then(|(_, task)| task.schema.as_ref()).and_then(|schema| fields(schema.text()));
    let payload = match (form.get("as"), shape) {
        (Some("fields"), Some(fields)) => payload(&fields, &form)?,
        (Some("fields"), None) => {
            let detail = "the task has another schema now; load the page again, and repeat";
            return Err(Problem::bad_request(detail).into());
        }
        _ => match form.as_sent("payload").replace("\r\n", "\n") {
            text if text.is_empty() => b"null".to_vec(),
            text => text.into_bytes(),
        },
    };
    let delay = form.get("delay").map(|text| length::duration("delay", text)).transpose()?;
    let request = runner::Request {
        task: task.to_string(),
        payload,
        key: Some(form.as_sent("key").to_owned()).filter(|key| !key.is_empty()),
        priority: form.number("priority")?.unwrap_or(0),
        delay,
        at: None,
        token: None,
        only_key: access.key().cloned(),
    };
    let enqueued = host.enqueue(vec![request]).await.map_err(enqueue::problem)?;
    match enqueued.first() {
        Some(Enqueued::Added(id) | Enqueued::Duplicate(id)) if access.reads() => {
            Ok(lead_to(&visitor, &format!("jobs/{id}")))
        }
        Some(Enqueued::Added(_) | Enqueued::Duplicate(_)) => Ok(lead_to(&visitor, "run")),
        Some(Enqueued::Discarded { holders }) => Err(enqueue::discarded(holders).into()),
        None => Err(Problem::new(Kind::INTERNAL, "the host did not report what became of the job").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_begins_as_it_is() {
        let like = |payload: &str| like_job(None, payload.as_bytes());
        assert_eq!(like("a\u{200b}\u{202e}b").payload, "a\u{200b}\u{202e}b");
        let json = like("{\"a\": \"\u{202e}\"}");
        assert!(json.payload.contains("\\u202e") && json.object.is_some(), "{}", json.payload);
        assert!(like("[1]").object.is_none() && like("a\0b").note.is_some());
    }
}
