//! Broadcasts: topics and who subscribes, sending one, and the replies.

use std::collections::BTreeMap;
use std::time::Instant;

use axum::extract::State;
use futures_util::{StreamExt as _, stream};
use maud::{Markup, html};
use wharf_core::bounds;
use wharf_core::rollcall::{Answer as ReplyAnswer, Mode, Reply};
use wharf_core::topic::Topic;
use wharf_runner::{Batch, Broadcast, Catalog, Durable, Host};

use crate::http::api::Job;
use crate::http::problem::Problem;
use crate::http::scope::forbidden;
use crate::http::{broadcasts, encode, length, memory};

use super::answer::{Answer, lead_to};
use super::content;
use super::entry::Dashboard;
use super::form::Form;
use super::job_row::look;
use super::layout::{Frame, Section, marks, page, page_in_parts, place, state};
use super::listing::listing;
use super::page_path::PagePath;
use super::text::{brief, counted, first_line, line, lines, size};
use super::visitor::Visitor;

/// The bytes of a reply that the page shows.
const REPLY_BYTES_MAX: usize = 16 * 1024;

/// Shows topics and the form.
pub(super) async fn show(State(host): State<Host>, visitor: Visitor) -> Answer {
    let main = html! {
        div class="head" { h1 { "Broadcasts" } span class="dim" { "one call asks every plugin that subscribes" } }
        @if visitor.sees_all() { (topics(&visitor, &host.catalog())) }
        @if visitor.may_broadcast() { (form(&visitor, "", "")) }
    };
    let frame = Frame { title: "Broadcasts", section: Section::Broadcasts, live: Some("live/health".into()) };
    Ok(page(&visitor, &frame, &main))
}

fn topics(visitor: &Visitor, catalog: &Catalog) -> Markup {
    let mut topics: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (id, loaded) in catalog.plugins() {
        for topic in &loaded.plugin.manifest.topics {
            topics.entry(topic.to_string()).or_default().push(id.as_str());
        }
    }
    let rows = html! {
        @for (topic, plugins) in &topics {
            tr {
                td class="mono" { (line(topic)) }
                td class="grow" {
                    @for plugin in plugins {
                        a href=(visitor.link(&format!("plugins/{}", encode(plugin)))) { (line(plugin)) }
                        "  "
                    }
                }
            }
        }
    };
    html! {
        section {
            header { h2 { "Topics" } span class="dim" { "of the plugins of this host" } }
            (listing("Topics and their subscribers", &[("", "Topic"), ("grow", "Subscribers")], &rows))
            @if topics.is_empty() { p class="empty" { "No plugin subscribes to a topic." } }
        }
    }
}

fn form(visitor: &Visitor, topic: &str, payload: &str) -> Markup {
    html! {
        section {
            header { h2 { "Send one" } }
            form class="fields" method="post" action=(visitor.link("broadcasts")) {
                (marks(visitor))
                div class="row" {
                    label class="field grow" {
                        span { "Topic" }
                        input type="text" name="topic" required value=(topic) spellcheck="false" autocomplete="off";
                    }
                    label class="field" {
                        span { "Within" }
                        input type="text" name="timeout" placeholder=(format!("{} s", bounds::BROADCAST_TIMEOUT_DEFAULT.as_secs()));
                    }
                    label class="field" {
                        span { "How" }
                        select name="how" {
                            option value="live" { "live: one reply each, now" }
                            option value="durable" { "durable: one job each" }
                        }
                    }
                }
                label class="field" {
                    span { "Payload" }
                    textarea name="payload" rows="6" spellcheck="false" { "\n" (payload) }
                }
                div { button class="primary" { "Send" } }
            }
        }
    }
}

/// Sends a broadcast, and shows its replies as they come or leads to its jobs.
pub(super) async fn send(State(dashboard): State<Dashboard>, visitor: Visitor, given: Form) -> Answer {
    let host = &dashboard.app.host;
    let access = visitor.access()?;
    let topic: Topic = given.parsed("topic")?;
    if !access.broadcasts(&topic) {
        return Err(forbidden(&access, &format!("broadcast:{topic}")).into());
    }
    let text = given.as_sent("payload").replace("\r\n", "\n");
    let payload = if text.is_empty() { b"null".to_vec() } else { text.clone().into_bytes() };
    if given.get("how") == Some("durable") {
        let durable =
            host.broadcast_durably(topic.as_str(), payload.into(), None).await.map_err(broadcasts::problem)?;
        if visitor.sees_all() {
            return Ok(lead_to(&visitor, &format!("broadcasts/{}", durable.id)));
        }
        return Ok(page(&visitor, &Frame::still("Sent", Section::Broadcasts), &sent(&visitor, &durable)));
    }
    let timeout = given.get("timeout").map(|text| length::duration("timeout", text)).transpose()?;
    let timeout = timeout.unwrap_or(bounds::BROADCAST_TIMEOUT_DEFAULT);
    let started = Instant::now();
    let call = Broadcast { topic: topic.to_string(), payload: payload.into(), timeout, mode: Mode::All };
    let replies = host.broadcast(call).map_err(broadcasts::problem)?;
    let main = html! {
        div class="head" {
            h1 { (line(topic.as_str())) }
            span class="dim" { "asks " (counted(replies.asked.len() as u64, "plugin", "plugins")) }
        }
        (place())
        (form(&visitor, topic.as_str(), &text))
    };
    let end = Box::pin(access.end(dashboard.app.stopping.clone()));
    let parts = stream::unfold(Some((replies, 0)), move |state| async move {
        let (mut replies, count) = state?;
        Some(match replies.next().await {
            Some(reply) => (reply_section(&reply), Some((replies, count + 1))),
            None => (ended(count, started), None),
        })
    });
    Ok(page_in_parts(&visitor, &Frame::still("Replies", Section::Broadcasts), &main, parts.take_until(end)))
}

