//! What this node writes into the status of bindings: that it holds the addresses, or why not; and nothing any more once
//! it has released them. Server-side apply takes away only what no later holder has taken over.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::Few;
use berth_api::conflict::Conflicts;
use berth_api::eip::{EipConflict, EipHolder, condition};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

use super::status::Answering;
use crate::dataplane::eip::Nat;
use crate::source::cluster::{Eip, Name};
use crate::source::placement::place_anywhere;
use crate::source::scene::Scene;
use crate::vip::Refusal;

/// The reason of a condition that is true.
const HOLDS: &str = "Holds";

/// Why a node that is named does not hold an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The stable reason.
    pub reason: &'static str,
    /// What it is, for people.
    pub note: String,
}

/// What is known of this node's addresses.
pub struct Outlook<'a> {
    /// What is bound and announced.
    pub answering: &'a Answering,
    /// What is translated.
    pub translated: &'a Nat,
    /// Why nothing can be.
    pub broken: Option<&'a str>,
    /// Those that other claimants had first.
    pub lost: &'a BTreeMap<(Name, IpAddr), Refusal>,
    /// Those of this node that other hosts have.
    pub taken: &'a BTreeMap<IpAddr, Refusal>,
    /// What the kernel said of addresses that it does not take.
    pub refused: &'a BTreeMap<IpAddr, String>,
    /// Why nothing is given to the kernel to translate yet.
    pub awaits: Option<&'static str>,
    /// Where membership decides and no majority answers this node: the voters that do not.
    pub unheard: Option<Few>,
}

/// For so long a node may be on its way with a binding before that is told.
const PATIENCE: Duration = Duration::from_millis(3_500);

/// Since when this node is on its way with bindings, as of which epoch.
#[derive(Debug, Default)]
pub struct Coming(BTreeMap<Name, (i64, Instant)>);

impl Coming {
    /// Takes in how far this node is.
    pub fn see(&mut self, scene: Scene<'_>, outlook: &Outlook<'_>, now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for (name, eip) in scene.cluster.eips() {
            let is_coming = eip.owner() == Some(scene.node)
                && matches!(verdict(scene, name, eip, outlook), Verdict::Coming);
            if is_coming {
                let since = before.remove(name).filter(|(epoch, _)| *epoch == eip.epoch);
                self.0.insert(name.clone(), since.unwrap_or((eip.epoch, now)));
            }
        }
    }

    /// Whether it takes too long.
    pub fn is_late(&self, name: &Name, now: Instant) -> bool {
        self.0.get(name).is_some_and(|(_, since)| *since + PATIENCE <= now)
    }

    /// When the next one does.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|(_, since)| *since + PATIENCE).filter(|due| *due > now).min()
    }
}

/// One server-side apply to a status: everything that this node says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Apply {
    /// The binding.
    pub name: Name,
    /// Its uid: one made anew under the same name is another one.
    pub uid: String,
    /// The version that this was decided on.
    pub version: String,
    /// That this node holds the addresses.
    pub holder: Option<EipHolder>,
    /// `Bound` and `Announced`; none where this node says nothing.
    pub conditions: Vec<Condition>,
    /// Its addresses that other hosts have.
    pub conflicts: Conflicts,
    /// What to tell of them once this is written.
    pub news: Vec<String>,
}

/// Lists the writes that make what this node says true. Empty when all is. `is_late` tells what is on its way for too long.
pub fn applies(
    scene: Scene<'_>,
    outlook: &Outlook<'_>,
    is_late: impl Fn(&Name) -> bool,
    now: Timestamp,
) -> Vec<Apply> {
    let mut applies = Vec::new();
    for (name, eip) in scene.cluster.eips() {
        let said = match eip.owner() == Some(scene.node) {
            true => match verdict(scene, name, eip, outlook) {
                Verdict::Coming if is_late(name) => {
                    let why = outlook.late(scene.node, eip);
                    Some((still(scene, eip, outlook), conditions(eip, Some(&why), now)))
                }
                Verdict::Holds => Some((Some(holder(scene.node, eip)), conditions(eip, None, now))),
                Verdict::Refused(why) => {
                    Some((still(scene, eip, outlook), conditions(eip, Some(&why), now)))
                }
                Verdict::Coming => None,
            },
            // Others may take the address, and berth-ccm give it away, once this is written.
            false => {
                let bound = || eip.addresses().any(|address| scene.host.has(&address));
                (eip.signed && !bound()).then(|| (None, Vec::new()))
            }
        };
        let Some((holder, conditions)) = said else { continue };
        let silent = conditions.is_empty();
        let taken = || {
            let taken = eip.addresses().filter_map(|address| outlook.taken.get(&address));
            taken.filter(move |_| !silent)
        };
        let conflicts: Conflicts = taken().filter_map(Refusal::conflict).collect();
        let is_true = eip.holder == holder && is_shown(eip, &conditions);
        if silent || !is_true || eip.conflicts != conflicts {
            let is_news = |refusal: &&Refusal| {
                refusal
                    .conflict()
                    .is_some_and(|(address, mac)| eip.conflicts.of(&address) != Some(mac))
            };
            let news = taken().filter(is_news).map(Refusal::note).collect();
            let (name, uid, version) = (name.clone(), eip.uid.clone(), eip.version.clone());
            applies.push(Apply { name, uid, version, holder, conditions, conflicts, news });
        }
    }
    applies
}

/// How far this node is with a binding that names it.
enum Verdict {
    Holds,
    Refused(Refused),
    Coming,
}

