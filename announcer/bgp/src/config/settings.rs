//! kube-vip's settings for BGP: `bgp_*` and `mpbgp_*`, by their names in the environment.

use std::net::IpAddr;
use std::str::FromStr;

use super::flaw::{Flaw, Place};
use super::grammar::{
    self, AS_ACCEPTED, MultiProtocol, NEXT_HOP, SWITCH_ACCEPTED, asn, is_interface, switch,
};
use super::password::{self, Password};
use super::peer::{Distance, FAR, Hops, Peer, Remote, RouterId, Speaker};
use crate::session::RemoteAs;

struct Reader<'a, G> {
    get: G,
    flaws: &'a mut Vec<Flaw>,
}

impl<'t, G: Fn(&str) -> Option<&'t str>> Reader<'_, G> {
    /// A value, without the blanks around it; an empty one counts as not given.
    fn text(&self, name: &str) -> Option<&'t str> {
        (self.get)(name).map(str::trim).filter(|text| !text.is_empty())
    }

    fn read<T>(
        &mut self,
        name: &str,
        accepted: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name)?;
        let value = read(text);
        if value.is_none() {
            self.flaws.push(Flaw::new("", name, Place::Named, accepted).value(text));
        }
        value
    }

    fn parsed<T: FromStr>(&mut self, name: &str, accepted: &str) -> Option<T> {
        self.read(name, accepted, |text| text.parse().ok())
    }
}

/// Reads kube-vip's settings: the speaker and its peers. Those that are right are there, whatever is wrong with others.
pub fn settings<'t>(get: impl Fn(&str) -> Option<&'t str>) -> (Speaker, Vec<Peer>, Vec<Flaw>) {
    let mut flaws = Vec::new();
    let mut reader = Reader { get, flaws: &mut flaws };
    let usual = Speaker::default();
    let hold_time =
        reader.read("bgp_hold_time", HOLD_ACCEPTED, hold_time).unwrap_or(usual.hold_time);
    let keepalive = reader.parsed("bgp_keepalive_interval", "accepted are seconds, 0 to 65535");
    let speaker = Speaker {
        local_as: reader.read("bgp_as", AS_ACCEPTED, asn).unwrap_or(usual.local_as),
        router_id: router_id(&mut reader),
        hold_time,
        keepalive: keepalive
            .map_or(usual.keepalive, |seconds: u16| (seconds > 0).then_some(seconds)),
        ..usual
    };
    let mode = reader.read("mpbgp_nexthop", NEXT_HOP, |text| {
        ["fixed", "auto_sourceip", "auto_sourceif"].contains(&text).then(|| text.to_owned())
    });
    let usual = MultiProtocol {
        mode,
        v4: reader.parsed("mpbgp_ipv4", "accepted is an IPv4 address"),
        v6: reader.parsed("mpbgp_ipv6", "accepted is an IPv6 address"),
    };
    let (mut peers, wrong) =
        grammar::peers_with(reader.text("bgp_peers").unwrap_or_default(), &usual);
    reader.flaws.extend(
        wrong.into_iter().map(|flaw| Flaw { field: format!("bgp_peers, {}", flaw.field), ..flaw }),
    );
    if let Some(peer) = one(&mut reader, &usual)
        && peers.iter().all(|other| other.remote != peer.remote)
    {
        peers.push(peer);
    }
    let source = first(
        &mut reader,
        ["bgp_sourceip", "bgp_source_ip"],
        "accepted is an address of this node",
        |text| text.parse::<IpAddr>().ok().filter(|address| !address.is_unspecified()),
    );
    let interface = first(&mut reader, ["bgp_sourceif", "bgp_source_if"], INTERFACE, |text| {
        Some(text.to_owned()).filter(|name| is_interface(name))
    });
    for peer in &mut peers {
        let same_family = |source: &IpAddr| match &peer.remote {
            Remote::Address(address) => address.is_ipv4() == source.is_ipv4(),
            Remote::Interface(_) => false,
        };
        peer.source = source.filter(same_family).filter(|_| peer.hops != Hops::Interface);
        peer.interface = interface.clone().filter(|_| matches!(peer.remote, Remote::Address(_)));
    }
    (speaker, peers, flaws)
}

