//! One act on many jobs: a preview first, then an operation that the host carries out.

use axum::extract::State;
use axum::http::Uri;
use maud::{Markup, html};
use wharf_core::bounds;
use wharf_core::bulk::{BulkAct, Trial};
use wharf_core::find::JobQuery;
use wharf_core::job::Token;
use wharf_runner::{Host, OperationRequest, Preview};

use crate::http::api::{Job, Moment};
use crate::http::problem::Problem;
use crate::http::{encode, filter, length, operations};

use super::answer::{Answer, lead_to};
use super::form::Form;
use super::job_row::{headings, row};
use super::layout::{Frame, Section, marks, page};
use super::text::{count, full, line};
use super::visitor::Visitor;

/// The number of jobs that a trial has, unless the visitor says otherwise.
const TRIAL: u32 = 5;

/// Shows what an act would change.
pub(super) async fn preview(State(host): State<Host>, visitor: Visitor, uri: Uri) -> Answer {
    let form = Form::of_query(&uri)?;
    let act = match form.get("all") {
        Some(_) => form.optional("all")?.unwrap_or(BulkAct::Retry),
        None => form.parsed("act")?,
    };
    let ids: Vec<&str> = form.all("id").collect();
    let text = match (form.get("all"), form.all("where").next()) {
        (Some(_), _) => form.as_sent("match").to_owned(),
        (None, Some(text)) => text.to_owned(),
        (None, None) if ids.is_empty() => {
            return Err(Problem::bad_request("no job is selected; select some rows of the list first").into());
        }
        (None, None) => format!("id:{}", ids.join(",")),
    };
    let query = filter::parse("where", &text, host.now())?;
    let asked = request(act, query, &visitor, None, Default::default());
    let found = host.preview_operation(asked, bounds::PREVIEW_PAGE_TIME).await;
    let found = found.map_err(operations::refused)?;
    let frame = Frame::still("Change many jobs", Section::Jobs);
    Ok(page(&visitor, &frame, &content(&visitor, act, &text, &found)))
}

fn request(
    act: BulkAct,
    query: JobQuery,
    visitor: &Visitor,
    trial: Option<Trial>,
    spread: std::time::Duration,
) -> OperationRequest {
    let author = visitor.author.clone();
    OperationRequest { act, query, author, token: None, trial, spread, attempts: None, priority: None }
}

/// The acts that the page offers: a priority needs a number, which `wharf job set-priority` takes.
const ACTS: [BulkAct; 4] = [BulkAct::Retry, BulkAct::Cancel, BulkAct::Delete, BulkAct::RunNow];

fn verb(act: BulkAct) -> &'static str {
    match act {
        BulkAct::Retry => "Retry",
        BulkAct::Cancel => "Cancel",
        BulkAct::Delete => "Delete",
        BulkAct::RunNow => "Run now",
        BulkAct::SetPriority => "Set priority",
    }
}

fn explained(act: BulkAct) -> &'static str {
    match act {
        BulkAct::Retry => "Failed and cancelled jobs are tried again.",
        BulkAct::Cancel => "Waiting jobs are cancelled; running ones are asked to end.",
        BulkAct::Delete => "Finished jobs are deleted, with their results and logs. This cannot be undone.",
        BulkAct::RunNow => "Jobs that wait for their time, or for their next attempt, start as soon as they can.",
        BulkAct::SetPriority => "Waiting jobs get another priority.",
    }
}

