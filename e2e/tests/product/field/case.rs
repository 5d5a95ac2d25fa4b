//! A case as its file has it. README.md of `e2e/field` says what the words mean.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use berth_e2e::world::repository;
use serde::Deserialize;

/// Who decides on the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Election {
    Membership,
    Global,
    Service,
}

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Case {
    /// That of its file.
    #[serde(skip)]
    pub(crate) name: String,
    /// What is done, and what is right, in a sentence.
    pub(crate) what: String,
    /// Who reported it.
    pub(crate) source: Vec<String>,
    /// Where it is to be right.
    pub(crate) elections: Vec<Election>,
    /// The Services that there are at first.
    pub(crate) service: BTreeMap<String, Exposed>,
    /// What is done and expected, in this order.
    pub(crate) step: Vec<Step>,
}

/// A Service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Exposed {
    /// `externalTrafficPolicy: Local`.
    #[serde(default)]
    pub(crate) local: bool,
    #[serde(default = "http")]
    pub(crate) port: u16,
    /// Nodes with a ready endpoint; the pods of the lab where that is not said.
    pub(crate) ready: Option<Vec<Who>>,
}

fn http() -> u16 {
    80
}

/// Nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Who {
    /// Who answers for the first Service's address now.
    Owner,
    /// All but that.
    Others,
    /// All.
    All,
    #[serde(rename = "0")]
    Zero,
    #[serde(rename = "1")]
    One,
    #[serde(rename = "2")]
    Two,
}

/// One thing that is done or expected.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) enum Step {
    Cordon(Who),
    /// By the annotation of Berth.
    Drain(Who),
    /// By the label of Kubernetes.
    Exclude(Who),
    /// By a taint that the operator lists.
    Taint(Who),
    /// The machine dies.
    Crash(Who),
    /// The announcer ends, as where it runs on labelled nodes only.
    Leave(Who),
    /// The endpoints of a Service, those that are ready and those that serve until they end.
    Endpoints {
        of: String,
        #[serde(default)]
        ready: Vec<Who>,
        #[serde(default)]
        ending: Vec<Who>,
    },
    /// A Service goes over to `externalTrafficPolicy: Local`.
    Local(String),
    /// A Service asks for another address: the one of this number of those that the case has.
    Asks {
        of: String,
        number: u8,
        /// By the deprecated field, and not by the annotation.
        #[serde(default)]
        field: bool,
    },
    /// A Service is deleted.
    Deleted(String),
    /// It is made anew, as it was at first.
    Remade(String),
    /// It has this port and no other.
    Port {
        of: String,
        port: u16,
    },
    /// A node has the address of a Service for itself, so that it cannot bind it.
    Own {
        node: Who,
        of: String,
    },
    /// It has not any more.
    Disown {
        node: Who,
        of: String,
    },
    /// Another node answers than when something was last done.
    Another(String),
    /// This one does.
    By {
        node: Who,
        of: String,
    },
    /// For so many seconds nobody else answers than when something was last done, and that one throughout.
    Keeps {
        of: String,
        seconds: u64,
    },
    /// Since something was last done nobody answered for so many milliseconds at most.
    Silent {
        of: String,
        most: u64,
    },
    /// A client connects.
    Connects(String),
    /// A client does not, at this port.
    Refuses {
        of: String,
        port: u16,
    },
    /// The address that it had before is on no node, and nobody answers for it.
    Left(String),
    /// The status shows as many addresses.
    Status {
        of: String,
        addresses: usize,
    },
    /// An Event on the object tells the reason.
    Told {
        of: String,
        reason: String,
    },
    /// What the condition `berth.dev/Announced` of the object says: the reason for which it is `False`, `True`, or, where it has
    /// none, `nothing`.
    Announced {
        of: String,
        is: String,
    },
}

impl Step {
    /// Whether it changes a node for all that is served there.
    fn touches_nodes(&self) -> bool {
        use Step::{Cordon, Crash, Drain, Exclude, Leave, Taint};
        matches!(self, Cordon(_) | Drain(_) | Exclude(_) | Taint(_) | Crash(_) | Leave(_))
    }
}

impl Case {
    /// Whether it changes nothing but its own Services and their endpoints, so that others can be played beside it.
    pub(crate) fn is_apart(&self) -> bool {
        self.service.values().all(|service| service.ready.is_some())
            && !self.step.iter().any(Step::touches_nodes)
    }
}

/// The cases of an election.
pub(crate) fn read(election: Election) -> Result<Vec<Case>> {
    let folder = repository().join("e2e/field/cases");
    let mut files: Vec<_> = std::fs::read_dir(&folder)?.collect::<Result<_, _>>()?;
    files.sort_by_key(|file| file.file_name());
    let mut cases = Vec::new();
    for file in files {
        let path = file.path();
        let text = std::fs::read_to_string(&path)?;
        let mut case: Case = toml::from_str(&text).with_context(|| path.display().to_string())?;
        case.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        ensure!(!case.source.is_empty(), "{}: nobody has reported it", case.name);
        cases.push(case);
    }
    cases.retain(|case| case.elections.contains(&election));
    Ok(cases)
}
