//! What to write into the status of Services: what is true now, where this node decides, and nothing else. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_api::conflict::{Conflicts, MacText};
use berth_api::names::{annotation, condition};
use berth_api::reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

use super::announced::{Word, taken_back, word};
use super::shared;
use crate::source::cluster::{Cluster, Ingress, Name, Service};
use crate::vip::{Refusal, Verdict, Voice, Wanted};

/// What is being deleted is gone sooner, unless something holds it.
const GONE: Duration = Duration::from_secs(2);

/// Who is named and announces nothing is up again sooner, if it has only been started anew.
const GIVING_WAY: Duration = Duration::from_secs(5);

/// One write of a Service's status and of the annotations that go with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The Service.
    pub name: Name,
    /// Its uid: a Service made anew under the same name is another one.
    pub uid: String,
    /// The version that this was decided on; the API server refuses the write if there is a newer one.
    pub version: String,
    /// Who announces what, where that changes.
    pub publication: Option<Publication>,
    /// Which addresses other hosts have, where that changes.
    pub notice: Option<Notice>,
    /// What is said of whether it is announced, where that changes.
    pub word: Option<Word>,
    /// Where each node may write it: for how long nobody does, before each has its turn.
    pub waits: Option<Duration>,
    /// Whether it takes an address out of the status that a claim gives to others, or, where nobody decides on the Service,
    /// any that is not its own to show: that waits for nothing.
    pub takes_out: bool,
    /// Whether it is written whatever came between, if it is the same object: who edits it without end would keep there what
    /// is another's.
    pub insists: bool,
    /// Addresses that are taken out of its status because no claim is known to give them to it: the API server is asked
    /// first, since a watch may be late.
    pub unclaimed: Vec<IpAddr>,
}

/// What the status says of who announces a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The node that announces it; nobody clears the annotation.
    pub vip_host: Option<String>,
    /// What `status.loadBalancer.ingress` is to be.
    pub ingress: Vec<Ingress>,
}

/// What a Service says of its addresses that other hosts have: in an annotation for programs, in a condition for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The addresses; none clears both.
    pub conflicts: Conflicts,
    /// The same for people.
    pub message: String,
    /// Since when the condition is true, where it is already.
    pub since: Option<Time>,
}

/// What this node answers for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answering {
    /// Bound and announced.
    pub live: BTreeSet<IpAddr>,
    /// Bound, whether desired or on its way out.
    pub bound: BTreeSet<IpAddr>,
    /// Desired, bound or not.
    pub kept: BTreeSet<IpAddr>,
    /// Desired, but the kernel refuses it.
    pub failed: BTreeSet<IpAddr>,
}

/// Of which Services something is to be taken out of the status.
#[derive(Clone, Copy, Debug)]
pub struct Removals<'a> {
    /// Nobody decides on them.
    pub clears: &'a BTreeSet<Name>,
    /// The API server did not take the last write: if anything is to be taken out, all is.
    pub stuck: &'a BTreeSet<Name>,
}

