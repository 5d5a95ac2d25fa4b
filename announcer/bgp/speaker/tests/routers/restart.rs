//! A speaker that is restarted or killed loses no route in the table of any router; one that goes for good leaves none.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use berth_bgp::{Parameters, Restart, Stop};
use lab_routers::{Family, Program};

use crate::speaker::{Pair, ROUTER, block_on, hosts, pair, parameters, speak, target};

each!(
    no_route_is_missing_at_any_time_while_the_speaker_restarts_and_is_killed,
    a_peer_that_keeps_nothing_is_told_everything_at_once_and_loses_it_at_once,
    a_router_is_told_how_long_a_restart_may_take,
);

const COUNT: usize = 500;

/// A life of the process, which ends as it is told to; what is not said is cut off with it.
fn live(pair: &Pair, routes: usize, restarted: bool, stop: Option<Stop>) {
    pair.node.within(|| {
        block_on(async {
            let wanted = hosts("10.0.0.0", u32::try_from(routes).unwrap());
            let speaker = speak(target(ROUTER), parameters(), wanted, restarted).await;
            speaker.until_up().await;
            speaker.handle.told().await.unwrap();
            pair.router.until("all routes", || kept(pair).filter(|kept| *kept >= routes));
            // What is kept of the life before is kept no longer than until the end of this one's.
            pair.router.until("nothing stale", || {
                let first = pair.router.routes("10.0.0.0/32");
                first.iter().all(|route| !route.is_stale).then_some(())
            });
            if let Some(stop) = stop {
                speaker.handle.stop(stop).await.unwrap();
            }
        });
    });
}

/// How many routes the router has, of whichever life.
fn kept(pair: &Pair) -> Option<usize> {
    pair.router.count(Family::V4)
}

struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn no_route_is_missing_at_any_time_while_the_speaker_restarts_and_is_killed(
    program: &'static dyn Program,
) {
    let pair = pair(program, |neighbor| neighbor.keeps = true);
    live(&pair, COUNT, false, Some(Stop::Restart));
    let seen = pair.router.routes("10.0.0.0/32");
    assert!(seen.len() == 1, "kept after a restart has begun: {seen:?}");
    let (fewest, looks, over) =
        (AtomicUsize::new(usize::MAX), AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        // A failure ends the watch, too.
        let _over = AtEnd(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if let Some(kept) = kept(&pair) {
                    fewest.fetch_min(kept, Ordering::Relaxed);
                    looks.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        // GoBGP takes no connection for five seconds after one has ended.
        for stop in [None, Some(Stop::Restart)] {
            thread::sleep(Duration::from_millis(300));
            live(&pair, COUNT, true, stop);
        }
    });
    assert_eq!(fewest.into_inner(), COUNT, "of {looks:?} looks");
    assert!(looks.into_inner() > 5, "it has been looked at");
    // What is gone by the next life goes with its end, and everything with the last.
    live(&pair, 300, true, Some(Stop::Restart));
    pair.router.until("300 routes", || (kept(&pair) == Some(300)).then_some(()));
    live(&pair, 300, true, Some(Stop::Shutdown("uninstalled".to_owned())));
    pair.router.until("no route", || (kept(&pair) == Some(0)).then_some(()));
}

/// osrg/gobgp#2596, kube-router#1389, #1323: a restart of ours keeps nothing back from who knows of none.
fn a_peer_that_keeps_nothing_is_told_everything_at_once_and_loses_it_at_once(
    program: &'static dyn Program,
) {
    let pair = pair(program, |neighbor| neighbor.keeps = false);
    live(&pair, 5, true, Some(Stop::Restart));
    pair.router.until("no route", || (kept(&pair) == Some(0)).then_some(()));
}

fn a_router_is_told_how_long_a_restart_may_take(program: &'static dyn Program) {
    let restart = Some(Restart { time: 77, notification: true });
    let pair = pair(program, |neighbor| neighbor.keeps = true);
    pair.node.within(|| {
        block_on(async {
            let parameters = Parameters { graceful_restart: restart, ..parameters() };
            let speaker = speak(target(ROUTER), parameters, hosts("10.0.0.0", 1), false).await;
            speaker.until_up().await;
            pair.router
                .until("77 s", || (pair.router.session().restart_time == Some(77)).then_some(()));
        });
    });
}
