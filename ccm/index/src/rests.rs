//! Owns how the addresses that rest, or are set aside, are told to the process that leads next, so that a restart ends
//! neither early.

use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::{Ledger, Owner, OwnerKind};
use serde::{Deserialize, Serialize};

/// The most that is told: an object takes 256 KiB of annotations. What has rested longest is left out first.
const MOST: usize = 1000;

/// An address that rests. The uid of who held it does not matter: the same name gets it back sooner.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Rest {
    address: IpAddr,
    #[serde(default, skip_serializing_if = "is_service")]
    kind: Kind,
    namespace: String,
    name: String,
    /// Seconds since 1970.
    since: u64,
    /// Seconds that it rests on top of the reuse delay, counted from `since`.
    #[serde(default, skip_serializing_if = "is_nothing")]
    more: u64,
    /// The same: until when it is set aside. Then the namespace is the one that caused it, and nobody has the name. Earlier
    /// versions wrote no namespace: it counts against nobody's quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
}

/// What was told.
#[derive(Debug, Default, PartialEq)]
pub struct Recalled {
    /// What rests: who held it, and since when.
    pub rests: Vec<(IpAddr, Owner, Duration)>,
    /// What is set aside, because of which namespace, and until when.
    pub asides: Vec<(IpAddr, String, Duration)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Kind {
    #[default]
    Service,
    EipBinding,
    VipProxy,
}

fn is_nothing(more: &u64) -> bool {
    *more == 0
}

fn is_service(kind: &Kind) -> bool {
    *kind == Kind::Service
}

/// The annotation `berth.dev/resting`. `now` is on the ledger's clock, `unix` the same moment since 1970.
pub fn write(ledger: &Ledger, now: Duration, unix: Duration) -> String {
    let rests = ledger.rests().rev().take(MOST).map(|(address, owner, since)| Rest {
        address,
        kind: match owner.kind {
            OwnerKind::Service => Kind::Service,
            OwnerKind::EipBinding => Kind::EipBinding,
            OwnerKind::VipProxy => Kind::VipProxy,
        },
        namespace: owner.namespace.clone(),
        name: owner.name.clone(),
        since: seconds(unix.saturating_sub(now.saturating_sub(since))),
        // One whose node was never heard of rests as if it were given back in a while.
        more: seconds(since.saturating_sub(now)),
        until: None,
    });
    let asides = ledger.asides().take(MOST / 4).map(|(address, namespace, until)| Rest {
        address,
        kind: Kind::Service,
        namespace: namespace.to_owned(),
        name: String::new(),
        since: unix.as_secs(),
        more: 0,
        until: Some((unix + until.saturating_sub(now)).as_secs()),
    });
    serde_json::to_string(&asides.chain(rests).collect::<Vec<_>>()).unwrap_or_default()
}

/// Whole seconds, rounded up: no rest ends early.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Reads it back onto the ledger's clock. A moment that lies ahead, by a clock that was set back, counts as now.
///
/// # Errors
/// When it is not what [`write()`] writes.
pub fn read(text: &str, now: Duration, unix: Duration) -> Result<Recalled, serde_json::Error> {
    let told: Vec<Rest> = serde_json::from_str(text)?;
    let mut recalled = Recalled::default();
    for rest in told {
        if let Some(until) = rest.until {
            let left = Duration::from_secs(until).saturating_sub(unix);
            recalled.asides.push((rest.address, rest.namespace, now.saturating_add(left)));
            continue;
        }
        let kind = match rest.kind {
            Kind::Service => OwnerKind::Service,
            Kind::EipBinding => OwnerKind::EipBinding,
            Kind::VipProxy => OwnerKind::VipProxy,
        };
        let age = unix.saturating_sub(Duration::from_secs(rest.since));
        let owner = Owner::new(kind, rest.namespace, rest.name, "");
        let since = now.saturating_add(Duration::from_secs(rest.more));
        recalled.rests.push((rest.address, owner, since.saturating_sub(age)));
    }
    Ok(recalled)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIX: Duration = Duration::from_secs(1_790_000_000);

    fn second(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn what_rests_goes_on_resting_on_another_clock() {
        let mut ledger = Ledger::new();
        let web = Owner::new(OwnerKind::Service, "shop", "web", "uid-1");
        let vm = Owner::new(OwnerKind::EipBinding, "shop", "vm", "uid-2");
        ledger.rest("192.0.2.1".parse().unwrap(), web, second(90));
        ledger.rest("2001:db8::1".parse().unwrap(), vm, second(100));
        let text = write(&ledger, second(110), UNIX);
        let read = read(&text, second(1000), UNIX + second(5)).unwrap();
        let shown: Vec<_> = read
            .rests
            .iter()
            .map(|(address, owner, since)| format!("{address} {owner} {}", since.as_secs()))
            .collect();
        assert_eq!(shown, ["2001:db8::1 EipBinding shop/vm 985", "192.0.2.1 Service shop/web 975"]);
    }

    #[test]
    fn what_rests_longer_than_the_reuse_delay_does_so_on_another_clock() {
        let mut ledger = Ledger::new();
        let vm = Owner::new(OwnerKind::EipBinding, "shop", "vm", "uid");
        // Given back at 100 s, with 12.5 s on top; written two seconds later.
        ledger.rest("192.0.2.1".parse().unwrap(), vm, Duration::from_millis(112_500));
        let text = write(&ledger, second(102), UNIX);
        let since = |unix: Duration| read(&text, second(1000), unix).unwrap().rests[0].2;
        assert_eq!(since(UNIX + second(5)), second(1006), "half a second is rounded up");
        assert_eq!(since(UNIX + second(20)), second(991), "the reuse delay has begun");
        assert_eq!(
            since(UNIX - second(60)),
            second(1011),
            "a clock that was set back ends nothing"
        );
    }

    #[test]
    fn of_too_many_those_that_rested_longest_are_left_out() {
        let mut ledger = Ledger::new();
        for number in 0..=MOST as u32 {
            let owner = Owner::new(OwnerKind::Service, "shop", "web", "uid");
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + number).into();
            ledger.rest(address, owner, second(number.into()));
        }
        let text = write(&ledger, second(2000), UNIX);
        let rests = read(&text, second(2000), UNIX).unwrap().rests;
        assert_eq!(rests.len(), MOST);
        assert!(rests.iter().all(|(address, ..)| address.to_string() != "10.0.0.0"));
        assert!(text.len() < 200_000, "{}", text.len());
    }

    #[test]
    fn what_is_set_aside_stays_so_until_the_same_moment_on_another_clock() {
        let mut ledger = Ledger::new();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        ledger.set_aside(address, "shop", second(700));
        let text = write(&ledger, second(110), UNIX);
        let recalled = read(&text, second(1000), UNIX + second(5)).unwrap();
        let shop = || "shop".to_owned();
        assert_eq!(recalled.asides, [(address, shop(), second(1000 + 590 - 5))]);
        assert!(recalled.rests.is_empty());
        let late = read(&text, second(1000), UNIX + second(3600)).unwrap();
        assert_eq!(late.asides, [(address, shop(), second(1000))], "it is over");
    }

    #[test]
    fn what_an_earlier_version_set_aside_stays_so_and_counts_against_nobody() {
        let text = r#"[{"address":"192.0.2.1","namespace":"","name":"","since":1790000000,"until":1790000590}]"#;
        let recalled = read(text, second(1000), UNIX).unwrap();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(recalled.asides, [(address, String::new(), second(1590))]);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        assert!(read("{}", second(0), UNIX).is_err());
        assert!(read("", second(0), UNIX).is_err());
    }
}
