//! What is known of each router, for people. Never a judge of anything.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use super::told::{PeerTold, Told};

/// All peers of this node by their names, as JSON, with how long it is at `now` that each is so.
pub fn shown(told: &Told, now: Instant) -> Value {
    let peers = told.peers.iter().map(|(name, peer)| of(name, peer, now));
    let awaited = told.awaited.iter().filter(|name| !told.peers.contains_key(*name));
    // Their sessions were up in an earlier life, and readiness waits for them.
    let awaited = awaited.map(|name| json!({ "peer": name, "state": "awaited" }));
    Value::Array(peers.chain(awaited).collect())
}

fn of(name: &str, peer: &PeerTold, now: Instant) -> Value {
    let seconds = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at).as_secs());
    let told: BTreeMap<String, usize> =
        peer.routes.iter().map(|(family, count)| (family.to_string(), *count)).collect();
    let untold: BTreeMap<String, &str> =
        peer.untold.iter().map(|(family, why)| (family.to_string(), *why)).collect();
    json!({
        "peer": name,
        "at": peer.at,
        "state": peer.state.to_string(),
        "for_seconds": seconds(peer.since),
        "as": peer.is.map(|(asn, _)| asn),
        "router_id": peer.is.map(|(_, id)| id.to_string()),
        "routes_told": told,
        "not_told": untold,
        "told_everything": peer.is_complete,
        "keeps_routes_in_a_restart": peer.survives,
        "last_error": peer.last,
        "last_error_seconds_ago": seconds(peer.last_at),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use berth_bgp::{Family, State};

    use super::*;

    #[test]
    fn each_peer_is_shown_with_how_it_is_and_since_when() {
        let now = Instant::now();
        let ago = |seconds| now.checked_sub(Duration::from_secs(seconds));
        let up = PeerTold {
            at: "192.0.2.1 port 179".to_owned(),
            state: State::Established,
            since: ago(7),
            last: Some("no answer".to_owned()),
            last_at: ago(9),
            is: Some((65001, [192, 0, 2, 1].into())),
            routes: [(Family::V4, 2)].into(),
            untold: [(Family::V6, "for want of it")].into(),
            is_complete: true,
            ..PeerTold::default()
        };
        let told = Told {
            peers: [("a".to_owned(), up), ("b".to_owned(), PeerTold::default())].into(),
            awaited: ["a".to_owned(), "gone".to_owned()].into(),
            ..Told::default()
        };
        let shown = shown(&told, now);
        let expected = json!({
            "peer": "a", "at": "192.0.2.1 port 179", "state": "Established", "for_seconds": 7,
            "as": 65001, "router_id": "192.0.2.1", "routes_told": {"IPv4": 2}, "not_told": {"IPv6": "for want of it"}, "told_everything": true, "keeps_routes_in_a_restart": false,
            "last_error": "no answer", "last_error_seconds_ago": 9,
        });
        assert_eq!(shown[0], expected);
        assert_eq!((&shown[1]["state"], &shown[1]["for_seconds"]), (&json!("Idle"), &Value::Null));
        assert_eq!(shown[2], json!({"peer": "gone", "state": "awaited"}));
        assert_eq!(super::shown(&Told::default(), now), json!([]));
    }
}
