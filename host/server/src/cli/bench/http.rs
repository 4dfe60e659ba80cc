//! `wharf bench http`: single jobs over connections that are kept, each acknowledged when it is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::body::Bytes;
use axum::http::Method;
use clap::Args;
use futures_util::future::join_all;

use super::super::cli_error::{Ending, Exit};
use super::cost::{Since, Whose};
use super::ground::Where;
use super::load::{Load, Ready};
use super::report::{Report, Spread, Unit};
use super::running::Running;
use super::served::Served;
use super::wire::Place;
use crate::config::Settings;
use crate::http::encode;

#[derive(Debug, Args)]
pub(crate) struct Http {
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    load: Load,
    /// Connections, each of which waits for an answer before it asks again
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4000))]
    connections: u32,
    /// Requests that count; a tenth as many go before
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    requests: u32,
}

impl Http {
    pub(super) async fn run(self, settings: &Settings, running: Option<Place>) -> anyhow::Result<Report> {
        let load = self.load.ready()?;
        let mut report = Report::new("http");
        let (place, served) = match running {
            Some(place) => {
                report.with("host", settings.host.as_str());
                (place, None)
            }
            None => {
                let ground = self.place.ground()?;
                load.put(&ground)?;
                report.with("host", "its own, a process beside this one");
                ground.tell(&mut report);
                report.with("at-once", settings.attempts_at_once);
                let served = Served::start(Arc::new(ground), settings, &settings.cache_dir).await?;
                (served.place.clone(), Some(served))
            }
        };
        load.tell(&mut report);
        report.with("connections", self.connections);
        report.with("requests", self.requests);

        let host = Running::reach(place.clone(), &load.task).await?;
        requests(&place, &load, self.connections, self.requests.div_ceil(10)).await?;
        host.until_all_ended(&load.task).await?;
        let here = Since::now(Whose::This)?;
        let there = served.as_ref().map(|served| Since::now(served.whose())).transpose()?;
        let (took, spread) = requests(&place, &load, self.connections, self.requests).await?;
        let (here, began) = (here.cost()?, Instant::now());
        host.until_all_ended(&load.task).await?;
        let behind = began.elapsed();

        report.figure("requests", spread.count() as f64 / took.as_secs_f64(), Unit::PerSecond);
        report.figure("jobs-run", spread.count() as f64 / (took + behind).as_secs_f64(), Unit::PerSecond);
        report.length("until-all-had-run-after-the-last-answer", behind);
        report.length("client-processor-per-request", here.processor.div_f64(spread.count() as f64));
        if let Some(there) = there {
            report.cost("host", there.cost()?, spread.count(), "job");
        }
        report.spread("request", spread);
        Ok(report)
    }
}

async fn requests(place: &Place, load: &Ready, connections: u32, count: u32) -> anyhow::Result<(Duration, Spread)> {
    let mut open = Vec::new();
    for _ in 0..connections.min(count) {
        open.push(place.connect().await?);
    }
    let path: Arc<str> = format!("/v1/jobs?task={}", encode(&load.task)).into();
    let (payload, left) = (Bytes::from(load.payload.clone()), Arc::new(AtomicU32::new(count)));
    let began = Instant::now();
    let each = open.into_iter().map(|mut connection| {
        let (path, payload, left) = (Arc::clone(&path), payload.clone(), Arc::clone(&left));
        tokio::spawn(async move {
            let mut spread = Spread::new()?;
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                let asked = Instant::now();
                let (status, answer) =
                    connection.ask(Method::POST, &path, "application/octet-stream", payload.clone()).await?;
                spread.add(asked.elapsed());
                if status != 202 {
                    let said = String::from_utf8_lossy(&answer).into_owned();
                    return Err(Ending::new(Exit::Refused, format!("the host answered {status}: {said}")).into());
                }
            }
            anyhow::Ok(spread)
        })
    });
    let each = join_all(each).await;
    let took = began.elapsed();
    let mut all = Spread::new()?;
    for spread in each {
        all.merge(&spread.context("a client has panicked")??)?;
    }
    Ok((took, all))
}
