//! Bad input gets one clear error that names object, field, value and what is accepted; nothing else stops.

use std::time::Duration;

use anyhow::{Result, ensure};
use berth_e2e::place::sibling_program;
use berth_e2e::process::Process;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::json;

use berth_e2e::world::{ADDRESSES, World, annotated, env, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_key_is_reported_on_the_configmap_and_stops_nothing_else() -> Result<()> {
    let mut world = World::without_berth(1, env([])).await?;
    world
        .pools(json!({
            "cidr-global": "10.0.64.0/24",
            "cidr-one": "10.0.65.0/33",
            "range-two": "10.0.66.9-10.0.66.1",
            "range-three": "10.0.67.1-fd00::1",
            "quota-four": "many",
        }))
        .await?;
    world.start_ccm().await?;
    for (key, value) in [
        ("cidr-one", "10.0.65.0/33"),
        ("range-two", "10.0.66.9-10.0.66.1"),
        ("range-three", "10.0.67.1-fd00::1"),
        ("quota-four", "many"),
    ] {
        event(&world, "kube-system", "ConfigMap", "kubevip", &[key, value]).await?;
    }
    world.create(json!({ "metadata": { "name": "web" }, "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] } })).await?;
    eventually("an address from the good pool", 10, || async {
        Ok((!annotated(&world.service("web").await?).is_empty()).then_some(()))
    })
    .await?;

    // The last good value of a key outlives a bad edit.
    world.pools(json!({ "cidr-global": "10.0.64.0/24oops" })).await?;
    event(&world, "kube-system", "ConfigMap", "kubevip", &["cidr-global", "10.0.64.0/24oops"])
        .await?;
    world.create(json!({ "metadata": { "name": "later" }, "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] } })).await?;
    eventually("an address from the last good value", 10, || async {
        Ok((!annotated(&world.service("later").await?).is_empty()).then_some(()))
    })
    .await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_that_is_no_address_is_reported_on_its_service_alone() -> Result<()> {
    let world = World::up(1, env([])).await?;
    let spec = json!({ "type": "LoadBalancer", "ports": [{ "port": 80, "targetPort": 8080 }], "selector": { "app": "hello" } });
    let annotations = json!({ ADDRESSES: "10.0.64.300" });
    world
        .create(json!({ "metadata": { "name": "bad", "annotations": annotations }, "spec": spec }))
        .await?;
    world.create(json!({ "metadata": { "name": "good" }, "spec": spec })).await?;
    world.published("good", 1).await?;
    event(&world, "default", "Service", "bad", &[ADDRESSES, "10.0.64.300"]).await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_full_says_so_and_serves_the_oldest_first() -> Result<()> {
    let mut world = World::without_berth(1, env([])).await?;
    world.pools(json!({ "range-global": "10.0.64.1-10.0.64.1", "reuse-delay": "0s" })).await?;
    world.start_ccm().await?;
    let object = |name: &str| json!({ "metadata": { "name": name }, "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] } });
    world.create(object("first")).await?;
    let has_address = |name: &'static str| {
        let world = &world;
        move || async move { Ok((!annotated(&world.service(name).await?).is_empty()).then_some(())) }
    };
    eventually("first served", 10, has_address("first")).await?;
    // Creation times have whole seconds: the order by name must not decide.
    world.create(object("zz-second")).await?;
    event(&world, "default", "Service", "zz-second", &["PoolExhausted"]).await?;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.create(object("aa-third")).await?;
    event(&world, "default", "Service", "aa-third", &["PoolExhausted"]).await?;
    world.delete("first").await?;
    eventually("the second served", 15, has_address("zz-second")).await?;
    ensure!(
        annotated(&world.service("aa-third").await?).is_empty(),
        "the third came before its turn"
    );
    // A pool that grows serves who waits, at once.
    world.pools(json!({ "range-global": "10.0.64.1-10.0.64.2", "reuse-delay": "0s" })).await?;
    eventually("the third served", 5, has_address("aa-third")).await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_value_in_the_environment_ends_the_program_with_its_name() -> Result<()> {
    let world = World::without_berth(1, env([])).await?;
    let program = sibling_program("berth-announcer", "BERTH_ANNOUNCER")?.display().to_string();
    let argv = ["timeout", "10", "env", "vip_arp=perhaps", &program, "manager"];
    let output = world.lab.node(0).place()?.output(argv)?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    // 124: it was ended by `timeout`.
    let code = output.status.code();
    ensure!(code.is_some_and(|code| ![0, 124].contains(&code)), "{code:?}: {text}");
    ensure!(has_line(&text, &["vip_arp", "perhaps", "true", "false"]), "{text}");
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_interface_is_named_and_taken_up_when_it_appears() -> Result<()> {
    let mut world = World::without_berth(1, env([])).await?;
    let process = world.start_announcer_with(0, env([("vip_interface", "late0")])).await?.clone();
    eventually("the interface named", 10, || async {
        Ok(says(&process, &["vip_interface", "late0"]).ok())
    })
    .await?;
    ensure!(process.is_alive(), "it ended: {}", process.log_tail());
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_is_named() -> Result<()> {
    let mut world = World::without_berth(1, env([])).await?;
    berth_e2e::world::kubectl(&world.lab, &["delete", "clusterrolebinding", "berth-announcer"])?;
    let process = world.start_announcer(0).await?.clone();
    eventually("the permission named", 15, || async {
        Ok(says(&process, &["services", "watch"]).ok())
    })
    .await?;
    world.lab.down()
}

/// Waits for an Event on an object whose reason and note have all the words.
pub(super) async fn event(
    world: &World,
    namespace: &str,
    kind: &str,
    name: &str,
    words: &[&str],
) -> Result<()> {
    let api: Api<Event> = Api::namespaced(world.client.clone(), namespace);
    let found = || async {
        let list = api.list(&ListParams::default()).await?;
        let about = list.items.into_iter().filter(|event| {
            let regarding = event.regarding.clone().unwrap_or_default();
            regarding.kind.as_deref() == Some(kind) && regarding.name.as_deref() == Some(name)
        });
        let mut texts = about.map(|event| {
            format!("{} {}", event.reason.unwrap_or_default(), event.note.unwrap_or_default())
        });
        Ok(texts.find(|text| words.iter().all(|word| text.contains(word))))
    };
    eventually(&format!("an Event on {kind} {namespace}/{name} with {words:?}"), 10, found)
        .await
        .map(drop)
}

/// One line of the log has all the words.
fn says(process: &Process, words: &[&str]) -> Result<()> {
    let text = process.log_text();
    ensure!(has_line(&text, words), "no line of {} has {words:?}:\n{text}", process.name);
    Ok(())
}

/// Whether one line has all the words.
fn has_line(text: &str, words: &[&str]) -> bool {
    text.lines().any(|line| words.iter().all(|word| line.contains(word)))
}
