//! Owns the last good value of every key. A bad edit never changes what is handed out or who holds what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::keys::{Entry, Key, KeyError, Kind, Pins, Scope, Value};
use crate::range::{Family, Range};
use crate::set::AddressSet;
use crate::shown::shown;

/// Rests of addresses when `reuse-delay` is not set.
const DEFAULT_REUSE_DELAY: Duration = Duration::from_secs(60);

/// Addresses that no pool can hand out and nobody can ask for, whatever the keys say.
const UNUSABLE: [(&str, &str); 14] = [
    ("0.0.0.0/8", "\"this network\" (RFC 1122)"),
    ("127.0.0.0/8", "the loopback network (RFC 1122)"),
    ("169.254.0.0/16", "the link-local network (RFC 3927)"),
    ("224.0.0.0/4", "multicast (RFC 1112)"),
    ("240.0.0.0-255.255.255.254", "what is reserved for future use (RFC 1112)"),
    ("255.255.255.255/32", "the broadcast address (RFC 919)"),
    ("::/127", "unspecified or loopback (RFC 4291)"),
    ("::2-::ffff:ffff", "the IPv4-compatible addresses (RFC 4291)"),
    ("::ffff:0:0/96", "an IPv4-mapped address (RFC 4291)"),
    ("64:ff9b::/96", "the prefix of IPv4/IPv6 translators (RFC 6052)"),
    ("64:ff9b:1::/48", "the local prefix of IPv4/IPv6 translators (RFC 8215)"),
    ("fe80::/10", "the link-local networks (RFC 4291)"),
    ("fec0::/10", "the deprecated site-local networks (RFC 3879)"),
    ("ff00::/8", "multicast (RFC 4291)"),
];

/// In which order free addresses are handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Order {
    /// The lowest first.
    #[default]
    Ascending,
    /// The highest first (`search-order: desc`).
    Descending,
}

/// What the keys of one scope say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    defined: bool,
    addresses: AddressSet,
    offered: AddressSet,
    excluded: AddressSet,
    draining: AddressSet,
    quota: Option<u64>,
    overflows: bool,
    allow_share: Option<bool>,
    interface: Option<String>,
    share_with: BTreeSet<String>,
    /// The error where it was never good.
    pins: Option<Result<Pins, KeyError>>,
    invalid: Option<KeyError>,
}

impl Pool {
    /// The addresses that its keys name.
    pub fn addresses(&self) -> &AddressSet {
        &self.addresses
    }

    /// Those it may hand out by itself: without excluded, draining and skipped ones, but with the IPv4 addresses
    /// ending in .0 and .255 that [`Pools::avoids_buggy`] leaves out.
    pub fn offered(&self) -> &AddressSet {
        &self.offered
    }

    /// The addresses that its `exclude-` key names.
    pub fn excluded(&self) -> &AddressSet {
        &self.excluded
    }

    /// The addresses that keep what is assigned and take nothing new.
    pub fn draining(&self) -> &AddressSet {
        &self.draining
    }

    /// Whether it is exactly the DHCP marker of the family, `0.0.0.0/32` or `::/128`.
    pub fn is_dhcp(&self, family: Family) -> bool {
        let marker = Some(family.dhcp_marker());
        self.addresses.first(family) == marker && self.addresses.last(family) == marker
    }

    /// The key that was never good, for which this pool hands out nothing: addresses it should have, or a limit on
    /// them, are unknown.
    pub fn invalid(&self) -> Option<&KeyError> {
        self.invalid.as_ref()
    }
}

/// Every pool and option of the ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools {
    values: BTreeMap<String, (Key, Value)>,
    errors: BTreeMap<String, KeyError>,
    scopes: BTreeMap<Scope, Pool>,
    order: Order,
    avoid_buggy: bool,
    reuse_delay: Duration,
    /// The error where it was never good.
    namespace_quota: Option<Result<u64, KeyError>>,
    /// Of each namespace that may share addresses over its border, with which others: both name each other.
    partners: BTreeMap<String, BTreeSet<String>>,
}

