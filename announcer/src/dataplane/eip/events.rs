//! Which changes in the kernel matter to elastic IPs: of rules and routes that are ours or beside ours.

use super::routes::PREFERENCE;
use super::tables::OURS;
use crate::kernel::events::{Event, Events, Signal};

/// `RT_TABLE_MAIN`.
const MAIN: u32 = 254;

/// Chains of others that have rules of ours.
const HOOKED: [&str; 4] = ["PREROUTING", "POSTROUTING", "INPUT", "FORWARD"];

/// Tells whenever something changed that matters where our route table has this number.
pub(super) fn signal(events: &Events, table: u32) -> Signal {
    events.signal(move |event| matters(event, table))
}

/// Whether an event is about a rule, chain or table that matters to us, a policy rule of our preference, a route of our
/// table, or one of the main table that ours come of.
fn matters(event: &Event<'_>, ours: u32) -> bool {
    let beside = |table: &str, chain: Option<&str>| {
        let chain = chain.is_none_or(|name| name.starts_with(OURS) || HOOKED.contains(&name));
        chain && matches!(table, "nat" | "filter" | "raw")
    };
    match event {
        Event::Lost { table, chain } | Event::NewRule { table, chain } => beside(table, *chain),
        Event::Rule { preference } => *preference == Some(PREFERENCE),
        Event::Route { table, default } => *table == ours || *table == MAIN && *default,
        Event::AnyNetwork | Event::AnyRules => true,
        Event::Network(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: u32 = 190;

    fn lost(table: &str, chain: Option<&str>) -> bool {
        matters(&Event::Lost { table, chain }, TABLE)
    }

    #[test]
    fn only_what_is_ours_or_beside_ours_counts() {
        assert!(lost("nat", None));
        assert!(lost("nat", Some("KUBE-EIP-PREROUTING")));
        let new = Event::NewRule { table: "nat", chain: Some("PREROUTING") };
        assert!(matters(&new, TABLE), "it may stand before ours");
        assert!(!lost("nat", Some("KUBE-SERVICES")));
        assert!(!lost("berth", None));
        assert!(matters(&Event::Route { table: TABLE, default: false }, TABLE));
        assert!(!matters(&Event::Route { table: TABLE + 1, default: true }, TABLE));
        assert!(matters(&Event::Route { table: MAIN, default: true }, TABLE));
        assert!(!matters(&Event::Route { table: MAIN, default: false }, TABLE));
        assert!(matters(&Event::Rule { preference: Some(1001) }, TABLE));
        assert!(!matters(&Event::Rule { preference: None }, TABLE));
    }
}
