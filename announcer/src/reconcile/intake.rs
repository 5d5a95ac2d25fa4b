//! Taking in what the watches show, and telling what follows of it for readiness.

use std::time::{Duration, Instant};

use berth_api::election;

use super::Announcer;
use super::sight::Sight;
use crate::kernel::Kernel;
use crate::ownership::Ownership;
use crate::source::watch::ClusterEvent;
use crate::vip::Name;
use crate::vip::nodes::Peer;

/// How long members may wait for a Lease before that is told.
const PATIENCE: Duration = Duration::from_secs(5);

impl<K: Kernel> Announcer<K> {
    /// Takes in what a watch has shown; false if nothing comes of it.
    pub fn see(&mut self, seen: ClusterEvent, now: Instant) -> bool {
        self.owners.iter_mut().for_each(|owner| owner.hear(now));
        match seen {
            ClusterEvent::Lease(name, sight) => self.see_lease(name, sight, now),
            ClusterEvent::LeaseOfControlPlane(name, sight) => {
                let is_alone = !self.config.election.is_of_services();
                if let Some(members) = self.members() {
                    members.lease(&name, &election::Held::from(&sight), now);
                    members.leases_listed();
                } else if let Some(leases) = self.leases() {
                    leases.observe(name, sight, now);
                }
                // Nothing else is waited for.
                if is_alone {
                    self.leases_listed();
                }
                true
            }
            ClusterEvent::ApiServer(node, said) => {
                let here = said.as_ref().map(|(said, renewed)| (&said.announced, renewed.as_str()));
                self.whereabouts.hear(&node, here, now);
                self.tell_where_it_is();
                let said = said.map(|(said, renewed)| (said.is_healthy, renewed));
                if self.api_servers().is_some_and(|own| own.hear(node, said, now)) {
                    self.outlets.again.notify_one();
                }
                true
            }
            ClusterEvent::ApiServers(nodes) => {
                self.whereabouts.heard(&nodes);
                self.tell_where_it_is();
                self.api_servers().into_iter().for_each(|own| own.heard(&nodes));
                true
            }
            ClusterEvent::Rival(name, held) => self.see_rival(&name, &held, now),
            seen => {
                self.touch_owners();
                self.take_in(seen, now);
                true
            }
        }
    }

    /// Tells of another node with the control plane's address; not where each may have it.
    fn tell_where_it_is(&mut self) {
        if self.routed.is_none()
            && let Some(node) = self.whereabouts.turn()
        {
            tracing::info!("the control plane's address is on {node}");
        }
    }

    fn see_lease(&mut self, name: Name, sight: election::Sight, now: Instant) -> bool {
        if self.is_member() {
            return self.see_rival(&name, &election::Held::from(&sight), now);
        }
        if let Some(leases) = self.leases() {
            leases.observe(name, sight, now);
        }
        true
    }

    fn see_rival(&mut self, name: &Name, held: &election::Held, now: Instant) -> bool {
        self.members().is_some_and(|members| members.lease(name, held, now))
    }

    /// Ready once all Leases were shown that matter.
    fn leases_listed(&self) {
        let listed = |owner: &Ownership| match owner {
            Ownership::Membership(members) => members.are_leases_listed(),
            _ => true,
        };
        if self.owners.iter().all(listed) && self.withheld.is_none() {
            self.outlets.health.ready("leases");
        }
    }

    /// Tells of a Lease that members do not get, without which they ask for nothing.
    pub(super) fn tell_of_the_members_lease(&mut self, now: Instant) {
        let waits = self.owners.iter().find_map(|owner| match owner {
            Ownership::Membership(members) => members.waits_for(now),
            _ => None,
        });
        let why = waits.map(|lease| {
            format!(
                "members do not hold Lease {lease} yet, so nothing is asked for; the log says what the API server answers"
            )
        });
        let since = why.as_ref().map(|_| self.waits_since.unwrap_or(now));
        let lasts = |since: Option<Instant>| since.is_some_and(|since| now >= since + PATIENCE);
        match why.filter(|_| lasts(since)) {
            Some(why) => self.outlets.health.unready("leases", why),
            None if lasts(self.waits_since) => self.outlets.health.ready("leases"),
            None => {}
        }
        self.waits_since = since;
    }