fn content(visitor: &Visitor, act: BulkAct, text: &str, found: &Preview) -> Markup {
    let number = if found.more {
        format!("{} or more jobs", count(found.count))
    } else {
        super::text::counted(found.count, "job", "jobs")
    };
    let tab = |of: BulkAct| {
        let page = visitor.link(&format!("bulk?act={}&where={}", of.as_str(), encode(text)));
        html! { a href=(page) aria-current=[(of == act).then_some("page")] { (verb(of)) } }
    };
    let class = if act == BulkAct::Retry || act == BulkAct::RunNow { "primary" } else { "danger" };
    html! {
        div class="head" { h1 { (verb(act)) " " (number) } }
        nav class="tabs" aria-label="Act" { @for act in ACTS { (tab(act)) } }
        dl class="facts" {
            div { dt { "Filter" } dd { code { (line(&found.filter)) } } }
        }
        p class="note" {
            (explained(act))
            " Only jobs that match at the start of the operation are changed, each at most once, whatever changes meanwhile. A job that
            has moved on by then is left out."
        }
        @if let Some(until) = found.until.filter(|_| found.more) {
            p class="note" {
                (count(found.looked_at)) " jobs were looked at for this page, back to " (full(Moment(until)))
                ". The operation looks at all jobs."
            }
        }
        @if found.count == 0 && !found.more {
            p class="empty" { "Nothing to do: no job that matches is in a state that this act changes." }
        }
        @else {
            section {
                form class="fields" method="post" action=(visitor.link("operations")) {
                    (marks(visitor))
                    input type="hidden" name="act" value=(act.as_str());
                    // The filter that was counted, with its moments as they were then.
                    input type="hidden" name="where" value=(found.filter);
                    // A form that is sent twice starts one operation; the next look at the page is another form.
                    input type="hidden" name="once" value=(format!("form-{:032x}", fastrand::u128(..)));
                    @if act == BulkAct::Retry {
                        div class="row" {
                            label class="field" {
                                span { "Try a few first" }
                                input type="number" name="try" min="0" max=(bounds::TRIAL_JOBS_MAX) placeholder="0";
                            }
                            label class="field" {
                                span { "Spread over" }
                                input type="text" name="spread" placeholder="at once, or 10m";
                            }
                        }
                        p class="note" {
                            "With a number such as "
                            (TRIAL)
                            ", the rest follows only if these succeed; else the operation halts."
                        }
                    }
                    div class="row" {
                        button class=(class) { (verb(act)) " " (number) }
                        a class="btn" href=(visitor.link(&format!("jobs?where={}", encode(text)))) { "Not now" }
                    }
                }
            }
            section {
                header { h2 { "The first of them" } span class="dim" { (found.jobs.len()) " of " (number) } }
                div class="scroll" tabindex="0" role="region" aria-label="Jobs" {
                    table class="rows" {
                        caption class="vh" { "The first jobs" }
                        (headings(false))
                        tbody { @for job in found.jobs.iter().take(20) { (row(visitor, &Job::in_list(job), false)) } }
                    }
                }
            }
        }
    }
}

/// Starts an operation.
pub(super) async fn start(State(host): State<Host>, visitor: Visitor, form: Form) -> Answer {
    let act: BulkAct = form.parsed("act")?;
    let query = filter::parse("where", form.as_sent("where"), host.now())?;
    let jobs = form.number::<u32>("try")?.filter(|jobs| *jobs > 0);
    let trial = jobs.map(|jobs| Trial { jobs, within: bounds::TRIAL_WITHIN });
    let spread = form.get("spread").map(|text| length::duration("spread", text)).transpose()?.unwrap_or_default();
    let token: Option<Token> = form.optional("once")?;
    let request = OperationRequest { token, ..request(act, query, &visitor, trial, spread) };
    let started = host.start_operation(request).await.map_err(operations::refused)?;
    Ok(lead_to(&visitor, &format!("operations/{}", started.operation.id)))
}

#[cfg(test)]
mod tests {
    use wharf_core::author::Author;
    use wharf_core::time::Timestamp;

    use super::super::visitor::Visit;
    use super::*;

    fn shown(count: u64, more: bool) -> String {
        let visitor = Visitor::new(Visit {
            access: None,
            author: Author::anyone(),
            mark: String::new(),
            has_cookie: false,
            session: None,
            is_safe: true,
            base: "./".to_owned(),
            here: "bulk".to_owned(),
            now: Timestamp::default(),
            reading: None,
        });
        let filter = "state:failed finished-until:2030-01-01T00:00:00.000000Z".to_owned();
        let until = Some(Timestamp::default());
        let found = Preview { filter, count, more, looked_at: 5_000, until, jobs: Vec::new() };
        content(&visitor, BulkAct::Delete, "finished-until:1h", &found).into_string()
    }

    #[test]
    fn an_act_is_on_the_jobs_that_were_counted_whenever_the_form_is_sent() {
        let page = shown(3, false);
        let kept = r#"name="where" value="state:failed finished-until:2030-01-01T00:00:00.000000Z""#;
        assert!(page.contains(kept) && !page.contains(r#"value="finished-until:1h""#), "{page}");
    }

    #[test]
    fn a_look_that_found_none_so_far_is_no_empty_answer() {
        assert!(shown(0, false).contains("Nothing to do"));
        let page = shown(0, true);
        assert!(!page.contains("Nothing to do") && page.contains("jobs were looked at"), "{page}");
        assert!(page.contains("<form"), "{page}");
    }
}
