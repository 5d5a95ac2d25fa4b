//! Owns how the addresses that rest are told to the process that leads next, so that a restart ends no rest early.

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
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Kind {
    #[default]
    Service,
    EipBinding,
    VipProxy,
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
        since: unix.saturating_sub(now.saturating_sub(since)).as_secs(),
    });
    serde_json::to_string(&rests.collect::<Vec<_>>()).unwrap_or_default()
}

/// Reads it back onto the ledger's clock. A moment that lies ahead, by a clock that was set back, counts as now.
///
/// # Errors
/// When it is not what [`write()`] writes.
pub fn read(
    text: &str,
    now: Duration,
    unix: Duration,
) -> Result<Vec<(IpAddr, Owner, Duration)>, serde_json::Error> {
    let rests: Vec<Rest> = serde_json::from_str(text)?;
    let rests = rests.into_iter().map(|rest| {
        let kind = match rest.kind {
            Kind::Service => OwnerKind::Service,
            Kind::EipBinding => OwnerKind::EipBinding,
            Kind::VipProxy => OwnerKind::VipProxy,
        };
        let age = unix.saturating_sub(Duration::from_secs(rest.since));
        let owner = Owner::new(kind, rest.namespace, rest.name, "");
        (rest.address, owner, now.saturating_sub(age))
    });
    Ok(rests.collect())
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
            .iter()
            .map(|(address, owner, since)| format!("{address} {owner} {}", since.as_secs()))
            .collect();
        assert_eq!(shown, ["2001:db8::1 EipBinding shop/vm 985", "192.0.2.1 Service shop/web 975"]);
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
        let rests = read(&text, second(2000), UNIX).unwrap();
        assert_eq!(rests.len(), MOST);
        assert!(rests.iter().all(|(address, ..)| address.to_string() != "10.0.0.0"));
        assert!(text.len() < 200_000, "{}", text.len());
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        assert!(read("{}", second(0), UNIX).is_err());
        assert!(read("", second(0), UNIX).is_err());
    }
}
