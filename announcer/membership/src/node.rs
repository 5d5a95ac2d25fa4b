//! Owns one run of one node: voter, owner and their advisers around one clock. Composes them, decides nothing that they
//! decide.

mod condition;
mod exchange;
mod kept;
mod moves;
#[cfg(feature = "simulation")]
pub(crate) mod pressure;
mod rounds;

use std::net::IpAddr;
use std::time::Duration;

use crate::beats::Beats;
use crate::claims::Claims;
use crate::dialect::Dialect;
use crate::event::{Cause, Input, Loss, Output};
use crate::handover::Handovers;
use crate::kept::Kept;
use crate::keyring::Keyring;
use crate::moment::Moment;
use crate::name::NodeId;
use crate::outbox::Outbox;
use crate::owner::Owner;
use crate::pace::Pace;
use crate::parameters::{ParameterError, Parameters};
use crate::placement::mix;
use crate::proposal::Proposer;
use crate::rules::Rules;
use crate::serving::Serving;
use crate::sight::Sight;
use crate::view::{Change, Standing, View};
use crate::voter::Voter;
use crate::wire::Version;

/// One run of the announcer on one node.
///
/// The driver calls [`handle`](Self::handle) for all that happens and [`poll`](Self::poll) at
/// [`deadline`](Self::deadline), always with the boot-time clock read *after* the event, and performs what comes back
/// in order. The same inputs at the same moments give the same outputs.
#[derive(Debug)]
pub struct Node {
    parameters: Parameters,
    now: Moment,
    stay: Stay,
    standing: Option<Standing>,
    kept: Kept,
    voter: Voter,
    owner: Owner,
    sight: Sight,
    claims: Claims,
    handovers: Handovers,
    serving: Serving,
    beats: Beats,
    pace: Pace,
    proposer: Proposer,
    out: Outbox,
}

/// Whether a node is to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    Here,
    /// It was told to leave.
    Leaving {
        since: Moment,
    },
    Left,
}

impl Node {
    /// A run that starts now. `seed` is random and was never used before: the session and the cookies come of it.
    ///
    /// The first call of [`poll`](Self::poll) silences what an earlier run left armed; nothing is sent before.
    ///
    /// # Errors
    /// If the parameters do not fit each other.
    pub fn new(
        me: NodeId,
        parameters: Parameters,
        keyring: Keyring,
        seed: u64,
        now: Moment,
    ) -> Result<Self, ParameterError> {
        Self::of_rules(me, parameters, keyring, seed, now, Rules::default())
    }

    fn of_rules(
        me: NodeId,
        parameters: Parameters,
        keyring: Keyring,
        seed: u64,
        now: Moment,
        rules: Rules,
    ) -> Result<Self, ParameterError> {
        parameters.check()?;
        let varies = keyring.newest() == Version::Third;
        // Who knows no other lease waits for no other promise.
        let longest = if varies { parameters.longest } else { parameters.lease };
        let parameters = Parameters { longest, ..parameters };
        let (random, secret, luck) = (mix(seed), mix(mix(seed)), mix(mix(mix(seed))));
        let dialect = Dialect::new(keyring.newest(), parameters.suspicion);
        let session = dialect.session(random);
        let voter = Voter::new(parameters, rules, secret, now);
        let cookie = voter.cookie(me, session);
        Ok(Self {
            parameters,
            now,
            stay: Stay::Here,
            standing: None,
            kept: Kept::default(),
            voter,
            owner: Owner::new(me, parameters, rules, session, cookie),
            sight: Sight::new(me, parameters.suspicion),
            claims: Claims::new(me, parameters, luck),
            handovers: Handovers::default(),
            serving: Serving::default(),
            beats: Beats::new(parameters.heartbeat),
            pace: Pace::new(parameters, varies, now),
            proposer: Proposer::new(parameters.suspicion, now),
            out: Outbox::new(me, keyring, dialect, rules),
        })
    }

    /// The same, which keeps each view on its disk before it stands in it. So a run may begin with what an earlier one has kept
    /// ([`Input::Kept`]) in the place of a read that cannot be stale: whatever that one said it had gone over to is there.
    #[must_use]
    pub fn keeping(self) -> Self {
        Self { kept: Kept::begun(), ..self }
    }

    /// Takes what happened and says what has to be done.
    pub fn handle(&mut self, now: Moment, input: Input<'_>) -> Vec<Output> {
        self.begin(now);
        match input {
            Input::Datagram(datagram) => match self.out.open(datagram) {
                Ok(opened) => self.message(&opened),
                Err(error) => self.out.push(Output::Refused(error)),
            },
            Input::View(view) => self.view_read(view),
            Input::Fixed(view) if self.standing.is_none() => self.view_read(view.forever()),
            Input::Fixed(_) => {}
            Input::Kept(view) if self.kept.done(&view) => self.view_read(view),
            Input::Kept(_) => {}
            Input::NoView if self.standing.is_none() && !self.kept.is_asked() => {
                self.out
                    .push(Output::ProposeView { from_epoch: 0, view: View::first(self.out.me()) });
            }
            Input::NoView => {}
            Input::NotStored { from_epoch } => self.proposer.not_stored(from_epoch),
            Input::Request { address, request } => {
                self.claims.request(address, request);
                self.handovers.doubt([address]);
            }
            Input::Withdraw { address } => {
                self.claims.withdraw(address);
                self.release(address, Loss::Dropped);
            }
            Input::Prepared { address } => self.ready(address),
            Input::HandOver { address } => self.hand_over(address),
            Input::Leave => {
                if self.stay == Stay::Here {
                    self.stay = Stay::Leaving { since: self.now };
                }
                self.claims.stop();
                for address in self.handovers.expect_nothing() {
                    if self.owner.hold(&address).is_none() {
                        self.out.extend(self.serving.discard(address));
                    }
                }
                self.handovers.doubt(self.owner.holds().map(|(address, _)| address));
            }
        }
        self.settle();
        self.out.take()
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Moment) -> Vec<Output> {
        self.begin(now);
        self.settle();
        self.out.take()
    }

