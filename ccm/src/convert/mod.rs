//! `berth-ccm convert`: what another controller's objects are here. Reads a file, prints, and changes nothing. What has no
//! counterpart is named, field by field.
//!
//! | module | owns |
//! |---|---|
//! | [`finding`] | one thing that is told |
//! | [`metallb`] | MetalLB's objects as ours, as a value |
//! | `text` | how that is printed |

pub mod finding;
pub mod metallb;
mod text;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Error, Result};
use berth_runtime::watch::chain;
use serde_json::Value;

use crate::check::read;
use crate::environment::Environment;
use crate::objects::Objects;
use metallb::Conversion;

/// How the program ends; scripts rely on it.
pub const EXIT_CODES: &str = "Exit code:\n  0  everything has a counterpart\n  \
    1  something has none, or is to be set elsewhere; each is named on standard error, and the rest is printed\n  \
    2  there is nothing to convert: the file cannot be read, or has nothing of that controller";

/// Whose objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// MetalLB in layer 2 mode
    Metallb,
}

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Print {
    /// The ConfigMap of pools, as YAML
    Pools,
    /// Commands of kubectl by which Services keep what they have, for sh
    Services,
}

/// What to convert.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Whose objects they are
    #[arg(value_name = "CONTROLLER")]
    source: Source,
    /// The file with the objects, as kubectl prints them or in YAML; `-` is the standard input
    #[arg(value_name = "OBJECTS.json")]
    file: PathBuf,
    /// Where that controller runs: what other namespaces have of its kinds is not its own
    #[arg(long, value_name = "NAME", default_value = "metallb-system")]
    namespace: String,
    /// What to print
    #[arg(long, value_name = "WHAT", default_value = "pools")]
    print: Print,
}

/// Prints what was asked for and ends as [`EXIT_CODES`] says.
pub fn run(arguments: &Arguments, environment: &Environment) -> ExitCode {
    let conversion = match look(arguments) {
        Ok(conversion) => conversion,
        Err(error) => return unusable(error),
    };
    for finding in &conversion.findings {
        eprintln!("{finding}");
    }
    let text = match arguments.print {
        Print::Pools => text::pools(&conversion.keys, &environment.pools),
        Print::Services => text::services(&conversion.patches),
    };
    // Whoever closed the pipe has read enough.
    _ = io::stdout().write_all(text.as_bytes());
    ExitCode::from(u8::from(conversion.findings.iter().any(finding::Finding::is_open)))
}

/// Says why there is nothing to convert, and ends accordingly.
pub fn unusable(error: anyhow::Error) -> ExitCode {
    eprintln!("berth-ccm convert: {}", chain(error.as_ref()));
    ExitCode::from(2)
}

fn look(arguments: &Arguments) -> Result<Conversion> {
    let name = arguments.file.display();
    let text = read(&arguments.file).with_context(|| format!("cannot read `{name}`"))?;
    let objects = Objects::read(&text)
        .map_err(Error::msg)
        .with_context(|| format!("cannot use `{name}`: it is neither YAML nor JSON"))?;
    let objects: Vec<&Value> = objects.all().collect();
    let Source::Metallb = arguments.source;
    metallb::convert(&objects, &arguments.namespace).with_context(|| format!("cannot use `{name}`"))
}
