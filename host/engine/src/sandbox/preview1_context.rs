//! What a core module sees of the host through WASI preview 1: arguments, variables, standard streams, granted folders.

use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView as _};
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

    /// Returns the parts of the context that WASI 0.2 names, too.
    pub(crate) fn view(&mut self) -> WasiCtxView<'_> {
        self.context.ctx()
    }
}
