//! Owns the metrics. Their names and labels are an interface: none changes its meaning.

use std::time::Duration;

use berth_index::Index;
use berth_index::write::{Outcome, Write};
use berth_ipam::{Family as AddressFamily, Ledger};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// From a single write on an idle machine to a burst of thousands.
const LATENCIES: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

type Amount = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
    family: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    verb: &'static str,
    resource: &'static str,
    outcome: &'static str,
}

/// How full the pools are.
#[derive(Clone, Debug, Default)]
struct Pools {
    size: Family<PoolLabels, Amount>,
    used: Family<PoolLabels, Amount>,
    resting: Family<PoolLabels, Amount>,
    free: Family<PoolLabels, Amount>,
}

impl Pools {
    fn register(&self, all: &mut Registry) {
        all.register("pool_size", "Addresses that the keys of a pool name", self.size.clone());
        all.register("pool_used", "Addresses of a pool that are held", self.used.clone());
        all.register(
            "pool_resting",
            "Addresses of a pool that rest after a release",
            self.resting.clone(),
        );
        all.register("pool_free", "Addresses that a pool could give out now", self.free.clone());
    }

    fn show(&self, ledger: &Ledger) {
        let pools = [&self.size, &self.used, &self.resting, &self.free];
        pools.iter().for_each(|family| family.clear());
        for (scope, _) in ledger.pools().iter() {
            for family in AddressFamily::ALL {
                let usage = ledger.usage(scope, family);
                let labels =
                    PoolLabels { pool: scope.name().to_owned(), family: family.to_string() };
                let values =
                    [usage.size as f64, usage.used as f64, usage.resting as f64, usage.free as f64];
                for (gauge, value) in pools.iter().zip(values) {
                    gauge.get_or_create(&labels).set(value);
                }
            }
        }
    }
}

/// What `/metrics` shows.
#[derive(Clone, Debug)]
pub struct Metrics {
    pools: Pools,
    claims: Gauge,
    waiting: Family<ReasonLabels, Gauge>,
    bindings: Family<StateLabels, Gauge>,
    moves: Counter,
    invalid_keys: Gauge,
    outside: Gauge,
    leader: Gauge,
    latency: Histogram,
    writes: Family<WriteLabels, Counter>,
    lost_events: Gauge,
}

impl Metrics {
    /// Metrics in `registry`, all with the prefix `berth_ccm_`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            pools: Pools::default(),
            claims: Gauge::default(),
            waiting: Family::default(),
            bindings: Family::default(),
            moves: Counter::default(),
            invalid_keys: Gauge::default(),
            outside: Gauge::default(),
            leader: Gauge::default(),
            latency: Histogram::new(LATENCIES),
            writes: Family::default(),
            lost_events: Gauge::default(),
        };
        let all = registry.sub_registry_with_prefix("berth_ccm");
        metrics.pools.register(all);
        all.register(
            "claims",
            "Addresses that are held, in pools and outside",
            metrics.claims.clone(),
        );
        all.register(
            "services_waiting",
            "Services without what they ask for",
            metrics.waiting.clone(),
        );
        all.register(
            "eip_bindings",
            "EipBindings, by how they stand: Ready, or the reason why not",
            metrics.bindings.clone(),
        );
        all.register(
            "eip_moves",
            "How often an elastic IP went from one node to another",
            metrics.moves.clone(),
        );
        all.register(
            "invalid_keys",
            "Keys of the ConfigMap that are not accepted",
            metrics.invalid_keys.clone(),
        );
        all.register(
            "outside_pool",
            "Held addresses that have left their pool",
            metrics.outside.clone(),
        );
        all.register("leader", "Whether this process gives addresses out", metrics.leader.clone());
        all.register_with_unit(
            "allocation",
            "From the first sight of a Service or EipBinding to the addresses written to it",
            Unit::Seconds,
            metrics.latency.clone(),
        );
        all.register(
            "writes",
            "Requests that write, by what became of them",
            metrics.writes.clone(),
        );
        all.register(
            "lost_events",
            "Events that the cluster did not take",
            metrics.lost_events.clone(),
        );
        metrics
    }

    /// Counts a write.
    pub fn wrote(&self, write: &Write, outcome: &Outcome) {
        let (verb, resource) = write.kind();
        self.writes.get_or_create(&WriteLabels { verb, resource, outcome: outcome.name() }).inc();
    }

    /// Counts how long a Service waited.
    pub fn served(&self, latency: Duration) {
        self.latency.observe(latency.as_secs_f64());
    }

    /// Shows whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// Shows how pools and EipBindings stand. Costs a step per pool and per EipBinding, not per address.
    pub fn show(&self, index: &Index, lost_events: u64) {
        let ledger = index.ledger();
        self.pools.show(ledger);
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.claims.set(count(index.claimed()));
        self.invalid_keys.set(count(index.invalid_keys()));
        self.outside.set(count(ledger.strays().len()));
        self.lost_events.set(i64::try_from(lost_events).unwrap_or(i64::MAX));
        self.moves.inc_by(index.moves().saturating_sub(self.moves.get()));
        self.bindings.clear();
        for (state, number) in index.bindings() {
            self.bindings
                .get_or_create(&StateLabels { state })
                .set(i64::try_from(number).unwrap_or(i64::MAX));
        }
        self.waiting.clear();
        for (reason, number) in index.waiting() {
            self.waiting
                .get_or_create(&ReasonLabels { reason })
                .set(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }
}
