//! Every hard limit of the host, every default of a setting, and the relations between them.
//! Settings choose values within these limits; nothing exceeds them.

use std::time::Duration;

/// One kibibyte, in bytes.
pub const KIB: u64 = 1024;
/// One mebibyte, in bytes.
pub const MIB: u64 = 1024 * KIB;

// Names and keys.
/// Maximum length in bytes of a plugin's ID, a task's name within its plugin, and a group's name.
pub const NAME_BYTES_MAX: usize = 64;
/// Maximum length in bytes of a job's key.
pub const KEY_BYTES_MAX: usize = 256;
/// Maximum length in bytes of an idempotency token.
pub const TOKEN_BYTES_MAX: usize = 256;
/// Maximum length in bytes of a topic or a subscription.
pub const TOPIC_BYTES_MAX: usize = 256;
/// Maximum number of tokens in a topic or a subscription.
pub const TOPIC_TOKENS_MAX: usize = 16;

// Input and output of a job.
/// Maximum size in bytes of a job's payload.
pub const PAYLOAD_BYTES_MAX: u64 = 32 * MIB;
/// Maximum size in bytes of an attempt's result.
pub const OUTPUT_BYTES_MAX: u64 = 32 * MIB;
/// Maximum size in bytes of one chunk.
pub const CHUNK_BYTES_MAX: u64 = MIB;
/// Maximum size in bytes of all chunks of one attempt.
pub const CHUNKS_BYTES_MAX: u64 = 64 * MIB;
/// Maximum number of chunks of one attempt.
pub const CHUNKS_MAX: u64 = 100_000;
/// Maximum length in bytes of a log line. A longer line is cut and marked as cut.
pub const LOG_LINE_BYTES_MAX: u64 = 64 * KIB;
/// Maximum size in bytes of one attempt's log. Later lines are dropped and counted.
pub const LOG_BYTES_MAX: u64 = 4 * MIB;
/// Maximum number of lines in one attempt's log: each line costs a row, however short it is.
pub const LOG_LINES_MAX: u64 = 50_000;
/// Maximum length in bytes of a progress note.
pub const PROGRESS_NOTE_BYTES_MAX: u64 = KIB;
/// Minimum time between two stored progress entries of an attempt.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Maximum size in bytes of a report, with its backtrace and the last lines of stderr.
pub const REPORT_BYTES_MAX: u64 = 16 * KIB;
/// Maximum length in bytes of a plugin's version, as an attempt keeps it.
pub const VERSION_BYTES_MAX: usize = 100;
/// Number of a job's first attempts without a result that the job keeps.
pub const ATTEMPTS_KEPT_OLDEST: u32 = 5;
/// Number of a job's last attempts without a result that the job keeps. Those in between are only counted.
pub const ATTEMPTS_KEPT_NEWEST: u32 = 20;
/// Maximum size in bytes of the report of each attempt that a job keeps. The job itself has the last report whole.
pub const ATTEMPT_REPORT_BYTES_MAX: usize = 4 * KIB as usize;
/// Maximum number of jobs in one request, and of jobs that one attempt enqueues.
pub const BATCH_JOBS_MAX: usize = 10_000;
/// Maximum size in bytes of all payloads in one request, and of those that one attempt enqueues.
pub const BATCH_BYTES_MAX: u64 = 64 * MIB;
/// Maximum size in bytes of all payloads in one claim. The first job of a claim may be larger.
pub const CLAIM_BYTES_MAX: u64 = 64 * MIB;

// Jobs that wait.
/// Number of jobs of one plugin that may wait, unless the settings say otherwise; another one is rejected. Each takes
/// some hundred bytes of the store besides its payload.
pub const JOBS_WAITING_DEFAULT: u32 = 1_000_000;
/// Maximum number of waiting jobs of one plugin that can be set.
pub const JOBS_WAITING_MAX: u32 = 1_000_000_000;
/// Number of generations of jobs that enqueue one another, unless the settings say otherwise.
pub const GENERATIONS_DEFAULT: u32 = 100_000;
/// Maximum number of generations that can be set.
pub const GENERATIONS_MAX: u32 = 1_000_000_000;
/// A single job that starts this much later than it is enqueued, or more, is of the same generation as the job that
/// enqueues it.
pub const GENERATION_PAUSE: Duration = Duration::from_secs(1);

