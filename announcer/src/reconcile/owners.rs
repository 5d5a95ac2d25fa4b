//! Who decides on which addresses, by the settings. Pure.

use std::time::{Duration, Instant};

use crate::config::{Cluster, Config, Election};
use crate::ownership::leases::Strategy;
use crate::ownership::{Announcing, ControlPlane, Everyone, Leases, Members, Named, Ownership};
use crate::vip::Name;

/// How long it takes until the others know what a node has found out of its API server.
const TOLD: Duration = Duration::from_secs(1);

/// Who decides on owners: `members` where this node is one, else the Leases that are configured, or nobody.
pub fn owners(config: &Config, members: Option<Members>, now: Instant) -> Vec<Ownership> {
    let mut owners = on_lan(config, members, now);
    owners.extend(config.bgp.as_ref().map(|_| Ownership::Everyone(Box::new(everyone(config)))));
    owners
}

/// Who decides on what routers are told.
fn everyone(config: &Config) -> Everyone {
    let is_apart = config.control_plane.as_ref().is_some_and(|own| own.health.url.is_some());
    let announcing = control_plane(config).map(|own| Announcing::new(own, is_apart));
    Everyone::default().with_control_plane(announcing)
}

/// Who decides on what neighbours are told of.
fn on_lan(config: &Config, members: Option<Members>, now: Instant) -> Vec<Ownership> {
    // Where routers are told, they are told of it.
    let control_plane = control_plane(config).filter(|_| config.bgp.is_none());
    let (timing, annotations) = (config.leases.timing, config.leases.annotations.clone());
    let of_services = |strategy| Leases::new(&config.core.node, strategy, timing, annotations);
    let leases = match (&config.election, members) {
        (_, Some(members)) => return vec![Ownership::Membership(Box::new(members))],
        (Election::Global { namespace, name }, None) => {
            of_services(Strategy::Global(Name::new(namespace, name)))
        }
        (Election::Everyone, None) => return Vec::new(),
        (Election::PerService | Election::Membership(_), None) => of_services(Strategy::PerService),
        (Election::Nothing, None) => of_services(Strategy::PerService).without_services(),
    };
    let leases = leases.with_control_plane(control_plane);
    vec![Ownership::Leases(Box::new(leases)), Ownership::Named(Named::new(timing, now))]
}

fn control_plane(config: &Config) -> Option<ControlPlane> {
    let health = &config.control_plane.as_ref()?.health;
    let settling = health.period + health.timeout * health.failures + TOLD;
    Some(ControlPlane::new(lease_of_control_plane(config)?, settling))
}

/// The Lease that decides on the control plane's address, where that is asked for.
pub fn lease_of_control_plane(config: &Config) -> Option<Name> {
    let (Cluster::Api(api), Some(own)) = (&config.cluster, &config.control_plane) else {
        return None;
    };
    Some(Name::new(&api.namespace, &own.lease))
}
