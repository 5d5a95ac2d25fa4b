//! A peer, as the ConfigMap has it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::grammar::{AS_ACCEPTED, asn, is_interface, is_peer};
use super::super::password::Password;
use super::super::peer::{Bfd, Distance, Hops, Peer, Remote};
use super::super::yaml::{Is, Node};
use super::fields::Fields;
use super::names;
use crate::prefix::Family;
use crate::session::{RemoteAs, Role};

const KNOWN: [&str; 21] = [
    "name",
    "address",
    "interface",
    "asn",
    "localAsn",
    "port",
    "connect",
    "password",
    "multihop",
    "ttlSecurity",
    "families",
    "source",
    "sourceInterface",
    "nextHop",
    "holdTime",
    "keepalive",
    "connectRetry",
    "gracefulRestart",
    "bfd",
    "nodes",
    "description",
];

pub(super) fn read(fields: &mut Fields, node: &Node) -> Option<Peer> {
    if let Some(name) = name_of(node) {
        fields.called(name);
    }
    if !fields.map("peer", node, &KNOWN) {
        return None;
    }
    let is_of_link = fields.get(node, "sourceInterface").is_some();
    let address = fields.read(node, "address", ADDRESS, |text| host(text, is_of_link));
    let link = fields.read(node, "interface", INTERFACE, interface);
    let remote = match (address, link) {
        (Some(address), None) => Remote::Address(address),
        (None, Some(interface)) => Remote::Interface(interface),
        (Some(_), Some(_)) => {
            fields.wrong(
                "interface",
                node.get("interface")?,
                "accepted is address or interface, not both",
            );
            return None;
        }
        (None, None) => {
            if fields.flaws.is_empty() {
                fields.missing("address", node, "accepted is address or interface");
            }
            return None;
        }
    };
    let accepted = "accepted is a name of 1 to 63 letters, digits, dots, colons, hyphens";
    let name = fields
        .read(node, "name", accepted, |text| Some(text.to_owned()).filter(|name| is_name(name)));
    let as_accepted = format!("{AS_ACCEPTED}, external, internal");
    let remote_as = fields.read(node, "asn", &as_accepted, |text| match text {
        "external" => Some(RemoteAs::External),
        "internal" => Some(RemoteAs::Internal),
        text => asn(text).map(RemoteAs::Is),
    });
    if fields.get(node, "asn").is_none() {
        fields.missing("asn", node, &as_accepted);
    }
    let mut peer = Peer::new(remote, remote_as?);
    peer.name = name.unwrap_or(peer.name);
    peer.local_as = fields.read(node, "localAsn", AS_ACCEPTED, asn);
    peer.port = fields.number(node, "port", 1, u16::MAX).unwrap_or(peer.port);
    let connect = "accepted are active (this speaker connects), passive (the peer does), both";
    let role = fields.read(node, "connect", connect, |text| match text {
        "active" => Some(Role::Active),
        "passive" => Some(Role::Passive),
        "both" => Some(Role::Both),
        _ => None,
    });
    peer.role = role.unwrap_or(peer.role);
    peer.password = password(fields, node);
    peer.distance = distance(fields, node);
    peer.families = families(fields, node).unwrap_or(peer.families);
    let own = |text: &str| text.parse::<IpAddr>().ok().filter(|address| !address.is_unspecified());
    peer.source = fields.read(node, "source", "accepted is an address of the node", own);
    peer.interface = fields.read(node, "sourceInterface", INTERFACE, interface);
    peer.hops = hops(fields, node).unwrap_or_default();
    peer.hold_time = fields.hold_time(node);
    peer.keepalive = fields.number(node, "keepalive", 0, u16::MAX);
    peer.connect_retry = fields.number(node, "connectRetry", 1, u16::MAX);
    peer.graceful_restart = fields.restart(node);
    peer.bfd = bfd(fields, node);
    peer.nodes = fields.selector(node, "nodes").unwrap_or_default();
    if let (Remote::Address(address), Some(source)) = (&peer.remote, peer.source)
        && address.is_ipv4() != source.is_ipv4()
    {
        fields.wrong("source", node.get("source")?, "accepted is an address of the peer's family");
    }
    Some(peer)
}

const ADDRESS: &str = "accepted is an IPv4 or IPv6 address of a host; one of a link with sourceInterface: eth0 beside it, or interface: eth0 \
     for the one router there";

/// An address that a peer can have: one of a link where the interface is named.
fn host(text: &str, is_of_link: bool) -> Option<IpAddr> {
    let is_link =
        |address: &IpAddr| matches!(address, IpAddr::V6(own) if own.is_unicast_link_local());
    let address = text.parse().ok();
    address.filter(|address| is_peer(*address) || is_of_link && is_link(address))
}

