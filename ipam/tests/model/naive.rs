//! Owns the model: sets of single addresses, searched from end to end. Slow, and too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::{Counted, Family, Grant, Owner, Request, Scope, Stray, Usage};

use crate::world::{Config, Keys, listed, prefix_listed};

#[derive(Clone, Default)]
pub(crate) struct Naive {
    pub(crate) config: Config,
    pub(crate) claims: BTreeMap<IpAddr, BTreeMap<Owner, Grant>>,
    pub(crate) reserved: BTreeMap<&'static str, BTreeSet<IpAddr>>,
    resting: BTreeMap<IpAddr, (Duration, Owner)>,
    pub(crate) aside: BTreeMap<IpAddr, (Duration, &'static str)>,
}

impl Naive {
    pub(crate) fn insert(&mut self, address: IpAddr, grant: Grant) {
        self.resting.remove(&address);
        self.claims.entry(address).or_default().insert(grant.owner.clone(), grant);
    }

    pub(crate) fn release(&mut self, owner: &Owner, address: IpAddr, now: Duration) {
        let claim = self.claims.get_mut(&address).unwrap();
        claim.remove(owner).unwrap();
        if claim.is_empty() {
            self.claims.remove(&address);
            self.resting.insert(address, (now, owner.clone()));
            self.advance(now);
        }
    }

    pub(crate) fn advance(&mut self, now: Duration) {
        let delay = self.delay();
        self.resting.retain(|_, (since, _)| *since + delay > now);
        self.aside.retain(|_, (until, _)| *until > now);
    }

    pub(crate) fn next_rested(&self) -> Option<Duration> {
        let rested = self.resting.values().map(|(since, _)| *since + self.delay());
        rested.chain(self.aside.values().map(|(until, _)| *until)).min()
    }

    pub(crate) fn holders(&self, address: IpAddr) -> impl Iterator<Item = &Owner> {
        self.claims.get(&address).into_iter().flat_map(BTreeMap::keys)
    }

    pub(crate) fn is_held(&self, address: IpAddr) -> bool {
        self.claims.contains_key(&address)
    }

    pub(crate) fn held_in(&self, namespace: &str) -> BTreeSet<IpAddr> {
        let held = |claim: &BTreeMap<Owner, Grant>| claim.keys().any(|o| o.namespace == namespace);
        self.claims.iter().filter(|(_, claim)| held(claim)).map(|(address, _)| *address).collect()
    }

    fn rests_in(&self, namespace: &str) -> BTreeSet<IpAddr> {
        let rests = self.resting.iter().filter(|(_, (_, owner))| owner.namespace == namespace);
        rests.map(|(address, _)| *address).collect()
    }

    fn aside_in(&self, namespace: &str) -> BTreeSet<IpAddr> {
        let aside = self.aside.iter().filter(|(_, (_, whose))| *whose == namespace);
        aside.map(|(address, _)| *address).collect()
    }

    /// What counts against the quota.
    pub(crate) fn counted_in(&self, namespace: &str) -> Counted {
        let (held, resting) = (self.held_in(namespace), self.rests_in(namespace));
        let known = &held | &resting;
        Counted {
            held: held.len() as u64,
            resting: resting.len() as u64,
            aside: (&self.aside_in(namespace) - &known).len() as u64,
            shown: 0,
        }
    }

    /// The same but for one address of each family that rests since the owner gave it back.
    pub(crate) fn charged(&self, owner: &Owner) -> u64 {
        let aside = self.aside_in(&owner.namespace);
        let own = self.resting.iter().filter(|(_, (_, last))| last.same_name(owner));
        let own = own.map(|(address, _)| *address).filter(|address| !aside.contains(address));
        let excused: BTreeSet<Family> = own.map(Family::of).collect();
        self.counted_in(&owner.namespace).total() - excused.len() as u64
    }

    pub(crate) fn quota(&self, namespace: &str) -> Option<u64> {
        let own = self.config.scopes.get(namespace).and_then(|keys| keys.quota);
        own.or(self.config.namespace_quota)
    }

    pub(crate) fn members(&self, scope: &Scope) -> BTreeSet<IpAddr> {
        let Some(keys) = self.config.scopes.get(scope.name()) else { return BTreeSet::new() };
        let ranges = keys.ranges.iter().copied().flat_map(listed);
        ranges.chain(keys.prefixes.iter().copied().flat_map(prefix_listed)).collect()
    }

    pub(crate) fn serving(&self, namespace: &str) -> Vec<Scope> {
        let has_pool = |keys: &Keys| !keys.ranges.is_empty() || !keys.prefixes.is_empty();
        let own = self.config.scopes.get(namespace).filter(|keys| has_pool(keys));
        let mut serving = Vec::new();
        if own.is_some() {
            serving.push(Scope::of(namespace));
        }
        if own.is_none_or(|keys| keys.overflow) && namespace != "global" {
            serving.push(Scope::Global);
        }
        serving.retain(|scope| self.config.scopes.get(scope.name()).is_some_and(has_pool));
        serving
    }

