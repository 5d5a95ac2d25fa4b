//! What routers are told of what is bound here, what they know, and who is told what of that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use berth_api::Few;
use berth_api::limits::MOST_LABELS;
use berth_bgp::config::{Denied, Permits};
use berth_bgp::{Announcement, Asked, Family};

use super::Announcer;
use super::desired::Desired;
use super::leading;
use crate::advertise::bgp::{Advert, Routed, Told, Way};
use crate::dataplane::transit::Transit;
use crate::kernel::{Binding, Kernel};
use crate::ownership::Ownership;
use crate::source::cluster::{Cluster, Service};
use crate::vip::{Attach, Claimant, Name, Refusal, Traffic, Verdict, Vip, Wanted};

impl<K: Kernel> Announcer<K> {
    /// Takes in what routers know by now.
    pub(super) fn hear_routers(&mut self, now: Instant) {
        let Self { routed, owners, sight, config, .. } = self;
        let Some(routed) = routed else { return };
        let refused = BTreeSet::new();
        let context = sight.context(&refused);
        let eips_known = config.eip.is_none() || context.bindings_known;
        // What Services may ask for is a part of what they want.
        let told = routed.told();
        routed.see([context.known && told.permits.is_some(), eips_known], now);
        let silence = Family::ALL.map(|family| told.silence_of(family));
        let mut own = sight.wanted.of_control_plane();
        let is_kept = own.any(|(address, _)| routed.is_kept(&address));
        let everyone = owners.iter_mut().filter_map(Ownership::everyone);
        everyone.for_each(|everyone| {
            if is_kept && let Some(own) = everyone.announcing() {
                own.goes_on();
            }
            everyone.told(routed.known(), silence.clone(), &told.unspoken);
            everyone.last(routed.lasts());
        });
    }

    /// Has API servers of other nodes asked, where it matters what they say, and tells what becomes of their address.
    pub(super) fn ask_api_servers(&mut self) {
        let Self { owners, sight, asks, .. } = self;
        let own = owners.iter_mut().find_map(Ownership::announcing);
        let (Some(asks), Some(own)) = (asks, own) else { return };
        let refused = BTreeSet::new();
        let whom = own.asks(sight.context(&refused));
        asks.send_if_modified(|known| {
            let is_news = *known != whom;
            *known = whom;
            is_news
        });
        if let Some(what) = own.turn() {
            tracing::info!("the control plane's address: {what}");
        }
    }

    /// Whether the node is to tell of routers what it has not told yet.
    pub(super) fn routers_are_news(&self) -> bool {
        let told = self.outlets.host.borrow();
        let (Some(told), Some(routed)) = (&*told, &self.routed) else { return false };
        told.routers != Some(routed.told().routers())
    }

    /// Whether the host is to stay as an earlier life left it, addresses and guard: routers lead here what it is not known yet that
    /// it is wanted.
    pub(super) fn is_kept_as_it_is(&self) -> bool {
        self.routed.as_ref().is_some_and(Routed::waits)
    }

    /// Has routers told of what is bound here, and nothing else. Before it is known what Services may ask for nothing is: of two
    /// peers the wrong one would be told of what is for the other.
    pub(super) fn tell_routers(&mut self, desired: &Desired, now: Instant) {
        let Self { routed, proxied, sight, config, .. } = self;
        let Some(routed) = routed else { return };
        let (node, permits) = (&config.core.node, routed.told().permits);
        let advert = |(address, place): (&IpAddr, &super::desired::Place)| {
            let Attach::Host(index) = place.attach else { return None };
            sight.host.ours.contains_key(&Binding { index, address: *address }).then_some(())?;
            let vip = sight.wanted.vip(*address)?;
            let way = match vip.heir(node) {
                Some(heir) => Way::Moved { told: vip.previous() == Some(heir) },
                None if place.answers => Way::Here,
                None => Way::Elsewhere,
            };
            // Who is led here before kube-proxy leads on is lost, though there may be another way.
            let is_led = leading::leads(proxied, (*address, vip), sight);
            let was_led = routed.announces(address) || routed.is_kept(address);
            (is_led || was_led || way != Way::Here).then_some(())?;
            let of = (*address, vip);
            let announcement = announcement(of, node, &sight.cluster, permits.as_deref()?);
            Some((*address, Advert { announcement, way }))
        };
        let bound: BTreeMap<IpAddr, Advert> = desired.addresses.iter().filter_map(advert).collect();
        routed.announce(bound, now);
    }

