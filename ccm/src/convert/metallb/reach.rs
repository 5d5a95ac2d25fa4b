//! How and where a pool is announced.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::object::{list, title};
use super::selector::{self, Selector};
use crate::convert::finding::{Finding, Told, shown};

/// What is said of MetalLB's objects for BGP, which nothing here converts.
pub(super) const BGP: &str = "its counterpart is in ConfigMap berth-bgp, and you write it: docs/migrating-from-metallb.md, \
                              `By BGP`, says field by field what";

/// What is said of BFD.
pub(super) const BFD: &str =
    "Berth does not watch routers by BFD yet: they are given up by their hold time";

/// By which of MetalLB's ways it announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Layer2,
    Bgp,
}

/// An L2Advertisement or BGPAdvertisement.
#[derive(Clone, Debug)]
pub(super) struct Advertisement {
    pub(super) object: String,
    way: Way,
    pools: BTreeSet<String>,
    selectors: Vec<Selector>,
    nodes: Vec<Selector>,
    interfaces: BTreeSet<String>,
}

/// Where the addresses of a pool are announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// Whether that is the LAN.
    pub(super) on_lan: bool,
    /// Whether routers are told.
    pub(super) by_bgp: bool,
    /// The one interface, if one alone is named.
    pub(super) interface: Option<String>,
    /// The nodes, as preferences of ours; none for all.
    pub(super) nodes: Vec<String>,
}

impl Reach {
    /// What an AddressPool says itself; of others advertisements do.
    pub(super) fn by_protocol(protocol: Option<&str>) -> Self {
        let (on_lan, by_bgp) = (protocol == Some("layer2"), protocol == Some("bgp"));
        Self { on_lan, by_bgp, ..Self::default() }
    }
}

impl Advertisement {
    /// Reads one, and tells what of it has no counterpart.
    pub(super) fn read(object: &Value, findings: &mut Vec<Finding>) -> Self {
        let (spec, mut told) = (&object["spec"], Told::of(title(object), findings));
        let way = if object["kind"] == "L2Advertisement" { Way::Layer2 } else { Way::Bgp };
        let known = ["ipAddressPools", "ipAddressPoolSelectors", "nodeSelectors", "interfaces"];
        match way {
            Way::Layer2 => told.unknown("spec", spec, &known),
            Way::Bgp => told.undone("", BGP),
        }
        let mut selectors = |field: &str| {
            Selector::list(&spec[field]).unwrap_or_else(|| {
                told.lost(&format!("spec.{field}"), selector::UNREAD);
                Vec::new()
            })
        };
        let (by_label, nodes) = (selectors("ipAddressPoolSelectors"), selectors("nodeSelectors"));
        let mut texts = |field: &str| -> BTreeSet<String> {
            let entries = list(&spec[field], &format!("spec.{field}"), &mut told).iter();
            entries.filter_map(|text| Some(text.as_str()?.to_owned())).collect()
        };
        Self {
            object: title(object),
            way,
            pools: texts("ipAddressPools"),
            selectors: by_label,
            nodes,
            interfaces: texts("interfaces"),
        }
    }

    fn is_about(&self, pool: Subject<'_>) -> bool {
        let names_none = self.pools.is_empty() && self.selectors.is_empty();
        let selects = |selector: &Selector| selector.selects(pool.labels);
        names_none || self.pools.contains(pool.name) || self.selectors.iter().any(selects)
    }
}

/// What advertisements look at of a pool.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    /// Kind, namespace and name.
    pub(super) object: &'a str,
    pub(super) name: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
}