    /// The address that comes next, and whether others hold it already; the quota aside.
    pub(crate) fn next(&self, request: &Request, family: Family) -> Option<(IpAddr, bool)> {
        self.serving(&request.owner.namespace).into_iter().find_map(|scope| {
            let offered = self.offered(&scope).into_iter().filter(|a| Family::of(*a) == family);
            let offered = offered.filter(|a| !self.aside.contains_key(a));
            let offered: Vec<IpAddr> = offered.filter(|a| !self.is_reserved(*a)).collect();
            let pick = |list: Vec<IpAddr>| match self.config.descending {
                true => list.last().copied(),
                false => list.first().copied(),
            };
            let sharable =
                |address: &&IpAddr| self.is_held(**address) && self.joinable(request, **address);
            let shared = pick(offered.iter().filter(sharable).copied().collect());
            let free =
                |address: &&IpAddr| !self.is_held(**address) && !self.resting.contains_key(address);
            let free = pick(offered.iter().filter(free).copied().collect());
            shared.map(|address| (address, true)).or(free.map(|address| (address, false)))
        })
    }

    /// Why a user cannot have the address that it asks for; the quota aside.
    pub(crate) fn pin_problem(&self, request: &Request, address: IpAddr) -> Option<&'static str> {
        let namespace = request.owner.namespace.as_str();
        let serving = self.serving(namespace);
        let home = serving.iter().find(|scope| self.members(scope).contains(&address));
        let excluded = |scope: &Scope| {
            self.config.scopes.get(scope.name()).is_some_and(|k| contains(&k.exclude, address))
        };
        let own = Scope::of(namespace);
        let pools = || ["global", "a", "b"].map(Scope::of);
        let in_a_pool = pools().iter().any(|scope| self.members(scope).contains(&address));
        let open = [Scope::Global, own.clone()];
        let in_an_open_pool = open.iter().any(|scope| self.members(scope).contains(&address));
        if self.is_reserved(address) && !self.is_held(address) {
            Some("reserved")
        } else if excluded(&Scope::Global) || (serving.contains(&own) && excluded(&own)) {
            Some("excluded")
        } else if in_a_pool && !in_an_open_pool {
            Some("of another namespace")
        } else if home.is_none() && !self.allows_pin(namespace, address) {
            Some("not allowed")
        } else if home.is_some_and(|scope| self.drains(scope, address)) {
            Some("draining")
        } else if self.is_held(address) && !self.joinable(request, address) {
            Some("in use")
        } else if self
            .resting
            .get(&address)
            .is_some_and(|(_, last)| !last.same_name(&request.owner))
        {
            Some("resting")
        } else {
            None
        }
    }

    /// Whether an owner's ports no longer fit among those it shares its address with.
    pub(crate) fn crowded(&self, request: &Request, address: IpAddr) -> bool {
        !self.fits(request, address)
    }

    pub(crate) fn usage(&self, scope: &Scope, family: Family) -> Usage {
        let of_family = |address: &&IpAddr| Family::of(**address) == family;
        let members = self.members(scope);
        let count = |test: &dyn Fn(&IpAddr) -> bool| {
            members.iter().filter(of_family).filter(|a| test(a)).count()
        };
        let idle = |address: &IpAddr| {
            !self.is_held(*address)
                && !self.resting.contains_key(address)
                && !self.is_reserved(*address)
                && !self.aside.contains_key(address)
        };
        let free = self.offered(scope).iter().filter(of_family).filter(|a| idle(a)).count();
        Usage {
            size: count(&|_| true) as u128,
            used: count(&|address| self.is_held(*address)) as u64,
            resting: count(&|address| self.resting.contains_key(address)) as u64,
            free: free as u128,
        }
    }

    pub(crate) fn overlapping(&self) -> BTreeSet<IpAddr> {
        let pools = ["global", "a", "b"].map(|name| self.members(&Scope::of(name)));
        let times = |address: &IpAddr| pools.iter().filter(|pool| pool.contains(address)).count();
        pools.iter().flatten().filter(|address| times(address) > 1).copied().collect()
    }

    pub(crate) fn strays(&self) -> BTreeSet<(IpAddr, Owner)> {
        let stray = |address: IpAddr, grant: &Grant| {
            let pool = grant.pool.clone().filter(|pool| !self.members(pool).contains(&address))?;
            Some(Stray { address, owner: grant.owner.clone(), pool })
        };
        let grants =
            self.claims.iter().flat_map(|(a, claim)| claim.values().map(|grant| (*a, grant)));
        let strays = grants.filter_map(|(address, grant)| stray(address, grant));
        strays.map(|stray| (stray.address, stray.owner)).collect()
    }

