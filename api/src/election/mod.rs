//! Who may act, decided over a Lease (coordination.k8s.io/v1) by strict compare-and-swap.
//!
//! [`Election`] is one candidate for one Lease, as a pure state machine: what was seen of the Lease goes in, the next
//! request comes out, and the caller sends it. It has no socket, task or clock, so one caller can drive thousands.
//!
//! Promise: as long as identities are unique and nobody else edits or deletes the Lease, at most one candidate at a
//! time has [`Election::holds_until`] in the future. It rests on three rules:
//! - every change is a create, or a replace with the `resourceVersion` that was seen; 409 means lost;
//! - a Lease has expired when *this* candidate has seen no change for its duration, on its own monotonic clock.
//!   `renewTime` is for people: wall clocks of two nodes are not compared;
//! - a holder counts from the moment it *sent* the last renewal that was acknowledged, and stops a renew deadline
//!   later, which is before anybody else may start.
//!
//! A candidate that finds the Lease in its own name takes it at once: after a restart a node goes on where it was.
//! An identity must therefore belong to one process at a time, or to a group that acts as one ([`Election::of_group`]):
//! then the promise is about identities.

mod cut;
mod held;
mod requests;
mod timing;

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use self::held::{holder, version};
use crate::names::annotation;

pub use cut::{Cut, cut, is_cut, whole};
pub use held::Held;
pub use timing::{Timing, TimingError};

/// How long the others of a group are waited for.
const GRACE: Duration = Duration::from_millis(500);

/// How long a Lease that was deleted is honoured at most: its holder, if it lives, has made it again by then.
pub const ORPHANED: Duration = Duration::from_secs(60);

/// What a candidate is to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send this create, then tell the [`Reply`]. [`stamp`] it first.
    Create(Box<Lease>),
    /// Send this replace with the `resourceVersion` it carries, then tell the [`Reply`]. [`stamp`] it first.
    Replace(Box<Lease>),
    /// Read the Lease, then tell the [`Reply`]. Only after a conflict that no watch has explained.
    Read,
    /// Ask again at this moment, or with the next [`Sight`] or [`Reply`], whichever is first.
    Wait(Option<Instant>),
    /// The Lease is released: nothing more to do.
    Done,
}

/// What a watch shows of the Lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Sight {
    /// It exists like this.
    Present(Box<Lease>),
    /// It does not exist: the list at the start did not have it.
    Absent,
    /// It was deleted; its last state.
    Deleted(Box<Lease>),
}

