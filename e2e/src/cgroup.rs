//! Cgroups below `berth-lab/<lab>`, in every v1 hierarchy or in the one v2 tree.
//!
//! Namespaces die with their processes; cgroups do not, so the supervisor removes them by this name.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

const ROOT: &str = "/sys/fs/cgroup";

/// The cgroup of a lab.
pub fn of_lab(lab: &str) -> String {
    format!("berth-lab/{lab}")
}

/// Moves the calling process into `path` in every hierarchy, creating it; but for one that shares out real-time (v1 with
/// `CONFIG_RT_GROUP_SCHED`): a new group has none there, and would refuse a process what its host allows.
pub fn join(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        if hierarchy.join("cpu.rt_runtime_us").exists() {
            continue;
        }
        // The last lab that goes removes the common parent, perhaps right now.
        create(&hierarchy, path).or_else(|_| create(&hierarchy, path))?;
        let file = hierarchy.join(path).join("cgroup.procs");
        fs::write(&file, "0").with_context(|| format!("join {}", file.display()))?;
    }
    Ok(())
}

/// Stops every process in `path` and below, and returns once all stand still.
pub fn freeze(path: &str) -> Result<()> {
    set_frozen(path, true)
}

/// Lets the processes in `path` go on.
pub fn thaw(path: &str) -> Result<()> {
    set_frozen(path, false)
}

/// Thaws and removes `path` and all below it, in every hierarchy. Its processes must be dead or dying.
pub fn remove(path: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        remove_tree(&hierarchy.join(path))?;
        // Succeeds for the last lab only.
        let _ = fs::remove_dir(hierarchy.join("berth-lab"));
    }
    Ok(())
}

/// Thaws everything below `path`, because a frozen process does not take its SIGKILL.
pub fn thaw_all(path: &str) {
    if let Ok(hierarchies) = hierarchies() {
        hierarchies.iter().for_each(|h| thaw_tree(&h.join(path)));
    }
}

/// Which of `berth-lab`'s children there are, in any hierarchy: the labs that have cgroups.
pub fn labs() -> Result<Vec<String>> {
    let mut found: Vec<String> = hierarchies()?
        .iter()
        .filter_map(|h| fs::read_dir(h.join("berth-lab")).ok())
        .flatten()
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// The roots: the v2 tree, or each folder of a v1 layout that can hold processes.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    if root.join("cgroup.procs").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let entries = fs::read_dir(root).with_context(|| format!("read {ROOT}"))?;
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        // `cpu` may be a link to `cpu,cpuacct`.
        .filter(|path| !path.is_symlink() && path.join("cgroup.procs").exists())
        .collect();
    found.sort();
    Ok(found)
}

fn create(hierarchy: &Path, path: &str) -> Result<()> {
    let mut folder = hierarchy.to_owned();
    for part in Path::new(path).components() {
        let parent = folder.clone();
        folder.push(part);
        match fs::create_dir(&folder) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(|| format!("create {}", folder.display())),
        }
        // A new v1 cpuset takes no process before it has both.
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (parent.join(name), folder.join(name));
            if hierarchy != Path::new(ROOT) && to.exists() {
                fs::write(&to, fs::read(from)?)
                    .with_context(|| format!("seed {}", to.display()))?;
            }
        }
    }
    Ok(())
}

fn set_frozen(path: &str, frozen: bool) -> Result<()> {
    let v2 = Path::new(ROOT).join(path).join("cgroup.freeze");
    let v1 = Path::new(ROOT).join("freezer").join(path).join("freezer.state");
    if v2.exists() {
        let state = if frozen { "1" } else { "0" };
        fs::write(&v2, state).with_context(|| format!("write {}", v2.display()))?;
        let events = v2.with_file_name("cgroup.events");
        return until(&events, |text| text.contains(&format!("frozen {state}")));
    }
    let state = if frozen { "FROZEN" } else { "THAWED" };
    fs::write(&v1, state).with_context(|| format!("write {} to {}", state, v1.display()))?;
    until(&v1, |text| text.trim() == state)
}

fn until(file: &Path, reached: impl Fn(&str) -> bool) -> Result<()> {
    let start = Instant::now();
    while !reached(&fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?) {
        if start.elapsed() > Duration::from_secs(10) {
            bail!("{} did not change within 10 s", file.display());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn thaw_tree(folder: &Path) {
    let _ = fs::write(folder.join("freezer.state"), "THAWED");
    if folder.join("cgroup.freeze").exists() {
        let _ = fs::write(folder.join("cgroup.freeze"), "0");
    }
    for below in folders(folder) {
        thaw_tree(&below);
    }
}

fn remove_tree(folder: &Path) -> Result<()> {
    for below in folders(folder) {
        remove_tree(&below)?;
    }
    let start = Instant::now();
    loop {
        match fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            // Killed processes leave their cgroup a moment after they are reaped.
            Err(e)
                if e.kind() == ErrorKind::ResourceBusy
                    && start.elapsed() < Duration::from_secs(10) =>
            {
                thread::sleep(Duration::from_millis(2));
            }
            Err(e) => return Err(e).with_context(|| format!("remove {}", folder.display())),
        }
    }
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect()
}
