//! EipBindings as the CCM sees to them: addresses, node and epoch. What an announcer would say, the tests say.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use berth_e2e::get::get;
use berth_e2e::place::sibling_program;
use berth_e2e::vm::{Eips, Vm, holds, install_kubevirt, reason, remove_kubevirt};
use berth_e2e::world::{World, annotated, env, eventually, kubectl, repository};

const RANGE: &str = "10.0.64.1-10.0.64.9,fd00:10::4001-fd00:10::4009";

/// A cluster with KubeVirt and the CCM, and the bindings of namespace `default`.
async fn up() -> Result<(World, Eips)> {
    let mut world = World::without_berth(1, env([])).await?;
    install_kubevirt(&world.lab)?;
    world.pools(json!({ "range-global": RANGE, "reuse-delay": "1s" })).await?;
    world.start_ccm().await?;
    let eips = Eips::of(&world.client, "default");
    Ok((world, eips))
}

fn ips<const N: usize>(texts: [&str; N]) -> [std::net::IpAddr; N] {
    texts.map(|text| text.parse().expect("an address"))
}

/// Whether a status names this address, node, address of the machine and epoch.
fn is(eip: &str, node: &str, vmi_ip: &str, epoch: i64) -> impl Fn(&Value) -> bool + use<> {
    let (eips, ips) = (json!([eip]), json!([vmi_ip]));
    let node = json!(node);
    move |status| {
        status["eips"] == eips
            && status["node"] == node
            && status["vmiIPs"] == ips
            && status["epoch"] == epoch
    }
}

