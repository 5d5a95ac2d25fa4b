use k8s_openapi::api::coordination::v1::LeaseSpec;

use super::*;

const NAME: &str = "plndr-svcs-lock";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn candidate(identity: &str) -> Election {
    let mut template = Lease::default();
    template.metadata.name = Some(NAME.to_owned());
    Election::new(template, identity, Timing::DEFAULT)
}

fn lease(version: u64, holder: Option<&str>) -> Box<Lease> {
    let mut lease = Lease::default();
    lease.metadata.name = Some(NAME.to_owned());
    lease.metadata.resource_version = Some(version.to_string());
    let holder_identity = holder.map(str::to_owned);
    let lease_duration_seconds = Some(15);
    lease.spec = Some(LeaseSpec { holder_identity, lease_duration_seconds, ..Default::default() });
    Box::new(lease)
}

/// A holder that sent its last renewal at `now`.
fn leader(identity: &str, version: u64, now: Instant) -> Election {
    let mut election = candidate(identity);
    election.observe(Sight::Absent, now);
    assert!(matches!(election.poll(now), Action::Create(_)));
    election.replied(Reply::Written(lease(version, Some(identity))), now);
    assert_eq!(election.holds_until(now), Some(now + seconds(10)));
    election
}

fn replaced(action: Action) -> Box<Lease> {
    match action {
        Action::Replace(lease) => lease,
        other => panic!("not a replace: {other:?}"),
    }
}

#[test]
fn nothing_is_sent_before_the_lease_was_seen() {
    assert_eq!(candidate("a").poll(Instant::now()), Action::Wait(None));
}

#[test]
fn a_holder_counts_from_when_it_sent_not_from_when_it_heard() {
    let start = Instant::now();
    let mut election = candidate("a");
    election.observe(Sight::Absent, start);
    assert!(matches!(election.poll(start), Action::Create(_)));
    let late = start + seconds(4);
    election.replied(Reply::Written(lease(1, Some("a"))), late);
    assert_eq!(election.holds_until(late), Some(start + seconds(10)));
    assert_eq!(election.holds_until(start + seconds(10)), None);
}

#[test]
fn what_stands_in_the_kernel_lapses_behind_the_hold_and_before_the_lease_on_the_worst_pair_of_clocks()
 {
    let start = Instant::now();
    let mut election = candidate("a");
    assert_eq!(election.lapses_at(start), None);
    election.observe(Sight::Absent, start);
    assert!(matches!(election.poll(start), Action::Create(_)));
    let late = start + seconds(4);
    election.replied(Reply::Written(lease(1, Some("a"))), late);
    let lapses = election.lapses_at(late).unwrap();
    assert_eq!(lapses, start + Timing::DEFAULT.lapse(), "from when it was sent");
    assert!(lapses > election.holds_until(late).unwrap());
    let silent = Timing::DEFAULT.lapse().as_secs_f64() / 0.999 + Timing::LATENESS.as_secs_f64();
    let free = Timing::DEFAULT.duration().as_secs_f64() / 1.001;
    assert!(silent <= free && silent > free - 1e-6, "{silent} {free}");
    assert_eq!(election.lapses_at(start + seconds(10)), None, "it is no hold any more");
    election.release();
    assert_eq!(election.lapses_at(late), None);
}

#[test]
fn a_holder_renews_with_the_version_of_its_last_reply_and_reads_nothing() {
    let start = Instant::now();
    let mut election = leader("a", 7, start);
    assert_eq!(election.poll(start), Action::Wait(Some(start + seconds(2))));
    let renewal = replaced(election.poll(start + seconds(2)));
    assert_eq!(version(&renewal), Some("7"));
    election.replied(Reply::Written(lease(9, Some("a"))), start + seconds(2));
    // The watch shows both again, late.
    election.observe(Sight::Present(lease(7, Some("a"))), start + seconds(3));
    election.observe(Sight::Present(lease(9, Some("a"))), start + seconds(3));
    assert_eq!(version(&replaced(election.poll(start + seconds(4)))), Some("9"));
}

#[test]
fn a_follower_sends_nothing_while_the_lease_changes() {
    let start = Instant::now();
    let mut election = candidate("b");
    for n in 0..100 {
        let now = start + seconds(n * 2);
        election.observe(Sight::Present(lease(n + 1, Some("a"))), now);
        assert_eq!(election.poll(now), Action::Wait(Some(now + seconds(15))));
    }
}

