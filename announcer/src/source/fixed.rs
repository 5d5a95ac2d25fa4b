//! Addresses by the operator's word: what every member wants, from the start to the end. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use super::placement::{place_anywhere, place_on};
use super::scene::Scene;
use crate::vip::{Claimant, Serving, Traffic, Want};

/// Addresses that the settings name.
#[derive(Clone, Debug, Default)]
pub struct Fixed {
    /// For whom.
    pub by: Claimant,
    /// The interface of the addresses; none for that of the default route.
    pub interface: Option<String>,
    /// The addresses, in their order.
    pub addresses: Vec<IpAddr>,
    /// What all nodes have in common that may have them: by it they know each other's probes.
    pub mark: String,
}

/// What the operator wants of each address. No port of it is guarded: whatever listens on this node answers.
pub fn wants<'a>(scene: Scene<'a>, fixed: &'a Fixed) -> impl Iterator<Item = (IpAddr, Want)> + 'a {
    fixed.addresses.iter().map(move |address| {
        // What routers lead here is where all of that is.
        let attach = match scene.routed {
            Some(routed) => place_anywhere(scene, Some(routed), *address),
            None => place_on(scene, fixed.interface.as_deref(), *address),
        };
        let want = Want {
            claimant: fixed.by.clone(),
            uid: fixed.mark.clone(),
            created: String::new(),
            leads_to: None,
            // Who listens there is not asked.
            serving: Arc::new(Serving::of(Traffic::Anyhow)),
            preferred: Arc::default(),
            previous: None,
            epoch: 0,
            routed: scene.routed.is_some(),
            attach,
            ports: [].into(),
            conflicts: false,
            in_use: false,
        };
        (*address, want)
    })
}
