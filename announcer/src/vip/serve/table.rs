//! Every case of who may serve, as docs/serving.md has them. `BERTH_WRITE_DOCS=1` writes them there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use berth_membership::NodeId;

use super::*;
use crate::vip::nodes::Peer;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/serving.md");
const MARKS: [&str; 2] = ["<!-- serve: written by its test -->\n", "<!-- /serve -->\n"];

const TRAFFIC: [&str; 5] =
    ["`Cluster`", "`Local`", "needs no endpoint", "this node is named", "another is named"];
const ENDPOINTS: [&str; 7] = [
    "none",
    "ready here",
    "ready elsewhere",
    "ready on no node",
    "ending here",
    "ending elsewhere",
    "ending here, ready elsewhere",
];
const ME: [&str; 3] = ["stays", "cordoned", "emptied"];
const OTHERS: [&str; 4] = ["one stays", "one is cordoned", "one is emptied", "none lives"];
const REACH: [&str; 3] = ["good", "poor", "none"];
const NAMES: [&[&str]; 5] = [&TRAFFIC, &ENDPOINTS, &ME, &OTHERS, &REACH];

type Case = [usize; 5];
/// What comes of a case: whose turn it is, and what becomes of what this node has.
type Outcome = (String, &'static str);

fn endpoints(number: usize) -> Endpoints {
    let on = |node: &str| Where { any: true, nodes: [node.to_owned()].into() };
    let nowhere = Where { any: true, nodes: BTreeSet::new() };
    let (ready, serving) = match number {
        0 => (Where::default(), Where::default()),
        1 => (on("me"), Where::default()),
        2 => (on("other"), Where::default()),
        3 => (nowhere, Where::default()),
        4 => (Where::default(), on("me")),
        5 => (Where::default(), on("other")),
        _ => (on("other"), on("me")),
    };
    Endpoints { ready, serving }
}

fn decide([traffic, ends, me, others, reach]: Case) -> Outcome {
    let named = |name: &str| Traffic::Named(Some(name.to_owned()));
    let traffic = [Traffic::Cluster, Traffic::Local, Traffic::Anyhow, named("me"), named("other")]
        [traffic]
        .clone();
    let has_endpoints = matches!(traffic, Traffic::Cluster | Traffic::Local);
    let endpoints = if has_endpoints { endpoints(ends) } else { Endpoints::default() };
    let serving = Serving { traffic, endpoints };
    let stays = [Stay::Stays, Stay::Cordoned, Stay::Emptied];
    let mut peers = Peers::default();
    for (name, stay) in [("me", stays[me]), ("other", *stays.get(others).unwrap_or(&Stay::Stays))] {
        peers.apply(name.to_owned(), Peer { stay, ..Peer::default() });
    }
    let live = ["me", "other"].map(NodeId::of);
    let live: BTreeSet<NodeId> = live[..if others == 3 { 1 } else { 2 }].iter().copied().collect();
    let reach = [Reach::Good, Reach::Poor, Reach::None][reach];
    let nodes = Some(&peers);
    let serves =
        serve(Ask { serving: &serving, nodes, lives: Lives::Known(&live), me: "me", reach });
    let other = serves.ranks.get("other").filter(|_| others != 3);
    let Some(mine) = serves.ranks.get("me") else {
        let why = format!("{:?}", serves.here.unwrap());
        let nobody = serves.nobody == Some(Why::NoLiveNode);
        return (format!("no: {why}{}", if nobody { ", and nobody lives" } else { "" }), "lets go");
    };
    assert_eq!((serves.here, serves.nobody), (None, None), "who may lives");
    let turn = match other {
        None => "at once, alone",
        Some(other) if mine < other => "before the other",
        Some(other) if mine == other => "with the other",
        Some(_) => "after the other",
    };
    let gives = mine.moves() && other.is_some_and(|other| other.tier() < mine.tier());
    (turn.to_owned(), if gives { "gives it" } else { "keeps it" })
}

/// All cases, those together that differ in one column and come to the same, until there are none.
fn rows() -> Vec<([BTreeSet<usize>; 5], Outcome)> {
    let mut cases: Vec<Case> = vec![[0; 5]];
    for (column, names) in NAMES.iter().enumerate() {
        let with = |case: Case, value| {
            let mut case = case;
            case[column] = value;
            case
        };
        cases = cases
            .into_iter()
            .flat_map(|case| (0..names.len()).map(move |value| with(case, value)))
            .collect();
    }
    assert_eq!(cases.len(), 1260);
    let single = |case: Case| (case.map(|value| BTreeSet::from([value])), decide(case));
    let mut rows: Vec<_> = cases.into_iter().map(single).collect();
    loop {
        let before = rows.len();
        for column in [1, 3, 4, 2, 0] {
            let mut merged: BTreeMap<_, BTreeSet<usize>> = BTreeMap::new();
            for (mut sets, outcome) in rows {
                let values = std::mem::take(&mut sets[column]);
                merged.entry((sets, outcome)).or_default().extend(values);
            }
            let whole = |((mut sets, outcome), values): (([BTreeSet<usize>; 5], Outcome), _)| {
                sets[column] = values;
                (sets, outcome)
            };
            rows = merged.into_iter().map(whole).collect();
        }
        if rows.len() == before {
            return rows;
        }
    }
}

fn table() -> String {
    let mut text =
        "| traffic | endpoints | this node | others that live | reach | its turn | what it has |\n\
                    |---|---|---|---|---|---|---|\n"
            .to_owned();
    for (sets, (turn, has)) in rows() {
        for (set, names) in sets.iter().zip(NAMES) {
            let all: Vec<&str> = set.iter().map(|value| names[*value]).collect();
            let cell = if all.len() == names.len() { "any".to_owned() } else { all.join("; ") };
            text.push_str(&format!("| {cell} "));
        }
        text.push_str(&format!("| {turn} | {has} |\n"));
    }
    text
}

#[test]
fn the_table_in_the_docs_is_what_comes_of_all_cases() {
    let docs = std::fs::read_to_string(Path::new(DOCS)).unwrap();
    let [begin, end] = MARKS;
    let (before, rest) = docs.split_once(begin).expect(begin);
    let (shown, after) = rest.split_once(end).expect(end);
    let table = table();
    if std::env::var_os("BERTH_WRITE_DOCS").is_some() {
        std::fs::write(DOCS, format!("{before}{begin}{table}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(shown, table, "BERTH_WRITE_DOCS=1 writes it");
}