fn verdict(scene: Scene<'_>, name: &Name, eip: &Eip, outlook: &Outlook<'_>) -> Verdict {
    let Outlook { taken, broken, refused, lost, .. } = outlook;
    if eip.pairs.iter().all(|pair| outlook.serves(pair)) {
        return Verdict::Holds;
    }
    let routed = scene.routed_of_eip(&name.namespace, eip);
    for (address, _) in eip.pairs.iter().filter(|pair| !outlook.serves(pair)) {
        let lost = lost.get(&(name.clone(), *address)).cloned();
        let known = lost.or_else(|| place_anywhere(scene, routed, *address).err());
        let known = known.or_else(|| taken.get(address).cloned());
        let why = match (known, refused.get(address), broken) {
            (Some(refusal), _, _) => Refused { reason: refusal.reason(), note: refusal.note() },
            (_, Some(error), _) => {
                let (node, error) = (scene.node.to_owned(), (*error).clone());
                let refusal = Refusal::NotBound { node, address: *address, error };
                Refused { reason: refusal.reason(), note: refusal.note() }
            }
            (_, _, Some(error)) => Refused {
                reason: "NotTranslated",
                note: format!("{address} cannot be translated on node {}: {error}", scene.node),
            },
            _ => continue,
        };
        return Verdict::Refused(why);
    }
    Verdict::Coming
}

impl Outlook<'_> {
    /// Whether an elastic IP is answered for, and led to its VM.
    fn serves(&self, (eip, vmi): &(IpAddr, IpAddr)) -> bool {
        self.answering.live.contains(eip) && self.translated.serves(eip, vmi)
    }

    /// Why a node is on its way for so long.
    fn late(&self, node: &str, eip: &Eip) -> Refused {
        let mut rest = eip.pairs.iter().filter(|pair| !self.serves(pair));
        let untranslated = rest.clone().find(|(eip, vmi)| !self.translated.serves(eip, vmi));
        // What nobody may ask for is not asked for on the LAN, and so not translated.
        if let Some((address, vmi)) = untranslated.filter(|_| self.unheard.is_none()) {
            let why = self
                .awaits
                .unwrap_or("nothing is heard of its rules, or the LAN is asked for it yet");
            let note = format!("{address} does not lead to {vmi} on node {node} yet: {why}");
            return Refused { reason: "NotTranslated", note };
        }
        let address = rest.next().map(|(address, _)| address.to_string()).unwrap_or_default();
        let who = match self.unheard.as_ref().filter(|few| !few.is_empty()) {
            Some(few) => format!(", which these voters do not: {few}"),
            None => String::new(),
        };
        let note = format!(
            "{address} is not granted to node {node} yet: a majority of the announcers has to answer it{who}, or where Leases \
             decide the API server, and who had the address has to let it go; /readyz of the announcer there says what is wrong"
        );
        Refused { reason: "NotGranted", note }
    }
}

/// The holder that is shown, if it is this node and it answers for one of the addresses as before.
fn still(scene: Scene<'_>, eip: &Eip, outlook: &Outlook<'_>) -> Option<EipHolder> {
    let before = eip.holder.clone().filter(|holder| holder.node == scene.node);
    before.filter(|_| eip.pairs.iter().any(|pair| outlook.serves(pair)))
}

fn holder(node: &str, eip: &Eip) -> EipHolder {
    EipHolder { node: node.to_owned(), epoch: eip.epoch }
}

/// Both conditions: true, or false with this reason.
fn conditions(eip: &Eip, why: Option<&Refused>, now: Timestamp) -> Vec<Condition> {
    let texts = [
        (condition::BOUND, "the node has the addresses, and their rules"),
        (condition::ANNOUNCED, "the node answers for the addresses"),
    ];
    let condition = |(kind, holds): (&str, &str)| {
        let status = if why.is_none() { "True" } else { "False" };
        let before = eip.conditions.iter().find(|shown| shown.type_ == kind);
        let same = before.filter(|shown| shown.status == status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: why.map_or(HOLDS, |why| why.reason).to_owned(),
            message: why.map_or(holds, |why| &why.note).to_owned(),
            last_transition_time: same
                .map_or(Time(now), |shown| shown.last_transition_time.clone()),
            observed_generation: eip.generation,
        }
    };
    texts.map(condition).into()
}

fn is_shown(eip: &Eip, conditions: &[Condition]) -> bool {
    conditions.iter().all(|condition| eip.conditions.contains(condition))
}

impl Apply {
    /// The object to apply to the status subresource. With uid and version in it the API server refuses it if the binding has
    /// changed since: berth-ccm may have named another node.
    pub fn object(&self) -> Value {
        let mut status = json!({});
        if let Some(holder) = &self.holder {
            status["holder"] = json!(holder);
        }
        if !self.conditions.is_empty() {
            status["conditions"] = json!(self.conditions);
        }
        if !self.conflicts.is_empty() {
            status["conflicts"] = json!(EipConflict::list(&self.conflicts));
        }
        let mut object = json!({
            "apiVersion": "berth.dev/v1alpha1",
            "kind": "EipBinding",
            "metadata": {
                "namespace": self.name.namespace,
                "name": self.name.name,
                "uid": self.uid,
                "resourceVersion": self.version,
            },
        });
        // Who applies an empty status goes on to sign it, and would take it back for ever.
        if status != json!({}) {
            object["status"] = status;
        }
        object
    }
}

#[cfg(test)]
mod tests;
