//! Whether members decide or a Lease: who has the fence then, and what ends a process that goes by a Lease once members decide.

use std::time::Duration;

use anyhow::Context;
use berth_api::names::lease;
use berth_runtime::http::Health;
use berth_runtime::supervise::Supervisor;
use futures::FutureExt;
use futures::future::select_all;
use kube::Client;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Election};
use crate::fencing;
use crate::metrics::Metrics;
use crate::ownership::backstop::{Fenced, Order};
use crate::ownership::membership::{Command, MembershipEvent};
use crate::ownership::{Backstop, Members};
use crate::peers::join::{self as member, Joined, Member};
use crate::peers::{LOCK, driver};

/// How long the Lease may take to be given back.
const GIVING_BACK: Duration = Duration::from_secs(2);
/// The thread that has the fence.
pub(super) enum Keeper {
    Membership {
        commands: mpsc::UnboundedSender<Command>,
        /// The Lease that members hold against other announcers.
        give_back: CancellationToken,
    },
    Lease(mpsc::UnboundedSender<Order>),
}

impl Keeper {
    /// Whether it is a member's.
    pub(super) fn is_member(&self) -> bool {
        matches!(self, Self::Membership { .. })
    }

    /// Tells it to end, and takes the fence away if nothing is bound any more; the Lease is given back where all that it is about
    /// is handed over. Gives its name.
    pub(super) fn end(&self, unfence: bool, handed: bool) -> &'static str {
        match self {
            Self::Membership { commands, give_back } => {
                if handed {
                    give_back.cancel();
                }
                let _ = commands.send(Command::End { unfence });
                driver::THREAD
            }
            Self::Lease(orders) => {
                let _ = orders.send(Order::End { unfence });
                fencing::thread::THREAD
            }
        }
    }
}

/// The part of this process in who decides.
pub(super) struct Part {
    pub(super) keeper: Keeper,
    /// Where it is a member.
    pub(super) members: Option<Members>,
    /// Where Leases decide.
    pub(super) backstop: Option<Backstop>,
    /// What the driver of membership tells.
    pub(super) told: mpsc::UnboundedReceiver<MembershipEvent>,
    /// What the thread of the fence tells.
    pub(super) fenced: mpsc::UnboundedReceiver<Fenced>,
}

/// Starts what keeps the fence.
///
/// # Errors
/// When the thread cannot be had.
pub(super) fn part(
    joined: Joined,
    metrics: &Metrics,
    health: &Health,
    supervisor: &mut Supervisor,
) -> anyhow::Result<Part> {
    Ok(match joined {
        Joined::Member(member) => {
            let Member { members, told, commands, tasks, give_back } = *member;
            supervisor.spawn_all(tasks);
            let keeper = Keeper::Membership { commands, give_back };
            let (members, fenced) = (Some(members), mpsc::unbounded_channel().1);
            Part { keeper, members, backstop: None, told, fenced }
        }
        Joined::Lease(fence) => {
            let (orders, ordered) = mpsc::unbounded_channel();
            let (tell, fenced) = mpsc::unbounded_channel();
            let thread = fencing::thread::start(fence, metrics, health, ordered, tell);
            let thread = thread.context("starting the thread of the fence")?;
            supervisor.spawn(fencing::thread::THREAD, thread);
            let backstop = Some(Backstop::new(orders.clone()));
            let (keeper, told) = (Keeper::Lease(orders), mpsc::unbounded_channel().1);
            Part { keeper, members: None, backstop, told, fenced }
        }
    })
}

/// The views by which others may decide on what a Lease decides on here.
pub(super) fn views(config: &Config) -> Vec<&'static str> {
    let of_services = match config.election {
        Election::Nothing | Election::Everyone => None,
        _ => Some(lease::VIEW),
    };
    let is_by_lease = config.control_plane.is_some() && config.bgp.is_none();
    let of_control_plane = is_by_lease.then_some(lease::VIEW_OF_CONTROL_PLANE);
    of_services.into_iter().chain(of_control_plane).collect()
}

/// Stops this process, which goes by a Lease, when there is one of these views, or the key for want of which it does: two elections
/// would have two owners, and no view comes while this process holds the Lease.
pub(super) async fn give_way(
    client: Client,
    namespace: String,
    views: Vec<&'static str>,
    wants_membership: bool,
    superseded: CancellationToken,
    stop: CancellationToken,
    health: Health,
) {
    let key = async {
        match wants_membership {
            true => member::key_appears(&client, &namespace).await,
            false => std::future::pending().await,
        }
    };
    let appears =
        |name: &'static str| member::view_appears(&client, &namespace, name, &health).boxed();
    let what = tokio::select! {
        _ = select_all(views.iter().map(|name| appears(name))) => "a view of membership",
        () = key => "a key of membership",
    };
    tracing::warn!("there is {what} now, so the Lease decides no longer: handing over");
    if !stop.is_cancelled() {
        superseded.cancel();
        stop.cancel();
    }
    std::future::pending::<()>().await;
}

/// Waits until the Lease that members hold is given back.
pub(super) async fn give_back(supervisor: &mut Supervisor) {
    if !supervisor.finish(&[LOCK], GIVING_BACK).await.is_empty() {
        tracing::warn!("the Lease that members hold is not given back: it runs out");
    }
}
