//! Owns the judgement from outside: which kernels answer for an address, at true time. It looks at machines only,
//! never at what a process believes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::machine::{Clock, Kernel, Time};

/// Two kernels that answered for one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overlap {
    pub(crate) at: Time,
    pub(crate) address: IpAddr,
    pub(crate) hosts: (usize, usize),
    /// For how long at least, had nothing else happened.
    pub(crate) span: Time,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) overlaps: Vec<Overlap>,
    /// Who was armed last for an address, and when it first was.
    pub(crate) arrivals: BTreeMap<IpAddr, (usize, Time)>,
    /// How often an address went from one machine to another.
    pub(crate) moves: u64,
}

impl Oracle {
    /// A kernel was armed: only then can two begin to answer.
    pub(crate) fn armed(
        &mut self,
        now: Time,
        host: usize,
        address: IpAddr,
        machines: &[(&Kernel, &Clock)],
    ) {
        let until = |(kernel, clock): &(&Kernel, &Clock)| kernel.answers_until(address, clock);
        let mine = until(&machines[host]);
        if mine <= now {
            return;
        }
        for (other, machine) in machines.iter().enumerate() {
            let theirs = until(machine);
            if other != host && theirs > now {
                let span = mine.min(theirs) - now;
                self.overlaps.push(Overlap { at: now, address, hosts: (host, other), span });
            }
        }
        match self.arrivals.get(&address) {
            Some((last, _)) if *last == host => {}
            last => {
                self.moves += u64::from(last.is_some());
                self.arrivals.insert(address, (host, now));
            }
        }
    }
}
