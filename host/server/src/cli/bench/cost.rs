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
            let text = read(whose, "stat")?;
            // The name in parentheses may have anything in it. After it: state, ten numbers, user time, system time.
            let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
            let (Some(user), Some(system)) = (ticks(11), ticks(12)) else { bail!("/proc/{pid}/stat has no times") };
            let a_second = rustix::param::clock_ticks_per_second().max(1) as f64;
            Ok(Duration::from_secs_f64((user + system) as f64 / a_second))
        }
    }
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
