//! What is kept of a Service.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use berth_api::address::List;
use berth_api::conflict::Conflicts;
use berth_api::limits::{
    MOST_ADDRESSES, MOST_PORTS, MOST_SHOWN, is_interface_name, is_object_name, name_of,
};
use berth_api::names::{annotation, condition, label};
use berth_api::preference::{Preference, Preferences};
use berth_api::service::{self, ClassPolicy, NotOurs, Port, Protocol};
use berth_api::{Few, Quoted};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::asks::{Asks, Labels};
use crate::vip::Refusal;

/// A Service, as far as announcing it goes. Whatever a user wrote is read up to a limit, beyond which it is a remark
/// ([`berth_api::limits`]).
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
    /// Whether it is of another class, or asks to be ignored: nothing of it is ever written, but for an address of others in
    /// its status.
    pub foreign: bool,
    /// Whether it is of our type and class and being deleted: nothing of it is to be served any more.
    pub ending: bool,
    /// Whether it is foreign because it asks to be ignored, as its author may at any time.
    pub ignored: bool,
    /// The addresses it asks us to announce, in order, at most [`MOST_ADDRESSES`].
    pub addresses: Vec<IpAddr>,
    /// What is wrong with it, whoever serves it: one remark of each kind.
    pub remarks: Arc<[Refusal]>,
    /// The nodes that should hold its addresses if they can.
    pub preferred: Arc<[Preference]>,
    /// Its ports, in order, at most [`MOST_PORTS`].
    pub ports: Vec<Port>,
    /// Under what they are found in its EndpointSlices.
    pub names: BTreeSet<(Protocol, String)>,
    /// Its NodePorts, whatever its type.
    pub node_ports: Vec<Port>,
    /// Whether kube-proxy leaves all of it alone, or some of those who ask.
    pub passed_over: bool,
    /// Whether it has more ports, which kube-proxy serves all the same.
    pub has_more_ports: bool,
    /// Its addresses within the cluster.
    pub cluster_ips: Vec<IpAddr>,
    /// Whether only nodes with an endpoint of it take its traffic.
    pub local: bool,
    /// Where kube-proxy of each node says whether it leads to endpoints there.
    pub health_port: Option<u16>,
    /// The interface that it names, `auto` for the one whose subnet the address is in; or what it has written in its place.
    pub interface: Option<Result<String, Quoted>>,
    /// The VLAN of that interface that it names, or what it has written in its place.
    pub vlan: Option<Result<u16, Quoted>>,
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
    /// Its labels, where routers are told of it.
    pub labels: Labels,
    /// What it asks to be told to them.
    pub asks: Arc<Asks>,
}

/// One entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingress {
    /// The address; empty for an entry with a host name only.
    pub ip: String,
    /// The host name, which nobody here writes.
    pub hostname: Option<String>,
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
        let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = status.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
        let claimed = service::claimed(object, classes);
        let created = object.metadata.creation_timestamp.as_ref();
        let preferences = Preferences::parse(note(annotation::PREFERRED_NODES).unwrap_or_default());
        let mut ports = service::ports(object);
        let lease = note(annotation::LEASE_NAME);
        let remarks = [
            asks_for_dhcp(&list, &addresses),
            invalid_addresses(&list),
            too_many_addresses(&list, served),
            too_many_ports(&ports),
            invalid_lease(lease),
            some(&preferences.invalid).map(|texts| Refusal::InvalidPreference { texts }),
            too_many_preferences(&preferences),
            some(&unsupported(object)).map(|annotations| Refusal::NotSupported { annotations }),
        ];
        let has_more_ports = ports.len() > MOST_PORTS;
        ports.truncate(MOST_PORTS);
        let names = service::port_names(object).take(MOST_PORTS);
        Self {
            uid: text(&object.metadata.uid),
            version: text(&object.metadata.resource_version),
            created: created.map(|time| time.0.to_string()).unwrap_or_default(),
            ours: claimed.is_ok() && object.metadata.deletion_timestamp.is_none(),
            ending: claimed.is_ok() && object.metadata.deletion_timestamp.is_some(),
            ignored: claimed == Err(NotOurs::Ignored),
            foreign: matches!(claimed, Err(NotOurs::OtherClass | NotOurs::Ignored)),
            addresses,
            remarks: remarks.into_iter().flatten().collect(),
            ports,
            names: names.map(|(protocol, name)| (protocol, name.to_owned())).collect(),
            node_ports: service::node_ports(object).take(MOST_PORTS).collect(),
            passed_over: service::is_passed_over(object),
            has_more_ports,
            cluster_ips: cluster_ips(object),
            local: service::is_local(object),
            health_port: health_port(object),
            interface: note(annotation::SERVICE_INTERFACE).map(interface),
            vlan: note(annotation::SERVICE_VLAN).map(vlan),
            without_endpoints: note(annotation::ALLOW_WITHOUT_ENDPOINTS) == Some("true"),
            lease: lease.filter(|name| is_object_name(name)).map(str::to_owned),
            preferred: preferences.read.into(),
            published: ingress.iter().take(MOST_SHOWN).map(Ingress::read).collect(),
            vip_host: note(annotation::VIP_HOST).map(|host| name_of(host).to_owned()),
            conflict: Conflicts::of_service(object),
            conditions: object
                .status
                .as_ref()
                .and_then(|s| s.conditions.clone())
                .unwrap_or_default(),
            labels: Labels::default(),
            asks: Asks::read(object),
        }
    }

    /// Its condition of that type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|shown| shown.type_ == kind)
    }

    /// Its condition that another host has an address of it, while it is so.
    pub fn conflict_shown(&self) -> Option<&Condition> {
        self.condition(condition::ADDRESS_CONFLICT).filter(|shown| shown.status == "True")
    }

    /// Whether it says that some node announces it, and is ours to correct.
    pub fn claims_a_host(&self) -> bool {
        self.vip_host.is_some() && !self.foreign
    }
}

