//! The frame of every page: navigation, the sentence of health, the page itself.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{HeaderName, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, stream};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::assets;
use super::pulse::{Known, LISTED, Reading};
use super::text::{count, line};
use super::verdict::Tone;
use super::visitor::Visitor;

/// A page of the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Overview,
    Jobs,
    Failures,
    Limits,
    Schedules,
    Plugins,
    Broadcasts,
    Nodes,
    Operations,
    Audit,
    /// Pages that stand outside of the navigation.
    Outside,
}

/// A page without its content.
pub(super) struct Frame<'f> {
    pub(super) title: &'f str,
    pub(super) section: Section,
    /// The address of its stream of changes, below the root of the dashboard.
    pub(super) live: Option<String>,
}

impl<'f> Frame<'f> {
    /// Returns the frame of a page that stands still.
    pub(super) fn still(title: &'f str, section: Section) -> Frame<'f> {
        Frame { title, section, live: None }
    }
}

/// The shapes of states and of the brand, drawn once for each page.
const SHAPES: PreEscaped<&str> = PreEscaped(include_str!("assets/shapes.svg"));

/// Returns a shape and a word, never a colour alone.
pub(super) fn state(class: &str, word: &str) -> Markup {
    html! { span class={ "st " (class) } { (shape(class)) b { (word) } } }
}

/// Returns the shape of a state.
pub(super) fn shape(class: &str) -> Markup {
    html! { svg aria-hidden="true" width="12" height="12" { use href={ "#i-" (class) } {} } }
}

/// Returns the fields that every form has.
pub(super) fn marks(visitor: &Visitor) -> Markup {
    html! { input type="hidden" name="mark" value=(visitor.mark); }
}

/// Returns a form of one button that changes something.
pub(super) fn act(visitor: &Visitor, page: &str, class: &str, label: Markup, fields: &[(&str, &str)]) -> Markup {
    html! {
        form method="post" action=(visitor.link(page)) {
            (marks(visitor))
            @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
            button class=(class) { (label) }
        }
    }
}

/// Returns a page.
pub(super) fn page(visitor: &Visitor, frame: &Frame<'_>, main: &Markup) -> Response {
    Html(document(visitor, frame, main).into_string()).into_response()
}

/// The place in a page at which its parts come one by one.
const PLACE: &str = "<!--parts-->";

/// Returns the mark of the place at which the parts of a page come.
pub(super) fn place() -> Markup {
    PreEscaped(PLACE.to_owned())
}

/// Returns a page whose parts, at [`place`], are sent as they come.
pub(super) fn page_in_parts(
    visitor: &Visitor,
    frame: &Frame<'_>,
    main: &Markup,
    parts: impl Stream<Item = Markup> + Send + 'static,
) -> Response {
    let whole = document(visitor, frame, main).into_string();
    let (before, after) = whole.split_once(PLACE).unwrap_or((&whole, ""));
    let (before, after) = (stream::iter([before.to_owned()]), stream::iter([after.to_owned()]));
    let all = before.chain(parts.map(Markup::into_string)).chain(after).map(Ok::<_, Infallible>);
    // nginx collects a response before it passes it on, unless this header says otherwise.
    let headers = [(HeaderName::from_static("x-accel-buffering"), "no")];
    (headers, Html(Body::from_stream(all))).into_response()
}

/// Returns a page with a status.
pub(super) fn page_with(status: StatusCode, visitor: &Visitor, frame: &Frame<'_>, main: &Markup) -> Response {
    (status, page(visitor, frame, main)).into_response()
}

fn document(visitor: &Visitor, frame: &Frame<'_>, main: &Markup) -> Markup {
    let asset = |name: &str| visitor.link(&format!("assets/{name}"));
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { (line(frame.title)) " · Wharf" }
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href=(asset(assets::icon()));
                link rel="stylesheet" href=(asset(assets::style()));
                @for script in assets::scripts() { script type="module" src=(asset(script)) {} }
            }
            body data-live=[frame.live.as_ref().map(|live| visitor.link(live))] data-base=(visitor.base) data-now=(visitor.now.as_millis()) {
                (SHAPES)
                a class="skip" href="#main" { "To the content" }
                @if visitor.access.is_some() {
                    div class="frame" {
                        (side(visitor, frame.section))
                        div class="body" {
                            @if let Some(reading) = &visitor.reading { (health(visitor, reading)) }
                            main id="main" tabindex="-1" { (main) }
                        }
                    }
                } @else {
                    main id="main" class="alone" { (main) }
                }
                (help())
            }
        }
    }
}

/// Returns the sentence of health.
pub(super) fn health(visitor: &Visitor, reading: &Reading) -> Markup {
    html! {
        div class="health" {
            div id="health" { (health_text(visitor, reading)) }
            span id="link" {}
            span id="tone" class="vh" role="status" { (tone(reading)) }
        }
    }
}

/// Returns the class and the word of a verdict's weight.
fn weight(reading: &Reading) -> (&'static str, &'static str) {
    match reading.verdict.tone {
        Tone::Good => ("succeeded", "good"),
        Tone::Idle => ("waiting", "idle"),
        Tone::Warning => ("retrying", "warning"),
        Tone::Bad => ("failed", "bad"),
        Tone::Unknown => ("unknown", "unknown"),
    }
}

/// Returns what is read aloud when it changes: the weight of the sentence, and not each of its numbers.
pub(super) fn tone(reading: &Reading) -> Markup {
    html! { "Health: " (weight(reading).1) }
}