impl Default for Pools {
    fn default() -> Self {
        let (values, errors, scopes, partners) = Default::default();
        Self {
            values,
            errors,
            scopes,
            order: Order::Ascending,
            avoid_buggy: true,
            reuse_delay: DEFAULT_REUSE_DELAY,
            namespace_quota: None,
            partners,
        }
    }
}

impl Pools {
    /// Takes the data of the ConfigMap as it is now and returns every key whose value is not accepted.
    ///
    /// Such a key keeps its last good value. One that was never good counts as absent, except that a pool which it
    /// would fill or limit hands out nothing ([`Pool::invalid`]): falling back to the global pool, or ignoring an
    /// `exclude-`, would hand out addresses for good that the user did not mean. A key that is gone is forgotten.
    /// For a deleted ConfigMap do not call this: its last values stay.
    pub fn update(&mut self, data: &BTreeMap<String, String>) -> Vec<KeyError> {
        self.values.retain(|key, _| data.contains_key(key));
        self.errors.clear();
        for (name, text) in data {
            let Some(key) = Key::parse(name) else { continue };
            match key.value(text) {
                Ok(value) => _ = self.values.insert(name.clone(), (key, value)),
                Err(problem) => {
                    let error = KeyError {
                        key: name.clone(),
                        value: shown(text),
                        problem,
                        accepted: key.accepted(),
                    };
                    self.errors.insert(name.clone(), error);
                }
            }
        }
        self.derive();
        self.errors().cloned().collect()
    }

    /// The keys in `data` that mean nothing here: most likely misspelt.
    pub fn unknown_keys(data: &BTreeMap<String, String>) -> Vec<&str> {
        data.keys().map(String::as_str).filter(|key| Key::parse(key).is_none()).collect()
    }

    /// The keys in `data` that are lists with nothing in them, and what they say so.
    pub fn empty_keys(data: &BTreeMap<String, String>) -> Vec<(&str, &'static str)> {
        let nothing = |text: &str| text.split(',').all(|part| part.trim().is_empty());
        let empty = data.iter().filter(|(_, text)| nothing(text));
        empty.filter_map(|(key, _)| Some((key.as_str(), Key::parse(key)?.empty()?))).collect()
    }

    /// The entries in `data` that name a network by an address inside it, with their keys and the network, which is more
    /// than their author may think: `192.168.100.200/28` begins at `.192`.
    pub fn with_host_bits(data: &BTreeMap<String, String>) -> Vec<(&str, &str, Range)> {
        let whole = |entry: &str| {
            let (address, _) = entry.split_once('/')?;
            let network: Range = entry.parse().ok()?;
            let address: IpAddr = address.trim().parse().ok()?;
            (network.first() != address).then_some(network)
        };
        let lists = |key: &str| Key::parse(key).is_some_and(|key| key.lists_addresses());
        let lists = data.iter().filter(|(key, _)| lists(key));
        let entries =
            lists.flat_map(|(key, text)| text.split(',').map(move |entry| (key, entry.trim())));
        entries.filter_map(|(key, entry)| Some((key.as_str(), entry, whole(entry)?))).collect()
    }

    /// The keys whose present value is not accepted, by name.
    pub fn errors(&self) -> impl Iterator<Item = &KeyError> {
        self.errors.values()
    }

    /// Every pool, the global one first, then by namespace.
    pub fn iter(&self) -> impl Iterator<Item = (&Scope, &Pool)> {
        self.scopes.iter().filter(|(_, pool)| pool.defined)
    }

    /// The pool of a scope, if it has a `cidr-` or `range-` key.
    pub fn pool(&self, scope: &Scope) -> Option<&Pool> {
        self.scopes.get(scope).filter(|pool| pool.defined)
    }

