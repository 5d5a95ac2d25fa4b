//! What two speakers agree on once each has the other's OPEN (RFC 4271 §4.2, §6.2; RFC 5492).

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::parameters::{NextHops, Parameters, Restart};
use crate::prefix::Family;
use crate::wire::{Capabilities, GracefulRestart, Notification, Open, Path};

/// RFC 9687 §3.2.
const LEAST_SEND_HOLD: Duration = Duration::from_secs(8 * 60);

/// What this speaker has kept of an earlier session, if anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// This process has begun anew, and the peer may still have the routes of the one before.
    pub(super) restarting: bool,
    /// What is announced was forwarded all the time.
    pub(super) forwarded: bool,
}

/// The OPEN of this speaker.
pub(super) fn open(parameters: &Parameters, kept: Kept) -> Open {
    let families = &parameters.families;
    let restart = |restart: Restart| GracefulRestart {
        restarting: kept.restarting,
        notification: restart.notification,
        time: restart.time,
        families: families.iter().map(|family| (*family, kept.forwarded)).collect(),
    };
    // Without a restart of its own it says so all the same: it can tell when all routes are there (RFC 4724 §3).
    let restart = parameters.graceful_restart.map_or_else(GracefulRestart::default, restart);
    Open {
        asn: parameters.local_as,
        hold_time: parameters.hold_time,
        router_id: parameters.router_id,
        capabilities: Capabilities {
            families: Some(families.clone()),
            four_octet_as: true,
            route_refresh: true,
            extended_next_hop: parameters.extended_next_hop && families.contains(&Family::V4),
            graceful_restart: Some(restart),
        },
    }
}

/// What was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) peer_as: u32,
    pub(super) peer_id: Ipv4Addr,
    /// None where neither side gives the other up.
    pub(super) hold: Option<Duration>,
    pub(super) keepalive: Duration,
    pub(super) send_hold: Option<Duration>,
    /// Families that both speak.
    pub(super) families: BTreeSet<Family>,
    /// Families of these of which routes have somewhere to lead.
    pub(super) announced: BTreeSet<Family>,
    /// What the peer says of restarts.
    pub(super) peer_restart: Option<GracefulRestart>,
    /// Whether a peer keeps routes unless it is told by a hard reset (RFC 8538 §3).
    pub(super) survives_notifications: bool,
    pub(super) path: Path,
}

/// What this speaker and a peer agree on; or what the peer is told before the connection is closed.
pub(super) fn agree(
    parameters: &Parameters,
    next_hops: NextHops,
    peer: &Open,
) -> Result<Terms, Notification> {
    let Parameters { local_as, router_id, .. } = *parameters;
    if !parameters.remote_as.is(peer.asn, local_as) || peer.asn == 0 {
        return Err(Notification::new(2, 2, &[]));
    }
    let external = peer.asn != local_as;
    // RFC 6286 §2.1: within an AS an identifier is one speaker's.
    if peer.router_id.is_unspecified() || (!external && peer.router_id == router_id) {
        return Err(Notification::new(2, 3, &[]));
    }
    if matches!(peer.hold_time, 1 | 2) {
        return Err(Notification::new(2, 6, &[]));
    }
    let can = &peer.capabilities;
    let theirs = can.families.clone().unwrap_or_else(|| BTreeSet::from([Family::V4]));
    let families: BTreeSet<Family> = parameters.families.intersection(&theirs).copied().collect();
    if families.is_empty() {
        return Err(Notification::new(2, 7, &Open::wanted(&parameters.families)));
    }
    let path = Path {
        asn: local_as,
        external,
        four_octets: can.four_octet_as,
        v4: None,
        v6: vec![],
        extended: parameters.extended_next_hop && can.extended_next_hop,
    };
    let hold = Duration::from_secs(parameters.hold_time.min(peer.hold_time).into());
    let survives = |restart: &GracefulRestart| {
        restart.notification && parameters.graceful_restart.is_some_and(|own| own.notification)
    };
    let mut terms = Terms {
        peer_as: peer.asn,
        peer_id: peer.router_id,
        hold: (!hold.is_zero()).then_some(hold),
        keepalive: keepalive(parameters, hold),
        send_hold: (!hold.is_zero())
            .then(|| parameters.send_hold.unwrap_or_else(|| LEAST_SEND_HOLD.max(hold * 2))),
        families,
        announced: BTreeSet::new(),
        survives_notifications: can.graceful_restart.as_ref().is_some_and(survives),
        peer_restart: can.graceful_restart.clone(),
        path,
    };
    terms.lead(next_hops);
    Ok(terms)
}

/// How long this speaker is silent at most, where the peer is given up after `hold`.
pub(super) fn keepalive(parameters: &Parameters, hold: Duration) -> Duration {
    let own = parameters.keepalive.map(|seconds| Duration::from_secs(seconds.max(1).into()));
    own.map_or(hold / 3, |own| own.min(hold / 3))
}

