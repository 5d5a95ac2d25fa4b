//! Elastic IPs from the EipBinding to the wire, by both programs: what comes to one reaches the machine, what the machine
//! sends comes from it, also while it migrates, while somebody flushes the rules, and when its node is gone. Judged by what
//! both ends see, by frames on the LAN, and by `iptables-save`, `ipset` and `ip -j`.

mod conflict;
mod policed;
mod routed;
mod scene;
mod streams;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::{Mac, Net, OUTSIDE, mac, mac_text, node_host};
use berth_e2e::pauses;
use berth_e2e::vm::{Vm, holds, reason};
use berth_e2e::world::{by_lease, env, eventually, kubectl};
use serde_json::{Value, json};

use crate::is_soak;
use crate::scene::CLIENT;

use scene::Scene;
use streams::{Listener, connect, exchange};

/// What is taken away is back within this time.
const MENDED: Duration = Duration::from_secs(2);

/// A deletion waits no longer for a node that is gone.
const RELEASED: Duration = Duration::from_secs(10);

/// Runs parts on one world after the other, each under its own name.
macro_rules! parts {
    ($scene:ident: $($part:ident,)+) => {
        $(
            println!("- {}", stringify!($part));
            $part(&mut $scene).await.context(stringify!($part))?;
        )+
    };
}

/// One world for all of it: a world takes longer to come up than most parts take.
#[tokio::test(flavor = "multi_thread")]
async fn elastic_ips_follow_their_machines() -> Result<()> {
    let mut scene = Scene::up(3, env([])).await?;
    parts! { scene:
        a_machine_is_reached_at_its_elastic_ip_and_appears_as_it_everywhere_outside,
        no_port_is_opened_and_no_spec_is_written_for_it,
        what_a_guest_tells_that_is_not_its_own_is_translated_nowhere,
        a_failed_or_aborted_migration_moves_nothing_on_the_wire,
        streams_survive_migrations_in_both_directions,
        whatever_is_flushed_under_traffic_comes_back_within_two_seconds,
        deleted_bindings_leave_nothing_behind,
        an_address_outlives_its_machine_and_node_and_is_given_on_when_they_are_surely_silent,
    }
    scene.down()
}

/// Two machines on one node and one on another, each reached at its elastic IPs, and each called by the others.
async fn a_machine_is_reached_at_its_elastic_ip_and_appears_as_it_everywhere_outside(
    scene: &mut Scene,
) -> Result<()> {
    scene.world.deploy("default", "hello", 1)?;
    for (name, node) in [("one", 0), ("two", 0), ("three", 1)] {
        scene.machine(name, node).await?;
    }
    for name in ["one", "two", "three"] {
        scene.is_held(name).await?;
    }
    let lab = &scene.world.lab;
    for (family, third_party) in OUTSIDE.into_iter().enumerate() {
        let eip = |name: &str| scene.machines[name].eips[family];
        let place = |name: &str| scene.machines[name].guest.place();
        for name in ["one", "two", "three"] {
            // From the client, who is seen as it is.
            let listener = Listener::open(place(name), 8000)?;
            let mut stream = connect(&lab.outside(), SocketAddr::new(eip(name), 8000))?;
            let (mut served, peer) = listener.accept()?;
            ensure!(peer.ip() == stream.local_addr()?.ip(), "{name} sees {peer}");
            exchange(&mut stream, &mut served)?;

            // To a third party beyond the router, and to a neighbour on the LAN.
            for (who, address) in [(lab.router(), third_party), (lab.outside(), client(family))] {
                let listener = Listener::open(&who, 8001)?;
                let mut stream = connect(place(name), SocketAddr::new(address, 8001))?;
                let (mut served, peer) = listener.accept()?;
                ensure!(peer.ip() == eip(name), "{} sees {name} as {peer}", who.name);
                exchange(&mut stream, &mut served)?;
            }
        }
        // To its own elastic IP, to that of another machine on its node, and of one on another node.
        for (from, to) in [("one", "one"), ("one", "two"), ("one", "three"), ("three", "one")] {
            let listener = Listener::open(place(to), 8002)?;
            let target = SocketAddr::new(eip(to), 8002);
            let mut stream =
                connect(place(from), target).with_context(|| format!("{from} calls {to}"))?;
            let (mut served, peer) = listener.accept()?;
            ensure!(peer.ip() == eip(from), "{to} sees {from} as {peer}");
            exchange(&mut stream, &mut served)?;
        }
        // To each other under their own addresses, as pods do.
        let listener = Listener::open(place("three"), 8003)?;
        let own = scene.machines["three"].guest.addresses()[family];
        let mut stream = connect(place("one"), SocketAddr::new(own, 8003))?;
        let (mut served, peer) = listener.accept()?;
        ensure!(peer.ip() == scene.machines["one"].guest.addresses()[family], "{peer}");
        exchange(&mut stream, &mut served)?;
    }
    scene.pods_and_services_see_it_untranslated("one").await?;
    scene.rules_are_those_of_the_contract(0, &["one", "two"])
}

