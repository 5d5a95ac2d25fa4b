//! What every way of deciding looks at, for tests.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Context;
use crate::kernel::Host;
use crate::vip::Wanted;

/// Of node `a`, which has its interface, refuses nothing and was shown everything.
pub(crate) fn context<'a>(wanted: &'a Wanted, host: &'a Host) -> Context<'a> {
    static NOTHING: BTreeSet<IpAddr> = BTreeSet::new();
    Context {
        wanted,
        all: wanted,
        node: "a",
        host,
        nodes: None,
        usable: true,
        refused: &NOTHING,
        known: true,
        bindings_known: true,
    }
}
