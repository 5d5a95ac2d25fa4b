//! What to tell people about Services: each refusal once, and only if it lasts. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use berth_api::eip::EipBinding;
use berth_api::names::annotation;
use berth_api::reason;
use berth_runtime::events::{Report, Severity};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;

use super::announced::MENDED;
use super::rewords::SELDOM;
use super::status::Update;
use crate::source::cluster::{Cluster, Name};
use crate::vip::{Refusal, Verdict, Voice};

/// A refusal that is over sooner is none: a Service is there a moment before its endpoints.
const LASTING: Duration = Duration::from_secs(2);

/// For so long whoever may come to decide on a Service has time to do so. Then each has its turn ([`super::turns`]).
const PATIENCE: Duration = Duration::from_millis(3_300);

/// The refusals that hold, and which of them have been told.
#[derive(Debug, Default)]
pub struct Refusals {
    of: BTreeMap<Name, OfService>,
}

#[derive(Debug, Default)]
struct OfService {
    voice: Voice,
    held: BTreeMap<Refusal, Held>,
}

#[derive(Debug)]
struct Held {
    /// Since when it holds, or one in whose place it came: for whoever is not announced that is one silence, whatever changes in
    /// the words of it.
    since: Instant,
    /// Since when it holds in these words.
    came: Instant,
    /// When the same was told last, in other words that held until then.
    before: Option<Instant>,
    told: Option<Instant>,
}

impl Held {
    /// When it is to be told, unless it was.
    fn due(&self, refusal: &Refusal, voice: Voice) -> Instant {
        let seldom = self.before.map(|before| before + SELDOM);
        due(self.came, refusal, voice).max(seldom.unwrap_or(self.came))
    }
}

impl Refusals {
    /// Takes in the refusals that hold now.
    pub fn keep(&mut self, verdicts: &BTreeMap<Name, Verdict>, now: Instant) {
        let refused = |name: &Name| verdicts.get(name).is_some_and(|v| !v.refusals.is_empty());
        self.of.retain(|name, _| refused(name));
        for (name, verdict) in verdicts.iter().filter(|(_, v)| !v.refusals.is_empty()) {
            let OfService { voice, held: of } = self.of.entry(name.clone()).or_default();
            *voice = verdict.voice;
            let holding: BTreeSet<&Refusal> = verdict.refusals.iter().collect();
            let gone = of.iter().filter(|(all, _)| all.silences() && !holding.contains(all));
            let before = gone.map(|(_, held)| held.since).min();
            let said = of.iter().filter(|(all, _)| !holding.contains(all));
            let said =
                said.filter_map(|(all, held)| Some((all.reason(), held.told.or(held.before)?)));
            let said: Vec<(&str, Instant)> = said.collect();
            of.retain(|refusal, _| holding.contains(refusal));
            for refusal in holding {
                if !of.contains_key(refusal) {
                    let since = before.filter(|_| refusal.silences()).unwrap_or(now);
                    let same = said.iter().filter(|(reason, _)| *reason == refusal.reason());
                    let before = same.map(|(_, told)| *told).max();
                    of.insert(refusal.clone(), Held { since, came: now, before, told: None });
                }
            }
        }
    }

    /// Those of a Service that have lasted.
    pub fn lasting(&self, name: &Name, now: Instant) -> Vec<&Refusal> {
        let Some(OfService { voice, held }) = self.of.get(name) else { return Vec::new() };
        let lasting = held.iter().filter(|(all, held)| due(held.since, all, *voice) <= now);
        lasting.map(|(refusal, _)| refusal).collect()
    }

    /// What this node decides on.
    fn decided(&self) -> impl Iterator<Item = (Voice, &Refusal, &Held)> {
        let decided = self.of.values().filter(|of| of.voice != Voice::Bystander);
        decided.flat_map(|of| of.held.iter().map(|(refusal, held)| (of.voice, refusal, held)))
    }

    /// The reports that are due.
    pub fn poll(&mut self, cluster: &Cluster, now: Instant) -> Vec<Report> {
        let mut reports = Vec::new();
        let held = self.of.iter_mut().filter(|(_, of)| of.voice != Voice::Bystander);
        let held = held.flat_map(|(name, OfService { voice, held })| {
            held.iter_mut().map(move |(refusal, held)| (name, *voice, refusal, held))
        });
        for (name, voice, refusal, held) in held {
            if held.told.is_some() || now < held.due(refusal, voice) {
                continue;
            }
            held.told = Some(now);
            let uid = cluster.services().get(name).map(|service| service.uid.clone());
            reports.push(Report {
                regarding: service_reference(name, uid),
                severity: severity(refusal),
                reason: refusal.reason(),
                action: "Announce",
                note: refusal.note(),
            });
        }
        reports
    }

