//! Elastic IPs: how long it takes to program a thousand of them, beside one program run for each rule, and what
//! translation costs a TCP stream. In network namespaces of its own. Needs root. Prints a Markdown report.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use berth_announcer::dataplane::eip::{Nat, Pair, Stage, Translation};
use berth_announcer::dataplane::{Dataplane, Event};
use berth_announcer::instance::Instance;
use berth_announcer::kernel::Door;
use berth_announcer::metrics::Metrics;
use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Bindings on one node.
const MANY: usize = 1000;
/// Changes of one binding that are timed.
const CHANGES: usize = 10;
/// How long one program run for each rule may go on. What it has done by then is what is printed.
const ENOUGH: Duration = Duration::from_secs(150);
/// Streams of each kind, in turns, and how long each lasts.
const ROUNDS: usize = 5;
const STREAM: Duration = Duration::from_secs(2);

fn main() {
    // `cargo bench -- --list` and the like are for other harnesses.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    println!(
        "| {MANY} bindings on one node, iptables | by Berth | by one exec for each rule |\n|---|---|---|"
    );
    for backend in ["nft", "legacy"] {
        let ours = apart(|| programmed(backend));
        let naive = apart(|| one_by_one(backend));
        let change = median(ours.1);
        let (bound, all, one) = naive;
        let all = match bound {
            MANY => format!("{all:.2?}"),
            bound => format!("{bound} of them in {all:.2?}, then stopped"),
        };
        println!("| {backend}, from nothing | {:.2?} | {all} |", ours.0);
        println!("| {backend}, one changed (median of {CHANGES}) | {change:.2?} | {one:.2?} |");
    }
    let (plain, translated) = apart(throughput);
    let ratio = translated / plain;
    println!("\n| one TCP stream, client to machine | Gbit/s (median of {ROUNDS}) |\n|---|---|");
    println!("| under its own address | {plain:.2} |\n| at its elastic IP | {translated:.2} |");
    println!("| ratio | {ratio:.3} |");
}

/// Runs `work` on a thread with a network namespace of its own.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("this bench needs root");
            for command in [
                "ip link set lo up",
                "ip link add eth0 type veth peer name peer0",
                "ip link set eth0 up",
                "ip link set peer0 up",
                "ip addr add 192.0.2.250/24 dev eth0",
                "ip route add default via 192.0.2.254",
            ] {
                run(command);
            }
            work()
        });
        thread.join().expect("it ends")
    })
}

fn run(command: &str) {
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status();
    assert!(status.unwrap_or_else(|e| panic!("{command}: {e}")).success(), "{command}");
}

fn feed(program: &str, input: &str) {
    let mut child =
        Command::new(program).arg("--noflush").stdin(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Chains of kube-proxy's, so that the implementation is known.
fn kube_proxy(backend: &str) {
    feed(
        &format!("iptables-{backend}-restore"),
        "*nat\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\nCOMMIT\n",
    );
}

fn addresses(n: usize) -> (String, String) {
    (format!("198.18.{}.{}", n / 250, n % 250 + 1), format!("10.244.{}.{}", n / 250, n % 250 + 1))
}

fn nat(of: impl Iterator<Item = usize>) -> Nat {
    let pair = |n| {
        let (eip, vmi) = addresses(n);
        (eip.parse::<IpAddr>().unwrap(), Pair { vmi: vmi.parse().unwrap(), stage: Stage::Held })
    };
    Nat {
        pairs: of.map(pair).collect(),
        internal: ["10.244.0.0/16", "10.96.0.0/12"].map(|n| n.parse().unwrap()).into(),
        uplink: Some("eth0".to_owned()),
        ..Nat::default()
    }
}

/// The data plane, what it tells, and the task that translates.
fn translator() -> (Dataplane, mpsc::Receiver<Event>, JoinHandle<()>) {
    let (door, tasks) = Door::open().unwrap();
    for (_, task) in tasks {
        tokio::spawn(task);
    }
    let instance = Instance::services();
    let (dataplane, events, tasks) =
        Dataplane::new(&door, &instance, &Metrics::default(), (false, false));
    let (_, task) = tasks.into_iter().find(|(name, _)| *name == "elastic IPs").unwrap();
    (dataplane, events, tokio::spawn(task))
}

async fn holds(events: &mut mpsc::Receiver<Event>, nat: &Nat) {
    let wanted = Event::Eip(Translation::Holds(nat.clone()));
    while events.recv().await.expect("it goes on") != wanted {}
}

/// Seconds to program all, and each of some changes after it.
fn programmed(backend: &str) -> (Duration, Vec<Duration>) {
    kube_proxy(backend);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (dataplane, mut events, task) = translator();
        let mut make = async |nat: Nat| {
            let start = Instant::now();
            dataplane.eip.want(Some(nat.clone()));
            holds(&mut events, &nat).await;
            start.elapsed()
        };
        let all = make(nat(0..MANY)).await;
        let mut changes = Vec::new();
        for left_out in 1..=CHANGES {
            changes.push(make(nat((0..MANY).filter(|n| *n != left_out))).await);
        }
        task.abort();
        (all, changes)
    })
}

