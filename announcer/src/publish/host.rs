//! Keeps the Lease by which this node tells of itself ([`berth_api::host`]). It is renewed while this process lives and
//! stays when it ends: the node has its addresses all the same. It belongs to the Node object, and goes with that.
//!
//! # Permissions
//!
//! `get`, `create` and `update` on `leases.coordination.k8s.io` in the namespace of the control plane's Lease, and `list`
//! on `nodes`. Without the latter nobody removes the Lease of a node that is gone.

use std::time::Duration;

use berth_api::host::Told;
use berth_api::names::lease;
use berth_runtime::watch::{chain, forbidden};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, ListParams, PostParams, Resource};
use kube::{Client, Error};
use tokio::sync::watch;
use tokio::time::Instant;

/// How often the Lease is renewed.
const RENEW: Duration = Duration::from_secs(20);
/// How soon after a change the next one is written.
const CHANGE: Duration = Duration::from_secs(60);
/// How long it says that this process lives.
const DURATION: Duration = Duration::from_secs(60);
/// How long to wait before a write is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// The same where there is no right to it.
const DENIED: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps the Lease of `node` for ever, with what `told` says.
pub async fn keep(
    client: Client,
    namespace: String,
    node: String,
    mut told: watch::Receiver<Option<Told>>,
) {
    let mut keeper = Keeper {
        leases: Api::namespaced(client.clone(), &namespace),
        nodes: Api::all(client),
        name: lease::of_host(&node),
        node,
        namespace,
        known: None,
        complained: None,
    };
    let mut changed_at: Option<Instant> = None;
    let mut written: Option<Told> = None;
    loop {
        let wanted = match told.wait_for(Option::is_some).await {
            Ok(told) => told.clone().unwrap_or_default(),
            Err(_) => return,
        };
        let is_news = written.as_ref() != Some(&wanted);
        let rests = changed_at.map(|at| at + CHANGE).filter(|at| is_news && *at > Instant::now());
        let telling = match (rests, &written) {
            (Some(_), Some(written)) => written.clone(),
            _ => wanted.clone(),
        };
        let next = match tokio::time::timeout(TIMEOUT, keeper.write(&telling)).await {
            Ok(Ok(())) => {
                keeper.complain(None);
                if is_news && telling == wanted {
                    changed_at = Some(Instant::now());
                }
                written = Some(telling);
                RENEW
            }
            Ok(Err(error)) => keeper.failed(&error),
            Err(_) => {
                keeper.complain(Some(format!("no answer within {TIMEOUT:?}")));
                AGAIN
            }
        };
        let renewal = Instant::now() + next;
        let may_change = changed_at.map_or(renewal, |at| at + CHANGE).min(renewal);
        tokio::time::sleep_until(may_change).await;
        while Instant::now() < renewal && *told.borrow() == written {
            match tokio::time::timeout_at(renewal, told.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => break,
            }
        }
    }
}

struct Keeper {
    leases: Api<Lease>,
    nodes: Api<Node>,
    name: String,
    node: String,
    namespace: String,
    /// As it was written last.
    known: Option<Lease>,
    /// What was complained of last.
    complained: Option<String>,
}

impl Keeper {
    #[allow(
        clippy::disallowed_methods,
        reason = "whoever reads a Lease counts from when it changes"
    )]
    async fn write(&mut self, told: &Told) -> Result<(), Error> {
        let known = match self.known.take() {
            Some(known) => Some(known),
            None => self.leases.get_opt(&self.name).await?,
        };
        let is_new = known.is_none();
        let mut lease = known.unwrap_or_default();
        if is_new || self.is_orphan(&lease) {
            lease.metadata.owner_references = self.owner().await?.map(|owner| vec![owner]);
        }
        told.write(&mut lease);
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.node.clone());
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.acquire_time.get_or_insert_with(|| now.clone());
        spec.renew_time = Some(now);
        let parameters = PostParams::default();
        let written = if is_new {
            lease.metadata = ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..lease.metadata
            };
            self.leases.create(&parameters, &lease).await?
        } else {
            self.leases.replace(&self.name, &parameters, &lease).await?
        };
        self.known = Some(written);
        Ok(())
    }

    fn is_orphan(&self, lease: &Lease) -> bool {
        lease.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)
    }

    /// The Node object; none where there is none, or where it may not be listed.
    async fn owner(&self) -> Result<Option<OwnerReference>, Error> {
        let only = ListParams::default().fields(&format!("metadata.name={}", self.node));
        match self.nodes.list(&only).await {
            Ok(nodes) => Ok(nodes.items.first().and_then(|node| node.owner_ref(&()))),
            Err(Error::Api(status)) if status.code == 403 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes in that a write failed. What is there is looked at again. Gives how long to wait.
    fn failed(&mut self, error: &Error) -> Duration {
        match error {
            // Another process of this node, or a person, wrote it meanwhile.
            Error::Api(status) if status.code == 409 => Duration::from_millis(200),
            Error::Api(status) if status.code == 403 => {
                let verbs = "get, create and update";
                let text = forbidden(verbs, "leases.coordination.k8s.io", &status.message);
                self.complain(Some(text));
                DENIED
            }
            Error::Api(status) if status.code == 404 => AGAIN,
            error => {
                self.complain(Some(chain(error)));
                AGAIN
            }
        }
    }

    /// Tells the same trouble once, and its end.
    fn complain(&mut self, trouble: Option<String>) {
        if trouble == self.complained {
            return;
        }
        match &trouble {
            Some(text) => tracing::warn!(
                lease = self.name,
                "cannot tell which addresses are this node's own, so that they could be given out: {text}"
            ),
            None => tracing::info!(lease = self.name, "the node's own addresses are told again"),
        }
        self.complained = trouble;
    }
}