/// The ancestor's agent listened on each node for whoever came, and its controller kept its state in the spec.
async fn no_port_is_opened_and_no_spec_is_written_for_it(scene: &mut Scene) -> Result<()> {
    let (with, without) = (scene.ports(0)?, scene.ports(2)?);
    ensure!(with == without && !with.is_empty(), "{with:?} and {without:?}");
    let shown = kubectl(&scene.world.lab, &["get", "eip", "one", "-o", "json"])?;
    let shown: Value = serde_json::from_str(&shown)?;
    let asked = json!({ "vmi": "one", "families": ["IPv4", "IPv6"], "retain": true });
    ensure!(shown["spec"] == asked && shown["metadata"]["generation"] == 1, "{shown:#}");
    Ok(())
}

/// Root in a guest has its agent tell addresses that are not the machine's: of its node, of a router, of a Service, of a
/// pod, of another machine, an elastic IP. Nothing on the nodes changes, and a node goes on to appear as itself.
async fn what_a_guest_tells_that_is_not_its_own_is_translated_nowhere(
    scene: &mut Scene,
) -> Result<()> {
    let (lab, eips) = (&scene.world.lab, &scene.eips);
    let before = scene.traces(0)?;
    let vm = Vm::create(&scene.world.client, "default", "liar").await?;
    vm.start(lab.node(0).name(), &[]).await?;
    eips.create("liar", json!({ "vmi": "liar" })).await?;
    let own: IpAddr = "192.168.77.5".parse()?;
    vm.tell(&[own]).await?;
    eips.shows("liar", "an address of its own", |status| holds(status, "Ready")).await?;
    ensure!(scene.traces(0)?.iter().any(|trace| trace.contains("--to-destination 192.168.77.5")));
    let cluster_ip = scene.world.service("kubernetes").await?.spec.and_then(|s| s.cluster_ip);
    let node: IpAddr = lab.node(0).addresses().lan.v4.into();
    let pod = scene.machines["two"].guest.addresses()[0];
    for (what, address, why) in [
        ("its node", node, "VmiAddressReserved"),
        ("another node", lab.node(1).addresses().lan.v4.into(), "VmiAddressReserved"),
        ("a Service", cluster_ip.context("no cluster IP")?.parse()?, "VmiAddressReserved"),
        ("a pod", pod, "VmiAddressReserved"),
        ("an elastic IP", scene.machines["one"].eips[0], "VmiAddressInUse"),
    ] {
        vm.tell(&[address]).await?;
        let is_refused =
            |status: &Value| reason(status, "Ready") == why && status["node"].is_null();
        eips.shows("liar", &format!("refused {what}"), is_refused).await?;
        eventually(&format!("no trace of {what}"), 10, || async {
            Ok((scene.traces(0)? == before).then_some(()))
        })
        .await
        .with_context(|| scene.world.logs())?;
        let listener = Listener::open(&lab.outside(), 8005)?;
        let _stream = connect(&lab.node(0).place()?, SocketAddr::new(client(0), 8005))?;
        let peer = listener.accept()?.1.ip();
        ensure!(peer == node, "the node is seen as {peer}, with {what}");
        vm.tell(&[own]).await?;
        eips.shows("liar", "its own again", |status| status["vmiIPs"] == json!([own])).await?;
    }
    // By a bridge to the LAN it is a neighbour there, whose answers may pass its node by (kubevirt#3159).
    let neighbour: IpAddr = "10.0.0.199".parse()?;
    vm.tell(&[neighbour]).await?;
    eips.shows("liar", "an address of the LAN", |status| status["vmiIPs"] == json!([neighbour]))
        .await?;
    let told = "--field-selector=reason=VmiIsNeighbour,involvedObject.name=liar";
    let arguments = ["get", "events", "--output=jsonpath={.items[*].message}", told];
    eventually("an Event that tells of it", 10, || async {
        let message = kubectl(lab, &arguments)?;
        let names = [lab.node(0).name(), "10.0.0.199", "default route"];
        Ok(names.iter().all(|name| message.contains(name)).then_some(()))
    })
    .await
    .with_context(|| scene.world.logs())?;
    vm.tell(&[own]).await?;
    eips.shows("liar", "its own again", |status| status["vmiIPs"] == json!([own])).await?;
    // What its node takes for itself while the machine has it is translated no more.
    let lo = ["ip", "address", "add", &format!("{own}/32"), "dev", "lo"];
    lab.node(0).exec(lo)?;
    eventually("no trace of what is the node's", 5, || async {
        Ok((scene.traces(0)? == before).then_some(()))
    })
    .await
    .with_context(|| scene.world.logs())?;
    lab.node(0).exec(lo.map(|word| if word == "add" { "del" } else { word }))?;
    eips.delete("liar").await?;
    vm.delete().await
}

