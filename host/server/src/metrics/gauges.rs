//! Gauges, read at the moment of a scrape.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use wharf_core::backlog::Backlog;
use wharf_core::find::WaitKind;
use wharf_core::ids::TaskName;
use wharf_core::time::Timestamp;
use wharf_engine::Budget;
use wharf_runner::{Catalog, GroupLimits, HealthSnapshot, Host, Step, StoreSize};

use super::Labels;
use super::known_tasks::KnownTasks;
use super::process::ProcessUse;

/// Number of series that one gauge shows at most.
const SERIES_MAX: usize = 2000;

/// Gauges at one moment.
#[derive(Debug)]
pub(crate) struct Gauges {
    /// The gauges of the host, whose names begin with `wharf_`.
    pub(super) registry: Registry,
    /// Those of the process, which have the names that every program gives them.
    pub(super) of_process: Registry,
}

impl Gauges {
    /// Returns an empty set of gauges.
    pub(crate) fn new() -> Gauges {
        Gauges { registry: Registry::with_prefix("wharf"), of_process: Registry::default() }
    }

    /// Reads the gauges of a host. If the store does not respond, its gauges are left out, and the gauge `store_up` is 0.
    pub(crate) async fn of(host: &Host, known: &KnownTasks) -> Gauges {
        let health = host.health();
        let mut gauges = Gauges::new();
        gauges.add_build();
        gauges.add_process(&ProcessUse::now());
        gauges.add_host(&health);
        gauges.add_plugins(&host.catalog());
        gauges.add_budget(host.budget());
        let (backlog, size) = tokio::join!(host.backlog(), host.store_size());
        let is_up = backlog.is_ok() && health.store.is_ok();
        gauges.plain("store_up", "1 if the store responds and can be written", u64::from(is_up));
        if let Ok(mut backlog) = backlog {
            known.complete(&mut backlog);
            gauges.add_backlog(&backlog, host.now());
            if let Ok(limits) = host.limits_of(&backlog).await {
                gauges.add_limits(&limits);
            }
        }
        if let Ok(size) = size {
            gauges.add_store(size);
        }
        gauges
    }

