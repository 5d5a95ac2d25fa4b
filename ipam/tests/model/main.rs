//! The ledger and its decisions against a naive model that lists every address of small pools.
//!
//! Holds these invariants of `docs/invariants.md`: uniqueness, stickiness, no leak, no early reuse, determinism,
//! isolation of namespaces, dual stack all or nothing where required, and the edges.
#![allow(missing_docs, clippy::unwrap_used)]

mod naive;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::{
    Allocation, Families, Family, FamilyPolicy, Grant, Ledger, Origin, Refusal, Request, Scope,
    allocate,
};
use proptest::prelude::*;

use naive::Naive;
use world::{Event, NAMESPACES, Which, events, owner, sharing};

/// The program under test and the model, side by side.
struct Run {
    ledger: Ledger,
    naive: Naive,
    now: Duration,
}

impl Run {
    fn new() -> Self {
        Self { ledger: Ledger::new(), naive: Naive::default(), now: Duration::ZERO }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Configure(config) => {
                let held: BTreeMap<_, _> =
                    self.ledger.claims().map(|(address, claim)| (address, claim.clone())).collect();
                let errors = self.ledger.update_pools(&config.data());
                assert_eq!(errors, [], "{config:?}");
                self.naive.config = config.clone();
                // Invariant 3: no edit of the pools moves anybody.
                assert!(
                    self.ledger.claims().map(|(a, c)| (a, c.clone())).eq(held),
                    "an edit moved somebody"
                );
            }
            Event::Ask { owner: number, policy, first, pin, ports, exchange } => {
                let order = match policy {
                    FamilyPolicy::SingleStack => vec![*first],
                    _ => vec![*first, first.other()],
                };
                let owner = owner(*number);
                let pin = pin.and_then(|pin| self.find(pin));
                let useless = self
                    .ledger
                    .held(&owner)
                    .filter(|address| *exchange && self.naive.aside.contains_key(address));
                let shuns: Vec<IpAddr> = useless.collect();
                let request = Request {
                    pins: pin.filter(|pin| !shuns.contains(pin)).into_iter().collect(),
                    sharing: sharing(*ports),
                    shuns,
                    ..Request::new(owner, Families::new(*policy, order))
                };
                self.ask(&request);
            }
            Event::Release { owner: number } => {
                let owner = owner(*number);
                let held: Vec<IpAddr> = self.ledger.held(&owner).collect();
                for address in held {
                    assert!(self.ledger.release(&owner, address, self.now));
                    self.naive.release(&owner, address, self.now);
                }
            }
            Event::Reserve { name, addresses } => {
                self.ledger.reserve(*name, addresses.iter().copied().collect());
                self.naive.reserved.insert(name, addresses.clone());
            }
            Event::SetAside { which, namespace, seconds } => {
                let until = self.now + Duration::from_secs(*seconds);
                if let Some(address) = self.find(*which) {
                    self.ledger.set_aside(address, namespace, until);
                    self.naive.aside.insert(address, (until, namespace));
                }
            }
            Event::Wait(seconds) => {
                self.now += Duration::from_secs(*seconds);
            }
        }
        self.ledger.advance(self.now);
        self.naive.advance(self.now);
        self.agree();
    }

    fn find(&self, which: Which) -> Option<IpAddr> {
        match which {
            Which::At(address) => Some(address),
            Which::Of(number) => self.ledger.held(&owner(number)).next(),
        }
    }

    fn ask(&mut self, request: &Request) {
        let answer = allocate(&self.ledger, request);
        // Invariant 8: the same question has the same answer, also from a copy.
        assert_eq!(answer, allocate(&self.ledger.clone(), request));
        self.judge(request, &answer);
        let Ok(allocation) = answer else { return };
        for assigned in &allocation.addresses {
            let grant = Grant::new(request.owner.clone())
                .sharing(request.sharing.clone())
                .in_pool(assigned.pool.clone());
            // Ports that no longer fit among the sharers are refused; the old ones stay recorded.
            if allocation.refused.iter().any(|refusal| {
                matches!(refusal,
                Refusal::AddressInUse { address, .. } if *address == assigned.address)
            }) {
                continue;
            }
            self.ledger.insert(assigned.address, grant.clone()).unwrap();
            self.naive.insert(assigned.address, grant);
        }
        for address in &allocation.released {
            assert!(self.ledger.release(&request.owner, *address, self.now));
            self.naive.release(&request.owner, *address, self.now);
        }
    }

    fn judge(&self, request: &Request, answer: &Result<Allocation, Refusal>) {
        let held: BTreeSet<IpAddr> = self.ledger.held(&request.owner).collect();
        let namespace = request.owner.namespace.as_str();
        let wanted = request.families.wanted();
        let given = answer.as_ref().map(|a| a.addresses.as_slice()).unwrap_or_default();

        for assigned in given {
            let address = assigned.address;
            assert!(wanted.contains(&Family::of(address)));
            match assigned.origin {
                Origin::Kept => {
                    assert!(held.contains(&address) && !request.shuns.contains(&address));
                }
                Origin::Dhcp => panic!("no pool here is DHCP's"),
                Origin::Pinned => {
                    assert_eq!(request.pins, [address]);
                    assert_eq!(self.naive.pin_problem(request, address), None, "{request:?}");
                    assert_eq!(assigned.shared, self.naive.is_held(address));
                }
                Origin::Pool => {
                    let expected = self.naive.next(request, Family::of(address));
                    assert_eq!(Some((address, assigned.shared)), expected, "{request:?}");
                    // Invariant 9: nobody gets an address of a pool that does not serve its namespace.
                    let pool = assigned.pool.clone().unwrap();
                    assert!(self.naive.serving(namespace).contains(&pool));
                    assert!(self.naive.members(&pool).contains(&address));
                }
            }
        }
        for family in &wanted {
            let pinned = request.pins.iter().find(|pin| Family::of(**pin) == *family);
            let usable = |address: &&IpAddr| !request.shuns.contains(address);
            let mut usable = held.iter().filter(usable);
            let current = usable.find(|address| Family::of(**address) == *family);
            let now = given.iter().find(|a| Family::of(a.address) == *family);
            if let (Some(current), Some(now)) = (current, now)
                && now.address != *current
            {
                // Invariant 3: only the user moves an address.
                assert_eq!(pinned, Some(&now.address));
            }
            if now.is_none() && answer.is_ok() {
                // A lenient owner goes without only for a reason that the model knows too.
                assert!(current.is_none());
                assert!(self.may_be_refused(request, *family), "{request:?} {answer:?}");
            }
        }
        match answer {
            Ok(allocation) => {
                assert!(!given.is_empty());
                if request.families.policy != FamilyPolicy::PreferDualStack {
                    // Invariant 12: all or nothing.
                    assert_eq!(given.len(), wanted.len());
                }
                let kept: BTreeSet<IpAddr> = given.iter().map(|a| a.address).collect();
                let released: BTreeSet<IpAddr> = allocation.released.iter().copied().collect();
                assert_eq!(released, held.difference(&kept).copied().collect());
                if let Some(quota) = self.naive.quota(namespace) {
                    let before = self.naive.charged(&request.owner);
                    let mut after = self.naive.clone();
                    for address in kept.difference(&held) {
                        after.insert(*address, Grant::new(request.owner.clone()));
                    }
                    released
                        .iter()
                        .for_each(|address| after.release(&request.owner, *address, self.now));
                    let after = after.charged(&request.owner);
                    assert!(after <= quota.max(before), "{before} {after} {quota} {request:?}");
                }
            }
            Err(refusal) => {
                let any = wanted.iter().any(|family| self.may_be_refused(request, *family));
                let foreign_pin =
                    request.pins.iter().any(|pin| !wanted.contains(&Family::of(*pin)));
                assert!(any || foreign_pin, "{refusal} for {request:?}");
                if let Refusal::QuotaExceeded { counted, quota, .. } = refusal {
                    assert_eq!(*counted, self.naive.counted_in(namespace));
                    assert_eq!(Some(*quota), self.naive.quota(namespace));
                }
            }
        }
    }

    /// Whether the model sees a reason not to give an address of the family.
    fn may_be_refused(&self, request: &Request, family: Family) -> bool {
        let pinned = request.pins.iter().find(|pin| Family::of(**pin) == family);
        let usable =
            |address: &IpAddr| Family::of(*address) == family && !request.shuns.contains(address);
        let held = self.ledger.held(&request.owner).find(usable);
        let quota = self.naive.quota(&request.owner.namespace);
        // Two families are charged one after the other: the second may find the quota spent by the first.
        let tight = quota.is_some_and(|quota| self.naive.charged(&request.owner) + 2 > quota);
        match (pinned, held) {
            (Some(pin), Some(held)) if *pin != held => {
                tight || self.naive.pin_problem(request, *pin).is_some()
            }
            (_, Some(held)) => self.naive.crowded(request, held),
            (Some(pin), None) => tight || self.naive.pin_problem(request, *pin).is_some(),
            (None, None) => tight || self.naive.next(request, family).is_none(),
        }
    }

    /// Everything the ledger says about itself is what the model counts.
    fn agree(&self) {
        for (address, claim) in self.ledger.claims() {
            // Invariant 1: one holder, or several with disjoint ports and one policy.
            let grants = claim.grants();
            for (at, one) in grants.iter().enumerate() {
                for other in &grants[at + 1..] {
                    let (one, other) =
                        (one.sharing.as_ref().unwrap(), other.sharing.as_ref().unwrap());
                    assert!(one.ports.is_disjoint(&other.ports), "{address}");
                    assert_eq!(one.policy, other.policy, "{address}");
                }
            }
            assert!(grants.iter().map(|grant| &grant.owner).eq(self.naive.holders(address)));
        }
        // Invariant 5: what nobody holds is not held, and rests only as long as it should.
        assert_eq!(self.ledger.claims().count(), self.naive.claims.len());
        assert_eq!(self.ledger.next_rested(), self.naive.next_rested());
        for scope in [Scope::Global, Scope::of("a"), Scope::of("b")] {
            for family in Family::ALL {
                assert_eq!(self.ledger.usage(&scope, family), self.naive.usage(&scope, family));
            }
        }
        for namespace in NAMESPACES {
            assert_eq!(self.ledger.held_in(namespace), self.naive.held_in(namespace).len() as u64);
            assert_eq!(self.ledger.counted_in(namespace), self.naive.counted_in(namespace));
        }
        let crossings: Vec<IpAddr> =
            self.ledger.crossings().into_iter().map(|crossing| crossing.address).collect();
        assert_eq!(crossings, self.naive.crossings());
        let overlapping: BTreeSet<IpAddr> = self.naive.overlapping();
        let said = self.ledger.overlaps();
        for address in world::universe() {
            let times = said.iter().filter(|overlap| overlap.addresses.contains(address)).count();
            assert_eq!(times == 1, overlapping.contains(&address), "{address}");
        }
        let strays: BTreeSet<_> =
            self.ledger.strays().into_iter().map(|stray| (stray.address, stray.owner)).collect();
        assert_eq!(strays, self.naive.strays());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_agrees_with_a_model_that_lists_every_address(events in events()) {
        let mut run = Run::new();
        events.iter().for_each(|event| run.apply(event));
        // Invariant 5: when all owners are gone and the delay is over, nothing is held and nothing rests.
        for number in 0..world::OWNERS {
            run.apply(&Event::Release { owner: number });
        }
        run.apply(&Event::Wait(world::LONGEST_DELAY));
        prop_assert_eq!(run.ledger.claims().count(), 0);
        prop_assert_eq!(run.ledger.next_rested(), None);
        prop_assert_eq!(run.ledger.held_in("a"), 0);
    }
}
