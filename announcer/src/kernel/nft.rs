//! Runs `nft`.

use super::exec;
pub use super::exec::Error;

/// Loads a script, in one transaction.
pub(crate) async fn load(script: &str) -> Result<(), Error> {
    run(&["-f", "-"], script).await.map(drop)
}

/// Runs `nft` and gives what it says.
pub(crate) async fn run(arguments: &[&str], input: &str) -> Result<String, Error> {
    exec::run("nft", arguments, input).await
}
