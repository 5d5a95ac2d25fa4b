//! The announcer as a process. Each background task in turn ends or panics in a running announcer: the process ends and names it, the address falls
//! silent, and the next process serves it again. Judged from the other end of the cable. Needs root.
//!
//! The announcer under test is this program itself, started once more as a process of its own: it runs the whole
//! announcer but for one task, which dies when the process gets SIGUSR2. The one that comes after it is the real one.
#![allow(clippy::unwrap_used)]

/// Tests by their names.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        vec![$((stringify!($name).to_owned(), Box::new(|| crate::namespace::alone($name)) as Test)),*]
    };
}

mod api;
mod control_plane;
mod field;
mod kubeadm;
#[path = "../network/lan.rs"]
#[allow(dead_code)]
mod lan;
mod lease;
mod life;
mod many;
mod members;
#[path = "../network/namespace.rs"]
#[allow(dead_code)]
mod namespace;
mod routed;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use berth_announcer::advertise::arp_nd::frame;
use berth_announcer::advertise::arp_nd::schedule::Frame;
use berth_announcer::advertise::arp_nd::socket::Sockets;
use berth_announcer::config::{Config, Settings};
use berth_announcer::kernel::Kernel;
use berth_announcer::run;
use berth_runtime::supervise::{self, Supervisor};
use berth_runtime::{logs, shutdown};
use futures::FutureExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::Api;
use crate::namespace::{alone, kernel};

/// Every background task of an announcer.
const TASKS: [&str; 28] = [
    "SIGUSR1",
    "berth-ccm lease watch",
    "elastic IPs",
    "elastic IPs watch",
    "emptied nodes watch",
    "endpointslices watch",
    "events",
    "fence",
    "forward",
    "unserved",
    "health server",
    "host lease",
    "instance locks",
    "ipaddresses watch",
    "kernel events",
    "leases of Services watch",
    "kube-proxy",
    "leases watch",
    "members' lease",
    "membership",
    "membership to come",
    "membership view",
    "metrics server",
    "nodes watch",
    "rights",
    "rtnetlink",
    "services watch",
    "signals",
];

/// Those that an announcer which goes by a Lease does not have.
const OF_MEMBERS: [&str; 5] =
    ["leases of Services watch", "members' lease", "membership", "membership view", "nodes watch"];

/// Those that a member does not have.
const OF_LEASES: [&str; 3] = ["emptied nodes watch", "fence", "membership to come"];

/// The name of all cases.
const DEATHS: &str = "the_end_of_any_task_ends_the_process_and_the_next_one_heals_it";

/// Cases at a time: they wait most of the time.
const AT_ONCE: usize = 6;

/// Longer than anything here may take on a busy machine.
const SOON: Duration = Duration::from_secs(30);

const ADDRESS: &str = "192.0.2.1";

/// Who decides on the owner, and so what silences an address of a process that is gone.
#[derive(Clone, Copy, Debug)]
enum Election {
    /// Grants, and the fence.
    Membership,
    /// A Lease, the fence behind it, and the lifetime of the address.
    Lease,
}

impl Election {
    /// Whether an announcer that goes by it has this task.
    fn has(self, task: &str) -> bool {
        let lacks = match self {
            Self::Membership => &OF_LEASES[..],
            Self::Lease => &OF_MEMBERS,
        };
        !lacks.contains(&task)
    }
}

/// How the task dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    Ends,
    Panics,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    task: &'static str,
    election: Election,
    death: Death,
}

impl Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { task, election, death } = self;
        write!(f, "task `{task}` {death:?}, {election:?}")
    }
}

type Test = Box<dyn Fn() + Sync>;

