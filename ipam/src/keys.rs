//! Owns the keys of the pool ConfigMap: what each accepts and how it is read. Nothing half-read leaves this file.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::range::Range;
use crate::set::AddressSet;
use crate::shown::shown;

/// Whose pool: that of one namespace, or the one for every namespace without a key of its own.
///
/// A namespace called `global` shares its keys with the global pool, so it *is* [`Scope::Global`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The keys that end in `-global`.
    Global,
    /// The keys that end in the namespace's name.
    Namespace(String),
}

impl Scope {
    /// The scope of the keys that end in `name`.
    pub fn of(name: &str) -> Self {
        if name == "global" { Self::Global } else { Self::Namespace(name.to_owned()) }
    }

    /// What its keys end in.
    pub fn name(&self) -> &str {
        match self {
            Self::Global => "global",
            Self::Namespace(name) => name,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("the global pool"),
            Self::Namespace(name) => write!(f, "the pool of namespace {name}"),
        }
    }
}

/// A key whose value is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key `{key}`: value `{value}` is not accepted: {problem}; accepted is {accepted}")]
pub struct KeyError {
    /// The key.
    pub key: String,
    /// Its value, as far as a message shows it.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
    /// What would be right.
    pub accepted: &'static str,
}

/// A key, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Of(Kind, Scope),
    SearchOrder,
    SkipEnds,
    AvoidBuggy,
    ReuseDelay,
    NamespaceQuota,
}

/// The keys that exist once per scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cidr,
    Range,
    AllowShare,
    Interface,
    Exclude,
    Drain,
    Quota,
    Overflow,
    Pins,
    ShareWith,
}

const KINDS: [(&str, Kind); 10] = [
    ("cidr-", Kind::Cidr),
    ("range-", Kind::Range),
    ("allow-share-", Kind::AllowShare),
    ("interface-", Kind::Interface),
    ("exclude-", Kind::Exclude),
    ("drain-", Kind::Drain),
    ("quota-", Kind::Quota),
    ("overflow-", Kind::Overflow),
    ("pins-", Kind::Pins),
    ("share-with-", Kind::ShareWith),
];

impl Key {
    /// Reads a key; `None` if it is not one of ours, or for what no namespace can be called.
    pub(crate) fn parse(key: &str) -> Option<Self> {
        match key {
            "search-order" => Some(Self::SearchOrder),
            "skip-end-ips-in-cidr" => Some(Self::SkipEnds),
            "avoid-buggy-ips" => Some(Self::AvoidBuggy),
            "reuse-delay" => Some(Self::ReuseDelay),
            "namespace-quota" => Some(Self::NamespaceQuota),
            _ => KINDS.iter().find_map(|(prefix, kind)| {
                let name = key.strip_prefix(prefix).filter(|name| is_namespace(name))?;
                Some(Self::Of(*kind, Scope::of(name)))
            }),
        }
    }

    /// Reads the value of this key; the error is what is wrong with it.
    pub(crate) fn value(&self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        match self {
            Self::Of(Kind::Cidr | Kind::Range | Kind::Exclude, _) => {
                entries(text).map(Value::Entries)
            }
            Self::Of(Kind::Drain, _) => match boolean(text) {
                Ok(all) => Ok(Value::Bool(all)),
                Err(_) => entries(text).map(Value::Entries),
            },
            Self::Of(Kind::Interface, _) => interface(text).map(Value::Text),
            Self::Of(Kind::Pins, _) => match text {
                "any" => Ok(Value::Pins(Pins::Any)),
                "pool" => Ok(Value::Pins(Pins::Pool(AddressSet::new()))),
                // That nothing is said is no reason to let anything be asked for, nor what was meant to be nothing but the pool.
                _ => match entries(text)? {
                    listed if listed.is_empty() => Err("it is empty".to_owned()),
                    listed => {
                        let listed = listed.iter().map(|entry| entry.range).collect();
                        Ok(Value::Pins(Pins::Pool(listed)))
                    }
                },
            },
            Self::Of(Kind::ShareWith, _) => namespaces(text).map(Value::Names),
            Self::Of(Kind::Quota, _) | Self::NamespaceQuota => match text.parse() {
                Ok(count) => Ok(Value::Count(count)),
                Err(_) => Err("it is no whole number".to_owned()),
            },
            Self::Of(Kind::Overflow, _) => match text {
                "global" => Ok(Value::Bool(true)),
                "none" => Ok(Value::Bool(false)),
                _ => Err("it names no pool to overflow into".to_owned()),
            },
            Self::Of(Kind::AllowShare, _) | Self::SkipEnds | Self::AvoidBuggy => {
                boolean(text).map(Value::Bool)
            }
            Self::SearchOrder => Ok(Value::Bool(text == "desc")),
            Self::ReuseDelay => duration(text).map(Value::Delay),
        }
    }

