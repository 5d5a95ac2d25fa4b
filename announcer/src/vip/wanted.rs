//! A VIP: everything that is wanted of one address, by whomever. Sources make these values; requests, coverage, conflict
//! detection, plan and publication read them, and do not know which kind of object stands behind one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use berth_api::preference::Preference;

use berth_api::{Family, NamespacedName as Name};

use super::serve::{Traffic, apart};
use super::{Attach, ByFamily, Claimant, Refusal, Serving};
use crate::kernel::{Guarded, Port};

/// What a VIP is known by. One whose address comes from a DHCP server is known, and may have an owner, before it has one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VipId {
    /// By its address, which several claimants may share.
    Address(IpAddr),
    /// By who wants it, and of which family.
    Dynamic(Claimant, Family),
}

/// What one claimant wants of an address.
#[derive(Clone, Debug, PartialEq)]
pub struct Want {
    /// Who.
    pub claimant: Claimant,
    /// The uid of the object; only the nodes of this cluster know it.
    pub uid: String,
    /// When the object was made, as it is written: it sorts.
    pub created: String,
    /// The address of the VM that it leads to.
    pub leads_to: Option<IpAddr>,
    /// What says who could serve it for this claimant.
    pub serving: Arc<Serving>,
    /// Those that should have it if they can.
    pub preferred: Arc<[Preference]>,
    /// The node that is said to have it now.
    pub previous: Option<String>,
    /// How often the object has named another node; 0 where it names none.
    pub epoch: i64,
    /// Whether routers are to lead it here, and not neighbours on the LAN.
    pub routed: bool,
    /// Where it belongs on this host, or why it cannot be here.
    pub attach: Result<Attach, Refusal>,
    /// The ports of it that kube-proxy is to serve.
    pub ports: BTreeSet<Port>,
    /// Whether an announcer has written that another host has it.
    pub conflicts: bool,
    /// Whether it is known to have been served, so that nobody need be asked before it is used.
    pub in_use: bool,
}

/// One VIP.
#[derive(Clone, Debug, PartialEq)]
pub struct Vip {
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// What is wanted of it by those that share it, the oldest first: one that joins later moves nothing. Never empty.
    pub wants: Vec<Want>,
    /// Whether claims say who shares it.
    pub by_claim: bool,
}

impl Vip {
    /// Where it belongs on `node`, which is this one: where the oldest of those who say where it is has it that could be served
    /// here, or the oldest of all; or else the oldest that has a place here.
    pub fn attach(&self, node: &str) -> Option<Attach> {
        let decides = self.decides();
        let serves = |want: &&Want| want.serving.has(node);
        let placed = || self.wants.iter().filter(|want| want.attach.is_ok());
        let want = placed().filter(|want| decides(want)).find(serves);
        let want = want.or_else(|| placed().find(serves)).or_else(|| placed().next());
        want.and_then(|want| want.attach.as_ref().ok()).copied()
    }

    /// Those that could be served and have no say in where it may be.
    pub fn following(&self) -> impl Iterator<Item = &Want> {
        let decides = self.decides();
        self.wants.iter().filter(move |want| !want.serving.is_empty() && !decides(want))
    }

    /// Those that could be served and say together on which node it may be: of the namespace that had it first whoever could
    /// be, and of all where no claim says who shares it. One of another namespace moves nothing, wherever its author says that
    /// its endpoints are; only while nobody of that one could be served do the next say where it is.
    pub fn deciding(&self) -> impl Iterator<Item = &Want> {
        let decides = self.decides();
        self.wants.iter().filter(move |want| decides(want))
    }

    /// The oldest that could be served of the namespace that had it first, or else of all.
    fn first(&self) -> Option<&Want> {
        let could = || self.wants.iter().filter(|want| !want.serving.is_empty());
        let owner = &self.wants.first()?.claimant;
        let is_owners = |by: &Claimant| owner == by || owner.is_beside(by);
        could().find(|want| is_owners(&want.claimant)).or_else(|| could().next())
    }

    fn decides(&self) -> impl Fn(&Want) -> bool {
        let first = self.first();
        let is_first = move |by: &Claimant| {
            first.is_some_and(|first| first.claimant == *by || first.claimant.is_beside(by))
        };
        move |want| !want.serving.is_empty() && (!self.by_claim || is_first(&want.claimant))
    }

