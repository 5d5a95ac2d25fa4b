//! What this node writes into the status of bindings: that it holds the addresses, or why not; and nothing any more once
//! it has let go. Server-side apply takes away only what no later holder has taken over.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_api::eip::{EipHolder, condition};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

use super::place::is_bound;
use crate::cluster::{Eip, Name};
use crate::desired::{Scene, place_anywhere};
use crate::nat::Nat;
use crate::status::Answering;

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
    /// What the kernel said of addresses that it does not take.
    pub refused: &'a BTreeMap<IpAddr, String>,
}

/// One server-side apply to a status: everything that this node says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Apply {
    /// The binding.
    pub name: Name,
    /// Its uid: one made anew under the same name is another one.
    pub uid: String,
    /// That this node holds the addresses.
    pub holder: Option<EipHolder>,
    /// `Bound` and `Announced`; none where this node says nothing.
    pub conditions: Vec<Condition>,
}

/// Lists the writes that make what this node says true. Empty when all is.
pub fn applies(scene: Scene<'_>, outlook: &Outlook<'_>, now: Timestamp) -> Vec<Apply> {
    let mut applies = Vec::new();
    for (name, eip) in scene.cluster.eips() {
        let said = match eip.owner() == Some(scene.node) {
            true => match verdict(scene, eip, outlook) {
                Verdict::Holds => Some((Some(holder(scene.node, eip)), conditions(eip, None, now))),
                Verdict::Refused(why) => Some((None, conditions(eip, Some(&why), now))),
                Verdict::Coming => None,
            },
            // Others may take the address, and berth-ccm give it away, once this is written.
            false => {
                let bound = eip.addresses().any(|address| is_bound(scene.host, &address));
                (eip.signed && !bound).then(|| (None, Vec::new()))
            }
        };
        let Some((holder, conditions)) = said else { continue };
        let silent = conditions.is_empty();
        if silent || eip.holder != holder || !is_shown(eip, &conditions) {
            let (name, uid) = (name.clone(), eip.uid.clone());
            applies.push(Apply { name, uid, holder, conditions });
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

fn verdict(scene: Scene<'_>, eip: &Eip, outlook: &Outlook<'_>) -> Verdict {
    let Outlook { answering, translated, broken, refused } = outlook;
    let live =
        |(eip, vmi): &(IpAddr, IpAddr)| answering.live.contains(eip) && translated.serves(eip, vmi);
    if eip.pairs.iter().all(live) {
        return Verdict::Holds;
    }
    for (address, _) in eip.pairs.iter().filter(|pair| !live(pair)) {
        let why = match (place_anywhere(scene, *address), refused.get(address), broken) {
            (Err(refusal), _, _) => Refused { reason: refusal.reason(), note: refusal.note() },
            (_, Some(error), _) => {
                Refused { reason: "NotBound", note: format!("{address}: {error}") }
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
    /// The object to apply to the status subresource.
    pub fn object(&self) -> Value {
        let mut status = json!({});
        if let Some(holder) = &self.holder {
            status["holder"] = json!(holder);
        }
        if !self.conditions.is_empty() {
            status["conditions"] = json!(self.conditions);
        }
        json!({
            "apiVersion": "berth.dev/v1alpha1",
            "kind": "EipBinding",
            "metadata": { "namespace": self.name.namespace, "name": self.name.name, "uid": self.uid },
            "status": status,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Cluster;
    use crate::cluster::testing::eip;
    use crate::kernel::{Binding, Host, Interface, Lifetime};
    use crate::nat::{Pair, Stage};

    const EIP: &str = "192.0.2.1";
    const VMI: &str = "10.244.0.4";

    struct Case {
        eip: Eip,
        bound: bool,
        live: bool,
        broken: Option<&'static str>,
    }

    fn decide(case: &Case) -> Vec<Apply> {
        let mut cluster = Cluster::default();
        cluster.apply_eip(Name::new("d", "vm"), case.eip.clone());
        let eth0 = Interface { index: 2, mac: Some([2; 6]), up: true, foreign: [].into() };
        let mut host = Host { interfaces: [("eth0".to_owned(), eth0)].into(), ..Host::default() };
        let address: IpAddr = EIP.parse().unwrap();
        if case.bound {
            host.ours.insert(Binding { index: 2, address }, Lifetime::Forever);
        }
        let live = [address].into_iter().filter(|_| case.live).collect();
        let answering = Answering { live, ..Answering::default() };
        let pair = Pair { vmi: VMI.parse().unwrap(), stage: Stage::Held };
        let translated = Nat { pairs: [(address, pair)].into(), ..Nat::default() };
        let scene = Scene { cluster: &cluster, host: &host, node: "a", interface: Some("eth0") };
        let (answering, translated) = (&answering, &translated);
        let refused = &BTreeMap::new();
        let outlook = Outlook { answering, translated, broken: case.broken, refused };
        applies(scene, &outlook, Timestamp::UNIX_EPOCH)
    }

    fn named() -> Case {
        Case { eip: eip("a", &[(EIP, VMI)]), bound: true, live: true, broken: None }
    }

    #[test]
    fn a_node_says_that_it_holds_once_all_is_so_and_never_again() {
        let mut case = named();
        case.live = false;
        assert_eq!(decide(&case), [], "on its way");
        case.live = true;
        let [apply] = &decide(&case)[..] else { panic!() };
        assert_eq!(apply.object()["status"]["holder"], json!({ "node": "a", "epoch": 7 }));
        let conditions = apply.object()["status"]["conditions"].clone();
        assert_eq!(conditions[0]["type"], "Bound");
        assert_eq!(conditions[1]["status"], "True");
        (case.eip.holder, case.eip.conditions) = (apply.holder.clone(), apply.conditions.clone());
        assert_eq!(decide(&case), []);
        case.eip.epoch = 8;
        assert_eq!(decide(&case)[0].holder.as_ref().unwrap().epoch, 8);
    }

    #[test]
    fn a_node_that_let_go_takes_back_what_it_said_after_the_address_is_off() {
        let mut case = named();
        case.eip.node = Some("b".to_owned());
        case.live = false;
        assert_eq!(decide(&case), [], "it wrote nothing");
        case.eip.signed = true;
        assert_eq!(decide(&case), [], "it is bound");
        case.bound = false;
        let [apply] = &decide(&case)[..] else { panic!() };
        assert_eq!(apply.object()["status"], json!({}));
        case.eip.node = None;
        assert_eq!(decide(&case).len(), 1);
    }

    #[test]
    fn a_node_that_cannot_translate_says_so_and_keeps_the_time_of_the_change() {
        let mut case = named();
        (case.live, case.bound, case.broken) = (false, false, Some("no iptables"));
        let [apply] = &decide(&case)[..] else { panic!() };
        assert_eq!(apply.holder, None);
        assert!(
            apply.conditions.iter().all(|c| c.status == "False" && c.reason == "NotTranslated")
        );
        case.eip.conditions = apply.conditions.clone();
        case.eip.conditions[0].last_transition_time = Time(Timestamp::MAX);
        assert_eq!(decide(&case), []);
    }
}
