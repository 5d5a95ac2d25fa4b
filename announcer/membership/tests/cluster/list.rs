//! Nodes whose members are those of a list: three of one list own, one that has another list is refused and told of.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use berth_membership::{
    DatagramError, Input, NodeId, Parameters, Request, View, Voters, voters_among,
};

use crate::cluster::{ADDRESS, Cluster, ids};

fn list(names: &[&str]) -> Input<'static> {
    let voters = Voters::new(ids(&names[..voters_among(names.len())])).unwrap();
    Input::Fixed(View::new(1, voters, Vec::new()).unwrap())
}

#[test]
fn three_of_one_list_own_once_a_promise_of_an_earlier_run_would_be_over() {
    let mut cluster = Cluster::new();
    let start = cluster.now;
    for name in ["a", "b", "c"] {
        cluster.start(name, list(&["a", "b", "c"]));
    }
    cluster.run(Duration::from_secs(2));
    let owners = cluster.owners();
    assert_eq!(owners.len(), 1);
    let (since, _) = cluster.armed[&owners[0]];
    assert!(since >= start + Parameters::default().promise());
    assert_eq!(cluster.refused, []);

    // It stops, and another is the owner at once: nothing has to be stored for that.
    cluster.tell(owners[0], Input::Leave);
    cluster.run(Duration::from_millis(500));
    assert_eq!(cluster.left, owners);
    assert!(cluster.owners().len() == 1 && cluster.owners() != owners);
}

#[test]
fn of_nodes_that_all_leave_at_once_none_is_handed_what_another_has() {
    for (first, apart) in [0, 1, 2]
        .into_iter()
        .flat_map(|first| [0, 100, 300, 500, 700, 1_000, 9_000].map(|apart| (first, apart)))
    {
        let mut cluster = Cluster::new();
        for name in ["a", "b", "c"] {
            cluster.start(name, list(&["a", "b", "c"]));
        }
        cluster.run(Duration::from_secs(2));
        let owner = cluster.owners()[0];
        let mut nodes: Vec<NodeId> =
            ids(&["a", "b", "c"]).into_iter().filter(|node| *node != owner).collect();
        nodes.insert(first, owner);
        for node in nodes {
            cluster.tell(node, Input::Leave);
            cluster.run(Duration::from_micros(apart));
        }
        cluster.run(Duration::from_secs(2));
        assert_eq!((cluster.left.len(), cluster.owners().len()), (3, 0), "{first} {apart}");
        assert_eq!(cluster.ready, BTreeSet::new(), "{first} {apart}: nothing stays bound");
    }
}

/// A host on the LAN may have recorded what the voters answered before this node was rebooted, when its clock was ahead.
#[test]
fn answers_to_an_earlier_run_do_not_hide_those_to_this_one() {
    let mut before = Cluster::new();
    for name in ["a", "b", "c"] {
        before.start(name, list(&["a", "b", "c"]));
    }
    before.run(Duration::from_secs(20));

    let mut cluster = Cluster::new();
    cluster.now = cluster.now + Duration::from_millis(7);
    for name in ["a", "b", "c"] {
        cluster.start(name, list(&["a", "b", "c"]));
    }
    let (me, address) = (NodeId::of("c"), ADDRESS.parse().unwrap());
    for node in ids(&["a", "b", "c"]) {
        cluster.tell(node, Input::Withdraw { address });
    }
    for (_, datagram) in before.recorded.iter().filter(|(to, _)| *to == me) {
        cluster.tell(me, Input::Datagram(datagram));
    }
    cluster.run(Duration::from_secs(1));
    let request = Request { candidates: [me].into(), ..Request::default() };
    cluster.tell(me, Input::Request { address, request });
    cluster.run(Duration::from_secs(4));
    assert_eq!(cluster.owners(), [me]);
}

#[test]
fn a_dead_majority_is_silent_until_it_returns() {
    let mut cluster = Cluster::new();
    for name in ["a", "b", "c"] {
        cluster.start(name, list(&["a", "b", "c"]));
    }
    cluster.run(Duration::from_secs(2));
    for name in ["a", "b"] {
        cluster.nodes.remove(&NodeId::of(name));
        cluster.armed.remove(&NodeId::of(name));
    }
    cluster.run(Duration::from_secs(60));
    assert_eq!(cluster.owners(), []);
    cluster.start("b", list(&["a", "b", "c"]));
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.owners().len(), 1);
}

#[test]
fn the_voters_that_do_not_answer_are_known_after_a_while_and_for_no_longer() {
    const AFTER: Duration = Duration::from_millis(1_500);
    let mut cluster = Cluster::new();
    let unheard = |cluster: &Cluster, by: &str| {
        let mut unheard: Vec<_> = cluster.nodes[&NodeId::of(by)].unheard(AFTER).collect();
        unheard.sort();
        unheard
    };
    let both = |names: &[&str]| {
        let mut both = ids(names);
        both.sort();
        both
    };
    for name in ["a", "c"] {
        cluster.start(name, list(&["a", "b", "c"]));
    }
    assert_eq!(unheard(&cluster, "a"), [], "it has just begun");
    cluster.run(Duration::from_secs(2));
    assert_eq!(unheard(&cluster, "a"), ids(&["b"]), "never heard");
    cluster.stop("c");
    cluster.run(Duration::from_secs(1));
    assert_eq!(unheard(&cluster, "a"), ids(&["b"]), "not yet");
    cluster.run(Duration::from_secs(1));
    assert_eq!(unheard(&cluster, "a"), both(&["b", "c"]), "heard before");
    cluster.start("b", list(&["a", "b", "c"]));
    cluster.run(Duration::from_secs(1));
    assert_eq!(unheard(&cluster, "a"), ids(&["c"]));
}

#[test]
fn a_node_with_another_list_or_none_is_granted_nothing_and_told_of() {
    let others: [fn() -> Input<'static>; 3] = [
        || list(&["a", "b", "d", "c"]),
        || list(&["b", "c", "d"]),
        || Input::View(View::first(NodeId::of("c"))),
    ];
    for other in others {
        let mut cluster = Cluster::new();
        cluster.start("a", list(&["a", "b", "c"]));
        cluster.start("b", list(&["a", "b", "c"]));
        cluster.start("c", other());
        // The one voter of a view from an API may own by itself, and its peers do not follow it.
        let alone = matches!(other(), Input::View(_));
        if alone {
            let address: IpAddr = ADDRESS.parse().unwrap();
            cluster.tell(NodeId::of("c"), Input::Withdraw { address });
        }
        cluster.run(Duration::from_secs(5));
        let owners = cluster.owners();
        assert!(owners.len() == 1 && owners != ids(&["c"]), "{owners:?}");
        let told = |of: &str, by: &str| {
            cluster.refused.contains(&(NodeId::of(by), DatagramError::OtherMembers(NodeId::of(of))))
        };
        assert!(alone || told("c", "b"), "{:?}", cluster.refused);
        assert!(told("b", "c"), "{:?}", cluster.refused);
    }
}
