//! Two thousand addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_fence::{BootTime, Kind, Options, open};

use crate::support::Namespace;

fn addresses() -> BTreeSet<IpAddr> {
    let v4 = (0..1000u32).map(|number| IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
    let v6 =
        (0..1000u128).map(|number| IpAddr::from((0x2001_0db8u128 << 96 | number).to_be_bytes()));
    v4.chain(v6).collect()
}

/// The shortest of twenty refreshes of all addresses: what the machine does besides is not what is asked.
fn refresh(strongest: Kind) -> Duration {
    Namespace::new().within(|| {
        let mut fence = open(&Options { strongest, ..Options::default() }).fence;
        assert_eq!(fence.kind(), strongest);
        let addresses = addresses();
        let start = Instant::now();
        fence.cover(&addresses).unwrap();
        println!("{strongest}: covering 2000 takes {:?}", start.elapsed());
        assert!(fence.settle().is_empty());
        let times = (0..20).map(|_| {
            let start = Instant::now();
            let deadline = BootTime::now().after(Duration::from_millis(350));
            addresses.iter().for_each(|&address| fence.arm(address, deadline).unwrap());
            fence.poll(BootTime::now().after(Duration::from_millis(40))).unwrap();
            start.elapsed()
        });
        let best = times.min().unwrap();
        println!("{strongest}: refreshing 2000 takes {best:?}");
        best
    })
}

#[test]
fn two_thousand_addresses_are_refreshed_in_a_fraction_of_a_heartbeat() {
    assert!(refresh(Kind::Bpf) < Duration::from_millis(5));
    assert!(refresh(Kind::NftTimeout) < Duration::from_millis(25));
}
