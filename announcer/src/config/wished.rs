//! What `address` says of the control plane: addresses, and names that have some.

use std::fmt;
use std::net::IpAddr;

use berth_api::limits::is_object_name;
use berth_api::{Family, Quoted};

use super::addresses::{self, usable};
use super::settings::{Problem, Settings};

const MODE: &str = "dns_mode";

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wished {
    /// An address.
    Address(IpAddr),
    /// A name, in small letters, whose addresses are asked for.
    Name(String),
}

impl fmt::Display for Wished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// Which addresses of a name are used (`dns_mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Families {
    /// One: of IPv4 where it has such a one, else of IPv6.
    #[default]
    First,
    /// One of this family.
    Only(Family),
    /// One of each.
    Dual,
}

/// Which of what a name has is used, one of each family that is asked for: of what is `known` what it still has, since the order
/// of an answer means nothing; else the lowest, which is the same one on every node.
///
/// # Errors
/// The family of which it has none that one host of a LAN could have.
pub fn choose(
    families: Families,
    answer: &[IpAddr],
    known: &[IpAddr],
) -> Result<Vec<IpAddr>, Option<Family>> {
    let fit = |address: &&IpAddr| usable(&address.to_string()).is_some();
    let of = |family: Family| {
        let own = || answer.iter().filter(fit).filter(|address| Family::of(address) == family);
        own().filter(|address| known.contains(address)).min().or_else(|| own().min()).copied()
    };
    let one = |family: Family| of(family).ok_or(Some(family));
    match families {
        Families::First => {
            let kept = known.iter().find(|known| answer.contains(known));
            let first = kept.copied().or_else(|| Family::ALL.into_iter().find_map(of));
            first.map(|one| vec![one]).ok_or(None)
        }
        Families::Only(family) => one(family).map(|one| vec![one]),
        Families::Dual => Family::ALL.into_iter().map(one).collect(),
    }
}

/// What is wished, in its order. `beside` is the setting that needs it.
pub(super) fn wished(settings: &Settings, beside: &str) -> Result<Vec<Wished>, Problem> {
    let name = addresses::setting(settings);
    let text = settings.text(name).unwrap_or_default();
    let mut all: Vec<Wished> = Vec::new();
    for text in text.split(',').map(str::trim) {
        let lower = text.to_lowercase();
        let lower = lower.strip_suffix('.').unwrap_or(&lower);
        let found = match (usable(text), text.parse::<IpAddr>()) {
            (Some(address), _) => Ok(Wished::Address(address)),
            (None, Ok(address)) if address.is_loopback() => Err("is a loopback address"),
            (None, Ok(address)) if address.is_multicast() => Err("is a multicast address"),
            (None, Ok(_)) => Err("is no address of a host"),
            (None, Err(_)) if is_name(lower) => Ok(Wished::Name(lower.to_owned())),
            (None, Err(_)) => Err("is no address, and no name that could have one"),
        };
        let why = match found {
            Ok(found) if !all.contains(&found) => {
                all.push(found);
                continue;
            }
            Ok(_) => "stands there twice",
            Err(why) => why,
        };
        let accepted = format!(
            "{} {why}; accepted beside {beside} is a comma list of different addresses and names, such as \
             192.0.2.1,2001:db8::1 or api.example.org",
            Quoted::of(text)
        );
        return Err(settings.problem(name, accepted));
    }
    Ok(all)
}

/// Whether it may be asked for (RFC 1123, section 2.1): what ends in a number alone is meant for an address.
fn is_name(text: &str) -> bool {
    let last = text.rsplit('.').next().unwrap_or_default();
    is_object_name(text) && !last.bytes().all(|digit| digit.is_ascii_digit())
}

