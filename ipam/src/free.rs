//! Owns which addresses are free. Taking, returning and finding one is logarithmic in the number of ranges: it depends
//! neither on the size of a pool, nor on how full or fragmented it is, nor on how many namespaces share it.
//!
//! Pools may overlap in any way. The addresses are cut into regions, each the addresses that belong to the very same
//! pools, so that every address is in one region and a change touches one free set. A pool is a few regions; without
//! overlaps it is one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rangemap::RangeInclusiveSet;

use crate::keys::Scope;
use crate::pools::{Order, Pool, Pools};
use crate::range::{Family, Range, number};
use crate::set::AddressSet;

/// The addresses of one family that belong to the same pools.
#[derive(Clone, Debug, Default)]
pub(crate) struct Region {
    /// The pools that name these addresses.
    pub(crate) members: Vec<Scope>,
    /// How many addresses it has.
    pub(crate) size: u128,
    /// How many of them could be handed out now.
    pub(crate) free_count: u128,
    /// How many are held.
    pub(crate) used: u64,
    /// How many rest.
    pub(crate) resting: u64,
    /// Whether any pool hands these addresses out.
    offered: bool,
    /// No range in it starts or ends with a buggy address, so that its ends are what comes next.
    free: RangeInclusiveSet<u128>,
}

/// Where a region is: family and position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RegionId(pub(crate) Family, u32);

/// The free addresses of all pools of both families.
#[derive(Clone, Debug, Default)]
pub(crate) struct Free {
    v4: FamilyFree,
    v6: FamilyFree,
}

#[derive(Clone, Debug, Default)]
struct FamilyFree {
    avoid_buggy: bool,
    segments: Vec<Segment>,
    regions: Vec<Region>,
    members: BTreeMap<Scope, Vec<u32>>,
    offers: BTreeMap<Scope, Vec<u32>>,
}

/// Consecutive addresses of one region.
#[derive(Clone, Copy, Debug)]
struct Segment {
    first: u128,
    last: u128,
    region: u32,
}

impl Free {
    /// Every address that the pools offer is free.
    pub(crate) fn new(pools: &Pools) -> Self {
        Self { v4: FamilyFree::new(pools, Family::V4), v6: FamilyFree::new(pools, Family::V6) }
    }

    /// The region that has the address.
    pub(crate) fn locate(&self, address: IpAddr) -> Option<RegionId> {
        let family = Family::of(address);
        let segment = self.of(family).segment(number(address))?;
        Some(RegionId(family, segment.region))
    }

    pub(crate) fn region(&self, id: RegionId) -> &Region {
        &self.of(id.0).regions[id.1 as usize]
    }

    pub(crate) fn region_mut(&mut self, id: RegionId) -> &mut Region {
        &mut self.of_mut(id.0).regions[id.1 as usize]
    }

