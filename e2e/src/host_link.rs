//! The veth between the host's network namespace and the control plane's: the one thing of a lab that others can see.
//!
//! Its name is unique in the host's namespace, so making it is what claims the slot. Its number is never used again
//! while the machine is up, so nobody removes another lab's.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{addresses::Slot, disk::LabDir, fabric::IP_BATCH, place::Place};

/// The link as the lab's folder remembers it, in `link.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Link {
    slot: Slot,
    index: u32,
}

/// Makes the link in the first slot that is free.
pub(crate) fn join(control_plane: &Place) -> Result<Slot> {
    for slot in (0..=u8::MAX).map(Slot) {
        let interface = slot.interface();
        if index_of(&interface).is_some() {
            continue;
        }
        let netns = control_plane.netns_from_host().display().to_string();
        let script = format!(
            "link add {interface} type veth peer name host netns {netns}\n\
             address add {}/30 dev {interface}\nlink set {interface} up\n",
            slot.host()
        );
        match run(&script) {
            Ok(()) => {
                let index = index_of(&interface).context("the new link is gone")?;
                control_plane.dir.save("link", &Link { slot, index })?;
                return Ok(slot);
            }
            // Another lab was quicker.
            Err(e) if format!("{e:#}").contains("File exists") => {}
            Err(e) => return Err(e.context("join the control plane with the host")),
        }
    }
    bail!("all 256 links berthlab0..255 are taken: `lab down` the labs you do not need")
}

/// Removes the link of a lab whose processes still run. None is no error.
pub(crate) fn remove(dir: &LabDir) -> Result<()> {
    let Ok(link) = dir.load::<Link>("link") else { return Ok(()) };
    if index_of(&link.slot.interface()) == Some(link.index) {
        run(&format!("link delete dev {}\n", link.slot.interface()))?;
    }
    Ok(())
}

/// Waits until the kernel has removed the link of a lab whose processes are dead: it does so in its own time.
pub(crate) fn wait_until_gone(dir: &LabDir) -> Result<()> {
    let Ok(link) = dir.load::<Link>("link") else { return Ok(()) };
    let start = Instant::now();
    while index_of(&link.slot.interface()) == Some(link.index) {
        ensure!(start.elapsed() < Duration::from_secs(10), "{} stays", link.slot.interface());
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn index_of(interface: &str) -> Option<u32> {
    let path = Path::new("/sys/class/net").join(interface).join("ifindex");
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn run(script: &str) -> Result<()> {
    let mut child = Command::new(IP_BATCH[0])
        .args(&IP_BATCH[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start ip")?;
    child.stdin.take().context("no standard input")?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
