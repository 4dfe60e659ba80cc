//! A plugin as it is in a folder: a component, and perhaps a manifest beside it. The two are one version.

use std::sync::Arc;

use sha2::{Digest, Sha256};

/// The content of `NAME.wasm`, and that of `NAME.toml` if there is one.
#[derive(Clone, Debug)]
pub struct PluginFile {
    /// The component.
    pub component: Arc<[u8]>,
    /// The manifest beside it.
    pub manifest: Option<Arc<[u8]>>,
}

impl PluginFile {
    /// Returns the digest of the version, in hex: of the component, or of both files. `component` is the component's.
    pub(crate) fn digest(&self, component: &str) -> String {
        let Some(manifest) = &self.manifest else { return component.to_owned() };
        let mut digest = Sha256::new();
        digest.update(component);
        digest.update(b"\n");
        digest.update(manifest);
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl From<Arc<[u8]>> for PluginFile {
    fn from(component: Arc<[u8]>) -> PluginFile {
        PluginFile { component, manifest: None }
    }
}

impl From<Vec<u8>> for PluginFile {
    fn from(component: Vec<u8>) -> PluginFile {
        PluginFile::from(Arc::<[u8]>::from(component))
    }
}
