//! What a core module sees of the host through WASI preview 1: arguments, variables, standard streams, granted folders.

use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiView as _};
use wharf_core::bounds;

/// The context of a core module: everything that it sees of the host.
pub(crate) struct Preview1 {
    context: WasiP1Ctx,
    /// Takes the place of `context` once the attempt was ended: there the guest has neither files nor input. Made when it is needed.
    nothing: Option<WasiP1Ctx>,
}

impl Preview1 {
    pub(crate) fn new(builder: &mut WasiCtxBuilder) -> Preview1 {
        let mut context = builder.build_p1();
        context.ctx().table.set_max_capacity(bounds::HOST_RESOURCES_MAX);
        Preview1 { context, nothing: None }
    }

    /// Returns the context of a program, or that of one that was ended.
    pub(crate) fn of(&mut self, is_ended: bool) -> &mut WasiP1Ctx {
        if is_ended { self.nothing.get_or_insert_with(|| WasiCtx::builder().build_p1()) } else { &mut self.context }
    }
}

#[cfg(test)]
mod tests {
    use wasmtime_wasi::FsPerms;
    use wasmtime_wasi::p1::types::Fd;
    use wasmtime_wasi::p1::wasi_snapshot_preview1::WasiSnapshotPreview1 as _;
    use wiggle::GuestMemory;

    use super::*;

    #[test]
    fn a_program_that_was_ended_sees_nothing() {
        let granted = tempfile::tempdir().unwrap();
        let mut builder = WasiCtx::builder();
        builder.env("KEY", "value").arg("name").preopened_dir(granted.path(), "/data", FsPerms::ReadOnly).unwrap();
        let mut preview1 = Preview1::new(&mut builder);
        for is_ended in [false, true] {
            let context = preview1.of(is_ended);
            let mut bytes = [0; 64];
            let memory = &mut GuestMemory::Unshared(&mut bytes);
            let count = u32::from(!is_ended);
            assert_eq!(context.environ_sizes_get(memory).unwrap().0, count);
            assert_eq!(context.args_sizes_get(memory).unwrap().0, count);
            assert_eq!(context.fd_prestat_get(memory, Fd::from(3)).is_ok(), !is_ended);
        }
    }
}
