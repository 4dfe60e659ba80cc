//! Rust types and traits of the contract, generated from `wit/`.

wasmtime::component::bindgen!({
    path: "../../wit",
    // Everything in the contract; what is in none of its worlds needs a grant.
    inline: "package wharf:host; world plugin { include wharf:plugin/plugin@0.1.0; import wharf:plugin/kv@0.1.0;
             import wharf:plugin/holds@0.1.0; import wharf:plugin/schedule@0.1.0; }",
    world: "wharf:host/plugin",
    imports: {
        "wharf:plugin/attempt.emit": async | trappable,
        "wharf:plugin/broadcasts.broadcast": async | trappable,
        "wharf:plugin/jobs.enqueue": async | trappable,
        // What the host keeps of a guest waits for room in the budget of memory.
        "wharf:plugin/jobs.[constructor]new-job": async | trappable,
        "wharf:plugin/jobs.[method]new-job.key": async | trappable,
        "wharf:plugin/jobs.[method]new-job.token": async | trappable,
        "wharf:plugin/kv": async | trappable,
        "wharf:plugin/holds": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    // What the host passes to a guest is written to its memory from where it is.
    ownership: Borrowing { duplicate_if_necessary: false },
    with: { "wharf:plugin/jobs.new-job": crate::call::GuestJob },
});
