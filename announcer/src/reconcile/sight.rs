//! What this node sees: the objects of the cluster, its own network, and what is wanted as far as both go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use berth_bgp::Filter;

use super::advised::Advised;
use crate::config::{Cluster as Backing, Config, Permits};
use crate::kernel::{Host, sysctl};
use crate::ownership::{Context, Ownership, Uncovered};
use crate::source::cluster::{Claims, Cluster};
use crate::source::doubt::{Lingering, doubted};
use crate::source::eip::Usage;
use crate::source::fixed::Fixed;
use crate::source::placement;
use crate::source::scene::Scene;
use crate::source::wanted::wanted;
use crate::vip::nodes::Peers;
use crate::vip::{Claimant, Refusal, Wanted};

/// What this node sees.
pub(super) struct Sight {
    node: String,
    interface: Option<String>,
    permits: Permits,
    /// Where addresses are bound that routers lead here.
    routed: Option<String>,
    /// Where neighbours are told of some of them, of which; nothing before that is known.
    layer2: Option<Arc<Vec<Filter>>>,
    /// Whether neighbours may be told of some, and routers of others.
    is_mixed: bool,
    /// Whether ports of this host are closed behind addresses.
    closes: bool,
    fixed: Fixed,
    pub(super) cluster: Cluster,
    pub(super) listed: Listed,
    pub(super) host: Host,
    /// The nodes there are, once all were shown. Members have their own, which a list may name.
    pub(super) nodes: Nodes,
    /// Why the interface of addresses that name none cannot be used.
    pub(super) obstacle: Option<Refusal>,
    pub(super) usage: Usage,
    pub(super) wanted: Wanted,
    /// Of that what neighbours are told of, and what routers are, where that differs.
    parts: Option<[Wanted; 2]>,
    /// Where doubted addresses led lately.
    pub(super) lingering: Lingering,
    advised: Advised,
    stale: bool,
}

/// The nodes there are.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    pub(super) peers: Peers,
    pub(super) listed: bool,
}

/// Which first lists have come in.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) services: bool,
    pub(super) slices: bool,
    pub(super) bindings: bool,
}

/// The addresses that settings name.
fn fixed(config: &Config) -> Fixed {
    match (&config.cluster, &config.control_plane) {
        (Backing::Fixed(fixed), _) => {
            let voters = fixed.voters().iter().map(|voter| voter.name.as_str());
            let mark = voters.collect::<Vec<_>>().join(" ");
            let interface = config.core.interface.clone();
            Fixed { by: Claimant::Operator, interface, addresses: fixed.addresses.clone(), mark }
        }
        (Backing::Api(api), Some(own)) => {
            let (by, interface) = (Claimant::ControlPlane, own.interface.clone());
            let mark = format!("{}/{}", api.namespace, own.lease);
            Fixed { by, interface, addresses: own.addresses.clone(), mark }
        }
        (Backing::Api(_), None) => Fixed::default(),
    }
}

impl Sight {
    pub(super) fn new(config: &Config) -> Self {
        // Without a cluster there is nothing to wait for.
        let alone = matches!(config.cluster, Backing::Fixed(_));
        let mut cluster = Cluster::new(Claims::new(config.claims()));
        cluster.nodes.apply(&config.core.node);
        Self {
            node: config.core.node.clone(),
            interface: config.core.interface.clone(),
            permits: config.services.as_ref().map(|s| s.permits.clone()).unwrap_or_default(),
            routed: config.routed().map(str::to_owned),
            layer2: None,
            is_mixed: config.is_mixed(),
            closes: config.services.as_ref().is_some_and(|all| all.closes_host_ports),
            fixed: fixed(config),
            cluster,
            listed: Listed { services: alone, slices: alone, bindings: alone },
            host: Host::default(),
            nodes: Nodes::default(),
            obstacle: None,
            usage: Usage::default(),
            wanted: Wanted::default(),
            parts: None,
            lingering: Lingering::default(),
            advised: Advised::default(),
            stale: true,
        }
    }

    /// Takes in where the fence does not stand.
    pub(super) fn uncover(&mut self, uncovered: &Uncovered) {
        self.host.uncovered.clone_from(&uncovered.addresses);
        self.host.exposed.clone_from(&uncovered.interfaces);
        self.touch();
    }

    /// Takes in that something was seen anew.
    pub(super) fn touch(&mut self) {
        self.stale = true;
    }

