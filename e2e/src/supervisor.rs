//! Owns a lab's life: holds its lock, starts its first process, and removes all of it when its owner is gone.
//!
//! The owner keeps a pipe open. When the pipe ends, however the owner died, the lab goes. An owner that wants the
//! lab to outlive it writes `D` first. If the supervisor itself is killed, its first process dies with it, hence
//! every process and namespace of the lab; what remains (files, cgroups) is [`sweep`]'s.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

use crate::{
    cgroup,
    disk::{LabDir, Supervision},
    host_link,
    keeper::Setup,
    place::{Keeper, lab_program},
    process::Pidded,
};

/// The owner's end of a supervised lab. Dropping it takes the lab down.
#[derive(Debug)]
pub struct Owner {
    child: Child,
    pipe: Option<ChildStdin>,
    dir: LabDir,
    /// The keeper of the lab's PID namespace.
    pub keeper: Keeper,
}

impl Owner {
    /// Starts a supervisor for the lab in `dir` and waits until its first process serves.
    pub fn start(dir: &LabDir) -> Result<Self> {
        let mut child = Command::new(lab_program()?)
            .args(["supervise", dir.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("start the supervisor")?;
        let pipe = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no standard output")?).read_line(&mut line)?;
        if line.trim() != "ready" {
            let _ = child.wait();
            bail!(
                "{}",
                if line.is_empty() { "the supervisor ended without a word" } else { line.trim() }
            );
        }
        let keeper = keeper_of(dir)?;
        Ok(Self { child, pipe, dir: dir.clone(), keeper })
    }

    /// Lets the lab outlive this process.
    pub fn detach(mut self) -> Result<()> {
        let mut pipe = self.pipe.take().context("already let go")?;
        pipe.write_all(b"D").context("tell the supervisor to go on alone")
    }

    /// Takes the lab down and returns once nothing of it is left.
    pub fn down(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if self.pipe.take().is_some() {
            let status = self.child.wait().context("wait for the supervisor")?;
            ensure!(status.success(), "the supervisor of {} ended with {status}", self.dir.name());
        }
        Ok(())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            eprintln!("{e:#}");
        }
    }
}

/// The keeper of a living lab.
pub fn keeper_of(dir: &LabDir) -> Result<Keeper> {
    let who: Supervision = dir.load("supervision")?;
    Ok(Keeper {
        id: Pidded { pid: who.init, started: who.init_started },
        socket: dir.join("keepers/lab"),
    })
}

/// Stops the supervisor of a living lab, or sweeps a dead one. False if there was neither.
pub fn down(dir: &LabDir) -> Result<bool> {
    if dir.is_live()? {
        // The lock is taken before the file is written: a lab that is just starting has none yet.
        let who: Supervision = dir.load("supervision").context("the lab is still starting")?;
        let supervisor = Pidded::of(who.supervisor).context("the supervisor is gone")?;
        supervisor.signal(Signal::SIGTERM)?;
        ensure!(
            supervisor.wait(Duration::from_secs(60)),
            "the supervisor {} does not end",
            supervisor.pid
        );
        // Nothing to do, unless it failed half-way.
        sweep_one(dir)?;
        return Ok(true);
    }
    let existed = dir.path().exists() || cgroup::labs()?.iter().any(|lab| lab == dir.name());
    sweep_one(dir)?;
    Ok(existed)
}

/// Removes what labs left whose supervisor is dead, and names them. Living labs are not touched.
pub fn sweep() -> Result<Vec<String>> {
    let mut swept = Vec::new();
    for dir in LabDir::all()? {
        if !dir.is_live()? && sweep_one(&dir)? {
            swept.push(dir.name().to_owned());
        }
    }
    Ok(swept)
}

fn sweep_one(dir: &LabDir) -> Result<bool> {
    let Some(_lock) = dir.try_lock()? else { return Ok(false) };
    remove(dir)?;
    Ok(true)
}

/// The supervisor itself, as `lab supervise <name>`. Standard input is the owner's pipe.
pub fn supervise(dir: &LabDir) -> Result<()> {
    // The caller reads one line: `ready`, or why not.
    let refuse = |e: anyhow::Error| {
        println!("{e:#}");
        e
    };
    let (lock, signals) = take(dir).map_err(refuse)?;
    let (init, init_ended) = match prepare(dir) {
        Ok(started) => started,
        Err(e) => {
            let _ = remove(dir);
            return Err(refuse(e));
        }
    };
    println!("ready");
    let waited = wait_for_the_end(&signals, &init_ended);
    // A frozen process does not take its SIGKILL.
    cgroup::thaw_all(&cgroup::of_lab(dir.name()));
    let removed = init.kill().and_then(|()| remove(dir));
    drop(lock);
    waited.and(removed)
}

/// Makes this process the lab's only supervisor, out of reach of its owner's terminal.
fn take(dir: &LabDir) -> Result<(File, SignalFd)> {
    let _ = nix::unistd::setsid();
    let mut ends = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(|s| ends.add(s));
    ends.thread_block()?;
    let signals = SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC)?;

