//! What a node sees, for the tests of whoever decides on it.

use berth_api::Family;

use super::cluster::Cluster;
use super::eip::Usage;
use super::fixed::Fixed;
use super::scene::Scene;
use super::wanted::wanted;
use crate::config::Permits;
use crate::kernel::{Foreign, Host, Interface};
use crate::vip::Wanted;

pub(crate) const MAC: [u8; 6] = [2; 6];

/// A host with `eth0`, switched on, which has the index 2.
pub(crate) fn host() -> Host {
    let eth0 = Interface { index: 2, mac: Some(MAC), up: true, foreign: [].into() };
    Host { interfaces: [("eth0".to_owned(), eth0)].into(), ..Host::default() }
}

/// A host with 10.0.0.5/24 on `eth0`, which has the default route, and 192.0.2.5/24 on `eth1`, index 3.
pub(crate) fn two_interfaces() -> Host {
    let foreign = |text: &str| {
        let foreign = Foreign { prefix_len: 24, ..Foreign::default() };
        [(text.parse().unwrap(), foreign)].into()
    };
    let eth = |index, own| Interface { index, mac: Some(MAC), up: true, foreign: foreign(own) };
    let interfaces =
        [("eth0".to_owned(), eth(2, "10.0.0.5")), ("eth1".to_owned(), eth(3, "192.0.2.5"))];
    Host {
        interfaces: interfaces.into(),
        default_routes: [(Family::V4, vec!["eth0".to_owned()])].into(),
        ..Host::default()
    }
}

/// What node `a` sees, where Services may name any interface and neighbours are told of addresses.
pub(crate) fn scene<'a>(
    cluster: &'a Cluster,
    host: &'a Host,
    interface: Option<&'a str>,
) -> Scene<'a> {
    Scene { cluster, host, node: "a", interface, permits: Permits::ALL, routed: None, layer2: &[] }
}

/// What is wanted as node `a` sees it.
pub(crate) fn seen(cluster: &Cluster, host: &Host, interface: Option<&str>) -> Wanted {
    wanted(scene(cluster, host, interface), &Usage::default(), &Fixed::default())
}
