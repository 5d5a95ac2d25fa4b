//! What a node tells of itself in a Lease of its own, [`lease::of_host`]: that its announcer lives, which addresses are
//! the node's, by which hardware addresses it answers, and which routers it has. Kubernetes lists one address of each family
//! of a node; a node has more, and none of them is anybody's to ask for.
//!
//! Where it tells routers where addresses are, it tells of those as well: for how long they may lead an address to a node that
//! is gone is how long nobody else is to have it.
//!
//! And which addresses the network gave it for Services that asked for DHCP: a Service's own metadata is its tenant's to
//! write, so they are offered here, and are the Service's once berth-ccm has claimed them.

mod id;
mod routers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::coordination::v1::Lease;

use crate::conflict::{Mac, MacText};
use crate::names::{annotation, label, lease};

pub use id::HostId;
pub use routers::Routers;

/// The most addresses, the most routers, and the most offers that one node may tell.
pub const MOST: usize = 256;

/// The addresses and the routers of a node, and what it offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The node's own addresses, each with the length of its prefix, which says what the node reaches there.
    pub addresses: BTreeMap<IpAddr, u8>,
    /// The routers of its default routes.
    pub gateways: BTreeSet<IpAddr>,
    /// The hardware addresses of the interfaces that have addresses: who answers by one is no stranger.
    pub macs: BTreeSet<Mac>,
    /// By the uid of a Service, the addresses that the network gave for it, one of each family.
    pub offers: BTreeSet<(String, IpAddr)>,
    /// The routers that it tells where addresses are; nothing where it tells none.
    pub routers: Option<Routers>,
    /// Of the control plane, in the Lease for that alone.
    pub control_plane: ControlPlane,
}

impl Told {
    /// Writes what is told on the Lease. What exceeds [`MOST`] is left out, the highest addresses first.
    pub fn write(&self, lease: &mut Lease) {
        let addresses = self.addresses.iter().take(MOST);
        let addresses: Vec<String> =
            addresses.map(|(address, length)| format!("{address}/{length}")).collect();
        let gateways: Vec<String> =
            self.gateways.iter().take(MOST).map(ToString::to_string).collect();
        let macs: Vec<String> =
            self.macs.iter().take(MOST).map(|mac| MacText(*mac).to_string()).collect();
        let offers = self.offers.iter().take(MOST);
        let offers: Vec<String> = offers.map(|(uid, address)| format!("{uid}={address}")).collect();
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(annotation::HOST_ADDRESSES.to_owned(), addresses.join(","));
        annotations.insert(annotation::HOST_GATEWAYS.to_owned(), gateways.join(","));
        annotations.insert(annotation::HOST_MACS.to_owned(), macs.join(","));
        match offers.is_empty() {
            true => _ = annotations.remove(annotation::OFFERS),
            false => _ = annotations.insert(annotation::OFFERS.to_owned(), offers.join(",")),
        }
        Routers::write(self.routers.as_ref(), annotations);
        lease.metadata.labels.get_or_insert_default().insert(label::HOST.to_owned(), String::new());
    }

    /// What a Lease tells. What cannot be read, and what exceeds [`MOST`], is passed over.
    pub fn read(lease: &Lease) -> Self {
        let annotations = lease.metadata.annotations.as_ref();
        let listed = |name: &str| {
            let text = annotations.and_then(|all| all.get(name)).map_or("", String::as_str);
            text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).take(MOST)
        };
        let addresses = listed(annotation::HOST_ADDRESSES).filter_map(|entry| {
            let (address, length) = entry.split_once('/')?;
            Some((address.parse().ok()?, length.parse().ok()?))
        });
        let gateways = listed(annotation::HOST_GATEWAYS).filter_map(|entry| entry.parse().ok());
        let macs = listed(annotation::HOST_MACS).filter_map(|entry| entry.parse().ok());
        let offers = listed(annotation::OFFERS).filter_map(|entry| {
            let (uid, address) = entry.split_once('=')?;
            Some((uid.to_owned(), address.parse().ok()?))
        });
        Self {
            addresses: addresses.collect(),
            gateways: gateways.collect(),
            macs: macs.map(|MacText(mac)| mac).collect(),
            offers: offers.collect(),
            routers: annotations.and_then(Routers::read),
            control_plane: ControlPlane::default(),
        }
    }
}