// Nodes.
/// Time for which a node has not registered while another one of its name has: the other one has taken its place. Three intervals of
/// registration.
pub const NODE_SILENT: Duration = Duration::from_secs(9);

// Holds.
/// Number of holds from which on operators hold no further keys.
pub const HOLDS_MAX: u32 = 100_000;
/// Maximum number of keys that one request holds.
pub const HOLD_KEYS_MAX: usize = 1000;
/// Number of holds from which on plugins set no further ones: the rest of `HOLDS_MAX` is for operators.
pub const HOLDS_WITH_PLUGINS_MAX: u32 = 50_000;
/// Number of holds from which on operators set none of all, a plugin, a task or a group either: however many keys are held, there is
/// room for these.
pub const HOLDS_WITH_WIDE_MAX: u32 = 110_000;
/// Maximum length in bytes of the reason of a hold.
pub const HOLD_REASON_BYTES_MAX: usize = 500;

// The summary of what runs.
/// Maximum number of tasks whose attempts a node counts. Those of more tasks are not counted.
pub const ACTIVE_TASKS_MAX: usize = 256;
/// Number of keys that a node keeps of those that used the most.
pub const TOP_KEYS_MAX: usize = 100;

// The audit log.
/// Time for which acts of operators are kept.
pub const AUDIT_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);
/// Maximum length in bytes of an author's name, and of the address of a client.
pub const AUTHOR_BYTES_MAX: usize = 128;
/// Maximum length in bytes of the target of an act. A longer one is cut.
pub const ACT_TARGET_BYTES_MAX: usize = 1024;
/// Maximum length in bytes of the detail of an act. A longer one is cut.
pub const ACT_DETAIL_BYTES_MAX: usize = 1024;
/// Maximum number of acts that one look into the audit log reads, whatever its filter is.
pub const ACTS_READ_MAX: u32 = 2000;
// Failure groups.
/// Maximum number of failure groups of one task: the one that failed last the longest ago makes room for a new one.
pub const FAILURE_GROUPS_MAX: u32 = 200;
/// Time for which a failure group is kept after its last failure.
pub const KEEP_FAILURE_GROUPS: Duration = Duration::from_secs(90 * 24 * 3600);
/// Number up to which the different keys of a failure group are counted.
pub const FAILURE_KEYS_MAX: u32 = 1000;
/// Maximum number of versions that a failure group keeps.
pub const FAILURE_VERSIONS_MAX: u32 = 20;
/// Maximum number of jobs that a failure group keeps as examples.
pub const FAILURE_SAMPLES_MAX: u32 = 10;
/// Maximum length in bytes of the message of such an example.
pub const FAILURE_SAMPLE_BYTES_MAX: usize = 500;
/// Maximum number of digests of one plugin of which a store remembers when it saw them first.
pub const PLUGIN_DIGESTS_MAX: u32 = 100;

// Entries between an attempt and the store.
/// Maximum size in bytes of the entries of one attempt that wait to be stored. Beyond it a chunk waits and a log line
/// is dropped.
pub const UNWRITTEN_BYTES_MAX: u64 = 2 * MIB;
/// Maximum number of entries of one attempt that wait to be stored.
pub const UNWRITTEN_ENTRIES_MAX: usize = 1024;

// The kv values of a plugin.
/// Maximum length in bytes of a kv key.
pub const KV_KEY_BYTES_MAX: usize = 512;
/// Maximum size in bytes of a kv value.
pub const KV_VALUE_BYTES_MAX: u64 = MIB;
/// Maximum number of kv values that one attempt changes.
pub const KV_WRITES_MAX: usize = 1000;
/// Maximum size in bytes of the kv keys and values that one attempt changes.
pub const KV_WRITES_BYTES_MAX: u64 = 4 * MIB;
/// Maximum number of kv keys in one page.
pub const KV_PAGE_MAX: u32 = 1000;
/// Maximum number of kv values of one plugin. Attempts that run at the same time may together exceed this number and
/// the granted size, by what these attempts may change: the quota is checked when a guest writes, and a success is
/// never undone for it.
pub const KV_VALUES_MAX: u64 = 1_000_000;
/// Maximum size in bytes of a plugin's kv keys and values, unless `wharf.toml` grants another size.
pub const KV_BYTES_DEFAULT: u64 = 64 * MIB;
/// The largest kv size in bytes that can be granted to a plugin.
pub const KV_BYTES_MAX: u64 = 64 * 1024 * MIB;
/// Maximum number of kv reads of guests in the store at once, on one node.
pub const KV_READS_AT_ONCE: usize = 4;

