//! Settings as given: from the environment and from flags, each checked against what its variable takes.

use std::collections::BTreeMap;
use std::fmt;

use berth_api::Quoted;

use super::variables::{self, Capability, Kind, Support, VARIABLES, Variable};

/// Why a setting is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable, by its name in the environment.
    pub name: String,
    /// The value that was given.
    pub value: String,
    /// What is accepted, or what else is wrong.
    pub accepted: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}: {}", self.name, Quoted::of(&self.value), self.accepted)
    }
}

/// The settings that were given, by their names in the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    given: BTreeMap<&'static str, String>,
    unknown: Vec<String>,
}

impl Settings {
    /// Takes `flags` over `environment`. A name of the environment that looks like a setting and is none is noted.
    pub fn gather(
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        let mut settings = Self::default();
        for (name, value) in environment {
            match variables::find(&name) {
                Some(variable) => {
                    settings.given.insert(variable.name, value);
                }
                None if name == variables::LOG_FORMAT => {}
                None if variables::FAMILIES.iter().any(|family| name.starts_with(family)) => {
                    settings.unknown.push(name);
                }
                None => {}
            }
        }
        settings.unknown.sort();
        settings.given.extend(flags);
        settings
    }

    /// Names in the environment that begin like settings but are none: misspelt, or newer than this program.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// Lists every setting whose value its variable does not take, and those that ask for what is not built yet, which
    /// is no business of one capability: whoever asks for it waits for something that never comes.
    pub fn check(&self) -> Vec<(Capability, Problem)> {
        let of = |variable: &Variable| match variable.support {
            Support::NotYet => Capability::Core,
            Support::Served | Support::Harmless => variable.of,
        };
        let checked = |variable| Some((of(variable), self.check_one(variable)?));
        VARIABLES.iter().filter_map(checked).collect()
    }

    fn check_one(&self, variable: &Variable) -> Option<Problem> {
        let value = self.text(variable.name)?;
        let accepted = match variable.kind {
            Kind::Switch if switch(value).is_none() => "accepted are true and false".to_owned(),
            Kind::Number(low, high)
                if !number(value).is_some_and(|n| (low..=high).contains(&n)) =>
            {
                format!("accepted is a whole number from {low} to {high}")
            }
            Kind::Word(words) if !words.contains(&value) => {
                format!("accepted are {}", words.join(", "))
            }
            Kind::Switch if variable.support == Support::NotYet && switch(value) == Some(true) => {
                format!("not supported yet ({}); leave it out or set it to false", variable.help)
            }
            Kind::Text(_) if variable.support == Support::NotYet => {
                format!("not supported yet ({}); leave it out", variable.help)
            }
            _ => return None,
        };
        Some(Problem { name: variable.name.to_owned(), value: value.to_owned(), accepted })
    }

    /// The value of a setting without the spaces around it; an empty one counts as not given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The first of `names` that is given.
    pub fn first(&self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().copied().find(|name| self.text(name).is_some())
    }

    /// True if a setting is given and empty.
    pub fn is_empty(&self, name: &str) -> bool {
        self.given.get(name).is_some_and(|value| value.trim().is_empty())
    }

    /// The value of a switch; nothing if it is not given or malformed, which [`Settings::check`] tells.
    pub fn switch(&self, name: &str) -> Option<bool> {
        self.text(name).and_then(switch)
    }

    /// The value of a number; nothing if it is not given or malformed, which [`Settings::check`] tells.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.text(name).and_then(number)
    }

    /// A problem with the value of `name`.
    pub fn problem(&self, name: &str, accepted: impl Into<String>) -> Problem {
        let value = self.text(name).unwrap_or_default().to_owned();
        Problem { name: name.to_owned(), value, accepted: accepted.into() }
    }
}

/// The spellings of Go's `strconv.ParseBool`, which kube-vip reads its environment with.
fn switch(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn number(value: &str) -> Option<i64> {
    value.parse().ok()
}
