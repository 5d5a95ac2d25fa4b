//! What is one announcer's own on a node: every name and number by which it finds again what it put into the kernel. Two
//! announcers on one node, as the static pod of the control plane and the DaemonSet for Services, share none of them.

use std::fmt;

/// The announcer for Services: what it had before instances had names, so that an upgrade leaves nothing behind.
const SERVICES: (&str, u8) = ("svc", 190);
/// The announcer for the control plane.
const CONTROL_PLANE: (&str, u8) = ("cp", 191);
/// One announcer for both.
const BOTH: (&str, u8) = ("cp-svc", 192);
/// The numbers of all others, by their names. kube-vip tags with 248.
const OTHERS: std::ops::Range<u8> = 193..248;

/// The lock of a node on which addresses cannot be tagged: one instance runs there.
pub(crate) const UNTAGGED: &str = "berth-announcer/untagged";

/// Longest name: it is part of the names of nftables tables and filters.
pub const LONGEST_NAME: usize = 40;

/// One announcer of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    name: String,
    number: u8,
}

/// A name that no instance can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("accepted are 1 to {LONGEST_NAME} of a-z, 0-9 and -, beginning with a letter or digit")]
pub struct InvalidName;

impl Instance {
    /// The announcer for Services.
    pub fn services() -> Self {
        Self::known(SERVICES)
    }

    /// The announcer that serves the control plane, Services, or both.
    pub fn of_roles(control_plane: bool, services: bool) -> Self {
        Self::known(match (control_plane, services) {
            (true, true) => BOTH,
            (true, false) => CONTROL_PLANE,
            (false, _) => SERVICES,
        })
    }

    /// The announcer of this name.
    ///
    /// # Errors
    /// When names in the kernel cannot be made of it.
    pub fn named(name: &str) -> Result<Self, InvalidName> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let valid = !name.is_empty() && name.len() <= LONGEST_NAME && name.chars().all(plain);
        if !valid || name.starts_with('-') {
            return Err(InvalidName);
        }
        let known = [SERVICES, CONTROL_PLANE, BOTH].into_iter().find(|(known, _)| *known == name);
        Ok(known.map_or_else(|| Self { name: name.to_owned(), number: number(name) }, Self::known))
    }

    fn known((name, number): (&str, u8)) -> Self {
        Self { name: name.to_owned(), number }
    }

    /// The announcer that has given a table or a filter this name, if they begin with `prefix`.
    pub fn of_mark(prefix: &str, mark: &str) -> Option<Self> {
        match mark.strip_prefix(prefix)? {
            "" => Some(Self::services()),
            rest => Self::named(rest.strip_prefix('-')?).ok(),
        }
    }

    /// An announcer of which only the number is known.
    pub fn numbered(number: u8) -> Self {
        let known = [SERVICES, CONTROL_PLANE, BOTH].into_iter().find(|(_, of)| *of == number);
        known.map_or_else(|| Self { name: String::new(), number }, Self::known)
    }

    /// Its name; empty where only its number is known.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number that its addresses carry as their protocol (`IFA_PROTO`), its routes and rules as theirs
    /// (`RTA_PROTOCOL`), its interfaces as their group, and that its route table has. Two names may share a number: they
    /// cannot run on one node at the same time ([`Instance::locks`]).
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Whether this is the number of an instance, whichever.
    pub fn is_number(number: u8) -> bool {
        [SERVICES.1, CONTROL_PLANE.1, BOTH.1].contains(&number) || OTHERS.contains(&number)
    }

    /// Whether it may translate elastic IPs. Their sets and chains have the names of the contract, which are there once
    /// on a node: they are those of the announcer that serves Services.
    pub fn translates(&self) -> bool {
        [SERVICES.1, BOTH.1].contains(&self.number)
    }

    /// The name of its nftables tables, in every family.
    pub fn table(&self) -> String {
        match self.number == SERVICES.1 {
            true => "berth".to_owned(),
            false => format!("berth-{}", self.name),
        }
    }

    /// What it holds on the node while it runs, so that no other instance sweeps it: one lock for its name, one for its
    /// number, and one for the sets and chains of the contract where it may make them.
    pub fn locks(&self) -> Vec<String> {
        let mut locks = vec![format!("{self}"), format!("berth-announcer/{}", self.number)];
        locks.extend(self.translates().then(|| "berth-announcer/eip".to_owned()));
        locks
    }
}

/// The name of its process to other processes of the node.
impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number == SERVICES.1 {
            true => f.write_str("berth-announcer"),
            false => write!(f, "berth-announcer-{}", self.name),
        }
    }
}

/// A number for a name that has none of its own (FNV-1a).
fn number(name: &str) -> u8 {
    let sum = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let room = u64::from(OTHERS.end - OTHERS.start);
    OTHERS.start + u8::try_from(sum % room).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announcer_for_services_keeps_what_it_had() {
        let services = Instance::services();
        assert_eq!((services.table().as_str(), services.number()), ("berth", 190));
        assert_eq!(services.to_string(), "berth-announcer");
        assert_eq!(Instance::named("svc"), Ok(services));
    }

    #[test]
    fn the_usual_pair_on_one_node_shares_nothing() {
        let (one, other) = (Instance::of_roles(true, false), Instance::services());
        assert_ne!(one.number(), other.number());
        assert_ne!(one.table(), other.table());
        assert!(one.locks().iter().all(|lock| !other.locks().contains(lock)));
    }

    #[test]
    fn an_instance_is_known_by_what_it_names() {
        let edge = Instance::named("edge").unwrap();
        for instance in [Instance::services(), Instance::of_roles(true, false), edge] {
            assert_eq!(Instance::of_mark("berth", &instance.table()), Some(instance));
        }
        for mark in ["berth-announcer/lock", "berth-", "berthold", "berth_x", "filter"] {
            assert_eq!(Instance::of_mark("berth", mark), None, "{mark}");
        }
        assert_eq!(Instance::numbered(191), Instance::of_roles(true, false));
        assert_eq!(Instance::numbered(200).name(), "");
    }

    #[test]
    fn a_name_of_ones_own_has_a_number_that_no_role_has_and_a_bad_one_is_refused() {
        let proxy = Instance::named("192-0-2-1").unwrap();
        assert!(OTHERS.contains(&proxy.number()));
        for name in ["", "-x", "A", "a b", "a/b", &"a".repeat(41)] {
            assert_eq!(Instance::named(name), Err(InvalidName), "{name}");
        }
    }
}
