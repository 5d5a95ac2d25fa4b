//! Files out of the distribution's packages, unpacked into a cache and never installed: no daemon starts, no kernel is
//! the machine's next, and what the host itself has of them is not touched.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use lab_programs::cache;

/// Packages for one purpose.
pub(crate) struct Packages {
    /// The folder of the cache they go to.
    pub(crate) kind: &'static str,
    /// Their names, as apt's lists have them at the moment.
    pub(crate) names: fn() -> Result<Vec<String>>,
    /// Files without which they are of no use.
    pub(crate) needed: &'static [&'static str],
}

impl Packages {
    /// The folder they are unpacked in, fetched if need be. Remove it to have newer versions fetched.
    pub(crate) fn fetch(&self) -> Result<PathBuf> {
        let is_complete = |folder: &Path| self.needed.iter().all(|name| folder.join(name).exists());
        cache::folder(self.kind, &release()?, is_complete, |unfinished| {
            self.download(unfinished)?;
            unpack(unfinished)?;
            let needed = self.needed;
            ensure!(
                is_complete(unfinished),
                "the packages of {} lack one of {needed:?}",
                self.kind
            );
            Ok(())
        })
    }

    fn download(&self, folder: &Path) -> Result<()> {
        // As root: the user that apt else drops to may not write here.
        let arguments = ["-qq", "-o", "APT::Sandbox::User=root", "download"];
        let fetch = || {
            let names = (self.names)()?;
            eprintln!("Fetching {} without installing them", names.join(", "));
            run(Command::new("apt-get").args(arguments).args(names).current_dir(folder))
        };
        // A new machine has no lists, an old one has stale ones.
        if fetch().is_err() {
            run(Command::new("apt-get").args(["-qq", "update"]))?;
            fetch()?;
        }
        Ok(())
    }
}

/// The first package that `name` depends on.
pub(crate) fn dependency(name: &str) -> Result<String> {
    let said = run(Command::new("apt-cache").args(["depends", "--important", name]))?;
    let found = said.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(found.with_context(|| format!("{name} depends on nothing that apt knows"))?.to_owned())
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

/// Runs a command, which must succeed; gives what it prints.
fn run(command: &mut Command) -> Result<String> {
    let output =
        command.output().with_context(|| format!("start {command:?}: this needs Debian's apt"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
