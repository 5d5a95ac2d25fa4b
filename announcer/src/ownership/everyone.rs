//! Every candidate may have an address, but for those that are being emptied while there are others: its routers choose
//! among those that tell them of it. Pure.

use std::time::{Duration, Instant};

use super::clearing::in_turn;
use super::context::Context;
use crate::vip::serve::{Ask, Lives, Reach, serve};
use crate::vip::{Hold, Holds, Name, Vip, Want};

/// The kernel drops an address that nobody renews for so long.
const KEPT: Duration = Duration::from_secs(60);

/// How far the lifetime of a bound address may fall behind before it is renewed.
const SLACK: Duration = Duration::from_secs(20);

/// Every candidate owns.
#[derive(Clone, Debug, Default)]
pub struct Everyone {
    leaving: bool,
}

impl Everyone {
    /// What this node may have bound.
    pub fn holds(&self, context: Context<'_>, now: Instant) -> Holds {
        if self.leaving || !context.known {
            return Holds::new();
        }
        let may = |want: &Want| {
            let Context { nodes, node: me, .. } = context;
            let (lives, reach) = (Lives::Unknown, Reach::Good);
            let serves = serve(Ask { serving: &want.serving, nodes, lives, me, reach });
            let is_emptied = serves.ranks.get(me).is_some_and(|rank| rank.moves());
            want.serving.has(me) && !(is_emptied && serves.is_beaten(me))
        };
        let serves = |vip: &Vip| vip.wants.iter().any(may);
        let mine = context.wanted.addressed().filter(|(_, vip)| serves(vip));
        mine.map(|(address, _)| (address, Hold { until: now + KEPT, answers: true, lapses: None }))
            .collect()
    }

    /// After how long this node clears the status of a Service.
    pub fn clears(&self, context: Context<'_>, service: &Name) -> Option<Duration> {
        (!self.leaving).then(|| in_turn(context.node, service))
    }

    /// How far the lifetime of a bound address may fall behind before it is renewed.
    pub fn slack(&self) -> Duration {
        SLACK
    }

    /// From now on holds nothing.
    pub fn leave(&mut self) {
        self.leaving = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::testing::context;
    use crate::source::cluster::Cluster;
    use crate::source::cluster::testing::{service, slice};
    use crate::source::testing::{host, seen};
    use crate::vip::nodes::{Peer, Peers, Stay};

    #[test]
    fn each_candidate_owns_once_all_are_known_and_none_that_leaves() {
        let mut cluster = Cluster::default();
        cluster.apply_service(Name::new("d", "web"), service(&["192.0.2.1"]));
        let local = crate::source::cluster::Service { local: true, ..service(&["192.0.2.2"]) };
        cluster.apply_service(Name::new("d", "local"), local);
        slice(&mut cluster, "web", "s", &["b"]);
        slice(&mut cluster, "local", "t", &["b"]);
        let (host, now) = (host(), Instant::now());
        let wanted = seen(&cluster, &host, Some("eth0"));
        let context = context(&wanted, &host);
        let mut everyone = Everyone::default();
        let held: Vec<String> =
            everyone.holds(context, now).keys().map(ToString::to_string).collect();
        assert_eq!(held, ["192.0.2.1"], "the other one is served on b");
        assert!(everyone.holds(Context { known: false, ..context }, now).is_empty());
        for (mine, other, count) in [
            (Stay::Cordoned, Stay::Stays, 1),
            (Stay::Emptied, Stay::Stays, 0),
            (Stay::Emptied, Stay::Emptied, 1),
        ] {
            let mut peers = Peers::default();
            for (name, stay) in [("a", mine), ("b", other)] {
                peers.apply(name.to_owned(), Peer { stay, ..Peer::default() });
            }
            let held = everyone.holds(Context { nodes: Some(&peers), ..context }, now);
            assert_eq!(held.len(), count, "{mine:?}, {other:?}");
        }
        everyone.leave();
        assert!(everyone.holds(context, now).is_empty());
    }
}
