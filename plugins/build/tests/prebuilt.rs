//! The checked-in components are what their sources say.

use std::{collections::BTreeSet, error::Error, fs, path::Path};

use plugins::prebuilt;
use wit_parser::decoding::{DecodedWasm, decode};

type Test = Result<(), Box<dyn Error>>;

#[test]
fn the_record_is_of_these_files_and_these_sources() -> Test {
    let recorded = prebuilt::recorded()?;
    let found = prebuilt::found(recorded.toolchain.clone())?;
    assert_eq!(recorded, found, "run `cargo run --release -p plugins -- --prebuilt` and commit what it changes");
    Ok(())
}

/// The compiler of the record must make the very bytes. Another one makes other code, but a component that asks
/// for the same, offers the same and describes itself with the same words.
#[test]
fn a_rebuild_makes_the_same_component() -> Test {
    let recorded = prebuilt::recorded()?;
    for name in prebuilt::NAMES {
        let (rebuilt, toolchain) = prebuilt::rebuild(name)?;
        let (rebuilt, checked_in) = (fs::read(rebuilt)?, fs::read(prebuilt::path(name))?);
        if toolchain == recorded.toolchain {
            assert!(
                rebuilt == checked_in,
                "{name}: {toolchain} makes other bytes of these sources than those that are checked in"
            );
            continue;
        }
        assert_eq!(
            face(&rebuilt)?,
            face(&checked_in)?,
            "{name}: what {toolchain} makes asks for or offers something else"
        );
        let manifest = fs::read(prebuilt::folder(name).join("manifest.toml"))?;
        for component in [&rebuilt, &checked_in] {
            assert!(
                component.windows(manifest.len()).any(|part| part == manifest),
                "{name} does not carry its manifest.toml"
            );
        }
    }
    Ok(())
}

/// Paths of the machine that built them would tell who that was, and keep others from making the same bytes.
#[test]
fn no_component_names_a_folder_of_its_builder() -> Test {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).ok_or("no workspace above plugins/build")?;
    let home = std::env::home_dir().ok_or("no home directory")?.join(".cargo");
    for name in prebuilt::NAMES {
        let component = fs::read(prebuilt::path(name))?;
        for folder in [root, &home] {
            let folder = folder.to_str().ok_or("a path that is not UTF-8")?.as_bytes();
            assert!(
                !component.windows(folder.len()).any(|part| part == folder),
                "{name} names {}",
                String::from_utf8_lossy(folder)
            );
        }
    }
    Ok(())
}

/// What a component imports and exports, with the functions of each interface.
/// A standard library brings some of WASI with it, another version of it some other: of that, only what goes beyond counts.
fn face(component: &[u8]) -> Result<BTreeSet<String>, Box<dyn Error>> {
    const OF_EVERY_STD: [&str; 5] = ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/"];
    let DecodedWasm::Component(resolve, world) = decode(component)? else {
        return Err("not a component".into());
    };
    let world = &resolve.worlds[world];
    let mut lines = BTreeSet::new();
    for (direction, items) in [("import", &world.imports), ("export", &world.exports)] {
        for key in items.keys() {
            let name = resolve.name_world_key(key);
            if OF_EVERY_STD.iter().any(|package| name.starts_with(package)) {
                continue;
            }
            lines.insert(format!("{direction} {name}"));
            if let wit_parser::WorldKey::Interface(interface) = key {
                let functions = resolve.interfaces[*interface].functions.keys();
                lines.extend(functions.map(|function| format!("{direction} {name} {function}")));
            }
        }
    }
    Ok(lines)
}