/// Returns the text of the sentence of health.
pub(super) fn health_text(visitor: &Visitor, reading: &Reading) -> Markup {
    let verdict = &reading.verdict;
    let (class, word) = weight(reading);
    html! {
        p {
            span class={ "st " (class) } { (shape(class)) span class="vh" { (word) } }
            " " strong { (line(&verdict.what)) } " " (line(&verdict.rest))
            @if let Some((name, page)) = &verdict.todo { " " a href=(visitor.link(page)) { (name) } }
        }
    }
}

fn side(visitor: &Visitor, current: Section) -> Markup {
    let known = visitor.reading.as_ref().and_then(|reading| reading.known.as_ref());
    let item = |section: Section, page: &str, name: &str, number: Option<String>| {
        html! {
            li {
                a href=(visitor.link(page)) aria-current=[(section == current).then_some("page")] {
                    (name) @if let Some(number) = number { span class="n" { (number) } }
                }
            }
        }
    };
    html! {
        nav class="side" aria-label="Pages" {
            a class="brand" href=(visitor.link("")) {
                svg aria-hidden="true" width="20" height="20" { use href="#i-brand" {} } "Wharf"
            }
            ul {
                @if visitor.sees_all() { (item(Section::Overview, "", "Overview", None)) }
                @if visitor.may_read() { (item(Section::Jobs, "jobs", "Jobs", None)) }
                @else if visitor.may_enqueue() { (item(Section::Jobs, "run", "Run a job", None)) }
                @if visitor.sees_all() {
                    (item(Section::Failures, "failures?state=open", "Failures", known.and_then(|known| at_most(known.failures.len()))))
                    (item(Section::Limits, "limits", "Limits and holds", known.and_then(|known| at_most(known.holds.len()))))
                    (item(Section::Schedules, "schedules", "Schedules", None))
                    (item(Section::Plugins, "plugins", "Plugins", None))
                }
                @if visitor.sees_all() || visitor.may_broadcast() { (item(Section::Broadcasts, "broadcasts", "Broadcasts", None)) }
                @if visitor.sees_all() {
                    (item(Section::Nodes, "nodes", "Hosts", known.map(|known| count(known.summary.hosts))))
                    (item(Section::Operations, "operations", "Operations", None))
                }
                @if visitor.is_admin() { (item(Section::Audit, "audit", "Audit", None)) }
            }
            @if visitor.may_read() {
                div class="states" {
                    h2 { "Jobs by state" }
                    ul id="states" { (states(visitor, known)) }
                }
            }
            @if visitor.has_cookie {
                div class="leave" { (act(visitor, "logout", "quiet", html! { "Sign out" }, &[])) }
            }
        }
    }
}

/// Returns the list of states with the numbers that are known at no cost.
pub(super) fn states(visitor: &Visitor, known: Option<&Known>) -> Markup {
    let sum = |of: fn(&crate::http::api::TaskSummary) -> u64| {
        known.map(|known| count(known.summary.tasks.iter().map(of).sum()))
    };
    let states = [
        ("running", "running", sum(|task| task.running)),
        ("waiting", "waiting", sum(|task| task.waiting)),
        ("retrying", "retrying", None),
        ("held", "held", None),
        ("failed", "failed", None),
        ("succeeded", "succeeded", None),
        ("cancelled", "cancelled", None),
    ];
    html! {
        @for (class, word, number) in states {
            li {
                a href=(visitor.link(&format!("jobs?state={word}"))) {
                    (state(class, word)) @if let Some(number) = number { span class="n" { (number) } }
                }
            }
        }
    }
}

fn at_most(number: usize) -> Option<String> {
    match number {
        0 => None,
        number if number >= LISTED as usize => Some(format!("{LISTED}+")),
        number => Some(number.to_string()),
    }
}

fn help() -> Markup {
    let keys = [
        ("/", "filter"),
        ("j k", "next row, row before"),
        ("Enter", "open the row"),
        ("x", "select the row"),
        ("r", "retry: the job, or the selected ones"),
        ("g o", "overview"),
        ("g j", "jobs"),
        ("g f", "failures"),
        ("g l", "limits and holds"),
        ("g p", "plugins"),
        ("?", "this list"),
    ];
    html! {
        dialog id="help" aria-labelledby="help-title" {
            form method="dialog" {
                header { h2 id="help-title" { "Keys" } button { "Close" } }
                dl {
                    @for (key, does) in keys {
                        div { dt { @for key in key.split(' ') { kbd { (key) } " " } } dd { (does) } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Returns the code of the dashboard, by file, without tests.
    fn sources() -> Vec<(String, String)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dashboard");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let rust = files.filter(|file| file.extension().is_some_and(|ending| ending == "rs"));
        let code = |text: String| text.split("#[cfg(test)]").next().unwrap().to_owned();
        rust.map(|file| (file.display().to_string(), code(std::fs::read_to_string(&file).unwrap()))).collect()
    }

    #[test]
    fn no_page_has_markup_of_others_or_a_script_or_style_of_its_own() {
        let all = sources();
        assert!(all.len() > 20, "the sources are found: {}", all.len());
        for (file, code) in &all {
            if !file.ends_with("layout.rs") {
                assert!(!code.contains("PreEscaped"), "{file}: text that is not escaped");
            }
            for forbidden in ["style=", "onclick", "onload", "javascript:", "script {"] {
                let found = code.lines().find(|line| line.contains(forbidden) && !line.trim_start().starts_with("//"));
                assert_eq!(found, None, "{file}: the policy for content refuses {forbidden}");
            }
        }
    }
}
