//! Makes the name of the node this host's, before anything is served in that name.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::host::{ControlPlane, HostId, Told};
use berth_runtime::http::Health;
use berth_runtime::watch::chain;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Error;
use tokio::time::Instant;

use super::{DURATION, Failure, Keeper, SOON, TIMEOUT};

/// How often the Lease of another host is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How many of the addresses of another host are shown.
const SHOWN: usize = 3;
/// What readiness is told under.
const CHECK: &str = "name";

/// Another host that goes by this name, as it was last heard of.
struct Other {
    renewed: Option<MicroTime>,
    since: Instant,
    addresses: Vec<IpAddr>,
}

impl Other {
    fn of(lease: &Lease) -> Self {
        let addresses = Told::read(lease).addresses.into_keys().take(SHOWN).collect();
        Self { renewed: renewed(lease), since: Instant::now(), addresses }
    }
}

fn renewed(lease: &Lease) -> Option<MicroTime> {
    lease.spec.as_ref()?.renew_time.clone()
}

impl Keeper {
    /// Makes the Lease this host's. One that is so already is left as it is: only who has begun to serve renews it, so that one which
    /// ends again and again before that counts as none. While another host renews it this waits, and readiness says for
    /// whom. That one counts as there for as long as its Lease lasts from when this process saw the last renewal: the clocks
    /// of two hosts are not compared. Where the cluster has no such Node, or does not let this process at the Lease, nothing
    /// is waited for.
    pub async fn claim_name(&mut self, health: &Health) {
        let mut other = None;
        let mut missed = false;
        loop {
            let pause = match tokio::time::timeout(TIMEOUT, self.try_claim(&mut other)).await {
                Ok(Ok(None)) => break,
                Ok(Ok(Some(why))) => {
                    health.waits(CHECK, why);
                    LOOK
                }
                // It was there a moment ago, or came meanwhile.
                Ok(Err(Failure::Api(Error::Api(status))))
                    if status.code == 409
                        || status.code == 404 && !std::mem::replace(&mut missed, true) =>
                {
                    tokio::time::sleep(SOON).await;
                    continue;
                }
                Ok(Err(Failure::Api(error))) if is_transient(&error) => {
                    health.expects(CHECK, self.unanswered(&chain(&error)));
                    SOON
                }
                Ok(Err(error)) => {
                    let pause = self.failed(error);
                    if self.refusals.are_doubted() {
                        tokio::time::sleep(pause).await;
                        continue;
                    }
                    break;
                }
                Err(_) => {
                    health
                        .expects(CHECK, self.unanswered(&format!("no answer within {TIMEOUT:?}")));
                    SOON
                }
            };
            tokio::time::sleep(pause).await;
        }
        health.ready(CHECK);
    }

    fn unanswered(&self, why: &str) -> String {
        let Self { namespace, name, node, .. } = self;
        format!(
            "cannot say yet whether another host goes by the name {node}, which is waited for: Lease {namespace}/{name}: {why}"
        )
    }

    /// Why the Lease cannot be this host's yet; none once it is.
    async fn try_claim(&mut self, other: &mut Option<Other>) -> Result<Option<String>, Failure> {
        let lease = self.leases.get_opt(&self.name).await?;
        // Whoever lost the Lease makes it again, so its absence says nothing.
        if let Some(lease) = &lease {
            let is_anothers = self.namesake(lease).is_some();
            let heard = other.take().filter(|other| other.renewed == renewed(lease));
            // This host's, or of an announcer that does not tell, if it is not another one's.
            *other = is_anothers.then(|| heard.unwrap_or_else(|| Other::of(lease)));
        }
        if let Some(other) = other.as_ref().filter(|other| other.since.elapsed() < DURATION) {
            return Ok(Some(self.told_of(other)));
        }
        let is_own = |lease: &Lease| {
            let written = HostId::read(lease);
            written.is_some_and(|id| id.is_same_host(&self.id)) && !self.is_orphan(lease)
        };
        if lease.as_ref().is_some_and(is_own) {
            self.known = lease;
            return Ok(None);
        }
        let mut told = lease.as_ref().map(Told::read).unwrap_or_default();
        // What was told of the control plane is nobody's to ask for while this host waits for its turn.
        let own = lease.as_ref().and_then(ControlPlane::read);
        told.control_plane.addresses = own.map(|(_, own)| own.addresses).unwrap_or_default();
        self.renew(lease, &told).await?;
        Ok(None)
    }

