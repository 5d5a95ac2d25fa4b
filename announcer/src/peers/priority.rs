//! Owns how the kernel schedules the thread of membership: before everything that is not urgent, where that is allowed.
//!
//! A node whose processors are busy would else be late by more than a lease, and lose what it holds to a node that is
//! busy as well.
#![allow(unsafe_code)]

use std::io;

use nix::libc;

/// The best share of an ordinary thread (setpriority(2)).
const FAVOURED: libc::c_int = -20;

/// Above every ordinary thread, below every other real-time one (sched(7)).
const LOWEST: libc::c_int = 1;

/// Lets the calling thread run before ordinary ones; where its control group has no real-time runtime, at least with the
/// largest share of an ordinary one.
///
/// # Errors
/// When the process may do neither: it takes CAP_SYS_NICE.
pub(super) fn raise() -> io::Result<()> {
    real_time().or_else(|_| favoured())
}

/// What the thread starts does not inherit it.
fn real_time() -> io::Result<()> {
    // SAFETY: all zeroes are a valid `sched_param`, here and with the fields that some C libraries add.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = LOWEST;
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread, and `parameters` outlives the call, which only reads it.
    done(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) })
}

fn favoured() -> io::Result<()> {
    // SAFETY: takes numbers only; on Linux 0 is the calling thread.
    done(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, FAVOURED) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
