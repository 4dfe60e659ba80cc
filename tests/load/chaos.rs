//! Counts the jobs that are lost, run twice or exceed a limit when something breaks, and measures the time to recover.
//!
//! `cargo bench --workspace --bench chaos`

#[path = "../harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the harness serves the tests, too")]
mod harness;

#[path = "../chaos/mod.rs"]
#[expect(unused_imports, reason = "it serves the tests, too")]
mod chaos;

use std::time::Duration;

use chaos::{Fault, Scale, Where};

fn main() {
    let scale = Scale { before: 2000, repeats: 10, lease: Duration::from_secs(6) };
    chaos::print_head(&scale);
    for fault in Fault::ALL {
        chaos::run(Where::Cluster, fault, &scale).print();
    }
    for fault in Fault::OF_A_FILE {
        chaos::run(Where::File, fault, &scale).print();
    }
}
