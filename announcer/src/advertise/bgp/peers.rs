//! Which peers this node has, and what they are told, of all that is said: settings, the ConfigMap, and the annotations of the
//! node. What is wrong is told; a ConfigMap, or annotations, with anything wrong are not used, and those before them are. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_bgp::config::{
    self, Config, Document, Flaw, Listen, NodeSays, PORT, Peer, Permits, Remote, RouterId,
};
use berth_bgp::{Family, Filter, Policy, Selector};

use super::addresses::OfRouters;
use super::routed::Said;
use super::told::{Absence, Told};

/// What a session is to be, and nothing else: as long as it stays the same, whatever is edited is none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// What it says itself of what [`config::Speaker`] has stands there.
    pub(super) peer: Peer,
    pub(super) speaker: config::Speaker,
}

impl Terms {
    /// Those of a peer of this node.
    pub(super) fn new(mut peer: Peer, speaker: &config::Speaker) -> Self {
        let speaker = config::Speaker {
            local_as: peer.local_as.take().unwrap_or(speaker.local_as),
            router_id: speaker.router_id.clone(),
            hold_time: peer.hold_time.take().unwrap_or(speaker.hold_time),
            keepalive: peer.keepalive.take().or(speaker.keepalive),
            connect_retry: peer.connect_retry.take().unwrap_or(speaker.connect_retry),
            graceful_restart: peer.graceful_restart.take().unwrap_or(speaker.graceful_restart),
            // Whom this node connects to nothing is to another port.
            listen: speaker.listen.clone().filter(|_| peer.role.accepts()),
        };
        // Which others have it is nothing to this node.
        peer.nodes = Selector::default();
        Self { peer, speaker }
    }

    /// Between what and what the session is. What is elsewhere is another one, and what is here the same, whatever it is called.
    pub(super) fn ends(&self) -> Ends {
        let Peer { remote, port, source, interface, .. } = &self.peer;
        (remote.clone(), *port, *source, interface.clone())
    }

    /// How long the router keeps routes while this process restarts; nothing where it is not asked to.
    pub(super) fn restart(&self) -> Option<Duration> {
        self.speaker.graceful_restart.map(|restart| Duration::from_secs(restart.time.into()))
    }

    /// How long the router may lead addresses here of which it hears nothing any more: until it notices, and then for as long
    /// as a restart may take.
    pub(super) fn keeps(&self) -> Duration {
        Duration::from_secs(self.speaker.hold_time.into()) + self.restart().unwrap_or_default()
    }
}

/// Between what and what a session is: where the peer is, at which port, and where it is reached from.
pub(super) type Ends = (Remote, u16, Option<IpAddr>, Option<String>);

/// What settings say.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) speaker: config::Speaker,
    pub(super) peers: Vec<Peer>,
    /// The prefix of annotations by which nodes name more of them.
    pub(super) prefix: Option<String>,
    /// Whether neighbours may be told of addresses as well.
    pub(super) is_mixed: bool,
}

/// What all of it comes to.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// By name.
    pub(super) all: BTreeMap<String, Terms>,
    /// Why there are none, where that is so.
    pub(super) absence: Absence,
    /// What they are told.
    pub(super) policy: Policy,
    /// What Services may ask for; nothing before the ConfigMap was looked for.
    pub(super) permits: Option<Arc<Permits>>,
    /// What neighbours are told of; nothing before that.
    pub(super) layer2: Option<Arc<Vec<Filter>>>,
    /// Families of which no router is told anything by any node, as far as that is known here.
    pub(super) unspoken: BTreeSet<Family>,
    /// What is nobody's to have.
    pub(super) addresses: Arc<OfRouters>,
    /// Where they connect to, where any of them does.
    pub(super) listen: Option<Listen>,
    /// What is wrong with the ConfigMap.
    pub(super) of_map: Vec<String>,
    /// What is wrong with annotations.
    pub(super) of_notes: Vec<String>,
    /// The last ConfigMap that was right.
    document: Document,
    /// The last annotations that were right. Where none were since this process began, those that are count.
    says: Option<NodeSays>,
}

