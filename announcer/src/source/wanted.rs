//! All that is wanted, by address. Pure. What no claim names is told to who asks for it, and is else as if nobody did.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::limits::{MOST_GUARDED, MOST_GUARDED_TOGETHER};

use super::cluster::{Claims, Service};
use super::eip::{self, Own, Usage};
use super::fixed::{self, Fixed};
use super::room;
use super::scene::Scene;
use super::service;
use crate::vip::{Claim, Claimant, Name, Refusal, Vip, VipId, Want, Wanted};

/// What is wanted as seen from this node: by the objects of the cluster, of which `usage` tells what elastic IPs are in
/// use, and by the operator.
pub fn wanted(scene: Scene<'_>, usage: &Usage, fixed: &Fixed) -> Wanted {
    let services = scene.cluster.services();
    let mut wanted = Wanted::default();
    let mut inside = BTreeMap::new();
    // Where claims decide, nobody is given such an address.
    for (name, service) in services.iter().filter(|_| !scene.cluster.claims.decide()) {
        inside.extend(service.cluster_ips.iter().map(|own| (*own, name)));
    }
    for (name, service) in services {
        if let Some(claim) = service::claim(scene, name, service, &inside) {
            wanted.services.insert(name.clone(), claim);
        }
    }
    for (address, want) in fixed::wants(scene, fixed) {
        add(&mut wanted.vips, address, want);
    }
    let mut ours: Vec<(&Name, &Service)> = services.iter().filter(|(_, s)| s.ours).collect();
    ours.sort_by_key(|(name, service)| (&service.created, *name));
    let used: BTreeSet<IpAddr> =
        ours.iter().flat_map(|(_, service)| service::in_use(scene.cluster, service)).collect();
    let mut rooms = rooms(&ours, &wanted.services);
    for (name, service) in ours {
        let Some(claim) = wanted.services.get_mut(name) else { continue };
        if !rooms.get_mut(&*name.namespace).is_none_or(|room| room.takes(service, claim)) {
            continue;
        }
        for (address, want) in service::wants(name, service, claim, &used) {
            add(&mut wanted.vips, address, want);
        }
    }
    let own = LazyCell::new(|| Own::of(scene));
    for (name, binding) in scene.cluster.eips() {
        let refused: BTreeMap<IpAddr, Refusal> = eip::refused(scene, &own, binding).collect();
        let wants = eip::wants(scene, name, binding, usage);
        for (address, want) in wants.filter(|(address, _)| !refused.contains_key(address)) {
            add(&mut wanted.vips, address, want);
        }
        let refused = refused.into_iter();
        wanted.lost.extend(refused.map(|(address, refusal)| ((name.clone(), address), refusal)));
    }
    settle(&mut wanted, &scene.cluster.claims);
    let asked = wanted.addressed().map(|(address, _)| address);
    let host = scene.host;
    let is_own = |address: &IpAddr| host.is_reached_by(address) || host.is_anothers(address);
    wanted.own = asked.filter(is_own).collect();
    wanted
}

/// What is guarded for a namespace, and how much may be.
#[derive(Default)]
struct Room {
    taken: usize,
    most: usize,
}

impl Room {
    /// Whether there is room for a Service; it is refused its addresses else.
    fn takes(&mut self, service: &Service, claim: &mut Claim) -> bool {
        let count = ports_of(service, claim);
        if self.taken + count > self.most {
            let own = claim.places.values_mut().filter(|place| place.is_ok());
            own.for_each(|place| *place = Err(Refusal::TooManyGuarded { count }));
            return false;
        }
        self.taken += count;
        true
    }
}

/// The room of each namespace, none of which is taken.
fn rooms<'a>(
    ours: &[(&'a Name, &Service)],
    claims: &BTreeMap<Name, Claim>,
) -> BTreeMap<&'a str, Room> {
    let mut asked: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, service) in ours {
        let count = claims.get(*name).map_or(0, |claim| ports_of(service, claim));
        *asked.entry(&name.namespace).or_default() += count;
    }
    let most = room::share(asked.values().copied(), MOST_GUARDED, MOST_GUARDED_TOGETHER);
    asked.into_keys().map(|namespace| (namespace, Room { taken: 0, most })).collect()
}

