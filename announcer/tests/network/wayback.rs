//! Where nobody could be answered: judged by a neighbour that asks, and by what a Service is told.

use std::fs;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use berth_announcer::kernel::Kernel;
use serde_json::{Value, json};

use crate::cluster::{Asked, Cluster};
use crate::namespace::{address, alone, attempt, kernel, run};
use crate::rounds::{Node, published, service};

/// A host on the LAN of `eth1`, in a network of its own.
struct Neighbour(Child);

impl Neighbour {
    /// `eth1` is here, and has no address; the neighbour has 198.51.100.77/24 and 2001:db8:1::77/64.
    fn on_eth1() -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
        let neighbour = Self(child);
        let network = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).unwrap();
        let (id, start) = (neighbour.0.id().to_string(), Instant::now());
        while network(&id) == network("thread-self") {
            assert!(start.elapsed() < Duration::from_secs(10), "no network of its own");
            std::thread::sleep(Duration::from_millis(5));
        }
        run("ip link add eth1 type veth peer name peer1");
        run(&format!("ip link set peer1 netns {id}"));
        run("ip link set eth1 up");
        for command in ["ip link set peer1 up", "ip addr add 198.51.100.77/24 dev peer1"] {
            assert!(neighbour.does(command).status.success(), "{command}");
        }
        neighbour.does("ip addr add 2001:db8:1::77/64 dev peer1 nodad");
        neighbour
    }

    fn does(&self, command: &str) -> Output {
        attempt(&format!("nsenter --target {} --net {command}", self.0.id()))
    }

    /// Whether somebody answers it for an address.
    fn reaches(&self, address: &str) -> bool {
        self.does(&format!("ping -c 1 -W 1 {address}")).status.success()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The Service `shop/web` on `eth1`.
fn on_eth1(addresses: &str) -> Value {
    let mut service = service();
    service["metadata"]["annotations"] = json!({
        "kube-vip.io/loadbalancerIPs": addresses, "kube-vip.io/serviceInterface": "eth1",
    });
    service
}

async fn told(cluster: &Cluster, reason: &str) -> String {
    let told = cluster.asks(|asked: &Asked| asked.body["reason"] == reason).await;
    told.body["note"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_told_of_strict_filtering_is_what_a_neighbour_meets() {
    alone(async || {
        let neighbour = Neighbour::on_eth1();
        run("ip route add default via 192.0.2.254 dev eth0");
        // Not the address of a node: it leads no route out.
        run("ip addr add 198.51.100.1/32 dev eth1");
        for (all, own, subnet) in
            [(0, 1, false), (1, 0, false), (1, 2, false), (0, 0, false), (1, 1, true)]
        {
            run(&format!("sysctl -qw net.ipv4.conf.all.rp_filter={all}"));
            run(&format!("sysctl -qw net.ipv4.conf.eth1.rp_filter={own}"));
            if subnet {
                run("ip addr add 198.51.100.5/24 dev eth1");
            }
            let host = kernel().look().await.unwrap();
            let filtered = host.filtered.contains(&host.interfaces["eth1"].index);
            neighbour.does("ip neigh flush dev peer1");
            let found = neighbour.reaches("198.51.100.1");
            // It asks by ARP first, to which this node answers or does not.
            let known = neighbour.does("ip neigh show 198.51.100.1 dev peer1");
            let answered = String::from_utf8(known.stdout).unwrap().contains("lladdr");
            println!("{all} {own} {subnet}: filtered {filtered}, ARP {answered}, ping {found}");
            assert_eq!(filtered, !answered, "all {all}, eth1 {own}, {subnet}");
            assert_eq!(found, subnet, "answers go by the default route");
        }
    });
}

#[test]
fn a_service_on_an_interface_where_the_kernel_drops_all_is_told_and_served_with_a_subnet_there() {
    alone(async || {
        let neighbour = Neighbour::on_eth1();
        run("sysctl -qw net.ipv4.conf.eth1.rp_filter=1");
        let cluster = Cluster::new();
        let node = Node::start(&cluster, &[("vip_interface", "eth0")]).await;
        node.expose(on_eth1("198.51.100.1")).await;
        let note = told(&cluster, "ReversePathFiltered").await;
        assert!(note.contains("\"eth1\"") && note.contains("rp_filter"), "{note}");
        assert_eq!(address("eth1", "198.51.100.1"), None);
        run("ip addr add 198.51.100.5/24 dev eth1");
        cluster.asks(published).await;
        assert!(neighbour.reaches("198.51.100.1"));
    });
}

#[test]
fn a_family_of_which_the_node_has_no_route_is_told_and_the_other_one_served() {
    alone(async || {
        run("ip addr del 2001:db8::250/64 dev eth0");
        let neighbour = Neighbour::on_eth1();
        run("ip addr add 198.51.100.5/24 dev eth1");
        let cluster = Cluster::new();
        let node = Node::start(&cluster, &[("vip_interface", "eth0")]).await;
        node.expose(on_eth1("198.51.100.1,2001:db8:1::1")).await;
        let note = told(&cluster, "NoWayBack").await;
        assert!(note.contains("2001:db8:1::1") && note.contains("\"eth1\""), "{note}");
        let ips = |asked: &Asked| {
            let all = asked.body["status"]["loadBalancer"]["ingress"].as_array().cloned();
            all.unwrap_or_default().len()
        };
        assert_eq!(ips(&cluster.asks(published).await), 1, "the other family");
        assert!(neighbour.reaches("198.51.100.1") && address("eth1", "2001:db8:1::1").is_none());
        run("ip addr add 2001:db8:1::5/64 dev eth1 nodad");
        cluster.asks(|asked| published(asked) && ips(asked) == 2).await;
        assert!(neighbour.reaches("2001:db8:1::1"));
    });
}
