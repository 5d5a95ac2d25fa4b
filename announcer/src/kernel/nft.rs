//! Runs `nft`, which must be able to take seconds: somebody's large transaction may hold the rule set.

use std::io;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Why `nft` did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started.
    #[error("starting nft: {0}")]
    Start(#[from] io::Error),
    /// It refused.
    #[error("nft: {0}")]
    Refused(String),
}

/// Loads a script, in one transaction.
pub(crate) async fn load(script: &str) -> Result<(), Error> {
    run(&["-f", "-"], script).await.map(drop)
}

/// Runs `nft` and gives what it says.
pub(crate) async fn run(arguments: &[&str], input: &str) -> Result<String, Error> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Refused(said.lines().next().unwrap_or("failed without a word").to_owned()))
}
