//! berth-ccm as a script runs it.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result};

/// Runs the program with this on its standard input; what it ended with, said, and complained.
pub(crate) fn run(arguments: &[&str], text: &str) -> Result<(Option<i32>, String, String)> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_berth-ccm"))
        .args(arguments)
        .env_remove("KUBEVIP_NAMESPACE")
        .env_remove("KUBEVIP_CONFIG_MAP")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    program.stdin.take().context("no standard input")?.write_all(text.as_bytes())?;
    let Output { status, stdout, stderr } = program.wait_with_output()?;
    Ok((status.code(), String::from_utf8(stdout)?, String::from_utf8(stderr)?))
}
