//! What to tell Services of ports that this node keeps from answering behind their addresses (`enable_service_security`):
//! each once. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::reason;
use berth_runtime::events::{Report, Severity};

use super::events::service_reference;
use crate::kernel::Listening;
use crate::vip::{Claimant, Name, Vip, Wanted};

/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// Addresses come in crowds: they are looked at together.
const SOON: Duration = Duration::from_secs(2);
/// Nothing tells of a process that begins to listen.
const LOOK: Duration = Duration::from_secs(600);
/// How many ports are named.
const FIRST: usize = 8;
/// A Service is told no sooner again, whatever listens: its Event is gone by then.
const AGAIN: Duration = Duration::from_secs(3600);

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Closed {
    addresses: BTreeSet<IpAddr>,
    look_at: Option<Instant>,
    told: BTreeMap<Name, Told>,
}

#[derive(Debug)]
struct Told {
    uid: String,
    ports: BTreeSet<u16>,
    at: Instant,
}

impl Closed {
    /// Takes in the addresses behind which ports are closed. Returns whether it is time to look who listens.
    pub(super) fn see(&mut self, addresses: BTreeSet<IpAddr>, now: Instant) -> bool {
        if self.addresses != addresses {
            self.addresses = addresses;
            let soon = now + SOON;
            self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
        }
        !self.addresses.is_empty() && self.look_at.is_some_and(|at| at <= now)
    }

    /// When it is time next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.look_at.filter(|_| !self.addresses.is_empty())
    }

    /// What is news, with who listens on `node`, which is this one.
    pub(super) fn poll(
        &mut self,
        wanted: &Wanted,
        node: &str,
        listening: &Listening,
        now: Instant,
    ) -> Vec<Report> {
        self.look_at = Some(now + LOOK);
        self.told.retain(|name, told| {
            wanted.services.get(name).is_some_and(|claim| claim.uid == told.uid)
        });
        let mut reports = Vec::new();
        for (name, (uid, ports)) in self.behind(wanted, listening) {
            let told = self.told.get(&name);
            let is_known = told.is_some_and(|told| ports.is_subset(&told.ports));
            if ports.is_empty() || is_known || told.is_some_and(|told| now < told.at + AGAIN) {
                continue;
            }
            reports.push(report(&name, uid, node, &ports));
            let known = self.told.remove(&name).map(|told| told.ports).unwrap_or_default();
            let ports = ports.union(&known).copied().collect();
            self.told.insert(name, Told { uid: uid.to_owned(), ports, at: now });
        }
        reports
    }

    /// By Service, with its uid, the ports on which somebody listens and that no Service at its addresses has.
    fn behind<'a>(
        &self,
        wanted: &'a Wanted,
        listening: &Listening,
    ) -> BTreeMap<Name, (&'a str, BTreeSet<u16>)> {
        let mut behind: BTreeMap<Name, (&str, BTreeSet<u16>)> = BTreeMap::new();
        for (address, vip) in wanted.addressed().filter(|(own, _)| self.addresses.contains(own)) {
            let served = served(vip);
            let ports: BTreeSet<u16> = listening.at(address).difference(&served).copied().collect();
            for want in &vip.wants {
                let Claimant::Service(name) = &want.claimant else { continue };
                let begin = || (want.uid.as_str(), BTreeSet::new());
                behind.entry(name.clone()).or_insert_with(begin).1.extend(&ports);
            }
        }
        behind
    }
}

fn served(vip: &Vip) -> BTreeSet<u16> {
    vip.ports().iter().filter(|port| port.protocol == TCP).map(|port| port.port).collect()
}

fn report(name: &Name, uid: &str, node: &str, ports: &BTreeSet<u16>) -> Report {
    let mut first = ports.iter().take(FIRST).map(u16::to_string).collect::<Vec<_>>().join(", ");
    if ports.len() > FIRST {
        first += &format!(" and {} more", ports.len() - FIRST);
    }
    Report {
        regarding: service_reference(name, Some(uid.to_owned())),
        severity: Severity::Normal,
        reason: reason::HOST_PORTS_CLOSED,
        action: "Guard",
        note: format!(
            "TCP ports of node {node} on which somebody listens are closed behind the addresses of this Service \
             (enable_service_security): {first}; at the node's own addresses they answer as before, at these only what is in spec.ports"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::cluster::testing::service;
    use crate::source::cluster::{Cluster, Service};
    use crate::source::testing::{host, seen};

    fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        for (name, port) in [("web", 80), ("tls", 443)] {
            let mut service = Service { uid: name.to_owned(), ..service(&["192.0.2.1"]) };
            service.ports[0].number = port;
            cluster.apply_service(Name::new("d", name), service);
        }
        cluster
    }

    fn listening(ports: &[u16]) -> Listening {
        ports.iter().map(|port| ("0.0.0.0".parse().unwrap(), *port)).collect()
    }

    #[test]
    fn each_service_is_told_once_of_what_listens_behind_it_and_is_no_services() {
        let (wanted, begin) = (seen(&cluster(), &host(), Some("eth0")), Instant::now());
        let (mut closed, address) = (Closed::default(), "192.0.2.1".parse().unwrap());
        assert!(!closed.see([].into(), begin) && closed.deadline().is_none(), "nothing is closed");
        assert!(!closed.see([address].into(), begin), "others may come");
        let now = begin + SOON;
        assert!(closed.see([address].into(), now));
        let told = closed.poll(&wanted, "a", &listening(&[22, 80, 443, 10250]), now);
        assert_eq!(told.len(), 2);
        assert!(
            told.iter().all(|report| report.reason == "HostPortsClosed"
                && report.note.contains("(enable_service_security): 22, 10250; ")),
            "{told:?}"
        );
        assert!(!closed.see([address].into(), now), "not each round");
        let now = now + LOOK;
        assert!(closed.see([address].into(), now));
        assert_eq!(closed.poll(&wanted, "a", &listening(&[22]), now), []);
        assert_eq!(closed.poll(&wanted, "a", &listening(&[22, 23]), now), [], "too soon");
        let now = now + AGAIN;
        assert_eq!(closed.poll(&wanted, "a", &listening(&[23]), now).len(), 2, "a port is new");
        let now = now + AGAIN;
        assert_eq!(closed.poll(&wanted, "a", &listening(&[22, 23, 10250]), now), [], "none is");
    }

    #[test]
    fn a_service_made_anew_is_told_anew_and_one_without_a_closed_address_never() {
        let (mut cluster, now) = (cluster(), Instant::now());
        let mut closed = Closed::default();
        let poll = |closed: &mut Closed, cluster: &Cluster| {
            let wanted = seen(cluster, &host(), Some("eth0"));
            closed.poll(&wanted, "a", &listening(&[22]), now).len()
        };
        assert_eq!(poll(&mut closed, &cluster), 0);
        closed.see(["192.0.2.1".parse().unwrap()].into(), now);
        assert_eq!(poll(&mut closed, &cluster), 2);
        let anew = Service { uid: "anew".to_owned(), ..service(&["192.0.2.1"]) };
        cluster.apply_service(Name::new("d", "web"), anew);
        assert_eq!(poll(&mut closed, &cluster), 1);
    }
}
