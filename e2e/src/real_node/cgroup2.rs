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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cgroup_above_the_node_hands_controllers_down_and_the_node_does_not() {
        let root = std::env::temp_dir().join(format!("berth-cgroup2-test-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("cgroup.controllers"), "cpu memory").unwrap();
        delegate_below(&root, "labs/one/node0").unwrap();
        let hands_down = |folder: &str| root.join(folder).join("cgroup.subtree_control").exists();
        let result = ["", "labs", "labs/one", "labs/one/node0"].map(hands_down);
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(result, [true, true, true, false]);
    }

    #[test]
    fn the_old_hierarchies_are_left_alone() {
        let root = std::env::temp_dir().join(format!("berth-cgroup1-test-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        delegate_below(&root, "labs/one/node0").unwrap();
        let untouched = fs::read_dir(&root).unwrap().next().is_none();
        fs::remove_dir_all(&root).unwrap();
        assert!(untouched);
    }
}
