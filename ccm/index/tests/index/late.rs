//! What one namespace is told waits for no other namespace, however much that does and however slow the API server is.

use std::time::Duration;

use berth_index::write::Write;

use crate::cluster::eips::binding;
use crate::cluster::{Lab, key, service};

/// How long the API server takes for two writes.
const STEP: Duration = Duration::from_millis(10);
/// How late anybody may be told.
const BOUND: Duration = Duration::from_secs(2);

fn lab() -> Lab {
    let mut lab = Lab::with_pools([
        ("cidr-global", "10.1.0.0/16"),
        ("range-app", "198.51.100.1-198.51.100.1"),
        ("range-other", "198.51.100.9-198.51.100.9"),
    ]);
    lab.create(service("app/first"));
    lab.create(service("other/first"));
    lab
}

/// Time passes while writes are answered, two at a time; `churn` is what happens meanwhile. Until `other/web` and the binding
/// `other/vm` are told that there is no address for them, or for ten times as long as that may take.
fn told_after(lab: &mut Lab, mut churn: impl FnMut(&mut Lab, i64)) -> Duration {
    let begin = lab.now;
    let mut under_way: Vec<Write> = Vec::new();
    let mut number = 0;
    while lab.now < begin + BOUND * 10 {
        churn(lab, number);
        number += 1;
        lab.catch_up();
        for write in std::mem::take(&mut under_way) {
            let outcome = lab.cluster.perform(&write);
            lab.index.settle(&write, outcome, lab.now);
        }
        under_way = lab.index.poll(lab.now, 2);
        lab.now += STEP;
        let refused = Some((false, "PoolExhausted".to_owned()));
        let is_told = |name: &str| {
            let made = lab.cluster.bindings.get(&key(name));
            made.is_some_and(|binding| !binding.conditions.is_empty())
        };
        if lab.cluster.reason("other/web") == refused && is_told("other/vm") {
            break;
        }
    }
    lab.now - begin
}

fn make(lab: &mut Lab, created: i64) {
    lab.cluster.create(berth_index::service::Service { created, ..service("other/web") });
    lab.cluster.bind(berth_index::binding::Binding { created, ..binding("other/vm", "other/vm") });
}

#[test]
fn who_gets_no_address_is_told_although_others_come_all_the_time() {
    let mut lab = lab();
    let took = told_after(&mut lab, |lab, number| {
        let come = if number == 0 { 20 } else { 1 };
        for which in 0..come {
            let name = format!("churn/m{number}-{which}");
            lab.cluster.create(berth_index::service::Service { created: number, ..service(&name) });
        }
        if number == 0 {
            make(lab, 0);
        }
    });
    assert!(took < BOUND, "{took:?}");
}

#[test]
fn who_gets_no_address_is_told_before_all_that_another_namespace_is_told() {
    let mut lab = lab();
    let took = told_after(&mut lab, |lab, number| {
        if number == 0 {
            for which in 0..5_000 {
                lab.cluster.create(service(&format!("app/m{which}")));
            }
            make(lab, 1);
        }
    });
    assert!(took < BOUND, "{took:?}");
}