const HOLD_ACCEPTED: &str = "accepted are seconds: 0 for never, or 3 to 65535";
const INTERFACE: &str = "accepted is the name of an interface";

/// RFC 4271 §4.2.
pub(super) fn hold_time(text: &str) -> Option<u16> {
    text.parse().ok().filter(|seconds| !matches!(seconds, 1 | 2))
}

/// The first of two names that is given: the older one counts where the newer one is not.
fn first<'t, T, G: Fn(&str) -> Option<&'t str>>(
    reader: &mut Reader<'_, G>,
    names: [&str; 2],
    accepted: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let name = names.into_iter().find(|name| reader.text(name).is_some())?;
    reader.read(name, accepted, read)
}

fn router_id<'t, G: Fn(&str) -> Option<&'t str>>(reader: &mut Reader<'_, G>) -> RouterId {
    let accepted = "accepted is an IPv4 address that is not 0.0.0.0";
    let given = reader.read("bgp_routerid", accepted, |text| {
        text.parse().ok().filter(|id: &std::net::Ipv4Addr| !id.is_unspecified())
    });
    let of = |name: String| RouterId::Of(name);
    let interface = |text: &str| Some(text.to_owned()).filter(|name| is_interface(name));
    let by = reader.read("bgp_routerinterface", INTERFACE, interface).map(of);
    given.map(RouterId::Is).or(by).unwrap_or_default()
}