impl From<&Sight> for Held {
    fn from(sight: &Sight) -> Self {
        match sight {
            Sight::Present(lease) => Self::of(lease),
            Sight::Absent | Sight::Deleted(_) => Self::Gone,
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The write was acknowledged with this object.
    Written(Box<Lease>),
    /// 409: someone else was first, or the Lease exists already.
    Conflict,
    /// 404: there is no such Lease to replace.
    Missing,
    /// It surely did not happen: refused, throttled, not connected.
    Rejected,
    /// It may have happened: timed out, connection lost, error of the server.
    Unknown,
    /// The answer to [`Action::Read`].
    Found(Option<Box<Lease>>),
}

/// One candidate for one Lease.
#[derive(Clone, Debug)]
pub struct Election {
    identity: String,
    timing: Timing,
    /// How long this one of a group leaves the renewals to the others.
    patience: Option<Duration>,
    /// How much later than others this one takes what is free.
    deference: Duration,
    template: Lease,
    known: Known,
    /// The holder may act until then.
    until: Option<Instant>,
    renewed: Option<Instant>,
    /// When another one of the group is to be missed, if it was that renewed last.
    relieved: Option<Instant>,
    /// Since when the others of the group are asked to go on.
    asked: Option<Instant>,
    flight: Option<Flight>,
    /// A write is unaccounted for: it may have been applied.
    unaccounted: bool,
    /// The Lease changed in a way that was not seen yet: read it at this moment unless the watch is faster.
    read_at: Option<Instant>,
    not_before: Option<Instant>,
    releasing: bool,
}

#[derive(Clone, Debug)]
enum Known {
    Nothing,
    /// A holder that was seen before it vanished may act until `free_at`.
    Absent {
        free_at: Instant,
    },
    Present {
        lease: Box<Lease>,
        since: Instant,
    },
}

#[derive(Clone, Debug)]
struct Flight {
    sent: Instant,
    version: Option<String>,
    /// The version that was known when it was sent.
    known: Option<String>,
    releases: bool,
}

impl Election {
    /// A candidate named `identity`. `template` has the namespace and name of the Lease, and the labels and
    /// annotations that it is to carry.
    pub fn new(template: Lease, identity: impl Into<String>, timing: Timing) -> Self {
        Self {
            identity: identity.into(),
            timing,
            patience: None,
            deference: Duration::ZERO,
            template,
            known: Known::Nothing,
            until: None,
            renewed: None,
            relieved: None,
            asked: None,
            flight: None,
            unaccounted: false,
            read_at: None,
            not_before: None,
            releasing: false,
        }
    }

    /// One of a group whose members hold the Lease together, all under `identity`. Each renews it once at its start; then
    /// whoever renewed it last goes on, and another only when it has seen no renewal for `patience`, which is to be longer than [`Timing::retry`] and to differ among
    /// them. Who leaves asks the others to go on ([`annotation::LEAVING`]), and gives the Lease back only if none of them
    /// does. [`Election::holds_until`] is about the writes of this one, and may outlast by its rest that another has given
    /// the Lease back.
    pub fn of_group(
        template: Lease,
        identity: impl Into<String>,
        timing: Timing,
        patience: Duration,
    ) -> Self {
        Self { patience: Some(patience), ..Self::new(template, identity, timing) }
    }

    /// The namespace and the name of the Lease, empty where the template has none.
    pub fn lease(&self) -> (&str, &str) {
        let ObjectMeta { namespace, name, .. } = &self.template.metadata;
        (namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default())
    }

    /// Its durations.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// From now on leaves a Lease that is free to others for so long, in case they strive for it too. What it holds, or finds
    /// in its own name, it goes on with.
    pub fn defer(&mut self, deference: Duration) {
        self.deference = deference;
    }

    /// Whether this is one of a group.
    pub fn is_of_group(&self) -> bool {
        self.patience.is_some()
    }

    /// Until when this candidate may act, if it may act now. What it does must be *finished* by then.
    pub fn holds_until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now && !self.releasing)
    }

    /// When whatever stands in the kernel for this candidate has to fall silent by itself, if it may act now: a Lease after
    /// it *sent* the last renewal that was acknowledged, less [`Timing::lapse`]'s margin. It lies behind
    /// [`Election::holds_until`], by which a process that runs has finished.
    pub fn lapses_at(&self, now: Instant) -> Option<Instant> {
        self.holds_until(now).and(self.renewed).map(|sent| sent + self.timing.lapse())
    }

    /// Whether a request that [`Election::poll`] gave at `now` makes a holder of a candidate that is none: no other program has
    /// to be asked about what this one holds already.
    pub fn acquires(&self, action: &Action, now: Instant) -> bool {
        matches!(action, Action::Create(_) | Action::Replace(_))
            && !self.releasing
            && self.holds_until(now).is_none()
    }

    /// Who held the Lease when it was last seen.
    pub fn holder(&self) -> Option<&str> {
        match &self.known {
            Known::Present { lease, .. } => holder(lease),
            _ => None,
        }
    }

    /// The name this candidate goes by.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Takes in what the watch shows. Sights older than what is known are passed over.
    pub fn observe(&mut self, sight: Sight, now: Instant) {
        match sight {
            Sight::Present(lease) => self.see(lease, now),
            // The list may be older than a write of ours that was acknowledged since: ask.
            Sight::Absent if matches!(self.known, Known::Present { .. }) => {
                self.read_at = Some(now)
            }
            Sight::Absent => self.miss(None, now),
            Sight::Deleted(last) => match &self.known {
                Known::Present { lease, .. } if is_newer(version(lease), version(&last)) => {}
                _ => self.miss(Some(&last), now),
            },
        }
    }

