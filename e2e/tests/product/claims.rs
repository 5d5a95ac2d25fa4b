//! What an annotation names is a wish: with `berth_claims=required` nodes serve what berth-ccm has given, and nothing else.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use berth_e2e::addresses::{Mac, Net, mac, node_host, router};
use berth_e2e::membership;
use berth_e2e::probe::{Manner, Probe};
use berth_e2e::vm::{Vm, install_kubevirt};
use berth_e2e::wire::Watch;
use berth_e2e::world::{ADDRESSES, HOST, POOL, World, env, eventually, ingress, kubectl};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::networking::v1::IPAddress;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};

use super::conflict::{ASK, event};

const NODES: usize = 2;
/// Of a namespace that has a pool to itself.
const RESERVED: &str = "10.0.65.1";
/// What a node has besides the address that Kubernetes lists, in no pool, and where a program of its own listens.
const SECOND: &str = "10.0.66.77";
pub(crate) const PORT: u16 = 8080;
const EVERY: Duration = Duration::from_millis(50);

fn wish(name: &str, metadata: Value, class: Option<&str>) -> Value {
    let mut object = json!({
        "metadata": metadata,
        "spec": {
            "type": "LoadBalancer", "loadBalancerClass": class, "selector": { "app": "hello" },
            "ports": [{ "port": 80, "targetPort": 8080 }],
        },
    });
    object["metadata"]["name"] = json!(name);
    object
}

/// Gives node 1 [`SECOND`], and a listener of its own.
pub(crate) fn second_address(world: &World) -> Result<IpAddr> {
    let owner = world.lab.node(1);
    owner.exec(["ip", "address", "add", &format!("{SECOND}/16"), "dev", "eth0"])?;
    let echo = berth_e2e::place::sibling_program("echo", "BERTH_ECHO")?.display().to_string();
    owner.place()?.start("echo", [echo])?;
    Ok(SECOND.parse()?)
}

/// That no node has the address or has spoken for it.
fn is_left_alone(world: &World, wire: &Watch, address: IpAddr) -> Result<()> {
    ensure!(world.holders(address)?.is_empty(), "{address} is bound\n{}", world.logs());
    let nodes: Vec<Mac> = (0..NODES).map(|node| mac(Net::Lan, node_host(node))).collect();
    let said = wire.so_far().0;
    let said = said.iter().filter(|said| said.address == address && nodes.contains(&said.mac));
    ensure!(said.count() == 0, "a node answers for {address}\n{}", world.logs());
    Ok(())
}

