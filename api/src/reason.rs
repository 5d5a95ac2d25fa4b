//! Reasons of Events and conditions. Users alert on them: none ever changes its spelling.
//!
//! | reason | on | means |
//! |---|---|---|
//! | `AddressAllocated` | Service | it has the addresses it asks for |
//! | `AddressReleased` | Service | its addresses were given back |
//! | `AddressConflict` | Service | another object had its address already when Berth first saw both; nothing is moved. Or another host answers for it on the LAN |
//! | `AddressSetAside` | Service | another host answers for the address that it was given: it gets another |
//! | `InvalidAddress` | Service | its annotation or `spec.loadBalancerIP` has an entry that is no address |
//! | `PoolExhausted`, `PoolDraining`, `NoPool`, `InvalidPool` | Service | the pool has nothing to give |
//! | `FamilyUnavailable` | Service | the pool, or the Service, has no such family |
//! | `AddressInUse`, `AddressReserved`, `AddressResting` | Service | the address it asks for is not to be had |
//! | `QuotaExceeded` | Service | its namespace holds all it may |
//! | `OutsidePool` | Service | its address has left the pool; it keeps it (the condition is `True`) |
//! | `StatusContested` | Service | another program undoes what the announcer writes into its status |
//! | `InvalidKey` | ConfigMap | a key is not readable; its last good value stays |
//! | `UnknownKey` | ConfigMap | a key means nothing here |
//! | `ReservedOverlap` | ConfigMap | a pool has addresses that are never given out, such as those of nodes |

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
/// Somebody else holds the address that the Service asks for.
pub const ADDRESS_IN_USE: &str = "AddressInUse";
/// Neither the namespace nor everybody has a pool.
pub const NO_POOL: &str = "NoPool";
/// The address has left its pool; the Service keeps it.
pub const OUTSIDE_POOL: &str = "OutsidePool";
/// Another program undoes what the announcer writes into the status.
pub const STATUS_CONTESTED: &str = "StatusContested";
/// A key of the ConfigMap is not readable.
pub const INVALID_KEY: &str = "InvalidKey";
/// A key of the ConfigMap means nothing here.
pub const UNKNOWN_KEY: &str = "UnknownKey";
/// A pool has addresses that are never given out.
pub const RESERVED_OVERLAP: &str = "ReservedOverlap";
