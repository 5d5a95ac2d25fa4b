use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use berth_bgp::wire::{Capabilities, GracefulRestart, Open};
use berth_bgp::{Announcement, Family, State, config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;
/// Not a message: the connection is closed.
const CLOSED: u8 = 0;

/// A speaker of node `a`, in rack `a`, by this ConfigMap.
struct Scene {
    say: watch::Sender<Said>,
    order: watch::Sender<Orders>,
    told: watch::Receiver<Told>,
    health: Health,
    task: tokio::task::JoinHandle<()>,
}

fn said(map: &str) -> Said {
    Said {
        labels: [("rack".to_owned(), "a".to_owned())].into(),
        is_node_known: true,
        data: Some([("config.yaml".to_owned(), map.to_owned())].into()),
        ..Said::default()
    }
}

impl Scene {
    fn new(map: &str) -> Self {
        let health = Health::default();
        let secrets: Secrets =
            Arc::new(|_, _| Box::pin(std::future::ready(Err("there is none".to_owned()))));
        let settings = Bgp {
            speaker: config::Speaker::default(),
            peers: Vec::new(),
            attach: false,
            is_mixed: false,
            notes: None,
            elected_by: None,
        };
        let speaker =
            Speaker::new("a", None, &settings, secrets, Metrics::default(), health.clone());
        let (say, said) = watch::channel(said(map));
        let announced = Announcement::of("198.51.100.1".parse().unwrap(), "shop");
        let orders = Orders { announcements: Some(vec![announced]), ..Orders::default() };
        let (order, orders) = watch::channel(orders);
        let (tell, told) = watch::channel(Told::default());
        let task = tokio::spawn(speaker.keep(said, orders, tell));
        Self { say, order, told, health, task }
    }

    fn edit(&self, map: &str) {
        self.say.send_replace(said(map));
    }

    fn unready(&self) -> Vec<(&'static str, String)> {
        self.health.unready_checks(Instant::now())
    }

    async fn ends(self) {
        drop(self.order);
        self.task.await.unwrap();
    }
}

async fn soon(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..250 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not soon: {what}");
}

/// A router of AS 65001 that keeps routes, and writes down what it is told: the number of the connection, and the kind.
#[derive(Clone, Default)]
struct Router(Arc<Mutex<Vec<(usize, u8)>>>);

impl Router {
    async fn listen() -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Self::default();
        let all = router.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(all.clone().serve(number, stream));
            }
        });
        (router, port)
    }

    async fn serve(self, number: usize, mut stream: TcpStream) {
        let restart = GracefulRestart {
            time: 60,
            families: [(Family::V4, false)].into(),
            ..GracefulRestart::default()
        };
        let open = Open {
            asn: 65001,
            hold_time: 90,
            router_id: Ipv4Addr::new(192, 0, 2, 1),
            capabilities: Capabilities {
                families: Some(BTreeSet::from([Family::V4])),
                four_octet_as: true,
                graceful_restart: Some(restart),
                ..Capabilities::default()
            },
        };
        let mut out = Vec::new();
        open.put(&mut out);
        stream.write_all(&out).await.unwrap();
        let mut head = [0; 19];
        while stream.read_exact(&mut head).await.is_ok() {
            let length = usize::from(u16::from_be_bytes([head[16], head[17]]));
            let mut body = vec![0; length - head.len()];
            stream.read_exact(&mut body).await.unwrap();
            self.0.lock().unwrap().push((number, head[18]));
            let alive = [&[0xff; 16][..], &[0, 19, KEEPALIVE]].concat();
            if head[18] == OPEN {
                let _ = stream.write_all(&alive).await;
            }
        }
        self.0.lock().unwrap().push((number, CLOSED));
    }

    /// How often it was told so on a connection; keepalives come as they like.
    fn count(&self, number: usize, kind: u8) -> usize {
        self.0.lock().unwrap().iter().filter(|told| **told == (number, kind)).count()
    }

    /// A session is up by this connection, and has told its route and its end.
    async fn told(&self, number: usize) {
        soon("a route and its end", || self.count(number, UPDATE) >= 2).await;
    }
}

