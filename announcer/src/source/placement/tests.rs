use berth_api::claim::{ClaimPolicy, Holder};

use super::*;
use crate::config::{Config, Permits, Settings};
use crate::kernel::Foreign;
use crate::source::cluster::testing::service;
use crate::source::cluster::{Claims, Cluster};
use crate::source::testing::{scene, two_interfaces};

fn refused(host: &Host, address: &str) -> Option<&'static str> {
    let cluster = Cluster::default();
    let scene = scene(&cluster, host, Some("eth0"));
    place_anywhere(scene, scene.routed, address.parse().unwrap())
        .err()
        .map(|refusal| refusal.reason())
}

#[test]
fn the_hosts_own_address_on_another_interface_is_not_to_be_had() {
    let mut host = two_interfaces();
    assert_eq!(refused(&host, "192.0.2.5"), Some("AddressOnHost"));
    let eth1 = host.interfaces.remove("eth1").unwrap();
    host.interfaces.insert("kube-ipvs0".to_owned(), eth1);
    assert_eq!(refused(&host, "192.0.2.5"), None, "a copy of kube-proxy's");
}

/// The interface of an address that names none, where default routes lead so.
fn placed(host: &Host, address: &str) -> Option<u32> {
    let cluster = Cluster::default();
    let scene = scene(&cluster, host, None);
    match place_anywhere(scene, scene.routed, address.parse().unwrap()) {
        Ok(Attach::L2(link)) => Some(link.index),
        _ => None,
    }
}

#[test]
fn an_address_goes_where_the_default_route_of_its_family_leads_and_to_its_subnet_of_several() {
    let mut host = two_interfaces();
    let lead = |host: &mut Host, family, names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        host.default_routes.insert(family, names);
    };
    assert_eq!(placed(&host, "fd00::9"), Some(2), "that of the other family");
    lead(&mut host, Family::V6, &["eth1"]);
    assert_eq!((placed(&host, "fd00::9"), placed(&host, "203.0.113.9")), (Some(3), Some(2)));
    assert_eq!(
        placed(&host, "192.0.2.9"),
        Some(3),
        "its subnet, though the other family leads there"
    );
    lead(&mut host, Family::V4, &["eth0", "eth1"]);
    assert_eq!(placed(&host, "192.0.2.9"), Some(3), "its subnet");
    assert_eq!(placed(&host, "10.0.0.9"), Some(2), "its subnet");
    assert_eq!(placed(&host, "203.0.113.9"), Some(2), "the first");
    host.interfaces.get_mut("eth0").unwrap().up = false;
    assert_eq!(placed(&host, "10.0.0.9"), Some(3), "the one that is up");
    // What has no Ethernet address is no LAN, as a tunnel of IPv6.
    host.interfaces.get_mut("eth1").unwrap().mac = None;
    host.interfaces.get_mut("eth0").unwrap().up = true;
    assert_eq!(placed(&host, "fd00::9"), Some(2), "not by the tunnel");
    host.default_routes.clear();
    assert_eq!(placed(&host, "10.0.0.9"), None);
}

#[test]
fn what_the_fence_does_not_cover_is_not_to_be_had_here() {
    let mut host = two_interfaces();
    host.uncovered.insert("192.0.2.77".parse().unwrap(), "full".to_owned());
    assert_eq!(refused(&host, "192.0.2.77"), Some("NotBound"));
    assert_eq!(refused(&host, "192.0.2.78"), None);
}

