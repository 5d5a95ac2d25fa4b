//! Many prefixes to three routers, BIRD, FRR and GoBGP: how long until the last route is in the table of each, in how many
//! UPDATE messages, and what it takes of memory; beside GoBGP, which is given the same to announce to the same. In network
//! namespaces of its own. Needs root, BIRD, FRR and Go. Prints a Markdown report.
//!
//! Numbers as arguments say how many prefixes, 2,000 and 20,000 where there are none.
#![allow(clippy::unwrap_used, missing_docs)]

mod gobgp;
mod speak;

use std::process::{Child, Stdio};
use std::thread;
use std::time::Instant;

use lab_routers::{Bird, Cable, Family, Frr, GoBgp, Namespace, Neighbor, Program, Wired, until};

/// The AS of who announces, and that of the routers.
const OWN: u32 = 65000;
const THEIRS: u32 = 65001;

const ROUTERS: [&dyn Program; 3] = [&Bird, &Frr, &GoBgp];

/// When what is to be announced is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Before the process starts; time counts from there.
    AtStart,
    /// Once all sessions are up; time counts from there.
    Later,
}

/// What one run shows.
struct Seen {
    /// Seconds until each router had all of them.
    seconds: [f64; 3],
    /// UPDATE messages that FRR and GoBGP have counted.
    updates: [u64; 2],
    /// MiB that the process had, at most.
    memory: f64,
}

/// Whoever announces, as a process in the node's namespace.
trait Announcer {
    fn start(&mut self, node: &Namespace, count: u32, known: Known) -> Child;
    /// Says what is to be announced, to one that has been started without.
    fn give(&mut self, child: &mut Child);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo bench -- --list` and the like are for other harnesses.
    if arguments.iter().any(|argument| argument == "--list") {
        return;
    }
    if let [mode, count, known] = arguments.as_slice()
        && mode == speak::MODE
    {
        return speak::run(count.parse().unwrap(), known == "later");
    }
    let mut counts: Vec<u32> = arguments.iter().filter_map(|text| text.parse().ok()).collect();
    if counts.is_empty() {
        counts = vec![2_000, 20_000];
    }
    println!(
        "| prefixes | known | who | BIRD, s | FRR, s | GoBGP, s | UPDATEs (FRR, GoBGP) | MiB at most |\n\
         |---|---|---|---|---|---|---|---|"
    );
    for count in counts {
        for known in [Known::AtStart, Known::Later] {
            row(count, known, "berth", &mut speak::Berth);
            row(count, known, "GoBGP", &mut gobgp::Injector::new(count));
        }
    }
}

fn row(count: u32, known: Known, who: &str, announcer: &mut dyn Announcer) {
    let Seen { seconds: [bird, frr, gobgp], updates: [one, other], memory } =
        measure(count, known, announcer);
    println!(
        "| {count} | {known:?} | {who} | {bird:.2} | {frr:.2} | {gobgp:.2} | {one}, {other} | {memory:.1} |"
    );
}

fn measure(count: u32, known: Known, announcer: &mut dyn Announcer) -> Seen {
    let node = Namespace::new().unwrap();
    let cables = [Cable(0), Cable(1), Cable(2)];
    let routers: Vec<Wired> = ROUTERS
        .into_iter()
        .zip(cables)
        .map(|(program, cable)| {
            let neighbor = Neighbor::new(cable.v4(1), cable.v4(11), OWN);
            Wired::up(program, &node, cable, THEIRS, vec![neighbor]).unwrap()
        })
        .collect();
    let mut begun = Instant::now();
    let mut child = Ended(announcer.start(&node, count, known));
    if known == Known::Later {
        routers.iter().for_each(|router| {
            router.until("a session", || router.session().is_up.then_some(()));
        });
        begun = Instant::now();
        announcer.give(&mut child.0);
    }
    let all = usize::try_from(count).unwrap();
    let seconds = thread::scope(|scope| {
        let waits = |router| scope.spawn(move || reached(router, all, begun));
        let waiting: Vec<_> = routers.iter().map(waits).collect();
        let seconds: Vec<f64> = waiting.into_iter().map(|thread| thread.join().unwrap()).collect();
        <[f64; 3]>::try_from(seconds).unwrap()
    });
    let updates = [1, 2].map(|number: usize| routers[number].session().updates.unwrap_or_default());
    Seen { seconds, updates, memory: most(child.0.id()) }
}

fn reached(router: &Wired, all: usize, begun: Instant) -> f64 {
    until(|| (router.count(Family::V4) == Some(all)).then_some(()))
        .unwrap_or_else(|| panic!("{:?} of {all}\n{}", router.count(Family::V4), router.log()));
    begun.elapsed().as_secs_f64()
}

/// MiB that a process had resident, at most.
fn most(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process in the node's namespace that is told things on its standard input.
fn spawn(node: &Namespace, program: &str, arguments: &[&str], output: Stdio) -> Child {
    let mut command = std::process::Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(output).stderr(Stdio::inherit());
    node.within(|| command.spawn()).unwrap()
}
