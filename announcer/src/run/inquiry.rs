//! Who asks what is known of each address, or each router: by a signal, or by a page.

use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::reconcile::drive::{About, Inquiry};

/// How long an answer may take: a round may have much to do.
const PATIENCE: Duration = Duration::from_secs(5);

/// Logs all that is known of each address, and of each router where there are any, at every SIGUSR1.
pub(super) fn dump_on_signal(ask: mpsc::Sender<Inquiry>) -> anyhow::Result<BoxFuture<'static, ()>> {
    let mut asked = signal(SignalKind::user_defined1()).context("listening for SIGUSR1")?;
    let dumping = async move {
        while asked.recv().await.is_some() {
            match inquire(&ask, About::Vips).await {
                Some(vips) => tracing::info!(%vips, "SIGUSR1: what is known of each address"),
                None => tracing::warn!("SIGUSR1: too busy to say what is known of each address"),
            }
            match inquire(&ask, About::Routers).await {
                Some(routers) if routers == Value::Array(Vec::new()) => {}
                Some(routers) => tracing::info!(%routers, "SIGUSR1: what is known of each router"),
                None => tracing::warn!("SIGUSR1: too busy to say what is known of each router"),
            }
        }
    };
    Ok(dumping.boxed())
}

pub(super) fn page(ask: mpsc::Sender<Inquiry>, of: About) -> BoxFuture<'static, Option<String>> {
    async move { inquire(&ask, of).await.map(|told| format!("{told:#}\n")) }.boxed()
}

/// Everything that is known; nothing if nobody answers in time.
async fn inquire(ask: &mpsc::Sender<Inquiry>, of: About) -> Option<Value> {
    let (answer, answered) = oneshot::channel();
    let asking = async {
        ask.send(Inquiry { of, answer }).await.ok()?;
        answered.await.ok()
    };
    tokio::time::timeout(PATIENCE, asking).await.ok().flatten()
}
