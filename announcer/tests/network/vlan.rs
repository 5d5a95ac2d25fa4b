//! VLANs for Services. What is true depends on the kernel: `e2e/tests/other_kernel.rs` runs this under one that has the
//! module, whatever the machine's own has.

use berth_announcer::instance::Instance;
use berth_announcer::kernel::{Kernel, Vlan};
use berth_announcer::source::cluster::Name;
use berth_announcer::source::watch::ClusterEvent;
use serde_json::{Value, json};

use crate::announcements::{hears, tcpdump};
use crate::cluster::{Asked, Cluster};
use crate::namespace::{address, addresses, alone, attempt, door, run};
use crate::rounds::{Node, published, service, until};

#[test]
fn a_vlan_is_made_for_services_and_removed_with_the_last_or_the_service_is_told() {
    alone(async || {
        let makes = attempt("ip link add link eth0 name eth0.9 type vlan id 9").status.success();
        // So that a run under another kernel can be told from one here.
        println!("this kernel makes {}", if makes { "VLANs" } else { "no VLANs" });
        if makes { made_and_removed().await } else { refused().await }
    });
}

#[test]
fn a_vlan_interface_of_another_instance_stays_when_ones_own_is_swept() {
    alone(async || {
        let door = door();
        let (services, other) = (Instance::services(), Instance::of_roles(true, false));
        let (mut services, mut other) = (door.netlink(&services), door.netlink(&other));
        let parent = services.look().await.unwrap().interfaces["eth0"].index;
        match services.make_vlan("eth0.5", Vlan { parent, id: 5 }).await {
            Ok(()) => println!("this kernel makes VLANs"),
            Err(error) => {
                println!("this kernel makes no VLANs");
                assert!(error.to_string().contains("8021q"), "{error}");
                assert!(!is_there());
                return;
            }
        }
        other.make_vlan("eth0.6", Vlan { parent, id: 6 }).await.unwrap();
        let others = identity("eth0.6");
        let made = services.look().await.unwrap().made;
        assert_eq!(made.len(), 1, "{made:?}");
        for index in made {
            services.remove_link(index).await.unwrap();
        }
        assert!(!is_there());
        assert_eq!(identity("eth0.6"), others);
        assert_eq!(other.look().await.unwrap().made.len(), 1);
    });
}

#[test]
fn a_vlan_that_somebody_has_made_is_used_by_whatever_name_and_stays() {
    alone(async || {
        // A predictable name as users have it: with a number behind it, it has more octets than Linux takes.
        run("ip link add enp94s0f0np0 type veth peer name peer1");
        run("ip link set peer1 up");
        run("ip link set enp94s0f0np0 up");
        let makes = "ip link add link enp94s0f0np0 name vlan5 type vlan id 5";
        if !attempt(makes).status.success() {
            println!("this kernel makes no VLANs");
            return;
        }
        println!("this kernel makes VLANs");
        run("ip link set vlan5 up");
        let before = links();
        let cluster = Cluster::new();
        let settings = [&SETTINGS[1..], &[("vip_interface", "enp94s0f0np0")]].concat();
        let node = Node::start(&cluster, &settings).await;
        node.expose(tagged("web", "192.0.2.1")).await;
        cluster.asks(published).await;
        assert!(address("vlan5", "192.0.2.1").is_some(), "there is no second one of that VLAN");
        assert_eq!(links(), before);
        node.show(ClusterEvent::ServiceGone(Name::new("shop", "web"))).await;
        until("unbound", || address("vlan5", "192.0.2.1").is_none()).await;
        assert_eq!(links(), before, "it is not ours");

        let mut long = tagged("long", "192.0.2.3");
        long["metadata"]["annotations"]["kube-vip.io/serviceVLAN"] = json!("2507");
        node.expose(long).await;
        let (there, is) = ("ip -d -j link show type vlan", "an interface with a name that fits");
        until(is, || {
            let shown: Vec<Value> = serde_json::from_str(&run(there)).unwrap();
            let made = shown.iter().find(|link| link["linkinfo"]["info_data"]["id"] == 2507);
            let name = made.and_then(|link| link["ifname"].as_str()).unwrap_or_default().to_owned();
            name.len() < 16 && !name.is_empty() && address(&name, "192.0.2.3").is_some()
        })
        .await;
        node.stop.cancel();
        assert!(node.driving.await.unwrap(), "left in time");
        assert_eq!(links(), before, "ours goes, the other one stays");
    });
}