#[test]
fn what_a_router_has_that_a_node_speaks_to_is_not_to_be_had_there_whoever_claims_it() {
    let (mut host, mut cluster) = (two_interfaces(), Cluster::default());
    let lo = Interface { index: 1, mac: None, up: true, foreign: [].into() };
    host.interfaces.insert("lo".to_owned(), lo);
    let router: IpAddr = "198.51.100.200".parse().unwrap();
    let refused = |cluster: &Cluster, host: &Host, address: IpAddr| {
        [None, Some("lo")].map(|routed| {
            let scene = Scene { routed, ..scene(cluster, host, Some("eth0")) };
            place_anywhere(scene, routed, address).err().map(|refusal| refusal.note())
        })
    };
    assert_eq!(refused(&cluster, &host, router), [None, None]);
    cluster.routers.insert(router, "peer rr of BGP".to_owned());
    for told in refused(&cluster, &host, router) {
        let told = told.unwrap();
        assert!(told.contains("node a would lose what has it, peer rr of BGP"), "{told}");
    }
    let gateway = "10.0.0.1".parse().unwrap();
    host.gateways.insert(2, [gateway].into());
    let [by_lan, routed] = refused(&cluster, &host, gateway);
    assert_eq!(by_lan, None, "it answers for it");
    assert!(routed.unwrap().contains("the next hop of a route"));
    host.next_hops.insert("10.0.0.77".parse().unwrap());
    let [_, routed] = refused(&cluster, &host, "10.0.0.77".parse().unwrap());
    assert!(routed.unwrap().contains("the next hop of a route"));
}

#[test]
fn what_an_announcer_left_is_taken_over_only_where_its_claim_is_older() {
    let (mut host, address) = (two_interfaces(), "192.0.2.9".parse().unwrap());
    let eth0 = host.interfaces.get_mut("eth0").unwrap();
    eth0.foreign.insert(address, Foreign { prefix_len: 32, adoptable: true, ..Foreign::default() });
    let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
    let refused = |cluster: &Cluster, host: &Host| {
        let scene = scene(cluster, host, Some("eth0"));
        place_anywhere(scene, scene.routed, address).err().map(|refusal| refusal.reason())
    };
    assert_eq!(refused(&cluster, &host), Some("AddressOnHost"), "nobody claims it");
    cluster.claims.apply("192.0.2.9", vec![Holder::alone("web")], false);
    assert_eq!(refused(&cluster, &host), Some("AddressOnHost"), "found later");
    cluster.claims.apply("192.0.2.9", vec![Holder::alone("web")], true);
    assert_eq!(refused(&cluster, &host), None);
    assert_eq!(refused(&Cluster::default(), &host), None, "where claims do not matter");
    for interface in host.interfaces.values_mut() {
        interface.foreign.retain(|_, foreign| foreign.adoptable);
    }
    assert_eq!(refused(&cluster, &host), Some("AddressOnHost"), "its only address");
}

#[test]
fn what_nobody_has_tagged_is_taken_over_where_its_claim_is_older_and_the_node_has_a_subnet_besides()
{
    for (address, own, prefix_len) in
        [("192.0.2.9", "192.0.2.7", 32), ("2001:db8::9", "2001:db8::7", 128)]
    {
        let (mut host, address) = (two_interfaces(), address.parse().unwrap());
        let left = Foreign { prefix_len, untagged: true, ..Foreign::default() };
        let subnet = Foreign { prefix_len: 24, ..Foreign::default() };
        let lo = Interface { index: 1, mac: None, up: true, foreign: [(address, left)].into() };
        host.interfaces.insert("lo".to_owned(), lo);
        let eth0 = host.interfaces.get_mut("eth0").unwrap();
        eth0.foreign.extend([(address, left), (own.parse().unwrap(), subnet)]);
        let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
        let refused = |cluster: &Cluster, host: &Host| {
            let scene = scene(cluster, host, Some("eth0"));
            place_anywhere(scene, scene.routed, address).err().map(|refusal| refusal.reason())
        };
        let text = address.to_string();
        cluster.claims.apply(&text, vec![Holder::alone("web")], false);
        assert_eq!(refused(&cluster, &host), Some("AddressOnHost"), "found later");
        assert_eq!(
            refused(&Cluster::default(), &host),
            Some("AddressOnHost"),
            "nothing says whose"
        );
        cluster.claims.apply(&text, vec![Holder::alone("web")], true);
        assert_eq!(refused(&cluster, &host), None);
        for interface in host.interfaces.values_mut() {
            interface.foreign.values_mut().for_each(|own| own.prefix_len = prefix_len);
        }
        let told = refused(&cluster, &host);
        assert_eq!(told, Some("AddressOnHost"), "it may be the node's, which has no subnet");
    }
}

