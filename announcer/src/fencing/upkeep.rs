//! Owns how the kernel is made to silence what is not held: deadlines, repair, and what is done where it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use berth_fence::{BootTime, Fence, Finding};
use berth_membership::{LONGEST, Moment};
use berth_runtime::http::Health;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::metrics::{Metrics, cause, kind};
use crate::ownership::{Fencing, Uncovered};

/// Between looks at whether the fence still stands, if nobody tells that something went.
const INSPECT: Duration = Duration::from_secs(1);

/// Between looks at what gets at packets before netfilter does.
const LOOK: Duration = Duration::from_secs(10);

/// Filters go in crowds: they are looked at together.
const CROWD: Duration = Duration::from_millis(5);

/// What can fail to mute lets nothing pass for so long without a refresh; a lease of membership is shorter.
const UNREFRESHED: Duration = Duration::from_secs(2);

/// A refresh that failed is tried again after this.
const AGAIN: Duration = Duration::from_millis(50);

/// The fence, and what it was told.
pub(crate) struct Upkeep {
    fence: Box<dyn Fence>,
    deadlines: BTreeMap<IpAddr, Moment>,
    wanted: BTreeSet<IpAddr>,
    /// What of that is not covered, and whether that was told.
    uncovered: Uncovered,
    is_told: bool,
    cover_at: Moment,
    interfaces: BTreeSet<String>,
    flaws: Vec<String>,
    refresh_at: Option<BootTime>,
    is_in_force: bool,
    inspect_at: Moment,
    /// The inspection that is under way.
    pub(crate) inspecting: Option<JoinHandle<Found>>,
    /// When what gets at packets before netfilter is looked for next.
    look_at: Moment,
    /// What that was: each with its interface.
    ahead: Vec<(String, String)>,
    /// Whether the fence has changed since that began: it may have found what was so in between.
    is_stale: bool,
    metrics: Metrics,
    health: Health,
}

/// What readiness shows of a fence that stands and has a flaw.
const CHECK: &str = "fence";

/// What it shows of what may pass netfilter by.
const NETFILTER: &str = "netfilter";

/// What an inspection finds: flaws of the fence and, if that was looked for, what gets at packets before netfilter.
pub(crate) type Found = (Vec<Finding>, Option<Vec<(String, String)>>);

impl Upkeep {
    pub(crate) fn new(fence: Box<dyn Fence>, metrics: Metrics, health: Health) -> Self {
        Self {
            fence,
            deadlines: BTreeMap::new(),
            wanted: BTreeSet::new(),
            uncovered: Uncovered::default(),
            is_told: true,
            cover_at: Moment::NEVER,
            interfaces: BTreeSet::new(),
            flaws: Vec::new(),
            refresh_at: None,
            is_in_force: false,
            inspect_at: now(),
            inspecting: None,
            look_at: now(),
            ahead: Vec::new(),
            is_stale: false,
            metrics,
            health,
        }
    }

    /// When there is something to do if nothing happens.
    pub(crate) fn due(&self) -> Moment {
        let refresh = self.refresh_at.map(|due| Moment::from_nanos(due.as_nanos()));
        let inspect = if self.inspecting.is_some() { Moment::NEVER } else { self.inspect_at };
        refresh.unwrap_or(Moment::NEVER).min(inspect).min(self.cover_at)
    }

    /// Does what is due.
    pub(crate) fn turn(&mut self, time: Moment) {
        if self.refresh_at.is_some_and(|due| due <= BootTime::now()) {
            self.refresh();
        }
        if self.cover_at <= time {
            self.cover();
        }
        if self.inspect_at <= time && self.inspecting.is_none() {
            self.inspect_at = time + INSPECT;
            self.is_stale = false;
            let (inspection, is_due) = (self.fence.inspection(), self.look_at <= time);
            let looked_at = is_due.then(|| self.interfaces.clone());
            if is_due {
                self.look_at = time + LOOK;
            }
            self.inspecting = Some(spawn_blocking(move || {
                let ahead = looked_at.and_then(|all| berth_fence::before_netfilter(&all).ok());
                (inspection(), ahead)
            }));
        }
    }

