//! What answers behind an address whose host ports are closed, asked by a host of the LAN, by a pod and by the node itself.

mod rewriting;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use berth_announcer::instance::Instance;
use berth_announcer::kernel::{Guard, Guarded, Port};

use self::rewriting::{PROXIES, proxy};
use crate::elsewhere::Elsewhere;
use crate::kept::Kept;
use crate::namespace::{alone, attempt, run};

/// How long what is open may take, on a busy host, and how long what is closed is waited for.
const PATIENCE: [Duration; 2] = [Duration::from_secs(10), Duration::from_millis(300)];
const VIPS: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const OWN: [&str; 2] = ["192.0.2.250", "2001:db8::250"];
/// What the Services at the addresses have.
const SERVED: u16 = 80;
const SERVED_UDP: u16 = 53;
/// The NodePort of another one, or the `hostPort` of a pod: CNIs rewrite both alike.
const NODE_PORT: u16 = 30_080;
const NODE_PORT_UDP: u16 = 30_053;
/// The port of a Service elsewhere that calls the addresses its external IPs.
const STRANGERS: u16 = 8443;
/// Somebody listens on the node.
const LISTENS: u16 = 22;
/// Where all that is rewritten leads.
const BACKEND: u16 = 8080;

fn at(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(host.parse().unwrap(), port)
}

fn patience(is_open: bool) -> Duration {
    PATIENCE[usize::from(!is_open)]
}

/// A connection is made, or what asks for one is dropped.
fn meets(who: &str, to: SocketAddr, is_open: bool) {
    let met = TcpStream::connect_timeout(&to, patience(is_open));
    let met = met.map(drop).map_err(|error| error.kind());
    let expected = if is_open { Ok(()) } else { Err(ErrorKind::TimedOut) };
    assert_eq!(met, expected, "{who}: {to}");
}

/// So many octets come back, in fragments if need be, or none.
fn echoed(who: &str, to: SocketAddr, octets: usize, is_open: bool) {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(patience(is_open))).unwrap();
    socket.connect(to).unwrap();
    socket.send(&vec![7; octets]).unwrap();
    let heard = socket.recv(&mut vec![0; octets]).ok();
    assert_eq!(heard, is_open.then_some(octets), "{who}: UDP, {to}");
}

fn echoes(port: u16) {
    for own in OWN {
        let socket = UdpSocket::bind(at(own, port)).unwrap();
        std::thread::spawn(move || {
            let mut octets = vec![0; 65_536];
            while let Ok((heard, from)) = socket.recv_from(&mut octets) {
                let _ = socket.send_to(&octets[..heard], from);
            }
        });
    }
}

/// A host of the LAN and a pod, where the node has both addresses.
fn neighbours() -> (Elsewhere, Elsewhere) {
    let (lan, pod) = (Elsewhere::new(), Elsewhere::new());
    for vip in VIPS {
        run(&format!("ip addr add {vip} dev eth0"));
    }
    lan.has("peer0", &["192.0.2.9/24", "2001:db8::9/64"]);
    run("ip link add pod0 type veth peer name pod1");
    run("ip link set pod0 up");
    run("ip addr add 10.244.0.1/24 dev pod0");
    run("ip addr add fd00:244::1/64 dev pod0 nodad");
    pod.has("pod1", &["10.244.0.2/24", "fd00:244::2/64"]);
    pod.run(|| {
        run("ip route add default via 10.244.0.1");
        run("ip -6 route add default via fd00:244::1");
    });
    (lan, pod)
}

fn served() -> BTreeSet<Port> {
    let port =
        |address: &&str, protocol, port| Port { address: address.parse().unwrap(), protocol, port };
    VIPS.iter().flat_map(|vip| [port(vip, 6, SERVED), port(vip, 17, SERVED_UDP)]).collect()
}

async fn guard(closes: bool, guarded: impl Into<Guarded>) -> Kept {
    let mut kept = Kept::with(&Instance::services(), "unserved", closes);
    change(&mut kept, guarded).await;
    kept
}

