//! A world by fenced membership, and what its tests ask of it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::{Mac, Net, mac, node_host};
use berth_e2e::membership;
use berth_e2e::pauses::Unsteady;
use berth_e2e::probe::{Manner, Probe};
use berth_e2e::wire::{Asker, Record, Sighting, Watch};
use serde_json::json;

use berth_e2e::world::{Env, World, eventually};

/// How often the client asks who has an address.
pub(crate) const ASK: Duration = Duration::from_millis(5);
/// Between two answers to one question.
const SAME_MOMENT: Duration = Duration::from_millis(2);
/// Who is heard again within this time was there in between.
const QUIET: Duration = Duration::from_millis(100);
const PROBE: Duration = Duration::from_millis(10);

/// Longer than any promise: who would answer without a right to would have done so.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// A world with one dual-stack Service, and somebody who listens to all that is said about its addresses.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) nodes: usize,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) wire: Watch,
    askers: Vec<Asker>,
}

impl Scene {
    pub(crate) async fn up(nodes: usize, environment: Env) -> Result<Self> {
        let world = World::up(nodes, environment).await?;
        world.expose("web", json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;
        let addresses = world.published("web", 2).await?;
        for address in &addresses {
            eventually("an answer", 10, || async { Ok(world.curl(*address).ok()) }).await?;
        }
        let wire = world.lab.watch()?;
        let ask = |address: &IpAddr| world.lab.ask(*address, ASK);
        let askers = addresses.iter().map(ask).collect::<Result<Vec<_>>>()?;
        let scene = Self { world, nodes, addresses, wire, askers };
        scene.settled().await?;
        // While the first voters are found, more than one node may bind the addresses and wait for a lease.
        let held = || async { Ok(scene.is_bound_only_on(scene.owner()?)?.then_some(())) };
        eventually("one holder", 10, held).await.with_context(|| scene.world.logs())?;
        Ok(scene)
    }

    /// Waits until every node sees all nodes alive, and as many of them vote as should.
    pub(crate) async fn settled(&self) -> Result<()> {
        let all =
            || async { Ok(membership::is_settled(&self.world, self.nodes).await?.then_some(())) };
        let result = eventually("all nodes take part", 30, all).await;
        result.with_context(|| self.world.logs())
    }

    pub(crate) fn metrics(&self, node: usize) -> Result<String> {
        membership::metrics(&self.world, node)
    }

    /// Whoever spoke last for the first address.
    pub(crate) fn owner(&self) -> Result<usize> {
        let record = self.wire.so_far();
        let last = record.0.iter().rev().find(|s| s.address == self.addresses[0]);
        let last = last.context("nobody has spoken")?.mac;
        let mut nodes = 0..self.nodes;
        nodes.find(|i| mac_of(*i) == last).with_context(|| format!("{last:x?} is no node's"))
    }

    /// Waits until another than `old` has spoken for each address, and says how long after `since` the last one did.
    pub(crate) async fn taken(&self, old: usize, since: Instant, seconds: u64) -> Result<Duration> {
        let old = mac_of(old);
        let result = eventually("another owner", seconds, || async {
            let record = self.wire.so_far();
            let first = |address: &IpAddr| {
                record.since(*address, since).into_iter().find(|s| s.mac != old).map(|s| s.at)
            };
            let firsts: Option<Vec<Instant>> = self.addresses.iter().map(first).collect();
            Ok(firsts.and_then(|firsts| firsts.into_iter().max()))
        })
        .await;
        Ok(result.with_context(|| self.world.logs())?.duration_since(since))
    }

    /// The longest time after `since` in which nobody spoke for an address, before another than `old` did.
    pub(crate) fn silence(&self, old: usize, since: Instant) -> Result<Duration> {
        let (old, record) = (mac_of(old), self.wire.so_far());
        let mut longest = Duration::ZERO;
        for address in &self.addresses {
            let said: Vec<_> = record.0.iter().filter(|s| s.address == *address).collect();
            let first = said.iter().find(|s| s.at >= since && s.mac != old);
            let first = first.context("nobody else spoke")?.at;
            let last = said.iter().rev().find(|s| s.at < first && s.mac == old);
            longest = longest.max(first.duration_since(last.context("nobody spoke before")?.at));
        }
        Ok(longest)
    }

    /// From `since` on no two machines spoke for an address in the same moment.
    pub(crate) fn one_at_a_time(&self, record: &Record, since: Instant) -> Result<()> {
        for address in &self.addresses {
            let said = record.since(*address, since);
            let spans =
                || format!("{address}: {:?}\n{}", record.spans(*address), self.world.logs());
            ensure!(!disputed(&said), "two answered in the same moment: {}", spans());
        }
        Ok(())
    }

    /// From `since` on no machine spoke for an address again after another had. For moves on purpose, which take less
    /// than a millisecond: none may lead back.
    pub(crate) fn none_spoke_again(&self, since: Instant) -> Result<()> {
        let record = self.wire.so_far();
        for address in &self.addresses {
            let part = Record(record.since(*address, since));
            let told = || format!("{address}: {:?}\n{}", part.spans(*address), self.world.logs());
            ensure!(part.overlaps(*address, QUIET).is_empty(), "two answered: {}", told());
            ensure!(part.disputes(*address).is_empty(), Unsteady(told()));
        }
        Ok(())
    }

    /// Since `since` the addresses went from one machine to another so often, and each was spoken for.
    pub(crate) fn moved_times(&self, times: usize, since: Instant) -> Result<()> {
        let record = self.wire.so_far();
        let spoken = self.addresses.iter().all(|address| !record.since(*address, since).is_empty());
        ensure!(spoken, Unsteady(format!("nobody answered\n{}", self.world.logs())));
        let moves = self.moves(since);
        ensure!(
            moves == times,
            Unsteady(format!("{moves} moves, not {times}\n{}", self.world.logs()))
        );
        Ok(())
    }

    /// Nobody took an address from `owner`. On a machine without processor time to spare it may have lost it.
    pub(crate) fn kept_by(&self, owner: usize) -> Result<()> {
        if self.owner()? == owner {
            return Ok(());
        }
        let lost = "berth_announcer_owner_changes_total{cause=\"expired\"}";
        ensure!(
            self.metrics(owner)?.contains(lost),
            "it was taken from {owner}\n{}",
            self.world.logs()
        );
        println!("{owner} could not renew its lease for a third of a second");
        Ok(())
    }

    /// All nodes take part again, and after some patience the addresses are where they were, with `owner`. Since `since`
    /// no two answered at once.
    pub(crate) async fn stays_with(&self, owner: usize, since: Instant) -> Result<()> {
        self.settled().await?;
        tokio::time::sleep(PATIENCE).await;
        self.kept_by(owner)?;
        self.one_at_a_time(&self.wire.so_far(), since)?;
        self.bound_only_on(owner).await
    }

    pub(crate) fn probe(&self) -> Result<Probe> {
        self.start_probe(self.addresses[0], Manner::NewConnections)
    }

    /// A client of each address that asks every 10 ms, in this manner. Returns once they are answered.
    pub(crate) async fn clients(&self, manner: Manner) -> Result<Vec<Probe>> {
        let probe = |address: &IpAddr| self.start_probe(*address, manner);
        let probes = self.addresses.iter().map(probe).collect::<Result<Vec<_>>>()?;
        eventually("the clients are answered", 10, || async {
            Ok(probes.iter().all(|probe| probe.ok_so_far() > 20).then_some(()))
        })
        .await?;
        Ok(probes)
    }

    fn start_probe(&self, address: IpAddr, manner: Manner) -> Result<Probe> {
        let target = SocketAddr::new(address, 80);
        Probe::start(&self.world.lab.outside(), target, PROBE, manner)
    }

    /// When the first address went to another machine after `since`, and to which.
    pub(crate) fn moved(&self, since: Instant) -> Vec<(Duration, Mac)> {
        let part = Record(self.wire.so_far().since(self.addresses[0], since));
        let spans = part.spans(self.addresses[0]);
        spans.iter().skip(1).map(|span| (span.first.duration_since(since), span.mac)).collect()
    }

    /// How often each address went from one machine to another since `since`, the most of all addresses.
    pub(crate) fn moves(&self, since: Instant) -> usize {
        let record = self.wire.so_far();
        let spans = |a: &IpAddr| Record(record.since(*a, since)).spans(*a).len();
        self.addresses.iter().map(|a| spans(a).saturating_sub(1)).max().unwrap_or(0)
    }

    /// The longest time since `since` in which nobody spoke for an address, whoever spoke before and after.
    pub(crate) fn quiet(&self, since: Instant) -> Duration {
        let record = self.wire.so_far();
        let gaps = self.addresses.iter().flat_map(|address| {
            let said = record.since(*address, since);
            let gap = |pair: &[Sighting]| pair[1].at.duration_since(pair[0].at);
            said.windows(2).map(gap).collect::<Vec<_>>()
        });
        gaps.max().unwrap_or_default()
    }

    /// Waits until somebody has spoken for each address after `since`; says how long it took.
    pub(crate) async fn spoken_for(&self, since: Instant, seconds: u64) -> Result<Duration> {
        let result = eventually("somebody answers", seconds, || async {
            let record = self.wire.so_far();
            let first = |a: &IpAddr| record.since(*a, since).first().map(|sighting| sighting.at);
            let firsts: Option<Vec<Instant>> = self.addresses.iter().map(first).collect();
            Ok(firsts.and_then(|firsts| firsts.into_iter().max()))
        })
        .await;
        Ok(result.with_context(|| self.world.logs())?.duration_since(since))
    }

    /// Does to a node what holds only as long as the addresses stay where they are.
    pub(crate) fn while_unmoved(&self, node: usize, command: &[&str]) -> Result<String> {
        let result = self.world.lab.node(node).exec(command);
        result.map_err(|error| error.context(Unsteady(self.world.logs())))
    }

    /// The addresses on the interface of each node that answers: on `owner` and nowhere else.
    pub(crate) async fn bound_only_on(&self, owner: usize) -> Result<()> {
        let alone = || async { Ok(self.is_bound_only_on(owner)?.then_some(())) };
        let told = || Unsteady(format!("not on {} alone\n{}", self.name(owner), self.world.logs()));
        eventually("bound on the owner only", 10, alone).await.with_context(told)
    }

    fn is_bound_only_on(&self, owner: usize) -> Result<bool> {
        for address in &self.addresses {
            if self.world.holders(*address)? != [self.name(owner)] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn name(&self, node: usize) -> &str {
        self.world.lab.node(node).name()
    }

    pub(crate) fn down(self) -> Result<()> {
        self.askers.into_iter().try_for_each(Asker::finish)?;
        let frames = self.wire.finish()?.0.len();
        println!("{frames} frames looked at");
        self.world.lab.down()
    }
}

fn mac_of(node: usize) -> Mac {
    mac(Net::Lan, node_host(node))
}

/// Whether two machines spoke for an address in the same moment. Who takes an address over from one that fell silent
/// waits for ten milliseconds at least; two that answer both answer each question.
pub(crate) fn disputed(said: &[Sighting]) -> bool {
    let at_once = |pair: &[Sighting]| {
        pair[0].mac != pair[1].mac && pair[1].at.duration_since(pair[0].at) < SAME_MOMENT
    };
    said.windows(2).any(at_once)
}
