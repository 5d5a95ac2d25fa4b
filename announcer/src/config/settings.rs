//! Settings as given: from the environment and from flags, each checked against what its variable takes.

use std::collections::BTreeMap;
use std::fmt;

use berth_api::Quoted;
use berth_api::limits::is_namespace;

use super::table::{VARIABLES, find};
use super::variables::{self, Capability, Kind, Variable, Verdict};

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

/// What is sound where there are no problems, or all of these.
pub(crate) fn unless<T, P>(problems: Vec<P>, sound: T) -> Result<T, Vec<P>> {
    if problems.is_empty() { Ok(sound) } else { Err(problems) }
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
    noted: Vec<Problem>,
}

impl Settings {
    /// Takes `flags` over `environment`. A name of the environment that looks like a setting and is none is noted.
    pub fn gather(
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Self {
        let mut settings = Self::default();
        for (name, value) in environment {
            match find(&name) {
                // The name in small letters counts where both are there.
                Some(variable) if variable.name == name => {
                    settings.given.insert(variable.name, value);
                }
                Some(variable) => {
                    settings.given.entry(variable.name).or_insert(value);
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

    /// Takes a value where nothing else says one.
    pub(super) fn below(&mut self, name: &'static str, value: String) {
        if self.text(name).is_none() {
            self.given.insert(name, value);
        }
    }

    /// Notes what is no setting.
    pub(super) fn ignore(&mut self, name: String) {
        self.unknown.push(name);
    }

    /// Notes what is wrong with where settings come from.
    pub(super) fn note(&mut self, problem: Problem) {
        self.noted.push(problem);
    }

    /// Names in the environment that begin like settings but are none: misspelt, or newer than this program.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// Lists every setting whose value its variable does not take, and those that ask for what is not built, which is no
    /// business of one capability: whoever asks for it waits for something that never comes.
    pub fn check(&self) -> Vec<(Capability, Problem)> {
        let of = |variable: &Variable| match variable.verdict {
            Verdict::NotYet(_) | Verdict::Refused(_) if variable.with.is_empty() => {
                Capability::Core
            }
            _ => variable.of,
        };
        let checked = |variable| Some((of(variable), self.check_one(variable)?));
        let noted = self.noted.iter().map(|problem| (Capability::Core, problem.clone()));
        noted.chain(VARIABLES.iter().filter_map(checked)).collect()
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
            Kind::Word(words) if !is_word(words, value, variable.name) => {
                format!("accepted are {}", words.join(", "))
            }
            Kind::Namespace if !is_namespace(value) => {
                "accepted is the name of a namespace: at most 63 small letters, digits and hyphens"
                    .to_owned()
            }
            _ if variable.with.is_empty() && self.asks(variable) => self.unmet(variable)?,
            _ => return None,
        };
        Some(Problem { name: variable.name.to_owned(), value: value.to_owned(), accepted })
    }

    /// Whether what was given asks for what the variable stands for.
    pub fn asks(&self, variable: &Variable) -> bool {
        match (variable.kind, self.text(variable.name)) {
            (_, None) => false,
            (Kind::Switch, Some(value)) => switch(value) == Some(true),
            (Kind::Word(_), Some(value)) => value != variable.theirs,
            (Kind::Number(..) | Kind::Text(_) | Kind::Namespace, Some(_)) => true,
        }
    }

    /// Whether a setting that counts with another counts: that one asks for something.
    pub fn counts(&self, variable: &Variable) -> bool {
        variable.with.is_empty() || find(variable.with).is_some_and(|other| self.asks(other))
    }

    fn unmet(&self, variable: &Variable) -> Option<String> {
        let out = match variable.kind {
            Kind::Switch => "leave it out or set it to false",
            _ => "leave it out",
        };
        match variable.verdict {
            Verdict::ActedOn | Verdict::Met => None,
            Verdict::NotYet(coming) => {
                Some(format!("not supported yet, it comes with {}; {out}", coming.name()))
            }
            Verdict::Refused(instead) => Some(format!("refused: {instead}")),
        }
    }

    /// Whether addresses are announced by ARP and neighbour discovery: where nothing is said, unless another way is asked
    /// for, of which kube-vip takes one alone.
    pub fn announces_by_arp(&self) -> bool {
        self.switch("vip_arp").unwrap_or_else(|| !self.announces_elsewhere())
    }

    /// Whether another way of announcing is asked for.
    pub fn announces_elsewhere(&self) -> bool {
        let elsewhere = ["bgp_enable", "vip_routingtable", "vip_wireguard"];
        elsewhere.iter().any(|name| self.switch(name) == Some(true))
    }

    /// Whether Services are served: where nothing is said, unless the control plane is.
    pub fn serves_services(&self) -> bool {
        let control_plane = || self.switch("cp_enable") == Some(true);
        self.switch("svc_enable").unwrap_or_else(|| !control_plane())
    }

    /// Everything that was given, with its name in the environment, in the order of the table.
    pub fn given(&self) -> impl Iterator<Item = (&'static Variable, &str)> {
        let value =
            |variable: &'static Variable| Some((variable, self.given.get(variable.name)?.as_str()));
        VARIABLES.iter().filter_map(value)
    }

    /// The same settings without some, such as files that are read where the announcer runs.
    #[must_use]
    pub fn without(mut self, names: &[&str]) -> Self {
        self.given.retain(|name, _| !names.contains(name));
        self
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

/// Those that kube-vip takes in letters of any size (kube-vip#1684).
const ANY_SIZE: [&str; 2] = ["dns_mode", "dhcp_mode"];

fn is_word(words: &[&str], value: &str, name: &str) -> bool {
    let in_any_size = |word: &&str| ANY_SIZE.contains(&name) && word.eq_ignore_ascii_case(value);
    words.contains(&value) || words.iter().any(in_any_size)
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
