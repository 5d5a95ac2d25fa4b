//! Owns what all that hold addresses have in common, so that one index and one ledger serve them: a Service, or the
//! EipBinding of a virtual machine.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use berth_api::NamespacedName;
use berth_api::address;
use berth_api::conflict::Conflicts;
use berth_ipam::{Families, Owner, OwnerKind, Sharing};

use crate::binding::Binding;
use crate::service::Service;

/// Which object: its kind, namespace and name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Its kind.
    pub kind: OwnerKind,
    /// Its namespace and name.
    pub key: NamespacedName,
}

impl Id {
    /// The Service of that name.
    pub fn service(key: &NamespacedName) -> Self {
        Self { kind: OwnerKind::Service, key: key.clone() }
    }

    /// The EipBinding of that name.
    pub fn eip(key: &NamespacedName) -> Self {
        Self { kind: OwnerKind::EipBinding, key: key.clone() }
    }

    /// An owner of that kind and name, whatever its uid.
    pub(crate) fn owner(&self) -> Owner {
        Owner::new(self.kind, &self.key.namespace, &self.key.name, "")
    }
}

impl From<&Owner> for Id {
    fn from(owner: &Owner) -> Self {
        let key = NamespacedName { namespace: owner.namespace.clone(), name: owner.name.clone() };
        Self { kind: owner.kind, key }
    }
}

/// Short, for the index is full of them: a test that compares indexes by what they show reads each.
impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key)
    }
}

/// One who has addresses, or wants some.
#[derive(Clone, Debug, PartialEq)]
pub enum Claimant {
    /// A Service.
    Service(Service),
    /// An EipBinding.
    Eip(Binding),
}

impl Claimant {
    /// Which object it is.
    pub fn id(&self) -> Id {
        match self {
            Self::Service(service) => Id::service(&service.key),
            Self::Eip(binding) => Id::eip(&binding.key),
        }
    }

    /// Whether the API server has it no more: who is being deleted and is held by no finalizer is gone with what says so.
    pub(crate) fn is_gone(&self) -> bool {
        let (deleting, finalizers) = match self {
            Self::Service(service) => (service.deleting, service.finalizers),
            Self::Eip(binding) => (binding.deleting, binding.finalizers),
        };
        deleting && finalizers.is_empty()
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        match self {
            Self::Service(service) => &service.uid,
            Self::Eip(binding) => &binding.uid,
        }
    }

    /// `metadata.resourceVersion`.
    pub fn version(&self) -> &str {
        match self {
            Self::Service(service) => &service.version,
            Self::Eip(binding) => &binding.version,
        }
    }

    /// When it was made, in seconds since 1970: who waits longest is served first.
    pub fn created(&self) -> i64 {
        match self {
            Self::Service(service) => service.created,
            Self::Eip(binding) => binding.created,
        }
    }

    /// It as a holder of addresses.
    pub fn owner(&self) -> Owner {
        match self {
            Self::Service(service) => service.owner(),
            Self::Eip(binding) => binding.owner(),
        }
    }

    /// The families it wants.
    pub fn families(&self) -> &Families {
        match self {
            Self::Service(service) => &service.families,
            Self::Eip(binding) => &binding.families,
        }
    }

    /// Its ports and policy; `None` for one that takes whole addresses.
    pub fn sharing(&self) -> Option<&Sharing> {
        match self {
            Self::Service(service) => service.shares(),
            Self::Eip(_) => None,
        }
    }

    /// A number for the pods that it leads to, where only nodes with one of them take its traffic.
    pub fn pods(&self) -> Option<u64> {
        match self {
            Self::Service(service) => service.pods,
            Self::Eip(_) => None,
        }
    }

    /// Which addresses it asks for, given what it holds: see [`Service::pins`] and [`Binding::pins`].
    pub fn pins(
        &self,
        held: &BTreeSet<IpAddr>,
        is_newer: impl Fn(IpAddr, IpAddr) -> bool,
    ) -> Vec<IpAddr> {
        match self {
            Self::Service(service) => service.pins(held, is_newer),
            Self::Eip(binding) => binding.pins(held),
        }
    }

    /// The addresses that were written to it.
    pub fn current(&self) -> Vec<IpAddr> {
        match self {
            Self::Service(service) => service.annotation().addresses().collect(),
            Self::Eip(binding) => binding.eips.clone(),
        }
    }

    /// The addresses that it shows in any place.
    pub fn listed(&self) -> Vec<IpAddr> {
        match self {
            Self::Service(service) => {
                service.annotation().addresses().chain(service.field().addresses()).collect()
            }
            Self::Eip(binding) => binding.eips.clone(),
        }
    }

    /// The addresses that its status shows, which its user cannot write; first those that are also written to it. None
    /// of a Service that names no address and was given none by us or the stock provider: its status is another's.
    pub fn answered(&self) -> Vec<IpAddr> {
        match self {
            Self::Service(service) => {
                let listed = self.listed();
                if listed.is_empty() && !service.labelled {
                    return Vec::new();
                }
                let published =
                    service.published.iter().filter(|address| !address.is_unspecified());
                let (first, rest): (Vec<IpAddr>, Vec<IpAddr>) =
                    published.partition(|address| listed.contains(address));
                [first, rest].concat()
            }
            Self::Eip(binding) => {
                let eips = binding.eips.iter().copied();
                eips.filter(|address| !address.is_unspecified()).collect()
            }
        }
    }

    /// Its addresses that another host on the LAN answers for, as an announcer has written.
    pub fn conflicts(&self) -> &Conflicts {
        match self {
            Self::Service(service) => &service.conflicts,
            Self::Eip(binding) => &binding.conflicts,
        }
    }

    /// How its addresses are written, to see whether somebody has edited them.
    pub fn written(&self) -> Option<String> {
        match self {
            Self::Service(service) => service.annotated.clone(),
            Self::Eip(binding) => {
                let eips = (!binding.eips.is_empty()).then(|| binding.eips.iter().copied());
                eips.map(address::format)
            }
        }
    }

    /// Whether an announcer may still answer for an address that it has no longer.
    pub fn may_answer_for(&self, address: IpAddr) -> bool {
        match self {
            Self::Service(service) => service.published.contains(&address),
            Self::Eip(binding) => binding.lags(),
        }
    }
}