    /// The pools that serve a namespace, in the order in which they are tried: its own and, with overflow, the global
    /// one; the global one where it has none of its own.
    pub fn serving(&self, namespace: &str) -> Vec<(&Scope, &Pool)> {
        let own = self.entry(&Scope::of(namespace)).filter(|(_, pool)| pool.defined);
        let global = self.entry(&Scope::Global).filter(|(_, pool)| pool.defined);
        match own {
            Some((Scope::Global, _)) | None => global.into_iter().collect(),
            Some(own) => [own].into_iter().chain(global.filter(|_| own.1.overflows)).collect(),
        }
    }

    /// The pool of this namespace that has the address, whether or not it would hand it out.
    pub fn locate(&self, namespace: &str, address: IpAddr) -> Option<&Scope> {
        self.serving(namespace)
            .into_iter()
            .find(|(_, pool)| pool.addresses.contains(address))
            .map(|(scope, _)| scope)
    }

    /// How many addresses a namespace may hold: `quota-<ns>`, else `namespace-quota`. `quota-global` limits the namespace
    /// called `global`.
    pub fn quota(&self, namespace: &str) -> Option<u64> {
        let everybodys = || self.namespace_quota.as_ref()?.as_ref().ok().copied();
        self.own_quota(namespace).or_else(everybodys)
    }

    /// The key that says so.
    pub fn quota_key(&self, namespace: &str) -> String {
        match self.own_quota(namespace) {
            Some(_) => format!("quota-{namespace}"),
            None => "namespace-quota".to_owned(),
        }
    }

    fn own_quota(&self, namespace: &str) -> Option<u64> {
        self.scopes.get(&Scope::of(namespace))?.quota
    }

    /// Whether every namespace has a limit, whatever it is called: `namespace-quota` is set.
    pub fn limits_all(&self) -> bool {
        self.namespace_quota.is_some()
    }

    /// Where any address may be asked for that is nobody else's: `pins-<ns>` says so, or `pins-global` does or is not set.
    pub fn with_any_pin(&self) -> Vec<&Scope> {
        let own = self.scopes.iter().filter(|(_, pool)| pool.pins == Some(Ok(Pins::Any)));
        let mut open: Vec<&Scope> = own.map(|(scope, _)| scope).collect();
        let globals = self.entry(&Scope::Global).and_then(|(_, pool)| pool.pins.as_ref());
        if globals.is_none() {
            open.insert(0, &Scope::Global);
        }
        open
    }

    /// Which addresses the namespace may ask for, and whose key says so. The error is that of a key that was never good.
    pub(crate) fn pins(&self, namespace: &str) -> Option<(&Scope, &Result<Pins, KeyError>)> {
        [Scope::of(namespace), Scope::Global].iter().find_map(|scope| {
            let (scope, pool) = self.entry(scope)?;
            Some((scope, pool.pins.as_ref()?))
        })
    }

    /// Whether Services of the namespace may share addresses: `allow-share-<ns>`, else `allow-share-global`.
    pub fn allows_sharing(&self, namespace: &str) -> bool {
        self.own_or_global(namespace, |pool| pool.allow_share.as_ref()).copied().unwrap_or(false)
    }

    /// Whether a Service of one namespace may share an address with one of the other: where both allow it and each names
    /// the other in its `share-with-`.
    pub fn may_share(&self, namespace: &str, other: &str) -> bool {
        if namespace == other {
            return self.allows_sharing(namespace);
        }
        self.partners.get(namespace).is_some_and(|partners| partners.contains(other))
    }

    /// The namespaces with which this one may share addresses, and itself; none where it may not share at all.
    pub(crate) fn sharing_with<'a>(&'a self, namespace: &'a str) -> BTreeSet<&'a str> {
        if !self.allows_sharing(namespace) {
            return BTreeSet::new();
        }
        let partners = self.partners.get(namespace).into_iter().flatten();
        partners.map(String::as_str).chain([namespace]).collect()
    }

    /// The interface for the namespace's Services: `interface-<ns>`, else `interface-global`.
    pub fn interface(&self, namespace: &str) -> Option<&str> {
        self.own_or_global(namespace, |pool| pool.interface.as_ref()).map(String::as_str)
    }

