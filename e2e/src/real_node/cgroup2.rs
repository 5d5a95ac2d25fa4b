//! Handing controllers down to a node where the host has the unified cgroup hierarchy.
//!
//! With the old hierarchies there is nothing to do: a cgroup has its controllers by being made.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context, Result};

/// What kubelet wants to find; it lives without the others.
const WANTED: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// Makes every cgroup above `path` hand the controllers kubelet needs to those below, and makes them.
/// Controllers stay on at the top afterwards: other cgroups may use them by then.
pub(super) fn delegate(path: &str) -> Result<()> {
    delegate_below(Path::new("/sys/fs/cgroup"), path)
}

fn delegate_below(root: &Path, path: &str) -> Result<()> {
    if !root.join("cgroup.controllers").exists() {
        return Ok(());
    }
    let mut folder = root.to_owned();
    for part in Path::new(path).components() {
        for controller in WANTED {
            let file = folder.join("cgroup.subtree_control");
            fs::write(&file, format!("+{controller}"))
                .with_context(|| format!("write +{controller} to {}", file.display()))?;
        }
        folder.push(part);
        match fs::create_dir(&folder) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(e).with_context(|| format!("create {}", folder.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
