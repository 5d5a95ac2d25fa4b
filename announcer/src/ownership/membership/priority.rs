//! Owns how the kernel schedules the thread of membership: before everything that is not urgent, where that is allowed.
//!
//! A node whose processors are busy would else be late by more than a lease, and lose what it holds to a node that is
//! busy as well.
#![allow(unsafe_code)]

use std::io;

use nix::libc;

/// Above every ordinary thread, below every other real-time one (sched(7)).
const LOWEST: libc::c_int = 1;

/// Lets the calling thread run before ordinary ones. What it starts does not inherit that.
///
/// # Errors
/// When the process may not: it takes CAP_SYS_NICE, and a control group that has real-time runtime.
pub(super) fn raise() -> io::Result<()> {
    // SAFETY: all zeroes are a valid `sched_param`, here and with the fields that some C libraries add.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = LOWEST;
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread, and `parameters` outlives the call, which only reads it.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
