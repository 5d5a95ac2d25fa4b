//! Which node the control plane's address is said to be on, by what each control-plane node says of itself in its Lease. For
//! people: nothing is decided by it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Who has not renewed its word for so long may be gone: it is renewed each 20 s.
const SILENT: Duration = Duration::from_secs(60);

/// What nodes say.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    words: BTreeMap<String, Word>,
    /// When the first was heard, until all there are were shown.
    first: Option<Instant>,
    is_listed: bool,
    /// The node that was told of last.
    told: Option<String>,
}

/// What one of them says.
#[derive(Debug)]
struct Word {
    /// The addresses for which it answers.
    announced: BTreeSet<IpAddr>,
    /// When it was written, by the clock of that node.
    renewed: String,
    /// When this process saw that.
    since: Instant,
}

impl Whereabouts {
    /// Takes in for which addresses a node says that it answers, and when it wrote that; nothing if it says nothing any more.
    pub(super) fn hear(
        &mut self,
        node: &str,
        said: Option<(&BTreeSet<IpAddr>, &str)>,
        now: Instant,
    ) {
        let Some((announced, renewed)) = said else {
            self.words.remove(node);
            return;
        };
        let first = *self.first.get_or_insert(now);
        let known = self.words.get(node).filter(|known| known.renewed == renewed);
        let since = known.map_or(if self.is_listed { now } else { first }, |known| known.since);
        let (announced, renewed) = (announced.clone(), renewed.to_owned());
        self.words.insert(node.to_owned(), Word { announced, renewed, since });
    }

    /// Takes in which nodes say anything at all.
    pub(super) fn heard(&mut self, nodes: &BTreeSet<String>) {
        self.words.retain(|node, _| nodes.contains(node));
        self.is_listed = true;
    }

    /// The node that it is said to be on, when that is another one than it was: the one that said so last.
    pub(super) fn turn(&mut self) -> Option<String> {
        let now = self.newest(|word| !word.announced.is_empty()).filter(|_| self.is_listed)?;
        let now = (self.told.as_deref() != Some(now)).then(|| now.to_owned())?;
        self.told = Some(now.clone());
        Some(now)
    }

    /// The node that an address is said to be on, unless that is silent.
    pub(super) fn of(&self, address: &IpAddr, now: Instant) -> Option<&str> {
        self.newest(|word| word.announced.contains(address) && now < word.since + SILENT)
    }

    fn newest(&self, says: impl Fn(&Word) -> bool) -> Option<&str> {
        let words = self.words.iter().filter(|(_, word)| says(word));
        words.max_by_key(|(_, word)| (word.since, &word.renewed)).map(|(node, _)| node.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> IpAddr {
        [192, 0, 2, 100].into()
    }

    fn says(of: &mut Whereabouts, node: &str, has_it: bool, renewed: &str, now: Instant) {
        let announced: BTreeSet<IpAddr> = has_it.then(address).into_iter().collect();
        of.hear(node, Some((&announced, renewed)), now);
    }

    #[test]
    fn it_is_on_the_node_that_said_so_last_and_each_change_is_told_once() {
        let (mut of, start) = (Whereabouts::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        // n2 died with it, and n1 has it since.
        says(&mut of, "n1", true, "2026-01-01T00:01:00Z", at(0));
        says(&mut of, "n2", true, "2026-01-01T00:00:00Z", at(1));
        says(&mut of, "n3", false, "2026-01-01T00:02:00Z", at(1));
        assert_eq!(of.turn(), None, "not all are known");
        of.heard(&["n1", "n2", "n3"].map(str::to_owned).into());
        assert_eq!(of.turn().as_deref(), Some("n1"));
        assert_eq!(of.of(&address(), at(1)), Some("n1"));
        assert_eq!((of.turn(), of.of(&[192, 0, 2, 101].into(), at(1))), (None, None));
        says(&mut of, "n3", true, "2026-01-01T00:02:01Z", at(2));
        assert_eq!((of.turn(), of.turn()), (Some("n3".to_owned()), None));
        says(&mut of, "n3", false, "2026-01-01T00:02:02Z", at(3));
        says(&mut of, "n1", false, "2026-01-01T00:02:02Z", at(3));
        of.heard(&["n1", "n3"].map(str::to_owned).into());
        assert_eq!((of.turn(), of.of(&address(), at(3))), (None, None));
    }

    #[test]
    fn nothing_is_said_to_be_on_a_node_that_is_silent() {
        let (mut of, start) = (Whereabouts::default(), Instant::now());
        says(&mut of, "n1", true, "2026-01-01T00:01:00Z", start);
        assert_eq!(of.of(&address(), start + SILENT / 2), Some("n1"));
        assert_eq!(of.of(&address(), start + SILENT), None);
        of.hear("n1", None, start);
        assert_eq!(of.of(&address(), start), None);
    }
}
