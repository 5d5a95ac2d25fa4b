//! Three nodes on one LAN, each in a network namespace of its own, and a client there that asks for an address and listens: by
//! `tcpdump`, and by `ip -j`.

use std::fs;
use std::io::{BufRead, BufReader};
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

/// The address that is asked for.
pub(crate) const VIP: &str = "192.0.2.100";
const CLIENT: [u8; 4] = [192, 0, 2, 1];

/// How long an address may go unanswered when its owner dies, beside what the machine itself stood still.
pub(crate) const TAKEOVER: Duration = Duration::from_secs(1);

/// Nobody takes over in less: no lease is shorter.
const SOONEST: Duration = Duration::from_millis(100);

/// How long is waited for anything.
const SOON: Duration = Duration::from_secs(30);

pub(crate) const NAMES: [&str; 3] = ["node-a", "node-b", "node-c"];

/// Three members, and a client that asks for the address and listens.
pub(crate) struct Lan {
    id: String,
    pub(crate) folder: PathBuf,
    pub(crate) members: Vec<Member>,
    pub(crate) ears: Ears,
}

pub(crate) struct Member {
    pub(crate) namespace: String,
    pub(crate) mac: String,
    pub(crate) log: PathBuf,
    pub(crate) process: Option<Child>,
}

impl Lan {
    pub(crate) fn new() -> Self {
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
        let member = |name: &&str| {
            let namespace = format!("{id}-{name}");
            let mac = mac(&namespace);
            Member { log: folder.join(format!("{name}.log")), namespace, mac, process: None }
        };
        let members = NAMES.iter().map(member).collect();
        let ears = Ears::open(&format!("{id}-client"));
        Self { id, folder, members, ears }
    }

    /// Starts an announcer as an operator would, with these settings and nothing of this test's own environment.
    pub(crate) fn spawn(&mut self, number: usize, settings: &[(&str, String)]) {
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
            .env("address", VIP)
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.members[number].process = Some(child.expect("nsenter"));
    }

    /// Ends a member at once: it can let go of nothing.
    pub(crate) fn kill(&mut self, number: usize) {
        let Some(mut process) = self.members[number].process.take() else { return };
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// The member with this hardware address.
    pub(crate) fn owner(&self, mac: &str) -> usize {
        let of = self.members.iter().position(|member| member.mac == mac);
        of.unwrap_or_else(|| panic!("{mac} is no member's"))
    }

    /// Whether a member has the address bound, by `ip -j`.
    pub(crate) fn has_bound(&self, number: usize) -> bool {
        let shown = run(&format!("ip -n {} -j addr show dev eth0", self.members[number].namespace));
        shown.contains(&format!("\"{VIP}\""))
    }

    /// Whether a member is ready: it is heard and answered as one that may have the address.
    pub(crate) fn is_ready(&self, number: usize) -> bool {
        self.readiness(number).contains(" 200 ")
    }

    /// What a member says of its readiness.
    pub(crate) fn readiness(&self, number: usize) -> String {
        let ask = "exec 3<>/dev/tcp/127.0.0.1/2112 && printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3 && cat <&3";
        let net = format!("--net=/run/netns/{}", self.members[number].namespace);
        let asked = Command::new("nsenter").args([&net, "bash", "-c", ask]).output().unwrap();
        String::from_utf8_lossy(&asked.stdout).into_owned()
    }

    /// What the members logged, for whoever reads of a failure.
    pub(crate) fn logs(&self) -> String {
        let log = |member: &Member| fs::read_to_string(&member.log).unwrap_or_default();
        self.members.iter().map(log).collect::<Vec<_>>().join("\n")
    }

    /// Waits until the client has heard something.
    pub(crate) fn until<T>(&self, what: &str, mut is: impl FnMut(&[Answer]) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = is(&self.ears.answers()) {
                return found;
            }
            let heard = self.ears.answers().len();
            let waited = start.elapsed();
            assert!(waited < SOON, "{what}: {heard} answers\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the same member has answered for a second.
    pub(crate) fn settle(&self) -> usize {
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
pub(crate) struct Answer {
    pub(crate) at: Instant,
    pub(crate) mac: String,
}

/// What the client hears, and when the machine stood still.
pub(crate) struct Ears {
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

    pub(crate) fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap().clone()
    }

    /// The longest time for which the machine stood still, since a moment.
    pub(crate) fn pause(&self, since: Instant) -> Duration {
        let asked = self.asked.lock().unwrap();
        let later = asked.iter().filter(|at| **at >= since).collect::<Vec<_>>();
        later.windows(2).map(|two| two[1].duration_since(*two[0])).max().unwrap_or_default()
    }

    /// The answers as runs of one hardware address each. Nobody answers between two answers of another.
    pub(crate) fn owners(&self) -> Vec<(String, Instant, Instant)> {
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