// A sandbox.
/// Maximum size in bytes of all memories of one attempt. A manifest may request up to this.
pub const MEMORY_BYTES_MAX: u64 = 1024 * MIB;
/// Size in bytes of all memories of one attempt, unless its manifest requests another.
pub const MEMORY_BYTES_DEFAULT: u64 = 128 * MIB;
/// Maximum number of elements in all tables of one sandbox.
pub const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Maximum number of core instances in one sandbox.
pub const INSTANCES_MAX: usize = 64;
/// Maximum number of memories in one sandbox.
pub const MEMORIES_MAX: usize = 32;
/// Maximum number of tables in one sandbox.
pub const TABLES_MAX: usize = 32;
/// Maximum number of resource handles that a guest may own.
pub const HANDLES_MAX: usize = 4096;
/// Maximum number of host resources that a guest may keep open: streams, pollables, files, requests.
pub const HOST_RESOURCES_MAX: usize = 256;
/// Maximum size in bytes of the data between guest and host in one call.
pub const HOSTCALL_BYTES_MAX: u64 = 40 * MIB;
/// Bytes that an attempt takes besides its memories: its stack, its tables, and what the host knows of it.
pub const ATTEMPT_BYTES: u64 = 32 * KIB;
/// Memory with which a component may begin so that only [`FIRST_PAGES_RESERVED`] of it are reserved for each of its attempts: what
/// components of C, Rust and Go begin with is for the most part an empty stack.
pub const FIRST_PAGES_MAX: u64 = 2 * MIB;
/// Bytes that are reserved of the memory with which a small component begins.
pub const FIRST_PAGES_RESERVED: u64 = 64 * KIB;
/// Memory of its own that a host takes besides its budget: its program's data, caches, and what its allocator holds back.
pub const HOST_BYTES: u64 = 96 * MIB;
/// Minimum of the budget of memory that can be set.
pub const MEMORY_BUDGET_MIN: u64 = 128 * MIB;
/// Size in bytes of a guest's WebAssembly stack.
pub const WASM_STACK_BYTES: usize = 512 * KIB as usize;
/// Size in bytes of the stack on which a guest and its host calls run.
pub const ASYNC_STACK_BYTES: usize = 2 * MIB as usize;
/// Maximum number of random bytes in one request of a guest.
pub const RANDOM_BYTES_MAX: u64 = MIB;

// Time.
/// The interval at which running guests are interrupted, to check limits and to let others run.
pub const TICK: Duration = Duration::from_millis(1);
/// An attempt's timeout, unless its manifest sets another.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// The longest timeout of an attempt.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// A subscriber's timeout for replying to a broadcast, unless its manifest sets another.
pub const RECEIVE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// An attempt's limit of CPU time, unless its manifest sets another.
pub const CPU_DEFAULT: Duration = Duration::from_secs(10);
/// Time from the request to cancel an attempt until its sandbox is stopped.
pub const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// Time for which a host that shuts down waits for running attempts. Together with the other work of a shutdown it is well
/// below the 30 s after which Kubernetes kills a container.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Length of a lease.
pub const LEASE: Duration = Duration::from_secs(30);
/// Number of times that a lease is renewed during its length.
pub const LEASE_RENEWALS: u32 = 3;
/// Time before the end of its lease at which an attempt is stopped.
pub const LEASE_MARGIN: Duration = Duration::from_secs(3);
/// Timeout for a write to the store that a client waits for: longer than a fault that the store recovers from by
/// itself, shorter than clients wait.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// Number of attempts of a job that may fail, unless its manifest sets another number.
pub const RETRY_ATTEMPTS_DEFAULT: u32 = 5;
/// Maximum number of attempts that a manifest may set.
pub const RETRY_ATTEMPTS_MAX: u32 = 1000;
/// Delay before the first retry, unless its manifest sets another.
pub const BACKOFF_MIN_DEFAULT: Duration = Duration::from_secs(1);
/// Longest delay before a retry, unless its manifest sets another.
pub const BACKOFF_MAX_DEFAULT: Duration = Duration::from_secs(300);
/// A job of which this many attempts ended with their host is a suspect: it may be what kills hosts, and runs alone
/// from then on.
pub const SUSPECT_CRASHES: u32 = 3;
/// A job of which this many attempts ended with their host, the last one while it ran alone, is failed.
pub const CRASHES_MAX: u32 = 5;
/// Timeout of a plugin's `describe`, which is called when the plugin is loaded.
pub const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

