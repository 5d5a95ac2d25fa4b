//! Every interleaving of two controllers that both believe they lead, their late watches, an announcer, a user and a
//! bounded number of faults. In each state that can be reached the invariants hold, and from each the cluster heals.
#![allow(clippy::unwrap_used)]

#[path = "../index/cluster.rs"]
#[allow(dead_code)]
mod cluster;
mod controller;
mod judge;
mod shape;
mod shared;
mod user;
mod world;

use std::collections::{HashSet, VecDeque};

use user::User;
use world::{Faults, Step, World};

const LIMIT: usize = 300_000;

/// Visits every state that can be reached, breadth first, so that what it finds is the shortest way there.
fn explore(start: World) -> usize {
    let states = explore_first(LIMIT, start);
    assert!(states < LIMIT, "too many states for a test: narrow the scenario");
    states
}

/// Visits so many states, those that take the fewest steps first.
fn explore_first(limit: usize, start: World) -> usize {
    search(limit, start).unwrap_or_else(|problem| panic!("{problem}"))
}

/// The same; what is wrong in a state is an error, with the way there.
fn search(limit: usize, start: World) -> Result<usize, String> {
    let mut seen = HashSet::from([start.fingerprint()]);
    let mut ways: Vec<(usize, Option<Step>)> = vec![(0, None)];
    let mut open = VecDeque::from([(0, start)]);
    while let Some((at, world)) = open.pop_front().filter(|_| seen.len() < limit) {
        let steps = world.steps();
        // From any other state the way to rest leads through states that are visited too.
        let rests = steps.iter().all(Step::is_fault);
        let well = if rests { world.clone().heal() } else { world.check() };
        if let Err(problem) = well {
            return Err(format!("{problem}, after:\n{}", way(&ways, at).join("\n")));
        }
        for step in steps {
            let mut next = world.clone();
            next.take(&step);
            if seen.insert(next.fingerprint()) {
                ways.push((at, Some(step)));
                open.push_back((ways.len() - 1, next));
            }
        }
    }
    Ok(seen.len())
}

fn way(ways: &[(usize, Option<Step>)], mut at: usize) -> Vec<String> {
    let mut steps = Vec::new();
    while let (before, Some(step)) = &ways[at] {
        steps.push(format!("  {step:?}"));
        at = *before;
    }
    steps.reverse();
    steps
}

#[test]
fn two_leaders_never_give_one_address_twice() {
    let user = [User::Create("a", None), User::Create("b", None)];
    let states = explore(World::new(2, [], Faults::default()).with_one_watch().after(user));
    println!("{states} states");
}

#[test]
fn two_leaders_and_a_deletion_leave_nothing_behind() {
    let user = [User::Create("a", None)];
    let states = explore(World::new(2, [User::Delete("a")], Faults::default()).after(user));
    println!("{states} states");
}

#[test]
fn a_write_meant_for_a_former_service_harms_no_later_one() {
    let user = [User::Strip("a"), User::Create("b", None), User::Create("a", None)];
    let world = World::new(1, user, Faults { crashes: 1, ..Faults::default() }).with_one_watch();
    let states = explore(world.after([User::Create("a", None)]));
    println!("{states} states");
}

#[test]
fn a_crash_after_any_write_heals() {
    let user = [User::Create("a", None), User::Create("b", Some("192.0.2.1"))];
    let states = explore(World::new(1, user, Faults { crashes: 2, ..Faults::default() }));
    println!("{states} states");
}

#[test]
fn a_write_that_timed_out_and_was_applied_heals() {
    let user = [User::Create("a", None), User::Delete("a")];
    let states = explore(World::new(1, user, Faults { lost: 2, busy: 1, ..Faults::default() }));
    println!("{states} states");
}

#[test]
fn a_service_made_anew_under_its_name_gets_no_address_of_its_former_self() {
    let user = [User::Create("a", None), User::Strip("a"), User::Create("a", None)];
    let states = explore(World::new(1, user, Faults { crashes: 1, lost: 1, ..Faults::default() }));
    println!("{states} states");
}