/// Rows 1 to 3 of what was tried from outside: a class that only one half took, the router's address, a node that is said to
/// have it; a pin that was refused, with the label of what has an address; an address that a node has for itself, and the
/// port of a listener there.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_claim_names_is_served_by_nobody_and_who_asks_is_told() -> Result<()> {
    let required = env([("berth_claims", "required")]);
    let mut world = World::without_berth(NODES + 1, required).await?;
    let second = second_address(&world)?;
    for node in 0..NODES {
        world.start_announcer(node).await?;
    }
    world.pools(json!({ "range-global": POOL, "range-other": "10.0.65.1-10.0.65.9" })).await?;
    world.start_ccm().await?;
    world.deploy("default", "hello", 2)?;
    world.expose("web", json!({})).await?;
    let held = world.published("web", 1).await?[0];
    // What is refused is told once it has lasted, and while voters change nobody knows that.
    eventually("all nodes take part", 30, || async {
        Ok(membership::is_settled(&world, NODES).await?.then_some(()))
    })
    .await?;
    let router = IpAddr::V4(router().v4);
    let reserved: IpAddr = RESERVED.parse()?;
    let outside = world.lab.outside();
    let listener = Probe::start(&outside, (second, PORT).into(), EVERY, Manner::NewConnections)?;
    let wire = world.lab.watch()?;
    let askers = [router, reserved, held].map(|address| world.lab.ask(address, ASK));
    let askers = askers.into_iter().collect::<Result<Vec<_>>>()?;

    let annotations = json!({ ADDRESSES: router.to_string(), HOST: "node0" });
    let class = Some("kube-vip.io/kube-vip-class");
    world.create(wish("gateway", json!({ "annotations": annotations }), class)).await?;
    let labels = json!({ "implementation": "y" });
    let metadata = json!({ "labels": labels, "annotations": { ADDRESSES: RESERVED } });
    world.create(wish("reserved", metadata, None)).await?;
    let annotations = json!({ ADDRESSES: held.to_string(), HOST: "node0" });
    let metadata = json!({ "labels": labels, "annotations": annotations });
    world.create(wish("second", metadata, None)).await?;

    let annotations = json!({ ADDRESSES: SECOND, HOST: "node0" });
    let mut own = wish("own", json!({ "annotations": annotations }), None);
    own["spec"]["ports"] = json!([{ "port": PORT, "targetPort": 8080 }]);
    world.create(own).await?;

    event(&world, "reserved", "AddressNotClaimed", &[RESERVED, "berth.dev/AddressAllocated"])
        .await?;
    event(&world, "second", "AddressNotClaimed", &[&held.to_string()]).await?;
    event(&world, "gateway", "AddressReserved", &[&router.to_string(), "the router of node"])
        .await?;
    event(&world, "own", "AddressReserved", &[SECOND, "node node1"]).await?;
    for address in [router, reserved] {
        is_left_alone(&world, &wire, address)?;
    }
    ensure!(world.holders(second)? == ["node1"], "{}", world.logs());
    // What a node told goes on to count when nobody is there to tell it.
    world.announcer("node1")?.terminate(Duration::from_secs(15))?;
    world.expose("late", json!({ "loadBalancerIP": SECOND })).await?;
    event(&world, "late", "AddressReserved", &[SECOND, "node node1"]).await?;
    let report = listener.finish()?;
    ensure!(report.failed.is_empty(), "the node's own listener: {:?}", report.failed);
    for name in ["gateway", "reserved", "second", "own", "late"] {
        ensure!(ingress(&world.service(name).await?).is_empty(), "{name} is published");
    }
    ensure!(world.holders(held)?.len() == 1 && world.curl(held).is_ok(), "{}", world.logs());
    let disputes = wire.so_far().disputes(held);
    ensure!(disputes.is_empty(), "{disputes:?}");
    askers.into_iter().try_for_each(|asker| asker.finish().map(drop))?;
    what_the_network_gave_is_claimed(&world).await?;
    world.lab.down()
}

/// The node without an announcer offers two Services what the network gave it for them: an address that nobody has, and one
/// that is reserved.
async fn what_the_network_gave_is_claimed(world: &World) -> Result<()> {
    const GIVEN: &str = "10.0.67.7";
    let mut offers = Vec::new();
    for (name, address) in [("by-dhcp", GIVEN), ("refused", RESERVED)] {
        let metadata = json!({ "annotations": { ADDRESSES: "0.0.0.0" } });
        let made = world.create(wish(name, metadata, None)).await?;
        offers.push(format!("{}={address}", made.metadata.uid.unwrap_or_default()));
    }
    let nodes: Api<Node> = Api::all(world.client.clone());
    let node = nodes.get("node2").await?.metadata;
    let lease = json!({ "metadata": {
        "name": "berth-announcer-node2",
        "labels": { "berth.dev/host": "" },
        "annotations": { "berth.dev/offers": offers.join(",") },
        "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": "node2", "uid": node.uid }],
    } });
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "kube-system");
    leases.create(&PostParams::default(), &serde_json::from_value(lease)?).await?;
    let claims: Api<IPAddress> = Api::all(world.client.clone());
    let holder = eventually("the address is claimed", 15, || async {
        Ok(claims
            .get_opt(GIVEN)
            .await?
            .and_then(|claim| claim.spec)
            .map(|spec| spec.parent_ref.name))
    })
    .await?;
    ensure!(holder == "by-dhcp", "it is {holder}'s\n{}", world.logs());
    event(world, "refused", "AddressReserved", &[RESERVED]).await?;
    ensure!(claims.get_opt(RESERVED).await?.is_none(), "{}", world.logs());
    for name in ["by-dhcp", "refused"] {
        let shown = world.service(name).await?.metadata.annotations.unwrap_or_default();
        ensure!(shown[ADDRESSES] == "0.0.0.0", "it asks for DHCP no more: {shown:?}");
    }
    leases.delete("berth-announcer-node2", &DeleteParams::default()).await?;
    eventually("it is given back", 15, || async {
        Ok(claims.get_opt(GIVEN).await?.is_none().then_some(()))
    })
    .await
}

