//! Settings of BGP. What they say is read where peers are known, by `berth-bgp`: each flaw names peer, field and position.

use berth_bgp::config::{self as bgp, Flaw, Peer, Speaker};

use super::settings::{Problem, Settings, unless};

/// How addresses are announced to routers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bgp {
    /// What is the same for all peers.
    pub speaker: Speaker,
    /// The peers.
    pub peers: Vec<Peer>,
    /// Whether addresses are bound on the interface that is named, and not on the loopback interface.
    pub attach: bool,
    /// Whether neighbours may be told of some addresses, as the ConfigMap says, and routers of the rest.
    pub is_mixed: bool,
    /// The prefix of annotations of nodes that name more peers.
    pub notes: Option<String>,
    /// A setting by which kube-vip has one node announce a Service, and that does not count here.
    pub elected_by: Option<&'static str>,
}

/// The switch.
const ENABLE: &str = "bgp_enable";

/// That of announcing to neighbours.
const ARP: &str = "vip_arp";

/// Where what routers lead here is bound.
const ATTACH: &str = "bgp_attach_ip_to_interface";

/// Whether addresses are announced by BGP.
pub(super) fn is_asked(settings: &Settings) -> bool {
    settings.switch(ENABLE) == Some(true)
}

/// Whether neighbours on the LAN are told of nothing, and so nobody is elected.
pub(super) fn is_alone(settings: &Settings) -> bool {
    is_asked(settings) && !is_mixed(settings)
}

fn is_mixed(settings: &Settings) -> bool {
    is_asked(settings) && settings.switch(ARP) == Some(true)
}

/// Reads them. What is right is there, whatever is wrong with the rest.
pub(super) fn bgp(settings: &Settings) -> (Option<Bgp>, Result<(), Vec<Problem>>) {
    if !is_asked(settings) {
        return (None, Ok(()));
    }
    let (speaker, peers, flaws) = bgp::settings(|name| settings.text(name));
    // What its variable does not take has been told.
    let known: Vec<String> = settings.check().into_iter().map(|(_, told)| told.name).collect();
    let flaws = flaws.iter().filter(|flaw| !known.contains(&flaw.field));
    let mut problems: Vec<Problem> = flaws.map(problem).collect();
    let (mut spoken_to, mut coming) = (Vec::new(), Vec::new());
    for peer in peers {
        match unmet(&peer) {
            Some(accepted) => coming.push(told(&peer.name, accepted)),
            None => spoken_to.push(peer),
        }
    }
    problems.extend(coming);
    let attach = settings.switch(ATTACH) == Some(true);
    if attach && settings.first(&["vip_servicesinterface", "vip_interface"]).is_none() {
        problems.push(settings.problem(
            ATTACH,
            "accepted is false where vip_interface names no interface: addresses are bound on lo",
        ));
    }
    let result = unless(problems, ());
    let elections = ["svc_election", "vip_leaderelection"];
    let is_mixed = is_mixed(settings);
    let mut elected_by = elections.into_iter().filter(|_| !is_mixed);
    let elected_by = elected_by.find(|name| settings.switch(name) == Some(true));
    let notes = settings.text("annotation").map(str::to_owned);
    (Some(Bgp { speaker, peers: spoken_to, attach, is_mixed, notes, elected_by }), result)
}

/// What a peer asks for that is not built.
fn unmet(peer: &Peer) -> Option<&'static str> {
    peer.bfd.as_ref().map(|_| {
        "BFD is not supported yet; accepted is a peer without, who is given up by bgp_hold_time"
    })
}

/// A flaw says where it is, and shows no password.
fn problem(flaw: &Flaw) -> Problem {
    let name = flaw.field.split(',').next().unwrap_or_default().to_owned();
    let value = flaw.value.clone().unwrap_or_else(|| "not shown".to_owned());
    Problem { name, value, accepted: flaw.to_string() }
}

fn told(peer: &str, accepted: &str) -> Problem {
    Problem { name: "bgp_peers".to_owned(), value: peer.to_owned(), accepted: accepted.to_owned() }
}

/// What cannot be beside it.
pub(super) fn alone(settings: &Settings, fixed: bool) -> Result<(), Vec<Problem>> {
    if !is_asked(settings) {
        return Ok(());
    }
    let mut problems = Vec::new();
    let mixed = is_mixed(settings);
    if mixed && settings.switch(ATTACH) == Some(true) {
        problems.push(settings.problem(
            ATTACH,
            "beside bgp_enable and vip_arp accepted is false: on an interface with neighbours is what these are told of, and \
             what routers lead here is on lo",
        ));
    }
    if !mixed && settings.text("berth_election").is_some() {
        let neighbours = match settings.switch("cp_enable") {
            // Beside which that is refused.
            Some(true) => "",
            _ => {
                ", or set vip_arp=true, then it is for what layer2 of ConfigMap berth-bgp leaves to neighbours"
            }
        };
        let accepted = format!(
            "beside bgp_enable nobody is elected: every node that can serve an address announces it, and routers choose; leave it out{neighbours}"
        );
        problems.push(settings.problem("berth_election", accepted));
    }
    if mixed && settings.switch("cp_enable") == Some(true) {
        problems.push(settings.problem(
            ARP,
            "beside bgp_enable and cp_enable accepted is false: routers are told of the control plane's address, and of Services; \
             where one of them is for neighbours, take an announcer for each (docs/control-plane.md)",
        ));
    }
    if fixed {
        problems.push(settings.problem(
            ENABLE,
            "addresses without a cluster are not announced by BGP yet; accepted is false",
        ));
    }
    unless(problems, ())
}
