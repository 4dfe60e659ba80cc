//! Schedules that plugins suggest: when each would tick, and accepting it.

use axum::extract::State;
use futures_util::future::try_join_all;
use maud::{Markup, html};
use wharf_core::ids::{PluginId, ScheduleId, TaskName};
use wharf_core::schedule::{Schedule, ScheduleSpec};
use wharf_runner::{Catalog, Host, checked_schedule};

use crate::http::api::{ScheduleRequest, SuggestedSchedule, suggested, suggestion_times};
use crate::http::encode;
use crate::http::problem::Problem;
use crate::http::schedules::{define, spec};
use crate::output::spread;

use super::answer::{Answer, lead_to};
use super::content::json;
use super::form::Form;
use super::layout::marks;
use super::text::{count, line};
use super::visitor::Visitor;

/// The number of suggestions of all plugins that one page looks at: each is one more read of the store.
const SHOWN: usize = 50;

/// A suggestion of a plugin.
struct Suggestion {
    plugin: PluginId,
    suggested: SuggestedSchedule,
    /// The specification that it defines, or why it defines none.
    spec: Result<ScheduleSpec, String>,
}

/// The state of a suggestion.
enum Standing {
    /// No schedule has its name.
    Open,
    /// The schedule of its name is defined as it says.
    Accepted,
    /// A schedule of its name is defined otherwise.
    Taken,
}

impl Suggestion {
    fn of(host: &Host, plugin: &PluginId, suggested: SuggestedSchedule) -> Suggestion {
        let spec = checked(host, suggested.definition.clone());
        Suggestion { plugin: plugin.clone(), suggested, spec }
    }

    /// Returns a number that is another one after each change of the definition, so that what is accepted is what was shown.
    fn digest(&self) -> Option<String> {
        self.spec.as_ref().ok().map(|spec| format!("{:016x}", spec.digest()))
    }

    fn standing(&self, schedule: Option<&Schedule>) -> Standing {
        match schedule {
            None => Standing::Open,
            Some(found) if self.spec.as_ref().is_ok_and(|spec| found.spec == *spec) => Standing::Accepted,
            Some(_) => Standing::Taken,
        }
    }
}

fn checked(host: &Host, definition: ScheduleRequest) -> Result<ScheduleSpec, String> {
    checked_schedule(spec(definition).map_err(|problem| problem.detail().to_owned())?, host.now())
}

/// Reads the schedules that have the names of suggestions.
async fn standings(host: &Host, suggestions: &[Suggestion]) -> Result<Vec<Standing>, Problem> {
    let ids = suggestions.iter().map(|suggestion| suggestion.suggested.name.parse::<ScheduleId>().ok());
    let reads = ids.map(|id| async move {
        match id {
            Some(id) => host.schedule(id).await,
            None => Ok(None),
        }
    });
    let found = try_join_all(reads).await?;
    Ok(suggestions.iter().zip(&found).map(|(suggestion, found)| suggestion.standing(found.as_ref())).collect())
}

/// Returns the section on what one plugin suggests; nothing if it suggests nothing.
///
/// # Errors
/// If the store failed.
pub(super) async fn of_plugin(
    host: &Host,
    visitor: &Visitor,
    catalog: &Catalog,
    id: &PluginId,
) -> Result<Markup, Problem> {
    let all = catalog.plugin(id).map(|loaded| suggested(&loaded.plugin)).unwrap_or_default();
    let all: Vec<Suggestion> = all.into_iter().map(|suggested| Suggestion::of(host, id, suggested)).collect();
    let standings = standings(host, &all).await?;
    let rows = html! {
        @for (suggestion, standing) in all.iter().zip(&standings) {
            @let SuggestedSchedule { name, definition } = &suggestion.suggested;
            li {
                (row(visitor, suggestion, standing))
                details {
                    summary { "Its definition" }
                    pre tabindex="0" role="region" aria-label={ "Definition of " (line(name)) } {
                        (json(&spread(&serde_json::to_string(definition).unwrap_or_default())))
                    }
                }
            }
        }
    };
    let is_waiting = standings.iter().any(|standing| !matches!(standing, Standing::Accepted));
    Ok(section(&rows, all.is_empty(), is_waiting, 0))
}

