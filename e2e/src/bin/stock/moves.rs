//! The matrix of halves, and each move between its fields: whoever allocates at once, announcers node by node, and first on
//! those nodes that do not answer, as docs/migrating-from-kube-vip.md says. A client of each family is there throughout.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::stock::Stock;
use berth_e2e::world::{annotated, env, eventually, kubectl};
use serde_json::json;

use crate::halves::{Halves, NODES, Ours, Side};
use crate::seen::{Ears, Heard, seconds};
use crate::told::Told;

/// Between two nodes: a pod of a DaemonSet takes as long to start.
const BETWEEN: Duration = Duration::from_secs(2);
/// Who answered without a right to would have done so by then.
const PATIENCE: Duration = Duration::from_secs(3);
/// Who allocates is on no client's way.
const UNTOUCHED: Duration = Duration::from_millis(500);
/// From one announcer of ours to another, and from kube-vip's end to ours.
const TAKEOVER: Duration = Duration::from_secs(1);
const TAKEN: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
enum Step {
    Allocate(Side),
    Announce(Side),
}

use Side::{Berth, Stock as Theirs};
use Step::{Allocate, Announce};

/// From both stock and back to it by every edge of the matrix, in both directions, and from each side to itself.
fn plans() -> [(Ours, Vec<Step>); PLANS] {
    let first = [Allocate(Berth), Announce(Berth), Allocate(Berth), Announce(Berth)];
    let back = [Allocate(Theirs), Announce(Theirs)];
    let other = [Announce(Berth), Allocate(Berth), Announce(Theirs), Allocate(Theirs)];
    let itself = [Announce(Theirs), Allocate(Theirs), Announce(Berth), Announce(Theirs)];
    [
        (Ours::Membership, [&first[..], &back[..]].concat()),
        (Ours::Membership, other.to_vec()),
        (Ours::Image, itself.to_vec()),
    ]
}

/// How many plans there are.
pub(crate) const PLANS: usize = 3;

/// One plan in a world of its own.
pub(crate) async fn one(stock: &Stock, plan: usize, told: &mut Told) -> Result<()> {
    let (mode, steps) = &plans()[plan];
    Tour { mode: *mode, told }.through(stock, steps).await
}

struct Tour<'a> {
    mode: Ours,
    told: &'a mut Told,
}

impl Tour<'_> {
    async fn through(&mut self, stock: &Stock, steps: &[Step]) -> Result<()> {
        let mut halves = Halves::up(stock, Theirs, self.mode, &env([])).await?;
        halves.world.expose("web", json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;
        let addresses = given(&halves, "web", 40).await?;
        self.field(&halves).await?;
        for step in steps {
            self.step(&mut halves, *step, &addresses).await?;
            self.field(&halves).await?;
        }
        self.way_back(&halves, &addresses).await?;
        halves.down()
    }

    /// One move, and its row.
    async fn step(&mut self, halves: &mut Halves, step: Step, addresses: &[IpAddr]) -> Result<()> {
        let (allocates, announces) = (halves.allocates(), halves.announces(0));
        let (half, from, to, other) = match step {
            Allocate(to) => ("allocating", allocates, to, announces),
            Announce(to) => ("announcing", announces, to, allocates),
        };
        let (from, other) = (from.context("nobody is there")?, other.context("nobody is there")?);
        let is_ours = from == Berth || to == Berth;
        let what = format!("{half} half from {from} to {to} beside {other}, by {}", self.mode);
        eprintln!("{what}");
        let ears = Ears::open(halves, addresses).await.with_context(|| what.clone())?;
        match step {
            Allocate(side) => halves.allocate(side).await,
            Announce(side) => node_by_node(halves, side, addresses).await,
        }
        .with_context(|| what.clone())?;
        let again = ears.answered(40).await;
        tokio::time::sleep(PATIENCE).await;
        let heard = ears.close()?;
        let mut left = halves.tables(from)?;
        left.retain(|_| from != to);
        for address in addresses {
            let holders = halves.holders(*address)?.len();
            if holders != 1 {
                left.push(format!("{address} on {holders} nodes"));
            }
        }
        let limit = match (step, from, to) {
            (Allocate(_), ..) => Some(UNTOUCHED),
            (_, Berth, Berth) => Some(TAKEOVER),
            (_, _, Berth) => Some(TAKEN),
            _ => None,
        };
        let judged = again.and_then(|()| holds(&heard, limit, &left));
        let judged = judged.with_context(|| halves.logs());
        let word = self.told.word(&what, is_ours, judged);
        let left = if left.is_empty() { "0".to_owned() } else { left.join(", ") };
        let row = format!(
            "| {half} | {from} | {to} | {other} | {} | {heard} | {left} | {word} |",
            self.mode
        );
        eprintln!("{row}");
        self.told.moves.push(row);
        Ok(())
    }

    /// Whether a Service that is new is served by the halves that are there, and what is left of it; a row where none is there yet.
    async fn field(&mut self, halves: &Halves) -> Result<()> {
        let (Some(allocates), Some(announces)) = (halves.allocates(), halves.announces(0)) else {
            return Ok(());
        };
        let begins = format!("| {allocates} | {announces} | {} |", self.mode);
        if self.told.fields.iter().any(|row| row.starts_with(&begins)) {
            return Ok(());
        }
        let is_ours = allocates == Berth || announces == Berth;
        let what = format!("{allocates} allocates, {announces} announces, by {}", self.mode);
        // Who waits for claims waits for a minute once the provider's Lease is a stranger's.
        let limit = if (allocates, announces) == (Theirs, Berth) { 90 } else { 20 };
        let (row, judged) = match served(halves, limit).await {
            Ok((after, gone, left)) => {
                let all_gone = left.iter().all(|count| *count == 0);
                let judged = all_gone.then_some(()).context("something is left");
                (
                    format!("{} | {} | {}, {} |", seconds(after), seconds(gone), left[0], left[1]),
                    judged,
                )
            }
            Err(error) => ("not served | | |".to_owned(), Err(error)),
        };
        let word = self.told.word(&what, is_ours, judged.with_context(|| halves.logs()));
        let row = format!("{begins} {row} {word} |");
        eprintln!("{row}");
        self.told.fields.push(row);
        Ok(())
    }

    /// What Berth has left where both halves are stock again, and have been told as the page says.
    async fn way_back(&mut self, halves: &Halves, addresses: &[IpAddr]) -> Result<()> {
        let mine = "ipaddress.kubernetes.io/managed-by=berth";
        kubectl(&halves.world.lab, &["delete", "ipaddresses", "--selector", mine])?;
        let claims = halves.world.claims().await?.len();
        let tables = halves.tables(Berth)?;
        let leases = halves.leases("berth-").await?;
        let names: Vec<_> = leases.iter().map(|(name, _)| name.as_str()).collect();
        for address in addresses {
            halves.world.curl(*address).with_context(|| halves.logs())?;
        }
        halves.world.delete("web").await?;
        let gone = eventually("the Service is gone", 20, || async {
            Ok(halves.world.services("default").get_opt("web").await?.is_none().then_some(()))
        });
        let judged = gone.await.and_then(|()| {
            ensure!(claims == 0 && tables.is_empty(), "{claims} claims, {tables:?}");
            Ok(())
        });
        let what = format!("left of Berth after the way back, by {}", self.mode);
        let word = self.told.word(&what, true, judged);
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        self.told.left.push(format!(
            "{what}: {claims} claims, {} tables, no finalizer; Leases that stay: {names} ({word})",
            tables.len()
        ));
        Ok(())
    }
}