// Plugins.
/// Maximum size in bytes of a plugin's file.
pub const COMPONENT_BYTES_MAX: u64 = 64 * MIB;
/// Maximum nesting depth of modules and components in a component.
pub const COMPONENT_DEPTH_MAX: usize = 32;
/// Maximum number of items in the sections of a component and its modules: types, imports, exports, functions and
/// others. The host keeps some data for each of them, so this bounds what a loaded plugin costs besides its code.
pub const COMPONENT_ITEMS_MAX: u64 = 500_000;
/// Maximum number of interfaces that a component imports, and of exported interfaces that are shown by name.
pub const COMPONENT_NAMES_MAX: usize = 200;
/// Maximum length in bytes of the name of an interface that a component imports or exports.
pub const COMPONENT_NAME_BYTES_MAX: usize = 200;
/// Maximum length in bytes of a function's name in the report of a trap.
pub const FUNCTION_NAME_BYTES_MAX: usize = 200;
/// Maximum size in bytes of all function names that are kept of one component.
pub const FUNCTION_NAMES_BYTES_MAX: usize = 2 * MIB as usize;
/// Maximum number of source positions that are kept of one component, 10 bytes each: the places where a new source line
/// starts.
pub const SOURCE_LINES_MAX: usize = 64 * KIB as usize;
/// Maximum number of source files that are kept of one component.
pub const SOURCE_FILES_MAX: usize = 4096;
/// Maximum size in bytes of the names of all source files that are kept of one component.
pub const SOURCE_FILES_BYTES_MAX: usize = 64 * KIB as usize;
/// Maximum number of problems that are reported for a rejected file.
pub const PROBLEMS_MAX: usize = 20;
/// Maximum size in bytes of all problems that are reported for a rejected file.
pub const REFUSAL_BYTES_MAX: usize = 8 * KIB as usize;
/// Maximum size in bytes of each of the two texts of a reported problem.
pub const PROBLEM_BYTES_MAX: usize = 2 * KIB as usize;
/// Maximum length in bytes of the problems of a rejected file where another text quotes them.
pub const REFUSAL_LINE_BYTES_MAX: usize = 300;
/// Maximum size in bytes of the data that is kept of a plugin file besides its code.
pub const DESCRIPTION_BYTES_MAX: u64 = 3 * MIB;
/// Maximum size in bytes of a manifest.
pub const MANIFEST_BYTES_MAX: u64 = 64 * KIB;
/// Maximum number of plugins on one node.
pub const PLUGINS_MAX: usize = 1000;
/// Maximum number of exported functions that are looked at as tasks.
pub const FUNCTIONS_MAX: usize = 256;
/// Maximum number of types of these functions.
pub const TYPES_MAX: usize = 2000;
/// Maximum number of parameters, and of members, cases and names of these types.
pub const TYPE_MEMBERS_MAX: usize = 8192;
/// Maximum size in bytes of the names of these.
pub const TYPE_NAMES_BYTES_MAX: usize = 64 * KIB as usize;
/// Maximum number of types and names of one of these functions, counted as often as they are used.
pub const TYPE_EXPANDED_MAX: u64 = 10_000;
/// Maximum number of arguments of a program.
pub const PROGRAM_ARGS_MAX: usize = 256;
/// Maximum size in bytes of all arguments of a program.
pub const PROGRAM_ARGS_BYTES_MAX: usize = 32 * KIB as usize;
/// Maximum number of tasks of one plugin.
pub const TASKS_MAX: usize = 64;
/// Maximum number of regular expressions in all payload schemas of one plugin: each may use half a MiB of the host's
/// memory.
pub const PATTERNS_MAX: usize = 64;
/// Maximum number of checks of one payload against its task's schema: the schemas and keywords that apply to each of
/// its values, counted before the payload is parsed. The worst of them takes some tens of milliseconds.
pub const SCHEMA_CHECKS_MAX: u64 = 5_000_000;
/// Maximum number of checks of all payloads in one request, and in one call by which a guest enqueues jobs.
pub const BATCH_SCHEMA_CHECKS_MAX: u64 = 50_000_000;
/// Maximum size in bytes of one payload schema that a node publishes, so that nodes without the plugin can enqueue jobs
/// for it.
pub const PUBLISHED_SCHEMA_BYTES_MAX: usize = 16 * KIB as usize;
/// Maximum size in bytes of all payload schemas that a node publishes.
pub const PUBLISHED_SCHEMAS_BYTES_MAX: usize = 256 * KIB as usize;
/// Maximum number of subscriptions of one plugin.
pub const TOPICS_MAX: usize = 64;
/// Maximum size in bytes of the memory that compiling a component may use.
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 4096 * MIB;
/// Limit of CPU time for inspecting a component before it is compiled.
pub const INSPECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Timeout for compiling a component.
pub const COMPILE_TIMEOUT: Duration = Duration::from_secs(300);
/// Maximum number of components that are compiled at once.
pub const COMPILES_AT_ONCE: usize = 1;
/// Size in bytes of the cache of compiled plugins, unless the settings say otherwise.
pub const CACHE_BYTES_DEFAULT: u64 = 4096 * MIB;
/// Minimum size in bytes of that cache that can be set.
pub const CACHE_BYTES_MIN: u64 = MIB;
/// Pause before a file is loaded again whose loading failed for a reason that is not the file's. It doubles each time.
pub const LOAD_RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest pause before such a file is loaded again.
pub const LOAD_RETRY_MAX: Duration = Duration::from_secs(300);

