//! `wharf call --job`: the task, the key and the payload of a job on a running host, so that it runs again here, without any effect there.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use wharf_core::ids::TaskName;

use super::client::Client;
use crate::cli_error::CliError;
use crate::http::api::Job;
use crate::http::encode;

/// The input of a job: an attempt is called with it.
#[derive(Clone, Debug)]
pub(crate) struct JobInput {
    pub(crate) task: TaskName,
    pub(crate) key: Option<String>,
    pub(crate) payload: Vec<u8>,
}

/// Reads a job from the host.
///
/// # Errors
/// If the host cannot be reached, does not have the job, or its payload is too long to be shown.
pub(crate) fn read(client: &Client, id: &str) -> anyhow::Result<JobInput> {
    let job: Job = client.get(format!("/v1/jobs/{}", encode(id)))?;
    let task = job.task.parse().map_err(|error| CliError::usage(format!("{error}")))?;
    let payload = match (job.payload, job.payload_base64) {
        (Some(json), _) => json.get().as_bytes().to_vec(),
        (None, Some(text)) => BASE64_STANDARD
            .decode(text)
            .map_err(|error| CliError::usage(format!("invalid payload in the answer of the host: {error}")))?,
        (None, None) => {
            let bytes = job.payload_bytes.unwrap_or_default();
            if bytes > 0 {
                let why = format!(
                    "the payload of {id} has {bytes} bytes, more than the host shows; give it as --input @FILE"
                );
                return Err(CliError::usage(why).into());
            }
            Vec::new()
        }
    };
    Ok(JobInput { task, key: job.key, payload })
}

impl JobInput {
    /// Returns the target of a call: the job's task, of the file if one is given.
    ///
    /// # Errors
    /// If a task is given, too, and it is another.
    pub(crate) fn target(&self, given: Option<&str>) -> anyhow::Result<String> {
        let own = self.task.task();
        match given {
            None => Ok(self.task.to_string()),
            Some(file) if file.ends_with(".wasm") => Ok(format!("{file}#{own}")),
            Some(given) if given.rsplit(['#', '/']).next() == Some(own) => Ok(given.to_owned()),
            Some(given) => {
                Err(CliError::usage(format!("the job is of the task `{}`, not of `{given}`", self.task)).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_called_as_its_task_in_the_folder_or_in_a_file() {
        let job = JobInput { task: "words/count".parse().unwrap(), key: None, payload: Vec::new() };
        for (given, target) in [
            (None, "words/count"),
            (Some("out/new.wasm"), "out/new.wasm#count"),
            (Some("new.wasm#count"), "new.wasm#count"),
            (Some("other/count"), "other/count"),
        ] {
            assert_eq!(job.target(given).unwrap(), target);
        }
        assert!(job.target(Some("new.wasm#sum")).unwrap_err().to_string().contains("of the task `words/count`"));
    }
}
