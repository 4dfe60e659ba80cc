//! Every block of settings and every manifest in the documents is one that the program takes.

use wharf_core::time::Timestamp;
use wharf_engine::spec::raw::RawManifest;

use super::World;
use crate::config::Problems;
use crate::config::file;
use crate::documents::blocks;

#[test]
fn every_block_of_settings_is_taken() {
    let (mut settings, mut manifests) = (0, 0);
    for block in blocks().into_iter().filter(|block| block.language == "toml") {
        // A manifest says so behind its fence, or names its file: `# htmlq.toml`.
        let named = block.text.lines().next().and_then(|line| line.strip_prefix("# "));
        let is_of_plugin =
            block.info == "manifest" || named.is_some_and(|name| name.ends_with(".toml") && name != "wharf.toml");
        if is_of_plugin {
            manifests += 1;
            if let Err(error) = toml::from_str::<RawManifest>(&block.text) {
                panic!("{}: {error}", block.place);
            }
        } else {
            settings += 1;
            let mut problems = Problems::default();
            let path = std::path::Path::new("wharf.toml");
            let now = Timestamp::from_millis(1_800_000_000_000);
            let _values = file::read(path, &block.text, now, &mut problems);
            assert!(problems.is_empty(), "{}: {problems}", block.place);
            // Settings are checked together where they name no file or folder that must exist.
            if !block.text.contains("from = ")
                && !block.text.contains("dirs = ")
                && let Err(error) = World::new(&block.text).read()
            {
                panic!("{}: {error}", block.place);
            }
        }
    }
    assert!(settings > 5 && manifests > 1, "the blocks are found: {settings} of settings, {manifests} manifests");
}
