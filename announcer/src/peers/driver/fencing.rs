//! Owns how the keeper has the kernel silence what is not held: deadlines, repair, and what is done where it fails.

use std::thread;

use berth_fence::{BootTime, Finding};
use berth_membership::{Moment, Parameters};
use tokio::task::JoinHandle;

use super::{Driver, SURVEY, now};
use crate::metrics::kind;

impl Driver {
    /// Where an address could not be muted, its deadline silences it: nothing more is said before that.
    pub(super) fn wait_out(&self, deadline: Option<Moment>) {
        let lease = Parameters::default().lease;
        let deadline = deadline.unwrap_or_else(|| now() + lease);
        thread::sleep(deadline.since(now()).min(lease));
    }

    /// Carries deadlines into the kernel where arming does not.
    pub(super) fn refresh(&mut self) {
        match self.fence.poll(BootTime::now()) {
            Ok(due) => self.fence_due = due,
            Err(error) => {
                tracing::warn!(%error, "held addresses fall silent");
                self.count("refresh");
                self.fence_due = Some(BootTime::now().after(SURVEY));
            }
        }
    }

    pub(super) fn attach(&mut self) {
        for error in self.fence.attach(&self.interfaces) {
            tracing::warn!(%error, "the fence is not everywhere");
            self.count("attach");
        }
    }

    /// Takes in what an inspection has found: repairs the fence, and tells what is wrong with it once.
    pub(super) fn repair(&mut self, findings: Vec<Finding>) {
        self.inspecting = None;
        let flaws: Vec<String> = findings.iter().map(ToString::to_string).collect();
        if flaws != self.flaws {
            for flaw in &flaws {
                tracing::warn!("the fence has a flaw: {flaw}");
            }
            self.flaws = flaws;
        }
        self.metrics.fence_flaws.set(findings.len().try_into().unwrap_or(i64::MAX));
        if findings.iter().any(|finding| matches!(finding, Finding::Missing { .. })) {
            self.attach();
        }
        self.metrics.fence.get_or_create(&kind(self.fence.kind().as_str())).set(1);
    }
}

/// What the inspection that is under way finds, if there is one.
pub(super) async fn found(inspecting: &mut Option<JoinHandle<Vec<Finding>>>) -> Vec<Finding> {
    match inspecting {
        // One that panicked has found nothing, and the next one may.
        Some(inspection) => inspection.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}
