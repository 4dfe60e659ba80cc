//! `wasi:logging`, a draft that public components import: its lines go to the attempt's log.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker};

use crate::sandbox::store_data::Sandbox;

/// The interface has been published with no version and with this one, of the same shape.
pub(crate) const NAMES: [&str; 2] = ["wasi:logging/logging", "wasi:logging/logging@0.1.0-draft"];

/// The severity of a line.
#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "wasmtime makes them of their numbers")]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Critical => "critical",
        }
    }
}

/// Adds the interface to a linker.
pub(crate) fn add_to_linker(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    for name in NAMES {
        let mut interface = linker.instance(name)?;
        interface.func_wrap(
            "log",
            |store: StoreContextMut<'_, Sandbox>, (level, context, message): (Level, String, String)| {
                let sandbox = store.data();
                sandbox.refuse_if_ended()?;
                let at = if context.is_empty() { String::new() } else { format!("{context}: ") };
                sandbox.outbound.log.host_line(&format!("{}: {at}{message}", level.as_str()));
                Ok(())
            },
        )?;
    }
    Ok(())
}
