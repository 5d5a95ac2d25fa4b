//! What rules and annotations of Services say of a route, as the router has it, and who says it in vain and is told so.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::router;
use berth_e2e::bird::{Bird, protocol};
use berth_e2e::place::Place;
use berth_e2e::world::{World, eventually, kubectl};
use serde_json::json;

use super::{POOL, SOON, announced, by_bgp, configure};

/// A router of another AS, by IPv4 and by nothing but its link, and the same of the own AS by IPv6, which alone is told
/// preferences.
fn document() -> String {
    format!(
        "
peers:
- {{name: tor, address: {}, asn: 65001}}
- {{name: link, interface: eth0, asn: external}}
- {{name: core, address: \"{}\", asn: internal, localAsn: 65001, families: [ipv4, ipv6]}}
policy:
- {{pools: [default], med: 7}}
- {{pools: [global], med: 8}}
- {{services: {{matchLabels: {{tier: gold}}}}, prepend: 2}}
services:
- {{namespaces: [default], communities: [\"65000:*\"], localPref: {{max: 200}}, peers: [\"*\"]}}
",
        router().v4,
        router().v6
    )
}

/// The address of the link that a place has at `eth0`.
fn of_link(place: &Place) -> Result<Ipv6Addr> {
    let said =
        place.exec(["ip", "-6", "-json", "address", "show", "dev", "eth0", "scope", "link"])?;
    let links: Vec<serde_json::Value> = serde_json::from_str(&said)?;
    let mut all = links.iter().flat_map(|link| link["addr_info"].as_array()).flatten();
    let own = all.find_map(|info| info["local"].as_str()?.parse().ok());
    own.with_context(|| format!("an address of the link: {said}"))
}

/// Waits until the router has a route by one of its protocols with all of this, and none of that.
async fn has(bird: &Bird, address: IpAddr, by: &str, all: &[&str], none: &[&str]) -> Result<()> {
    let command = format!("show route {address}/32 protocol {by} all");
    let what = format!("{all:?} by {by}, and no {none:?}");
    let found = eventually(&what, SOON, || async {
        let said = bird.says(&command)?;
        let is_there = all.iter().all(|text| said.contains(text));
        Ok((is_there && !none.iter().any(|text| said.contains(text))).then_some(()))
    });
    found.await.with_context(|| bird.says(&command).unwrap_or_default())
}

/// Waits for an Event of this reason with all of that in it.
async fn told(world: &World, reason: &str, all: &[&str]) -> Result<()> {
    let selector = format!("--field-selector=reason={reason}");
    eventually(&format!("an Event {reason}"), 15, || async {
        let events = kubectl(&world.lab, &["get", "events", &selector, "-o", "wide"])?;
        Ok(all.iter().all(|text| events.contains(text)).then_some(()))
    })
    .await
    .with_context(|| world.logs())
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_have_what_rules_say_and_what_services_may_ask_for() -> Result<()> {
    let world = World::up(1, by_bgp("")).await?;
    let others = "10.99.1.1-10.99.1.9";
    let sharing = "allow-share-default";
    world.pools(json!({ "range-default": POOL, "range-global": others, sharing: "true" })).await?;
    configure(&world, &document()).await?;
    let (node, own) = (world.lab.node(0).name().to_owned(), world.lab.node(0).addresses().lan);
    let tor = protocol(&node);
    let core = format!(
        "protocol bgp core {{ local {} as 65001; neighbor {} as 65001; passive on; \
         ipv4 {{ import all; export none; }}; ipv6 {{ import all; export none; }}; }}",
        router().v6,
        own.v6
    );
    let (theirs, ours) = (of_link(&world.lab.router())?, of_link(&world.lab.node(0).place()?)?);
    let link = format!(
        "protocol radv {{ interface \"eth0\" {{ max ra interval 600; default lifetime 0; }}; }} \
         protocol bgp by_link {{ local {theirs} as 65001; neighbor {ours}%eth0 as 65000; passive on; \
         ipv4 {{ import all; export none; extended next hop on; }}; ipv6 {{ import all; export none; }}; }}"
    );
    let bird = Bird::start_with(&world.lab, 65000, "", &format!("{core}\n{link}\n"))?;
    world.expose("web", json!({})).await?;
    let address = world.published("web", 1).await.with_context(|| bird.log())?[0];
    let plain = ["BGP.as_path: 65000\n", "BGP.med: 7"];
    has(&bird, address, &tor, &plain, &["BGP.community"]).await?;
    has(&bird, address, "core", &["BGP.local_pref: 100", "BGP.med: 7"], &[]).await?;
    // By the link alone IPv4 goes too (RFC 8950), and the router leads there.
    has(&bird, address, "by_link", &["unicast", &ours.to_string()], &[]).await?;

    // What it may ask for is told, what it may not is passed over, and it is told so.
    let annotate = |texts: &[&str]| {
        kubectl(&world.lab, &[&["annotate", "--overwrite", "service", "web"][..], texts].concat())
    };
    annotate(&[
        "berth.dev/bgp-communities=65000:77,65001:1,65000:1:2",
        "berth.dev/bgp-local-pref=200",
    ])?;
    has(&bird, address, &tor, &["(65000,77)"], &["(65001,1)", "(65000, 1, 2)"]).await?;
    has(&bird, address, "core", &["BGP.local_pref: 200", "(65000,77)"], &[]).await?;
    let not = ["berth.dev/bgp-communities", "65001:1", "65000:1:2", "accepted: 65000:*"];
    told(&world, "BgpNotPermitted", &not).await?;
    annotate(&["berth.dev/bgp-local-pref=201"])?;
    has(&bird, address, "core", &["BGP.local_pref: 100"], &[]).await?;
    annotate(&["berth.dev/bgp-local-pref=much"])?;
    told(&world, "InvalidBgpAnnotation", &["berth.dev/bgp-local-pref", "\"much\""]).await?;

    // A label is a wish, and comes to what the operator's rule for it says.
    kubectl(&world.lab, &["label", "service", "web", "tier=gold"])?;
    has(&bird, address, &tor, &["BGP.as_path: 65000 65000 65000"], &[]).await?;
    kubectl(&world.lab, &["label", "service", "web", "tier-"])?;
    has(&bird, address, &tor, &plain, &[]).await?;

    // Whoever comes later to an address says nothing of its routes.
    let ports = json!([{ "port": 81, "targetPort": 8080 }]);
    let pin = BTreeMap::from([
        ("kube-vip.io/loadbalancerIPs", address.to_string()),
        ("berth.dev/bgp-communities", "65000:99".to_owned()),
    ]);
    let spec = json!({ "type": "LoadBalancer", "selector": { "app": "hello" }, "ports": ports });
    world
        .create(json!({ "metadata": { "name": "late", "annotations": pin }, "spec": spec }))
        .await?;
    told(&world, "BgpOfAnother", &[&address.to_string(), "service/default/web"]).await?;
    has(&bird, address, &tor, &["(65000,77)"], &["(65000,99)"]).await?;
    world.delete("late").await?;

    // Which routers are told; and where that is none, why.
    annotate(&["berth.dev/bgp-peers=core"])?;
    has(&bird, address, &tor, &[], &["BGP.origin"]).await?;
    has(&bird, address, "core", &["BGP.origin"], &[]).await?;
    annotate(&["berth.dev/bgp-peers=nobody"])?;
    has(&bird, address, "core", &[], &["BGP.origin"]).await?;
    eventually("why it is not announced", 30, || async {
        let told = announced(&world.service("web").await?);
        Ok(told.filter(|(status, reason, _)| status == "False" && reason == "KeptFromRouters"))
    })
    .await
    .with_context(|| world.logs())?;
    annotate(&["berth.dev/bgp-peers-"])?;
    has(&bird, address, &tor, &plain, &[]).await?;

    // What the ConfigMap allows no more is gone.
    let strict = document().replace("65000:*", "65000:78");
    configure(&world, &strict).await?;
    has(&bird, address, &tor, &plain, &["(65000,77)"]).await?;
    let numbers = world.lab.node(0).exec(["curl", "-s", "http://127.0.0.1:2112/metrics"])?;
    let mut lost = numbers.lines().filter(|line| line.contains("bgp_sessions_lost_total{"));
    ensure!(lost.all(|line| line.ends_with(" 0")), "no session has ended: {numbers}");
    world.lab.down()
}
