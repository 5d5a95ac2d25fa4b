//! How long each test took when it ran last, so that the longest begin first: one that begins last has all others wait for it.

use std::{collections::BTreeMap, fs, path::Path};

use crate::{found::Test, report::Outcome};

/// By the name of a test, its seconds.
pub(crate) struct Past(BTreeMap<String, f64>);

impl Past {
    /// As the last runs have left it; nothing where there was none.
    pub(crate) fn read(file: &Path) -> Self {
        let text = fs::read(file).unwrap_or_default();
        Self(serde_json::from_slice(&text).unwrap_or_default())
    }

    /// The longest first, and before them those that never ran, in the order in which they are given.
    pub(crate) fn sort(&self, tests: &mut [Test]) {
        let seconds = |test: &Test| self.0.get(&test.name()).copied().unwrap_or(f64::INFINITY);
        tests.sort_by(|one, other| seconds(other).total_cmp(&seconds(one)));
    }

    /// Adds how long those took that passed. A file that cannot be written costs the next run its order.
    pub(crate) fn write(mut self, outcomes: &[Outcome], file: &Path) {
        let passed = outcomes.iter().filter(|outcome| outcome.passed);
        self.0.extend(passed.map(|outcome| (outcome.name.clone(), outcome.took.as_secs_f64())));
        _ = serde_json::to_vec(&self.0).map(|text| fs::write(file, text));
    }
}
