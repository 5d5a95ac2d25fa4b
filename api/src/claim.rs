//! What a claim, an `IPAddress` (networking.k8s.io/v1) with the label [`label::IP_ADDRESS_MANAGED_BY`] of
//! [`label::BERTH`], says of who holds its address. berth-ccm writes it; nobody with rights in namespaces alone can.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::networking::v1::IPAddress;
use serde::{Deserialize, Serialize};

use crate::NamespacedName;
use crate::names::{annotation, label};
use crate::service::{Port, Protocol};

/// One of the Services that share an address, as [`annotation::HOLDERS`] has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenHolder {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Since when it holds the address, in seconds since 1970.
    pub since: i64,
    /// `spec.externalTrafficPolicy`.
    #[serde(default, skip_serializing_if = "is_cluster")]
    pub policy: WrittenPolicy,
    /// Such as `TCP/80`.
    pub ports: Vec<String>,
}

/// `spec.externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WrittenPolicy {
    /// `Cluster`.
    #[default]
    Cluster,
    /// `Local`.
    Local,
}

fn is_cluster(policy: &WrittenPolicy) -> bool {
    *policy == WrittenPolicy::Cluster
}

/// When only what a claim names is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClaimPolicy {
    /// Always.
    Required,
    /// Never: what a Service asks for is served, as where another program than berth-ccm gives the addresses.
    #[default]
    Ignored,
    /// As soon as berth-ccm has claimed all that Services and bindings had, which its Lease says ([`annotation::RESTING`]).
    Imported,
}

/// Whether the claim was made for who had the address already, by another controller's hand: then an announcer of before
/// may have left it on a node.
pub fn is_imported(object: &IPAddress) -> bool {
    let annotations = object.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.get(annotation::IMPORTED).is_some_and(|text| text == "true"))
}

/// Whether berth-ccm says on its Lease that it has claimed whatever had an address ([`annotation::RESTING`]). That holds while
/// nobody has the Lease, too, but not under a holder that did not say so: kube-vip-cloud-provider, which takes this Lease, leaves
/// annotations as they are.
pub fn is_import_complete(lease: &Lease) -> bool {
    let annotations = lease.metadata.annotations.as_ref();
    let annotated = |name: &str| annotations.and_then(|all| all.get(name));
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
    let holder = holder.filter(|holder| !holder.is_empty());
    annotated(annotation::RESTING).is_some()
        && match (annotated(annotation::RESTING_BY), holder) {
            // It was written before this was.
            (None, _) | (_, None) => true,
            (Some(by), Some(holder)) => by == holder,
        }
}

/// The pool that the address is of, by the namespace in its keys (`global`, too); nothing where it is of none.
pub fn pool(object: &IPAddress) -> Option<&str> {
    let annotations = object.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(annotation::POOL)).map(String::as_str)
}

/// The selector of claims, for lists and watches.
pub fn selector() -> String {
    format!("{}={}", label::IP_ADDRESS_MANAGED_BY, label::BERTH)
}

/// Reads [`annotation::HOLDERS`]; `None` if it is not what berth-ccm writes, or empty.
pub fn read_holders(text: &str) -> Option<Vec<WrittenHolder>> {
    serde_json::from_str::<Vec<WrittenHolder>>(text).ok().filter(|holders| !holders.is_empty())
}

/// One who holds an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// The uid of a Service or an `EipBinding`.
    pub uid: String,
    /// Its namespace and name, and the ports that it was given there; of one that is alone the whole address is.
    pub shares: Option<(NamespacedName, Vec<Port>)>,
}

impl Holder {
    /// The one that has the whole address.
    pub fn alone(uid: impl Into<String>) -> Self {
        Self { uid: uid.into(), shares: None }
    }
}

