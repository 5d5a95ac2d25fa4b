//! What to tell Services of ports of this node that are to be closed behind their addresses (`enable_service_security`) and
//! are not: each once, and once that they are. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::reason;
use berth_runtime::events::{Report, Severity};

use super::events::service_reference;
use crate::vip::{Claimant, Name, Wanted};

/// What is mended sooner is not told: a table is tried again after a quarter of a second.
const LASTING: Duration = Duration::from_secs(5);
/// What is mended for less is not: it would be told again and again.
const STEADY: Duration = Duration::from_secs(60);
/// A Service is told no sooner again while it lasts: its Event is gone by then.
const AGAIN: Duration = Duration::from_secs(3600);

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Open {
    since: Option<Instant>,
    /// Since when they are closed, after Services were told that they are not.
    closed: Option<Instant>,
    /// The uid of each Service that was, and when.
    told: BTreeMap<Name, (String, Instant)>,
}

impl Open {
    /// What is news where `node`, which is this one, answers for these addresses, and closes no port behind them.
    pub(super) fn poll(
        &mut self,
        wanted: &Wanted,
        node: &str,
        addresses: &BTreeSet<IpAddr>,
        why: Option<&str>,
        now: Instant,
    ) -> Vec<Report> {
        let Some(why) = why else {
            self.since = None;
            return self.closed(wanted, node, now);
        };
        self.closed = None;
        if now < *self.since.get_or_insert(now) + LASTING {
            return Vec::new();
        }
        self.told.retain(|name, (uid, at)| {
            now < *at + AGAIN && wanted.services.get(name).is_some_and(|claim| claim.uid == *uid)
        });
        let mut reports = Vec::new();
        for want in addresses.iter().filter_map(|own| wanted.vip(*own)).flat_map(|vip| &vip.wants) {
            let Claimant::Service(name) = &want.claimant else { continue };
            if !self.told.contains_key(name) {
                self.told.insert(name.clone(), (want.uid.clone(), now));
                reports.push(report(name, &want.uid, node, why));
            }
        }
        reports
    }

    /// What is news where they are closed: to whoever was told that they are not, wherever its addresses are by now.
    fn closed(&mut self, wanted: &Wanted, node: &str, now: Instant) -> Vec<Report> {
        if self.told.is_empty() || now < *self.closed.get_or_insert(now) + STEADY {
            return Vec::new();
        }
        let told = std::mem::take(&mut self.told).into_iter();
        let there = told.filter(|(name, (uid, _))| {
            wanted.services.get(name).is_some_and(|claim| claim.uid == *uid)
        });
        there.map(|(name, (uid, _))| over(&name, uid, node)).collect()
    }

    /// When there may be news although nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.closed.filter(|_| !self.told.is_empty()).map(|closed| closed + STEADY)
    }
}

fn over(name: &Name, uid: String, node: &str) -> Report {
    Report {
        regarding: service_reference(name, Some(uid)),
        severity: Severity::Normal,
        reason: reason::HOST_PORTS_CLOSED_AGAIN,
        action: "Guard",
        note: format!(
            "node {node} closes its ports behind the addresses of this Service (enable_service_security) again"
        ),
    }
}

fn report(name: &Name, uid: &str, node: &str, why: &str) -> Report {
    Report {
        regarding: service_reference(name, Some(uid.to_owned())),
        severity: Severity::Warning,
        reason: reason::HOST_PORTS_OPEN,
        action: "Guard",
        note: format!(
            "node {node} cannot close its ports behind the addresses of this Service (enable_service_security), and \
             answers for them all the same: {why}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::cluster::testing::service;
    use crate::source::cluster::{Cluster, Service};
    use crate::source::testing::{host, seen};

    #[test]
    fn each_service_is_told_once_an_hour_and_only_of_what_lasts() {
        let (mut cluster, begin) = (Cluster::default(), Instant::now());
        for (name, address) in [("web", "192.0.2.1"), ("tls", "192.0.2.1"), ("far", "192.0.2.2")] {
            let service = Service { uid: name.to_owned(), ..service(&[address]) };
            cluster.apply_service(Name::new("d", name), service);
        }
        let here = ["192.0.2.1".parse().unwrap()].into();
        let mut open = Open::default();
        let mut at = |cluster: &Cluster, why: Option<&str>, second: u64| {
            let wanted = seen(cluster, &host(), Some("eth0"));
            let now = begin + Duration::from_secs(second);
            let told = open.poll(&wanted, "a", &here, why, now);
            let names = told.iter().map(|report| report.regarding.name.clone().unwrap_or_default());
            let end = if why.is_some() { "all the same: no nft" } else { "again" };
            assert!(told.iter().all(|report| report.note.ends_with(end)));
            names.collect::<Vec<_>>().join(" ")
        };
        let missing = Some("no nft");
        assert_eq!(at(&cluster, missing, 0), "");
        assert_eq!(at(&cluster, None, 4), "");
        assert_eq!(at(&cluster, missing, 6), "", "it was there meanwhile");
        assert_eq!(at(&cluster, missing, 11), "tls web");
        assert_eq!(at(&cluster, missing, 12), "");
        assert_eq!(at(&cluster, None, 20), "");
        assert_eq!(at(&cluster, missing, 30), "");
        assert_eq!(at(&cluster, missing, 40), "", "as often as it comes and goes");
        let anew = Service { uid: "anew".to_owned(), ..service(&["192.0.2.1"]) };
        cluster.apply_service(Name::new("d", "web"), anew);
        assert_eq!(at(&cluster, missing, 50), "web");
        assert_eq!(at(&cluster, missing, 3611), "tls");
        assert_eq!(at(&cluster, missing, 3650), "web");
        // Who was told hears of the end, once, when it has lasted; and then of the next time.
        assert_eq!(at(&cluster, None, 3660), "");
        assert_eq!(at(&cluster, missing, 3700), "");
        assert_eq!(at(&cluster, None, 3710), "");
        assert_eq!(at(&cluster, None, 3769), "");
        cluster.delete_service(&Name::new("d", "web"));
        assert_eq!(at(&cluster, None, 3770), "tls", "the other one is gone");
        assert_eq!(at(&cluster, None, 3840), "");
        assert_eq!(at(&cluster, missing, 3900), "");
        assert_eq!(at(&cluster, missing, 3905), "tls");
    }
}