    /// Takes in that a node is gone. This one is known whatever is shown.
    pub(super) fn forget_node(&mut self, name: &str) {
        if name != self.node {
            self.cluster.nodes.delete(name);
        }
    }

    /// Takes in that these are all nodes.
    pub(super) fn keep_nodes(&mut self, names: &BTreeSet<String>) {
        self.cluster.nodes.retain(names);
        self.cluster.nodes.apply(&self.node);
    }

    /// Works out what is wanted, if that may have changed; true if so.
    pub(super) fn refresh(&mut self, now: Instant) -> bool {
        let over = self.lingering.deadline().is_some_and(|over| over <= now);
        let stale = std::mem::take(&mut self.stale) || self.cluster.pauses.are_due(now) || over;
        if stale {
            self.cluster.see(now);
            let Self { node, interface, permits, routed, fixed, cluster, host, usage, .. } = self;
            let layer2 = self.layer2.as_deref().map_or(&[][..], Vec::as_slice);
            let (interface, routed) = (interface.as_deref(), routed.as_deref());
            let scene = Scene { cluster, host, node, interface, permits, routed, layer2 };
            usage.see(scene);
            let mut wanted = wanted(scene, usage, fixed);
            if self.closes {
                wanted.doubted = doubted(scene, &wanted);
                self.lingering.join(&mut wanted.doubted, now);
            }
            self.parts = self.is_mixed.then(|| [false, true].map(|routed| wanted.part(routed)));
            self.wanted = wanted;
            for advice in self.advised.see(&self.host, sysctl::read) {
                tracing::warn!("{advice}");
            }
        }
        stale
    }

    /// This node.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn scene(&self) -> Scene<'_> {
        let Self { node, interface, permits, routed, layer2, cluster, host, .. } = self;
        let (interface, routed) = (interface.as_deref(), routed.as_deref());
        let layer2 = layer2.as_deref().map_or(&[][..], Vec::as_slice);
        Scene { cluster, host, node, interface, permits, routed, layer2 }
    }

    /// Takes in which of what routers may lead here neighbours are told of instead, as far as that is known.
    pub(super) fn divide(&mut self, layer2: Option<Arc<Vec<Filter>>>) {
        if self.is_mixed && self.layer2 != layer2 {
            self.layer2 = layer2;
            self.touch();
        }
    }

    /// Takes in the addresses that are nobody's to have, since they are routers', or routers know a node by them.
    pub(super) fn know_routers(&mut self, addresses: &BTreeMap<IpAddr, String>) {
        if self.cluster.routers != *addresses {
            self.cluster.routers.clone_from(addresses);
            self.touch();
        }
    }

    /// What `owner` looks at: what it decides on, of all that is seen.
    pub(super) fn context_of<'a>(
        &'a self,
        owner: &Ownership,
        refused: &'a BTreeSet<IpAddr>,
    ) -> Context<'a> {
        let context = self.context(refused);
        match &self.parts {
            Some(parts) => Context { wanted: &parts[usize::from(owner.is_routed())], ..context },
            None => context,
        }
    }

    pub(super) fn context<'a>(&'a self, refused: &'a BTreeSet<IpAddr>) -> Context<'a> {
        let claims_known = self.cluster.claims.unknown().is_none();
        let usable =
            placement::interface(&self.host, &self.node, self.interface.as_deref()).is_ok();
        Context {
            wanted: &self.wanted,
            all: &self.wanted,
            node: &self.node,
            host: &self.host,
            nodes: Some(&self.nodes.peers).filter(|_| self.nodes.listed),
            usable,
            refused,
            known: self.listed.services
                && self.listed.slices
                && claims_known
                && (!self.is_mixed || self.layer2.is_some()),
            bindings_known: self.listed.bindings && claims_known,
        }
    }

    /// The node that the Services of an address say has it.
    pub(super) fn host_of(&self, address: IpAddr) -> Option<String> {
        let wants = self.wanted.vip(address).into_iter().flat_map(|vip| &vip.wants);
        let mut hosts = wants.filter(|want| want.claimant.is_service());
        hosts.find_map(|want| want.previous.clone())
    }

    /// Whether an interface is one that matters.
    pub(super) fn uses(&self, index: u32) -> bool {
        self.obstacle.is_some()
            || self.host.ours.keys().any(|binding| binding.index == index)
            || placement::interface(&self.host, &self.node, self.interface.as_deref())
                .is_ok_and(|(_, _, link)| link.index == index)
            || placement::is_named(&self.host, self.interface.as_deref(), index)
    }
}
