//! Building: what many callers at once get, and what a wrong name is told.

use std::{collections::HashSet, error::Error, fs, thread};

#[test]
fn many_at_once_get_one_component() -> Result<(), Box<dyn Error>> {
    let builders: Vec<_> = (0..8).map(|_| thread::spawn(|| plugins::build("villain-trap"))).collect();
    let mut paths = HashSet::new();
    for builder in builders {
        paths.insert(builder.join().map_err(|_| "a builder panicked")??);
    }
    assert_eq!(paths.len(), 1);
    for path in paths {
        assert!(fs::read(path)?.starts_with(b"\0asm"));
    }
    Ok(())
}

#[test]
fn a_second_build_does_nothing() -> Result<(), Box<dyn Error>> {
    let first = fs::metadata(plugins::build("villain-slow")?)?.modified()?;
    assert_eq!(fs::metadata(plugins::build("villain-slow")?)?.modified()?, first);
    Ok(())
}

#[test]
fn a_component_that_someone_changed_is_built_anew() -> Result<(), Box<dyn Error>> {
    let path = plugins::build("villain-bad-manifest")?;
    let good = fs::read(&path)?;
    fs::write(&path, b"something else")?;
    assert_eq!(fs::read(plugins::build("villain-bad-manifest")?)?, good);
    Ok(())
}

#[test]
fn an_unknown_name_is_answered_with_those_that_exist() {
    let Err(error) = plugins::build("wrods") else { panic!("there is no plugin wrods") };
    let text = error.to_string();
    assert!(text.contains("wrods") && text.contains("words"), "{text}");
}
