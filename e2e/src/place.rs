//! A place in the lab: a network namespace and the keeper whose other namespaces go with it.
//!
//! Short commands are run by the caller's own process from a thread that enters the namespaces; long-running
//! ones are started by the keeper, so that they live and die with the lab and not with the caller.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};

use crate::{
    disk::LabDir,
    keeper::{Answer, Run, Setup},
    process::{Pidded, Process, host_pid},
};

/// Where `ip` reads many commands at once.
pub(crate) const IP_BATCH: [&str; 3] = ["ip", "-batch", "-"];

/// A keeper as its callers know it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Keeper {
    /// The first process of the PID namespace.
    pub id: Pidded,
    /// Where it listens.
    pub socket: PathBuf,
}

/// A network namespace and the keeper of the rest.
#[derive(Clone, Debug)]
pub struct Place {
    /// `control`, `fabric`, `router`, `client`, or a node's name.
    pub name: String,
    /// The lab's folder.
    pub dir: LabDir,
    /// The lab's own keeper, whose mount namespace has the network namespaces even while a node is down.
    pub lab: Keeper,
    /// The place's keeper: a node's own, else the lab's.
    pub keeper: Keeper,
    /// The network namespace's name under [`LabDir::netns`].
    pub net: String,
}

impl Place {
    /// A place that has only a network namespace of its own.
    pub fn of_lab(dir: &LabDir, lab: &Keeper, name: &str) -> Self {
        Self {
            name: name.into(),
            dir: dir.clone(),
            lab: lab.clone(),
            keeper: lab.clone(),
            net: name.into(),
        }
    }

    /// The network namespace's path as processes of the lab see it.
    pub fn netns(&self) -> PathBuf {
        self.dir.netns(&self.net)
    }