    /// The `exclude-` key that keeps an address from a namespace: that of a pool which serves it, or the global one.
    pub(crate) fn excluded_by(&self, namespace: &str, address: IpAddr) -> Option<&Scope> {
        [Scope::of(namespace), Scope::Global]
            .iter()
            .filter_map(|scope| self.entry(scope))
            .filter(|(scope, pool)| pool.defined || **scope == Scope::Global)
            .find(|(_, pool)| pool.excluded.contains(address))
            .map(|(scope, _)| scope)
    }

    /// The key that was never good for which the namespace gets nothing from any pool: one of its own, or one that limits
    /// everybody.
    pub(crate) fn invalid_for(&self, namespace: &str) -> Option<&KeyError> {
        let own = self.scopes.get(&Scope::of(namespace)).and_then(|pool| pool.invalid.as_ref());
        let global = || self.scopes.get(&Scope::Global).and_then(|pool| pool.invalid.as_ref());
        let quota = || self.namespace_quota.as_ref()?.as_ref().err();
        own.or_else(|| global().filter(|error| error.key == "exclude-global"))
            .or_else(|| quota().filter(|_| self.own_quota(namespace).is_none()))
    }

    /// The order in which free addresses are handed out.
    pub fn order(&self) -> Order {
        self.order
    }

    /// Whether IPv4 addresses ending in .0 and .255 are left out (`avoid-buggy-ips`, default yes).
    pub fn avoids_buggy(&self) -> bool {
        self.avoid_buggy
    }

    /// How long a freed address rests.
    pub fn reuse_delay(&self) -> Duration {
        self.reuse_delay
    }

    fn entry(&self, scope: &Scope) -> Option<(&Scope, &Pool)> {
        self.scopes.get_key_value(scope)
    }

