//! Who shares an address and took a port there that another was given: its namespace comes to share that address again
//! after a pause, longer each time. Who had the address first has one such edit for nothing: others may hold a thousand ports
//! there, and a mistake is to take nothing from who let them in. By namespace, as who may write one Service may write the next. Every node keeps
//! this by what the watches show, so whoever has the address next goes on: with less, where an edit was over before it saw it.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::claims::Claims;
use super::service::Service;
use crate::vip::Name;

/// kube-proxy led what comes for the port there for up to a second or two.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);

/// After so long without another such edit it begins anew.
const FORGIVEN: Duration = Duration::from_secs(600);

/// Once so many different Services of a namespace took ports of other namespaces, all of it are out while it pauses: else
/// who has prepared hundreds would use one after the other.
const MOST_OFFENDERS: usize = 3;

/// So many are remembered: those of whoever did it most often, and of these the latest. Who has many addresses of its own
/// has no other forgotten by an edit at each.
const MOST: usize = 1024;

/// The pauses of namespaces at addresses that they share.
#[derive(Clone, Debug, Default)]
pub struct Pauses {
    of: BTreeMap<(IpAddr, String), Pause>,
    /// Whose status shows an address at which it has a port of another now, by uid, and whether one of another namespace.
    crossing: BTreeMap<(IpAddr, String), bool>,
}

/// What is known of a namespace at an address.
#[derive(Clone, Debug)]
struct Pause {
    by: Name,
    count: u32,
    last: Instant,
    /// How long it is, and whether it is not over.
    length: Duration,
    runs: bool,
    /// Who took ports of other namespaces, by uid, as far as that matters.
    offenders: BTreeSet<String>,
    /// Who was published there before and has done nothing, by uid.
    spared: BTreeSet<String>,
}

/// A Service came to have a port of another at an address.
#[derive(Clone, Copy)]
struct Edit<'a> {
    address: IpAddr,
    by: &'a Name,
    uid: &'a str,
    /// It had the address before all others.
    is_first: bool,
    /// The port is one of another namespace.
    foreign: bool,
}

/// Why a Service is not to be published at an address for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// Who of its namespace took a port of another there last.
    pub by: Name,
    /// How long that is waited for, in all.
    pub length: Duration,
}

impl Pause {
    fn due(&self) -> Instant {
        self.last + self.length
    }
}

impl Pauses {
    /// Whether a Service of this namespace and uid is not to be published at the address.
    pub fn withhold(&self, address: IpAddr, namespace: &str, uid: &str) -> Option<Withheld> {
        // Looked up for each Service each time, and there is hardly ever one.
        if self.of.is_empty() {
            return None;
        }
        let pause = self.of.get(&(address, namespace.to_owned()))?;
        let Pause { by, length, runs, spared, .. } = pause;
        (*runs && !spared.contains(uid)).then(|| Withheld { by: by.clone(), length: *length })
    }

    /// Whether one is over that was not at the last look.
    pub fn are_due(&self, now: Instant) -> bool {
        self.of.values().any(|pause| pause.runs && pause.due() <= now)
    }

    /// When the next one is over.
    pub fn deadline(&self) -> Option<Instant> {
        self.of.values().filter(|pause| pause.runs).map(Pause::due).min()
    }

    /// Takes in what is shown at `now`. That the status shows the address is what counts: until then nobody is led there.
    pub(super) fn see(
        &mut self,
        services: &BTreeMap<Name, Service>,
        claims: &Claims,
        now: Instant,
    ) {
        self.of.retain(|_, pause| now < pause.last + FORGIVEN);
        for pause in self.of.values_mut().filter(|pause| pause.due() <= now) {
            pause.runs = false;
            pause.spared.clear();
        }
        let mut crossing = BTreeMap::new();
        for (name, service) in services {
            for address in sharing(service, claims) {
                let others = || claims.all_in_the_way(&address, &service.uid, &service.ports);
                let has_more = service.has_more_ports;
                if others().next().is_none() && !has_more {
                    continue;
                }
                let whom = (address, service.uid.clone());
                // What it has of its own namespace beside that, in which order and since when, its author decides.
                let foreign = others().any(|(of, _)| of.namespace != name.namespace)
                    || has_more && claims.is_shared_beyond(&address, &name.namespace);
                let before = self.crossing.get(&whom);
                if before.is_none_or(|was_foreign| foreign && !was_foreign) {
                    let siblings = || siblings(services, claims, address, &name.namespace);
                    let is_first = claims.turn(&address, &service.uid) == Some(0);
                    let edit = Edit { address, by: name, uid: &service.uid, is_first, foreign };
                    self.note(edit, siblings, now);
                }
                crossing.insert(whom, foreign);
            }
        }
        self.crossing = crossing;
    }

    fn note(&mut self, edit: Edit<'_>, siblings: impl FnOnce() -> BTreeSet<String>, now: Instant) {
        let Edit { address, by, uid, is_first, foreign } = edit;
        let begin = || Pause {
            by: by.clone(),
            count: 0,
            last: now,
            length: Duration::ZERO,
            runs: false,
            offenders: BTreeSet::new(),
            spared: BTreeSet::new(),
        };
        let key = (address, by.namespace.clone());
        let pause = self.of.entry(key.clone()).or_insert_with(begin);
        if !pause.runs {
            pause.spared = siblings();
        }
        pause.length = match pause.count {
            0 if is_first => Duration::ZERO,
            count => FIRST.saturating_mul(1 << count.min(16)).min(LONGEST),
        };
        (pause.by, pause.last, pause.runs) = (by.clone(), now, !pause.length.is_zero());
        pause.count = pause.count.saturating_add(1);
        pause.spared.remove(uid);
        if foreign && pause.offenders.len() < MOST_OFFENDERS {
            pause.offenders.insert(uid.to_owned());
        }
        if foreign && pause.offenders.len() >= MOST_OFFENDERS {
            pause.spared.clear();
        }
        if self.of.len() > MOST {
            let others = self.of.iter().filter(|(other, _)| **other != key);
            let least = others.min_by_key(|(_, pause)| (pause.count, pause.last));
            let least = least.map(|(least, _)| least.clone());
            least.into_iter().for_each(|least| _ = self.of.remove(&least));
        }
    }
}

/// The addresses that the status of a Service shows and that it shares.
fn sharing<'a>(service: &'a Service, claims: &'a Claims) -> impl Iterator<Item = IpAddr> + 'a {
    let shown = service.published.iter().filter_map(|ingress| ingress.ip.parse().ok());
    shown.filter(|address| claims.shares(address, &service.uid))
}

/// The uids of those of a namespace that are published at an address that they share.
fn siblings(
    services: &BTreeMap<Name, Service>,
    claims: &Claims,
    address: IpAddr,
    namespace: &str,
) -> BTreeSet<String> {
    let all = services.range(Name::new(namespace, "")..);
    let all = all.take_while(|(name, _)| name.namespace == namespace);
    let there = all.filter(|(_, service)| sharing(service, claims).any(|own| own == address));
    there.map(|(_, service)| service.uid.clone()).collect()
}

#[cfg(test)]
mod tests;
