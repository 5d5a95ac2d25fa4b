//! kind, and Docker's daemon for a machine that has none, built from `e2e/kind/go.mod`.

use std::path::PathBuf;

use anyhow::Result;

use crate::go_tools::{self, GoTools};

const FOLDER: &str = "kind";
const MODULE: &str = "sigs.k8s.io/kind";
const DOCKER: &str = "github.com/docker/docker";
const PROGRAMS: [(&str, &str); 3] =
    [("docker-proxy", "docker-proxy"), ("dockerd", "dockerd"), ("kind", "kind")];

/// The folder of the programs, built if need be. Progress goes to standard error.
pub fn build() -> Result<PathBuf> {
    tools()?.build()
}

/// The folder of kind's source, which has what its node images are made of.
pub fn source() -> Result<PathBuf> {
    tools()?.source()
}

fn tools() -> Result<GoTools> {
    let docker = go_tools::version(FOLDER, DOCKER)?;
    let docker = docker.trim_start_matches('v').trim_end_matches("+incompatible");
    let linker = format!("-X {DOCKER}/dockerversion.Version={docker}");
    Ok(GoTools { folder: FOLDER, module: MODULE, programs: &PROGRAMS, linker })
}
