//! `berth-ccm check`: what pools would mean, said before they are applied. Reads, and changes nothing.
//!
//! | module | owns |
//! |---|---|
//! | [`manifest`] | finding the ConfigMap in a file |
//! | [`cluster`] | reading who has which address |
//! | [`review`](mod@review) | what follows from both, as a value |
//! | `text` | how that reads |

pub mod cluster;
pub mod manifest;
pub mod review;
mod text;

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use berth_api::NamespacedName;
use berth_runtime::watch::chain;

use crate::environment::Environment;

use review::{Finding, Review, review};

/// How the program ends; scripts rely on it.
pub const EXIT_CODES: &str = "Exit code:\n  0  nothing is wrong\n  1  there are problems; each is named\n  \
    2  there is nothing to look at: the file, the ConfigMap in it or the cluster cannot be read";

/// What to check.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The file with the ConfigMap, in YAML or as kubectl prints it; `-` is the standard input.
    #[arg(value_name = "CONFIGMAP.yaml")]
    file: PathBuf,
    /// Also say what would become of the addresses that are assigned in a cluster: a kubeconfig file, or `current` for
    /// that of kubectl [default: no cluster is asked]
    #[arg(long, value_name = "KUBECONFIG")]
    against: Option<PathBuf>,
    /// With --against: namespace of the Leases by which nodes tell their addresses [default: that of the pools:
    /// KUBEVIP_NAMESPACE, else what the file says, else kube-system]
    #[arg(long, value_name = "NAMESPACE", requires = "against")]
    leases: Option<String>,
}

/// Prints the review and ends as [`EXIT_CODES`] says.
pub async fn run(arguments: &Arguments, environment: &Environment) -> ExitCode {
    let review = match look(arguments, environment).await {
        Ok(review) => review,
        Err(error) => return unusable(error),
    };
    // Whoever closed the pipe has read enough.
    _ = write!(io::stdout(), "{review}");
    ExitCode::from(u8::from(review.problems().next().is_some()))
}

/// Says why there is nothing to look at, and ends accordingly.
pub fn unusable(error: anyhow::Error) -> ExitCode {
    eprintln!("berth-ccm check: {}", chain(error.as_ref()));
    ExitCode::from(2)
}

async fn look(arguments: &Arguments, environment: &Environment) -> Result<Review> {
    let Arguments { file, against, leases } = arguments;
    let Environment { pools, names_namespace, classes } = environment;
    let name = file.display();
    let text = read(file).with_context(|| format!("cannot read `{name}`"))?;
    let manifest = manifest::read(&text, pools, *names_namespace)
        .with_context(|| format!("cannot use `{name}`"))?;
    let said = manifest.namespace.clone().filter(|_| !names_namespace);
    let namespace = said.unwrap_or_else(|| pools.namespace.clone());
    let place = NamespacedName { namespace, name: pools.name.clone() };
    let cluster = match against {
        None => None,
        Some(kubeconfig) => {
            let current = kubeconfig == Path::new("current");
            let config = berth_runtime::client::configure((!current).then_some(kubeconfig)).await?;
            let client = berth_runtime::client::connect(config)?;
            let leases = leases.as_ref().unwrap_or(&place.namespace);
            Some(cluster::read(&client, &place, leases, classes).await?)
        }
    };
    let mut review = review(&manifest.data, cluster.as_ref());
    let mut first: Vec<Finding> = manifest.not_text.into_iter().map(Finding::NotText).collect();
    if manifest.name != pools.name && manifest.name != pools.to_string() {
        first.push(Finding::OtherName(manifest.name, pools.clone()));
    }
    review.findings.splice(0..0, first);
    Ok(review)
}

/// The text of a file, or of standard input where it is `-`.
pub(crate) fn read(file: &Path) -> io::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    fs::read_to_string(file)
}

#[cfg(test)]
mod tests;