    /// Whether `node` could serve it for all who say where it is and can be served where the first is.
    pub fn is_served_by(&self, node: &str) -> bool {
        let (apart, decides) = (self.apart(), self.decides());
        let wants = self.wants.iter().enumerate();
        let mut wants = wants.filter(|(at, want)| decides(want) && !apart.contains(at)).peekable();
        wants.peek().is_some() && wants.all(|(_, want)| want.serving.has(node))
    }

    /// Which of those who share it cannot be served where the first is.
    pub fn apart(&self) -> BTreeSet<usize> {
        let decides = self.decides();
        match self.wants.len() {
            0 | 1 => BTreeSet::new(),
            _ => apart(self.wants.iter().map(|want| (&*want.serving, decides(want)))),
        }
    }

    /// Whether routers are to lead it here, as for whoever had it first.
    pub fn is_routed(&self) -> bool {
        self.wants.first().is_some_and(|want| want.routed)
    }

    /// The address of the VM that it leads to.
    pub fn leads_to(&self) -> Option<IpAddr> {
        self.wants.first().and_then(|want| want.leads_to)
    }

    /// The ports of all claimants.
    pub fn ports(&self) -> BTreeSet<Port> {
        self.wants.iter().flat_map(|want| want.ports.iter().copied()).collect()
    }

    /// Whether somebody is known to have served it.
    pub fn in_use(&self) -> bool {
        self.wants.iter().any(|want| want.in_use)
    }

    /// Whether the operator names it: no object publishes it.
    pub fn is_of_operator(&self) -> bool {
        self.wants.iter().any(|want| want.claimant.is_of_operator())
    }

    /// Whether it is that of the control plane.
    pub fn is_of_control_plane(&self) -> bool {
        self.wants.first().is_some_and(|want| want.claimant == Claimant::ControlPlane)
    }

    /// The one other node that is to have it, where the object names one.
    pub fn heir(&self, node: &str) -> Option<&str> {
        let named = self.wants.iter().find_map(|want| match &want.serving.traffic {
            Traffic::Named(named) => named.as_deref(),
            _ => None,
        });
        named.filter(|named| *named != node)
    }

    /// Whether the node that is said to have it now can serve all that is wanted of it: whoever is to take it may take its time.
    pub fn is_served(&self) -> bool {
        let serves = |node| self.wants.iter().all(|want| want.serving.has(node));
        self.previous().is_some_and(serves)
    }

    /// The node that is said to have it now.
    pub fn previous(&self) -> Option<&str> {
        self.wants.iter().find_map(|want| want.previous.as_deref())
    }
}

/// What a Service wants, and what it says: for whoever decides on it as a whole, and reports on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Whether it is to be served; else it only has something to be cleared.
    pub ours: bool,
    /// Its uid.
    pub uid: String,
    /// When it was made, as it is written: it sorts.
    pub created: String,
    /// The Lease that it names.
    pub lease: Option<String>,
    /// Whether routers are to lead its addresses here, and not neighbours on the LAN.
    pub routed: bool,
    /// Its addresses, in its order.
    pub addresses: Vec<IpAddr>,
    /// Where each of them belongs on this host, or why it cannot be here; nothing if it is not to be served.
    pub places: BTreeMap<IpAddr, Result<Attach, Refusal>>,
    /// What says who could serve it.
    pub serving: ByFamily,
    /// Of addresses that it shares, those that it cannot be served at where whoever had them first is.
    pub apart: BTreeMap<IpAddr, Claimant>,
    /// Of those that it shares with another namespace, where it has no say in which node has them, and who has.
    pub follows: BTreeMap<IpAddr, Claimant>,
    /// The node that it says announces it.
    pub host: Option<String>,
    /// Whether what it says may be corrected: not where it is of another class.
    pub correctable: bool,
    /// What its status shows and is not its own to show, where claims decide: it is to be taken out, whoever it is.
    pub strays: Vec<IpAddr>,
    /// What it shows while its namespace pauses there, as it took a port of another: who has the address takes it out.
    pub paused: Vec<IpAddr>,
    /// What is wrong with it, whoever serves it.
    pub remarks: Arc<[Refusal]>,
}

impl Claim {
    /// What says who could serve one of its addresses.
    pub fn serving(&self, address: &IpAddr) -> &Arc<Serving> {
        self.serving.of(address)
    }

