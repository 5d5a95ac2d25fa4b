//! What is told of Services that members have nothing to say in: another announcer holds the Lease that decides on them, or
//! nobody does yet. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

use berth_api::{Few, Quoted};
use berth_membership::NodeId;

use super::super::context::Context;
use super::holdings::Holdings;
use super::rival::Rivalry;
use crate::vip::{Claim, Name, Refusal, Verdict, Voice};

/// What becomes of the Services that are left to whoever holds another Lease, as far as this node can tell: one live node says
/// so, and each where no majority answers, as before the first view. While it announces them there is only something to be
/// taken back, which anybody may.
pub(super) fn verdicts(
    context: Context<'_>,
    rivalry: &Rivalry,
    holdings: &Holdings,
    now: Instant,
) -> BTreeMap<Name, Verdict> {
    let services = context.wanted.services.iter();
    let left = services.filter(|(name, claim)| claim.ours && rivalry.barred().reports(name));
    let told = left.filter_map(|(name, claim)| {
        let (lease, holder) = rivalry.decides(name, claim, now)?;
        let speaks = holdings.speaks_for(name, None, now);
        let tells = (speaks || !holdings.is_clear()) && is_unheard(context.node, claim, holdings);
        let refusal =
            || Refusal::LeftToLease { lease: lease.to_string(), holder: Quoted::of(holder) };
        let voice = if speaks { Voice::Decides } else { Voice::Bystander };
        let refusals = tells.then(refusal).into_iter().collect();
        Some((name.clone(), Verdict { refusals, left: true, voice, ..Verdict::default() }))
    });
    told.collect()
}

/// Whether none of the others is said to have it: who is a member is none of them.
fn is_unheard(me: &str, claim: &Claim, holdings: &Holdings) -> bool {
    claim.host.as_deref().is_none_or(|host| host == me || holdings.is_live(NodeId::of(host)))
}

/// While members wait for the Lease by which others decide, nobody decides on any Service.
pub(super) fn waiting(
    context: Context<'_>,
    rivalry: &Rivalry,
    holdings: &Holdings,
    now: Instant,
) -> BTreeMap<Name, Verdict> {
    let Some(lease) = rivalry.waits_for(now).filter(|_| context.known) else {
        return BTreeMap::new();
    };
    let services = context.wanted.services.iter().filter(|(_, claim)| claim.ours);
    let told = services.map(|(name, _)| {
        let unheard = match holdings.is_clear() {
            true => Few::default(),
            false => holdings.unheard(),
        };
        let (node, lease) = (context.node.to_owned(), lease.to_string());
        let refusals = vec![Refusal::MembersWait { node, lease, unheard }];
        (name.clone(), Verdict { refusals, voice: Voice::Bystander, ..Verdict::default() })
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use berth_api::election::Held;
    use berth_api::names::lease::MEMBERS;

    use super::super::exchange::MembershipEvent;
    use super::*;
    use crate::ownership::testing::context;
    use crate::source::cluster::testing::{service, slice};
    use crate::source::cluster::{Cluster, Service};
    use crate::source::testing::{host, seen};

    const NODES: [&str; 3] = ["a", "b", "c"];

    fn web() -> Name {
        Name::new("d", "web")
    }

    fn all() -> Name {
        Name::new("kube-system", "plndr-svcs-lock")
    }

    fn held(identity: &str) -> Held {
        let (identity, duration) = (identity.to_owned(), Some(Duration::from_secs(15)));
        Held::By { identity, version: Some("1".to_owned()), duration }
    }

    /// What each node says of a Service that names `named`, where these are alive by a majority and the Lease of all is held
    /// like this: by what right, and with which reason.
    fn said(live: &[&str], lease: &Held, named: Option<&str>) -> Vec<(Voice, &'static str)> {
        let mut cluster = Cluster::default();
        let vip_host = named.map(str::to_owned);
        cluster.apply_service(web(), Service { vip_host, ..service(&["192.0.2.1"]) });
        slice(&mut cluster, "web", "s", &["a"]);
        let (host, now) = (host(), Instant::now());
        let wanted = seen(&cluster, &host, Some("eth0"));
        let of_node = |node: &str| {
            let mut rivalry = Rivalry::new(Some(all()));
            rivalry.observe(&all(), lease, now);
            rivalry.listed();
            rivalry.services_listed(&BTreeSet::new());
            rivalry.find(&wanted, |_| false, now);
            let mut holdings = Holdings::new(NodeId::of(node), true, now);
            let live = live.iter().map(|node| NodeId::of(node)).collect();
            holdings.take(&MembershipEvent::Live(live), now);
            let context = Context { node, ..context(&wanted, &host) };
            let settled = now + Duration::from_secs(5);
            let mut said = verdicts(context, &rivalry, &holdings, settled);
            said.extend(waiting(context, &rivalry, &holdings, settled));
            let verdict = said.remove(&web())?;
            assert_eq!(verdict.left, *lease != Held::Nobody && *lease != held(MEMBERS));
            Some((verdict.voice, verdict.refusals.first().map_or("", Refusal::reason)))
        };
        NODES.into_iter().filter_map(of_node).collect()
    }

    #[test]
    fn beside_a_stranger_each_member_knows_it_before_there_is_a_majority_and_one_says_so_after() {
        let stranger = held("kube-vip-1");
        let each = [(Voice::Bystander, "LeftToLease"); 3];
        assert_eq!(said(&[], &stranger, None), each, "the first installation");
        for named in [None, Some("b")] {
            let mut said = said(&NODES, &stranger, named);
            said.sort_by_key(|(voice, _)| *voice != Voice::Decides);
            let rest = (Voice::Bystander, "");
            assert_eq!(said, [(Voice::Decides, "LeftToLease"), rest, rest], "{named:?}");
        }
    }

    #[test]
    fn of_what_another_announcer_has_nobody_says_that_it_is_not_announced() {
        let stranger = held("kube-vip-1");
        for live in [&[][..], &NODES] {
            let said = said(live, &stranger, Some("control-plane-1"));
            assert_eq!((said.len(), said.iter().all(|(_, reason)| reason.is_empty())), (3, true));
        }
    }

    #[test]
    fn what_is_free_or_the_members_is_left_to_nobody() {
        assert_eq!(said(&[], &Held::Nobody, None), [(Voice::Bystander, "MembersWait"); 3]);
        assert!(said(&NODES, &held(MEMBERS), None).is_empty());
    }
}
