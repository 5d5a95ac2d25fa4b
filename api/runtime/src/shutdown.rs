//! Owns the end: SIGTERM, SIGINT and SIGHUP ask for it once, and everybody who holds the token hears of it.

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Its number on every architecture of Linux.
const SIGHUP: u32 = 1;

/// A token that is cancelled by SIGTERM, SIGINT or SIGHUP, and the task that does so. A second signal ends the process
/// at once. SIGHUP is left alone where it is ignored from the start, as under `nohup`.
///
/// # Errors
/// When the signals cannot be handled.
pub fn on_signals() -> std::io::Result<(CancellationToken, BoxFuture<'static, ()>)> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = match is_ignored(SIGHUP) {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let task = async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = next(hangup.as_mut()) => "SIGHUP",
            };
            if cancelled.is_cancelled() {
                tracing::warn!("{name} again: leaving at once");
                crate::logs::flush();
                std::process::exit(1);
            }
            tracing::info!("{name}: stopping");
            cancelled.cancel();
        }
    };
    Ok((token, task.boxed()))
}

async fn next(signal: Option<&mut Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Whether this process was started with a signal ignored (`SigIgn` of proc_pid_status(5)).
fn is_ignored(signal: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