fn client(family: usize) -> IpAddr {
    berth_e2e::addresses::client().both()[family]
}

fn mac_of(node: usize) -> Mac {
    mac(Net::Lan, node_host(node))
}

/// Faults 18: the target is made ready, and the machine stays where it is, with streams open.
async fn a_failed_or_aborted_migration_moves_nothing_on_the_wire(scene: &mut Scene) -> Result<()> {
    let eips = scene.machines["one"].eips;
    let (before, target) = (scene.traces(0)?, scene.traces(1)?);
    let status = scene.eips.status("one").await?;
    let filter = format!("host {} or host {}", eips[0], eips[1]);
    let capture = scene.world.lab.capture("failed-migrations", &filter)?;
    let (wire, traffic) = (scene.world.lab.watch()?, scene.streams("one")?);
    for aborts in [false, true] {
        let cable = scene.begin_migration("one", 1).await?;
        let machine = &scene.machines["one"];
        match aborts {
            true => machine.vm.abort_migration().await?,
            false => machine.vm.fail_migration().await?,
        }
        machine.guest.unplug(&cable)?;
        eventually("the target is as before", 10, || async {
            Ok((scene.traces(1)? == target).then_some(()))
        })
        .await
        .with_context(|| scene.world.logs())?;
        ensure!(scene.traces(0)? == before, "{:?}", scene.traces(0));
    }
    let report = traffic.finish()?;
    println!("two migrations that came to nothing: {report}");
    ensure!(report.resets == 0 && report.alive, "{report}");
    let after = scene.eips.status("one").await?;
    for field in ["eips", "node", "vmiIPs", "epoch", "holder", "target"] {
        ensure!(after[field] == status[field], "{field}: {after:#} was {status:#}");
    }
    let (own, other) = (mac_text(mac_of(0)), mac_text(mac_of(1)));
    let frames = capture.finish()?;
    ensure!(frames.lines().count() > 100, "the streams were not captured: {frames}");
    // The kernel of another node asks for whom it knows, whoever is to have the address, and is answered.
    let answer = format!("{own} > {other}");
    let looks_up = |frame: &&str| match frame.contains(&answer) {
        true => ["is-at", "neighbor advertisement"].iter().any(|word| frame.contains(word)),
        false => ["who-has", "who has"].iter().any(|word| frame.contains(word)),
    };
    for frame in frames.lines().filter(|frame| !looks_up(frame)) {
        ensure!(frame.contains(&own) && !frame.contains(&other), "{frame}");
    }
    let record = wire.finish()?;
    for eip in eips {
        let spans = record.spans(eip);
        ensure!(spans.iter().all(|span| span.mac == mac_of(0)), "{eip}: {spans:?}");
    }
    Ok(())
}

