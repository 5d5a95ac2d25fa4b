//! Makes the kernel as wanted and keeps it so.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::backend::{self, Backend};
use super::events::signal;
use super::flows::{self, Shift};
use super::legacy::{self, Size};
use super::netfilter;
use super::routes::{routes, rules};
use super::routing::Routing;
use super::sets::{self, sets};
use super::state::{Nat, Pair, Stage};
use super::tables::{self, Difference, Seen, tables};
use crate::backoff::Backoff;
use crate::instance::Instance;
use crate::kernel::Door;
use crate::kernel::events::Signal;
use crate::kernel::netfilter::Netfilter;
use crate::kernel::reconciler::{Keep, Why};
use crate::metrics::{Metrics, cause};
use crate::vip::Family;

/// Why not every instance translates.
const ONE: &str =
    "their chains are there once on a node, and belong to the instance that serves Services";

/// Pause between cheap looks at what tells of no change.
const GLANCE: Duration = Duration::from_millis(500);

/// Pause between looks at everything.
const LOOK: Duration = Duration::from_secs(30);

/// What becomes of what is to be translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Translation {
    /// This is in the kernel.
    Holds(Nat),
    /// It could not be made so; it is tried again.
    Failed(String),
}

/// Keeps the translation, and tells each change of what holds.
pub(in crate::dataplane) struct Translator {
    driver: Driver,
    changes: Signal,
    /// Why it failed, if it did at the last attempt.
    failed: Option<String>,
}

impl Translator {
    pub(in crate::dataplane) fn new(door: &Door, instance: &Instance, metrics: Metrics) -> Self {
        let driver = Driver::new(door, instance, metrics);
        let changes = signal(&door.events, driver.routing.table());
        Self { driver, changes, failed: None }
    }
}

impl Keep for Translator {
    /// Nothing until the cluster is known: then what an earlier life has left stays.
    type Wanted = Option<Nat>;
    type Event = Translation;

    const GLANCE: Duration = GLANCE;
    const LOOK: Duration = LOOK;

    async fn make(
        &mut self,
        wanted: &Option<Nat>,
        _: Why,
    ) -> Result<Option<Translation>, Translation> {
        let Some(nat) = wanted else { return Ok(None) };
        let made = self.driver.make(nat).await;
        let before = std::mem::replace(&mut self.failed, made.clone().err());
        match made {
            Ok(()) => Ok(Some(Translation::Holds(nat.clone()))),
            Err(error) => {
                if before.as_ref() != Some(&error) {
                    tracing::warn!(%error, "elastic IPs are not as they should be");
                }
                Err(Translation::Failed(error))
            }
        }
    }

    fn is_watched(&self, wanted: &Option<Nat>) -> bool {
        wanted.as_ref().is_some_and(|nat| !nat.is_empty())
    }

    async fn lost(&mut self) {
        self.changes.next().await;
    }

    async fn stands(&mut self, wanted: &Option<Nat>) -> bool {
        let Some(nat) = wanted else { return true };
        self.driver.follow(&nat.parting).await;
        self.driver.seems_well().await
    }
}

/// Removes everything of this instance but tracked connections: what is under way goes on by these until a later process
/// of it is there.
///
/// # Errors
/// What could not be removed, in words.
pub async fn sweep(door: &Door, instance: &Instance) -> Result<(), String> {
    let mut driver = Driver::new(door, instance, Metrics::default());
    driver.forgets = false;
    driver.make(&Nat::default()).await
}

/// Removes the policy rules and routes of an instance that does not run. Sets and chains belong to whoever translates.
///
/// # Errors
/// What the kernel said.
pub async fn unroute(door: &Door, instance: &Instance) -> Result<(), String> {
    let routing = Routing::new(door.rtnetlink.clone(), instance);
    let shown = routing.look(None).await.map_err(|e| say("reading routes")(&e))?;
    let change = routing.change(&shown, &BTreeSet::new(), &[].into()).await;
    change.map_err(|e| say("changing routes")(&e))
}

