//! What ties an announcer to the cluster, or to the files, that stand behind it.

use std::path::Path;

use anyhow::Context;
use berth_api::host::Told;
use berth_runtime::client::{self, ClientError};
use berth_runtime::events;
use berth_runtime::events::Events;
use berth_runtime::http::Health;
use berth_runtime::supervise::Supervisor;
use kube::Client;
use tokio::sync::mpsc;

use crate::config::{Api, Cluster, Config, Election};
use crate::peers::join::Backing;
use crate::publish::host::Keeper;
use crate::publish::writer::{WriteEvent, Writer};
use crate::reconcile::lease_of_control_plane;
use crate::source::cluster::Name;
use crate::source::watch::{self, ClusterEvent, Scope};

/// Where kubeadm leaves the kubeconfig of a control-plane node, and kube-vip looks for it.
const ADMIN: &str = "/etc/kubernetes/admin.conf";

/// What ties the announcer to what stands behind it.
pub(super) struct Ties {
    pub(super) events: Events,
    pub(super) seen: mpsc::Receiver<ClusterEvent>,
    pub(super) writer: Writer,
    pub(super) done: mpsc::UnboundedReceiver<WriteEvent>,
}

impl Ties {
    pub(super) fn to(
        backing: Backing,
        config: &Config,
        health: &Health,
        host: Option<Keeper>,
        own: tokio::sync::watch::Receiver<Option<Told>>,
        supervisor: &mut Supervisor,
    ) -> Self {
        match backing {
            Backing::Api(client) => {
                let node = &config.core.node;
                let namespace = cluster_namespace(config);
                if let Some(keeper) = host {
                    supervisor.spawn("host lease", keeper.keep(own));
                }
                let (events, publisher) = events::channel(client.clone(), "berth-announcer", node);
                supervisor.spawn("events", publisher.run());
                let (seen, watches) = watch::start(&client, scope(config), health);
                supervisor.spawn_all(watches);
                let timeout = config.leases.timing.request_timeout();
                let (writer, done) = Writer::new(client, &namespace, timeout, supervisor.errands());
                Self { events, seen, writer, done }
            }
            Backing::Files(_) => {
                let (events, logger) = events::to_log();
                supervisor.spawn("events", logger.run());
                let (writer, done) = Writer::nowhere(supervisor.errands());
                Self { events, seen: mpsc::channel(1).1, writer, done }
            }
        }
    }
}

pub(super) async fn connect(api: &Api) -> anyhow::Result<Client> {
    let mut cluster = match client::configure(api.kubeconfig.as_deref()).await {
        // A static pod has no account; kube-vip's has this file.
        Err(ClientError::Nothing(_)) if Path::new(ADMIN).exists() => {
            client::configure(Some(Path::new(ADMIN))).await?
        }
        configured => configured?,
    };
    if let Some(server) = &api.server {
        cluster.cluster_url =
            server.parse().with_context(|| format!("kubernetes_addr={server}"))?;
    }
    Ok(client::connect(cluster)?)
}

fn scope(config: &Config) -> Scope {
    let is_of_services = config.election.is_of_services();
    let lease = match &config.election {
        // Which is watched by itself.
        _ if !is_of_services => None,
        Election::Global { namespace, name } => Some(Name::new(namespace, name)),
        Election::Membership(fenced) => Some(Name::new(&fenced.namespace, &fenced.lease)),
        Election::PerService | Election::Everyone | Election::Nothing => None,
    };
    let is_member = matches!(config.election, Election::Membership(_));
    let nodes = is_member || config.bgp.is_some();
    let services = config.services.as_ref();
    Scope {
        namespace: services.and_then(|services| services.namespace.clone()),
        leases: is_of_services && config.election != Election::Everyone,
        lease,
        control_plane: lease_of_control_plane(config),
        rivals: is_member && is_of_services,
        classes: services.map(|services| services.classes.clone()),
        eips: config.eip.is_some(),
        nodes,
        control_planes: is_member && !is_of_services,
        drains: config.drains.clone(),
        bgp: config.bgp.as_ref().map(|_| cluster_namespace(config)),
        notes: config.bgp.as_ref().and_then(|bgp| bgp.notes.clone()),
        claims: config.claims(),
        allocator_namespace: cluster_namespace(config),
        node: config.core.node.clone(),
        networks: config.eip.as_ref().is_some_and(|eip| eip.internal.is_none()),
    }
}

/// Where the Leases of both programs are; nowhere without a cluster.
pub(super) fn cluster_namespace(config: &Config) -> String {
    match &config.cluster {
        Cluster::Api(api) => api.namespace.clone(),
        Cluster::Fixed(_) => String::new(),
    }
}