/// Which addresses of names are used; kube-vip takes the word in letters of any size (kube-vip#1684).
pub(super) fn families(settings: &Settings) -> Families {
    match settings.text(MODE).unwrap_or_default().to_lowercase().as_str() {
        "ipv4" => Families::Only(Family::V4),
        "ipv6" => Families::Only(Family::V6),
        "dual" => Families::Dual,
        // Whatever else it may say is told by the table.
        _ => Families::First,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn chosen(
        families: Families,
        answer: &[&str],
        known: &[&str],
    ) -> Result<Vec<String>, Option<Family>> {
        let found = choose(families, &addresses(answer), &addresses(known))?;
        Ok(found.iter().map(ToString::to_string).collect())
    }

    fn given(address: &str) -> Result<Vec<String>, String> {
        let settings = Settings::gather([("address".to_owned(), address.to_owned())], []);
        let all = wished(&settings, "cp_enable").map_err(|problem| problem.to_string())?;
        Ok(all.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn whatever_the_order_of_an_answer_all_nodes_choose_the_same_of_each_family() {
        let answer = ["2001:db8::9", "192.0.2.9", "192.0.2.8", "2001:db8::8"];
        assert_eq!(chosen(Families::First, &answer, &[]).unwrap(), ["192.0.2.8"]);
        assert_eq!(chosen(Families::Only(Family::V6), &answer, &[]).unwrap(), ["2001:db8::8"]);
        assert_eq!(chosen(Families::Dual, &answer, &[]).unwrap(), ["192.0.2.8", "2001:db8::8"]);
        assert_eq!(chosen(Families::First, &answer[..1], &[]).unwrap(), ["2001:db8::9"]);
    }

    #[test]
    fn what_is_used_is_kept_for_as_long_as_the_name_has_it() {
        let answer = ["192.0.2.8", "192.0.2.9", "2001:db8::9"];
        assert_eq!(chosen(Families::First, &answer, &["192.0.2.9"]).unwrap(), ["192.0.2.9"]);
        assert_eq!(chosen(Families::First, &answer, &["2001:db8::9"]).unwrap(), ["2001:db8::9"]);
        let known = ["192.0.2.9", "2001:db8::9"];
        assert_eq!(chosen(Families::Dual, &answer, &known).unwrap(), known);
        assert_eq!(chosen(Families::Dual, &answer, &["192.0.2.7"]).unwrap()[0], "192.0.2.8");
    }

    #[test]
    fn a_family_without_an_address_is_named_and_what_no_lan_has_counts_for_none() {
        assert_eq!(chosen(Families::Dual, &["192.0.2.8"], &[]), Err(Some(Family::V6)));
        assert_eq!(
            chosen(Families::Only(Family::V4), &["2001:db8::8"], &[]),
            Err(Some(Family::V4))
        );
        assert_eq!(chosen(Families::First, &["127.0.1.1", "::1"], &[]), Err(None));
    }

    #[test]
    fn names_stand_beside_addresses_and_what_is_neither_is_refused() {
        let all = "API.example.org, 2001:db8::1,k8s,vip.example.org.";
        let expected = ["api.example.org", "2001:db8::1", "k8s", "vip.example.org"];
        assert_eq!(given(all).unwrap(), expected);
        for (bad, why) in [
            ("", "is no address, and no name"),
            ("192.0.2.300", "is no address, and no name"),
            ("api_1.example.org", "is no address, and no name"),
            ("https://api", "is no address, and no name"),
            ("::1", "is a loopback address"),
            ("a.example,A.example", "stands there twice"),
        ] {
            let told = given(bad).unwrap_err();
            assert!(told.contains(why), "{bad}: {told}");
        }
    }

    #[test]
    fn the_mode_is_read_in_letters_of_any_size() {
        let of = |mode: &str| {
            families(&Settings::gather([("dns_mode".to_owned(), mode.to_owned())], []))
        };
        assert_eq!(of("IPv4"), Families::Only(Family::V4));
        assert_eq!(
            (of("DUAL"), of("first"), of("")),
            (Families::Dual, Families::First, Families::First)
        );
    }
}
