//! The first process of a PID namespace: starts processes on request, reaps them, and takes all with it.
//!
//! The lab has one, which its supervisor starts; every node has one, which the lab's starts. A keeper never
//! restarts anything. `lab keep` runs [`keep`]; [`crate::place::Place`] talks to it over a Unix socket.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::{
        fd::AsFd,
        unix::{
            net::{UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl::set_pdeathsig,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::disk::replace;

/// A process to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The program and its arguments. The program is looked up in `PATH`.
    pub argv: Vec<String>,
    /// Environment beside the keeper's own.
    pub env: BTreeMap<String, String>,
    /// The network namespace, as a path in the keeper's mount namespace; else the keeper's own.
    pub net: Option<PathBuf>,
    /// Where standard output and error go, appended. How it ended goes beside it, to `<log>.exit`.
    pub log: PathBuf,
    /// Whether the process is to be the first of a PID namespace of its own.
    pub new_pid_namespace: bool,
}

/// How a keeper arranges its own namespaces before it serves.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Setup {
    /// The socket it listens on.
    pub socket: PathBuf,
    /// A cgroup to join in every hierarchy, e.g. `berth-lab/<lab>/<node>`.
    pub cgroup: Option<String>,
    /// The host name. With one the keeper is a node's: it has its own UTS, IPC and cgroup namespaces,
    /// fresh `/proc` and `/sys`, and an empty `/run`.
    pub hostname: Option<String>,
    /// A program that runs to its end in the new namespaces before the keeper serves.
    pub prepare: Vec<String>,
    /// Folders that get a tmpfs.
    pub tmpfs: Vec<PathBuf>,
    /// Whether to die when standard input ends or the parent dies.
    pub tied_to_parent: bool,
}

/// A keeper's answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Started; the pid is the one in the keeper's PID namespace.
    Started(i32),
    /// Not started, with the reason.
    Failed(String),
}

/// Host-wide settings that a kubelet writes. The lab covers them with files, so that the host keeps its own.
const SHIELDED: [&str; 3] =
    ["/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops"];

/// Runs a keeper until it is killed, or, if tied, until its parent lets go. Says `ready` on standard output.
pub fn keep(setup: &Setup) -> Result<()> {
    // The supervisor blocks signals for itself, and children inherit that.
    SigSet::all().thread_unblock()?;
    let parent = setup.tied_to_parent.then(std::io::stdin);
    if parent.is_some() {
        set_pdeathsig(Signal::SIGKILL).context("tie to the parent")?;
    }
    if let Some(cgroup) = &setup.cgroup {
        cgroup::join(cgroup)?;
    }
    arrange(setup)?;
    let mut child_signals = SigSet::empty();
    child_signals.add(Signal::SIGCHLD);
    child_signals.thread_block()?;
    let signals =
        SignalFd::with_flags(&child_signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;

    if let Some((program, arguments)) = setup.prepare.split_first() {
        let status = Command::new(program).args(arguments).stdin(Stdio::null()).status();
        let status = status.with_context(|| format!("start {program}"))?;
        ensure!(status.success(), "{program} ended with {status}");
    }
    let _ = fs::remove_file(&setup.socket);
    let listener = UnixListener::bind(&setup.socket)
        .with_context(|| format!("listen on {}", setup.socket.display()))?;
    println!("ready");

    let mut logs = BTreeMap::new();
    loop {
        let mut waits = vec![
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(stdin) = &parent {
            waits.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        // The timeout is for a SIGCHLD that a starting thread swallowed.
        match poll(&mut waits, PollTimeout::from(250u16)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e).context("poll"),
        }
        let ready: Vec<bool> = waits.iter().map(|w| w.any().unwrap_or(false)).collect();
        while let Ok(Some(_)) = signals.read_signal() {}
        reap(&mut logs);
        if ready[0] {
            // A caller that breaks off costs its own request only.
            if let Err(e) =
                listener.accept().map_err(Into::into).and_then(|(s, _)| serve(s, &mut logs))
            {
                eprintln!("request: {e:#}");
            }
        }
        if ready.get(2) == Some(&true) {
            return Ok(());
        }
    }
}

fn arrange(setup: &Setup) -> Result<()> {
    let mut spaces = CloneFlags::CLONE_NEWNS;
    if setup.hostname.is_some() {
        spaces |= CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWCGROUP;
    }
    unshare(spaces).context("unshare")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("make mounts private")?;
    if let Some(hostname) = &setup.hostname {
        nix::unistd::sethostname(hostname).context("set the host name")?;
        let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), "/proc", Some("proc"), plain, none).context("mount /proc")?;
        // The old /sys is another network namespace's; what is mounted below it stays below it.
        let _ = umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH);
        mount(Some("sysfs"), "/sys", Some("sysfs"), plain, none).context("mount /sys")?;
        tmpfs(Path::new("/run"))?;
    }
    for folder in &setup.tmpfs {
        fs::create_dir_all(folder)?;
        tmpfs(folder)?;
    }
    shield_host_settings(&setup.socket.with_extension("shield"))
}

