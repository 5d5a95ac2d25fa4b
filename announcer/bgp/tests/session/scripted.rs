//! One session, and what a peer sends as octets.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use berth_bgp::wire::{Capabilities, Notification, Open};
use berth_bgp::{Cause, Link, NextHops, Parameters, RemoteAs, Role, Session, State, Step};

pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap();
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

pub(crate) fn open(hold_time: u16) -> Vec<u8> {
    let open = Open {
        asn: 65001,
        hold_time,
        router_id: Ipv4Addr::new(192, 0, 2, 1),
        capabilities: Capabilities::default(),
    };
    let mut out = Vec::new();
    open.put(&mut out);
    out
}

pub(crate) fn keepalive() -> Vec<u8> {
    message(4, &[])
}

/// What a peer says, and by which code and subcode it is refused.
type Case<'a> = (&'a [&'a [u8]], (u8, u8));

/// A session to which the peer has connected.
pub(crate) fn begun(now: Instant) -> (Session, Link) {
    let parameters =
        Parameters { role: Role::Passive, ..Parameters::new(65000, RemoteAs::Is(65001), OWN) };
    let mut session = Session::new(now, parameters, 7);
    session.start(now, None);
    let link = session.accepted(now, NextHops { v4: Some(OWN), ..NextHops::default() }).unwrap();
    (session, link)
}

fn up(now: Instant) -> (Session, Link) {
    let (mut session, link) = begun(now);
    session.received(now, link, &[open(90), keepalive()].concat());
    assert_eq!(session.status().state, State::Established);
    while session.next_step().is_some() {}
    let sent = session.output(now, link).len();
    session.written(now, link, sent);
    (session, link)
}

/// The kinds of messages in a stream.
fn kinds(mut octets: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [_, rest @ ..] = octets
        && rest.len() >= 18
    {
        kinds.push(octets[18]);
        octets = &octets[usize::from(u16::from_be_bytes([octets[16], octets[17]]))..];
    }
    kinds
}

fn refusal(session: &Session) -> (u8, u8) {
    match session.status().last {
        Some((_, Cause::Sent(Notification { code, subcode, .. }))) => (code, subcode),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_message_has_its_place() {
    let update = message(2, &[0; 4]);
    let refresh = message(5, &[0, 1, 0, 1]);
    let cases: [Case<'_>; 7] = [
        (&[&keepalive()], (5, 1)),
        (&[&update], (5, 1)),
        (&[&refresh], (5, 1)),
        (&[&open(90), &open(90)], (5, 2)),
        (&[&open(90), &update], (5, 2)),
        (&[&open(90), &keepalive(), &open(90)], (5, 3)),
        (&[&open(2)], (2, 6)),
    ];
    for (messages, expected) in cases {
        let now = Instant::now();
        let (mut session, link) = begun(now);
        session.received(now, link, &messages.concat());
        assert_eq!(refusal(&session), expected, "{messages:?}");
        let steps: Vec<Step> = std::iter::from_fn(|| session.next_step()).collect();
        let last = steps.iter().find_map(|step| match step {
            Step::Close { last, .. } => Some(last),
            _ => None,
        });
        assert_eq!(kinds(last.unwrap()).last(), Some(&3), "the peer is told");
        assert_eq!(session.status().state, State::Active);
    }
}

#[test]
fn a_message_may_come_an_octet_at_a_time() {
    let now = Instant::now();
    let (mut session, link) = begun(now);
    for octet in [open(90), keepalive()].concat() {
        session.received(now, link, &[octet]);
    }
    assert_eq!(session.status().state, State::Established);
}

#[test]
fn a_refresh_sends_the_table_again_and_nothing_else() {
    let now = Instant::now();
    let (mut session, link) = up(now);
    session.set_route("198.51.100.1/32".parse().unwrap(), Some(Default::default()));
    let sent = session.output(now, link).to_vec();
    assert_eq!(kinds(&sent), [2]);
    session.written(now, link, sent.len());
    session.received(now, link, &message(5, &[0, 1, 0, 1]));
    assert_eq!(session.output(now, link), sent);
    session.written(now, link, sent.len());
    for other in [[0, 2, 0, 1], [0, 25, 0, 70], [0, 1, 1, 1]] {
        session.received(now, link, &message(5, &other));
        assert!(session.output(now, link).is_empty(), "{other:?}");
    }
    assert_eq!(session.status().state, State::Established);
}

#[test]
fn an_update_that_cannot_be_read_ends_the_session_and_one_with_wrong_attributes_does_not() {
    let now = Instant::now();
    let (mut session, link) = up(now);
    session.received(now, link, &message(2, &[0, 0, 0, 3, 0xff, 0xff, 0xff, 200]));
    assert_eq!(session.status().state, State::Established);
    session.received(now, link, &message(2, &[0, 9, 0, 0]));
    assert_eq!(refusal(&session), (3, 1));
}

#[test]
fn a_peer_that_asks_for_no_hold_time_is_never_given_up_and_told_nothing() {
    let now = Instant::now();
    let (mut session, link) = begun(now);
    session.received(now, link, &[open(0), keepalive()].concat());
    let sent = session.output(now, link).len();
    session.written(now, link, sent);
    assert_eq!(session.deadline(), None);
    session.poll(now + Duration::from_secs(1 << 20));
    assert_eq!(session.status().state, State::Established);
    assert!(session.output(now, link).is_empty());
}

#[test]
fn what_the_driver_says_of_connections_that_are_gone_is_passed_over() {
    let now = Instant::now();
    let (mut session, link) = up(now);
    session.closed(now, link, "reset");
    session.closed(now, link, "reset");
    session.received(now, link, &open(90));
    session.written(now, link, 100);
    assert!(session.output(now, link).is_empty());
    session.failed(now, link, Cause::NoAnswer);
    assert_eq!(session.status().last.unwrap().1, Cause::Lost("reset".to_owned()));
}

#[test]
fn the_words_of_a_peer_that_ends_are_shown() {
    let now = Instant::now();
    let (mut session, link) = up(now);
    session.received(now, link, &message(3, &[6, 2, 3, b'b', b'y', b'e']));
    let status = session.status();
    assert_eq!(status.state, State::Active);
    assert_eq!(
        status.last.unwrap().1.to_string(),
        "the peer ended it: Cease/Administrative Shutdown: \"bye\""
    );
}

/// FRR#5065, metallb#1114: a router that has ended the session hangs up on each attempt for a while, and why it did was lost.
#[test]
fn why_a_session_ended_is_told_until_the_peer_says_something_else() {
    let now = Instant::now();
    let (mut session, link) = begun(now);
    let told = |session: &Session| session.status().last.unwrap().1.to_string();
    session.received(now, link, &[open(90), message(3, &[2, 2])].concat());
    let why = "the peer ended it: OPEN Message Error/Bad Peer AS";
    assert_eq!(told(&session), why);
    let next = |session: &mut Session| session.accepted(now, NextHops::default()).unwrap();
    for _ in 0..3 {
        let link = next(&mut session);
        session.closed(now, link, "reset");
        assert_eq!(told(&session), why);
    }
    let link = next(&mut session);
    session.received(now, link, &open(90));
    session.closed(now, link, "reset");
    assert_eq!(told(&session), "connection lost: reset");
    let link = next(&mut session);
    session.closed(now, link, "closed");
    assert_eq!(told(&session), "connection lost: closed");
}
