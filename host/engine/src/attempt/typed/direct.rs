//! Calls a function without values of wasmtime's own in between: JSON is written into the guest's memory and read out of it.
//!
//! For bytes and for large lists that costs an eighth and a third of what wasmtime's dynamic values do. The price is that the
//! traits of wasmtime by which this is done are exempt from its promise of stability, so that a new version of wasmtime needs
//! a look at this module, and a test holds its results against those of dynamic values.

use std::mem::MaybeUninit;
use std::sync::Arc;

use wasmtime::component::__internal::{CanonicalAbiInfo, InstanceType, InterfaceType, LiftContext, LowerContext};
use wasmtime::component::{ComponentNamedList, ComponentType, Func, Lift, Lower};
use wasmtime::{Store, ValRaw};
use wharf_core::shared_bytes::SharedBytes;

use crate::attempt::typed::answer::Answer;
use crate::attempt::typed::lift::{self, Source};
use crate::attempt::typed::lower;
use crate::spec::function_task::FunctionTask;

/// The parameters of a function, whose payload was checked against its types. They are `N` core values.
struct Args<const N: usize> {
    task: Arc<FunctionTask>,
    payload: SharedBytes,
    /// The lengths of the lists in the payload.
    lengths: Vec<u32>,
}

/// The result of a function: nothing for `M` = 0, a core value for 1, and a value in memory for 2.
struct Returned<const M: usize>(Answer);

const fn abi(flat: usize) -> CanonicalAbiInfo {
    // The size is that of no bytes: what is in memory is checked when it is read, by its own type.
    CanonicalAbiInfo { size32: 0, align32: 1, size64: 0, align64: 1, flat_count: Some(flat as u8) }
}

// SAFETY: `Lower` is an array of core values. Its length is the number of core values that the function's parameters are: a
// function is linked only if its types are those of the compiled code, and `call` takes `N` from them. `size` and `align` are
// not used: parameters are never in memory, since `N` is 16 at most.
#[expect(unsafe_code, reason = "the trait of wasmtime is unsafe to implement")]
unsafe impl<const N: usize> ComponentType for Args<N> {
    type Lower = [ValRaw; N];
    const ABI: CanonicalAbiInfo = abi(N);

    fn typecheck(_: &InterfaceType, _: &InstanceType<'_>) -> wasmtime::Result<()> {
        Ok(())
    }
}

// SAFETY: as above.
#[expect(unsafe_code, reason = "the trait of wasmtime is unsafe to implement")]
unsafe impl<const N: usize> ComponentNamedList for Args<N> {}

// SAFETY: all core values are initialised before `Ok` is returned.
#[expect(unsafe_code, reason = "the trait of wasmtime is unsafe to implement")]
unsafe impl<const N: usize> Lower for Args<N> {
    fn linear_lower_to_flat<T>(
        &self,
        cx: &mut LowerContext<'_, T>,
        _: InterfaceType,
        dst: &mut MaybeUninit<[ValRaw; N]>,
    ) -> wasmtime::Result<()> {
        let mut flat = [ValRaw::u64(0); N];
        lower::parameters(cx, &self.task.signature, (&self.payload, &self.lengths), &mut flat)?;
        dst.write(flat);
        Ok(())
    }

    fn linear_lower_to_memory<T>(
        &self,
        _: &mut LowerContext<'_, T>,
        _: InterfaceType,
        _: usize,
    ) -> wasmtime::Result<()> {
        Err(wasmtime::Error::msg("parameters in memory are passed as dynamic values; this is a bug of the host"))
    }
}

// SAFETY: `Lower` is an array of core values. A result that is one core value or none has `M` of them; one that is more is at
// an address, for which wasmtime asks `flatten_count`.
#[expect(unsafe_code, reason = "the trait of wasmtime is unsafe to implement")]
unsafe impl<const M: usize> ComponentType for Returned<M> {
    type Lower = [ValRaw; M];
    const ABI: CanonicalAbiInfo = abi(M);

    fn typecheck(_: &InterfaceType, _: &InstanceType<'_>) -> wasmtime::Result<()> {
        Ok(())
    }
}

// SAFETY: as above.
#[expect(unsafe_code, reason = "the trait of wasmtime is unsafe to implement")]
unsafe impl<const M: usize> ComponentNamedList for Returned<M> {}

/// Returns the type of the only result.
fn result_type(cx: &LiftContext<'_>, ty: InterfaceType) -> Option<InterfaceType> {
    match ty {
        InterfaceType::Tuple(index) => cx.types[index].types.first().copied(),
        _ => None,
    }
}

// SAFETY: every address and every length is checked before it is read.
#[expect(unsafe_code, reason = "the trait of wasmtime is unsafe to implement")]
unsafe impl<const M: usize> Lift for Returned<M> {
    fn linear_lift_from_flat(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        src: &[ValRaw; M],
    ) -> wasmtime::Result<Returned<M>> {
        let source = src.first().map_or(Source::Nothing, |raw| Source::Flat(*raw));
        let ty = result_type(cx, ty);
        lift::result(cx, ty, source).map(Returned)
    }

    fn linear_lift_from_memory(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        bytes: &[u8],
    ) -> wasmtime::Result<Returned<M>> {
        // No bytes, but at the address of the result.
        let address = bytes.as_ptr().addr().wrapping_sub(cx.memory().as_ptr().addr());
        let ty = result_type(cx, ty);
        lift::result(cx, ty, Source::Memory(address)).map(Returned)
    }
}

/// A call of a function.
pub(super) struct DirectCall {
    pub(super) task: Arc<FunctionTask>,
    pub(super) payload: SharedBytes,
    pub(super) lengths: Vec<u32>,
}

impl DirectCall {
    /// Calls a function whose parameters are so many core values, and its result so many.
    pub(super) async fn run<T: Send + 'static>(
        self,
        store: &mut Store<T>,
        function: Func,
        (params, result): (u32, u32),
    ) -> wasmtime::Result<Answer> {
        macro_rules! with_params {
            ($($count:literal)*) => {
                match params {
                    $($count => self.with_params::<$count, T>(store, function, result).await,)*
                    _ => Err(wasmtime::Error::msg("too many parameters for a direct call; this is a bug of the host")),
                }
            };
        }
        with_params!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
    }

    async fn with_params<const N: usize, T: Send + 'static>(
        self,
        store: &mut Store<T>,
        function: Func,
        result: u32,
    ) -> wasmtime::Result<Answer> {
        match result {
            0 => self.typed::<N, 0, T>(store, function).await,
            1 => self.typed::<N, 1, T>(store, function).await,
            _ => self.typed::<N, 2, T>(store, function).await,
        }
    }

    async fn typed<const N: usize, const M: usize, T: Send + 'static>(
        self,
        store: &mut Store<T>,
        function: Func,
    ) -> wasmtime::Result<Answer> {
        let DirectCall { task, payload, lengths } = self;
        let function = function.typed::<Args<N>, Returned<M>>(&mut *store)?;
        let Returned(answer) = function.call_async(store, Args { task, payload, lengths }).await?;
        Ok(answer)
    }
}