fn tmpfs(folder: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), folder, Some("tmpfs"), flags, Some("mode=0755"))
        .with_context(|| format!("mount a tmpfs on {}", folder.display()))
}

fn shield_host_settings(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let result = SHIELDED.iter().try_for_each(|path| {
        let copy = folder.join(path.replace('/', "_"));
        fs::write(&copy, fs::read(path)?)?;
        // The bind keeps the file alive without its name.
        mount(Some(&copy), *path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("cover {path}"))
    });
    fs::remove_dir_all(folder)?;
    result
}

fn serve(stream: UnixStream, logs: &mut BTreeMap<i32, PathBuf>) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let run: Run = serde_json::from_str(&line).context("parse the request")?;
    let answer = match start(&run) {
        Ok(pid) => {
            logs.insert(pid, run.log);
            Answer::Started(pid)
        }
        Err(e) => Answer::Failed(format!("{e:#}")),
    };
    let mut stream = &stream;
    serde_json::to_writer(stream, &answer)?;
    stream.write_all(b"\n")?;
    Ok(())
}

/// Starts the process from a thread that has entered the namespaces, because children inherit the thread's.
fn start(run: &Run) -> Result<i32> {
    let Some((program, arguments)) = run.argv.split_first() else { bail!("empty argv") };
    let log = File::options()
        .create(true)
        .append(true)
        .open(&run.log)
        .with_context(|| format!("open {}", run.log.display()))?;
    let _ = fs::remove_file(exit_file(&run.log));
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(&run.env)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    let enter_and_start = || -> Result<i32> {
        SigSet::all().thread_unblock()?;
        if let Some(net) = &run.net {
            let file = File::open(net).with_context(|| format!("open {}", net.display()))?;
            setns(file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("enter {}", net.display()))?;
        }
        if run.new_pid_namespace {
            unshare(CloneFlags::CLONE_NEWPID).context("unshare the PID namespace")?;
        }
        let child = command.spawn().with_context(|| format!("start {program}"))?;
        Ok(i32::try_from(child.id())?)
    };
    thread::scope(|scope| scope.spawn(enter_and_start).join())
        .unwrap_or_else(|_| bail!("the thread that starts {program} panicked"))
}

fn reap(logs: &mut BTreeMap<i32, PathBuf>) {
    loop {
        let (pid, how) = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, format!("code {code}\n")),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, format!("signal {signal}\n")),
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => continue,
        };
        if let Some(log) = logs.remove(&pid.as_raw())
            && let Err(e) = replace(&exit_file(&log), how)
        {
            eprintln!("how {pid} ended: {e:#}");
        }
    }
}

/// Where a keeper writes how a process ended: `code 1` or `signal SIGKILL`.
pub(crate) fn exit_file(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".exit");
    name.into()
}
