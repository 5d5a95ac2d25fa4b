//! Probes, watches and pods: what they report is what happened.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use berth_e2e::{
    addresses::{Net, mac, node_host},
    apply,
    cluster::Cluster,
    lab::{Lab, Spec},
    probe::Failure,
    wire::Said,
    world::{deploy_echo, eventually, kubectl},
};

const EVERY: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread")]
async fn the_watch_names_who_answers_and_sees_a_dispute() -> Result<()> {
    let lab = Lab::up(Spec::bare(2)).await?;
    let addresses: [IpAddr; 2] = ["10.0.64.9".parse()?, "fd00:10::4009".parse()?];
    for address in addresses {
        let set = |node: usize, verb: &str| {
            let length = if address.is_ipv4() { 32 } else { 128 };
            let mut argv = vec!["ip", "address", verb];
            let text = format!("{address}/{length}");
            argv.extend([text.as_str(), "dev", "eth0"]);
            if address.is_ipv6() && verb == "add" {
                argv.push("nodad");
            }
            lab.node(node).exec(argv)
        };
        let watch = lab.watch()?;
        let asker = lab.ask(address, EVERY)?;
        let owner = |index| mac(Net::Lan, node_host(index));
        let heard = |index, from| {
            let record = watch.so_far();
            record
                .since(address, from)
                .iter()
                .any(|s| s.mac == owner(index) && s.said == Said::Answer)
        };

        set(0, "add")?;
        let begin = Instant::now();
        eventually("an answer of node0", 5, || async { Ok(heard(0, begin).then_some(())) }).await?;
        set(0, "del")?;
        set(1, "add")?;
        let moved = Instant::now();
        eventually("an answer of node1", 5, || async { Ok(heard(1, moved).then_some(())) }).await?;
        let record = watch.so_far();
        let macs: Vec<_> = record.spans(address).iter().map(|s| s.mac).collect();
        ensure!(macs == [owner(0), owner(1)], "{address}: {macs:?}");
        ensure!(record.disputes(address).is_empty(), "one owner after the other is no dispute");

        set(0, "add")?;
        eventually("a dispute", 5, || async {
            Ok((!watch.so_far().disputes(address).is_empty()).then_some(()))
        })
        .await
        .with_context(|| format!("{address}: {:?}", watch.so_far().spans(address)))?;
        asker.finish()?;
        let record = watch.finish()?;
        println!(
            "{address}: {} frames, {} disputes",
            record.0.len(),
            record.disputes(address).len()
        );
    }
    lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watch_sees_announcements() -> Result<()> {
    let lab = Lab::up(Spec::bare(1)).await?;
    let watch = lab.watch()?;
    let address: IpAddr = "10.0.64.3".parse()?;
    lab.node(0).exec(["ip", "address", "add", "10.0.64.3/32", "dev", "eth0"])?;
    lab.node(0)
        .exec(["arping", "-U", "-c", "1", "-S", "10.0.64.3", "-i", "eth0", "10.0.64.3"])
        .ok();
    eventually("an announcement", 5, || async {
        let record = watch.so_far();
        Ok(record
            .0
            .iter()
            .any(|s| s.address == address && s.said == Said::Announcement)
            .then_some(()))
    })
    .await?;
    lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_measures_an_outage_and_says_how_attempts_failed() -> Result<()> {
    let lab = Lab::up(Spec::bare(1)).await?;
    let echo = berth_e2e::place::sibling_program("echo", "BERTH_ECHO")?.display().to_string();
    let first = lab.node(0).place()?.start("echo", [echo.clone()])?;
    let lan = lab.node(0).addresses().lan;
    for target in [format!("{}:8080", lan.v4), format!("[{}]:8080", lan.v6)] {
        let probe = lab.probe(&target, EVERY)?;
        answered(&probe, 20).await?;
        let held = lab.hold(&target, EVERY)?;
        answered(&held, 1).await?;
        let around = Instant::now();
        lab.cut(0, Net::Lan)?;
        let cut = Instant::now();
        tokio::time::sleep(Duration::from_millis(400)).await;
        let inside = cut.elapsed();
        lab.heal(0, Net::Lan)?;
        let outage = around.elapsed();
        answered(&probe, probe.ok_so_far() + 20).await?;
        let report = probe.finish()?;
        ensure!(report.count(Failure::Timeout) > 10, "{report:?}");
        ensure!(report.count(Failure::Reset) == 0, "{report:?}");
        let gap = report.longest_gap;
        ensure!(gap > inside, "gap {gap:?}, cut for {inside:?}");
        ensure!(gap < outage + Duration::from_millis(300), "gap {gap:?}, back after {outage:?}");
        answered(&held, held.ok_so_far() + 5).await?;
        let held = held.finish()?;
        ensure!(held.failed.is_empty(), "a connection survives a short cut: {held:?}");
        println!(
            "{target}: outage {outage:.0?}, gap {:.0?}, held {:.0?}",
            report.longest_gap, held.longest_gap
        );
    }

    let target = format!("{}:8080", lan.v4);
    let (probe, held) = (lab.probe(&target, EVERY)?, lab.hold(&target, EVERY)?);
    answered(&probe, 5).await?;
    answered(&held, 5).await?;
    first.kill()?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    ensure!(probe.finish()?.count(Failure::Refused) > 0, "a closed port refuses");
    ensure!(held.finish()?.count(Failure::Reset) == 1, "a killed server resets");
    let ending = eventually("how it ended", 5, || async { Ok(first.ending()) }).await?;
    ensure!(ending == "signal SIGKILL", "{ending}");
    lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_deployment_answer_behind_a_service_over_both_families() -> Result<()> {
    let lab = Lab::up(Spec::bare(2)).await?;
    deploy_echo(&lab, "default", "hello", 3)?;
    kubectl(&lab, &["create", "-f", &write(&lab)?])?;
    let ips = kubectl(&lab, &["get", "service", "hello", "-o", "jsonpath={.spec.clusterIPs[*]}"])?;
    for ip in ips.split_whitespace() {
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        for node in lab.nodes() {
            eventually(&format!("an answer of {ip} on {}", node.name()), 10, || async {
                Ok(node.exec(["curl", "-sf", "-m", "2", &format!("http://{host}/")]).ok())
            })
            .await?;
        }
    }
    let pods = kubectl(&lab, &["get", "pods", "-o", "jsonpath={.items[*].status.podIP}"])?;
    for ip in pods.split_whitespace() {
        lab.node(0).exec(["curl", "-sf", "-m", "2", &format!("http://{ip}:8080/")])?;
    }
    kubectl(&lab, &["delete", "deployment", "hello", "--cascade=foreground", "--timeout=30s"])?;
    let left = lab.node(0).exec(["ls", "/run/pods"])?;
    ensure!(left.is_empty(), "left on node0: {left}");

    // An image that a bare node cannot run says so where users look.
    kubectl(&lab, &["run", "other", "--image=example.org/other:1"])?;
    eventually("the reason", 10, || async {
        let text = kubectl(&lab, &["get", "pod", "other", "-o", "json"])?;
        Ok(text.contains("example.org/other:1\\\": a bare node runs").then_some(()))
    })
    .await?;
    lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_survive_the_agent_restart_when_they_die_and_are_reached_where_others_were()
-> Result<()> {
    let lab = Lab::up(Spec::bare(1)).await?;
    deploy_echo(&lab, "default", "hello", 1)?;
    let ask = |what: &str| {
        kubectl(&lab, &["get", "pods", "-o", &format!("jsonpath={{.items[0].status.{what}}}")])
    };
    let ip = ask("podIP")?;
    let agent = lab.process("node0", "agent")?;
    agent.kill()?;
    lab.node(0).exec(["curl", "-sf", "-m", "2", &format!("http://{ip}:8080/")])?;
    let place = lab.node(0).place()?;
    let environment = [("BERTH_LAB".to_owned(), lab.name().to_owned())].into();
    place.start_with("agent", agent.argv.clone(), environment)?;
    place.exec(["pkill", "-x", "echo"])?;
    eventually("a restart", 10, || async {
        Ok((ask("containerStatuses[0].restartCount")? == "1").then_some(()))
    })
    .await?;
    ensure!(ask("podIP")? == ip, "a restarted container keeps its pod's address");
    eventually("an answer", 5, || async {
        Ok(place.exec(["curl", "-sf", "-m", "2", &format!("http://{ip}:8080/")]).ok())
    })
    .await?;

    // What has another's address afterwards is reached at once, by both families, though the node knows the MAC of the other.
    deploy_echo(&lab, "default", "beside", 1)?;
    let addresses = "jsonpath={.items[0].status.podIPs[*].ip}";
    let addresses = || kubectl(&lab, &["get", "pods", "-l", "app=hello", "-o", addresses]);
    let before = addresses()?;
    let reached = || {
        before.split_whitespace().try_for_each(|ip| {
            let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
            place.exec(["curl", "-sf", "-m", "1", &format!("http://{host}:8080/")]).map(drop)
        })
    };
    reached()?;
    kubectl(&lab, &["scale", "deployment/hello", "--replicas=0"])?;
    kubectl(&lab, &["wait", "pods", "-l", "app=hello", "--for=delete", "--timeout=30s"])?;
    kubectl(&lab, &["scale", "deployment/hello", "--replicas=1"])?;
    apply::rolled_out(&lab.client(), "default", "hello").await?;
    ensure!(addresses()? == before, "{} is not {before}", addresses()?);
    reached()?;
    lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_is_a_cluster_to_black_box_tests() -> Result<()> {
    let lab: Box<dyn Cluster> = Box::new(Lab::up(Spec::bare(2)).await?);
    ensure!(lab.nodes()? == ["node0", "node1"], "{:?}", lab.nodes()?);
    lab.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: applied, namespace: default}}")?;
    lab.run_kubectl(&["get", "configmap", "applied"])?;
    let free = lab.free(1);
    for address in [IpAddr::V4(free.v4), IpAddr::V6(free.v6)] {
        ensure!(lab.holders(address)?.is_empty(), "{address} is free");
        lab.exec("node1", &["ip", "address", "add", &address.to_string(), "dev", lab.interface()])?;
        ensure!(lab.holders(address)? == ["node1"], "{address}: {:?}", lab.holders(address)?);
    }
    ensure!(lab.exec("node0", &["false"]).is_err(), "a command that fails is an error");
    lab.exec_outside(&["ping", "-c", "1", "-W", "2", &free.v4.to_string()])?;
    lab.finish()
}

async fn answered(probe: &berth_e2e::probe::Probe, count: usize) -> Result<()> {
    eventually(&format!("{count} answers"), 10, || async {
        Ok((probe.ok_so_far() >= count).then_some(()))
    })
    .await
}

fn write(lab: &Lab) -> Result<String> {
    let path = lab.dir().join("service.json");
    let service = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "hello"},
        "spec": {"ipFamilyPolicy": "RequireDualStack", "selector": {"app": "hello"},
            "ports": [{"port": 80, "targetPort": 8080}]},
    });
    std::fs::write(&path, service.to_string())?;
    Ok(path.display().to_string())
}
