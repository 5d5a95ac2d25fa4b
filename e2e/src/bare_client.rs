//! The yardstick of the allocation benchmark: a client that decides nothing and only sends the writes that giving an
//! address to a Service takes, with the concurrency that berth-ccm uses.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::IPAddress;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;

/// Writes one claim, one Service patch and one Event for each of `services` as they come, `concurrency` at a time.
/// Returns how long all of them took.
///
/// The addresses count up from `first`.
///
/// # Errors
/// On the first write that the API server refuses.
pub async fn allocate(
    client: &Client,
    services: impl Stream<Item = Service>,
    first: Ipv4Addr,
    concurrency: usize,
) -> Result<Duration> {
    let start = Instant::now();
    let addresses = stream::iter((u32::from(first)..).map(Ipv4Addr::from));
    services
        .zip(addresses)
        .map(|(service, address)| async move { write(client, &service, address).await })
        .buffer_unordered(concurrency)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(start.elapsed())
}

async fn write(client: &Client, service: &Service, address: Ipv4Addr) -> Result<()> {
    let namespace = service.namespace().context("a Service without namespace")?;
    let name = service.name_any();
    let address = address.to_string();

    let claim: IPAddress = serde_json::from_value(json!({
        "metadata": {
            "name": address,
            "labels": { "ipaddress.kubernetes.io/managed-by": "bare-client" },
            "annotations": { "berth.dev/owner-uid": service.uid() },
        },
        "spec": { "parentRef": { "group": "", "resource": "services", "namespace": namespace, "name": name } },
    }))?;
    Api::all(client.clone())
        .create(&PostParams::default(), &claim)
        .await
        .with_context(|| format!("claim {address} for {namespace}/{name}"))?;

    let mut patch = json!({
        "metadata": {
            "uid": service.uid(),
            "resourceVersion": service.resource_version(),
            "annotations": { "kube-vip.io/loadbalancerIPs": address },
            "labels": { "implementation": "kube-vip" },
            "finalizers": ["service.kubernetes.io/load-balancer-cleanup"],
        },
    });
    patch["spec"] = json!({ "loadBalancerIP": address });
    Api::<Service>::namespaced(client.clone(), &namespace)
        .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .with_context(|| format!("write {address} to {namespace}/{name}"))?;

    let event: Event = serde_json::from_value(json!({
        "metadata": { "generateName": format!("{name}-") },
        "eventTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        "reportingController": "bare-client",
        "reportingInstance": "bare-client",
        "action": "Allocate",
        "reason": "AddressAllocated",
        "type": "Normal",
        "note": format!("{address} allocated"),
        "regarding": {
            "apiVersion": "v1", "kind": "Service",
            "namespace": namespace, "name": name, "uid": service.uid(),
        },
    }))?;
    Api::<Event>::namespaced(client.clone(), &namespace)
        .create(&PostParams::default(), &event)
        .await
        .with_context(|| format!("report {address} on {namespace}/{name}"))?;
    Ok(())
}
