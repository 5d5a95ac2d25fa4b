//! Programs that are started to say something.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

/// Where programs of the system are, whatever the caller has.
pub(crate) const SEARCHED: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a program says; an error where it fails.
pub(crate) fn ask<S: AsRef<OsStr>>(
    program: &Path,
    words: impl IntoIterator<Item = S>,
) -> Result<String> {
    let output = run(program, words)?;
    let said = text(&output.stdout);
    let (name, error) = (program.display(), text(&output.stderr));
    ensure!(output.status.success(), "{name}: {}: {said}{error}", output.status);
    Ok(said)
}

/// How a program ends.
pub(crate) fn run<S: AsRef<OsStr>>(
    program: &Path,
    words: impl IntoIterator<Item = S>,
) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(words).env("PATH", SEARCHED);
    command.output().with_context(|| format!("{} is needed", program.display()))
}

/// What it says, as text.
pub(crate) fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}