/// What a control-plane node tells in a Lease beside the other ([`lease::of_control_plane`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlPlane {
    /// Whether its API server is healthy: who has the address yields it to nobody else.
    pub is_healthy: bool,
    /// The control plane's own addresses, which are nobody else's to have.
    pub addresses: BTreeSet<IpAddr>,
    /// Those of them that the node announces now, for people: one node does, or each whose routers lead them there.
    pub announced: BTreeSet<IpAddr>,
}

impl ControlPlane {
    const HEALTHY: &str = "healthy";

    /// Writes it on the Lease.
    pub fn write(&self, lease: &mut Lease) {
        let word = if self.is_healthy { Self::HEALTHY } else { "unhealthy" };
        let listed = |all: &BTreeSet<IpAddr>| {
            all.iter().take(MOST).map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        let metadata = &mut lease.metadata;
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(annotation::API_SERVER.to_owned(), word.to_owned());
        let addresses = listed(&self.addresses);
        annotations.insert(annotation::CONTROL_PLANE_ADDRESSES.to_owned(), addresses);
        let announced = annotation::CONTROL_PLANE_ANNOUNCED;
        match self.announced.is_empty() {
            true => _ = annotations.remove(announced),
            false => _ = annotations.insert(announced.to_owned(), listed(&self.announced)),
        }
        let labels = metadata.labels.get_or_insert_default();
        for label in [label::CONTROL_PLANE, label::HOST] {
            labels.insert(label.to_owned(), String::new());
        }
    }

    /// What a Lease tells, and of which node; `None` if it is none's. Whatever is not understood is not healthy.
    pub fn read(lease: &Lease) -> Option<(&str, Self)> {
        let node = lease.metadata.name.as_deref()?.strip_prefix(&*lease::of_control_plane(""))?;
        let annotations = lease.metadata.annotations.as_ref()?;
        let is_healthy = annotations.get(annotation::API_SERVER)? == Self::HEALTHY;
        let listed = |name: &str| {
            let listed = annotations.get(name).into_iter();
            let listed = listed.flat_map(|text| text.split(',')).take(MOST);
            listed.filter_map(|entry| entry.trim().parse().ok()).collect()
        };
        let addresses = listed(annotation::CONTROL_PLANE_ADDRESSES);
        let announced = listed(annotation::CONTROL_PLANE_ANNOUNCED);
        Some((node, Self { is_healthy, addresses, announced }))
    }
}

/// When the Lease was renewed, as a text that is compared with itself alone: hosts have clocks of their own.
pub fn renewed(lease: &Lease) -> String {
    let spec = lease.spec.as_ref();
    let time = spec.and_then(|spec| spec.renew_time.as_ref());
    time.map(|time| time.0.to_string()).unwrap_or_default()
}

/// The node whose Lease this is; `None` if it is none's. It belongs to the Node object, so that nobody tells of more nodes
/// than there are.
pub fn node(lease: &Lease) -> Option<&str> {
    let node = lease.metadata.name.as_deref()?.strip_prefix(lease::of_host("").as_str())?;
    is_of_node(lease, node).then_some(node)
}

/// Whether it belongs to this Node object.
pub fn is_of_node(lease: &Lease, node: &str) -> bool {
    let mut owners = lease.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.kind == "Node" && owner.name == node)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

    use super::*;

