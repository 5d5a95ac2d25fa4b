//! A world by fenced membership, and what its tests ask of it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::{Mac, Net, mac, node_host};
use berth_e2e::membership;
use berth_e2e::pauses;
use berth_e2e::probe::{Manner, Probe};
pub(crate) use berth_e2e::wire::disputed;
use berth_e2e::wire::{Asker, Move, Record, Watch};
use serde_json::json;

use berth_e2e::world::{Env, World, eventually};

/// How often the client asks who has an address.
pub(crate) const ASK: Duration = Duration::from_millis(5);
/// Who is heard again within this time was there in between.
const QUIET: Duration = Duration::from_millis(100);
const PROBE: Duration = Duration::from_millis(10);

/// Another owner answers within this time, and the longest pause of the machine meanwhile.
pub(crate) const TAKEOVER: Duration = Duration::from_secs(1);

/// The same where a Lease of five seconds has to run out first. Others look at it once a second, and count from then.
pub(crate) const BY_LEASE: Duration = Duration::from_secs(8);

/// A client of an address that moves on purpose waits less. TCP sends a lost packet again after 200 ms at the earliest
/// (TCP_RTO_MIN of Linux), so none is lost.
pub(crate) const CLIENT: Duration = Duration::from_millis(200);

/// Longer than any promise: who would answer without a right to would have done so.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// Who has the addresses from a moment on, and how often its leases had run out by then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) owner: usize,
    pub(crate) since: Instant,
    expired: u64,
}

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

    /// Whoever spoke last has the addresses from now on.
    pub(crate) fn held(&self) -> Result<Held> {
        let owner = self.owner()?;
        Ok(Held { owner, since: Instant::now(), expired: membership::expired(&self.world, owner)? })
    }

    /// Waits until another than `old` has spoken for each address, which it has to within a second from the fault of
    /// `old`, at `since`.
    pub(crate) async fn replaced(&self, what: &str, old: usize, since: Instant) -> Result<Held> {
        let took = self.taken(old, since, 10).await?;
        let silent = self.silence(old, since)?;
        let judged = pauses::within(&format!("{what}: replaced after"), took, TAKEOVER, since);
        judged.with_context(|| self.world.logs())?;
        println!("{what}: silent for {silent:.0?}");
        self.held()
    }

    /// The same where `old` may answer until then: only for how long nobody does is judged.
    pub(crate) async fn succeeded(
        &self,
        what: &str,
        old: usize,
        since: Instant,
        limit: Duration,
    ) -> Result<Held> {
        let took = self.taken(old, since, 10).await?;
        let (silent, until) = (self.silence(old, since)?, since + took);
        let pause = pauses::so_far().longest(since, until);
        println!("{what}: silent for {silent:.0?}, replaced after {took:.0?}");
        ensure!(
            silent <= limit + pause,
            "{what}: silent for {silent:.0?}, of {limit:.0?} and a pause of {pause:.0?} at most\n{}",
            self.world.logs()
        );
        self.held()
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

    /// From `since` on no machine spoke for an address between two words of another. For moves on purpose, which take less
    /// than the moment of [`disputed`].
    pub(crate) fn never_together(&self, since: Instant) -> Result<()> {
        let record = self.wire.so_far();
        let mut addresses = self.addresses.iter();
        addresses.try_for_each(|own| never_together(&self.world, &record, *own, since).map(drop))
    }

    /// From `since` on no machine spoke for an address again after another had. For moves on purpose, which take less
    /// than a millisecond: none may lead back.
    pub(crate) fn none_spoke_again(&self, since: Instant) -> Result<()> {
        let (record, pauses) = (self.wire.so_far(), pauses::so_far());
        for address in &self.addresses {
            let part = never_together(&self.world, &record, *address, since)?;
            let told = || format!("{address}: {:?}\n{}", part.spans(*address), self.world.logs());
            for moved in part.moves(*address, since) {
                let before = part.0.iter().any(|s| s.mac == moved.to && s.at < moved.first);
                ensure!(!before || moved.is_excused(&pauses), "one spoke again: {}", told());
            }
        }
        Ok(())
    }

    /// Since `since` the addresses went from one machine to another so often, and each was spoken for. A pause of the
    /// machine excuses a move more.
    pub(crate) fn moved_times(&self, times: usize, since: Instant) -> Result<()> {
        self.moved_between(times, times, since)
    }

    /// The same where they may move or not.
    pub(crate) fn moved_at_most(&self, times: usize, since: Instant) -> Result<()> {
        self.moved_between(0, times, since)
    }

    fn moved_between(&self, least: usize, most: usize, since: Instant) -> Result<()> {
        let (record, pauses) = (self.wire.so_far(), pauses::so_far());
        for address in &self.addresses {
            let spoken = !record.since(*address, since).is_empty();
            ensure!(spoken, "nobody answered for {address}\n{}", self.world.logs());
            let moves = record.moves(*address, since);
            let excused = moves.iter().filter(|moved| moved.is_excused(&pauses)).count();
            ensure!(
                moves.len() >= least && moves.len() - excused <= most,
                "{address}: {} moves, {excused} of them after a pause, not {least} to {most}\n{}",
                moves.len(),
                self.world.logs()
            );
        }
        Ok(())
    }

    /// No lease of the owner ran out and nobody took an address from it, but while the machine stood still. Who has them now.
    pub(crate) fn kept_by(&self, held: &Held) -> Result<usize> {
        let owner = self.owner_after(held)?;
        if owner != held.owner {
            println!("{} lost its lease in a pause of the machine", self.name(held.owner));
        }
        Ok(owner)
    }

    fn owner_after(&self, held: &Held) -> Result<usize> {
        let record = self.wire.so_far();
        let moves = |address: &IpAddr| record.moves(*address, held.since);
        let moves: Vec<Move> = self.addresses.iter().flat_map(moves).collect();
        let owner = self.owner()?;
        let (name, logs) = (self.name(held.owner), || self.world.logs());
        let (expired, pauses) = (membership::expired(&self.world, held.owner)?, pauses::so_far());
        if moves.is_empty() {
            ensure!(owner == held.owner, "taken from {name}\n{}", logs());
            // It may have had the address again before anybody else did: clients that know where it is lose nothing then.
            let excused = expired <= held.expired || pauses.excuse(held.since, Instant::now());
            ensure!(excused, "a lease of {name} ran out without a pause: {pauses:?}\n{}", logs());
            return Ok(owner);
        }
        let excused = moves.iter().all(|moved| moved.is_excused(&pauses));
        ensure!(excused, "taken from {name} without a pause: {moves:?} {pauses:?}\n{}", logs());
        ensure!(
            expired > held.expired,
            "taken from {name}, whose lease had not run out\n{}",
            logs()
        );
        Ok(owner)
    }

    /// All nodes take part again, and after some patience the addresses are where they were. Since `since` no two answered
    /// at once.
    pub(crate) async fn stays_with(&self, held: &Held, since: Instant) -> Result<()> {
        self.settled().await?;
        tokio::time::sleep(PATIENCE).await;
        self.one_at_a_time(&self.wire.so_far(), since)?;
        self.bound_only_on(held).await
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

    /// How often each address went from one machine to another since `since`, the most of all addresses.
    pub(crate) fn moves(&self, since: Instant) -> usize {
        let record = self.wire.so_far();
        let spans = |a: &IpAddr| Record(record.since(*a, since)).spans(*a).len();
        self.addresses.iter().map(|a| spans(a).saturating_sub(1)).max().unwrap_or(0)
    }

    /// Since `since` somebody spoke for each address at least each `limit` and the longest pause meanwhile, whoever spoke
    /// before and after. Says for how long nobody did at most.
    pub(crate) fn spoken_within(&self, limit: Duration, since: Instant) -> Result<Duration> {
        let until = Instant::now();
        let (record, pauses) = (self.wire.so_far(), pauses::so_far());
        let mut longest = Duration::ZERO;
        for address in &self.addresses {
            let said = record.since(*address, since);
            ensure!(!said.is_empty(), "nobody answered for {address}\n{}", self.world.logs());
            let said: Vec<_> = said.iter().map(|sighting| sighting.at).collect();
            let times = [&[since], &said[..], &[until]].concat();
            for pair in times.windows(2) {
                let gap = pair[1].saturating_duration_since(pair[0]);
                let pause = pauses.longest(pair[0], pair[1]);
                ensure!(
                    gap <= limit + pause,
                    "{address}: silent for {gap:.0?}, with a pause of {pause:.0?}\n{}",
                    self.world.logs()
                );
                longest = longest.max(gap);
            }
        }
        Ok(longest)
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

    /// The addresses are on the interface of their owner and of no other node that answers, and it is the owner they had.
    pub(crate) async fn bound_only_on(&self, held: &Held) -> Result<()> {
        self.kept_by(held)?;
        let alone = || async { Ok(self.is_bound_only_on(self.owner_after(held)?)?.then_some(())) };
        let told = || format!("not on {} alone\n{}", self.name(held.owner), self.world.logs());
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

/// The client is answered now; soon, where the machine has just stood still, as the owner's lease may have run out.
pub(crate) async fn answers_now(world: &World, address: IpAddr) -> Result<()> {
    let asked = Instant::now();
    let Err(error) = world.curl(address) else { return Ok(()) };
    let since = asked.checked_sub(TAKEOVER).unwrap_or(asked);
    if !pauses::so_far().excuse(since, Instant::now()) {
        return Err(error.context(world.logs()));
    }
    println!("{address}: not answered for in a pause of the machine: {error:#}");
    eventually("an answer", 2, || async { Ok(world.curl(address).ok()) }).await.map(drop)
}

fn mac_of(node: usize) -> Mac {
    mac(Net::Lan, node_host(node))
}

/// From `since` on no machine spoke for the address between two words of another. Gives what was said of it.
pub(crate) fn never_together(
    world: &World,
    record: &Record,
    address: IpAddr,
    since: Instant,
) -> Result<Record> {
    let part = Record(record.since(address, since));
    let told = || format!("{address}: {:?}\n{}", part.spans(address), world.logs());
    ensure!(part.overlaps(address, QUIET).is_empty(), "two answered: {}", told());
    Ok(part)
}
