//! The hard limits of the host, named for users. Settings choose values within them; nothing exceeds them.

use std::time::Duration;

use bytesize::ByteSize;
use wharf_core::bounds as hard;

use wharf_engine::spec::duration::HumanDuration;

/// Returns the name and the value of every bound in `wharf_core::bounds`, in the order in which they are declared there.
pub(crate) fn hard_bounds() -> Vec<(&'static str, String)> {
    let bytes = |n: u64| ByteSize(n).display().iec().to_string();
    let duration = |d: Duration| HumanDuration(d).to_string();
    vec![
        ("name-bytes-max", bytes(hard::NAME_BYTES_MAX as u64)),
        ("key-bytes-max", bytes(hard::KEY_BYTES_MAX as u64)),
        ("token-bytes-max", bytes(hard::TOKEN_BYTES_MAX as u64)),
        ("topic-bytes-max", bytes(hard::TOPIC_BYTES_MAX as u64)),
        ("topic-tokens-max", hard::TOPIC_TOKENS_MAX.to_string()),
        ("payload-bytes-max", bytes(hard::PAYLOAD_BYTES_MAX)),
        ("output-bytes-max", bytes(hard::OUTPUT_BYTES_MAX)),
        ("chunk-bytes-max", bytes(hard::CHUNK_BYTES_MAX)),
        ("chunks-bytes-max", bytes(hard::CHUNKS_BYTES_MAX)),
        ("chunks-max", hard::CHUNKS_MAX.to_string()),
        ("log-line-bytes-max", bytes(hard::LOG_LINE_BYTES_MAX)),
        ("log-bytes-max", bytes(hard::LOG_BYTES_MAX)),
        ("log-lines-max", hard::LOG_LINES_MAX.to_string()),
        ("progress-note-bytes-max", bytes(hard::PROGRESS_NOTE_BYTES_MAX)),
        ("progress-every", duration(hard::PROGRESS_EVERY)),
        ("report-bytes-max", bytes(hard::REPORT_BYTES_MAX)),
        ("version-bytes-max", bytes(hard::VERSION_BYTES_MAX as u64)),
        ("attempts-kept-oldest", hard::ATTEMPTS_KEPT_OLDEST.to_string()),
        ("attempts-kept-newest", hard::ATTEMPTS_KEPT_NEWEST.to_string()),
        ("attempt-report-bytes-max", bytes(hard::ATTEMPT_REPORT_BYTES_MAX as u64)),
        ("batch-jobs-max", hard::BATCH_JOBS_MAX.to_string()),
        ("batch-bytes-max", bytes(hard::BATCH_BYTES_MAX)),
        ("claim-bytes-max", bytes(hard::CLAIM_BYTES_MAX)),
        ("jobs-waiting-default", hard::JOBS_WAITING_DEFAULT.to_string()),
        ("jobs-waiting-max", hard::JOBS_WAITING_MAX.to_string()),
        ("generations-default", hard::GENERATIONS_DEFAULT.to_string()),
        ("generations-max", hard::GENERATIONS_MAX.to_string()),
        ("generation-pause", duration(hard::GENERATION_PAUSE)),
        ("holds-max", hard::HOLDS_MAX.to_string()),
        ("hold-reason-bytes-max", bytes(hard::HOLD_REASON_BYTES_MAX as u64)),
        ("active-tasks-max", hard::ACTIVE_TASKS_MAX.to_string()),
        ("top-keys-max", hard::TOP_KEYS_MAX.to_string()),
        ("audit-kept", duration(hard::AUDIT_KEPT)),
        ("author-bytes-max", bytes(hard::AUTHOR_BYTES_MAX as u64)),
        ("act-target-bytes-max", bytes(hard::ACT_TARGET_BYTES_MAX as u64)),
        ("act-detail-bytes-max", bytes(hard::ACT_DETAIL_BYTES_MAX as u64)),
        ("acts-read-max", hard::ACTS_READ_MAX.to_string()),
        ("failure-groups-max", hard::FAILURE_GROUPS_MAX.to_string()),
        ("keep-failure-groups", duration(hard::KEEP_FAILURE_GROUPS)),
        ("failure-keys-max", hard::FAILURE_KEYS_MAX.to_string()),
        ("failure-versions-max", hard::FAILURE_VERSIONS_MAX.to_string()),
        ("failure-samples-max", hard::FAILURE_SAMPLES_MAX.to_string()),
        ("failure-sample-bytes-max", bytes(hard::FAILURE_SAMPLE_BYTES_MAX as u64)),
        ("plugin-digests-max", hard::PLUGIN_DIGESTS_MAX.to_string()),
        ("unwritten-bytes-max", bytes(hard::UNWRITTEN_BYTES_MAX)),
        ("unwritten-entries-max", hard::UNWRITTEN_ENTRIES_MAX.to_string()),
        ("kv-key-bytes-max", bytes(hard::KV_KEY_BYTES_MAX as u64)),
        ("kv-value-bytes-max", bytes(hard::KV_VALUE_BYTES_MAX)),
        ("kv-writes-max", hard::KV_WRITES_MAX.to_string()),
        ("kv-writes-bytes-max", bytes(hard::KV_WRITES_BYTES_MAX)),
        ("kv-page-max", hard::KV_PAGE_MAX.to_string()),
        ("kv-values-max", hard::KV_VALUES_MAX.to_string()),
        ("kv-bytes-default", bytes(hard::KV_BYTES_DEFAULT)),
        ("kv-bytes-max", bytes(hard::KV_BYTES_MAX)),
        ("kv-reads-at-once", hard::KV_READS_AT_ONCE.to_string()),
        ("memory-bytes-max", bytes(hard::MEMORY_BYTES_MAX)),
        ("memory-bytes-default", bytes(hard::MEMORY_BYTES_DEFAULT)),
        ("table-elements-max", hard::TABLE_ELEMENTS_MAX.to_string()),
        ("instances-max", hard::INSTANCES_MAX.to_string()),
        ("memories-max", hard::MEMORIES_MAX.to_string()),
        ("tables-max", hard::TABLES_MAX.to_string()),
        ("handles-max", hard::HANDLES_MAX.to_string()),
        ("host-resources-max", hard::HOST_RESOURCES_MAX.to_string()),
        ("hostcall-bytes-max", bytes(hard::HOSTCALL_BYTES_MAX)),
        ("attempt-bytes", bytes(hard::ATTEMPT_BYTES)),
        ("first-pages-max", bytes(hard::FIRST_PAGES_MAX)),
        ("first-pages-reserved", bytes(hard::FIRST_PAGES_RESERVED)),
        ("host-bytes", bytes(hard::HOST_BYTES)),
        ("memory-budget-min", bytes(hard::MEMORY_BUDGET_MIN)),
        ("wasm-stack-bytes", bytes(hard::WASM_STACK_BYTES as u64)),
        ("async-stack-bytes", bytes(hard::ASYNC_STACK_BYTES as u64)),
        ("random-bytes-max", bytes(hard::RANDOM_BYTES_MAX)),
        ("tick", duration(hard::TICK)),
        ("timeout-default", duration(hard::TIMEOUT_DEFAULT)),
        ("timeout-max", duration(hard::TIMEOUT_MAX)),
        ("receive-timeout-default", duration(hard::RECEIVE_TIMEOUT_DEFAULT)),
        ("cpu-default", duration(hard::CPU_DEFAULT)),
        ("cancel-grace", duration(hard::CANCEL_GRACE)),
        ("drain-timeout", duration(hard::DRAIN_TIMEOUT)),
        ("lease", duration(hard::LEASE)),
        ("lease-renewals", hard::LEASE_RENEWALS.to_string()),
        ("lease-margin", duration(hard::LEASE_MARGIN)),
        ("write-timeout", duration(hard::WRITE_TIMEOUT)),
        ("retry-attempts-default", hard::RETRY_ATTEMPTS_DEFAULT.to_string()),
        ("retry-attempts-max", hard::RETRY_ATTEMPTS_MAX.to_string()),
        ("backoff-min-default", duration(hard::BACKOFF_MIN_DEFAULT)),
        ("backoff-max-default", duration(hard::BACKOFF_MAX_DEFAULT)),
        ("suspect-crashes", hard::SUSPECT_CRASHES.to_string()),
        ("crashes-max", hard::CRASHES_MAX.to_string()),
        ("describe-timeout", duration(hard::DESCRIBE_TIMEOUT)),
        ("component-bytes-max", bytes(hard::COMPONENT_BYTES_MAX)),
        ("component-depth-max", hard::COMPONENT_DEPTH_MAX.to_string()),
        ("component-items-max", hard::COMPONENT_ITEMS_MAX.to_string()),
        ("component-names-max", hard::COMPONENT_NAMES_MAX.to_string()),
        ("component-name-bytes-max", bytes(hard::COMPONENT_NAME_BYTES_MAX as u64)),
        ("function-name-bytes-max", bytes(hard::FUNCTION_NAME_BYTES_MAX as u64)),
        ("function-names-bytes-max", bytes(hard::FUNCTION_NAMES_BYTES_MAX as u64)),
        ("source-lines-max", hard::SOURCE_LINES_MAX.to_string()),
        ("source-files-max", hard::SOURCE_FILES_MAX.to_string()),
        ("source-files-bytes-max", bytes(hard::SOURCE_FILES_BYTES_MAX as u64)),
        ("problems-max", hard::PROBLEMS_MAX.to_string()),
        ("refusal-bytes-max", bytes(hard::REFUSAL_BYTES_MAX as u64)),
        ("problem-bytes-max", bytes(hard::PROBLEM_BYTES_MAX as u64)),
        ("refusal-line-bytes-max", bytes(hard::REFUSAL_LINE_BYTES_MAX as u64)),
        ("description-bytes-max", bytes(hard::DESCRIPTION_BYTES_MAX)),
        ("manifest-bytes-max", bytes(hard::MANIFEST_BYTES_MAX)),
        ("plugins-max", hard::PLUGINS_MAX.to_string()),
        ("functions-max", hard::FUNCTIONS_MAX.to_string()),
        ("types-max", hard::TYPES_MAX.to_string()),
        ("type-members-max", hard::TYPE_MEMBERS_MAX.to_string()),
        ("type-names-bytes-max", bytes(hard::TYPE_NAMES_BYTES_MAX as u64)),
        ("type-expanded-max", hard::TYPE_EXPANDED_MAX.to_string()),
        ("program-args-max", hard::PROGRAM_ARGS_MAX.to_string()),
        ("program-args-bytes-max", bytes(hard::PROGRAM_ARGS_BYTES_MAX as u64)),
        ("tasks-max", hard::TASKS_MAX.to_string()),
        ("patterns-max", hard::PATTERNS_MAX.to_string()),
        ("schema-checks-max", hard::SCHEMA_CHECKS_MAX.to_string()),
        ("batch-schema-checks-max", hard::BATCH_SCHEMA_CHECKS_MAX.to_string()),
        ("published-schema-bytes-max", bytes(hard::PUBLISHED_SCHEMA_BYTES_MAX as u64)),
        ("published-schemas-bytes-max", bytes(hard::PUBLISHED_SCHEMAS_BYTES_MAX as u64)),
        ("topics-max", hard::TOPICS_MAX.to_string()),
        ("compile-memory-bytes-max", bytes(hard::COMPILE_MEMORY_BYTES_MAX)),
        ("inspect-timeout", duration(hard::INSPECT_TIMEOUT)),
        ("compile-timeout", duration(hard::COMPILE_TIMEOUT)),
        ("compiles-at-once", hard::COMPILES_AT_ONCE.to_string()),
        ("cache-bytes-default", bytes(hard::CACHE_BYTES_DEFAULT)),
        ("cache-bytes-min", bytes(hard::CACHE_BYTES_MIN)),
        ("load-retry-min", duration(hard::LOAD_RETRY_MIN)),
        ("load-retry-max", duration(hard::LOAD_RETRY_MAX)),
        ("attempts-default", hard::ATTEMPTS_DEFAULT.to_string()),
        ("attempts-max", hard::ATTEMPTS_MAX.to_string()),
        ("broadcast-timeout-default", duration(hard::BROADCAST_TIMEOUT_DEFAULT)),
        ("broadcast-timeout-max", duration(hard::BROADCAST_TIMEOUT_MAX)),
        ("broadcasts-default", hard::BROADCASTS_DEFAULT.to_string()),
        ("broadcasts-max", hard::BROADCASTS_MAX.to_string()),
        ("broadcast-calls-default", hard::BROADCAST_CALLS_DEFAULT.to_string()),
        ("broadcast-calls-max", hard::BROADCAST_CALLS_MAX.to_string()),
        ("broadcast-depth-max", hard::BROADCAST_DEPTH_MAX.to_string()),
        ("replies-bytes-max", bytes(hard::REPLIES_BYTES_MAX)),
        ("http-connect-timeout", duration(hard::HTTP_CONNECT_TIMEOUT)),
        ("http-lookups-max", hard::HTTP_LOOKUPS_MAX.to_string()),
        ("http-headers-bytes-max", bytes(hard::HTTP_HEADERS_BYTES_MAX as u64)),
        ("http-body-bytes-max", bytes(hard::HTTP_BODY_BYTES_MAX)),
        ("http-requests-max", hard::HTTP_REQUESTS_MAX.to_string()),
        ("extra-ca-bytes-max", bytes(hard::EXTRA_CA_BYTES_MAX)),
        ("upkeep-interval", duration(hard::UPKEEP_INTERVAL)),
        ("keep-finished", duration(hard::KEEP_FINISHED)),
        ("upkeep-batch", hard::UPKEEP_BATCH.to_string()),
        ("promote-batch", hard::PROMOTE_BATCH.to_string()),
        ("page-max", hard::PAGE_MAX.to_string()),
        ("holders-named", hard::HOLDERS_NAMED.to_string()),
        ("waiting-sorted-max", hard::WAITING_SORTED_MAX.to_string()),
        ("filter-bytes-max", bytes(hard::FILTER_BYTES_MAX as u64)),
        ("find-time", duration(hard::FIND_TIME)),
        ("find-rows-min", hard::FIND_ROWS_MIN.to_string()),
        ("find-times-max", hard::FIND_TIMES_MAX.to_string()),
        ("find-batch", hard::FIND_BATCH.to_string()),
        ("find-rows-max", hard::FIND_ROWS_MAX.to_string()),
        ("counted-max", hard::COUNTED_MAX.to_string()),
        ("operations-open-max", hard::OPERATIONS_OPEN_MAX.to_string()),
        ("operation-jobs-max", hard::OPERATION_JOBS_MAX.to_string()),
        ("trial-jobs-max", hard::TRIAL_JOBS_MAX.to_string()),
        ("trial-within", duration(hard::TRIAL_WITHIN)),
        ("operation-length-max", duration(hard::OPERATION_LENGTH_MAX)),
        ("operations-kept", duration(hard::OPERATIONS_KEPT)),
        ("preview-jobs", hard::PREVIEW_JOBS.to_string()),
        ("id-slack", duration(hard::ID_SLACK)),
        ("page-bytes-max", bytes(hard::PAGE_BYTES_MAX)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bound_is_left_out() {
        let source = include_str!("../../../core/src/bounds.rs");
        let declared: Vec<String> = source
            .lines()
            .filter_map(|line| line.strip_prefix("pub const ")?.split_once(':'))
            .map(|(name, _)| name.to_ascii_lowercase().replace('_', "-"))
            .filter(|name| name != "kib" && name != "mib")
            .collect();
        let shown: Vec<&str> = hard_bounds().iter().map(|(name, _)| *name).collect();
        assert_eq!(shown, declared);
    }

    #[test]
    fn bounds_are_shown_with_their_units() {
        let bounds = hard_bounds();
        let of = |name| &bounds.iter().find(|(n, _)| *n == name).unwrap().1;
        assert_eq!(of("payload-bytes-max"), "32.0 MiB");
        assert_eq!(of("lease"), "30s");
        assert_eq!(of("keep-finished"), "7d");
    }
}
