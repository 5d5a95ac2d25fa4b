//! The manifests as a user applies them, on real nodes: pods with their own ServiceAccounts, capabilities and probes.

use std::fs;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use berth_e2e::lab::{Lab, Spec};

use berth_e2e::world::{addresses_of, curl, deploy_echo, eventually, ingress, kubectl, repository};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_example_works_on_real_nodes() -> Result<()> {
    let start = Instant::now();
    let lab = Lab::up(Spec::real(3)).await?;
    let nodes_ready = start.elapsed();
    kubectl(&lab, &["apply", "-k", &repository().join("manifests").display().to_string()])?;
    for object in ["daemonset/berth-announcer", "statefulset/berth-ccm"] {
        kubectl(&lab, &["--namespace=kube-system", "rollout", "status", object, "--timeout=90s"])?;
    }
    println!(
        "3 real nodes Ready after {nodes_ready:.1?}, our pods Ready after {:.1?}",
        start.elapsed()
    );

    // The example's pools, with addresses of the lab's LAN put in as its README asks.
    let example = repository().join("examples/01-expose");
    let pools = fs::read_to_string(example.join("pools.yaml"))?
        .replace("192.0.2.100-192.0.2.199", "10.0.64.1-10.0.64.99")
        .replace("2001:db8::1:100-2001:db8::1:1ff", "fd00:10::4001-fd00:10::4063");
    let file = lab.dir().join("pools.yaml");
    fs::write(&file, pools)?;
    kubectl(&lab, &["apply", "-f", &file.display().to_string()])?;
    deploy_echo(&lab, "default", "hello", 3)?;
    kubectl(
        &lab,
        &[
            "expose",
            "deployment",
            "hello",
            "--type=LoadBalancer",
            "--port=80",
            "--target-port=8080",
        ],
    )?;
    let dual = example.join("service-dual-stack.yaml");
    kubectl(&lab, &["apply", "-f", &dual.display().to_string()])?;

    for (name, count) in [("hello", 1), ("hello-dual", 2)] {
        let addresses = eventually(&format!("addresses of {name}"), 30, || async {
            let text = kubectl(&lab, &["get", "service", name, "-o", "json"])?;
            let addresses = ingress(&serde_json::from_str(&text)?);
            Ok((addresses.len() == count).then_some(addresses))
        })
        .await?;
        for address in addresses {
            for attempt in 1..=50 {
                curl(&lab.outside(), address)
                    .with_context(|| format!("{name}: request {attempt} of 50"))?;
            }
        }
    }

    // A rolling update of all announcers leaves the addresses on exactly one node.
    kubectl(&lab, &["--namespace=kube-system", "rollout", "restart", "daemonset/berth-announcer"])?;
    kubectl(
        &lab,
        &[
            "--namespace=kube-system",
            "rollout",
            "status",
            "daemonset/berth-announcer",
            "--timeout=90s",
        ],
    )?;
    let text = kubectl(&lab, &["get", "service", "hello", "-o", "json"])?;
    let address: IpAddr =
        ingress(&serde_json::from_str(&text)?).first().copied().context("no address any more")?;
    eventually("one node with the address", 30, || async {
        let mut holders = 0;
        for node in lab.nodes() {
            holders += usize::from(addresses_of(node)?.contains(&address));
        }
        Ok((holders == 1 && curl(&lab.outside(), address).is_ok()).then_some(()))
    })
    .await?;

    // Uninstalling takes everything off the interfaces.
    kubectl(&lab, &["delete", "service", "hello", "hello-dual", "--timeout=20s"])?;
    kubectl(
        &lab,
        &["delete", "-k", &repository().join("manifests").display().to_string(), "--timeout=60s"],
    )?;
    for node in lab.nodes() {
        let left: Vec<_> = addresses_of(node)?
            .into_iter()
            .filter(|a| a.to_string().starts_with("10.0.64."))
            .collect();
        ensure!(left.is_empty(), "{} still has {left:?}", node.name());
    }
    lab.down()
}
