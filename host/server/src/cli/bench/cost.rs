//! What a process takes of the machine: time on its cores, and memory. From `/proc`, so on Linux.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::time::{ClockId, clock_gettime};

/// The processes that can be asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose {
    This,
    Other(u32),
}

/// What was taken between two moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) wall: Duration,
    pub(super) processor: Duration,
    /// The most that was ever resident, also before.
    pub(super) peak_bytes: u64,
}

impl Cost {
    /// Cores that were busy, on average.
    pub(super) fn cores(&self) -> f64 {
        self.processor.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }
}

/// The first of two moments.
#[derive(Debug)]
pub(super) struct Since {
    whose: Whose,
    began: Instant,
    processor: Duration,
}

impl Since {
    pub(super) fn now(whose: Whose) -> anyhow::Result<Since> {
        Ok(Since { whose, began: Instant::now(), processor: processor(whose)? })
    }

    pub(super) fn cost(&self) -> anyhow::Result<Cost> {
        let wall = self.began.elapsed();
        let processor = processor(self.whose)?.saturating_sub(self.processor);
        Ok(Cost { wall, processor, peak_bytes: status(self.whose, "VmHWM:")? })
    }
}

/// Time that the process spent on cores so far. Unlike the clock on the wall it does not grow while others have the machine.
pub(super) fn processor(whose: Whose) -> anyhow::Result<Duration> {
    match whose {
        Whose::This => {
            let spent = clock_gettime(ClockId::ProcessCPUTime);
            Ok(Duration::new(spent.tv_sec.cast_unsigned(), u32::try_from(spent.tv_nsec).unwrap_or_default()))
        }
        Whose::Other(pid) => {
            let times = times(&read(whose, "stat")?);
            let [user, system, ..] = times[..] else { bail!("/proc/{pid}/stat has no times") };
            Ok(ticks(user + system))
        }
    }
}

/// User and system time of a process, then those of its children that have ended, in ticks.
fn times(stat: &str) -> Vec<u64> {
    // The name in parentheses may have anything in it. After it: state, ten numbers, the times.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().skip(11).take(4).filter_map(|field| field.parse().ok()).collect()
}

fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(count as f64 / rustix::param::clock_ticks_per_second().max(1) as f64)
}

/// What else the machine does while something is measured.
#[derive(Debug)]
pub(super) struct Beside {
    began: Instant,
    all: Duration,
    ours: Duration,
}

impl Beside {
    pub(super) fn now() -> anyhow::Result<Beside> {
        Ok(Beside { began: Instant::now(), all: all_processes()?, ours: this_and_ended_children()? })
    }

    /// Cores that other processes kept busy since.
    pub(super) fn cores(&self) -> anyhow::Result<f64> {
        let ours = this_and_ended_children()?.saturating_sub(self.ours);
        let others = all_processes()?.saturating_sub(self.all).saturating_sub(ours);
        Ok(others.as_secs_f64() / self.began.elapsed().as_secs_f64().max(1e-9))
    }
}

/// Time on cores of everything that runs on the machine, and what was stolen by other machines.
fn all_processes() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat").context("could not read /proc/stat")?;
    let fields: Vec<u64> =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    let [user, nice, system, _idle, _waiting, irq, soft_irq, stolen, ..] = fields[..] else {
        bail!("/proc/stat does not say what the processors did")
    };
    Ok(ticks(user + nice + system + irq + soft_irq + stolen))
}

fn this_and_ended_children() -> anyhow::Result<Duration> {
    Ok(ticks(times(&read(Whose::This, "stat")?).iter().sum()))
}

/// Memory that is resident now, and not of files.
pub(super) fn anonymous_bytes(whose: Whose) -> anyhow::Result<u64> {
    status(whose, "RssAnon:")
}

pub(super) fn resident_bytes(whose: Whose) -> anyhow::Result<u64> {
    status(whose, "VmRSS:")
}

fn status(whose: Whose, name: &str) -> anyhow::Result<u64> {
    let text = read(whose, "status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("/proc does not say {name} of the process"))? * 1024)
}

fn read(whose: Whose, file: &str) -> anyhow::Result<String> {
    let path = match whose {
        Whose::This => format!("/proc/self/{file}"),
        Whose::Other(pid) => format!("/proc/{pid}/{file}"),
    };
    std::fs::read_to_string(&path).with_context(|| format!("could not read {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_seen_from_within_and_from_outside() {
        let since = Since::now(Whose::This).unwrap();
        while since.cost().unwrap().processor < Duration::from_millis(30) {
            std::hint::black_box(());
        }
        let outside = Whose::Other(std::process::id());
        assert!(processor(outside).unwrap() > Duration::ZERO);
        assert!(since.cost().unwrap().peak_bytes >= anonymous_bytes(outside).unwrap().min(1 << 20));
    }
}
