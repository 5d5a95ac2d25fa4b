//! How a Service is read: whether it is ours, which families and ports it has, which addresses it asks for.
//! What both programs read, they read the same way.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

use crate::Family;
use crate::address::List;
use crate::names::{annotation, class, label};

/// Which values of `spec.loadBalancerClass` are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassPolicy {
    /// Only this class.
    Only(String),
    /// Services without a class and those of this class.
    UnsetOr(String),
}

impl Default for ClassPolicy {
    /// As kube-vip takes them. Both programs have to: an address that one of them gives to no Service of a class must not
    /// be announced by the other for what such a Service asks for.
    fn default() -> Self {
        Self::UnsetOr(class::DEFAULT.to_owned())
    }
}

impl ClassPolicy {
    fn takes(&self, class: Option<&str>) -> bool {
        match (self, class) {
            (Self::UnsetOr(_), None) => true,
            (Self::Only(ours) | Self::UnsetOr(ours), Some(class)) => ours == class,
            (Self::Only(_), None) => false,
        }
    }
}

/// Why a Service is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOurs {
    /// `spec.type` is not `LoadBalancer`.
    OtherType,
    /// Its class belongs to somebody else.
    OtherClass,
    /// It says `kube-vip.io/ignore: "true"`.
    Ignored,
}

/// Tells whether a Service is ours.
///
/// # Errors
/// The reason why it is not.
pub fn claimed(service: &Service, classes: &ClassPolicy) -> Result<(), NotOurs> {
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) != Some("LoadBalancer") {
        return Err(NotOurs::OtherType);
    }
    if !classes.takes(spec.and_then(|spec| spec.load_balancer_class.as_deref())) {
        return Err(NotOurs::OtherClass);
    }
    if annotated(service, annotation::IGNORE) == Some("true") {
        return Err(NotOurs::Ignored);
    }
    Ok(())
}

/// The value of an annotation.
pub fn annotated<'a>(service: &'a Service, name: &str) -> Option<&'a str> {
    service.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// What the annotation `kube-vip.io/loadbalancerIPs` says.
pub fn annotated_addresses(service: &Service) -> List {
    List::parse(annotated(service, annotation::LOADBALANCER_IPS).unwrap_or_default())
}

/// What the deprecated `spec.loadBalancerIP` says.
pub fn deprecated_address(service: &Service) -> List {
    let field = service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_deref());
    List::parse(field.unwrap_or_default())
}

/// The addresses that an announcer serves: the annotation, and where that is missing the deprecated field.
pub fn addresses(service: &Service) -> List {
    let list = annotated_addresses(service);
    if list.is_empty() { deprecated_address(service) } else { list }
}

/// The addresses in `status.loadBalancer.ingress`.
pub fn published(service: &Service) -> impl Iterator<Item = IpAddr> + '_ {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    ingress.filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
}

/// `spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FamilyPolicy {
    /// One family; what the API server writes where the field is missing.
    #[default]
    SingleStack,
    /// Both if the cluster has both.
    PreferDualStack,
    /// Both or none.
    RequireDualStack,
}

/// `spec.ipFamilies`, in order; empty for a Service without a cluster IP that names none.
pub fn families(service: &Service) -> Vec<Family> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
    let read = |family: &String| match family.as_str() {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    };
    families.into_iter().flatten().filter_map(read).collect()
}

/// `spec.ipFamilyPolicy`.
pub fn family_policy(service: &Service) -> FamilyPolicy {
    match service.spec.as_ref().and_then(|spec| spec.ip_family_policy.as_deref()) {
        Some("PreferDualStack") => FamilyPolicy::PreferDualStack,
        Some("RequireDualStack") => FamilyPolicy::RequireDualStack,
        _ => FamilyPolicy::SingleStack,
    }
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// How the API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// Reads it as an object has it: what says none is TCP.
    pub fn read(name: Option<&str>) -> Self {
        name.and_then(Self::named).unwrap_or(Self::Tcp)
    }

    /// Reads it as the API spells it.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp].into_iter().find(|protocol| protocol.name() == name)
    }
}

/// A port on which a Service listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

/// The ports of a Service, in the order of its spec.
pub fn ports(service: &Service) -> Vec<Port> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let read = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let protocol = Protocol::read(port.protocol.as_deref());
        Some(Port { protocol, number: u16::try_from(port.port).ok()? })
    };
    ports.into_iter().flatten().filter_map(read).collect()
}

