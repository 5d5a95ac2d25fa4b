//! Nobody is left with a status that says an address answers while no announcer lives, nor without a word.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Result, ensure};
use berth_e2e::vm::{Eips, Vm, install_kubevirt, reason};
use berth_e2e::world::{POOL, World, env, eventually};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;

/// How soon it is told that the last announcer has ended.
const MINUTE: u64 = 60;
/// How soon that one lives again: it says so first, and is heard once more after twenty seconds at the latest.
const BACK: u64 = 45;

/// The reason of the condition `berth.dev/Announced`, where it is false.
fn why(service: &Service) -> Option<String> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    let shown = conditions.iter().find(|shown| shown.type_ == "berth.dev/Announced")?;
    (shown.status == "False").then(|| shown.reason.clone())
}

pub(crate) async fn says(
    world: &World,
    name: &str,
    reason: Option<&str>,
    within: u64,
) -> Result<Service> {
    let what = format!("{name}: berth.dev/Announced {}", reason.unwrap_or("is not false"));
    eventually(&what, within, || async {
        let service = world.service(name).await?;
        Ok((why(&service).as_deref() == reason).then_some(service))
    })
    .await
}

/// How many Events tell a Service or an `EipBinding` of this.
pub(crate) async fn events(world: &World, name: &str, reason: &str) -> Result<usize> {
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    let told = events.list(&ListParams::default()).await?.items.into_iter().filter(|event| {
        let about = event.regarding.as_ref().and_then(|about| about.name.as_deref());
        about == Some(name) && event.reason.as_deref() == Some(reason)
    });
    Ok(told.count())
}

/// Gives the announcer's role these rules, or its own but for that of claims. Returns what it had.
async fn claims_are_shown(
    world: &World,
    rules: Option<Vec<PolicyRule>>,
) -> Result<Vec<PolicyRule>> {
    let roles: Api<ClusterRole> = Api::all(world.client.clone());
    let mut role = roles.get("berth-announcer").await?;
    let had = role.rules.take().unwrap_or_default();
    let is_of_claims = |rule: &PolicyRule| {
        rule.resources.iter().flatten().any(|resource| resource == "ipaddresses")
    };
    let others = had.iter().filter(|rule| !is_of_claims(rule)).cloned();
    role.rules = Some(rules.unwrap_or_else(|| others.collect()));
    roles.replace("berth-announcer", &PostParams::default(), &role).await?;
    Ok(had)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_an_address_is_told_within_a_minute_that_no_announcer_lives_and_that_one_does_again()
-> Result<()> {
    let mut world = World::without_berth(3, env([("berth_claims", "required")])).await?;
    install_kubevirt(&world.lab)?;
    // What both programs write is what the policies let them write.
    world.police()?;
    world.pools(json!({ "range-global": POOL })).await?;
    world.start_ccm().await?;
    for node in 0..2 {
        world.start_announcer(node).await?;
    }
    world.deploy("default", "hello", 1)?;
    world.expose("web", json!({})).await?;
    let [address] = world.published("web", 1).await?[..] else { anyhow::bail!("no address") };
    let node = world.lab.node(0).name().to_owned();
    let pods = u32::from(world.lab.node(0).addresses().pods4.network());
    let own = IpAddr::from(Ipv4Addr::from(pods + 200));
    let vm = Vm::create(&world.client, "default", "vm").await?;
    vm.start(&node, &[own]).await?;
    let eips = Eips::of(&world.client, "default");
    eips.create("vm", json!({ "vmi": "vm" })).await?;
    eips.shows("vm", "ready", |status| reason(status, "Ready") == "Held").await?;

    // One that is started without the right to look at claims answers for nothing, and so is none.
    let all = claims_are_shown(&world, None).await?;
    for (_, announcer) in world.announcers() {
        announcer.kill()?;
    }
    world.start_announcer(0).await?;
    let web = says(&world, "web", Some("NoAnnouncer"), MINUTE).await?;
    ensure!(!berth_e2e::world::ingress(&web).is_empty(), "what is published is not berth-ccm's");
    eventually("the binding is not ready", 5, || async {
        let status = eips.status("vm").await?;
        Ok((reason(&status, "Ready") == "NoAnnouncer").then_some(()))
    })
    .await?;
    for name in ["web", "vm"] {
        ensure!(events(&world, name, "NoAnnouncer").await? == 1, "{name}: an Event each");
    }

    claims_are_shown(&world, Some(all)).await?;
    world.announcer(&node)?.kill()?;
    for node in 0..2 {
        world.start_announcer(node).await?;
    }
    says(&world, "web", None, BACK).await?;
    eventually("the binding is ready again", 15, || async {
        let status = eips.status("vm").await?;
        Ok((reason(&status, "Ready") == "Held").then_some(()))
    })
    .await?;
    world.curl(address)?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_nobody_announces_is_told_after_a_minute_and_no_longer_when_somebody_does()
-> Result<()> {
    let mut world = World::without_berth(2, env([])).await?;
    world.pools(json!({ "range-global": POOL })).await?;
    world.start_ccm().await?;
    world.deploy("default", "hello", 1)?;
    world.expose("web", json!({})).await?;
    tokio::time::sleep(Duration::from_secs(MINUTE - 10)).await;
    ensure!(why(&world.service("web").await?).is_none(), "somebody may be about to");
    says(&world, "web", Some("Unannounced"), 20).await?;
    world.start_announcer(0).await?;
    says(&world, "web", None, 15).await?;
    world.published("web", 1).await?;
    world.lab.down()
}