/// Lists the writes that make every status true for which this node decides, and that take out of those of `clears` what is
/// not theirs to show, and out of any what is not true of it any more. Empty when all are. What takes out what is another's
/// writes nothing else, so that nobody keeps it by an object that is full: the rest follows. `lasting` gives which refusals of
/// a Service have lasted.
pub fn updates<'a>(
    cluster: &Cluster,
    wanted: &Wanted,
    verdicts: &BTreeMap<Name, Verdict>,
    removals: Removals<'_>,
    lasting: impl Fn(&Name) -> Vec<&'a Refusal>,
    answering: &Answering,
    node: &str,
) -> Vec<Update> {
    let Removals { clears, stuck } = removals;
    let mut updates = Vec::new();
    for (name, verdict) in verdicts {
        let Some(service) = cluster.services().get(name).filter(|service| !service.foreign) else {
            continue;
        };
        let strays = out(wanted, name);
        // What is nobody's harms nobody: who writes it again and again is not fought.
        let is_anothers = |stray: &IpAddr| cluster.claims.are_of(stray);
        // What several nodes announce each may write, in its turn.
        let decides =
            (verdict.voice != Voice::Bystander || verdict.shared.is_some()) && !verdict.left;
        let takes_out = strays.iter().any(is_anothers);
        let shrinks = takes_out || is_stuck(stuck, name, &strays);
        let (publication, notice) = match (decides, shrinks) {
            (false, _) => (None, None),
            (true, true) => (removal(service, name, &strays, stuck, answering), None),
            (true, false) => {
                let publication = match &verdict.shared {
                    Some(could) => publish_shared(service, verdict, could, answering, node)
                        .or_else(|| without(service, &strays, answering)),
                    None => publish(service, verdict, &strays, answering, node),
                };
                (publication, notice(service, verdict))
            }
        };
        let host = match &publication {
            Some(publication) => publication.vip_host.as_deref(),
            None => service.vip_host.as_deref(),
        };
        let mut causes = lasting(name);
        // What is taken out of a status is told in the same write.
        if publication.as_ref().is_some_and(|new| new.ingress.len() < service.published.len()) {
            causes.extend(&verdict.refusals);
        }
        let may_say = |word: &Word| word.is_anybodys || host.is_none_or(|host| host == node);
        let word = match shrinks {
            true => None,
            false => word(service, verdict, &causes, &answering.live).filter(may_say),
        };
        // What is being deleted is written no more for that alone.
        let word = word.filter(|_| !service.ending || publication.is_some());
        // Nor does a word hold up what takes an address out.
        let is_anybodys = verdict.voice == Voice::Bystander || verdict.shared.is_some();
        let gives_way = verdict.shared.is_some()
            && publication
                .as_ref()
                .is_some_and(|new| new.vip_host.is_none() && !new.ingress.is_empty());
        let waits = is_anybodys.then_some(if gives_way { GIVING_WAY } else { Duration::ZERO });
        let word = word.filter(|_| decides || !clears.contains(name));
        if publication.is_some() || notice.is_some() || word.is_some() {
            let news = Update { publication, notice, word, waits, ..nothing(name, service) };
            updates.push(Update { takes_out, ..news });
        }
    }
    let decided: BTreeSet<&Name> = updates.iter().map(|update| &update.name).collect();
    let cleared = clears.iter().filter(|name| !decided.contains(name)).filter_map(|name| {
        let service = cluster.services().get(name)?;
        cleared(cluster, name, service, &out(wanted, name), stuck, answering)
    });
    let cleared: Vec<Update> = cleared.collect();
    let over = cluster.services().iter().filter_map(|(name, service)| over(name, service));
    let is_next = |update: &Update| {
        !decided.contains(&update.name) && !cleared.iter().any(|first| first.name == update.name)
    };
    let over: Vec<Update> = over.filter(is_next).collect();
    updates.extend(cleared.into_iter().chain(over));
    updates
}

/// What takes back what is said of a Service and is not true of it any more.
fn over(name: &Name, service: &Service) -> Option<Update> {
    let word = Some(taken_back(service)?);
    let waits = Some(if service.ending { GONE } else { Duration::ZERO });
    Some(Update { word, waits, ..nothing(name, service) })
}

/// What writes nothing yet.
fn nothing(name: &Name, service: &Service) -> Update {
    Update::of(name.clone(), &service.uid, &service.version)
}

/// What is to be taken out of the status of a Service.
fn out(wanted: &Wanted, name: &Name) -> Vec<IpAddr> {
    wanted.services.get(name).map(|claim| claim.out().copied().collect()).unwrap_or_default()
}

/// What takes out of a status what is not its own to show, where nobody decides on the Service.
fn cleared(
    cluster: &Cluster,
    name: &Name,
    service: &Service,
    strays: &[IpAddr],
    stuck: &BTreeSet<Name>,
    answering: &Answering,
) -> Option<Update> {
    let publication = removal(service, name, strays, stuck, answering)?;
    let unclaimed =
        |address: &IpAddr| !service.ending && !cluster.claims.grant(address, &service.uid);
    let unclaimed = strays.iter().copied().filter(unclaimed).collect();
    let publication = Some(publication);
    Some(Update { publication, takes_out: true, unclaimed, ..nothing(name, service) })
}

/// Whether what is to be taken out of a status is not, because the API server does not take the write.
fn is_stuck(stuck: &BTreeSet<Name>, name: &Name, strays: &[IpAddr]) -> bool {
    !strays.is_empty() && stuck.contains(name)
}

