//! Asks why this process is to stop, which nobody tells it: whether its DaemonSet wants another one.
//!
//! # Permissions
//!
//! `get` on `daemonsets.apps` of the name [`NAME`], or [`OF_CONTROL_PLANE`], in the namespace of the control plane's Lease. Without it each stop is the end.

use std::time::Duration;

use berth_runtime::watch::chain;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client, Error};
use tokio_util::sync::CancellationToken;

use crate::advertise::bgp::Answer;

/// The DaemonSet of `manifests/`.
const NAME: &str = "berth-announcer";

/// That of `manifest daemonset --controlplane`. A static pod has none, and nobody says whether it comes back.
const OF_CONTROL_PLANE: &str = "berth-control-plane";

/// How long an answer is waited for: a pod has 15 s to end.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Who is asked; nobody where nothing depends on it.
#[derive(Default)]
pub(super) struct Asker(Option<Api<DaemonSet>>, &'static str);

impl Asker {
    /// Whose announcer `serves` objects of the cluster, or has the control plane's address alone.
    pub(super) fn new(client: Option<Client>, namespace: &str, serves: bool) -> Self {
        let name = if serves { NAME } else { OF_CONTROL_PLANE };
        Self(client.map(|client| Api::namespaced(client, namespace)), name)
    }

    /// Waits for the stop, and asks then.
    pub(super) async fn at(self, stop: CancellationToken) -> Answer {
        stop.cancelled().await;
        let Self(sets, name) = self;
        let Some(sets) = sets else { return Answer::Silent("nobody is asked".to_owned()) };
        let place = format!("DaemonSet {name}");
        match tokio::time::timeout(TIMEOUT, sets.get(name)).await {
            Ok(Ok(set)) => Answer::There(Box::new(set)),
            Ok(Err(Error::Api(status))) if matches!(status.code, 401 | 403) => {
                Answer::Gone(format!("{place} is not shown to its account ({})", status.code))
            }
            Ok(Err(Error::Api(status))) if status.code == 404 => {
                Answer::Gone(format!("there is no {place}"))
            }
            Ok(Err(error)) => Answer::Silent(format!("no answer about {place}: {}", chain(&error))),
            Err(_) => Answer::Silent(format!("no answer about {place} within {TIMEOUT:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// What is made of an answer with this code; of none at all where there is none.
    async fn asked(code: Option<u16>) -> Answer {
        asked_of(code, true).await
    }

    async fn asked_of(code: Option<u16>, serves: bool) -> Answer {
        let service = tower::service_fn(move |request: http::Request<Body>| async move {
            let name = if serves { "berth-announcer" } else { "berth-control-plane" };
            let path = format!("/apis/apps/v1/namespaces/kube-system/daemonsets/{name}");
            assert_eq!((request.method().as_str(), request.uri().path()), ("GET", path.as_str()));
            let Some(code) = code else { return std::future::pending().await };
            let set = json!({ "metadata": { "name": NAME } });
            let body = if code == 200 { set } else { json!({ "code": code, "status": "Failure" }) };
            let body = Body::from(serde_json::to_vec(&body)?);
            Ok::<_, tower::BoxError>(http::Response::builder().status(code).body(body)?)
        });
        let stop = CancellationToken::new();
        stop.cancel();
        let client = Client::new(service, "default");
        Asker::new(Some(client), "kube-system", serves).at(stop).await
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_shown_it_ends_and_who_is_not_answered_does_not_know() {
        assert!(matches!(asked(Some(200)).await, Answer::There(_)));
        for code in [401, 403, 404] {
            assert!(matches!(asked(Some(code)).await, Answer::Gone(_)), "{code}");
        }
        assert!(matches!(asked_of(Some(404), false).await, Answer::Gone(_)), "a static pod");
        for code in [Some(500), None] {
            assert!(matches!(asked(code).await, Answer::Silent(_)), "{code:?}");
        }
    }

    #[tokio::test]
    async fn nobody_is_asked_before_the_stop() {
        let stop = CancellationToken::new();
        let asking = Asker::new(None, "", true).at(stop.clone());
        tokio::pin!(asking);
        assert!(futures::poll!(&mut asking).is_pending());
        stop.cancel();
        assert!(matches!(asking.await, Answer::Silent(_)));
    }
}