/// What it is called, as far as that can be read.
pub(super) fn name_of(node: &Node) -> Option<&str> {
    let text = |key: &str| node.get(key).and_then(Node::text);
    let name = text("name").filter(|name| is_name(name));
    let address = || text("address").filter(|text| host(text, false).is_some());
    name.or_else(address).or_else(|| text("interface").filter(|name| is_interface(name)))
}

const INTERFACE: &str = "accepted is the name of an interface, 1 to 15 characters";

fn interface(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|name| is_interface(name))
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".:-".contains(c);
    (1..64).contains(&name.len()) && name.chars().all(plain)
}

/// Where it is, never itself: whoever may read ConfigMaps would read it.
fn password(fields: &mut Fields, node: &Node) -> Option<Password> {
    let value = fields.get(node, "password")?;
    let accepted = "accepted is where it is: {secret: NAME, key: KEY} or {file: /PATH}";
    if !matches!(value.is, Is::Map(_)) {
        // Without what stands there.
        fields.say("password", value, format!("a password does not stand here; {accepted}"));
        return None;
    }
    let read = |fields: &mut Fields| {
        let named = |is: fn(&str) -> bool| move |text: &str| is(text).then(|| text.to_owned());
        let secret = fields.read(value, "secret", names::SECRET, named(names::is_object));
        let key = fields.read(value, "key", names::KEY, named(names::is_key));
        let file = fields.get(value, "file").and_then(Node::text).map(str::to_owned);
        (secret, key, file)
    };
    match fields.below("password", value, &["secret", "key", "file"], read)? {
        (Some(name), key, None) => {
            Some(Password::Secret { name, key: key.unwrap_or_else(|| "password".to_owned()) })
        }
        (None, None, Some(path)) if path.starts_with('/') => Some(Password::File(path.into())),
        _ => {
            if fields.flaws.is_empty() {
                fields.wrong("password", value, accepted);
            }
            None
        }
    }
}

fn distance(fields: &mut Fields, node: &Node) -> Distance {
    let hops = fields.number(node, "multihop", 1, u8::MAX);
    let secured = fields.switch(node, "ttlSecurity") == Some(true);
    match (hops, secured) {
        (Some(hops), false) => Distance::Hops(hops),
        (hops, true) => Distance::Secured(hops.unwrap_or(1)),
        (None, false) => Distance::Near,
    }
}

fn families(fields: &mut Fields, node: &Node) -> Option<BTreeSet<Family>> {
    let list = fields.get(node, "families")?;
    let mut families = BTreeSet::new();
    for (text, item) in fields.texts(node, "families") {
        match text {
            // Also as the report writes them.
            "ipv4" | "IPv4" => _ = families.insert(Family::V4),
            "ipv6" | "IPv6" => _ = families.insert(Family::V6),
            _ => fields.wrong("families", item, "accepted are ipv4 and ipv6"),
        }
    }
    if families.is_empty() && fields.flaws.is_empty() {
        fields.wrong("families", list, "accepted is at least one of ipv4 and ipv6");
    }
    Some(families)
}

fn hops(fields: &mut Fields, node: &Node) -> Option<Hops> {
    let value = fields.get(node, "nextHop")?;
    let accepted =
        "accepted are connection, interface, and addresses: {ipv4: ADDRESS, ipv6: ADDRESS}";
    match value.text() {
        Some("connection") => return Some(Hops::Connection),
        Some("interface") => return Some(Hops::Interface),
        Some(_) => {
            fields.wrong("nextHop", value, accepted);
            return None;
        }
        None => {}
    }
    let (v4, v6) = fields.below("nextHop", value, &["ipv4", "ipv6"], |fields| {
        let v4 = fields.parsed(value, "ipv4", "accepted is an IPv4 address");
        (v4, fields.parsed(value, "ipv6", "accepted is an IPv6 address"))
    })?;
    if v4.is_none() && v6.is_none() && fields.flaws.is_empty() {
        fields.wrong("nextHop", value, accepted);
    }
    Some(Hops::Fixed { v4, v6 })
}

fn bfd(fields: &mut Fields, node: &Node) -> Option<Bfd> {
    let value = fields.get(node, "bfd")?;
    let usual = Bfd::default();
    match value.text() {
        Some("true") => return Some(usual),
        Some("false") => return None,
        Some(_) => {
            fields.wrong(
                "bfd",
                value,
                "accepted are true, false, and keys: receive, transmit, multiplier",
            );
            return None;
        }
        None => {}
    }
    fields.below("bfd", value, &["receive", "transmit", "multiplier"], |fields| Bfd {
        receive: fields.number(value, "receive", 10, 60_000).unwrap_or(usual.receive),
        transmit: fields.number(value, "transmit", 10, 60_000).unwrap_or(usual.transmit),
        multiplier: fields.number(value, "multiplier", 1, u8::MAX).unwrap_or(usual.multiplier),
    })
}