    /// Takes in what became of the request that [`Election::poll`] gave last.
    pub fn replied(&mut self, reply: Reply, now: Instant) {
        let Some(flight) = self.flight.take() else { return };
        match reply {
            Reply::Written(lease) => self.acknowledge(&flight, lease, now),
            Reply::Conflict | Reply::Missing => self.lose(&flight, now),
            Reply::Rejected => self.not_before = Some(flight.sent + self.timing.retry()),
            Reply::Unknown => {
                self.not_before = Some(flight.sent + self.timing.retry());
                self.unaccounted |= !self.overtaken(&flight);
            }
            Reply::Found(lease) => {
                self.read_at = None;
                match lease {
                    Some(lease) => {
                        if is_older(version(&lease), flight.known.as_deref()) {
                            self.forget();
                        }
                        self.see(lease, now);
                    }
                    None => self.miss(None, now),
                }
                self.unaccounted = false;
            }
        }
    }

    /// Starts to give the Lease back. From now on this candidate does not hold it: stop acting *before* calling.
    pub fn release(&mut self) {
        self.releasing = true;
        self.not_before = None;
    }

    /// What to do now. A request that it returns counts as sent at `now`.
    pub fn poll(&mut self, now: Instant) -> Action {
        if self.flight.is_some() {
            return Action::Wait(None);
        }
        if self.releasing {
            return self.poll_release(now);
        }
        if let Some(read_at) = self.read_at {
            return self.at(read_at, now, Self::read);
        }
        match &self.known {
            Known::Nothing => Action::Wait(None),
            Known::Absent { free_at } => self.at(*free_at + self.deference, now, Self::create),
            Known::Present { lease, since } => {
                let due = match holder(lease) {
                    Some(holder) if holder != self.identity => {
                        *since + duration(lease, &self.timing) + self.deference
                    }
                    Some(_) if self.relieved.is_some() => self.relieved.unwrap_or(now),
                    Some(_) if self.until.is_some() => {
                        self.renewed.unwrap_or(now) + self.timing.retry()
                    }
                    Some(_) => now,
                    None => *since + self.deference,
                };
                self.at(due, now, Self::take)
            }
        }
    }

    fn poll_release(&mut self, now: Instant) -> Action {
        match &self.known {
            _ if self.unaccounted || self.read_at.is_some() => {
                self.at(self.read_at.unwrap_or(now), now, Self::read)
            }
            Known::Present { lease, .. } if holder(lease) == Some(&self.identity) => {
                match (self.patience, self.relieved, self.asked) {
                    // Another one of the group goes on.
                    (Some(_), Some(_), _) => Action::Done,
                    (Some(_), None, None) => self.at(now, now, Self::ask),
                    (Some(_), None, Some(asked)) => self.at(asked + GRACE, now, Self::give),
                    (None, ..) => self.at(now, now, Self::give),
                }
            }
            _ => Action::Done,
        }
    }

    fn at(
        &mut self,
        due: Instant,
        now: Instant,
        act: fn(&mut Self, now: Instant) -> Action,
    ) -> Action {
        let due = self.not_before.map_or(due, |not_before| due.max(not_before));
        if due > now { Action::Wait(Some(due)) } else { act(self, now) }
    }

    /// Whether something newer than what the request was based on has been seen since.
    fn overtaken(&self, flight: &Flight) -> bool {
        match &self.known {
            Known::Present { lease, .. } => is_newer(version(lease), flight.version.as_deref()),
            _ => false,
        }
    }

    fn acknowledge(&mut self, flight: &Flight, lease: Box<Lease>, now: Instant) {
        self.unaccounted = false;
        self.read_at = None;
        self.not_before = None;
        let written = version(&lease).map(str::to_owned);
        self.see(lease, now);
        if matches!(&self.known, Known::Present { lease, .. } if version(lease) == written.as_deref())
        {
            self.relieved = None;
        }
        // A watch may have shown a later state first.
        if flight.releases || self.holder() != Some(&self.identity) {
            self.until = None;
        } else {
            self.until = Some(flight.sent + self.timing.renew_deadline());
            self.renewed = Some(flight.sent);
        }
    }

