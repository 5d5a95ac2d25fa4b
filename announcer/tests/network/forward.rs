//! Forwarding in nftables: there while it is wanted, written again when it is flushed, gone afterwards.

use std::time::{Duration, Instant};

use berth_announcer::dataplane::forward;
use berth_announcer::vip::Forwards;

use crate::kept::Kept;
use crate::namespace::{alone, attempt, run};

fn pair(address: &str, former: &str) -> Forwards {
    [(address.parse().unwrap(), former.parse().unwrap())].into()
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}: {}", run("nft list ruleset"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn forwarding_stands_while_it_is_wanted_in_tables_of_its_own() {
    alone(async || {
        run("nft add table ip foreign");
        let foreign = run("nft list ruleset");
        let mut kept = Kept::start("forward");
        assert_eq!(kept.next().await, Forwards::new().into());
        assert_eq!(run("nft list ruleset"), foreign, "nothing wanted, nothing written");

        let v4 = pair("192.0.2.1", "192.0.2.11");
        kept.dataplane.forward.want(v4.clone());
        assert_eq!(kept.next().await, v4.clone().into());
        let shown = run("nft list table ip berth");
        assert!(shown.contains("192.0.2.1 : 192.0.2.11") && shown.contains("dup to"), "{shown}");
        assert!(!attempt("nft list table ip6 berth").status.success(), "a family without one");

        let both: Forwards = v4.into_iter().chain(pair("2001:db8::1", "2001:db8::11")).collect();
        kept.dataplane.forward.want(both);
        until("both families", || attempt("nft list table ip6 berth").status.success()).await;
        run("nft flush ruleset");
        until("written again", || {
            let all = run("nft list ruleset");
            all.contains("192.0.2.1 : 192.0.2.11") && all.contains("2001:db8::1 : 2001:db8::11")
        })
        .await;
        kept.dataplane.forward.want(Forwards::new());
        until("gone", || run("nft list ruleset").is_empty()).await;
        kept.stop().await;
    });
}

#[test]
fn what_an_earlier_life_left_is_removed_and_nothing_else() {
    alone(async || {
        run("nft add table ip foreign");
        let foreign = run("nft list ruleset");
        for family in ["ip", "ip6"] {
            run(&format!("nft add table {family} berth"));
        }
        forward::remove("berth").await.unwrap();
        forward::remove("berth").await.unwrap();
        assert_eq!(run("nft list ruleset"), foreign);
    });
}
