//! containerd, runc and the CNI plugins out of the distribution's packages, unpacked into a cache and never installed:
//! no daemon starts, and a containerd or Docker of the host's own is not touched.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::cache;

/// The packages a node needs beyond what the host has.
const PACKAGES: [&str; 3] = ["containerd", "runc", "containernetworking-plugins"];

/// Files without which the packages are of no use.
const NEEDED: [&str; 5] = [
    "usr/bin/containerd",
    "usr/bin/containerd-shim-runc-v2",
    "usr/bin/ctr",
    "usr/sbin/runc",
    "usr/lib/cni/bridge",
];

/// The folder the packages are unpacked in, fetched if need be. Remove it to have newer versions fetched.
pub(super) fn fetch() -> Result<PathBuf> {
    cache::folder("packages", &release()?, is_complete, |unfinished| {
        eprintln!("Fetching {} without installing them", PACKAGES.join(", "));
        download(unfinished)?;
        unpack(unfinished)?;
        ensure!(is_complete(unfinished), "the packages {PACKAGES:?} lack one of {NEEDED:?}");
        Ok(())
    })
}

fn is_complete(folder: &Path) -> bool {
    NEEDED.iter().all(|name| folder.join(name).is_file())
}

/// The distribution's release and the machine's architecture, e.g. `debian-12-x86_64`: what decides about the versions.
fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or("unknown").trim_matches('"').to_owned()
    };
    Ok(format!("{}-{}-{}", field("ID"), field("VERSION_ID"), std::env::consts::ARCH))
}

fn download(folder: &Path) -> Result<()> {
    // As root: the user that apt else drops to may not write here.
    let arguments = ["-qq", "-o", "APT::Sandbox::User=root", "download"];
    let fetch = || run(Command::new("apt-get").args(arguments).args(PACKAGES).current_dir(folder));
    // A new machine has no lists, an old one has stale ones.
    if fetch().is_err() {
        run(Command::new("apt-get").args(["-qq", "update"]))?;
        fetch()?;
    }
    Ok(())
}

fn unpack(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "deb") {
            run(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(folder))?;
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("start {command:?}: the lab's nodes need Debian's apt"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