fn holds(heard: &Heard, limit: Option<Duration>, left: &[String]) -> Result<()> {
    heard.one_at_a_time()?;
    ensure!(left.is_empty(), "{left:?}");
    limit.map_or(Ok(()), |limit| heard.answered_within(limit))
}

/// First the nodes that do not answer for it.
async fn node_by_node(halves: &mut Halves, side: Side, addresses: &[IpAddr]) -> Result<()> {
    let holders = halves.holders(addresses[0])?;
    let owner = *holders.first().context("nobody has the address")?;
    for node in (0..NODES).filter(|node| *node != owner).chain([owner]) {
        halves.announce(node, side).await?;
        tokio::time::sleep(BETWEEN).await;
    }
    halves.settled().await
}

/// The addresses of a Service with two families, once both are answered.
pub(crate) async fn given(halves: &Halves, name: &str, limit: u64) -> Result<Vec<IpAddr>> {
    eventually(&format!("{name} is served"), limit, || async {
        let addresses = annotated(&halves.world.service(name).await?);
        let answered = || addresses.iter().all(|address| halves.world.curl(*address).is_ok());
        Ok((addresses.len() == 2 && answered()).then_some(addresses))
    })
    .await
    .with_context(|| halves.logs())
}

/// How long it takes until a new Service is served, and until it is gone once it is deleted; then how many nodes have an
/// address of it, and how many Leases there are of its name.
async fn served(halves: &Halves, limit: u64) -> Result<(Duration, Duration, [usize; 2])> {
    const NAME: &str = "one-more";
    let begun = Instant::now();
    halves.world.expose(NAME, json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;
    let addresses = given(halves, NAME, limit).await;
    let after = begun.elapsed();
    let begun = Instant::now();
    halves.world.delete(NAME).await?;
    eventually("it is gone", 20, || async {
        Ok(halves.world.services("default").get_opt(NAME).await?.is_none().then_some(()))
    })
    .await
    .with_context(|| halves.logs())?;
    let (gone, addresses) = (begun.elapsed(), addresses?);
    let holders = || -> Result<usize> {
        addresses.iter().map(|address| Ok(halves.holders(*address)?.len())).sum()
    };
    // What goes goes within seconds.
    let none = || async { Ok((holders()? == 0).then_some(())) };
    let _ = eventually("nobody has its addresses", 5, none).await;
    let leases = halves.leases(&format!("kubevip-{NAME}")).await?.len();
    Ok((after, gone, [holders()?, leases]))
}