    fn take_in(&mut self, seen: ClusterEvent, now: Instant) {
        let ready = |check| self.outlets.health.ready(check);
        let Sight { cluster, listed, .. } = &mut self.sight;
        match seen {
            ClusterEvent::Service(name, service) => cluster.apply_service(name, *service),
            ClusterEvent::ServiceGone(name) => cluster.delete_service(&name),
            ClusterEvent::Services(names) => {
                cluster.retain_services(&names);
                listed.services = true;
                ready("services");
            }
            ClusterEvent::Slice(name, read) => cluster.apply_slice(name, read),
            ClusterEvent::SliceGone(name) => cluster.delete_slice(&name),
            ClusterEvent::Slices(names) => {
                cluster.retain_slices(&names);
                listed.slices = true;
                ready("endpointslices");
            }
            ClusterEvent::SlicesDenied(denied) => cluster.slices_denied = denied,
            ClusterEvent::Eip(name, eip) => cluster.apply_eip(name, *eip),
            ClusterEvent::EipGone(name) => cluster.delete_eip(&name),
            ClusterEvent::Eips(names) => {
                cluster.retain_eips(&names);
                listed.bindings = true;
            }
            ClusterEvent::Claim(name, holders, is_imported, pool) => {
                cluster.claims.apply(&name, holders, is_imported);
                cluster.claims.pooled(&name, pool);
            }
            ClusterEvent::ClaimGone(name) => cluster.claims.delete(&name),
            ClusterEvent::Claims(names) => cluster.claims.listed(&names),
            ClusterEvent::ClaimsDenied => cluster.claims.denied(),
            ClusterEvent::Import(is_marked) => cluster.claims.imported(is_marked),
            ClusterEvent::ImportListed => cluster.claims.asked(),
            // Taken in where it came.
            ClusterEvent::Lease(..)
            | ClusterEvent::LeaseOfControlPlane(..)
            | ClusterEvent::ApiServer(..)
            | ClusterEvent::ApiServers(..)
            | ClusterEvent::Rival(..) => return,
            ClusterEvent::Leases(names) => {
                if let Some(members) = self.members() {
                    members.leases_listed();
                } else if let Some(leases) = self.leases() {
                    leases.listed(&names, now);
                }
                return self.leases_listed();
            }
            ClusterEvent::Rivals(names) => {
                if let Some(members) = self.members() {
                    members.rivals_listed(&names);
                }
                return self.leases_listed();
            }
            ClusterEvent::Node(name, peer) => {
                if cluster.nodes.apply(&name) {
                    self.sight.touch();
                }
                self.elastic.networks.pods(name.clone(), peer.pods.clone());
                if let Some(routed) = self.routed.as_ref().filter(|_| name == self.config.core.node)
                {
                    routed.note(&peer);
                }
                return self.peer(name, Some(peer));
            }
            ClusterEvent::NodeGone(name) => {
                self.sight.forget_node(&name);
                self.elastic.networks.pods(name.clone(), Vec::new());
                return self.peer(name, None);
            }
            ClusterEvent::Nodes(names) => {
                self.sight.keep_nodes(&names);
                ready("nodes");
                self.elastic.networks.pods_listed(&names);
                let is_routed = self.routed.is_some();
                let members = self.members();
                let is_member = members.map(|members| members.peers(&names)).is_some();
                if is_routed || !is_member {
                    self.sight.nodes.peers.retain(&names);
                    self.sight.nodes.listed = true;
                }
                return;
            }
            ClusterEvent::Bgp(data) => {
                if let Some(routed) = &self.routed {
                    routed.configure(data);
                }
                return;
            }
            ClusterEvent::ServiceNet(name, networks) => {
                return self.elastic.networks.services(name, networks);
            }
            ClusterEvent::ServiceNets(names) => {
                return self.elastic.networks.services_listed(&names);
            }
        }
        self.sight.touch();
        self.tell_of_claims();
    }

    /// Tells whether claims decide, when that changes.
    fn tell_of_claims(&mut self) {
        let Self { sight, outlets, .. } = self;
        let claims = &sight.cluster.claims;
        match claims.unknown() {
            Some(why) => outlets.health.unready("ipaddresses", why),
            None => outlets.health.ready("ipaddresses"),
        }
        let decide = i64::from(claims.decide());
        if outlets.metrics.claims_required.set(decide) != decide {
            tracing::info!("from now on only what an IPAddress of berth-ccm names is served");
        }
    }

    fn peer(&mut self, name: String, peer: Option<Peer>) {
        if let Some(members) = self.owners.iter_mut().find_map(Ownership::members) {
            members.peer(name.clone(), peer.clone());
            // Who decides on what routers lead here knows no members.
            if self.routed.is_none() {
                return;
            }
        }
        let peers = &mut self.sight.nodes.peers;
        match peer {
            Some(peer) => _ = peers.apply(name, peer),
            None => _ = peers.delete(&name),
        }
    }
}
