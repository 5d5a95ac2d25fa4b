//! What is to be translated for elastic IPs, and what is known of it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use super::lan::Lan;
use super::sight::Sight;
use crate::config::Config;
use crate::dataplane::Dataplane;
use crate::dataplane::eip::{Nat, Translation};
use crate::kernel;
use crate::source::cluster::Networks;
use crate::source::eip::Translations;
use crate::vip::{Family, Vip};

/// Nothing is translated before it is known what never is.
const AWAITS: &str = "the networks of pods and of Services are not known (spec.podCIDRs of all nodes and all ServiceCIDRs, or \
    berth_eip_internal_net)";
/// What its settings of elastic IPs are.
const UNSET: &str =
    "the announcer's settings of elastic IPs are not accepted: its /readyz says which";

/// What is to be translated for elastic IPs, and what is known of it.
#[derive(Default)]
pub(super) struct Elastic {
    pub(super) networks: Networks,
    translations: Translations,
    /// What the kernel translates.
    pub(super) translated: Nat,
    /// Why it does not do what is wanted.
    pub(super) broken: Option<String>,
    /// Why nothing of it was given to the kernel yet.
    pub(super) awaits: Option<&'static str>,
    /// Families for which settings of the host that are in the way were told.
    advised: Vec<Family>,
    /// Machines of which was told that they are neighbours.
    neighbours: BTreeSet<IpAddr>,
}

impl Elastic {
    /// Takes in what becomes of what is to be translated.
    pub(super) fn took(&mut self, translation: Translation) {
        match translation {
            Translation::Holds(nat) => (self.translated, self.broken) = (nat, None),
            Translation::Failed(error) => self.broken = Some(error),
        }
    }

    /// When something ends although nothing happens.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.translations.deadline(now)
    }

    /// Whether an address may be bound: bound before it is translated, the node itself would answer for it. What is bound
    /// stays when its translation is lost for a moment.
    pub(super) fn is_ready(&self, address: IpAddr, vip: &Vip, sight: &Sight) -> bool {
        let Some(vmi) = vip.leads_to() else { return true };
        self.translated.serves(&address, &vmi) || sight.host.has(&address)
    }

    /// Says what is to be translated, as soon as it is known what never is. What is to be asked for on the LAN waits for the
    /// answer. Gives elastic IPs that may lead to who cannot answer, each once for its machine, with why.
    pub(super) fn translate(
        &mut self,
        config: &Config,
        sight: &Sight,
        lan: &Lan,
        dataplane: &Dataplane,
        now: Instant,
    ) -> Vec<(IpAddr, String)> {
        let Some(eip) = &config.eip else {
            self.awaits = Some(UNSET);
            // What an earlier life has made goes.
            dataplane.eip.want(Some(Nat::default()));
            return Vec::new();
        };
        if !sight.listed.bindings {
            return Vec::new();
        }
        // By what routers lead here nobody on the LAN is known.
        let asks = config.arp_nd.probe && config.routed().is_none();
        let is_free = |eip: &IpAddr| !asks || sight.usage.has(eip) || lan.is_free(eip);
        self.translations.see(sight.scene(), &sight.wanted, is_free, now);
        let (pairs, parting) = (self.translations.pairs(now), self.translations.parting());
        let internal = match &eip.internal {
            // Nothing to translate: nothing to know.
            _ if pairs.is_empty() => Some([].into()),
            Some(given) => Some(given.clone()),
            None => self.networks.all(),
        };
        self.awaits = internal.is_none().then_some(AWAITS);
        let Some(internal) = internal else { return Vec::new() };
        let uplink = config.core.interface.clone().filter(|_| !pairs.is_empty());
        let gateways = match pairs.is_empty() {
            true => [].into(),
            false => eip.gateways.clone(),
        };
        let named = config.core.interface.as_deref();
        let uplink_of = |eip: &IpAddr| named.or_else(|| sight.host.default_for(*eip));
        for family in Family::ALL {
            let used = pairs.keys().find(|eip| Family::of(eip) == family);
            if let Some(eip) = used.filter(|_| !self.advised.contains(&family)) {
                self.advised.push(family);
                let found = uplink_of(eip).unwrap_or("all");
                let v4 = family == Family::V4;
                for advice in kernel::translation_advice(v4, found, kernel::sysctl::read) {
                    tracing::warn!("{advice}");
                }
            }
        }
        let mut told = Vec::new();
        let machines: BTreeSet<IpAddr> = pairs.values().map(|pair| pair.vmi).collect();
        self.neighbours.retain(|vmi| machines.contains(vmi));
        for (eip, pair) in &pairs {
            if !self.neighbours.contains(&pair.vmi)
                && let Some(found) = uplink_of(eip)
                && let Some(advice) =
                    kernel::neighbour_advice(&sight.host, &config.core.node, found, pair.vmi)
            {
                self.neighbours.insert(pair.vmi);
                told.push((*eip, advice));
            }
        }
        dataplane.eip.want(Some(Nat { pairs, parting, internal, uplink, gateways }));
        told
    }
}