    /// What an empty list says at this key; nothing where it says nothing, or more than that.
    pub(crate) fn empty(&self) -> Option<&'static str> {
        let Self::Of(kind, _) = self else { return None };
        match kind {
            Kind::Cidr | Kind::Range => Some("it adds no address to the pool"),
            Kind::Exclude => Some("it excludes no address"),
            Kind::Drain => Some("it drains no address"),
            Kind::ShareWith => Some("it names no namespace"),
            _ => None,
        }
    }

    /// Whether its value lists addresses.
    pub(crate) fn lists_addresses(&self) -> bool {
        let Self::Of(kind, _) = self else { return false };
        matches!(kind, Kind::Cidr | Kind::Range | Kind::Exclude | Kind::Drain | Kind::Pins)
    }

    /// What this key accepts, for people.
    pub(crate) fn accepted(&self) -> &'static str {
        match self {
            Self::Of(Kind::Cidr | Kind::Range | Kind::Exclude, _) => {
                "a comma list of prefixes (192.0.2.0/24), ranges (192.0.2.10-192.0.2.20) and addresses, IPv4 or IPv6"
            }
            Self::Of(Kind::Drain, _) => {
                "true, false, or a comma list of prefixes, ranges and addresses"
            }
            Self::Of(Kind::Interface, _) => {
                "the name of a network interface, at most 15 characters, or auto"
            }
            Self::Of(Kind::Quota, _) | Self::NamespaceQuota => "a number of addresses, 0 or more",
            Self::Of(Kind::Pins, _) => {
                "any, pool, or a comma list of prefixes, ranges and addresses that are accepted besides those of the pool"
            }
            Self::Of(Kind::ShareWith, _) => "a comma list of namespaces",
            Self::Of(Kind::Overflow, _) => "global or none",
            Self::Of(Kind::AllowShare, _) | Self::SkipEnds | Self::AvoidBuggy => "true or false",
            Self::SearchOrder => "asc or desc",
            Self::ReuseDelay => "a duration such as 60s, 1m30s or 0s",
        }
    }
}

/// The value of a key that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Entries(Vec<Entry>),
    Bool(bool),
    Count(u64),
    Text(String),
    Delay(Duration),
    Pins(Pins),
    Names(BTreeSet<String>),
}

/// Which addresses may be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pins {
    Any,
    /// Those of a pool that serves the namespace, and these.
    Pool(AddressSet),
}

/// One element of an address list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) range: Range,
    /// Written as a prefix, so that it has a network and a broadcast address.
    pub(crate) is_prefix: bool,
}

/// Reads an address list. One with nothing in it is one: templates leave a key empty that they have no value for.
fn entries(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let range = part.parse().map_err(|error| format!("{error}"))?;
        entries.push(Entry { range, is_prefix: part.contains('/') });
    }
    Ok(entries)
}

/// Names of namespaces (RFC 1123 labels, as Kubernetes has them).
fn namespaces(text: &str) -> Result<BTreeSet<String>, String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    if let Some(bad) = names.clone().find(|name| !is_namespace(name)) {
        return Err(format!("`{}` is no name of a namespace", shown(bad)));
    }
    Ok(names.map(str::to_owned).collect())
}

/// What a namespace can be called (`IsDNS1123Label`).
fn is_namespace(name: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends_in_hyphen = name.starts_with('-') || name.ends_with('-');
    (1..=63).contains(&name.len()) && name.chars().all(is_inner) && !ends_in_hyphen
}

/// The spellings of Go's `strconv.ParseBool`, which the stock provider reads with.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("it is neither true nor false".to_owned()),
    }
}

/// The kernel's rule for interface names (`dev_valid_name` in net/core/dev.c).
fn interface(text: &str) -> Result<String, String> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || !c.is_ascii();
    match text {
        "" => Err("it is empty".to_owned()),
        "." | ".." => Err("no interface can have this name".to_owned()),
        _ if text.len() > 15 => Err(format!("it has {} characters", text.len())),
        _ if text.contains(bad) => {
            Err("it has a character that no interface name can have".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

/// Whole numbers with the units h, m, s and ms, as Go writes durations.
fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let problem = || "it is no duration".to_owned();
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(problem)?;
        let count: u64 = rest[..digits].parse().map_err(|_| problem())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let millis = match &rest[..unit] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(problem()),
        };
        let part = Duration::from_millis(count.checked_mul(millis).ok_or_else(problem)?);
        total = total.checked_add(part).ok_or_else(problem)?;
        rest = &rest[unit..];
    }
    if text.is_empty() { Err(problem()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_shows_of_a_value_is_on_one_line_and_short() {
        let wrote = "a\nb\u{1b}[2J".repeat(10_000);
        let key = Key::parse("cidr-global").unwrap();
        let problem = key.value(&wrote).unwrap_err();
        assert!(problem.len() < 1024 && !problem.contains(char::is_control), "{problem}");
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in
            [("60s", 60_000), ("1m30s", 90_000), ("250ms", 250), ("2h", 7_200_000), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "60", "s", "1x", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_namespace_with_dashes_keeps_its_whole_name() {
        assert_eq!(
            Key::parse("cidr-kube-system"),
            Some(Key::Of(Kind::Cidr, Scope::of("kube-system")))
        );
        assert_eq!(
            Key::parse("allow-share-a-b"),
            Some(Key::Of(Kind::AllowShare, Scope::of("a-b")))
        );
        assert_eq!(
            Key::parse("share-with-share-with-a"),
            Some(Key::Of(Kind::ShareWith, Scope::of("share-with-a")))
        );
        assert_eq!(Key::parse("cidr-"), None);
        assert_eq!(Key::parse("cdir-global"), None);
        // No namespace is called so: who has written it meant something else, and is told.
        let long = format!("cidr-{}", "a".repeat(64));
        for key in ["cidr-Shop", "exclude-Global", "quota-a_b", "pins--a", "range-a.b", &long] {
            assert_eq!(Key::parse(key), None, "{key}");
        }
    }

    #[test]
    fn an_interface_name_is_one_the_kernel_takes() {
        for good in ["eth0", "auto", "bond0.100", "enp3s0f1np1"] {
            assert_eq!(interface(good).as_deref(), Ok(good));
        }
        for bad in ["", ".", "eth0/1", "eth 0", "a-name-of-sixteen"] {
            assert!(interface(bad).is_err(), "{bad}");
        }
    }
}
