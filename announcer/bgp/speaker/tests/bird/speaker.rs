//! A speaker on the node's side of the cable, on a runtime of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_bgp::config::Distance;
use berth_bgp::{NextHops, Parameters, Prefix, RemoteAs, Routes, Session, State};
use berth_bgp_speaker::{Handle, News, Target, spawn};
use tokio::sync::mpsc;

pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);

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
pub(crate) fn own(address: SocketAddr) -> NextHops {
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

impl Speaker {
    pub(crate) async fn until_up(&self) {
        let begun = Instant::now();
        loop {
            let status = self.handle.status().await.unwrap();
            if status.state == State::Established {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(15), "{status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn last_cause(&self) -> String {
        let status = self.handle.status().await.unwrap();
        status.last.map_or_else(String::new, |(_, cause)| cause.to_string())
    }
}

/// Runs `work` on a runtime in the calling thread, and takes everything of it away at the end.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}
