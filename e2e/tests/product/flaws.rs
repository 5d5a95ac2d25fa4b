//! One test for each flaw that kube-vip-cloud-provider shows in the field: what went wrong there holds here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use berth_e2e::place::sibling_program;
use berth_e2e::process::Process;
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};

use berth_e2e::world::{ADDRESSES, World, annotated, env, eventually};

/// Of 630 Services, 565 had an address that another had too.
#[tokio::test(flavor = "multi_thread")]
async fn many_workers_hand_out_no_duplicates() -> Result<()> {
    const SERVICES: usize = 630;
    let world = up(json!({ "cidr-global": "10.0.64.0/22" })).await?;
    let create = stream::iter(0..SERVICES)
        .map(|n| world.create(balancer("default", &format!("s{n}"), json!({}))))
        .buffer_unordered(10);
    create.try_collect::<Vec<_>>().await?;
    let held = eventually("every Service served", 60, || async {
        let held = all_held(&world).await?;
        Ok((held.len() == SERVICES).then_some(held))
    })
    .await?;
    let distinct: BTreeSet<_> = held.values().flatten().collect();
    ensure!(distinct.len() == SERVICES, "{} addresses for {SERVICES} Services", distinct.len());
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_unparsable_annotation_stops_nobody_else() -> Result<()> {
    let world = up(json!({ "range-global": "10.0.64.1-10.0.64.9" })).await?;
    for (name, text) in
        [("aa-bad", "10.0.64.300"), ("ab-host", "web.example.org"), ("ac-list", ",;,")]
    {
        // With the label by which the stock provider finds what is in use.
        let metadata = json!({ "annotations": { ADDRESSES: text }, "labels": { "implementation": "kube-vip" } });
        world.create(balancer("default", name, json!({ "metadata": metadata }))).await?;
    }
    world.create(balancer("default", "good", json!({}))).await?;
    holds(&world, "default", "good", &["10.0.64.1"]).await?;
    told(&world, "default", "aa-bad", "InvalidAddress").await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_namespace_pools_never_hand_out_the_same_address() -> Result<()> {
    let world = up(json!({
        "range-one": "10.0.64.1-10.0.64.4",
        "cidr-two": "10.0.64.0/29",
        "range-global": "10.0.64.3-10.0.64.6",
    }))
    .await?;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    for name in ["one", "two"] {
        let object = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        namespaces.create(&PostParams::default(), &object).await?;
    }
    // 10.0.64.1 to .7 are in some pool: seven addresses for nine who want one.
    let wishes =
        ["one", "two", "default"].into_iter().flat_map(|space| (0..3).map(move |n| (space, n)));
    let create = stream::iter(wishes)
        .map(|(space, n)| world.create(balancer(space, &format!("s{n}"), json!({}))));
    create.buffer_unordered(9).try_collect::<Vec<_>>().await?;
    eventually("every Service served or told why not", 20, || async {
        let list = Api::<Service>::all(world.client.clone()).list(&ListParams::default()).await?;
        let ours = list.iter().filter(|service| service.name_any().starts_with('s'));
        let settled =
            |service: &&Service| !annotated(service).is_empty() || refused(service).is_some();
        Ok((ours.filter(settled).count() == 9).then_some(()))
    })
    .await?;
    let held = all_held(&world).await?;
    let given: Vec<_> = held.values().flatten().collect();
    let distinct: BTreeSet<_> = given.iter().collect();
    ensure!(distinct.len() == given.len() && given.len() > 4, "{held:?}");
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_load_balancer_ip_is_not_given_to_another_service_later() -> Result<()> {
    let world = up(json!({ "range-global": "10.0.64.1-10.0.64.4" })).await?;
    world
        .create(balancer("default", "pinned", json!({ "spec": { "loadBalancerIP": "10.0.64.2" } })))
        .await?;
    holds(&world, "default", "pinned", &["10.0.64.2"]).await?;
    let labels = world.service("pinned").await?.metadata.labels.unwrap_or_default();
    ensure!(labels.get("implementation").map(String::as_str) == Some("kube-vip"), "{labels:?}");
    for n in 0..4 {
        world.create(balancer("default", &format!("s{n}"), json!({}))).await?;
    }
    let rest = eventually("the rest of the pool given out", 15, || async {
        let held = all_held(&world).await?;
        Ok((held.len() == 4).then_some(held))
    })
    .await?;
    let twice = rest.iter().filter(|(_, held)| held.contains(&"10.0.64.2".to_owned())).count();
    ensure!(twice == 1, "{rest:?}");
    // Nor to one that asks for it.
    world
        .create(balancer("default", "greedy", json!({ "spec": { "loadBalancerIP": "10.0.64.2" } })))
        .await?;
    told(&world, "default", "greedy", "AddressInUse").await?;
    world.lab.down()
}

/// Pins and shared addresses reach over the border of a namespace only where the keys of both let them.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_has_what_its_keys_say_and_is_told_which_key_keeps_the_rest_from_it()
-> Result<()> {
    let keys = |more: &[(&str, &str)]| {
        let all = [("range-global", "10.0.64.1-10.0.64.9"), ("allow-share-global", "true")];
        json!(all.iter().chain(more).copied().collect::<BTreeMap<_, _>>())
    };
    let pinned = |namespace: &str, name: &str, port: u16, address: &str| {
        let spec = json!({ "loadBalancerIP": address, "ports": [{ "port": port }] });
        balancer(namespace, name, json!({ "spec": spec }))
    };
    let world = up(keys(&[("pins-default", "pool"), ("share-with-blog", "default")])).await?;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let blog = serde_json::from_value(json!({ "metadata": { "name": "blog" } }))?;
    namespaces.create(&PostParams::default(), &blog).await?;

    world.create(pinned("default", "outside", 80, "192.0.2.77")).await?;
    waits(&world, "default", "outside", ("AddressNotAllowed", "key `pins-default` accepts"))
        .await?;
    world.create(pinned("default", "web", 80, "10.0.64.1")).await?;
    holds(&world, "default", "web", &["10.0.64.1"]).await?;
    world.create(pinned("blog", "tls", 443, "10.0.64.1")).await?;
    waits(&world, "blog", "tls", ("AddressInUse", "`share-with-default` names blog")).await?;

    world.pools(keys(&[("share-with-blog", "default"), ("share-with-default", "blog")])).await?;
    eventually("both at one address, and the pin allowed", 15, || async {
        let held = all_held(&world).await?;
        let has = |name: &str, address: &str| {
            held.get(name).is_some_and(|held| *held == [address.to_owned()])
        };
        let all = has("blog/tls", "10.0.64.1") && has("default/web", "10.0.64.1");
        Ok((all && has("default/outside", "192.0.2.77")).then_some(()))
    })
    .await?;
    world.pools(keys(&[("share-with-blog", "default")])).await?;
    told(&world, "kube-system", "kubevip", "SharedAcross").await?;
    ensure!(all_held(&world).await?["blog/tls"] == ["10.0.64.1"], "it keeps what it has");
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_address_is_not_ignored() -> Result<()> {
    let world = up(json!({ "range-global": "10.0.64.1-10.0.64.9", "reuse-delay": "0s" })).await?;
    world.create(balancer("default", "web", json!({}))).await?;
    holds(&world, "default", "web", &["10.0.64.1"]).await?;
    world
        .patch("web", json!({ "metadata": { "annotations": { ADDRESSES: "10.0.64.7" } } }))
        .await?;
    only(&world, "web", "10.0.64.7").await?;
    world.patch("web", json!({ "spec": { "loadBalancerIP": "10.0.64.8" } })).await?;
    only(&world, "web", "10.0.64.8").await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_from_single_to_dual_stack_is_not_ignored() -> Result<()> {
    let world =
        up(json!({ "range-global": "10.0.64.1-10.0.64.9,fd00:10::4001-fd00:10::4009" })).await?;
    world.create(balancer("default", "web", json!({}))).await?;
    holds(&world, "default", "web", &["10.0.64.1"]).await?;
    world.patch("web", json!({ "spec": { "ipFamilyPolicy": "PreferDualStack" } })).await?;
    holds(&world, "default", "web", &["10.0.64.1", "fd00:10::4001"]).await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_family_does_not_silently_become_single_stack() -> Result<()> {
    let world = up(json!({ "range-global": "10.0.64.1-10.0.64.9,fd00:10::4001" })).await?;
    let dual = |policy: &str| json!({ "spec": { "ipFamilyPolicy": policy } });
    world.create(balancer("default", "first", dual("RequireDualStack"))).await?;
    holds(&world, "default", "first", &["10.0.64.1", "fd00:10::4001"]).await?;
    world.create(balancer("default", "second", dual("RequireDualStack"))).await?;
    told(&world, "default", "second", "PoolExhausted").await?;
    eventually("the condition of the second", 10, || async {
        let service = world.service("second").await?;
        ensure!(annotated(&service).is_empty(), "half of what it requires: {service:?}");
        Ok((refused(&service).as_deref() == Some("PoolExhausted")).then_some(()))
    })
    .await?;
    ensure!(world.claims().await?.len() == 2, "an address is claimed that nobody uses");
    // One that would merely like both is served with one.
    world.create(balancer("default", "third", dual("PreferDualStack"))).await?;
    holds(&world, "default", "third", &["10.0.64.2"]).await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn class_mode_sends_its_events() -> Result<()> {
    let mut world = up(json!({ "range-global": "10.0.64.1-10.0.64.1" })).await?;
    world.ccm()?.terminate(Duration::from_secs(10))?;
    let class = "example.org/lan";
    let variables = env([
        ("KUBEVIP_ENABLE_LOADBALANCERCLASS", "true"),
        ("KUBEVIP_CUSTOM_LOADBALANCERCLASS_NAME", class),
    ]);
    let process = start_ccm_with(&mut world, variables)?;
    let classed = json!({ "spec": { "loadBalancerClass": class } });
    world.create(balancer("default", "plain", json!({}))).await?;
    world.create(balancer("default", "first", classed.clone())).await?;
    holds(&world, "default", "first", &["10.0.64.1"]).await?;
    told(&world, "default", "first", "AddressAllocated").await?;
    world.create(balancer("default", "second", classed)).await?;
    told(&world, "default", "second", "PoolExhausted").await?;
    let plain = world.service("plain").await?;
    ensure!(annotated(&plain).is_empty() && plain.finalizers().is_empty(), "{plain:?}");
    ensure!(process.is_alive(), "it ended: {}", process.log_tail());
    world.lab.down()
}

/// A lab with these pools and the CCM, and no node that announces.
async fn up(pools: Value) -> Result<World> {
    let mut world = World::without_berth(1, env([])).await?;
    world.pools(pools).await?;
    world.start_ccm().await?;
    Ok(world)
}

/// A CCM with more environment, in the rights of the one that `world` has started before.
fn start_ccm_with(world: &mut World, variables: berth_e2e::world::Env) -> Result<Process> {
    let config = world.lab.dir().join("berth-ccm.kubeconfig");
    let program = sibling_program("berth-ccm", "BERTH_CCM")?;
    let argv = [program.display().to_string(), format!("--kubeconfig={}", config.display())];
    world.lab.control_plane().start_with("berth-ccm-classes", argv, variables)
}

pub(super) fn balancer(namespace: &str, name: &str, more: Value) -> Value {
    let mut object = json!({
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }], "selector": { "app": "none" } },
    });
    for part in ["metadata", "spec"] {
        for (key, value) in more[part].as_object().into_iter().flatten() {
            object[part][key.as_str()] = value.clone();
        }
    }
    object
}

/// The addresses in the annotation of each Service that has some.
async fn all_held(world: &World) -> Result<BTreeMap<String, Vec<String>>> {
    let list = Api::<Service>::all(world.client.clone()).list(&ListParams::default()).await?;
    let held = list.iter().map(|service| {
        let name = format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any());
        (name, annotated(service).iter().map(IpAddr::to_string).collect::<Vec<_>>())
    });
    Ok(held.filter(|(_, held)| !held.is_empty()).collect())
}

/// Waits until the Service has exactly these addresses, and each is claimed.
pub(super) async fn holds(
    world: &World,
    namespace: &str,
    name: &str,
    addresses: &[&str],
) -> Result<()> {
    eventually(&format!("{namespace}/{name} with {addresses:?}"), 15, || async {
        let service = world.services(namespace).get(name).await?;
        let held: Vec<_> = annotated(&service).iter().map(IpAddr::to_string).collect();
        let claims = world.claims().await?;
        let claimed = addresses.iter().all(|address| {
            let parent = claims.get(*address).and_then(|claim| claim.spec.as_ref());
            parent.is_some_and(|spec| spec.parent_ref.name == name)
        });
        Ok((held == addresses && claimed).then_some(()))
    })
    .await
}

/// Waits until the Service has this address in every place, and no claim on another.
async fn only(world: &World, name: &str, address: &str) -> Result<()> {
    holds(world, "default", name, &[address]).await?;
    eventually(&format!("nothing but {address}"), 15, || async {
        let service = world.service(name).await?;
        let field = service.spec.and_then(|spec| spec.load_balancer_ip);
        let alone = world.claims().await?.len() == 1;
        Ok((alone && field.as_deref() == Some(address)).then_some(()))
    })
    .await
}

/// The reason of the condition that says why the Service waits.
fn refused(service: &Service) -> Option<String> {
    refusal(service).map(|(reason, _)| reason)
}

/// The same with what it says to people.
fn refusal(service: &Service) -> Option<(String, String)> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    let ours =
        conditions.iter().find(|condition| condition.type_ == "berth.dev/AddressAllocated")?;
    (ours.status == "False").then(|| (ours.reason.clone(), ours.message.clone()))
}

/// Waits until the condition of a Service has this reason, and a message with these words.
async fn waits(
    world: &World,
    namespace: &str,
    name: &str,
    (reason, words): (&str, &str),
) -> Result<()> {
    eventually(&format!("{reason} of {namespace}/{name}, with {words}"), 15, || async {
        let service = world.services(namespace).get(name).await?;
        let shown = refusal(&service);
        Ok(shown.filter(|(shown, message)| shown == reason && message.contains(words)))
    })
    .await
    .map(drop)
}

/// Waits for an Event of this reason on the Service.
pub(super) async fn told(world: &World, namespace: &str, name: &str, reason: &str) -> Result<()> {
    let api: Api<Event> = Api::namespaced(world.client.clone(), namespace);
    eventually(&format!("Event {reason} on {namespace}/{name}"), 15, || async {
        let list = api.list(&ListParams::default()).await?;
        let is_it = |event: &Event| {
            let regarding = event.regarding.as_ref().and_then(|object| object.name.as_deref());
            regarding == Some(name) && event.reason.as_deref() == Some(reason)
        };
        Ok(list.iter().any(is_it).then_some(()))
    })
    .await
}
