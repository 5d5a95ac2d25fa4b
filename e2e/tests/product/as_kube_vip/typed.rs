//! The commands of the documentation of kube-vip and its cloud provider, as they are typed, by a real kubectl.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use berth_e2e::world::{World, eventually, kubectl, repository};

use crate::shell::shell;

/// The pools of the cloud provider's page, as they stand there.
const POOLS: &str = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: kubevip
  namespace: kube-system
data:
  cidr-default: 192.168.0.200/29                      # CIDR-based IP range for use in the default Namespace
  range-development: 192.168.0.210-192.168.0.219      # Range-based IP range for use in the development Namespace
  cidr-finance: 192.168.0.220/29,192.168.0.230/29     # Multiple CIDR-based ranges for use in the finance Namespace
  cidr-global: 192.168.0.240/29                       # CIDR-based range which can be used in any Namespace
";

fn typed(world: &World, text: &str) -> Result<String> {
    shell(world, repository(), 60, text)
}

/// Waits for what is written into a Service of a namespace.
async fn given(world: &World, namespace: &str, name: &str) -> Result<String> {
    let show = "jsonpath={.metadata.annotations['kube-vip\\.io/loadbalancerIPs']}";
    let get = ["--namespace", namespace, "get", "service", name, "--output", show];
    let shown = || async {
        let shown = kubectl(&world.lab, &get)?;
        Ok((!shown.is_empty()).then_some(shown))
    };
    eventually(&format!("an address of {namespace}/{name}"), 10, shown)
        .await
        .with_context(|| world.logs())
}

/// The pools of the page, and a Service in each namespace; then those of the lab's LAN, by another command of the page.
pub(super) async fn the_commands_of_its_documentation_do_what_they_say(
    world: &mut World,
) -> Result<()> {
    world.deploy("default", "hello", 1)?;
    let file = world.lab.dir().join("kubevip.yaml");
    std::fs::write(&file, POOLS)?;
    typed(
        world,
        &format!(
            "kubectl delete configmap --namespace kube-system kubevip
             kubectl apply -f {}
             for namespace in development finance blog; do
               kubectl create namespace $namespace
               kubectl --namespace $namespace create service loadbalancer nginx --tcp=80:80
             done
             kubectl expose deployment hello --port=80 --type=LoadBalancer --name=pooled",
            file.display()
        ),
    )?;
    for (namespace, name, address) in [
        ("default", "pooled", "192.168.0.200"),
        ("development", "nginx", "192.168.0.210"),
        ("finance", "nginx", "192.168.0.216"),
        ("blog", "nginx", "192.168.0.240"),
    ] {
        let found = given(world, namespace, name).await?;
        ensure!(found == address, "{namespace}/{name}: {found}, not {address}");
    }
    let told = || async {
        let list = [
            "--namespace=kube-system",
            "get",
            "events.events.k8s.io",
            "--output=jsonpath={.items[*].note}",
        ];
        let notes = kubectl(&world.lab, &list)?;
        Ok(notes.contains("192.168.0.230/29 is all of 192.168.0.224/29").then_some(()))
    };
    eventually("it is told what a network is", 10, told).await?;
    typed(
        world,
        "kubectl delete service pooled
         kubectl delete namespace development finance blog --wait=false
         kubectl delete configmap --namespace kube-system kubevip
         kubectl create configmap --namespace kube-system kubevip --from-literal range-global=10.0.64.1-10.0.64.9",
    )
    .map(drop)
}

/// A Service by the shortest command, and one that asks for an address of nobody's network; the address of the first.
pub(super) async fn exposed_as_it_is_typed(world: &World) -> Result<IpAddr> {
    typed(
        world,
        "kubectl expose deployment hello --port=80 --target-port=8080 --type=LoadBalancer --name=web
         kubectl expose deployment hello --port=80 --target-port=8080 --type=LoadBalancer --name=nginx \\
           --load-balancer-ip=1.1.1.1",
    )?;
    let asked: IpAddr = [1, 1, 1, 1].into();
    let published = world.published("nginx", 1).await?;
    ensure!(published == [asked], "{published:?}");
    ensure!(world.holders(asked)? == [world.host("nginx").await?], "vipHost is who has it");
    let shown = typed(world, "kubectl get service nginx --no-headers")?;
    ensure!(shown.contains(" 1.1.1.1 "), "{shown}");
    let addresses = world.published("web", 1).await?;
    typed(world, "kubectl delete service nginx")?;
    Ok(addresses[0])
}