/// What takes `strays` out of a status and makes nothing in the object larger. Where all is taken out that writes nothing at
/// all, not even who manages the rest.
fn removal(
    service: &Service,
    name: &Name,
    strays: &[IpAddr],
    stuck: &BTreeSet<Name>,
    answering: &Answering,
) -> Option<Publication> {
    let rest = without(service, strays, answering)?;
    Some(match is_stuck(stuck, name, strays) {
        true => Publication { vip_host: None, ingress: Vec::new() },
        false => rest,
    })
}

/// What is to be published of a Service, if that is not what its status says.
fn publish(
    service: &Service,
    verdict: &Verdict,
    strays: &[IpAddr],
    answering: &Answering,
    node: &str,
) -> Option<Publication> {
    let live = |address: &&IpAddr| answering.live.contains(*address);
    let settled = |a: &IpAddr| answering.live.contains(a) || answering.failed.contains(a);
    let announced: Vec<IpAddr> = verdict.announce.iter().filter(live).copied().collect();
    if announced.is_empty() {
        // Those that are on their way in will be written when they are here.
        let coming = verdict.announce.iter().any(|address| !answering.failed.contains(address));
        let says = service.vip_host.is_some() || !strays.is_empty();
        if says && !coming && is_silent(service, answering) {
            return Some(Publication { vip_host: None, ingress: Vec::new() });
        }
        return without(service, strays, answering);
    }
    let ingress: Vec<Ingress> =
        announced.iter().map(|address| Ingress::vip(*address, &service.ports)).collect();
    let is_true = service.published == ingress && service.vip_host.as_deref() == Some(node);
    let due = !is_true && verdict.announce.iter().all(settled);
    let publication = due.then(|| Publication { vip_host: Some(node.to_owned()), ingress });
    publication.or_else(|| without(service, strays, answering))
}

/// The same where several nodes announce it at once.
fn publish_shared(
    service: &Service,
    verdict: &Verdict,
    could: &BTreeSet<IpAddr>,
    answering: &Answering,
    node: &str,
) -> Option<Publication> {
    let (vip_host, ingress) = shared::publish(service, verdict, could, &answering.live, node)?;
    // Only then may it be said: others wait for that before they give the address away.
    let may = !ingress.is_empty() || is_silent(service, answering);
    may.then_some(Publication { vip_host, ingress })
}

/// Its status without those of `strays` that are not bound here for it any more, if there are any.
fn without(service: &Service, strays: &[IpAddr], answering: &Answering) -> Option<Publication> {
    let gone: Vec<IpAddr> =
        strays.iter().copied().filter(|address| answering.is_silent(address)).collect();
    let is_gone = |ingress: &&Ingress| {
        ingress.ip.parse().is_ok_and(|address: IpAddr| gone.contains(&address))
    };
    let rest: Vec<Ingress> =
        service.published.iter().filter(|ingress| !is_gone(ingress)).cloned().collect();
    let vip_host = service.vip_host.clone().filter(|_| !rest.is_empty());
    (!gone.is_empty()).then_some(Publication { vip_host, ingress: rest })
}

/// What is to be said of other hosts, if that is not what the Service says.
fn notice(service: &Service, verdict: &Verdict) -> Option<Notice> {
    let found = verdict.conflicts();
    // What was found before stands while it is asked for anew, as by a node that has just taken over.
    let kept: Conflicts = verdict
        .asked
        .iter()
        .filter_map(|address| {
            Some((*address, service.conflict.of(address)?))
                .filter(|_| service.addresses.contains(address))
        })
        .collect();
    let conflicts: Conflicts = kept.iter().chain(found.iter()).collect();
    let shown = service.conflict_shown();
    // Without the annotation, which anybody who edits the Service may take away, nothing is known to be over.
    let is_over = conflicts.is_empty() && shown.is_some();
    if conflicts == service.conflict && !is_over {
        return None;
    }
    let notes = verdict.refusals.iter().filter_map(|refusal| match refusal {
        Refusal::AddressConflict { .. } => Some(refusal.note()),
        _ => None,
    });
    // Each that counts is to be found in the message, with its host.
    let asked = kept.iter().filter(|(address, _)| found.of(address).is_none());
    let notes = notes.chain(asked.map(|(address, mac)| {
        format!(
            "{address} is not announced yet: another host, {}, answered for it, and is asked again",
            MacText(mac)
        )
    }));
    Some(Notice {
        conflicts,
        message: notes.collect::<Vec<_>>().join("; "),
        since: shown.map(|shown| shown.last_transition_time.clone()),
    })
}