impl Terms {
    /// From now on routes lead to these addresses. Tells the families of which they lead elsewhere than before.
    pub(super) fn lead(&mut self, next_hops: NextHops) -> BTreeSet<Family> {
        let v6 = next_hops.v6.into_iter().chain(next_hops.link_local).collect();
        let path = Path { v4: next_hops.v4, v6, ..self.path.clone() };
        let leads = |family: &Family| path.leads(*family);
        self.announced = self.families.iter().copied().filter(leads).collect();
        let moves = |family: &Family| way(&path, *family) != way(&self.path, *family);
        let moved = self.families.iter().copied().filter(moves).collect();
        // What goes for want of a next hop is withdrawn in the form in which it was told.
        let form = self.path.v4.filter(|_| !path.leads(Family::V4));
        self.path = Path { v4: path.v4.or(form), ..path };
        moved
    }
}

/// Where routes of a family lead.
fn way(path: &Path, family: Family) -> (Option<Ipv4Addr>, &[Ipv6Addr]) {
    match path.v4 {
        Some(own) if family == Family::V4 => (Some(own), &[]),
        None if family == Family::V4 && !path.extended => (None, &[]),
        _ => (None, &path.v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::parameters::RemoteAs;

    const OWN: u32 = 65000;

    fn parameters() -> Parameters {
        let graceful_restart = Some(Restart { notification: true, ..Restart::default() });
        let id = Ipv4Addr::new(192, 0, 2, 11);
        Parameters { graceful_restart, ..Parameters::new(OWN, RemoteAs::Is(65001), id) }
    }

    fn next_hops() -> NextHops {
        NextHops { v4: Some(Ipv4Addr::new(192, 0, 2, 11)), ..NextHops::default() }
    }

    fn peer() -> Open {
        let id = Ipv4Addr::new(192, 0, 2, 1);
        let parameters = Parameters {
            local_as: 65001,
            remote_as: RemoteAs::External,
            router_id: id,
            ..parameters()
        };
        open(&parameters, Kept::default())
    }

    fn refused(parameters: &Parameters, peer: &Open) -> (u8, u8) {
        let notification = agree(parameters, next_hops(), peer).expect_err("it is refused");
        (notification.code, notification.subcode)
    }

    #[test]
    fn what_both_can_is_agreed_on() {
        let terms = agree(&parameters(), next_hops(), &Open { hold_time: 30, ..peer() }).unwrap();
        assert_eq!(terms.hold, Some(Duration::from_secs(30)));
        assert_eq!(terms.keepalive, Duration::from_secs(10));
        assert_eq!(terms.send_hold, Some(LEAST_SEND_HOLD));
        assert_eq!(terms.families, BTreeSet::from(Family::ALL));
        assert_eq!(terms.announced, BTreeSet::from([Family::V4]), "there is no next hop for IPv6");
        assert!(terms.path.external && terms.survives_notifications);
        let forever = agree(&parameters(), next_hops(), &Open { hold_time: 0, ..peer() }).unwrap();
        assert_eq!((forever.hold, forever.send_hold), (None, None));
    }

    #[test]
    fn a_peer_without_capabilities_speaks_ipv4() {
        let old = Open { capabilities: Capabilities::default(), ..peer() };
        let terms = agree(&parameters(), next_hops(), &old).unwrap();
        assert_eq!(terms.families, BTreeSet::from([Family::V4]));
        assert!(
            !terms.path.four_octets
                && !terms.survives_notifications
                && terms.peer_restart.is_none()
        );
        let v6 = Parameters { families: BTreeSet::from([Family::V6]), ..parameters() };
        let notification = agree(&v6, next_hops(), &old).unwrap_err();
        assert_eq!((notification.code, notification.subcode), (2, 7));
        assert_eq!(notification.data, [1, 4, 0, 2, 0, 1], "what it would have to speak");
    }

    #[test]
    fn a_peer_that_is_another_one_is_refused() {
        assert_eq!(refused(&parameters(), &Open { asn: 65002, ..peer() }), (2, 2));
        let any = Parameters { remote_as: RemoteAs::External, ..parameters() };
        assert_eq!(refused(&any, &Open { asn: OWN, ..peer() }), (2, 2));
        assert_eq!(refused(&any, &Open { asn: 0, ..peer() }), (2, 2));
        let own = Parameters { remote_as: RemoteAs::Internal, ..parameters() };
        assert_eq!(refused(&own, &peer()), (2, 2));
        let nobody = Open { router_id: Ipv4Addr::UNSPECIFIED, ..peer() };
        assert_eq!(refused(&parameters(), &nobody), (2, 3));
        let twin = Open { asn: OWN, router_id: own.router_id, ..peer() };
        assert_eq!(refused(&own, &twin), (2, 3));
        let namesake = Open { router_id: own.router_id, ..peer() };
        assert!(agree(&parameters(), next_hops(), &namesake).is_ok(), "of another AS it may");
        assert_eq!(refused(&parameters(), &Open { hold_time: 2, ..peer() }), (2, 6));
    }

    #[test]
    fn a_restart_is_told_while_there_is_one_and_what_was_forwarded_where_it_was() {
        let told = |parameters: &Parameters, kept| {
            open(parameters, kept).capabilities.graceful_restart.unwrap()
        };
        let fresh = told(&parameters(), Kept::default());
        assert!(!fresh.restarting && fresh.families.values().all(|forwarded| !forwarded));
        let again = told(&parameters(), Kept { restarting: true, forwarded: true });
        assert!(again.restarting && again.families.values().all(|forwarded| *forwarded));
        let without = Parameters { graceful_restart: None, ..parameters() };
        assert_eq!(
            told(&without, Kept { restarting: true, forwarded: true }),
            GracefulRestart::default()
        );
    }
}
