//! Owns nothing in the kernel. It keeps the rules of the other fences, so that who uses it sees no difference but one:
//! a stopped or killed process leaves its addresses answering.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::contract::{Fence, Inspection};
use crate::error::{ArmError, AttachCause, AttachError, CoverError, MuteError, PollError};
use crate::instance::Instance;
use crate::kind::Kind;
use crate::nft;
use crate::tc::{self, Rtnetlink};
use crate::time::BootTime;

/// The absence of a fence.
#[derive(Debug)]
pub(crate) struct Unfenced {
    instance: Instance,
    /// Whether nothing else was asked for.
    is_wanted: bool,
    covered: BTreeSet<IpAddr>,
    settled: bool,
}

impl Unfenced {
    pub(crate) fn new(instance: &Instance, is_wanted: bool) -> Unfenced {
        let (instance, covered) = (instance.clone(), BTreeSet::new());
        Unfenced { instance, is_wanted, covered, settled: false }
    }
}

impl Fence for Unfenced {
    fn kind(&self) -> Kind {
        Kind::Unfenced
    }

    fn attach(&mut self, interfaces: &BTreeSet<String>) -> Vec<AttachError> {
        let interfaces = interfaces.iter().filter(|_| !self.is_wanted).cloned();
        let bare = |interface| AttachError { interface, cause: AttachCause::NoFence };
        interfaces.map(bare).collect()
    }

    fn cover(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), CoverError> {
        self.covered.clone_from(addresses);
        Ok(())
    }

    fn covers(&self, address: &IpAddr) -> bool {
        self.covered.contains(address)
    }

    fn settle(&mut self) -> Vec<AttachError> {
        self.settled = true;
        // A fence that an earlier process left would go on dropping what nobody refreshes.
        self.remove()
    }

    fn arm(&mut self, address: IpAddr, _: BootTime) -> Result<(), ArmError> {
        if !self.settled {
            return Err(ArmError::Unsettled { address });
        }
        if !self.covered.contains(&address) {
            return Err(ArmError::NotCovered { address });
        }
        Ok(())
    }

    fn mute(&mut self, _: IpAddr) -> Result<(), MuteError> {
        Ok(())
    }

    fn mute_all(&mut self) -> Result<(), MuteError> {
        Ok(())
    }

    fn poll(&mut self, _: BootTime) -> Result<Option<BootTime>, PollError> {
        Ok(None)
    }

    fn inspection(&self) -> Inspection {
        Box::new(Vec::new)
    }

    fn remove(&mut self) -> Vec<AttachError> {
        let mut errors = match Rtnetlink::open() {
            Ok(mut rtnetlink) => tc::sweep(&mut rtnetlink, &self.instance, &BTreeSet::new()),
            Err(source) => vec![AttachError::everywhere("opening rtnetlink", source)],
        };
        errors.extend(
            nft::delete_table(&self.instance)
                .err()
                .map(|source| AttachError::everywhere("deleting the table", source)),
        );
        errors
    }
}