/// Fault 18: a machine migrates with a stream open in each direction, of each family.
async fn streams_survive_migrations_in_both_directions(scene: &mut Scene) -> Result<()> {
    let rounds = if is_soak() { 100 } else { 5 };
    migrate(scene, rounds).await
}

/// Migrates machine `one` there and back again, so often. No stream loses a packet.
async fn migrate(scene: &mut Scene, rounds: usize) -> Result<()> {
    let eips = scene.machines["one"].eips;
    let wire = scene.world.lab.watch()?;
    let mut gaps = Vec::new();
    for round in 0..rounds {
        let traffic = scene.streams("one")?;
        let moved = scene.migrate("one", (round + 1) % 2).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let report = traffic.finish()?;
        println!("migration {}: {report}", round + 1);
        moved?;
        ensure!(report.resets == 0 && report.alive, "migration {}: {report}", round + 1);
        report.answered_within(CLIENT).with_context(|| format!("migration {}", round + 1))?;
        gaps.push(report.longest_gap);
    }
    gaps.sort();
    let slow = gaps.iter().filter(|gap| **gap >= Duration::from_millis(200)).count();
    println!(
        "{rounds} migrations: longest gap median {:.0?}, longest {:.0?}, {slow} of 200 ms and more, no reset",
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1]
    );
    // Who hands over speaks until a millisecond before the next one does, and never after it.
    let record = wire.finish()?;
    for eip in eips {
        let spans = record.spans(eip);
        ensure!(spans.len() <= rounds + 1, "{eip}: {spans:?}");
    }
    Ok(())
}

/// Fault 15.
async fn whatever_is_flushed_under_traffic_comes_back_within_two_seconds(
    scene: &mut Scene,
) -> Result<()> {
    // No other part leans on what kube-proxy has there.
    const NODE: usize = 2;
    scene.machine("fixed", NODE).await?;
    scene.is_held("fixed").await?;
    let whole = scene.traces(NODE)?;
    let mut traffic = Some(scene.streams("fixed")?);
    let losses: [&[&str]; 6] = [
        &["iptables-nft -t nat -F KUBE-EIP-PREROUTING"],
        &["iptables-nft -t nat -F PREROUTING", "iptables-nft -t nat -F POSTROUTING"],
        &["ipset flush kube-eip-vmi"],
        &["ip rule del pref 1001"],
        &["ip route flush table 190"],
        &["nft flush ruleset"],
    ];
    for loss in losses {
        if loss == ["nft flush ruleset"]
            && let Some(traffic) = traffic.take()
        {
            // Without any translation, also kube-proxy's, the node may reset what it has no socket for.
            let report = traffic.finish()?;
            println!("streams the while: {report}");
            ensure!(report.resets == 0, "{report}");
        }
        let before = scene.foreign(NODE)?;
        for command in loss {
            scene.world.lab.node(NODE).exec(command.split(' '))?;
        }
        let start = Instant::now();
        let took = eventually(&format!("repaired after {loss:?}"), 20, || async {
            Ok(scene.traces(NODE)?.is_superset(&whole).then(|| start.elapsed()))
        })
        .await
        .with_context(|| scene.world.logs())?;
        pauses::within(&format!("{loss:?}: repaired after"), took, MENDED, start)
            .with_context(|| scene.world.logs())?;
        if loss.iter().all(|command| {
            command.contains("KUBE-EIP") || !command.contains("nat") && !command.contains("nft")
        }) {
            ensure!(scene.foreign(NODE)? == before, "{loss:?}: others' rules have changed");
        }
    }
    let again = scene.streams("fixed")?.finish()?;
    ensure!(again.alive, "{again}");
    Ok(())
}

