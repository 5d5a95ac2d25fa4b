//! Three announcers as they are shipped, on one LAN and with no API server anywhere: members, key and address come from
//! files and settings. Judged by a client on that LAN: by `tcpdump`, and by `ip -j`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use berth_announcer::advertise::arp_nd::schedule::Frame;
use berth_announcer::advertise::arp_nd::socket::Sockets;
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::namespace::run;

const VIP: &str = "192.0.2.100";
const CLIENT: [u8; 4] = [192, 0, 2, 1];

/// Whatever a voter may have promised is over after so long: the longest lease, the drift of two clocks and the kernel's lateness.
const PROMISE: Duration = Duration::from_millis(510);

/// How long an address may go unanswered when its owner dies, beside what the machine itself stood still.
const TAKEOVER: Duration = Duration::from_secs(1);

/// A pause that lets leases run out.
const LONG: Duration = Duration::from_millis(70);

/// Nobody takes over in less: no lease is shorter.
const SOONEST: Duration = Duration::from_millis(100);

const NAMES: [&str; 3] = ["node-a", "node-b", "node-c"];

/// Three members, and a client that asks for the address and listens.
struct Lan {
    id: String,
    folder: PathBuf,
    /// Whether members ask the LAN before they take the address.
    asks: bool,
    members: Vec<Member>,
    ears: Ears,
}

struct Member {
    namespace: String,
    mac: String,
    log: PathBuf,
    process: Option<Child>,
}