    fn add_build(&mut self) {
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)];
        self.registry.register("build", "Version of this host, and its architecture", Info::new(labels));
    }

    fn add_process(&mut self, used: &ProcessUse) {
        let registry = &mut self.of_process;
        if let Some(cpu) = used.cpu {
            let help = "Processor time of the process, of the user and of the system";
            registry.register("process_cpu_seconds", help, ConstCounter::new(cpu.as_secs_f64()));
        }
        let numbers = [
            ("process_resident_memory_bytes", "Resident memory of the process", used.resident_bytes),
            (
                "process_virtual_memory_bytes",
                "Address space of the process, most of it reserved for sandboxes and never used",
                used.virtual_bytes,
            ),
            ("process_open_fds", "Open files of the process", used.open_files),
            ("process_max_fds", "Limit of open files of the process", used.files_max),
            ("process_threads", "Threads of the process", used.threads),
        ];
        for (name, help, number) in numbers {
            if let Some(number) = number {
                registry.register(name, help, gauge(number));
            }
        }
        if let Some(started) = used.started {
            let gauge = Gauge::<f64, AtomicU64>::default();
            gauge.set(started.as_secs_f64());
            registry.register("process_start_time_seconds", "When the process started, in seconds since 1970", gauge);
        }
    }

    fn add_host(&mut self, health: &HealthSnapshot) {
        self.plain(
            "alive",
            "1 if the loop that runs jobs is alive; if it is 0, the host must be started again",
            u64::from(health.alive),
        );
        self.plain(
            "draining",
            "1 if this host claims no jobs, as it stops or an operator drains it",
            u64::from(health.draining),
        );
        self.plain("broadcasts_open", "Live broadcasts open on this host", health.broadcasts as u64);
        self.plain("attempts_running", "Attempts running on this host", u64::from(health.running));
        self.plain("attempts_capacity", "Attempts that may run at once on this host", u64::from(health.capacity));
    }

    fn add_plugins(&mut self, catalog: &Catalog) {
        self.plain("plugins_loaded", "Plugins loaded", catalog.plugins().len() as u64);
        self.plain(
            "plugins_refused",
            "Files of the plugin folder that could not be loaded",
            catalog.refused().len() as u64,
        );
        let mut pending: BTreeMap<&str, u64> = ["reading", "waiting", "compiling"].map(|step| (step, 0)).into();
        for file in catalog.pending().values() {
            let step = match file.step {
                Step::Reading => "reading",
                Step::WaitingToCompile => "waiting",
                Step::Compiling => "compiling",
            };
            *pending.entry(step).or_default() += 1;
        }
        self.labelled(
            "plugins_pending",
            "Files of the plugin folder that are being loaded, by step: those that wait to be compiled are the queue",
            "step",
            pending.into_iter().map(|(step, files)| (step.to_owned(), files)),
        );
        self.labelled(
            "sandboxes",
            "Sandboxes of a plugin on this host, of jobs and of live broadcasts",
            "plugin",
            catalog.plugins().iter().map(|(id, loaded)| (id.to_string(), loaded.plugin.live_sandboxes())),
        );
    }

    fn add_budget(&mut self, budget: &Budget) {
        let budget = budget.usage();
        self.plain("memory_budget_bytes", "Budget of memory of this host", budget.total);
        let mut used: BTreeMap<&str, u64> = BTreeMap::new();
        budget.used.iter().for_each(|(of, bytes)| *used.entry(of.as_str()).or_default() += bytes);
        self.labelled(
            "memory_used_bytes",
            "Bytes of the budget that are reserved, by use",
            "use",
            used.into_iter().map(|(of, bytes)| (of.to_owned(), bytes)),
        );
        self.plain(
            "memory_waiting",
            "Attempts and requests that wait for room in the budget of memory",
            budget.waiting,
        );
        self.plain(
            "memory_attempts_released",
            "Attempts that were given back to make room in the budget of memory, since the host started",
            budget.released,
        );
    }

    fn add_backlog(&mut self, backlog: &Backlog, now: Timestamp) {
        let tasks = || backlog.tasks.iter();
        let text = |task: &TaskName| task.to_string();
        self.labelled(
            "jobs_waiting",
            "Waiting jobs, due or not, on all hosts of the store",
            "task",
            tasks().map(|(task, of)| (text(task), of.waiting)),
        );
        self.labelled(
            "jobs_running",
            "Running jobs, on all hosts of the store",
            "task",
            tasks().map(|(task, of)| (text(task), of.running)),
        );
        let by_reason = Family::<Labels, Gauge>::default();
        for (task, of) in tasks().take(SERIES_MAX) {
            for kind in WaitKind::ALL {
                let labels = vec![("task", text(task)), ("reason", kind.as_str().to_owned())];
                by_reason.get_or_create(&labels).set(of.count(kind).cast_signed());
            }
        }
        self.registry.register(
            "jobs_waiting_by_reason",
            "Waiting jobs by why they wait, on all hosts of the store; with very many jobs, those found within 50 ms or some thousand rows",
            by_reason,
        );
        let age = |from: Option<Timestamp>| from.map_or(Duration::ZERO, |from| now.since(from));
        self.labelled_seconds(
            "oldest_ready_age",
            "Time since the job became due that could start and has waited longest; 0 if there is none",
            tasks().map(|(task, of)| (text(task), age(of.oldest_ready))),
        );
        self.labelled_seconds(
            "oldest_blocked_age",
            "Time since the job became due that a limit has kept waiting longest; 0 if there is none. A limit of 0 is a pause",
            tasks().map(|(task, of)| (text(task), age(of.oldest_blocked))),
        );
        let oldest = tasks().filter_map(|(_, of)| of.oldest_unpaused()).min();
        self.seconds(
            "oldest_due_age",
            "Time since the job became due that has waited longest and that no operator keeps waiting; 0 if there is none",
            age(oldest),
        );
    }

    fn add_limits(&mut self, limits: &[GroupLimits]) {
        let by_group = |pick: fn(&GroupLimits) -> Option<u64>| {
            limits.iter().filter_map(move |limit| Some((limit.group.to_string(), pick(limit)?))).collect::<Vec<_>>()
        };
        self.labelled(
            "limit_all_keys",
            "Jobs of a group that may run at once",
            "group",
            by_group(|limit| limit.in_force.total.map(u64::from)),
        );
        self.labelled(
            "limit_per_key",
            "Jobs of one key that may run at once",
            "group",
            by_group(|limit| limit.in_force.per_key.map(u64::from)),
        );
        self.labelled(
            "limit_holders",
            "Jobs of a group that are running",
            "group",
            by_group(|limit| Some(limit.running)),
        );
    }

    fn add_store(&mut self, size: StoreSize) {
        self.plain("store_bytes", "Size of the store: of its file, or of its tables and their indexes", size.bytes);
        if let Some(log) = size.log_bytes {
            self.plain("store_log_bytes", "Size of the write-ahead log beside the store's file", log);
        }
    }

    /// Adds a gauge with one series for each label value.
    pub(crate) fn labelled(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (String, u64)>,
    ) {
        let family = Family::<Labels, Gauge>::default();
        for (value, number) in values.into_iter().take(SERIES_MAX) {
            family.get_or_create(&vec![(label, value)]).set(number.cast_signed());
        }
        self.registry.register(name, help, family);
    }

    /// Adds a gauge of a length of time, with one series for each task.
    fn labelled_seconds(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (String, Duration)>) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (task, length) in values.into_iter().take(SERIES_MAX) {
            family.get_or_create(&vec![("task", task)]).set(length.as_secs_f64());
        }
        self.registry.register_with_unit(name, help, Unit::Seconds, family);
    }

    /// Adds a gauge without labels.
    pub(crate) fn plain(&mut self, name: &str, help: &str, number: u64) {
        self.registry.register(name, help, gauge(number));
    }

    /// Adds a gauge of a length of time.
    pub(crate) fn seconds(&mut self, name: &str, help: &str, length: Duration) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(length.as_secs_f64());
        self.registry.register_with_unit(name, help, Unit::Seconds, gauge);
    }
}

fn gauge(number: u64) -> Gauge {
    let gauge = Gauge::<i64>::default();
    gauge.set(number.cast_signed());
    gauge
}
