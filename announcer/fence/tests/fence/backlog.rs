//! A frame that has passed the fence may still wait in a queue. It waits behind nothing else.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{LATENESS, VIP4, VIP6, Wire, boottime, until};

/// Ends the flood however the test ends.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_full_queue_makes_no_answer_late() {
    let wire = Wire::lay();
    wire.bind(VIP4);
    wire.bind(VIP6);
    // Slow enough that what is queued takes most of a second, in the kernel's default queue.
    wire.node.run("tc qdisc add dev eth0 root handle 1: tbf rate 2mbit burst 3000 limit 200000");
    wire.node.run("tc qdisc add dev eth0 parent 1:1 handle 2: pfifo_fast");
    let mut holder = wire.settled("bpf", &[VIP4, VIP6]);
    let witness = wire.witness();
    let flood = wire.node.within(|| UdpSocket::bind("192.0.2.1:0").unwrap());
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flooding = End(&end);
        scope.spawn(|| {
            while !end.load(Ordering::SeqCst) {
                // A full queue is what this is for.
                (0..20).for_each(|_| drop(flood.send_to(&[0; 1400], "192.0.2.2:9")));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let backlog = || -> u64 {
            let text = wire.node.run("tc -s -j qdisc show dev eth0 root");
            let all: serde_json::Value = serde_json::from_str(&text).unwrap();
            all.as_array()
                .unwrap()
                .iter()
                .filter_map(|qdisc| qdisc["backlog"].as_u64())
                .max()
                .unwrap_or(0)
        };
        until("the queue is full", || backlog() > 100_000);
        witness.ask(&[VIP4, VIP6]);
        let deadline = holder.at(&format!("arm 500 {VIP4} {VIP6}"));
        until("both have answered", || {
            witness.last(VIP4).is_some() && witness.last(VIP6).is_some()
        });
        // Whatever waits in the queue at the deadline has left it by then.
        until("a full queue could have been sent", || boottime() > deadline + 2_000_000_000);
        drop(flooding);
        for vip in [VIP4, VIP6] {
            let margin = witness.last(vip).unwrap() as i64 - deadline as i64;
            println!("{vip}: last answer {} us from the deadline", margin / 1000);
            assert!(
                margin < LATENESS.as_nanos() as i64,
                "{vip} answered {margin} ns after its deadline"
            );
        }
    });
}
