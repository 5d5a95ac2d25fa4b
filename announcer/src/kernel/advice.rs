//! Settings of the host that get in the way. They are told, never changed: the host is not ours.

use std::net::IpAddr;

use berth_api::Family;

use super::host::Host;

/// What to tell the operator about the host. `read` gives the value of a file below `/proc/sys`.
pub fn advice(host: &Host, interface: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let number = |path: &str| read(path).and_then(|value| value.trim().parse::<u32>().ok());
    let mut advice = Vec::new();
    // The kernel uses the larger of the two (ip-sysctl.rst).
    let arp_ignore = ["all", interface]
        .map(|name| number(&format!("net/ipv4/conf/{name}/arp_ignore")).unwrap_or(0));
    if host.interfaces.contains_key("kube-ipvs0") && arp_ignore == [0, 0] {
        advice.push(format!(
            "kube-proxy in IPVS mode binds every address on every node, and net.ipv4.conf.{interface}.arp_ignore is 0: \
             every node answers ARP for every address; set strictARP: true in kube-proxy's configuration"
        ));
    }
    if number("net/netfilter/nf_conntrack_tcp_loose") == Some(0) {
        advice.push(
            "net.netfilter.nf_conntrack_tcp_loose is 0: connections do not survive when an address moves to another \
             node; 1 is the default"
                .to_owned(),
        );
    }
    advice
}

/// What to tell the operator about the host where a family of elastic IPs is to be translated. `v4` says which.
pub fn translation_advice(
    v4: bool,
    interface: &str,
    read: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let number = |path: &str| read(path).and_then(|value| value.trim().parse::<u32>().ok());
    let mut advice = Vec::new();
    let forwarding = if v4 { "net/ipv4/ip_forward" } else { "net/ipv6/conf/all/forwarding" };
    if number(forwarding) == Some(0) {
        advice.push(format!(
            "{} is 0: the node forwards nothing, so elastic IPs lead nowhere; set it to 1",
            forwarding.replace('/', ".")
        ));
    }
    if number("net/netfilter/nf_conntrack_tcp_loose") == Some(0) {
        advice.push(
            "net.netfilter.nf_conntrack_tcp_loose is 0: connections of virtual machines do not survive their migration; \
             1 is the default"
                .to_owned(),
        );
    }
    // The kernel uses the larger of the two (ip-sysctl.rst), and 1 is the strict one.
    let strict = ["all", interface]
        .map(|name| number(&format!("net/ipv4/conf/{name}/rp_filter")).unwrap_or(0));
    if v4 && strict.iter().max() == Some(&1) {
        advice.push(format!(
            "net.ipv4.conf.{interface}.rp_filter is 1 (strict): packets to elastic IPs are dropped when they come by \
             another way than their answer would leave by; 2 (loose) is enough against forged senders"
        ));
    }
    advice
}

/// What to tell the operator of an interface on which IPv4 addresses are bound, where some may be answered and others not.
pub fn way_back_advice(
    host: &Host,
    interface: &str,
    read: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let number = |path: &str| read(path).and_then(|value| value.trim().parse::<u32>().ok());
    let strict = ["all", interface].map(|name| number(&format!("net/ipv4/conf/{name}/rp_filter")));
    let leads = |names: &Vec<String>| names.iter().any(|name| name == interface);
    let is_default = host.default_routes.get(&Family::V4).is_some_and(leads);
    (strict.iter().flatten().max() == Some(&1) && !is_default).then(|| {
        format!(
            "net.ipv4.conf.{interface}.rp_filter is 1 (strict) and the default route leads elsewhere: of those who ask for \
             addresses there by IPv4 only who has a route by {interface} is answered; 2 (loose) answers others by the \
             default route, a policy rule with a table of its own by {interface}"
        )
    })
}

/// What to tell the operator of an elastic IP that leads to a neighbour on the interface where it is announced.
pub fn neighbour_advice(host: &Host, node: &str, uplink: &str, vmi: IpAddr) -> Option<String> {
    let uplink = host.interface(uplink).map(|found| host.met(found).0)?;
    (host.connected(vmi) == Some(uplink)).then(|| {
        format!(
            "{vmi}, to which an elastic IP leads, is a neighbour of node {node} on {uplink}: what it answers comes back there only \
             where its default route is that node; accepted: that, or an address of the network of pods"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Interface;
    use crate::source::testing::two_interfaces;

    #[test]
    fn a_host_that_does_not_forward_or_is_strict_is_told_by_name() {
        let open =
            |path: &str| Some(if path.ends_with("rp_filter") { "2" } else { "1" }.to_owned());
        assert_eq!(translation_advice(true, "eth0", open), [""; 0]);
        let zero = |_: &str| Some("0".to_owned());
        assert!(translation_advice(true, "eth0", zero)[0].contains("net.ipv4.ip_forward is 0"));
        let v6 = translation_advice(false, "eth0", zero);
        assert!(v6[0].contains("net.ipv6.conf.all.forwarding is 0"), "{v6:?}");
        let strict = |_: &str| Some("1".to_owned());
        assert!(translation_advice(true, "eth0", strict)[0].contains("rp_filter is 1"));
        assert_eq!(translation_advice(false, "eth0", strict), [""; 0], "IPv6 has no such setting");
    }

    #[test]
    fn a_machine_in_the_subnet_of_the_uplink_is_told_and_one_behind_the_node_is_not() {
        let host = two_interfaces();
        let told = |uplink, vmi: &str| neighbour_advice(&host, "a", uplink, vmi.parse().unwrap());
        assert!(told("eth1", "192.0.2.77").unwrap().contains("neighbour of node a on eth1"));
        assert_eq!(told("eth0", "192.0.2.77"), None, "of another network of the node");
        assert_eq!(told("eth0", "10.244.0.4"), None);
    }

    #[test]
    fn ipvs_without_strict_arp_and_strict_tracking_are_told() {
        let mut host = Host::default();
        let silent = |_: &str| None;
        assert!(advice(&host, "eth0", silent).is_empty());
        let ipvs = Interface { index: 9, mac: None, up: false, foreign: [].into() };
        host.interfaces.insert("kube-ipvs0".to_owned(), ipvs);
        let zero = |_: &str| Some("0\n".to_owned());
        assert_eq!(advice(&host, "eth0", zero).len(), 2);
        let strict = |path: &str| path.ends_with("all/arp_ignore").then(|| "1\n".to_owned());
        assert!(advice(&host, "eth0", strict).is_empty());
    }
}
