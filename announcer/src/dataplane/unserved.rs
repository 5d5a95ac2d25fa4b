//! The guard: an nftables table of our own that drops, rather than refuses, what kube-proxy does not yet serve.
//!
//! kube-proxy programs an address after it has seen it in a Service's status, so for a moment after binding it the node
//! itself would answer a client's SYN with a reset. A dropped SYN is sent again a second later, and finds kube-proxy.
//!
//! The chain sits in the `input` hook at priority 150: after kube-proxy's own filters (0, so that its rejections of
//! Services without endpoints still reach the client) and after IPVS, which takes its packets at 98 and 99
//! (`ip_vs_ops4` in Linux). What kube-proxy serves in any of its modes never comes by here, because its destination has
//! been rewritten before; and a packet dropped here leaves no connection tracking entry behind that would keep the next
//! one from being rewritten.
//!
//! Where host ports are closed behind addresses (`enable_service_security`) the same chain drops all that still has such an
//! address there and is no ICMP: it is for a port of the node, which no Service has opened to whoever reaches the address.
//! Answers to connections that the node itself began pass, with such an address as their source or not.
//!
//! A second chain drops the same before anybody rewrites it: kube-proxy a NodePort, or an external IP of a stranger, a
//! CNI a `hostPort` of a pod. It sits in the `prerouting` hook at priority -140: after connection tracking (-200), which
//! puts fragments together and tells what is established, after forwarding to the previous owner (-150), and before
//! translation (-100). What is established there goes on: a port that a Service serves no more cuts no connection, as
//! before. It looks at addresses that this node has bound and at nothing that passes through. What the node itself sends
//! is rewritten in `output` and not looked at: it has all its ports anyway.
//!
//! What a Service serves is let pass there, and kube-proxy may not take it: then others rewrite it by its number. Of addresses
//! where that may be (`source::doubt`) what was rewritten is looked at again, at `input` and in a chain in the `forward`
//! hook: it has to have been led to an endpoint of a Service of the address.
//!
//! Owns the table `inet berth` (each instance has one of its own name). Replaces it whole by `nft`; reads it, and changes
//! elements of its sets, by netlink, in pieces where there are many (`elements`).

mod elements;
mod layout;

use std::io;
use std::time::{Duration, Instant};

use self::elements::{Reading, changes, renewal, sets};
pub use self::layout::Layout;
use self::layout::absent;
use crate::kernel::events::{Event, Signal};
use crate::kernel::netfilter::Netfilter;
use crate::kernel::nft;
use crate::kernel::nftables::{self, Change, shown};
use crate::kernel::reconciler::{Keep, Why};
use crate::kernel::{Door, Guard, Guarded};

/// Pause between looks at the table when nothing happens: somebody may have changed an element. So often what is doubted is
/// said again, too.
const LOOK: Duration = Duration::from_secs(30);

/// Removes the table of this name, if it is there.
///
/// # Errors
/// When it could not be removed.
pub async fn remove(table: &str) -> Result<(), nft::Error> {
    nft::load(&absent(table)).await
}

/// Why the guard is not as it is to be.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// `nft` has not written the table.
    #[error(transparent)]
    Table(#[from] nft::Error),
    /// Nobody else may: it reads like a missing right else.
    #[error(
        "the table inet {table} belongs to another program (process {owner}, as nftables has it): end that, or have it take \
         another name ({source})"
    )]
    Taken {
        /// The table.
        table: String,
        /// Whose it is.
        owner: u32,
        /// What `nft` says of it.
        source: nft::Error,
    },
    /// The kernel has not taken the elements of a set.
    #[error("writing elements of nftables: {0}")]
    Elements(#[from] io::Error),
}

/// Keeps the table, and tells each change of what holds.
pub(super) struct Table {
    layout: Layout,
    /// What it guards; nothing if that is not known.
    holds: Option<Guarded>,
    /// What it guards in part, where the kernel does not take all of it.
    partly: Option<Guarded>,
    /// Why it cannot be had, as the log was told.
    missing: Option<String>,
    /// When all that is doubted was said last.
    said: Option<Instant>,
    netfilter: Netfilter,
    losses: Signal,
}

impl Table {
    pub(super) fn new(door: &Door, layout: Layout) -> Self {
        let ours = layout.table.clone();
        let losses = door.events.signal(move |event| match event {
            Event::Lost { table, .. } => *table == ours,
            Event::AnyRules => true,
            _ => false,
        });
        let netfilter = door.netfilter.clone();
        Self { layout, holds: None, partly: None, missing: None, said: None, netfilter, losses }
    }

