//! What a user types, in a shell whose programs are Berth's and whose kubectl is that of the lab's cluster.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use berth_e2e::place::sibling_program;
use berth_e2e::world::World;

/// Runs commands in this folder, for so many seconds at most; what they said.
pub(crate) fn shell(world: &World, folder: &Path, seconds: u32, text: &str) -> Result<String> {
    let ccm = sibling_program("berth-ccm", "BERTH_CCM")?;
    let ours = ccm.parent().context("no folder")?.display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("timeout")
        .args([&seconds.to_string(), "sh", "-euc", text])
        .current_dir(folder)
        .env("KUBECONFIG", world.lab.kubeconfig())
        .env("PATH", format!("{}:{ours}:{path}", world.lab.programs().display()))
        .output()?;
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    ensure!(output.status.success(), "{text}\n{}: {said:?}", output.status);
    Ok(said.concat())
}
