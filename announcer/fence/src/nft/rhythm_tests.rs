//! The rule on a virtual clock, with a process that stalls anywhere, beside a kernel of a few lines.

use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use super::*;

const LIFE: Duration = Duration::from_millis(120);
const GRANT: Duration = Duration::from_millis(350);

fn address(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

fn at(millis: u64) -> BootTime {
    BootTime::from_nanos(millis * 1_000_000)
}

/// One turn of the owner: what it learns, and how long it stalls before and after the commit.
#[derive(Clone, Copy, Debug)]
struct Turn {
    idle: u64,
    granted: u8,
    revoked: u8,
    before: u64,
    after: u64,
}

fn any_stall() -> impl Strategy<Value = u64> {
    prop_oneof![6 => Just(0u64), 4 => 0u64..60, 2 => 100u64..400, 1 => 400u64..2000]
}

fn any_turn() -> impl Strategy<Value = Turn> {
    (0u64..60, 0u8..8, prop_oneof![5 => Just(0u8), 1 => 0u8..8], any_stall(), any_stall()).prop_map(
        |(idle, granted, revoked, before, after)| Turn { idle, granted, revoked, before, after },
    )
}

/// What nftables does: an element that expires, a set, and transactions that happen wholly or not at all.
#[derive(Default)]
struct Kernel {
    live_until: Option<BootTime>,
    held: BTreeSet<IpAddr>,
}

impl Kernel {
    fn commit(&mut self, change: &Change, now: BootTime) -> bool {
        let exist =
            |addresses: &[IpAddr]| addresses.iter().all(|address| self.held.contains(address));
        match change {
            Change::Start => self.held.clear(),
            Change::Refresh { hold, release } => {
                if self.live_until.is_none_or(|until| until <= now) || !exist(release) {
                    return false;
                }
                self.held.extend(hold);
                self.held.retain(|address| !release.contains(address));
            }
            Change::Release(addresses) => {
                if !exist(addresses) {
                    return false;
                }
                self.held.retain(|address| !addresses.contains(address));
                return true;
            }
        }
        self.live_until = Some(now.after(LIFE));
        true
    }

    /// Whether an address could have answered between the last change and `now` without a grant.
    fn answered_late(&self, granted: &BTreeMap<IpAddr, BootTime>, now: BootTime) -> bool {
        let Some(until) = self.live_until else { return false };
        self.held
            .iter()
            .any(|address| granted.get(address).is_none_or(|&grant| grant < until.min(now)))
    }
}

/// Lives through `turns` under a reach of `reach`; returns how many refreshes held something, or none if an address
/// could answer without a grant.
fn live_through(turns: &[Turn], reach: Duration) -> Option<u32> {
    let mut rhythm = Rhythm { reach, ..Rhythm::new(LIFE) };
    let mut kernel = Kernel::default();
    let mut granted = BTreeMap::new();
    let mut clock = 0;
    let mut refreshes = 0;
    let mut late = false;
    for turn in turns {
        clock += turn.idle;
        let numbers = |mask: u8| (0..3).filter(move |bit| mask & 1 << bit != 0).map(address);
        for address in numbers(turn.granted) {
            rhythm.grant(address, at(clock).after(GRANT));
            granted.insert(address, at(clock).after(GRANT));
        }
        let revoked: Vec<_> = numbers(turn.revoked).collect();
        if let Some(release) = rhythm.revoke(&revoked) {
            clock += turn.before;
            late |= kernel.answered_late(&granted, at(clock));
            if kernel.commit(&release, at(clock)) {
                rhythm.committed(&release, at(clock));
            } else {
                rhythm.refused(&release);
                kernel.held.clear();
            }
        }
        // From here on the others may be told that we let go.
        granted.extend(revoked.iter().map(|&address| (address, at(clock))));
        if let Some(change) = rhythm.due(at(clock)) {
            clock += turn.before;
            late |= kernel.answered_late(&granted, at(clock));
            let done = kernel.commit(&change, at(clock));
            clock += turn.after;
            match done {
                true => rhythm.committed(&change, at(clock)),
                false => rhythm.refused(&change),
            }
            refreshes += u32::from(
                done && matches!(change, Change::Refresh { .. }) && !kernel.held.is_empty(),
            );
        }
    }
    late |= kernel.answered_late(&granted, at(clock + 10_000));
    (!late).then_some(refreshes)
}

fn search(reach: Duration) -> Result<u32, ()> {
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() };
    let refreshes = std::cell::Cell::new(0);
    let result = TestRunner::new(config).run(&prop::collection::vec(any_turn(), 1..60), |turns| {
        let count = live_through(&turns, reach).ok_or_else(|| TestCaseError::fail("late"))?;
        refreshes.set(refreshes.get() + count);
        Ok(())
    });
    match result {
        Ok(()) => Ok(refreshes.get()),
        Err(TestError::Fail(..)) => Err(()),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn no_address_passes_after_its_grant_however_the_process_stalls() {
    let refreshes = search(2 * LIFE).unwrap();
    assert!(refreshes > 5000, "only {refreshes} refreshes: the schedules prove little");
}

#[test]
fn half_the_reach_would_let_addresses_pass_late() {
    assert_eq!(search(LIFE), Err(()));
}

#[test]
fn an_owner_whose_grants_come_every_50_ms_is_never_silent() {
    let mut rhythm = Rhythm::new(LIFE);
    let mut kernel = Kernel::default();
    for millis in 0..2000 {
        if millis % 50 == 0 {
            rhythm.grant(address(1), at(millis).after(GRANT));
        }
        while let Some(change) = rhythm.due(at(millis)) {
            assert!(kernel.commit(&change, at(millis)));
            rhythm.committed(&change, at(millis));
        }
        assert!(
            kernel.held.contains(&address(1)) && kernel.live_until > Some(at(millis)),
            "silent at {millis} ms"
        );
        assert!(rhythm.next(at(millis)).is_some_and(|next| next > at(millis)));
    }
}

#[test]
fn an_address_that_lags_is_let_go_and_takes_nobody_with_it() {
    let mut rhythm = Rhythm::new(LIFE);
    rhythm.committed(&Change::Start, at(1000));
    rhythm.grant(address(1), at(1280));
    rhythm.grant(address(2), at(1280));
    let both = Change::Refresh { hold: vec![address(1), address(2)], release: vec![] };
    assert_eq!(rhythm.due(at(1000)), Some(both.clone()));
    rhythm.committed(&both, at(1050));
    rhythm.grant(address(1), at(1400));
    assert_eq!(
        rhythm.due(at(1060)),
        Some(Change::Refresh { hold: vec![], release: vec![address(2)] })
    );
}

#[test]
fn nothing_is_done_for_a_node_that_owns_nothing() {
    let mut rhythm = Rhythm::new(LIFE);
    assert_eq!((rhythm.due(at(5)), rhythm.next(at(5))), (None, None));
    rhythm.grant(address(1), at(400));
    assert_eq!(rhythm.due(at(5)), Some(Change::Start));
    assert_eq!(rhythm.due(at(400)), None, "a grant that has ended is none");
}

#[test]
fn a_refused_refresh_starts_anew_with_nothing_held() {
    let mut rhythm = Rhythm::new(LIFE);
    rhythm.committed(&Change::Start, at(0));
    rhythm.grant(address(1), at(900));
    rhythm.committed(&Change::Refresh { hold: vec![address(1)], release: vec![] }, at(10));
    rhythm.refused(&Change::Refresh { hold: vec![address(2)], release: vec![] });
    assert_eq!(rhythm.due(at(20)), Some(Change::Start));
    // It may be held after all.
    assert_eq!(rhythm.revoke(&[address(2)]), Some(Change::Release(vec![address(2)])));
}
