//! What a voter grants, and to whom it does not.

use super::*;
use crate::view::{View, Voters};

const ME: NodeId = NodeId::from_bits(1);
const PEER: NodeId = NodeId::from_bits(2);
const COOKIE: u64 = 7;

fn at(millis: u64) -> Moment {
    Moment::from_nanos((10_000 + millis) * 1_000_000)
}

fn address() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

struct Scene {
    voter: Voter,
    standing: Standing,
    list: Journal<IpAddr, Stage>,
    cookie: u64,
}

impl Scene {
    /// A voter that started one second before, and a peer that asks for an address.
    fn new() -> Self {
        let parameters = Parameters::default();
        let mut list = Journal::new(8);
        list.set(address(), Some(Stage::Claim));
        let view = View::new(1, Voters::new([ME, PEER]).unwrap(), vec![]).unwrap();
        let standing = Standing::new(ME, view, Rules::default());
        let started = Moment::from_nanos(9_000_000_000);
        let voter = Voter::new(parameters, Rules::default(), COOKIE, started);
        Self { voter, standing, list, cookie: COOKIE }
    }

    fn heartbeat(&self, session: u64, sequence: u64) -> Heartbeat {
        Heartbeat {
            session,
            sequence,
            cookie: self.cookie,
            view: self.standing.view().clone(),
            active: true,
            more: false,
            leaving: false,
            list: self.list.deltas(0, usize::MAX, 1).remove(0),
            reports: 0,
        }
    }

    fn answer(&mut self, now: Moment, heartbeat: &Heartbeat) -> Vec<Ack> {
        self.voter.answer(now, PEER, heartbeat, &self.standing, true)
    }

    fn grants(&mut self, now: Moment, heartbeat: &Heartbeat) -> bool {
        let acks = self.answer(now, heartbeat);
        let verdict = acks.first().and_then(|ack| ack.verdict.as_ref());
        verdict.is_some_and(|verdict| verdict.refusal(address()).is_none())
    }
}

#[test]
fn a_promise_keeps_others_out_until_it_runs_out() {
    let mut scene = Scene::new();
    let promise = Parameters::default().promise();
    let first = scene.heartbeat(1, 100);
    assert!(scene.grants(at(0), &first));
    let other = scene.heartbeat(2, 1);
    let acks = scene.answer(at(300), &other);
    let refused = acks[0].verdict.as_ref().unwrap().refused[0];
    assert_eq!(refused.retry_after, Some((at(0) + promise).since(at(300))));
    let later = scene.heartbeat(2, 2);
    assert!(scene.grants(at(0) + promise, &later));
}

#[test]
fn a_repeated_heartbeat_prolongs_no_promise() {
    let mut scene = Scene::new();
    let first = scene.heartbeat(1, 100);
    assert!(scene.grants(at(0), &first));
    assert_eq!(scene.answer(at(200), &first), []);
    scene.voter.sweep(at(0) + Parameters::default().promise());
    assert!(scene.voter.table.is_empty());
}

#[test]
fn what_was_sent_to_an_earlier_run_is_granted_nothing_and_learns_the_cookie() {
    let mut scene = Scene::new();
    scene.cookie = COOKIE + 1;
    let old = scene.heartbeat(1, 100);
    let acks = scene.answer(at(0), &old);
    assert_eq!((acks[0].cookie, &acks[0].verdict), (COOKIE, &None));
    assert!(scene.voter.table.is_empty());
}

#[test]
fn a_voter_that_starts_grants_nothing_not_even_what_is_held() {
    let mut scene = Scene::new();
    scene.voter = Voter::new(Parameters::default(), Rules::default(), COOKIE, at(0));
    scene.list.set(address(), Some(Stage::Held));
    let (early, late) = (scene.heartbeat(1, 100), scene.heartbeat(1, 200));
    assert!(!scene.grants(at(350), &early));
    assert!(scene.grants(at(362), &late));
}

#[test]
fn a_heartbeat_that_somebody_recorded_is_no_sign_of_life() {
    let mut scene = Scene::new();
    let (first, second) = (scene.heartbeat(1, 10), scene.heartbeat(1, 11));
    assert!(scene.voter.is_life(PEER, &first) && scene.voter.is_life(PEER, &second));
    assert!(!scene.voter.is_life(PEER, &second), "again");
    assert!(!scene.voter.is_life(PEER, &first), "late");
    let rebooted = scene.heartbeat(2, 5);
    assert!(scene.voter.is_life(PEER, &rebooted), "its clock began anew");
    assert!(!scene.voter.is_life(PEER, &second), "of an earlier run");
    scene.cookie = COOKIE + 1;
    let to_another_run = scene.heartbeat(2, 6);
    assert!(!scene.voter.is_life(PEER, &to_another_run));
}