// Attempts at once on one node.
/// Number of attempts that run at once on one node, unless the settings say otherwise.
pub const ATTEMPTS_DEFAULT: u32 = 256;
/// Maximum number of attempts at once on one node: each has six memory mappings, and the kernel's default map count is
/// used up at 10,900.
pub const ATTEMPTS_MAX: u32 = 8000;

// Broadcasts.
/// Timeout of a whole broadcast, unless the caller sets another.
pub const BROADCAST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// The longest timeout of a broadcast.
pub const BROADCAST_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Number of broadcasts of one depth that may be open at once, unless the settings say otherwise; another one is rejected.
pub const BROADCASTS_DEFAULT: u32 = 64;
/// Maximum number of open broadcasts of one depth that can be set.
pub const BROADCASTS_MAX: u32 = 1024;
/// Number of subscribers that broadcasts from outside call at once, unless the settings say otherwise. Nested broadcasts have
/// their own share at each depth, half as large as that of the depth before.
pub const BROADCAST_CALLS_DEFAULT: u32 = 1024;
/// Maximum number of subscribers called at once that can be set.
pub const BROADCAST_CALLS_MAX: u32 = 1400;
/// Maximum depth of nested broadcasts, including the first.
pub const BROADCAST_DEPTH_MAX: u32 = 4;
/// Maximum size in bytes of all replies to one broadcast. A reply that does not fit is dropped.
pub const REPLIES_BYTES_MAX: u64 = 32 * MIB;

// Outbound HTTP of plugins.
/// Timeout for connecting to a server.
pub const HTTP_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of host names that are resolved at once, by all attempts of the process.
pub const HTTP_LOOKUPS_MAX: usize = 16;
/// Maximum size in bytes of all headers of a request or a response.
pub const HTTP_HEADERS_BYTES_MAX: usize = 16 * KIB as usize;
/// Maximum size in bytes of the body of a request or a response.
pub const HTTP_BODY_BYTES_MAX: u64 = 16 * MIB;
/// Maximum number of HTTP requests of one attempt.
pub const HTTP_REQUESTS_MAX: u32 = 100;
/// Minimum size in bytes of the value of a secret: a shorter one could not be told from other text in a response.
pub const SECRET_BYTES_MIN: usize = 8;
/// Maximum size in bytes of the value of a secret.
pub const SECRET_BYTES_MAX: usize = 2048;
/// Number of values of a secret that are masked after they were replaced.
pub const SECRET_EARLIER_MAX: usize = 2;
/// Maximum size in bytes of the name of a secret.
pub const SECRET_NAME_BYTES_MAX: usize = 64;
/// Maximum number of secrets of one plugin.
pub const PLUGIN_SECRETS_MAX: usize = 16;
/// Maximum number of placeholders that are replaced in the headers of one request.
pub const SECRETS_PUT_MAX: usize = 8;
/// Maximum size in bytes of the file of certificate authorities that are trusted besides those that browsers trust.
pub const EXTRA_CA_BYTES_MAX: u64 = 4 * MIB;