fn main() -> ExitCode {
    if let Ok(victim) = std::env::var("VICTIM") {
        return announcer(victim);
    }
    assert!(nix::unistd::geteuid().is_root(), "needs root, to make network namespaces");
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let mut cases = Vec::new();
    for task in TASKS {
        for election in [Election::Membership, Election::Lease] {
            let deaths = match election {
                Election::Membership => &[Death::Ends, Death::Panics][..],
                Election::Lease => &[Death::Ends],
            };
            let deaths = deaths.iter().filter(|_| election.has(task));
            cases.extend(deaths.map(|death| Case { task, election, death: *death }));
        }
    }
    let mut tests: Vec<(String, Test)> = vec![
        // The longest first.
        ("an_absent_api_is_named".into(), Box::new(|| alone(life::an_absent_api_is_named))),
        ("vips_are_dumped".into(), Box::new(|| alone(life::vips_are_dumped))),
        ("a_second_is_refused".into(), Box::new(|| alone(life::a_second_is_refused))),
    ];
    tests.extend(many::tests());
    tests.extend(field::tests());
    tests.extend(lease::tests());
    tests.extend(control_plane::tests());
    tests.extend(members::tests());
    tests.extend(kubeadm::tests());
    tests.extend(routed::tests());
    for case in cases {
        let name = format!("{DEATHS}: {case}");
        tests.push((name, Box::new(move || alone(async || shows(case).await))));
    }
    if std::env::args().any(|argument| argument == "--list") {
        // As libtest does, all deaths as one test: run together they take no longer than the longest of them.
        let names: BTreeSet<&str> =
            tests.iter().map(|(name, _)| name.split(':').next().unwrap_or(name)).collect();
        names.iter().for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    tests.retain(|(name, _)| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter))
    });
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some((name, test)) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
            let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
            println!("{name} ... {}", if passed { "ok" } else { "FAILED" });
            failed.fetch_add(usize::from(!passed), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner();
    println!("{} tests, {failed} failed", tests.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One announcer after the other in the network namespace of this thread, against one API server.
struct Scene {
    api: Api,
    folder: PathBuf,
    kubeconfig: PathBuf,
    /// What the last one said.
    log: PathBuf,
    server: SocketAddr,
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Whoever fails to remove it has told what is wrong before.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Scene {
    async fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (api, server) = Api::start().await;
        populate(&api);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("berth-process-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (kubeconfig, log) = (folder.join("kubeconfig"), folder.join("log"));
        std::fs::write(&kubeconfig, kubeconfig_of(&server)).unwrap();
        Self { api, folder, kubeconfig, log, server }
    }

    fn start(&self, program: PathBuf, election: Election, victim: Option<Case>) -> Child {
        self.start_with_log(program, election, victim, &self.log)
    }

    fn start_with_log(
        &self,
        program: PathBuf,
        election: Election,
        victim: Option<Case>,
        log: &Path,
    ) -> Child {
        self.command(program, election, victim, log).spawn().expect("an announcer")
    }

    fn command(
        &self,
        program: PathBuf,
        election: Election,
        victim: Option<Case>,
        log: &Path,
    ) -> Command {
        let mut command = Command::new(program);
        command
            .arg("manager")
            .env("KUBECONFIG", &self.kubeconfig)
            .env("vip_nodename", "node-a")
            .env("vip_interface", "eth0")
            .env("vip_skipdad", "true")
            .env("prometheus_server", "127.0.0.1:2112")
            .env("health_check_port", "2114")
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(log).expect("a log"))
            .kill_on_drop(true);
        match election {
            Election::Membership => command.env("berth_election", "membership"),
            Election::Lease => command
                .env("berth_election", "global")
                .env("vip_leaseduration", "3")
                .env("vip_renewdeadline", "2")
                .env("vip_retryperiod", "1"),
        };
        match victim {
            Some(Case { task, death, .. }) => command
                .env("VICTIM", task)
                .env("DEATH", format!("{death:?}"))
                .stdout(Stdio::piped()),
            None => command.stdout(Stdio::null()),
        };
        command
    }

    /// Stops an announcer, which leaves nothing behind.
    async fn leaves(&self, mut announcer: Child) {
        signal_to(&announcer, Signal::SIGTERM);
        let status = tokio::time::timeout(SOON, announcer.wait()).await.expect("it leaves");
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        assert!(status.unwrap().success(), "{log}");
        assert!(namespace::address("eth0", ADDRESS).is_none(), "{log}");
        assert_eq!(namespace::run("nft list ruleset"), "", "{log}");
    }
}

/// The program itself.
fn real() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_berth-announcer"))
}

async fn shows(case: Case) {
    let (scene, name) = (Scene::new().await, case.to_string());
    let mut victim = scene.start(std::env::current_exe().unwrap(), case.election, Some(case));
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let mut peer = Peer::new().await;
    peer.until(true, &name, &scene.log).await;
    signal_to(&victim, Signal::SIGUSR2);
    let died = Instant::now();
    let status = tokio::time::timeout(SOON, victim.wait()).await.expect("it ends").unwrap();
    let ended = died.elapsed();
    assert_eq!(status.code(), Some(1), "{case}");
    let said = std::fs::read_to_string(&scene.log).unwrap();
    let how = match case.death {
        Death::Ends => "ended",
        Death::Panics => "panicked",
    };
    let line = format!("berth-announcer: the task `{}` {how}", case.task);
    assert!(said.contains(&line), "{case}: {line:?} is not in:\n{said}");
    let mut tasks = BTreeSet::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        tasks.extend(line.strip_prefix("task ").map(str::to_owned));
    }
    let expected = TASKS.iter().filter(|task| case.election.has(task));
    assert_eq!(tasks, expected.map(|task| (*task).to_owned()).collect(), "{case}");
    peer.until(false, &name, &scene.log).await;
    let silent = died.elapsed();

    let next = scene.start(real(), case.election, None);
    peer.until(true, &name, &scene.log).await;
    scene.leaves(next).await;
    println!("{case}: ended after {ended:.1?}, silent after {silent:.1?}");
}

