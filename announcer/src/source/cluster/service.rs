//! What is kept of a Service.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_api::conflict::Conflicts;
use berth_api::names::{annotation, condition, label};
use berth_api::preference::{InvalidPreference, Preference};
use berth_api::service::{self, ClassPolicy, MOST_ADDRESSES, NotOurs, Port, Protocol};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// A Service, as far as announcing it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `metadata.creationTimestamp`, as it is written: it sorts.
    pub created: String,
    /// Whether it is of our type and class, not ignored and not being deleted.
    pub ours: bool,
    /// Whether it is of another class, or asks to be ignored: nothing of it is ever written.
    pub foreign: bool,
    /// The addresses it asks us to announce, in order, at most [`MOST_ADDRESSES`].
    pub addresses: Vec<IpAddr>,
    /// How many addresses it asks for, if those are more than it can have.
    pub too_many: Option<usize>,
    /// Entries of the annotation that are no addresses.
    pub unreadable: Vec<String>,
    /// Annotations of kube-vip that nothing here acts on.
    pub unsupported: Vec<String>,
    /// The nodes that should hold its addresses if they can.
    pub preferred: Vec<Preference>,
    /// Entries of that annotation that are not readable.
    pub unreadable_preferences: Vec<InvalidPreference>,
    /// Its ports, in order.
    pub ports: Vec<Port>,
    /// Whether only nodes with an endpoint of it take its traffic.
    pub local: bool,
    /// The interface that it names; `auto` for the one whose subnet the address is in.
    pub interface: Option<String>,
    /// The VLAN of that interface that it names, or what it has written in its place.
    pub vlan: Option<Result<u16, String>>,
    /// Whether it is announced without a ready endpoint.
    pub without_endpoints: bool,
    /// The Lease that it names.
    pub lease: Option<String>,
    /// `status.loadBalancer.ingress`.
    pub published: Vec<Ingress>,
    /// The node that says it announces it.
    pub vip_host: Option<String>,
    /// Its addresses that another host has, as an announcer has written.
    pub conflict: Conflicts,
    /// `status.conditions`, all of them.
    pub conditions: Vec<Condition>,
}

/// One entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingress {
    /// The address; empty for an entry with a host name only.
    pub ip: String,
    /// `VIP` or `Proxy` (KEP-1860).
    pub ip_mode: Option<String>,
    /// Protocol and number of each port.
    pub ports: Vec<(String, i32)>,
}

impl Service {
    /// Reads what matters of a Service.
    pub fn read(object: &core::Service, classes: &ClassPolicy) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let note = |name| service::annotated(object, name).map(str::trim).filter(|v| !v.is_empty());
        let list = service::addresses(object);
        let mut addresses: Vec<IpAddr> = Vec::new();
        let refused = is_refused(object);
        let served = |address: &IpAddr| !refused && !address.is_unspecified();
        for address in list.addresses().filter(served) {
            if !addresses.contains(&address) && addresses.len() < MOST_ADDRESSES {
                addresses.push(address);
            }
        }
        let listed = list.addresses().filter(served).collect::<BTreeSet<_>>().len();
        let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = status.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
        let claimed = service::claimed(object, classes);
        let created = object.metadata.creation_timestamp.as_ref();
        let (preferred, unreadable_preferences) =
            Preference::list(note(annotation::PREFERRED_NODES).unwrap_or_default());
        Self {
            uid: text(&object.metadata.uid),
            version: text(&object.metadata.resource_version),
            created: created.map(|time| time.0.to_string()).unwrap_or_default(),
            ours: claimed.is_ok() && object.metadata.deletion_timestamp.is_none(),
            foreign: matches!(claimed, Err(NotOurs::OtherClass | NotOurs::Ignored)),
            addresses,
            too_many: Some(listed).filter(|listed| *listed > MOST_ADDRESSES),
            unreadable: list.unreadable().map(str::to_owned).collect(),
            ports: service::ports(object),
            local: service::is_local(object),
            interface: note(annotation::SERVICE_INTERFACE).map(str::to_owned),
            vlan: note(annotation::SERVICE_VLAN).map(vlan),
            without_endpoints: note(annotation::ALLOW_WITHOUT_ENDPOINTS) == Some("true"),
            lease: note(annotation::LEASE_NAME).map(str::to_owned),
            unsupported: unsupported(object),
            preferred,
            unreadable_preferences,
            published: ingress.iter().map(Ingress::read).collect(),
            vip_host: note(annotation::VIP_HOST).map(str::to_owned),
            conflict: Conflicts::parse(note(annotation::CONFLICT).unwrap_or_default()),
            conditions: object
                .status
                .as_ref()
                .and_then(|s| s.conditions.clone())
                .unwrap_or_default(),
        }
    }

    /// Whether it says that some node announces it, and is ours to correct.
    pub fn claims_a_host(&self) -> bool {
        self.vip_host.is_some() && !self.foreign
    }
}

/// The number of a VLAN: 0 and 4095 are not ones (IEEE 802.1Q, 9.6).
fn vlan(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| (1..=4094).contains(number));
    number.ok_or_else(|| text.to_owned())
}