    /// Keeps from passing through this node what would pass for it, and what would only go back.
    pub(super) fn keep_transit(&self) {
        let (Some(routed), Some(keeper)) = (&self.routed, &self.dataplane.transit) else { return };
        let told = routed.told();
        // What an earlier life keeps stays until the peers are known.
        if told.permits.is_none() {
            return;
        }
        let wide = told.peers.values().flat_map(|peer| peer.wide.iter().copied()).collect();
        let (links, moved) = (self.links.clone(), routed.moved().collect());
        keeper.want(Transit { ports: (*told.ports).clone(), wide, moved, links });
    }

    /// Adds to what becomes of Services what routers are not told of them, or not as they ask.
    pub(super) fn note_routed(&self, desired: &mut Desired) {
        let Self { routed, sight, config, .. } = self;
        let Some(routed) = routed else { return };
        let (node, told) = (config.core.node.as_str(), routed.told());
        if told.permits.is_none() {
            return;
        }
        for (name, verdict) in &mut desired.verdicts {
            let Some(service) = sight.cluster.services().get(name).filter(|own| own.ours) else {
                continue;
            };
            if !sight.wanted.services.get(name).is_some_and(|claim| claim.routed) {
                let is_asked = service.asks.asked != Asked::default();
                if is_asked && service.vip_host.as_deref() == Some(node) {
                    verdict.refuse(Refusal::BgpOnLan);
                }
                continue;
            }
            let announced = verdict.announce.iter().copied();
            let is_announced = |address: &IpAddr| routed.announces(address);
            for address in kept(&told, announced.filter(is_announced)) {
                let by = decides(address, name, &sight.wanted).cloned();
                verdict.refuse_at(address, kept_from_routers(node, by, service));
            }
            // Of all nodes that announce it one says what each of them sees.
            if service.vip_host.as_deref() == Some(node) {
                remark(verdict, name, service, &sight.wanted, &told);
            }
        }
    }

    /// Whether routers lead addresses here.
    pub fn is_routed_here(&self) -> bool {
        self.routed.is_some()
    }

    /// Whether a router was told to lead an address here.
    pub(super) fn is_routed(&self, address: &IpAddr) -> bool {
        self.routed.as_ref().is_none_or(|routed| routed.known().contains(address))
    }
}

/// That no router is told of a Service. Who is announced by nobody is told nothing else of what it asks for.
fn kept_from_routers(node: &str, by: Option<Claimant>, service: &Service) -> Refusal {
    let mut unread = Few::default();
    for wrong in &service.asks.wrong {
        if let Refusal::InvalidBgp { annotation, .. } = wrong {
            unread.push(annotation);
        }
    }
    Refusal::KeptFromRouters { node: node.to_owned(), by, unread }
}

/// Whose word counts at an address of this Service, where it is another one's.
fn decides<'a>(address: IpAddr, name: &Name, wanted: &'a Wanted) -> Option<&'a Claimant> {
    let first = wanted.vip(address).and_then(|vip| vip.wants.first());
    let by = first.map(|want| &want.claimant);
    by.filter(|by| !matches!(by, Claimant::Service(owner) if owner == name))
}

/// Those of the addresses that none of the peers that are up is to be told of.
fn kept(told: &Told, announced: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    announced.filter(|address| told.is_kept(address)).collect()
}

/// What is said of an address: whose it is, for rules to go by, and what that asks for, as far as it may. Of those that share it
/// that is who had it first: nobody who joins later decides what routers are told of what another has.
fn announcement(
    (address, vip): (IpAddr, &Vip),
    node: &str,
    cluster: &Cluster,
    permits: &Permits,
) -> Announcement {
    let (namespace, service) = match vip.wants.first().map(|want| &want.claimant) {
        Some(Claimant::Service(name)) => (&*name.namespace, cluster.services().get(name)),
        Some(Claimant::Eip(name)) => (&*name.namespace, None),
        Some(Claimant::Operator | Claimant::ControlPlane) | None => ("", None),
    };
    let asks = service.filter(|service| !service.asks.is_nothing());
    let asked = asks.map(|service| permits.admit(namespace, service.asks.asked.clone()).0);
    // Who was named last is preferred, and never is there a second one that is as good: whatever becomes of a route of the
    // node before, as where it is kept for a speaker that may come back.
    let epoch = vip.wants.iter().map(|want| want.epoch).find(|epoch| *epoch > 0);
    let epoch = epoch.map(|epoch| epoch - i64::from(vip.heir(node).is_some()));
    let med = epoch.map(|epoch| u32::MAX.saturating_sub(u32::try_from(epoch).unwrap_or(u32::MAX)));
    let is_of_some = |traffic: &Traffic| matches!(traffic, Traffic::Local | Traffic::Named(_));
    Announcement {
        med,
        // A node that withdraws it is led to for no other one.
        is_alone: vip.is_of_control_plane()
            || vip.wants.iter().any(|want| is_of_some(&want.serving.traffic)),
        pool: cluster.claims.pool(&address).unwrap_or_default().to_owned(),
        labels: service.map(|service| service.labels.read.clone()),
        asked: asked.unwrap_or_default(),
        ..Announcement::of(address, namespace)
    }
}