/// The objects that hold the address, Services and `EipBinding`s, in the order in which they came to hold it.
pub fn holders(object: &IPAddress) -> Vec<Holder> {
    let annotations = object.metadata.annotations.as_ref();
    let annotated = |name: &str| annotations.and_then(|all| all.get(name));
    match annotated(annotation::HOLDERS).and_then(|text| read_holders(text)) {
        Some(mut shared) => {
            shared.sort_by_key(|holder| holder.since);
            shared.into_iter().map(sharer).collect()
        }
        None => annotated(annotation::OWNER_UID).map(Holder::alone).into_iter().collect(),
    }
}

fn sharer(written: WrittenHolder) -> Holder {
    let WrittenHolder { namespace, name, uid, ports, .. } = written;
    let ports = ports.iter().filter_map(|port| read_port(port)).collect();
    Holder { uid, shares: Some((NamespacedName { namespace, name }, ports)) }
}

fn read_port(text: &str) -> Option<Port> {
    let (protocol, number) = text.split_once('/')?;
    Some(Port { protocol: Protocol::named(protocol)?, number: number.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(annotations: serde_json::Value) -> Vec<String> {
        let object = json!({ "metadata": { "name": "10.0.0.1", "annotations": annotations } });
        let holders = holders(&serde_json::from_value(object).unwrap());
        holders.into_iter().map(|holder| holder.uid).collect()
    }

    #[test]
    fn who_holds_an_address_is_who_made_the_claim_or_those_who_share_it() {
        let shared = r#"[{"namespace":"a","name":"b","uid":"one","since":0,"ports":["TCP/80"]},
            {"namespace":"a","name":"c","uid":"two","since":0,"policy":"Local","ports":[]}]"#;
        let (uid, holders) = (annotation::OWNER_UID, annotation::HOLDERS);
        assert_eq!(of(json!({ uid: "one" })), ["one"]);
        assert_eq!(of(json!({ uid: "one", holders: shared })), ["one", "two"]);
        let later = shared.replace(r#""uid":"one","since":0"#, r#""uid":"one","since":7"#);
        assert_eq!(of(json!({ uid: "one", holders: later })), ["two", "one"], "who was first");
        assert_eq!(of(json!({ uid: "one", holders: "[]" })), ["one"]);
        assert_eq!(of(json!({ uid: "one", holders: "{" })), ["one"]);
        assert!(of(json!({})).is_empty());
    }

    #[test]
    fn of_those_that_share_an_address_the_ports_that_each_was_given_are_read() {
        let shared = r#"[{"namespace":"a","name":"b","uid":"one","since":0,"ports":["TCP/80","UDP/53","X/1","TCP/x"]}]"#;
        let object = json!({ "metadata": { "annotations": { annotation::HOLDERS: shared } } });
        let [holder] = &holders(&serde_json::from_value(object).unwrap())[..] else { panic!() };
        let port = |protocol, number| Port { protocol, number };
        let ports = vec![port(Protocol::Tcp, 80), port(Protocol::Udp, 53)];
        assert_eq!(holder.shares, Some((NamespacedName::new("a", "b"), ports)));
    }

    #[test]
    fn the_import_is_complete_under_whoever_said_so_and_under_nobody_but_not_under_a_stranger() {
        let complete = |annotations: &[(&str, &str)], holder: Option<&str>| {
            let annotations: std::collections::BTreeMap<_, _> =
                annotations.iter().copied().collect();
            let lease = json!({ "metadata": { "annotations": annotations }, "spec": { "holderIdentity": holder } });
            is_import_complete(&serde_json::from_value(lease).unwrap())
        };
        let (resting, by) = ((annotation::RESTING, "[]"), (annotation::RESTING_BY, "ccm-0"));
        assert!(!complete(&[], None) && !complete(&[by], Some("ccm-0")));
        assert!(complete(&[resting], Some("any")), "of before it was signed");
        assert!(complete(&[resting, by], Some("ccm-0")));
        assert!(complete(&[resting, by], None) && complete(&[resting, by], Some("")), "given back");
        assert!(!complete(&[resting, by], Some("ccm-0_5e1c")), "kube-vip-cloud-provider's");
    }
}
