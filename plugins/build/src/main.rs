//! `cargo run --release -p plugins`: builds the plugins from source and prints where each component is.

use anyhow::Result;
use clap::Parser;

/// Builds the plugins of plugins/ from source into target/plugins/, those that changed.
#[derive(Parser)]
#[command(name = "plugins")]
struct Arguments {
    /// The plugins to build; all when none is named.
    names: Vec<String>,
    /// Refreshes the components that are checked in, and their record.
    #[arg(long, conflicts_with = "names")]
    prebuilt: bool,
    /// Prints the names of the plugins and builds none.
    #[arg(long, conflicts_with_all = ["names", "prebuilt"])]
    list: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.list {
        for name in plugins::ALL {
            println!("{name}");
        }
        return Ok(());
    }
    let built = if arguments.prebuilt {
        plugins::prebuilt::refresh()?
    } else if arguments.names.is_empty() {
        plugins::build_all()?
    } else {
        arguments.names.iter().map(|name| plugins::build(name)).collect::<Result<_>>()?
    };
    for path in built {
        println!("{}", path.display());
    }
    Ok(())
}
