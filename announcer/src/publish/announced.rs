//! What the condition `berth.dev/Announced` of a Service is to say: that an address which it was given is not answered for, and
//! why; and that it is again. It is absent while nothing was ever wrong. Pure.
//!
//! Who decides on a Service writes it, whatever it says. Where nobody decides whoever finds it writes, if nobody has said
//! anything yet; each in its turn, so that one does. Of no Service that names another node anything is said. What is not true
//! of anybody any more anybody takes back: of what is not ours to serve by now, and of what another program announces.

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

/// That it is announced again.
pub(super) const MENDED: &str = "all of its addresses are answered for";

/// What the condition is to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    says: Says,
    /// Since when it says so, where it does.
    since: Option<Time>,
    /// Whether the Service says the same in other words.
    rewords: bool,
    /// Whether any node may say it, whichever the Service names.
    pub(super) is_anybodys: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Says {
    /// Not all that it was given is answered for.
    Silent(&'static str, String),
    /// All is, again.
    Announced,
    /// Nothing: it was given no address, or others have it.
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
        Says::Nothing => {
            shown.is_some_and(|shown| !is_of_ccm(shown)) && (!verdict.left || is("False"))
        }
    };
    let is_anybodys = verdict.left && says == Says::Nothing && shown.is_some_and(is_of_a_lease);
    let may = match verdict.voice {
        Voice::Decides | Voice::Lasts => true,
        Voice::Bystander => {
            let is_unsaid = !is("False") || shown.is_some_and(is_that_nobody_spoke);
            is_anybodys
                || is_unsaid && matches!(says, Says::Silent(..))
                || verdict.shared.is_some() && is_said_by_all(&says, shown)
        }
    };
    let status = if says == Says::Announced { "True" } else { "False" };
    let before = shown.filter(|shown| shown.status == status);
    let since = before.map(|shown| shown.last_transition_time.clone());
    let rewords = match &says {
        Says::Silent(reason, _) => is("False") && shown.is_some_and(|own| own.reason == *reason),
        Says::Announced | Says::Nothing => false,
    };
    (is_news && may).then_some(Word { says, since, rewords, is_anybodys })
}

/// What takes back what is said of a Service that is not ours to serve any more: it has another type, is deleted and held by a
/// finalizer, or asks to be ignored. One of another class may be served by another Berth, which speaks for itself.
pub(super) fn taken_back(service: &Service) -> Option<Word> {
    let shown = service.condition(condition::ANNOUNCED)?;
    let is_over = !service.ours && (!service.foreign || service.ignored);
    let word = Word { says: Says::Nothing, since: None, rewords: false, is_anybodys: true };
    (is_over && !is_of_ccm(shown)).then_some(word)
}

/// Where several nodes announce it at once: whether each of them says the same, in the place of what is shown. Where there are
/// endpoints all of them know.
fn is_said_by_all(says: &Says, shown: Option<&Condition>) -> bool {
    let is_of_endpoints = |reason: &str| reason == Refusal::NoEndpoint.reason();
    match (says, shown) {
        (Says::Nothing, _) => true,
        (Says::Silent(reason, _), Some(shown)) => {
            *reason != shown.reason && (is_of_endpoints(reason) || is_of_endpoints(&shown.reason))
        }
        _ => false,
    }
}

fn is_of_a_lease(shown: &Condition) -> bool {
    shown.status == "False" && shown.reason == Refusal::LEFT_TO_LEASE
}

/// Whether berth-ccm only says that nobody says anything.
fn is_that_nobody_spoke(shown: &Condition) -> bool {
    shown.status == "False" && shown.reason == reason::UNANNOUNCED
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
    // Whoever has it by a Lease of his has published it.
    let is_others = verdict.left && !service.published.is_empty();
    if !service.ours || service.addresses.is_empty() && !awaited || is_others {
        return Some(Says::Nothing);
    }
    // Of what several announce at once others may announce what this node does not.
    let of_others = |address: &IpAddr| {
        let could = verdict.shared.as_ref().is_some_and(|could| could.contains(address));
        let mut shown = service.published.iter();
        could
            && service.vip_host.is_some()
            && shown.any(|shown| shown.ip.parse::<IpAddr>().is_ok_and(|shown| shown == *address))
    };
    let answers = |address: &&IpAddr| {
        verdict.announce.contains(address) && live.contains(*address) || of_others(address)
    };
    let silent: Vec<&IpAddr> = service.addresses.iter().filter(|own| !answers(own)).collect();
    if silent.is_empty() && !awaited {
        return Some(Says::Announced);
    }
    let mut causes: Vec<&Refusal> =
        lasting.iter().copied().filter(|refusal| refusal.silences()).collect();
    causes.sort_by_key(|refusal| (refusal.rank(), *refusal));
    causes.dedup();
    let reason = causes.first()?.reason();
    let all = service.addresses.len();
    let notes: Vec<String> =
        causes.iter().map(|cause| note(cause, reason, verdict, &silent, all)).collect();
    let message = notes.join("; ").chars().take(LONGEST).collect();
    Some(Says::Silent(reason, message))
}

/// What a cause is, for people: with its reason where the condition has another, and with the addresses that it is about where
/// these are not all.
fn note(
    cause: &Refusal,
    reason: &str,
    verdict: &Verdict,
    silent: &[&IpAddr],
    all: usize,
) -> String {
    let about = verdict.about.get(cause);
    let of = silent.iter().filter(|own| about.is_none_or(|about| about.contains(**own)));
    let of: Vec<String> = of.map(ToString::to_string).collect();
    let note = cause.note();
    let which = match of.len() == all || of.iter().any(|own| note.starts_with(own)) {
        true => String::new(),
        false => of.iter().map(|own| format!("{own}: ")).collect(),
    };
    match cause.reason() == reason {
        true => format!("{which}{note}"),
        false => format!("{which}{}: {note}", cause.reason()),
    }
}

impl Word {
    /// Whether the Service says the same in other words.
    pub(super) fn rewords(&self) -> bool {
        self.rewords
    }

    /// That it is not announced, for an Event: its reason, and what is the matter.
    pub(super) fn silence(&self) -> Option<(&'static str, &str)> {
        match &self.says {
            Says::Silent(reason, message) => Some((reason, message)),
            Says::Announced | Says::Nothing => None,
        }
    }

    /// Whether it says that what was silent is announced again.
    pub(super) fn is_of_a_mend(&self) -> bool {
        self.says == Says::Announced
    }

    /// Its element of the patch, merged by type.
    pub(super) fn patch(&self, now: Timestamp) -> Value {
        let (status, reason, message) = match &self.says {
            Says::Silent(reason, message) => ("False", *reason, message.as_str()),
            Says::Announced => ("True", reason::ANNOUNCED, MENDED),
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
