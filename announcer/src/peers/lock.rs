//! Keeps the Lease by which other announcers decide in the hands of the members, all under one identity: who goes by it
//! gets nothing while a member lives. One member renews it; nothing that members decide depends on it but who may create
//! the first view.

use std::time::Duration;

use berth_api::election::{Election, Timing};
use berth_api::names::lease::MEMBERS;
use berth_membership::NodeId;
use berth_runtime::lease::{Tenure, contend, template};
use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::source::cluster::Name;

/// The durations of the Lease: others may take it when all members have not reached the API server for so long.
const DURATION: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(3);

/// How long a member leaves the renewals to the one that did them: longer than the pause between two, and so short that
/// client-go of kube-vip's older releases, which waits as long as its own settings say (5 s), never sees it unrenewed.
const PATIENCE: Duration = Duration::from_millis(3_800);

/// Members are that many milliseconds apart at most.
const APART: u64 = 800;

/// The name of the task.
pub(crate) const TASK: &str = "members' lease";

/// What keeps the Lease.
pub(super) struct Lock {
    /// The task, until `leave` is cancelled: then it gives the Lease back.
    pub(super) task: BoxFuture<'static, ()>,
    /// Until when members surely hold it, by what this node has written.
    pub(super) tenure: Tenure,
}

/// Contends for the Lease in the name of all members.
pub(super) fn keep(client: Client, lease: &Name, node: &str, leave: CancellationToken) -> Lock {
    let patience = PATIENCE + Duration::from_millis(NodeId::of(node).bits() % APART);
    let template = template(&lease.namespace, &lease.name);
    let timing = Timing::new(DURATION, RENEW_DEADLINE, RETRY).expect("they fit each other");
    let election = Election::of_group(template, MEMBERS, timing, patience);
    let (sender, tenure) = Tenure::granted();
    Lock { task: contend(client, election, sender, None, leave).boxed(), tenure }
}

/// Where there is no such Lease.
pub(super) fn none(leave: CancellationToken) -> Lock {
    Lock { task: leave.cancelled_owned().boxed(), tenure: Tenure::unlimited() }
}