// Upkeep.
/// Interval of the store's upkeep.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(300);
/// Time for which finished jobs are kept.
pub const KEEP_FINISHED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Interval at which all finished jobs are looked through for expired ones, and not only those that can have expired lately.
pub const KEEP_WALK_EVERY: Duration = Duration::from_secs(3600);
/// The most by which a clock may go ahead of the time that passes without being doubted.
pub const CLOCK_STEP_MAX: Duration = Duration::from_secs(3600);
/// Time for which nothing is deleted for its age after a reason to doubt the clock.
pub const CLOCK_DOUBTED: Duration = Duration::from_secs(3600);
/// Maximum number of jobs that one transaction of the upkeep reclaims or deletes.
pub const UPKEEP_BATCH: u32 = 500;
/// Maximum number of delayed jobs that one claim makes ready.
pub const PROMOTE_BATCH: u32 = 1000;
/// Maximum number of jobs, or of entries of a job's log, in one page.
pub const PAGE_MAX: u32 = 1000;
/// Number of slot holders that a wait reason, and the report of a discarded job, lists.
pub const HOLDERS_NAMED: usize = 10;
/// Below this number of waiting jobs, a store lists them through their own indexes. Above it, reading all jobs in
/// reverse order of their IDs soon finds enough of them.
pub const WAITING_SORTED_MAX: u32 = 10_000;
/// Maximum size in bytes of a filter of jobs.
pub const FILTER_BYTES_MAX: usize = 16 * KIB as usize;
/// Maximum number of conditions on payloads in a filter: each of them may read the whole payload of each job.
pub const FILTER_PAYLOAD_CONDITIONS_MAX: usize = 8;
/// Maximum size in bytes of the text that a filter looks for in reports.
pub const FILTER_TEXT_BYTES_MAX: usize = 256;
/// Time after which an answer to a filter ends with the jobs that it has found, and says how far it looked.
pub const FIND_TIME: Duration = Duration::from_millis(50);
/// Number of jobs that are looked at whatever time has passed, so that a busy machine does not cut short lists in parts: but for
/// no longer than `FIND_TIMES_MAX` times that time.
pub const FIND_ROWS_MIN: u64 = 2048;
/// See `FIND_ROWS_MIN`.
pub const FIND_TIMES_MAX: u32 = 20;
/// Number of jobs that a store looks at with one statement, at first.
pub const FIND_BATCH: u32 = 512;
/// Maximum number of jobs that one answer to a filter looks at.
pub const FIND_ROWS_MAX: u64 = 1_000_000;
/// The longest time for which an operator may let a plugin hold the keys of its jobs.
pub const KEY_HOLD_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest hold for a `Retry-After`, unless the plugin may hold its keys for another time.
pub const RETRY_AFTER_HOLD_MAX: Duration = Duration::from_secs(3600);
/// Number of waiting jobs that are not due, and of lists of due ones, that a summary looks at.
pub const BACKLOG_ROWS: u32 = 4096;
/// Number of lines of ready jobs that a summary begins with, if there are more than it reaches: those whose jobs are the oldest.
pub const BACKLOG_LINES_FIRST: usize = 128;
/// Number of jobs, or of lists of them, that a summary looks at in each of these lines at least.
pub const BACKLOG_LINE_MIN: u32 = 16;
/// Number of keys that the list of limits shows of each group: those with the most waiting jobs.
pub const LANES_SHOWN: usize = 100;
/// Number of found jobs up to which a preview counts, and of the jobs of one line that a summary counts.
pub const COUNTED_MAX: u32 = 10_000;
/// Maximum number of bulk operations that have not ended.
pub const OPERATIONS_OPEN_MAX: u32 = 100;
/// Maximum number among these whose filters ask why due jobs wait (`state:ready`, `blocked`, `held`): each keeps the holds of its beginning.
pub const OPERATIONS_OPEN_WITH_HOLDS_MAX: u32 = 10;
/// Maximum number of jobs that one step of a bulk operation changes: one transaction, which holds up claims for milliseconds.
pub const OPERATION_JOBS_MAX: u32 = 200;
/// Number of times that a host tries the next step of a bulk operation before it halts the operation with the last error.
pub const OPERATION_STEP_TRIES: u32 = 5;
/// Maximum number of jobs that a bulk operation tries first.
pub const TRIAL_JOBS_MAX: u32 = 100;
/// Time within which the jobs of a trial must succeed, unless its operator sets another.
pub const TRIAL_WITHIN: Duration = Duration::from_secs(600);
/// Time for which a preview of a bulk operation counts jobs on the dashboard, whose pages come within a tenth of a second.
pub const PREVIEW_PAGE_TIME: Duration = Duration::from_millis(50);
/// Time for which a preview of a bulk operation counts jobs, for other clients.
pub const PREVIEW_TIME: Duration = Duration::from_secs(2);
/// The longest time over which a bulk operation spreads jobs, and the longest of a trial.
pub const OPERATION_LENGTH_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Time for which bulk operations that have ended are kept.
pub const OPERATIONS_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);
/// Number of jobs that a preview of a bulk operation shows.
pub const PREVIEW_JOBS: u32 = 10;
/// The distance between the time in a job's ID and the time at which the job was enqueued: an attempt makes the IDs of its children
/// when they are asked for and enqueues them when it ends, and clocks differ.
pub const ID_SLACK: Duration = Duration::from_secs(25 * 3600);
/// Maximum size in bytes of the entries in one page: what each follower of a job holds that does not read. A page has at least
/// one entry, which may be larger.
pub const PAGE_BYTES_MAX: u64 = 64 * KIB;