/// Whether an address is given that nobody is to answer for, for this reason.
fn is_idle(why: &'static str) -> impl Fn(&Value) -> bool {
    move |status| {
        status["node"].is_null()
            && status["vmiIPs"].as_array().is_none_or(Vec::is_empty)
            && !holds(status, "Ready")
            && reason(status, "Ready") == why
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_binding_is_refused_with_the_name_of_the_field() -> Result<()> {
    let world = World::without_berth(1, env([])).await?;
    let eips = Eips::of(&world.client, "default");
    for (spec, field) in [
        (json!({}), "spec.vmi"),
        (json!({ "vmi": "" }), "spec.vmi"),
        (json!({ "vmi": "vm", "eip": "192.0.2.300" }), "spec.eip"),
        (json!({ "vmi": "vm", "eip": "192.0.2.1/24" }), "spec.eip"),
        (json!({ "vmi": "vm", "eip": "2001:DB8::1" }), "spec.eip"),
        (json!({ "vmi": "vm", "eip": "192.0.2.1", "families": ["IPv6"] }), "spec.families"),
        (json!({ "vmi": "vm", "eip": "192.0.2.1", "families": ["IPv4", "IPv6"] }), "spec.families"),
        (json!({ "vmi": "vm", "families": ["IPv4", "IPv4"] }), "spec.families"),
        (json!({ "vmi": "vm", "families": [] }), "spec.families"),
        (json!({ "vmi": "vm", "families": ["IPv5"] }), "spec.families"),
        (json!({ "vmi": "vm", "interface": "" }), "spec.interface"),
        (json!({ "vmi": "vm", "retain": "no" }), "spec.retain"),
    ] {
        let Err(refused) = eips.create("bad", spec.clone()).await else {
            anyhow::bail!("the API server took {spec}");
        };
        ensure!(refused.to_string().contains(field), "{spec}: {refused}");
    }
    for (name, spec) in [
        ("plain", json!({ "vmi": "vm" })),
        ("six", json!({ "vmi": "vm", "eip": "2001:db8::1", "families": ["IPv6"] })),
        ("both", json!({ "vmi": "vm", "families": ["IPv6", "IPv4"], "interface": "lan" })),
    ] {
        eips.create(name, spec).await?;
    }
    let Err(refused) = eips.patch("plain", json!({ "vmi": "other" })).await else {
        anyhow::bail!("spec.vmi was changed");
    };
    ensure!(refused.to_string().contains("spec.vmi cannot change"), "{refused}");
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_has_its_address_from_its_first_start_to_its_deletion() -> Result<()> {
    let (world, eips) = up().await?;
    eips.create("web", json!({ "vmi": "vm" })).await?;
    // There is no machine yet, and the address is reserved all the same.
    eips.shows("web", "no machine", is_idle("VmiNotFound")).await?;
    let claims = world.claims().await?;
    let parent = &claims["10.0.64.1"].spec.as_ref().context("a claim without a spec")?.parent_ref;
    ensure!(parent.group.as_deref() == Some("berth.dev") && parent.resource == "eipbindings");
    ensure!(parent.name == "web" && parent.namespace.as_deref() == Some("default"));

    let vm = Vm::create(&world.client, "default", "vm").await?;
    eips.shows("web", "a machine that is not started", is_idle("VmiNotRunning")).await?;
    vm.start("node-1", &ips(["10.244.1.5", "fe80::5"])).await?;
    let is_on_1 = is("10.0.64.1", "node-1", "10.244.1.5", 2);
    let status = eips.shows("web", "a machine on node-1", &is_on_1).await?;
    ensure!(!holds(&status, "Ready") && reason(&status, "Ready") == "AwaitingNode", "{status}");
    ensure!(status["observedGeneration"] == 1, "{status}");
    eips.obey("web", Some("node-1")).await?;
    eips.shows("web", "Ready", |status| holds(status, "Ready") && is_on_1(status)).await?;
    let table = kubectl(&world.lab, &["get", "eip"])?;
    let row: Vec<&str> = table.lines().last().unwrap_or_default().split_whitespace().collect();
    ensure!(table.starts_with("NAME"), "{table}");
    ensure!(
        row[..5] == ["web", r#"["10.0.64.1"]"#, "vm", "node-1", "True"]
            || row[..5] == ["web", "10.0.64.1", "vm", "node-1", "True"],
        "{table}"
    );

    vm.readdress(&ips(["10.244.1.6"])).await?;
    eips.shows("web", "another address", is("10.0.64.1", "node-1", "10.244.1.6", 3)).await?;
    vm.shut_down().await?;
    let status = eips.shows("web", "stopped", is_idle("VmiNotRunning")).await?;
    ensure!(status["eips"] == json!(["10.0.64.1"]) && status["epoch"] == 4, "{status}");
    vm.delete().await?;
    eips.shows("web", "no machine any more", is_idle("VmiNotFound")).await?;
    eips.obey("web", None).await?;
    let vm = Vm::create(&world.client, "default", "vm").await?;
    vm.start("node-2", &ips(["10.244.2.5"])).await?;
    eips.shows("web", "made anew", is("10.0.64.1", "node-2", "10.244.2.5", 5)).await?;
    eips.obey("web", Some("node-2")).await?;

    eips.delete("web").await?;
    eips.shows("web", "on its way out", is_idle("Releasing")).await?;
    ensure!(world.claims().await?.contains_key("10.0.64.1"), "its node still answers for it");
    eips.obey("web", None).await?;
    eventually("the binding gone", 10, || async {
        Ok((!eips.exists("web").await? && world.claims().await?.is_empty()).then_some(()))
    })
    .await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_moves_node_and_epoch_once_and_a_failed_one_nothing() -> Result<()> {
    let (world, eips) = up().await?;
    let vm = Vm::create(&world.client, "default", "vm").await?;
    let own = ips(["10.244.0.5"]);
    vm.start("node-1", &own).await?;
    eips.create("web", json!({ "vmi": "vm" })).await?;
    let is_on = |node: &str, epoch| is("10.0.64.1", node, "10.244.0.5", epoch);
    eips.shows("web", "a machine on node-1", is_on("node-1", 1)).await?;
    eips.obey("web", Some("node-1")).await?;
    eips.shows("web", "Ready", |status| holds(status, "Ready")).await?;

    for fails in [true, false] {
        vm.begin_migration("node-1", "node-2").await?;
        match fails {
            true => vm.fail_migration().await?,
            false => vm.abort_migration().await?,
        }
    }
    // What comes next tells that all of that has been seen: one watch shows it in order.
    vm.begin_migration("node-1", "node-3").await?;
    vm.target_is_ready().await?;
    eips.shows("web", "a ready target", is_on("node-3", 2)).await?;
    vm.hand_over("node-3").await?;
    vm.readdress(&own).await?;
    eips.obey("web", Some("node-3")).await?;
    let status = eips.shows("web", "Ready again", |status| holds(status, "Ready")).await?;
    ensure!(is_on("node-3", 2)(&status), "the hand-over changed something: {status:#}");
    // A CNI that gives the machine another address in its new pod.
    vm.migrate("node-3", "node-1", &ips(["10.244.9.9"])).await?;
    eips.shows("web", "back with another address", |status| {
        status["node"] == "node-1" && status["vmiIPs"] == json!(["10.244.9.9"])
    })
    .await?;
    eips.obey("web", Some("node-1")).await?;
    eventually("two moves in the metrics", 5, || async {
        let server = ([127, 0, 0, 1], 8080).into();
        let metrics = get(&world.lab.control_plane(), server, "/metrics", Duration::from_secs(2))?;
        let counted = metrics.contains("berth_ccm_eip_moves_total 2\n")
            && metrics.contains("berth_ccm_eip_bindings{state=\"Ready\"} 1\n");
        Ok(counted.then_some(()))
    })
    .await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_and_machines_share_pool_quota_and_refusals() -> Result<()> {
    let (world, eips) = up().await?;
    world
        .pools(json!({ "range-global": RANGE, "quota-default": "3", "reuse-delay": "1s" }))
        .await?;
    let refused = |why: &'static str| {
        move |status: &Value| !holds(status, "Allocated") && reason(status, "Allocated") == why
    };
    eips.create("pinned", json!({ "vmi": "a", "eip": "10.0.64.5" })).await?;
    eips.shows("pinned", "its address", |status| status["eips"] == json!(["10.0.64.5"])).await?;
    eips.create("outside", json!({ "vmi": "b", "eip": "192.0.2.77" })).await?;
    eips.shows("outside", "its address", |status| status["eips"] == json!(["192.0.2.77"])).await?;
    eips.create("again", json!({ "vmi": "c", "eip": "10.0.64.5" })).await?;
    eips.shows("again", "refused", refused("AddressInUse")).await?;
    eips.create("rival", json!({ "vmi": "a" })).await?;
    eips.shows("rival", "refused", refused("VmiTaken")).await?;
    let spec = json!({ "type": "LoadBalancer", "ports": [{ "port": 80 }] });
    world.create(json!({ "metadata": { "name": "svc" }, "spec": spec })).await?;
    let given = || async {
        let addresses = annotated(&world.service("svc").await?);
        Ok((addresses == ips(["10.0.64.1"])).then_some(()))
    };
    eventually("a Service beside them", 10, given).await?;
    eips.create("late", json!({ "vmi": "d" })).await?;
    eips.shows("late", "refused", refused("QuotaExceeded")).await?;
    let events = kubectl(&world.lab, &["get", "events.events.k8s.io", "-o", "json"])?;
    for why in ["AddressAllocated", "AddressInUse", "VmiTaken", "QuotaExceeded"] {
        ensure!(events.contains(&format!(r#""reason": "{why}""#)), "no Event {why}");
    }

    // When the first goes, who asked for its machine comes in its place, and who asked for its address has it.
    eips.delete("pinned").await?;
    world.pools(json!({ "range-global": RANGE, "reuse-delay": "1s" })).await?;
    eips.shows("rival", "its turn", |status| holds(status, "Allocated")).await?;
    eips.shows("again", "its address", |status| status["eips"] == json!(["10.0.64.5"])).await?;
    eips.shows("late", "its turn", |status| holds(status, "Allocated")).await?;

    // IPv6 of a machine that has none, and an interface that it does not have.
    let vm = Vm::create(&world.client, "default", "v4").await?;
    vm.start("node-1", &ips(["10.244.1.9"])).await?;
    eips.create("six", json!({ "vmi": "v4", "families": ["IPv6"] })).await?;
    eips.shows("six", "no such address", is_idle("FamilyUnavailable")).await?;
    let vm = Vm::create(&world.client, "default", "plain").await?;
    vm.start("node-1", &ips(["10.244.1.10"])).await?;
    eips.create("wan", json!({ "vmi": "plain", "interface": "wan" })).await?;
    eips.shows("wan", "no such interface", is_idle("InterfaceNotFound")).await?;

    // A machine that shows the address of another one: neither is reached by it.
    for name in ["twin", "copy"] {
        let vm = Vm::create(&world.client, "default", name).await?;
        vm.start("node-1", &[]).await?;
        vm.tell(&ips(["192.168.77.5"])).await?;
        eips.create(name, json!({ "vmi": name })).await?;
    }
    for name in ["twin", "copy"] {
        eips.shows(name, "the same address", is_idle("VmiAddressInUse")).await?;
    }
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_retain_has_an_address_only_while_its_machine_runs() -> Result<()> {
    let (world, eips) = up().await?;
    let vm = Vm::create(&world.client, "default", "vm").await?;
    vm.start("node-1", &ips(["10.244.1.5"])).await?;
    eips.create("web", json!({ "vmi": "vm", "retain": false })).await?;
    eips.shows("web", "its address", is("10.0.64.1", "node-1", "10.244.1.5", 1)).await?;
    eips.obey("web", Some("node-1")).await?;
    vm.shut_down().await?;
    eips.shows("web", "its node to let go", is_idle("VmiNotRunning")).await?;
    eips.obey("web", None).await?;
    eips.shows("web", "no address", |status| {
        status["eips"].as_array().is_none_or(Vec::is_empty) && !holds(status, "Allocated")
    })
    .await?;
    ensure!(world.claims().await?.is_empty());
    vm.start("node-2", &ips(["10.244.2.5"])).await?;
    eips.shows("web", "an address again", |status| status["node"] == "node-2").await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_installed_later_is_served_then_and_nobody_waits_for_it() -> Result<()> {
    let mut world = World::without_eip_bindings(1, env([])).await?;
    let crd = repository().join("manifests/eipbinding-crd.yaml").display().to_string();
    world.pools(json!({ "range-global": RANGE })).await?;
    world.start_ccm().await?;
    let spec = json!({ "type": "LoadBalancer", "ports": [{ "port": 80 }] });
    world.create(json!({ "metadata": { "name": "svc" }, "spec": spec })).await?;
    eventually("a Service without EipBindings", 15, || async {
        Ok((!annotated(&world.service("svc").await?).is_empty()).then_some(()))
    })
    .await?;
    let log = world.ccm()?.log_tail();
    ensure!(log.matches("eipbindings.berth.dev").count() == 1, "told once: {log}");

    kubectl(&world.lab, &["apply", "-f", &crd])?;
    kubectl(&world.lab, &["wait", "--for=condition=Established", "-f", &crd])?;
    let eips = Eips::of(&world.client, "default");
    eips.create("web", json!({ "vmi": "vm" })).await?;
    let missing = is_idle("KubeVirtMissing");
    eips.shows("web", "no KubeVirt", |status| holds(status, "Allocated") && missing(status))
        .await?;
    install_kubevirt(&world.lab)?;
    let vm = Vm::create(&world.client, "default", "vm").await?;
    vm.start("node-1", &ips(["10.244.1.5"])).await?;
    eips.shows("web", "a machine", |status| status["node"] == "node-1").await?;
    remove_kubevirt(&world.lab)?;
    eips.shows("web", "no KubeVirt any more", &missing).await?;
    let status = eips.status("web").await?;
    ensure!(status["eips"] == json!(["10.0.64.2"]), "it keeps its address: {status}");
    install_kubevirt(&world.lab)?;
    let vm = Vm::create(&world.client, "default", "vm").await?;
    vm.start("node-2", &ips(["10.244.2.5"])).await?;
    eips.shows("web", "a machine again", |status| status["node"] == "node-2").await?;
    ensure!(world.ccm()?.is_alive());
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ancestors_bindings_are_taken_over_with_their_addresses() -> Result<()> {
    let (world, eips) = up().await?;
    let old = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "extension.lucheng0127/v1", "kind": "EipBinding",
          "metadata": { "name": "web", "namespace": "default" },
          "spec": { "eipAddr": "10.0.64.7", "vmiName": "vm", "currentHyper": "node-1", "phase": "Ready" } },
        { "apiVersion": "virteip.github.com/v1", "kind": "EipBinding",
          "metadata": { "name": "bad", "namespace": "default" }, "spec": { "eip": "10.0.64", "vmi": "x" } },
        { "apiVersion": "virteip.github.com/v1", "kind": "EipBinding",
          "metadata": { "name": "db", "namespace": "default" }, "spec": { "eip": "10.0.64.8", "vmi": "db" } },
    ] });
    let mut program = Command::new(sibling_program("berth-ccm", "BERTH_CCM")?)
        .arg("import-eip")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    program.stdin.take().context("no stdin")?.write_all(old.to_string().as_bytes())?;
    let output = program.wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && told.contains("default/bad"), "{told}");
    let file = world.lab.dir().join("imported.yaml");
    std::fs::write(&file, &output.stdout)?;
    kubectl(&world.lab, &["apply", "-f", &file.display().to_string()])?;
    for (name, address) in [("web", "10.0.64.7"), ("db", "10.0.64.8")] {
        eips.shows(name, "its address", |status| status["eips"] == json!([address])).await?;
    }
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn example_07_eip_works_as_it_reads() -> Result<()> {
    let (world, eips) = up().await?;
    for name in ["pools.yaml", "vm.yaml", "eips.yaml"] {
        let text = std::fs::read_to_string(repository().join("examples/07-eip").join(name))?;
        let file = world.lab.dir().join(name);
        std::fs::write(&file, text.replace("192.0.2.", "10.0.64."))?;
        kubectl(&world.lab, &["apply", "-f", &file.display().to_string()])?;
    }
    Vm::named(&world.client, "default", "web-vm").start("node-1", &ips(["10.244.1.5"])).await?;
    let is_served = |status: &Value| status["node"] == "node-1" && holds(status, "Allocated");
    let status = eips.shows("web", "the first address", is_served).await?;
    ensure!(status["eips"] == json!(["10.0.64.1"]), "{status}");
    eips.shows("asks", "its address", |status| status["eips"] == json!(["10.0.64.100"])).await?;
    eips.shows("web-too", "refused", |status| reason(status, "Allocated") == "VmiTaken").await?;
    eips.delete("web").await?;
    eips.shows("web-too", "its turn", is_served).await?;
    world.lab.down()
}