/// The Service of this name and address, on VLAN 5.
fn tagged(name: &str, addresses: &str) -> Value {
    let mut service = service();
    service["metadata"]["name"] = json!(name);
    service["metadata"]["annotations"] =
        json!({ "kube-vip.io/loadbalancerIPs": addresses, "kube-vip.io/serviceVLAN": "5" });
    service
}

/// All that the kernel says of an interface but its state, which it tells later.
fn identity(name: &str) -> Value {
    let mut links: Value =
        serde_json::from_str(&run(&format!("ip -d -j link show dev {name}"))).unwrap();
    let state = links[0].as_object_mut().unwrap().remove("operstate");
    assert!(state.is_some(), "{links}");
    links
}

fn is_there() -> bool {
    attempt("ip link show dev eth0.5").status.success()
}

/// The names of all interfaces.
fn links() -> Vec<String> {
    let links: Vec<Value> = serde_json::from_str(&run("ip -j link")).unwrap();
    links.iter().map(|link| link["ifname"].to_string()).collect()
}

/// In a guest whose processor is emulated, on a busy machine, seconds are short: a Lease must outlast a stall.
const SETTINGS: [(&str, &str); 3] =
    [("vip_interface", "eth0"), ("vip_leaseduration", "60"), ("vip_renewdeadline", "40")];

async fn made_and_removed() {
    // Somebody else's in a group of this number.
    run("ip link add link eth0 name storage type vlan id 7");
    run("ip link set dev storage group 190");
    let before = links();
    let cluster = Cluster::new();
    let node = Node::start(&cluster, &SETTINGS).await;
    let (_tcpdump, mut heard) = tcpdump("vlan 5 and arp and host 192.0.2.1").await;
    node.expose(tagged("web", "192.0.2.1,2001:db8::1")).await;
    cluster.asks(published).await;

    let link: Value = serde_json::from_str(&run("ip -d -j link show dev eth0.5")).unwrap();
    let made = &link[0];
    assert_eq!(made["link"], "eth0");
    assert_eq!(made["linkinfo"]["info_kind"], "vlan");
    assert_eq!(made["linkinfo"]["info_data"]["id"], 5);
    assert_eq!(made["linkinfo"]["info_data"]["protocol"], "802.1Q");
    assert!(run("ip link show group 190").contains("eth0.5@eth0"), "our tag");
    for text in ["192.0.2.1", "2001:db8::1"] {
        assert!(address("eth0.5", text).is_some(), "{text} is bound there");
        assert!(address("eth0", text).is_none(), "{text} is bound only there");
    }
    hears(&mut heard, &["vlan 5", "Request who-has 192.0.2.1 tell 192.0.2.1"]).await;

    node.expose(tagged("other", "192.0.2.2")).await;
    let other = |asked: &Asked| {
        asked.what.ends_with("/other/status")
            && !asked.body["status"]["loadBalancer"]["ingress"].is_null()
    };
    cluster.asks(other).await;
    node.show(ClusterEvent::ServiceGone(Name::new("shop", "web"))).await;
    until("unbound", || address("eth0.5", "192.0.2.1").is_none()).await;
    assert!(address("eth0.5", "192.0.2.2").is_some(), "another Service needs it");
    node.show(ClusterEvent::ServiceGone(Name::new("shop", "other"))).await;
    until("removed", || !is_there()).await;
    // With eth0.9, which somebody else made.
    assert_eq!(links(), before);

    node.expose(tagged("web", "192.0.2.1")).await;
    until("made again", || is_there() && address("eth0.5", "192.0.2.1").is_some()).await;
    node.stop.cancel();
    assert!(node.driving.await.unwrap(), "left in time");
    assert_eq!(links(), before, "an announcer that leaves leaves none behind");
}

async fn refused() {
    let cluster = Cluster::new();
    let node = Node::start(&cluster, &SETTINGS).await;
    node.expose(tagged("web", "192.0.2.1,2001:db8::1")).await;
    let told = cluster.asks(|asked| asked.body["reason"] == "VlanNotMade").await;
    let note = told.body["note"].as_str().unwrap();
    assert!(note.contains("eth0.5") && note.contains("8021q"), "{note}");
    assert!(addresses("eth0").iter().all(|shown| shown["deprecated"] != true));
    assert!(!is_there());
}
