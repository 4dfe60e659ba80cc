//! Every hard limit of the host on one page, and how they relate.
//! Settings may choose values inside these; nothing may go beyond them.

use std::time::Duration;

pub const KIB: u64 = 1024;
pub const MIB: u64 = 1024 * KIB;

// Names and keys.
pub const NAME_BYTES_MAX: usize = 64;
pub const KEY_BYTES_MAX: usize = 256;
pub const TOKEN_BYTES_MAX: usize = 256;
pub const TOPIC_BYTES_MAX: usize = 256;
pub const TOPIC_TOKENS_MAX: usize = 16;

// What goes in and comes out of a job.
pub const PAYLOAD_BYTES_MAX: u64 = 32 * MIB;
/// Of one attempt's result.
pub const OUTPUT_BYTES_MAX: u64 = 32 * MIB;
/// Of one chunk.
pub const CHUNK_BYTES_MAX: u64 = MIB;
/// Of all chunks of one attempt.
pub const CHUNKS_BYTES_MAX: u64 = 64 * MIB;
pub const CHUNKS_MAX: u64 = 100_000;
/// A longer line is cut, and says so.
pub const LOG_LINE_BYTES_MAX: u64 = 64 * KIB;
/// Of one attempt's log; what comes after is dropped and counted.
pub const LOG_BYTES_MAX: u64 = 4 * MIB;
/// Of one attempt's log: each line costs a row, however short it is.
pub const LOG_LINES_MAX: u64 = 50_000;
pub const PROGRESS_NOTE_BYTES_MAX: u64 = KIB;
/// Progress is kept at most this often.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Of a report: the backtrace, the last lines of stderr.
pub const REPORT_BYTES_MAX: u64 = 16 * KIB;
/// Jobs in one request, and jobs that one attempt enqueues.
pub const BATCH_JOBS_MAX: usize = 10_000;
/// Bytes of payload in one request, and in what one attempt enqueues.
pub const BATCH_BYTES_MAX: u64 = 64 * MIB;
/// Bytes of payload in one claim; its first job may be larger.
pub const CLAIM_BYTES_MAX: u64 = 64 * MIB;

// What waits between an attempt and the store; a chunk waits for room, a log line is dropped.
pub const UNWRITTEN_BYTES_MAX: u64 = 2 * MIB;
pub const UNWRITTEN_ENTRIES_MAX: usize = 1024;

// What a plugin keeps from one attempt to the next.
pub const KV_KEY_BYTES_MAX: usize = 512;
pub const KV_VALUE_BYTES_MAX: u64 = MIB;
/// Values that one attempt changes.
pub const KV_WRITES_MAX: usize = 1000;
/// Of keys and values that one attempt changes.
pub const KV_WRITES_BYTES_MAX: u64 = 4 * MIB;
/// Keys in one page.
pub const KV_PAGE_MAX: u32 = 1000;
/// Values of one plugin. Attempts that run side by side may together go past this and the next two, by what these
/// attempts may change: what a guest is granted is judged when it asks, and its success is never undone for it.
pub const KV_VALUES_MAX: u64 = 1_000_000;
/// Of keys and values of one plugin, where `wharf.toml` grants it no other size.
pub const KV_BYTES_DEFAULT: u64 = 64 * MIB;
/// The largest size that can be granted.
pub const KV_BYTES_MAX: u64 = 64 * 1024 * MIB;
/// Questions of guests to the store at once, on one node.
pub const KV_READS_AT_ONCE: usize = 4;

// A sandbox.
/// Of all memories of one attempt; a manifest may ask for less or more, up to this.
pub const MEMORY_BYTES_MAX: u64 = 1024 * MIB;
pub const MEMORY_BYTES_DEFAULT: u64 = 128 * MIB;
pub const TABLE_ELEMENTS_MAX: usize = 100_000;
pub const INSTANCES_MAX: usize = 64;
pub const MEMORIES_MAX: usize = 32;
pub const TABLES_MAX: usize = 32;
/// Resource handles that a guest may hold.
pub const HANDLES_MAX: usize = 4096;
/// What a guest may hold open of the host: streams, pollables, files, requests.
pub const HOST_RESOURCES_MAX: usize = 256;
/// What crosses between guest and host in one call, in bytes.
pub const HOSTCALL_BYTES_MAX: u64 = 40 * MIB;
pub const WASM_STACK_BYTES: usize = 512 * KIB as usize;
pub const ASYNC_STACK_BYTES: usize = 2 * MIB as usize;
/// Random bytes in one request.
pub const RANDOM_BYTES_MAX: u64 = MIB;

