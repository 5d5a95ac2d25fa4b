//! Owns which address has which slot. Decides only: what it returns is to be performed in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// A change to the kernel's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Mute the slot, then stop looking at the address.
    Forget(IpAddr, u32),
    /// Mute the slot, then look at the address.
    Cover(IpAddr, u32),
}

/// The slots of the covered addresses.
#[derive(Debug)]
pub(crate) struct Table {
    slots: BTreeMap<IpAddr, u32>,
    /// Oldest first: a slot rests as long as possible before another address gets it.
    free: VecDeque<u32>,
    capacity: u32,
}

impl Table {
    /// A table of `capacity` slots, all free.
    pub(crate) fn new(capacity: u32) -> Table {
        Table { slots: BTreeMap::new(), free: (0..capacity).collect(), capacity }
    }

    /// Lists the steps that turn what is covered into `wanted`, removals first, and how many of it do not fit. What is
    /// covered stays so: the newest do not.
    pub(crate) fn plan(&self, wanted: &BTreeSet<IpAddr>) -> (Vec<Step>, usize) {
        let gone: Vec<_> =
            self.slots.iter().filter(|(address, _)| !wanted.contains(*address)).collect();
        let freed = gone.iter().map(|&(_, &slot)| slot);
        let new = wanted.iter().filter(|address| !self.slots.contains_key(*address));
        let cover = new.zip(self.free.iter().copied().chain(freed));
        let forget = gone.iter().map(|&(&address, &slot)| Step::Forget(address, slot));
        let steps = forget.chain(cover.map(|(&address, slot)| Step::Cover(address, slot)));
        (steps.collect(), wanted.len().saturating_sub(self.capacity as usize))
    }

    /// Notes that `step` was performed.
    pub(crate) fn apply(&mut self, step: Step) {
        match step {
            Step::Forget(address, slot) => {
                self.slots.remove(&address);
                self.free.push_back(slot);
            }
            Step::Cover(address, slot) => {
                // `plan` takes from the front, so this finds it there.
                if let Some(at) = self.free.iter().position(|&free| free == slot) {
                    self.free.remove(at);
                }
                self.slots.insert(address, slot);
            }
        }
    }

    /// The slot of `address`, if it is covered.
    pub(crate) fn slot(&self, address: &IpAddr) -> Option<u32> {
        self.slots.get(address).copied()
    }

    /// How many addresses fit.
    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The covered addresses and their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, u32)> + '_ {
        self.slots.iter().map(|(&address, &slot)| (address, slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(numbers: &BTreeSet<u8>) -> BTreeSet<IpAddr> {
        numbers.iter().map(|&number| IpAddr::from([192, 0, 2, number])).collect()
    }

    fn change(table: &mut Table, wanted: &BTreeSet<IpAddr>) -> Vec<Step> {
        let (steps, _) = table.plan(wanted);
        steps.iter().for_each(|&step| table.apply(step));
        steps
    }

    #[test]
    fn nothing_is_done_twice() {
        let mut table = Table::new(4);
        let wanted = set(&BTreeSet::from([1, 2]));
        assert_eq!(change(&mut table, &wanted).len(), 2);
        assert_eq!(change(&mut table, &wanted), []);
    }

    #[test]
    fn of_more_addresses_than_slots_those_that_are_covered_stay() {
        let mut table = Table::new(2);
        change(&mut table, &set(&BTreeSet::from([2, 3])));
        let wanted = set(&BTreeSet::from([1, 2, 3]));
        assert_eq!(table.plan(&wanted), (Vec::new(), 1));
        change(&mut table, &set(&BTreeSet::from([1, 3])));
        assert_eq!(table.plan(&wanted), (Vec::new(), 1));
        assert!(table.slot(&[192, 0, 2, 1].into()).is_some(), "there was room again");
    }

    #[test]
    fn a_slot_that_was_given_up_rests_longest() {
        let mut table = Table::new(3);
        change(&mut table, &set(&BTreeSet::from([1])));
        change(&mut table, &set(&BTreeSet::new()));
        assert_eq!(
            change(&mut table, &set(&BTreeSet::from([2]))),
            [Step::Cover([192, 0, 2, 2].into(), 1)]
        );
    }

    fn any_wish() -> impl Strategy<Value = BTreeSet<u8>> {
        prop::collection::btree_set(0u8..12, 0..8)
    }

    proptest! {
        #[test]
        fn no_two_addresses_share_a_slot(wishes in prop::collection::vec(any_wish(), 1..20)) {
            let mut table = Table::new(8);
            for wish in wishes {
                let wanted = set(&wish);
                change(&mut table, &wanted);
                prop_assert_eq!(table.iter().map(|(address, _)| address).collect::<BTreeSet<_>>(), wanted.clone());
                prop_assert_eq!(table.iter().map(|(_, slot)| slot).collect::<BTreeSet<_>>().len(), wanted.len());
                prop_assert!(table.iter().all(|(_, slot)| slot < 8));
            }
        }
    }
}
