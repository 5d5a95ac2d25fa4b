//! Which addresses have to be asked for before this node takes them into use, and what becomes of those that another
//! host has. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_membership::Wish;

use super::{Desired, Refusal, Scene, place};
use crate::advertise::arp_nd::frame::{Mac, Mark};
use crate::advertise::arp_nd::probe::{Probes, Question, Standing};
use crate::advertise::arp_nd::schedule::Link;
use crate::source::cluster::Service;

/// How long a fellow node may go on answering for an address that it hands over, and that no status names yet.
const HANDED_OVER: Duration = Duration::from_secs(1);

/// Of the addresses that this node is to take or has, those that nobody is known to have used: each with how it is asked
/// for. `is_first` tells of which it is sure that no fellow node has them.
///
/// What a Service publishes is in use. An owner that crashes, hands over or restarts has published it, so nothing is
/// asked then, and a takeover takes no longer.
pub fn questions(
    scene: Scene<'_>,
    asked: &BTreeSet<IpAddr>,
    is_first: impl Fn(&IpAddr) -> bool,
) -> BTreeMap<IpAddr, Question> {
    let mut unused = asked.clone();
    let services = || scene.cluster.services().values().filter(|service| service.ours);
    for service in services() {
        if unused.is_empty() {
            return BTreeMap::new();
        }
        in_use(service).for_each(|address| _ = unused.remove(&address));
    }
    let mut questions: BTreeMap<IpAddr, (&str, Question)> = BTreeMap::new();
    for service in services() {
        for address in service.addresses.iter().filter(|address| unused.contains(*address)) {
            let Ok(link) = place(scene, service, *address) else { continue };
            let known = service.conflict.of(address).is_some();
            let question = question(link, &service.uid, known || is_first(address));
            // Of those that share it one is asked for, and on every node the same one.
            match questions.get(address) {
                Some((uid, _)) if *uid <= service.uid.as_str() => {}
                _ => _ = questions.insert(*address, (&service.uid, question)),
            }
        }
    }
    questions.into_iter().map(|(address, (_, question))| (address, question)).collect()
}

/// The addresses that a Service says to be served, by us or by kube-vip. One that names a host and publishes nothing had
/// its status changed by somebody.
fn in_use(service: &Service) -> impl Iterator<Item = IpAddr> + '_ {
    let published = service.published.iter().filter_map(|ingress| ingress.ip.parse().ok());
    let hosted = service.vip_host.is_some() && service.published.is_empty();
    let all = service.addresses.iter().copied().filter(move |_| hosted);
    published.chain(all)
}

/// How to ask for an address of the object with this uid; `is_alone` if no fellow node has it.
pub(crate) fn question(link: Link, uid: &str, is_alone: bool) -> Question {
    let patience = if is_alone { Duration::ZERO } else { HANDED_OVER };
    Question { link, mark: mark(uid), patience }
}

/// Only the nodes of this cluster know the uid.
fn mark(uid: &str) -> Mark {
    let [_, _, mark @ ..] = Wish::key_of(uid).to_be_bytes();
    mark
}

/// What is said of an address that another host has.
pub(crate) fn conflict(scene: Scene<'_>, probes: &Probes, address: IpAddr, mac: Mac) -> Refusal {
    let index = probes.index(&address);
    let mut interfaces = scene.host.interfaces.iter();
    let found = interfaces.find(|(_, interface)| Some(interface.index) == index);
    let interface = found.map(|(name, _)| name.clone()).unwrap_or_default();
    Refusal::AddressConflict { address, mac, node: scene.node.to_owned(), interface }
}

