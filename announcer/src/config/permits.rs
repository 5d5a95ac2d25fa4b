//! Which interfaces and VLANs a Service may name for its addresses: whoever writes a Service is a tenant, and the
//! networks of a node are its operator's.

use std::ops::RangeInclusive;

use berth_api::limits::{is_interface_name, is_object_name};

use super::settings::{Problem, Settings};

const INTERFACES: &str = "berth_service_interfaces";
const VLANS: &str = "berth_service_vlans";

/// What a Service may name besides the interface of this announcer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permits {
    /// These interfaces; none for all.
    interfaces: Option<Vec<Listed<String>>>,
    /// VLANs of these numbers; none for all.
    vlans: Option<Vec<Listed<RangeInclusive<u16>>>>,
}

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed<T> {
    /// The namespace whose Services may name it; none for those of all.
    namespace: Option<String>,
    what: T,
}

impl<T> Listed<T> {
    fn is_for(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
    }
}

impl Permits {
    /// Everything, as kube-vip has it.
    pub const ALL: &'static Self = &Self { interfaces: None, vlans: None };

    /// Whether Services of the namespace may name an interface that is one of these, by `is_it`.
    pub fn interface(&self, namespace: &str, is_it: impl Fn(&str) -> bool) -> bool {
        let is_listed = |listed: &Listed<String>| listed.is_for(namespace) && is_it(&listed.what);
        self.interfaces.as_ref().is_none_or(|all| all.iter().any(is_listed))
    }

    /// Whether Services of the namespace may name a VLAN.
    pub fn vlan(&self, namespace: &str, id: u16) -> bool {
        let is_listed = |listed: &Listed<RangeInclusive<u16>>| {
            listed.is_for(namespace) && listed.what.contains(&id)
        };
        self.vlans.as_ref().is_none_or(|all| all.iter().any(is_listed))
    }
}

pub(super) fn permits(settings: &Settings) -> Result<Permits, Vec<Problem>> {
    let interface = |text: &str| {
        let accepted = "accepted is a comma list of names of interfaces, each for all namespaces or for one, such as \
                        eth1,shop/bond0; empty for none";
        let entry = |name: &str| is_interface_name(name).then(|| name.to_owned());
        listed_for(text, entry).ok_or_else(|| settings.problem(INTERFACES, accepted))
    };
    let vlan = |text: &str| {
        let accepted = "accepted is a comma list of numbers from 1 to 4094 and ranges of them, each for all namespaces or \
                        for one, such as 5,shop/100-199; empty for none";
        listed_for(text, numbers).ok_or_else(|| settings.problem(VLANS, accepted))
    };
    match (listed(settings, INTERFACES, interface), listed(settings, VLANS, vlan)) {
        (Ok(interfaces), Ok(vlans)) => Ok(Permits { interfaces, vlans }),
        (interfaces, vlans) => Err(interfaces.err().into_iter().chain(vlans.err()).collect()),
    }
}

fn numbers(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (1 <= first && first <= last && last <= 4094).then_some(first..=last)
}

/// An entry, for all namespaces or for the one before a slash, which no interface has in its name.
fn listed_for<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<Listed<T>> {
    let Some((namespace, text)) = text.split_once('/') else {
        return Some(Listed { namespace: None, what: read(text)? });
    };
    let is_namespace =
        is_object_name(namespace) && !namespace.contains('.') && namespace.len() < 64;
    let namespace = Some(namespace.to_owned()).filter(|_| is_namespace)?;
    Some(Listed { namespace: Some(namespace), what: read(text)? })
}

/// The entries of a list; none where it is not set.
fn listed<T>(
    settings: &Settings,
    name: &str,
    read: impl Fn(&str) -> Result<T, Problem>,
) -> Result<Option<Vec<T>>, Problem> {
    match settings.text(name) {
        Some(text) => text.split(',').map(str::trim).map(read).collect::<Result<_, _>>().map(Some),
        None => Ok(settings.is_empty(name).then(Vec::new)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(interfaces: Option<&str>, vlans: Option<&str>) -> Result<Permits, Vec<String>> {
        let given = [(INTERFACES, interfaces), (VLANS, vlans)];
        let given =
            given.into_iter().filter_map(|(name, value)| Some((name.into(), value?.into())));
        let permits = permits(&Settings::gather(given, []));
        permits
            .map_err(|problems| problems.into_iter().map(|problem| problem.to_string()).collect())
    }

    /// Of some, those that a namespace may name.
    fn permitted(permits: &Permits, namespace: &str) -> (Vec<&'static str>, Vec<u16>) {
        let names = ["eth0", "eth1", "bond0"].into_iter();
        let names = names.filter(|name| permits.interface(namespace, |listed| listed == *name));
        let ids = [4, 5, 6, 99, 100, 199, 200].into_iter();
        (names.collect(), ids.filter(|id| permits.vlan(namespace, *id)).collect())
    }

    #[test]
    fn what_is_not_set_permits_all_and_what_is_empty_nothing() {
        assert_eq!(parse(None, None).as_ref(), Ok(Permits::ALL));
        assert_eq!(permitted(Permits::ALL, "shop").0.len(), 3);
        assert!(Permits::ALL.vlan("shop", 4094));
        assert_eq!(permitted(&parse(Some(""), Some(" ")).unwrap(), "shop"), (vec![], vec![]));
    }

    #[test]
    fn what_is_listed_is_permitted_to_all_or_to_the_namespace_that_is_named() {
        let some = parse(Some("eth1, shop/bond0"), Some("5,shop/100-199, blog/6")).unwrap();
        assert_eq!(permitted(&some, "shop"), (vec!["eth1", "bond0"], vec![5, 100, 199]));
        assert_eq!(permitted(&some, "blog"), (vec!["eth1"], vec![5, 6]));
        assert_eq!(permitted(&some, "mallory"), (vec!["eth1"], vec![5]));
    }

    #[test]
    fn what_is_no_list_is_told_with_what_is_accepted() {
        let told = parse(Some("eth1,a/b/c"), Some("0")).unwrap_err();
        assert!(told[0].contains(INTERFACES) && told[0].contains("eth1,a/b/c"), "{told:?}");
        assert!(told[1].contains(VLANS) && told[1].contains("1 to 4094"), "{told:?}");
        for vlans in ["4095", "9-5", "x", "5-", "1,,2", "shop/", "/5", "a.b/5", "Shop/5"] {
            assert!(parse(None, Some(vlans)).is_err(), "{vlans}");
        }
        for interfaces in ["shop/", "/eth1", "a.b/eth1", "shop/eth1/2"] {
            assert!(parse(Some(interfaces), None).is_err(), "{interfaces}");
        }
    }
}