/// Also of a connection that is open still.
async fn deleted_bindings_leave_nothing_behind(scene: &mut Scene) -> Result<()> {
    let machine = &scene.machines["three"];
    let listener = Listener::open(machine.guest.place(), 8200)?;
    let target = SocketAddr::new(machine.eips[0], 8200);
    let mut stream = connect(&scene.world.lab.outside(), target)?;
    let (mut served, _) = listener.accept()?;
    exchange(&mut stream, &mut served)?;
    for name in scene.machines.keys() {
        scene.eips.delete(name).await?;
    }
    let left = eventually("nothing is left", 10, || async {
        Ok(scene.left().await?.is_empty().then_some(()))
    });
    if let Err(error) = left.await {
        return Err(error.context(format!("{:#?}\n{}", scene.left().await?, scene.world.logs())));
    }
    for (_, machine) in std::mem::take(&mut scene.machines) {
        machine.vm.delete().await?;
    }
    Ok(())
}

/// Fault 19: nobody is left who could take the holder out of the status.
async fn an_address_outlives_its_machine_and_node_and_is_given_on_when_they_are_surely_silent(
    scene: &mut Scene,
) -> Result<()> {
    scene.machine("lost", 2).await?;
    scene.is_held("lost").await?;
    let eip = scene.machines["lost"].eips[0];
    let wire = scene.world.lab.watch()?;
    let asker = scene.world.lab.ask(eip, Duration::from_millis(20))?;
    let answers = || wire.so_far().0.iter().any(|s| s.address == eip && s.mac == mac_of(2));
    eventually("its node answers", 10, || async { Ok(answers().then_some(())) }).await?;
    scene.world.lab.crash(2)?;
    let start = Instant::now();
    scene.machines["lost"].vm.delete().await?;
    scene.eips.delete("lost").await?;
    eventually("the finalizer gone", 20, || async {
        Ok((!scene.eips.exists("lost").await?).then_some(()))
    })
    .await
    .with_context(|| scene.world.logs())?;
    let gone = start.elapsed();
    pauses::within("machine and node gone: the finalizer too after", gone, RELEASED, start)
        .with_context(|| scene.world.logs())?;
    // reuse-delay is one second; an address that nobody let go of rests as long as a Lease may last.
    let heir = Vm::create(&scene.world.client, "default", "heir").await?;
    heir.start(scene.world.lab.node(0).name(), &["10.244.0.77".parse()?]).await?;
    scene.eips.create("next", json!({ "vmi": "heir", "eip": eip })).await?;
    let rests = |status: &Value| reason(status, "Allocated") == "AddressResting";
    scene.eips.shows("next", "the address rests", rests).await?;
    eventually("the address given on", 40, || async {
        Ok(holds(&scene.eips.status("next").await?, "Allocated").then_some(()))
    })
    .await?;
    scene.eips.shows("next", "ready", |status| holds(status, "Ready")).await?;
    asker.finish()?;
    let record = wire.finish()?;
    let silent = record.since(eip, start).into_iter().find(|s| s.mac != mac_of(2));
    let silent = silent.context("nobody answers for it")?.at.duration_since(start);
    ensure!(silent > Duration::from_secs(15), "answered for again after {silent:?}");
    ensure!(record.disputes(eip).is_empty(), "{:?}", record.spans(eip));
    println!("answered for again after {silent:.1?}");
    Ok(())
}

/// With Leases nothing in the kernel holds a deadline, but a node still waits for the one before.
#[tokio::test(flavor = "multi_thread")]
async fn by_leases_a_machine_is_served_and_migrates_as_well() -> Result<()> {
    let mut scene = Scene::up(2, by_lease()).await?;
    scene.machine("one", 0).await?;
    scene.is_held("one").await?;
    migrate(&mut scene, 2).await?;
    scene.down()
}