#[test]
fn where_nobody_could_be_answered_an_address_is_not_to_be_had() {
    let mut host = two_interfaces();
    host.default_routes.insert(Family::V6, vec!["eth0".to_owned()]);
    host.filtered.insert(2);
    assert_eq!(refused(&host, "10.0.0.9"), Some("ReversePathFiltered"));
    assert_eq!(refused(&host, "2001:db8::9"), None, "IPv6 has no such setting");
    host.filtered = [3].into();
    assert_eq!(refused(&host, "10.0.0.9"), None, "of another interface");
    host.stranded = [(Family::V6, 2)].into();
    assert_eq!(refused(&host, "10.0.0.9"), None);
    assert_eq!(refused(&host, "2001:db8::9"), Some("NoWayBack"));
    // The interface on which a port is met decides.
    host.ports = [(2, 3)].into();
    assert_eq!(refused(&host, "10.0.0.9"), Some("ReversePathFiltered"));
    let (cluster, interface, permits) = (Cluster::default(), Some("eth0"), Permits::ALL);
    let scene = Scene {
        cluster: &cluster,
        host: &host,
        node: "node-17",
        interface,
        permits,
        routed: None,
        layer2: &[],
    };
    let told = place_anywhere(scene, scene.routed, "10.0.0.9".parse().unwrap()).unwrap_err().note();
    let names = ["node-17", "eth1", "rp_filter"].iter().all(|name| told.contains(name));
    assert!(names, "{told}");
}

#[test]
fn a_vlan_is_the_one_of_its_parent_and_number_whatever_its_name() {
    let mut cluster = Cluster::default();
    let web = Service { vlan: Some(Ok(2507)), ..service(&["192.0.2.77"]) };
    cluster.apply_service(Name::new("shop", "web"), web.clone());
    let mut host = two_interfaces();
    let long = "enp94s0f0np0";
    let eth0 = host.interfaces.remove("eth0").unwrap();
    host.interfaces.insert(long.to_owned(), eth0);
    let seen = |host: &Host| {
        let interface = Some(long);
        let scene = scene(&cluster, host, interface);
        let names: Vec<String> = vlans(scene).into_keys().collect();
        let placed = place(scene, "shop", &web, "192.0.2.77".parse().unwrap());
        (names, placed.map(|attach| attach.index()).map_err(|refusal| refusal.reason()))
    };
    let made = "v2.2507".to_owned();
    assert_eq!(seen(&host), (vec![made], Err("InterfaceMissing")), "a name that Linux takes");
    let vlan = Interface { index: 9, ..host.interfaces["eth1"].clone() };
    host.interfaces.insert("vlan2507".to_owned(), vlan);
    host.vlans.insert(Vlan { parent: 3, id: 2507 }, "vlan2507".to_owned());
    assert_eq!(seen(&host).1, Err("InterfaceMissing"), "of another parent");
    host.vlans = [(Vlan { parent: 2, id: 2507 }, "vlan2507".to_owned())].into();
    assert_eq!(seen(&host), (vec!["vlan2507".to_owned()], Ok(9)));
}