    let start = Instant::now();
    let lock = loop {
        if let Some(lock) = dir.try_lock()? {
            break lock;
        }
        let supervised = dir
            .load::<Supervision>("supervision")
            .is_ok_and(|who| Pidded::of(who.supervisor).is_some());
        // Whoever sweeps a dead lab of this name holds the lock for a moment, without being its supervisor.
        if supervised || start.elapsed() > Duration::from_secs(10) {
            bail!(
                "lab {:?} is already up: `lab down --name {0}` first, or take another name",
                dir.name()
            );
        }
        thread::sleep(Duration::from_millis(5));
    };
    let log = File::create(dir.join("supervisor.log")).context("create supervisor.log")?;
    nix::unistd::dup2_stderr(log)?;
    Ok((lock, signals))
}

fn prepare(dir: &LabDir) -> Result<(Pidded, OwnedFd)> {
    remove_leftovers(dir)?;
    for folder in ["netns", "logs", "keepers", "processes", "etcd"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    let (pid, init_ended) = start_init(dir)?;
    let init = Pidded::of(pid).ok_or_else(|| anyhow!("the lab's first process ended at once"))?;
    let supervisor = i32::try_from(std::process::id())?;
    dir.save(
        "supervision",
        &Supervision { supervisor, init: init.pid, init_started: init.started },
    )?;
    Ok((init, init_ended))
}

/// Starts the first process of the lab's PID namespace. The thread that starts it waits for it, since the kernel
/// ties a child's parent-death signal to the thread.
fn start_init(dir: &LabDir) -> Result<(i32, OwnedFd)> {
    let setup = Setup {
        socket: dir.join("keepers/lab"),
        tmpfs: vec![dir.join("etcd")],
        tied_to_parent: true,
        ..Setup::default()
    };
    let mut command = Command::new(lab_program()?);
    command.args(["keep", &serde_json::to_string(&setup)?]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let (ended, ended_writer) = std::io::pipe()?;
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut start = || -> Result<Child> {
            unshare(CloneFlags::CLONE_NEWPID)
                .context("unshare the PID namespace (are you root?)")?;
            let mut child = command.spawn().context("start the lab's first process")?;
            let mut line = String::new();
            BufReader::new(child.stdout.take().context("no standard output")?)
                .read_line(&mut line)?;
            ensure!(line.trim() == "ready", "the lab's first process failed; see supervisor.log");
            Ok(child)
        };
        match start() {
            Err(e) => drop(tell.send(Err(e))),
            Ok(mut child) => {
                drop(tell.send(Ok(child.id())));
                let _stdin = child.stdin.take();
                let _ = child.wait();
            }
        }
        drop(ended_writer);
    });
    let pid = told.recv().context("the starting thread is gone")??;
    Ok((i32::try_from(pid)?, ended.into()))
}

/// Returns when the owner is gone without having detached, on a signal, or when the first process died.
fn wait_for_the_end(signals: &SignalFd, init_ended: &OwnedFd) -> Result<()> {
    let mut owner = Some(File::from(std::io::stdin().as_fd().try_clone_to_owned()?));
    loop {
        let mut waits = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(init_ended.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(owner) = &owner {
            waits.push(PollFd::new(owner.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut waits, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result.context("poll")?,
        };
        let ready: Vec<bool> = waits.iter().map(|w| w.any().unwrap_or(false)).collect();
        if ready[0] || ready[1] {
            return Ok(());
        }
        if let Some(pipe) = &mut owner {
            let mut byte = [0];
            if pipe.read(&mut byte).unwrap_or(0) == 0 {
                return Ok(());
            }
            owner = None;
        }
    }
}

/// Removes everything of a lab that outlives its processes, the folder last.
fn remove(dir: &LabDir) -> Result<()> {
    remove_leftovers(dir)?;
    match fs::remove_dir_all(dir.path()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", dir.path().display()))
        }
        _ => {
            // Succeeds for the last lab only.
            let _ = fs::remove_dir(crate::disk::base());
            Ok(())
        }
    }
}

/// Kills what still runs and removes cgroups and files, except the lock and the supervisor's log.
fn remove_leftovers(dir: &LabDir) -> Result<()> {
    let cgroup = cgroup::of_lab(dir.name());
    cgroup::thaw_all(&cgroup);
    if let Ok(who) = dir.load::<Supervision>("supervision") {
        Pidded { pid: who.init, started: who.init_started }.kill()?;
    }
    host_link::remove(dir)?;
    cgroup::remove(&cgroup)?;
    for entry in fs::read_dir(dir.path())? {
        let path = entry?.path();
        if path.ends_with("lock") || path.ends_with("supervisor.log") {
            continue;
        }
        if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
            .with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}
