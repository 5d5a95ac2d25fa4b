//! Owns what this node did towards answering: which addresses are ready, which are armed and until when, and why they were
//! asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::event::{Cause, Output};
use crate::message::Stage;
use crate::moment::Moment;
use crate::owner::Hold;

#[derive(Debug, Default)]
pub(crate) struct Serving {
    causes: BTreeMap<IpAddr, Cause>,
    prepared: BTreeSet<IpAddr>,
    armed: BTreeMap<IpAddr, Moment>,
}

impl Serving {
    /// It is asked for.
    pub(crate) fn claim(&mut self, address: IpAddr, cause: Cause) {
        self.causes.insert(address, cause);
    }

    /// It is ready.
    pub(crate) fn prepared(&mut self, address: IpAddr) {
        self.prepared.insert(address);
    }

    pub(crate) fn is_prepared(&self, address: &IpAddr) -> bool {
        self.prepared.contains(address)
    }

    /// What to do about an address that is not asked for any more.
    pub(crate) fn discard(&mut self, address: IpAddr) -> Option<Output> {
        self.prepared.remove(&address).then_some(Output::Discard { address })
    }

    /// Hands the kernel what the lease of an address allows; the first time, the LAN is told.
    pub(crate) fn arm(&mut self, address: IpAddr, hold: &Hold) -> Vec<Output> {
        let mut out = Vec::new();
        if hold.stage != Stage::Held || !self.prepared.contains(&address) {
            return out;
        }
        let before = self.armed.insert(address, hold.lease);
        if before != Some(hold.lease) {
            out.push(Output::Arm { address, deadline: hold.lease });
        }
        if before.is_none() {
            let cause = self.causes.get(&address).copied().unwrap_or(Cause::First);
            out.push(Output::Announce { address, cause });
        }
        out
    }

    /// Forgets an address, and says whether it was armed.
    pub(crate) fn forget(&mut self, address: &IpAddr) -> bool {
        self.causes.remove(address);
        self.prepared.remove(address);
        self.armed.remove(address).is_some()
    }
}
