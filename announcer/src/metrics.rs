//! What this program counts. Users alert on these names and labels: none ever changes its spelling.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Why a number changed, or of what kind it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Cause {
    /// A stable word.
    pub cause: &'static str,
}

/// Of which kind something is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// Its stable name.
    pub kind: &'static str,
}

/// Of which router something is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PeerLabel {
    /// Its name: its address, where it has no other.
    pub peer: String,
}

impl PeerLabel {
    /// The label of a router.
    pub fn of(peer: &str) -> Self {
        Self { peer: peer.to_owned() }
    }
}

/// Of which router, and of which family of routes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabel {
    /// The router's name.
    pub peer: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
}

impl RouteLabel {
    /// The label of a router's routes of a family.
    pub fn of(peer: &str, family: berth_bgp::Family) -> Self {
        Self { peer: peer.to_owned(), family: family.to_string() }
    }
}

/// Upper bounds in seconds of a change of iptables.
const TRANSLATED: [f64; 9] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Upper bounds in seconds. A crash is due to be over in 0.4 s; a handover takes milliseconds.
const TAKEOVER: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.4, 0.6, 1.0, 5.0];

/// Upper bounds in seconds of how late a heartbeat is: by 0.075 a lease of 0.1 is lost, by 0.3 one of 0.35.
const LATE: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.35];

/// The numbers of this node.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Addresses that this node answers for.
    pub addresses: Gauge,
    /// Leases that this node holds.
    pub leases: Gauge,
    /// Services that are not announced although this node decides on them, by reason.
    pub refusals: Family<Cause, Gauge>,
    /// Leases won and lost, by cause: `acquired`, `released`, `lost`. With membership addresses: won `first`,
    /// `takeover`, `abandoned`, `resumed`, `handover`; lost `expired`, `handed_over`, `dropped`.
    pub owner_changes: Family<Cause, Counter>,
    /// With membership: seconds from asking for an address to announcing it.
    pub takeover: Histogram,
    /// With membership: the epoch of the voters.
    pub epoch: Gauge,
    /// With membership: nodes that a majority sees alive; 0 while none answers this node.
    pub live: Gauge,
    /// With membership: seconds by which heartbeats were late, because the node was busy.
    pub late: Histogram,
    /// With membership: the lease in seconds that this node asks for.
    pub lease: Gauge<f64, AtomicU64>,
    /// With membership: datagrams that did not leave.
    pub datagrams_lost: Counter,
    /// With membership: datagrams that were not authentic, not for this node or this run, or not understood.
    pub datagrams_refused: Counter,
    /// Of membership: datagrams that were dropped unread, since they came from where no peer is known to be.
    pub datagrams_of_strangers: Counter,
    /// Which fence holds: 1 for its kind.
    pub fence: Family<Kind, Gauge>,
    /// Flaws of the fence that are seen now.
    pub fence_flaws: Gauge,
    /// What the fence could not do, by step: `cover`, `attach`, `settle`, `arm`, `mute`, `refresh`.
    pub fence_errors: Family<Cause, Counter>,
    /// Frames that announced an address.
    pub frames_sent: Counter,
    /// Frames that the interface did not take.
    pub frames_lost: Counter,
    /// Steps that the kernel did, by step: `bind`, `renew`, `remove`, `guard`.
    pub steps: Family<Cause, Counter>,
    /// Steps that the kernel refused, by step.
    pub kernel_errors: Family<Cause, Counter>,
    /// Status writes, by outcome: `written`, `overtaken`, `failed`.
    pub status_writes: Family<Cause, Counter>,
    /// Status writes that somebody else undid.
    pub status_undone: Counter,
    /// Whether only what a claim names is served: 1 or 0.
    pub claims_required: Gauge,
    /// Whether the guard holds: 1 or 0.
    pub guard: Gauge,
    /// Other hosts that have an address of ours, by kind: `taken` found before its first use; claimed while this node
    /// has it, and `defended`, or `endured` because it was defended a moment ago.
    pub conflicts: Family<Kind, Counter>,
    /// Probes sent before the first use of an address.
    pub probes_sent: Counter,
    /// Elastic IPs that this node answers for.
    pub eips: Gauge,
    /// Seconds that a change of what is translated took, from looking at the kernel to the last rule.
    pub translated: Histogram,
    /// What somebody else changed of it and was put back, by what: `sets`, `rules`, `order`, `routes`.
    pub repairs: Family<Cause, Counter>,
    /// Whether the BGP session with a router is up: 1 or 0.
    pub bgp_up: Family<PeerLabel, Gauge>,
    /// Routes that a router has been told.
    pub bgp_routes: Family<RouteLabel, Gauge>,
    /// How often a session that was up ended.
    pub bgp_lost: Family<PeerLabel, Counter>,
    /// With the control plane's address: whether the API server of this node is healthy: 1 or 0.
    pub api_server: Gauge,
}

/// The label of a cause.
pub fn cause(cause: &'static str) -> Cause {
    Cause { cause }
}

