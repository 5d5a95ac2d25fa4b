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
            condition: Condition::default(),
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
    let acks = scene.answer(at(600), &old);
    let cookie = scene.voter.cookie(PEER, 1);
    assert_eq!((acks[0].cookie, &acks[0].verdict), (cookie, &None));
    assert!(scene.voter.table.is_empty());
    let new = scene.heartbeat(1, 101);
    assert!(scene.grants(at(601), &new));
}

#[test]
fn a_voter_that_starts_grants_nothing_not_even_what_is_held() {
    let mut scene = Scene::new();
    scene.voter = Voter::new(Parameters::default(), Rules::default(), SECRET, at(0));
    scene.list.set(address(), Some(Stage::Held));
    let (early, late) = (scene.heartbeat(1, 100), scene.heartbeat(1, 200));
    assert!(!scene.grants(at(510), &early));
    assert!(scene.grants(at(512), &late));
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

/// A heartbeat of a run that asks for so long a lease.
fn asking(scene: &Scene, sequence: u64, millis: u64) -> Heartbeat {
    let lease = Some(Duration::from_millis(millis));
    let condition = Condition { lease, ..Condition::default() };
    Heartbeat { condition, ..scene.heartbeat(1, sequence) }
}

#[test]
fn a_voter_promises_what_was_asked_for_within_the_view_and_says_it() {
    let parameters = Parameters::default();
    for (asked, granted) in [(100, 100), (220, 220), (350, 350), (40, 100), (2_000, 350)] {
        let mut scene = Scene::new();
        let heartbeat = asking(&scene, 100, asked);
        let acks = scene.answer(at(0), &heartbeat);
        let granted = Duration::from_millis(granted);
        assert_eq!(acks[0].lease, Some(granted));
        let promise = parameters.promise_of(granted);
        let early = scene.heartbeat(2, 1);
        assert!(!scene.grants(at(0) + (promise - Duration::from_nanos(1)), &early));
        let late = scene.heartbeat(2, 2);
        assert!(scene.grants(at(0) + promise, &late), "{asked}");
    }
    let mut scene = Scene::new();
    let unsaid = scene.heartbeat(1, 100);
    assert_eq!(scene.answer(at(0), &unsaid)[0].lease, Some(parameters.lease));
}

#[test]
fn who_asks_for_less_is_owed_what_it_was_promised_before() {
    let mut scene = Scene::new();
    let (long, short) = (asking(&scene, 100, 350), asking(&scene, 101, 100));
    assert!(scene.grants(at(0), &long) && scene.grants(at(50), &short));
    let promise = Parameters::default().promise();
    let early = scene.heartbeat(2, 1);
    assert!(!scene.grants(at(0) + (promise - Duration::from_nanos(1)), &early));
    let late = scene.heartbeat(2, 2);
    assert!(scene.grants(at(0) + promise, &late));
}

#[test]
fn a_run_that_has_ended_is_owed_nothing_and_heard_no_more() {
    let mut scene = Scene::new();
    let first = scene.heartbeat(1, 100);
    assert!(scene.grants(at(0), &first));
    let condition = Condition { over: true, ..Condition::default() };
    let last = Heartbeat { condition, ..scene.heartbeat(1, u64::MAX) };
    assert_eq!(scene.answer(at(1), &last), []);
    assert_eq!(scene.answer(at(2), &last), [], "it may be repeated");
    let again = scene.heartbeat(1, 101);
    assert_eq!(scene.answer(at(3), &again), []);
    let other = scene.heartbeat(2, 1);
    assert!(scene.grants(at(4), &other));
    assert_eq!(scene.answer(at(5), &last), [], "also then");
    let other = scene.heartbeat(3, 1);
    assert!(!scene.grants(at(6), &other), "it ends no other run");
}

#[test]
fn who_says_that_it_hears_nobody_is_not_reported_and_keeps_what_it_has() {
    let mut scene = Scene::new();
    let seen = |scene: &Scene| {
        let mut replica = Replica::new();
        replica.apply(&scene.voter.journal.deltas(0, usize::MAX, 1)[0]);
        replica.get(&Subject::Node(PEER)).is_some()
    };
    let mut sequence = 100;
    for (deaf, expected) in [(false, true), (true, false), (true, false), (false, true)] {
        sequence += 1;
        let condition = Condition { deaf, ..Condition::default() };
        let heartbeat = Heartbeat { condition, ..scene.heartbeat(1, sequence) };
        scene.voter.heard(at(sequence), PEER);
        scene.voter.says(PEER, &condition);
        assert!(scene.grants(at(sequence), &heartbeat));
        scene.voter.heard(at(sequence), PEER);
        assert_eq!(seen(&scene), expected);
    }
    let quick = Condition { lease: Some(Duration::from_millis(100)), ..Condition::default() };
    scene.voter.heard(at(200), PEER);
    scene.voter.says(PEER, &quick);
    scene.voter.sweep(at(262));
    assert!(seen(&scene));
    scene.voter.sweep(at(263));
    assert!(!seen(&scene), "it would have been heard every 25 ms");
}
