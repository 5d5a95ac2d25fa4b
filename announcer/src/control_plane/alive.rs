//! Hears at once that the API server of this node has ended, by a request that it answers for as long as it lives: a watch in
//! which nothing is ever to come. Without the right to it nothing is heard, and the next question finds out.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::BoxFuture;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, WatchParams};

/// Of a Lease that nobody makes.
const NOBODY: &str = "berth-nobody";

/// After so long the server is to end it by itself, in seconds: `kube` takes no more, and clients give up then.
const LONG: u32 = 290;

/// How soon it is tried again where a request ends at once, as without the right to it.
const AGAIN: Duration = Duration::from_secs(60);

/// The request, while there is one.
pub(super) struct Alive {
    leases: Api<Lease>,
    /// What lived for less tells nothing: something on the way ends whatever is begun.
    least: Duration,
    since: Instant,
    /// When it may be begun.
    due: Instant,
    request: Option<BoxFuture<'static, ()>>,
}

impl Alive {
    /// Nothing is asked yet. `namespace` is one whose Leases may be watched.
    pub(super) fn new(client: &Client, namespace: &str, least: Duration) -> Self {
        let leases = Api::namespaced(client.clone(), namespace);
        let now = Instant::now();
        Self { leases, least, since: now, due: now, request: None }
    }

    /// It has answered well: what ends from now on may be its end.
    pub(super) fn begin(&mut self) {
        let now = Instant::now();
        if self.request.is_none() && now >= self.due {
            self.since = now;
            self.request = Some(Box::pin(ends(self.leases.clone())));
        }
    }

    /// Comes back when it has ended. Nothing is lost where this is not waited for to its end.
    pub(super) async fn ended(&mut self) {
        match &mut self.request {
            Some(request) => request.await,
            None => std::future::pending().await,
        }
        self.request = None;
        if self.since.elapsed() < self.least {
            self.due = self.since + AGAIN;
            std::future::pending().await
        }
    }
}

async fn ends(leases: Api<Lease>) {
    let only = format!("metadata.name={NOBODY}");
    let request = WatchParams::default().fields(&only).timeout(LONG);
    let Ok(stream) = leases.watch(&request, "0").await else { return };
    let mut stream = std::pin::pin!(stream);
    while let Some(Ok(_)) = stream.next().await {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a server that ends each request after so long.
    fn alive(after: Duration, least: Duration) -> Alive {
        let server = tower::service_fn(move |_: http::Request<kube::client::Body>| async move {
            tokio::time::sleep(after).await;
            Ok::<_, tower::BoxError>(http::Response::new(kube::client::Body::empty()))
        });
        Alive::new(&Client::new(server, "default"), "kube-system", least)
    }

    #[tokio::test]
    async fn the_end_of_a_request_is_heard_once_and_one_that_lived_for_a_moment_tells_nothing() {
        let (moment, long) = (Duration::from_millis(20), Duration::from_secs(3600));
        let mut lived = alive(moment, Duration::ZERO);
        lived.begin();
        lived.ended().await;
        assert!(tokio::time::timeout(5 * moment, lived.ended()).await.is_err(), "none is begun");
        lived.begin();
        lived.ended().await;
        let mut brief = alive(moment, long);
        brief.begin();
        assert!(tokio::time::timeout(5 * moment, brief.ended()).await.is_err());
        brief.begin();
        assert!(brief.request.is_none(), "what is refused is not asked for each second");
    }
}
