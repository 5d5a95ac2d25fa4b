//! Owns the names and numbers by which one fence of a node is told from another: two announcers on one node have one
//! each, and neither ever touches what the other put into the kernel.

/// The number of the fence for Services. All that it has in the kernel is named as before there were others.
const SERVICES: u8 = 190;

/// How the names of all fences begin.
const NAME: &str = "berth-fence";

/// Longest name of an instance.
const LONGEST: usize = 64;

/// Whose fence it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    name: String,
    number: u8,
}

/// A name or number of which no names in the kernel can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "fence of instance {name:?}, number {number}: accepted are a name of 1 to {LONGEST} of a-z, 0-9 and - and a number \
     of at least {SERVICES}"
)]
pub struct InvalidInstance {
    /// The name given.
    pub name: String,
    /// The number given.
    pub number: u8,
}

impl Instance {
    /// The fence for Services.
    pub fn services() -> Instance {
        Instance { name: String::new(), number: SERVICES }
    }

    /// The fence of another announcer, by its name and number. Two that run on one node share neither. The number 190
    /// is that of Services, whatever the name.
    ///
    /// # Errors
    /// When names in the kernel cannot be made of it.
    pub fn of(name: &str, number: u8) -> Result<Instance, InvalidInstance> {
        let plain =
            |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-';
        let valid = (1..=LONGEST).contains(&name.len()) && name.bytes().all(plain);
        match number {
            SERVICES => Ok(Instance::services()),
            SERVICES.. if valid => Ok(Instance { name: name.to_owned(), number }),
            _ => Err(InvalidInstance { name: name.to_owned(), number }),
        }
    }

    fn is_services(&self) -> bool {
        self.number == SERVICES
    }

    /// The name of its filters and of its nftables table.
    pub(crate) fn name(&self) -> String {
        if self.is_services() { NAME.to_owned() } else { format!("{NAME}-{}", self.name) }
    }

    /// The name that an earlier Berth, which removed the clsact qdisc when it went, gave to its filters.
    pub(crate) fn former_name(&self) -> Option<String> {
        self.is_services().then(|| format!("{NAME}+clsact"))
    }

    /// The handle of its filter in this place.
    pub(crate) fn handle(&self, place: u8) -> u32 {
        u32::from(self.number) << 8 | u32::from(place)
    }

    /// What a program or map is called, which is at most 15 letters long.
    pub(crate) fn object(&self, what: &str) -> String {
        if self.is_services() {
            return what.to_owned();
        }
        let number = format!("_{}", self.number);
        format!("{}{number}", what.get(..15 - number.len()).unwrap_or(what))
    }

    /// Whether a filter of this name and handle is one of the fences of Berth, whosever: it passes on what it does not
    /// drop.
    pub(crate) fn is_any(name: &str, handle: u32) -> bool {
        let named = name
            .strip_prefix(NAME)
            .is_some_and(|rest| matches!(rest.bytes().next(), None | Some(b'-' | b'+')));
        named && (u32::from(SERVICES)..=u32::from(u8::MAX)).contains(&(handle >> 8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fence_for_services_keeps_the_names_it_had() {
        let services = Instance::services();
        assert_eq!(services.name(), "berth-fence");
        assert_eq!(services.former_name().as_deref(), Some("berth-fence+clsact"));
        assert_eq!((services.handle(1), services.handle(2)), (0xbe01, 0xbe02));
        assert_eq!(services.object("berth_deadlines"), "berth_deadlines");
        assert_eq!(Instance::of("svc", 190), Ok(services));
    }

    #[test]
    fn another_shares_nothing_with_it_and_fits_the_kernel() {
        let other = Instance::of("cp", 191).unwrap();
        assert_eq!(other.name(), "berth-fence-cp");
        assert_eq!((other.handle(1), other.handle(2)), (0xbf01, 0xbf02));
        assert_eq!(other.object("berth_deadlines"), "berth_deadl_191");
        assert_eq!(other.object("berth_slots"), "berth_slots_191");
        assert_eq!(other.former_name(), None);
    }

    #[test]
    fn what_nft_could_not_read_is_refused() {
        for (name, number) in [("", 191), ("a b", 191), ("a\"", 191), ("cp", 189)] {
            assert!(Instance::of(name, number).is_err(), "{name} {number}");
        }
    }

    #[test]
    fn a_fence_of_berth_is_known_whosever_it_is() {
        assert!(
            Instance::is_any("berth-fence", 0xbe01) && Instance::is_any("berth-fence-cp", 0xbf02)
        );
        assert!(!Instance::is_any("berth-fencer", 0xbe01) && !Instance::is_any("berth-fence", 1));
    }
}
