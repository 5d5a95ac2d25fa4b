//! The ConfigMap `berth-bgp`: one key, `config.yaml`, whose text is what settings cannot say.

mod fields;
mod names;
mod peer;
mod policy;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use self::fields::Fields;
use super::flaw::{Flaw, MOST_FLAWS, Place};
use super::grammar::{AS_ACCEPTED, asn, is_interface};
use super::peer::{Listen, Peer, RouterId};
use super::permits::Permits;
use super::yaml::{self, Is, Node};
use crate::policy::{Filter, Policy};
use crate::session::Restart;

const KEY: &str = "config.yaml";

/// The name of the ConfigMap.
const NAME: &str = "berth-bgp";

/// Where it is, unless `cp_namespace` says another namespace.
const NAMESPACE: &str = "kube-system";

/// What the ConfigMap says. What it does not say stays as settings have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// The own AS.
    pub local_as: Option<u32>,
    /// Where the BGP Identifier comes from.
    pub router_id: Option<RouterId>,
    /// Seconds of silence after which a peer is given up.
    pub hold_time: Option<u16>,
    /// Seconds between signs of life; 0 for a third of the hold time.
    pub keepalive: Option<u16>,
    /// The longest wait between two attempts to connect, in seconds.
    pub connect_retry: Option<u16>,
    /// Whether routes survive a restart, and for how long.
    pub graceful_restart: Option<Option<Restart>>,
    /// Where peers may connect to.
    pub listen: Option<Listen>,
    /// More peers.
    pub peers: Vec<Peer>,
    /// What is announced to whom, and how.
    pub policy: Policy,
    /// What Services may ask for.
    pub permits: Permits,
    /// What neighbours on the LAN are told of, and no router: whatever fits one of these.
    pub layer2: Vec<Filter>,
}

/// Reads the data of the ConfigMap. What is right is there, whatever is wrong with the rest.
pub fn config_map(data: &BTreeMap<String, String>) -> (Document, Vec<Flaw>) {
    let others = data.keys().filter(|key| *key != KEY).take(MOST_FLAWS);
    let mut flaws: Vec<Flaw> = others
        .map(|key| Flaw::new("", key, Place::Named, format!("accepted is one key, {KEY}")))
        .collect();
    let (document, wrong) = read(data.get(KEY).map_or("", String::as_str));
    // Of which text the lines are.
    let named = |of: String| if of.is_empty() { KEY.to_owned() } else { format!("{KEY}, {of}") };
    flaws.extend(wrong.into_iter().map(|flaw| Flaw { of: named(flaw.of.clone()), ..flaw }));
    (document, flaws)
}

/// Reads a file as `berth-announcer check-bgp` does: the ConfigMap as a manifest, or the text in it.
pub fn check(file: &str) -> (Document, Vec<Flaw>) {
    let node = match yaml::read(file) {
        Ok(Some(node)) => node,
        Ok(None) => return (Document::default(), vec![]),
        Err(flaw) => return (Document::default(), vec![flaw]),
    };
    let Some(kind) = node.get("kind") else { return document(&node) };
    let mut fields = Fields::of("");
    let data = node.get("data").map_or(&[][..], |data| match &data.is {
        Is::Map(entries) => entries.as_slice(),
        _ => &[],
    });
    if kind.text() != Some("ConfigMap") {
        fields.wrong("kind", kind, "accepted is ConfigMap");
    }
    let mut result = Document::default();
    for (key, value) in data {
        match (key.text(), value.text()) {
            (Some(KEY), Some(text)) => {
                let (document, wrong) = read(text);
                // The text begins on this line of the file.
                let before = value.line - 1;
                fields.flaws.extend(wrong.into_iter().map(|flaw| match flaw.place {
                    Place::Line(line) => Flaw { place: Place::Line(before + line), ..flaw },
                    _ => flaw,
                }));
                result = document;
            }
            _ => fields.wrong("data", key, "accepted is one key, config.yaml, with a text"),
        }
    }
    (result, fields.flaws)
}