async fn change(kept: &mut Kept, guarded: impl Into<Guarded>) {
    let guarded = guarded.into();
    kept.dataplane.unserved.want(guarded.clone());
    kept.tells(&Guard::Holds(guarded).into()).await;
}

/// The Services at the addresses have the numbers of the NodePorts, too, and lead to these.
fn doubted(to: &[&str]) -> Guarded {
    let alike = |port: &Port| Port {
        port: if port.protocol == 6 { NODE_PORT } else { NODE_PORT_UDP },
        ..*port
    };
    let ports = served().iter().flat_map(|port| [*port, alike(port)]).collect();
    let to: BTreeSet<IpAddr> = to.iter().map(|to| to.parse().unwrap()).collect();
    let doubted = VIPS.map(|vip| (vip.parse().unwrap(), to.clone())).into();
    Guarded { ports, doubted }
}

/// Asks for all that may answer: whether what is no Service's is open at the addresses, and who listens on the node.
fn judge(who: &str, rewritten: bool, listens: bool) {
    for (vip, own) in VIPS.into_iter().zip(OWN) {
        meets(who, at(vip, SERVED), true);
        meets(who, at(vip, NODE_PORT), rewritten);
        meets(who, at(vip, STRANGERS), rewritten);
        meets(who, at(vip, LISTENS), listens);
        meets(who, at(own, NODE_PORT), true);
        meets(who, at(own, LISTENS), true);
        for octets in [8, 4000] {
            echoed(who, at(vip, SERVED_UDP), octets, true);
            echoed(who, at(vip, NODE_PORT_UDP), octets, rewritten);
            echoed(who, at(own, NODE_PORT_UDP), octets, true);
        }
        assert!(attempt(&format!("ping -c 1 -W 5 {vip}")).status.success(), "{who}: {vip}");
    }
}

#[test]
fn what_others_rewrite_is_closed_behind_addresses_and_open_at_the_nodes_own() {
    for by in PROXIES {
        alone(async || {
            let (lan, pod) = neighbours();
            proxy(by);
            let _backends = OWN.map(|own| TcpListener::bind(at(own, BACKEND)).unwrap());
            let _listener = TcpListener::bind(("::", LISTENS)).unwrap();
            echoes(BACKEND);
            for closes in [false, true] {
                let kept = guard(closes, served()).await;
                lan.run(move || judge("LAN", !closes, !closes));
                pod.run(move || judge("pod", !closes, !closes));
                // It has all its ports under its own addresses; what it sends is rewritten before it arrives anywhere.
                judge("node", true, !closes);
                kept.stop().await;
            }
        });
    }
}

#[test]
fn what_is_led_to_the_node_behind_a_doubted_address_is_closed_but_where_its_services_lead() {
    for by in PROXIES {
        alone(async || {
            let (lan, pod) = neighbours();
            proxy(by);
            let _backends = OWN.map(|own| TcpListener::bind(at(own, BACKEND)).unwrap());
            echoes(BACKEND);
            let sure = Guarded { ports: doubted(&[]).ports, ..Guarded::default() };
            let mut kept = guard(true, sure).await;
            let judge = |is_open: bool| {
                for (who, neighbour) in [("LAN", &lan), ("pod", &pod)] {
                    neighbour.run(move || {
                        for vip in VIPS {
                            meets(who, at(vip, SERVED), is_open);
                            meets(who, at(vip, NODE_PORT), is_open);
                            echoed(who, at(vip, NODE_PORT_UDP), 4000, is_open);
                        }
                        for own in OWN {
                            meets(who, at(own, NODE_PORT), true);
                        }
                    });
                }
            };
            judge(true);
            for (to, is_open) in [(&[][..], false), (&OWN, true), (&["10.244.0.2"], false)] {
                change(&mut kept, doubted(to)).await;
                judge(is_open);
            }
            kept.stop().await;
        });
    }
}

