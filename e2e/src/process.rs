//! Processes by pid, safe against reused numbers, and the lab's long-running ones by name.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{errno::Errno, sys::signal::Signal, unistd::Pid};
use serde::{Deserialize, Serialize};

use crate::keeper::exit_file;

/// A process, known by its pid in the host's PID namespace and by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pidded {
    /// The pid as the host sees it.
    pub pid: i32,
    /// Start time in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    pub started: u64,
}

impl Pidded {
    /// The process that has `pid` now, if there is one that is not a zombie.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything, parentheses included.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let (state, threads) = (*fields.first()?, *fields.get(17)?);
        let started = fields.get(19)?.parse().ok()?;
        // A first thread that has ended is a zombie while others still hold sockets.
        let gone = state == "X" || state == "Z" && threads == "1";
        (!gone).then_some(Self { pid, started })
    }

    /// Whether it still runs (a stopped or frozen one does).
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// Sends a signal. One that is gone is no error.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match nix::sys::signal::kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(e) => bail!("send {signal} to {}: {e}", self.pid),
        }
    }

    /// Waits until it is gone; false if it is still there after `limit`.
    pub fn wait(&self, limit: Duration) -> bool {
        let start = Instant::now();
        while self.is_alive() {
            if start.elapsed() > limit {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// SIGKILL, and back once it is gone.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        if !self.wait(Duration::from_secs(20)) {
            bail!("process {} is still there 20 s after SIGKILL", self.pid);
        }
        Ok(())
    }
}

/// A long-running process that a keeper started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Its name in the lab, e.g. `kube-apiserver`.
    pub name: String,
    /// Where it runs: `control`, `client`, a node's name.
    pub place: String,
    /// Who it is.
    pub id: Pidded,
    /// Its arguments.
    pub argv: Vec<String>,
    /// Its log.
    pub log: PathBuf,
}

impl Process {
    /// The pid as the host sees it.
    pub fn pid(&self) -> i32 {
        self.id.pid
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        self.id.is_alive()
    }

    /// SIGTERM, and back once it is gone; an error if it takes longer than `limit`.
    pub fn terminate(&self, limit: Duration) -> Result<()> {
        self.id.signal(Signal::SIGTERM)?;
        if !self.id.wait(limit) {
            bail!("{} (pid {}) is still there {limit:?} after SIGTERM", self.name, self.id.pid);
        }
        Ok(())
    }

    /// SIGKILL, and back once it is gone.
    pub fn kill(&self) -> Result<()> {
        self.id.kill().with_context(|| self.name.clone())
    }

    /// SIGSTOP: it keeps its sockets and says nothing.
    pub fn freeze(&self) -> Result<()> {
        self.id.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.id.signal(Signal::SIGCONT)
    }

    /// Any other signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.id.signal(signal)
    }

    /// How it ended, `code 0` or `signal SIGKILL`; none while it runs.
    pub fn ending(&self) -> Option<String> {
        Some(fs::read_to_string(exit_file(&self.log)).ok()?.trim().to_owned())
    }

    /// What it logged so far.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of the log, for an error message.
    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Resident memory in bytes, from `/proc/<pid>/status`.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .with_context(|| format!("{} is gone", self.name))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// How long it has had a processor so far, all threads together, in hundredths of a second (proc_pid_stat(5)).
    pub fn processor_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))
            .with_context(|| format!("{} is gone", self.name))?;
        // The name may have anything in it, and ends with the last bracket.
        let (_, rest) = stat.rsplit_once(')').context("no name")?;
        let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        Ok(Duration::from_millis(ticks.sum::<Result<u64, _>>()? * 10))
    }
}

/// The pid in the host's namespace of the process that is `inner` in the PID namespace of `keeper`.
/// None if it is already gone.
pub(crate) fn host_pid(keeper: i32, inner: i32) -> Result<Option<Pidded>> {
    let space = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = space(&keeper.to_string()).with_context(|| format!("keeper {keeper} is gone"))?;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().filter(|n| n.bytes().all(|b| b.is_ascii_digit())) else {
            continue;
        };
        let inner_of = |pid: &str| -> Option<i32> {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|l| l.strip_prefix("NSpid:"))?;
            // The process may itself be the first of a namespace further in, and have one number more.
            let depth = depth(keeper)?;
            line.split_whitespace().nth(depth)?.parse().ok()
        };
        let belongs = space(pid) == Some(wanted.clone()) || parent_of(pid) == Some(keeper);
        if belongs && inner_of(pid) == Some(inner) {
            return Ok(Pidded::of(pid.parse()?));
        }
    }
    Ok(None)
}

/// How many PID namespaces `pid` is inside of, below the host's.
fn depth(pid: i32) -> Option<usize> {
    let status =
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("NSpid:"))?;
    Some(line.split_whitespace().count() - 1)
}

fn parent_of(pid: &str) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
