//! Network namespaces without a name: they last as long as someone holds them, so nothing is left after a crash.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace.
pub(crate) struct Namespace(File);

impl Namespace {
    /// Makes a new one.
    pub(crate) fn new() -> Namespace {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| {
                panic!("these tests need root: unshare(CLONE_NEWNET): {error}")
            });
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Namespace(made.join().unwrap())
    }

    /// Where other programs find it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs `work` on a thread inside; sockets and children that it makes stay inside.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a command that has to succeed, and returns what it printed.
    pub(crate) fn run(&self, command: &str) -> String {
        self.within(|| run(command))
    }

    /// Runs a command whose last word has blanks.
    pub(crate) fn run_with(&self, command: &str, last: &str) -> String {
        self.within(|| {
            checked(
                command,
                Command::new(first(command)).args(command.split_whitespace().skip(1)).arg(last),
            )
        })
    }
}

/// Runs a command that has to succeed, and returns what it printed.
fn run(command: &str) -> String {
    checked(command, Command::new(first(command)).args(command.split_whitespace().skip(1)))
}

fn first(command: &str) -> &str {
    command.split_whitespace().next().unwrap()
}

fn checked(text: &str, command: &mut Command) -> String {
    let output =
        command.output().unwrap_or_else(|error| panic!("{} is needed: {error}", first(text)));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}: {}: {said}{error}", output.status);
    said
}