fn signal_to(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).expect("it runs");
    kill(Pid::from_raw(pid), signal).unwrap();
}

fn kubeconfig_of(server: &SocketAddr) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{ "name": "lab", "cluster": { "server": format!("http://{server}") } }],
        "users": [{ "name": "lab", "user": {} }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
    })
    .to_string()
}

/// One node, one Service with an endpoint on it, and the Secret of the members.
fn populate(api: &Api) {
    api.put(
        "/api/v1/nodes/node-a",
        json!({ "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.250" }] } }),
    );
    api.put("/api/v1/namespaces/kube-system/secrets/berth-membership", json!({}));
    api.put(
        "/api/v1/namespaces/shop/services/web",
        json!({
            "metadata": { "uid": "u", "annotations": { "kube-vip.io/loadbalancerIPs": ADDRESS } },
            "spec": { "type": "LoadBalancer", "ports": [{ "port": 80, "protocol": "TCP" }] },
        }),
    );
    api.put(
        "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/web-1",
        json!({
            "metadata": { "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4",
            "ports": [{ "port": 8080, "protocol": "TCP" }],
            "endpoints": [{
                "addresses": ["10.0.0.1"], "conditions": { "ready": true }, "nodeName": "node-a",
            }],
        }),
    );
}

type Heard = tokio::io::Lines<BufReader<tokio::process::ChildStdout>>;

/// Starts `tcpdump` on the other end of the cable, for what comes in there, and waits until it listens.
async fn listen(filter: &str) -> (Child, Heard) {
    let mut tcpdump = Command::new("tcpdump")
        .args(["-i", "peer0", "--immediate-mode", "-Q", "in", "-ln", filter])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("tcpdump");
    let mut said = BufReader::new(tcpdump.stderr.take().unwrap()).lines();
    while !said.next_line().await.unwrap().expect("it listens").contains("listening on") {}
    let heard = BufReader::new(tcpdump.stdout.take().unwrap()).lines();
    (tcpdump, heard)
}

/// The other end of the cable.
struct Peer {
    index: u32,
    sockets: Sockets,
    heard: Heard,
    _tcpdump: Child,
}

impl Peer {
    async fn new() -> Self {
        let host = kernel().look().await.unwrap();
        let index = host.interfaces["peer0"].index;
        let answers = format!("arp[6:2] = 2 and arp src host {ADDRESS} and not ether broadcast");
        let (tcpdump, heard) = listen(&answers).await;
        Self { index, sockets: Sockets::default(), heard, _tcpdump: tcpdump }
    }

    /// Whether somebody answers for the address within a moment.
    async fn is_answered(&mut self) -> bool {
        const MOMENT: Duration = Duration::from_millis(200);
        let bytes = frame::probe(ADDRESS.parse().unwrap(), [2, 0, 0, 0, 0, 9], *b"theirs");
        self.sockets.send(&Frame { index: self.index, bytes }).unwrap();
        match tokio::time::timeout(MOMENT, self.heard.next_line()).await {
            Ok(line) => line.unwrap().is_some(),
            Err(_) => false,
        }
    }

    async fn until(&mut self, answered: bool, what: &str, log: &Path) {
        let start = Instant::now();
        while self.is_answered().await != answered {
            let log = || std::fs::read_to_string(log).unwrap_or_default();
            assert!(start.elapsed() < SOON, "{what}: never answered {answered}:\n{}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Runs an announcer, as its `main` does, whose task `victim` dies at SIGUSR2.
fn announcer(victim: String) -> ExitCode {
    let panics = std::env::var("DEATH").is_ok_and(|death| death == "Panics");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let result = runtime.block_on(async move {
        let settings = Settings::gather(std::env::vars(), []);
        let config = Config::parse(&settings, "node-a").expect("valid settings");
        logs::init("info", logs::Format::Text).unwrap();
        supervise::name_panics();
        let mut supervisor = Supervisor::layered(move |(name, task)| {
            println!("task {name}");
            if name != victim {
                return task;
            }
            let mut told = signal(SignalKind::user_defined2()).unwrap();
            let dying = async move {
                tokio::select! {
                    () = task => panic!("{name} ended by itself"),
                    _ = told.recv() => {}
                }
                assert!(!panics, "on purpose");
            };
            dying.boxed()
        });
        let (stop, signals) = shutdown::on_signals().unwrap();
        supervisor.spawn("signals", signals);
        run::run(config, Vec::new(), stop, supervisor).await
    });
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-announcer: {error:#}");
            ExitCode::FAILURE
        }
    }
}
