//! What a peer may send, or whoever is at its address: it is taken or refused, and harms nothing.

use std::cell::Cell;
use std::time::{Duration, Instant};

use berth_bgp::wire::decode;
use berth_bgp::{Prefix, Session, State, Step};

use crate::scripted::{begun, keepalive, message, open};

fn samples() -> Vec<Vec<u8>> {
    let end = message(2, &[0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1]);
    let route = [
        0, 0, 0, 20, 0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9, 0x40, 3, 4, 192, 0, 2, 1,
        24, 10, 0, 0,
    ];
    let capabilities = [
        4, 0xfd, 0xe9, 0, 90, 192, 0, 2, 1, 34, 2, 32, 1, 4, 0, 1, 0, 1, 2, 0, 5, 6, 0, 1, 0, 1, 0,
        2, 64, 6, 0x80, 120, 0, 1, 1, 0x80, 65, 4, 0, 0, 0xfd, 0xe9, 70, 0,
    ];
    let full = message(1, &capabilities);
    let long =
        message(1, &[&capabilities[..9], &[255, 255, 0, 9, 2, 0, 6, 1, 4, 0, 1, 0, 1]].concat());
    assert!([&full, &long].iter().all(|open| decode(open).is_ok()), "samples are valid");
    vec![
        [full.clone(), keepalive(), message(2, &route), end].concat(),
        [long, keepalive(), message(5, &[0, 1, 0, 1])].concat(),
        [open(90), keepalive(), message(3, &[6, 9, 6, 2, 3, b'b', b'y', b'e'])].concat(),
        [full, message(3, &[2, 7, 1, 4, 0, 1, 0, 1])].concat(),
    ]
}

#[test]
fn whatever_a_peer_sends_it_is_taken_or_refused_and_the_session_can_begin_anew() {
    let (up, refused) = (Cell::new(0), Cell::new(0));
    berth_hostile::octets(&samples(), |octets| {
        let mut now = Instant::now();
        let (mut session, link) = begun(now);
        session.set_route("198.51.100.1/32".parse().unwrap(), Some(Default::default()));
        for piece in octets.chunks(100) {
            session.received(now, link, piece);
            let written = session.output(now, link).len();
            session.written(now, link, written);
        }
        let counter = if session.status().state == State::Established { &up } else { &refused };
        counter.set(counter.get() + 1);
        for _ in 0..8 {
            let Some(deadline) = session.deadline() else { break };
            now = now.max(deadline);
            session.poll(now);
        }
        let mut steps = 0;
        while let Some(step) = session.next_step() {
            steps += 1;
            if let Step::Tell(event) = step {
                // What it says is shown, however odd.
                let _ = format!("{event:?}");
            }
        }
        assert!(steps < 20, "{steps}");
        let _ = session.status().last.map(|(_, cause)| cause.to_string());
        // And the right peer is welcome.
        let link = session.accepted(now, berth_bgp::NextHops::default()).unwrap();
        now += Duration::from_secs(10);
        session.received(now, link, &[open(90), keepalive()].concat());
        let state = session.status().state;
        assert_eq!(state, State::Established);
    });
    assert!(up.get() > 0 && refused.get() > up.get(), "{up:?} {refused:?}");
}

#[test]
fn a_flood_of_signs_of_life_costs_work_in_proportion() {
    berth_hostile::in_proportion(3000, |count| {
        let now = Instant::now();
        let (mut session, link) = begun(now);
        session.received(now, link, &[open(90), keepalive().repeat(count)].concat());
        assert_eq!(session.status().state, State::Established);
    });
}

#[test]
fn a_flood_of_routes_costs_work_in_proportion() {
    let attributes = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9, 0x40, 3, 4, 192, 0, 2, 1];
    // As many prefixes as fit.
    let prefixes = [24, 10, 0, 0].repeat(1000);
    let update = message(2, &[&[0, 0, 0, 20][..], &attributes, &prefixes].concat());
    berth_hostile::in_proportion(30, |count| {
        let now = Instant::now();
        let (mut session, link) = begun(now);
        session.received(now, link, &[open(90), keepalive(), update.repeat(count)].concat());
        assert_eq!(session.status().state, State::Established);
    });
}

#[test]
fn who_asks_for_everything_again_and_again_has_it_once_for_each_time_it_has_read_it() {
    let now = Instant::now();
    let (mut session, link) = begun(now);
    let host = |n: u32| Prefix::host(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into());
    session.set_routes((0..2_000).map(|n| (host(n), Default::default())).collect());
    session.received(now, link, &[open(90), keepalive()].concat());
    let sent = |session: &mut Session| {
        let mut sent = 0;
        while let count @ 1.. = session.output(now, link).len() {
            session.written(now, link, count);
            sent += count;
        }
        sent
    };
    let all = sent(&mut session);
    let refresh = message(5, &[0, 1, 0, 1]);
    session.received(now, link, &refresh.repeat(10_000));
    assert!(!session.is_told());
    let again = sent(&mut session);
    assert!(again > 10_000 && again <= all, "{again} of {all}");
    // For a peer that reads nothing no more is made than a few messages.
    for _ in 0..10_000 {
        session.received(now, link, &refresh);
        assert!(session.output(now, link).len() < 10 * 4096);
    }
}
