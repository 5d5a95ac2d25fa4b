//! What is told once, in the log, of the host where addresses are bound: settings and left-overs that may be in the way,
//! and need not be.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::kernel::{self, Host};

/// What was told already.
#[derive(Debug, Default)]
pub(super) struct Advised {
    /// Of interfaces, by index.
    interfaces: BTreeSet<u32>,
    /// Of addresses that are on another interface as well.
    left: BTreeSet<(IpAddr, String)>,
}

impl Advised {
    /// What is to be told of a host that looks so, each once. `read` gives the value of a file below `/proc/sys`.
    pub(super) fn see(
        &mut self,
        host: &Host,
        read: impl Fn(&str) -> Option<String>,
    ) -> Vec<String> {
        let mut told = Vec::new();
        let used: BTreeSet<u32> = host
            .ours
            .keys()
            .filter(|binding| binding.address.is_ipv4())
            .map(|binding| binding.index)
            .collect();
        for index in used.iter().filter(|index| !self.interfaces.contains(index)) {
            let mut all = host.interfaces.iter();
            let Some((name, _)) = all.find(|(_, all)| all.index == *index) else { continue };
            told.extend(kernel::way_back_advice(host, name, &read));
        }
        self.interfaces.extend(used);
        let left: BTreeSet<(IpAddr, String)> = host.left_besides().collect();
        for (address, interface) in left.difference(&self.left) {
            told.push(format!(
                "{address} is on interface {interface} as well, where nobody has tagged it, as an announcer of before leaves \
                 it: it is not ours and stays; ip address del dev {interface} {address}"
            ));
        }
        // What was taken off and comes back is told again.
        self.left = left;
        told
    }
}

#[cfg(test)]
mod tests {
    use berth_api::Family;

    use super::*;
    use crate::kernel::{Binding, Foreign, Interface, Lifetime};
    use crate::source::testing::two_interfaces;

    #[test]
    fn strict_filtering_where_the_default_route_leads_elsewhere_is_told_once() {
        let strict = |path: &str| path.ends_with("eth1/rp_filter").then(|| "1\n".to_owned());
        let mut host = two_interfaces();
        let mut advised = Advised::default();
        assert_eq!(advised.see(&host, strict), [""; 0], "nothing is bound there");
        let on_eth1 = Binding { index: 3, address: "192.0.2.9".parse().unwrap() };
        host.ours.insert(on_eth1, Lifetime::Forever);
        let told = advised.see(&host, strict);
        assert!(told.len() == 1 && told[0].contains("net.ipv4.conf.eth1.rp_filter"), "{told:?}");
        assert_eq!(advised.see(&host, strict), [""; 0], "it was told");
        host.default_routes.insert(Family::V4, vec!["eth1".to_owned()]);
        assert_eq!(Advised::default().see(&host, strict), [""; 0], "answers leave there");
    }

    #[test]
    fn what_stays_of_an_announcer_of_before_is_told_where_its_address_is_bound() {
        for (address, prefix_len) in [("192.0.2.9", 32), ("2001:db8::9", 128)] {
            let (mut host, mut advised) = (two_interfaces(), Advised::default());
            let address = address.parse().unwrap();
            let left = Foreign { prefix_len, untagged: true, ..Foreign::default() };
            let lo = Interface { index: 1, mac: None, up: true, foreign: [(address, left)].into() };
            host.interfaces.insert("lo".to_owned(), lo);
            let silent = |_: &str| None;
            assert_eq!(advised.see(&host, silent), [""; 0], "it is not bound here");
            // What is bound where it was left is taken over.
            host.ours.insert(Binding { index: 1, address }, Lifetime::Forever);
            assert_eq!(advised.see(&host, silent), [""; 0]);
            host.ours.remove(&Binding { index: 1, address });
            host.ours.insert(Binding { index: 3, address }, Lifetime::Forever);
            let told = advised.see(&host, silent);
            assert!(told.len() == 1 && told[0].contains("interface lo"), "{told:?}");
            assert_eq!(advised.see(&host, silent), [""; 0]);
        }
    }
}
