//! Owns what is kept of an `EipBinding`, and the part of its status that berth-ccm writes.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_api::NamespacedName;
use berth_api::conflict::Conflicts;
use berth_api::eip::{self, EipBinding, EipBindingStatus, EipHolder};
use berth_api::lean::Lean;
use berth_api::limits::{MOST_SHOWN, name_of};
use berth_ipam::{Families, Family, FamilyPolicy, Owner, OwnerKind};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::finalizers::Finalizers;
use crate::service::family;

/// An EipBinding.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// Namespace and name.
    pub key: NamespacedName,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp`, in seconds since 1970.
    pub created: i64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// `metadata.finalizers`.
    pub finalizers: Finalizers,
    /// The machine.
    pub vmi: NamespacedName,
    /// The interface that is asked for.
    pub interface: Option<String>,
    /// Whether it keeps its addresses while the machine does not run.
    pub retain: bool,
    /// The address that is asked for.
    pub pin: Option<IpAddr>,
    /// The families it wants, all of them.
    pub families: Families,
    /// `status.eips`.
    pub eips: Vec<IpAddr>,
    /// `status.node`.
    pub node: Option<String>,
    /// `status.target`.
    pub target: Option<String>,
    /// `status.vmiIPs`.
    pub vmi_ips: Vec<IpAddr>,
    /// `status.epoch`.
    pub epoch: Option<i64>,
    /// `status.observedGeneration`.
    pub observed: Option<i64>,
    /// `status.holder`.
    pub holder: Option<EipHolder>,
    /// `status.conflicts`: its addresses that another host on the LAN answers for, as an announcer has written.
    pub conflicts: Conflicts,
    /// Ours of `status.conditions`, and `Announced` while it is false by the announcer of its node.
    pub conditions: Vec<Condition>,
}

/// What berth-ccm says in the status of an EipBinding: all of it, each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// `eips`.
    pub eips: Vec<IpAddr>,
    /// `node`.
    pub node: Option<String>,
    /// `target`.
    pub target: Option<String>,
    /// `vmiIPs`.
    pub vmi_ips: Vec<IpAddr>,
    /// `epoch`; none before there was anything to count.
    pub epoch: Option<i64>,
    /// `observedGeneration`.
    pub generation: i64,
    /// The conditions `Allocated` and `Ready`.
    pub conditions: [Stated; 2],
}

/// A condition that is to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// Its type.
    pub kind: &'static str,
    /// Whether it is so.
    pub holds: bool,
    /// The stable reason.
    pub reason: Cow<'static, str>,
    /// The same for people.
    pub message: String,
    /// Since when it is so; none for what is so from now on.
    pub since: Option<Timestamp>,
}

impl Stated {
    /// Whether the condition already reads like this. The message may differ: it goes along with the next change.
    pub fn is_shown_by(&self, shown: &Condition) -> bool {
        shown.type_ == self.kind
            && (shown.status == "True") == self.holds
            && shown.reason == self.reason
    }
}

impl Binding {
    /// Reads an object; `None` if it has no name, as none from an API server.
    pub fn read(lean: &Lean<EipBinding, Finalizers>) -> Option<Self> {
        let object = &lean.object;
        let metadata = &object.metadata;
        let empty = EipBindingStatus::default();
        let (spec, status) = (&object.spec, object.status.as_ref().unwrap_or(&empty));
        let addresses = |texts: &[String]| {
            texts.iter().take(MOST_SHOWN).filter_map(|text| text.parse().ok()).collect()
        };
        let namespace = metadata.namespace.clone()?;
        // The schema refuses what is no address.
        let pin: Option<IpAddr> = spec.eip.as_ref().and_then(|text| text.parse().ok());
        Some(Self {
            key: NamespacedName { namespace: namespace.clone(), name: metadata.name.clone()? },
            uid: metadata.uid.clone().unwrap_or_default(),
            version: metadata.resource_version.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            deleting: metadata.deletion_timestamp.is_some(),
            finalizers: lean.taken,
            vmi: NamespacedName { namespace, name: name_of(&spec.vmi).to_owned() },
            // The schema refuses longer ones, where it is installed.
            interface: spec.interface.as_deref().map(|name| name_of(name).to_owned()),
            retain: spec.retain,
            pin,
            families: families(spec.families.as_deref().unwrap_or_default(), pin),
            eips: addresses(&status.eips),
            node: status.node.clone(),
            target: status.target.clone(),
            vmi_ips: addresses(&status.vmi_ips),
            epoch: status.epoch,
            observed: status.observed_generation,
            holder: status.holder.clone(),
            conflicts: status.conflicts(),
            conditions: status.conditions.clone(),
        })
    }

    /// It as a holder of addresses.
    pub fn owner(&self) -> Owner {
        Owner::new(OwnerKind::EipBinding, &self.key.namespace, &self.key.name, &self.uid)
    }

    /// Whether it carries our finalizer.
    pub fn has_finalizer(&self) -> bool {
        self.finalizers.ours.is_some()
    }

    /// Which addresses it asks for, given what it holds: the one in its spec, else those that it had before, should
    /// their claims be gone.
    pub fn pins(&self, held: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
        if let Some(pin) = self.pin {
            return vec![pin];
        }
        let wanted = self.families.wanted();
        let lost = |eip: &&IpAddr| {
            let family = Family::of(**eip);
            wanted.contains(&family) && !held.iter().any(|held| Family::of(*held) == family)
        };
        self.eips.iter().filter(lost).copied().collect()
    }

    /// Whether the announcer may still answer for an address that is none of `eips` any more: it has not carried out
    /// what was written last.
    pub fn lags(&self) -> bool {
        self.holder.as_ref().is_some_and(|holder| Some(holder.epoch) < self.epoch)
    }

    /// Its condition of that type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|shown| shown.type_ == kind)
    }

    /// Why the announcer of its node says that it does not answer for its addresses; nothing if it does, or says nothing.
    pub fn unanswered(&self) -> Option<&Condition> {
        self.condition(eip::condition::ANNOUNCED).filter(|shown| shown.status == "False")
    }

    /// Whether its status says all that.
    pub fn shows(&self, decided: &Decided) -> bool {
        self.is_placed(decided)
            && self.target == decided.target
            && self.observed == Some(decided.generation)
            && decided.conditions.iter().all(|stated| {
                self.condition(stated.kind).is_some_and(|shown| stated.is_shown_by(shown))
            })
    }

    /// Whether its status names these addresses, this node and these addresses of the machine.
    fn is_placed(&self, decided: &Decided) -> bool {
        (&self.eips, &self.node, &self.vmi_ips) == (&decided.eips, &decided.node, &decided.vmi_ips)
    }

    /// The epoch that goes with it: one more than any so far if something is to change. A holder's counts too, in
    /// case that somebody wiped ours out; but not one that leaves none to come.
    pub fn next_epoch(&self, decided: &Decided) -> Option<i64> {
        if self.is_placed(decided) {
            return self.epoch;
        }
        let told = self.holder.as_ref().map(|holder| holder.epoch);
        let newest = self.epoch.max(told.filter(|epoch| *epoch < i64::MAX / 2));
        Some(newest.unwrap_or_default() + 1)
    }
}

/// One address of each family that is named; else one of the family of the address that is asked for, or of IPv4.
fn families(named: &[berth_api::Family], pin: Option<IpAddr>) -> Families {
    let order: Vec<Family> = match named {
        [] => vec![pin.map_or(Family::V4, Family::of)],
        named => named.iter().copied().map(family).collect(),
    };
    let policy =
        if order.len() > 1 { FamilyPolicy::RequireDualStack } else { FamilyPolicy::SingleStack };
    Families::new(policy, order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn read(spec: Value, status: Value) -> Binding {
        let object = json!({
            "apiVersion": "berth.dev/v1alpha1",
            "kind": "EipBinding",
            "metadata": { "namespace": "shop", "name": "web", "uid": "u", "resourceVersion": "5" },
            "spec": spec,
            "status": status,
        });
        Binding::read(&from_value(object).unwrap()).unwrap()
    }

    #[test]
    fn families_follow_the_spec_then_the_address_then_ipv4() {
        let wanted = |spec: Value| read(spec, Value::Null).families.wanted();
        assert_eq!(wanted(json!({ "vmi": "vm" })), [Family::V4]);
        assert_eq!(wanted(json!({ "vmi": "vm", "eip": "2001:db8::1" })), [Family::V6]);
        let dual = json!({ "vmi": "vm", "families": ["IPv6", "IPv4"] });
        assert_eq!(wanted(dual), [Family::V6, Family::V4]);
    }

    #[test]
    fn an_address_whose_claim_is_gone_is_asked_for_again() {
        let spec = json!({ "vmi": "vm", "families": ["IPv4", "IPv6"] });
        let binding = read(spec, json!({ "eips": ["192.0.2.1", "2001:db8::1"] }));
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(binding.pins(&BTreeSet::new()), [ip("192.0.2.1"), ip("2001:db8::1")]);
        assert_eq!(binding.pins(&[ip("192.0.2.1")].into()), [ip("2001:db8::1")]);
        let moved =
            read(json!({ "vmi": "vm", "eip": "192.0.2.9" }), json!({ "eips": ["192.0.2.1"] }));
        assert_eq!(moved.pins(&[ip("192.0.2.1")].into()), [ip("192.0.2.9")]);
    }

    #[test]
    fn an_epoch_that_was_wiped_out_starts_above_that_of_the_holder() {
        let holder = json!({ "holder": { "node": "a", "epoch": 7 } });
        let binding = read(json!({ "vmi": "vm" }), holder);
        let stated = |kind| Stated {
            kind,
            holds: false,
            reason: "X".into(),
            message: String::new(),
            since: None,
        };
        let decided = Decided {
            eips: vec!["192.0.2.1".parse().unwrap()],
            node: None,
            target: None,
            vmi_ips: Vec::new(),
            epoch: None,
            generation: 1,
            conditions: [stated("Allocated"), stated("Ready")],
        };
        assert_eq!(binding.next_epoch(&decided), Some(8));
        let holder = json!({ "epoch": 2, "holder": { "node": "a", "epoch": i64::MAX } });
        let told_the_last = read(json!({ "vmi": "vm" }), holder);
        assert_eq!(told_the_last.next_epoch(&decided), Some(3), "who says so stops nobody");
        let nothing = Decided { eips: Vec::new(), ..decided };
        assert_eq!(binding.next_epoch(&nothing), None);
    }
}
