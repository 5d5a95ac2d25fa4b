//! By which interface and gateway it leaves what machines with an elastic IP send.

use berth_announcer::dataplane::eip::Nat;
use berth_announcer::instance::Instance;

use super::{Translator, both, nat, prepare, table, table_of};
use crate::kept::Kept;
use crate::namespace::{alone, run};

#[test]
fn what_machines_send_leaves_by_each_gateway_that_their_interface_has() {
    alone(async || {
        run("ip link add eth1 type veth peer name peer1");
        run("ip link set peer1 up");
        run("ip link set eth1 up");
        run("ip addr add 198.51.100.5/24 dev eth1");
        let mixed = "default nexthop via inet6 2001:db8::fe dev eth0 \
                     nexthop via 198.51.100.254 dev eth1";
        for (route, uplink, gateway) in [
            ("default via 192.0.2.254 dev eth0", "eth0", "via 192.0.2.254 dev eth0"),
            ("default via inet6 2001:db8::fe dev eth0", "eth0", "via inet6 2001:db8::fe dev eth0"),
            (mixed, "eth0", "via inet6 2001:db8::fe dev eth0"),
            (mixed, "eth1", "via 198.51.100.254 dev eth1"),
        ] {
            run(&format!("ip -4 route replace {route}"));
            let mut translator = Translator::start();
            let uplink = Some(uplink.to_owned());
            let nat = Nat { uplink, ..nat(&[("192.0.2.1", "10.244.0.4")]) };
            translator.make(&nat).await;
            let shown = table("-4");
            assert!(shown.contains(&format!("default {gateway}")), "{route}: {shown:?}");
            translator.stop().await;
        }
    });
}

#[test]
fn what_machines_send_leaves_by_the_default_route_of_its_family_where_no_interface_is_named() {
    alone(async || {
        run("ip link add eth1 type veth peer name peer1");
        run("ip link set peer1 up");
        run("ip link set eth1 up");
        run("ip addr add 2001:db8:1::5/64 dev eth1 nodad");
        run("ip -4 route add default via 192.0.2.254 dev eth0");
        for (route, gateway) in [
            ("via 2001:db8:1::fe dev eth1", "via 2001:db8:1::fe dev eth1"),
            ("via 2001:db8::fe dev eth0", "via 2001:db8::fe dev eth0"),
        ] {
            run(&format!("ip -6 route replace default {route}"));
            let mut translator = Translator::start();
            translator.make(&Nat { uplink: None, ..both() }).await;
            let (v4, v6) = (table("-4"), table("-6").join("\n"));
            assert!(v4.contains(&"default via 192.0.2.254 dev eth0".to_owned()), "{v4:?}");
            assert!(v6.contains(&format!("default {gateway}")), "{v6}");
            translator.stop().await;
        }
    });
}

/// Its number is 192, which is that of EIGRP: a protocol with a name was not known again, and its routes stayed.
#[test]
fn an_announcer_of_both_roles_knows_its_routes_again() {
    alone(async || {
        prepare("nft");
        let mut translator = Translator(Kept::of(&Instance::of_roles(true, true), "elastic IPs"));
        translator.make(&both()).await;
        assert_eq!(table_of("-4", 192).len(), 4);
        translator.make(&Nat::default()).await;
        assert_eq!((table_of("-4", 192), table_of("-6", 192)), (vec![], vec![]));
        translator.stop().await;
    });
}
