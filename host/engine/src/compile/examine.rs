//! All that is done with a stranger's bytes: looked at, compared with the contract, stripped, compiled. Recurses, allocates
//! and computes as those bytes have it: so in a process that may end of it, see [`crate::compile::child`].

use std::panic::resume_unwind;
use std::path::Path;
use std::{fs, io, thread};

use crate::compile::cache::digest_of;
use crate::inspect::contract;
use crate::inspect::description::Description;
use crate::inspect::line_table::Lines;
use crate::inspect::strip::strip;
use crate::spec::problem::{Problem, Problems};
use crate::wasmtime_config;

/// Types that lie within types cost stack, and components that were composed of others have many.
const STACK_BYTES: usize = 32 << 20;

/// Where the component is, and where what becomes of it is put.
pub(crate) struct Places<'a> {
    pub(crate) component: &'a Path,
    pub(crate) code: &'a Path,
    /// There as soon as the component was looked at, and again with the code.
    pub(crate) description: &'a Path,
}

impl Places<'_> {
    /// `inspected` is called between looking and compiling.
    ///
    /// # Errors
    /// When the disk fails. What is wrong with the component stands in its description.
    pub(crate) fn examine(&self, inspected: impl FnOnce()) -> Result<(), String> {
        let bytes = fs::read(self.component).map_err(|error| format!("the component cannot be read: {error}"))?;
        let mut description = with_stack(|| contract::inspect(&bytes))?;
        self.write(&description)?;
        if !description.problems.is_empty() {
            return Ok(());
        }
        inspected();
        match compile(&bytes, &mut description) {
            Ok(code) => {
                fs::write(self.code, &code).map_err(|error| disk(&error))?;
                description.code = Some(digest_of(&code));
            }
            Err(why) => {
                let problem = Problem::new(format!("it cannot be compiled: {why}"));
                description.problems = Problems::from(vec![problem]).told();
            }
        }
        self.write(&description)
    }

    fn write(&self, description: &Description) -> Result<(), String> {
        fs::write(self.description, description.to_bytes()?).map_err(|error| disk(&error))
    }
}

fn compile(bytes: &[u8], description: &mut Description) -> Result<Vec<u8>, String> {
    let stripped = strip(bytes)?;
    description.lines = Lines::of(&stripped.modules);
    let engine = wasmtime_config::compiler(description.kind).map_err(|error| format!("{error:#}"))?;
    engine.precompile_component(&stripped.bytes).map_err(|error| format!("{error:#}"))
}

fn disk(error: &io::Error) -> String {
    format!("the cache folder does not take what was compiled: {error}")
}

/// Does it on a thread whose stack has room.
fn with_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let looking = thread::Builder::new().name("examine".to_owned()).stack_size(STACK_BYTES);
        let looking = looking
            .spawn_scoped(scope, work)
            .map_err(|error| format!("no thread can be had to read the component: {error}"))?;
        Ok(looking.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}