impl Peers {
    /// Has it told what is the same for all peers; true if any of it is news.
    pub(super) fn tell(&self, told: &mut Told) -> bool {
        let before = told.clone();
        told.absence.clone_from(&self.absence);
        told.unspoken.clone_from(&self.unspoken);
        told.permits.clone_from(&self.permits);
        told.layer2.clone_from(&self.layer2);
        told.ports = Arc::new(self.ports());
        told.addresses.clone_from(&self.addresses);
        *told != before
    }

    /// The ports at which routers are spoken to: those of peers, and the port of BGP, at which a router may have more addresses.
    pub(super) fn ports(&self) -> BTreeSet<u16> {
        let own = self.all.values().map(|terms| terms.peer.port);
        let usual = own.clone().next().map(|_| PORT);
        own.chain(usual).collect()
    }

    /// Takes in what is said now.
    pub(super) fn see(&mut self, settings: &Settings, said: &Said) {
        // What began before would begin anew where the ConfigMap says otherwise.
        let Some(data) = &said.data else { return };
        let (document, flaws) = config::config_map(data);
        let (config, wrong) = of(settings, document.clone());
        let wrong = flaws.into_iter().chain(wrong).chain(unmet(settings, &document));
        self.of_map = wrong.map(|flaw| flaw.to_string()).collect();
        let config = match self.of_map.is_empty() {
            true => {
                self.document = document;
                config
            }
            false => of(settings, self.document.clone()).0,
        };
        let (says, flaws) = match &settings.prefix {
            Some(prefix) => config::node_annotations(prefix, &said.notes),
            None => (NodeSays::default(), Vec::new()),
        };
        self.of_notes = flaws.iter().map(ToString::to_string).collect();
        // They are edited key by key, so what is between two edits may be wrong although neither is.
        if self.of_notes.is_empty() {
            self.says = Some(says.clone());
        }
        let says = self.says.clone().unwrap_or(says);
        let router_id = match (&config.speaker.router_id, says.router_id) {
            (RouterId::Found, Some(id)) => id,
            (id, _) => id.clone(),
        };
        let speaker = config::Speaker { router_id, ..config.speaker.clone() };
        let (own, collide) = config.of_node(&said.labels);
        self.of_map.extend(collide.iter().map(ToString::to_string));
        // What the node says of a router counts before what all nodes are told of it.
        let named: BTreeSet<&Remote> = says.peers.iter().map(|peer| &peer.remote).collect();
        let others = own.into_iter().filter(|peer| !named.contains(&peer.remote));
        let all = says.peers.iter().chain(others).cloned();
        let terms = |peer: Peer| (peer.name.clone(), Terms::new(peer, &speaker));
        self.all = all.map(terms).collect();
        let others = || config.peers.iter().map(|peer| peer.name.clone()).collect();
        self.absence =
            match (self.of_map.is_empty() && self.of_notes.is_empty(), said.is_node_known) {
                (false, _) => Absence::Wrong,
                _ if config.peers.is_empty() => Absence::Nobody,
                (_, false) => Absence::Unknown,
                _ => Absence::Others(others()),
            };
        self.listen = self.all.values().find_map(|terms| terms.speaker.listen.clone());
        // Other nodes may have seen a ConfigMap that was right, or have annotations.
        let is_known = self.of_map.is_empty() && settings.prefix.is_none();
        self.unspoken = if is_known { config.unspoken() } else { BTreeSet::new() };
        let every = config.peers.iter().chain(&says.peers);
        let own = self.all.values().map(|terms| &terms.peer);
        self.addresses = Arc::new(OfRouters::of(every, own, &speaker));
        self.policy = config.policy.clone();
        self.permits = Some(Arc::new(config.permits.clone()));
        self.layer2 = Some(Arc::new(config.layer2.clone()));
    }
}

