//! What one allocation costs: the decision and its record, at several fills, pool sizes and fragmentations; and what
//! it costs to import a cluster that is full already.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use berth_ipam::{Families, Family, Grant, Ledger, Owner, OwnerKind, Request, Scope, allocate};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use nix::time::ClockId;

const ADDRESSES: u32 = 1 << 20;

fn owner(number: u32) -> Owner {
    Owner::new(OwnerKind::Service, "shop", format!("web-{number}"), format!("uid-{number}"))
}

fn ledger_over(pool: String, avoid_buggy: bool) -> Ledger {
    let mut ledger = Ledger::new();
    let data = BTreeMap::from([
        ("range-global".to_owned(), pool),
        ("avoid-buggy-ips".to_owned(), avoid_buggy.to_string()),
        ("reuse-delay".to_owned(), "0s".to_owned()),
    ]);
    assert!(ledger.update_pools(&data).is_empty());
    ledger
}

/// 2^20 addresses in one range, or as many ranges of one address.
fn pools() -> Vec<(&'static str, Family, String)> {
    let v4 = |number: u32| IpAddr::V4(Ipv4Addr::from((16 << 24) + 2 * number));
    let v6 =
        |number: u32| IpAddr::V6(Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(2 * number)));
    let fragments = |address: &dyn Fn(u32) -> IpAddr| {
        (0..ADDRESSES).fold(String::new(), |mut list, number| {
            write!(list, "{},", address(number)).unwrap();
            list
        })
    };
    vec![
        ("v4 /12", Family::V4, "16.0.0.0/12".to_owned()),
        ("v4 /12 with .0 and .255 avoided", Family::V4, "16.0.0.0/12".to_owned()),
        ("v4 a million ranges", Family::V4, fragments(&v4)),
        ("v6 /108", Family::V6, "2001:db8::/108".to_owned()),
        ("v6 a million ranges", Family::V6, fragments(&v6)),
        ("v4 /24", Family::V4, "16.0.0.0/24".to_owned()),
        ("v6 /32", Family::V6, "2001:db8::/32".to_owned()),
    ]
}

/// Fills a pool with holes spread over it, so that the free addresses are fragmented as well.
fn fill(ledger: &mut Ledger, family: Family, percent: u32) {
    let size = u32::try_from(ledger.usage(&Scope::Global, family).free).unwrap_or(ADDRESSES);
    let request = |number| Request::new(owner(number), Families::single(family));
    for number in 0..size {
        let assigned = allocate(ledger, &request(number)).unwrap().addresses.swap_remove(0);
        ledger.insert(assigned.address, Grant::new(owner(number)).in_pool(assigned.pool)).unwrap();
    }
    // A release without a rest opens every hole at once.
    for number in (0..size).filter(|number| (number * 37) % 100 >= percent) {
        release_all(ledger, &owner(number));
    }
}

/// The owner gives back all it holds. Returns how many addresses that were.
fn release_all(ledger: &mut Ledger, owner: &Owner) -> usize {
    let held: Vec<_> = ledger.held(owner).collect();
    held.iter().filter(|address| ledger.release(owner, **address, Duration::ZERO)).count()
}

/// The time this thread computed, which other programs on the machine do not lengthen.
fn cpu_time() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap().into()
}

fn next_free_and_insert(c: &mut Criterion) {
    let mut group = c.benchmark_group("allocate");
    for (name, family, pool) in pools() {
        for percent in [0, 50, 99] {
            let mut ledger = ledger_over(pool.clone(), name.ends_with("avoided"));
            if percent > 0 {
                fill(&mut ledger, family, percent);
            }
            let free = ledger.usage(&Scope::Global, family).free.min(64) as u32;
            let newcomers: Vec<Owner> = (0..free).map(|number| owner(u32::MAX - number)).collect();
            group.bench_function(BenchmarkId::new(name, format!("{percent} % full")), |b| {
                b.iter_custom(|rounds| {
                    let mut spent = Duration::ZERO;
                    let mut left = rounds;
                    while left > 0 {
                        let batch = &newcomers[..newcomers.len().min(left as usize)];
                        let started = cpu_time();
                        for newcomer in batch {
                            let request = Request::new(newcomer.clone(), Families::single(family));
                            let assigned =
                                allocate(&ledger, &request).unwrap().addresses.swap_remove(0);
                            let grant = Grant::new(request.owner).in_pool(assigned.pool);
                            ledger.insert(assigned.address, grant).unwrap();
                        }
                        spent += cpu_time() - started;
                        for newcomer in batch {
                            assert_eq!(release_all(&mut ledger, newcomer), 1);
                        }
                        left -= batch.len() as u64;
                    }
                    spent
                });
            });
        }
    }
    group.finish();
}

fn import(c: &mut Criterion) {
    let mut group = c.benchmark_group("import");
    group.sample_size(10);
    let grants: Vec<(IpAddr, Grant)> = (0..100_000)
        .map(|number| {
            let address = Ipv4Addr::from((16 << 24) + 7 * number).into();
            (address, Grant::new(owner(number)).in_pool(Some(Scope::Global)))
        })
        .collect();
    group.bench_function("100,000 existing Services", |b| {
        b.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                let (mut ledger, grants) =
                    (ledger_over("16.0.0.0/12".to_owned(), false), grants.clone());
                let started = cpu_time();
                for (address, grant) in grants {
                    ledger.insert(address, grant).unwrap();
                }
                spent += cpu_time() - started;
            }
            spent
        });
    });
    group.finish();
}

criterion_group!(benches, next_free_and_insert, import);
criterion_main!(benches);