#[test]
fn an_address_is_not_given_on_while_it_is_answered_for() {
    let user = [User::Create("a", None), User::Delete("a"), User::Create("b", Some("192.0.2.1"))];
    let states =
        explore(World::new(1, user, Faults { crashes: 1, ..Faults::default() }).with_announcer());
    println!("{states} states");
}

#[test]
fn a_move_heals_from_every_crash() {
    let user =
        [User::Create("a", None), User::Move("a", "192.0.2.2"), User::MoveField("a", "192.0.2.1")];
    let states = explore(World::new(1, user, Faults { crashes: 1, lost: 1, ..Faults::default() }));
    println!("{states} states");
}

#[test]
fn two_that_want_one_port_never_share_an_address() {
    // Who has seen only `c` lets it in; who has seen both lets `b` in, whose turn is first.
    let world = World::new(2, [User::Create("b", None)], Faults::default()).with_one_watch();
    let world = world.with_sharing().serving("a", "192.0.2.1");
    // There are more than can be visited here; without the compare-and-swap a few hundred are enough.
    let states = explore_first(40_000, world.after([User::Create("c", None)]));
    println!("{states} states");
}

#[test]
fn who_joins_while_another_leaves_keeps_the_address() {
    let user = [User::Create("a", None), User::Create("b", None), User::Delete("a")];
    let faults = Faults { crashes: 1, lost: 1, ..Faults::default() };
    let states = explore(World::new(1, user, faults).with_sharing().with_one_watch());
    println!("{states} states");
}

#[test]
fn two_leaders_never_give_a_service_and_a_machine_one_address() {
    // Who has seen only the binding gives it the first address; who has seen both, the Service.
    let world = World::new(2, [User::Create("a", None)], Faults::default()).with_one_watch();
    let world = world.after([User::Bind("v", None)]).with_finalizer("v");
    let states = explore_first(10_000, world.clone());
    println!("{states} states");
    // Were it not for the API server, which lets a claim be created once, both would have it.
    let found = search(10_000, world.without_the_law()).unwrap_err();
    assert!(found.contains("claimed by"), "{found}");
}

#[test]
fn an_elastic_ip_is_not_given_on_while_it_is_answered_for() {
    let user = [User::Unbind("v"), User::Create("a", Some("192.0.2.1"))];
    let faults = Faults { crashes: 1, ..Faults::default() };
    let world = World::new(1, user, faults).with_announcer();
    let states = explore(world.after([User::Bind("v", None)]).at_rest());
    println!("{states} states");
}

#[test]
fn an_elastic_ip_that_is_moved_beside_a_service_heals_from_every_crash() {
    let user = [User::Pin("v", "192.0.2.2"), User::Unbind("v")];
    let faults = Faults { crashes: 1, ..Faults::default() };
    let world = World::new(1, user, faults).with_announcer();
    let states = explore(world.after([User::Bind("v", None)]).at_rest());
    println!("{states} states");
    let user = [User::Pin("v", "192.0.2.1"), User::Delete("a")];
    let world = World::new(1, user, faults).serving("a", "192.0.2.1");
    let states = explore(world.after([User::Bind("v", None)]).at_rest());
    println!("{states} states");
}

#[test]
fn two_leaders_and_a_deleted_binding_leave_nothing_behind() {
    let world = World::new(2, [User::Unbind("v")], Faults::default());
    let world = world.with_announcer().with_one_watch();
    let states = explore(world.after([User::Bind("v", None)]).at_rest());
    println!("{states} states");
}

#[test]
fn a_binding_made_anew_under_its_name_gets_no_address_of_its_former_self() {
    let user = [User::Bind("v", None), User::StripBinding("v"), User::Bind("v", None)];
    let faults = Faults { crashes: 1, ..Faults::default() };
    let states = explore(World::new(1, user, faults).with_announcer());
    println!("{states} states");
}
