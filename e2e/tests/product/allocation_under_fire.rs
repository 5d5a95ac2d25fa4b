//! The allocator's promises while its processes are killed, its writes stay unanswered and Services come in floods.
//! `BERTH_SOAK=1` makes the runs as long as `make soak` wants them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

use super::allocation::agree;
use super::flaws::balancer;
use super::is_soak;
use berth_e2e::api_proxy::{ApiProxy, Trouble};
use berth_e2e::audit::Audit;
use berth_e2e::control_plane::url_for_nodes;
use berth_e2e::process::Process;
use berth_e2e::world::{ADDRESSES, World, annotated, env, eventually};

const NO_ELECTION: &str = "--leader-elect=false";
/// Writes that berth-ccm has under way at once: of so many the order is anybody's.
const CONCURRENCY: usize = 32;

/// Fault 24, second half: two CCMs that both believe they lead, either of them killed at any moment. No address is
/// given twice, no claim leaks, every Service is served.
#[tokio::test(flavor = "multi_thread")]
async fn two_ccms_that_both_lead_and_are_killed_at_random_keep_every_promise() -> Result<()> {
    let count = if is_soak() { 2000 } else { 250 };
    let mut random = random();
    let mut world = World::without_berth(1, env([])).await?;
    world.pools(json!({ "cidr-global": "10.20.0.0/16", "reuse-delay": "0s" })).await?;
    let audit = Audit::start(world.client.clone()).await;
    let mut ccms = Vec::new();
    for _ in 0..2 {
        ccms.push(world.start_another_ccm(&url_for_nodes(), &[NO_ELECTION]).await?);
    }
    let start = Instant::now();
    let services = world.services("default");
    let creation = tokio::spawn(async move {
        let create = stream::iter(0..count).map(|n| {
            let services = services.clone();
            async move {
                let object =
                    serde_json::from_value(balancer("default", &format!("s{n}"), json!({})))?;
                services.create(&PostParams::default(), &object).await.map_err(anyhow::Error::from)
            }
        });
        create.buffer_unordered(16).try_for_each(async |_| Ok(())).await
    });
    let mut kills = 0;
    while audit.served() < count {
        let limit = Duration::from_secs(300);
        ensure!(start.elapsed() < limit, "{} served after {limit:?}", audit.served());
        tokio::time::sleep(Duration::from_millis(random.u64(100..1000))).await;
        kill_one(&mut world, &mut ccms, &mut random).await?;
        kills += 1;
    }
    creation.await??;
    agree(&world, count).await?;
    println!("{count} Services served in {:.1?} over {kills} kills", start.elapsed());

    let start = Instant::now();
    delete_all(&world).await?;
    for left in [count * 3 / 4, count / 2, count / 4] {
        eventually("Services deleted", 120, || async { Ok((audit.known() < left).then_some(())) })
            .await?;
        kill_one(&mut world, &mut ccms, &mut random).await?;
    }
    nothing_is_left(&world).await?;
    println!("all gone in {:.1?} over three more", start.elapsed());
    let duplicates = audit.findings().duplicates;
    ensure!(duplicates.is_empty(), "{duplicates:?}");
    world.lab.down()
}

/// Fault 24, first half: the CCM killed after each single API write. The answer to the write never reaches it, and the
/// next one starts from what the cluster has.
#[tokio::test(flavor = "multi_thread")]
async fn a_ccm_killed_after_each_single_write_ends_where_an_undisturbed_one_does() -> Result<()> {
    let mut world = World::without_berth(1, env([])).await?;
    let pools = "10.0.64.1-10.0.64.9,fd00:10::4001-fd00:10::4009";
    world.pools(json!({ "range-global": pools, "reuse-delay": "0s" })).await?;
    let proxy = ApiProxy::start(&world.lab).await?;
    let dual = json!({ "spec": { "ipFamilyPolicy": "RequireDualStack" } });
    let pinned = json!({ "metadata": { "annotations": { ADDRESSES: "10.0.64.5" } } });
    let absurd = json!({ "metadata": { "annotations": { ADDRESSES: "10.0.64.300" } } });
    let wishes = [("bad", absurd), ("dual", dual), ("pinned", pinned), ("plain", json!({}))];
    for (name, more) in wishes {
        world.create(balancer("default", name, more)).await?;
    }
    let wanted = [("dual", 2), ("pinned", 1), ("plain", 1)];
    let mut lives = live_until(&mut world, &proxy, &wanted).await?;

    // Moves, to another address and to a second family.
    let pin = json!({ "metadata": { "annotations": { ADDRESSES: "10.0.64.7" } } });
    world.patch("pinned", pin).await?;
    world.patch("plain", json!({ "spec": { "ipFamilyPolicy": "PreferDualStack" } })).await?;
    let wanted = [("dual", 2), ("pinned", 1), ("plain", 2)];
    lives += live_until(&mut world, &proxy, &wanted).await?;
    ensure!(annotated(&world.service("pinned").await?)[0].to_string() == "10.0.64.7");

    delete_all(&world).await?;
    lives += live_until(&mut world, &proxy, &[]).await?;
    nothing_is_left(&world).await?;
    println!("{lives} lives of one write each");
    world.lab.down()
}

