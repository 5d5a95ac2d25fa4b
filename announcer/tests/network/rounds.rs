//! The whole announcer but for its watches, in a namespace, against an API server of a few lines.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_announcer::advertise::bgp::{self, Told};
use berth_announcer::config::{Config, Settings};
use berth_announcer::dataplane::{Dataplane, unserved};
use berth_announcer::instance::Instance;
use berth_announcer::kernel::{Binding, Kernel, Lifetime};
use berth_announcer::metrics::Metrics;
use berth_announcer::ownership::health::Heard;
use berth_announcer::publish::publisher::Publisher;
use berth_announcer::publish::writer::Writer;
use berth_announcer::reconcile::drive::{Left, Sources, drive};
use berth_announcer::reconcile::{self, Announcer, CHECKS, Outlets};
use berth_announcer::source::cluster::{Name, Service, Slice};
use berth_announcer::source::watch::ClusterEvent;
use berth_announcer::vip::serve::{Endpoints, Where};
use berth_runtime::events;
use berth_runtime::http::Health;
use berth_runtime::supervise::Supervisor;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::announcements::{hears, tcpdump};
use crate::cluster::{Asked, Cluster, PATIENCE};
use crate::namespace::{address, addresses, alone, door, kernel, run};

const STATUS: &str = "PATCH /api/v1/namespaces/shop/services/web/status";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";

/// A running announcer, and what its watches would show.
pub(crate) struct Node {
    cluster: Cluster,
    config: Config,
    health: Health,
    watches: mpsc::Sender<ClusterEvent>,
    pub(crate) stop: CancellationToken,
    pub(crate) driving: JoinHandle<bool>,
    keeping: Vec<JoinHandle<()>>,
}

impl Node {
    /// Starts on a cluster that is empty but for what `settings` make of it.
    pub(crate) async fn start(cluster: &Cluster, settings: &[(&str, &str)]) -> Self {
        let lease = ("vip_leaderelection", "true");
        let settings = [&[lease], settings].concat();
        let given = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = Config::parse(&Settings::gather(given, []), "node-a").expect("valid settings");
        let client = cluster.client();
        let (events, publisher) = events::channel(client.clone(), "berth-announcer", "node-a");
        tokio::spawn(publisher.run());
        let (watches, seen) = mpsc::channel(64);
        let timeout = config.leases.timing.request_timeout();
        let (writer, done) =
            Writer::new(client, "kube-system", timeout, Supervisor::new().errands());
        let (door, instance) = (door(), Instance::services());
        let (dataplane, kept, tasks) =
            Dataplane::new(&door, &instance, &Metrics::default(), (false, false));
        let keeping = tasks.into_iter().map(|(_, task)| tokio::spawn(task)).collect();
        let health = Health::new(CHECKS);
        let metrics = Metrics::default();
        let publisher = Publisher::new(writer, events, metrics.clone(), "node-a", true);
        let host = tokio::sync::watch::Sender::new(None);
        let (here, again) = (tokio::sync::watch::Sender::default(), Arc::default());
        let outlets = Outlets { metrics, health: health.clone(), host, labels: None, again, here };
        let now = Instant::now();
        let owners = reconcile::owners(&config, None, now);
        let mut announcer = Announcer::new(
            config.clone(),
            owners,
            door.netlink(&instance),
            dataplane,
            publisher,
            outlets,
            now,
        );
        let changes = door.changes();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let driving = tokio::spawn(async move {
            let (told, fenced) = (mpsc::unbounded_channel().1, mpsc::unbounded_channel().1);
            let (standing, inquiries) =
                (tokio::sync::watch::channel(Heard::default()).1, mpsc::channel(1).1);
            let routed = tokio::sync::watch::channel(Told::default()).1;
            let proxied = tokio::sync::watch::channel(Default::default()).1;
            let answers = tokio::sync::watch::channel(Default::default()).1;
            let dataplane = kept;
            let sources = Sources {
                seen,
                done,
                changes,
                dataplane,
                told,
                fenced,
                standing,
                answers,
                routed,
                proxied,
                inquiries,
            };
            let stop = async {
                stopped.cancelled().await;
                bgp::Answer::Silent("nobody is asked".to_owned())
            };
            drive(&mut announcer, sources, stop).await == Left::Bare
        });
        let cluster = cluster.clone();
        let node = Self { cluster, config, health, watches, stop, driving, keeping };
        node.show(ClusterEvent::Leases(BTreeSet::new())).await;
        node.show(ClusterEvent::ImportListed).await;
        node.show(ClusterEvent::Services(BTreeSet::new())).await;
        node.show(ClusterEvent::Slices(BTreeSet::new())).await;
        node
    }

