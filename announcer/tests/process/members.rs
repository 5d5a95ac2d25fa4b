//! The control plane's own address by fenced membership: three nodes, each with an API server of its own before the same objects, and
//! what a client on their LAN hears.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::Test;
use crate::api::Api;
use crate::kubeconfig_of;
use crate::lan::{Lan, NAMES, TAKEOVER, VIP};
use crate::namespace::run;

pub(crate) fn tests() -> Vec<(String, Test)> {
    let tests: [(&str, fn()); 7] = [
        ("members_take_the_control_planes_address_over_within_a_second", taken_over),
        ("a_member_whose_api_server_hangs_hands_over_to_one_whose_does_not", hangs),
        ("members_without_any_api_server_move_nothing_and_one_takes_over_from_who_dies", without),
        ("members_that_start_without_api_server_go_on_by_what_a_majority_has_kept", cold),
        ("a_member_that_has_kept_nothing_whole_waits_for_an_api_server", damaged),
        ("a_member_whose_node_has_no_label_founds_no_view_while_others_have_it", unlabelled),
        ("members_ask_for_nothing_while_another_holds_their_lease", excluded),
    ];
    tests.map(|(name, test)| (name.to_owned(), Box::new(test) as Test)).into()
}

const PORT: u16 = 6443;
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/plndr-cp-lock";
const VIEW: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/berth-membership-cp";

/// The checks that fail before an API server is unhealthy, each of a second.
const FAILURES: u32 = 2;

/// Longer than members need to do what they should not.
const LONG: Duration = Duration::from_secs(8);

struct Scene {
    lan: Lan,
    servers: Vec<Api>,
    runtime: Option<Runtime>,
}

