//! GoBGP, a router of the tests, built from `e2e/gobgp/go.mod`.

use std::path::PathBuf;

use anyhow::Result;

use crate::go_tools::GoTools;

/// The folder of `gobgpd` and `gobgp`, built if need be. Progress goes to standard error.
pub fn build() -> Result<PathBuf> {
    tools().build()
}

/// The version that is built.
pub fn version() -> Result<String> {
    tools().version()
}

fn tools() -> GoTools {
    GoTools {
        folder: "gobgp",
        module: "github.com/osrg/gobgp/v4",
        programs: &[("gobgp", "gobgp"), ("gobgpd", "gobgpd")],
        linker: String::new(),
    }
}