#[test]
fn expiry_counts_from_the_last_change_seen_here_whatever_renew_time_says() {
    let start = Instant::now();
    let mut election = candidate("b");
    let mut ancient = lease(3, Some("a"));
    let renewed = MicroTime(Timestamp::UNIX_EPOCH);
    ancient.spec.get_or_insert_default().renew_time = Some(renewed);
    election.observe(Sight::Present(ancient.clone()), start);
    // A watch that starts again shows the same version: no news.
    election.observe(Sight::Present(ancient), start + seconds(9));
    assert_eq!(election.poll(start + seconds(9)), Action::Wait(Some(start + seconds(15))));
    let taken = replaced(election.poll(start + seconds(15)));
    assert_eq!(holder(&taken), Some("b"));
    assert_eq!(taken.spec.unwrap().lease_transitions, Some(1));
}

#[test]
fn the_holders_own_duration_counts() {
    let start = Instant::now();
    let mut election = candidate("b");
    let mut long = lease(3, Some("a"));
    long.spec.get_or_insert_default().lease_duration_seconds = Some(60);
    election.observe(Sight::Present(long), start);
    assert_eq!(election.poll(start), Action::Wait(Some(start + seconds(60))));
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let start = Instant::now();
    let mut election = candidate("b");
    election.observe(Sight::Present(lease(3, Some("a"))), start);
    // client-go releases by an empty name.
    for (version, nobody) in [(4, None), (5, Some(""))] {
        let mut election = election.clone();
        election.observe(Sight::Present(lease(version, nobody)), start + seconds(1));
        assert!(matches!(election.poll(start + seconds(1)), Action::Replace(_)));
    }
}

#[test]
fn who_defers_takes_what_is_free_later_than_others_and_goes_on_with_what_is_its_own() {
    let (start, later) = (Instant::now(), seconds(2));
    let deferring = |sight: Sight| {
        let mut election = candidate("a");
        election.defer(later);
        election.observe(sight, start);
        election
    };
    let free = |holder| Sight::Present(lease(1, holder));
    for (sight, at) in [
        (Sight::Absent, start + later),
        (free(None), start + later),
        (free(Some("b")), start + seconds(15) + later),
    ] {
        assert_eq!(deferring(sight).poll(start), Action::Wait(Some(at)));
    }
    let mut election = deferring(free(Some("a")));
    replaced(election.poll(start));
    election.replied(Reply::Written(lease(2, Some("a"))), start);
    assert_eq!(
        election.poll(start),
        Action::Wait(Some(start + Timing::DEFAULT.retry())),
        "it renews in time"
    );
}

#[test]
fn a_conflict_is_a_loss() {
    let start = Instant::now();
    let mut election = leader("a", 7, start);
    let now = start + seconds(2);
    replaced(election.poll(now));
    election.replied(Reply::Conflict, now);
    assert_eq!(election.holds_until(now), None);
    assert_eq!(election.poll(now), Action::Read);
    election.replied(Reply::Found(Some(lease(8, Some("b")))), now);
    assert_eq!(election.poll(now), Action::Wait(Some(now + seconds(15))));
}

/// A leader from `start` on that two seconds later, after a conflict, finds the Lease of this older version and holder.
fn set_back(start: Instant, holder: &str) -> (Election, Instant) {
    let mut election = leader("a", 70, start);
    let now = start + seconds(2);
    replaced(election.poll(now));
    election.replied(Reply::Conflict, now);
    assert_eq!(election.poll(now), Action::Read);
    election.replied(Reply::Found(Some(lease(7, Some(holder)))), now);
    (election, now)
}

#[test]
fn a_holder_whose_api_server_was_restored_from_a_backup_goes_on_from_what_is_there() {
    let (mut election, now) = set_back(Instant::now(), "a");
    assert_eq!(
        version(&replaced(election.poll(now))),
        Some("7"),
        "what it knew conflicts for ever"
    );
    election.replied(Reply::Written(lease(8, Some("a"))), now);
    assert_eq!(election.holds_until(now), Some(now + seconds(10)));
}