/// Fault 17, with less room than is asked for: 50 Services created and 50 deleted a second. The oldest that waits is
/// served first, memory stays flat, and in the end nothing is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_over_a_pool_that_is_too_small_is_served_oldest_first() -> Result<()> {
    let flood = if is_soak() {
        Flood { standing: 400, pools: "10.20.0.1-10.20.0.200", room: 200 }
    } else {
        Flood { standing: 200, pools: "10.20.0.1-10.20.0.100", room: 100 }
    };
    let findings = flood.run().await?;
    println!("at most {} served before an older one", findings.most_overtaken);
    ensure!(findings.most_overtaken <= CONCURRENCY, "{} overtook", findings.most_overtaken);
    Ok(())
}

/// Fault 17: 5,000 Services (250 without `BERTH_SOAK`), 50 created and deleted a second. No duplicate, no leak, flat
/// memory; the time to an address is printed.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_services_leaks_nothing_and_repeats_no_address() -> Result<()> {
    let standing = if is_soak() { 5000 } else { 250 };
    let findings = Flood { standing, pools: "10.20.0.0-10.20.63.255", room: 16_000 }.run().await?;
    let (half, most) = (findings.quantile(0.5), findings.quantile(0.99));
    println!("from creation to an address: p50 {half:.0?}, p99 {most:.0?}");
    Ok(())
}

struct Flood {
    /// How many Services there are at any time.
    standing: usize,
    pools: &'static str,
    /// How many addresses they have.
    room: usize,
}

impl Flood {
    async fn run(&self) -> Result<berth_e2e::audit::Findings> {
        let mut world = World::without_berth(1, env([])).await?;
        world.pools(json!({ "range-global": self.pools, "reuse-delay": "0s" })).await?;
        world.start_ccm().await?;
        world.create(balancer("default", "first", json!({}))).await?;
        eventually("berth-ccm leads", 30, || async {
            Ok((!annotated(&world.service("first").await?).is_empty()).then_some(()))
        })
        .await?;
        let audit = Audit::start(world.client.clone()).await;
        let alive = self.pour(&world).await?;
        eventually("everybody served whom there is room for", 60, || async {
            Ok((audit.served() == self.room.min(alive + 1)).then_some(()))
        })
        .await?;
        delete_all(&world).await?;
        nothing_is_left(&world).await?;
        let findings = audit.findings();
        ensure!(findings.duplicates.is_empty(), "{:?}", findings.duplicates);
        world.lab.down()?;
        Ok(findings)
    }

