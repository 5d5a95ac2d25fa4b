//! What the condition `berth.dev/Announced` of a Service is to say: that an address which it was given is not answered for, and
//! why; and that it is again. It is absent while nothing was ever wrong. Pure.
//!
//! Who decides on a Service writes it, whatever it says. Where nobody decides whoever finds it writes, if nobody has said
//! anything yet. Of no Service that names another node anything is said.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_api::names::condition;
use berth_api::reason;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

use crate::source::cluster::Service;
use crate::vip::{Refusal, Verdict, Voice};

/// No message is longer, in characters.
const LONGEST: usize = 2_000;

/// What the condition is to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    says: Says,
    /// Since when it says so, where it does.
    since: Option<Time>,
    /// Whether the Service says the same in other words.
    rewords: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Says {
    /// Not all that it was given is answered for.
    Silent(&'static str, String),
    /// All is, again.
    Announced,
    /// Nothing: it was given no address.
    Nothing,
}

/// What is to be said, if that is not what the Service says. `lasting` are the refusals that have lasted, `live` the addresses
/// for which this node answers.
pub(super) fn word(
    service: &Service,
    verdict: &Verdict,
    lasting: &[&Refusal],
    live: &BTreeSet<IpAddr>,
) -> Option<Word> {
    let shown = service.condition(condition::ANNOUNCED);
    let says = says(service, verdict, lasting, live)?;
    let is = |status: &str| shown.is_some_and(|shown| shown.status == status);
    let is_news = match &says {
        Says::Silent(reason, message) => {
            let same = |shown: &Condition| shown.reason == *reason && shown.message == *message;
            !is("False") || !shown.is_some_and(same)
        }
        // What was never said to be wrong need not be said to be right.
        Says::Announced => shown.is_some() && !is("True"),
        // berth-ccm takes its own word back.
        Says::Nothing => !service.ending && shown.is_some_and(|shown| !is_of_ccm(shown)),
    };
    let may = match verdict.voice {
        Voice::Decides | Voice::Lasts => true,
        Voice::Bystander => matches!(says, Says::Silent(..)) && !is("False"),
    };
    let status = if says == Says::Announced { "True" } else { "False" };
    let before = shown.filter(|shown| shown.status == status);
    let since = before.map(|shown| shown.last_transition_time.clone());
    let rewords = match &says {
        Says::Silent(reason, _) => is("False") && shown.is_some_and(|own| own.reason == *reason),
        Says::Announced | Says::Nothing => false,
    };
    (is_news && may).then_some(Word { says, since, rewords })
}

fn is_of_ccm(shown: &Condition) -> bool {
    shown.status == "False" && reason::OF_SILENCE.contains(&shown.reason.as_str())
}

fn says(
    service: &Service,
    verdict: &Verdict,
    lasting: &[&Refusal],
    live: &BTreeSet<IpAddr>,
) -> Option<Says> {
    let awaited = service.remarks.iter().any(Refusal::silences);
    if !service.ours || service.addresses.is_empty() && !awaited {
        return Some(Says::Nothing);
    }
    let answers = |address: &&IpAddr| verdict.announce.contains(address) && live.contains(*address);
    let silent: Vec<&IpAddr> = service.addresses.iter().filter(|own| !answers(own)).collect();
    if silent.is_empty() && !awaited {
        return Some(Says::Announced);
    }
    let mut causes: Vec<&Refusal> =
        lasting.iter().copied().filter(|refusal| refusal.silences()).collect();
    causes.sort_by_key(|refusal| (refusal.rank(), *refusal));
    causes.dedup();
    let reason = causes.first()?.reason();
    let notes: Vec<String> = causes.iter().map(|refusal| refusal.note()).collect();
    let which = match silent.len() < service.addresses.len() && !silent.is_empty() {
        true => silent.iter().map(|own| format!("{own}: ")).collect(),
        false => String::new(),
    };
    let message = format!("{which}{}", notes.join("; ")).chars().take(LONGEST).collect();
    Some(Says::Silent(reason, message))
}

impl Word {
    /// Whether the Service says the same in other words.
    pub(super) fn rewords(&self) -> bool {
        self.rewords
    }

    /// Its element of the patch, merged by type.
    pub(super) fn patch(&self, now: Timestamp) -> Value {
        let (status, reason, message) = match &self.says {
            Says::Silent(reason, message) => ("False", *reason, message.as_str()),
            Says::Announced => ("True", reason::ANNOUNCED, "all of its addresses are answered for"),
            Says::Nothing => return json!({ "type": condition::ANNOUNCED, "$patch": "delete" }),
        };
        json!(Condition {
            type_: condition::ANNOUNCED.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: self.since.clone().unwrap_or(Time(now)),
            observed_generation: None,
        })
    }
}

#[cfg(test)]
mod tests;
