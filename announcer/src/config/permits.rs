//! Which interfaces and VLANs a Service may name for its addresses: whoever writes a Service is a tenant, and the
//! networks of a node are its operator's.

use std::ops::RangeInclusive;

use berth_api::limits::is_interface_name;

use super::settings::{Problem, Settings};

const INTERFACES: &str = "berth_service_interfaces";
const VLANS: &str = "berth_service_vlans";

/// What a Service may name besides the interface of this announcer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permits {
    /// These interfaces; none for all.
    interfaces: Option<Vec<String>>,
    /// VLANs of these numbers; none for all.
    vlans: Option<Vec<RangeInclusive<u16>>>,
}

impl Permits {
    /// Everything, as kube-vip has it.
    pub const ALL: &'static Self = &Self { interfaces: None, vlans: None };

    /// The interfaces that are listed; none where all may be named.
    pub fn interfaces(&self) -> Option<&[String]> {
        self.interfaces.as_deref()
    }

    /// Whether a VLAN may be named.
    pub fn vlan(&self, id: u16) -> bool {
        self.vlans.as_ref().is_none_or(|listed| listed.iter().any(|range| range.contains(&id)))
    }
}

pub(super) fn permits(settings: &Settings) -> Result<Permits, Vec<Problem>> {
    let interface = |text: &str| {
        let accepted =
            "accepted is a comma list of names of interfaces, such as eth1,bond0; empty for none";
        match is_interface_name(text) {
            true => Ok(text.to_owned()),
            false => Err(settings.problem(INTERFACES, accepted)),
        }
    };
    let vlan = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = first.trim().parse().ok().zip(last.trim().parse().ok());
        let valid = |(first, last): &(u16, u16)| 1 <= *first && first <= last && *last <= 4094;
        let accepted = "accepted is a comma list of numbers from 1 to 4094 and ranges of them, such as 5,100-199; empty \
                        for none";
        let (first, last) = range.filter(valid).ok_or_else(|| settings.problem(VLANS, accepted))?;
        Ok(first..=last)
    };
    match (listed(settings, INTERFACES, interface), listed(settings, VLANS, vlan)) {
        (Ok(interfaces), Ok(vlans)) => Ok(Permits { interfaces, vlans }),
        (interfaces, vlans) => Err(interfaces.err().into_iter().chain(vlans.err()).collect()),
    }
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

    #[test]
    fn what_is_not_set_permits_all_and_what_is_empty_nothing() {
        assert_eq!(parse(None, None).as_ref(), Ok(Permits::ALL));
        let none = parse(Some(""), Some(" ")).unwrap();
        assert_eq!(none.interfaces(), Some(&[][..]));
        assert!(!none.vlan(1) && Permits::ALL.vlan(4094));
    }

    #[test]
    fn what_is_listed_is_permitted() {
        let some = parse(Some("eth1, bond0"), Some("5,100-199")).unwrap();
        assert_eq!(some.interfaces(), Some(&["eth1".to_owned(), "bond0".to_owned()][..]));
        let permitted: Vec<u16> =
            [4, 5, 6, 99, 100, 199, 200].into_iter().filter(|id| some.vlan(*id)).collect();
        assert_eq!(permitted, [5, 100, 199]);
    }

    #[test]
    fn what_is_no_list_is_told_with_what_is_accepted() {
        let told = parse(Some("eth1,a/b"), Some("0")).unwrap_err();
        assert!(told[0].contains(INTERFACES) && told[0].contains("eth1,a/b"), "{told:?}");
        assert!(told[1].contains(VLANS) && told[1].contains("1 to 4094"), "{told:?}");
        for vlans in ["4095", "9-5", "x", "5-", "1,,2"] {
            assert!(parse(None, Some(vlans)).is_err(), "{vlans}");
        }
    }
}
