//! What the run cost.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

/// How many of the slowest tests are named.
const SLOWEST: usize = 20;

/// How a test went.
pub(crate) struct Outcome {
    /// The test program.
    pub(crate) suite: String,
    /// The test's whole name.
    pub(crate) name: String,
    /// How long it ran.
    pub(crate) took: Duration,
    /// What a failed one said first of why; empty if it passed.
    pub(crate) reason: String,
    /// Whether it passed.
    pub(crate) passed: bool,
}

/// At most so many characters of a reason are shown where the run ends.
const REASON: usize = 300;

/// The line of what a failed test printed that says why it failed.
pub(crate) fn reason(printed: &str) -> String {
    let mut lines = printed.lines();
    let error = lines.clone().find(|line| line.starts_with("Error: "));
    // What a panic says comes after the line that says where.
    let panic = || lines.find(|line| line.contains(" panicked at ")).and_then(|_| lines.next());
    error.or_else(panic).unwrap_or_default().chars().take(REASON).collect()
}

/// The tables that end a run. The seconds of suites are the sums of their tests', which may have run beside others.
pub(crate) fn render(outcomes: &[Outcome], total: Duration) -> String {
    let mut text = String::new();
    let mut suites: BTreeMap<&str, (usize, usize, Duration)> = BTreeMap::new();
    for outcome in outcomes {
        let (tests, failed, took) = suites.entry(&outcome.suite).or_default();
        *tests += 1;
        *failed += usize::from(!outcome.passed);
        *took += outcome.took;
    }
    text.push_str("\n| suite | tests | failed | seconds |\n|---|---|---|---|\n");
    for (suite, (tests, failed, took)) in &suites {
        let _ = writeln!(text, "| {suite} | {tests} | {failed} | {:.1} |", took.as_secs_f64());
    }
    let mut slowest: Vec<&Outcome> = outcomes.iter().collect();
    slowest.sort_by_key(|outcome| std::cmp::Reverse(outcome.took));
    text.push_str("\n| the slowest | seconds |\n|---|---|\n");
    for outcome in slowest.iter().take(SLOWEST) {
        let _ = writeln!(text, "| {} | {:.1} |", outcome.name, outcome.took.as_secs_f64());
    }
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.passed).collect();
    for outcome in &failed {
        let _ = writeln!(text, "\nFAILED: {}\n  {}", outcome.name, outcome.reason);
    }
    let passed = outcomes.len() - failed.len();
    let _ = writeln!(text, "\nall tests took {:.0} s", total.as_secs_f64());
    let _ = writeln!(text, "\n{passed} passed, {} failed", failed.len());
    text
}
