//! From kube-vip-cloud-provider to berth-ccm, as docs/migrating-from-kube-vip-cloud-provider.md says, in a cluster as the
//! stock provider leaves it.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use berth_e2e::place::sibling_program;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::flaws::{balancer, holds, told};
use berth_e2e::world::{ADDRESSES, World, annotated, env, eventually};

const LEASE: &str = "kube-vip-cloud-controller";

#[tokio::test(flavor = "multi_thread")]
async fn berth_waits_for_the_stock_provider_and_adopts_what_it_left() -> Result<()> {
    let mut world = World::without_berth(1, env([])).await?;
    world.pools(json!({ "range-global": "10.0.64.1-10.0.64.9" })).await?;
    for (name, address) in [("old", "10.0.64.3"), ("twin", "10.0.64.3"), ("outside", "10.0.65.7")] {
        world.create(given(name, address)).await?;
    }
    // Nobody has announced what `outside` was given.
    for (name, address) in [("old", "10.0.64.3"), ("twin", "10.0.64.3")] {
        publish(&world, name, address).await?;
    }
    // An address that its user asked for where there was no provider: kube-vip publishes it.
    let pinned = json!({ "spec": { "loadBalancerIP": "10.0.64.1" } });
    world.create(balancer("default", "pinned", pinned)).await?;
    publish(&world, "pinned", "10.0.64.1").await?;
    world.create(balancer("default", "waits", json!({}))).await?;

    let program = sibling_program("berth-ccm", "BERTH_CCM")?;
    let file = world.lab.dir().join("live.json");
    let get = ["--namespace=kube-system", "get", "configmap", "kubevip", "-o", "json"];
    std::fs::write(&file, berth_e2e::world::kubectl(&world.lab, &get)?)?;
    let arguments = ["check".into(), file, "--against".into(), world.lab.kubeconfig()];
    let output = Command::new(program).args(arguments).output()?;
    let said = String::from_utf8(output.stdout)?;
    let twice = "10.0.64.3 is held by Service default/old and Service default/twin at once";
    ensure!(output.status.code() == Some(1) && said.contains(twice), "{said}");

    // The stock provider leads: Berth looks on.
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "kube-system");
    let now = jiff::Timestamp::now();
    let lease = json!({
        "metadata": { "name": LEASE },
        "spec": {
            "holderIdentity": "stock_1", "leaseDurationSeconds": 3600, "leaseTransitions": 0,
            "acquireTime": format!("{now:.6}"), "renewTime": format!("{now:.6}"),
        },
    });
    leases.create(&PostParams::default(), &serde_json::from_value(lease)?).await?;
    world.start_ccm().await?;
    let machine = world.lab.control_plane();
    eventually("berth-ccm ready", 10, || async {
        let server = (Ipv6Addr::LOCALHOST, 8080).into();
        Ok(berth_e2e::get::get(&machine, server, "/readyz", Duration::from_secs(2)).ok())
    })
    .await?;
    ensure!(world.claims().await?.is_empty(), "it writes without the Lease");

    // It is scaled to nothing, and gives its Lease up as client-go does.
    let given_up = json!({ "spec": { "holderIdentity": "", "leaseDurationSeconds": 1 } });
    leases.patch(LEASE, &PatchParams::default(), &Patch::Merge(given_up)).await?;
    holds(&world, "default", "waits", &["10.0.64.2"]).await?;
    let owners: BTreeMap<_, _> = world
        .claims()
        .await?
        .into_iter()
        .filter_map(|(address, claim)| Some((address, claim.spec?.parent_ref.name)))
        .collect();
    let expected = [
        ("10.0.64.1", "pinned"),
        ("10.0.64.2", "waits"),
        ("10.0.64.3", "old"),
        ("10.0.65.7", "outside"),
    ];
    let expected = expected.map(|(address, name)| (address.to_owned(), name.to_owned())).into();
    ensure!(owners == expected, "{owners:?}");
    for name in ["old", "twin"] {
        told(&world, "default", name, "AddressConflict").await?;
        let held = annotated(&world.service(name).await?);
        ensure!(held.len() == 1 && held[0].to_string() == "10.0.64.3", "{name} moved: {held:?}");
    }
    // Whoever serves it by the field alone may let it go when the annotation comes.
    let pinned = eventually("pinned is labelled", 15, || async {
        let pinned = world.service("pinned").await?;
        let is_labelled = pinned.labels().get("implementation").is_some_and(|it| it == "kube-vip");
        Ok(is_labelled.then_some(pinned))
    })
    .await?;
    ensure!(annotated(&pinned).is_empty(), "{:?}", pinned.annotations());

    // The way back: the Lease is free at once.
    world.ccm()?.terminate(Duration::from_secs(10))?;
    let holder = leases.get(LEASE).await?.spec.and_then(|spec| spec.holder_identity);
    ensure!(holder.as_deref().unwrap_or_default().is_empty(), "{holder:?} has the Lease");
    world.lab.down()
}

/// An announcer of before answers for the address.
async fn publish(world: &World, name: &str, address: &str) -> Result<()> {
    let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": address }] } } });
    let merge = Patch::Merge(status);
    world.services("default").patch_status(name, &PatchParams::default(), &merge).await?;
    Ok(())
}

/// A Service with an address from the stock provider.
fn given(name: &str, address: &str) -> Value {
    let metadata = json!({
        "labels": { "implementation": "kube-vip" },
        "annotations": { ADDRESSES: address },
        "finalizers": ["service.kubernetes.io/load-balancer-cleanup"],
    });
    balancer(
        "default",
        name,
        json!({ "metadata": metadata, "spec": { "loadBalancerIP": address } }),
    )
}
