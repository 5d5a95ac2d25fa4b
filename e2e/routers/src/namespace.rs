//! Network namespaces without a name: each goes with whoever holds it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};

use crate::ask::ask;

/// A network namespace.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// A new one, its loopback interface up.
    ///
    /// # Errors
    /// Without root.
    pub fn new() -> Result<Self> {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("a network namespace: root is needed")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        let made: Result<File> =
            made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let namespace = Self(made?);
        namespace.run("ip link set lo up")?;
        namespace.run("sysctl -qw net.ipv6.conf.default.accept_dad=0")?;
        Ok(namespace)
    }

    /// Runs `work` on a thread inside; sockets and children that it makes stay inside.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let entered = setns(&self.0, CloneFlags::CLONE_NEWNET);
                entered.unwrap_or_else(|error| panic!("enter the namespace: {error}"));
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// What a command says inside; its words are those between spaces.
    ///
    /// # Errors
    /// Where it fails.
    pub fn run(&self, command: &str) -> Result<String> {
        let mut words = command.split_whitespace();
        let program = words.next().unwrap_or_default();
        self.within(|| ask(Path::new(program), words)).with_context(|| command.to_owned())
    }

    /// Where programs find it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}