/// The annotations of kube-vip that a user wrote and nothing here acts on.
fn unsupported(object: &core::Service) -> Vec<String> {
    let known = [
        annotation::LOADBALANCER_IPS,
        annotation::SERVICE_INTERFACE,
        annotation::SERVICE_VLAN,
        annotation::VIP_HOST,
        annotation::IGNORE,
        annotation::LEASE_NAME,
        annotation::ALLOW_WITHOUT_ENDPOINTS,
        // Source ranges are kube-proxy's business here, with and without it.
        annotation::IGNORE_SERVICE_SECURITY,
        annotation::ACTIVE_ENDPOINT,
        annotation::ACTIVE_ENDPOINT_IPV6,
    ];
    let names = object.metadata.annotations.iter().flat_map(|annotations| annotations.keys());
    let theirs = names.filter(|name| name.starts_with(annotation::KUBE_VIP));
    theirs.filter(|name| !known.contains(&name.as_str())).cloned().collect()
}

/// Whether the CCM refused what the Service asks for, and gave it nothing: what stands in its annotation is a request,
/// and may be the address of another. Without a CCM of ours there is no such condition.
fn is_refused(object: &core::Service) -> bool {
    let labels = object.metadata.labels.as_ref();
    let has_some = labels.is_some_and(|labels| labels.contains_key(label::IMPLEMENTATION));
    let conditions = object.status.as_ref().and_then(|status| status.conditions.as_deref());
    let refused =
        |shown: &Condition| shown.type_ == condition::ADDRESS_ALLOCATED && shown.status == "False";
    !has_some && conditions.unwrap_or_default().iter().any(refused)
}

impl Ingress {
    /// What is published for an address that a node answers for itself.
    pub fn vip(address: IpAddr, ports: &[Port]) -> Self {
        let port = |port: &Port| (protocol_name(port.protocol).to_owned(), i32::from(port.number));
        Self {
            ip: address.to_string(),
            ip_mode: Some("VIP".to_owned()),
            ports: ports.iter().map(port).collect(),
        }
    }

    fn read(object: &core::LoadBalancerIngress) -> Self {
        let ports = object.ports.as_deref().unwrap_or_default();
        Self {
            ip: object.ip.clone().unwrap_or_default(),
            ip_mode: object.ip_mode.clone(),
            ports: ports.iter().map(|port| (port.protocol.clone(), port.port)).collect(),
        }
    }
}

/// How the API spells a protocol.
pub fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_is_read_with_its_addresses_each_once_and_its_status() {
        let object = serde_json::from_value(json!({
            "metadata": {
                "name": "web", "namespace": "d", "uid": "u", "resourceVersion": "7",
                "annotations": {
                    "kube-vip.io/loadbalancerIPs": "192.0.2.1, 192.0.2.1,2001:db8::1,nonsense!,0.0.0.0",
                    "kube-vip.io/vipHost": "node-a",
                },
            },
            "spec": {
                "type": "LoadBalancer", "externalTrafficPolicy": "Local",
                "ports": [{ "port": 80 }, { "port": 53, "protocol": "UDP" }],
            },
            "status": { "loadBalancer": { "ingress": [
                { "ip": "192.0.2.1", "ipMode": "VIP", "ports": [{ "port": 80, "protocol": "TCP" }] },
            ] } },
        }))
        .unwrap();
        let service = Service::read(&object, &ClassPolicy::Unset);
        assert!(service.ours && service.local);
        let addresses: Vec<String> = service.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(
            (service.unreadable.as_slice(), service.too_many),
            (&["nonsense!".to_owned()][..], None)
        );
        assert_eq!(service.vip_host.as_deref(), Some("node-a"));
        assert_eq!(service.published, [Ingress::vip(service.addresses[0], &service.ports[..1])]);
    }

    #[test]
    fn of_thousands_of_addresses_two_are_read_and_the_rest_is_counted() {
        let many: Vec<String> = (0..8000).map(|n| format!("2001:db8::{n:x}")).collect();
        let object: core::Service = serde_json::from_value(json!({
            "metadata": { "annotations": { "kube-vip.io/loadbalancerIPs": many.join(",") } },
            "spec": { "type": "LoadBalancer" },
        }))
        .unwrap();
        let service = Service::read(&object, &ClassPolicy::Unset);
        assert_eq!((service.addresses.len(), service.too_many), (2, Some(8000)));
    }

    #[test]
    fn the_number_of_a_vlan_is_from_1_to_4094() {
        for text in ["0", "4095", "-1", "five", "5.0", "65541"] {
            assert_eq!(vlan(text), Err(text.to_owned()));
        }
        assert_eq!((vlan("1"), vlan("4094")), (Ok(1), Ok(4094)));
    }

    #[test]
    fn what_the_ccm_refused_is_a_wish_and_not_announced() {
        let read = |labels: serde_json::Value, status: &str| {
            let object = json!({
                "metadata": {
                    "name": "late", "namespace": "d", "labels": labels,
                    "annotations": { "kube-vip.io/loadbalancerIPs": "192.0.2.1" },
                },
                "spec": { "type": "LoadBalancer" },
                "status": { "conditions": [{
                    "type": "berth.dev/AddressAllocated", "status": status, "reason": "AddressInUse",
                    "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
                }] },
            });
            let object = serde_json::from_value(object).unwrap();
            Service::read(&object, &ClassPolicy::Unset).addresses.len()
        };
        assert_eq!(read(json!({}), "False"), 0);
        assert_eq!(read(json!({}), "True"), 1);
        assert_eq!(
            read(json!({ "implementation": "kube-vip" }), "False"),
            1,
            "it keeps what it has"
        );
    }

    #[test]
    fn a_service_that_is_being_deleted_is_not_ours_any_more() {
        let object = serde_json::from_value(json!({
            "metadata": { "name": "web", "deletionTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "type": "LoadBalancer" },
        }))
        .unwrap();
        assert!(!Service::read(&object, &ClassPolicy::Unset).ours);
    }
}
