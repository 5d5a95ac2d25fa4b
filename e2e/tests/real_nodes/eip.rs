//! Elastic IPs where KubeVirt has its machines: in the namespace of a pod behind a CNI. The announcer runs in its pod, with
//! the rights of the manifests and the iptables of its image.

use std::{collections::BTreeMap, fs, net::IpAddr, process::Command, time::Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::{
    lab::{Lab, Spec},
    node::Node,
    vm::{Eips, Vm, holds, install_kubevirt},
    world::{POOL, eventually, kubectl, repository},
};
use serde_json::{Value, json};

use crate::apply;

/// A machine: a pod that echoes on port 8080.
struct Machine {
    /// A process in its namespace.
    pid: u32,
    /// IPv4 first.
    eips: Vec<IpAddr>,
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_in_pods_reach_themselves_and_each_other_by_their_elastic_ips() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::up(Spec::real(2)).await?;
    let machines = match bind(&lab).await {
        Ok(machines) => machines,
        Err(error) => {
            let logs = ["-n", "kube-system", "logs", "daemonset/berth-announcer", "--all-pods"];
            return Err(error.context(kubectl(&lab, &logs).unwrap_or_default()));
        }
    };
    println!("three machines are answered for after {:.1?}", start.elapsed());
    for family in 0..2 {
        let url = |name: &str, path: &str| {
            let eip = machines[name].eips[family];
            match eip {
                IpAddr::V4(eip) => format!("http://{eip}:8080/{path}"),
                IpAddr::V6(eip) => format!("http://[{eip}]:8080/{path}"),
            }
        };
        for name in machines.keys() {
            let curl = ["curl", "-sS", "--fail", "--max-time", "5", &url(name, "")];
            let answer = lab.outside().exec(curl)?;
            ensure!(answer.trim() == *name, "{name} answers {answer:?}");
        }
        // To its own elastic IP, to that of another machine on its node, and of one on another node.
        for (from, to) in [("one", "one"), ("one", "two"), ("one", "three"), ("three", "one")] {
            let eip = machines[from].eips[family].to_string();
            let seen = inside(
                machines[from].pid,
                &["curl", "-sS", "--fail", "--max-time", "5", &url(to, "client")],
            )
            .with_context(|| format!("{from} calls {to}"))?;
            ensure!(seen.trim() == eip, "{to} sees {from} as {seen:?}, not as {eip}");
        }
    }
    lab.down()
}

/// Starts Berth from its manifests and binds three machines.
async fn bind(lab: &Lab) -> Result<BTreeMap<&'static str, Machine>> {
    install_kubevirt(lab)?;
    kubectl(lab, &["apply", "-k", &repository().join("manifests").display().to_string()])?;
    for object in ["statefulset/berth-ccm", "daemonset/berth-announcer"] {
        kubectl(lab, &["-n", "kube-system", "rollout", "status", object, "--timeout=90s"])?;
    }
    let pools = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "kubevip", "namespace": "kube-system" },
        "data": { "range-global": POOL },
    });
    apply(lab, &pools.to_string())?;
    let places = [("one", 0), ("two", 0), ("three", 1)];
    for (name, node) in places {
        let container = json!({ "name": "echo", "image": "localhost/berth/echo:0.1.0" });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": { "nodeName": lab.node(node).name(), "containers": [container] },
        });
        apply(lab, &pod.to_string())?;
    }
    kubectl(lab, &["wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"])?;
    let (client, mut machines) = (lab.client(), BTreeMap::new());
    let bindings = Eips::of(&client, "default");
    for (name, node) in places {
        let pod: Value = serde_json::from_str(&kubectl(lab, &["get", "pod", name, "-o", "json"])?)?;
        let ips = pod["status"]["podIPs"].as_array().context("no podIPs")?.iter();
        let ips: Vec<IpAddr> = ips.filter_map(|ip| ip["ip"].as_str()?.parse().ok()).collect();
        let node = lab.node(node);
        Vm::create(&client, "default", name).await?.start(node.name(), &ips).await?;
        bindings.create(name, json!({ "vmi": name, "families": ["IPv4", "IPv6"] })).await?;
        let status = bindings.shows(name, "ready", |status| holds(status, "Ready")).await?;
        let eips = status["eips"].as_array().context("no eips")?.iter();
        let eips = eips.filter_map(|eip| eip.as_str()?.parse().ok()).collect();
        let pid = eventually("a process with the pod's address", 10, || async {
            process_with(node, *ips.first().context("no address")?)
        })
        .await?;
        machines.insert(name, Machine { pid, eips });
    }
    Ok(machines)
}

/// A process on a node in whose network namespace the address is, as the host numbers processes.
fn process_with(node: &Node, address: IpAddr) -> Result<Option<u32>> {
    let group = node.context.cgroup();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
            continue;
        };
        let read = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
        let is_echo = read("comm").trim() == "echo" && read("cgroup").contains(&group);
        if is_echo && inside(pid, &["ip", "-o", "address"])?.contains(&format!(" {address}/")) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// Runs a command of the host's in the network namespace of a process.
fn inside(pid: u32, argv: &[&str]) -> Result<String> {
    let output =
        Command::new("nsenter").arg(format!("--net=/proc/{pid}/ns/net")).args(argv).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{argv:?}: {}", text(&output.stderr));
    Ok(text(&output.stdout))
}