impl Lan {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "needs root, to make network namespaces");
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("bm{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(&id);
        fs::create_dir(&folder).unwrap();
        let hosts = ["client", "node-a", "node-b", "node-c"];
        run(&format!("ip netns add {id}-lan"));
        run(&format!("ip -n {id}-lan link add br0 type bridge"));
        run(&format!("ip -n {id}-lan link set br0 up"));
        for (number, host) in hosts.iter().enumerate() {
            let namespace = format!("{id}-{host}");
            run(&format!("ip netns add {namespace}"));
            run(&format!(
                "ip -n {id}-lan link add port{number} type veth peer name eth0 netns {namespace}"
            ));
            run(&format!("ip -n {id}-lan link set port{number} master br0 up"));
            run(&format!("ip -n {namespace} link set lo up"));
            run(&format!("ip -n {namespace} link set eth0 up"));
            let own = if number == 0 { 1 } else { 10 + number };
            run(&format!("ip -n {namespace} addr add 192.0.2.{own}/24 dev eth0"));
        }
        let list = "# name address\nnode-a 192.0.2.11\nnode-b 192.0.2.12\nnode-c 192.0.2.13\n";
        fs::write(folder.join("members"), list).unwrap();
        fs::write(folder.join("key"), "not a secret, only a test").unwrap();
        fs::set_permissions(folder.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
        let member = |name: &&str| {
            let namespace = format!("{id}-{name}");
            let mac = mac(&namespace);
            Member { log: folder.join(format!("{name}.log")), namespace, mac, process: None }
        };
        let members = NAMES.iter().map(member).collect();
        let ears = Ears::open(&format!("{id}-client"));
        Self { id, folder, asks: true, members, ears }
    }

    /// Starts a member as an operator would, with nothing of this test's own environment.
    fn start(&mut self, number: usize) {
        self.start_with(number, "members", "key");
    }

    /// The same with another list, or another key.
    fn start_with(&mut self, number: usize, list: &str, key: &str) {
        let log = &self.members[number].log;
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.members[number].namespace))
            .arg(env!("CARGO_BIN_EXE_berth-announcer"))
            .arg("manager")
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .env("vip_nodename", NAMES[number])
            .env("vip_interface", "eth0")
            .env("svc_enable", "false")
            .env("berth_members", self.folder.join(list))
            .env("berth_key_file", self.folder.join(key))
            .env("address", VIP)
            .env("vip_skipdad", (!self.asks).to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.members[number].process = Some(child.expect("nsenter"));
    }

    /// Ends a member at once: it can let go of nothing.
    fn kill(&mut self, number: usize) {
        let Some(mut process) = self.members[number].process.take() else { return };
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// The member with this hardware address.
    fn owner(&self, mac: &str) -> usize {
        let of = self.members.iter().position(|member| member.mac == mac);
        of.unwrap_or_else(|| panic!("{mac} is no member's"))
    }

    /// Whether a member has the address bound, by `ip -j`.
    fn has_bound(&self, number: usize) -> bool {
        let shown = run(&format!("ip -n {} -j addr show dev eth0", self.members[number].namespace));
        shown.contains(&format!("\"{VIP}\""))
    }

    /// Whether a member is ready: it is heard and answered as one that may have the address.
    fn is_ready(&self, number: usize) -> bool {
        self.readiness(number).contains(" 200 ")
    }

    /// What a member says of its readiness.
    fn readiness(&self, number: usize) -> String {
        let ask = "exec 3<>/dev/tcp/127.0.0.1/2112 && printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3 && cat <&3";
        let net = format!("--net=/run/netns/{}", self.members[number].namespace);
        let asked = Command::new("nsenter").args([&net, "bash", "-c", ask]).output().unwrap();
        String::from_utf8_lossy(&asked.stdout).into_owned()
    }

    /// What the members logged, for whoever reads of a failure.
    fn logs(&self) -> String {
        let log = |member: &Member| fs::read_to_string(&member.log).unwrap_or_default();
        self.members.iter().map(log).collect::<Vec<_>>().join("\n")
    }

    /// Waits until the client has heard something.
    fn until<T>(&self, what: &str, mut is: impl FnMut(&[Answer]) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = is(&self.ears.answers()) {
                return found;
            }
            let heard = self.ears.answers().len();
            let waited = start.elapsed();
            assert!(waited.as_secs() < 20, "{what}: {heard} answers\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the same member has answered for a second.
    fn settle(&self) -> usize {
        let from = Instant::now();
        let mac = self.until("one answers for a second", |answers| {
            let last = answers.last().filter(|last| last.at > from)?;
            let since = answers.iter().rev().take_while(|answer| answer.mac == last.mac).last()?;
            let since = since.at.max(from);
            (last.at.duration_since(since) >= Duration::from_secs(1)).then(|| last.mac.clone())
        });
        self.owner(&mac)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for number in 0..self.members.len() {
            self.kill(number);
        }
        self.ears.close();
        for host in ["client", "node-a", "node-b", "node-c", "lan"] {
            let _ =
                Command::new("ip").args(["netns", "del", &format!("{}-{host}", self.id)]).status();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn mac(namespace: &str) -> String {
    let shown: Value =
        serde_json::from_str(&run(&format!("ip -n {namespace} -j link show dev eth0"))).unwrap();
    shown[0]["address"].as_str().unwrap().to_owned()
}

/// A frame by which somebody says that the address is his.
#[derive(Clone, Debug)]
struct Answer {
    at: Instant,
    mac: String,
}

/// What the client hears, and when the machine stood still.
struct Ears {
    answers: Arc<Mutex<Vec<Answer>>>,
    asked: Arc<Mutex<Vec<Instant>>>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    tcpdump: Child,
}

impl Ears {
    fn open(namespace: &str) -> Self {
        let net = format!("--net=/run/netns/{namespace}");
        let mut tcpdump = Command::new("nsenter")
            .args([&net, "tcpdump", "-i", "eth0", "--immediate-mode", "-lnne", "-tt", "arp"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tcpdump");
        let mut said = BufReader::new(tcpdump.stderr.take().unwrap()).lines();
        while !said.next().expect("tcpdump listens").unwrap().contains("listening on") {}
        let heard = BufReader::new(tcpdump.stdout.take().unwrap()).lines();
        let answers = Arc::new(Mutex::new(Vec::new()));
        let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let end = Arc::new(AtomicBool::new(false));
        let listen = {
            let answers = answers.clone();
            // By the time that the kernel gave each frame, on the clock that `tcpdump` shows.
            let (since, began) = (realtime(), Instant::now());
            move || {
                for line in heard.map_while(Result::ok) {
                    let Some((at, mac)) = claim(&line) else { continue };
                    let at = began + at.saturating_sub(since);
                    answers.lock().unwrap().push(Answer { at, mac });
                }
            }
        };
        let ask = {
            let (asked, end, namespace) = (asked.clone(), end.clone(), namespace.to_owned());
            move || {
                let own = mac(&namespace);
                let netns = fs::File::open(format!("/run/netns/{namespace}")).unwrap();
                setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
                let index = nix::net::if_::if_nametoindex("eth0").unwrap();
                let (mut sockets, bytes) = (Sockets::default(), question(&own));
                while !end.load(Ordering::Relaxed) {
                    asked.lock().unwrap().push(Instant::now());
                    sockets.send(&Frame { index, bytes: bytes.clone() }).expect("asking");
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        };
        let threads = vec![std::thread::spawn(listen), std::thread::spawn(ask)];
        Self { answers, asked, end, threads, tcpdump }
    }

    fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap().clone()
    }

    /// The longest time for which the machine stood still, since a moment.
    fn pause(&self, since: Instant) -> Duration {
        let asked = self.asked.lock().unwrap();
        let later = asked.iter().filter(|at| **at >= since).collect::<Vec<_>>();
        later.windows(2).map(|two| two[1].duration_since(*two[0])).max().unwrap_or_default()
    }

    /// The answers as runs of one hardware address each. Nobody answers between two answers of another.
    fn owners(&self) -> Vec<(String, Instant, Instant)> {
        let mut runs: Vec<(String, Instant, Instant)> = Vec::new();
        for answer in self.answers() {
            match runs.last_mut() {
                Some((mac, _, last)) if *mac == answer.mac => *last = answer.at,
                _ => runs.push((answer.mac, answer.at, answer.at)),
            }
        }
        for three in runs.windows(3) {
            let held = three[2].1.duration_since(three[1].1);
            assert!(three[0].0 != three[2].0 || held > SOONEST, "two answer: {three:?}");
        }
        runs
    }

    fn close(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
        for thread in self.threads.drain(..) {
            if let (Err(panic), false) = (thread.join(), std::thread::panicking()) {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

fn realtime() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME).unwrap().into()
}

/// Who claims the address by this line of `tcpdump`, and when: by a reply, or by a request in its name.
fn claim(line: &str) -> Option<(Duration, String)> {
    let reply = line.contains(&format!("Reply {VIP} is-at"));
    let asks = line.contains(&format!("tell {VIP},"));
    let mut words = line.split_whitespace();
    let at: f64 = words.next()?.parse().ok()?;
    (reply || asks).then(|| Some((Duration::from_secs_f64(at), words.next()?.to_owned())))?
}

/// Who has the address? (RFC 826)
fn question(mac: &str) -> Vec<u8> {
    let own: Vec<u8> = mac.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    let target: std::net::Ipv4Addr = VIP.parse().unwrap();
    let head = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], &own, &head, &own, &CLIENT, &[0; 6], &target.octets()].concat()
}

#[test]
fn without_a_cluster_one_of_three_answers_and_another_when_it_dies() {
    let mut lan = Lan::new();
    (0..3).for_each(|number| lan.start(number));
    let first = lan.settle();
    for (number, member) in lan.members.iter().enumerate() {
        let log = fs::read_to_string(&member.log).unwrap();
        let told = "a fixed list of members, whose view never changes";
        assert!(log.contains(told) && log.contains("node-a, node-b, node-c"), "{log}");
        assert_eq!(lan.has_bound(number), number == first, "{}", lan.logs());
    }

    // The owner dies with its link, in the middle of its lease.
    let died = Instant::now();
    lan.kill(first);
    run(&format!("ip -n {} link set eth0 down", lan.members[first].namespace));
    let mac = lan.members[first].mac.clone();
    let taken = lan.until("another answers", |answers| {
        let other = answers.iter().find(|answer| answer.at > died && answer.mac != mac);
        other.map(|answer| answer.at)
    });
    let (took, pause) = (taken.duration_since(died), lan.ears.pause(died));
    println!("taken over after {took:.0?}; the machine stood still for {pause:.0?} at most");
    assert!(took < TAKEOVER + pause, "{took:?}, pause {pause:?}\n{}", lan.logs());
    let second = lan.settle();

    // It comes back, and takes nothing away.
    run(&format!("ip -n {} link set eth0 up", lan.members[first].namespace));
    lan.start(first);
    lan.until("a majority answers it", |_| lan.is_ready(first).then_some(()));
    assert_eq!((lan.settle(), lan.has_bound(first)), (second, false), "{}", lan.logs());

    // Who is told to stop hands over and leaves nothing.
    let process = lan.members[second].process.as_mut().unwrap();
    let pid = nix::unistd::Pid::from_raw(process.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(process.wait().unwrap().success(), "{}", lan.logs());
    assert!(!lan.has_bound(second), "{}", lan.logs());
    let third = lan.settle();
    assert_ne!(third, second);
    // Whatever it would have taken away, until then or now, is in what was heard from the beginning.
    let owners: Vec<usize> = lan.ears.owners().iter().map(|run| lan.owner(&run.0)).collect();
    if lan.ears.pause(died) < LONG {
        assert_eq!(owners, [first, second, third], "{}", lan.logs());
    }
}

#[test]
fn members_that_come_back_keep_what_they_promised_before() {
    let mut lan = Lan::new();
    // The promise alone is to hold them back, and not that they hear the owner answer.
    lan.asks = false;
    (0..3).for_each(|number| lan.start(number));
    let owner = lan.settle();
    // It still has a lease from the others, hears nothing of them, and they forget that they gave it.
    let others: Vec<usize> = (0..3).filter(|number| *number != owner).collect();
    let inside = format!("nsenter --net=/run/netns/{} nft", lan.members[owner].namespace);
    run(&format!("{inside} add table inet cut"));
    for hook in ["input", "output"] {
        run(&format!(
            "{inside} add chain inet cut {hook} {{ type filter hook {hook} priority 0 ; }}"
        ));
    }
    others.iter().for_each(|number| lan.kill(*number));
    for hook in ["input", "output"] {
        run(&format!("{inside} add rule inet cut {hook} udp dport 2113 drop"));
    }
    let forgot = Instant::now();
    others.iter().for_each(|number| lan.start(*number));
    let mac = lan.members[owner].mac.clone();
    let taken = lan.until("another answers", |answers| {
        let other = answers.iter().find(|answer| answer.at > forgot && answer.mac != mac);
        other.map(|answer| answer.at)
    });
    let after = taken.duration_since(forgot);
    println!("granted anew after {after:.0?}");
    assert!(after >= PROMISE, "{after:?}\n{}", lan.logs());
    lan.settle();
    let owners = lan.ears.owners();
    let last = owners.iter().filter(|run| run.0 == mac).map(|run| run.2).max().unwrap();
    assert!(last < taken, "{owners:?}\n{}", lan.logs());
    // A member that no majority answers says so.
    assert_ne!(lan.settle(), owner);
}

#[test]
fn a_node_with_another_list_gets_nothing_and_everybody_says_why() {
    let mut lan = Lan::new();
    let other = "node-a 192.0.2.11\nnode-d 192.0.2.14\nnode-c 192.0.2.13\n";
    fs::write(lan.folder.join("other"), other).unwrap();
    lan.start(0);
    lan.start_with(2, "other", "key");
    // It and the first would be a majority of either list.
    let told = |lan: &Lan, number: usize, node: &str| {
        let log = fs::read_to_string(&lan.members[number].log).unwrap();
        let told = |line: &str| line.contains("another list of members") && line.contains(node);
        log.lines().any(told).then_some(())
    };
    lan.until("the first says why", |_| told(&lan, 0, "node-c"));
    lan.until("the other says why", |_| told(&lan, 2, "node-a"));
    assert!(lan.ears.answers().is_empty(), "{}", lan.logs());
    lan.start(1);
    assert_ne!(lan.settle(), 2);
    assert!(!lan.has_bound(2), "{}", lan.logs());
}

#[test]
fn a_member_with_another_key_is_told_of_on_both_sides_and_readiness_says_so() {
    let mut lan = Lan::new();
    fs::write(lan.folder.join("other"), "not that secret, another one").unwrap();
    fs::set_permissions(lan.folder.join("other"), fs::Permissions::from_mode(0o600)).unwrap();
    lan.start(0);
    let says = |lan: &Lan, why: &str| lan.readiness(0).contains(why).then_some(());
    lan.until("it is alone", |_| says(&lan, "heard of no other member"));
    lan.start_with(2, "members", "other");
    let told = |lan: &Lan, number: usize, from: &str| {
        let log = fs::read_to_string(&lan.members[number].log).unwrap();
        let why = format!("what {from} sends is not authentic: another key");
        (log.matches(&why).count() == 1 && log.contains("WARN")).then_some(())
    };
    lan.until("the first says why", |_| told(&lan, 0, "192.0.2.13"));
    lan.until("the other says why", |_| told(&lan, 2, "192.0.2.11"));
    lan.until("readiness says why", |_| says(&lan, "what 192.0.2.13 sends is not authentic"));
}