/// Where a pool is announced by these, and by what it says itself.
pub(super) fn of(
    pool: Subject<'_>,
    own: &Reach,
    advertisements: &[Advertisement],
    findings: &mut Vec<Finding>,
) -> Reach {
    let mut reach = own.clone();
    let about: Vec<_> = advertisements.iter().filter(|found| found.is_about(pool)).collect();
    let lan: Vec<_> = about.iter().copied().filter(|found| found.way == Way::Layer2).collect();
    reach.by_bgp |= about.iter().any(|found| found.way == Way::Bgp);
    reach.on_lan |= !lan.is_empty();
    let mut told = Told::of(pool.object.to_owned(), findings);
    if reach.by_bgp && !reach.on_lan {
        let says = "it is announced to routers alone: so it is here with `bgp_enable=true` of berth-announcer; with `vip_arp=true` \
                    beside it `layer2` of ConfigMap berth-bgp says which pools are on the LAN, and this one is none of them";
        told.undone("", says);
        return reach;
    }
    if reach.by_bgp {
        let says = "it is announced to routers and on the LAN; here an address goes one way, by `layer2` of ConfigMap berth-bgp";
        told.undone("", says);
    }
    if !reach.on_lan {
        reach.on_lan = true;
        let says = match advertisements.is_empty() {
            true => "no advertisement was given: it is taken for one of layer 2",
            false => {
                "no L2Advertisement is about it, so MetalLB answers for none of its addresses; Berth does"
            }
        };
        told.note("", says);
    }
    reach.interface = interface(&lan, findings);
    reach.nodes = nodes(&lan, findings);
    reach
}

/// The one interface of all of them; where one has none it is every interface.
fn interface(lan: &[&Advertisement], findings: &mut Vec<Finding>) -> Option<String> {
    if lan.iter().any(|found| found.interfaces.is_empty()) {
        for found in lan.iter().filter(|found| !found.interfaces.is_empty()) {
            let says = "another L2Advertisement of the pool names none, so it says nothing";
            Told::of(found.object.clone(), findings).note("spec.interfaces", says);
        }
        return None;
    }
    let all: BTreeSet<&String> = lan.iter().flat_map(|found| &found.interfaces).collect();
    let one = match all.iter().collect::<Vec<_>>()[..] {
        [] => return None,
        [one] if is_interface(one) => Some((*one).clone()),
        _ => None,
    };
    for found in lan {
        let mut told = Told::of(found.object.clone(), findings);
        match &one {
            Some(one) => told.undone(
                "spec.interfaces",
                format!(
                    "`berth_service_interfaces` of berth-announcer has to list {one}; Services that name another one go by that"
                ),
            ),
            None => told.lost(
                "spec.interfaces",
                format!(
                    "an address is announced on one interface, {} here: that of its subnet, or what `vip_interface` of \
                     berth-announcer or `kube-vip.io/serviceInterface` of the Service names",
                    shown(&found.interfaces.iter().cloned().collect::<Vec<_>>().join(",").into())
                ),
            ),
        }
    }
    one
}

/// The nodes of all of them as preferences; where one has none it is every node.
fn nodes(lan: &[&Advertisement], findings: &mut Vec<Finding>) -> Vec<String> {
    let limited: Vec<_> = lan.iter().filter(|found| !found.nodes.is_empty()).collect();
    let is_limited = limited.len() == lan.len();
    let mut preferred = Vec::new();
    for found in limited {
        let mut told = Told::of(found.object.clone(), findings);
        let field = "spec.nodeSelectors";
        if !is_limited {
            told.note(field, "another L2Advertisement of the pool has none, so it says nothing");
            continue;
        }
        let said: Option<Vec<_>> = found.nodes.iter().map(Selector::preferences).collect();
        match said {
            Some(said) => {
                told.lost(
                    field,
                    "no pool keeps to nodes. Services that have an address of it prefer them (`berth.dev/preferred-nodes`), and \
                     go elsewhere where none of them can serve; later ones are to be annotated. A nodeSelector of the \
                     DaemonSet keeps all addresses to nodes",
                );
                preferred.extend(said.into_iter().flatten());
            }
            None => told.lost(
                field,
                "no pool keeps to nodes, and `berth.dev/preferred-nodes` has no words for it. A nodeSelector of the DaemonSet \
                 keeps all addresses to nodes",
            ),
        }
    }
    preferred.sort();
    preferred.dedup();
    preferred
}

/// The kernel's rule for interface names (`dev_valid_name` in net/core/dev.c).
fn is_interface(name: &str) -> bool {
    let is_bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || !c.is_ascii();
    (1..16).contains(&name.len()) && !name.contains(is_bad) && ![".", ".."].contains(&name)
}
