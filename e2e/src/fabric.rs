//! The lab's network: namespaces, the LAN and API bridges, addresses and routes.
//!
//! Bridges live in the namespace `fabric`, which has no addresses, so that faults and captures there are
//! invisible to the nodes. A node's port on bridge `lan` is called `lan-<node>`.

use std::{
    fmt::Write,
    fs::{self, File},
    path::Path,
    process::Command,
    thread,
};

use anyhow::{Context, Result, bail};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::{
    addresses::{
        CLIENT_HOST, CONTROL_PLANE_HOST, DualStack, Net, NodeAddresses, OUTSIDE, ROUTER_HOST, Slot,
        client, control_plane, mac, mac_text, node_host, router,
    },
    disk::LabDir,
    host_link,
    place::{IP_BATCH, Keeper, Place},
};

/// The network namespace of the bridges.
pub const FABRIC: &str = "fabric";
/// The network namespace of the control plane.
pub const CONTROL_PLANE: &str = "control";
/// The network namespace of the LAN's router.
pub const ROUTER: &str = "router";
/// The network namespace of the LAN's client.
pub const CLIENT: &str = "client";

/// Builds the network for the named nodes and gives the slot of its link with the host.
pub fn build(dir: &LabDir, keeper: &Keeper, nodes: &[(String, NodeAddresses)]) -> Result<Slot> {
    let mut names = vec![FABRIC, CONTROL_PLANE, ROUTER, CLIENT];
    names.extend(nodes.iter().map(|(name, _)| name.as_str()));
    if !Path::new("/proc/sys/net/bridge").exists() {
        // kube-proxy sees pods of one node talk to each other only with it; without it the lab still works.
        let _ = Command::new("modprobe").arg("br_netfilter").status();
    }
    make_namespaces(dir, keeper, &names)?;

    let place = |name: &str| Place::of_lab(dir, keeper, name);
    place(FABRIC)
        .exec_with_input(IP_BATCH, fabric_script(dir, nodes))
        .context("build the bridges")?;
    let slot = host_link::join(&place(CONTROL_PLANE))?;

    let mut scripts = vec![
        (CONTROL_PLANE, control_plane_script(slot, nodes)),
        (ROUTER, router_script(nodes)),
        (CLIENT, host_script(Net::Lan, client()) + &default_route()),
    ];
    scripts.extend(
        nodes.iter().map(|(name, addresses)| (name.as_str(), node_script(addresses, nodes))),
    );
    thread::scope(|scope| {
        let running: Vec<_> = scripts
            .into_iter()
            .map(|(name, script)| {
                let place = place(name);
                scope.spawn(move || {
                    place.exec_with_input(IP_BATCH, script).context("set addresses and routes")
                })
            })
            .collect();
        running.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result.map(drop),
            Err(_) => bail!("a thread panicked"),
        })
    })?;
    for (name, _) in nodes {
        place(name).in_network(finish_node)??;
    }
    Ok(slot)
}

/// The name of `who`'s port on a bridge.
pub fn port(net: Net, who: &str) -> String {
    format!("{}-{who}", net.bridge())
}

/// Gives a node whose processes are dead a new network namespace: nothing of its kernel's state is left.
/// Its links are down.
pub(crate) fn renew(
    dir: &LabDir,
    keeper: &Keeper,
    nodes: &[(String, NodeAddresses)],
    index: usize,
) -> Result<()> {
    let (name, own) = &nodes[index];
    let mut script = String::new();
    for net in [Net::Lan, Net::Api] {
        line(&mut script, format_args!("link delete dev {}", port(net, name)));
    }
    let fabric = Place::of_lab(dir, keeper, FABRIC);
    fabric.exec_with_input(IP_BATCH, script)?;
    make_namespaces(dir, keeper, &[name])?;
    let mut script = String::new();
    for net in [Net::Lan, Net::Api] {
        join(&mut script, dir, net, name, node_host(index), "down");
    }
    fabric.exec_with_input(IP_BATCH, script)?;
    let place = Place::of_lab(dir, keeper, name);
    place.exec_with_input(IP_BATCH, node_script(own, nodes))?;
    place.in_network(finish_node)?
}

/// The network namespaces are mounts in the lab's mount namespace, so they are gone with its last process.
pub(crate) fn make_namespaces(dir: &LabDir, keeper: &Keeper, names: &[&str]) -> Result<()> {
    let mounts =
        File::open(format!("/proc/{}/ns/mnt", keeper.id.pid)).context("the lab is down")?;
    let make = move || -> Result<()> {
        unshare(CloneFlags::CLONE_FS)?;
        setns(mounts, CloneFlags::CLONE_NEWNS).context("enter the lab's mount namespace")?;
        for name in names {
            let path = dir.netns(name);
            // One of before, of a node that reboots.
            let _ = umount2(&path, MntFlags::MNT_DETACH);
            File::create(&path).with_context(|| format!("create {}", path.display()))?;
            unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
            set_defaults(*name == FABRIC)?;
            let none = None::<&str>;
            mount(Some("/proc/thread-self/ns/net"), &path, none, MsFlags::MS_BIND, none)
                .with_context(|| format!("mount {}", path.display()))?;
        }
        Ok(())
    };
    thread::scope(|scope| scope.spawn(make).join()).unwrap_or_else(|_| bail!("a thread panicked"))
}

