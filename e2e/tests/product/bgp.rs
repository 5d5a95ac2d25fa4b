//! Addresses by BGP, judged by the table of the router: whom it leads to, and when it leads nobody anywhere.

mod attributes;
mod control_plane;
mod field;
mod hostile;
mod mixed;
mod passwords;
mod stops;
mod tenant;

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use berth_e2e::addresses::router;
use berth_e2e::bird::{Bird, protocol};
use berth_e2e::get::get;
use berth_e2e::place::sibling_program;
use berth_e2e::world::{Env, HOST, World, env, eventually, ingress, kubectl, repository};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

/// Of no network of the lab: the client asks its router for them.
pub(crate) const POOL: &str = "10.99.0.1-10.99.0.50,fd00:99::1-fd00:99::50";

/// Who is answered is answered sooner.
const UNANSWERED: Duration = Duration::from_secs(1);

/// Which nobody should find anywhere.
const PASSWORD: &str = "correct-horse";

/// Routers know better within this many seconds.
const SOON: u64 = 10;

/// Who is silent for so many seconds is given up.
const HOLD_TIME: u64 = 9;

pub(crate) fn by_bgp(peers: &str) -> Env {
    let settings = [
        ("bgp_enable", "true"),
        ("vip_arp", "false"),
        ("bgp_as", "65000"),
        ("bgp_peers", peers),
        ("bgp_hold_time", "9"),
        ("bgp_keepalive_interval", "3"),
        // As in kube-vip's manifests for BGP.
        ("vip_interface", "lo"),
    ];
    env(settings)
}

/// Has the ConfigMap `berth-bgp` say this.
async fn configure(world: &World, text: &str) -> Result<()> {
    const NAME: &str = "berth-bgp";
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), "kube-system");
    let map = json!({ "metadata": { "name": NAME }, "data": { "config.yaml": text } });
    let map = serde_json::from_value(map)?;
    match maps.get_opt(NAME).await? {
        None => maps.create(&PostParams::default(), &map).await?,
        Some(_) => maps.replace(NAME, &PostParams::default(), &map).await?,
    };
    Ok(())
}

/// A router that has both families of each address of these nodes, and of no other.
async fn leads_to(bird: &Bird, addresses: &[IpAddr], nodes: &[&str]) -> Result<()> {
    leads_to_within(SOON, bird, addresses, nodes).await
}

async fn leads_to_within(
    seconds: u64,
    bird: &Bird,
    addresses: &[IpAddr],
    nodes: &[&str],
) -> Result<()> {
    let expected: BTreeSet<String> = nodes.iter().map(|node| protocol(node)).collect();
    let known = || async {
        for address in addresses {
            if bird.knows(*address)? != expected {
                return Ok(None);
            }
        }
        Ok(Some(()))
    };
    let found = eventually(&format!("a way to {nodes:?} and to no other"), seconds, known).await;
    found.with_context(|| {
        format!("{:?}", addresses.iter().map(|a| bird.paths(*a)).collect::<Vec<_>>())
    })
}

/// The addresses that are bound anywhere on a node, but for its own.
fn bound(world: &World, node: usize, addresses: &[IpAddr]) -> Result<Vec<String>> {
    let said = world.lab.node(node).exec(["ip", "-json", "address"])?;
    let links: Vec<Value> = serde_json::from_str(&said)?;
    let on = |link: &Value| -> Vec<String> {
        let infos = link["addr_info"].as_array().cloned().unwrap_or_default();
        let local = infos.iter().filter_map(|info| info["local"].as_str()?.parse::<IpAddr>().ok());
        let ours = local.filter(|own| addresses.contains(own));
        ours.map(|own| format!("{own} on {}", link["ifname"].as_str().unwrap_or_default()))
            .collect()
    };
    Ok(links.iter().flat_map(on).collect())
}

