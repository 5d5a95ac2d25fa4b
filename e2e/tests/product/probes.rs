//! What the kubelet hears of an announcer that has a neighbour on its node.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::world::{Env, World, eventually, kubectl, repository};
use serde_json::Value;

/// The container of `manifests/announcer.yaml`.
fn container(world: &World) -> Result<Value> {
    let file = repository().join("manifests/announcer.yaml").display().to_string();
    let arguments = ["create", "--dry-run=client", "--output=json", "--filename", &file];
    let manifest: Value = serde_json::from_str(&kubectl(&world.lab, &arguments)?)?;
    Ok(manifest["spec"]["template"]["spec"]["containers"][0].clone())
}

/// What it sets to a text, but for what the lab knows better.
fn environment(container: &Value) -> Env {
    let all = container["env"].as_array().into_iter().flatten();
    let read =
        |set: &Value| Some((set["name"].as_str()?.to_owned(), set["value"].as_str()?.into()));
    all.filter_map(read).filter(|(name, _)| name != "vip_interface").collect()
}

/// Answers 404 to everything there, for as long as the test runs.
fn neighbour(listener: TcpListener) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
}

/// As kube-vip has it, whose metrics are at 2112 too: the kubelet restarted the pod after half a minute.
#[tokio::test(flavor = "multi_thread")]
async fn the_probes_of_the_manifest_pass_beside_whoever_answers_at_the_port_of_the_metrics()
-> Result<()> {
    let mut world = World::without_berth(1, Env::new()).await?;
    let container = container(&world)?;
    let node = world.lab.node(0).place()?;
    neighbour(node.in_network(|| TcpListener::bind("[::]:2112"))??);
    world.start_announcer_with(0, environment(&container)).await?;
    let asks = |probe: &str| -> Result<String> {
        let get = &container[probe]["httpGet"];
        let [host, path] = ["host", "path"].map(|key| get[key].as_str().unwrap_or_default());
        let port = get["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let server = SocketAddr::new(host.parse()?, port.context("a port")?);
        berth_e2e::get::get(&node, server, path, Duration::from_secs(1))
    };
    let logs = || world.logs();
    for probe in ["livenessProbe", "readinessProbe"] {
        let passes = async || Ok(asks(probe).ok().map(drop));
        eventually(probe, 30, passes).await.with_context(logs)?;
    }
    let liveness = &container["livenessProbe"];
    let [period, most] = ["periodSeconds", "failureThreshold"].map(|key| liveness[key].as_u64());
    let patience = period.zip(most).map(|(period, most)| period * most).context("a threshold")?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(patience) {
        asks("livenessProbe").with_context(logs)?;
        let said = asks("readinessProbe").with_context(logs)?;
        ensure!(said.contains("prometheus_server: cannot listen on [::]:2112"), "{said}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    world.lab.down()
}
