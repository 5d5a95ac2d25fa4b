//! Where a lab keeps its files, and how one tells a living lab from what a dead one left.
//!
//! One folder a lab, `lock` in it held by its supervisor: a folder whose lock is free is a leftover.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Where labs keep their folders unless `BERTH_LAB_DIR` says otherwise. Not below `/run`, which nodes cover.
pub const DEFAULT_BASE: &str = "/var/lib/berth-lab";

/// One lab's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabDir {
    name: String,
    path: PathBuf,
}

/// What the supervisor writes once the lab's first process runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Supervision {
    /// The supervisor.
    pub supervisor: i32,
    /// The first process of the lab's PID namespace: when it dies, all die.
    pub init: i32,
    /// `init`'s start time in clock ticks since boot, so that a reused pid is not taken for it.
    pub init_started: u64,
}

impl LabDir {
    /// The folder of the lab `name`: lower-case letters, digits and dashes, at most 32.
    pub fn new(name: &str) -> Result<Self> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            !name.is_empty() && name.len() <= 32 && name.chars().all(good),
            "lab name {name:?}: 1 to 32 of a-z, 0-9 and '-' are accepted"
        );
        Ok(Self { name: name.to_owned(), path: base().join(name) })
    }

    /// Every folder there is, of labs living and dead.
    pub fn all() -> Result<Vec<Self>> {
        let entries = match fs::read_dir(base()) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(|| format!("read {}", base().display())),
        };
        let mut found: Vec<_> =
            entries.filter_map(|entry| Self::new(entry.ok()?.file_name().to_str()?).ok()).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file or folder `name` in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Where a network namespace is mounted (in the lab's mount namespace only).
    pub fn netns(&self, name: &str) -> PathBuf {
        self.path.join("netns").join(name)
    }

    /// The log of the process `name`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }

    /// Takes the lab's lock, or `None` if its supervisor holds it. Creates the folder.
    /// The lock is held as long as the file is open.
    pub fn try_lock(&self) -> Result<Option<File>> {
        loop {
            match fs::create_dir_all(&self.path) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                result => result.with_context(|| format!("create {}", self.path.display()))?,
            }
            let path = self.path.join("lock");
            let file = match OpenOptions::new().create(true).truncate(false).write(true).open(&path)
            {
                Ok(file) => file,
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                Err(e) => return Err(e).with_context(|| format!("open {}", path.display())),
            };
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&write_lock())) {
                Ok(_) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => return Ok(None),
                Err(e) => bail!("lock {}: {e}", path.display()),
            }
            // Between open and lock the former holder may have removed the folder.
            if fs::metadata(&path).is_ok_and(|m| file.metadata().is_ok_and(|f| m.ino() == f.ino()))
            {
                return Ok(Some(file));
            }
        }
    }

    /// Whether a supervisor holds the lab. Asks without taking the lock, so it disturbs nobody.
    pub fn is_live(&self) -> Result<bool> {
        let Ok(file) = File::open(self.path.join("lock")) else { return Ok(false) };
        let mut lock = write_lock();
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))
            .with_context(|| format!("lock of {}", self.path.display()))?;
        Ok(i32::from(lock.l_type) != libc::F_UNLCK)
    }

    /// Copies logs and captures to `lab/<name>` in Cargo's target folder, or in the one for temporary files.
    pub fn keep_logs(&self) -> Result<PathBuf> {
        let this = std::env::current_exe()?;
        let target = this.ancestors().find(|path| path.ends_with("target"));
        let kept =
            target.map_or_else(std::env::temp_dir, Path::to_owned).join("lab").join(&self.name);
        let _ = fs::remove_dir_all(&kept);
        fs::create_dir_all(&kept).with_context(|| format!("create {}", kept.display()))?;
        for entry in fs::read_dir(self.path.join("logs"))? {
            let entry = entry?;
            match fs::copy(entry.path(), kept.join(entry.file_name())) {
                // It was written aside, and has its name by now.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                result => {
                    result.with_context(|| format!("copy {}", entry.path().display()))?;
                }
            }
        }
        Ok(kept)
    }

    /// Writes `value` as `<name>.json`, whole or not at all.
    pub fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        replace(&self.path.join(format!("{name}.json")), serde_json::to_vec_pretty(value)?)
    }

    /// Reads `<name>.json`.
    pub fn load<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let path = self.path.join(format!("{name}.json"));
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))
    }
}

/// The folder of all labs.
pub fn base() -> PathBuf {
    std::env::var_os("BERTH_LAB_DIR").map_or_else(|| DEFAULT_BASE.into(), PathBuf::from)
}

/// A lock on the whole file that belongs to the open file, not to the process (fcntl(2), OFD locks).
fn write_lock() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Writes a file, whole or not at all: who reads it meanwhile finds what was there before, or all of what comes.
pub fn replace(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    replace_with_mode(path, content.as_ref(), 0o644)
}

/// The same for a file that only root can read.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    replace_with_mode(path, text.as_bytes(), 0o600)
}

fn replace_with_mode(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    // Two may write the same file, from two threads or two processes.
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}-{number}.new", std::process::id()));
    let aside = PathBuf::from(aside);
    let write = || -> std::io::Result<()> {
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&aside)?;
        file.write_all(content)?;
        fs::rename(&aside, path)
    };
    let result = write();
    if result.is_err() {
        let _ = fs::remove_file(&aside);
    }
    result.with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_a_file_while_it_is_replaced_reads_the_whole_of_one_or_the_other() {
        let folder = std::env::temp_dir().join(format!("berth-replace-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("file");
        let texts = ["a".repeat(100_000), "b".repeat(50_000)];
        replace(&path, &texts[0]).unwrap();
        std::thread::scope(|scope| {
            let writers = texts.each_ref().map(|text| {
                let path = &path;
                scope.spawn(move || (0..200).for_each(|_| replace(path, text).unwrap()))
            });
            while writers.iter().any(|writer| !writer.is_finished()) {
                let read = fs::read_to_string(&path).unwrap();
                assert!(texts.contains(&read), "{} bytes", read.len());
            }
        });
        let left = fs::read_dir(&folder).unwrap().count();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(left, 1, "what was written aside is gone");
    }
}