/// Adds what a Service does not get of what it asks to be told to routers.
fn remark(verdict: &mut Verdict, name: &Name, service: &Service, wanted: &Wanted, told: &Told) {
    let Some(permits) = &told.permits else { return };
    let labels = service.labels.count;
    if labels > MOST_LABELS {
        verdict.refuse(Refusal::TooManyLabels { count: labels });
    }
    if service.asks.is_nothing() {
        return;
    }
    service.asks.wrong.iter().for_each(|wrong| verdict.refuse(wrong.clone()));
    let (admitted, denied) = permits.admit(&name.namespace, service.asks.asked.clone());
    let mut texts: BTreeMap<&'static str, Few> = BTreeMap::new();
    for Denied { annotation, value } in &denied {
        texts.entry(annotation).or_default().push(value);
    }
    for (annotation, texts) in texts {
        let accepted = permits.accepted(&name.namespace, annotation);
        verdict.refuse(Refusal::BgpNotPermitted { annotation, texts, accepted });
    }
    if admitted == Asked::default() {
        return;
    }
    for address in verdict.announce.clone() {
        if let Some(by) = decides(address, name, wanted) {
            verdict.refuse_at(address, Refusal::BgpOfAnother { address, by: by.clone() });
            continue;
        }
        let left = told.left_out(&address);
        let mut texts = Few::default();
        left.communities.iter().for_each(|one| texts.push(&one.to_string()));
        left.large_communities.iter().for_each(|one| texts.push(&one.to_string()));
        if !left.is_nothing() {
            verdict.refuse_at(address, Refusal::BgpLeftOut { texts });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use berth_api::Quoted;
    use berth_api::claim::{ClaimPolicy, Holder};
    use berth_bgp::config::{Pattern, Permit};
    use berth_bgp::{Community, LeftOut};

    use super::*;
    use crate::advertise::bgp::PeerTold;
    use crate::source::cluster::testing::{eip, service};
    use crate::source::cluster::{Asks, Claims, Labels};
    use crate::source::testing::{host, seen};

    const ADDRESS: &str = "192.0.2.1";

    /// What a Service says that asks for this community.
    fn asking(uid: &str, number: u32) -> Service {
        let asked = Asked { communities: BTreeSet::from([Community(number)]), ..Asked::default() };
        let labels = BTreeMap::from([("uid".to_owned(), uid.to_owned())]);
        Service {
            uid: uid.to_owned(),
            asks: Arc::new(Asks { asked, wrong: Vec::new() }),
            labels: Labels { read: Arc::new(labels), count: 1 },
            ..service(&[ADDRESS])
        }
    }

    /// One namespace, whose Services may ask for one community.
    fn permits(namespace: &str, community: u32) -> Permits {
        Permits(vec![Permit {
            namespaces: BTreeSet::from([namespace.to_owned()]),
            communities: vec![Pattern::Is(Community(community))],
            ..Permit::default()
        }])
    }

    fn shared() -> Cluster {
        let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
        cluster.apply_service(Name::new("alice", "web"), asking("web", 1));
        cluster.apply_service(Name::new("bob", "dns"), asking("dns", 2));
        cluster.claims.apply(ADDRESS, ["web", "dns"].map(Holder::alone).into(), false);
        cluster.claims.pooled(ADDRESS, Some("global".to_owned()));
        cluster.claims.listed(&BTreeSet::from([ADDRESS.to_owned()]));
        cluster
    }

    fn said(cluster: &Cluster, permits: &Permits) -> Announcement {
        let wanted = seen(cluster, &host(), Some("eth0"));
        let address = ADDRESS.parse().unwrap();
        announcement((address, wanted.vip(address).unwrap()), "a", cluster, permits)
    }

    #[test]
    fn of_an_address_that_two_share_whoever_had_it_first_says_what_routers_are_told() {
        let cluster = shared();
        let told = said(&cluster, &permits("alice", 1));
        assert_eq!((&*told.namespace, &*told.pool), ("alice", "global"));
        assert_eq!(told.asked.communities, BTreeSet::from([Community(1)]));
        assert_eq!(told.labels.unwrap()["uid"], "web");
        assert_eq!(said(&cluster, &permits("bob", 2)).asked, Asked::default(), "bob came later");
        assert_eq!(said(&cluster, &permits("alice", 2)).asked, Asked::default());
        assert_eq!(said(&cluster, &Permits::default()).asked, Asked::default());
    }

    #[test]
    fn an_elastic_ip_is_of_its_pool_and_has_no_labels() {
        let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
        cluster.apply_eip(Name::new("alice", "vm"), eip("a", &[(ADDRESS, "10.244.0.4")]));
        cluster.claims.apply(ADDRESS, vec![Holder::alone("uid")], false);
        cluster.claims.pooled(ADDRESS, Some("alice".to_owned()));
        let told = said(&cluster, &Permits::default());
        assert_eq!((&*told.namespace, &*told.pool, told.labels), ("alice", "alice", None));
        assert!(told.is_alone, "its address is on the node of its VM alone");
        assert!(!said(&shared(), &Permits::default()).is_alone);
    }

    /// The reasons that a Service is told, with what it asks for.
    fn remarks(of: (&str, &str), permits: &Permits) -> Vec<String> {
        remarks_with(of, permits, Told::default())
    }

    fn remarks_with(of: (&str, &str), permits: &Permits, told: Told) -> Vec<String> {
        let cluster = shared();
        let (name, wanted) = (Name::new(of.0, of.1), seen(&cluster, &host(), Some("eth0")));
        let announce = vec![ADDRESS.parse().unwrap()];
        let mut verdict = Verdict { announce, ..Verdict::default() };
        let told = Told { permits: Some(Arc::new(permits.clone())), ..told };
        remark(&mut verdict, &name, &cluster.services()[&name], &wanted, &told);
        let told = |refusal: &Refusal| format!("{}: {}", refusal.reason(), refusal.note());
        verdict.refusals.iter().map(told).collect()
    }

    #[test]
    fn who_is_kept_from_all_routers_is_told_what_else_of_its_annotations_cannot_be_read() {
        let mut service = asking("web", 1);
        let note = kept_from_routers("a", None, &service).note();
        assert!(
            note.contains("node a has a session with") && !note.contains("passed over"),
            "{note}"
        );
        let annotation = "berth.dev/bgp-local-pref".to_owned();
        let (text, accepted) = (Quoted::of("+150"), String::new());
        let wrong = vec![Refusal::InvalidBgp { annotation, text, accepted }];
        service.asks = Arc::new(Asks { asked: Asked::default(), wrong });
        let note = kept_from_routers("a", None, &service).note();
        assert!(note.ends_with("is passed over: \"berth.dev/bgp-local-pref\""), "{note}");
        let (cluster, address) = (shared(), ADDRESS.parse().unwrap());
        let wanted = seen(&cluster, &host(), Some("eth0"));
        let by = |name: Name| decides(address, &name, &wanted).cloned();
        assert_eq!(by(Name::new("alice", "web")), None);
        let note = kept_from_routers("a", by(Name::new("bob", "dns")), &service).note();
        assert!(
            note.contains("by that of service/alice/web, which had the address first"),
            "{note}"
        );
    }

    #[test]
    fn who_does_not_get_what_it_asks_for_is_told_why() {
        assert!(remarks(("alice", "web"), &permits("alice", 1)).is_empty());
        let told = remarks(("alice", "web"), &Permits::default());
        let [told] = &told[..] else { panic!("{told:?}") };
        let begins = "BgpNotPermitted: berth.dev/bgp-communities has \"0:1\", which is passed over";
        assert!(told.starts_with(begins), "{told}");
        let left = LeftOut { communities: [Community(1)].into(), ..LeftOut::default() };
        let left_out = Arc::new([(ADDRESS.parse().unwrap(), left)].into());
        let peer = PeerTold { left_out, ..PeerTold::default() };
        let crowded = Told { peers: [("tor".to_owned(), peer)].into(), ..Told::default() };
        let told = remarks_with(("alice", "web"), &permits("alice", 1), crowded.clone());
        let [told] = &told[..] else { panic!("{told:?}") };
        assert!(told.starts_with("BgpLeftOut: ") && told.contains("\"0:1\""), "{told}");
        let told = remarks_with(("bob", "dns"), &permits("bob", 2), crowded);
        assert!(told.iter().all(|told| !told.starts_with("BgpLeftOut")), "{told:?}");
        let told = remarks(("bob", "dns"), &permits("bob", 2));
        let [told] = &told[..] else { panic!("{told:?}") };
        assert!(told.starts_with("BgpOfAnother: ") && told.contains("service/alice/web"), "{told}");
    }
}