#[test]
fn a_service_has_addresses_only_where_the_operator_permits() {
    let (host, address) = (two_interfaces(), "192.0.2.77".parse().unwrap());
    let cluster = Cluster::default();
    let refused = |interface: Option<&str>, vlan: Option<u16>, lists: [&str; 2]| {
        let given = ["berth_service_interfaces", "berth_service_vlans"];
        let given = given.into_iter().zip(lists).map(|(name, list)| (name.into(), list.into()));
        let config = Config::parse(&Settings::gather(given, []), "a").unwrap();
        let permits = &config.services.unwrap().permits;
        let scene = Scene {
            cluster: &cluster,
            host: &host,
            node: "a",
            interface: Some("eth0"),
            permits,
            routed: None,
            layer2: &[],
        };
        let service = Service {
            interface: interface.map(|name| Ok(name.to_owned())),
            vlan: vlan.map(Ok),
            ..service(&["192.0.2.77"])
        };
        place(scene, "shop", &service, address).err().map(|refusal| refusal.reason())
    };
    assert_eq!(refused(Some("eth1"), None, ["", ""]), Some("InterfaceNotPermitted"));
    assert_eq!(refused(Some("auto"), None, ["", ""]), Some("InterfaceNotPermitted"), "it is eth1");
    let missing = |lists| refused(Some("eth9"), None, lists);
    assert_eq!(missing(["", ""]), Some("InterfaceNotPermitted"), "whether it is there is not told");
    assert_eq!(missing(["eth9", ""]), Some("InterfaceMissing"));
    for named in [None, Some("eth0")] {
        assert_eq!(refused(named, None, ["", ""]), None);
    }
    for listed in ["eth1", "blog/eth1,shop/eth1"] {
        assert_eq!(refused(Some("eth1"), None, [listed, ""]), None);
        assert_eq!(refused(Some("auto"), None, [listed, ""]), None);
    }
    for of_others in ["blog/eth1", "shop/eth0"] {
        let told = Some("InterfaceNotPermitted");
        assert_eq!(refused(Some("eth1"), None, [of_others, ""]), told);
        assert_eq!(refused(Some("auto"), None, [of_others, ""]), told);
    }
    assert_eq!(refused(None, Some(5), ["", ""]), Some("VlanNotPermitted"));
    assert_eq!(refused(None, Some(5), ["", "6-9"]), Some("VlanNotPermitted"));
    assert_eq!(refused(None, Some(5), ["", "blog/5"]), Some("VlanNotPermitted"));
    for listed in ["5", "shop/1-9"] {
        assert_ne!(refused(None, Some(5), ["", listed]), Some("VlanNotPermitted"));
    }
}

#[test]
fn what_a_namespace_may_not_name_is_neither_fenced_for_it_nor_made() {
    let mut cluster = Cluster::default();
    let interface = Some(Ok("eth2".to_owned()));
    let web = Service { interface, vlan: Some(Ok(5)), ..service(&["192.0.2.77"]) };
    cluster.apply_service(Name::new("shop", "web"), web);
    let mut host = two_interfaces();
    let mut eth2 = Interface { index: 9, ..host.interfaces["eth1"].clone() };
    eth2.foreign.clear();
    host.interfaces.insert("eth2".to_owned(), eth2);
    let made = |namespace: &str| {
        let given = ["berth_service_interfaces", "berth_service_vlans"];
        let lists = [format!("{namespace}/eth2"), format!("{namespace}/5")];
        let given = given.into_iter().map(Into::into).zip(lists.map(Into::into));
        let config = Config::parse(&Settings::gather(given, []), "a").unwrap();
        let permits = &config.services.unwrap().permits;
        let interface = Some("eth0");
        let scene = Scene {
            cluster: &cluster,
            host: &host,
            node: "a",
            interface,
            permits,
            routed: None,
            layer2: &[],
        };
        let vlans: Vec<String> = vlans(scene).into_keys().collect();
        (guarded(scene).contains("eth2"), vlans)
    };
    assert_eq!(made("shop"), (true, vec!["eth2.5".to_owned()]));
    assert_eq!(made("blog"), (false, vec![]));
}

#[test]
fn a_port_of_a_port_is_met_on_the_topmost_and_a_vlan_is_its_own() {
    let mut host = two_interfaces();
    let bridge = Interface { index: 9, ..host.interfaces["eth1"].clone() };
    host.interfaces.insert("br0".to_owned(), bridge);
    host.ports = [(2, 3), (3, 9)].into();
    host.alternatives = [("uplink".to_owned(), "eth0".to_owned())].into();
    assert_eq!(interface(&host, "a", Some("uplink")).unwrap().0, "br0");
    let cluster = Cluster::default();
    let scene = scene(&cluster, &host, None);
    assert_eq!(named(scene, Some("uplink"), "10.0.0.9".parse().unwrap()).unwrap().0, "eth0");
    host.ports.insert(9, 2);
    assert!(interface(&host, "a", Some("eth0")).is_ok(), "a circle ends");
}