    /// Takes in that this node, which does not decide on a Service, has told what has lasted.
    pub fn told(&mut self, name: &Name, now: Instant) {
        let Some(OfService { voice, held }) = self.of.get_mut(name) else { return };
        let lasting = held.iter_mut().filter(|(all, held)| due(held.since, all, *voice) <= now);
        lasting.filter(|(all, _)| all.silences()).for_each(|(_, held)| held.told = Some(now));
    }

    /// When [`Refusals::poll`] or [`Refusals::lasting`] has something to give next.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let untold = self.decided().filter(|(.., held)| held.told.is_none());
        let untold = untold.map(|(voice, refusal, held)| held.due(refusal, voice));
        let of_all = self.of.values();
        let lasting =
            of_all.flat_map(|of| of.held.iter().map(|(all, held)| due(held.since, all, of.voice)));
        untold.chain(lasting.filter(|due| *due > now)).min()
    }

    /// How many refusals hold, by reason.
    pub fn by_reason(&self) -> BTreeMap<&'static str, usize> {
        let mut count = BTreeMap::new();
        for (_, refusal, _) in self.decided() {
            *count.entry(refusal.reason()).or_default() += 1;
        }
        count
    }
}

/// When what began then has lasted long enough. What another host has is not over by itself.
fn due(since: Instant, refusal: &Refusal, voice: Voice) -> Instant {
    match (refusal, voice) {
        (Refusal::AddressConflict { .. }, _) | (_, Voice::Lasts) => since,
        // Nobody has had it for a while.
        (Refusal::NotGranted { .. } | Refusal::NoLiveNode { .. }, Voice::Decides) => since,
        (_, Voice::Decides) => since + LASTING,
        (_, Voice::Bystander) => since + PATIENCE,
    }
}