    /// The regions that a pool names.
    pub(crate) fn members(
        &self,
        scope: &Scope,
        family: Family,
    ) -> impl Iterator<Item = RegionId> + '_ {
        self.of(family)
            .members
            .get(scope)
            .into_iter()
            .flatten()
            .map(move |at| RegionId(family, *at))
    }

    /// The regions from which a pool hands out.
    pub(crate) fn offers(
        &self,
        scope: &Scope,
        family: Family,
    ) -> impl Iterator<Item = RegionId> + '_ {
        self.of(family).offers.get(scope).into_iter().flatten().map(move |at| RegionId(family, *at))
    }

    /// The parts of a range that belong to pools, with their regions.
    pub(crate) fn parts(&self, range: Range) -> impl Iterator<Item = (Range, RegionId)> + '_ {
        let family = range.family();
        self.of(family).parts(range).map(move |part| {
            (Range::from_numbers(family, part.first, part.last), RegionId(family, part.region))
        })
    }

    /// The address that the pool hands out next.
    pub(crate) fn next(&self, scope: &Scope, family: Family, order: Order) -> Option<IpAddr> {
        let regions = self.offers(scope, family).map(|id| &self.region(id).free);
        let next = match order {
            Order::Ascending => {
                regions.filter_map(|free| free.first().map(|range| *range.start())).min()
            }
            Order::Descending => {
                regions.filter_map(|free| free.last().map(|range| *range.end())).max()
            }
        };
        next.map(|number| family.address(number))
    }

    /// Whether the address is never handed out by itself because it ends in .0 or .255.
    pub(crate) fn is_buggy(&self, address: IpAddr) -> bool {
        self.of(Family::of(address)).is_buggy(number(address))
    }

    /// Nothing in the range is free any more.
    pub(crate) fn take(&mut self, range: Range) {
        self.of_mut(range.family()).take(range);
    }

    /// Everything in the range that a pool offers is free.
    pub(crate) fn give(&mut self, range: Range) {
        self.of_mut(range.family()).give(range);
    }

    fn of(&self, family: Family) -> &FamilyFree {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn of_mut(&mut self, family: Family) -> &mut FamilyFree {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

impl FamilyFree {
    fn new(pools: &Pools, family: Family) -> Self {
        let mut this =
            Self { avoid_buggy: family == Family::V4 && pools.avoids_buggy(), ..Self::default() };
        let scopes: Vec<(&Scope, &Pool)> = pools.iter().collect();
        // Two layers per pool: the addresses it names, and those it offers.
        let layers: Vec<&AddressSet> =
            scopes.iter().flat_map(|(_, pool)| [pool.addresses(), pool.offered()]).collect();
        let mut known: BTreeMap<Vec<usize>, u32> = BTreeMap::new();
        cut(family, &layers, |first, last, active| {
            let region = match known.get(active) {
                Some(region) => *region,
                None => {
                    let region = this.add_region(active, &scopes);
                    known.insert(active.to_vec(), region);
                    region
                }
            };
            this.segments.push(Segment { first, last, region });
            let size = Range::from_numbers(family, first, last).size();
            let region = &mut this.regions[region as usize];
            region.size = region.size.saturating_add(size);
        });
        for at in 0..this.segments.len() {
            this.give_segment(this.segments[at]);
        }
        this
    }

    fn add_region(&mut self, layers: &[usize], scopes: &[(&Scope, &Pool)]) -> u32 {
        let at = self.regions.len() as u32;
        let mut region = Region::default();
        for layer in layers {
            let scope = scopes[layer / 2].0;
            let index = if layer % 2 == 0 {
                region.members.push(scope.clone());
                &mut self.members
            } else {
                region.offered = true;
                &mut self.offers
            };
            index.entry(scope.clone()).or_default().push(at);
        }
        self.regions.push(region);
        at
    }

    fn segment(&self, number: u128) -> Option<&Segment> {
        let at = self.segments.partition_point(|segment| segment.last < number);
        self.segments.get(at).filter(|segment| segment.first <= number)
    }

    /// The parts of the range that are in segments.
    fn parts(&self, range: Range) -> impl Iterator<Item = Segment> + '_ {
        let (first, last) = range.numbers();
        let from = self.segments.partition_point(|segment| segment.last < first);
        self.segments[from..].iter().take_while(move |segment| segment.first <= last).map(
            move |segment| Segment {
                first: segment.first.max(first),
                last: segment.last.min(last),
                ..*segment
            },
        )
    }

    fn take(&mut self, range: Range) {
        let (first, last) = range.numbers();
        if first == last {
            if let Some(region) = self.segment(first).map(|segment| segment.region) {
                self.take_segment(Segment { first, last, region });
            }
            return;
        }
        let parts: Vec<Segment> = self.parts(range).collect();
        parts.into_iter().for_each(|part| self.take_segment(part));
    }

    fn take_segment(&mut self, part: Segment) {
        let covered = part.first..=part.last;
        let pieces = self.regions[part.region as usize].free.overlapping(&covered);
        let sizes = pieces
            .map(|piece| (*piece.start().max(&part.first), *piece.end().min(&part.last)))
            .map(|(first, last)| self.handable(first, last));
        // `None` where nothing is free, not even an address to avoid.
        let Some(gone) = sizes.reduce(|sum, size| sum + size) else { return };
        let taken = self.widen_down(part.first)..=self.widen_up(part.last);
        let region = &mut self.regions[part.region as usize];
        region.free_count -= gone;
        region.free.remove(taken);
    }

    fn give(&mut self, range: Range) {
        let parts: Vec<Segment> = self.parts(range).collect();
        for part in parts {
            self.take_segment(part);
            self.give_segment(part);
        }
    }

    /// Adds a part of which nothing is free yet.
    fn give_segment(&mut self, part: Segment) {
        if !self.regions[part.region as usize].offered {
            return;
        }
        let (mut first, mut last) = (part.first, part.last);
        while first < last && self.is_buggy(first) {
            first += 1;
        }
        while first < last && self.is_buggy(last) {
            last -= 1;
        }
        if self.is_buggy(first) {
            return;
        }
        let more = self.handable(first, last);
        let region = &mut self.regions[part.region as usize];
        region.free.insert(first..=last);
        region.free_count = region.free_count.saturating_add(more);
    }

    fn is_buggy(&self, number: u128) -> bool {
        self.avoid_buggy && matches!(number & 0xff, 0 | 0xff)
    }

    /// The lowest address from which on everything up to `number` is buggy, `number` aside.
    fn widen_down(&self, mut number: u128) -> u128 {
        while number > 0 && self.is_buggy(number - 1) {
            number -= 1;
        }
        number
    }

    /// The highest address up to which everything after `number` is buggy.
    fn widen_up(&self, mut number: u128) -> u128 {
        while number < u128::MAX && self.is_buggy(number + 1) {
            number += 1;
        }
        number
    }

    /// How many addresses from `first` to `last` are not buggy.
    fn handable(&self, first: u128, last: u128) -> u128 {
        let size = (last - first).saturating_add(1);
        if !self.avoid_buggy {
            return size;
        }
        // Addresses below `n` that end in .0, and in .255.
        let zeros = |n: u128| n.div_ceil(256);
        let ones = |n: u128| n / 256;
        size - (zeros(last + 1) - zeros(first)) - (ones(last + 1) - ones(first))
    }
}

/// Cuts the addresses of a family wherever a layer starts or ends, and reports each piece in ascending order with the
/// layers that have it.
fn cut(family: Family, layers: &[&AddressSet], mut piece: impl FnMut(u128, u128, &[usize])) {
    let mut starts = Vec::new();
    let mut ends = Vec::new();
    for (layer, set) in layers.iter().enumerate() {
        for range in set.iter_of(family) {
            let (first, last) = range.numbers();
            starts.push((first, layer));
            ends.push((last, layer));
        }
    }
    starts.sort_unstable();
    ends.sort_unstable();
    let mut starts = starts.into_iter().peekable();
    let mut active: BTreeSet<usize> = BTreeSet::new();
    let mut names: Vec<usize> = Vec::new();
    // Where the next piece starts; `None` once the last address of IPv6 is behind.
    let mut from = Some(0);
    for (end, layer) in ends {
        while let Some((start, other)) = starts.next_if(|(start, _)| *start <= end) {
            if let Some(from) = from.filter(|from| *from < start && !active.is_empty()) {
                piece(from, start - 1, &names);
            }
            from = Some(start);
            active.insert(other);
            names = active.iter().copied().collect();
        }
        if let Some(first) = from.filter(|from| *from <= end) {
            piece(first, end, &names);
            from = end.checked_add(1);
        }
        active.remove(&layer);
        names = active.iter().copied().collect();
    }
}
