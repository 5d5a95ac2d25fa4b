//! Who shares an address and takes the port of another keeps it by no object that is so full that the API server takes nothing
//! more of it. One announcer alone runs: no other could take out what it does not. Judged by the API server, and by whose pod
//! answers a client.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use berth_e2e::membership;
use berth_e2e::world::{ADDRESSES, HOST, World, eventually, ingress};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use kube::api::PostParams;
use serde_json::json;

use crate::shown::{Client, GAP, PROXY, expose, get, gone, shown, told, up_on};

/// So much of annotations the API server takes.
const ANNOTATIONS: usize = 256 << 10;
/// More than the most that etcd takes of a request.
const TOO_LARGE: usize = 1600 << 10;

/// The API server itself takes seconds for each write of an object of a megabyte and a half.
const SLOW: Duration = Duration::from_secs(20);

/// How mallory keeps others from writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// No octet of an annotation can be added.
    Annotations,
    /// The same, and it leaves the address in the same moment.
    Leaving,
    /// etcd takes no larger object, and there would be many ports to publish.
    Size,
}

/// Alice has this address, and mallory shares it by a Service that has one of IPv6 besides.
async fn shared(world: &World, number: u8) -> Result<[IpAddr; 2]> {
    let both: [IpAddr; 2] =
        [format!("10.0.64.{number}").parse()?, format!("fd00:10::40{number:02}").parse()?];
    let name = format!("s{number}");
    expose(world, ("alice", &name), 80, Some(both[0])).await?;
    ensure!(shown(world, ("alice", &name)).await? == both[0]);
    let addresses = both.map(|address| address.to_string()).join(",");
    let service = json!({
        "metadata": {
            "namespace": "mallory", "name": name, "annotations": { ADDRESSES: addresses },
        },
        "spec": {
            "type": "LoadBalancer", "selector": { "app": "evil" },
            "ports": [{ "port": 81, "targetPort": 8080 }], "ipFamilyPolicy": "RequireDualStack",
            "allocateLoadBalancerNodePorts": false,
        },
    });
    world.create(service).await?;
    eventually("both addresses are shown", 30, || async {
        Ok((ingress(&get(world, ("mallory", &name)).await?) == both).then_some(()))
    })
    .await?;
    Ok(both)
}

