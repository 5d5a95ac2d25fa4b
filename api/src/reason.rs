//! Reasons of Events and conditions. Users alert on them: none ever changes its spelling.
//!
//! | reason | on | means |
//! |---|---|---|
//! | `AddressAllocated` | Service, EipBinding | it has the addresses it asks for |
//! | `AddressReleased` | Service, EipBinding | its addresses were given back |
//! | `AddressConflict` | Service, EipBinding | another object had its address already when Berth first saw both; nothing is moved. Or another host on the LAN answers for its address |
//! | `AddressSetAside` | Service, EipBinding | another host answers for the address that it was given: it gets another |
//! | `InvalidAddress` | Service | its annotation or `spec.loadBalancerIP` has an entry that is no address |
//! | `PoolExhausted`, `PoolDraining`, `NoPool`, `InvalidPool` | Service, EipBinding | the pool has nothing to give |
//! | `FamilyUnavailable` | Service, EipBinding | the pool, the Service or the machine has no such family |
//! | `AddressInUse`, `AddressReserved`, `AddressResting`, `AddressNotAllowed` | Service, EipBinding | the address it asks for is not to be had |
//! | `QuotaExceeded` | Service, EipBinding | its namespace holds all it may, with what rests or is set aside because of it |
//! | `OutsidePool` | Service, EipBinding | its address has left the pool; it keeps it (the condition is `True`) |
//! | `StatusContested` | Service | another program undoes what the announcer writes into its status |
//! | `StatusSettled` | Service | that is over |
//! | `HostPortsClosed` | Service | ports of the node that listen are closed behind its addresses (`enable_service_security`) |
//! | `HostPortsOpen` | Service | they are to be closed and are not |
//! | `HostPortsClosedAgain` | Service | that is over |
//! | `WriteRefused` | Service, EipBinding | the API server refuses what Berth writes into it |
//! | `WriteAccepted` | Service, EipBinding | that is over, where it was the announcer's |
//! | `NoAnnouncer` | Service, EipBinding | the announcer that is to answer for it does not live, or none does |
//! | `Unannounced` | Service | it has had its addresses for a minute, and no announcer has said anything of it |
//! | `Announced` | Service | its addresses are answered for again (the condition is `True`, and there is an Event) |
//! | `VmiTaken` | EipBinding | another one that comes first serves the machine |
//! | `KubeVirtMissing`, `VmiNotFound`, `VmiNotRunning` | EipBinding | there is no machine at work |
//! | `InterfaceNotFound`, `NoVmiAddress` | EipBinding | the machine has no such interface, or shows no address yet |
//! | `VmiAddressReserved`, `VmiAddressInUse` | EipBinding | the machine shows an address that the cluster uses itself, or that another machine, a Service or an EipBinding has |
//! | `VmiIsNeighbour` | EipBinding | the machine is a neighbour where its elastic IP is announced: what it answers may pass its node by |
//! | `NotAllocated`, `AwaitingNode`, `Held`, `Releasing` | EipBinding | how its condition `Ready` stands |
//! | `Moved` | EipBinding | its addresses belong to another node now |
//! | `InvalidKey` | ConfigMap | a key is not readable; its last good value stays |
//! | `UnknownKey` | ConfigMap | a key means nothing here |
//! | `EmptyKey` | ConfigMap | a list has nothing in it |
//! | `HostBits` | ConfigMap | a network is named by an address inside it, and is meant as a whole |
//! | `ReservedOverlap` | ConfigMap | a pool has addresses that are never given out, such as those of nodes |
//! | `SharedAcross` | ConfigMap | namespaces share an address that do not name each other; they keep it |

