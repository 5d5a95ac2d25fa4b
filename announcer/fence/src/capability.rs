//! Owns the answer to "which capability is missing". Reads it from the kernel, guesses nothing.

use std::fs;
use std::io;

use crate::error::RefusalCause;

const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const BPF: u32 = 39;

/// What an operation needs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Needs {
    /// CAP_BPF and CAP_NET_ADMIN; CAP_SYS_ADMIN stands for the first.
    Bpf,
    /// CAP_NET_ADMIN.
    NetAdmin,
}

/// Turns the kernel's answer to `operation` into a refusal that names what to change.
pub(crate) fn refusal(
    operation: &'static str,
    needs: Needs,
    kernel: &'static str,
    source: io::Error,
    detail: String,
) -> RefusalCause {
    if source.kind() != io::ErrorKind::PermissionDenied {
        return RefusalCause::Unsupported { operation, needed: kernel, source, detail };
    }
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let (needed, look_at) = match needs {
        Needs::Bpf => (
            "CAP_BPF and CAP_NET_ADMIN",
            "the container's seccomp profile, and before Linux 5.11 at RLIMIT_MEMLOCK",
        ),
        Needs::NetAdmin => ("CAP_NET_ADMIN", "security modules and the user namespace"),
    };
    match missing(effective(&status).unwrap_or(u64::MAX), needs) {
        none if none.is_empty() => RefusalCause::Denied { operation, look_at, source },
        some => RefusalCause::Capability { operation, needed, missing: some.join(", ") },
    }
}

fn missing(effective: u64, needs: Needs) -> Vec<&'static str> {
    let has = |capability: u32| effective & 1 << capability != 0;
    let mut missing = Vec::new();
    if matches!(needs, Needs::Bpf) && !has(BPF) && !has(SYS_ADMIN) {
        missing.push("CAP_BPF");
    }
    if !has(NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    missing
}

/// The effective set in a `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let status = "Name:\tx\nCapEff:\t0000000000001000\nCapBnd:\t0\n";
        assert_eq!(effective(status), Some(1 << NET_ADMIN));
        assert_eq!(missing(1 << NET_ADMIN, Needs::Bpf), ["CAP_BPF"]);
        assert_eq!(missing(1 << NET_ADMIN, Needs::NetAdmin), [""; 0]);
        assert_eq!(missing(0, Needs::Bpf), ["CAP_BPF", "CAP_NET_ADMIN"]);
        assert_eq!(missing(1 << NET_ADMIN | 1 << SYS_ADMIN, Needs::Bpf), [""; 0]);
    }
}
