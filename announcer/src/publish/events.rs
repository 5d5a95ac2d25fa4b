//! What to tell people about Services: each refusal once, and only if it lasts. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use berth_api::eip::EipBinding;
use berth_api::names::annotation;
use berth_api::reason;
use berth_runtime::events::{Report, Severity};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;

use crate::source::cluster::{Cluster, Name};
use crate::vip::{Refusal, Verdict};

/// A refusal that is over sooner is none: a Service is there a moment before its endpoints.
const LASTING: Duration = Duration::from_secs(2);

/// The refusals that hold, and which of them have been told.
#[derive(Debug, Default)]
pub struct Refusals {
    of: BTreeMap<(Name, String), Held>,
}

#[derive(Debug)]
struct Held {
    refusal: Refusal,
    since: Instant,
    told: bool,
}

impl Refusals {
    /// Takes in the refusals that hold now.
    pub fn keep(&mut self, verdicts: &BTreeMap<Name, Verdict>, now: Instant) {
        let refused = |(name, text): &(Name, String)| {
            let verdict = verdicts.get(name);
            verdict.is_some_and(|verdict| verdict.refusals.iter().any(|r| r.note() == *text))
        };
        self.of.retain(|key, _| refused(key));
        for (name, verdict) in verdicts {
            for refusal in &verdict.refusals {
                let begin = || Held { refusal: refusal.clone(), since: now, told: false };
                self.of.entry((name.clone(), refusal.note())).or_insert_with(begin);
            }
        }
    }

    /// The reports that are due.
    pub fn poll(&mut self, cluster: &Cluster, now: Instant) -> Vec<Report> {
        let mut reports = Vec::new();
        for ((name, note), held) in &mut self.of {
            if held.told || now < held.due() {
                continue;
            }
            held.told = true;
            let uid = cluster.services().get(name).map(|service| service.uid.clone());
            reports.push(Report {
                regarding: service_reference(name, uid),
                severity: severity(&held.refusal),
                reason: held.refusal.reason(),
                action: "Announce",
                note: note.clone(),
            });
        }
        reports
    }

    /// When [`Refusals::poll`] has something to give next.
    pub fn deadline(&self) -> Option<Instant> {
        self.of.values().filter(|held| !held.told).map(Held::due).min()
    }

    /// How many refusals hold, by reason.
    pub fn by_reason(&self) -> BTreeMap<&'static str, usize> {
        let mut count = BTreeMap::new();
        for held in self.of.values() {
            *count.entry(held.refusal.reason()).or_default() += 1;
        }
        count
    }
}

impl Held {
    /// When it has lasted long enough. What another host has is not over by itself.
    fn due(&self) -> Instant {
        match self.refusal {
            Refusal::AddressConflict { .. } => self.since,
            _ => self.since + LASTING,
        }
    }
}

/// Tells that somebody else writes the status of a Service that this node announces.
pub fn contested(name: &Name, cluster: &Cluster) -> Report {
    let uid = cluster.services().get(name).map(|service| service.uid.clone());
    Report {
        regarding: service_reference(name, uid),
        severity: Severity::Warning,
        reason: reason::STATUS_CONTESTED,
        action: "Publish",
        note: format!(
            "another program undoes status.loadBalancer.ingress or {} again and again; it is written ever more \
             slowly: find the other one (metadata.managedFields names it) and stop it, or give the Service a \
             loadBalancerClass of its own",
            annotation::VIP_HOST
        ),
    }
}

fn severity(refusal: &Refusal) -> Severity {
    match refusal {
        Refusal::NoEndpoint => Severity::Normal,
        _ => Severity::Warning,
    }
}

/// A Service, for an Event about it.
pub fn service_reference(name: &Name, uid: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: Some(name.namespace.clone()),
        name: Some(name.name.clone()),
        uid,
        ..Default::default()
    }
}

/// An `EipBinding`, for an Event about it.
pub fn eip_reference(name: &Name, uid: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some(EipBinding::api_version(&()).into_owned()),
        kind: Some(EipBinding::kind(&()).into_owned()),
        ..service_reference(name, uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> BTreeMap<Name, Verdict> {
        let verdict = Verdict { refusals: vec![Refusal::NoEndpoint], ..Verdict::default() };
        [(Name::new("d", "web"), verdict)].into()
    }

    #[test]
    fn a_refusal_is_told_once_and_only_if_it_lasts() {
        let now = Instant::now();
        let (cluster, mut refusals) = (Cluster::default(), Refusals::default());
        refusals.keep(&refused(), now);
        assert_eq!(refusals.poll(&cluster, now), []);
        assert_eq!(refusals.deadline(), Some(now + LASTING));
        refusals.keep(&refused(), now + LASTING);
        let reports = refusals.poll(&cluster, now + LASTING);
        assert_eq!((reports.len(), reports[0].reason), (1, "NoEndpoint"));
        refusals.keep(&refused(), now + LASTING * 2);
        assert_eq!(refusals.poll(&cluster, now + LASTING * 2), []);
    }

    #[test]
    fn a_refusal_that_is_over_at_once_is_never_told() {
        let now = Instant::now();
        let (cluster, mut refusals) = (Cluster::default(), Refusals::default());
        refusals.keep(&refused(), now);
        refusals.keep(&BTreeMap::new(), now + LASTING / 2);
        assert_eq!(refusals.poll(&cluster, now + LASTING), []);
        assert!(refusals.by_reason().is_empty());
    }
}