#[test]
fn what_a_backup_says_of_another_holder_is_waited_for_as_by_who_starts() {
    let start = Instant::now();
    let (mut election, now) = set_back(start, "b");
    assert_eq!(election.holds_until(now), None);
    assert_eq!(election.poll(now), Action::Wait(Some(now + seconds(15))));
    // A read that is slower than the watch goes back nowhere.
    let mut follower = candidate("c");
    follower.observe(Sight::Absent, start);
    assert!(matches!(follower.poll(start), Action::Create(_)));
    follower.replied(Reply::Conflict, start);
    assert_eq!(follower.poll(now), Action::Read);
    follower.observe(Sight::Present(lease(9, Some("b"))), now);
    follower.replied(Reply::Found(Some(lease(8, None))), now);
    assert_eq!(follower.holder(), Some("b"));
}

#[test]
fn a_holder_whose_renewal_was_applied_though_it_timed_out_goes_on() {
    let start = Instant::now();
    let mut election = leader("a", 7, start);
    replaced(election.poll(start + seconds(2)));
    let now = start + seconds(6);
    election.replied(Reply::Unknown, now);
    assert_eq!(version(&replaced(election.poll(now))), Some("7"));
    election.replied(Reply::Conflict, now);
    assert_eq!(
        election.holds_until(now),
        Some(start + seconds(10)),
        "its own write was in the way"
    );
    assert_eq!(election.poll(now), Action::Read);
    election.replied(Reply::Found(Some(lease(8, Some("a")))), now);
    assert_eq!(version(&replaced(election.poll(now))), Some("8"));
    election.replied(Reply::Written(lease(9, Some("a"))), now);
    assert_eq!(election.holds_until(now), Some(now + seconds(10)));
}

#[test]
fn a_follower_that_lost_the_race_leaves_the_answer_to_its_watch() {
    let start = Instant::now();
    let mut election = candidate("b");
    election.observe(Sight::Absent, start);
    assert!(matches!(election.poll(start), Action::Create(_)));
    election.replied(Reply::Conflict, start);
    assert_eq!(election.poll(start), Action::Wait(Some(start + seconds(2))));
    let mut watched = election.clone();
    watched.observe(Sight::Present(lease(5, Some("a"))), start + seconds(1));
    assert_eq!(watched.poll(start + seconds(1)), Action::Wait(Some(start + seconds(16))));
    assert_eq!(election.poll(start + seconds(2)), Action::Read);
}

#[test]
fn the_lease_of_a_former_life_is_taken_back_at_once() {
    let start = Instant::now();
    let mut election = candidate("a");
    election.observe(Sight::Present(lease(5, Some("a"))), start);
    assert_eq!(election.holds_until(start), None);
    let taken = replaced(election.poll(start));
    assert_eq!(taken.spec.unwrap().lease_transitions, Some(0));
}

#[test]
fn release_stops_first_and_empties_the_lease_then() {
    let start = Instant::now();
    let mut election = leader("a", 7, start);
    election.release();
    assert_eq!(election.holds_until(start), None);
    let mut given = replaced(election.poll(start));
    assert_eq!((holder(&given), version(&given)), (None, Some("7")));
    stamp(&mut given, Timestamp::UNIX_EPOCH);
    assert!(given.spec.unwrap().renew_time.is_some());
    election.replied(Reply::Written(lease(8, None)), start);
    assert_eq!(election.poll(start), Action::Done);
    let mut follower = candidate("b");
    follower.observe(Sight::Present(lease(7, Some("a"))), start);
    follower.release();
    assert_eq!(follower.poll(start), Action::Done);
}

#[test]
fn a_lease_deleted_under_its_holder_is_not_free_before_it_would_have_expired() {
    let start = Instant::now();
    let mut election = candidate("b");
    election.observe(Sight::Present(lease(5, Some("a"))), start);
    let mut cut = election.clone();
    cut.observe(Sight::Deleted(lease(6, Some("a"))), start + seconds(1));
    assert_eq!(cut.poll(start + seconds(1)), Action::Wait(Some(start + seconds(15))));
    assert!(matches!(cut.poll(start + seconds(15)), Action::Create(_)));
    // Released first, as Berth does it.
    election.observe(Sight::Deleted(lease(6, None)), start + seconds(1));
    assert!(matches!(election.poll(start + seconds(1)), Action::Create(_)));
    let mut holder = leader("a", 5, start);
    holder.observe(Sight::Deleted(lease(6, Some("a"))), start + seconds(1));
    assert_eq!(holder.holds_until(start + seconds(1)), None);
}

