//! What an `EipBinding` means on this node. Pure.
//!
//! An elastic IP is an address whose only candidate is the node that `status.node` names, bound and announced as those
//! of Services are. Besides, its node translates: from before it asks for the address until some time after it released it.
//!
//! | file | owns |
//! |---|---|
//! | `usage` | which elastic IPs are in use |
//! | `translate` | what this node translates, and until when |

mod translate;
mod usage;

use std::net::IpAddr;
use std::sync::Arc;

pub use translate::Translations;
pub use usage::Usage;

use super::cluster::Eip;
use super::placement::place_anywhere;
use super::scene::Scene;
use crate::vip::{Candidates, Claimant, Name, Want};

/// What a binding wants of each of its addresses.
pub fn wants<'a>(
    scene: Scene<'a>,
    name: &'a Name,
    eip: &'a Eip,
    usage: &'a Usage,
) -> impl Iterator<Item = (IpAddr, Want)> + 'a {
    let held = |address: &IpAddr| scene.cluster.claims.grant(address, &eip.uid);
    eip.pairs.iter().filter(move |(address, _)| held(address)).map(move |(address, vmi)| {
        let want = Want {
            claimant: Claimant::Eip(name.clone()),
            uid: eip.uid.clone(),
            created: eip.created.clone(),
            leads_to: Some(*vmi),
            candidates: match eip.owner() {
                Some(owner) => Candidates::Named(owner.to_owned()),
                None => Candidates::none(),
            },
            preferred: Arc::default(),
            previous: eip.holder.as_ref().map(|holder| holder.node.clone()),
            attach: place_anywhere(scene, *address),
            ports: [].into(),
            conflicts: eip.conflicts.of(address).is_some(),
            in_use: usage.has(address),
        };
        (*address, want)
    })
}
