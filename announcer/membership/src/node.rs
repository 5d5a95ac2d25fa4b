//! Owns one run of one node: voter, owner and their advisers around one clock. Composes them, decides nothing that they
//! decide.

mod moves;
mod rounds;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::claims::Claims;
use crate::event::{Cause, Input, Loss, Output};
use crate::handover::Handovers;
use crate::keyring::Keyring;
use crate::message::{Ack, Heartbeat, Message, Stage};
use crate::moment::Moment;
use crate::name::NodeId;
use crate::owner::Owner;
use crate::parameters::{ParameterError, Parameters};
use crate::placement::mix;
use crate::rules::{Pressure, Rules};
use crate::sight::Sight;
use crate::view::{Change, Standing, View};
use crate::voter::Voter;

/// A claim is repeated this long after the voter said it would be free.
const RETRY_LATE: Duration = Duration::from_micros(300);

/// Beats that something called for are this far apart for each address that they are about, at most half a heartbeat:
/// what happens in a crowd shares a beat, or thousands of addresses would have no time left to be renewed in.
const APART_EACH: Duration = Duration::from_micros(10);

/// One run of the announcer on one node.
///
/// The driver calls [`handle`](Self::handle) for all that happens and [`poll`](Self::poll) at
/// [`deadline`](Self::deadline), always with the boot-time clock read *after* the event, and performs what comes back
/// in order. The same inputs at the same moments give the same outputs.
#[derive(Debug)]
pub struct Node {
    me: NodeId,
    parameters: Parameters,
    rules: Rules,
    keyring: Keyring,
    started: Moment,
    now: Moment,
    standing: Option<Standing>,
    adopted: Moment,
    voter: Voter,
    owner: Owner,
    sight: Sight,
    claims: Claims,
    handovers: Handovers,
    causes: BTreeMap<IpAddr, Cause>,
    prepared: BTreeSet<IpAddr>,
    armed: BTreeMap<IpAddr, Moment>,
    /// Held perhaps without being wished for any more.
    doubtful: BTreeSet<IpAddr>,
    last_beat: Moment,
    next_beat: Moment,
    retry_at: Moment,
    proposing: Option<u64>,
    wanted_since: Option<Moment>,
    leaving: Option<Moment>,
    left: bool,
    out: Vec<Output>,
    late: Vec<Output>,
}