#[test]
fn labels_and_fields_of_others_outlive_a_takeover() {
    let start = Instant::now();
    let mut template = Lease::default();
    template.metadata.name = Some(NAME.to_owned());
    template.metadata.labels = Some([("ours".to_owned(), "1".to_owned())].into());
    let mut election = Election::new(template, "b", Timing::DEFAULT);
    let mut found = lease(5, None);
    found.metadata.labels = Some([("theirs".to_owned(), "2".to_owned())].into());
    found.spec.get_or_insert_default().strategy = Some("OldestEmulationVersion".to_owned());
    election.observe(Sight::Present(found), start);
    let taken = replaced(election.poll(start));
    assert_eq!(taken.metadata.labels.unwrap().len(), 2);
    assert!(taken.spec.unwrap().strategy.is_some());
}

#[test]
fn timings_that_allow_two_holders_are_refused() {
    let new = |duration, deadline, retry| {
        Timing::new(
            Duration::from_millis(duration),
            Duration::from_millis(deadline),
            Duration::from_millis(retry),
        )
    };
    assert!(new(5000, 3000, 1000).is_ok());
    for (duration, deadline, retry) in
        [(5000, 5000, 1000), (5000, 3000, 3000), (5000, 3000, 0), (0, 0, 0), (1500, 1000, 500)]
    {
        assert!(new(duration, deadline, retry).is_err(), "{duration} {deadline} {retry}");
    }
}

fn of_group(patience: u64) -> Election {
    let mut template = Lease::default();
    template.metadata.name = Some(NAME.to_owned());
    Election::of_group(template, "group", Timing::DEFAULT, seconds(patience))
}

#[test]
fn of_a_group_one_renews_and_another_goes_on_when_it_sees_no_renewal() {
    let start = Instant::now();
    let (mut first, mut second) = (of_group(3), of_group(4));
    first.observe(Sight::Absent, start);
    assert!(matches!(first.poll(start), Action::Create(_)));
    first.replied(Reply::Written(lease(1, Some("group"))), start);
    second.observe(Sight::Present(lease(0, None)), start);
    second.observe(Sight::Present(lease(1, Some("group"))), start);
    assert_eq!(first.poll(start), Action::Wait(Some(start + seconds(2))));
    assert_eq!(second.poll(start), Action::Wait(Some(start + seconds(4))));
    assert_eq!(second.holds_until(start), None, "it has written nothing");

    let renewal = replaced(first.poll(start + seconds(2)));
    assert_eq!(version(&renewal), Some("1"));
    first.replied(Reply::Written(lease(2, Some("group"))), start + seconds(2));
    second.observe(Sight::Present(lease(2, Some("group"))), start + seconds(2));
    assert_eq!(second.poll(start + seconds(4)), Action::Wait(Some(start + seconds(6))));

    // The first is heard of no more.
    let at = start + seconds(6);
    assert_eq!(version(&replaced(second.poll(at))), Some("2"));
    second.replied(Reply::Written(lease(3, Some("group"))), at);
    assert_eq!(second.holds_until(at), Some(at + seconds(10)));
    assert_eq!(
        second.poll(at),
        Action::Wait(Some(at + seconds(2))),
        "it is the one that renews now"
    );
    first.observe(Sight::Present(lease(3, Some("group"))), at);
    assert_eq!(first.poll(at), Action::Wait(Some(at + seconds(3))));
}

#[test]
fn one_of_a_group_that_starts_renews_once_and_soon() {
    let start = Instant::now();
    let mut back = of_group(4);
    back.observe(Sight::Present(lease(1, Some("group"))), start);
    let soon = start + seconds(4) / 16;
    assert_eq!(back.poll(start), Action::Wait(Some(soon)));
    assert_eq!(version(&replaced(back.poll(soon))), Some("1"));
}

