//! Network namespaces beside that of a test.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use crate::namespace::run;

/// Another namespace: a host of the LAN, a pod.
pub(crate) struct Elsewhere {
    work: Option<mpsc::Sender<Work>>,
    thread: Option<thread::JoinHandle<()>>,
    /// By which `ip` knows it.
    id: i32,
}

type Work = Box<dyn FnOnce() + Send>;

impl Elsewhere {
    pub(crate) fn new() -> Self {
        let (work, works) = mpsc::channel::<Work>();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            run("ip link set lo up");
            run("sysctl -qw net.ipv6.conf.default.accept_dad=0");
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            works.iter().for_each(|work| work());
        });
        let id = told.recv().expect("a namespace");
        Self { work: Some(work), thread: Some(thread), id }
    }

    /// Moves an interface of this namespace there, with these addresses.
    pub(crate) fn has(&self, interface: &str, addresses: &[&str]) {
        run(&format!("ip link set {interface} netns {}", self.id));
        let interface = interface.to_owned();
        let addresses: Vec<String> = addresses.iter().map(|own| (*own).to_owned()).collect();
        self.run(move || {
            run(&format!("ip link set {interface} up"));
            for address in &addresses {
                run(&format!("ip addr add {address} dev {interface}"));
            }
        });
    }

    /// Does it there.
    pub(crate) fn run<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let work = Box::new(move || {
            let done = catch_unwind(AssertUnwindSafe(what));
            let _ = tell.send(done);
        });
        self.work.as_ref().unwrap().send(work).expect("it is there");
        told.recv().unwrap().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.work.take());
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}
