//! What a voter grants, and to whom it does not.

use super::*;
use crate::view::{View, Voters};

const ME: NodeId = NodeId::from_bits(1);
const PEER: NodeId = NodeId::from_bits(2);
const SECRET: u64 = 7;

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
        let voter = Voter::new(parameters, Rules::default(), SECRET, started);
        Self { voter, standing, list }
    }

    /// What a run sends that knows the cookie.
    fn heartbeat(&self, session: u64, sequence: u64) -> Heartbeat {
        Heartbeat {
            session,
            sequence,
            cookie: self.voter.cookie(PEER, session),
            view: self.standing.view().clone(),
            active: true,
            more: false,
            leaving: false,
            list: self.list.deltas(0, usize::MAX, 1).remove(0),
            reports: 0,
        }
    }

    fn answer(&mut self, now: Moment, heartbeat: &Heartbeat) -> Vec<Ack> {
        let said = self.voter.said(PEER, heartbeat);
        self.voter.answer(now, PEER, heartbeat, said, &self.standing, true)
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
    let old = scene.heartbeat(1, 100);
    scene.voter = Voter::new(Parameters::default(), Rules::default(), SECRET + 1, at(0));
    let acks = scene.answer(at(400), &old);
    let cookie = scene.voter.cookie(PEER, 1);
    assert_eq!((acks[0].cookie, &acks[0].verdict), (cookie, &None));
    assert!(scene.voter.table.is_empty());
    let new = scene.heartbeat(1, 101);
    assert!(scene.grants(at(401), &new));
}

#[test]
fn a_voter_that_starts_grants_nothing_not_even_what_is_held() {
    let mut scene = Scene::new();
    scene.voter = Voter::new(Parameters::default(), Rules::default(), SECRET, at(0));
    scene.list.set(address(), Some(Stage::Held));
    let (early, late) = (scene.heartbeat(1, 100), scene.heartbeat(1, 200));
    assert!(!scene.grants(at(350), &early));
    assert!(scene.grants(at(362), &late));
}

#[test]
fn a_heartbeat_that_somebody_recorded_is_no_sign_of_life() {
    let mut scene = Scene::new();
    let first = scene.heartbeat(1, 10);
    assert_eq!(scene.voter.said(PEER, &first), Said::Now);
    let second = scene.heartbeat(1, 11);
    assert_eq!(scene.voter.said(PEER, &second), Said::Now);
    assert_eq!(scene.voter.said(PEER, &second), Said::Here, "again");
    assert_eq!(scene.voter.said(PEER, &first), Said::Here, "late");
    let rebooted = scene.heartbeat(2, 5);
    assert_eq!(scene.voter.said(PEER, &rebooted), Said::Now, "its clock began anew");
    assert_eq!(scene.voter.said(PEER, &second), Said::Here, "of an earlier run");
    let mut to_another_run = scene.heartbeat(2, 6);
    to_another_run.cookie += 1;
    assert_eq!(scene.voter.said(PEER, &to_another_run), Said::Elsewhere);
}

#[test]
fn a_session_whose_list_is_thrown_away_is_granted_nothing_by_what_was_recorded() {
    let mut scene = Scene::new();
    let recorded = scene.heartbeat(0, 100);
    assert!(scene.grants(at(0), &recorded));
    let over = at(0) + Parameters::default().promise();
    scene.voter.sweep(over);
    scene.list = Journal::new(8);
    for session in 1..=MOST_SESSIONS as u64 {
        let other = scene.heartbeat(session, session);
        scene.answer(over, &other);
    }
    assert!(!scene.voter.sessions.contains_key(&(PEER, 0)));
    assert!(!scene.grants(over, &recorded));
    assert!(scene.voter.table.is_empty());
}

#[test]
fn a_new_run_of_a_node_takes_nothing_from_one_that_goes_on() {
    let mut scene = Scene::new();
    for sequence in 0..20 {
        let old = scene.heartbeat(1, 100 + sequence);
        assert!(scene.grants(at(20 * sequence), &old));
        let new = scene.heartbeat(2 + sequence, 1);
        let acks = scene.answer(at(20 * sequence + 10), &new);
        assert_eq!(acks[0].verdict.as_ref().unwrap().refused.len(), 1);
    }
}
