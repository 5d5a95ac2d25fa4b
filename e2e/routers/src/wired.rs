//! A router in a network namespace, on a cable with a node's.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::ask::SEARCHED;
use crate::namespace::Namespace;
use crate::plan::{Family, Neighbor, OUTPUT, Plan, Program, Route, Session};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Numbers the routers of this process.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// The addresses of a cable's two ends: 11 is the node, 1 the router.
#[derive(Clone, Copy, Debug)]
pub struct Cable(pub u8);

impl Cable {
    /// IPv4: 192.0.2.0/24, and what comes next for others.
    pub fn v4(self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2 + self.0, last)
    }

    /// IPv6, `::11` and `::1` of 2001:db8:0:N::/64.
    pub fn v6(self, last: u8) -> Ipv6Addr {
        let last = if last == 1 { 1 } else { 0x11 };
        Ipv6Addr::new(0x2001, 0xdb8, 0, self.0.into(), 0, 0, 0, last)
    }

    /// IPv6 of the link.
    pub fn link(self, last: u8) -> Ipv6Addr {
        let last = if last == 1 { 1 } else { 0x11 };
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last)
    }

    /// The node's interface; the router's is `eth0`.
    pub fn interface(self) -> String {
        format!("eth{}", self.0)
    }
}

/// A router that runs.
#[derive(Debug)]
pub struct Wired {
    program: &'static dyn Program,
    plan: Plan,
    folder: PathBuf,
    processes: Vec<Child>,
    namespace: Namespace,
}

impl Wired {
    /// Puts a router at the other end of a cable from a node, and starts it.
    ///
    /// # Errors
    /// Without root, or the program.
    pub fn up(
        program: &'static dyn Program,
        node: &Namespace,
        cable: Cable,
        asn: u32,
        neighbors: Vec<Neighbor>,
    ) -> Result<Self> {
        let namespace = Namespace::new()?;
        let interface = cable.interface();
        let add =
            format!("ip link add {interface} type veth peer name eth0 netns {}", namespace.path());
        node.run(&add)?;
        for (side, last, interface) in [(node, 11, interface.as_str()), (&namespace, 1, "eth0")] {
            // Of the link each has the address below, and no other.
            side.run(&format!("ip link set {interface} addrgenmode none"))?;
            side.run(&format!("ip link set {interface} up"))?;
            let (v4, v6, link) = (cable.v4(last), cable.v6(last), cable.link(last));
            side.run(&format!("ip addr add {v4}/24 dev {interface}"))?;
            side.run(&format!("ip addr add {v6}/64 dev {interface} nodad"))?;
            side.run(&format!("ip addr add {link}/64 dev {interface} nodad"))?;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("berth-router-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let plan = Plan { asn, router_id: cable.v4(1), neighbors, forwards: false, more: vec![] };
        let daemons = program.configure(&plan, &folder)?;
        let mut wired = Self { program, plan, folder, processes: vec![], namespace };
        for daemon in daemons {
            let (first, rest) = daemon.command.split_first().context("a command")?;
            let mut command = Command::new(first);
            let output =
                File::options().create(true).append(true).open(wired.folder.join(OUTPUT))?;
            command.args(rest).env("PATH", SEARCHED).stdin(Stdio::null());
            command.stdout(output.try_clone()?).stderr(output);
            let started = wired.namespace.within(|| command.spawn());
            wired.processes.push(started.with_context(|| format!("{first} is needed"))?);
            wired.until_answers(&daemon.answers)?;
        }
        Ok(wired)
    }

    fn until_answers(&mut self, file: &std::path::Path) -> Result<()> {
        let begun = Instant::now();
        while !file.exists() {
            for process in &mut self.processes {
                let ended = process.try_wait()?;
                let (name, log) = (self.program.name(), || self.program.log(&self.folder));
                ensure!(ended.is_none(), "{name}: {ended:?} {}", log());
                ensure!(begun.elapsed() < PATIENCE, "{name}: {}", log());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// The process that was started last, which is the one that speaks BGP.
    pub fn speaker(&self) -> u32 {
        self.processes.last().map_or(0, Child::id)
    }

    fn neighbor(&self) -> &Neighbor {
        &self.plan.neighbors[0]
    }

    /// The session with its first neighbour; none where it does not answer.
    pub fn session(&self) -> Session {
        self.program.session(&self.folder, self.neighbor()).unwrap_or_default()
    }

    /// All ways to a prefix; none where it does not answer.
    pub fn routes(&self, prefix: &str) -> Vec<Route> {
        self.program.routes(&self.plan, &self.folder, prefix).unwrap_or_default()
    }

    /// What it says to a command of its own; what went wrong where it does not answer.
    pub fn says(&self, command: &str) -> String {
        self.program.says(&self.folder, command).unwrap_or_else(|error| format!("{error:#}"))
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.program.log(&self.folder)
    }

    /// Waits until something is there.
    ///
    /// # Panics
    /// Where it is not, with the session and the log.
    pub fn until<T>(&self, what: &str, found: impl FnMut() -> Option<T>) -> T {
        until(found).unwrap_or_else(|| {
            panic!("{}: {what}: {:?}\n{}", self.program.name(), self.session(), self.log())
        })
    }

    /// Waits until it has exactly one way to a prefix.
    pub fn only(&self, prefix: &str) -> Route {
        self.until(&format!("one way to {prefix}"), || {
            let [route] = <[Route; 1]>::try_from(self.routes(prefix)).ok()?;
            Some(route)
        })
    }

    /// How many ways of IPv4 and of IPv6 are in its table; none where it does not answer.
    pub fn counts(&self) -> Option<[usize; 2]> {
        Some([self.count(Family::V4)?, self.count(Family::V6)?])
    }

    /// Those of one family.
    pub fn count(&self, family: Family) -> Option<usize> {
        self.program.count(&self.folder, family).ok()
    }

    /// Waits until so many ways of IPv4 and IPv6 are in its table.
    pub fn until_has(&self, counts: [usize; 2]) {
        self.until(&format!("{counts:?} routes"), || (self.counts() == Some(counts)).then_some(()));
    }

    /// The address of the router for sessions of IPv4.
    pub fn address(&self) -> IpAddr {
        self.plan.router_id.into()
    }
}

/// What is found in time.
pub fn until<T>(mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return Some(found);
        }
        if begun.elapsed() > PATIENCE {
            return None;
        }
        // Each look is a program that is started.
        thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Wired {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