/// The label of a kind.
pub fn kind(kind: &'static str) -> Kind {
    Kind { kind }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            addresses: Gauge::default(),
            leases: Gauge::default(),
            refusals: Family::default(),
            owner_changes: Family::default(),
            takeover: Histogram::new(TAKEOVER),
            epoch: Gauge::default(),
            live: Gauge::default(),
            late: Histogram::new(LATE),
            lease: Gauge::default(),
            datagrams_lost: Counter::default(),
            datagrams_refused: Counter::default(),
            datagrams_of_strangers: Counter::default(),
            fence: Family::default(),
            fence_flaws: Gauge::default(),
            fence_errors: Family::default(),
            frames_sent: Counter::default(),
            frames_lost: Counter::default(),
            steps: Family::default(),
            kernel_errors: Family::default(),
            status_writes: Family::default(),
            status_undone: Counter::default(),
            claims_required: Gauge::default(),
            guard: Gauge::default(),
            conflicts: Family::default(),
            probes_sent: Counter::default(),
            eips: Gauge::default(),
            translated: Histogram::new(TRANSLATED),
            repairs: Family::default(),
            bgp_up: Family::default(),
            bgp_routes: Family::default(),
            bgp_lost: Family::default(),
            api_server: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Registers every number.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("berth_announcer");
        registry.register("addresses", "Addresses this node answers for", self.addresses.clone());
        registry.register("leases_held", "Leases this node holds", self.leases.clone());
        let help = "Reasons why Services this node decides on are not announced";
        registry.register("refusals", help, self.refusals.clone());
        let help = "Leases, or with membership addresses, won and lost, by cause";
        registry.register("owner_changes", help, self.owner_changes.clone());
        let help = "Seconds from asking for an address to announcing it, with membership";
        registry.register("takeover_seconds", help, self.takeover.clone());
        registry.register("membership_epoch", "Epoch of the voters", self.epoch.clone());
        let help = "Nodes a majority of voters sees alive";
        registry.register("membership_live_nodes", help, self.live.clone());
        let help = "Seconds by which heartbeats were late";
        registry.register("heartbeat_late_seconds", help, self.late.clone());
        let help = "Lease in seconds that this node asks for, with membership";
        registry.register("membership_lease_seconds", help, self.lease.clone());
        let help = "Datagrams to peers that did not leave";
        registry.register("datagrams_lost", help, self.datagrams_lost.clone());
        let help = "Datagrams that were refused";
        registry.register("datagrams_refused", help, self.datagrams_refused.clone());
        let help = "Datagrams that were dropped unread, from where no peer is known to be";
        registry.register("datagrams_of_strangers", help, self.datagrams_of_strangers.clone());
        registry.register("fence", "Which fence holds", self.fence.clone());
        registry.register("fence_flaws", "Flaws of the fence", self.fence_flaws.clone());
        let help = "What the fence could not do, by step";
        registry.register("fence_errors", help, self.fence_errors.clone());
        let help = "Frames that announced an address";
        registry.register("frames_sent", help, self.frames_sent.clone());
        let help = "Frames the interface did not take";
        registry.register("frames_lost", help, self.frames_lost.clone());
        registry.register("steps", "Steps the kernel did", self.steps.clone());
        registry.register("kernel_errors", "Steps the kernel refused", self.kernel_errors.clone());
        registry.register("status_writes", "Status writes, by outcome", self.status_writes.clone());
        let help = "Status writes somebody else undid";
        registry.register("status_undone", help, self.status_undone.clone());
        registry.register("eips", "Elastic IPs this node answers for", self.eips.clone());
        let help = "Seconds a change of what is translated took";
        registry.register("translation_seconds", help, self.translated.clone());
        let help = "What somebody changed of translation and was put back";
        registry.register("translation_repairs", help, self.repairs.clone());
        registry.register(
            "claims_required",
            "Whether only what an IPAddress of berth-ccm names is served",
            self.claims_required.clone(),
        );
        registry.register("guard", "Whether unserved ports are guarded", self.guard.clone());
        let help = "Other hosts that have an address of ours, by kind";
        registry.register("conflicts", help, self.conflicts.clone());
        let help = "Probes sent before the first use of an address";
        registry.register("probes_sent", help, self.probes_sent.clone());
        let help = "Whether the BGP session with a router is up";
        registry.register("bgp_session_up", help, self.bgp_up.clone());
        let help = "Routes a router has been told by BGP";
        registry.register("bgp_routes", help, self.bgp_routes.clone());
        let help = "BGP sessions that were up and ended";
        registry.register("bgp_sessions_lost", help, self.bgp_lost.clone());
    }

    /// The same of those that there are where this has the control plane's address: 0 elsewhere would be an alert.
    pub fn register_control_plane(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("berth_announcer");
        let help = "Whether the API server of this node is healthy";
        registry.register("api_server_healthy", help, self.api_server.clone());
    }
}
