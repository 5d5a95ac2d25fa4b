//! What it costs to refresh the deadlines of many addresses, in a network namespace of its own. Needs root.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use berth_fence::{BootTime, Kind, Options, open};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nix::sched::{CloneFlags, unshare};

fn addresses(count: u32) -> BTreeSet<IpAddr> {
    (0..count).map(|number| IpAddr::from((0x0a00_0000 + number).to_be_bytes())).collect()
}

fn refresh(criterion: &mut Criterion) {
    unshare(CloneFlags::CLONE_NEWNET).expect("this bench needs root");
    for strongest in [Kind::Bpf, Kind::NftTimeout] {
        let mut group = criterion.benchmark_group(strongest.as_str());
        for count in [1, 100, 2000] {
            let mut fence = open(&Options { strongest, ..Options::default() }).fence;
            assert_eq!(fence.kind(), strongest);
            let addresses = addresses(count);
            fence.cover(&addresses).unwrap();
            fence.settle();
            group.throughput(Throughput::Elements(count.into()));
            group.bench_function(BenchmarkId::new("refresh", count), |bencher| {
                bencher.iter(|| {
                    let now = BootTime::now();
                    for &address in &addresses {
                        fence.arm(address, now.after(Duration::from_millis(350))).unwrap();
                    }
                    // A moment at which the nft fence is due to refresh; nothing to the other.
                    fence.poll(now.after(Duration::from_millis(50))).unwrap();
                });
            });
            fence.remove();
        }
        group.finish();
    }
    let mut fence = open(&Options::default()).fence;
    let (some, none) = (addresses(2000), BTreeSet::new());
    criterion.bench_function("cover and uncover 2000", |bencher| {
        bencher.iter(|| {
            fence.cover(&some).unwrap();
            fence.cover(&none).unwrap();
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3));
    targets = refresh
}
criterion_main!(benches);
