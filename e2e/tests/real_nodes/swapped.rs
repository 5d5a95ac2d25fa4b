//! Users of kube-vip swap one image: its DaemonSet, its cloud provider's Deployment and their roles stay as they are.

use anyhow::{Context, Result, ensure};
use berth_e2e::lab::Lab;
use berth_e2e::world::{curl, eventually, ingress, kubectl};

const SYSTEM: &str = "--namespace=kube-system";

/// The lab has a Deployment `hello`.
pub(super) async fn the_manifests_of_kube_vip_serve_with_the_images_alone_exchanged(
    lab: &Lab,
) -> Result<()> {
    super::apply(lab, include_str!("swapped.yaml"))?;
    let expose = ["expose", "deployment/hello", "--name=swapped", "--type=LoadBalancer"];
    kubectl(lab, &[&expose[..], &["--port=80", "--target-port=8080"]].concat())?;
    let answered = || async {
        let shown = kubectl(lab, &["get", "service", "swapped", "--output=json"])?;
        let addresses = ingress(&serde_json::from_str(&shown)?);
        Ok(addresses.first().and_then(|address| curl(&lab.outside(), *address).ok()))
    };
    eventually("an answer", 60, answered).await.with_context(|| logs(lab))?;
    let restarts = "--output=jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let restarts = kubectl(
        lab,
        &[SYSTEM, "get", "pods", "--selector=app in (kube-vip,kube-vip-ds)", restarts],
    )?;
    ensure!(restarts.split_whitespace().all(|count| count == "0"), "{restarts}\n{}", logs(lab));
    kubectl(lab, &["delete", "service", "swapped", "--timeout=30s"]).map(drop)
}

fn logs(lab: &Lab) -> String {
    let of = |what: &str| kubectl(lab, &[SYSTEM, "logs", what, "--all-pods"]).unwrap_or_default();
    ["deployment/kube-vip-cloud-provider", "daemonset/kube-vip-ds"].map(of).concat()
}
