//! What this program counts. Users alert on these names and labels: none ever changes its spelling.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why a number changed, or of what kind it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Cause {
    /// A stable word.
    pub cause: &'static str,
}

/// The numbers of this node.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Addresses that this node answers for.
    pub addresses: Gauge,
    /// Leases that this node holds.
    pub leases: Gauge,
    /// Services that are not announced although this node decides on them, by reason.
    pub refusals: Family<Cause, Gauge>,
    /// Leases won and lost, by cause: `acquired`, `released`, `lost`.
    pub owner_changes: Family<Cause, Counter>,
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
    /// Whether the guard holds: 1 or 0.
    pub guard: Gauge,
}

/// The label of a cause.
pub fn cause(cause: &'static str) -> Cause {
    Cause { cause }
}

impl Metrics {
    /// Registers every number.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("berth_announcer");
        registry.register("addresses", "Addresses this node answers for", self.addresses.clone());
        registry.register("leases_held", "Leases this node holds", self.leases.clone());
        let help = "Reasons why Services this node decides on are not announced";
        registry.register("refusals", help, self.refusals.clone());
        let help = "Leases won and lost, by cause";
        registry.register("owner_changes", help, self.owner_changes.clone());
        let help = "Frames that announced an address";
        registry.register("frames_sent", help, self.frames_sent.clone());
        let help = "Frames the interface did not take";
        registry.register("frames_lost", help, self.frames_lost.clone());
        registry.register("steps", "Steps the kernel did", self.steps.clone());
        registry.register("kernel_errors", "Steps the kernel refused", self.kernel_errors.clone());
        registry.register("status_writes", "Status writes, by outcome", self.status_writes.clone());
        registry.register("guard", "Whether unserved ports are guarded", self.guard.clone());
    }
}