#[test]
fn what_is_led_to_a_pod_behind_a_doubted_address_is_closed_but_where_its_services_lead() {
    alone(async || {
        let (lan, pod) = neighbours();
        let pods = ["10.244.0.2", "fd00:244::2"];
        pod.run(|| answers(TcpListener::bind(("::", BACKEND)).unwrap()));
        for own in OWN {
            answers(TcpListener::bind(at(own, BACKEND)).unwrap());
        }
        run("sysctl -qw net.ipv4.ip_forward=1");
        run("sysctl -qw net.ipv6.conf.all.forwarding=1");
        run("nft add table inet proxy");
        run("nft add chain inet proxy in { type nat hook prerouting priority -100 ; }");
        // That of a Service leads to the node's own network, the NodePort of another to a pod.
        for n in 0..2 {
            let (family, vip) = (["ip", "ip6"][n], VIPS[n]);
            for (port, to) in [(SERVED, OWN[n]), (NODE_PORT, pods[n])] {
                run(&format!(
                    "nft add rule inet proxy in {family} daddr {vip} tcp dport {port} dnat {family} to {}",
                    at(to, BACKEND)
                ));
            }
        }
        let mut kept = guard(true, doubted(&pods)).await;
        let held = lan.run(|| VIPS.map(|vip| open(at(vip, NODE_PORT))));
        lan.run(|| VIPS.map(|vip| meets("LAN", at(vip, SERVED), false)));
        change(&mut kept, doubted(&OWN)).await;
        lan.run(|| {
            for vip in VIPS {
                meets("LAN", at(vip, SERVED), true);
                meets("LAN", at(vip, NODE_PORT), false);
            }
        });
        held.iter().for_each(|stream| answered(stream, true));
        kept.stop().await;
    });
}

/// Serves one client with an octet for each that comes.
fn answers(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut octet = [0];
                while stream.read_exact(&mut octet).is_ok() && stream.write_all(&octet).is_ok() {}
            });
        }
    });
}

fn open(to: SocketAddr) -> TcpStream {
    TcpStream::connect_timeout(&to, patience(true)).unwrap()
}

/// An octet comes back, or none.
fn answered(mut stream: &TcpStream, is_open: bool) {
    let (mut octet, to) = ([0], stream.peer_addr().unwrap());
    stream.set_read_timeout(Some(patience(is_open))).unwrap();
    let is_answered = stream.write_all(b"x").is_ok() && stream.read_exact(&mut octet).is_ok();
    assert_eq!(is_answered, is_open, "{to}");
}

#[test]
fn what_was_let_in_goes_on_when_its_port_is_closed_but_for_who_listens_on_the_node() {
    alone(async || {
        let (lan, _pod) = neighbours();
        proxy("nft");
        for own in OWN {
            answers(TcpListener::bind(at(own, BACKEND)).unwrap());
        }
        answers(TcpListener::bind(("::", LISTENS)).unwrap());
        let held = lan.run(|| VIPS.map(|vip| [SERVED, LISTENS].map(|port| open(at(vip, port)))));
        let mut kept = guard(true, served()).await;
        for [service, listener] in &held {
            answered(service, true);
            answered(listener, false);
        }
        // In the middle of a connection that nobody here has tracked, as where an address comes to this node.
        run("conntrack -F");
        for [service, _] in &held {
            answered(service, true);
        }
        let others: BTreeSet<Port> =
            served().into_iter().filter(|port| port.protocol != 6).collect();
        change(&mut kept, others).await;
        for [service, _] in &held {
            answered(service, true);
        }
        lan.run(|| VIPS.map(|vip| meets("anew", at(vip, SERVED), false)));
        kept.stop().await;
    });
}

