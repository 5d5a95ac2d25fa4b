//! The control plane's address where routers choose among those that announce it: whether this node does, by the health of its
//! own API server and of those of others. No Lease decides. Pure.
//!
//! 1. Who has not been healthy since its process began announces nothing: a node that joins would lead its own join to itself
//!    (katl#114). What an earlier life of this process announced it goes on with.
//! 2. Healthy, it announces, whoever else does.
//! 3. Unhealthy, it withdraws while another one is healthy, and else stays: where all are slow all stay.
//! 4. Of others it goes by what it is answered itself. What they say of themselves it hears by its own API server, which says
//!    nothing where it hangs; that counts for those alone that it has not reached since it fell ill.
//! 5. Nobody is asked who has not said, as late as anything was heard, that it is healthy: else the node may be down, or its
//!    announcer, and who withdraws leaves nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use super::context::Context;
use super::control_plane::ControlPlane;
use super::health::Standing;

/// So many addresses of a node are asked: a kubelet lists one of each family, and who has stolen one lists what it likes.
const ASKED: usize = 8;

/// By node, where its API server is to be asked.
pub type Whom = BTreeMap<String, BTreeSet<IpAddr>>;

/// Whether API servers of other nodes are healthy, by what they have answered this one. Those that never did are not there.
pub type Answers = BTreeMap<String, bool>;

/// What this node knows of the control plane, where it needs nobody's leave.
#[derive(Clone, Debug)]
pub struct Announcing {
    own: ControlPlane,
    /// Whether others may find out later than this node that they are no better: what is asked for is not what they answer.
    is_apart: bool,
    answers: Answers,
    /// Those that are healthy, as far as that counts.
    better: BTreeSet<String>,
    /// Whether routers have led it here all the time.
    has_it: bool,
    /// What was told of it last.
    told: bool,
}

impl Announcing {
    /// Goes by `own`. `is_apart` where health is not by the same answer that other nodes give this one.
    pub fn new(own: ControlPlane, is_apart: bool) -> Self {
        let (answers, better) = (Answers::new(), BTreeSet::new());
        Self { own, is_apart, answers, better, has_it: false, told: false }
    }

    /// What is known of API servers.
    pub fn own(&mut self) -> &mut ControlPlane {
        &mut self.own
    }

    /// Takes in what API servers of other nodes have answered; true if that is news.
    pub fn answered(&mut self, answers: Answers) -> bool {
        let is_news = self.answers != answers;
        self.answers = answers;
        is_news
    }

    /// Takes in that routers have led it here all the time.
    pub fn goes_on(&mut self) {
        self.has_it = true;
    }

    /// Goes by what was said and answered lately.
    pub fn look(&mut self, me: &str, now: Instant) {
        self.own.look(me, now);
        let is_due = !self.is_apart || self.own.deadline(now).is_none();
        let reached =
            self.own.recent(me).filter(|node| is_due && self.answers.get(*node) == Some(&true));
        let said = self.own.others().iter().map(String::as_str);
        let said = said.filter(|node| !self.answers.contains_key(*node));
        self.better = reached.chain(said).map(str::to_owned).collect();
    }

    /// What becomes of the address as of [`Self::look`], in words, when that is another thing than before.
    pub fn turn(&mut self) -> Option<String> {
        let announces = self.announces();
        if std::mem::replace(&mut self.told, announces) == announces {
            return None;
        }
        let better: Vec<&str> = self.better.iter().map(String::as_str).collect();
        Some(match (announces, self.own.standing()) {
            (true, Standing::Healthy) => {
                "the API server of this node is healthy: announcing it".to_owned()
            }
            (true, Standing::Unknown) => "routers have led it here all the time".to_owned(),
            (true, Standing::Recovering | Standing::Unhealthy) => {
                "no other API server is known to be healthy: announcing it".to_owned()
            }
            (false, _) => format!(
                "the API server of this node is not healthy, and there is {}: withdrawing it",
                better.join(", ")
            ),
        })
    }

