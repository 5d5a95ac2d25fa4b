//! Owns schedules that lead straight to where one rule is all that keeps two nodes apart. Chance still draws the clocks,
//! the delays and the phases of heartbeats, so each is a family of schedules.

use crate::faults::{Fault, Plan};
use crate::machine::{MILLI, Time};
use crate::random::Random;

/// When the first fault of a script happens: everything is served and still by then.
const QUIET: Time = 1_500 * MILLI;

/// Node 0 holds the only address, by itself and node 2; node 1 has not heard it for so long that it promised the
/// address to node 2. Then nodes 0 and 2 lose each other, and before the last promise to node 0 runs out, `next`
/// lets it go on without node 2.
fn minority_promise(next: impl Fn(&mut Vec<(Time, Fault)>, Time)) -> Plan {
    let (asked, end) = (QUIET + 900 * MILLI, QUIET + 2_000 * MILLI);
    let mut plan = Plan::calm(3, end);
    let mut faults = vec![
        (0, Fault::Candidate { host: 1, address: 0, may: false }),
        (0, Fault::Candidate { host: 2, address: 0, may: false }),
        (QUIET, Fault::Cut { from: 0, to: 1, span: 790 * MILLI }),
        (QUIET + 500 * MILLI, Fault::Cut { from: 0, to: 2, span: 1_500 * MILLI }),
        (asked - MILLI, Fault::Candidate { host: 2, address: 0, may: true }),
    ];
    let asked = QUIET + 770 * MILLI;
    faults.retain(|(_, fault)| !matches!(fault, Fault::Candidate { may: true, .. }));
    faults.push((asked - MILLI, Fault::Candidate { host: 2, address: 0, may: true }));
    faults.push((asked, Fault::Take { host: 2, address: 0 }));
    next(&mut faults, asked);
    faults.sort_by_key(|(at, _)| *at);
    (plan.faults, plan.healed) = (faults, end);
    plan
}

/// The node that promised restarts, forgets, and grants the holder.
pub(crate) fn forgetful(_: &mut Random) -> Plan {
    minority_promise(|faults, asked| {
        faults.push((asked + 5 * MILLI, Fault::Kill { host: 1, down: MILLI }))
    })
}

/// The voters change to a set without the node that promised.
pub(crate) fn abandoned_promise(_: &mut Random) -> Plan {
    minority_promise(|faults, asked| {
        for (from, to) in [(1, 2), (2, 1), (2, 0)] {
            faults.push((asked + 15 * MILLI, Fault::Cut { from, to, span: 1_200 * MILLI }));
        }
        faults.push((asked, Fault::ApiCut { host: 2, span: 1_200 * MILLI }));
        faults.push((asked + 17 * MILLI, Fault::Propose { host: 0, voters: vec![0] }));
    })
}