/// The peer that has settings of its own.
fn one<'t, G: Fn(&str) -> Option<&'t str>>(
    reader: &mut Reader<'_, G>,
    usual: &MultiProtocol,
) -> Option<Peer> {
    let accepted = "accepted is an IPv4 or IPv6 address of a host";
    let address = reader.read("bgp_peeraddress", accepted, |text| {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        bare.parse::<IpAddr>().ok().filter(|address| grammar::is_peer(*address))
    });
    let asn = reader.read("bgp_peeras", AS_ACCEPTED, asn);
    let far = reader.read("bgp_multihop", SWITCH_ACCEPTED, switch);
    let password = reader.text("bgp_peerpass").map(|text| {
        let password = Password::read(text);
        if password.is_none() {
            reader.flaws.push(Flaw::new("", "bgp_peerpass", Place::Named, password::ACCEPTED));
        }
        password
    });
    // Without its password it is another peer; what is wrong has been told.
    let password = match password {
        Some(None) => return None,
        Some(password) => password,
        None => None,
    };
    let mut peer = Peer::new(
        Remote::Address(address?),
        RemoteAs::Is(asn.unwrap_or(Speaker::default().local_as)),
    );
    peer.password = password;
    if far == Some(true) {
        peer.distance = Distance::Hops(FAR);
    }
    if let Some(mode) = &usual.mode {
        match grammar::next_hops(mode, usual.v4, usual.v6) {
            Some(hops) => (peer.hops, peer.families) = (hops, crate::prefix::Family::ALL.into()),
            None => {
                reader
                    .flaws
                    .push(Flaw::new("", "mpbgp_nexthop", Place::Named, NEXT_HOP).value(mode));
                return None;
            }
        }
    }
    Some(peer)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn given(pairs: &[(&str, &str)]) -> (Speaker, Vec<Peer>, Vec<String>) {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let find =
            |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let (speaker, peers, flaws) = settings(find);
        (speaker, peers, flaws.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn without_settings_a_speaker_is_as_kube_vips() {
        let (speaker, peers, flaws) = given(&[]);
        assert_eq!((speaker.local_as, speaker.hold_time, speaker.keepalive), (65000, 30, Some(10)));
        assert_eq!((speaker.router_id, peers.len(), flaws.len()), (RouterId::Found, 0, 0));
    }

    #[test]
    fn the_one_peer_and_the_list_are_peers_of_one_speaker() {
        let (speaker, peers, flaws) = given(&[
            ("bgp_as", "65010"),
            ("bgp_routerid", "192.0.2.11"),
            ("bgp_hold_time", "90"),
            ("bgp_keepalive_interval", "0"),
            ("bgp_peeraddress", "192.0.2.1"),
            ("bgp_peeras", "65001"),
            ("bgp_peerpass", "secret"),
            ("bgp_multihop", "true"),
            ("bgp_sourceip", "192.0.2.11"),
            ("bgp_source_if", "eth1"),
            ("bgp_peers", "192.0.2.1:65002,[2001:db8::1]:65001"),
        ]);
        assert!(flaws.is_empty(), "{flaws:?}");
        assert_eq!((speaker.local_as, speaker.hold_time, speaker.keepalive), (65010, 90, None));
        assert_eq!(speaker.router_id, RouterId::Is(Ipv4Addr::new(192, 0, 2, 11)));
        assert_eq!(peers.len(), 2, "the one of the list counts");
        assert_eq!(peers[0].remote_as, RemoteAs::Is(65002));
        assert_eq!(peers[0].source, Some("192.0.2.11".parse().unwrap()));
        assert_eq!(peers[1].source, None, "an address of the other family");
        assert!(peers.iter().all(|peer| peer.interface.as_deref() == Some("eth1")));
        let (_, peers, _) = given(&[
            ("bgp_peeraddress", "2001:db8::1"),
            ("bgp_peerpass", "secret"),
            ("bgp_multihop", "1"),
        ]);
        assert_eq!(
            (peers[0].remote_as, peers[0].distance),
            (RemoteAs::Is(65000), Distance::Hops(FAR))
        );
        assert!(peers[0].password.is_some());
    }

    #[test]
    fn what_is_wrong_names_the_setting_and_costs_no_other() {
        let long = "x".repeat(100);
        let (_, peers, flaws) = given(&[
            ("bgp_as", "0"),
            ("bgp_routerid", "0.0.0.0"),
            ("bgp_routerinterface", "a/b"),
            ("bgp_hold_time", "2"),
            ("bgp_keepalive_interval", "x"),
            ("bgp_peeraddress", "router"),
            ("bgp_peerpass", &long),
            ("bgp_multihop", "far"),
            ("bgp_sourceip", "eth0"),
            ("mpbgp_nexthop", "here"),
            ("mpbgp_ipv4", "::1"),
            ("bgp_peers", "192.0.2.1:65001,192.0.2.2:x"),
        ]);
        assert_eq!(peers.len(), 1);
        assert_eq!(flaws.len(), 12, "{flaws:#?}");
        assert!(
            flaws.contains(
                &"bgp_as \"0\": accepted is a whole number from 1 to 4294967295".to_owned()
            )
        );
        assert!(
            flaws
                .iter()
                .any(|flaw| flaw.starts_with("peer 2 (192.0.2.2), bgp_peers, AS at character 27"))
        );
        assert!(flaws.iter().all(|flaw| !flaw.contains("xxx")), "{flaws:?}");
    }

    #[test]
    fn next_hops_are_the_settings_where_a_peer_says_nothing() {
        let (_, peers, flaws) = given(&[
            ("mpbgp_nexthop", "fixed"),
            ("mpbgp_ipv6", "2001:db8::11"),
            ("bgp_peeraddress", "192.0.2.1"),
            ("bgp_peers", "192.0.2.2:65001"),
        ]);
        assert!(flaws.is_empty(), "{flaws:?}");
        let hops = Hops::Fixed { v4: None, v6: Some("2001:db8::11".parse().unwrap()) };
        assert!(peers.iter().all(|peer| peer.hops == hops && peer.families.len() == 2));
        let (_, peers, flaws) =
            given(&[("mpbgp_nexthop", "fixed"), ("bgp_peeraddress", "192.0.2.1")]);
        assert_eq!((peers.len(), flaws.len()), (0, 1));
    }
}