/// The Service has the addresses it asks for.
pub const ADDRESS_ALLOCATED: &str = "AddressAllocated";
/// The addresses of the Service were given back.
pub const ADDRESS_RELEASED: &str = "AddressReleased";
/// Another object had the address already when both were first seen; or another host answers for it on the LAN.
pub const ADDRESS_CONFLICT: &str = "AddressConflict";
/// Another host answers for the address, so nobody is given it for a while.
pub const ADDRESS_SET_ASIDE: &str = "AddressSetAside";
/// An entry of the annotation or of `spec.loadBalancerIP` is no address.
pub const INVALID_ADDRESS: &str = "InvalidAddress";
/// The address has left its pool; the Service keeps it.
pub const OUTSIDE_POOL: &str = "OutsidePool";
/// Another program undoes what the announcer writes into the status.
pub const STATUS_CONTESTED: &str = "StatusContested";
/// What another program undid again and again has stood since.
pub const STATUS_SETTLED: &str = "StatusSettled";
/// Ports of the node that listen are closed behind the addresses of the Service.
pub const HOST_PORTS_CLOSED: &str = "HostPortsClosed";
/// Ports of the node are to be closed behind the addresses of the Service and are not.
pub const HOST_PORTS_OPEN: &str = "HostPortsOpen";
/// Ports of the node that were told to be open are closed.
pub const HOST_PORTS_CLOSED_AGAIN: &str = "HostPortsClosedAgain";
/// The API server takes what it refused before.
pub const WRITE_ACCEPTED: &str = "WriteAccepted";
/// The API server refuses what is written into the object.
pub const WRITE_REFUSED: &str = "WriteRefused";
/// The announcer that is to answer for the addresses does not live, or none does.
pub const NO_ANNOUNCER: &str = "NoAnnouncer";
/// No announcer has said anything of a Service that has had its addresses for a while.
pub const UNANNOUNCED: &str = "Unannounced";
/// All addresses of a Service are answered for again.
pub const ANNOUNCED: &str = "Announced";
/// The reasons of the condition `berth.dev/Announced` that are berth-ccm's to say; all others are the announcers'.
pub const OF_SILENCE: [&str; 2] = [NO_ANNOUNCER, UNANNOUNCED];
/// A key of the ConfigMap is not readable.
pub const INVALID_KEY: &str = "InvalidKey";
/// A key of the ConfigMap means nothing here.
pub const UNKNOWN_KEY: &str = "UnknownKey";
/// A list has nothing in it.
pub const EMPTY_KEY: &str = "EmptyKey";
/// A network is named by an address inside it.
pub const HOST_BITS: &str = "HostBits";
/// A pool has addresses that are never given out.
pub const RESERVED_OVERLAP: &str = "ReservedOverlap";
/// Namespaces share an address that do not name each other.
pub const SHARED_ACROSS: &str = "SharedAcross";
/// The node answers for the addresses of the EipBinding, as of its newest epoch.
pub const HELD: &str = "Held";
/// The node does not answer for the addresses of the EipBinding yet.
pub const AWAITING_NODE: &str = "AwaitingNode";
/// The EipBinding has no address.
pub const NOT_ALLOCATED: &str = "NotAllocated";
/// The EipBinding is being deleted.
pub const RELEASING: &str = "Releasing";
/// The addresses of the EipBinding belong to another node than before.
pub const MOVED: &str = "Moved";
/// There is no `virtualmachineinstances.kubevirt.io`.
pub const NO_KUBE_VIRT: &str = "KubeVirtMissing";
/// There is no machine of the name.
pub const VMI_NOT_FOUND: &str = "VmiNotFound";
/// The machine does not run.
pub const VMI_NOT_RUNNING: &str = "VmiNotRunning";
/// Another EipBinding that comes first serves the machine.
pub const VMI_TAKEN: &str = "VmiTaken";
/// The machine has no interface of the name.
pub const INTERFACE_NOT_FOUND: &str = "InterfaceNotFound";
/// The machine shows no address yet.
pub const NO_VMI_ADDRESS: &str = "NoVmiAddress";
/// The machine shows an address that belongs to the cluster, or that no host can have.
pub const VMI_ADDRESS_RESERVED: &str = "VmiAddressReserved";
/// The machine shows an address that another machine shows, or that a Service or EipBinding was given.
pub const VMI_ADDRESS_IN_USE: &str = "VmiAddressInUse";
/// What the machine answers may pass its node by: it is a neighbour there.
pub const VMI_IS_NEIGHBOUR: &str = "VmiIsNeighbour";
/// There is no address of the family.
pub const FAMILY_UNAVAILABLE: &str = "FamilyUnavailable";
