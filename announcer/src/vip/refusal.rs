//! Why an address is not announced: data with a stable reason, on which users alert. Pure.

mod note;

use std::net::IpAddr;
use std::time::Duration;

use berth_api::conflict::Mac;
use berth_api::reason;
use berth_api::service::Port;
use berth_api::{Few, NamespacedName, Quoted};

use super::claimant::Claimant;

/// Why an address is not announced here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// No endpoint is ready anywhere.
    NoEndpoint,
    /// `externalTrafficPolicy: Local`, and no endpoint is ready on the owner.
    NoLocalEndpoint {
        /// The owner: this node.
        node: String,
    },
    /// `externalTrafficPolicy: Local`, and no endpoint is on a node.
    EndpointWithoutNode,
    /// It shares the address, and its traffic goes to other nodes only than that of who had the address first.
    NotServedTogether {
        /// The address.
        address: IpAddr,
        /// Who decides where it is.
        by: Claimant,
    },
    /// It shares the address with one that is announced in the other way: to neighbours on the LAN, or to routers.
    AnnouncedOtherwise {
        /// The address.
        address: IpAddr,
        /// Who had it first.
        by: Claimant,
        /// Whether routers are told of that one.
        routed: bool,
    },
    /// Membership grants the addresses to nobody.
    NotGranted {
        /// The node that tells.
        node: String,
        /// Whether it is who had them last.
        had: bool,
        /// The voters that do not answer it.
        unheard: Few,
        /// Where all do, those that live and could serve it.
        could: Few,
    },
    /// None of the nodes that could serve it is seen to live and to run an announcer.
    NoLiveNode {
        /// Their names.
        could: Few,
    },
    /// Members ask for nothing before they have the Lease by which others decide.
    MembersWait {
        /// The node that tells.
        node: String,
        /// The namespace and the name of the Lease.
        lease: String,
        /// The voters that do not answer the node, where no majority does.
        unheard: Few,
    },
    /// No Lease is acquired while there is a view of members.
    LeaseWithheld {
        /// The node that would.
        node: String,
        /// What is in the way.
        why: String,
    },
    /// It asks for an address by DHCP.
    DhcpNotServed {
        /// What it has in the place of the address.
        marker: IpAddr,
    },
    /// The host has no such interface.
    InterfaceMissing {
        /// The node.
        node: String,
        /// Its name; none if it was to be that of the default route.
        name: Option<Quoted>,
    },
    /// The interface has no hardware address, or no carrier.
    InterfaceUnfit {
        /// The node.
        node: String,
        /// Its name.
        name: Quoted,
        /// What it lacks.
        lacks: &'static str,
    },
    /// What a Service names is no interface of any host.
    InvalidInterface {
        /// As it is written.
        text: Quoted,
    },
    /// The VLAN that a Service names is no number of one.
    InvalidVlan {
        /// As it is written.
        text: Quoted,
    },
    /// The kernel does not make the interface of a VLAN.
    VlanNotMade {
        /// The node.
        node: String,
        /// Its name.
        name: Quoted,
        /// What the kernel said.
        error: String,
    },
    /// The host has the address itself.
    AddressOnHost {
        /// The node.
        node: String,
        /// The address.
        address: IpAddr,
        /// The interface that has it.
        interface: String,
    },
    /// A router has the address, or knows a node by it.
    AddressOfRouter {
        /// The node.
        node: String,
        /// The address.
        address: IpAddr,
        /// What it is.
        what: String,
    },
    /// The kernel drops all that asks for the address.
    ReversePathFiltered {
        /// The node.
        node: String,
        /// The address.
        address: IpAddr,
        /// The interface that it belongs on.
        name: Quoted,
    },
    /// Nobody who asks for the address could be answered.
    NoWayBack {
        /// The node.
        node: String,
        /// The address.
        address: IpAddr,
        /// The interface that it belongs on.
        name: Quoted,
    },
    /// The Service names an interface that it may not name here.
    InterfaceNotPermitted {
        /// Its name.
        name: Quoted,
    },
    /// The Service names a VLAN that it may not name here.
    VlanNotPermitted {
        /// Its number.
        id: u16,
    },
    /// Another host on the LAN has the address.
    AddressConflict {
        /// The address.
        address: IpAddr,
        /// The hardware address of that host.
        mac: Mac,
        /// The node that heard it.
        node: String,
        /// The interface on which it was heard.
        interface: String,
    },
    /// Another claimant had the address first.
    AddressInUse {
        /// The address.
        address: IpAddr,
        /// Who has it.
        by: Claimant,
    },
    /// The address is nobody's to ask for.
    AddressReserved {
        /// The address.
        address: IpAddr,
        /// Whose it is.
        by: Claimant,
    },
    /// It has a port now that another was given who shares the address.
    PortInUse {
        /// The address.
        address: IpAddr,
        /// Who was given the port.
        by: NamespacedName,
        /// The port.
        port: Port,
    },
    /// Its namespace took a port that another was given there, and comes to share the address again after a pause.
    Paused {
        /// The address.
        address: IpAddr,
        /// Who took it.
        by: NamespacedName,
        /// How long the pause is.
        length: Duration,
    },
    /// It shares the address and has more ports than are looked at.
    PortsUnknown {
        /// The address.
        address: IpAddr,
    },
    /// No claim names the object as who holds the address.
    NotClaimed {
        /// The address.
        address: IpAddr,
    },
    /// What an elastic IP was to lead to belongs to this node, or can be no host's.
    VmiAddressReserved {
        /// The address.
        address: IpAddr,
        /// What has it.
        by: String,
    },
    /// What an elastic IP was to lead to was given to a Service or an EipBinding.
    VmiAddressInUse {
        /// The address.
        address: IpAddr,
    },
    /// Entries of the annotation are no addresses.
    InvalidAddress {
        /// As they are written.
        texts: Few,
    },
    /// More addresses than a Service can have.
    TooManyAddresses {
        /// How many it asks for.
        count: usize,
    },
    /// Entries of the annotation with preferred nodes are not readable.
    InvalidPreference {
        /// As they are written.
        texts: Few,
    },
    /// More preferred nodes than are looked at.
    TooManyPreferences {
        /// How many it names.
        count: usize,
    },
    /// More ports than are looked at.
    TooManyPorts {
        /// How many it has.
        count: usize,
    },
    /// With it the Services of its namespace would have more ports than are guarded. How many the others have is not said: an edit
    /// of one of them would change what all that wait say, by the thousand.
    TooManyGuarded {
        /// How many it has.
        count: usize,
    },
    /// The Lease that a Service names can be none.
    InvalidLease {
        /// As it is written.
        text: Quoted,
    },
    /// Annotations that this version does not act on.
    NotSupported {
        /// Their names.
        annotations: Few,
    },
    /// Another announcer, or another node, decides on it by a Lease.
    LeftToLease {
        /// The namespace and the name of the Lease.
        lease: String,
        /// Who holds it.
        holder: Quoted,
    },
    /// Routers are to lead it here, and none is told so: no session is up.
    NoSession {
        /// The node.
        node: String,
        /// What is in the way, by router.
        why: String,
    },
    /// Rules, or what it asks for, keep it from each router that this node has a session with.
    KeptFromRouters {
        /// The node.
        node: String,
        /// Whose annotations count at the address, where it is another one's.
        by: Option<Claimant>,
        /// The annotations about BGP that cannot be read, by which it may not have been meant.
        unread: Few,
    },
    /// What an annotation about BGP says cannot be read.
    InvalidBgp {
        /// The annotation.
        annotation: String,
        /// As it is written.
        text: Quoted,
        /// What is accepted.
        accepted: String,
    },
    /// What rules say of it leaves no room for all that it asks for.
    BgpLeftOut {
        /// What routers are not told.
        texts: Few,
    },
    /// What an annotation about BGP asks for is not its namespace's to ask for.
    BgpNotPermitted {
        /// The annotation.
        annotation: &'static str,
        /// What it asks for and does not get.
        texts: Few,
        /// What its namespace may ask for.
        accepted: String,
    },
    /// What it asks to be told to routers does not count at an address that it shares.
    BgpOfAnother {
        /// The address.
        address: IpAddr,
        /// Whose word counts.
        by: Claimant,
    },
    /// Neighbours on the LAN are told of it and no router, so what it asks to be told to routers does not count.
    BgpOnLan,
    /// More labels than rules of BGP go by.
    TooManyLabels {
        /// How many it has.
        count: usize,
    },
    /// The kernel does not take the address.
    NotBound {
        /// The node.
        node: String,
        /// The address.
        address: IpAddr,
        /// What the kernel said.
        error: String,
    },
}