    /// What a pool may hand out by itself, if nobody held anything.
    fn offered(&self, scope: &Scope) -> BTreeSet<IpAddr> {
        let Some(keys) = self.config.scopes.get(scope.name()) else { return BTreeSet::new() };
        let global =
            self.config.scopes.get("global").map(|keys| keys.exclude.clone()).unwrap_or_default();
        let mut offered = self.members(scope);
        if self.config.skip_ends {
            for prefix in &keys.prefixes {
                let list = prefix_listed(*prefix);
                if list.len() > 2 && list[0].is_ipv4() {
                    offered.remove(&list[0]);
                    offered.remove(&list[list.len() - 1]);
                }
            }
            offered.extend(keys.ranges.iter().copied().flat_map(listed));
            let endless = |list: &Vec<IpAddr>| list.len() <= 2 || list[0].is_ipv6();
            offered
                .extend(keys.prefixes.iter().map(|p| prefix_listed(*p)).filter(endless).flatten());
        }
        let buggy = |address: &IpAddr| match address {
            IpAddr::V4(v4) => {
                self.config.avoid_buggy != Some(false) && matches!(v4.octets()[3], 0 | 255)
            }
            IpAddr::V6(_) => false,
        };
        offered.retain(|address| {
            !buggy(address)
                && !contains(&global, *address)
                && !contains(&keys.exclude, *address)
                && !self.drains(scope, *address)
        });
        offered
    }

    fn drains(&self, scope: &Scope, address: IpAddr) -> bool {
        match self.config.scopes.get(scope.name()).and_then(|keys| keys.drain) {
            None => false,
            Some(None) => true,
            Some(Some(range)) => contains(&[range], address),
        }
    }

    fn joinable(&self, request: &Request, address: IpAddr) -> bool {
        let mut others = self.holders(address).filter(|owner| **owner != request.owner);
        others.all(|other| self.may_share(&request.owner.namespace, &other.namespace))
            && self.fits(request, address)
    }

    fn may_share(&self, one: &str, other: &str) -> bool {
        let names = |one: &str, other: &str| {
            let keys = self.config.scopes.get(one);
            one == other || keys.is_some_and(|keys| keys.share_with.contains(&other))
        };
        [(one, other), (other, one)].iter().all(|(a, b)| names(a, b) && self.allows_sharing(a))
    }

    /// The addresses that namespaces share which may not share them any more.
    pub(crate) fn crossings(&self) -> Vec<IpAddr> {
        let crosses = |claim: &BTreeMap<Owner, Grant>| {
            let mut pairs =
                claim.keys().flat_map(|one| claim.keys().map(move |other| (one, other)));
            pairs.any(|(one, other)| {
                let (one, other) = (&one.namespace, &other.namespace);
                one != other && !self.may_share(one, other)
            })
        };
        let claims = self.claims.iter().filter(|(_, claim)| crosses(claim));
        claims.map(|(address, _)| *address).collect()
    }

    /// Whether an address outside of all pools of the namespace may be asked for.
    fn allows_pin(&self, namespace: &str, address: IpAddr) -> bool {
        let pins = |name: &str| self.config.scopes.get(name).and_then(|keys| keys.pins.as_ref());
        match pins(namespace).or_else(|| pins("global")) {
            None | Some(None) => true,
            Some(Some(listed)) => contains(listed, address),
        }
    }

    fn fits(&self, request: &Request, address: IpAddr) -> bool {
        let mut others =
            self.claims.get(&address).into_iter().flatten().filter(|(o, _)| **o != request.owner);
        others.all(|(_, grant)| match (&grant.sharing, &request.sharing) {
            (Some(one), Some(other)) => {
                one.policy == other.policy
                    && !one.ports.is_empty()
                    && !other.ports.is_empty()
                    && one.ports.intersection(&other.ports).next().is_none()
            }
            _ => false,
        })
    }

    fn allows_sharing(&self, namespace: &str) -> bool {
        let allowed = |name: &str| self.config.scopes.get(name).and_then(|keys| keys.allow_share);
        allowed(namespace).or_else(|| allowed("global")).unwrap_or(false)
    }

    fn is_reserved(&self, address: IpAddr) -> bool {
        self.reserved.values().any(|reserved| reserved.contains(&address))
    }

    fn delay(&self) -> Duration {
        Duration::from_secs(self.config.reuse_delay.unwrap_or(60))
    }
}

fn contains(ranges: &[(u32, u32)], address: IpAddr) -> bool {
    ranges.iter().copied().flat_map(listed).any(|listed| listed == address)
}