    /// The network namespace's path as processes outside the lab see it, e.g. for `nsenter --net=`.
    pub fn netns_from_host(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.lab.id.pid));
        let path = self.netns();
        root.join(path.strip_prefix("/").unwrap_or(&path))
    }

    /// Runs a command to its end. Whatever it returns, the output is there.
    pub fn output<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Result<Output> {
        self.output_with_input(argv, b"")
    }

    /// Runs a command to its end, with `input` on its standard input.
    pub fn output_with_input<S: AsRef<OsStr>>(
        &self,
        argv: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Result<Output> {
        let mut command = to_command(argv)?;
        let what = format!("{command:?} in {}", self.name);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.enter(move || Ok(command.spawn()?)).with_context(|| what.clone())?;
        let stdin = child.stdin.take();
        thread::scope(|scope| {
            // A program that does not read its input is not our trouble.
            scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
            child.wait_with_output().with_context(|| what)
        })
    }

    /// Runs a command to its end and gives its standard output; anything but success is an error.
    pub fn exec<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Result<String> {
        let argv: Vec<_> = argv.into_iter().map(|s| s.as_ref().to_owned()).collect();
        self.succeed(&argv, b"")
    }

    /// Like [`Place::exec`], with `input` on its standard input.
    pub fn exec_with_input<S: AsRef<OsStr>>(
        &self,
        argv: impl IntoIterator<Item = S>,
        input: impl AsRef<[u8]>,
    ) -> Result<String> {
        let argv: Vec<_> = argv.into_iter().map(|s| s.as_ref().to_owned()).collect();
        self.succeed(&argv, input.as_ref())
    }

    /// Runs a command on the caller's terminal and gives its exit code.
    pub fn interactive<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Result<i32> {
        let mut command = to_command(argv)?;
        let what = format!("{command:?} in {}", self.name);
        let status = self.enter(move || Ok(command.status()?)).with_context(|| what)?;
        Ok(status.code().unwrap_or(128))
    }

    /// Starts a long-running process. `name` must be unused in this place; its log is `<place>.<name>.log`.
    pub fn start<S: Into<String>>(
        &self,
        name: &str,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<Process> {
        self.start_with(name, argv, BTreeMap::new())
    }

    /// Like [`Place::start`], with environment.
    pub fn start_with<S: Into<String>>(
        &self,
        name: &str,
        argv: impl IntoIterator<Item = S>,
        env: BTreeMap<String, String>,
    ) -> Result<Process> {
        let argv: Vec<String> = argv.into_iter().map(Into::into).collect();
        let run = Run {
            argv: argv.clone(),
            env,
            net: Some(self.netns()),
            log: self.dir.log(&format!("{}.{name}", self.name)),
            new_pid_namespace: false,
        };
        let log = run.log.clone();
        let id =
            self.keeper.start(&run).with_context(|| format!("start {name} in {}", self.name))?;
        let process = Process { name: name.to_owned(), place: self.name.clone(), id, argv, log };
        self.dir.save(&format!("processes/{}.{name}", self.name), &process)?;
        Ok(process)
    }

    /// Runs `work` on a thread inside the network namespace (only that): for sockets of the caller's own.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let net = self.open_net()?;
        thread::scope(|scope| {
            let inside = scope.spawn(move || -> Result<T> {
                setns(net, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
                Ok(work())
            });
            inside.join().unwrap_or_else(|_| bail!("a thread in {} panicked", self.name))
        })
    }

    /// The network namespace, open.
    pub fn open_net(&self) -> Result<File> {
        let path = self.netns_from_host();
        File::open(&path).with_context(|| format!("open {}", path.display()))
    }

    /// Runs `work` on a thread inside all of the place's namespaces; processes it starts are inside, too.
    /// It must start no threads (the kernel refuses), and whoever gets a child must wait for it: a PID namespace
    /// does not end before its last zombie is reaped.
    fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let net = self.open_net()?;
        let space = |name| {
            let path = format!("/proc/{}/ns/{name}", self.keeper.id.pid);
            File::open(&path).with_context(|| format!("open {path}: {} is down", self.name))
        };
        let (pid, mnt, uts, ipc) = (space("pid")?, space("mnt")?, space("uts")?, space("ipc")?);
        thread::scope(|scope| {
            let inside = scope.spawn(move || -> Result<T> {
                // Threads share root and working directory, which entering a mount namespace changes.
                unshare(CloneFlags::CLONE_FS)?;
                setns(net, CloneFlags::CLONE_NEWNET)?;
                setns(pid, CloneFlags::CLONE_NEWPID)?;
                setns(uts, CloneFlags::CLONE_NEWUTS)?;
                setns(ipc, CloneFlags::CLONE_NEWIPC)?;
                setns(mnt, CloneFlags::CLONE_NEWNS)?;
                work()
            });
            inside.join().unwrap_or_else(|_| bail!("a thread in {} panicked", self.name))
        })
    }

    fn succeed(&self, argv: &[std::ffi::OsString], input: &[u8]) -> Result<String> {
        let output = self.output_with_input(argv, input)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(
            output.status.success(),
            "{argv:?} in {} ended with {}: {}{}",
            self.name,
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        Ok(text(&output.stdout))
    }
}

impl Keeper {
    /// Starts a process and gives its pid as the host sees it. One that ended at once is an error.
    pub fn start(&self, run: &Run) -> Result<Pidded> {
        match ask(&self.socket, run)? {
            Answer::Failed(reason) => bail!("{reason}"),
            Answer::Started(inner) => match host_pid(self.id.pid, inner)? {
                Some(id) => Ok(id),
                None => {
                    bail!(
                        "{:?} ended at once: {}",
                        run.argv,
                        fs::read_to_string(&run.log).unwrap_or_default()
                    )
                }
            },
        }
    }

    /// Starts a keeper below this one, the first of its own PID namespace, in the network namespace `net`.
    /// Returns once it serves.
    pub fn start_keeper(
        &self,
        dir: &LabDir,
        name: &str,
        net: PathBuf,
        setup: &Setup,
    ) -> Result<Keeper> {
        let run = Run {
            argv: vec![
                lab_program()?.display().to_string(),
                "keep".into(),
                serde_json::to_string(setup)?,
            ],
            env: BTreeMap::new(),
            net: Some(net),
            log: dir.log(&format!("{name}.keeper")),
            new_pid_namespace: true,
        };
        let _ = fs::remove_file(&setup.socket);
        let keeper = Keeper { id: self.start(&run)?, socket: setup.socket.clone() };
        let start = Instant::now();
        while UnixStream::connect(&keeper.socket).is_err() {
            let log = || fs::read_to_string(&run.log).unwrap_or_default();
            ensure!(keeper.id.is_alive(), "the keeper of {name} ended: {}", log());
            ensure!(
                start.elapsed() < Duration::from_secs(20),
                "the keeper of {name} does not serve: {}",
                log()
            );
            thread::sleep(Duration::from_millis(1));
        }
        Ok(keeper)
    }
}

/// Asks the keeper at `socket` to start a process.
pub(crate) fn ask(socket: &Path, run: &Run) -> Result<Answer> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("connect to the keeper at {}", socket.display()))?;
    serde_json::to_writer(&stream, run)?;
    stream.write_all(b"\n")?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    serde_json::from_str(&line).context("the keeper's answer")
}

/// The `lab` program that belongs to the running test or program: `BERTH_LAB_PROGRAM`, itself, or its neighbour
/// in Cargo's target folder.
pub fn lab_program() -> Result<PathBuf> {
    sibling_program("lab", "BERTH_LAB_PROGRAM")
}

/// A program of this crate by its name, or by the environment variable `variable`.
pub fn sibling_program(name: &str, variable: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let this = std::env::current_exe()?;
    let folders = this.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file()).with_context(|| {
        format!("no program {name} beside {}: build it with cargo build -p berth-e2e, or set {variable}", this.display())
    })
}

fn to_command<S: AsRef<OsStr>>(argv: impl IntoIterator<Item = S>) -> Result<Command> {
    let mut argv = argv.into_iter();
    let mut command = Command::new(argv.next().context("empty argv")?);
    command.args(argv);
    Ok(command)
}
