//! Inspects, strips and compiles the bytes of an untrusted component. This recurses, allocates and computes as those
//! bytes demand, so it runs in a process that may die of it: see [`crate::compile::child_process`].

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use crate::compile::cache::digest_of;
use crate::inspect::contract_check;
use crate::inspect::description::{CodeForm, Description};
use crate::inspect::line_table::LineTable;
use crate::inspect::strip::strip;
use crate::spec::problem::{Problem, Problems};
use crate::wasmtime_config;

/// Nested types take stack, and components that were composed of others have many.
const STACK_BYTES: usize = 32 << 20;

/// The path of the component, and the paths of what is made of it.
pub(crate) struct FilePaths<'a> {
    pub(crate) component: &'a Path,
    pub(crate) code: &'a Path,
    /// Written as soon as the component has been inspected, and again with the code.
    pub(crate) description: &'a Path,
}

impl FilePaths<'_> {
    /// Inspects the component and compiles it; `inspected` is called in between. Problems of the component are in its
    /// description.
    ///
    /// # Errors
    /// A reason, if the disk fails.
    pub(crate) fn examine(&self, inspected: impl FnOnce()) -> Result<(), String> {
        let bytes = fs::read(self.component).map_err(|error| format!("could not read the component: {error}"))?;
        let mut description = with_stack(|| contract_check::inspect(&bytes))?.bounded()?;
        self.write(&description)?;
        if !description.problems.is_empty() {
            return Ok(());
        }
        inspected();
        match compile(&bytes, &mut description) {
            Ok(code) => {
                write(self.code, &code)?;
                description.code = Some(digest_of(&code));
                description = description.bounded()?;
            }
            Err(why) => {
                let problem = Problem::new(format!("could not compile it: {why}"));
                description.problems = Problems::from(vec![problem]).into_bounded();
            }
        }
        self.write(&description)
    }

    fn write(&self, description: &Description) -> Result<(), String> {
        write(self.description, &description.to_bytes()?)
    }
}

fn compile(bytes: &[u8], description: &mut Description) -> Result<Vec<u8>, String> {
    let stripped = strip(bytes)?;
    description.lines = LineTable::of(&stripped.modules);
    let engine = wasmtime_config::compiler(description.kind).map_err(|error| format!("{error:#}"))?;
    let compiled = match description.form {
        CodeForm::Component => engine.precompile_component(&stripped.bytes),
        CodeForm::Module => engine.precompile_module(&stripped.bytes),
    };
    compiled.map_err(|error| format!("{error:#}"))
}

/// Writes a file of the cache, which is for the host's user only, whatever the folder is.
fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| format!("could not write to the cache folder: {error}"))
}

/// Runs `work` on a thread with a large stack.
fn with_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let looking = thread::Builder::new().name("examine".to_owned()).stack_size(STACK_BYTES);
        let looking = looking
            .spawn_scoped(scope, work)
            .map_err(|error| format!("could not start a thread to read the component: {error}"))?;
        Ok(looking.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}
