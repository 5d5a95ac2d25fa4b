//! The connections of one listener: so many and no more, none for long, and a newcomer always gets one. Anybody on the
//! network of a node may connect, and whoever probes has to be answered all the same.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// At a time. Whoever comes then takes the place of the oldest one of the peer that has the most.
pub(super) const MOST: usize = 64;
/// How long a request's head may take, and how long a connection may rest between two.
pub(super) const HEAD: Duration = Duration::from_secs(5);
/// How many octets it may have; a longer one is answered 431.
pub(super) const HEAD_SIZE: usize = 16 * 1024;
/// How long a connection lasts, whatever it does.
const LIFE: Duration = Duration::from_secs(60);
/// How long what is being answered is waited for at the end.
const GRACE: Duration = Duration::from_secs(1);
/// How long after the listener failed it is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// Accepts and answers until `stop` is cancelled.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let (places, tasks) = (Arc::new(Mutex::new(Places::default())), TaskTracker::new());
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let (number, given_up) = lock(&places).take(peer.ip());
        let (router, stop, places) = (router.clone(), stop.clone(), places.clone());
        tasks.spawn(async move {
            let answering = answer(stream, peer, router, stop);
            let answering = tokio::time::timeout(LIFE, answering);
            _ = given_up.run_until_cancelled(answering).await;
            lock(&places).leave(number);
        });
    }
    drop(listener);
    tasks.close();
    _ = tokio::time::timeout(GRACE, tasks.wait()).await;
    lock(&places).clear();
}

fn lock(places: &Mutex<Places>) -> std::sync::MutexGuard<'_, Places> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(stream: TcpStream, peer: SocketAddr, router: Router, stop: CancellationToken) {
    let router = router.map_request(move |mut request: Request| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    });
    let service = TowerToHyperService::new(
        router.map_request(|request: hyper::Request<hyper::body::Incoming>| request.map(Body::new)),
    );
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(HEAD_SIZE)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a connection ended");
    }
}

/// Who has a connection.
#[derive(Debug, Default)]
struct Places {
    /// By their number, which grows.
    taken: BTreeMap<u64, (IpAddr, CancellationToken)>,
    next: u64,
}

impl Places {
    /// A place for a peer, and what tells it that somebody else has it.
    fn take(&mut self, peer: IpAddr) -> (u64, CancellationToken) {
        let peer = network(peer);
        if self.taken.len() >= MOST {
            self.give_up_one();
        }
        let (number, given_up) = (self.next, CancellationToken::new());
        self.next += 1;
        self.taken.insert(number, (peer, given_up.clone()));
        (number, given_up)
    }

    fn give_up_one(&mut self) {
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for (peer, _) in self.taken.values() {
            *counts.entry(*peer).or_default() += 1;
        }
        let most = counts.values().max().copied();
        let oldest = self.taken.iter().find(|(_, (peer, _))| counts.get(peer).copied() == most);
        let Some(number) = oldest.map(|(number, _)| *number) else { return };
        if let Some((_, given_up)) = self.taken.remove(&number) {
            given_up.cancel();
        }
    }

    fn leave(&mut self, number: u64) {
        self.taken.remove(&number);
    }

    fn clear(&mut self) {
        for (_, given_up) in std::mem::take(&mut self.taken).into_values() {
            given_up.cancel();
        }
    }
}

/// Whose a connection is: a host with IPv6 has all addresses of its network.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let prefix = u128::from(v6) >> 64 << 64;
            Ipv6Addr::from(prefix).into()
        }
        canonical => canonical,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn who_comes_takes_the_oldest_place_of_who_has_most() {
        let mut places = Places::default();
        let (_, quiet) = places.take(peer(1));
        let greedy: Vec<_> = (0..MOST).map(|_| places.take(peer(2)).1).collect();
        assert_eq!(places.taken.len(), MOST);
        assert!(!quiet.is_cancelled());
        let given_up = |of: &[CancellationToken]| of.iter().filter(|t| t.is_cancelled()).count();
        assert_eq!(given_up(&greedy), 1);
        assert!(greedy[0].is_cancelled());
        let (_, third) = places.take(peer(3));
        assert!(!third.is_cancelled() && greedy[1].is_cancelled());
        for last in 4..=u8::MAX {
            places.take(peer(last));
        }
        assert_eq!(places.taken.len(), MOST, "each from another address");
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer_and_so_is_a_mapped_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::2"), of("2001:db8:0:1:ffff::3"));
        assert_ne!(of("2001:db8:0:1::2"), of("2001:db8:0:2::2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("::1"), IpAddr::from(Ipv6Addr::LOCALHOST));
    }
}