fn interface(text: &str) -> Result<String, Quoted> {
    if is_interface_name(text) { Ok(text.to_owned()) } else { Err(Quoted::of(text)) }
}

/// The number of a VLAN: 0 and 4095 are not ones (IEEE 802.1Q, 9.6).
fn vlan(text: &str) -> Result<u16, Quoted> {
    let number = text.parse().ok().filter(|number| (1..=4094).contains(number));
    number.ok_or_else(|| Quoted::of(text))
}

fn some(few: &Few) -> Option<Few> {
    (!few.is_empty()).then(|| few.clone())
}

/// What stands for an address that DHCP is to find, unless the Service has one of that family.
fn asks_for_dhcp(list: &List, served: &[IpAddr]) -> Option<Refusal> {
    let mut markers = list.addresses().filter(IpAddr::is_unspecified);
    let marker = markers.find(|marker| !served.iter().any(|own| own.is_ipv4() == marker.is_ipv4()));
    marker.map(|marker| Refusal::DhcpNotServed { marker })
}

/// The entries that are no addresses.
fn invalid_addresses(list: &List) -> Option<Refusal> {
    some(&list.unreadable().collect()).map(|texts| Refusal::InvalidAddress { texts })
}

fn too_many_addresses(list: &List, served: impl Fn(&IpAddr) -> bool) -> Option<Refusal> {
    let listed = list.addresses().filter(served).collect::<BTreeSet<_>>().len() + list.left_out();
    (listed > MOST_ADDRESSES).then_some(Refusal::TooManyAddresses { count: listed })
}

fn too_many_preferences(list: &Preferences) -> Option<Refusal> {
    let count = list.read.len() + list.more;
    (list.more > 0).then_some(Refusal::TooManyPreferences { count })
}

/// One that has none says `None` in their place.
fn cluster_ips(object: &core::Service) -> Vec<IpAddr> {
    let spec = object.spec.as_ref();
    let all = spec.into_iter().flat_map(|spec| spec.cluster_ips.iter().flatten());
    all.filter_map(|own| own.parse().ok()).take(MOST_ADDRESSES).collect()
}

/// Nothing where the API server has given it none, as in a class whose balancers ask for none.
fn health_port(object: &core::Service) -> Option<u16> {
    let port = object.spec.as_ref()?.health_check_node_port?;
    u16::try_from(port).ok().filter(|port| *port != 0)
}

fn too_many_ports(ports: &[Port]) -> Option<Refusal> {
    let count = ports.len();
    (count > MOST_PORTS).then_some(Refusal::TooManyPorts { count })
}

fn invalid_lease(name: Option<&str>) -> Option<Refusal> {
    let invalid = name.filter(|name| !is_object_name(name));
    invalid.map(|name| Refusal::InvalidLease { text: Quoted::of(name) })
}

/// The annotations of kube-vip that a user wrote and nothing here acts on.
fn unsupported(object: &core::Service) -> Few {
    let known = [
        annotation::LOADBALANCER_IPS,
        annotation::SERVICE_INTERFACE,
        annotation::SERVICE_VLAN,
        annotation::VIP_HOST,
        annotation::IGNORE,
        annotation::LEASE_NAME,
        annotation::ALLOW_WITHOUT_ENDPOINTS,
        // Not followed: it would open ports of the node to whoever edits a Service.
        annotation::IGNORE_SERVICE_SECURITY,
        annotation::ACTIVE_ENDPOINT,
        annotation::ACTIVE_ENDPOINT_IPV6,
    ];
    let names = object.metadata.annotations.iter().flat_map(|annotations| annotations.keys());
    let theirs = names.filter(|name| name.starts_with(annotation::KUBE_VIP));
    theirs.map(String::as_str).filter(|name| !known.contains(name)).collect()
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
        let port = |port: &Port| (port.protocol.name().to_owned(), i32::from(port.number));
        Self {
            ip: address.to_string(),
            hostname: None,
            ip_mode: Some("VIP".to_owned()),
            ports: ports.iter().map(port).collect(),
        }
    }

    fn read(object: &core::LoadBalancerIngress) -> Self {
        let ports = object.ports.as_deref().unwrap_or_default();
        Self {
            ip: object.ip.clone().unwrap_or_default(),
            hostname: object.hostname.as_deref().map(|name| name_of(name).to_owned()),
            ip_mode: object.ip_mode.clone(),
            ports: ports
                .iter()
                .take(MOST_PORTS + 1)
                .map(|port| (port.protocol.clone(), port.port))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
