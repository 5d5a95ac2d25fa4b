//! Owns sets of addresses. Cost follows the number of ranges, never the number of addresses.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use rangemap::RangeInclusiveSet;

use crate::range::{Family, Range, number};

/// A set of addresses of both families. Overlapping and adjacent ranges merge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet {
    v4: RangeInclusiveSet<u128>,
    v6: RangeInclusiveSet<u128>,
}

impl AddressSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds every address of the range.
    pub fn insert(&mut self, range: Range) {
        let (first, last) = range.numbers();
        self.ranges_mut(range.family()).insert(first..=last);
    }

    /// Removes every address of the range.
    pub fn remove(&mut self, range: Range) {
        let (first, last) = range.numbers();
        self.ranges_mut(range.family()).remove(first..=last);
    }

    /// Adds every address of the other set.
    pub fn extend_with(&mut self, other: &Self) {
        other.iter().for_each(|range| self.insert(range));
    }

    /// Removes every address of the other set.
    pub fn subtract(&mut self, other: &Self) {
        other.iter().for_each(|range| self.remove(range));
    }

    /// The addresses that are in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::new();
        for family in Family::ALL {
            for range in self.ranges(family).intersection(other.ranges(family)) {
                both.ranges_mut(family).insert(range);
            }
        }
        both
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.ranges(Family::of(address)).contains(&number(address))
    }

    /// Its parts that lie in the range, ascending.
    pub fn overlapping(&self, range: Range) -> impl Iterator<Item = Range> + '_ {
        let (first, last) = range.numbers();
        let family = range.family();
        self.ranges(family).overlapping(first..=last).map(move |part| {
            Range::from_numbers(family, first.max(*part.start()), last.min(*part.end()))
        })
    }

    /// Whether it has no address at all.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether it has an address of the family.
    pub fn has(&self, family: Family) -> bool {
        !self.ranges(family).is_empty()
    }

    /// The lowest address of the family.
    pub fn first(&self, family: Family) -> Option<IpAddr> {
        self.ranges(family).first().map(|range| family.address(*range.start()))
    }

    /// The highest address of the family.
    pub fn last(&self, family: Family) -> Option<IpAddr> {
        self.ranges(family).last().map(|range| family.address(*range.end()))
    }

    /// Its addresses, at most so many: of one that lists what hosts have, and no networks.
    pub fn addresses(&self, most: usize) -> impl Iterator<Item = IpAddr> + '_ {
        let all = self.iter().flat_map(|range| {
            let (first, last) = range.numbers();
            (first..=last).map(move |number| range.family().address(number))
        });
        all.take(most)
    }

    /// Its ranges, merged, IPv4 first, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        Family::ALL.into_iter().flat_map(|family| self.iter_of(family))
    }

    /// Its ranges of one family, merged, ascending.
    pub fn iter_of(&self, family: Family) -> impl Iterator<Item = Range> + '_ {
        self.ranges(family).iter().map(move |range| as_range(family, range))
    }

    fn ranges(&self, family: Family) -> &RangeInclusiveSet<u128> {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn ranges_mut(&mut self, family: Family) -> &mut RangeInclusiveSet<u128> {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

fn as_range(family: Family, range: &RangeInclusive<u128>) -> Range {
    Range::from_numbers(family, *range.start(), *range.end())
}

impl FromIterator<Range> for AddressSet {
    fn from_iter<I: IntoIterator<Item = Range>>(ranges: I) -> Self {
        let mut set = Self::new();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

impl FromIterator<IpAddr> for AddressSet {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        addresses.into_iter().map(Range::from).collect()
    }
}
