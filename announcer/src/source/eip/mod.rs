//! What an `EipBinding` means on this node. Pure.
//!
//! An elastic IP is an address whose only candidate is the node that `status.node` names, bound and announced as those
//! of Services are. Besides, its node translates: from before it asks for the address until some time after it released it.
//!
//! | file | owns |
//! |---|---|
//! | `guest` | where none leads |
//! | `usage` | which elastic IPs are in use |
//! | `translate` | what this node translates, and until when |

mod guest;
mod translate;
mod usage;

use std::net::IpAddr;
use std::sync::Arc;

pub use guest::Own;
pub use translate::Translations;
pub use usage::Usage;

use super::cluster::Eip;
use super::placement::place_anywhere;
use super::scene::Scene;
use crate::vip::{Claimant, Name, Refusal, Serving, Traffic, Want};

/// The addresses of a binding that it does not get on any node or on this one, whoever else wants them.
pub fn refused<'a>(
    scene: Scene<'a>,
    own: &'a Own<'a>,
    eip: &'a Eip,
) -> impl Iterator<Item = (IpAddr, Refusal)> + 'a {
    let refusal = move |address: IpAddr, vmi: IpAddr| {
        let is_held = scene.cluster.claims.grant(&address, &eip.uid);
        if is_held { own.objection(vmi) } else { Some(Refusal::NotClaimed { address }) }
    };
    eip.pairs.iter().filter_map(move |(address, vmi)| Some((*address, refusal(*address, *vmi)?)))
}

/// What a binding wants of each of its addresses.
pub fn wants<'a>(
    scene: Scene<'a>,
    name: &'a Name,
    eip: &'a Eip,
    usage: &'a Usage,
) -> impl Iterator<Item = (IpAddr, Want)> + 'a {
    let routed = scene.routed_of_eip(&name.namespace, eip);
    eip.pairs.iter().map(move |(address, vmi)| {
        let want = Want {
            claimant: Claimant::Eip(name.clone()),
            uid: eip.uid.clone(),
            created: eip.created.clone(),
            leads_to: Some(*vmi),
            serving: Arc::new(Serving::of(Traffic::Named(eip.owner().map(str::to_owned)))),
            preferred: Arc::default(),
            previous: eip.holder.as_ref().map(|holder| holder.node.clone()),
            epoch: eip.epoch,
            routed: routed.is_some(),
            attach: place_anywhere(scene, routed, *address),
            ports: [].into(),
            conflicts: eip.conflicts.of(address).is_some(),
            in_use: usage.has(address),
        };
        (*address, want)
    })
}
