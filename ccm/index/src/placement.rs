//! Owns where an elastic IP belongs: the node on which its machine is at work, and the addresses of the machine that it
//! leads to. A pure function of the binding and the machine.

use std::net::IpAddr;

use berth_api::reason;
use berth_api::{Few, NamespacedName, Quoted};
use berth_ipam::Family;

use crate::kubevirt::{Interface, Vmi};

/// Where an elastic IP belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: String,
    /// The node to which its machine is migrating.
    pub target: Option<String>,
    /// An address of the machine for each family that was asked for, in that order.
    pub addresses: Vec<IpAddr>,
}

/// Why it belongs nowhere. [`Unplaced::reason`] never changes its spelling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unplaced {
    /// There are no virtual machines in this cluster.
    #[error("KubeVirt is not installed: there is no resource virtualmachineinstances.kubevirt.io")]
    NoKubeVirt,
    /// No object of that name.
    #[error("there is no VirtualMachineInstance {0}")]
    NotFound(NamespacedName),
    /// It is not at work.
    #[error("VirtualMachineInstance {key} does not run: its phase is {phase}")]
    NotRunning {
        /// The machine.
        key: NamespacedName,
        /// Its phase.
        phase: Quoted,
    },
    /// Another binding was first.
    #[error("VirtualMachineInstance {vmi} is served by EipBinding {by}, which comes first")]
    Taken {
        /// The machine.
        vmi: NamespacedName,
        /// The other binding.
        by: NamespacedName,
    },
    /// It has no interface of that name.
    #[error("VirtualMachineInstance {key} has no interface {interface}, but {found}")]
    NoInterface {
        /// The machine.
        key: NamespacedName,
        /// What was asked for.
        interface: Quoted,
        /// The names that it has.
        found: String,
    },
    /// Its interface shows no address, or none yet.
    #[error("VirtualMachineInstance {0} shows no address yet")]
    NoAddress(NamespacedName),
    /// What its interface shows belongs to the cluster, or can be no host's.
    #[error(
        "VirtualMachineInstance {key} shows {address}, which is not its own: it belongs to {by}"
    )]
    AddressReserved {
        /// The machine.
        key: NamespacedName,
        /// The address.
        address: IpAddr,
        /// What has it.
        by: String,
    },
    /// What its interface shows somebody else has, or shows as well.
    #[error(
        "VirtualMachineInstance {key} shows {address}, and {by}: nobody is led there by an elastic IP"
    )]
    AddressInUse {
        /// The machine.
        key: NamespacedName,
        /// The address.
        address: IpAddr,
        /// Who else, and whether it shows it or was given it.
        by: String,
    },
    /// Its interface has addresses, but none of this family.
    #[error("VirtualMachineInstance {key} has no {family} address")]
    NoFamily {
        /// The machine.
        key: NamespacedName,
        /// The family.
        family: Family,
    },
}

impl Unplaced {
    /// The reason, as users see it in conditions, Events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoKubeVirt => reason::NO_KUBE_VIRT,
            Self::NotFound(_) => reason::VMI_NOT_FOUND,
            Self::NotRunning { .. } => reason::VMI_NOT_RUNNING,
            Self::Taken { .. } => reason::VMI_TAKEN,
            Self::NoInterface { .. } => reason::INTERFACE_NOT_FOUND,
            Self::NoAddress(_) => reason::NO_VMI_ADDRESS,
            Self::AddressReserved { .. } => reason::VMI_ADDRESS_RESERVED,
            Self::AddressInUse { .. } => reason::VMI_ADDRESS_IN_USE,
            Self::NoFamily { .. } => reason::FAMILY_UNAVAILABLE,
        }
    }

    /// Whether somebody should look at it: no state that a machine comes through when it starts and stops.
    pub fn is_warning(&self) -> bool {
        !matches!(self, Self::NotFound(_) | Self::NotRunning { .. } | Self::NoAddress(_))
    }
}

/// Where elastic IPs of these families belong, given their machine and what there is against an address that it shows: the
/// first of each family counts against which there is nothing.
///
/// # Errors
/// When they belong nowhere.
pub fn place(
    families: &[Family],
    interface: Option<&str>,
    vmi: &Vmi,
    objection: impl Fn(IpAddr) -> Option<Unplaced>,
) -> Result<Place, Unplaced> {
    let key = || vmi.key.clone();
    let Some(node) = vmi.node.clone() else {
        return Err(Unplaced::NotRunning { key: key(), phase: Quoted::of(&vmi.phase) });
    };
    let Some(interface) = find(interface, vmi)? else { return Err(Unplaced::NoAddress(key())) };
    if interface.addresses.is_empty() {
        return Err(Unplaced::NoAddress(key()));
    }
    let address = |family: &Family| {
        let mut refused = None;
        for address in interface.addresses.iter().filter(|own| Family::of(**own) == *family) {
            match objection(*address) {
                None => return Ok(*address),
                Some(objection) => _ = refused.get_or_insert(objection),
            }
        }
        Err(refused.unwrap_or_else(|| Unplaced::NoFamily { key: key(), family: *family }))
    };
    let addresses = families.iter().map(address).collect::<Result<_, _>>()?;
    Ok(Place { node, target: vmi.target.clone(), addresses })
}

