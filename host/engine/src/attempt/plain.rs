//! Calls a plugin that knows nothing of the contract: a program, or a function with types of its own.

use bytes::Bytes;
use wasmtime::Store;
use wasmtime::component::Instance;
use wasmtime_wasi::I32Exit;

use crate::attempt::run::{GuestFailure, Run, absent};
use crate::attempt::typed;
use crate::attempt::typed::answer::Answer;
use crate::attempt::typed::call::TypedEnd;
use crate::call::CallInput;
use crate::compile::linked::{Exports, PlainIndices};
use crate::inspect::core_module;
use crate::sandbox::program_output::{OutputTarget, ProgramIo, ProgramOutput};
use crate::sandbox::store_data::Sandbox;
use crate::spec::sources::TaskKind;
use crate::spec::task::{PlainSettings, Task};

impl Run {
    /// Returns the task of a plugin that knows nothing of the contract.
    fn plain_task(&self) -> Option<&Task> {
        match (&self.plugin.linked.exports, &self.input) {
            (Exports::Plain(_) | Exports::Module(_), CallInput::Job { task, .. }) => {
                self.plugin.manifest.tasks.get(task.as_str())
            }
            _ => None,
        }
    }

    /// Returns the settings of such a task.
    pub(crate) fn plain_settings(&self) -> Option<&PlainSettings> {
        self.plain_task().map(|task| &task.plain)
    }

    /// Makes the input and the output of a program, if the task is one.
    pub(crate) fn program_io(&self) -> Option<ProgramIo> {
        let task = self.plain_task().filter(|task| matches!(task.kind, TaskKind::Program))?;
        let target = OutputTarget {
            host_calls: self.host_calls.clone(),
            handle: self.handle.clone(),
            budget: self.plugin.env.budget.clone(),
            of: self.memory.of,
            lines: task.plain.lines,
        };
        Some(ProgramIo {
            args: task.plain.args.clone(),
            stdin: Bytes::from_owner(self.input.payload().clone()),
            is_module: matches!(self.plugin.linked.exports, Exports::Module(_)),
            output: ProgramOutput::new(target),
        })
    }

    /// Calls the program or the function that the task is.
    pub(crate) async fn call_plain(
        &self,
        exports: &PlainIndices,
        store: &mut Store<Sandbox>,
        instance: &Instance,
        output: Option<&ProgramOutput>,
    ) -> wasmtime::Result<Result<Vec<u8>, GuestFailure>> {
        if let CallInput::Job { task, payload, .. } = &self.input
            && let Some(function) = exports.functions.get(task.as_str())
        {
            let is_spelled_as_wit = self.plain_task().is_some_and(Task::is_spelled_as_wit);
            return Ok(match typed::call::call(store, instance, function, (payload, is_spelled_as_wit)).await? {
                TypedEnd::Answer(Answer::Ok(result)) => Ok(result),
                TypedEnd::Answer(Answer::Err(error)) => Err(GuestFailure::Error(error)),
                TypedEnd::BadPayload(why) => Err(GuestFailure::Unfit(format!("the payload is refused: {why}"))),
                TypedEnd::NoText(why) => Err(GuestFailure::Unfit(why)),
            });
        }
        let (Some(program), Some(output)) = (&exports.program, output) else { return Err(absent()) };
        let ran = program.load(&mut *store, instance)?.call_run(&mut *store).await;
        program_end(ran, output).await
    }

    /// Calls the program that a core module is.
    pub(crate) async fn call_module(
        &self,
        store: &mut Store<Sandbox>,
        instance: &wasmtime::Instance,
        output: Option<&ProgramOutput>,
    ) -> wasmtime::Result<Result<Vec<u8>, GuestFailure>> {
        let Some(output) = output else { return Err(absent()) };
        let start = instance.get_typed_func::<(), ()>(&mut *store, core_module::START)?;
        program_end(start.call_async(&mut *store, ()).await.map(Ok), output).await
    }
}

/// Reads how a program ended, and takes what it wrote.
async fn program_end(
    ran: wasmtime::Result<Result<(), ()>>,
    output: &ProgramOutput,
) -> wasmtime::Result<Result<Vec<u8>, GuestFailure>> {
    let status = match ran {
        Ok(Ok(())) => 0,
        Ok(Err(())) => 1,
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(0)) => 0,
            // WASI has statuses of eight bits; what is beyond is no success.
            Some(I32Exit(status)) => u8::try_from(*status).ok().filter(|status| *status != 0).unwrap_or(u8::MAX),
            None => {
                // Lines that were written before a panic are told, also the last one without a newline.
                output.finish().await;
                return Err(error);
            }
        },
    };
    let written = output.finish().await;
    Ok(match (status, written.refused) {
        (0, None) => Ok(written.result),
        // A program whose lines are refused ends with some status for this reason.
        (_, Some(why)) => Err(GuestFailure::Output(why)),
        (status, None) => Err(GuestFailure::Exit(status)),
    })
}
