//! Owns the end: SIGTERM and SIGINT ask for it once, and everybody who holds the token hears of it.

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by SIGTERM or SIGINT, and the task that does so. A second signal ends the process at once.
///
/// # Errors
/// When the signals cannot be handled.
pub fn on_signals() -> std::io::Result<(CancellationToken, BoxFuture<'static, ()>)> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let task = async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if cancelled.is_cancelled() {
                tracing::warn!("{name} again: leaving at once");
                std::process::exit(1);
            }
            tracing::info!("{name}: stopping");
            cancelled.cancel();
        }
    };
    Ok((token, task.boxed()))
}
