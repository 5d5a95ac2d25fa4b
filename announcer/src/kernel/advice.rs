//! Settings of the host that get in the way. They are told, never changed: the host is not ours.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Interface;

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
