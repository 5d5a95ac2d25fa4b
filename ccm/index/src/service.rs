//! Owns what is kept of a Service: only what decides about its addresses, so that thousands fit in little memory.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use berth_api::NamespacedName;
use berth_api::address::{self, List};
use berth_api::conflict::Conflicts;
use berth_api::lean::Lean;
use berth_api::limits::{MOST_PORTS, MOST_SHOWN, name_of};
use berth_api::names::{annotation, condition, label};
use berth_api::reason;
use berth_api::service::{self as contract, ClassPolicy, NotOurs};
use berth_ipam::{
    Families, Family, FamilyPolicy, Owner, OwnerKind, Protocol, Sharing, TrafficPolicy,
};
use k8s_openapi::api::core::v1::Service as Object;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::finalizers::Finalizers;

/// Whose business a Service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It is to have addresses.
    Ours,
    /// It says that Berth is to leave it alone: what it has, it keeps.
    Ignored,
    /// Its type or class is not ours: what it had from us is released.
    Foreign,
}

/// A Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Namespace and name.
    pub key: NamespacedName,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `metadata.creationTimestamp`, in seconds since 1970: who waits longest is served first.
    pub created: i64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whose business it is.
    pub standing: Standing,
    /// The families it wants.
    pub families: Families,
    /// Its ports and traffic policy.
    pub sharing: Sharing,
    /// A number for the pods that it leads to, where only nodes with one of them take its traffic.
    pub pods: Option<u64>,
    /// The annotation `kube-vip.io/loadbalancerIPs`, as written, as far as it is read ([`address::beginning`]).
    pub annotated: Option<String>,
    /// `spec.loadBalancerIP`, as written, as far as it is read.
    pub deprecated: Option<String>,
    /// How many entries of both are not read, since there are too many.
    pub left_out: usize,
    /// Whether the annotation `kube-vip.io/serviceInterface` is set.
    pub has_interface: bool,
    /// Whether it carries `implementation=kube-vip`.
    pub labelled: bool,
    /// `metadata.finalizers`.
    pub finalizers: Finalizers,
    /// The node whose announcer says that it holds its addresses (`kube-vip.io/vipHost`).
    pub host: Option<String>,
    /// The addresses in `status.loadBalancer.ingress`.
    pub published: Vec<IpAddr>,
    /// Its addresses that another host on the LAN answers for, as an announcer has written.
    pub conflicts: Conflicts,
    /// Those of `status.conditions` that berth-ccm writes.
    pub conditions: Vec<Condition>,
}