/// Two watches have no order: whichever of claim and annotation is heard first, the address is served, again after a
/// restart, and no longer than it is held.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_claim_names_is_served_for_services_and_machines() -> Result<()> {
    let mut world = World::up(NODES, env([("berth_claims", "required")])).await?;
    install_kubevirt(&world.lab)?;
    let vm = Vm::create(&world.client, "default", "vm").await?;
    vm.start("node0", &["10.244.9.9".parse()?]).await?;
    let eips = berth_e2e::vm::Eips::of(&world.client, "default");
    eips.create("vm", json!({ "vmi": "vm" })).await?;
    for n in 0..10 {
        world.expose(&format!("s{n}"), json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;
    }
    let mut all = Vec::new();
    for n in 0..10 {
        all.extend(world.published(&format!("s{n}"), 2).await?);
    }
    let status = eips.shows("vm", "its node", |status| status["holder"]["node"] == "node0").await?;
    let eip: IpAddr = status["eips"][0].as_str().unwrap_or_default().parse()?;
    ensure!(world.holders(eip)? == ["node0"], "{}", world.logs());
    let events = kubectl(&world.lab, &["get", "events.events.k8s.io", "-o", "json"])?;
    ensure!(!events.contains("AddressNotClaimed"), "{events}");

    for node in 0..NODES {
        world.announcer(&format!("node{node}"))?.terminate(Duration::from_secs(15))?;
        world.start_announcer(node).await?;
    }
    eventually("every address is bound again", 15, || async {
        let bound = all.iter().map(|address| world.holders(*address));
        let bound = bound.collect::<Result<Vec<_>>>()?;
        Ok(bound.iter().all(|holders| holders.len() == 1).then_some(()))
    })
    .await?;

    // Whoever may write claims takes what he gave: the Service is told, and berth-ccm gives it anew.
    let claims: Api<IPAddress> = Api::all(world.client.clone());
    world.ccm()?.terminate(Duration::from_secs(15))?;
    claims.delete(&all[0].to_string(), &DeleteParams::default()).await?;
    event(&world, "s0", "AddressNotClaimed", &[&all[0].to_string()]).await?;
    ensure!(world.holders(all[0])?.is_empty() && world.holders(all[1])?.len() == 1);
    world.start_ccm().await?;
    eventually("it is served again", 15, || async {
        Ok((world.holders(all[0])?.len() == 1).then_some(()))
    })
    .await?;
    world.lab.down()
}

/// Where nothing is set, as in kube-vip's manifests, what a stock provider gave is served; once berth-ccm has claimed it
/// claims decide, and it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_set_claims_decide_once_what_there_was_is_claimed() -> Result<()> {
    let mut world = World::without_berth(NODES + 1, env([])).await?;
    for node in 0..NODES {
        world.start_announcer(node).await?;
    }
    world.deploy("default", "hello", 2)?;
    let labels = json!({ "implementation": "kube-vip" });
    let given = |address: &str| json!({ "labels": labels, "annotations": { ADDRESSES: address } });
    world.create(wish("web", given("10.0.64.9"), None)).await?;
    let held = world.published("web", 1).await?[0];
    eventually("kube-proxy to serve it", 10, || async { Ok(world.curl(held).ok()) }).await?;
    let probe = world.lab.probe(&format!("{held}:80"), Duration::from_millis(20))?;
    let decide = |world: &World| {
        let asked = |node| {
            let text = membership::metrics(world, node)?;
            Ok(text.lines().any(|line| line == "berth_announcer_claims_required 1"))
        };
        (0..NODES).map(asked).collect::<Result<Vec<bool>>>()
    };
    ensure!(decide(&world)? == [false; NODES]);

    world.pools(json!({ "range-global": POOL, "range-other": "10.0.65.1-10.0.65.9" })).await?;
    world.start_ccm().await?;
    eventually("claims decide", 30, || async {
        Ok((decide(&world)? == [true; NODES]).then_some(()))
    })
    .await?;
    world.create(wish("reserved", given(RESERVED), None)).await?;
    event(&world, "reserved", "AddressNotClaimed", &[RESERVED]).await?;
    ensure!(world.holders(RESERVED.parse()?)?.is_empty());
    ensure!(world.holders(held)?.len() == 1);
    let report = probe.finish()?;
    ensure!(report.failed.is_empty(), "{report:?}");
    world.lab.down()
}