    /// Whom to ask: nobody while this node is well, or where its addresses are not known.
    pub fn asks(&self, context: Context<'_>) -> Whom {
        let Some(nodes) = context.nodes.filter(|_| !self.own.is_well()) else { return Whom::new() };
        // A kubelet may take the address for its node's own, and this node has it.
        let is_own = |address: &IpAddr| context.wanted.vip(*address).is_some();
        let whom = self.own.recent(context.node).map(|node| {
            let addresses = nodes.addresses_of(node).iter().filter(|address| !is_own(address));
            (node.to_owned(), addresses.take(ASKED).copied().collect::<BTreeSet<_>>())
        });
        whom.filter(|(_, addresses)| !addresses.is_empty()).collect()
    }

    /// Whether this node has the address, and tells routers so.
    pub fn announces(&self) -> bool {
        let had = self.has_it || self.own.was_healthy();
        match self.own.standing() {
            Standing::Healthy => true,
            Standing::Unknown => self.has_it,
            Standing::Recovering | Standing::Unhealthy => had && self.better.is_empty(),
        }
    }

    /// When something changes although nothing happens.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.own.deadline(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ownership::testing::context;
    use crate::source::cluster::Cluster;
    use crate::source::testing::{host, seen};
    use crate::vip::Name;
    use crate::vip::nodes::{Peer, Peers};

    const SETTLING: Duration = Duration::from_secs(5);
    const SECOND: Duration = Duration::from_secs(1);

    struct Scene {
        node: Announcing,
        start: Instant,
    }

    impl Scene {
        fn new(is_apart: bool) -> Self {
            let own = ControlPlane::new(Name::new("kube-system", "plndr-cp-lock"), SETTLING);
            Self { node: Announcing::new(own, is_apart), start: Instant::now() }
        }

        /// A node that is healthy, as b says of itself, too.
        fn healthy(is_apart: bool) -> Self {
            let mut scene = Self::new(is_apart);
            scene.says("b", true, "1", 0);
            scene.stands(Standing::Healthy, 0);
            assert!(scene.announces(0));
            scene
        }

        fn at(&self, seconds: u32) -> Instant {
            self.start + SECOND * seconds
        }

        fn stands(&mut self, standing: Standing, at: u32) {
            let now = self.at(at);
            self.node.own().stands(standing, now);
        }

        fn says(&mut self, node: &str, is_healthy: bool, renewed: &str, at: u32) {
            let now = self.at(at);
            self.node.own().hear(node.to_owned(), Some((is_healthy, renewed.to_owned())), now);
        }

        fn answers(&mut self, answers: &[(&str, bool)]) {
            let answers = answers.iter().map(|(node, is_good)| ((*node).to_owned(), *is_good));
            self.node.answered(answers.collect());
        }

        fn announces(&mut self, at: u32) -> bool {
            self.node.look("a", self.at(at));
            self.node.announces()
        }
    }

    #[test]
    fn a_node_that_joins_announces_nothing_before_its_own_api_server_is_healthy() {
        for others in [false, true] {
            let mut scene = Scene::new(false);
            scene.says("b", others, "1", 0);
            assert!(!scene.announces(0));
            for standing in [Standing::Unhealthy, Standing::Recovering] {
                scene.stands(standing, 10);
                assert!(!scene.announces(60), "{standing:?}");
            }
            scene.stands(Standing::Healthy, 60);
            assert!(scene.announces(60));
        }
    }

    #[test]
    fn what_an_earlier_life_announced_goes_on_until_another_is_known_to_be_healthy() {
        let mut scene = Scene::new(false);
        scene.node.goes_on();
        assert!(scene.announces(0), "nothing is known of the own API server yet");
        scene.stands(Standing::Unhealthy, 1);
        assert!(scene.announces(1));
        scene.says("b", true, "1", 1);
        scene.answers(&[("b", true)]);
        assert!(!scene.announces(2));
    }

