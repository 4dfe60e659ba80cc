//! The interfaces that this host offers to plugins and calls: the contract of `wit/`, and the standard interfaces of
//! WASI.

use std::sync::LazyLock;

use wit_parser::{InterfaceId, Resolve, SourceMap, WorldId, WorldItem};

use crate::sandbox::guest_logging;

/// The version of WASI whose interfaces are offered. Versions of one track are compatible.
const WASI_VERSION: &str = "0.2.12";
const WASI: [&str; 30] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
    "wasi:config/store",
];
/// Still a draft, so that only this very version is compatible.
const WASI_CONFIG_VERSION: &str = "0.2.0-rc.1";

/// The files of `wit/`, by name.
pub(crate) const FILES: [(&str, &str); 4] = [
    ("types.wit", include_str!("../../../../wit/types.wit")),
    ("host.wit", include_str!("../../../../wit/host.wit")),
    ("handler.wit", include_str!("../../../../wit/handler.wit")),
    ("world.wit", include_str!("../../../../wit/world.wit")),
];

/// The contract as it is in `wit/`.
pub(crate) struct Contract {
    pub(crate) resolve: Resolve,
    world: WorldId,
    /// The interfaces that are in no world: few plugins need one, and most need a grant for it.
    single: Vec<InterfaceId>,
}

pub(crate) static CONTRACT: LazyLock<Contract> = LazyLock::new(|| {
    let mut sources = SourceMap::new();
    for (name, text) in FILES {
        sources.push_str(name, text);
    }
    let mut resolve = Resolve::new();
    let group = sources.parse().map_err(|(_, error)| error).expect("`wit/` is what this host was built with");
    let package = resolve.push_group(group).expect("`wit/` has no packages outside");
    let world = resolve.select_world(&[package], Some("plugin")).expect("`wit/world.wit` has it");
    let named = |name| *resolve.packages[package].interfaces.get(name).expect("`wit/host.wit` has it");
    let single = ["kv", "holds", "schedule"].map(named).to_vec();
    Contract { resolve, world, single }
});

impl Contract {
    /// Returns the interfaces that this host calls: the manifest, and those of which a plugin has at least one.
    pub(crate) fn called(&self) -> Vec<InterfaceId> {
        self.resolve.worlds[self.world].exports.values().filter_map(interface).collect()
    }

    /// Returns the interfaces of this package that a plugin may import.
    pub(crate) fn offered(&self) -> Vec<InterfaceId> {
        self.resolve.worlds[self.world]
            .imports
            .values()
            .filter_map(interface)
            .chain(self.single.iter().copied())
            .collect()
    }

    pub(crate) fn name(&self, interface: InterfaceId) -> InterfaceName {
        InterfaceName::parse(&self.resolve.id_of(interface).unwrap_or_default())
    }
}

/// Returns the names of everything that a plugin may import.
pub(crate) fn importable() -> Vec<InterfaceName> {
    let own = CONTRACT.offered().into_iter().map(|id| CONTRACT.name(id));
    let wasi = WASI.iter().map(|name| {
        let version = if name.starts_with("wasi:config/") { WASI_CONFIG_VERSION } else { WASI_VERSION };
        InterfaceName { path: (*name).to_owned(), version: version.to_owned() }
    });
    own.chain(wasi).chain(guest_logging::NAMES.map(InterfaceName::parse)).collect()
}

/// Returns the id of an interface, if the item is one.
pub(crate) fn interface(item: &WorldItem) -> Option<InterfaceId> {
    if let WorldItem::Interface { id, .. } = item { Some(*id) } else { None }
}

/// An interface's name and its version, such as "wasi:io/poll" and "0.2.6".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceName {
    pub(crate) path: String,
    /// Empty if there is none.
    pub(crate) version: String,
}

impl InterfaceName {
    pub(crate) fn parse(text: &str) -> InterfaceName {
        let (path, version) = text.split_once('@').unwrap_or((text, ""));
        InterfaceName { path: path.to_owned(), version: version.to_owned() }
    }

    /// Returns true if the interfaces have the same name and compatible versions: within one major version, for 0.x
    /// within one minor version, and for drafts only the same version.
    pub(crate) fn is_compatible_with(&self, other: &InterfaceName) -> bool {
        self.path == other.path
            && (self.version == other.version
                || track(&self.version).is_some_and(|own| track(&other.version) == Some(own)))
    }

    /// Returns the name with its version, if it has one.
    pub(crate) fn full(&self) -> String {
        if self.version.is_empty() { self.path.clone() } else { format!("{}@{}", self.path, self.version) }
    }
}

fn track(version: &str) -> Option<String> {
    if version.contains(['-', '+']) {
        return None;
    }
    let mut numbers = version.split('.');
    match (numbers.next()?, numbers.next()?) {
        ("0", "0") => None,
        ("0", minor) => Some(format!("0.{minor}")),
        (major, _) => Some(major.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_fit_within_their_track() {
        let is_compatible_with = |a: &str, b: &str| {
            InterfaceName::parse(&format!("a:b/c@{a}")).is_compatible_with(&InterfaceName::parse(&format!("a:b/c@{b}")))
        };
        assert!(is_compatible_with("0.2.0", "0.2.12"));
        assert!(is_compatible_with("1.2.0", "1.9.9"));
        assert!(!is_compatible_with("0.2.0", "0.3.0"));
        assert!(!is_compatible_with("0.0.1", "0.0.2"));
        assert!(is_compatible_with("0.2.0-rc.1", "0.2.0-rc.1"));
        assert!(!is_compatible_with("0.2.0-rc.1", "0.2.0"));
    }
}