    fn own_or_global<'a, T>(
        &'a self,
        namespace: &str,
        read: impl Fn(&'a Pool) -> Option<&'a T>,
    ) -> Option<&'a T> {
        let own = self.scopes.get(&Scope::of(namespace)).and_then(&read);
        own.or_else(|| self.scopes.get(&Scope::Global).and_then(&read))
    }

    /// Works out pools and options from the keys.
    fn derive(&mut self) {
        self.order =
            if self.flag("search-order", false) { Order::Descending } else { Order::Ascending };
        self.avoid_buggy = self.flag("avoid-buggy-ips", true);
        self.reuse_delay = match self.values.get("reuse-delay") {
            Some((_, Value::Delay(delay))) => *delay,
            _ => DEFAULT_REUSE_DELAY,
        };
        let skip_ends = self.flag("skip-end-ips-in-cidr", false);

        let mut scopes: BTreeMap<Scope, Pool> = BTreeMap::new();
        let mut lists: BTreeMap<Scope, Vec<Entry>> = BTreeMap::new();
        for (key, value) in self.values.values() {
            let Key::Of(kind, scope) = key else { continue };
            let pool = scopes.entry(scope.clone()).or_default();
            match (kind, value) {
                (Kind::Cidr | Kind::Range, Value::Entries(entries)) => {
                    pool.defined = true;
                    lists.entry(scope.clone()).or_default().extend(entries);
                }
                (Kind::Exclude, Value::Entries(entries)) => pool.excluded = set_of(entries),
                (Kind::Drain, Value::Entries(entries)) => pool.draining = set_of(entries),
                (Kind::Drain, Value::Bool(true)) => {
                    pool.draining = Family::ALL.into_iter().map(Range::all).collect();
                }
                (Kind::Quota, Value::Count(count)) => pool.quota = Some(*count),
                (Kind::Overflow, Value::Bool(overflows)) => pool.overflows = *overflows,
                (Kind::AllowShare, Value::Bool(allowed)) => pool.allow_share = Some(*allowed),
                (Kind::Interface, Value::Text(name)) => pool.interface = Some(name.clone()),
                (Kind::Pins, Value::Pins(pins)) => pool.pins = Some(Ok(pins.clone())),
                (Kind::ShareWith, Value::Names(names)) => pool.share_with = names.clone(),
                _ => {}
            }
        }
        self.mark_invalid(&mut scopes);
        self.namespace_quota = match self.values.get("namespace-quota") {
            Some((_, Value::Count(count))) => Some(Ok(*count)),
            _ => self.errors.get("namespace-quota").cloned().map(Err),
        };

        let everywhere =
            scopes.get(&Scope::Global).map(|pool| pool.excluded.clone()).unwrap_or_default();
        for (scope, pool) in &mut scopes {
            let entries = lists.remove(scope).unwrap_or_default();
            pool.addresses = set_of(&entries);
            pool.offered = if skip_ends { without_ends(&entries) } else { pool.addresses.clone() };
            unusable().for_each(|(range, _)| pool.offered.remove(range));
            pool.offered.subtract(&everywhere);
            pool.offered.subtract(&pool.excluded);
            pool.offered.subtract(&pool.draining);
        }
        self.scopes = scopes;
        self.partners = self.pair();
    }

    /// Which namespaces name each other, where both allow sharing.
    fn pair(&self) -> BTreeMap<String, BTreeSet<String>> {
        let names = |one: &str, other: &str| {
            let pool = self.scopes.get(&Scope::of(one));
            pool.is_some_and(|pool| pool.share_with.contains(other)) && self.allows_sharing(one)
        };
        let partners = |name: &str, pool: &Pool| -> BTreeSet<String> {
            let named = pool.share_with.iter().filter(|other| *other != name);
            named.filter(|other| names(name, other) && names(other, name)).cloned().collect()
        };
        let all = self.scopes.iter().map(|(scope, pool)| (scope.name(), pool));
        let all = all.map(|(name, pool)| (name.to_owned(), partners(name, pool)));
        all.filter(|(_, partners)| !partners.is_empty()).collect()
    }

    /// Stops the pools whose addresses or limits were never readable.
    fn mark_invalid(&self, scopes: &mut BTreeMap<Scope, Pool>) {
        for error in self.errors.values().filter(|error| !self.values.contains_key(&error.key)) {
            let Some(Key::Of(kind, scope)) = Key::parse(&error.key) else { continue };
            let fills = matches!(kind, Kind::Cidr | Kind::Range);
            if kind == Kind::Exclude && scope == Scope::Global {
                scopes.values_mut().for_each(|pool| pool.invalid = Some(error.clone()));
            } else if kind == Kind::Pins {
                scopes.entry(scope).or_default().pins = Some(Err(error.clone()));
            } else if fills || matches!(kind, Kind::Exclude | Kind::Drain | Kind::Quota) {
                let pool = scopes.entry(scope).or_default();
                pool.defined |= fills;
                pool.invalid = Some(error.clone());
            }
        }
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        match self.values.get(key) {
            Some((_, Value::Bool(flag))) => *flag,
            _ => default,
        }
    }
}

/// Why nobody can have the address at all.
pub(crate) fn unusable_because(address: IpAddr) -> Option<&'static str> {
    unusable().find(|(range, _)| range.contains(address)).map(|(_, why)| why)
}

/// What no host can have, and why.
pub(crate) fn unusable() -> impl Iterator<Item = (Range, &'static str)> {
    UNUSABLE.iter().filter_map(|(range, why)| Some((range.parse().ok()?, *why)))
}

fn set_of(entries: &[Entry]) -> AddressSet {
    entries.iter().map(|entry| entry.range).collect()
}

/// The addresses without the network and broadcast address of each IPv4 prefix, unless a range or single address
/// names them. A /31 has neither (RFC 3021), nor has IPv6.
fn without_ends(entries: &[Entry]) -> AddressSet {
    let has_ends = |entry: &&Entry| {
        entry.is_prefix && entry.range.family() == Family::V4 && entry.range.size() > 2
    };
    let mut set = set_of(entries);
    for entry in entries.iter().filter(has_ends) {
        set.remove(entry.range.first().into());
        set.remove(entry.range.last().into());
    }
    entries.iter().filter(|entry| !has_ends(entry)).for_each(|entry| set.insert(entry.range));
    set
}
