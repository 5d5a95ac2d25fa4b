//! Two addresses move from MetalLB to Berth and from there to kube-vip, under traffic, by the commands of
//! docs/migrating-from-metallb.md and docs/migrating-from-kube-vip.md as they stand there. What the others' programs do is done
//! by hand: a speaker answers for what no interface of its node has, and kube-vip binds and announces.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::{Net, mac, node_host};
use berth_e2e::membership;
use berth_e2e::pauses;
use berth_e2e::rivals::metallb::{MetalLb, POOL};
use berth_e2e::wire::{Watch, disputed};
use berth_e2e::world::{self, World, env, eventually, kubectl, repository};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::from_kube_vip::{
    LEASE, NODES, TAKEN, VIPS, all_wait, bind, judged, leases, one_has_them, one_speaks, probes,
    vips,
};
use super::scene::CLIENT;

/// What the programs of Berth are installed by: they are no pods here.
const INSTALLS: &str = "kubectl apply --namespace kube-system --filename manifests/";
/// Set to `1`: MetalLB itself is built and runs, in place of what is done by hand for it.
const REAL: &str = "BERTH_METALLB";

/// What ends programs.
const ENDS: &str = "kubectl --namespace metallb-system ";

/// How often the client asks who has an address.
const ASK: Duration = Duration::from_millis(10);

/// For how long nobody answers while kube-vip takes over what members have let go.
const LET_GO: Duration = Duration::from_secs(3);

/// The commands of a chapter that are not about pods.
fn commands(page: &str, chapter: &str) -> Result<String> {
    let page = fs::read_to_string(repository().join("docs").join(page))?;
    let text = page.split(chapter).nth(1).context("no such chapter")?;
    let block = text.split("```sh\n").nth(1).and_then(|text| text.split("```").next());
    let lines = block.context("no commands")?.lines();
    let own = lines.filter(|line| !line.starts_with(INSTALLS) && !line.starts_with(ENDS));
    Ok(own.collect::<Vec<_>>().join("\n"))
}

/// A folder for what the page writes, with what it reads of the repository.
fn folder(world: &World) -> Result<PathBuf> {
    let folder = world.lab.dir().join("moving");
    fs::create_dir(&folder)?;
    for name in ["docs", "manifests"] {
        symlink(repository().canonicalize()?.join(name), folder.join(name))?;
    }
    Ok(folder)
}

/// Runs commands of a page.
fn shell(world: &World, folder: &Path, text: &str) -> Result<String> {
    super::shell::shell(world, folder, 60, text)
}

/// A speaker answers on this node, or ceases to: the kernel does, as for a neighbour behind it.
fn speaks(world: &World, node: usize, on: bool) -> Result<()> {
    let verb = if on { "add" } else { "del" };
    let mut script =
        "sysctl -q -w net.ipv4.neigh.eth0.proxy_delay=0 net.ipv6.neigh.eth0.proxy_delay=0 \
        net.ipv6.conf.eth0.proxy_ndp=1\n"
            .to_owned();
    for vip in vips() {
        let family = if vip.is_ipv4() { "-4" } else { "-6" };
        script += &format!("ip {family} neigh {verb} proxy {vip} dev eth0\n");
        // Linux answers for nobody who is where the question came from.
        if vip.is_ipv4() {
            script += &format!("ip route {verb} {vip}/32 dev lo\n");
        }
    }
    world.lab.node(node).exec(["sh", "-euc", &script]).map(drop)
}

/// Who answers before Berth does.
enum Before {
    /// The kernel of node 0, for the speaker there.
    ByHand,
    /// MetalLB.
    Real(MetalLb),
}

impl Before {
    fn end_controller(&self) -> Result<()> {
        match self {
            Self::ByHand => Ok(()),
            Self::Real(metallb) => metallb.end_controller(),
        }
    }

    fn end_speakers(&self, world: &World) -> Result<()> {
        match self {
            Self::ByHand => speaks(world, 0, false),
            Self::Real(metallb) => metallb.end_speakers(),
        }
    }
}

