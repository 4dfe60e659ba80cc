//! A first project in each language: the very files of the examples in `plugins/`, with another name.

mod alone;
mod files;
mod plain;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::contract;
use crate::language::Language;

pub use files::{helpers, of as files_of};

/// Longer names make paths and lines that nobody can read.
const NAME_CHARS_MAX: usize = 40;

/// Why no project was made.
#[derive(Debug, thiserror::Error)]
pub enum NotMade {
    #[error("`{0}` cannot be a plugin's name: {1}")]
    Name(String, &'static str),
    #[error("{} is there already; nothing was changed", .0.display())]
    Exists(PathBuf),
    #[error("could not write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
}

/// What a project's plugin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It runs jobs, by the contract of `wharf:plugin`.
    Handler,
    /// It runs jobs and answers broadcasts, as the example of its language.
    HandlerAndSubscriber,
    /// It has a function over plain data, or is a program in Go and C, without a mention of Wharf.
    Plain,
}

/// Makes the folder `folder` with a project of this name in it.
///
/// # Errors
/// When the name will not do, the folder is there already, or it cannot be written. What was begun is then removed.
pub fn create(folder: &Path, language: Language, name: &str, kind: Kind) -> Result<(), NotMade> {
    check_name(name)?;
    fs::create_dir(folder).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => NotMade::Exists(folder.to_owned()),
        _ => NotMade::Write(folder.to_owned(), error),
    })?;
    let written = match kind {
        Kind::Handler => write_with(folder, language, name, alone::without_subscriber),
        Kind::HandlerAndSubscriber => write(folder, language, name),
        Kind::Plain => {
            let (placeholder, files) = plain::of(language);
            put_all(folder, files.iter().map(|(path, text)| (*path, text.replace(placeholder, name))))
        }
    };
    written.inspect_err(|_| {
        // The folder is this call's own.
        let _ = fs::remove_dir_all(folder);
    })
}

/// Writes the files of a language's example, with another name, into a folder that is there.
///
/// # Errors
/// When one of them cannot be written.
pub fn write(folder: &Path, language: Language, name: &str) -> Result<(), NotMade> {
    write_with(folder, language, name, |_, _, text| text.to_owned())
}

fn write_with(
    folder: &Path,
    language: Language,
    name: &str,
    edited: impl Fn(Language, &str, &str) -> String,
) -> Result<(), NotMade> {
    let own = files::of(language)
        .iter()
        .map(|(path, text)| ((*path).to_owned(), named(language, path, &edited(language, path, text), name)));
    let contract = contract::FILES.into_iter().filter(|_| language.contract_folder().is_some());
    let contract = contract
        .map(|(file, text)| (format!("{}/{file}", language.contract_folder().unwrap_or_default()), text.to_owned()));
    put_all(folder, own.chain(contract))
}

fn put_all(folder: &Path, files: impl Iterator<Item = (impl AsRef<Path>, String)>) -> Result<(), NotMade> {
    for (path, text) in files {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        let written = fs::create_dir_all(parent).and_then(|()| fs::write(&path, text));
        written.map_err(|error| NotMade::Write(path, error))?;
    }
    Ok(())
}

/// A plugin's name is its file's, its id on the host, and a package's in every language.
fn check_name(name: &str) -> Result<(), NotMade> {
    let wrong = |why| Err(NotMade::Name(name.to_owned(), why));
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return wrong("it must begin with a small letter");
    }
    if let Some(_other) = name.chars().find(|c| !c.is_ascii_lowercase() && !c.is_ascii_digit() && *c != '-') {
        return wrong("it may have small letters, digits and hyphens, such as `my-plugin`");
    }
    if name.ends_with('-') {
        return wrong("it must not end with a hyphen");
    }
    if name.len() > NAME_CHARS_MAX {
        return wrong("it may have 40 characters at most");
    }
    Ok(())
}

/// Puts the name where the example's stands. `words` alone is also a word of Rust's source, so there the places are named.
fn named(language: Language, path: &str, text: &str, name: &str) -> String {
    match (language, path) {
        (Language::Rust, "src/lib.rs") => text.replace(r#"path: "../../wit""#, r#"path: "wit""#),
        (Language::Rust, _) => text
            .replace("name = \"words\"", &format!("name = \"{name}\""))
            .replace("tally.wasm", &format!("{name}.wasm"))
            .replace("words/count", &format!("{name}/count"))
            .replace("# words\n", &format!("# {name}\n")),
        (language, _) => text.replace(language.example(), name),
    }
}

#[cfg(test)]
mod tests;