    #[test]
    fn what_is_told_is_read_and_what_is_unfit_or_too_much_is_passed_over() {
        let told = Told {
            addresses: [("192.0.2.7".parse().unwrap(), 24), ("2001:db8::7".parse().unwrap(), 64)]
                .into(),
            gateways: ["192.0.2.254".parse().unwrap()].into(),
            macs: [[2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8]].into(),
            offers: [("one".to_owned(), "192.0.2.100".parse().unwrap())].into(),
            ..Told::default()
        };
        let mut lease = Lease::default();
        told.write(&mut lease);
        assert_eq!(Told::read(&lease), told);
        let told = Told { offers: BTreeSet::new(), ..told };
        told.write(&mut lease);
        assert_eq!(Told::read(&lease), told, "an offer is taken back");

        let annotations = lease.metadata.annotations.get_or_insert_default();
        let text = "192.0.2.7, x/24, 192.0.2.8/24,,192.0.2.9/x";
        annotations.insert(annotation::HOST_ADDRESSES.to_owned(), text.to_owned());
        let read = Told::read(&lease).addresses;
        assert_eq!(read, [("192.0.2.8".parse().unwrap(), 24)].into());
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(annotation::OFFERS.to_owned(), "one,two=x,three=2001:db8::3".to_owned());
        let read = Told::read(&lease).offers;
        assert_eq!(read, [("three".to_owned(), "2001:db8::3".parse().unwrap())].into());

        let many = (0..2000u32).map(|number| (IpAddr::from(number.to_be_bytes()), 32));
        let crowd = Told { addresses: many.collect(), ..Told::default() };
        crowd.write(&mut lease);
        assert_eq!(Told::read(&lease).addresses.len(), MOST);
        let written = &lease.metadata.annotations.unwrap()[annotation::HOST_ADDRESSES];
        assert_eq!(written.split(',').count(), MOST);
    }

    #[test]
    fn what_is_told_of_a_control_plane_is_read_and_what_is_not_understood_is_not_healthy() {
        let mut lease = Lease::default();
        lease.metadata.name = Some(lease::of_control_plane("a"));
        assert_eq!(ControlPlane::read(&lease), None);
        for is_healthy in [true, false] {
            let addresses = ["192.0.2.100", "2001:db8::100"].map(|own| own.parse().unwrap());
            for announced in [[addresses[0]].into(), BTreeSet::new()] {
                let told = ControlPlane { is_healthy, addresses: addresses.into(), announced };
                told.write(&mut lease);
                assert_eq!(ControlPlane::read(&lease), Some(("a", told)));
            }
        }
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(annotation::API_SERVER.to_owned(), "Healthy?".to_owned());
        let text = "192.0.2.100,x,,192.0.2.101/32";
        annotations.insert(annotation::CONTROL_PLANE_ADDRESSES.to_owned(), text.to_owned());
        let (_, told) = ControlPlane::read(&lease).unwrap();
        assert_eq!((told.is_healthy, told.addresses.len()), (false, 1));
        assert_eq!(node(&lease), None, "it is no announcer's of Services");
        lease.metadata.name = Some(lease::of_host("a"));
        assert_eq!(ControlPlane::read(&lease), None);
    }

    #[test]
    fn a_lease_is_of_the_node_that_it_is_named_after_and_belongs_to() {
        let named = |name: &str, owner: &str| {
            let mut lease = Lease::default();
            lease.metadata.name = Some(name.to_owned());
            let (kind, name) = ("Node".to_owned(), owner.to_owned());
            let owner = OwnerReference { kind, name, ..OwnerReference::default() };
            lease.metadata.owner_references = Some(vec![owner]);
            node(&lease).map(str::to_owned)
        };
        assert_eq!(named(&lease::of_host("worker-1"), "worker-1").as_deref(), Some("worker-1"));
        assert_eq!(named(&lease::of_host("worker-2"), "worker-1"), None);
        assert_eq!(named("plndr-svcs-lock", "worker-1"), None);
        let bare = lease::of_host("worker-1");
        let metadata = ObjectMeta { name: Some(bare), ..ObjectMeta::default() };
        assert_eq!(node(&Lease { metadata, spec: None }), None);
    }
}