    /// Silences everything.
    pub(crate) fn mute_all(&mut self) {
        if let Err(error) = self.fence.mute_all() {
            tracing::error!(%error);
            wait_out(None);
        }
    }

    /// Silences an address.
    pub(crate) fn mute(&mut self, address: IpAddr) {
        self.mute_each(&[address]);
    }

    /// Silences addresses. Where that fails, all of them are waited for together.
    pub(crate) fn mute_each(&mut self, addresses: &[IpAddr]) {
        let mut last = None;
        for address in addresses {
            if let Err(error) = self.fence.mute(*address) {
                tracing::error!(%error);
                self.count("mute");
                let deadline = self.deadlines.get(address).copied().unwrap_or(Moment::NEVER);
                last = last.max(Some(deadline));
            }
            self.deadlines.remove(address);
        }
        if last.is_some() {
            wait_out(last.filter(|last| *last < Moment::NEVER));
        }
    }

    /// Lets an address answer until a deadline; true if the fence takes that.
    pub(crate) fn arm(&mut self, address: IpAddr, deadline: Moment) -> bool {
        self.deadlines.insert(address, deadline);
        let armed = self.fence.arm(address, BootTime::from_nanos(deadline.nanos()));
        if let Err(error) = &armed {
            tracing::debug!(%error);
            self.count("arm");
        }
        armed.is_ok()
    }

    /// Carries deadlines into the kernel where arming does not.
    pub(crate) fn refresh(&mut self) {
        let polled = self.fence.poll(BootTime::now());
        let was_in_force = std::mem::replace(&mut self.is_in_force, polled.is_ok());
        match polled {
            Ok(due) => self.refresh_at = due,
            Err(error) => {
                if was_in_force {
                    tracing::warn!(%error, "held addresses fall silent");
                }
                self.count("refresh");
                self.refresh_at = Some(BootTime::now().after(AGAIN));
            }
        }
    }

    /// Whether the kernel has all deadlines, as of the last refresh.
    pub(crate) fn is_in_force(&self) -> bool {
        self.is_in_force
    }

    /// Does what concerns all of it.
    pub(crate) fn take(&mut self, told: Fencing) {
        match told {
            Fencing::Cover(addresses) => {
                self.wanted = addresses;
                self.cover();
            }
            Fencing::Attach(interfaces) => {
                self.interfaces = interfaces;
                self.attach();
            }
            Fencing::Inspect => self.inspect_soon(),
            Fencing::Settle => self.settle(),
        }
    }

    /// Fences exactly what is wanted, and tries again where that does not succeed.
    fn cover(&mut self) {
        self.cover_at = Moment::NEVER;
        let mut uncovered = BTreeMap::new();
        if let Err(error) = self.fence.cover(&self.wanted) {
            self.count("cover");
            self.cover_at = now() + INSPECT;
            let left = self.wanted.iter().filter(|address| !self.fence.covers(address));
            let why = format!("the fence does not cover it: {error}");
            uncovered = left.map(|address| (*address, why.clone())).collect();
            if !uncovered.keys().eq(self.uncovered.addresses.keys()) {
                tracing::error!(%error, "an address that is not covered is not served");
            }
        }
        self.is_told &= uncovered.keys().eq(self.uncovered.addresses.keys());
        self.uncovered.addresses = uncovered;
    }

    /// What is not covered, if that is news.
    pub(crate) fn news(&mut self) -> Option<Uncovered> {
        (!std::mem::replace(&mut self.is_told, true)).then(|| self.uncovered.clone())
    }

