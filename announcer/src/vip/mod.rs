//! The ground floor: values that every other room knows. Pure.

pub mod nodes;

use std::collections::BTreeMap;
use std::net::IpAddr;

/// By address, where its previous owner is: an address of that node on a network of this one, of the same family.
pub type Forwards = BTreeMap<IpAddr, IpAddr>;
