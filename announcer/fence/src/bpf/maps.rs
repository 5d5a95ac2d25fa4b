//! Owns the maps of one fence and the order in which they change.

use super::sys;
use super::table::Step;
use crate::address::key;
use crate::error::CoverError;
use crate::time::BootTime;

/// The kernel that has what the program asks for.
pub(super) const KERNEL: &str =
    "Linux 5.8 with CONFIG_BPF_SYSCALL, CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS";

/// What the program looks at.
#[derive(Debug)]
pub(crate) struct Maps {
    pub(super) slots: sys::Slots,
    pub(super) deadlines: sys::Deadlines,
}

impl Maps {
    pub(super) fn perform(&self, step: Step) -> Result<(), CoverError> {
        // Mute first in both directions: a slot never carries one address's deadline into another's life.
        let (address, result) = match step {
            Step::Forget(address, slot) => {
                self.deadlines.store(slot, BootTime::PAST.as_nanos());
                (address, self.slots.remove(&key(address)))
            }
            Step::Cover(address, slot) => {
                self.deadlines.store(slot, BootTime::PAST.as_nanos());
                (address, self.slots.insert(&key(address), slot))
            }
        };
        result.map_err(|source| CoverError::Kernel { address, source })
    }
}
