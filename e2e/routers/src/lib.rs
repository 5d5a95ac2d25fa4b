//! BIRD, FRR and GoBGP as routers of tests: how each is set up to take what nodes announce, and what each then says.
//!
//! | module | owns |
//! |---|---|
//! | `plan` | what a router is to be, and what it says, in words of no program |
//! | `bird`, `frr`, `gobgp` | the configuration of each, the commands that start it, and how its answers are read |
//! | `wired` | one of them in a network namespace, on a cable with a node's |
//!
//! Nothing here knows how Berth speaks: what is judged is judged by what a router says.

mod bird;
mod frr;
mod gobgp;
mod namespace;
mod plan;
mod wired;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

pub use bird::Bird;
pub use frr::Frr;
pub use gobgp::GoBgp;
pub use namespace::Namespace;
pub use plan::{Daemon, Family, Neighbor, Plan, Program, Route, Session};
pub use wired::{Cable, Wired, until};

/// Where programs of the system are, whatever the caller has.
const SEARCHED: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a program says; an error where it fails.
fn ask<S: AsRef<std::ffi::OsStr>>(
    program: &Path,
    words: impl IntoIterator<Item = S>,
) -> Result<String> {
    let name = program.display();
    let output = Command::new(program)
        .args(words)
        .env("PATH", SEARCHED)
        .output()
        .with_context(|| format!("{name} is needed"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}: {said}{error}", output.status);
    Ok(said)
}
