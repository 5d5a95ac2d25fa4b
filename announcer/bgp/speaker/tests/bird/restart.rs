//! A speaker that is restarted or killed loses no route in BIRD's table; one that goes for good leaves none.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use berth_bgp::Stop;

use crate::router::Router;
use crate::speaker::{block_on, hosts, parameters, speak, target};

const KEEPS: &str = "
protocol bgp node {
  local 192.0.2.1 as 65001;
  neighbor 192.0.2.11 as 65000;
  passive on;
  graceful restart on;
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
";

const COUNT: usize = 500;

/// A life of the process, which ends as it is told to; what is not said is cut off with it.
fn live(router: &Router, routes: u32, restarted: bool, stop: Option<Stop>) {
    router.node.within(|| {
        block_on(async {
            let wanted = hosts("10.0.0.0", routes);
            let speaker = speak(target("192.0.2.1:179"), parameters(), wanted, restarted).await;
            speaker.until_up().await;
            speaker.handle.told().await.unwrap();
            router.until("show route count", |_| router.count("node") >= routes as usize);
            if let Some(stop) = stop {
                speaker.handle.stop(stop).await.unwrap();
            }
        });
    });
}

struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_route_is_missing_at_any_time_while_the_speaker_restarts_and_is_killed() {
    let router = Router::with(KEEPS);
    live(&router, COUNT as u32, false, Some(Stop::Restart));
    let (fewest, over) = (AtomicUsize::new(usize::MAX), AtomicBool::new(false));
    thread::scope(|scope| {
        // A failure ends the watch, too.
        let _over = AtEnd(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                fewest.fetch_min(router.count("node"), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
        });
        for stop in [Some(Stop::Restart), None, None, Some(Stop::Restart)] {
            thread::sleep(Duration::from_millis(100));
            live(&router, COUNT as u32, true, stop);
        }
    });
    assert_eq!(fewest.into_inner(), COUNT);
    // What is gone by the next life goes with its end, and everything with the last.
    live(&router, 300, true, Some(Stop::Restart));
    router.until("show route count", |_| router.count("node") == 300);
    live(&router, 300, true, Some(Stop::Shutdown("uninstalled".to_owned())));
    router.until("show route count", |_| router.count("node") == 0);
}
