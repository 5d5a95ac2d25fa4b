//! What must hold in each state, and after everything that was begun is finished.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use berth_index::binding::Binding;
use berth_index::claim::Holder;

use crate::controller::Controller;
use crate::world::{Faults, Step, World};

impl World {
    /// What holds in every state: nothing is answered for that is not claimed, and what a controller wrote into a
    /// Service is never somebody else's.
    pub(crate) fn check(&self) -> Result<(), String> {
        for claim in self.cluster.claims.values() {
            let ports = |holder: &Holder| {
                holder.sharing.as_ref().map(|sharing| sharing.ports.clone()).unwrap_or_default()
            };
            let mut all: Vec<_> = claim.holders.iter().flat_map(ports).collect();
            all.sort_unstable();
            let alone = claim.holders.len() == 1;
            if !alone
                && (all.len() != claim.holders.len() || all.windows(2).any(|two| two[0] == two[1]))
            {
                return Err(format!("{claim:?} is shared by some who do not fit together"));
            }
        }
        for service in self.cluster.services.values() {
            let owner = service.owner();
            for address in &service.published {
                match self.cluster.claims.get(address) {
                    Some(claim) if claim.holder(&owner).is_some() => {}
                    other => {
                        return Err(format!(
                            "{address} is answered for by {owner} and claimed by {other:?}"
                        ));
                    }
                }
            }
            for address in
                service.annotation().addresses().filter(|_| service.labelled && !service.deleting)
            {
                if let Some(claim) =
                    self.cluster.claims.get(&address).filter(|claim| claim.holder(&owner).is_none())
                {
                    return Err(format!(
                        "{address} is written to {owner} and claimed by {claim:?}"
                    ));
                }
            }
        }
        for (uid, (key, addresses)) in &self.answers {
            for address in addresses {
                let claim = self.cluster.claims.get(address);
                let is_theirs = |holder: &Holder| holder.owner.uid == *uid;
                if !claim.is_some_and(|claim| claim.holders.iter().any(is_theirs)) {
                    return Err(format!(
                        "{address} is answered for by {key} and claimed by {claim:?}"
                    ));
                }
            }
        }
        for binding in self.cluster.bindings.values().filter(|binding| !binding.deleting) {
            let owner = binding.owner();
            let claims = binding.eips.iter().filter_map(|eip| self.cluster.claims.get(eip));
            if let Some(claim) = claims.into_iter().find(|claim| claim.holder(&owner).is_none()) {
                return Err(format!("{:?} of {owner} is claimed by {claim:?}", binding.eips));
            }
        }
        Ok(())
    }

    /// Everything that was begun is finished, without further faults; then all must be well.
    pub(crate) fn heal(mut self) -> Result<(), String> {
        self.faults = Faults::default();
        for _ in 0..400 {
            // A user who waits for a deletion, and time, come last.
            let steps = self.steps();
            let Some(step) =
                steps.iter().find(|step| !matches!(step, Step::User(_))).or(steps.first())
            else {
                if !self.pass_time() {
                    return self.is_well();
                }
                continue;
            };
            self.take(step);
            self.check()?;
        }
        Err(format!("it never comes to rest: {:?}", self.steps()))
    }

    fn pass_time(&mut self) -> bool {
        let deadlines =
            self.controllers.iter().filter_map(|controller| controller.index.deadline());
        let Some(next) = deadlines.min() else { return false };
        // Whatever waits, waits for less than this.
        let progress =
            next <= self.now + Duration::from_secs(30) && self.now < Duration::from_secs(300);
        self.now = next.max(self.now);
        for controller in self.controllers.iter_mut().map(Controller::edit) {
            // A deadline that passes without a write is over.
            if controller.index.clone().poll(self.now, 32).is_empty() {
                controller.index.poll(self.now, 32);
            }
        }
        progress
    }

    fn is_well(&self) -> Result<(), String> {
        let mut holders: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
        for service in self.cluster.services.values().filter(|service| !service.deleting) {
            let claimed: Vec<IpAddr> = self
                .cluster
                .claims
                .values()
                .filter(|claim| claim.holder(&service.owner()).is_some())
                .map(|claim| claim.address)
                .collect();
            let listed: Vec<IpAddr> = service.annotation().addresses().collect();
            if listed != claimed || claimed.len() != 1 {
                let refused = claimed.is_empty() && !service.conditions.is_empty();
                if !refused {
                    return Err(format!("{} lists {listed:?} and holds {claimed:?}", service.key));
                }
            }
            claimed
                .into_iter()
                .for_each(|address| holders.entry(address).or_default().push(service.uid.clone()));
        }
        for binding in self.cluster.bindings.values().filter(|binding| !binding.deleting) {
            let claims = self.cluster.claims.values();
            let claimed = claims.filter(|claim| claim.holder(&binding.owner()).is_some());
            let claimed: Vec<IpAddr> = claimed.map(|claim| claim.address).collect();
            let is_refused = claimed.is_empty() && !binding.conditions.is_empty();
            if binding.eips != claimed || claimed.len() != 1 && !is_refused {
                let Binding { key, eips, .. } = binding;
                return Err(format!("{key} lists {eips:?} and holds {claimed:?}"));
            }
            for address in claimed {
                holders.entry(address).or_default().push(binding.uid.clone());
            }
        }
        match self.cluster.claims.values().find(|claim| {
            let expected = holders.get(&claim.address);
            claim
                .holders
                .iter()
                .any(|holder| !expected.is_some_and(|uids| uids.contains(&holder.owner.uid)))
        }) {
            Some(leak) => Err(format!("a leak: {leak:?}")),
            None => Ok(()),
        }
    }
}