/// The interface that is meant: by default the first that its spec names, and none that only the guest knows. `None` while
/// the machine shows none, as in the moment of a migration at which KubeVirt empties the list.
fn find<'a>(name: Option<&str>, vmi: &'a Vmi) -> Result<Option<&'a Interface>, Unplaced> {
    let Some(name) = name else {
        return Ok(vmi.interfaces.iter().find(|interface| !interface.name.is_empty()));
    };
    let found = vmi.interfaces.iter().find(|interface| interface.name == name);
    if found.is_some() || vmi.interfaces.is_empty() {
        return Ok(found);
    }
    let names = vmi.interfaces.iter().map(|interface| interface.name.as_str());
    let names: Few = names.filter(|name| !name.is_empty()).collect();
    Err(Unplaced::NoInterface {
        key: vmi.key.clone(),
        interface: Quoted::of(name),
        found: if names.is_empty() { "none with a name".to_owned() } else { names.to_string() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubevirt::Origin;

    fn vmi(interfaces: &[(&str, &[&str])]) -> Vmi {
        Vmi {
            key: NamespacedName { namespace: "shop".to_owned(), name: "vm".to_owned() },
            uid: "u".to_owned(),
            version: "1".to_owned(),
            phase: "Running".to_owned(),
            node: Some("a".to_owned()),
            target: None,
            interfaces: interfaces
                .iter()
                .map(|(name, addresses)| Interface {
                    name: (*name).to_owned(),
                    origin: Origin { on_pods: true, by_guest: false },
                    addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
                    inner: Vec::new(),
                })
                .collect(),
        }
    }

    fn shown(families: &[Family], interface: Option<&str>, vmi: &Vmi) -> String {
        match place(families, interface, vmi, |_| None) {
            Ok(place) => format!("{} {:?}", place.node, place.addresses),
            Err(unplaced) => unplaced.reason().to_owned(),
        }
    }

    #[test]
    fn a_binding_belongs_where_its_machine_is() {
        use Family::{V4, V6};
        let dual: &[&str] = &["10.0.0.5", "fd00::5"];
        let both = vmi(&[("default", dual), ("lan", &["192.0.2.9"])]);
        let none: &[&str] = &[];
        let stopped = Vmi { node: None, phase: "Succeeded".to_owned(), ..both.clone() };
        for (families, interface, vmi, expected) in [
            (&[V4][..], None, &both, "a [10.0.0.5]"),
            (&[V6], None, &both, "a [fd00::5]"),
            (&[V6, V4], None, &both, "a [fd00::5, 10.0.0.5]"),
            (&[V4], Some("lan"), &both, "a [192.0.2.9]"),
            (&[V6], Some("lan"), &both, "FamilyUnavailable"),
            (&[V4, V6], Some("lan"), &both, "FamilyUnavailable"),
            (&[V4], Some("wan"), &both, "InterfaceNotFound"),
            (&[V4], None, &vmi(&[("default", none)]), "NoVmiAddress"),
            (&[V4], None, &vmi(&[]), "NoVmiAddress"),
            (&[V4], Some("lan"), &vmi(&[]), "NoVmiAddress"),
            (&[V4], None, &stopped, "VmiNotRunning"),
        ] {
            assert_eq!(shown(families, interface, vmi), expected, "{families:?} {interface:?}");
        }
    }

    #[test]
    fn the_first_address_counts_against_which_there_is_nothing_and_else_the_first_objection() {
        let vmi = vmi(&[("", &["172.17.0.1"]), ("default", &["10.0.0.1", "10.0.0.5", "fd00::5"])]);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let against = |refused: &[&str]| {
            let refused: Vec<IpAddr> = refused.iter().map(|text| ip(text)).collect();
            place(&[Family::V4], None, &vmi, |address| {
                let (key, by) = (vmi.key.clone(), String::new());
                refused.contains(&address).then_some(Unplaced::AddressInUse { key, address, by })
            })
        };
        assert_eq!(against(&[]).unwrap().addresses, [ip("10.0.0.1")], "none of the guest's alone");
        assert_eq!(against(&["10.0.0.1"]).unwrap().addresses, [ip("10.0.0.5")]);
        let none = against(&["10.0.0.1", "10.0.0.5"]).unwrap_err();
        assert!(
            matches!(none, Unplaced::AddressInUse { address, .. } if address == ip("10.0.0.1"))
        );
    }

    #[test]
    fn who_asks_for_an_interface_in_vain_is_told_which_there_are() {
        let vmi = vmi(&[("default", &["10.0.0.5"]), ("", &["172.17.0.1"])]);
        let refused = place(&[Family::V4], Some("wan"), &vmi, |_| None).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "VirtualMachineInstance shop/vm has no interface \"wan\", but \"default\""
        );
    }
}