/// MetalLB's objects, and its programs where they are asked for.
async fn install(world: &World) -> Result<Before> {
    let addresses: Vec<String> = world::POOL.split(',').map(ToOwned::to_owned).collect();
    if std::env::var_os(REAL).is_some_and(|value| value == "1") {
        let mut metallb = MetalLb::up(world, NODES, &addresses).await?;
        (0..NODES).try_for_each(|node| metallb.start(&world.lab, node))?;
        return Ok(Before::Real(metallb));
    }
    let definitions = repository().join("e2e/metallb/crds.yaml").display().to_string();
    kubectl(&world.lab, &["apply", "--filename", &definitions])?;
    kubectl(&world.lab, &["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"])?;
    kubectl(&world.lab, &["create", "namespace", "metallb-system"])?;
    let object = |kind: &str, name: &str, spec: Value| {
        json!({
            "apiVersion": "metallb.io/v1beta1", "kind": kind,
            "metadata": { "namespace": "metallb-system", "name": name }, "spec": spec,
        })
    };
    let items = [
        object("IPAddressPool", POOL, json!({ "addresses": addresses, "autoAssign": true })),
        object("L2Advertisement", POOL, json!({ "ipAddressPools": [POOL] })),
    ];
    let file = world.lab.dir().join("metallb.json");
    fs::write(&file, json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string())?;
    kubectl(&world.lab, &["apply", "--filename", &file.display().to_string()])?;
    Ok(Before::ByHand)
}

/// MetalLB has given both addresses to the Service `web`, and one of its speakers answers for them.
async fn by_metallb() -> Result<(World, Before)> {
    let world = World::without_berth(NODES + 1, env([("berth_claims", "required")])).await?;
    let before = install(&world).await?;
    world.deploy("default", "hello", 2)?;
    let web = json!({
        "metadata": {
            "name": "web",
            "annotations": {
                "metallb.universe.tf/loadBalancerIPs": VIPS.join(","), "metallb.universe.tf/address-pool": POOL,
            },
        },
        "spec": {
            "type": "LoadBalancer", "selector": { "app": "hello" },
            "ports": [{ "port": 80, "targetPort": 8080 }], "ipFamilyPolicy": "RequireDualStack",
        },
    });
    world.create(web).await?;
    if matches!(before, Before::ByHand) {
        let shown: Vec<_> = VIPS.iter().map(|vip| json!({ "ip": vip, "ipMode": "VIP" })).collect();
        let merge = Patch::Merge(json!({ "status": { "loadBalancer": { "ingress": shown } } }));
        world.services("default").patch_status("web", &PatchParams::default(), &merge).await?;
        speaks(&world, 0, true)?;
    }
    world.published("web", VIPS.len()).await?;
    for vip in vips() {
        eventually("an answer", 20, || async { Ok(world.curl(vip).ok()) }).await?;
    }
    Ok((world, before))
}

/// The node that answers for both addresses.
async fn speaker(wire: &Watch) -> Result<usize> {
    eventually("one node answers for both", 10, || async {
        let record = wire.so_far();
        let last = vips().map(|vip| record.spans(vip).last().map(|span| span.mac));
        let last: BTreeSet<_> = last.collect();
        let is = |node: &usize| last == [Some(mac(Net::Lan, node_host(*node)))].into();
        Ok((0..NODES).find(is))
    })
    .await
}