    pub(crate) async fn show(&self, seen: ClusterEvent) {
        self.watches.send(seen).await.expect("the announcer runs");
    }

    /// Creates a Service in the namespace `shop` and a ready endpoint of it.
    pub(crate) async fn expose(&self, service: Value) {
        let on = Where { any: true, nodes: ["node-a".to_owned()].into() };
        let endpoints = Endpoints { ready: on, ..Endpoints::default() };
        let ready = Slice::of(&endpoints);
        let name = name(&service);
        let slice = Name::new("shop", format!("{}-1", name.name));
        self.show(ClusterEvent::Slice(slice, Some((name, ready)))).await;
        self.change(service).await;
    }

    /// Puts the Service into the cluster and shows it.
    async fn change(&self, service: Value) {
        let name = name(&service);
        let path = format!("/api/v1/namespaces/shop/services/{}", name.name);
        let service = serde_json::from_value(self.cluster.put(&path, service)).unwrap();
        let read = Service::read(&service, &self.config.services.as_ref().unwrap().classes);
        self.show(ClusterEvent::Service(name, Box::new(read))).await;
    }
}

fn name(service: &Value) -> Name {
    Name::new("shop", service["metadata"]["name"].as_str().unwrap())
}

/// The Service `shop/web`.
pub(crate) fn service() -> Value {
    json!({
        "metadata": {
            "namespace": "shop", "name": "web", "uid": "u",
            "annotations": { "kube-vip.io/loadbalancerIPs": "192.0.2.1,2001:db8::1" },
        },
        "spec": { "type": "LoadBalancer", "ports": [{ "port": 80, "protocol": "TCP" }] },
    })
}

pub(crate) fn published(asked: &Asked) -> bool {
    asked.what == STATUS && !asked.body["status"]["loadBalancer"]["ingress"].is_null()
}

fn cleared(asked: &Asked) -> bool {
    asked.what == STATUS && asked.body["status"]["loadBalancer"]["ingress"].is_null()
}

/// Waits until the network is as it should be.
pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    loop {
        let look = Instant::now();
        if is() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: {}", run("ip -j addr"));
        // A look blocks the one thread there is, in an emulated guest for a second: the announcer gets as long as it took.
        tokio::time::sleep(look.elapsed().max(Duration::from_millis(10))).await;
    }
}

#[test]
fn a_service_is_bound_then_published_and_at_the_end_nothing_is_left() {
    alone(async || {
        let cluster = Cluster::new();
        let node = Node::start(&cluster, &[("vip_interface", "eth0")]).await;
        node.expose(service()).await;
        let asked = cluster.asks(published).await;
        assert_eq!(asked.bound, ["192.0.2.1", "2001:db8::1"], "bound before it is published");
        assert_eq!(asked.body["metadata"]["annotations"]["kube-vip.io/vipHost"], "node-a");
        assert_eq!(asked.body["metadata"]["uid"], "u");
        let ingress = &asked.body["status"]["loadBalancer"]["ingress"];
        let port = json!([{ "port": 80, "protocol": "TCP" }]);
        assert_eq!(ingress[0], json!({ "ip": "192.0.2.1", "ipMode": "VIP", "ports": port }));
        assert_eq!(node.health.unready_checks(Instant::now()), []);

        node.stop.cancel();
        assert!(node.driving.await.unwrap(), "left in time");
        let release = cluster.asks(|asked| {
            asked.what.starts_with(&format!("PUT {LEASES}"))
                && asked.body["spec"]["holderIdentity"].is_null()
        });
        assert_eq!(release.await.bound, [""; 0], "off before another node may take over");
        assert!(!cluster.asked().iter().any(cleared), "the next owner writes the status");
        for task in node.keeping {
            task.await.expect("it ends with the announcer");
        }
        unserved::remove("berth").await.unwrap();
        assert_eq!(run("nft list ruleset"), "");
    });
}

