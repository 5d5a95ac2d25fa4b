//! What is wrong with settings, by what they are for.

use super::settings::Problem;
use super::variables::Capability;

/// A setting that is wrong, and what it takes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// What does not run because of it.
    pub capability: Capability,
    /// What is wrong.
    pub problem: Problem,
}

/// Everything that was found wrong so far.
#[derive(Debug)]
pub(super) struct Flaws(Vec<Flaw>);

impl Flaws {
    pub(super) fn new(found: Vec<(Capability, Problem)>) -> Self {
        let flaw = |(capability, problem)| Flaw { capability, problem };
        Self(found.into_iter().map(flaw).collect())
    }

    /// Passes on what the whole process needs, and notes what is wrong with it.
    pub(super) fn core<T, P: Into<Problems>>(&mut self, result: Result<T, P>) -> Option<T> {
        self.of(Capability::Core, result)
    }

    /// Passes on what a capability needs, and notes what is wrong with it.
    pub(super) fn of<T, P: Into<Problems>>(
        &mut self,
        capability: Capability,
        result: Result<T, P>,
    ) -> Option<T> {
        result.map_err(|problems| self.note(capability, problems.into())).ok()
    }

    fn note(&mut self, capability: Capability, problems: Problems) {
        self.0.extend(problems.0.into_iter().map(|problem| Flaw { capability, problem }));
    }

    /// Whether something is wrong with a capability.
    pub(super) fn has(&self, capability: Capability) -> bool {
        self.0.iter().any(|flaw| flaw.capability == capability)
    }

    pub(super) fn into_list(self) -> Vec<Flaw> {
        self.0
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.0.into_iter().map(|flaw| flaw.problem).collect()
    }
}

/// One problem, or several.
pub(super) struct Problems(Vec<Problem>);

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl From<Vec<Problem>> for Problems {
    fn from(problems: Vec<Problem>) -> Self {
        Self(problems)
    }
}