    /// Fences exactly these interfaces.
    fn attach(&mut self) {
        self.is_stale = true;
        let errors = self.fence.attach(&self.interfaces);
        let mut exposed = BTreeMap::new();
        for error in &errors {
            tracing::warn!(%error, "the fence is not everywhere");
            self.count("attach");
            if error.is_exposed() {
                let names = error.names(&self.interfaces).cloned();
                exposed.extend(names.map(|name| (name, error.to_string())));
            }
        }
        if !exposed.keys().eq(self.uncovered.interfaces.keys()) {
            self.is_told = false;
            for name in exposed.keys() {
                tracing::error!(
                    interface = name,
                    "without a fence there this node takes only what no other node can have"
                );
            }
        }
        self.uncovered.interfaces = exposed;
    }

    /// Looks whether the fence still stands: somebody may have taken it away.
    fn inspect_soon(&mut self) {
        self.inspect_at = self.inspect_at.min(now() + CROWD);
    }

    /// Lets a predecessor's fence go.
    fn settle(&mut self) {
        self.is_stale = true;
        for error in self.fence.settle() {
            tracing::error!(%error, "the fence is not everywhere");
            self.count("settle");
        }
    }

    /// Takes in what an inspection has found: repairs the fence, and tells what is wrong with it once.
    pub(crate) fn repair(&mut self, (findings, ahead): Found) {
        self.inspecting = None;
        if let Some(ahead) = ahead {
            self.see_ahead(ahead);
        }
        if self.is_stale {
            return self.inspect_soon();
        }
        let flaws: Vec<String> = findings.iter().map(ToString::to_string).collect();
        if flaws != self.flaws {
            for flaw in &flaws {
                tracing::warn!("the fence has a flaw: {flaw}");
            }
            for flaw in self.flaws.iter().filter(|flaw| !flaws.contains(flaw)) {
                tracing::info!("the fence has this flaw no more: {flaw}");
            }
            match passed_by(&findings) {
                Some(why) => self.health.missing(CHECK, why),
                None => self.health.forget(CHECK),
            }
            self.flaws = flaws;
        }
        self.metrics.fence_flaws.set(findings.len().try_into().unwrap_or(i64::MAX));
        if findings.iter().any(|finding| matches!(finding, Finding::Missing { .. })) {
            self.attach();
        }
        self.metrics.fence.get_or_create(&kind(self.fence.kind().as_str())).set(1);
    }

    /// Tells once of what gets at packets before netfilter does, and shows it while it is so.
    fn see_ahead(&mut self, ahead: Vec<(String, String)>) {
        if ahead == self.ahead {
            return;
        }
        match netfilter_passed_by(&ahead) {
            Some(why) => {
                tracing::warn!("{why}");
                self.health.missing(NETFILTER, why);
            }
            None => {
                tracing::info!("no program gets at packets before netfilter any more");
                self.health.forget(NETFILTER);
            }
        }
        self.ahead = ahead;
    }

    /// Removes the fence.
    pub(crate) fn remove(&mut self) {
        for error in self.fence.remove() {
            tracing::warn!(%error, "the fence stays");
        }
    }

    fn count(&self, step: &'static str) {
        self.metrics.fence_errors.get_or_create(&cause(step)).inc();
    }
}

/// What is to be told of programs that run before the fence and may let frames by, as those of some CNIs do.
fn passed_by(findings: &[Finding]) -> Option<String> {
    let is_passed = |finding: &&Finding| matches!(finding, Finding::Preceded { .. });
    let all: Vec<String> = findings.iter().filter(is_passed).map(ToString::to_string).collect();
    let told = || {
        let all = all.join("; ");
        format!(
            "FencePassedBy: {all}, and may let by what it is to silence; berth_fence=nft-timeout is not passed by so \
             (docs/cni.md)"
        )
    };
    (!all.is_empty()).then(told)
}

/// What is to be told of programs that may lead packets on before netfilter sees them, as those of some CNIs do.
fn netfilter_passed_by(ahead: &[(String, String)]) -> Option<String> {
    let all: Vec<String> =
        ahead.iter().map(|(interface, by)| format!("interface {interface}: {by}")).collect();
    let told = || {
        let all = all.join("; ");
        format!(
            "NetfilterPassedBy: {all}; what it leads on no rule of netfilter sees, and elastic IPs, ports that \
             enable_service_security closes, and the guard of ports that kube-proxy does not serve yet rest on those \
             (docs/cni.md)"
        )
    };
    (!all.is_empty()).then(told)
}

