//! Owns the proof, at every start, that this kernel runs the program as meant and reads the same clock as we do. In a
//! time namespace it would not, and every deadline would be off by the namespace's offset.

use std::net::IpAddr;
use std::time::Duration;

use super::maps::{KERNEL, Maps};
use super::program::{DROP, PASS};
use super::sys;
use crate::address::key;
use crate::capability::{Needs, refusal};
use crate::error::RefusalCause;
use crate::time::BootTime;

/// Longer than a few frames take, so that a deadline this far away has not passed.
const AHEAD: Duration = Duration::from_secs(30);

/// From the block that is never assigned (RFC 1112 section 4).
const PROBE: [u8; 4] = [240, 0, 0, 1];
const OTHER: [u8; 4] = [240, 0, 0, 2];

/// Shows the program frames that it has to drop and frames that it has to pass. The maps are as before afterwards.
pub(super) fn run(maps: &Maps, program: &sys::Program) -> Result<(), RefusalCause> {
    let failed = |source| refusal("testing the program", Needs::Bpf, KERNEL, source, String::new());
    let probe = key(IpAddr::from(PROBE));
    maps.slots.insert(&probe, 0).map_err(failed)?;
    let result = cases(maps, program);
    maps.deadlines.store(0, BootTime::PAST.as_nanos());
    maps.slots.remove(&probe).map_err(failed)?;
    result
}

fn cases(maps: &Maps, program: &sys::Program) -> Result<(), RefusalCause> {
    let expect = |frame, sender, deadline: BootTime, expected| {
        maps.deadlines.store(0, deadline.as_nanos());
        let failed =
            |source| refusal("testing the program", Needs::Bpf, KERNEL, source, String::new());
        let (verdict, _) = program.test_run(&arp_reply(sender), 1).map_err(failed)?;
        if verdict == expected {
            Ok(())
        } else {
            Err(RefusalCause::SelfTest { frame, verdict, expected })
        }
    };
    let now = BootTime::now();
    expect("a reply for a mute address", PROBE, BootTime::PAST, DROP)?;
    expect("a reply after the deadline", PROBE, now, DROP)?;
    expect("a reply before the deadline", PROBE, now.after(AHEAD), PASS)?;
    expect("a reply for a foreign address", OTHER, BootTime::PAST, PASS)
}

/// RFC 826: `sender` is at 02:00:00:00:00:01.
pub(super) fn arp_reply(sender: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x06];
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1]);
    frame.extend(sender);
    frame.extend([2, 0, 0, 0, 0, 2, 240, 0, 0, 3]);
    frame
}