/// How many ports are guarded for a Service.
fn ports_of(service: &Service, claim: &Claim) -> usize {
    claim.own().count() * service.ports.len()
}

fn add(vips: &mut BTreeMap<VipId, Vip>, address: IpAddr, want: Want) {
    let begin = || Vip { address: Some(address), wants: Vec::new(), by_claim: false };
    vips.entry(VipId::Address(address)).or_insert_with(begin).wants.push(want);
}

/// First come, first served, where claimants name one address that cannot share it, which berth-ccm does not give: the
/// others are refused it. Of those that share it the first decides where it is: one that joins later moves nothing, and
/// is told where its traffic would find nothing there.
fn settle(wanted: &mut Wanted, claims: &Claims) {
    let Wanted { vips, services, lost, .. } = wanted;
    for vip in vips.values_mut() {
        let Some(address) = vip.address else { continue };
        vip.by_claim = claims.decide();
        if vip.wants.len() > 1 {
            vip.wants.sort_by_cached_key(|want| turn(claims, &address, want));
        }
        let Some(first) = vip.wants.first() else { continue };
        let (by, routed) = (first.claimant.clone(), first.routed);
        let refused =
            vip.wants.extract_if(.., |want| !want.claimant.shares(&by) || want.routed != routed);
        for want in refused {
            let refusal = match by {
                Claimant::ControlPlane => Refusal::AddressReserved { address, by: by.clone() },
                _ if want.claimant.shares(&by) => {
                    Refusal::AnnouncedOtherwise { address, by: by.clone(), routed }
                }
                _ => Refusal::AddressInUse { address, by: by.clone() },
            };
            match want.claimant {
                Claimant::Operator | Claimant::ControlPlane => {}
                Claimant::Service(name) => {
                    let claim = services.get_mut(&name);
                    claim.map(|claim| claim.places.insert(address, Err(refusal)));
                }
                Claimant::Eip(name) => _ = lost.insert((name, address), refusal),
            }
        }
        let Some(first) = vip.deciding().next().map(|want| &want.claimant) else { continue };
        let mut claim = |want: &Want, insert: fn(&mut Claim) -> &mut BTreeMap<IpAddr, Claimant>| {
            if let Claimant::Service(name) = &want.claimant
                && let Some(claim) = services.get_mut(name)
            {
                insert(claim).insert(address, first.clone());
            }
        };
        vip.following().for_each(|want| claim(want, |claim| &mut claim.follows));
        vip.apart().iter().for_each(|at| claim(&vip.wants[*at], |claim| &mut claim.apart));
    }
}