    fn lose(&mut self, flight: &Flight, now: Instant) {
        if self.overtaken(flight) {
            return;
        }
        // Only a write of our own that was lost track of can have got in between without harm.
        if !self.unaccounted {
            self.until = None;
        }
        // A follower leaves the explanation to its watch; a holder, or one that may be, has no time for that.
        let wait = if self.unaccounted || self.renewed.is_some() {
            Duration::ZERO
        } else {
            self.timing.retry()
        };
        self.not_before = None;
        self.read_at = Some(now + wait);
    }

    fn see(&mut self, mut lease: Box<Lease>, now: Instant) {
        if let Known::Present { lease: known, .. } = &self.known
            && !is_newer(version(&lease), version(known))
        {
            return;
        }
        lease.metadata.managed_fields = None;
        self.read_at = None;
        // Every write names the version it replaces: what is newer either has it or will never let it in.
        self.unaccounted = false;
        if holder(&lease) == Some(&self.identity) {
            let is_leaving = is_leaving(&lease);
            // Who starts renews it soon: it may be the first of its group that is back, and late.
            let starts = matches!(self.known, Known::Nothing);
            self.relieved = self.patience.map(|patience| match (is_leaving, starts) {
                (true, _) => now,
                (_, true) => now + patience / 16,
                (_, false) => now + patience,
            });
        } else {
            (self.until, self.renewed, self.relieved) = (None, None, None);
        }
        self.known = Known::Present { lease, since: now };
    }

    /// What was read is older than what was known when the read began: the API server was restored from a backup
    /// (kubernetes#107457). What was known will not come back, and each write that is based on it conflicts for ever. So this
    /// candidate starts from what there is, as one whose process has just started.
    fn forget(&mut self) {
        self.known = Known::Nothing;
        (self.until, self.renewed, self.relieved) = (None, None, None);
    }

    /// The Lease is gone. A holder that did not release it first may still act, until its Lease would have expired.
    fn miss(&mut self, last: Option<&Lease>, now: Instant) {
        let released = last.is_some_and(|last| holder(last).is_none());
        let free_at = match &self.known {
            Known::Present { lease, since } => match holder(lease) {
                Some(holder) if holder != self.identity && !released => {
                    (*since + duration(lease, &self.timing)).min(now + ORPHANED)
                }
                _ => now,
            },
            Known::Absent { free_at } => *free_at,
            Known::Nothing => now,
        };
        self.known = Known::Absent { free_at };
        self.read_at = None;
        (self.until, self.renewed, self.relieved) = (None, None, None);
    }
}

/// Whether the one of a group that renewed it last has asked the others to go on.
fn is_leaving(lease: &Lease) -> bool {
    let annotations = lease.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(annotation::LEAVING))
}

/// Fills in the times that [`Action::Create`] and [`Action::Replace`] leave open.
pub fn stamp(lease: &mut Lease, now: Timestamp) {
    let spec = lease.spec.get_or_insert_default();
    spec.renew_time.get_or_insert(MicroTime(now));
    if spec.holder_identity.is_some() {
        spec.acquire_time.get_or_insert(MicroTime(now));
    }
}

fn duration(lease: &Lease, ours: &Timing) -> Duration {
    held::duration(lease).unwrap_or(ours.duration())
}

/// Resource versions are numbers that grow (KEP-5504); should one not be, a different one counts as newer.
fn is_newer(version: Option<&str>, than: Option<&str>) -> bool {
    match (number(version), number(than)) {
        (Some(version), Some(than)) => version > than,
        _ => version != than,
    }
}

/// Whether both are numbers and the first is the smaller one.
fn is_older(version: Option<&str>, than: Option<&str>) -> bool {
    matches!((number(version), number(than)), (Some(version), Some(than)) if version < than)
}

fn number(version: Option<&str>) -> Option<u64> {
    version?.parse().ok()
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
