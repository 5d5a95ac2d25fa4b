//! Who rewrites what asks for an address, before the guard sees it.

use super::{BACKEND, NODE_PORT, NODE_PORT_UDP, OWN, SERVED, SERVED_UDP, STRANGERS, VIPS, at};
use crate::namespace::run;

/// Who rewrites: as kube-proxy in its modes and the CNI plugin `portmap` do.
pub(super) const PROXIES: [&str; 3] = ["nft", "iptables-nft", "iptables-legacy"];

/// What is to be rewritten: the protocol, the address, or each that the node has, and the port.
fn rewritten() -> Vec<(&'static str, Option<&'static str>, u16)> {
    let mut all = vec![("tcp", None, NODE_PORT), ("udp", None, NODE_PORT_UDP)];
    for vip in VIPS {
        let served = [("tcp", SERVED), ("udp", SERVED_UDP), ("tcp", STRANGERS)];
        all.extend(served.map(|(protocol, port)| (protocol, Some(vip), port)));
    }
    all
}

/// Rewrites as this program does.
pub(super) fn proxy(by: &str) {
    match by {
        "nft" => by_nft(),
        by => by_iptables(by.strip_prefix("iptables-").unwrap()),
    }
}

fn by_nft() {
    run("nft add table inet proxy");
    for hook in ["prerouting", "output"] {
        run(&format!("nft add chain inet proxy {hook} {{ type nat hook {hook} priority -100 ; }}"));
        for (protocol, vip, port) in rewritten() {
            for (own, family) in OWN.into_iter().zip(["ip", "ip6"]) {
                let to = match vip {
                    None => {
                        format!("meta nfproto {}", if family == "ip" { "ipv4" } else { "ipv6" })
                            + " fib daddr type local"
                    }
                    Some(vip) if vip.contains(':') == (family == "ip6") => {
                        format!("{family} daddr {vip}")
                    }
                    Some(_) => continue,
                };
                let backend = at(own, BACKEND);
                run(&format!(
                    "nft add rule inet proxy {hook} {to} {protocol} dport {port} dnat {family} to {backend}"
                ));
            }
        }
    }
}

fn by_iptables(backend: &str) {
    for (program, own) in [("iptables", OWN[0]), ("ip6tables", OWN[1])] {
        for (protocol, vip, port) in rewritten() {
            let to = match vip {
                None => "-m addrtype --dst-type LOCAL".to_owned(),
                Some(vip) if vip.contains(':') == own.contains(':') => format!("-d {vip}"),
                Some(_) => continue,
            };
            for chain in ["PREROUTING", "OUTPUT"] {
                run(&format!(
                    "{program}-{backend} -t nat -A {chain} {to} -p {protocol} --dport {port} \
                     -j DNAT --to-destination {}",
                    at(own, BACKEND)
                ));
            }
        }
    }
}