// Time.
pub const TICK: Duration = Duration::from_millis(1);
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Of one subscriber's answer to a broadcast.
pub const RECEIVE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
pub const CPU_DEFAULT: Duration = Duration::from_secs(10);
/// From the request to cancel until the sandbox is stopped.
pub const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// With what the end of a host takes beside it, well below the 30 s after which Kubernetes kills what it stops.
pub const DRAIN_PATIENCE: Duration = Duration::from_secs(20);
pub const LEASE: Duration = Duration::from_secs(30);
/// Leases are renewed this often, and trusted this much less than they are long.
pub const LEASE_RENEWALS: u32 = 3;
pub const LEASE_MARGIN: Duration = Duration::from_secs(3);
/// For the store's answer to what people ask it to write: longer than a fault that mends itself, shorter than people wait.
pub const WRITE_PATIENCE: Duration = Duration::from_secs(20);
pub const RETRY_ATTEMPTS_DEFAULT: u32 = 5;
pub const RETRY_ATTEMPTS_MAX: u32 = 1000;
pub const BACKOFF_MIN_DEFAULT: Duration = Duration::from_secs(1);
pub const BACKOFF_MAX_DEFAULT: Duration = Duration::from_secs(300);
/// A job whose attempts ended with their host this often may be what kills hosts: it runs alone from then on.
pub const SUSPECT_CRASHES: u32 = 3;
/// A job whose attempts end with their host this often, the last one while it ran alone, is failed.
pub const CRASHES_MAX: u32 = 5;
/// `describe` is called at load.
pub const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

// Plugins.
pub const COMPONENT_BYTES_MAX: u64 = 64 * MIB;
/// Modules and components within components.
pub const COMPONENT_DEPTH_MAX: usize = 32;
/// Types, imports, exports, functions and all else that a component's sections list, with those of its modules. The host
/// keeps something for each of them, so that this bounds what a loaded plugin costs besides its code.
pub const COMPONENT_ITEMS_MAX: u64 = 500_000;
/// Interfaces that a component imports, or whose names are shown of what it exports.
pub const COMPONENT_NAMES_MAX: usize = 200;
/// Of one such name.
pub const COMPONENT_NAME_BYTES_MAX: usize = 200;
/// Of one function's name in a trap's report.
pub const FUNCTION_NAME_BYTES_MAX: usize = 200;
/// Of all names of functions that are kept of one component.
pub const FUNCTION_NAMES_BYTES_MAX: usize = 2 * MIB as usize;
/// Places in the sources that are kept of one component, 10 bytes each: where a new line begins.
pub const SOURCE_LINES_MAX: usize = 64 * KIB as usize;
/// Files of the sources, and the bytes of all their names.
pub const SOURCE_FILES_MAX: usize = 4096;
pub const SOURCE_FILES_BYTES_MAX: usize = 64 * KIB as usize;
/// Of a file's refusal: problems that are told, with the bytes of all of them, and of one's two texts each.
pub const PROBLEMS_MAX: usize = 20;
pub const REFUSAL_BYTES_MAX: usize = 8 * KIB as usize;
pub const PROBLEM_BYTES_MAX: usize = 2 * KIB as usize;
/// Of a refusal where something else quotes it.
pub const REFUSAL_LINE_BYTES_MAX: usize = 300;
/// Of what is kept of a file that was read, besides its code.
pub const DESCRIPTION_BYTES_MAX: u64 = 2 * MIB;
pub const MANIFEST_BYTES_MAX: u64 = 64 * KIB;
pub const PLUGINS_MAX: usize = 1000;
pub const TASKS_MAX: usize = 64;
/// Regular expressions in all payload schemas of one plugin: each may take half a MiB of the host.
pub const PATTERNS_MAX: usize = 64;
/// Of one payload schema that a host tells the others, so that they can take jobs for what only it has; and of all that it tells.
pub const TOLD_SCHEMA_BYTES_MAX: usize = 16 * KIB as usize;
pub const TOLD_SCHEMAS_BYTES_MAX: usize = 256 * KIB as usize;
/// Subscriptions of one plugin.
pub const TOPICS_MAX: usize = 64;
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 4096 * MIB;
/// Of the processor, for looking at a component before it is compiled.
pub const INSPECT_TIMEOUT: Duration = Duration::from_secs(20);
pub const COMPILE_TIMEOUT: Duration = Duration::from_secs(300);
pub const COMPILES_AT_ONCE: usize = 1;

// Attempts at once on one node.
pub const ATTEMPTS_DEFAULT: u32 = 256;
/// Six memory mappings each; the kernel's default map count ends near 10,900.
pub const ATTEMPTS_MAX: u32 = 8000;