/// How long nobody answered for an address where it moved, and that no two did at once.
fn silences(world: &World, wire: &Watch, since: Instant, limit: Duration) -> Result<()> {
    let record = wire.so_far();
    for vip in vips() {
        for went in record.moves(vip, since) {
            let (silence, pause) =
                (went.silence(), pauses::so_far().longest(went.last, went.first));
            println!("{vip}: nobody answers for {silence:.0?}");
            ensure!(silence <= limit + pause, "{vip}: {silence:.0?}\n{}", world.logs());
        }
        let is_disputed = disputed(&record.since(vip, since));
        ensure!(!is_disputed, "{:?}\n{}", record.spans(vip), world.logs());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_move_in_from_metallb_and_out_to_kube_vip_and_no_node_has_anything_of_berth_then()
-> Result<()> {
    let (mut world, before) = by_metallb().await?;
    let (wire, folder) = (world.lab.watch()?, folder(&world)?);
    let owner = moves_in(&mut world, &before, &wire, &folder).await?;
    moves_out(&world, &wire, owner).await?;
    world.lab.down()
}

/// From MetalLB; gives the node that has both addresses then.
async fn moves_in(
    world: &mut World,
    theirs: &Before,
    wire: &Watch,
    folder: &Path,
) -> Result<usize> {
    let page = |chapter| commands("migrating-from-metallb.md", chapter);
    let askers = vips().map(|vip| world.lab.ask(vip, ASK)).collect::<Result<Vec<_>>>()?;
    let answers = speaker(wire).await?;
    let (before, began) = (probes(&world.lab)?, Instant::now());
    let said = shell(world, folder, &page("## 1. Look")?)?;
    let lost = "lost: Service default/web: `metadata.annotations.metallb.universe.tf/address-pool`";
    ensure!(said.contains(lost) && said.contains("global  IPv4"), "{said}");
    theirs.end_controller()?;
    shell(world, folder, &page("## 3. Give Berth what MetalLB has given")?)?;
    world.start_ccm().await?;
    eventually("claims of what MetalLB has given", 20, || async {
        let claims = world.claims().await?;
        let all = VIPS.iter().all(|vip| claims.keys().any(|name| name == vip || is(name, vip)));
        Ok((all && claims.len() == VIPS.len()).then_some(()))
    })
    .await
    .with_context(|| world.logs())?;
    shell(world, folder, &page("## 4. Announcers that wait")?)?;
    for node in 0..NODES {
        world.start_announcer(node).await?;
    }
    all_wait(world).await?;
    one_speaks(world, wire, answers, began)?;
    judged("beside MetalLB", before, CLIENT).with_context(|| world.logs())?;

    let (during, ended) = (probes(&world.lab)?, Instant::now());
    theirs.end_speakers(world)?;
    shell(world, folder, &page("## 5. Switch")?)?;
    let owner = one_has_them(world).await?;
    println!("node {owner} has them {:.1?} after MetalLB's end", ended.elapsed());
    tokio::time::sleep(Duration::from_millis(500)).await;
    judged("from MetalLB's end", during, TAKEN).with_context(|| world.logs())?;
    drop(askers);
    silences(world, wire, ended, TAKEN)?;
    let web = world.service("web").await?;
    ensure!(web.annotations().contains_key("metallb.universe.tf/address-pool"), "the way back");
    Ok(owner)
}

/// Whether a claim's name is this address, which may be written in another way.
fn is(name: &str, vip: &str) -> bool {
    matches!((name.parse::<IpAddr>(), vip.parse::<IpAddr>()), (Ok(a), Ok(b)) if a == b)
}

/// To kube-vip, which binds on another node.
async fn moves_out(world: &World, wire: &Watch, owner: usize) -> Result<()> {
    // The first voter is alone for a second or two.
    eventually("all nodes take part", 30, || async {
        Ok(membership::is_settled(world, NODES).await?.then_some(()))
    })
    .await?;
    let askers: Vec<_> = vips().map(|vip| world.lab.ask(vip, ASK)).collect::<Result<_>>()?;
    let (during, began) = (probes(&world.lab)?, Instant::now());
    // All at once, as where their DaemonSet is deleted: nobody hands over to one that leaves too.
    std::thread::scope(|scope| {
        let ends = world.announcers().map(|(node, announcer)| {
            let end = move || announcer.terminate(Duration::from_secs(20));
            (node, scope.spawn(end))
        });
        ends.collect::<Vec<_>>().into_iter().try_for_each(|(node, end)| {
            let ended = end.join().map_err(|_| anyhow::anyhow!("it panicked"));
            ended.and_then(|ended| ended.map(drop)).with_context(|| node.to_owned())
        })
    })?;
    eventually("members give their Lease back", 15, || async {
        let holder = leases(world).get(LEASE).await?.spec.and_then(|spec| spec.holder_identity);
        Ok(holder.unwrap_or_default().is_empty().then_some(()))
    })
    .await
    .with_context(|| world.logs())?;
    let next = (owner + 1) % NODES;
    bind(world, next, "eth0")?;
    for vip in vips() {
        world.lab.announce(next, vip)?;
    }
    println!("kube-vip has them {:.1?} after the end of members", began.elapsed());
    judged("from the end of members", during, LET_GO).with_context(|| world.logs())?;
    drop(askers);
    let record = wire.so_far();
    let own = mac(Net::Lan, node_host(next));
    for vip in vips() {
        let last = record.since(vip, began).last().map(|said| said.mac);
        ensure!(last == Some(own), "{vip}: {:?}", record.spans(vip));
    }
    silences(world, wire, began, LET_GO)?;
    // What it shows is still there for kube-vip, and on no node is anything of Berth.
    ensure!(world.published("web", VIPS.len()).await?.len() == VIPS.len(), "its status");
    let script = fs::read_to_string(repository().join("docs/moving/berth-on-node.sh"))?;
    for node in 0..NODES {
        let shown = world.lab.node(node).place()?.output(["sh", "-c", &script])?.stdout;
        ensure!(shown.is_empty(), "node {node}: {}", String::from_utf8_lossy(&shown));
    }
    Ok(())
}