/// Tells what was just said of a Service, if nothing else does: that it is not announced, by who has said so where nobody decides,
/// and that it is again.
pub(super) fn said(update: &Update) -> Option<Report> {
    let word = update.word.as_ref()?;
    let (severity, reason, note) = match word.silence() {
        Some((reason, note)) if update.waits.is_some() => {
            let is_normal = reason == Refusal::NoEndpoint.reason();
            (if is_normal { Severity::Normal } else { Severity::Warning }, reason, note)
        }
        None if word.is_of_a_mend() => (Severity::Normal, reason::ANNOUNCED, MENDED),
        _ => return None,
    };
    Some(Report {
        regarding: service_reference(&update.name, Some(update.uid.clone())),
        severity,
        reason,
        action: "Announce",
        note: note.to_owned(),
    })
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

/// Tells that this is over.
pub fn settled(name: &Name, cluster: &Cluster) -> Report {
    let uid = cluster.services().get(name).map(|service| service.uid.clone());
    Report {
        regarding: service_reference(name, uid),
        severity: Severity::Normal,
        reason: reason::STATUS_SETTLED,
        action: "Publish",
        note: format!(
            "nobody has undone status.loadBalancer.ingress or {} for a quarter of an hour",
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
    use berth_api::service::ClassPolicy;

    use super::*;
    use crate::source::cluster::Service;
    use crate::vip::Claimant;

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
        assert_eq!(refusals.deadline(now), Some(now + LASTING));
        refusals.keep(&refused(), now + LASTING);
        let reports = refusals.poll(&cluster, now + LASTING);
        assert_eq!((reports.len(), reports[0].reason), (1, "NoEndpoint"));
        refusals.keep(&refused(), now + LASTING * 2);
        assert_eq!(refusals.poll(&cluster, now + LASTING * 2), []);
    }

    #[test]
    fn a_silence_has_lasted_whatever_changes_in_its_words_and_sends_no_events_for_that() {
        let now = Instant::now();
        let (cluster, name) = (Cluster::default(), Name::new("d", "web"));
        let mut refusals = Refusals::default();
        let second = LASTING / 2;
        let mut told = Vec::new();
        for (at, by) in (0..6).zip(["x", "y"].into_iter().cycle()) {
            let by = Claimant::Service(Name::new("d", by));
            let refusal = Refusal::NotServedTogether { address: "192.0.2.1".parse().unwrap(), by };
            let mut verdicts = refused();
            verdicts.get_mut(&name).unwrap().refusals = vec![refusal];
            refusals.keep(&verdicts, now + second * at);
            let events = refusals.poll(&cluster, now + second * at).len();
            told.push((refusals.lasting(&name, now + second * at).len(), events));
        }
        assert_eq!(told, [(0, 0), (0, 0), (1, 0), (1, 0), (1, 0), (1, 0)]);
        refusals.keep(&BTreeMap::new(), now + second * 6);
        refusals.keep(&refused(), now + second * 7);
        assert!(refusals.lasting(&name, now + second * 7).is_empty(), "it was announced between");
    }

    #[test]
    fn the_same_in_other_words_is_told_once_a_minute() {
        let now = Instant::now();
        let (cluster, name) = (Cluster::default(), Name::new("d", "web"));
        let (mut refusals, mut told) = (Refusals::default(), Vec::new());
        for second in (0..150).step_by(3) {
            let now = now + Duration::from_secs(second);
            let by = Claimant::Service(Name::new("d", second.to_string()));
            let refusal = Refusal::NotServedTogether { address: "192.0.2.1".parse().unwrap(), by };
            let mut verdicts = refused();
            verdicts.get_mut(&name).unwrap().refusals = vec![refusal];
            refusals.keep(&verdicts, now);
            let events = refusals.poll(&cluster, now + LASTING).len();
            told.extend((events > 0).then_some(second));
        }
        assert_eq!(told, [0, 60, 120]);
    }

    #[test]
    fn what_has_lasted_is_told_at_once_and_whoever_may_come_to_decide_is_waited_for() {
        let now = Instant::now();
        let (cluster, name) = (Cluster::default(), Name::new("d", "web"));
        let told = |voice: Voice, after: Duration| {
            let (mut refusals, mut verdicts) = (Refusals::default(), refused());
            verdicts.get_mut(&name).unwrap().voice = voice;
            refusals.keep(&verdicts, now);
            let events = refusals.poll(&cluster, now + after).len();
            (refusals.lasting(&name, now + after).len(), events)
        };
        assert_eq!(told(Voice::Decides, Duration::ZERO), (0, 0));
        assert_eq!(told(Voice::Decides, LASTING), (1, 1));
        assert_eq!(told(Voice::Lasts, Duration::ZERO), (1, 1));
        assert_eq!(told(Voice::Bystander, LASTING), (0, 0));
        assert_eq!(told(Voice::Bystander, PATIENCE), (1, 0), "each node would send an Event");
    }

    #[test]
    fn what_it_has_told_where_nobody_decided_it_does_not_tell_again_when_it_comes_to_decide() {
        let (now, name) = (Instant::now(), Name::new("d", "web"));
        for (tells, events) in [(false, 1), (true, 0)] {
            let (mut refusals, mut verdicts) = (Refusals::default(), refused());
            verdicts.get_mut(&name).unwrap().voice = Voice::Bystander;
            refusals.keep(&verdicts, now);
            if tells {
                refusals.told(&name, now + PATIENCE);
            }
            refusals.keep(&refused(), now + PATIENCE);
            assert_eq!(refusals.poll(&Cluster::default(), now + PATIENCE).len(), events);
        }
    }

    #[test]
    fn fifty_thousand_unreadable_entries_are_one_refusal_and_a_round_with_them_takes_no_time() {
        let text: Vec<String> = (0..51_000).map(|n| format!("!{n:03x}")).collect();
        let object = serde_json::json!({
            "metadata": { "annotations": { annotation::PREFERRED_NODES: text.join(",") } },
            "spec": { "type": "LoadBalancer" },
        });
        let object = serde_json::from_value(object).unwrap();
        let service = Service::read(&object, &ClassPolicy::default());
        let verdict = Verdict { refusals: service.remarks.to_vec(), ..Verdict::default() };
        let verdicts = [(Name::new("d", "web"), verdict)].into();
        let (mut refusals, begin) = (Refusals::default(), Instant::now());
        for _ in 0..100 {
            refusals.keep(&verdicts, begin);
        }
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
        let reports = refusals.poll(&Cluster::default(), begin + LASTING);
        let notes: Vec<&str> = reports.iter().map(|report| report.note.as_str()).collect();
        let [note] = notes[..] else { panic!("{notes:?}") };
        assert!(note.contains(r#"has "!000", "!001", "!002" and 50997 more"#), "{note}");
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