#[test]
fn connections_that_leave_with_such_an_address_are_answered() {
    alone(async || {
        let (lan, pod) = neighbours();
        run("nft add table inet cni");
        run("nft add chain inet cni out { type nat hook postrouting priority 100 ; }");
        run("nft add rule inet cni out oifname eth0 ip saddr 10.244.0.0/16 snat ip to 192.0.2.1");
        run(
            "nft add rule inet cni out oifname eth0 ip6 saddr fd00:244::/48 snat ip6 to 2001:db8::1",
        );
        run("sysctl -qw net.ipv4.ip_forward=1");
        run("sysctl -qw net.ipv6.conf.all.forwarding=1");
        lan.run(|| answers(TcpListener::bind("[::]:9000").unwrap()));
        let kept = guard(true, served()).await;
        for neighbour in ["192.0.2.9", "2001:db8::9"] {
            let to = at(neighbour, 9000);
            pod.run(move || answered(&open(to), true));
        }
        // The node itself, with an address that it has for others.
        let (v4, v6) = ("192.0.2.9", "2001:db8::9");
        for (vip, to) in VIPS.into_iter().zip([v4, v6]) {
            let ping = format!("ping -c 1 -W 5 -I {vip} {to}");
            assert!(attempt(&ping).status.success(), "{ping}");
            answered(&bound(vip, at(to, 9000)), true);
        }
        kept.stop().await;
    });
}

/// A connection whose source is this address.
fn bound(from: &str, to: SocketAddr) -> TcpStream {
    let from = at(from, 0);
    let socket = if to.is_ipv4() {
        tokio::net::TcpSocket::new_v4()
    } else {
        tokio::net::TcpSocket::new_v6()
    };
    let socket = socket.unwrap();
    socket.bind(from).unwrap();
    // Started by the runtime, finished by the kernel.
    let stream = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connecting = async { tokio::time::timeout(patience(true), socket.connect(to)).await };
        runtime.block_on(connecting).expect("an answer").unwrap().into_std().unwrap()
    });
    let stream = stream.join().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

#[test]
fn what_passes_through_to_a_host_that_has_such_an_address_is_left_alone() {
    alone(async || {
        let (lan, pod) = neighbours();
        for vip in VIPS {
            let prefix = if vip.contains(':') { 128 } else { 32 };
            run(&format!("ip addr del {vip}/{prefix} dev eth0"));
        }
        run("sysctl -qw net.ipv4.ip_forward=1");
        run("sysctl -qw net.ipv6.conf.all.forwarding=1");
        lan.run(|| {
            run("ip addr add 192.0.2.1/32 dev peer0");
            run("ip addr add 2001:db8::1/128 dev peer0 nodad");
            run("ip route add 10.244.0.0/16 via 192.0.2.250");
            run("ip -6 route add fd00:244::/48 via 2001:db8::250");
            answers(TcpListener::bind("[::]:9000").unwrap());
        });
        let kept = guard(true, served()).await;
        for vip in VIPS {
            pod.run(move || answered(&open(at(vip, 9000)), true));
        }
        kept.stop().await;
    });
}

/// IPVS takes its packets at the `input` hook. `e2e/tests/other_kernel.rs` runs this under a kernel that has it.
#[test]
fn behind_an_address_that_ipvs_serves_nothing_else_answers() {
    alone(async || {
        let has_ipvs = attempt("ipvsadm -Ln").status.success();
        // So that a run under another kernel can be told from one here.
        println!("this kernel has {}", if has_ipvs { "IPVS" } else { "no IPVS" });
        if !has_ipvs {
            return;
        }
        let (lan, pod) = neighbours();
        pod.run(|| answers(TcpListener::bind(("0.0.0.0", BACKEND)).unwrap()));
        lan.run(|| run("ip route add 10.244.0.0/16 via 192.0.2.250"));
        run("sysctl -qw net.ipv4.ip_forward=1");
        // As kube-proxy has it: each address of the node is asked for NodePorts, and a bound one is such an address.
        run("sysctl -qw net.ipv4.vs.conntrack=1");
        let [vip, own] = [VIPS[0], OWN[0]];
        for (address, port) in [(vip, SERVED), (vip, NODE_PORT), (own, NODE_PORT)] {
            run(&format!("ipvsadm -A -t {address}:{port} -s rr"));
            run(&format!("ipvsadm -a -t {address}:{port} -r 10.244.0.2:{BACKEND} -m"));
        }
        for closes in [false, true] {
            let kept = guard(closes, served()).await;
            lan.run(move || {
                answered(&open(at(vip, SERVED)), true);
                answered(&open(at(own, NODE_PORT)), true);
                meets("LAN", at(vip, NODE_PORT), !closes);
            });
            kept.stop().await;
        }
    });
}
