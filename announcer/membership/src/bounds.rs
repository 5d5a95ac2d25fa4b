//! Owns how short and how long leases may be. A view says it, so that it is no node's own setting.

use std::time::Duration;

/// No lease is asked for that is shorter.
pub const SHORTEST: Duration = Duration::from_millis(100);

/// No promise is made that is longer, whatever a view says: whoever cannot know what was promised waits for this one.
pub const LONGEST: Duration = Duration::from_millis(500);

/// What a view that says nothing allows at most. A voter that knows version 2 of the wire waits for no longer promise when it
/// starts, so none may be made while a node may be updated from there, or go back.
const UNSAID: Duration = Duration::from_millis(350);

/// The shortest and the longest lease that voters of a view grant. What every version promises is always within: who says no
/// other is granted that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    floor: Duration,
    ceiling: Duration,
}

/// Why something is no pair of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "leases from {floor:?} to {ceiling:?}: must be from {SHORTEST:?} to {UNSAID:?} and to {LONGEST:?}"
)]
pub struct BoundsError {
    /// The shortest one given.
    pub floor: Duration,
    /// The longest one given.
    pub ceiling: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { floor: SHORTEST, ceiling: UNSAID }
    }
}

impl Bounds {
    /// From the shortest to the longest.
    ///
    /// # Errors
    /// If they are out of bounds themselves.
    pub fn new(floor: Duration, ceiling: Duration) -> Result<Self, BoundsError> {
        if !(SHORTEST..=UNSAID).contains(&floor) || !(UNSAID..=LONGEST).contains(&ceiling) {
            return Err(BoundsError { floor, ceiling });
        }
        Ok(Self { floor, ceiling })
    }

    /// The shortest.
    pub fn floor(&self) -> Duration {
        self.floor
    }

    /// The longest.
    pub fn ceiling(&self) -> Duration {
        self.ceiling
    }

    /// What is granted of what was asked for.
    pub(crate) fn granted(&self, asked: Duration) -> Duration {
        asked.clamp(self.floor, self.ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_nobody_waits_for_are_refused() {
        let bounds = |floor, ceiling| {
            Bounds::new(Duration::from_millis(floor), Duration::from_millis(ceiling))
        };
        assert_eq!(bounds(100, 350), Ok(Bounds::default()));
        assert!(bounds(100, 500).is_ok() && bounds(350, 350).is_ok());
        for (floor, ceiling) in [(99, 350), (100, 501), (351, 500), (100, 349)] {
            assert!(bounds(floor, ceiling).is_err(), "{floor} {ceiling}");
        }
    }
}