impl Service {
    /// Reads an object; `None` if it has no name, as none from an API server.
    pub fn read(lean: &Lean<Object, Finalizers>, classes: &ClassPolicy) -> Option<Self> {
        let object = &lean.object;
        let metadata = &object.metadata;
        let labels = metadata.labels.as_ref();
        let owned = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let read = |text: Option<&str>| {
            let (text, left_out) = address::beginning(text.unwrap_or_default());
            (owned(Some(text)), left_out)
        };
        let (annotated, more) = read(contract::annotated(object, annotation::LOADBALANCER_IPS));
        let (deprecated, rest) =
            read(object.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_deref()));
        Some(Self {
            key: NamespacedName::read(metadata)?,
            uid: metadata.uid.clone().unwrap_or_default(),
            version: metadata.resource_version.clone().unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            deleting: metadata.deletion_timestamp.is_some(),
            standing: match contract::claimed(object, classes) {
                Ok(()) => Standing::Ours,
                Err(NotOurs::Ignored) => Standing::Ignored,
                Err(NotOurs::OtherType | NotOurs::OtherClass) => Standing::Foreign,
            },
            families: families(object),
            sharing: sharing(object),
            pods: pods(object),
            annotated,
            deprecated,
            left_out: more + rest,
            has_interface: contract::annotated(object, annotation::SERVICE_INTERFACE).is_some(),
            labelled: labels
                .and_then(|labels| labels.get(label::IMPLEMENTATION))
                .map(String::as_str)
                == Some(label::IMPLEMENTATION_VALUE),
            finalizers: lean.taken,
            host: owned(contract::annotated(object, annotation::VIP_HOST).map(name_of)),
            published: contract::published(object).take(MOST_SHOWN).collect(),
            conflicts: Conflicts::of_service(object),
            conditions: ours(object),
        })
    }

    /// Whether anything about it can concern us. What cannot is not kept.
    pub fn concerns(&self) -> bool {
        self.standing != Standing::Foreign
            || self.labelled
            || self.has_finalizer()
            || self.says_silence()
    }

    /// Its condition of that type, if it is one that is read.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|shown| shown.type_ == kind)
    }

    /// Whether its condition `berth.dev/Announced` is a word of ours.
    pub fn says_silence(&self) -> bool {
        self.condition(condition::ANNOUNCED).is_some_and(|shown| {
            shown.status == "False" && reason::OF_SILENCE.contains(&shown.reason.as_str())
        })
    }

    /// Whether it is to hold no address from us, or none any longer.
    pub fn is_ending(&self) -> bool {
        self.deleting || self.standing == Standing::Foreign
    }

    /// It as a holder of addresses.
    pub fn owner(&self) -> Owner {
        Owner::new(OwnerKind::Service, &self.key.namespace, &self.key.name, &self.uid)
    }

    /// Whether it carries our finalizer.
    pub fn has_finalizer(&self) -> bool {
        self.finalizers.ours.is_some()
    }

    /// Its ports and policy, by which it can share an address; `None` where the ports are too many to be written into a
    /// claim.
    pub fn shares(&self) -> Option<&Sharing> {
        Some(&self.sharing).filter(|sharing| sharing.ports.len() <= MOST_PORTS)
    }

    /// Whether no announcer says that it answers for its addresses.
    pub fn is_silent(&self) -> bool {
        self.host.is_none() && self.published.is_empty()
    }

    /// Whether it says that it has been given its addresses, by us or by the stock provider. Its user can say so, too.
    pub fn is_served(&self) -> bool {
        self.labelled || !self.published.is_empty()
    }

    /// The list in its annotation.
    pub fn annotation(&self) -> List {
        List::parse(self.annotated.as_deref().unwrap_or_default())
    }

    /// The list in its deprecated field.
    pub fn field(&self) -> List {
        List::parse(self.deprecated.as_deref().unwrap_or_default())
    }

    /// Whether somebody serves it at these addresses for what its deprecated field alone says. kube-vip lets the address go,
    /// until it begins anew, where an annotation comes that says the same.
    pub fn is_served_by_field(&self, addresses: &[IpAddr]) -> bool {
        self.annotated.is_none()
            && matches!(addresses, [only] if self.published == [*only])
            && self.field().addresses().eq(addresses.iter().copied())
    }

    /// Which addresses it asks for, given what it holds. `is_newer` tells whether the claim of one held address was
    /// made after that of another.
    ///
    /// What differs from the claims is the request, and the annotation wins. In the middle of a move both the old and
    /// the new address are held: then the newer claim shows which one was asked for.
    pub fn pins(
        &self,
        held: &BTreeSet<IpAddr>,
        is_newer: impl Fn(IpAddr, IpAddr) -> bool,
    ) -> Vec<IpAddr> {
        let annotated: Vec<IpAddr> = self.annotation().addresses().collect();
        let field: Vec<IpAddr> = self.field().addresses().collect();
        let asks = |list: &[IpAddr]| {
            list.iter().any(|address| !address.is_unspecified() && !held.contains(address))
        };
        if annotated.is_empty() {
            return field;
        }
        let left = |old: &IpAddr| {
            !annotated.contains(old) && annotated.iter().any(|new| same_family(old, new))
        };
        if asks(&annotated) || !held.iter().any(left) {
            return if !asks(&annotated) && asks(&field) { field } else { annotated };
        }
        let overtakes = |new: &IpAddr| {
            let same = annotated.iter().find(|old| same_family(old, new));
            held.contains(new)
                && same.is_some_and(|old| old != new && held.contains(old) && is_newer(*new, *old))
        };
        if field.iter().any(overtakes) { field } else { annotated }
    }
}

fn ours(object: &Object) -> Vec<Condition> {
    let conditions = object.status.as_ref().and_then(|status| status.conditions.as_deref());
    let shown = conditions.unwrap_or_default().iter();
    let read = [condition::ADDRESS_ALLOCATED, condition::ANNOUNCED];
    shown.filter(|shown| read.contains(&shown.type_.as_str())).cloned().collect()
}

fn same_family(one: &IpAddr, other: &IpAddr) -> bool {
    Family::of(*one) == Family::of(*other)
}

/// The family, in the words of the ledger.
pub(crate) fn family(family: berth_api::Family) -> Family {
    match family {
        berth_api::Family::V4 => Family::V4,
        berth_api::Family::V6 => Family::V6,
    }
}

fn families(object: &Object) -> Families {
    let policy = match contract::family_policy(object) {
        contract::FamilyPolicy::SingleStack => FamilyPolicy::SingleStack,
        contract::FamilyPolicy::PreferDualStack => FamilyPolicy::PreferDualStack,
        contract::FamilyPolicy::RequireDualStack => FamilyPolicy::RequireDualStack,
    };
    Families::new(policy, contract::families(object).into_iter().map(family).collect::<Vec<_>>())
}