/// Says what was sent, to whoever may not see its jobs.
fn sent(visitor: &Visitor, durable: &Durable) -> Markup {
    html! {
        div class="head" { h1 { (line(&durable.topic.to_string())) } span class="mono dim" { (durable.id.to_string()) } }
        p class="note" role="status" { (counted(durable.jobs.len() as u64, "job", "jobs")) " enqueued; your token may not see them." }
        (form(visitor, &durable.topic.to_string(), ""))
    }
}

fn reply_section(reply: &Reply) -> Markup {
    html! {
        section {
            header {
                (badge(&reply.answer))
                h2 { (line(reply.plugin.as_str())) }
                span class="dim" { (brief(reply.elapsed.as_secs_f64() * 1000.0)) }
            }
            (answered(&reply.answer))
        }
    }
}

fn ended(count: u64, started: Instant) -> Markup {
    html! {
        @if count == 0 { p class="empty" { "No plugin subscribes to this topic." } }
        @else {
            p class="note" role="status" {
                (counted(count, "reply", "replies")) " in " (brief(started.elapsed().as_secs_f64() * 1000.0)) "."
            }
        }
    }
}

fn badge(answer: &ReplyAnswer) -> Markup {
    match answer {
        ReplyAnswer::Replied(_) => state("succeeded", "replied"),
        ReplyAnswer::Failed(_) => state("failed", "failed"),
        ReplyAnswer::Trapped(_) => state("failed", "trapped"),
        ReplyAnswer::TimedOut(_) => state("failed", "timed out"),
        ReplyAnswer::Skipped(_) => state("cancelled", "skipped"),
    }
}

fn answered(answer: &ReplyAnswer) -> Markup {
    match answer {
        ReplyAnswer::Replied(bytes) => bytes_shown(bytes),
        ReplyAnswer::Failed(failure) => {
            let text = match failure {
                wharf_core::outcome::Failure::Retry(text)
                | wharf_core::outcome::Failure::RetryAfter(text, _)
                | wharf_core::outcome::Failure::Discard(text) => text,
            };
            html! { pre tabindex="0" role="region" aria-label="Report" { (lines(text)) } }
        }
        ReplyAnswer::Trapped(report) | ReplyAnswer::TimedOut(report) | ReplyAnswer::Skipped(report) => {
            html! { pre tabindex="0" role="region" aria-label="Report" { (lines(report)) } }
        }
    }
}

fn bytes_shown(bytes: &[u8]) -> Markup {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            let cut = text.floor_char_boundary(REPLY_BYTES_MAX);
            let is_json = cut == text.len() && content::Shown::of(bytes) == content::Shown::Json;
            html! {
                pre tabindex="0" role="region" aria-label="Reply" {
                    @if is_json { (content::json(&crate::output::spread(text))) } @else { (lines(&text[..cut])) }
                }
                @if cut < text.len() {
                    p class="note" { "The first " (size(cut as u64)) " of " (size(bytes.len() as u64)) "." }
                }
            }
        }
        Err(_) => html! { p class="note" { (size(bytes.len() as u64)) " of bytes, not text." } },
    }
}

/// Reads a durable broadcast. It may be held as long as the permit beside it.
pub(super) async fn read(host: &Host, id: &str) -> Result<(Batch, impl Sized + use<>), Problem> {
    let number = id.parse().map_err(|_| broadcasts::unknown(id))?;
    let reading = memory::to_read_a_broadcast().await;
    let batch = host.batch(number).await?.ok_or_else(|| broadcasts::unknown(id))?;
    Ok((batch, reading))
}

/// Shows a durable broadcast.
pub(super) async fn batch(State(host): State<Host>, visitor: Visitor, PagePath(id): PagePath<String>) -> Answer {
    let (batch, _reading) = read(&host, &id).await?;
    let is_open = batch.jobs.iter().any(|entry| !entry.job.status.state.name().is_final());
    let live = if is_open { format!("live/broadcasts/{}", batch.id) } else { "live/health?depth=2".to_owned() };
    let main = html! { div id="batch" { (batch_content(&visitor, &batch)) } };
    Ok(page(&visitor, &Frame { title: "Broadcast", section: Section::Broadcasts, live: Some(live) }, &main))
}

/// Returns the content of the page of a durable broadcast.
pub(super) fn batch_content(visitor: &Visitor, batch: &Batch) -> Markup {
    let ended = batch.jobs.iter().filter(|entry| entry.job.status.state.name().is_final()).count();
    html! {
        div class="head" {
            h1 { (line(&batch.topic.to_string())) }
            span class="mono dim" { (batch.id.to_string()) }
            span class="dim" { (ended) " of " (batch.jobs.len()) " ended" }
        }
        @for entry in &batch.jobs {
            @let job = Job::in_list(&entry.job);
            @let (class, word) = look(&job);
            section {
                header {
                    (state(class, word))
                    h2 { (line(entry.plugin.as_str())) }
                    a class="dim mono" href=(visitor.link(&format!("jobs/{}", job.id))) { (job.id) }
                }
                @match (&entry.job.result, &job.report) {
                    (Some(result), _) => (bytes_shown(result)),
                    (None, Some(report)) => p class="note" { (first_line(&report.text, 400)) },
                    (None, None) => p class="note" { "No reply yet." },
                }
            }
        }
    }
}
