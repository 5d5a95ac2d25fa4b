//! What is told of each refusal, for people: what is in the way, and what to do. Pure.

use berth_api::conflict::MacText;
use berth_api::limits::{
    MOST_ADDRESSES, MOST_GUARDED, MOST_GUARDED_TOGETHER, MOST_LABELS, MOST_PORTS, MOST_PREFERENCES,
};
use berth_api::names::{annotation, condition};

use super::Refusal;

impl Refusal {
    /// What it is, for people.
    pub fn note(&self) -> String {
        match self {
            Self::NoEndpoint => "not announced: no endpoint of this Service, of the family of the address, is ready, or serves until \
                 it ends; accepted: one that is ready, or kube-vip.io/allow-reconcile-without-endpoints \"true\""
                .to_owned(),
            Self::NoLocalEndpoint { node } => format!(
                "not announced: spec.externalTrafficPolicy is Local and node {node}, which owns the addresses, has no \
                 ready endpoint; accepted: an endpoint there, externalTrafficPolicy Cluster, or an election per Service"
            ),
            Self::EndpointWithoutNode => "not announced: spec.externalTrafficPolicy is Local and none of the endpoints is on \
                 a node of the cluster; accepted: an endpoint with a node, or externalTrafficPolicy Cluster"
                .to_owned(),
            Self::NotServedTogether { address, by } => format!(
                "{address} is not announced for it: {by} had it first and is on a node where this has no endpoint, as \
                 externalTrafficPolicy Local asks for; accepted: endpoints on the same node, externalTrafficPolicy Cluster, or \
                 an address of its own"
            ),
            Self::AnnouncedOtherwise { address, by, routed } => {
                let (one, other) = match routed {
                    true => ("to routers", "on the LAN"),
                    false => ("on the LAN", "to routers"),
                };
                format!(
                    "{address} is not announced for it: {by} had it first and is announced {one}, and this is to be {other}, \
                     as layer2 of ConfigMap berth-bgp says; accepted: one way for both, or an address of its own"
                )
            }
            Self::NotGranted { node, had, unheard, could } => {
                let what = match had {
                    true => {
                        format!("node {node} had the addresses and no majority of nodes grants them to it")
                    }
                    false => "no majority of nodes grants the addresses to any node".to_owned(),
                };
                let who = match (unheard.is_empty(), could.is_empty()) {
                    (false, _) => format!("; voters that do not answer node {node}: {unheard}"),
                    (true, false) => format!("; of those that could serve it these live: {could}"),
                    (true, true) => String::new(),
                };
                format!(
                    "not announced: {what}{who}; accepted: announcers that hear each other in time, by UDP at berth_peer_port (2113 \
                     unless it is set); the /readyz of each says whether a majority answers it, and its log whether it is too \
                     busy; docs/failover.md"
                )
            }
            Self::NoLiveNode { could } => format!(
                "not announced: of the nodes that could serve it none is seen to live and to run an announcer: {could}; accepted: \
                 an announcer there, or an endpoint on a node with one"
            ),
            Self::MembersWait { node, lease, unheard } => {
                let who = match unheard.is_empty() {
                    true => String::new(),
                    false => format!("; nor does a majority of voters answer node {node}; those that do not: {unheard}"),
                };
                format!(
                    "not announced: members of the announcers, of which node {node} is one, do not hold Lease {lease} yet, and \
                     ask for nothing before that; their /readyz and log say what the API server answers{who}"
                )
            }
            Self::LeaseWithheld { node, why } => {
                format!("not announced: its Lease is not acquired by node {node}: {why}")
            }
            Self::DhcpNotServed { marker } => format!(
                "not announced: {marker} asks for an address by DHCP, which announcers of Berth do not serve yet; accepted are \
                 addresses, and pools of berth-ccm"
            ),
            Self::InterfaceMissing { node, name: Some(name) } => {
                format!("not announced: node {node} has no interface {name}")
            }
            Self::InterfaceMissing { node, name: None } => {
                format!("not announced: no interface is named (vip_interface) and node {node} has no default route")
            }
            Self::InterfaceUnfit { node, name, lacks } => {
                format!(
                    "not announced: interface {name} of node {node} has no {lacks}; needed is one that is up, has a carrier and \
                     a hardware address"
                )
            }
            Self::InvalidInterface { text } => format!(
                "not announced: kube-vip.io/serviceInterface has {text}; accepted is the name of an interface, at most 15 \
                 octets, or auto"
            ),
            Self::InvalidVlan { text } => format!(
                "not announced: kube-vip.io/serviceVLAN has {text}; accepted is a whole number from 1 to 4094"
            ),
            Self::VlanNotMade { node, name, error } => {
                format!("not announced: node {node} cannot make VLAN interface {name}: {error}")
            }
            Self::InterfaceNotPermitted { name } => format!(
                "not announced: kube-vip.io/serviceInterface names {name}; accepted are the interface of the announcer and what its \
                 setting berth_service_interfaces lists for the namespace"
            ),
            Self::VlanNotPermitted { id } => format!(
                "not announced: kube-vip.io/serviceVLAN is {id}; accepted is what the announcer's setting berth_service_vlans \
                 lists for the namespace"
            ),
            Self::AddressOnHost { node, address, interface } => format!(
                "{address} is not announced: it is an address of node {node} itself, on interface {interface}; what another \
                 announcer left there goes by ip address del"
            ),
            Self::AddressOfRouter { node, address, what } => format!(
                "{address} is not announced: node {node} would lose what has it, {what}; ask for another address"
            ),
            Self::ReversePathFiltered { node, address, name } => format!(
                "{address} is not announced: no route of node {node} leads out of interface {name}, and so the kernel drops what \
                 comes in there, since rp_filter of it, or of all, in net.ipv4.conf is 1 (strict); accepted: an address of the \
                 node there with a subnet, a route by it, or 2 (loose)"
            ),
            Self::NoWayBack { node, address, name } => format!(
                "{address} is not announced on interface {name} of node {node}, which has no route of {} by it, nor one that leads \
                 further, so nobody there could be answered; accepted: an address of the node there with a subnet, or a route",
                if address.is_ipv4() { "IPv4" } else { "IPv6" }
            ),
            Self::AddressConflict { address, mac, node, interface } => format!(
                "{address} is not announced: another host, {}, answers for it on the LAN of interface {interface} of \
                 node {node}; it is taken as soon as that host is silent",
                MacText(*mac)
            ),
            Self::AddressInUse { address, by } => {
                format!("{address} is not announced for it: {by} had it first")
            }
            Self::AddressReserved { address, by } => {
                format!("{address} is not announced for it: it is that of {by}; accepted: another address")
            }
            Self::PortInUse { address, by, port } => format!(
                "{address} is not announced for it: of those that share the address Service {by} was given port {}/{}, \
                 which it has now, too; with other ports it is announced again after a pause, longer each time",
                port.protocol.name(),
                port.number
            ),
            Self::Paused { address, by, length } => format!(
                "{address}, which it shares, is not announced for it: Service {by} had a port there that another was given, and \
                 its namespace comes to share the address again {} s after that, longer each time",
                length.as_secs()
            ),
            Self::PortsUnknown { address } => format!(
                "{address}, which it shares, is not announced for it: it has more than {MOST_PORTS} ports"
            ),
            Self::NotClaimed { address } => format!(
                "{address} is not announced for it: no IPAddress of berth-ccm names it as who holds {address}; its condition \
                 {}, of an EipBinding Allocated, says why it was not given, if berth-ccm runs and serves its class",
                condition::ADDRESS_ALLOCATED
            ),
            Self::VmiAddressReserved { address, by } => format!(
                "no elastic IP leads to {address}, which is to be the VM's: it belongs to {by}"
            ),
            Self::VmiAddressInUse { address } => format!(
                "no elastic IP leads to {address}, which is to be the VM's: it was given to a Service or an EipBinding"
            ),
            Self::InvalidAddress { texts } => format!(
                "kube-vip.io/loadbalancerIPs or spec.loadBalancerIP has {texts}; accepted are IPv4 and IPv6 addresses"
            ),
            Self::TooManyAddresses { count } => format!(
                "kube-vip.io/loadbalancerIPs has {count} addresses; accepted are {MOST_ADDRESSES}, one of each family, and \
                 only the first ones are announced"
            ),
            Self::InvalidPreference { texts } => format!(
                "{} has {texts}, which is passed over; accepted are names of nodes and `label=value`",
                annotation::PREFERRED_NODES
            ),
            Self::TooManyPreferences { count } => format!(
                "{} has {count} entries; accepted are {MOST_PREFERENCES}, and only the first ones count",
                annotation::PREFERRED_NODES
            ),
            Self::TooManyPorts { count } => format!(
                "spec.ports has {count} ports; accepted are {MOST_PORTS}, and only the first ones are guarded and published"
            ),
            Self::TooManyGuarded { count } => format!(
                "not announced: it has {count} ports, counted at each of its addresses, for which older Services of its namespace \
                 leave no room; accepted are {MOST_GUARDED} of a namespace, and where all together have more than \
                 {MOST_GUARDED_TOGETHER} no more than a share that is the same for each"
            ),
            Self::InvalidLease { text } => format!(
                "kube-vip.io/leaseName has {text}, which is passed over; accepted is the name of a Lease: at most 253 \
                 small letters, digits, hyphens and dots"
            ),
            Self::NotSupported { annotations } => {
                format!("annotations that this version does not act on: {annotations}")
            }
            Self::LeftToLease { lease, holder } => format!(
                "not announced here: what it asks for goes by Lease {lease}, which {holder} holds; it is taken when that Lease is \
                 given back or has run out"
            ),
            Self::NoSession { node, why } => format!(
                "not announced: no router is told of it by node {node}, {why}; accepted: a BGP session that is up on a node that \
                 can serve it"
            ),
            Self::KeptFromRouters { node, by, unread } => format!(
                "not announced: no router that node {node} has a session with is to be told of it, by `policy` of ConfigMap berth-bgp \
                 or by {} berth.dev/bgp-peers; accepted there are the names of peers that a node has which can serve it{}",
                match by {
                    None => "its annotation".to_owned(),
                    Some(by) => format!("that of {by}, which had the address first,"),
                },
                match unread.is_empty() {
                    true => String::new(),
                    false => format!("; and what cannot be read is passed over: {unread}"),
                }
            ),
            Self::InvalidBgp { annotation, text, accepted } => {
                format!("{annotation} has {text}, which is passed over; {accepted}")
            }
            Self::BgpLeftOut { texts } => format!(
                "berth.dev/bgp-communities has {texts}, which not every router is told: a route has room for so many, and \
                 those of the rules of ConfigMap berth-bgp come first; accepted are fewer"
            ),
            Self::BgpNotPermitted { annotation, texts, accepted } => {
                format!("{annotation} has {texts}, which is passed over; accepted: {accepted}")
            }
            Self::BgpOfAnother { address, by } => format!(
                "what its annotations ask to be told to routers of {address}, which it shares, is passed over: {by} had the address \
                 first, and its annotations count; accepted: an address of its own"
            ),
            Self::BgpOnLan => "berth.dev/bgp-* is passed over: its addresses are announced on the LAN, as layer2 of ConfigMap \
                 berth-bgp says, and no router is told of them"
                .to_owned(),
            Self::TooManyLabels { count } => format!(
                "metadata.labels has {count} labels; accepted are {MOST_LABELS}, and by the first ones alone, by their keys, \
                 `policy` of ConfigMap berth-bgp goes"
            ),
            Self::NotBound { node, address, error } => {
                format!("{address} is not announced by node {node}: {error}; it is tried again")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use berth_api::{Few, Quoted};

    use super::*;

    const NODE: &str = "node-17";

    /// What is of one host, or told of what one node sees, with these texts in it.
    fn of_a_node(text: &Quoted, few: &Few) -> Vec<Refusal> {
        let (address, node, error) =
            (IpAddr::from([192, 0, 2, 1]), NODE.to_owned(), "no".to_owned());
        let (name, lease) = (text.clone(), "d/kubevip-web".to_owned());
        let granted = |had, unheard: &Few, could: &Few| Refusal::NotGranted {
            node: node.clone(),
            had,
            unheard: unheard.clone(),
            could: could.clone(),
        };
        let none = &Few::default();
        vec![
            Refusal::NoLocalEndpoint { node: node.clone() },
            Refusal::AddressOnHost { node: node.clone(), address, interface: "eth0".to_owned() },
            Refusal::AddressOfRouter { node: node.clone(), address, what: "peer tor".to_owned() },
            Refusal::InterfaceMissing { node: node.clone(), name: Some(name.clone()) },
            Refusal::InterfaceMissing { node: node.clone(), name: None },
            Refusal::VlanNotMade { node: node.clone(), name: name.clone(), error: error.clone() },
            Refusal::InterfaceUnfit { node: node.clone(), name: name.clone(), lacks: "carrier" },
            Refusal::ReversePathFiltered { node: node.clone(), address, name: name.clone() },
            Refusal::NoWayBack { node: node.clone(), address, name },
            Refusal::NotBound { node: node.clone(), address, error: error.clone() },
            Refusal::NoSession { node: node.clone(), why: error.clone() },
            Refusal::KeptFromRouters { node: node.clone(), by: None, unread: few.clone() },
            Refusal::AddressConflict {
                address,
                mac: [2; 6],
                node: node.clone(),
                interface: "eth0".to_owned(),
            },
            Refusal::MembersWait { node: node.clone(), lease, unheard: few.clone() },
            Refusal::LeaseWithheld { node: node.clone(), why: error },
            granted(true, few, none),
            granted(false, few, none),
        ]
    }

    /// Which note has to name a node; a variant that is new does not compile before it is asked here.
    fn names_a_node(refusal: &Refusal) -> bool {
        use Refusal::*;
        match refusal {
            NoLocalEndpoint { .. }
            | AddressOnHost { .. }
            | AddressOfRouter { .. }
            | InterfaceMissing { .. }
            | VlanNotMade { .. }
            | InterfaceUnfit { .. }
            | ReversePathFiltered { .. }
            | NoWayBack { .. }
            | NoSession { .. }
            | KeptFromRouters { .. }
            | NotBound { .. }
            | AddressConflict { .. }
            | MembersWait { .. }
            | LeaseWithheld { .. }
            | NotGranted { .. } => true,
            // They name who could, who holds it, or whose an address is, which may be a node's.
            NoLiveNode { .. } | LeftToLease { .. } | VmiAddressReserved { .. } => false,
            // They are of the object, and so on every node.
            NoEndpoint
            | EndpointWithoutNode
            | NotServedTogether { .. }
            | AnnouncedOtherwise { .. }
            | BgpOnLan
            | DhcpNotServed { .. }
            | InvalidInterface { .. }
            | InvalidVlan { .. }
            | InterfaceNotPermitted { .. }
            | VlanNotPermitted { .. }
            | AddressInUse { .. }
            | AddressReserved { .. }
            | PortInUse { .. }
            | Paused { .. }
            | PortsUnknown { .. }
            | NotClaimed { .. }
            | VmiAddressInUse { .. }
            | InvalidAddress { .. }
            | TooManyAddresses { .. }
            | InvalidPreference { .. }
            | TooManyPreferences { .. }
            | TooManyPorts { .. }
            | TooManyGuarded { .. }
            | InvalidLease { .. }
            | NotSupported { .. }
            | InvalidBgp { .. }
            | BgpLeftOut { .. }
            | BgpNotPermitted { .. }
            | BgpOfAnother { .. }
            | TooManyLabels { .. } => false,
        }
    }

    #[test]
    fn what_is_of_one_host_names_it() {
        let refusals = of_a_node(&Quoted::of("eth9"), &["b", "c"].into_iter().collect());
        for refusal in &refusals {
            let note = refusal.note();
            assert!(note.contains(NODE) && names_a_node(refusal), "{note}");
        }
        let reasons: std::collections::BTreeSet<_> = refusals.iter().map(Refusal::reason).collect();
        assert_eq!(reasons.len(), 15, "each that names one is here");
    }

    #[test]
    fn who_is_not_heard_is_named_and_of_many_three() {
        let names: Vec<String> = (0..50).map(|node| format!("node-{node:02}")).collect();
        let few: Few = names.iter().map(String::as_str).collect();
        let refusals = of_a_node(&Quoted::of("eth9"), &few).into_iter();
        let notes: Vec<String> = refusals
            .filter(|all| matches!(all, Refusal::NotGranted { .. } | Refusal::MembersWait { .. }))
            .map(|refusal| refusal.note())
            .collect();
        assert_eq!(notes.len(), 3);
        for note in notes {
            let named = r#": "node-00", "node-01", "node-02" and 47 more"#;
            assert!(note.contains(named) && note.len() < 1024, "{note}");
        }
        let could = ["d"].into_iter().collect();
        let node = NODE.to_owned();
        let clear = Refusal::NotGranted { node, had: false, unheard: Few::default(), could };
        assert!(clear.note().contains(r#"these live: "d""#), "{}", clear.note());
    }

    #[test]
    fn what_a_user_wrote_is_quoted_and_no_more_of_it_than_helps() {
        let wrote = "a\nb\u{1b}[2J".repeat(10_000);
        let text = Quoted::of(&wrote);
        let texts: Few = std::iter::repeat_n(wrote.as_str(), 51_000).collect();
        let of_objects = [
            Refusal::InvalidInterface { text: text.clone() },
            Refusal::InvalidVlan { text: text.clone() },
            Refusal::InvalidLease { text: text.clone() },
            Refusal::LeftToLease { lease: "d/kubevip-web".to_owned(), holder: text.clone() },
            Refusal::InvalidAddress { texts: texts.clone() },
            Refusal::InvalidPreference { texts: texts.clone() },
            Refusal::NotSupported { annotations: texts.clone() },
            Refusal::BgpNotPermitted {
                annotation: "berth.dev/bgp-peers",
                texts: texts.clone(),
                accepted: "tor-a".to_owned(),
            },
            Refusal::BgpLeftOut { texts: texts.clone() },
            Refusal::InvalidBgp {
                annotation: "berth.dev/bgp-peers".to_owned(),
                text: text.clone(),
                accepted: String::new(),
            },
        ];
        for refusal in of_objects.into_iter().chain(of_a_node(&text, &texts)) {
            let note = refusal.note();
            assert!(note.len() < 1024 && !note.contains(char::is_control), "{note}");
        }
    }
}