/// A number for the pods that a Service with `externalTrafficPolicy: Local` leads to: the same for all of a namespace with one
/// selector, and one of its own for a Service without a selector.
fn pods(object: &Object) -> Option<u64> {
    if !contract::is_local(object) {
        return None;
    }
    let selector = object.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = selector.filter(|selector| !selector.is_empty());
    let mut hasher = DefaultHasher::new();
    object.metadata.namespace.hash(&mut hasher);
    match selector {
        Some(selector) => selector.hash(&mut hasher),
        None => object.metadata.uid.hash(&mut hasher),
    }
    Some(hasher.finish())
}

fn sharing(object: &Object) -> Sharing {
    // One more than it may have to share its addresses.
    let ports = contract::ports(object).into_iter().take(MOST_PORTS + 1).map(|port| {
        let protocol = match port.protocol {
            contract::Protocol::Tcp => Protocol::Tcp,
            contract::Protocol::Udp => Protocol::Udp,
            contract::Protocol::Sctp => Protocol::Sctp,
        };
        (protocol, port.number)
    });
    let policy =
        if contract::is_local(object) { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
    Sharing { ports: ports.collect(), policy }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_user_fills_with_a_quarter_of_a_megabyte_costs_no_memory() {
        for unit in ["192.0.2.1,", "1::,", "!a,", "a", "192.0.2.1=02:00:00:00:00:0a,"] {
            let text = unit.repeat(261_900 / unit.len());
            let object = json!({
                "metadata": { "namespace": "shop", "name": "web", "annotations": {
                    annotation::LOADBALANCER_IPS: text,
                    annotation::SERVICE_INTERFACE: text,
                    annotation::VIP_HOST: text,
                    annotation::CONFLICT: text,
                } },
                "spec": { "type": "LoadBalancer", "loadBalancerIP": text },
            });
            let object = serde_json::from_value(object).unwrap();
            let service = Service::read(&object, &ClassPolicy::default()).unwrap();
            let kept = format!("{service:?}").len();
            assert!(kept < 4_000 && service.left_out > 0, "{unit}: {kept}, {}", service.left_out);
        }
    }

    #[test]
    fn a_hundred_thousand_finalizers_and_conditions_cost_no_memory() {
        let ours = "service.kubernetes.io/load-balancer-cleanup";
        let mut finalizers: Vec<_> = (0..121_000).map(|n| format!("a/{n:06}")).collect();
        finalizers[7] = ours.to_owned();
        let condition = |kind: &str| {
            json!({
                "type": kind,
                "status": "True",
                "reason": "X",
                "message": "x",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        let mut conditions: Vec<_> = (0..8000).map(|n| condition(&format!("a/{n:06}"))).collect();
        conditions.push(condition("berth.dev/AddressAllocated"));
        conditions.push(condition("berth.dev/AddressConflict"));
        let object = json!({
            "metadata": { "namespace": "shop", "name": "web", "finalizers": finalizers },
            "spec": { "type": "LoadBalancer" },
            "status": { "conditions": conditions },
        });
        let lean = serde_json::from_value(object).unwrap();
        let service = Service::read(&lean, &ClassPolicy::default()).unwrap();
        assert_eq!(service.finalizers, Finalizers { ours: Some(7), others: 120_999 });
        let kept = format!("{lean:?}{service:?}").len();
        assert!(kept < 6_000, "{kept}");
        let kinds = |shown: &[Condition]| -> Vec<_> {
            shown.iter().map(|shown| shown.type_.clone()).collect()
        };
        let read = lean.object.status.unwrap().conditions.unwrap();
        assert_eq!(kinds(&read), ["berth.dev/AddressAllocated", "berth.dev/AddressConflict"]);
        assert_eq!(kinds(&service.conditions), ["berth.dev/AddressAllocated"]);
    }

    #[test]
    fn a_service_with_more_ports_than_fit_into_a_claim_shares_nothing() {
        let read = |count: u16| {
            let ports: Vec<_> = (1..=count).map(|port| json!({ "port": port })).collect();
            let object = json!({
                "metadata": { "namespace": "shop", "name": "web" },
                "spec": { "type": "LoadBalancer", "ports": ports },
            });
            Service::read(&serde_json::from_value(object).unwrap(), &ClassPolicy::default())
                .unwrap()
        };
        assert!(read(1024).shares().is_some());
        let many = read(30_000);
        assert_eq!((many.shares(), many.sharing.ports.len()), (None, 1025));
    }
}