// Broadcasts.
/// For the whole, where nobody says how long.
pub const BROADCAST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
pub const BROADCAST_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Of one depth, open at the same time; the next one is refused.
pub const BROADCASTS_DEFAULT: u32 = 64;
pub const BROADCASTS_MAX: u32 = 1024;
/// Subscribers called at once by broadcasts from outside; broadcasts within broadcasts have a share of their own at each
/// depth, half as large as the one before.
pub const BROADCAST_CALLS_DEFAULT: u32 = 1024;
pub const BROADCAST_CALLS_MAX: u32 = 1400;
/// Broadcasts within broadcasts, the first one counted.
pub const BROADCAST_DEPTH_MAX: u32 = 4;
/// Of all replies to one broadcast; one that does not fit any more is not kept.
pub const REPLIES_BYTES_MAX: u64 = 32 * MIB;

// Outbound HTTP of plugins.
pub const HTTP_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Names looked up at once, by all attempts of the process.
pub const HTTP_LOOKUPS_MAX: usize = 16;
/// Of all headers of a request or a response.
pub const HTTP_HEADERS_BYTES_MAX: usize = 16 * KIB as usize;
pub const HTTP_BODY_BYTES_MAX: u64 = 16 * MIB;
pub const HTTP_REQUESTS_MAX: u32 = 100;

// Upkeep.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(300);
pub const KEEP_FINISHED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Rows in one transaction of reclaiming and forgetting.
pub const UPKEEP_BATCH: u32 = 500;
/// Delayed jobs that one claim makes ready.
pub const PROMOTE_BATCH: u32 = 1000;
/// Jobs, or entries of a job's log, in one page.
pub const PAGE_MAX: u32 = 1000;
/// Slot holders that a wait reason or a refused job lists.
pub const HOLDERS_NAMED: usize = 10;
/// Fewer waiting jobs than this are listed through their own indexes; if there are more, a listing soon meets them by reading
/// all jobs in reverse order of their ids.
pub const WAITING_SORTED_MAX: u32 = 10_000;
/// Of the entries in one page; a page has at least one, which may be larger.
pub const PAGE_BYTES_MAX: u64 = 4 * MIB;

const _: () = {
    assert!(CHUNK_BYTES_MAX <= UNWRITTEN_BYTES_MAX, "one chunk fits what may wait");
    assert!(CHUNK_BYTES_MAX <= CHUNKS_BYTES_MAX);
    assert!(
        KV_VALUE_BYTES_MAX + KV_KEY_BYTES_MAX as u64 <= KV_WRITES_BYTES_MAX,
        "an attempt can change the largest value"
    );
    assert!(KV_WRITES_BYTES_MAX <= KV_BYTES_DEFAULT && KV_BYTES_DEFAULT <= KV_BYTES_MAX);
    assert!(LOG_LINE_BYTES_MAX <= UNWRITTEN_BYTES_MAX);
    assert!(OUTPUT_BYTES_MAX < HOSTCALL_BYTES_MAX && PAYLOAD_BYTES_MAX < HOSTCALL_BYTES_MAX, "a payload can cross");
    assert!(PAYLOAD_BYTES_MAX <= BATCH_BYTES_MAX);
    assert!(PAYLOAD_BYTES_MAX <= CLAIM_BYTES_MAX, "any job can be claimed");
    assert!(MEMORY_BYTES_DEFAULT <= MEMORY_BYTES_MAX);
    assert!(WASM_STACK_BYTES < ASYNC_STACK_BYTES);
    assert!(DRAIN_PATIENCE.as_secs() + 8 < 30, "a host ends before those who stop it lose their patience");
    assert!(
        0 < SUSPECT_CRASHES && SUSPECT_CRASHES + 1 < CRASHES_MAX,
        "a job is not failed for one host that died by chance"
    );
    assert!(ATTEMPTS_DEFAULT <= ATTEMPTS_MAX);
    assert!(BROADCAST_CALLS_DEFAULT <= BROADCAST_CALLS_MAX && BROADCAST_DEPTH_MAX > 0);
    assert!((ATTEMPTS_MAX + 2 * BROADCAST_CALLS_MAX) * 6 < 65_530, "all sandboxes fit the kernel's default map count");
    assert!(OUTPUT_BYTES_MAX <= REPLIES_BYTES_MAX, "one reply can be as large as any result");
    assert!(RECEIVE_TIMEOUT_DEFAULT.as_secs() <= TIMEOUT_DEFAULT.as_secs());
    assert!(CPU_DEFAULT.as_secs() <= TIMEOUT_DEFAULT.as_secs());
};
