//! Owns all that the index knows, part by part, and who is to be looked at when a part changes. What is decided from it
//! stands in the modules above.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use berth_api::NamespacedName;
use berth_ipam::Owner;

use super::adoption::Adoption;
use super::agenda::Agenda;
use super::claiming::Claiming;
use super::cluster::Cluster;
use super::departures::Departures;
use super::endings::Endings;
use super::exchanges::Exchanges;
use super::fellows::Fellows;
use super::figures::Figures;
use super::liveness::Liveness;
use super::pools::PoolMap;
use super::routers::Routers;
use super::said::Said;
use super::silences::Silences;
use super::traffic::Traffic;
use crate::claimant::{Claimant, Id};
use crate::write::Object;

/// What is known.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) cluster: Cluster,
    pub(super) pools: PoolMap,
    pub(super) agenda: Agenda,
    pub(super) claiming: Claiming,
    pub(super) adoption: Adoption,
    pub(super) departures: Departures,
    pub(super) routers: Routers,
    pub(super) endings: Endings,
    pub(super) exchanges: Exchanges,
    pub(super) fellows: Fellows,
    pub(super) traffic: Traffic,
    pub(super) said: Said,
    pub(super) figures: Figures,
    pub(super) liveness: Liveness,
    pub(super) silences: Silences,
    /// Whether this process leads: else it only looks on.
    pub(super) leading: bool,
    /// Whether the last poll has left off before it had nothing more to look at.
    pub(super) behind: bool,
}

impl State {
    /// The claimant is to be looked at.
    pub(super) fn touch(&mut self, id: &Id) {
        if let Some(claimant) = self.cluster.claimants.get(id) {
            let turn = (claimant.created(), id.clone());
            self.agenda.add(turn, self.cluster.is_ending(claimant));
        }
    }

    pub(super) fn touch_owner(&mut self, owner: &Owner) {
        self.touch(&Id::from(owner));
    }

    /// All who hold the address, or will.
    pub(super) fn touch_holders(&mut self, address: IpAddr) {
        let claim = self.cluster.ledger.claim(address).into_iter();
        let owners: Vec<Owner> = claim.flat_map(|claim| claim.owners()).cloned().collect();
        owners.iter().for_each(|owner| self.touch_owner(owner));
    }

    /// The EipBindings that serve these machines. Of the others nothing depends on a machine.
    pub(super) fn touch_machines(&mut self, machines: &BTreeSet<NamespacedName>) {
        for vmi in machines {
            if let Some(first) = self.cluster.lines.first(vmi).cloned() {
                self.touch(&Id::eip(&first));
            }
        }
    }

    /// Those that have come to serve a machine since this was last asked, or do so no more.
    pub(super) fn touch_first(&mut self) {
        let news = self.cluster.lines.take_news();
        news.iter().for_each(|key| self.touch(&Id::eip(key)));
    }

    /// Those of the machines for which the claim of an address that they show is news.
    pub(super) fn touch_showing(&mut self, address: IpAddr) {
        let showing = self.cluster.machines.showing(address);
        let concerned = showing.into_iter().flat_map(|showing| showing.concerned());
        let concerned = concerned.cloned().collect();
        self.touch_machines(&concerned);
    }

    /// Takes in which addresses the status of a Service shows. None of an EipBinding: nobody is led there by it.
    pub(super) fn show(&mut self, owner: &Owner, claimant: &Claimant) {
        let Claimant::Service(service) = claimant else { return };
        if self.cluster.ledger.show(owner, service.published.iter().copied()) {
            self.agenda.retry();
        }
    }

    /// The object is gone, and with it what its status showed; with a uid, only if it is that one.
    pub(super) fn hide(&mut self, id: &Id, uid: Option<&str>) {
        if self.cluster.ledger.hide(&id.owner(), uid) {
            self.agenda.retry();
        }
    }

    /// Takes back what never came to be in a claim.
    pub(super) fn abandon(&mut self, address: IpAddr, owner: &Owner) {
        self.claiming.pending.remove(address, owner);
        if self.cluster.forget(owner, address) {
            self.agenda.retry();
        }
    }

    /// The holder of a claim is not to be seen.
    pub(super) fn loosen(&mut self, address: IpAddr, owner: Owner, now: Duration) {
        let patient = self.departures.loosen(address, owner, now);
        self.agenda.at(patient, Object::Claim(address));
    }
}