#[test]
fn a_group_waits_for_a_stranger_and_takes_at_once_what_one_of_it_gives_back() {
    let start = Instant::now();
    let mut one = of_group(4);
    one.observe(Sight::Present(lease(1, Some("a"))), start);
    assert_eq!(one.poll(start), Action::Wait(Some(start + seconds(15))));
    one.observe(Sight::Present(lease(2, Some("group"))), start);
    assert_eq!(one.poll(start), Action::Wait(Some(start + seconds(4))));
    one.observe(Sight::Present(lease(3, None)), start);
    assert_eq!(version(&replaced(one.poll(start))), Some("3"));
    one.replied(Reply::Written(lease(4, Some("group"))), start);
    assert!(one.holds_until(start).is_some());
}

#[test]
fn who_leaves_a_group_asks_the_others_to_go_on_and_gives_back_only_what_none_of_them_takes() {
    let start = Instant::now();
    let (mut first, mut second) = (of_group(3), of_group(4));
    first.observe(Sight::Absent, start);
    assert!(matches!(first.poll(start), Action::Create(_)));
    first.replied(Reply::Written(lease(1, Some("group"))), start);
    second.observe(Sight::Present(lease(1, Some("group"))), start);
    first.release();
    assert_eq!(first.holds_until(start), None);
    let mut asks = replaced(first.poll(start));
    let spec = asks.spec.as_ref().unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("group"), "it is never free");
    asks.metadata.resource_version = Some("2".to_owned());
    first.replied(Reply::Written(asks.clone()), start);

    let mut alone = first.clone();
    let grace = start + GRACE;
    assert_eq!(alone.poll(start), Action::Wait(Some(grace)));
    assert_eq!(replaced(alone.poll(grace)).spec.unwrap().holder_identity, None);
    alone.replied(Reply::Written(lease(3, None)), grace);
    assert_eq!(alone.poll(grace), Action::Done);

    second.observe(Sight::Present(asks), start);
    let mut taken = replaced(second.poll(start));
    assert!(!is_leaving(&taken));
    taken.metadata.resource_version = Some("3".to_owned());
    first.observe(Sight::Present(taken.clone()), start);
    assert_eq!(first.poll(start), Action::Done);
    second.replied(Reply::Written(taken), start);
    // Who was not the last to renew has nothing to give.
    let mut third = of_group(4);
    third.observe(Sight::Present(lease(9, Some("group"))), start);
    third.release();
    assert_eq!(third.poll(start), Action::Done);
}

#[test]
fn a_lease_that_was_deleted_is_honoured_for_a_minute_at_most() {
    let start = Instant::now();
    let mut held = lease(1, Some("b"));
    held.spec.as_mut().unwrap().lease_duration_seconds = Some(i32::MAX);
    let mut election = candidate("a");
    election.observe(Sight::Present(held.clone()), start);
    election.observe(Sight::Deleted(held), start);
    assert_eq!(election.poll(start), Action::Wait(Some(start + ORPHANED)));
}

#[test]
fn a_lease_is_believed_for_an_hour_whatever_it_says() {
    let start = Instant::now();
    let mut held = lease(1, Some("b"));
    held.spec.as_mut().unwrap().lease_duration_seconds = Some(i32::MAX);
    let mut election = candidate("a");
    election.observe(Sight::Present(held.clone()), start);
    assert_eq!(election.poll(start), Action::Wait(Some(start + seconds(3600))));
    let Held::By { duration, .. } = Held::of(&held) else { panic!("somebody has it") };
    assert_eq!(duration, Some(seconds(3600)));
}

#[test]
fn what_makes_a_holder_of_a_candidate_that_is_none_acquires() {
    let start = Instant::now();
    let mut election = candidate("a");
    election.observe(Sight::Present(lease(1, Some("a"))), start);
    let action = election.poll(start);
    assert!(election.acquires(&action, start), "in its own name, after a restart");
    election.replied(Reply::Written(lease(2, Some("a"))), start);
    let at = start + seconds(2);
    let action = election.poll(at);
    assert!(!election.acquires(&action, at), "it goes on");
    election.replied(Reply::Rejected, at);
    let late = start + seconds(10);
    let action = election.poll(late);
    assert!(election.acquires(&action, late), "its tenure is over");
    election.replied(Reply::Written(lease(3, Some("a"))), late);
    election.release();
    let action = election.poll(late);
    assert!(!election.acquires(&action, late), "it gives back");
}
