//! One thing that a conversion tells: of which object, which field, and what becomes of it.

use std::fmt;

use berth_api::Quoted;
use serde_json::Value;

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// It has no counterpart.
    Lost,
    /// Its counterpart is set elsewhere than in what is printed.
    ToDo,
    /// It has one, and means a little else.
    Note,
}

/// One thing to say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// How much it matters.
    pub weight: Weight,
    /// Kind, namespace and name.
    pub object: String,
    /// The field, as a path; empty where the object as a whole is meant.
    pub field: String,
    /// What becomes of it.
    pub says: String,
}

impl Finding {
    /// Whether somebody has to do something, or do without.
    pub fn is_open(&self) -> bool {
        self.weight != Weight::Note
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = match self.weight {
            Weight::Lost => "lost",
            Weight::ToDo => "to do",
            Weight::Note => "note",
        };
        write!(f, "{weight}: {}", plain(&self.object))?;
        if !self.field.is_empty() {
            write!(f, ": `{}`", plain(&self.field))?;
        }
        write!(f, ": {}", plain(&self.says))
    }
}

/// One line of a terminal, which is told nothing by what a file has.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// What is told of one object.
pub(crate) struct Told<'a> {
    object: String,
    findings: &'a mut Vec<Finding>,
}

impl<'a> Told<'a> {
    pub(crate) fn of(object: String, findings: &'a mut Vec<Finding>) -> Self {
        Self { object, findings }
    }

    pub(crate) fn lost(&mut self, field: &str, says: impl Into<String>) {
        self.add(Weight::Lost, field, says.into());
    }

    pub(crate) fn undone(&mut self, field: &str, says: impl Into<String>) {
        self.add(Weight::ToDo, field, says.into());
    }

    pub(crate) fn note(&mut self, field: &str, says: impl Into<String>) {
        self.add(Weight::Note, field, says.into());
    }

    /// Names each member of a mapping that nobody here knows.
    pub(crate) fn unknown(&mut self, path: &str, value: &Value, known: &[&str]) {
        for (name, value) in value.as_object().into_iter().flatten() {
            if !known.contains(&name.as_str()) {
                let says = format!("it has no counterpart; it is {}", shown(value));
                self.lost(&format!("{path}.{name}"), says);
            }
        }
    }

    fn add(&mut self, weight: Weight, field: &str, says: String) {
        let (object, field) = (self.object.clone(), field.to_owned());
        self.findings.push(Finding { weight, object, field, says });
    }
}

/// A value in a message.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => Quoted::of(text).to_string(),
        other => Quoted::of(&other.to_string()).to_string(),
    }
}
