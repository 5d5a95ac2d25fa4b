//! A speaker on the node's side of the cable, on a runtime of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_bgp::config::Distance;
use berth_bgp::{Event, NextHops, Parameters, Prefix, RemoteAs, Routes, Session, State};
use berth_bgp_speaker::{Find, Handle, News, Target, spawn, spawn_finding};
use lab_routers::{Cable, Namespace, Neighbor, Program, Wired};
use tokio::sync::mpsc;

/// How long anything may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);

pub(crate) const ROUTER: &str = "192.0.2.1:179";

pub(crate) const CABLE: Cable = Cable(0);

/// A node, and a router of AS 65001 on its cable.
pub(crate) struct Pair {
    pub(crate) node: Namespace,
    pub(crate) router: Wired,
}

/// A router that waits for the node, which is of AS 65000; more is said by the caller.
pub(crate) fn pair(program: &'static dyn Program, more: impl FnOnce(&mut Neighbor)) -> Pair {
    pair_of(program, 65001, more)
}

/// Says of a neighbour that it is known by its address of the link alone.
pub(crate) fn by_link(neighbor: &mut Neighbor) {
    neighbor.own = CABLE.link(1).into();
    neighbor.address = CABLE.link(11).into();
    neighbor.link = Some("eth0".to_owned());
}

/// The same with a router of this AS.
pub(crate) fn pair_of(
    program: &'static dyn Program,
    asn: u32,
    more: impl FnOnce(&mut Neighbor),
) -> Pair {
    let mut neighbor = Neighbor::new(CABLE.v4(1), CABLE.v4(11), 65000);
    more(&mut neighbor);
    let node = Namespace::new().unwrap();
    let router = Wired::up(program, &node, CABLE, asn, vec![neighbor]).unwrap();
    Pair { node, router }
}

pub(crate) fn parameters() -> Parameters {
    Parameters::new(65000, RemoteAs::Is(65001), NODE)
}

pub(crate) fn target(remote: &str) -> Target {
    let remote: SocketAddr = remote.parse().unwrap();
    Target {
        remote,
        source: None,
        interface: None,
        key: None,
        distance: Distance::Near,
        external: true,
    }
}

pub(crate) fn hosts(first: &str, count: u32) -> Routes {
    let IpAddr::V4(first) = first.parse::<IpAddr>().unwrap() else { panic!("{first}") };
    let host = |n| Prefix::host(Ipv4Addr::from_bits(first.to_bits() + n).into());
    let shared = Arc::default();
    (0..count).map(|n| (host(n), Arc::clone(&shared))).collect()
}

/// What a session of a node has to say: its own addresses, by the family of the connection.
pub(crate) fn own(address: SocketAddr, _: NextHops) -> NextHops {
    let link_local = match address.ip() {
        IpAddr::V6(own) if own.is_unicast_link_local() => Some(own),
        _ => None,
    };
    match link_local {
        Some(_) => NextHops { v4: None, v6: None, link_local },
        None => {
            NextHops { v4: Some(NODE), v6: Some("2001:db8::11".parse().unwrap()), link_local: None }
        }
    }
}

pub(crate) struct Speaker {
    pub(crate) handle: Handle,
    pub(crate) news: mpsc::UnboundedReceiver<News>,
}

/// Starts a session, with these routes.
pub(crate) async fn speak(
    target: Target,
    parameters: Parameters,
    routes: Routes,
    restarted: bool,
) -> Speaker {
    let (_, nobody) = mpsc::channel(1);
    let now = Instant::now();
    let mut session = Session::new(now, parameters, 7);
    session.set_routes(routes);
    let (handle, news) = spawn(target, session, Arc::new(own), nobody);
    let until = restarted.then(|| now + Duration::from_secs(60));
    handle.start(until).await.unwrap();
    Speaker { handle, news }
}

/// The same with a router that is looked for before each attempt.
pub(crate) async fn speak_finding(find: Find, parameters: Parameters, routes: Routes) -> Speaker {
    let (_, nobody) = mpsc::channel(1);
    let mut session = Session::new(Instant::now(), parameters, 7);
    session.set_routes(routes);
    let (handle, news) = spawn_finding(target(ROUTER), find, session, Arc::new(own), nobody);
    handle.start(None).await.unwrap();
    Speaker { handle, news }
}

impl Speaker {
    pub(crate) async fn until_up(&self) {
        let begun = Instant::now();
        loop {
            let status = self.handle.status().await.unwrap();
            if status.state == State::Established {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn last_cause(&self) -> String {
        let status = self.handle.status().await.unwrap();
        status.last.map_or_else(String::new, |(_, cause)| cause.to_string())
    }

    /// Waits until the last cause says this.
    pub(crate) async fn until_told(&self, words: &str) {
        let begun = Instant::now();
        while !self.last_cause().await.contains(words) {
            assert!(begun.elapsed() < PATIENCE, "{words}: {}", self.last_cause().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it has told since this was asked last.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.news.try_recv().ok()).map(|news| news.event).collect()
    }
}

/// Runs `work` in the calling thread, and what it spawns on one thread beside it, in the same namespace; takes everything of
/// it away at the end.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap().block_on(work)
}
