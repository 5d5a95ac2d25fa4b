//! Every candidate may have an address: its routers choose among those that tell them of it. Pure.

use std::time::{Duration, Instant};

use super::context::Context;
use crate::vip::{Hold, Holds, Vip};

/// The kernel drops an address that nobody renews for so long.
const KEPT: Duration = Duration::from_secs(60);

/// How far the lifetime of a bound address may fall behind before it is renewed.
const SLACK: Duration = Duration::from_secs(20);

/// Every candidate owns.
#[derive(Clone, Debug, Default)]
pub struct Everyone {
    leaving: bool,
}

impl Everyone {
    /// What this node may have bound.
    pub fn holds(&self, context: Context<'_>, now: Instant) -> Holds {
        if self.leaving || !context.known {
            return Holds::new();
        }
        let serves = |vip: &Vip| vip.wants.iter().any(|w| w.candidates.contains(context.node));
        let mine = context.wanted.addressed().filter(|(_, vip)| serves(vip));
        mine.map(|(address, _)| (address, Hold { until: now + KEPT, answers: true })).collect()
    }

    /// How far the lifetime of a bound address may fall behind before it is renewed.
    pub fn slack(&self) -> Duration {
        SLACK
    }

    /// From now on holds nothing.
    pub fn leave(&mut self) {
        self.leaving = true;
    }
}