    fn told_of(&self, other: &Other) -> String {
        let Self { namespace, name, node, .. } = self;
        let addresses: Vec<String> = other.addresses.iter().map(ToString::to_string).collect();
        let has = match addresses.is_empty() {
            true => String::new(),
            false => format!(", which has {},", addresses.join(", ")),
        };
        format!(
            "another host{has} goes by the name of this node, {node} (Lease {namespace}/{name}); nothing is served here until \
             that has been silent for {DURATION:?}; give each host a name of its own (vip_nodename; else it is the hostname)"
        )
    }
}

/// Whether the same request may have another answer soon.
fn is_transient(error: &Error) -> bool {
    match error {
        Error::Api(status) => status.code >= 500 || matches!(status.code, 401 | 408 | 429),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server that has one Node and at most one Lease.
    fn api(lease: Option<Value>) -> (Client, Arc<Mutex<Option<Value>>>) {
        let kept = Arc::new(Mutex::new(lease));
        let answers = kept.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let kept = answers.clone();
            async move {
                let (parts, body) = request.into_parts();
                let sent = body.collect_bytes().await?;
                let node = json!({ "metadata": { "name": "a", "uid": "1" } });
                let is_there = parts.uri.query().is_none_or(|query| !query.ends_with("z"));
                let nodes = Some(node).filter(|_| is_there);
                let mut kept = kept.lock().unwrap();
                if parts.method != "GET" {
                    *kept = Some(serde_json::from_slice(&sent)?);
                }
                let (code, body) = match (parts.uri.path(), &*kept) {
                    ("/api/v1/nodes", _) => {
                        (200, json!({ "metadata": {}, "items": nodes.iter().collect::<Vec<_>>() }))
                    }
                    (_, Some(lease)) => (200, lease.clone()),
                    (_, None) => (404, json!({ "code": 404, "reason": "NotFound" })),
                };
                let body = Body::from(serde_json::to_vec(&body)?);
                Ok::<_, tower::BoxError>(http::Response::builder().status(code).body(body)?)
            }
        });
        (Client::new(service, "default"), kept)
    }

    fn keeper(client: Client, network: &str) -> Keeper {
        let id = HostId { network: network.to_owned(), mac: None };
        Keeper::new(client, "kube-system", "a", id)
    }

    fn held_by(network: &str, second: u32) -> Value {
        json!({
            "metadata": {
                "name": "berth-announcer-a",
                "annotations": {
                    "berth.dev/host-id": network,
                    "berth.dev/host-addresses": "192.0.2.7/24",
                },
            },
            "spec": { "renewTime": format!("2026-01-01T00:00:{second:02}.000000Z") },
        })
    }

    #[tokio::test(start_paused = true)]
    async fn before_there_is_a_node_a_host_of_the_control_plane_has_its_name_and_tells_nothing_else()
     {
        let (client, kept) = api(None);
        let id = HostId { network: "boot/1".to_owned(), mac: None };
        let mut first = Keeper::of_control_plane(client, "kube-system", "z", id);
        first.claim_name(&Health::default()).await;
        let lease = kept.lock().unwrap().clone().unwrap();
        assert_eq!(lease["metadata"]["name"], "berth-control-plane-z");
        let told = json!({
            "berth.dev/host-id": "boot/1", "berth.dev/api-server": "unhealthy",
            "berth.dev/control-plane-addresses": "",
        });
        assert_eq!(lease["metadata"]["annotations"], told);
        let labels = json!({ "berth.dev/control-plane": "", "berth.dev/host": "" });
        assert_eq!(lease["metadata"]["labels"], labels);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_takes_the_name_of_another_one_tells_the_address_of_the_control_plane_still()
     {
        let mut left = held_by("boot/2", 0);
        left["metadata"]["name"] = "berth-control-plane-a".into();
        let notes = &mut left["metadata"]["annotations"];
        notes["berth.dev/api-server"] = "healthy".into();
        notes["berth.dev/control-plane-addresses"] = "192.0.2.100,2001:db8::100".into();
        let (client, kept) = api(Some(left));
        let id = HostId { network: "boot/1".to_owned(), mac: None };
        let mut host = Keeper::of_control_plane(client, "kube-system", "a", id);
        host.claim_name(&Health::default()).await;
        let lease = kept.lock().unwrap().clone().unwrap();
        let notes = &lease["metadata"]["annotations"];
        assert_eq!(notes["berth.dev/host-id"], "boot/1");
        assert_eq!(notes["berth.dev/api-server"], "unhealthy", "that is not known yet");
        assert_eq!(notes["berth.dev/control-plane-addresses"], "192.0.2.100,2001:db8::100");
    }

    async fn takes(lease: Option<Value>) -> Duration {
        let (client, _) = api(lease);
        let begin = Instant::now();
        keeper(client, "boot/1").claim_name(&Health::default()).await;
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_free_or_this_hosts_is_taken_at_once_and_what_another_host_left_when_it_is_silent()
     {
        assert_eq!(takes(None).await, Duration::ZERO);
        assert_eq!(takes(Some(held_by("boot/1", 0))).await, Duration::ZERO);
        let mut untold = held_by("", 0);
        untold["metadata"]["annotations"].as_object_mut().unwrap().remove("berth.dev/host-id");
        assert_eq!(takes(Some(untold)).await, Duration::ZERO, "of an earlier version");
        let waited = takes(Some(held_by("boot/2", 0))).await;
        assert!(waited >= DURATION && waited <= DURATION + LOOK, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_begins_again_and_again_does_not_renew_the_lease_of_its_host() {
        let mut own = held_by("boot/1", 7);
        own["metadata"]["ownerReferences"] =
            json!([{ "apiVersion": "v1", "kind": "Node", "name": "a", "uid": "1" }]);
        let (client, kept) = api(Some(own.clone()));
        for _ in 0..3 {
            keeper(client.clone(), "boot/1").claim_name(&Health::default()).await;
            assert_eq!(kept.lock().unwrap().as_ref(), Some(&own));
        }
        keeper(client, "boot/2").claim_name(&Health::default()).await;
        let taken = kept.lock().unwrap().clone().unwrap();
        assert_eq!(taken["metadata"]["annotations"]["berth.dev/host-id"], "boot/2");
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_is_no_such_namespace_nothing_is_waited_for() {
        let service = tower::service_fn(|_: http::Request<Body>| async {
            let body = json!({ "code": 404, "reason": "NotFound", "message": "no namespace" });
            let body = Body::from(serde_json::to_vec(&body)?);
            Ok::<_, tower::BoxError>(http::Response::builder().status(404).body(body)?)
        });
        let begin = Instant::now();
        keeper(Client::new(service, "default"), "boot/1").claim_name(&Health::default()).await;
        assert!(begin.elapsed() <= 2 * SOON, "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_goes_on_keeps_its_name_also_when_its_lease_is_deleted_for_a_while() {
        let (client, kept) = api(Some(held_by("boot/2", 0)));
        let health = Health::default();
        let mut second = keeper(client.clone(), "boot/1");
        let renewing = async {
            for renewal in 1..50 {
                tokio::time::sleep(Duration::from_secs(10)).await;
                *kept.lock().unwrap() = None;
                tokio::time::sleep(Duration::from_secs(10)).await;
                *kept.lock().unwrap() = Some(held_by("boot/2", renewal));
            }
            let (check, why) = health.unready_checks(std::time::Instant::now()).remove(0);
            assert_eq!(check, CHECK);
            for word in ["192.0.2.7", "of this node, a ", "kube-system/berth-announcer-a", "60s"] {
                assert!(why.contains(word), "{word}: {why}");
            }
        };
        tokio::select! {
            () = second.claim_name(&health) => panic!("two hosts of one name"),
            () = renewing => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_another_host_in_its_own_lease_ends() {
        let (client, kept) = api(None);
        let mut first = keeper(client, "boot/1");
        first.claim_name(&Health::default()).await;
        let (_tell, told) = tokio::sync::watch::channel(Some(Told::default()));
        // As a conflict shows it.
        first.known = None;
        *kept.lock().unwrap() = Some(held_by("boot/2", 0));
        tokio::time::timeout(SOON, first.keep(told)).await.expect("it ends");
    }
}
