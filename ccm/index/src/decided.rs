//! Owns what the status of an EipBinding is to say, as a value: addresses, node, epoch and conditions.

use std::borrow::Cow;
use std::net::IpAddr;

use berth_api::{eip, reason};

use super::liveness::{GONE, Life, Liveness};
use crate::binding::{Binding, Decided, Stated};
use crate::placement::{Place, Unplaced};
use crate::write::Verdict;

/// So much of an announcer's message and reason is taken over, in characters.
const MOST_TOLD: usize = 2_048;
const MOST_NAMED: usize = 64;

/// All that the status is to say. What is not known about the machine stays as it is.
pub(super) fn decided(
    binding: &Binding,
    eips: &[IpAddr],
    allocated: Verdict,
    place: Option<&Result<Place, Unplaced>>,
    liveness: &Liveness,
) -> Decided {
    let unplaced = place.and_then(|place| place.as_ref().err());
    let why = unplaced.map(|unplaced| (unplaced.reason(), unplaced.to_string()));
    let named = match place {
        _ if eips.is_empty() => Named::default(),
        Some(Ok(Place { node, target, addresses })) => {
            Named { node: Some(node.clone()), target: target.clone(), vmi_ips: addresses.clone() }
        }
        Some(Err(_)) => Named::default(),
        None => Named {
            node: binding.node.clone(),
            target: binding.target.clone(),
            vmi_ips: binding.vmi_ips.clone(),
        },
    };
    finish(binding, eips, named, allocated, why, liveness)
}

/// Who is to do what for it.
#[derive(Default)]
struct Named {
    node: Option<String>,
    target: Option<String>,
    vmi_ips: Vec<IpAddr>,
}

/// The same for one whose addresses nobody is to answer for any longer.
pub(super) fn leaving(
    binding: &Binding,
    eips: &[IpAddr],
    allocated: Verdict,
    liveness: &Liveness,
) -> Decided {
    let why = match binding.deleting {
        true => (reason::RELEASING, "it is being deleted".to_owned()),
        false => (reason::VMI_NOT_RUNNING, "its machine does not run".to_owned()),
    };
    finish(binding, eips, Named::default(), allocated, Some(why), liveness)
}

/// Counts the epoch and concludes how it stands. `why` is the reason for which there is no node.
fn finish(
    binding: &Binding,
    eips: &[IpAddr],
    Named { node, target, vmi_ips }: Named,
    allocated: Verdict,
    why: Option<(&'static str, String)>,
    liveness: &Liveness,
) -> Decided {
    let stated = |kind, holds, reason, message| {
        let shown = binding.condition(kind).filter(|shown| (shown.status == "True") == holds);
        let since = shown.map(|shown| shown.last_transition_time.0);
        Stated { kind, holds, reason: Cow::Borrowed(reason), message, since }
    };
    let Verdict { allocated: holds, reason, message } = allocated;
    let allocated = stated(eip::condition::ALLOCATED, holds, reason, message);
    let ready = |holds, reason, message| stated(eip::condition::READY, holds, reason, message);
    let mut decided = Decided {
        eips: eips.to_vec(),
        node,
        target,
        vmi_ips,
        epoch: None,
        generation: binding.generation,
        conditions: [allocated, ready(false, reason::NOT_ALLOCATED, String::new())],
    };
    decided.epoch = binding.next_epoch(&decided);
    let is_told = decided.epoch == binding.epoch && decided.node == binding.node;
    let unanswered = binding.unanswered().filter(|_| is_told);
    let is_held = binding.holder.as_ref().is_some_and(|holder| {
        Some(&holder.node) == decided.node.as_ref() && Some(holder.epoch) == decided.epoch
    });
    decided.conditions[1] = match (&decided.node, why) {
        (_, Some((reason, message))) => ready(false, reason, message),
        (_, None) if decided.eips.is_empty() || !holds => ready(
            false,
            reason::NOT_ALLOCATED,
            "it has no address; the condition Allocated says why".to_owned(),
        ),
        (Some(node), None) if is_gone(binding, node, liveness) => {
            let seconds = GONE.as_secs();
            let message =
                format!("the announcer of node {node} has not renewed its Lease for {seconds} s");
            ready(false, reason::NO_ANNOUNCER, message)
        }
        (Some(node), None) => match unanswered {
            Some(told) => {
                let message = told.message.chars().take(MOST_TOLD).collect();
                let reason = Cow::Owned(told.reason.chars().take(MOST_NAMED).collect());
                Stated { reason, ..ready(false, reason::AWAITING_NODE, message) }
            }
            None if is_held => ready(true, reason::HELD, format!("node {node} answers for it")),
            None => {
                let message = format!("node {node} does not answer for it yet");
                ready(false, reason::AWAITING_NODE, message)
            }
        },
        (None, None) => {
            ready(false, reason::VMI_NOT_FOUND, "no virtual machine was seen yet".to_owned())
        }
    };
    decided
}

/// Whether the announcer of the node is known to live no more. What was said of it stays until it has been heard for long
/// enough to speak for itself.
fn is_gone(binding: &Binding, node: &str, liveness: &Liveness) -> bool {
    let shown = binding.condition(eip::condition::READY);
    let is_told = || shown.is_some_and(|shown| shown.reason == reason::NO_ANNOUNCER);
    match liveness.of(node) {
        Life::Gone => true,
        Life::Waits => is_told() && binding.node.as_deref() == Some(node),
        Life::Untold | Life::Lives => false,
    }
}
