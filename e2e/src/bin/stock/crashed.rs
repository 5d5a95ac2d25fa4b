//! A stock announcer that crashes leaves its addresses on the node. What of that is answered while kube-vip goes on, and while
//! Berth takes its place node by node.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::stock::Stock;
use berth_e2e::world::{env, eventually, repository};
use serde_json::json;

use crate::halves::{Halves, NODES, Ours, Side};
use crate::moves::given;
use crate::seen::{Ears, seconds};
use crate::told::Told;

/// Who answered without a right to would have done so by then.
const PATIENCE: Duration = Duration::from_secs(3);
/// For so long it is looked at what is left while all are stock.
const LOOKED_AT: Duration = Duration::from_secs(10);

/// All of it, in a world of its own.
pub(crate) async fn look(stock: &Stock, told: &mut Told) -> Result<()> {
    let mut halves = Halves::up(stock, Side::Stock, Ours::Membership, &env([])).await?;
    halves.world.expose("web", json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;
    let addresses = given(&halves, "web", 40).await?;
    halves.allocate(Side::Berth).await?;
    let owner = *halves.holders(addresses[0])?.first().context("nobody has the address")?;
    let ears = Ears::open(&halves, &addresses).await?;

    // Its pod is started again by the kubelet, and another one has the Lease by then.
    let begun = Instant::now();
    halves.announcer(owner)?.kill()?;
    eventually("another node has the address as well", 30, || async {
        Ok((halves.holders(addresses[0])?.len() > 1).then_some(()))
    })
    .await?;
    halves.start(owner, Side::Stock).await?;
    tokio::time::sleep(LOOKED_AT).await;
    let row = |halves: &Halves, what: &str, who: &str, since, word: &str| -> Result<String> {
        let nodes = addresses.iter().map(|a| halves.holders(*a).map(|all| all.len()));
        let nodes = nodes.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or_default();
        Ok(format!("| {what} | {who} | {nodes} | {} | {word} |", seconds(ears.together(since))))
    };
    let killed = "killed on the node that answers, and started again";
    told.crashed.push(row(&halves, killed, "stock on all", begun, "shown")?);

    // The node of the leftover first: its fence keeps it silent from then on.
    let others = (0..NODES).filter(|node| *node != owner);
    halves.announce(owner, Side::Berth).await?;
    tokio::time::sleep(PATIENCE).await;
    let begun = Instant::now();
    tokio::time::sleep(PATIENCE).await;
    let quiet = ears.together(begun);
    let judged =
        quiet.is_zero().then_some(()).with_context(|| format!("two answered for {quiet:.2?}"));
    let word = told.word("a leftover beside kube-vip", true, judged.with_context(|| halves.logs()));
    told.crashed.push(row(
        &halves,
        "Berth begins on that node",
        "stock on the others",
        begun,
        word,
    )?);
    for node in others {
        halves.announce(node, Side::Berth).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    halves.settled().await?;
    ears.answered(30).await.with_context(|| halves.logs())?;
    let begun = Instant::now();
    tokio::time::sleep(PATIENCE).await;
    let quiet = ears.together(begun);
    let judged =
        quiet.is_zero().then_some(()).with_context(|| format!("two answered for {quiet:.2?}"));
    let word = told.word("leftovers beside Berth", true, judged.with_context(|| halves.logs()));
    told.crashed.push(row(&halves, "Berth on all nodes", "Berth", begun, word)?);

    let vips: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    for node in 0..NODES {
        halves.world.lab.node(node).exec(["sh", "-euc", &on_a_node(&vips)])?;
    }
    let (begun, patience) = (Instant::now(), PATIENCE);
    tokio::time::sleep(patience).await;
    let mut judged = Ok(());
    for address in &addresses {
        let holders = halves.holders(*address)?.len();
        judged = judged.and_then(|()| {
            ensure!(holders == 1, "{holders} have {address}");
            Ok(())
        });
    }
    let word = told.word("cleared away", true, judged.with_context(|| halves.logs()));
    told.crashed.push(row(&halves, "cleared away as the page says", "Berth", begun, word)?);
    ears.close()?;
    halves.down()
}

/// What docs/migrating-from-kube-vip.md does on a node about what is left there.
fn on_a_node(vips: &[String]) -> String {
    let script = repository().join("docs/moving/left-on-node.sh");
    format!("sh {} {}", script.display(), vips.join(" "))
}
