//! `wharf audit`: what operators changed, and who, when and from where.

use clap::Args;
use serde_json::value::RawValue;

use super::client::{ApiRequest, Client, query};
use crate::cli_error::ExitStatus;
use crate::http::api::{Act, ActPage};
use crate::output::{Table, print_json};
use crate::stderr::note;

/// The most acts that one request asks for.
const PAGE_MAX: u32 = 1000;

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Only acts from then on: a moment such as 2030-01-31T12:00:00Z, or a length of time before now such as 2h
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only acts of this author: the name of a token, or host:NAME
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// Only acts of clients without a token
    #[arg(long, conflicts_with = "who")]
    no_token: bool,
    /// Only acts of this kind, such as job-cancel or hold-set
    #[arg(long, value_name = "KIND")]
    act: Option<String>,
    /// Only acts before the one with this ID: the last of an earlier list
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    /// Number of acts to list
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
}

impl Audit {
    /// Lists acts, newest first. With `json`, each page is a document of its own.
    pub(crate) fn run(self, client: &Client, json: bool) -> anyhow::Result<ExitStatus> {
        let mut left = self.limit;
        let mut pairs = query([
            ("since", self.since),
            ("author", self.who),
            ("no_token", self.no_token.then(|| "true".to_owned())),
            ("act", self.act),
            ("before", self.before),
            ("limit", Some(left.clamp(1, PAGE_MAX).to_string())),
        ]);
        let mut acts = Vec::new();
        let more = loop {
            let request = ApiRequest { method: "GET", path: format!("/v1/audit{pairs}"), ..ApiRequest::default() };
            let (page, raw): (ActPage, Box<RawValue>) = client.request_with_raw(request)?;
            left = left.saturating_sub(u32::try_from(page.acts.len()).unwrap_or(u32::MAX));
            if json {
                print_json(&raw)?;
            }
            acts.extend(page.acts);
            match page.next {
                Some(next) if left > 0 => pairs = next,
                next => break next.is_some(),
            }
        };
        match acts.last() {
            _ if json => {}
            None => note("no such act"),
            Some(last) => {
                table(&acts)?;
                if more {
                    note(format!("there are more: --before {}", last.id));
                }
            }
        }
        Ok(ExitStatus::Done)
    }
}

fn table(acts: &[Act]) -> anyhow::Result<()> {
    let mut table = Table::new(&["TIME", "WHO", "FROM", "ACT", "TARGET", "COUNT", "DETAIL"]);
    for act in acts {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        // Not "-", which a token may be called.
        let who = act.author.clone().unwrap_or_else(|| "(no token)".to_owned());
        table.row([
            format!("{:.0}", act.at.date()),
            who,
            or_none(&act.address),
            act.act.to_string(),
            act.target.clone(),
            act.count.to_string(),
            act.detail.clone(),
        ]);
    }
    Ok(table.print()?)
}