fn put_node(server: &Api, number: usize, is_labelled: bool) {
    let address = format!("192.0.2.{}", 11 + number);
    let label = if is_labelled { "node-role.kubernetes.io/control-plane" } else { "other" };
    let status = json!({ "addresses": [{ "type": "InternalIP", "address": address }] });
    let node = json!({ "metadata": { "labels": { label: "" } }, "status": status });
    server.put(&format!("/api/v1/nodes/{}", NAMES[number]), node);
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Scene {
    /// With an API server on each node.
    fn new() -> Self {
        let lan = Lan::new();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().expect("a runtime");
        let first = Api::new();
        (0..3).for_each(|number| put_node(&first, number, true));
        let servers = vec![first.beside(), first.beside(), first.beside()];
        let scene = Self { lan, servers, runtime: Some(runtime) };
        (0..3).for_each(|number| scene.serve(number));
        let server = ([127, 0, 0, 1], PORT).into();
        fs::write(scene.lan.folder.join("kubeconfig"), kubeconfig_of(&server)).unwrap();
        scene
    }

    /// Has the API server of a node listen there.
    fn serve(&self, number: usize) {
        let netns = fs::File::open(format!("/run/netns/{}", self.lan.members[number].namespace));
        let bound = std::thread::spawn(move || {
            setns(netns.unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            TcpListener::bind(("0.0.0.0", PORT)).unwrap()
        });
        let _inside = self.runtime.as_ref().unwrap().enter();
        self.servers[number].listen(bound.join().unwrap());
    }

    fn start(&mut self, number: usize) {
        let file = |name: &str| self.lan.folder.join(name).display().to_string();
        let settings = [
            ("KUBECONFIG", file("kubeconfig")),
            ("cp_enable", "true".to_owned()),
            ("kubernetes_addr", format!("http://127.0.0.1:{PORT}")),
            ("berth_election", "membership".to_owned()),
            ("berth_cp_folder", file(NAMES[number])),
            ("control_plane_health_check_failure_threshold", FAILURES.to_string()),
        ];
        self.lan.spawn(number, &settings);
    }

    /// All members, once each has kept a view of three. Gives the owner.
    fn up() -> (Self, usize) {
        let mut scene = Self::new();
        (0..3).for_each(|number| scene.start(number));
        let owner = scene.lan.settle();
        let keeps = |number: usize| scene.voters(number) == 3 && scene.knows_all(number);
        scene.lan.until("all vote", |_| (0..3).all(keeps).then_some(()));
        let settled = scene.lan.settle();
        assert_eq!(settled, owner, "{}", scene.lan.logs());
        (scene, settled)
    }

    /// Whether a node has kept where the others are.
    fn knows_all(&self, number: usize) -> bool {
        let file = self.lan.folder.join(NAMES[number]).join("peers.json");
        let text = fs::read_to_string(file).unwrap_or_default();
        let kept: Value =
            serde_json::from_str(text.lines().next().unwrap_or_default()).unwrap_or_default();
        NAMES.iter().all(|name| kept.get(name).is_some() || *name == NAMES[number])
    }

    /// How many vote in the view that a node has kept.
    fn voters(&self, number: usize) -> usize {
        let file = self.lan.folder.join(NAMES[number]).join("view.json");
        let text = fs::read_to_string(file).unwrap_or_default();
        let stood: Value =
            serde_json::from_str(text.lines().next().unwrap_or_default()).unwrap_or_default();
        let view: Value =
            serde_json::from_str(stood["view"].as_str().unwrap_or_default()).unwrap_or_default();
        view["voters"].as_array().map_or(0, Vec::len)
    }

    /// Nobody but this node answers for so long, and that goes on.
    fn stays(&self, owner: usize, long: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < long {
            assert_eq!(self.lan.settle(), owner, "{}", self.lan.logs());
        }
        let others = self.lan.ears.answers().into_iter().filter(|answer| answer.at > begun);
        let others: Vec<_> = others.filter(|one| one.mac != self.lan.members[owner].mac).collect();
        assert!(others.is_empty(), "{others:?}\n{}", self.lan.logs());
        let silent = self.silence(begun);
        let pause = self.lan.ears.pause(begun);
        assert!(silent < Duration::from_millis(500) + pause, "{silent:?}, pause {pause:?}");
    }

    /// The longest time without an answer since a moment.
    fn silence(&self, since: Instant) -> Duration {
        let answers = self.lan.ears.answers();
        let later = answers.iter().map(|answer| answer.at).filter(|at| *at >= since);
        let later: Vec<_> = [since].into_iter().chain(later).collect();
        later.windows(2).map(|two| two[1].duration_since(two[0])).max().unwrap_or_default()
    }

    /// Waits until another than this one answers; gives how long that took since a moment.
    fn taken(&self, from: usize, since: Instant) -> Duration {
        let mac = &self.lan.members[from].mac;
        let taken = self.lan.until("another answers", |answers| {
            let mut later = answers.iter().filter(|answer| answer.at > since);
            later.find(|answer| answer.mac != *mac).map(|answer| answer.at)
        });
        taken.duration_since(since)
    }

    /// Ends a node: its announcer with its link.
    fn dies(&mut self, number: usize) -> Instant {
        let died = Instant::now();
        self.lan.kill(number);
        run(&format!("ip -n {} link set eth0 down", self.lan.members[number].namespace));
        died
    }

    /// Ends all nodes at once. No API server is there afterwards: each says that it is ready, and answers nothing else.
    fn loses_power(&mut self) {
        for number in 0..3 {
            self.servers[number].hangs(true);
            self.lan.kill(number);
        }
        std::thread::sleep(Duration::from_secs(1));
    }

    /// Has somebody renew the Lease, for the so manieth time.
    fn held_by(&self, holder: &str, renewal: u32) {
        let spec = json!({
            "holderIdentity": holder, "leaseDurationSeconds": 3, "leaseTransitions": renewal,
        });
        self.servers[0].put(LEASE, json!({ "spec": spec }));
    }

    /// Nobody answers for so long.
    fn is_silent(&self, long: Duration, why: &str) {
        let begun = Instant::now();
        std::thread::sleep(long);
        let heard = self.lan.ears.answers().into_iter().filter(|answer| answer.at > begun);
        assert_eq!(heard.count(), 0, "{why}\n{}", self.lan.logs());
    }
}

fn taken_over() {
    let (mut scene, owner) = Scene::up();
    let lease = scene.servers[0].get(LEASE).expect("members hold it");
    assert_eq!(lease["spec"]["holderIdentity"], "berth.dev/membership");
    assert!(scene.servers[0].get(VIEW).is_some());
    let died = scene.dies(owner);
    let took = scene.taken(owner, died);
    let pause = scene.lan.ears.pause(died);
    println!("taken over after {took:.0?}; the machine stood still for {pause:.0?} at most");
    assert!(took < TAKEOVER + pause, "{took:?}, pause {pause:?}\n{}", scene.lan.logs());
    let second = scene.lan.settle();

    // It comes back, and takes nothing away.
    run(&format!("ip -n {} link set eth0 up", scene.lan.members[owner].namespace));
    scene.start(owner);
    scene.lan.until("it is ready", |_| scene.lan.is_ready(owner).then_some(()));
    scene.stays(second, Duration::from_secs(3));

    // Who is told to stop hands over and leaves nothing.
    let process = scene.lan.members[second].process.as_mut().unwrap();
    kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(process.wait().unwrap().success(), "{}", scene.lan.logs());
    assert!(!scene.lan.has_bound(second), "{}", scene.lan.logs());
    assert_ne!(scene.lan.settle(), second);
    scene.lan.ears.owners();
}

fn hangs() {
    let (scene, owner) = Scene::up();
    let hung = Instant::now();
    scene.servers[owner].hangs_altogether();
    let took = scene.taken(owner, hung);
    let pause = scene.lan.ears.pause(hung);
    println!("handed over {took:.1?} after its server hung; {pause:.0?} stood still");
    let threshold = Duration::from_secs(1) * (FAILURES + 1);
    assert!(took < threshold + TAKEOVER + pause, "{took:?}\n{}", scene.lan.logs());
    let second = scene.lan.settle();
    let silent = scene.silence(hung);
    println!("away for {silent:.0?} at most");
    assert!(silent < Duration::from_millis(500) + pause, "{silent:?}\n{}", scene.lan.logs());

    // It does not answer the question after which it would have to take it; nor does the third.
    (0..3).for_each(|number| scene.servers[number].hangs_altogether());
    scene.stays(second, LONG);

    // One is back: to that it goes, and to no other.
    scene.servers[owner].is_ready(true);
    scene.servers[owner].hangs(false);
    let back = Instant::now();
    let took = scene.taken(second, back);
    println!("handed over {took:.1?} after another was back");
    assert_eq!(scene.lan.settle(), owner, "{}", scene.lan.logs());
    scene.lan.ears.owners();
}

fn without() {
    let (mut scene, owner) = Scene::up();
    (0..3).for_each(|number| scene.servers[number].hangs_altogether());
    // Longer than the Lease lasts that members hold.
    scene.stays(owner, 2 * LONG);
    let died = scene.dies(owner);
    let took = scene.taken(owner, died);
    println!("taken over without an API server after {took:.1?}");
    let second = scene.lan.settle();
    scene.stays(second, Duration::from_secs(2));
    scene.lan.ears.owners();
}

fn cold() {
    let (mut scene, _) = Scene::up();
    scene.loses_power();
    scene.start(0);
    scene.is_silent(LONG, "one of three is no majority");
    scene.start(1);
    let owner = scene.lan.settle();
    assert!(owner < 2);
    let log = scene.lan.logs();
    assert!(log.contains("goes on in the view that it has kept"), "{log}");
    scene.stays(owner, Duration::from_secs(2));
    // With an API server the view goes on from there.
    scene.servers.iter().for_each(|server| server.hangs(false));
    scene.start(2);
    scene.lan.until("all vote", |_| scene.lan.is_ready(2).then_some(()));
    scene.stays(owner, Duration::from_secs(2));
    scene.lan.ears.owners();
}

fn damaged() {
    let (mut scene, _) = Scene::up();
    scene.loses_power();
    let folder = scene.lan.folder.clone();
    let view = |number: usize| folder.join(NAMES[number]).join("view.json");
    let text = fs::read_to_string(view(0)).unwrap();
    fs::write(view(0), text.replace("epoch", "Epoch")).unwrap();
    fs::remove_file(view(1)).unwrap();
    (0..2).for_each(|number| scene.start(number));
    scene.is_silent(LONG, "what is known of the view is not sure");
    assert!(scene.lan.logs().contains("it is not as it was written"), "{}", scene.lan.logs());
    scene.servers[0].hangs(false);
    scene.servers[1].hangs(false);
    assert!(scene.lan.settle() < 2);
}

fn unlabelled() {
    let mut scene = Scene::new();
    put_node(&scene.servers[0], 2, false);
    scene.start(2);
    scene.is_silent(Duration::from_secs(5), "it is none of the control plane's");
    assert!(scene.servers[0].get(VIEW).is_none(), "nor is there a view");
    let log = scene.lan.logs();
    assert!(log.contains("has no label node-role.kubernetes.io/control-plane"), "{log}");
    put_node(&scene.servers[0], 2, true);
    assert_eq!(scene.lan.settle(), 2);
    assert_eq!(scene.voters(2), 1);
}

fn excluded() {
    let mut scene = Scene::new();
    scene.held_by("node-x", 0);
    (0..3).for_each(|number| scene.start(number));
    for renewal in 1..8 {
        scene.held_by("node-x", renewal);
        scene.is_silent(Duration::from_secs(1), "node-x holds the Lease");
    }
    assert!(scene.servers[0].get(VIEW).is_none(), "nor is there a view");
    let free = Instant::now();
    scene.lan.settle();
    println!("{VIP} taken {:.1?} after its holder was heard last", free.elapsed());
    let log = scene.lan.logs();
    assert!(log.contains("node-x goes by Lease kube-system/plndr-cp-lock"), "{log}");
}