/// cilium#25827, #26354, #25408, metallb#1944: any edit of a peer was a Cease, on all nodes at once, and all routes were gone.
#[tokio::test]
async fn an_edit_of_a_peer_ends_no_session_that_it_does_not_touch_and_costs_no_route_where_it_does()
{
    let (router, port) = Router::listen().await;
    let of = |more: &str| {
        format!(
            "routerId: 192.0.2.9\npeers: [{{address: 127.0.0.1, port: {port}, asn: 65001, nextHop: {{ipv4: 192.0.2.9}}, {more}}}]\n"
        )
    };
    let scene = Scene::new(&of("name: a"));
    router.told(0).await;
    let told = scene.told.clone();
    let knows = |name: &str| {
        told.borrow().peers.get(name).is_some_and(|peer| peer.is_complete && !peer.knows.is_empty())
    };
    soon("that is known", || knows("a")).await;

    let untouched = [
        "name: a, connectRetry: 7",
        "name: a, connectRetry: 7, nodes: {matchLabels: {rack: a}}",
        "name: a, keepalive: 2, nodes: {matchLabels: {rack: a}}",
        "name: b, keepalive: 2",
        "name: b, multihop: 3",
    ];
    for edit in untouched {
        scene.edit(&of(edit));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let name = if edit.contains("name: a") { "a" } else { "b" };
        soon(edit, || knows(name)).await;
        assert_eq!(scene.told.borrow().peers.len(), 1, "{edit}");
        assert_eq!(router.count(0, CLOSED), 0, "{edit}");
    }

    scene.edit(&of("name: b, multihop: 3, holdTime: 12"));
    router.told(1).await;
    assert_eq!((router.count(0, NOTIFICATION), router.count(0, CLOSED)), (0, 1), "without a word");
    soon("that is known", || knows("b")).await;
    assert_eq!(scene.told.borrow().peers["b"].keeps, Duration::from_secs(132));

    // One that is elsewhere is another one, and this is none any more.
    let (other, at) = Router::listen().await;
    scene.edit(
        &of("name: b, multihop: 3, holdTime: 12").replace(&port.to_string(), &at.to_string()),
    );
    other.told(0).await;
    soon("it is told so", || router.count(1, NOTIFICATION) == 1).await;
    soon("the other one is known by its name", || knows("b")).await;
    assert_eq!(scene.told.borrow().peers["b"].state, State::Established);
    scene.ends().await;
    soon("the end", || other.count(0, CLOSED) == 1).await;
    assert_eq!(other.count(0, NOTIFICATION), 0, "a restart");
}

/// projectcalico/node#169: who has no peer was never ready, and held up each rollout.
#[tokio::test]
async fn a_node_that_is_to_have_no_peer_is_ready_and_one_for_which_none_is_named_is_not() {
    let of = |rack: &str| {
        format!(
            "peers: [{{address: 127.0.0.1, port: 9, asn: 65001, nodes: {{matchLabels: {{rack: {rack}}}}}}}]"
        )
    };
    let scene = Scene::new(&of("b"));
    let is_told = |word: &str| format!("{:?}", scene.unready()).contains(word);
    let is_apart = || {
        let others = scene.health.missing_checks();
        scene.unready().is_empty() && format!("{others:?}").contains("no peer is for this node")
    };
    soon("ready, and why it tells nobody", is_apart).await;
    // One that nobody answers for is waited for, and is not when it is another node's again.
    scene.edit(&of("a"));
    soon("it is waited for", || is_told("127.0.0.1: ")).await;
    scene.edit(&of("b"));
    soon("nothing is told of it any more", is_apart).await;
    scene.edit("");
    soon("nobody is named", || is_told("no peer is named: neither by bgp_peers")).await;
    scene.ends().await;
}
