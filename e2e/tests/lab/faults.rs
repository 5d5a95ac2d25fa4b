//! Faults do what they say, and no more.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::{
    addresses::{Net, control_plane},
    control_plane::Part,
    fault::Leftovers,
    lab::{Lab, Spec},
    place::Place,
};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{Api, api::PostParams};

/// Whether an answer comes within 5 s. The kernel gives up on a neighbour that was silent, and asks it again later.
fn reaches(from: &Place, to: impl ToString) -> Result<bool> {
    let (start, to) = (Instant::now(), to.to_string());
    while start.elapsed() < Duration::from_secs(5) {
        if from.output(["ping", "-c", "1", "-W", "1", &to])?.status.success() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether no answer comes within 1 s.
fn cannot_reach(from: &Place, to: impl ToString) -> Result<bool> {
    Ok(!from.output(["ping", "-c", "2", "-i", "0.3", "-w", "1", &to.to_string()])?.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_separate_what_they_name_and_nothing_else() -> Result<()> {
    let lab = Lab::up(Spec::bare(3)).await?;
    let (client, node) = (lab.outside(), lab.node(0).place()?);
    let (lan, peer) = (lab.node(0).addresses().lan, lab.node(1).addresses().lan);
    let api = control_plane();
    ensure!(reaches(&client, lan.v4)? && reaches(&client, lan.v6)? && reaches(&node, api.v4)?);

    lab.cut(0, Net::Lan)?;
    ensure!(cannot_reach(&client, lan.v4)? && cannot_reach(&client, lan.v6)?, "the LAN is cut");
    ensure!(reaches(&node, api.v4)?, "the API is not");
    ensure!(reaches(&client, peer.v4)?, "nor is another node");
    lab.heal(0, Net::Lan)?;
    ensure!(reaches(&client, lan.v4)?, "healed");

    lab.cut(0, Net::Api)?;
    ensure!(cannot_reach(&node, api.v4)? && reaches(&client, lan.v4)?, "only the API is cut");
    lab.heal(0, Net::Api)?;

    lab.cut_pair("node0", "node1", Net::Lan)?;
    ensure!(
        cannot_reach(&node, peer.v4)? && reaches(&client, lan.v4)? && reaches(&client, peer.v4)?,
        "a pair"
    );
    lab.heal_all()?;
    ensure!(reaches(&node, peer.v4)?, "healed");

    lab.cut_one_way("node1", "node0", Net::Lan)?;
    let capture = lab.capture("one-way", "icmp")?;
    ensure!(cannot_reach(&node, peer.v4)?, "the answer is cut");
    let seen = capture.finish()?;
    ensure!(
        seen.contains("echo request") && seen.contains("echo reply"),
        "the question is not: {seen}"
    );
    lab.heal_all()?;

    lab.unplug(0, Net::Lan)?;
    let link = node.exec(["ip", "-brief", "link", "show", "dev", "eth0"])?;
    ensure!(link.contains("NO-CARRIER"), "the node must see it: {link}");
    lab.plug(0, Net::Lan)?;
    ensure!(reaches(&client, lan.v4)?, "plugged");

    lab.split(&[0], Net::Lan)?;
    ensure!(cannot_reach(&node, peer.v4)? && reaches(&client, lan.v4)?, "split");
    lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_node_is_silent_and_comes_back_with_or_without_its_leftovers() -> Result<()> {
    let lab = Lab::up(Spec::bare(2)).await?;
    let (client, lan) = (lab.outside(), lab.node(0).addresses().lan);
    let add = |address| lab.node(0).exec(["ip", "address", "add", address, "dev", "eth0"]);
    let proxy = lab.process("node0", "kube-proxy")?;
    let rule = ["INPUT", "--source", "203.0.113.9", "--jump", "DROP"];
    let rule = |verb| lab.node(0).exec([&["iptables", verb][..], &rule].concat());
    rule("--append")?;
    add("10.0.64.1/32")?;
    add("fd00:10::4001/128")?;
    ensure!(reaches(&client, "10.0.64.1")?);

    lab.crash(0)?;
    ensure!(!proxy.is_alive(), "its processes die");
    ensure!(
        cannot_reach(&client, lan.v4)? && cannot_reach(&client, "10.0.64.1")?,
        "its kernel is silent"
    );
    ensure!(lab.node(0).exec(["true"]).is_err(), "nothing runs on it");

    lab.reboot(0, Leftovers::Keep)?;
    ensure!(reaches(&client, "10.0.64.1")?, "an address that nobody removed is still there");
    rule("--check").context("a rule that nobody removed is still there")?;
    lab.crash(0)?;
    lab.reboot(0, Leftovers::Flush)?;
    lab.until_ready(Duration::from_secs(30)).await?;
    ensure!(reaches(&client, lan.v4)? && reaches(&client, lan.v6)?, "the node is back");
    ensure!(
        cannot_reach(&client, "10.0.64.1")? && cannot_reach(&client, "fd00:10::4001")?,
        "flushed"
    );
    ensure!(rule("--check").is_err(), "no rule is left of before the reboot");
    lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_node_answers_by_its_kernel_only() -> Result<()> {
    let lab = Lab::up(Spec::bare(1)).await?;
    let echo = berth_e2e::place::sibling_program("echo", "BERTH_ECHO")?.display().to_string();
    lab.node(0).place()?.start("echo", [echo])?;
    let lan = lab.node(0).addresses().lan.v4;
    let probe = lab.probe(&format!("{lan}:8080"), Duration::from_millis(10))?;
    until(|| probe.ok_so_far() > 10)?;
    lab.freeze(0)?;
    let frozen = probe.ok_so_far();
    tokio::time::sleep(Duration::from_millis(700)).await;
    // One attempt may have been answered while the freeze took hold.
    ensure!(probe.ok_so_far() <= frozen + 2, "a frozen process answers");
    ensure!(reaches(&lab.outside(), lan)?, "its kernel goes on");
    lab.thaw(0)?;
    let thawed = probe.ok_so_far();
    until(|| probe.ok_so_far() > thawed + 10)?;
    let report = probe.finish()?;
    ensure!(report.longest_gap >= Duration::from_millis(700), "{report:?}");
    println!(
        "frozen 0.7 s: gap {:.0?}, {} of {} failed",
        report.longest_gap,
        report.failed.len(),
        report.ok
    );
    lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_restarts_with_its_data() -> Result<()> {
    let lab = Lab::up(Spec::bare(1)).await?;
    let api: Api<ConfigMap> = Api::default_namespaced(lab.client());
    let object = serde_json::from_value(serde_json::json!({"metadata": {"name": "kept"}}))?;
    api.create(&PostParams::default(), &object).await?;
    lab.kill_part(Part::ApiServer)?;
    ensure!(api.get("kept").await.is_err(), "the API server is down");
    lab.kill_part(Part::Etcd)?;
    lab.start_part(Part::Etcd)?;
    lab.start_part(Part::ApiServer)?;
    lab.until_api_ready().await?;
    api.get("kept").await?;
    lab.restart_part(Part::Etcd).await?;
    api.get("kept").await?;
    Api::<Node>::all(lab.client()).get("node0").await?;
    lab.down()
}

fn until(done: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !done() {
        ensure!(start.elapsed() < Duration::from_secs(10), "waited 10 s");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