fn of(settings: &Settings, document: Document) -> (Config, Vec<Flaw>) {
    Config::of((settings.speaker.clone(), settings.peers.clone()), document)
}

/// What a ConfigMap asks for that is not built, or not as settings are: an error, and no silence.
fn unmet(settings: &Settings, document: &Document) -> Vec<Flaw> {
    let flaw = |of: &str, field: &str, accepted: &str| Flaw {
        of: of.to_owned(),
        field: field.to_owned(),
        place: config::Place::Named,
        value: None,
        accepted: accepted.to_owned(),
    };
    let with_bfd = document.peers.iter().filter(|peer| peer.bfd.is_some());
    let mut flaws: Vec<Flaw> = with_bfd
        .map(|peer| flaw(&format!("peer {}", peer.name), "bfd", "not supported yet; leave it out"))
        .collect();
    if !settings.is_mixed && !document.layer2.is_empty() {
        let accepted =
            "accepted beside vip_arp=true alone: this announcer tells neighbours nothing";
        flaws.push(flaw("", "layer2", accepted));
    }
    flaws
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let (peers, _) = config::peers("192.0.2.1:65001,192.0.2.2:65001");
        let prefix = Some("example.com".to_owned());
        Settings { speaker: config::Speaker::default(), peers, prefix, is_mixed: false }
    }

    fn said(notes: &[(&str, &str)], map: &str) -> Said {
        let note =
            |(key, value): &(&str, &str)| (format!("example.com/{key}"), (*value).to_owned());
        Said {
            is_node_known: true,
            notes: notes.iter().map(note).collect(),
            labels: [("rack".to_owned(), "a".to_owned())].into(),
            data: Some([("config.yaml".to_owned(), map.to_owned())].into()),
        }
    }

    fn names(peers: &Peers) -> Vec<&str> {
        peers.all.keys().map(String::as_str).collect()
    }

    #[test]
    fn nobody_is_spoken_to_before_the_map_was_looked_for() {
        let mut peers = Peers::default();
        peers.see(&settings(), &Said::default());
        assert!(peers.all.is_empty());
        peers.see(&settings(), &Said { data: Some(BTreeMap::new()), ..Said::default() });
        assert_eq!(names(&peers), ["192.0.2.1", "192.0.2.2"]);
    }

    #[test]
    fn routes_outlive_a_restart_unless_the_map_says_otherwise_for_all_or_for_one() {
        let of = |map: &str| {
            let mut peers = Peers::default();
            peers.see(&settings(), &said(&[], map));
            assert!(peers.of_map.is_empty(), "{:?}", peers.of_map);
            let kept =
                |terms: &Terms| (terms.restart().map(|t| t.as_secs()), terms.keeps().as_secs());
            peers.all.iter().map(|(name, terms)| (name.clone(), kept(terms))).collect::<Vec<_>>()
        };
        let [one, two] = ["192.0.2.1", "192.0.2.2"].map(str::to_owned);
        let (usual, none) = ((Some(120), 150), (None, 30));
        assert_eq!(of(""), [(one.clone(), usual), (two.clone(), usual)]);
        let off = "gracefulRestart: false";
        assert_eq!(of(off), [(one.clone(), none), (two.clone(), none)]);
        let some = "gracefulRestart: {time: 60}
holdTime: 9
peers: [{name: a, address: 192.0.2.3, asn: 65001, gracefulRestart: false}]";
        let (some, a) = (of(some), ("a".to_owned(), (None, 9)));
        assert_eq!(some, [(one, (Some(60), 69)), (two, (Some(60), 69)), a]);
    }

    #[test]
    fn what_a_node_says_of_a_router_counts_and_what_is_wrong_of_it_costs_no_other() {
        let mut peers = Peers::default();
        let notes = [
            ("node-asn", "65010"),
            ("peer-asn", "65002"),
            ("src-ip", "192.0.2.11"),
            ("peer-ip", "192.0.2.1"),
            ("bgp-peers-0-node-asn", "0"),
        ];
        peers.see(&settings(), &said(&notes, ""));
        assert_eq!(names(&peers), ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(peers.all["192.0.2.1"].speaker.local_as, 65010);
        assert_eq!(peers.all["192.0.2.2"].speaker.local_as, 65000);
        let id = RouterId::Is("192.0.2.11".parse().unwrap());
        assert!(peers.all.values().all(|terms| terms.speaker.router_id == id));
        assert!(!peers.of_notes.is_empty() && peers.of_map.is_empty());
    }

    #[test]
    fn annotations_with_anything_wrong_are_told_and_those_before_them_go_on() {
        let group = |number: u8, peer: &'static str| {
            let key = |rest: &str| format!("bgp-peers-{number}-{rest}");
            let [own, theirs] = [(key("node-asn"), "65010"), (key("peer-asn"), "65002")];
            vec![own, theirs, (key("src-ip"), "192.0.2.11"), (key("peer-ip"), peer)]
        };
        let mut peers = Peers::default();
        let mut see = |notes: &[(String, &str)]| {
            let notes: Vec<_> = notes.iter().map(|(key, value)| (key.as_str(), *value)).collect();
            peers.see(&settings(), &said(&notes, ""));
            (peers.all.clone(), peers.of_notes.len())
        };
        let right = group(0, "192.0.2.3,192.0.2.4");
        let (before, flaws) = see(&right);
        assert_eq!((before.len(), flaws), (4, 0));
        let mut half = group(1, "192.0.2.5");
        half.truncate(1);
        for wrong in [
            group(0, "192.0.2.3,192.0.2.400"),
            group(0, ""),
            [&right[..], &half].concat(),
            right[..3].to_vec(),
        ] {
            let (now, flaws) = see(&wrong);
            assert_eq!((now == before, flaws > 0), (true, true), "{wrong:?}");
        }
        assert_eq!(see(&[]).0.len(), 2, "all are gone");
    }

    #[test]
    fn addresses_of_routers_and_those_by_which_they_know_nodes_are_nobodys_whichever_node_has_them()
    {
        let mut peers = Peers::default();
        let map = "
routerId: 192.0.2.111
peers:
- {name: a, address: 192.0.2.3, asn: 65001, nextHop: {ipv4: 192.0.2.33}, nodes: {matchLabels: {rack: a}}}
- {name: b, address: 2001:db8::4, port: 1790, asn: 65001, source: 2001:db8::b, nodes: {matchLabels: {rack: b}}}
- {name: c, interface: eth1, asn: external}
";
        let notes = [
            ("node-asn", "65010"),
            ("peer-asn", "65002"),
            ("src-ip", "192.0.2.11"),
            ("peer-ip", "192.0.2.9"),
        ];
        peers.see(&settings(), &said(&notes, map));
        assert!(peers.of_map.is_empty() && peers.of_notes.is_empty(), "{:?}", peers.of_map);
        let told: Vec<String> =
            peers.addresses.all.iter().map(|(own, what)| format!("{own}: {what}")).collect();
        assert_eq!(
            told,
            [
                "192.0.2.1: peer 192.0.2.1 of BGP",
                "192.0.2.2: peer 192.0.2.2 of BGP",
                "192.0.2.3: peer a of BGP",
                "192.0.2.9: peer 192.0.2.9 of BGP",
                "192.0.2.11: the source of the session with peer 192.0.2.9",
                "192.0.2.33: the next hop for peer a",
                "192.0.2.111: the router id",
                "2001:db8::4: peer b of BGP",
                "2001:db8::b: the source of the session with peer b",
            ]
        );
        let others = peers.addresses.all.keys().filter(|own| !peers.addresses.own.contains(*own));
        let others: Vec<String> = others.map(ToString::to_string).collect();
        assert_eq!(others, ["2001:db8::4", "2001:db8::b"], "another node tells those");
    }

    #[test]
    fn a_port_is_wanted_where_a_peer_of_this_node_connects_and_concerns_no_other() {
        let mut peers = Peers::default();
        let map = "
listen: 1790
peers:
- {name: a, address: 192.0.2.3, asn: 65001, connect: passive, nodes: {matchLabels: {rack: a}}}
";
        peers.see(&settings(), &said(&[], &map.replace("rack: a", "rack: b")));
        assert_eq!((names(&peers).len(), peers.listen.take()), (2, None), "{:?}", peers.of_map);
        peers.see(&settings(), &said(&[], map));
        assert_eq!(peers.listen.take().map(|listen| listen.port), Some(1790));
        let before = peers.all.clone();
        peers.see(&settings(), &said(&[], &map.replace("1790", "1791")));
        assert_ne!(peers.all["a"], before["a"]);
        assert_eq!(peers.all["192.0.2.1"], before["192.0.2.1"], "its session goes on");
    }

    #[test]
    fn a_map_with_anything_wrong_is_told_and_the_one_before_it_goes_on() {
        let mut peers = Peers::default();
        let right = "
peers:
- {name: a, address: 192.0.2.3, asn: 65001, nodes: {matchLabels: {rack: a}}}
- {name: b, address: 192.0.2.4, asn: 65001, nodes: {matchLabels: {rack: b}}}
policy:
- {peers: [a], pools: [shop], services: {matchLabels: {tier: gold}}, localPref: 200}
services:
- {namespaces: [shop], communities: [\"65010:*\"]}
";
        peers.see(&settings(), &said(&[], right));
        assert_eq!((names(&peers), peers.of_map.len()), (vec!["192.0.2.1", "192.0.2.2", "a"], 0));
        assert_eq!(peers.policy.rules.len(), 1);
        assert_eq!(peers.permits.as_ref().map(|permits| permits.0.len()), Some(1));
        for wrong in [
            right.replace("65001", "x"),
            right.replace("asn: 65001", "asn: 65001, bfd: {}"),
            format!("gracefulRestart: {{time: 5000}}\n{right}"),
        ] {
            peers.see(&settings(), &said(&[], &wrong));
            assert_eq!(names(&peers), ["192.0.2.1", "192.0.2.2", "a"], "{wrong}");
            assert!(!peers.of_map.is_empty(), "{wrong}");
        }
        peers.see(&settings(), &said(&[], ""));
        assert_eq!((names(&peers), peers.of_map.len()), (vec!["192.0.2.1", "192.0.2.2"], 0));
    }

    #[test]
    fn a_family_that_no_peer_speaks_is_known_where_nobody_else_could_name_one() {
        let all = Settings { prefix: None, ..settings() };
        let mut peers = Peers::default();
        let mut unspoken = |settings: &Settings, map: &str| {
            peers.see(settings, &said(&[], map));
            peers.unspoken.clone()
        };
        assert_eq!(unspoken(&all, ""), BTreeSet::from([Family::V6]));
        assert!(unspoken(&settings(), "").is_empty(), "another node may name one");
        assert!(unspoken(&all, "asn: x").is_empty(), "another may have seen one that was right");
        let of_another =
            "peers: [{address: \"2001:db8::1\", asn: 65001, nodes: {matchLabels: {rack: b}}}]";
        assert!(unspoken(&all, of_another).is_empty());
    }

    #[test]
    fn what_is_for_the_lan_is_taken_where_neighbours_are_told_and_refused_where_they_are_not() {
        let map = "layer2: [{pools: [lan]}, {services: {matchLabels: {way: lan}}}]";
        let mixed = Settings { is_mixed: true, ..settings() };
        let mut peers = Peers::default();
        peers.see(&mixed, &said(&[], map));
        assert_eq!((peers.of_map.len(), peers.layer2.as_ref().map(|all| all.len())), (0, Some(2)));
        peers.see(&settings(), &said(&[], map));
        let [told] = &peers.of_map[..] else { panic!("{:?}", peers.of_map) };
        assert!(told.contains("layer2") && told.contains("vip_arp=true"), "{told}");
    }

    /// cilium#25408: even what no session goes by ended it. metallb#1715, #1944: so did what concerns others.
    #[test]
    fn an_edit_of_what_a_session_does_not_go_by_is_none_of_its_peer() {
        let mut peers = Peers::default();
        let own = "{name: a, address: 192.0.2.3, asn: 65001, localAsn: 65009, holdTime: 9, keepalive: 3, connectRetry: 5, \
             gracefulRestart: {time: 60}, nodes: {matchLabels: {rack: a}}}";
        let map = format!("routerId: 192.0.2.9\npeers:\n- {own}\n");
        peers.see(&settings(), &said(&[], &map));
        assert!(peers.of_map.is_empty(), "{:?}", peers.of_map);
        let before = peers.all["a"].clone();
        let selected = "nodes: {matchExpressions: [{key: rack, operator: In, values: [a, b]}]}";
        let mut touched = Vec::new();
        for edit in [
            format!("holdTime: 60\n{map}"),
            format!("keepalive: 20\n{map}"),
            format!("connectRetry: 60\n{map}"),
            format!("asn: 65010\n{map}"),
            format!("gracefulRestart: {{time: 77}}\n{map}"),
            map.replace("nodes: {matchLabels: {rack: a}}", selected),
            map.replace("name: a,", "name: a, description: the first,"),
        ] {
            peers.see(&settings(), &said(&[], &edit));
            assert!(peers.of_map.is_empty(), "{:?}", peers.of_map);
            if peers.all["a"] != before {
                touched.push(edit);
            }
        }
        assert!(touched.is_empty(), "sessions that end for nothing: {touched:#?}");
    }

    #[test]
    fn one_that_is_called_otherwise_is_the_same_and_one_elsewhere_is_another() {
        let mut peers = Peers::default();
        let mut ends = |peer: &str| {
            peers.see(&settings(), &said(&[], &format!("peers: [{{{peer}}}]")));
            assert!(peers.of_map.is_empty(), "{:?}", peers.of_map);
            peers.all.values().last().unwrap().ends()
        };
        let before = ends("name: a, address: 192.0.2.3, asn: 65001");
        assert_eq!(ends("name: b, address: 192.0.2.3, asn: external, holdTime: 9"), before);
        for other in [
            "address: 192.0.2.4",
            "address: 192.0.2.3, source: 192.0.2.11",
            "address: 192.0.2.3, port: 1790",
        ] {
            assert_ne!(ends(&format!("name: a, asn: 65001, {other}")), before, "{other}");
        }
    }

    #[test]
    fn why_a_node_has_no_peer_is_known() {
        let none = Settings { peers: Vec::new(), ..settings() };
        let mut peers = Peers::default();
        let mut absence = |said: &Said| {
            peers.see(&none, said);
            assert!(peers.all.is_empty());
            peers.absence.clone()
        };
        let data = |map: &str| said(&[], map);
        assert_eq!(absence(&Said::default()), Absence::Unknown);
        assert_eq!(absence(&data("")), Absence::Nobody);
        let elsewhere =
            "peers: [{name: a, address: 192.0.2.3, asn: 65001, nodes: {matchLabels: {rack: b}}}]";
        assert_eq!(absence(&Said { is_node_known: false, ..data(elsewhere) }), Absence::Unknown);
        assert_eq!(absence(&data(elsewhere)), Absence::Others(vec!["a".to_owned()]));
        assert_eq!(absence(&data("peers: [{address: x}]")), Absence::Wrong);
    }
}
