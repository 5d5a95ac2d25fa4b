//! Every candidate may have an address, but for those that are being emptied while there are others: its routers choose
//! among those that tell them of it. The control plane's goes by `announcing` alone. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_bgp::Family;

use super::announcing::Announcing;
use super::clearing::in_turn;
use super::context::Context;
use crate::vip::serve::{Ask, Lives, Reach, serve};
use crate::vip::{Claim, Hold, Holds, Name, Refusal, Serving, Verdict, Vip, Voice, unserved};

/// The kernel drops an address that nobody renews for so long where no router is told.
const LASTS: Duration = Duration::from_secs(60);

/// How far the lifetime of a bound address may fall behind before it is renewed.
const SLACK: Duration = Duration::from_secs(20);

/// Every candidate owns.
#[derive(Clone, Debug)]
pub struct Everyone {
    leaving: bool,
    /// What is known of the control plane, where routers lead its address here.
    control_plane: Option<Announcing>,
    /// The kernel drops an address that nobody renews for so long.
    lasts: Duration,
    /// What routers were told to lead here.
    announced: BTreeSet<IpAddr>,
    /// Why no router is told anything of IPv4, and of IPv6.
    silence: [Option<String>; 2],
    /// Families of which no router is told anything by any node: nobody announces an address of these.
    unspoken: BTreeSet<Family>,
}

impl Default for Everyone {
    fn default() -> Self {
        let (leaving, control_plane, announced, silence, unspoken) = Default::default();
        Self { leaving, control_plane, lasts: LASTS, announced, silence, unspoken }
    }
}

impl Everyone {
    /// The same, which decides on the control plane's address, too, where routers lead that here.
    pub fn with_control_plane(self, control_plane: Option<Announcing>) -> Self {
        Self { control_plane, ..self }
    }

    /// What is known of the control plane, where routers lead its address here.
    pub fn announcing(&mut self) -> Option<&mut Announcing> {
        self.control_plane.as_mut()
    }

    /// Takes in what is known of API servers by now.
    pub fn request(&mut self, context: Context<'_>, now: Instant) {
        self.control_plane.iter_mut().for_each(|own| own.look(context.node, now));
    }

