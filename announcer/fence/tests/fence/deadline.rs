//! An address answers until its deadline and not after it, whatever becomes of the process. Judged at the far end of
//! the wire, by the kernel's receive time of what arrives there.

use nix::sys::signal::Signal;

use crate::support::{
    FOREIGN4, Holder, LATENESS, NODE4, NODE6, OTHER4, VIP4, VIP6, Wire, Witness, bind, boottime,
    until,
};

/// The same for each kind of fence.
macro_rules! for_kind {
    ($kind:literal: $($test:ident)*) => {
        $(#[test] fn $test() { super::$test($kind); })*
    };
}

mod bpf {
    for_kind!("bpf":
        an_address_answers_before_its_deadline_and_not_after_it
        a_stopped_process_answers_no_longer_than_it_was_granted
        a_process_stopped_between_computing_a_deadline_and_arming_it_opens_nothing
        a_killed_process_answers_no_longer_than_it_was_granted
        muting_one_address_leaves_the_others_answering
        an_earlier_deadline_takes_the_place_of_a_later_one
        the_nodes_own_and_foreign_addresses_go_on_answering
    );
}

mod nft {
    for_kind!("nft-timeout":
        an_address_answers_before_its_deadline_and_not_after_it
        a_stopped_process_answers_no_longer_than_it_was_granted
        a_process_stopped_between_computing_a_deadline_and_arming_it_opens_nothing
        a_killed_process_answers_no_longer_than_it_was_granted
        muting_one_address_leaves_the_others_answering
        an_earlier_deadline_takes_the_place_of_a_later_one
        the_nodes_own_and_foreign_addresses_go_on_answering
    );
}

/// How often what must never happen is given the chance.
const RUNS: usize = 10;

/// Waits until `deadline` is well past and both families were asked for long after it; then fails if either address
/// answered after it.
fn silent_after(witness: &Witness, deadline: u64, run: usize) {
    until("the deadline has passed", || boottime() > deadline);
    for (vip, node) in [(VIP4, NODE4), (VIP6, NODE6)] {
        // What left before the deadline has arrived by now, and a hundred questions later none has followed.
        witness.silence(vip, node, 100);
        let last = witness.last(vip).expect("it answered before");
        let margin = last as i64 - deadline as i64;
        println!("run {run}: {vip}: last answer {} us from the deadline", margin / 1000);
        assert!(
            margin < LATENESS.as_nanos() as i64,
            "run {run}: {vip} answered {margin} ns after its deadline"
        );
    }
}

fn live(kind: &str) -> (Wire, Holder, Witness) {
    let wire = Wire::lay();
    wire.bind(VIP4);
    wire.bind(VIP6);
    let holder = wire.settled(kind, &[VIP4, VIP6]);
    assert!(holder.greeting.starts_with(kind), "this kernel has it: {}", holder.greeting);
    let witness = wire.witness();
    witness.ask(&[VIP4, VIP6, NODE4, NODE6]);
    (wire, holder, witness)
}

/// Arms both addresses for a while until each has answered within one grant, and returns that grant's end. A grant
/// in which a busy machine never got round to asking proves nothing.
fn answered_grant(holder: &mut Holder, witness: &Witness) -> u64 {
    for _ in 0..20 {
        let from = boottime();
        let deadline = holder.at(&format!("arm 400 {VIP4} {VIP6}"));
        let answered = |vip| witness.last(vip).is_some_and(|at| at > from);
        until("the grant has ended", || boottime() > deadline || answered(VIP4) && answered(VIP6));
        if answered(VIP4) && answered(VIP6) {
            return deadline;
        }
    }
    panic!("armed twenty times, and the addresses did not answer");
}

fn an_address_answers_before_its_deadline_and_not_after_it(kind: &str) {
    let (_wire, mut holder, witness) = live(kind);
    assert_eq!(witness.silence(VIP4, NODE4, 100), 0, "mute until it is armed");
    assert_eq!(witness.silence(VIP6, NODE6, 100), 0, "mute until it is armed");
    for run in 0..RUNS {
        let deadline = answered_grant(&mut holder, &witness);
        silent_after(&witness, deadline, run);
    }
}

fn a_stopped_process_answers_no_longer_than_it_was_granted(kind: &str) {
    let (_wire, mut holder, witness) = live(kind);
    for run in 0..RUNS {
        holder.ok(&format!("keep 500 50 {VIP4} {VIP6}"));
        witness.hears(VIP4);
        witness.hears(VIP6);
        holder.signal(Signal::SIGSTOP);
        holder.wait_stopped();
        // Whatever it armed last is no later than a grant from now.
        let latest = boottime() + 500_000_000;
        silent_after(&witness, latest, run);
        holder.signal(Signal::SIGCONT);
        assert_eq!(holder.answer(), "lapsed");
        assert_eq!(witness.silence(VIP4, NODE4, 100), 0, "run {run}: an answer after SIGCONT");
        assert_eq!(witness.silence(VIP6, NODE6, 100), 0, "run {run}: an answer after SIGCONT");
    }
}

fn a_process_stopped_between_computing_a_deadline_and_arming_it_opens_nothing(kind: &str) {
    let (_wire, mut holder, witness) = live(kind);
    for run in 0..RUNS {
        holder.tell(&format!("stop-and-arm 500 {VIP4} {VIP6}"));
        holder.wait_stopped();
        let granted = boottime() + 500_000_000;
        until("the grant has ended", || boottime() > granted);
        holder.signal(Signal::SIGCONT);
        let deadline: u64 = holder.answer().parse().unwrap();
        assert!(deadline < boottime());
        assert_eq!(witness.silence(VIP4, NODE4, 100), 0, "run {run}");
        assert_eq!(witness.silence(VIP6, NODE6, 100), 0, "run {run}");
    }
}

fn a_killed_process_answers_no_longer_than_it_was_granted(kind: &str) {
    let (wire, mut holder, witness) = live(kind);
    for run in 0..RUNS {
        holder.ok(&format!("keep 500 50 {VIP4} {VIP6}"));
        witness.hears(VIP4);
        witness.hears(VIP6);
        holder.kill();
        silent_after(&witness, boottime() + 500_000_000, run);
        holder = wire.settled(kind, &[VIP4, VIP6]);
    }
}

fn muting_one_address_leaves_the_others_answering(kind: &str) {
    let wire = Wire::lay();
    for address in [VIP4, OTHER4, VIP6] {
        wire.bind(address);
    }
    let mut holder = wire.settled(kind, &[VIP4, OTHER4, VIP6]);
    let witness = wire.witness();
    witness.ask(&[VIP4, OTHER4, VIP6]);
    holder.at(&format!("arm 60000 {VIP4} {OTHER4} {VIP6}"));
    witness.hears(VIP4);
    let muted = holder.at(&format!("mute {VIP4}"));
    witness.silence(VIP4, OTHER4, 100);
    witness.hears(VIP6);
    let last = witness.last(VIP4).unwrap();
    assert!(last < muted + LATENESS.as_nanos() as u64, "{} ns after mute", last - muted);
}

fn an_earlier_deadline_takes_the_place_of_a_later_one(kind: &str) {
    let (_wire, mut holder, witness) = live(kind);
    holder.at(&format!("arm 60000 {VIP4} {VIP6}"));
    witness.hears(VIP4);
    witness.hears(VIP6);
    let deadline = holder.at(&format!("arm 50 {VIP4} {VIP6}"));
    silent_after(&witness, deadline, 0);
}

fn the_nodes_own_and_foreign_addresses_go_on_answering(kind: &str) {
    let wire = Wire::lay();
    wire.bind(VIP4);
    bind(&wire.node, FOREIGN4, "eth0");
    let holder = wire.settled(kind, &[VIP4]);
    let witness = wire.witness();
    witness.ask(&[VIP4, NODE4, NODE6, FOREIGN4]);
    for address in [NODE4, NODE6, FOREIGN4] {
        witness.hears(address);
    }
    holder.kill();
    for address in [NODE4, NODE6, FOREIGN4] {
        witness.hears(address);
    }
    assert!(witness.answers(VIP4).is_empty());
}