/// Whose turn comes first: the operator's, then who came to hold the address first, by its claim. An object that is older
/// may ask for an address later. What no claim tells apart the status does: it says that a Service has its address, and always
/// does of a binding; what only an annotation names is a wish.
fn turn(claims: &Claims, address: &IpAddr, want: &Want) -> (u8, usize, u8, String, Claimant) {
    let by_claim = claims.turn(address, &want.uid).unwrap_or(usize::MAX);
    let rank = match want.claimant {
        Claimant::Operator | Claimant::ControlPlane => 0,
        Claimant::Eip(_) => 1,
        Claimant::Service(_) => {
            if want.in_use {
                1
            } else {
                2
            }
        }
    };
    (rank.min(1), by_claim, rank, want.created.clone(), want.claimant.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use berth_api::claim::{ClaimPolicy, Holder};
    use berth_api::service::{Port, Protocol};

    use super::super::cluster::testing::{eip, service};
    use super::super::cluster::{Claims, Cluster, Eip, Ingress, Labels};
    use super::super::testing::{host, scene, seen};
    use super::*;
    use crate::kernel::{Foreign, Host, Interface};
    use crate::vip::Attach;

    const ADDRESS: &str = "192.0.2.1";

    /// Who has the address, and what it leads to, where two bindings and a Service of these ages name it.
    fn first(bindings: &[(&str, &str)], web: Option<(&str, bool)>) -> (String, Option<IpAddr>) {
        let mut cluster = Cluster::default();
        for (name, created) in bindings {
            let vm = eip("a", &[(ADDRESS, &format!("10.244.0.{}", name.len()))]);
            let created = (*created).to_owned();
            cluster.apply_eip(Name::new("d", *name), Eip { created, ..vm });
        }
        if let Some((created, is_published)) = web {
            let mut web = Service { created: created.to_owned(), ..service(&[ADDRESS]) };
            let published = Ingress::vip(ADDRESS.parse().unwrap(), &[]);
            web.published.extend(Some(published).filter(|_| is_published));
            cluster.apply_service(Name::new("d", "web"), web);
        }
        let wanted = seen(&cluster, &host(), Some("eth0"));
        let vip = wanted.vip(ADDRESS.parse().unwrap()).unwrap();
        let [want] = &vip.wants[..] else { panic!("{:?}", vip.wants) };
        let refused = wanted.lost.len()
            + wanted.services.values().filter(|claim| claim.own().next().is_none()).count();
        assert_eq!(refused + 1, bindings.len() + usize::from(web.is_some()));
        (want.claimant.to_string(), vip.leads_to())
    }

    #[test]
    fn first_come_is_served_and_the_others_are_refused_the_address() {
        let vm = |number: u8| Some(IpAddr::from([10, 244, 0, number]));
        let binding = |name: &str, number| (format!("eipbinding/d/{name}"), vm(number));
        let web = ("service/d/web".to_owned(), None);
        assert_eq!(first(&[("vm", "2026")], Some(("2025", false))), binding("vm", 2), "a wish");
        assert_eq!(first(&[("vm", "2026")], Some(("2025", true))), web, "its status says so");
        assert_eq!(first(&[("vm", "2026")], Some(("2027", true))), binding("vm", 2));
        assert_eq!(first(&[("vm", "2026"), ("vmvm", "2025")], None), binding("vmvm", 4));
        assert_eq!(first(&[("vm", "2026"), ("vmvm", "2025")], Some(("2024", true))), web);
    }

    #[test]
    fn of_those_that_share_an_address_the_first_is_who_held_it_first_however_old_another_is() {
        let of = |uid: &str, created: &str| {
            let (uid, created) = (uid.to_owned(), created.to_owned());
            Service { uid, created, ..service(&[ADDRESS]) }
        };
        let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
        cluster.apply_service(Name::new("mallory", "old"), of("old", "2024"));
        cluster.apply_service(Name::new("alice", "web"), of("web", "2026"));
        cluster.claims.apply(ADDRESS, ["web", "old"].map(Holder::alone).into(), false);
        let wanted = seen(&cluster, &host(), Some("eth0"));
        let wants = &wanted.vip(ADDRESS.parse().unwrap()).unwrap().wants;
        let order: Vec<String> = wants.iter().map(|want| want.claimant.to_string()).collect();
        assert_eq!(order, ["service/alice/web", "service/mallory/old"]);
    }

    #[test]
    fn of_those_that_share_an_address_who_had_it_first_says_whether_routers_or_neighbours_are_told()
    {
        let way = |uid: &str, way: &str| {
            let read = [("way".to_owned(), way.to_owned())];
            let labels = Labels { read: Arc::new(read.into()), count: 1 };
            Service { uid: uid.to_owned(), labels, ..service(&[ADDRESS, "192.0.2.2"]) }
        };
        let select = "layer2: [{services: {matchLabels: {way: lan}}}]";
        let map = [("config.yaml".to_owned(), select.to_owned())].into();
        let (document, flaws) = berth_bgp::config::config_map(&map);
        assert!(flaws.is_empty(), "{flaws:?}");
        let mut host = host();
        let lo = Interface { index: 1, mac: None, up: true, foreign: [].into() };
        host.interfaces.insert("lo".to_owned(), lo);
        let address: IpAddr = ADDRESS.parse().unwrap();
        for (first, second, routed) in [("lan", "far", false), ("far", "lan", true)] {
            let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
            let names = ["one", "two"].map(|name| Name::new("d", name));
            cluster.apply_service(names[0].clone(), way("one", first));
            cluster.apply_service(names[1].clone(), way("two", second));
            cluster.claims.apply(ADDRESS, ["one", "two"].map(Holder::alone).into(), false);
            cluster.claims.apply("192.0.2.2", vec![Holder::alone("two")], false);
            let layer2 = &document.layer2;
            let scene =
                Scene { routed: Some("lo"), layer2, ..scene(&cluster, &host, Some("eth0")) };
            let wanted = wanted(scene, &Usage::default(), &Fixed::default());
            let by = Claimant::Service(names[0].clone());
            let refused = Err(Refusal::AnnouncedOtherwise { address, by, routed });
            assert_eq!(wanted.attach(&names[1], address), Some(&refused));
            let of = |routed: bool| -> Vec<String> {
                wanted.part(routed).addressed().map(|(own, _)| own.to_string()).collect()
            };
            assert_eq!((of(routed), of(!routed)), (vec![ADDRESS.into()], vec!["192.0.2.2".into()]));
            let place = wanted.vip(address).unwrap().attach("a").unwrap();
            assert_eq!(matches!(place, Attach::Host(1)), routed, "{place:?}");
            let part = wanted.part(routed).services.into_keys().collect::<Vec<_>>();
            assert_eq!(part, names[..1], "each Service is decided on once");
        }
    }

    #[test]
    fn where_claims_decide_a_wish_is_told_and_takes_nothing_from_who_is_named() {
        let address: IpAddr = ADDRESS.parse().unwrap();
        let of = |uid: &str, created: &str| {
            let (uid, created) = (uid.to_owned(), created.to_owned());
            let vip_host = Some("a".to_owned());
            Service { uid, created, vip_host, ..service(&[ADDRESS]) }
        };
        let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
        let (wish, web) = (Name::new("d", "wish"), Name::new("d", "web"));
        cluster.apply_service(wish.clone(), of("wish", "2024"));
        cluster.apply_service(web.clone(), of("web", "2026"));
        let vm = Eip { uid: "vm".to_owned(), ..eip("a", &[(ADDRESS, "10.244.0.4")]) };
        cluster.apply_eip(Name::new("d", "vm"), vm);
        let refusal = Err(Refusal::NotClaimed { address });

        let wanted = seen(&cluster, &host(), Some("eth0"));
        assert!(wanted.vips.is_empty() && wanted.lost.len() == 1, "{wanted:?}");
        assert_eq!(wanted.attach(&web, address), Some(&refusal));

        cluster.claims.apply(ADDRESS, vec![Holder::alone("web")], false);
        let wanted = seen(&cluster, &host(), Some("eth0"));
        let [want] = &wanted.vip(address).unwrap().wants[..] else { panic!("{wanted:?}") };
        assert_eq!((&want.claimant, want.in_use), (&Claimant::Service(web.clone()), false));
        assert!(wanted.attach(&web, address).unwrap().is_ok());
        assert_eq!(wanted.attach(&wish, address), Some(&refusal));
        assert_eq!(wanted.lost.len(), 1);

        cluster.claims.apply(ADDRESS, vec![Holder::alone("vm")], false);
        let wanted = seen(&cluster, &host(), Some("eth0"));
        let [want] = &wanted.vip(address).unwrap().wants[..] else { panic!("{wanted:?}") };
        assert!(!want.claimant.is_service() && wanted.lost.is_empty());
    }

    #[test]
    fn an_address_within_the_cluster_is_nobodys_where_no_claim_says_so() {
        let (mut cluster, dns) = (Cluster::default(), Name::new("kube-system", "dns"));
        let (address, wish) = ("10.96.0.10".parse().unwrap(), Name::new("d", "wish"));
        cluster.apply_service(wish.clone(), service(&["10.96.0.10", "192.0.2.1"]));
        let within = Service { cluster_ips: vec![address], ours: false, ..service(&[]) };
        cluster.apply_service(dns.clone(), within);
        let wanted = seen(&cluster, &host(), Some("eth0"));
        let refused = Err(Refusal::AddressInUse { address, by: Claimant::Service(dns) });
        assert_eq!(wanted.attach(&wish, address), Some(&refused));
        assert!(wanted.ports().iter().all(|port| port.address.to_string() == "192.0.2.1"));
        assert_eq!(wanted.vips.len(), 1, "it is neither bound nor guarded");
    }

    #[test]
    fn what_another_instance_answers_for_goes_on_as_it_is_whoever_asks_for_it() {
        let (mut cluster, mut host) = (Cluster::default(), host());
        cluster.apply_service(Name::new("d", "wish"), service(&[ADDRESS]));
        let own = |host: &Host| seen(&cluster, host, Some("eth0")).own.len();
        assert_eq!(own(&host), 0);
        let bound = Foreign { prefix_len: 32, anothers: true, ..Foreign::default() };
        let eth0 = host.interfaces.get_mut("eth0").unwrap();
        eth0.foreign.insert(ADDRESS.parse().unwrap(), bound);
        let wanted = seen(&cluster, &host, Some("eth0"));
        assert_eq!(wanted.own, [ADDRESS.parse().unwrap()].into());
        assert!(wanted.ports().is_empty(), "neither guarded nor covered");
        let place = wanted.attach(&Name::new("d", "wish"), ADDRESS.parse().unwrap()).unwrap();
        assert_eq!(place.as_ref().unwrap_err().reason(), "AddressOnHost");
    }

    #[test]
    fn the_control_planes_address_is_nobodys_to_ask_for() {
        let (mut cluster, host) = (Cluster::default(), host());
        let wish = Name::new("d", "wish");
        cluster.apply_service(wish.clone(), service(&[ADDRESS]));
        let address: IpAddr = ADDRESS.parse().unwrap();
        let fixed =
            Fixed { by: Claimant::ControlPlane, addresses: vec![address], ..Fixed::default() };
        let (cluster, host, interface) = (&cluster, &host, Some("eth0"));
        let scene = scene(cluster, host, interface);
        let wanted = wanted(scene, &Usage::default(), &fixed);
        let refused = wanted.attach(&wish, address).unwrap().as_ref().unwrap_err();
        assert_eq!(refused.reason(), "AddressReserved");
        assert!(refused.note().ends_with("that of the control plane; accepted: another address"));
        assert_eq!(wanted.of_control_plane().map(|(own, _)| own).collect::<Vec<_>>(), [address]);
        assert!(wanted.ports().is_empty(), "whatever listens there answers");
    }

    #[test]
    fn what_a_status_shows_without_a_claim_proves_no_use() {
        let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
        let published = vec![Ingress::vip(ADDRESS.parse().unwrap(), &[])];
        let of = |uid: &str, published: Vec<Ingress>| Service {
            uid: uid.to_owned(),
            published,
            ..service(&[ADDRESS])
        };
        cluster.apply_service(Name::new("d", "web"), of("web", Vec::new()));
        cluster.apply_service(Name::new("d", "wish"), of("wish", published.clone()));
        cluster.claims.apply(ADDRESS, vec![Holder::alone("web")], false);
        let in_use = |cluster: &Cluster| {
            let wanted = seen(cluster, &host(), Some("eth0"));
            wanted.vip(ADDRESS.parse().unwrap()).unwrap().in_use()
        };
        assert!(!in_use(&cluster), "the LAN is asked");
        cluster.apply_service(Name::new("d", "web"), of("web", published));
        assert!(in_use(&cluster));
    }

    #[test]
    fn preferences_are_shared_by_every_want_and_not_copied() {
        let mut cluster = Cluster::default();
        let preferred = berth_api::preference::Preferences::parse(&"a,".repeat(100_000)).read;
        let web = Service { preferred: preferred.into(), ..service(&[ADDRESS, "2001:db8::1"]) };
        cluster.apply_service(Name::new("d", "web"), web.clone());
        let wanted = seen(&cluster, &host(), Some("eth0"));
        let wants: Vec<&Want> = wanted.vips.values().flat_map(|vip| &vip.wants).collect();
        assert_eq!((wants.len(), web.preferred.len()), (2, 16));
        assert!(wants.iter().all(|want| std::sync::Arc::ptr_eq(&want.preferred, &web.preferred)));
    }

    #[test]
    fn where_a_service_belongs_is_searched_for_among_none_of_those_that_share_its_address() {
        let (mut cluster, address) = (Cluster::default(), "192.0.2.1");
        let names: Vec<Name> = (0..100).map(|n| Name::new("d", n.to_string())).collect();
        for name in &names {
            cluster.apply_service(name.clone(), service(&[address]));
        }
        let address = address.parse().unwrap();
        let mut wanted = seen(&cluster, &host(), Some("eth0"));
        assert_eq!(wanted.vip(address).unwrap().wants.len(), names.len());
        // With N of them a search for each would be N².
        wanted.vips.clear();
        assert!(names.iter().all(|name| matches!(wanted.attach(name, address), Some(Ok(_)))));
    }

    /// Services of 1,024 ports, by namespace, and how many of the oldest of each have their addresses.
    fn served<const N: usize>(wide: [(&str, u8); N]) -> [usize; N] {
        let mut cluster = Cluster::default();
        let name = |namespace: &str, number| Name::new(namespace, format!("wide-{number:03}"));
        let address = |namespace, number| IpAddr::from([198, 51, namespace, number]);
        for (at, (namespace, count)) in (0..).zip(wide) {
            for number in 0..count {
                let ports = (1..=1024).map(|number| Port { protocol: Protocol::Tcp, number });
                let created = format!("2026-{number:03}");
                let of = service(&[&address(at, number).to_string()]);
                let service = Service { ports: ports.collect(), created, ..of };
                cluster.apply_service(name(namespace, number), service);
            }
        }
        let wanted = seen(&cluster, &host(), Some("eth0"));
        let mut at = 0..;
        wide.map(|(namespace, count)| {
            let at = at.next().unwrap();
            let places = (0..count).map(|number| {
                wanted.attach(&name(namespace, number), address(at, number)).unwrap()
            });
            let places: Vec<_> = places.collect();
            let has = places.iter().take_while(|place| place.is_ok()).count();
            let told = places[has..]
                .iter()
                .all(|place| matches!(place, Err(Refusal::TooManyGuarded { count: 1024 })));
            assert!(told, "{namespace}");
            has
        })
    }

    #[test]
    fn a_namespace_has_as_many_ports_guarded_as_there_is_room_and_its_oldest_services_first() {
        assert_eq!(served([("d", 40), ("e", 1)]), [32, 1]);
    }

    #[test]
    fn who_has_no_room_is_told_the_same_whatever_the_others_change() {
        let (name, address) = (|n: u8| Name::new("d", format!("web-{n:02}")), "198.51.100.33");
        let told = |of_first: u16| {
            let mut cluster = Cluster::default();
            for n in 0..34 {
                let address = IpAddr::from([198, 51, 100, n]).to_string();
                let most = if n == 0 { of_first } else { 1024 };
                let ports = (1..=most).map(|number| Port { protocol: Protocol::Tcp, number });
                let (ports, created) = (ports.collect(), format!("2026-{n:02}"));
                let of = Service { ports, created, ..service(&[&address]) };
                cluster.apply_service(name(n), of);
            }
            let wanted = seen(&cluster, &host(), Some("eth0"));
            wanted.attach(&name(33), address.parse().unwrap()).unwrap().clone().unwrap_err().note()
        };
        assert_eq!(told(1024), told(1023));
    }

    #[test]
    fn namespaces_share_what_is_guarded_and_who_has_little_has_it_whatever_others_have() {
        let all = MOST_GUARDED_TOGETHER / 1024;
        let wide = [("a", 40), ("b", 32), ("c", 32), ("d", 34), ("e", 30), ("z", 2)];
        let served = served(wide);
        let share = (all - 2) / 5;
        assert_eq!(served, [share, share, share, share, share, 2]);
        assert!(served.iter().sum::<usize>() <= all);
    }
}