// Schedules.
/// Maximum number of schedules of a store.
pub const SCHEDULES_MAX: u32 = 100_000;
/// Maximum size in bytes of a cron expression.
pub const CRON_BYTES_MAX: usize = 256;
/// Maximum size in bytes of the payload of a schedule, which each of its jobs gets.
pub const SCHEDULE_PAYLOAD_BYTES_MAX: u64 = 16 * KIB;
/// Maximum size in bytes of the payloads of the schedules in one page.
pub const SCHEDULE_PAGE_BYTES_MAX: u64 = MIB;
/// The next moment of a cron expression must come within this time, or the expression is refused: 29 February may be eight years
/// away.
pub const SCHEDULE_HORIZON: Duration = Duration::from_secs((8 * 366 + 1) * 24 * 3600);
/// The shortest interval of a schedule.
pub const SCHEDULE_EVERY_MIN: Duration = Duration::from_secs(1);
/// The longest interval of a schedule.
pub const SCHEDULE_EVERY_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// A tick that is fired within this time is not missed: hosts start again, and clocks differ.
pub const SCHEDULE_GRACE: Duration = Duration::from_secs(60);
/// Time within which missed ticks are caught up, unless the schedule sets another.
pub const SCHEDULE_WINDOW_DEFAULT: Duration = Duration::from_secs(3600);
/// The longest time within which missed ticks are caught up.
pub const SCHEDULE_WINDOW_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest spread of a schedule.
pub const SCHEDULE_SPREAD_MAX: Duration = Duration::from_secs(24 * 3600);
/// Maximum number of missed ticks that one firing catches up: the newest ones.
pub const SCHEDULE_CATCH_UP_MAX: usize = 100;
/// Number of missed ticks up to which one firing counts; of those that came after, it looks at the newest only.
pub const SCHEDULE_TICKS_COUNTED: u64 = 500;
/// Maximum number of unfinished jobs that a schedule remembers: the newest ones.
pub const SCHEDULE_JOBS_KEPT: usize = 8;
/// Number of last ticks that a schedule remembers.
pub const SCHEDULE_TICKS_KEPT: usize = 16;
/// Maximum number of failures in a row after which a schedule may pause.
pub const SCHEDULE_PAUSE_AFTER_MAX: u32 = 1000;
/// Maximum size in bytes of the reason with which a tick is recorded.
pub const SCHEDULE_REASON_BYTES_MAX: usize = 300;
/// Number of jobs that a host enqueues for schedules in one transaction.
pub const SCHEDULE_JOBS_FIRED_MAX: usize = 256;
/// Number of schedules that a host fires in one transaction, which holds up claims for milliseconds.
pub const SCHEDULES_FIRED_MAX: u32 = 256;