/// The clock of the fence, and of the protocol of membership.
pub(crate) fn now() -> Moment {
    Moment::from_nanos(BootTime::now().as_nanos())
}

/// Where an address could not be muted, its deadline silences it: nothing more is said before that. No longer than
/// anything passes without a refresh, for nothing is refreshed meanwhile.
fn wait_out(deadline: Option<Moment>) {
    let deadline = deadline.unwrap_or_else(|| now() + LONGEST);
    thread::sleep(deadline.since(now()).min(UNREFRESHED));
}

/// What the inspection that is under way finds, if there is one.
pub(crate) async fn found(inspecting: &mut Option<JoinHandle<Found>>) -> Found {
    match inspecting {
        // One that panicked has found nothing, and the next one may.
        Some(inspection) => inspection.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use berth_fence::{Kind, Options};

    use super::*;

    fn upkeep(health: &Health) -> Upkeep {
        let options = Options { strongest: Kind::Unfenced, ..Options::default() };
        Upkeep::new(berth_fence::open(&options).fence, Metrics::default(), health.clone())
    }

    #[tokio::test]
    async fn a_program_that_runs_before_the_fence_is_shown_and_nobody_is_unready_for_it() {
        let health = Health::default();
        let mut upkeep = upkeep(&health);
        let shown = || health.missing_checks().into_iter().map(|(_, why)| why).collect::<Vec<_>>();
        let (interface, by) = ("eth0".to_owned(), "tcx (programs: 1)".to_owned());
        upkeep.repair((vec![Finding::Preceded { interface, by }], None));
        let [told] = &shown()[..] else { panic!("{:?}", shown()) };
        for part in ["FencePassedBy", "eth0", "tcx", "berth_fence=nft-timeout"] {
            assert!(told.contains(part), "{told}");
        }
        assert!(health.unready_checks(Instant::now()).is_empty());
        upkeep.repair((Vec::new(), None));
        assert!(shown().is_empty());
    }

    #[tokio::test]
    async fn what_gets_at_packets_before_netfilter_is_shown_with_what_rests_on_that_and_nobody_is_unready()
     {
        let health = Health::default();
        let mut upkeep = upkeep(&health);
        let shown = || health.missing_checks().into_iter().map(|(_, why)| why).collect::<Vec<_>>();
        let ahead = vec![("eth0".to_owned(), "tcx (programs: 1)".to_owned())];
        upkeep.repair((Vec::new(), Some(ahead)));
        let [told] = &shown()[..] else { panic!("{:?}", shown()) };
        for part in ["NetfilterPassedBy", "eth0", "tcx", "elastic IPs", "enable_service_security"] {
            assert!(told.contains(part), "{told}");
        }
        assert!(health.unready_checks(Instant::now()).is_empty());
        upkeep.repair((Vec::new(), None));
        assert_eq!(shown().len(), 1, "it was not looked for");
        upkeep.repair((Vec::new(), Some(Vec::new())));
        assert!(shown().is_empty());
    }

    #[tokio::test]
    async fn what_was_looked_at_before_the_fence_changed_is_no_flaw() {
        let mut upkeep = upkeep(&Health::default());
        let gone = || (vec![Finding::Missing { interface: "eth0".to_owned() }], None);
        upkeep.turn(now());
        assert!(upkeep.inspecting.is_some());
        upkeep.settle();
        upkeep.repair(gone());
        assert!(upkeep.flaws.is_empty(), "{:?}", upkeep.flaws);
        assert!(upkeep.due() <= now() + CROWD, "it is looked at again");
        upkeep.inspect_at = now();
        upkeep.turn(now());
        upkeep.repair(gone());
        assert_eq!(upkeep.flaws.len(), 1);
    }
}