impl Desired {
    /// Takes out what is asked for and not known to be free, and refuses what another host has.
    pub fn withhold(&mut self, scene: Scene<'_>, probes: &Probes) {
        self.addresses.retain(|address, _| probes.allows(address));
        for verdict in self.verdicts.values_mut() {
            let mut announce = std::mem::take(&mut verdict.announce);
            announce.retain(|address| match probes.standing(address) {
                Some(Standing::Taken(mac)) => {
                    verdict.refusals.push(conflict(scene, probes, *address, mac));
                    false
                }
                Some(Standing::Asking) => {
                    verdict.asked.insert(*address);
                    true
                }
                Some(Standing::Free) | None => true,
            });
            verdict.announce = announce;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::Verdict;
    use super::*;
    use crate::advertise::arp_nd::hearing::{Heard, Said};
    use crate::kernel::{Host, Interface};
    use crate::source::cluster::testing::service;
    use crate::source::cluster::{Cluster, Ingress, Name};

    const BOTH: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

    fn host() -> Host {
        let eth0 = Interface { index: 2, mac: Some([2; 6]), up: true, foreign: [].into() };
        Host { interfaces: [("eth0".to_owned(), eth0)].into(), ..Host::default() }
    }

    fn both() -> BTreeSet<IpAddr> {
        BOTH.map(|address| address.parse().unwrap()).into()
    }

    fn asked(services: &[Service]) -> BTreeMap<IpAddr, Question> {
        let (mut cluster, host) = (Cluster::default(), host());
        for (number, service) in services.iter().enumerate() {
            cluster.apply_service(Name::new("d", format!("s{number}")), service.clone());
        }
        let scene = Scene { cluster: &cluster, host: &host, node: "a", interface: Some("eth0") };
        questions(scene, &both(), |_| true)
    }

    #[test]
    fn what_no_service_publishes_is_asked_for() {
        let mut web = service(&BOTH);
        assert_eq!(asked(&[web.clone()]).len(), 2);
        web.published = vec![Ingress::vip(BOTH[0].parse().unwrap(), &web.ports)];
        web.vip_host = Some("b".to_owned());
        let second: Vec<IpAddr> = asked(&[web.clone()]).into_keys().collect();
        assert_eq!(second, [BOTH[1].parse::<IpAddr>().unwrap()], "the second address came later");
        let sharing = Service { vip_host: None, published: Vec::new(), ..web.clone() };
        assert_eq!(asked(&[sharing, web]).len(), 1, "one that shares it publishes it");
    }

    #[test]
    fn a_host_in_the_annotation_stands_for_addresses_whose_status_was_taken_away() {
        let mut web = service(&BOTH);
        web.vip_host = Some("kube-vip".to_owned());
        assert!(asked(&[web]).is_empty());
    }

    #[test]
    fn all_nodes_ask_with_one_mark_also_for_a_shared_address() {
        let other = Service { uid: "other".to_owned(), ..service(&BOTH) };
        let (one, two) = (asked(&[service(&BOTH), other.clone()]), asked(&[other, service(&BOTH)]));
        assert_eq!(one, two);
    }

    #[test]
    fn what_is_not_proven_is_withheld_and_what_another_host_has_is_refused() {
        let (cluster, host, now) = (Cluster::default(), host(), Instant::now());
        let scene = Scene { cluster: &cluster, host: &host, node: "a", interface: Some("eth0") };
        let mut probes = Probes::default();
        let questions = asked(&[service(&BOTH)]);
        probes.keep(&questions, now);
        let address: IpAddr = BOTH[0].parse().unwrap();
        let heard = Heard { address, mac: [9; 6], said: Said::Claim };
        probes.hear(2, &heard, now);
        let mut desired = Desired::default();
        for (address, question) in &questions {
            let web = service(&BOTH);
            desired.put(&web, *address, question.link, now, true);
        }
        let announce = both().into_iter().collect();
        let verdict = Verdict { announce, ..Verdict::default() };
        desired.verdicts.insert(Name::new("d", "web"), verdict);
        desired.withhold(scene, &probes);
        assert!(desired.addresses.is_empty());
        let verdict = &desired.verdicts[&Name::new("d", "web")];
        let second: IpAddr = BOTH[1].parse().unwrap();
        assert_eq!((&verdict.announce[..], &verdict.asked), (&[second][..], &[second].into()));
        let [Refusal::AddressConflict { interface, .. }] = &verdict.refusals[..] else {
            panic!("{verdict:?}")
        };
        assert_eq!(interface, "eth0");
    }
}
