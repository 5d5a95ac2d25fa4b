//! The process that holds a fence.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Namespace;

/// A running `fence-holder`.
pub(crate) struct Holder {
    child: Child,
    input: ChildStdin,
    answers: mpsc::Receiver<String>,
    /// The kind of its fence and why it is not stronger.
    pub(crate) greeting: String,
}

impl Holder {
    /// Starts one in `namespace`.
    pub(crate) fn start(namespace: &Namespace, kind: &str) -> Holder {
        Holder::spawn(namespace, Command::new(env!("CARGO_BIN_EXE_fence-holder")).arg(kind))
    }

    /// Starts one of another instance in `namespace`.
    pub(crate) fn start_of(
        namespace: &Namespace,
        kind: &str,
        (name, number): (&str, u8),
    ) -> Holder {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fence-holder"));
        Holder::spawn(namespace, command.args([kind, name, &number.to_string()]))
    }

    /// Starts one in `namespace` by way of another program.
    pub(crate) fn start_by(
        namespace: &Namespace,
        program: &str,
        arguments: &[&str],
        kind: &str,
    ) -> Holder {
        let mut command = Command::new(program);
        Holder::spawn(
            namespace,
            command.args(arguments).arg(env!("CARGO_BIN_EXE_fence-holder")).arg(kind),
        )
    }

    fn spawn(namespace: &Namespace, command: &mut Command) -> Holder {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = namespace.within(|| command.spawn()).unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (lines, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                lines.send(line).unwrap_or_default();
            }
        });
        let mut holder = Holder { child, input, answers, greeting: String::new() };
        holder.greeting = holder.answer();
        holder
    }

    /// The answer to `command`.
    pub(crate) fn say(&mut self, command: &str) -> String {
        self.tell(command);
        self.answer()
    }

    /// Sends `command` without waiting.
    pub(crate) fn tell(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
    }

    /// The next answer.
    pub(crate) fn answer(&mut self) -> String {
        self.answers.recv_timeout(Duration::from_secs(20)).expect("the holder answers")
    }

    /// Says `command`, which has to succeed.
    pub(crate) fn ok(&mut self, command: &str) {
        assert_eq!(self.say(command), "ok", "{command}");
    }

    /// Says `command`, and returns the nanosecond that it answers with.
    pub(crate) fn at(&mut self, command: &str) -> u64 {
        let answer = self.say(command);
        answer.parse().unwrap_or_else(|_| panic!("{command}: {answer}"))
    }

    /// What `/proc` tells of it.
    pub(crate) fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// The bytes of the deadlines that it shares with the kernel.
    pub(crate) fn deadlines(&self) -> Vec<u8> {
        let maps = self.proc("maps");
        let map = maps.lines().find(|line| line.ends_with("anon_inode:bpf-map")).unwrap();
        let (start, rest) = map.split_once('-').unwrap();
        let end = rest.split_once(' ').unwrap().0;
        let at = |text| u64::from_str_radix(text, 16).unwrap();
        let mut bytes = vec![0; (at(end) - at(start)) as usize];
        let memory = std::fs::File::open(format!("/proc/{}/mem", self.child.id())).unwrap();
        memory.read_exact_at(&mut bytes, at(start)).unwrap();
        bytes
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits until it has stopped.
    pub(crate) fn wait_stopped(&self) {
        let stat = format!("/proc/{}/stat", self.child.id());
        super::until("the holder is stopped", || {
            let stat = std::fs::read_to_string(&stat).unwrap();
            stat.rsplit(") ").next().unwrap().starts_with('T')
        });
    }

    /// Kills it as the OOM killer would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