/// Returns the section on what plugins suggest that is no schedule yet; nothing if there is none.
///
/// # Errors
/// If the store failed.
pub(super) async fn of_all(host: &Host, visitor: &Visitor) -> Result<Markup, Problem> {
    let catalog = host.catalog();
    let all = catalog.plugins().iter().filter(|(_, loaded)| !loaded.plugin.manifest.schedules.is_empty());
    let mut all = all.flat_map(|(id, loaded)| suggested(&loaded.plugin).into_iter().map(move |one| (id, one)));
    let looked: Vec<Suggestion> =
        all.by_ref().take(SHOWN).map(|(id, suggested)| Suggestion::of(host, id, suggested)).collect();
    let more = all.count();
    let standings = standings(host, &looked).await?;
    let mut open =
        looked.iter().zip(&standings).filter(|(_, standing)| !matches!(standing, Standing::Accepted)).peekable();
    let is_waiting = open.peek().is_some();
    let rows = html! { @for (suggestion, standing) in open { li { (row(visitor, suggestion, standing)) } } };
    Ok(section(&rows, !is_waiting && more == 0, is_waiting, more))
}

/// Returns the section with these rows. `is_waiting` says that one of them is not accepted; `more` is the number of suggestions without
/// a row that were not looked at.
fn section(rows: &Markup, is_empty: bool, is_waiting: bool, more: usize) -> Markup {
    html! {
        @if !is_empty {
            section id="suggested" {
                header {
                    h2 { "Suggested schedules" }
                    @if is_waiting { span class="dim" { "they wait to be accepted" } }
                }
                ul class="attention" { (rows) }
                @if more > 0 {
                    p class="note" { (count(more as u64)) " more were not looked at; the pages of their plugins have them." }
                }
            }
        }
    }
}

fn row(visitor: &Visitor, suggestion: &Suggestion, standing: &Standing) -> Markup {
    let Suggestion { plugin, suggested: SuggestedSchedule { name, definition }, .. } = suggestion;
    let schedule = visitor.link(&format!("schedules/{}", encode(name)));
    html! {
        a href=(visitor.link(&format!("plugins/{}#suggested", encode(plugin.as_str())))) { (line(plugin.as_str())) "/" (line(name)) }
        span class="why" { (line(&definition.task)) ", " (line(&suggestion_times(definition))) }
        @match (standing, &suggestion.spec) {
            (Standing::Accepted, _) => a href=(schedule) { "Accepted as " (line(name)) },
            (_, Err(why)) => span class="wrong" { "Not valid: " (line(why)) },
            (Standing::Open, Ok(_)) => (accept_form(visitor, suggestion, name)),
            (Standing::Taken, Ok(_)) => {
                a href=(schedule) { "Another schedule has its name" }
                (accept_form(visitor, suggestion, ""))
            }
        }
    }
}

/// Returns the form that accepts a suggestion under a name, for a visitor who may define a schedule of its task.
fn accept_form(visitor: &Visitor, suggestion: &Suggestion, name: &str) -> Markup {
    let Suggestion { plugin, suggested, .. } = suggestion;
    let enqueues = |task: TaskName| visitor.access.as_ref().is_some_and(|access| access.enqueues(&task));
    let may_accept = visitor.may_operate() && suggested.definition.task.parse().is_ok_and(enqueues);
    let label = format!("Name of the schedule that accepts {}", line(&suggested.name));
    html! {
        @if may_accept {
            form class="inline" method="post" action=(visitor.link("schedules")) {
                (marks(visitor))
                input type="hidden" name="suggestion" value={ (plugin.as_str()) "/" (suggested.name) };
                input type="hidden" name="shown" value=[suggestion.digest()];
                input type="text" name="id" value=(name) aria-label=(label) placeholder="another name" size="14" required autocomplete="off";
                button { "Accept" }
            }
        }
    }
}

/// Defines a schedule as a plugin suggests it, and leads to it.
pub(super) async fn accept(State(host): State<Host>, visitor: Visitor, form: Form) -> Answer {
    let id: ScheduleId = form.parsed("id")?;
    let wanted = form.as_sent("suggestion");
    let catalog = host.catalog();
    let found = wanted.split_once('/').and_then(|(plugin, name)| {
        let plugin: PluginId = plugin.parse().ok()?;
        let all = suggested(&catalog.plugin(&plugin)?.plugin);
        let suggested = all.into_iter().find(|suggested| suggested.name == name)?;
        Some(Suggestion::of(&host, &plugin, suggested))
    });
    let gone =
        || Problem::bad_request(format!("the suggestion `{wanted}` is not there any more; look at the plugin again"));
    let suggestion = found.ok_or_else(gone)?;
    if suggestion.digest().as_deref() != form.get("shown") {
        let detail = format!(
            "plugin `{}` was loaded anew and suggests `{wanted}` otherwise; look at it again",
            suggestion.plugin
        );
        return Err(Problem::bad_request(detail).into());
    }
    let wanted = (id, suggestion.suggested.definition);
    let (schedule, _) = define(&host, &visitor.access()?, wanted, false, visitor.author.clone()).await?;
    Ok(lead_to(&visitor, &format!("schedules/{}", encode(schedule.id.as_str()))))
}
