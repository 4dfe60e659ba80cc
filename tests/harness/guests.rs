//! Real components, built from source once, and real pictures.

use std::path::PathBuf;

/// The component of a folder in `plugins/`, built now if its source changed.
pub(crate) fn component(name: &str) -> PathBuf {
    plugins::build(name).unwrap_or_else(|error| panic!("could not build plugins/{name}: {error}"))
}

/// A picture of `tests/data/`.
pub(crate) fn photo(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name);
    assert!(path.is_file(), "{} is missing", path.display());
    path
}