/// Its NodePorts, in the order of its spec.
pub fn node_ports(service: &Service) -> impl Iterator<Item = Port> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    ports.into_iter().flatten().filter_map(|port| {
        let number = port.node_port.and_then(|number| u16::try_from(number).ok());
        let number = number.filter(|number| *number != 0)?;
        Some(Port { protocol: Protocol::read(port.protocol.as_deref()), number })
    })
}

/// Under what its ports are found in its EndpointSlices, in the order of its spec.
pub fn port_names(service: &Service) -> impl Iterator<Item = (Protocol, &str)> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    ports.into_iter().flatten().map(|port| {
        (Protocol::read(port.protocol.as_deref()), port.name.as_deref().unwrap_or_default())
    })
}

/// Whether kube-proxy leaves all of a Service alone, or some of those who ask.
pub fn is_passed_over(service: &Service) -> bool {
    let labels = service.metadata.labels.as_ref();
    let has = |label| labels.is_some_and(|labels| labels.contains_key(label));
    let spec = service.spec.as_ref();
    let ranges = spec.and_then(|spec| spec.load_balancer_source_ranges.as_deref());
    has(label::PROXY_NAME) || has(label::HEADLESS) || ranges.is_some_and(|all| !all.is_empty())
}

/// Whether `spec.externalTrafficPolicy` is `Local`: only nodes with an endpoint take its traffic.
pub fn is_local(service: &Service) -> bool {
    let policy = service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref());
    policy == Some("Local")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value, annotations: Value) -> Service {
        let metadata = json!({ "name": "web", "annotations": annotations });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    #[test]
    fn class_and_type_and_ignore_decide_whether_a_service_is_ours() {
        let ours = "kube-vip.io/kube-vip-class".to_owned();
        let plain = json!({ "type": "LoadBalancer" });
        let classed = json!({ "type": "LoadBalancer", "loadBalancerClass": ours });
        let foreign = json!({ "type": "LoadBalancer", "loadBalancerClass": "example.org/other" });
        let cluster = json!({ "type": "ClusterIP" });
        let (only, both) = (ClassPolicy::Only(ours.clone()), ClassPolicy::UnsetOr(ours.clone()));
        for (spec, policy, verdict) in [
            (&plain, &only, Err(NotOurs::OtherClass)),
            (&plain, &both, Ok(())),
            (&classed, &only, Ok(())),
            (&classed, &both, Ok(())),
            (&foreign, &both, Err(NotOurs::OtherClass)),
            (&cluster, &both, Err(NotOurs::OtherType)),
        ] {
            let service = service(spec.clone(), json!({}));
            assert_eq!(claimed(&service, policy), verdict, "{spec} {policy:?}");
        }
        let ignored = service(plain, json!({ annotation::IGNORE: "true" }));
        assert_eq!(claimed(&ignored, &both), Err(NotOurs::Ignored));
    }

    #[test]
    fn the_annotation_wins_over_the_deprecated_field() {
        let spec = json!({ "loadBalancerIP": "192.0.2.1" });
        let both = service(spec.clone(), json!({ annotation::LOADBALANCER_IPS: "192.0.2.2" }));
        assert_eq!(addresses(&both), List::parse("192.0.2.2"));
        let blank = service(spec, json!({ annotation::LOADBALANCER_IPS: " " }));
        assert_eq!(addresses(&blank), List::parse("192.0.2.1"));
    }

    #[test]
    fn families_ports_and_status_are_read_as_the_api_server_writes_them() {
        let object = json!({
            "spec": {
                "ipFamilyPolicy": "RequireDualStack",
                "ipFamilies": ["IPv6", "IPv4"],
                "externalTrafficPolicy": "Local",
                "ports": [{ "port": 53, "protocol": "UDP" }, { "port": 53 }],
            },
            "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }, { "hostname": "web" }] } },
        });
        let service: Service = serde_json::from_value(object).unwrap();
        assert_eq!(families(&service), [Family::V6, Family::V4]);
        assert_eq!(family_policy(&service), FamilyPolicy::RequireDualStack);
        let port = |protocol| Port { protocol, number: 53 };
        assert_eq!(ports(&service), [port(Protocol::Udp), port(Protocol::Tcp)]);
        assert!(is_local(&service));
        assert_eq!(published(&service).map(|ip| ip.to_string()).collect::<Vec<_>>(), ["192.0.2.1"]);
    }
}