/// Settings of a new namespace, before it has links.
fn set_defaults(fabric: bool) -> Result<()> {
    // Duplicate address detection takes a second; the lab's own addresses need none.
    sysctl("ipv6/conf/default/accept_dad", "0")?;
    sysctl("ipv6/conf/default/accept_ra", "0")?;
    // Sockets of dead processes hold the namespace until they give up on a peer that is gone as well.
    sysctl("ipv4/tcp_orphan_retries", "1")?;
    if fabric {
        sysctl("ipv6/conf/default/disable_ipv6", "1")?;
        for family in ["iptables", "ip6tables", "arptables"] {
            let name = format!("bridge/bridge-nf-call-{family}");
            // Absent where the kernel cannot do it anyway.
            if Path::new("/proc/sys/net").join(&name).exists() {
                sysctl(&name, "0")?;
            }
        }
    } else {
        sysctl("ipv4/ip_forward", "1")?;
        sysctl("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// From now on a node's addresses behave as on any host: a product that forgets about DAD must notice.
fn finish_node() -> Result<()> {
    for which in ["default", "eth0", "eth1"] {
        sysctl(&format!("ipv6/conf/{which}/accept_dad"), "1")?;
    }
    Ok(())
}

fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).with_context(|| format!("write {value} to {path}"))
}

fn fabric_script(dir: &LabDir, nodes: &[(String, NodeAddresses)]) -> String {
    let mut script = String::from("link set lo up\n");
    for net in [Net::Lan, Net::Api] {
        let bridge = net.bridge();
        line(
            &mut script,
            format_args!("link add {bridge} type bridge forward_delay 0 mcast_snooping 0"),
        );
        // Promiscuous, so that whoever listens on the bridge hears what passes between its ports.
        line(&mut script, format_args!("link set {bridge} up promisc on"));
    }
    let mut join = |net, who: &str, host| join(&mut script, dir, net, who, host, "up");
    join(Net::Api, CONTROL_PLANE, CONTROL_PLANE_HOST);
    join(Net::Lan, ROUTER, ROUTER_HOST);
    join(Net::Lan, CLIENT, CLIENT_HOST);
    for (index, (node, _)) in nodes.iter().enumerate() {
        join(Net::Lan, node, node_host(index));
        join(Net::Api, node, node_host(index));
    }
    script
}

/// Makes `who`'s interface on a network and its port on the bridge.
fn join(script: &mut String, dir: &LabDir, net: Net, who: &str, host: u16, state: &str) {
    let (port, interface, bridge) = (port(net, who), net.interface(), net.bridge());
    let (mac, path) = (mac_text(mac(net, host)), dir.netns(who));
    let path = path.display();
    line(
        script,
        format_args!("link add {port} type veth peer name {interface} address {mac} netns {path}"),
    );
    line(script, format_args!("link set {port} master {bridge} {state}"));
}

fn control_plane_script(slot: Slot, nodes: &[(String, NodeAddresses)]) -> String {
    let mut script = host_script(Net::Api, control_plane());
    line(&mut script, format_args!("address add {}/30 dev host", slot.control_plane()));
    line(&mut script, format_args!("link set host up"));
    // Nodes are known by their LAN addresses; the API server reaches them, and their pods, by the API network.
    for (_, node) in nodes {
        let [api4, api6] = node.api.both();
        for (to, via) in [
            (node.lan.v4.to_string(), api4),
            (node.pods4.to_string(), api4),
            (node.lan.v6.to_string(), api6),
            (node.pods6.to_string(), api6),
        ] {
            line(&mut script, format_args!("route add {to} via {via}"));
        }
    }
    script
}

fn router_script(nodes: &[(String, NodeAddresses)]) -> String {
    let mut script = host_script(Net::Lan, router());
    for address in OUTSIDE {
        line(&mut script, format_args!("address add {address} dev lo"));
    }
    script + &pod_routes(nodes, None)
}

fn node_script(own: &NodeAddresses, nodes: &[(String, NodeAddresses)]) -> String {
    host_script(Net::Lan, own.lan)
        + &host_script(Net::Api, own.api)
        + &default_route()
        + &pod_routes(nodes, Some(own))
}

fn host_script(net: Net, address: DualStack) -> String {
    let (interface, v4, v6) = (net.interface(), net.v4().prefix(), net.v6().prefix());
    format!(
        "link set lo up\nlink set {interface} up\n\
         address add {}/{v4} dev {interface}\naddress add {}/{v6} dev {interface} nodad\n",
        address.v4, address.v6
    )
}

fn default_route() -> String {
    router().both().map(|via| format!("route add default via {via}\n")).concat()
}

fn pod_routes(nodes: &[(String, NodeAddresses)], except: Option<&NodeAddresses>) -> String {
    let others = nodes.iter().filter(|(_, node)| Some(node) != except);
    others
        .map(|(_, n)| {
            format!(
                "route add {} via {}\nroute add {} via {}\n",
                n.pods4, n.lan.v4, n.pods6, n.lan.v6
            )
        })
        .collect()
}

fn line(script: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(script, "{arguments}");
}
