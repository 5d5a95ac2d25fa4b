//! The control plane's addresses, which one Lease decides on.

use super::*;
use crate::kernel::{Foreign, Host};
use crate::ownership::health::Standing;
use crate::source::eip::Usage;
use crate::source::fixed::Fixed;
use crate::source::testing::scene;
use crate::source::wanted::wanted;
use crate::vip::Claimant;

/// A control plane of two addresses, as this node sees it, beside nothing else.
fn of_control_plane(host: &Host) -> Wanted {
    let cluster = Cluster::default();
    let addresses = ["192.0.2.100", "2001:db8::100"].map(|own| own.parse().unwrap());
    let (by, interface) = (Claimant::ControlPlane, Some("eth0".to_owned()));
    let fixed = Fixed { by, interface, addresses: addresses.into(), ..Fixed::default() };
    wanted(scene(&cluster, host, Some("eth0")), &Usage::default(), &fixed)
}

/// A host with `eth0`, which has an address of its own of each family.
fn with_own() -> Host {
    let mut host = host();
    let own = ["192.0.2.5", "2001:db8::5"].map(|own| own.parse().unwrap());
    let foreign = own.map(|own| (own, Foreign { prefix_len: 64, ..Foreign::default() }));
    host.interfaces.get_mut("eth0").unwrap().foreign = foreign.into();
    host
}

fn cp_lock() -> Name {
    Name::new("kube-system", "plndr-cp-lock")
}

#[test]
fn the_control_planes_addresses_have_one_owner_who_is_healthy_and_gives_them_back() {
    let (host, now) = (with_own(), Instant::now());
    let wanted = of_control_plane(&host);
    let context = context(&wanted, &host);
    let leases = Leases::new("a", Strategy::PerService, Timing::DEFAULT, BTreeMap::new());
    let mut leases = leases
        .without_services()
        .with_control_plane(Some(ControlPlane::new(cp_lock(), Duration::ZERO)));
    leases.observe(cp_lock(), Sight::Absent, now);
    let turn = |leases: &mut Leases| {
        leases.look(now);
        leases.request(context);
        leases.settle(false, &BTreeSet::new(), true, now);
        leases.poll(now).0
    };
    assert_eq!(turn(&mut leases), [], "its API server is not ready");
    leases.control_plane().unwrap().stands(Standing::Healthy, now);
    let asked = turn(&mut leases);
    let [(name, Request::Elect(Action::Create(lease)))] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(*name, cp_lock());
    let mut written = lease.clone();
    written.metadata.resource_version = Some("1".to_owned());
    leases.replied(&cp_lock(), Reply::Written(written), now);
    turn(&mut leases);
    let held: Vec<String> = leases.holds(context, now).keys().map(ToString::to_string).collect();
    assert_eq!(held, ["192.0.2.100", "2001:db8::100"]);
    assert!(leases.is_first(&wanted, &"192.0.2.100".parse().unwrap()), "the LAN is asked");
    let own = leases.control_plane().unwrap();
    own.stands(Standing::Unhealthy, now);
    turn(&mut leases);
    assert_eq!(leases.holds(context, now).len(), 2, "nobody says that it is healthier");
    let own = leases.control_plane().unwrap();
    own.hear("b".to_owned(), Some((true, "1".to_owned())), now);
    let asked = turn(&mut leases);
    let [(_, Request::Elect(Action::Replace(lease)))] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(lease.spec.as_ref().unwrap().holder_identity, None);
    assert!(leases.holds(context, now).is_empty());
}

#[test]
fn a_node_without_a_place_for_them_does_not_strive_for_the_control_planes_lease() {
    let now = Instant::now();
    for (host, count) in [(with_own(), 1), (host(), 0), (Host::default(), 0)] {
        let wanted = of_control_plane(&host);
        let context = context(&wanted, &host);
        let leases = Leases::new("a", Strategy::PerService, Timing::DEFAULT, BTreeMap::new());
        let mut leases = leases
            .without_services()
            .with_control_plane(Some(ControlPlane::new(cp_lock(), Duration::ZERO)));
        leases.observe(cp_lock(), Sight::Absent, now);
        leases.control_plane().unwrap().stands(Standing::Healthy, now);
        leases.request(context);
        assert_eq!(leases.strives.len(), count);
    }
}