impl Refusal {
    /// The reason of [`Refusal::LeftToLease`].
    pub const LEFT_TO_LEASE: &str = "LeftToLease";

    /// The stable reason, for Events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoEndpoint => "NoEndpoint",
            Self::NoLocalEndpoint { .. } => "NoLocalEndpoint",
            Self::EndpointWithoutNode => "EndpointWithoutNode",
            Self::NotServedTogether { .. } => "NotServedTogether",
            Self::AnnouncedOtherwise { .. } => "AnnouncedOtherwise",
            Self::NotGranted { .. } => "NotGranted",
            Self::NoLiveNode { .. } => "NoLiveNode",
            Self::MembersWait { .. } => "MembersWait",
            Self::LeaseWithheld { .. } => "LeaseWithheld",
            Self::DhcpNotServed { .. } => "DhcpNotServed",
            Self::InterfaceMissing { .. } => "InterfaceMissing",
            Self::InterfaceUnfit { .. } => "InterfaceUnfit",
            Self::InvalidInterface { .. } => "InvalidInterface",
            Self::InvalidVlan { .. } => "InvalidVlan",
            Self::VlanNotMade { .. } => "VlanNotMade",
            Self::InterfaceNotPermitted { .. } => "InterfaceNotPermitted",
            Self::VlanNotPermitted { .. } => "VlanNotPermitted",
            Self::AddressOnHost { .. } => "AddressOnHost",
            Self::AddressOfRouter { .. } => "AddressOfRouter",
            Self::ReversePathFiltered { .. } => "ReversePathFiltered",
            Self::NoWayBack { .. } => "NoWayBack",
            Self::AddressConflict { .. } => reason::ADDRESS_CONFLICT,
            Self::AddressInUse { .. }
            | Self::PortInUse { .. }
            | Self::Paused { .. }
            | Self::PortsUnknown { .. } => "AddressInUse",
            Self::AddressReserved { .. } => "AddressReserved",
            Self::NotClaimed { .. } => "AddressNotClaimed",
            Self::VmiAddressReserved { .. } => reason::VMI_ADDRESS_RESERVED,
            Self::VmiAddressInUse { .. } => reason::VMI_ADDRESS_IN_USE,
            Self::InvalidAddress { .. } => reason::INVALID_ADDRESS,
            Self::TooManyAddresses { .. } => "TooManyAddresses",
            Self::InvalidPreference { .. } => "InvalidPreference",
            Self::TooManyPreferences { .. } => "TooManyPreferences",
            Self::TooManyPorts { .. } => "TooManyPorts",
            Self::TooManyGuarded { .. } => "TooManyGuarded",
            Self::InvalidLease { .. } => "InvalidLease",
            Self::NotSupported { .. } => "NotSupported",
            Self::LeftToLease { .. } => Self::LEFT_TO_LEASE,
            Self::NoSession { .. } => "NoBgpSession",
            Self::KeptFromRouters { .. } => "KeptFromRouters",
            Self::InvalidBgp { .. } => "InvalidBgpAnnotation",
            Self::BgpLeftOut { .. } => "BgpLeftOut",
            Self::BgpNotPermitted { .. } => "BgpNotPermitted",
            Self::BgpOfAnother { .. } => "BgpOfAnother",
            Self::BgpOnLan => "BgpOnLan",
            Self::TooManyLabels { .. } => "TooManyLabels",
            Self::NotBound { .. } => "NotBound",
        }
    }

    /// Whether the address is not the claimant's to have.
    pub fn is_of_another(&self) -> bool {
        matches!(
            self,
            Self::AddressInUse { .. }
                | Self::AddressReserved { .. }
                | Self::PortInUse { .. }
                | Self::Paused { .. }
                | Self::PortsUnknown { .. }
                | Self::NotClaimed { .. }
                | Self::AnnouncedOtherwise { .. }
        )
    }

    /// An address that another host has, and that host.
    pub fn conflict(&self) -> Option<(IpAddr, Mac)> {
        match self {
            Self::AddressConflict { address, mac, .. } => Some((*address, *mac)),
            _ => None,
        }
    }
}