struct Driver {
    netfilter: Netfilter,
    routing: Routing,
    instance: Instance,
    metrics: Metrics,
    /// Whether stale connections are forgotten.
    forgets: bool,
    backend: Option<Backend>,
    /// Whether Kubernetes' own rules have shown which implementation is the one.
    sure: bool,
    /// What was made last.
    held: Option<Nat>,
    /// How large sets and tables were at the last look.
    sizes: Sizes,
    /// Who insists on being first as we do is given way to, ever longer.
    order: Backoff<Family>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sizes {
    sets: Vec<(&'static str, u32)>,
    tables: Vec<Size>,
}

fn say(what: &'static str) -> impl Fn(&dyn Display) -> String {
    move |error| format!("{what}: {error}")
}

impl Driver {
    fn new(door: &Door, instance: &Instance, metrics: Metrics) -> Self {
        let second = Duration::from_secs(1);
        Self {
            netfilter: door.netfilter.clone(),
            routing: Routing::new(door.rtnetlink.clone(), instance),
            instance: instance.clone(),
            metrics,
            forgets: true,
            backend: None,
            sure: false,
            held: None,
            sizes: Sizes::default(),
            order: Backoff::new(second, second * 300),
        }
    }

    /// Looks, and makes the kernel as wanted: sets, then routes, then rules; what goes, goes the other way round.
    async fn make(&mut self, nat: &Nat) -> Result<(), String> {
        if !self.instance.translates() {
            // What is there is another's.
            return match nat.is_empty() {
                true => Ok(()),
                false => Err(format!("{} translates no elastic IPs: {ONE}", self.instance)),
            };
        }
        let (began, repairing) = (Instant::now(), self.held.as_ref() == Some(nat));
        // Before the look: what changes meanwhile is seen at the next glance.
        let sizes = self.look_at_sizes().await?;
        let seen_sets =
            netfilter::sets(&self.netfilter).await.map_err(|e| say("reading sets")(&e))?;
        let reading = |error| say("reading routes")(&error);
        let shown = self.routing.look(nat.uplink.as_deref()).await.map_err(reading)?;
        // Without a set there is no rule of ours: each way into our chains names one.
        let bare = seen_sets.is_empty() && shown.rules.is_empty() && shown.routes.is_empty();
        if nat.is_empty() && bare {
            self.held = Some(nat.clone());
            return Ok(());
        }
        let mut before = self.held.clone().unwrap_or_default();
        let mut changed = false;

        let wanted_sets = sets(nat);
        if let Some(script) = sets::restore(&wanted_sets, &seen_sets) {
            self.repaired(repairing, "sets");
            backend::ipset(&script).await.map_err(|e| e.to_string())?;
            changed = true;
        }
        let (rules, routes) = (rules(nat), routes(nat, &shown.uplinks));
        if shown.rules != rules || shown.routes != routes {
            self.repaired(repairing, "routes");
            let change = self.routing.change(&shown, &rules, &routes).await;
            change.map_err(|e| say("changing routes")(&e))?;
            changed = true;
        }
        self.choose(nat).await?;
        for backend in Backend::ALL {
            let chosen = self.backend == Some(backend);
            if !chosen && backend == Backend::Legacy && !backend::has_legacy() {
                continue;
            }
            // The other one is looked at for what is left of ours, and need not be there.
            if !chosen && (repairing || self.held.is_some() && !nat.is_empty()) {
                continue;
            }
            for family in Family::ALL {
                let wanted = if chosen { tables(nat, family) } else { tables::Tables::default() };
                let unused = wanted == tables::Tables::default();
                let used = |held: &Nat| held.of(family).next().is_some();
                if unused && self.held.as_ref().is_some_and(|held| !used(held)) {
                    continue;
                }
                let seen = match backend.save(family).await {
                    Ok(text) => tables::read(&text, family),
                    Err(error) if unused => {
                        tracing::debug!(%error, "not looked at");
                        continue;
                    }
                    Err(error) => return Err(error.to_string()),
                };
                if self.held.is_none() {
                    let led = seen.led().into_iter();
                    before
                        .pairs
                        .extend(led.map(|(eip, vmi)| (eip, Pair { vmi, stage: Stage::Held })));
                }
                changed |= self.rules(backend, family, &wanted, &seen, repairing).await?;
            }
        }
        if let Some(script) = sets::destroy(&wanted_sets, &seen_sets) {
            backend::ipset(&script).await.map_err(|e| e.to_string())?;
        }
        self.forget(&flows::shift(&before, nat)).await?;
        self.soften(&flows::leaving(&before, nat)).await?;
        self.held = Some(nat.clone());
        // After a change of our own everything is looked at once more.
        self.sizes = if changed { Sizes::default() } else { sizes };
        if changed && !repairing {
            self.metrics.translated.observe(began.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Settles on an implementation, again as long as nothing of Kubernetes has shown which.
    async fn choose(&mut self, nat: &Nat) -> Result<(), String> {
        if self.sure || nat.is_empty() {
            return Ok(());
        }
        let (backend, sure) = backend::detect().await;
        if self.backend != Some(backend) {
            tracing::info!(iptables = %backend, sure, "elastic IPs are translated by it");
            if self.backend.is_some() {
                // What stands in the other one is looked for again.
                self.held = None;
            }
        }
        (self.backend, self.sure) = (Some(backend), sure);
        Ok(())
    }

    /// Mends the rules of one family; true if there was something to do.
    async fn rules(
        &mut self,
        backend: Backend,
        family: Family,
        wanted: &tables::Tables,
        seen: &Seen,
        repairing: bool,
    ) -> Result<bool, String> {
        let now = Instant::now();
        match tables::difference(wanted, seen) {
            Difference::None => return Ok(false),
            Difference::Order if repairing && !self.order.is_due(&family, now) => return Ok(false),
            Difference::Order => {
                self.order.again(family, now);
                self.repaired(repairing, "order");
            }
            Difference::Content => self.repaired(repairing, "rules"),
        }
        let script = tables::restore(wanted, seen);
        backend.restore(family, &script).await.map_err(|error| error.to_string())?;
        Ok(true)
    }

    async fn forget(&mut self, shift: &Shift) -> Result<(), String> {
        if shift.is_empty() || !self.forgets {
            return Ok(());
        }
        let failed = |error| say("tracked connections")(&error);
        let stale = netfilter::tracked(&self.netfilter, |flow| shift.makes_stale(flow))
            .await
            .map_err(failed)?;
        for tracked in &stale {
            tracing::debug!(flow = ?tracked.flow, "forgotten");
            netfilter::forget(&self.netfilter, tracked).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Softens what has begun since: the VM may be gone before anybody can say so.
    async fn follow(&mut self, parting: &BTreeSet<IpAddr>) {
        if let Err(error) = self.soften(parting).await {
            tracing::debug!(%error, "not followed");
        }
    }

    async fn soften(&mut self, eips: &BTreeSet<IpAddr>) -> Result<(), String> {
        if eips.is_empty() {
            return Ok(());
        }
        let failed = |error| say("tracked connections")(&error);
        let flows =
            netfilter::tracked(&self.netfilter, |flow| flow.uses(eips)).await.map_err(failed)?;
        for tracked in flows.iter().filter(|tracked| tracked.strict) {
            netfilter::soften(&self.netfilter, tracked).await.map_err(failed)?;
        }
        Ok(())
    }

    fn repaired(&self, repairing: bool, what: &'static str) {
        if repairing {
            tracing::warn!(what, "somebody changed what elastic IPs need; putting it back");
            self.metrics.repairs.get_or_create(&cause(what)).inc();
        }
    }

    async fn look_at_sizes(&mut self) -> Result<Sizes, String> {
        let sets = netfilter::sizes(&self.netfilter).await.map_err(|e| say("reading sets")(&e))?;
        let mut sizes = Sizes { sets, tables: Vec::new() };
        if self.backend == Some(Backend::Legacy) {
            let held = self.held.as_ref();
            let used = |family: &Family| held.is_some_and(|nat| nat.of(*family).next().is_some());
            for family in Family::ALL.into_iter().filter(used) {
                for table in ["raw", "filter", "nat"] {
                    sizes.tables.extend(legacy::size(family, table));
                }
            }
        }
        Ok(sizes)
    }

    /// Whether what tells of no change looks as it did.
    async fn seems_well(&mut self) -> bool {
        self.look_at_sizes().await.is_ok_and(|sizes| sizes == self.sizes)
    }
}