impl Node {
    /// A run that starts now. `seed` is random and was never used before: the session and the cookie come of it.
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
        Self::with_rules(me, parameters, keyring, seed, now, Rules::default())
    }

    /// A run that may lack rules. Only a simulation has reason to make one.
    ///
    /// # Errors
    /// If the parameters do not fit each other.
    pub fn with_rules(
        me: NodeId,
        parameters: Parameters,
        keyring: Keyring,
        seed: u64,
        now: Moment,
        rules: Rules,
    ) -> Result<Self, ParameterError> {
        parameters.check()?;
        let (session, cookie, luck) = (mix(seed), mix(mix(seed)), mix(mix(mix(seed))));
        Ok(Self {
            me,
            parameters,
            rules,
            keyring,
            started: now,
            now,
            standing: None,
            adopted: now,
            voter: Voter::new(parameters, rules, cookie, now),
            owner: Owner::new(me, parameters, rules, session, cookie),
            sight: Sight::new(me, parameters.suspicion),
            claims: Claims::new(me, parameters, luck),
            handovers: Handovers::default(),
            causes: BTreeMap::new(),
            prepared: BTreeSet::new(),
            armed: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            last_beat: Moment::default(),
            next_beat: Moment::NEVER,
            retry_at: Moment::NEVER,
            proposing: None,
            wanted_since: None,
            leaving: None,
            left: false,
            out: vec![Output::MuteAll],
            late: Vec::new(),
        })
    }

    /// Takes what happened and says what has to be done.
    pub fn handle(&mut self, now: Moment, input: Input<'_>) -> Vec<Output> {
        self.begin(now);
        match input {
            Input::Datagram(datagram) => match self.keyring.open(self.me, datagram) {
                Ok((from, message)) => self.message(from, &message),
                Err(error) => self.out.push(Output::Refused(error)),
            },
            Input::View(view) => self.view_read(view),
            Input::NoView if self.standing.is_none() => {
                self.out.push(Output::ProposeView { from_epoch: 0, view: View::first(self.me) });
            }
            Input::NoView => {}
            Input::NotStored { from_epoch } => {
                self.proposing = self.proposing.filter(|epoch| *epoch != from_epoch)
            }
            Input::Wish { address, wish } => {
                self.claims.wish(address, wish);
                self.doubtful.insert(address);
            }
            Input::Unwish { address } => {
                self.claims.unwish(address);
                self.release(address, Loss::Dropped);
            }
            Input::Prepared { address } => self.ready(address),
            Input::HandOver { address } => self.hand_over(address),
            Input::Leave => {
                self.leaving.get_or_insert(self.now);
                self.claims.stop();
                self.doubtful.extend(self.owner.holds().map(|(address, _)| address));
            }
        }
        self.settle();
        self.outputs()
    }

    /// Makes the node act against its policy. Only a simulation has reason to.
    pub fn press(&mut self, now: Moment, pressure: Pressure) -> Vec<Output> {
        self.begin(now);
        match pressure {
            Pressure::Take { address } => self.take(address),
            Pressure::Propose(voters) => self.propose_these(voters),
        }
        self.settle();
        self.outputs()
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Moment) -> Vec<Output> {
        self.begin(now);
        self.settle();
        self.outputs()
    }

    /// When [`poll`](Self::poll) has to be called, if nothing happens before.
    pub fn deadline(&self) -> Moment {
        if !self.out.is_empty() {
            return self.now;
        }
        if self.standing.is_none() || self.left {
            return Moment::NEVER;
        }
        let dues = [
            self.next_beat,
            self.retry_at,
            self.owner.next_lapse(),
            self.claims.next(),
            self.handovers.next(),
        ];
        dues.into_iter().min().unwrap_or(Moment::NEVER)
    }

    /// When the next heartbeat is due.
    pub fn next_beat(&self) -> Moment {
        self.next_beat
    }

    /// The view this node stands in, and whether it knows it to be active.
    pub fn view(&self) -> Option<(&View, bool)> {
        self.standing.as_ref().map(|standing| (standing.view(), standing.is_active()))
    }

    /// What this node holds or claims, and until when it may answer.
    pub fn holds(&self) -> impl Iterator<Item = (IpAddr, Stage, Moment)> {
        self.owner.holds().map(|(address, hold)| (address, hold.stage, hold.lease))
    }

    /// The nodes that a majority of voters has heard lately; none while no majority answers.
    pub fn live(&self) -> impl Iterator<Item = NodeId> {
        let nodes = self.sight.live().iter().copied();
        nodes.filter(|_| self.sight.is_clear())
    }

    /// Before anything else: what lapsed is lost, whatever has arrived meanwhile.
    fn begin(&mut self, now: Moment) {
        self.now = now.max(self.now);
        for address in self.owner.lapsed(self.now) {
            self.release(address, Loss::Expired);
            self.claims.lost(self.now, address);
        }
    }

    fn outputs(&mut self) -> Vec<Output> {
        let mut out = std::mem::take(&mut self.out);
        out.append(&mut self.late);
        out
    }

    fn message(&mut self, from: NodeId, message: &Message) {
        // Before its own read of the view a node is no part of anything.
        if self.standing.is_none() || self.left {
            return;
        }
        self.voter.heard(self.now, from);
        match message {
            Message::Heartbeat(heartbeat) => {
                self.voter.leaves(from, heartbeat.leaving);
                self.witness(from, &heartbeat.view, heartbeat.active);
                for ack in self.answer(from, heartbeat) {
                    self.send(from, &Message::Ack(ack));
                }
            }
            Message::Ack(ack) => {
                self.witness(from, &ack.view, ack.active);
                self.acknowledge(from, ack);
            }
            Message::Hand(hand) => self.handed(from, hand),
        }
    }

    fn view_read(&mut self, view: View) {
        if self.standing.is_some() {
            let (me, active) = (self.me, false);
            self.witness(me, &view, active);
            return;
        }
        let standing = Standing::new(self.me, view, self.rules);
        let change = Change { adopted: true, activated: standing.is_active() };
        self.standing = Some(standing);
        self.changed(change);
    }

    /// Notes where another node stands.
    fn witness(&mut self, node: NodeId, view: &View, active: bool) {
        let Some(standing) = &mut self.standing else { return };
        if node == self.me && view.epoch() <= standing.epoch() {
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
            self.adopted = self.now;
            (self.proposing, self.wanted_since) = (None, None);
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

    fn answer(&mut self, from: NodeId, heartbeat: &Heartbeat) -> Vec<Ack> {
        let Some(standing) = &self.standing else { return Vec::new() };
        let budget = (from != self.me).then_some(self.parameters.datagram);
        self.voter.answer(self.now, from, heartbeat, standing, budget)
    }

    fn acknowledge(&mut self, from: NodeId, ack: &Ack) {
        let Some(standing) = &self.standing else { return };
        let outcome = self.owner.acknowledge(self.now, from, ack, standing);
        self.sight.note(self.now, from, ack);
        for address in &outcome.won {
            self.claims.won(*address);
            self.out.push(Output::Granted { address: *address });
            self.hurry();
        }
        if outcome.ask_again {
            self.hurry();
        }
        if let Some(after) = outcome.retry_after {
            self.retry_at = self.retry_at.min(self.soon(self.now + after + RETRY_LATE));
        }
        if outcome.renewed {
            self.arm_all();
        }
        if outcome.behind && from != self.me {
            self.beat_to(from);
        }
    }

    /// Hands the kernel what leases allow.
    fn arm_all(&mut self) {
        let held: Vec<_> = self.owner.holds().map(|(address, _)| address).collect();
        held.into_iter().for_each(|address| self.arm(address));
    }

    fn arm(&mut self, address: IpAddr) {
        let Some(hold) = self.owner.hold(&address) else { return };
        if hold.stage != Stage::Held || !self.prepared.contains(&address) {
            return;
        }
        let before = self.armed.insert(address, hold.lease);
        if before != Some(hold.lease) {
            self.out.push(Output::Arm { address, deadline: hold.lease });
        }
        if before.is_none() {
            let cause = self.causes.get(&address).copied().unwrap_or(Cause::First);
            self.out.push(Output::Announce { address, cause });
        }
    }

    /// Lets go of an address, the kernel first.
    fn release(&mut self, address: IpAddr, cause: Loss) {
        self.handovers.cancel(&address);
        if self.owner.hold(&address).is_none() {
            if self.prepared.remove(&address) {
                self.out.push(Output::Discard { address });
            }
            return;
        }
        let held = self.armed.remove(&address).is_some();
        if held {
            let out = if self.rules.mute_first { &mut self.out } else { &mut self.late };
            out.push(Output::Mute { address });
        }
        self.owner.drop(&address);
        self.causes.remove(&address);
        self.prepared.remove(&address);
        self.out.push(if held {
            Output::Lost { address, cause }
        } else {
            Output::Discard { address }
        });
        self.hurry();
    }

    fn claim(&mut self, address: IpAddr, cause: Cause) {
        self.owner.claim(self.now, address);
        self.causes.insert(address, cause);
        self.claims.note([address]);
        if !self.prepared.contains(&address) {
            self.out.push(Output::Prepare { address, cause });
        }
        self.hurry();
    }

    /// Beats as soon as may be.
    fn hurry(&mut self) {
        self.next_beat = self.next_beat.min(self.soon(self.now));
    }

    /// When a beat that is called for at a moment may go.
    fn soon(&self, moment: Moment) -> Moment {
        let about = self.owner.holds().len() + self.voter.promised();
        let apart = APART_EACH * u32::try_from(about).unwrap_or(u32::MAX);
        moment.max(self.last_beat + apart.min(self.parameters.heartbeat / 2))
    }

    fn send(&mut self, to: NodeId, message: &Message) {
        let datagram = self.keyring.seal(self.me, to, message);
        self.out.push(Output::Send { to, datagram });
    }
}
