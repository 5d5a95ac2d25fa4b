//! Who wants an address.

use std::fmt;

use berth_api::NamespacedName as Name;

/// An object, or an operator, that wants addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claimant {
    /// The operator, by the settings of the announcer.
    #[default]
    Operator,
    /// The API servers of the cluster, for which the operator names the address.
    ControlPlane,
    /// A Service.
    Service(Name),
    /// An `EipBinding`.
    Eip(Name),
}

impl Claimant {
    /// Whether both may have one address: Services share it, and so do the settings with themselves.
    pub fn shares(&self, other: &Self) -> bool {
        self == other || self.is_service() && other.is_service()
    }

    /// Whether both are Services of one namespace.
    pub fn is_beside(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Service(one), Self::Service(two)) if one.namespace == two.namespace)
    }

    /// Whether settings name the address, and no object.
    pub fn is_of_operator(&self) -> bool {
        matches!(self, Self::Operator | Self::ControlPlane)
    }

    /// Whether it is a Service.
    pub fn is_service(&self) -> bool {
        matches!(self, Self::Service(_))
    }
}

impl fmt::Display for Claimant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("settings"),
            Self::ControlPlane => f.write_str("the control plane"),
            Self::Service(name) => write!(f, "service/{name}"),
            Self::Eip(name) => write!(f, "eipbinding/{name}"),
        }
    }
}