    #[test]
    fn who_falls_ill_withdraws_while_another_answers_and_else_stays() {
        let mut scene = Scene::healthy(false);
        scene.stands(Standing::Unhealthy, 1);
        assert!(scene.announces(1), "nobody was asked yet");
        scene.answers(&[("b", false)]);
        assert!(scene.announces(2) && scene.announces(60), "all are slow");
        scene.answers(&[("b", true)]);
        assert!(!scene.announces(60));
        scene.stands(Standing::Recovering, 61);
        assert!(!scene.announces(61), "it has to be well for a while");
        scene.answers(&[("b", false)]);
        assert!(scene.announces(62), "nobody is better any more");
        scene.stands(Standing::Healthy, 63);
        assert!(scene.announces(63));
        scene.stands(Standing::Unhealthy, 64);
        scene.answers(&[]);
        assert!(scene.announces(64), "what was answered before counts for nothing");
    }

    #[test]
    fn a_word_counts_for_those_alone_that_are_not_reached() {
        let mut scene = Scene::healthy(false);
        scene.stands(Standing::Unhealthy, 1);
        scene.says("b", true, "2", 3);
        assert!(scene.announces(5), "b may not know yet that it is no better");
        assert!(!scene.announces(6));
        scene.answers(&[("b", false)]);
        assert!(scene.announces(7), "it hangs since then");
    }

    #[test]
    fn who_was_silent_while_others_spoke_is_not_gone_by_nor_who_says_that_it_is_ill() {
        let mut scene = Scene::healthy(false);
        scene.says("c", true, "1", 0);
        scene.stands(Standing::Unhealthy, 1);
        scene.answers(&[("b", true)]);
        scene.says("b", false, "2", 2);
        assert!(scene.announces(2), "its server answers, and its announcer says otherwise");
        scene.says("b", true, "3", 3);
        assert!(!scene.announces(3));
        // The announcer of b is gone, and its API server is not.
        scene.says("c", false, "2", 49);
        assert!(scene.announces(49));
    }

    #[test]
    fn where_something_else_is_asked_for_others_are_given_time_to_find_out_the_same() {
        let mut scene = Scene::healthy(true);
        scene.stands(Standing::Unhealthy, 1);
        scene.answers(&[("b", true)]);
        assert!(scene.announces(5));
        assert!(!scene.announces(6));
    }

    #[test]
    fn others_are_asked_where_their_nodes_are_while_the_own_api_server_is_not_healthy() {
        let mut scene = Scene::healthy(false);
        scene.says("c", false, "1", 0);
        let (host, cluster) = (host(), Cluster::default());
        let wanted = seen(&cluster, &host, Some("eth0"));
        let mut peers = Peers::default();
        for (node, address) in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")] {
            let addresses = vec![address.parse().unwrap()];
            peers.apply(node.to_owned(), Peer { addresses, ..Peer::default() });
        }
        let context = Context { nodes: Some(&peers), ..context(&wanted, &host) };
        assert!(scene.node.asks(context).is_empty(), "it is well");
        scene.stands(Standing::Unhealthy, 1);
        let whom = scene.node.asks(context);
        let expected: BTreeSet<IpAddr> = ["10.0.0.2".parse().unwrap()].into();
        assert_eq!(whom, [("b".to_owned(), expected)].into());
        assert!(scene.node.asks(Context { nodes: None, ..context }).is_empty());
        // A kubelet that lists what it likes.
        let addresses = (1..=200).map(|n| IpAddr::from([10, 0, 1, n])).collect();
        let mut peers = Peers::default();
        peers.apply("b".to_owned(), Peer { addresses, ..Peer::default() });
        let whom = scene.node.asks(Context { nodes: Some(&peers), ..context });
        assert_eq!(whom["b"].len(), ASKED);
    }
}