    /// When [`poll`](Self::poll) has to be called, if nothing happens before.
    pub fn deadline(&self) -> Moment {
        if !self.out.is_empty() {
            return self.now;
        }
        if self.standing.is_none() || self.stay == Stay::Left {
            return Moment::NEVER;
        }
        let dues =
            [self.beats.due(), self.owner.next_lapse(), self.claims.next(), self.handovers.next()];
        dues.into_iter().min().unwrap_or(Moment::NEVER)
    }

    /// When the next heartbeat is due.
    pub fn next_beat(&self) -> Moment {
        self.beats.next()
    }

    /// The view this node stands in, and whether it knows it to be active.
    pub fn view(&self) -> Option<(&View, bool)> {
        self.standing.as_ref().map(|standing| (standing.view(), standing.is_active()))
    }

    /// The nodes that a majority of voters has heard lately; none while no majority answers.
    pub fn live(&self) -> impl Iterator<Item = NodeId> {
        let nodes = self.sight.live().iter().copied();
        nodes.filter(|_| self.sight.is_clear())
    }

    /// What this node asked about and no live node has had, or asked for, for at least so long; nothing while no majority
    /// answers.
    pub fn orphans(&self, age: Duration) -> impl Iterator<Item = IpAddr> {
        let orphans = self.claims.orphans(self.now, age, &self.sight, &self.owner);
        orphans.filter(|_| self.sight.is_clear())
    }

    /// Before anything else: what lapsed is lost, whatever has arrived meanwhile.
    fn begin(&mut self, now: Moment) {
        self.now = now.max(self.now);
        for address in self.owner.lapsed(self.now) {
            self.release(address, Loss::Expired);
            self.claims.lost(self.now, address);
        }
    }

    fn view_read(&mut self, view: View) {
        if self.is_to_be_kept(&view) {
            return;
        }
        if let Some(standing) = &mut self.standing {
            standing.read(&view);
            self.witness(self.out.me(), &view, false);
            return;
        }
        let standing = Standing::new(self.out.me(), view, self.out.rules());
        let change = Change { adopted: true, activated: standing.is_active() };
        self.standing = Some(standing);
        self.changed(change);
    }

    /// Notes where another node stands.
    fn witness(&mut self, node: NodeId, view: &View, active: bool) {
        let Some(standing) = &mut self.standing else { return };
        if node == self.out.me() && view.epoch() <= standing.epoch() {
            return;
        }
        let change = standing.witness(node, view, active);
        self.changed(change);
    }

    fn changed(&mut self, change: Change) {
        let Some(standing) = &self.standing else { return };
        let epoch = standing.epoch();
        if change.adopted {
            self.owner.adopted();
            self.sight.adopted();
            self.proposer.adopted(self.now);
            self.out.push(Output::Adopted { epoch });
        }
        if change.activated {
            self.voter.activated(self.now, standing);
            self.out.push(Output::Activated { epoch });
        }
        if change.adopted || change.activated {
            self.hurry();
        }
    }

    /// Hands the kernel what leases allow.
    fn arm_all(&mut self) {
        let held: Vec<_> = self.owner.holds().map(|(address, _)| address).collect();
        held.into_iter().for_each(|address| self.arm(address));
    }

    fn arm(&mut self, address: IpAddr) {
        if let Some(hold) = self.owner.hold(&address) {
            self.out.extend(self.serving.arm(address, hold));
        }
    }

    /// Lets go of an address, the kernel first.
    fn release(&mut self, address: IpAddr, cause: Loss) {
        self.handovers.cancel(&address);
        if self.owner.hold(&address).is_none() {
            self.out.extend(self.serving.discard(address));
            return;
        }
        let held = self.serving.forget(&address);
        if held {
            self.out.mute(address);
        }
        self.owner.drop(&address);
        self.out.push(if held {
            Output::Lost { address, cause }
        } else {
            Output::Discard { address }
        });
        self.hurry();
    }

    fn claim(&mut self, address: IpAddr, cause: Cause) {
        self.owner.claim(self.now, address);
        self.serving.claim(address, cause);
        self.claims.note([address]);
        if !self.serving.is_prepared(&address) {
            self.out.push(Output::Prepare { address, cause });
        }
        self.hurry();
    }

    /// Beats as soon as may be.
    fn hurry(&mut self) {
        self.beats.hurry(self.now, self.concerns());
    }

    /// How many addresses a beat of this node is about.
    fn concerns(&self) -> usize {
        self.owner.holds().len() + self.voter.promised()
    }
}