/// Whether none of the addresses that a Service has or publishes is still bound for it: only then may it say so,
/// because that is what others wait for before they give the address away.
fn is_silent(service: &Service, answering: &Answering) -> bool {
    let published = service.published.iter().filter_map(|ingress| ingress.ip.parse().ok());
    let mut addresses = published.chain(service.addresses.iter().copied());
    addresses.all(|address: IpAddr| answering.is_silent(&address))
}

impl Answering {
    /// Whether an address is not bound any more for who has it no longer. One that another Service shares stays.
    fn is_silent(&self, address: &IpAddr) -> bool {
        !self.bound.contains(address) || self.kept.contains(address)
    }
}

impl Update {
    /// Writes nothing yet.
    pub(super) fn of(name: Name, uid: &str, version: &str) -> Self {
        Self {
            name,
            uid: uid.to_owned(),
            version: version.to_owned(),
            publication: None,
            notice: None,
            word: None,
            waits: None,
            takes_out: false,
            insists: false,
            unclaimed: Vec::new(),
        }
    }

    /// Whether it says what the Service says, in other words, and nothing else.
    pub(super) fn rewords(&self) -> bool {
        self.publication.is_none()
            && self.notice.is_none()
            && self.word.as_ref().is_some_and(Word::rewords)
    }

    /// The strategic merge patch for the status subresource. It carries uid and version, so that it can only change what was
    /// decided on, but for who insists; everything it does not name stays as it is, conditions of other types among it. `now`
    /// is when a condition begins to hold.
    pub fn patch(&self, now: Timestamp) -> Value {
        let mut patch = json!({
            "metadata": { "uid": self.uid, "annotations": {} },
            "status": {},
        });
        if !self.insists {
            patch["metadata"]["resourceVersion"] = json!(self.version);
        }
        if let Some(publication) = &self.publication {
            // What takes out leaves the name of a node as it is, and does not bring back one that was taken away meanwhile.
            if !self.takes_out || publication.vip_host.is_none() {
                patch["metadata"]["annotations"][annotation::VIP_HOST] =
                    json!(publication.vip_host);
            }
            patch["status"]["loadBalancer"] = json!({ "ingress": publication.shown() });
        }
        let notice = self.notice.as_ref().filter(|_| !self.insists);
        if let Some(notice) = notice {
            let conflicts = Some(notice.conflicts.to_string()).filter(|text| !text.is_empty());
            patch["metadata"]["annotations"][annotation::CONFLICT] = json!(conflicts);
        }
        let word = self.word.as_ref().filter(|_| !self.insists).map(|word| word.patch(now));
        let notice = notice.and_then(|notice| notice.condition(now));
        let conditions: Vec<Value> = notice.into_iter().chain(word).collect();
        if !conditions.is_empty() {
            patch["status"]["conditions"] = json!(conditions);
        }
        patch
    }
}

impl Publication {
    fn shown(&self) -> Option<Vec<Value>> {
        let port = |(protocol, port): &(String, i32)| json!({ "protocol": protocol, "port": port });
        let entry = |ingress: &Ingress| {
            let ports: Vec<Value> = ingress.ports.iter().map(port).collect();
            let mut entry = json!({});
            if !ports.is_empty() {
                entry["ports"] = json!(ports);
            }
            let ip = Some(&ingress.ip).filter(|ip| !ip.is_empty());
            let named = [("ip", ip), ("hostname", ingress.hostname.as_ref())];
            for (field, value) in named.into_iter().chain([("ipMode", ingress.ip_mode.as_ref())]) {
                value.into_iter().for_each(|value| entry[field] = json!(value));
            }
            entry
        };
        Some(self.ingress.iter().map(entry).collect())
            .filter(|shown: &Vec<Value>| !shown.is_empty())
    }
}

impl Notice {
    fn condition(&self, now: Timestamp) -> Option<Value> {
        if self.conflicts.is_empty() {
            let gone = json!({ "type": condition::ADDRESS_CONFLICT, "$patch": "delete" });
            return self.since.is_some().then_some(gone);
        }
        Some(json!(Condition {
            type_: condition::ADDRESS_CONFLICT.to_owned(),
            status: "True".to_owned(),
            reason: reason::ADDRESS_CONFLICT.to_owned(),
            message: self.message.clone(),
            last_transition_time: self.since.clone().unwrap_or(Time(now)),
            observed_generation: None,
        }))
    }
}

#[cfg(test)]
mod tests;