    /// Whether somebody could serve an address of it.
    pub fn is_servable(&self) -> bool {
        self.servable().next().is_some()
    }

    /// Those of its own addresses that somebody could serve.
    pub fn servable(&self) -> impl Iterator<Item = &IpAddr> {
        self.own().filter(|address| !self.serving(address).is_empty())
    }

    /// Its addresses but for those that are not its own to have.
    pub fn own(&self) -> impl Iterator<Item = &IpAddr> {
        let lost = |address| matches!(self.places.get(address), Some(Err(r)) if r.is_of_another());
        self.addresses.iter().filter(move |address| !lost(*address))
    }

    /// Whether it says what is to be corrected once it is not announced: what its author can take away, or its status.
    pub fn says(&self) -> bool {
        self.correctable && (self.host.is_some() || self.shows_too_much())
    }

    /// What is to be taken out of its status.
    pub fn out(&self) -> impl Iterator<Item = &IpAddr> {
        self.strays.iter().chain(&self.paused)
    }

    /// Whether anything is.
    pub fn shows_too_much(&self) -> bool {
        self.out().next().is_some()
    }

    /// Whether it says that it is announced, and nobody could: somebody must clear what it says.
    pub fn needs_clearing(&self) -> bool {
        let ByFamily { v4, v6 } = &self.serving;
        let mut servings = self.addresses.iter().map(|address| self.serving(address));
        let nobody = match self.addresses.is_empty() {
            true => v4.is_empty() && v6.is_empty(),
            false => servings.all(|serving| serving.is_empty()),
        };
        self.says() && nobody
    }
}

/// All that is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Every VIP.
    pub vips: BTreeMap<VipId, Vip>,
    /// Every Service that is ours, or has something to be cleared.
    pub services: BTreeMap<Name, Claim>,
    /// The addresses of bindings that are not theirs to have.
    pub lost: BTreeMap<(Name, IpAddr), Refusal>,
    /// Those of all these addresses by which this node is reached, or for which another instance of this program answers here:
    /// whoever asks for them, it goes on as it is.
    pub own: BTreeSet<IpAddr>,
    /// Where host ports are closed: the addresses whose ports others than their Services may take, and where these lead.
    pub doubted: BTreeMap<IpAddr, BTreeSet<IpAddr>>,
}

impl Wanted {
    /// The VIP with this address.
    pub fn vip(&self, address: IpAddr) -> Option<&Vip> {
        self.vips.get(&VipId::Address(address))
    }

    /// Every VIP that has an address.
    pub fn addressed(&self) -> impl Iterator<Item = (IpAddr, &Vip)> {
        self.vips.values().filter_map(|vip| Some((vip.address?, vip)))
    }

    /// Of all of it what routers are to lead here, or the rest.
    pub fn part(&self, routed: bool) -> Self {
        let vips = self.vips.iter().filter(|(_, vip)| vip.is_routed() == routed);
        let services = self.services.iter().filter(|(_, claim)| claim.routed == routed);
        Self {
            vips: vips.map(|(id, vip)| (id.clone(), vip.clone())).collect(),
            services: services.map(|(name, claim)| (name.clone(), claim.clone())).collect(),
            own: self.own.clone(),
            ..Self::default()
        }
    }

    /// Those of the control plane.
    pub fn of_control_plane(&self) -> impl Iterator<Item = (IpAddr, &Vip)> {
        self.addressed().filter(|(_, vip)| vip.is_of_control_plane())
    }

    /// Where an address of a Service belongs on this host, or why it cannot be here; nothing if it wants none such.
    pub fn attach(&self, service: &Name, address: IpAddr) -> Option<&Result<Attach, Refusal>> {
        self.services.get(service)?.places.get(&address)
    }

    /// What is to be guarded.
    pub fn guarded(&self) -> Guarded {
        Guarded { ports: self.ports(), doubted: self.doubted.clone() }
    }

    /// The ports to guard: of every Service that is ours, at addresses that are not the node's own.
    pub fn ports(&self) -> BTreeSet<Port> {
        let mut ports: BTreeSet<Port> = self.vips.values().flat_map(Vip::ports).collect();
        ports.retain(|port| !self.own.contains(&port.address));
        ports
    }
}
