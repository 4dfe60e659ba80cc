//! Backups, restores and checks, by the address of a store. No host need run, and one may.

use std::path::Path;

use crate::address_text::{for_database_programs, without_password};
use crate::postgres;
use crate::sqlite::{backup_file, check_store_file, restore_file};
use crate::store::{BackupReport, CheckReport, MaintenanceError, OpenError, StoreContents};

/// A store, by what it is kept in.
enum Place<'a> {
    File(&'a Path),
    Database,
    Memory,
}

fn place(address: &str) -> Place<'_> {
    match address.split_once(':') {
        Some(("sqlite", path)) => Place::File(Path::new(path)),
        Some(("memory", _)) => Place::Memory,
        Some(("postgres" | "postgresql", _)) => Place::Database,
        _ => Place::File(Path::new(address)),
    }
}

/// Copies the store at `address` into a new file, as it is at one moment, while hosts go on. `on_progress` is told how many of how
/// many bytes are copied. Waits for the disk.
///
/// # Errors
/// If the store is no file, cannot be read, or the new file exists or cannot be written.
pub fn backup(
    address: &str,
    to: &Path,
    on_progress: &mut dyn FnMut(u64, u64),
) -> Result<BackupReport, MaintenanceError> {
    match place(address) {
        Place::File(file) => backup_file(file, to, on_progress),
        Place::Database => Err(MaintenanceError::OtherMeans(format!(
            "{} is a database, which its own program backs up while hosts go on:\n  pg_dump --format=custom --schema={} \
             --file={} --dbname={}\nand `wharf store check` checks it after a pg_restore",
            without_password(address),
            postgres::schema_of(address)?,
            quoted(&to.display().to_string()),
            quoted(&database(address)),
        ))),
        Place::Memory => Err(in_memory()),
    }
}

/// Copies a backup into the store at `address`, which must be empty or missing. Returns what it holds. Waits for the disk.
///
/// # Errors
/// If the store is no file, a host uses it, it is not empty, or the backup is not one of this version or damaged.
pub fn restore(address: &str, from: &Path) -> Result<StoreContents, MaintenanceError> {
    match place(address) {
        Place::File(file) => restore_file(file, from),
        Place::Database => Err(MaintenanceError::OtherMeans(format!(
            "{} is a database, into which its own program restores a backup:\n  pg_restore --single-transaction --dbname={} {}\nno \
             host may run meanwhile; `wharf store check` checks it afterwards",
            without_password(address),
            quoted(&database(address)),
            quoted(&from.display().to_string()),
        ))),
        Place::Memory => Err(in_memory()),
    }
}

/// Checks the contents of the store at `address`, as they are at one moment, while hosts go on.
///
/// # Errors
/// If the store cannot be read, or keeps nothing.
pub async fn check(address: &str) -> Result<CheckReport, MaintenanceError> {
    match place(address) {
        Place::File(file) => check_file(file).await,
        Place::Database => Ok(postgres::check(address).await?),
        Place::Memory => Err(in_memory()),
    }
}

/// Checks the contents of a file: a store, or a backup of one.
///
/// # Errors
/// If the file cannot be read or is not a store.
pub async fn check_file(file: &Path) -> Result<CheckReport, MaintenanceError> {
    let (owned, name) = (file.to_owned(), file.display().to_string());
    let checked = tokio::task::spawn_blocking(move || check_store_file(&owned)).await;
    let panicked = |_| OpenError::MendFile { file: name, reason: "checking it panicked: a bug of Wharf".to_owned() };
    checked.map_err(panicked)?
}

fn in_memory() -> MaintenanceError {
    MaintenanceError::OtherMeans(
        "a store in memory ends with its host: there is nothing to back up or to check".to_owned(),
    )
}

/// Returns a word as a shell takes it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Returns the address of a database as its own programs take it.
fn database(address: &str) -> String {
    for_database_programs(address).unwrap_or_else(|| "ADDRESS-OF-THE-DATABASE".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_backed_up_by_its_own_program() {
        let address = "postgres://ann:secret@db/jobs?schema=night&sslmode=require&pool=9&password=other";
        let error = backup(address, Path::new("it's.dump"), &mut |_, _| {}).unwrap_err().to_string();
        let command = "\n  pg_dump --format=custom --schema=night --file='it'\\''s.dump' \
                       --dbname='postgres://ann@db/jobs?sslmode=require'\n";
        assert!(error.contains(command), "{error}");
        assert!(!error.contains("secret") && !error.contains("other"), "{error}");
        let error = restore(address, Path::new("a.dump")).unwrap_err().to_string();
        let command =
            "\n  pg_restore --single-transaction --dbname='postgres://ann@db/jobs?sslmode=require' 'a.dump'\n";
        assert!(error.contains(command), "{error}");
        assert!(backup("memory:", Path::new("a"), &mut |_, _| {}).is_err());
    }
}
