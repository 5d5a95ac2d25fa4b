//! Programs that are started to say something.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Where programs of the system are, whatever the caller has.
pub(crate) const SEARCHED: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a program says; an error where it fails.
pub(crate) fn ask<S: AsRef<OsStr>>(
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