/// The rules of the contract by one run of a program for each of them, each element and policy rule: how many bindings, in
/// what time, and one more. That is less than Berth has, which also serves machines that call each other.
fn one_by_one(backend: &str) -> (usize, Duration, Duration) {
    kube_proxy(backend);
    let iptables = format!("iptables-{backend}");
    let start = Instant::now();
    for set in ["k8s_internal_net hash:net", "kube-eip-eip hash:ip", "kube-eip-vmi hash:ip"] {
        run(&format!("ipset create {set}"));
    }
    for network in ["10.244.0.0/16", "10.96.0.0/12"] {
        run(&format!("ipset add k8s_internal_net {network}"));
    }
    for chain in ["KUBE-EIP-PREROUTING", "KUBE-EIP-POSTROUTING"] {
        run(&format!("{iptables} -t nat -N {chain}"));
    }
    let jump = "-m set --match-set";
    run(&format!("{iptables} -t nat -I PREROUTING {jump} kube-eip-eip dst -j KUBE-EIP-PREROUTING"));
    run(&format!(
        "{iptables} -t nat -I POSTROUTING {jump} kube-eip-vmi src -j KUBE-EIP-POSTROUTING"
    ));
    let bind = |n: usize| {
        let (eip, vmi) = addresses(n);
        run(&format!("ipset add kube-eip-eip {eip}"));
        run(&format!("ipset add kube-eip-vmi {vmi}"));
        run(&format!(
            "{iptables} -t nat -A KUBE-EIP-PREROUTING -d {eip} -j DNAT --to-destination {vmi}"
        ));
        run(&format!(
            "{iptables} -t nat -A KUBE-EIP-POSTROUTING -s {vmi} -m set ! --match-set k8s_internal_net dst -j SNAT --to-source {eip}"
        ));
        run(&format!("ip rule add from {vmi} pref 1001 table 190"));
    };
    let bound = (0..MANY).take_while(|_| start.elapsed() < ENOUGH).inspect(|n| bind(*n)).count();
    let all = start.elapsed();
    let start = Instant::now();
    bind(MANY);
    (bound, all, start.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// A network namespace that goes with its last file.
fn namespace() -> File {
    thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    })
    .join()
    .unwrap()
}

fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// Gbit/s of one stream through a node: to the machine's own address, and to its elastic IP.
fn throughput() -> (f64, f64) {
    let (client, machine) = (namespace(), namespace());
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    let pid = std::process::id();
    for (namespace, node, prefix) in [(&client, "c0", "192.0.3"), (&machine, "m0", "10.244.9")] {
        let path = format!("/proc/{pid}/fd/{}", namespace.as_raw_fd());
        run(&format!("ip link add {node} type veth peer name eth0 netns {path}"));
        run(&format!("ip addr add {prefix}.1/24 dev {node}"));
        run(&format!("ip link set {node} up"));
        inside(namespace, || {
            run("ip link set eth0 up");
            run(&format!("ip addr add {prefix}.2/24 dev eth0"));
            run(&format!("ip route add default via {prefix}.1"));
        });
    }
    // Machines answer by the interface of the elastic IPs and its gateway: that is the client.
    run("ip route replace default via 192.0.3.2 dev c0");
    kube_proxy("nft");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pair = Pair { vmi: [10, 244, 9, 2].into(), stage: Stage::Held };
    let mut nat = Nat { uplink: Some("c0".to_owned()), ..nat(0..0) };
    nat.pairs.insert([198, 18, 0, 1].into(), pair);
    runtime.block_on(async {
        let (dataplane, mut events, task) = translator();
        dataplane.eip.want(Some(nat.clone()));
        holds(&mut events, &nat).await;
        drop(dataplane);
        task.await.unwrap();
    });
    let listener = inside(&machine, || TcpListener::bind("0.0.0.0:9000").unwrap());
    let (mut plain, mut translated) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain.push(stream(&client, &listener, [10, 244, 9, 2].into()));
        translated.push(stream(&client, &listener, [198, 18, 0, 1].into()));
    }
    let median = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    (median(plain), median(translated))
}

fn stream(client: &File, listener: &TcpListener, to: IpAddr) -> f64 {
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut stream =
                inside(client, || TcpStream::connect(SocketAddr::new(to, 9000)).unwrap());
            let (block, start) = (vec![0; 1 << 18], Instant::now());
            while start.elapsed() < STREAM {
                stream.write_all(&block).unwrap();
            }
        });
        let (mut stream, _) = listener.accept().unwrap();
        let (mut block, mut bytes, start) = (vec![0; 1 << 18], 0, Instant::now());
        while let Ok(read @ 1..) = stream.read(&mut block) {
            bytes += read;
        }
        let rate = bytes as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9;
        sending.join().unwrap();
        rate
    })
}