    /// Returns how many Services there are in the end.
    async fn pour(&self, world: &World) -> Result<usize> {
        const RATE: u64 = 50;
        let seconds = if is_soak() { 120 } else { 6 };
        let mut random = random();
        let create = |n: usize| async move {
            let name = format!("s{n}");
            // There are 2,768 node ports in a cluster.
            let more = json!({ "spec": { "allocateLoadBalancerNodePorts": false } });
            world.create(balancer("default", &name, more)).await.map(|_| name)
        };
        let first = stream::iter(0..self.standing).map(create).buffer_unordered(16);
        let mut alive: Vec<String> = first.try_collect().await?;

        let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
        let mut pending = stream::FuturesUnordered::new();
        let (start, mut early, mut next) = (Instant::now(), None, self.standing);
        while start.elapsed() < Duration::from_secs(seconds) {
            tokio::select! {
                // An API server that is slower than this sets the pace.
                _ = tick.tick(), if !alive.is_empty() => {
                    let victim = alive.swap_remove(random.usize(..alive.len()));
                    pending.push(async move {
                        // A busy API server deletes and says 504; the client then asks once more.
                        let deleted = world.delete(&victim).await;
                        deleted.or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) })?;
                        create(next).await
                    });
                    next += 1;
                }
                Some(made) = pending.next() => alive.push(made?),
            }
            if early.is_none() && start.elapsed() > Duration::from_secs(seconds / 4) {
                early = Some(world.ccm()?.resident_bytes()?);
            }
        }
        while let Some(made) = pending.next().await {
            alive.push(made?);
        }
        let (early, late) = (early.unwrap_or_default(), world.ccm()?.resident_bytes()?);
        let rate = (next - self.standing) as f64 / start.elapsed().as_secs_f64();
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "{rate:.0} created and deleted a second for {seconds} s, {} standing: {:.1} MiB after a quarter, {:.1} MiB at \
             the end",
            self.standing,
            mebibytes(early),
            mebibytes(late)
        );
        ensure!(late < early * 2 + (16 << 20), "berth-ccm grew from {early} to {late} bytes");
        ensure!(world.ccm()?.is_alive(), "the CCM ended: {}", world.ccm()?.log_tail());
        Ok(alive.len())
    }
}

/// Starts a CCM, lets it make one write, kills it, and so on until these Services have so many addresses each and
/// the claims are exactly those. Returns how many lives it took.
async fn live_until(
    world: &mut World,
    proxy: &ApiProxy,
    wanted: &[(&str, usize)],
) -> Result<usize> {
    for lives in 1..200 {
        if is_settled(world, wanted).await? {
            return Ok(lives);
        }
        proxy.make(Trouble { mute_after_write: true, ..Trouble::default() });
        let ccm = world.start_another_ccm(&proxy.url(), &[NO_ELECTION]).await?;
        let write = tokio::time::timeout(Duration::from_secs(20), proxy.muted()).await;
        write.with_context(|| format!("it writes nothing: {}", ccm.log_tail()))?;
        ccm.kill()?;
    }
    anyhow::bail!("{wanted:?} is not reached: {:?}", world.claims().await?)
}

async fn is_settled(world: &World, wanted: &[(&str, usize)]) -> Result<bool> {
    let claims = world.claims().await?;
    let mut listed = 0;
    for service in world.services("default").list(&ListParams::default()).await? {
        let name = service.metadata.name.clone().unwrap_or_default();
        let addresses = annotated(&service);
        let count = wanted.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count);
        let owned = addresses.iter().all(|address| {
            let claim = claims.get(&address.to_string()).and_then(|claim| claim.spec.as_ref());
            claim.is_some_and(|spec| spec.parent_ref.name == name)
        });
        let goes = service.metadata.deletion_timestamp.is_some();
        if addresses.len() != count || !owned || goes {
            return Ok(false);
        }
        listed += addresses.len();
    }
    Ok(listed == claims.len())
}

async fn kill_one(
    world: &mut World,
    ccms: &mut [Process],
    random: &mut fastrand::Rng,
) -> Result<()> {
    let victim = &mut ccms[random.usize(..2)];
    ensure!(victim.is_alive(), "it ended by itself: {}", victim.log_tail());
    victim.kill()?;
    *victim = world.start_another_ccm(&url_for_nodes(), &[NO_ELECTION]).await?;
    Ok(())
}

fn is_gone(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 404)
}

async fn delete_all(world: &World) -> Result<()> {
    let every = ListParams::default().fields("metadata.name!=kubernetes");
    world.services("default").delete_collection(&DeleteParams::default(), &every).await?;
    Ok(())
}

async fn nothing_is_left(world: &World) -> Result<()> {
    let every = ListParams::default().fields("metadata.name!=kubernetes");
    eventually("no Service and no claim left", 120, || async {
        let services = world.services("default").list(&every).await?.items.len();
        Ok((services == 0 && world.claims().await?.is_empty()).then_some(()))
    })
    .await
}

/// From `BERTH_SEED`, or another each time. Printed, so that a run can be made again.
pub(crate) fn random() -> fastrand::Rng {
    let seed = std::env::var("BERTH_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("BERTH_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
