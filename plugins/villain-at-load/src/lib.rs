//! A plugin that no host should load: a feature chooses what `describe` does.

use exports::wharf::plugin::{
    handler::{self, Failure, Job},
    manifest,
};

wit_bindgen::generate!({ path: "../../wit", world: "handler-plugin" });

struct AtLoad;

impl manifest::Guest for AtLoad {
    fn describe() -> String {
        if cfg!(feature = "slow") {
            let mut turns = 0_u64;
            loop {
                turns = std::hint::black_box(turns.wrapping_add(1));
            }
        }
        if cfg!(feature = "trap") {
            panic!("no manifest today");
        }
        // Line 5 has a key that nobody knows, close to one that exists.
        include_str!("../bad-manifest.toml").into()
    }
}

impl handler::Guest for AtLoad {
    fn handle(_: Job) -> Result<Vec<u8>, Failure> {
        Err(Failure::Discard(
            "a plugin that cannot be loaded was called".into(),
        ))
    }
}

export!(AtLoad);