    /// What the kernel has; nothing if it is not the table that is written.
    async fn look(&mut self) -> io::Result<Option<Guarded>> {
        let Layout { table, closes } = &self.layout;
        let (chains, rules) = shown::chains(&self.netfilter, table).await?;
        self.partly.take_if(|_| chains.is_empty());
        if !self.layout.stands(&chains, rules) {
            return Ok(None);
        }
        let mut reading = Reading::default();
        for set in sets(*closes) {
            shown::elements(&self.netfilter, table, set, |key| reading.take(set, key)).await?;
        }
        Ok(reading.end(*closes))
    }

    async fn write_whole(&mut self, guarded: &Guarded, full: bool) -> Result<(), Error> {
        let now = Instant::now();
        let (script, with_it) = self.layout.whole(guarded, full);
        if let Err(source) = nft::load(&script).await {
            return Err(self.refused(source).await);
        }
        self.change(changes(&with_it, guarded, self.layout.closes, full)).await?;
        self.said = Some(now);
        Ok(())
    }

    /// What it means that `nft` has not written the table.
    async fn refused(&self, source: nft::Error) -> Error {
        let table = self.layout.table.clone();
        match shown::owner(&self.netfilter, &table).await {
            Ok(Some(owner)) => Error::Taken { table, owner, source },
            _ => Error::Table(source),
        }
    }

    async fn change(&self, pieces: Vec<Vec<Change>>) -> io::Result<()> {
        for piece in pieces {
            nftables::change(&self.layout.table, &piece).await?;
        }
        Ok(())
    }

    /// Says again what is doubted, where it is time: else it ends ([`layout`]).
    async fn renew(&mut self, guarded: &Guarded) -> Result<(), Error> {
        let (now, closes) = (Instant::now(), self.layout.closes);
        if !closes || self.said.is_some_and(|said| now < said + LOOK / 2) {
            return Ok(());
        }
        if self.change(renewal(guarded)).await.is_err() {
            return self.write_whole(guarded, closes).await;
        }
        self.said = Some(now);
        Ok(())
    }

    async fn write(&mut self, holds: Option<&Guarded>, guarded: &Guarded) -> Result<(), Error> {
        let closes = self.layout.closes;
        if let Some(holds) = holds
            && self.change(changes(holds, guarded, closes, closes)).await.is_ok()
        {
            return Ok(());
        }
        let written = self.write_whole(guarded, closes).await;
        match &written {
            // Less is better than nothing, and no reason to say that it is all.
            Err(Error::Table(nft::Error::Refused { .. })) if closes => {
                if self.partly.as_ref() != Some(guarded) {
                    let plain = self.write_whole(guarded, false).await;
                    self.partly = plain.is_ok().then(|| guarded.clone());
                }
            }
            Err(_) => {}
            Ok(()) => self.partly = None,
        }
        written
    }
}

impl Keep for Table {
    type Wanted = Guarded;
    type Event = Guard;

    /// What is lost is missed with the next packet.
    const CROWD: Duration = Duration::ZERO;
    const GLANCE: Duration = LOOK;
    const LOOK: Duration = LOOK;

    async fn make(&mut self, guarded: &Guarded, why: Why) -> Result<Option<Guard>, Guard> {
        if why == Why::Doubt {
            self.holds = self.look().await.ok().flatten();
        }
        let holds = self.holds.take();
        let mut kept = Ok(());
        if holds.as_ref() != Some(guarded) {
            kept = self.write(holds.as_ref(), guarded).await;
        }
        if kept.is_ok() {
            kept = self.renew(guarded).await;
        }
        if let Err(error) = kept {
            let why = error.to_string();
            if self.missing.as_ref() != Some(&why) {
                tracing::warn!(
                    error = why,
                    closes = self.layout.closes,
                    "no guard in nftables: until kube-proxy has programmed a new address, connections to it are \
                     refused instead of delayed, and ports of the host answer there whatever enable_service_security says"
                );
            }
            self.missing = Some(why.clone());
            return Err(Guard::Unavailable(why.into()));
        }
        if self.missing.take().is_some() {
            tracing::info!("the guard is there now");
        }
        self.holds = Some(guarded.clone());
        Ok(Some(Guard::Holds(guarded.clone())))
    }

    fn is_watched(&self, _: &Guarded) -> bool {
        true
    }

    async fn lost(&mut self) {
        self.losses.next().await;
    }

    /// Somebody may have changed an element: only a look at everything shows it.
    async fn stands(&mut self, _: &Guarded) -> bool {
        true
    }
}
