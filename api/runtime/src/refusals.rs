//! When a refusal is to be believed. Pure.

use std::time::Duration;

/// So often in a row, [`SOON`] apart, something is refused before it is believed.
const BELIEVED: u32 = 3;
/// The first pauses.
const SOON: Duration = Duration::from_secs(1);
/// The longest.
pub const LATE: Duration = Duration::from_secs(60);

/// How often in a row there was no right to something. An API server that has just begun does not know all roles yet, and
/// refuses for a moment what they grant: 403, as one that is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals(u32);

impl Refusals {
    /// Takes in one more. Gives how long to wait before it is asked again: doubling, once it is believed, up to a minute.
    #[must_use]
    pub fn again(&mut self) -> Duration {
        self.0 = self.0.saturating_add(1);
        let late = self.0.saturating_sub(BELIEVED).min(16);
        SOON.saturating_mul(1 << late).min(LATE)
    }

    /// Whether there surely is no right to it.
    pub fn are_believed(&self) -> bool {
        self.0 >= BELIEVED
    }

    /// Whether it was refused, and not so often that it is believed.
    pub fn are_doubted(&self) -> bool {
        (1..BELIEVED).contains(&self.0)
    }

    /// Whether that is so since the last one.
    pub fn are_news(&self) -> bool {
        self.0 == BELIEVED
    }

    /// It was not refused.
    pub fn end(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_believed_after_three_times_and_then_asked_for_ever_more_rarely() {
        let mut refusals = Refusals::default();
        let seen: Vec<_> = (0..12)
            .map(|_| {
                let pause = refusals.again().as_secs();
                (pause, refusals.are_believed(), refusals.are_news())
            })
            .collect();
        assert_eq!(seen[..3], [(1, false, false), (1, false, false), (1, true, true)]);
        assert_eq!(seen[3..6], [(2, true, false), (4, true, false), (8, true, false)]);
        assert_eq!(seen[11], (60, true, false));
        refusals.end();
        assert!(!refusals.are_believed() && refusals == Refusals::default());
    }
}