#[test]
fn a_status_is_cleared_after_the_address_is_gone() {
    alone(async || {
        let cluster = Cluster::new();
        let node = Node::start(&cluster, &[("vip_interface", "eth0")]).await;
        node.expose(service()).await;
        cluster.asks(published).await;
        let mut leaving = service();
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        leaving["metadata"]["annotations"]["kube-vip.io/vipHost"] = json!("node-a");
        node.change(leaving).await;
        let asked = cluster.asks(cleared).await;
        assert_eq!(asked.bound, [""; 0]);
        assert!(asked.body["metadata"]["annotations"]["kube-vip.io/vipHost"].is_null());
    });
}

#[test]
fn an_address_deleted_by_hand_comes_back() {
    alone(async || {
        let cluster = Cluster::new();
        let node = Node::start(&cluster, &[("vip_interface", "eth0")]).await;
        node.expose(service()).await;
        cluster.asks(published).await;
        run("ip addr del 192.0.2.1/32 dev eth0");
        run("nft flush ruleset");
        until("bound again", || address("eth0", "192.0.2.1").is_some()).await;
        until("guarded again", || run("nft list ruleset").contains("192.0.2.1 . tcp . 80")).await;
    });
}

#[test]
fn a_copy_with_our_tag_on_another_interface_is_removed_when_the_kernel_tells_of_it() {
    alone(async || {
        let cluster = Cluster::new();
        let node = Node::start(&cluster, &[("vip_interface", "eth0")]).await;
        node.expose(service()).await;
        cluster.asks(published).await;
        run("ip link add eth9 type veth peer name peer9");
        run("ip link set eth9 up");
        run("ip link set peer9 up");
        let mut kernel = kernel();
        let index = kernel.look().await.unwrap().interfaces["eth9"].index;
        let began = Instant::now();
        for text in ["192.0.2.1", "2001:db8::1"] {
            let binding = Binding { index, address: text.parse().unwrap() };
            kernel.bind(binding, Lifetime::Forever).await.unwrap();
            until("removed", || address("eth9", text).is_none()).await;
            assert!(address("eth0", text).is_some(), "only the copy");
        }
        // Without an event it would be the next look, ten seconds later.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    });
}

#[test]
fn an_owner_that_hears_nothing_stops_before_another_may_start() {
    alone(async || {
        let cluster = Cluster::new();
        let timing =
            [("vip_leaseduration", "4"), ("vip_renewdeadline", "3"), ("vip_retryperiod", "1")];
        let settings = [&timing[..], &[("vip_interface", "eth0")]].concat();
        let node = Node::start(&cluster, &settings).await;
        node.expose(service()).await;
        cluster.asks(published).await;
        cluster.fall_silent();
        let silent = Instant::now();
        until("off", || addresses("eth0").iter().all(|shown| shown["deprecated"] != true)).await;
        let lasted = silent.elapsed();
        assert!(lasted < Duration::from_secs(4), "{lasted:?}");
        assert!(lasted > Duration::from_millis(1500), "not at the first lost renewal: {lasted:?}");
    });
}

#[test]
fn a_missing_interface_is_named_and_waited_for() {
    alone(async || {
        let cluster = Cluster::new();
        let node = Node::start(&cluster, &[("vip_interface", "late0")]).await;
        node.expose(service()).await;
        until("named", || {
            let checks = node.health.unready_checks(Instant::now());
            checks.iter().any(|(name, why)| *name == "interface" && why.contains("late0"))
        })
        .await;
        assert_eq!(
            cluster.asked().len(),
            0,
            "a node that cannot answer does not ask for the Lease"
        );
        run("ip link add late0 type veth peer name late1");
        run("ip link set late0 up");
        run("ip link set late1 up");
        cluster.asks(published).await;
        assert!(address("late0", "192.0.2.1").is_some());
    });
}

#[test]
fn an_interface_that_a_service_names_is_used_when_it_comes() {
    alone(async || {
        let cluster = Cluster::new();
        let node = Node::start(&cluster, &[("vip_interface", "eth0")]).await;
        let mut named = service();
        named["metadata"]["annotations"]["kube-vip.io/serviceInterface"] = json!("late0");
        node.expose(named).await;
        let told = cluster.asks(|asked| asked.body["reason"] == "InterfaceMissing").await;
        assert!(told.body["note"].as_str().unwrap().contains("late0"));
        run("ip link add late0 type veth peer name late1");
        run("ip link set late0 up");
        run("ip link set late1 up");
        cluster.asks(published).await;
        assert!(address("late0", "192.0.2.1").is_some());
        assert!(address("eth0", "192.0.2.1").is_none());
    });
}

#[test]
fn each_service_has_a_lease_that_goes_with_it() {
    alone(async || {
        let cluster = Cluster::new();
        let node =
            Node::start(&cluster, &[("vip_interface", "eth0"), ("svc_election", "true")]).await;
        node.expose(service()).await;
        cluster.asks(published).await;
        let leases = "/apis/coordination.k8s.io/v1/namespaces/shop/leases";
        let made = cluster.asks(|asked| asked.what == format!("POST {leases}")).await;
        assert_eq!(made.body["metadata"]["name"], "kubevip-web");
        assert_eq!(made.body["metadata"]["ownerReferences"][0]["uid"], "u");
        node.show(ClusterEvent::ServiceGone(Name::new("shop", "web"))).await;
        let deleted =
            cluster.asks(|asked| asked.what == format!("DELETE {leases}/kubevip-web")).await;
        assert_eq!(deleted.bound, [""; 0], "off before the Lease is gone");
        assert!(deleted.body["preconditions"]["resourceVersion"].is_string(), "{deleted:?}");
    });
}

#[test]
fn an_address_is_asked_for_before_it_is_announced_and_the_router_is_told() {
    alone(async || {
        run("ip route add default via 192.0.2.253 dev eth0");
        let cluster = Cluster::new();
        let node = Node::start(&cluster, &[("vip_interface", "eth0")]).await;
        let (_tcpdump, mut heard) = tcpdump("arp and host 192.0.2.1").await;
        node.expose(service()).await;
        let probe = "Request who-has 192.0.2.1 tell 0.0.0.0";
        let announced = "Request who-has 192.0.2.1 tell 192.0.2.1";
        let introduced = "Request who-has 192.0.2.253 tell 192.0.2.1";
        hears(&mut heard, &[probe, probe, probe, announced, introduced]).await;
        let asked = cluster.asks(published).await;
        assert_eq!(asked.bound, ["192.0.2.1", "2001:db8::1"]);
    });
}

#[test]
fn what_a_status_shows_is_in_use_and_not_asked_for() {
    alone(async || {
        let cluster = Cluster::new();
        let node = Node::start(&cluster, &[("vip_interface", "eth0")]).await;
        let (_tcpdump, mut heard) = tcpdump("arp and host 192.0.2.1").await;
        let mut used = service();
        used["metadata"]["annotations"]["kube-vip.io/vipHost"] = json!("node-b");
        used["status"]["loadBalancer"]["ingress"] = json!([
            { "ip": "192.0.2.1", "ipMode": "VIP" }, { "ip": "2001:db8::1", "ipMode": "VIP" },
        ]);
        node.expose(used).await;
        cluster.asks(published).await;
        let mut first = String::new();
        tokio::io::AsyncBufReadExt::read_line(&mut heard, &mut first).await.unwrap();
        tokio::io::AsyncBufReadExt::read_line(&mut heard, &mut first).await.unwrap();
        assert!(first.contains("192.0.2.1 tell 192.0.2.1"), "{first}");
    });
}
