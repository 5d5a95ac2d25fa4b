//! What of a lab is still on the machine, judged by /proc, the mount tables, `ip` and the cgroup file systems.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use berth_e2e::{disk::LabDir, process::Pidded};

/// Everything of one lab that others could find on the machine, taken while it is up.
pub(crate) struct Traces {
    dir: LabDir,
    processes: Vec<Pidded>,
    spaces: BTreeSet<String>,
    link: String,
}

impl Traces {
    /// Of a lab that is up.
    pub(crate) fn of(name: &str) -> Result<Self> {
        let dir = LabDir::new(name)?;
        let mark = dir.path().display().to_string();
        let mut processes = Vec::new();
        let mut spaces = BTreeSet::new();
        let host = fs::read_link("/proc/self/ns/net")?;
        for pid in pids()? {
            let of =
                |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            if !of("mountinfo").contains(&mark)
                && !of("cmdline").contains(&format!("supervise\0{name}\0"))
            {
                continue;
            }
            processes.extend(Pidded::of(pid));
            if let Ok(net) = fs::read_link(format!("/proc/{pid}/ns/net"))
                && net != host
            {
                spaces.insert(net.display().to_string());
            }
        }
        let link: serde_json::Value = dir.load("link")?;
        let link = format!("berthlab{}", link["slot"]);
        ensure!(processes.len() > 2, "a lab of {} processes: {processes:?}", processes.len());
        ensure!(links()?.contains(&link), "no link {link} on the host");
        Ok(Self { dir, processes, spaces, link })
    }

    /// Its processes.
    pub(crate) fn processes(&self) -> &[Pidded] {
        &self.processes
    }

    /// What is left, one line each; empty is what a test wants.
    pub(crate) fn left(&self) -> Result<Vec<String>> {
        let mark = self.dir.path().display().to_string();
        let mut left: Vec<String> = self
            .processes
            .iter()
            .filter(|p| p.is_alive())
            .map(|p| format!("process {}", p.pid))
            .collect();
        for pid in pids()? {
            let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
            left.extend(
                mounts
                    .lines()
                    .filter(|l| l.contains(&mark))
                    .map(|l| format!("mount of {pid}: {l}")),
            );
            let net = fs::read_link(format!("/proc/{pid}/ns/net")).unwrap_or_default();
            if self.spaces.contains(&net.display().to_string()) {
                left.push(format!("network namespace {} of {pid}", net.display()));
            }
        }
        if links()?.contains(&self.link) && !others_have(&self.link, self.dir.name())? {
            left.push(format!("link {}", self.link));
        }
        let named = Command::new("ip").args(["netns", "list"]).output()?.stdout;
        if String::from_utf8_lossy(&named).contains(self.dir.name()) {
            left.push("a named network namespace".into());
        }
        for hierarchy in
            [Path::new("/sys/fs/cgroup").to_owned()].into_iter().chain(folders("/sys/fs/cgroup")?)
        {
            let cgroup = hierarchy.join("berth-lab").join(self.dir.name());
            if cgroup.exists() {
                left.push(format!("cgroup {}", cgroup.display()));
            }
        }
        if self.dir.path().exists() {
            left.push(format!("folder {}", self.dir.path().display()));
        }
        Ok(left)
    }
}

/// Another lab may have taken the link's name meanwhile.
fn others_have(link: &str, name: &str) -> Result<bool> {
    Ok(LabDir::all()?.iter().filter(|dir| dir.name() != name).any(|dir| {
        let known = dir.load::<serde_json::Value>("link");
        known.is_ok_and(|known| format!("berthlab{}", known["slot"]) == link)
    }))
}

fn pids() -> Result<Vec<i32>> {
    let entries = fs::read_dir("/proc").context("read /proc")?;
    Ok(entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn links() -> Result<Vec<String>> {
    let output = Command::new("ip").args(["-json", "link"]).output()?;
    let links: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout)?;
    Ok(links.iter().filter_map(|l| Some(l["ifname"].as_str()?.to_owned())).collect())
}

fn folders(path: &str) -> Result<Vec<std::path::PathBuf>> {
    Ok(fs::read_dir(path)?.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_dir()).collect())
}