const _: () = {
    assert!(SCHEDULE_PAYLOAD_BYTES_MAX <= PAYLOAD_BYTES_MAX && SCHEDULE_PAYLOAD_BYTES_MAX <= CLAIM_BYTES_MAX);
    assert!(SCHEDULE_PAYLOAD_BYTES_MAX <= SCHEDULE_PAGE_BYTES_MAX, "each schedule fits on a page");
    assert!(SCHEDULE_GRACE.as_secs() <= SCHEDULE_WINDOW_DEFAULT.as_secs());
    assert!(SCHEDULE_CATCH_UP_MAX < SCHEDULE_TICKS_COUNTED as usize, "ticks that can be caught up are counted");
    assert!(
        SCHEDULE_CATCH_UP_MAX as u64 <= SCHEDULE_JOBS_FIRED_MAX as u64,
        "the ticks of one schedule fit one transaction"
    );
    assert!(CHUNK_BYTES_MAX <= UNWRITTEN_BYTES_MAX, "one chunk may wait to be stored");
    assert!(CHUNK_BYTES_MAX <= CHUNKS_BYTES_MAX);
    assert!(
        KV_VALUE_BYTES_MAX + KV_KEY_BYTES_MAX as u64 <= KV_WRITES_BYTES_MAX,
        "an attempt can change the largest value"
    );
    assert!(KV_WRITES_BYTES_MAX <= KV_BYTES_DEFAULT && KV_BYTES_DEFAULT <= KV_BYTES_MAX);
    assert!(LOG_LINE_BYTES_MAX <= UNWRITTEN_BYTES_MAX);
    assert!(
        OUTPUT_BYTES_MAX < HOSTCALL_BYTES_MAX && PAYLOAD_BYTES_MAX < HOSTCALL_BYTES_MAX,
        "a payload fits one host call"
    );
    assert!(PAYLOAD_BYTES_MAX <= BATCH_BYTES_MAX);
    assert!(PAYLOAD_BYTES_MAX <= CLAIM_BYTES_MAX, "any job can be claimed");
    assert!(MEMORY_BYTES_DEFAULT <= MEMORY_BYTES_MAX);
    assert!(WASM_STACK_BYTES < ASYNC_STACK_BYTES);
    assert!(DRAIN_TIMEOUT.as_secs() + 8 < 30, "a host exits before Kubernetes kills it");
    assert!(
        0 < SUSPECT_CRASHES && SUSPECT_CRASHES + 1 < CRASHES_MAX,
        "a job is not failed because one host died by chance"
    );
    assert!(ID_SLACK.as_secs() > TIMEOUT_MAX.as_secs(), "the ID of a child may be as old as an attempt is long");
    assert!(ATTEMPTS_DEFAULT <= ATTEMPTS_MAX);
    assert!(ATTEMPTS_KEPT_OLDEST > 0 && ATTEMPTS_KEPT_NEWEST > 0);
    assert!(ATTEMPT_REPORT_BYTES_MAX as u64 <= REPORT_BYTES_MAX);
    assert!(BROADCAST_CALLS_DEFAULT <= BROADCAST_CALLS_MAX && BROADCAST_DEPTH_MAX > 0);
    assert!((ATTEMPTS_MAX + 2 * BROADCAST_CALLS_MAX) * 6 < 65_530, "all sandboxes fit the kernel's default map count");
    assert!(OUTPUT_BYTES_MAX <= REPLIES_BYTES_MAX, "one reply can be as large as any result");
    assert!(RECEIVE_TIMEOUT_DEFAULT.as_secs() <= TIMEOUT_DEFAULT.as_secs());
    assert!(CPU_DEFAULT.as_secs() <= TIMEOUT_DEFAULT.as_secs());
};