/// The object as it is to be, and whether the API server took it.
async fn replace(
    world: &World,
    name: &str,
    change: impl Fn(&mut Service) + Send + Sync,
) -> Result<bool> {
    let services = world.services("mallory");
    for _ in 0..50 {
        let mut service = services.get(name).await?;
        service.metadata.managed_fields = None;
        change(&mut service);
        match services.replace(name, &PostParams::default(), &service).await {
            Ok(_) => return Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(kube::Error::Api(status)) if status.message.contains("too large") => {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
    }
    bail!("others write it without end")
}

fn takes_the_port(service: &mut Service) {
    service.metadata.annotations.get_or_insert_default().remove(HOST);
    let ports = service.spec.as_mut().and_then(|spec| spec.ports.as_mut());
    ports.into_iter().flatten().for_each(|port| port.port = 80);
}

fn fill_annotations(service: &mut Service) {
    let annotations = service.metadata.annotations.get_or_insert_default();
    let used: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    annotations.insert("f".to_owned(), "x".repeat(ANNOTATIONS - used - 1));
}

/// Labels of about so many octets.
fn fill_labels(service: &mut Service, octets: usize) {
    let (prefix, mut labels, mut used) = ("a.".repeat(100), BTreeMap::new(), 0);
    while used < octets {
        let key = format!("z{used}.{prefix}a/{}", "b".repeat(50));
        let value = "v".repeat(60.min(octets.saturating_sub(used + key.len())));
        used += key.len() + value.len() + 7;
        labels.insert(key, value);
    }
    service.metadata.labels = Some(labels);
}

/// A port for each of these numbers.
fn add_ports(service: &mut Service, numbers: std::ops::Range<i32>) {
    let ports = service.spec.get_or_insert_default().ports.get_or_insert_default();
    ports.iter_mut().for_each(|port| port.name = Some("own".to_owned()));
    ports.extend(numbers.map(|port| ServicePort {
        name: Some(format!("p{port}")),
        port,
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }));
}

/// Makes the object as large as can be, and takes the port with as many others as fit beside.
async fn fill_all(world: &World, name: &str) -> Result<()> {
    let (mut fits, mut not) = (TOO_LARGE / 4, TOO_LARGE);
    while not - fits > 512 {
        let half = fits.midpoint(not);
        match replace(world, name, |service| fill_labels(service, half)).await? {
            true => fits = half,
            false => not = half,
        }
    }
    for less in 1..100 {
        let took = replace(world, name, |service| {
            fill_labels(service, fits - less * 4096);
            takes_the_port(service);
            add_ports(service, 10_000..10_900);
        });
        if took.await? {
            return Ok(());
        }
    }
    bail!("it does not fit")
}

async fn keeps_nothing(world: &World, number: u8, by: By) -> Result<()> {
    let [v4, v6] = shared(world, number).await?;
    let name = format!("s{number}");
    let own = ("mallory", name.as_str());
    tokio::time::sleep(PROXY * 2).await;
    let client = Client::of(world.lab.outside(), v4);
    let took = match by {
        By::Size => fill_all(world, own.1).await.map(|()| true),
        By::Annotations | By::Leaving => {
            replace(world, own.1, |service| {
                takes_the_port(service);
                if by == By::Leaving {
                    let annotations = service.metadata.annotations.get_or_insert_default();
                    annotations.insert(ADDRESSES.to_owned(), v6.to_string());
                }
                fill_annotations(service);
            })
            .await
        }
    };
    let edit = Instant::now();
    let gap = if by == By::Size { SLOW } else { GAP };
    let out = gone(world, own, v4, 30).await;
    tokio::time::sleep(PROXY * 4).await;
    let answers = client.answers()?;
    let others: Vec<_> = answers.iter().filter(|(_, body)| body.contains("evil")).collect();
    let drawn = others.last().map(|(at, _)| at.saturating_duration_since(edit)).unwrap_or_default();
    println!(
        "{by:?}: out after {out:.1?}; of {} answers {} were the other's, the last {drawn:.1?} after the edit",
        answers.len(),
        others.len()
    );
    ensure!(took? && out? <= gap && drawn <= gap + GAP, "{by:?}: {drawn:?}\n{}", world.logs());
    ensure!(ingress(&get(world, own).await?) == [v6], "{by:?}: what is its own stays");
    ensure!(ingress(&get(world, ("alice", own.1)).await?) == [v4], "{by:?}: alice keeps it");
    if by != By::Size {
        told(world, own, "WriteRefused", "Too long").await?;
    }
    Ok(())
}

async fn each(world: &World, ways: &[By]) -> Result<()> {
    world
        .pools(json!({
            "range-global": "10.0.64.1-10.0.64.9,fd00:10::4001-fd00:10::4009",
            "allow-share-global": "true", "share-with-alice": "mallory",
            "share-with-mallory": "alice",
        }))
        .await?;
    for (number, by) in (1..).zip(ways) {
        keeps_nothing(world, number, *by).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fills_its_service_keeps_no_port_of_another_by_it() -> Result<()> {
    let world = up_on(1, &[]).await?;
    eventually("the node takes part", 30, || async {
        Ok(membership::is_settled(&world, 1).await?.then_some(()))
    })
    .await?;
    each(&world, &[By::Annotations, By::Leaving, By::Size]).await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn by_lease_who_fills_its_service_keeps_no_port_of_another_by_it() -> Result<()> {
    let lease = [("vip_leaderelection", "true"), ("vip_leaseduration", "5")];
    let timing = [("vip_renewdeadline", "3"), ("vip_retryperiod", "1")];
    let world = up_on(1, &[lease, timing].concat()).await?;
    each(&world, &[By::Annotations, By::Leaving]).await?;
    world.lab.down()
}