    /// When something changes although nothing happens.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.control_plane.as_ref().and_then(|own| own.deadline(now))
    }

    /// Takes in how long the kernel is to keep an address that nobody renews: routers may lead it here for as long.
    pub fn last(&mut self, lasts: Duration) {
        self.lasts = lasts;
    }

    /// Takes in what routers were told to lead here, why none is told anything of IPv4, and of IPv6, where that is so, and the
    /// families of which none of any node is.
    pub fn told(
        &mut self,
        announced: &BTreeSet<IpAddr>,
        silence: [Option<String>; 2],
        unspoken: &BTreeSet<Family>,
    ) {
        self.announced.clone_from(announced);
        self.silence = silence;
        self.unspoken.clone_from(unspoken);
    }

    /// What this node may have bound. Where it goes and others stay, what still comes is served, and nothing more is to.
    pub fn holds(&self, context: Context<'_>, now: Instant) -> Holds {
        if self.leaving || !context.known {
            return Holds::new();
        }
        let hold = |(address, vip): (IpAddr, &Vip)| {
            if vip.is_of_control_plane() {
                let own = self.control_plane.as_ref().filter(|own| own.announces());
                let hold = Hold { until: now + self.lasts, answers: true, lapses: None };
                return own.map(|_| (address, hold));
            }
            // Of those that share an address all are served here, or none.
            vip.is_served_by(context.node).then_some(())?;
            let mut deciding = vip.deciding().filter(|want| want.serving.has(context.node));
            let answers = deciding.all(|want| stays(context, &want.serving));
            Some((address, Hold { until: now + self.lasts, answers, lapses: None }))
        };
        context.wanted.addressed().filter_map(hold).collect()
    }

    /// What becomes of the Services of which this node has anything to say. Whoever announces one says so, whoever does first,
    /// and nobody takes out what others announce.
    pub fn verdicts(&self, context: Context<'_>) -> BTreeMap<Name, Verdict> {
        if self.leaving {
            return BTreeMap::new();
        }
        let services = context.wanted.services.iter();
        services
            .filter_map(|(name, claim)| Some((name.clone(), self.judge(context, name, claim)?)))
            .collect()
    }

    fn judge(&self, context: Context<'_>, name: &Name, claim: &Claim) -> Option<Verdict> {
        let Context { wanted, node: me, .. } = context;
        let place = |address: &IpAddr| wanted.attach(name, *address);
        let is_nobodys = |address: &IpAddr| {
            claim.serving(address).is_empty()
                || self.unspoken.contains(&Family::of(*address))
                || claim.apart.contains_key(address)
                || matches!(place(address), Some(Err(refusal)) if refusal.is_of_object())
        };
        let all = claim.addresses.iter().filter(|_| claim.ours);
        let could: BTreeSet<IpAddr> = all.filter(|address| !is_nobodys(address)).copied().collect();
        let is_host = claim.host.as_deref() == Some(me);
        let mut verdict = Verdict::default();
        if claim.ours {
            verdict.refusals.extend(claim.remarks.iter().cloned());
        }
        for address in claim.addresses.iter().filter(|_| claim.ours) {
            if let Some(by) = claim.apart.get(address) {
                let refusal = Refusal::NotServedTogether { address: *address, by: by.clone() };
                verdict.refuse_at(*address, refusal);
                continue;
            }
            match (unserved(claim, address, me), place(address)) {
                (Some(_), _) if could.contains(address) => {}
                (Some(why), _) => verdict.refuse_at(*address, why),
                (None, Some(Err(why))) => verdict.refuse_at(*address, why.clone()),
                (None, Some(Ok(_))) => {
                    verdict.announce.push(*address);
                    let stays = stays(context, claim.serving(address));
                    // What no node announces whoever is named says, and not each that announces the rest.
                    let is_said = could.contains(address) || claim.host.is_none() || is_host;
                    let silence = self.silence[usize::from(address.is_ipv6())].as_ref();
                    if let Some(why) = silence.filter(|_| stays && is_said) {
                        let (node, why) = (me.to_owned(), why.clone());
                        verdict.refuse_at(*address, Refusal::NoSession { node, why });
                    }
                }
                (None, None) => {}
            }
        }
        let announces = verdict.announce.iter().any(|address| self.announced.contains(address));
        // Who announces it says so; what is true of all nodes alike one of them says, each in its turn.
        verdict.voice = match announces || is_host {
            true => Voice::Decides,
            false if claim.host.is_none() || could.is_empty() => Voice::Bystander,
            false => return None,
        };
        verdict.shared = Some(could);
        Some(verdict)
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

/// Whether routers are to lead here what this node could serve: not where it is being emptied, or what it has is being ended,
/// while others stay.
fn stays(context: Context<'_>, serving: &Serving) -> bool {
    let Context { nodes, node: me, .. } = context;
    let (lives, reach) = (Lives::Unknown, Reach::Good);
    let serves = serve(Ask { serving, nodes, lives, me, reach });
    let moves = serves.ranks.get(me).is_some_and(|rank| rank.moves());
    serving.has(me) && !(moves && serves.is_beaten(me))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::ControlPlane;
    use crate::ownership::health::Standing;
    use crate::ownership::testing::context;
    use crate::source::cluster::Cluster;
    use crate::source::cluster::testing::{service, slice};
    use crate::source::eip::Usage;
    use crate::source::fixed::Fixed;
    use crate::source::scene::Scene;
    use crate::source::testing::{host, scene, seen};
    use crate::source::wanted::wanted;
    use crate::vip::Claimant;
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
            let answering = held.values().filter(|hold| hold.answers).count();
            assert_eq!((held.len(), answering), (1, count), "{mine:?}, {other:?}");
        }
        everyone.leave();
        assert!(everyone.holds(context, now).is_empty());
    }

    #[test]
    fn the_control_planes_goes_by_api_servers_and_not_by_who_is_emptied() {
        let (host, cluster, now) = (host(), Cluster::default(), Instant::now());
        let address: IpAddr = "10.99.0.100".parse().unwrap();
        let fixed =
            Fixed { by: Claimant::ControlPlane, addresses: vec![address], ..Fixed::default() };
        let scene = Scene { routed: Some("lo"), ..scene(&cluster, &host, Some("eth0")) };
        let wanted = wanted(scene, &Usage::default(), &fixed);
        assert!(wanted.vip(address).is_some_and(Vip::is_routed));
        let mut peers = Peers::default();
        for (name, stay) in [("a", Stay::Emptied), ("b", Stay::Stays)] {
            peers.apply(name.to_owned(), Peer { stay, ..Peer::default() });
        }
        let context = Context { nodes: Some(&peers), ..context(&wanted, &host) };
        let own = ControlPlane::new(Name::new("kube-system", "plndr-cp-lock"), LASTS);
        let mut everyone = Everyone::default();
        assert!(everyone.holds(context, now).is_empty(), "nobody decides");
        everyone = everyone.with_control_plane(Some(Announcing::new(own, false)));
        assert!(everyone.holds(context, now).is_empty(), "its API server is not known");
        everyone.announcing().unwrap().own().stands(Standing::Healthy, now);
        assert!(everyone.holds(context, now)[&address].answers);
        everyone.leave();
        assert!(everyone.holds(context, now).is_empty());
    }

    /// What becomes of a Service with an endpoint on these nodes, as `a` sees it: by what right, whether it is to be announced,
    /// the reasons, and how many addresses anybody could announce.
    fn judged(
        everyone: &Everyone,
        nodes: &[&str],
        local: bool,
        host: Option<&str>,
    ) -> Option<(Voice, usize, Vec<&'static str>, usize)> {
        let mut cluster = Cluster::default();
        let vip_host = host.map(str::to_owned);
        let web = crate::source::cluster::Service { local, vip_host, ..service(&["192.0.2.1"]) };
        cluster.apply_service(Name::new("d", "web"), web);
        if !nodes.is_empty() {
            slice(&mut cluster, "web", "s", nodes);
        }
        let host = crate::source::testing::host();
        let wanted = seen(&cluster, &host, Some("eth0"));
        let verdicts = everyone.verdicts(context(&wanted, &host));
        let verdict = verdicts.into_values().next()?;
        let reasons = verdict.refusals.iter().map(Refusal::reason).collect();
        Some((verdict.voice, verdict.announce.len(), reasons, verdict.shared.unwrap().len()))
    }

    #[test]
    fn who_announces_it_says_so_and_who_does_not_speaks_where_nobody_else_does() {
        let address = "192.0.2.1".parse().unwrap();
        let mut everyone = Everyone::default();
        let none = Vec::new;
        assert_eq!(judged(&everyone, &["b"], false, None), Some((Voice::Bystander, 1, none(), 1)));
        assert_eq!(judged(&everyone, &["b"], false, Some("b")), None, "b has told it");
        everyone.told(&BTreeSet::new(), [Some("r: refused".to_owned()), None], &BTreeSet::new());
        let silent = Some((Voice::Bystander, 1, vec!["NoBgpSession"], 1));
        assert_eq!(judged(&everyone, &["b"], false, None), silent);
        let gives_way = Some((Voice::Decides, 1, vec!["NoBgpSession"], 1));
        assert_eq!(judged(&everyone, &["b"], false, Some("a")), gives_way);
        everyone.told(&[address].into(), [None, None], &BTreeSet::new());
        assert_eq!(
            judged(&everyone, &["b"], false, Some("b")),
            Some((Voice::Decides, 1, none(), 1))
        );
        // Local: it is announced on b, or nowhere.
        assert_eq!(judged(&everyone, &["b"], true, None), Some((Voice::Bystander, 0, none(), 1)));
        // No router speaks its family: nobody announces it, whoever is named, and whatever its status shows.
        everyone.told(&BTreeSet::new(), [Some("no peer".to_owned()), None], &[Family::V4].into());
        let by_nobody = |voice| Some((voice, 1, vec!["NoBgpSession"], 0));
        let for_b = Some((Voice::Bystander, 1, none(), 0));
        assert_eq!(judged(&everyone, &["b"], false, Some("b")), for_b, "b says it");
        assert_eq!(judged(&everyone, &["b"], false, None), by_nobody(Voice::Bystander));
        assert_eq!(judged(&everyone, &["b"], false, Some("a")), by_nobody(Voice::Decides));
        everyone.told(&[address].into(), [None, None], &BTreeSet::new());
        let nowhere = |reason| Some((Voice::Bystander, 0, vec![reason], 0));
        assert_eq!(judged(&everyone, &[], true, Some("b")), nowhere("NoEndpoint"));
        assert_eq!(judged(&everyone, &[], false, None), nowhere("NoEndpoint"));
        everyone.leave();
        assert_eq!(judged(&everyone, &["b"], false, Some("a")), None);
    }
}