/// Of no node; what was under way is served for a second.
async fn is_unbound(world: &World, addresses: &[IpAddr]) -> Result<()> {
    eventually("that nothing is bound", 5, || async {
        let nodes = 0..world.lab.nodes().len();
        let all: Vec<Vec<String>> =
            nodes.map(|node| bound(world, node, addresses)).collect::<Result<_>>()?;
        Ok(all.iter().all(Vec::is_empty).then_some(()))
    })
    .await
}

fn announced(service: &Service) -> Option<(String, String, String)> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == "berth.dev/Announced")?;
    Some((condition.status.clone(), condition.reason.clone(), condition.message.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_lead_to_every_node_that_serves_and_to_no_other() -> Result<()> {
    let peer = router().v4;
    let environment = by_bgp(&format!("{peer}:65001:{PASSWORD}/mpbgp_nexthop=auto_sourceip"));
    let mut world = World::up(2, environment).await?;
    world.pools(json!({ "range-global": POOL })).await?;
    // The pods are on the third.
    world.start_announcer(2).await?;
    let names: Vec<String> = world.lab.nodes().iter().map(|node| node.name().to_owned()).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();

    // Nobody is told that it is served before a router is told where.
    world.expose("web", json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;
    let told = eventually("why it is not announced", 10, || async {
        Ok(announced(&world.service("web").await?))
    });
    let (status, reason, message) = told.await.with_context(|| world.logs())?;
    ensure!((status.as_str(), reason.as_str()) == ("False", "NoBgpSession"), "{reason}: {message}");
    ensure!(message.contains(&peer.to_string()), "{message}");
    ensure!(ingress(&world.service("web").await?).is_empty());

    // What a router does that keeps nothing through restarts; the other kind is in `stops`.
    let said = format!("password \"{PASSWORD}\"; graceful restart off;");
    let bird = Bird::start(&world.lab, 65000, &said)?;
    let addresses = world.published("web", 2).await.with_context(|| bird.log())?;
    leads_to(&bird, &addresses, &all).await?;
    for (index, node) in world.lab.nodes().iter().enumerate() {
        let own = node.addresses().lan;
        let [v4, v6] = addresses.as_slice() else { unreachable!() };
        let name = protocol(node.name());
        ensure!(bird.paths(*v4)?[&name] == IpAddr::from(own.v4), "{:?}", bird.paths(*v4)?);
        ensure!(bird.paths(*v6)?[&name] == IpAddr::from(own.v6), "{:?}", bird.paths(*v6)?);
        let bound = bound(&world, index, &addresses)?;
        ensure!(bound.len() == 2 && bound.iter().all(|own| own.ends_with(" on lo")), "{bound:?}");
    }
    eventually("that it is announced", 10, || async {
        let told = announced(&world.service("web").await?);
        Ok(told.filter(|(status, _, _)| status == "True").map(drop))
    })
    .await?;
    for address in &addresses {
        eventually("an answer through the router", 10, || async { Ok(world.curl(*address).ok()) })
            .await?;
    }

    // A neighbour that asks for it is told by nobody where it is.
    let client = world.lab.outside();
    for address in &addresses {
        let text = address.to_string();
        client.exec(["ip", "route", "add", &text, "dev", "eth0"])?;
        let answer = get(&client, SocketAddr::new(*address, 80), "/", UNANSWERED);
        let neighbour = client.exec(["ip", "neighbour", "show", "to", &text])?;
        client.exec(["ip", "route", "delete", &text, "dev", "eth0"])?;
        ensure!(answer.is_err() && !neighbour.contains("lladdr"), "{answer:?}: {neighbour}");
    }
    // Nothing listens for it.
    let listening = world.lab.node(0).exec(["ss", "-Hltn", "sport", "=", ":179"])?;
    ensure!(listening.trim().is_empty(), "{listening}");

    // It is told who knows what, and no password.
    let ask = |path: &str| {
        world.lab.node(0).exec(["curl", "-s", &format!("http://127.0.0.1:2112{path}")])
    };
    let (numbers, vips) = (ask("/metrics")?, ask("/debug/vips")?);
    ensure!(numbers.contains(&format!("bgp_session_up{{peer=\"{peer}\"}} 1")), "{numbers}");
    let routes = format!("bgp_routes{{peer=\"{peer}\",family=\"IPv6\"}} 1");
    ensure!(numbers.contains(&routes), "{numbers}");
    let records: Vec<Value> = serde_json::from_str(&vips)?;
    let told_to = records.iter().filter(|vip| vip["told_to"] == json!([peer.to_string()]));
    ensure!(told_to.count() == 2, "{vips}");
    let lost = format!("bgp_sessions_lost_total{{peer=\"{peer}\"}} 0\n");
    ensure!(numbers.contains(&lost), "before any is lost: {numbers}");
    let routers = ask("/debug/bgp")?;
    let of: Vec<Value> = serde_json::from_str(&routers)?;
    let [router] = &of[..] else { bail!("{routers}") };
    let up = (&router["state"], &router["routes_told"]["IPv6"], router["for_seconds"].is_u64());
    ensure!(up == (&json!("Established"), &json!(1), true), "{routers}");
    let said =
        [numbers, vips, routers, ask("/readyz")?, world.announcer(all[0])?.log_text()].concat();
    ensure!(!said.contains(PASSWORD), "{said}");

    // What the ConfigMap says is told at once, and no session ends for it.
    let rule = "--from-literal=config.yaml=policy: [{communities: [\"65000:7\"], prepend: 2}]";
    kubectl(&world.lab, &["-n", "kube-system", "create", "configmap", "berth-bgp", rule])?;
    eventually("the community of the rule, from each node", SOON, || async {
        let said = bird.says(&format!("show route {}/32 all", addresses[0]))?;
        Ok((said.matches("(65000,7)").count() == all.len()).then_some(()))
    })
    .await?;
    ensure!(ask("/metrics")?.contains(&lost), "no session has ended");

    // Local: to the node with the pods alone.
    world.patch("web", json!({ "spec": { "externalTrafficPolicy": "Local" } })).await?;
    leads_to(&bird, &addresses, &all[2..]).await?;
    world.patch("web", json!({ "spec": { "externalTrafficPolicy": "Cluster" } })).await?;
    leads_to(&bird, &addresses, &all).await?;

    // Nothing is ready anywhere: withdrawn, unbound, and told.
    kubectl(&world.lab, &["scale", "deployment", "hello", "--replicas=0"])?;
    leads_to(&bird, &addresses, &[]).await?;
    eventually("that nothing is shown", 10, || async {
        let service = world.service("web").await?;
        let is_told = announced(&service).is_some_and(|(_, reason, _)| reason == "NoEndpoint");
        Ok((ingress(&service).is_empty() && is_told).then_some(()))
    })
    .await?;
    is_unbound(&world, &addresses).await?;
    kubectl(&world.lab, &["scale", "deployment", "hello", "--replicas=2"])?;
    leads_to(&bird, &addresses, &all).await?;
    world.published("web", 2).await?;

    // A node that is emptied: the others stay.
    kubectl(&world.lab, &["annotate", "node", all[0], "berth.dev/drain=true"])?;
    leads_to(&bird, &addresses, &all[1..]).await?;
    kubectl(&world.lab, &["annotate", "node", all[0], "berth.dev/drain-"])?;
    leads_to(&bird, &addresses, &all).await?;

    // One that restarts says so, and leaves nothing, since the router would keep no way to it.
    stops::wants_announcers(&world)?;
    world.announcer(all[0])?.terminate(Duration::from_secs(10))?;
    leads_to(&bird, &addresses, &all[1..]).await?;
    ensure!(bird.log().contains("no router keeps routes meanwhile"), "{}", bird.log());
    ensure!(bound(&world, 0, &addresses)?.is_empty(), "nothing is left");
    ensure!(ingress(&world.service("web").await?) == addresses, "others announce it");

    // One that is killed is gone with its connection. The next takes off what it has left, and waits for its node to name a
    // router.
    world.announcer(all[1])?.kill()?;
    leads_to(&bird, &addresses, &all[2..]).await?;
    let mut by_node = by_bgp("");
    by_node.insert("annotation".to_owned(), "bgp.example.com".to_owned());
    world.start_announcer_with(1, by_node).await?;
    let own = world.lab.node(1).addresses().lan.v4;
    let note = |name: &str, value: &str| format!("bgp.example.com/bgp-peers-0-{name}={value}");
    let notes = [
        note("node-asn", "65000"),
        note("peer-asn", "65001"),
        note("src-ip", &own.to_string()),
        note("peer-ip", &peer.to_string()),
        note("bgp-pass", "Y29ycmVjdC1ob3JzZQ=="),
    ];
    let notes: Vec<&str> = notes.iter().map(String::as_str).collect();
    kubectl(&world.lab, &[&["annotate", "node", all[1]][..], &notes].concat())?;
    leads_to(&bird, &addresses[..1], &all[1..]).await?;
    // One that lacks a key is told of, and the group that was right goes on. It ends with its last key.
    kubectl(&world.lab, &["annotate", "node", all[1], "bgp.example.com/bgp-peers-0-peer-ip-"])?;
    eventually("what is missing", 10, || async {
        let said = world.announcer(all[1])?.log_text();
        Ok(said.contains("bgp-peers-0-peer-ip: it is missing").then_some(()))
    })
    .await?;
    leads_to(&bird, &addresses[..1], &all[1..]).await?;
    let gone: Vec<String> =
        notes.iter().filter_map(|note| Some(format!("{}-", note.split_once('=')?.0))).collect();
    let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
    kubectl(&world.lab, &[&["annotate", "node", all[1]][..], &gone].concat())?;
    leads_to(&bird, &addresses[..1], &all[2..]).await?;
    ensure!(bird.log().contains("Peer de-configured"), "{}", bird.log());
    let said = world.announcer(all[1])?.log_text();
    ensure!(said.contains("no router is told of anything"), "{said}");
    let host = world.service("web").await?.metadata.annotations.unwrap_or_default();
    ensure!(host.contains_key(HOST), "somebody has written it");
    for address in &addresses {
        world.curl(*address)?;
    }
    Ok(())
}

#[test]
fn a_file_is_checked_before_it_is_applied() -> Result<()> {
    let program = sibling_program("berth-announcer", "BERTH_ANNOUNCER")?;
    let file = std::env::temp_dir().join(format!("berth-check-bgp-{}", std::process::id()));
    for (text, code, says) in [
        ("asn: 65000\n", 0, "rules: 0"),
        ("peers:\n- {address: 192.0.2.1, asn: x}\n", 1, "asn on line 2 \"x\": accepted is"),
    ] {
        std::fs::write(&file, text)?;
        let output = Command::new(&program).arg("check-bgp").arg(&file).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.code() == Some(code) && said.contains(says), "{text}: {said}");
    }
    let example = repository().join("examples/06-bgp/berth-bgp.yaml");
    for (file, input) in [(example.as_path(), None), (Path::new("-"), Some(&example))] {
        let mut checking = Command::new(&program);
        if let Some(input) = input {
            checking.stdin(File::open(input)?);
        }
        let checked = checking.arg("check-bgp").arg(file).output()?;
        let said = String::from_utf8_lossy(&checked.stdout);
        ensure!(checked.status.success() && said.contains("peer tor-b: 192.0.2.129"), "{said}");
        ensure!(!said.contains("note:"), "{said}");
    }
    std::fs::remove_file(&file)?;
    let absent = Command::new(&program).arg("check-bgp").arg(&file).output()?;
    let said = String::from_utf8_lossy(&absent.stderr);
    ensure!(absent.status.code() == Some(1) && said.contains("berth-check-bgp-"), "{said}");
    Ok(())
}