/// What is right and is nothing that an announcer reads, of the ConfigMap as a manifest.
pub(super) fn strays(file: &str) -> Vec<Flaw> {
    let manifest = yaml::read(file).ok().flatten().filter(|node| node.get("kind").is_some());
    let Some(node) = manifest else { return Vec::new() };
    let mut fields = Fields::of("");
    let said = |key: &str| node.get("metadata").and_then(|metadata| metadata.get(key));
    if let Some(name) = said("name").filter(|name| name.text() != Some(NAME)) {
        fields.wrong("metadata.name", name, format!("announcers read {NAME}, and no other"));
    }
    if let Some(namespace) = said("namespace").filter(|name| name.text() != Some(NAMESPACE)) {
        let told = format!("announcers read it in cp_namespace, {NAMESPACE} where that is not set");
        fields.wrong("metadata.namespace", namespace, told);
    }
    if node.get("data").and_then(|data| data.get(KEY)).is_none() {
        fields.say("data", node.get("data").unwrap_or(&node), format!("{KEY} is not there"));
    }
    fields.flaws
}

fn read(text: &str) -> (Document, Vec<Flaw>) {
    match yaml::read(text) {
        Ok(Some(node)) => document(&node),
        Ok(None) => (Document::default(), vec![]),
        Err(flaw) => (Document::default(), vec![flaw]),
    }
}

fn document(node: &Node) -> (Document, Vec<Flaw>) {
    let known = [
        "asn",
        "routerId",
        "routerInterface",
        "holdTime",
        "keepalive",
        "connectRetry",
        "gracefulRestart",
        "listen",
        "peers",
        "policy",
        "services",
        "layer2",
    ];
    let mut fields = Fields::of("");
    if !fields.map("config", node, &known) {
        return (Document::default(), fields.flaws);
    }
    let id = |text: &str| text.parse::<Ipv4Addr>().ok().filter(|id| !id.is_unspecified());
    let given =
        fields.read(node, "routerId", "accepted is an IPv4 address that is not 0.0.0.0", id);
    let interface = |text: &str| Some(RouterId::Of(text.to_owned())).filter(|_| is_interface(text));
    let by =
        fields.read(node, "routerInterface", "accepted is the name of an interface", interface);
    let mut document = Document {
        local_as: fields.read(node, "asn", AS_ACCEPTED, asn),
        router_id: given.map(RouterId::Is).or(by),
        hold_time: fields.hold_time(node),
        keepalive: fields.number(node, "keepalive", 0, u16::MAX),
        connect_retry: fields.number(node, "connectRetry", 1, u16::MAX),
        graceful_restart: fields.restart(node),
        listen: fields.listen(node),
        ..Document::default()
    };
    let mut named: BTreeMap<String, usize> = BTreeMap::new();
    for (number, item) in fields.items(node, "peers").iter().enumerate() {
        let mut of_peer = Fields::of(&format!("peer {}", number + 1));
        let peer = peer::read(&mut of_peer, item);
        if let Some(name) = peer.as_ref().map(|peer| peer.name.clone()) {
            match named.get(&name) {
                Some(first) => {
                    let by = ["name", "address", "interface"].map(|key| item.get(key));
                    let by = by.into_iter().flatten().next().unwrap_or(item);
                    of_peer.wrong("name", by, format!("peer {first} has it too, and who has none is called by its address or interface; accepted is a name that no other peer has"));
                }
                None => _ = named.insert(name, number + 1),
            }
        }
        match peer.filter(|_| of_peer.flaws.is_empty()) {
            Some(peer) => document.peers.push(peer),
            None => of_peer.flaws.into_iter().for_each(|flaw| fields.note(flaw)),
        }
    }
    for (number, item) in fields.items(node, "policy").iter().enumerate() {
        let mut of_rule = Fields::of(&format!("policy {}", number + 1));
        let rule = policy::rule(&mut of_rule, item);
        document.policy.rules.extend(rule);
        of_rule.flaws.into_iter().for_each(|flaw| fields.note(flaw));
    }
    for (number, item) in fields.items(node, "services").iter().enumerate() {
        let mut of_permit = Fields::of(&format!("services {}", number + 1));
        document.permits.0.extend(policy::permit(&mut of_permit, item));
        of_permit.flaws.into_iter().for_each(|flaw| fields.note(flaw));
    }
    for (number, item) in fields.items(node, "layer2").iter().enumerate() {
        let mut of_filter = Fields::of(&format!("layer2 {}", number + 1));
        document.layer2.extend(policy::on_lan(&mut of_filter, item));
        of_filter.flaws.into_iter().for_each(|flaw| fields.note(flaw));
    }
    (document, fields.flaws)
}

#[cfg(test)]
mod tests;
