//! The resource usage of a process: CPU time and memory, read from `/proc`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::time::{ClockId, clock_gettime};

/// A process process usage is measured.
#[derive(Clone, Copy, Debug)]
pub(super) enum Process {
    This,
    Other(u32),
}

/// The resource usage of a process between two points in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProcessUsage {
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
    /// The peak of resident memory since the process started, in bytes.
    pub(super) peak_bytes: u64,
}

impl ProcessUsage {
    /// Returns the average number of busy cores.
    pub(super) fn cores(&self) -> f64 {
        self.cpu.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }
}

/// Measures the resource usage of a process from its creation on.
#[derive(Debug)]
pub(super) struct UsageTimer {
    process: Process,
    started: Instant,
    cpu: Duration,
}

impl UsageTimer {
    pub(super) fn now(process: Process) -> anyhow::Result<UsageTimer> {
        Ok(UsageTimer { process, started: Instant::now(), cpu: cpu_time(process)? })
    }

    /// Returns the usage since the timer was created.
    pub(super) fn usage(&self) -> anyhow::Result<ProcessUsage> {
        let wall = self.started.elapsed();
        let cpu = cpu_time(self.process)?.saturating_sub(self.cpu);
        Ok(ProcessUsage { wall, cpu, peak_bytes: status(self.process, "VmHWM:")? })
    }
}

/// Returns the CPU time of the process so far. Unlike wall time it does not grow while other processes use the machine.
pub(super) fn cpu_time(process: Process) -> anyhow::Result<Duration> {
    match process {
        Process::This => {
            let spent = clock_gettime(ClockId::ProcessCPUTime);
            Ok(Duration::new(spent.tv_sec.cast_unsigned(), u32::try_from(spent.tv_nsec).unwrap_or_default()))
        }
        Process::Other(pid) => {
            let times = times(&read(process, "stat")?);
            let [user, system, ..] = times[..] else { bail!("could not find the times in /proc/{pid}/stat") };
            Ok(ticks(user + system))
        }
    }
}

/// Parses the user and system time of a process, then those of its children that have ended, in clock ticks.
fn times(stat: &str) -> Vec<u64> {
    // The name in parentheses may contain any character. After it come the state, ten numbers and the times.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().skip(11).take(4).filter_map(|field| field.parse().ok()).collect()
}

fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(count as f64 / rustix::param::clock_ticks_per_second().max(1) as f64)
}

/// Measures the load of other processes from its creation on.
#[derive(Debug)]
pub(super) struct MachineLoad {
    started: Instant,
    all: Duration,
    ours: Duration,
}

impl MachineLoad {
    pub(super) fn now() -> anyhow::Result<MachineLoad> {
        Ok(MachineLoad { started: Instant::now(), all: all_processes()?, ours: this_and_ended_children()? })
    }

    /// Returns the average number of cores that other processes kept busy.
    pub(super) fn cores(&self) -> anyhow::Result<f64> {
        let ours = this_and_ended_children()?.saturating_sub(self.ours);
        let others = all_processes()?.saturating_sub(self.all).saturating_sub(ours);
        Ok(others.as_secs_f64() / self.started.elapsed().as_secs_f64().max(1e-9))
    }
}

/// Returns the CPU time of all processes on the machine, and the time stolen by other virtual machines.
fn all_processes() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat").context("could not read /proc/stat")?;
    let fields: Vec<u64> =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    let [user, nice, system, _idle, _waiting, irq, soft_irq, stolen, ..] = fields[..] else {
        bail!("could not find the CPU times in /proc/stat")
    };
    Ok(ticks(user + nice + system + irq + soft_irq + stolen))
}

fn this_and_ended_children() -> anyhow::Result<Duration> {
    Ok(ticks(times(&read(Process::This, "stat")?).iter().sum()))
}

/// Returns the resident memory that is not backed by files, in bytes.
pub(super) fn anonymous_bytes(process: Process) -> anyhow::Result<u64> {
    status(process, "RssAnon:")
}

/// Returns the resident memory, in bytes.
pub(super) fn resident_bytes(process: Process) -> anyhow::Result<u64> {
    status(process, "VmRSS:")
}

fn status(process: Process, name: &str) -> anyhow::Result<u64> {
    let text = read(process, "status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("could not find {name} in the status of the process"))? * 1024)
}

fn read(process: Process, file: &str) -> anyhow::Result<String> {
    let path = match process {
        Process::This => format!("/proc/self/{file}"),
        Process::Other(pid) => format!("/proc/{pid}/{file}"),
    };
    std::fs::read_to_string(&path).with_context(|| format!("could not read {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_measured_from_within_and_from_outside() {
        let timer = UsageTimer::now(Process::This).unwrap();
        while timer.usage().unwrap().cpu < Duration::from_millis(30) {
            std::hint::black_box(());
        }
        let outside = Process::Other(std::process::id());
        assert!(cpu_time(outside).unwrap() > Duration::ZERO);
        assert!(timer.usage().unwrap().peak_bytes >= anonymous_bytes(outside).unwrap().min(1 << 20));
    }
}
