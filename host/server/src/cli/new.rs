//! `wharf new`: creates a plugin project in one of the supported languages.

use std::path::Path;

use clap::Args;
use plugin_kit::language::Language;
use plugin_kit::project::{self, Kind, NotMade};
use serde_json::json;

use crate::cli_error::{CliError, ExitStatus};
use crate::output::{print_json, print_line};

#[derive(Debug, Args)]
pub(crate) struct New {
    /// Name of the plugin, and of the folder to create
    name: String,
    /// Language: rust, javascript, typescript, javascript-web (with fetch, URL and the like), python, go or c
    #[arg(long, short)]
    language: Language,
    /// Without the contract: a function over plain data, in a WIT world of its own; in go and c a program
    #[arg(long)]
    plain: bool,
    /// With a subscriber, which answers broadcasts, beside the handler
    #[arg(long, conflicts_with = "plain")]
    subscriber: bool,
}

impl New {
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitStatus> {
        let (name, language) = (&self.name, self.language);
        let folder = Path::new(name);
        let kind = match (self.plain, self.subscriber) {
            (true, _) => Kind::Plain,
            (false, true) => Kind::HandlerAndSubscriber,
            (false, false) => Kind::Handler,
        };
        if let Err(error) = project::create(folder, language, name, kind) {
            return match error {
                NotMade::Name(..) | NotMade::Exists(_) => Err(CliError::usage(error.to_string()).into()),
                NotMade::Write(..) => Err(error.into()),
            };
        }
        let (build, component) = (language.command(), format!("{name}/{name}.wasm"));
        if json {
            print_json(
                &json!({"folder": name, "language": language.name(), "build": format!("cd {name} && {build}"), "component": component}),
            )?;
        } else {
            print_line(&format!("Created {name}/ with a plugin that counts words, in {language}. Build it with"))?;
            print_line(&format!("\n    (cd {name} && {build})\n"))?;
            if language.calls_wharf() && kind != Kind::Plain {
                print_line("which calls `wharf`, so it must be on PATH,")?;
            }
            print_line(&format!("and validate it with `wharf check {component}`."))?;
        }
        Ok(ExitStatus::Done)
    }
}
