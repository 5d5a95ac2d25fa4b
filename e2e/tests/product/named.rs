//! Addresses that tenants name in Services: what kube-proxy draws by them, and what `overlays/tenants` leaves of it. By real
//! tokens, on a real kube-proxy.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use berth_e2e::addresses::{client, free};
use berth_e2e::tokens;
use berth_e2e::world::{ADDRESSES, POOL, World, curl_port, env, eventually, kubectl, repository};
use k8s_openapi::api::core::v1::Service;
use kube::Error;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::config::AuthInfo;
use serde_json::{Value, json};

use crate::tenant::client_as;

/// Where the tenant has the role `edit` of Kubernetes, and pods.
const SHOP: &str = "shop";
const PODS: &str = "thief";
/// Three lists of the greatest length are refused within this time; each alone took ten seconds of a processor.
const LISTS: Duration = Duration::from_secs(8);
/// A port that the Service `web` has not.
const PORT: u16 = 81;

/// What the API server said of a write.
#[derive(Debug, PartialEq)]
enum Answer {
    Taken,
    /// By a policy; what was said.
    Denied(String),
}

fn answer(result: kube::Result<Service>) -> Result<Answer> {
    match result {
        Ok(_) => Ok(Answer::Taken),
        Err(Error::Api(status)) if status.message.contains("Policy 'berth-") => {
            Ok(Answer::Denied(status.message.clone()))
        }
        Err(error) => bail!("{error}"),
    }
}

/// A tenant's rights to Services of its namespace.
struct Tenant(Api<Service>);

impl Tenant {
    async fn of(world: &World) -> Result<Self> {
        for arguments in [
            &["create", "namespace", SHOP][..],
            &["create", "serviceaccount", "edit", "--namespace", SHOP],
            &[
                "create",
                "rolebinding",
                "edit",
                "--clusterrole=edit",
                "--serviceaccount=shop:edit",
                "-n",
                SHOP,
            ],
        ] {
            kubectl(&world.lab, arguments)?;
        }
        let token = tokens::of_account(&world.client, SHOP, "edit").await?;
        let client = client_as(&world.lab, |info| {
            *info = AuthInfo { token: Some(token.clone().into()), ..AuthInfo::default() };
        });
        Ok(Self(Api::namespaced(client.await?, SHOP)))
    }

    async fn make(&self, name: &str, metadata: Value, spec: Value) -> Result<Answer> {
        make(&self.0, name, metadata, spec).await
    }

    async fn edit(&self, name: &str, patch: Value) -> Result<Answer> {
        answer(self.0.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await)
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.0.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }
}

/// Makes a Service in front of the tenant's pods, with more in it.
async fn make(api: &Api<Service>, name: &str, metadata: Value, spec: Value) -> Result<Answer> {
    let mut object = json!({
        "metadata": { "name": name, "annotations": metadata },
        "spec": {
            "selector": { "app": PODS }, "ipFamilyPolicy": "PreferDualStack",
            "ports": [{ "port": PORT, "targetPort": 8080 }],
        },
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    answer(api.create(&PostParams::default(), &serde_json::from_value(object)?).await)
}

/// What the namespace may name, as its annotation says.
fn allow(world: &World, annotation: &str, what: &str) -> Result<()> {
    let annotation = format!("{annotation}={what}");
    kubectl(&world.lab, &["annotate", "--overwrite", "namespace", SHOP, &annotation]).map(drop)
}

/// Until the answer is as expected: policies, and annotations of Namespaces, hold a moment after they were written.
async fn until_denied<F>(what: &str, ask: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<Answer>>,
{
    eventually(what, 20, || async { Ok(matches!(ask().await?, Answer::Denied(_)).then_some(())) })
        .await
}

/// Whether what the node sends to the address arrives at the tenant's pods.
fn is_drawn(world: &World, address: IpAddr) -> Result<bool> {
    let said = curl_port(&world.lab.node(0).place()?, address, PORT);
    Ok(said.is_ok_and(|said| said.starts_with(PODS)))
}

async fn drawn(world: &World, address: IpAddr, expected: bool) -> Result<()> {
    eventually(&format!("{address} is drawn: {expected}"), 20, || async {
        Ok((is_drawn(world, address)? == expected).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_draws_no_address_that_its_namespace_does_not_list() -> Result<()> {
    let mut world = World::without_berth(2, env([])).await?;
    world.pools(json!({ "range-global": POOL })).await?;
    world.start_ccm().await?;
    world.start_announcer(0).await?;
    world.deploy("default", "hello", 1)?;
    world.expose("web", json!({})).await?;
    let web = world.published("web", 1).await?[0];
    eventually("an answer", 10, || async { Ok(world.curl(web).ok()) }).await?;
    let tenant = Tenant::of(&world).await?;
    world.deploy(SHOP, PODS, 1)?;

    external_ips(&world, &tenant, web).await?;
    pins(&world, &tenant).await?;
    long_lists(&tenant).await?;
    ensure!(world.curl(web)?.starts_with("hello"), "web is left alone");
    world.lab.down()
}

/// Berth's address, on a port that its Service has not, and another host's, of both families.
async fn external_ips(world: &World, tenant: &Tenant, web: IpAddr) -> Result<()> {
    let hosts = client().both();
    let all: Vec<IpAddr> = [web].into_iter().chain(hosts).collect();
    let taken = json!({ "externalIPs": all });
    // kube-controller-manager has put the rights of `edit` together.
    eventually("rights", 20, || async {
        Ok(tenant.make("draws", json!({}), taken.clone()).await.ok())
    })
    .await?;
    for address in &all {
        drawn(world, *address, true).await?;
    }

    let overlay = repository().join("overlays/tenants").display().to_string();
    kubectl(&world.lab, &["apply", "-k", &overlay])?;
    until_denied("spec.externalIPs is denied", || async {
        let answer = tenant.make("more", json!({}), taken.clone()).await?;
        if answer == Answer::Taken {
            tenant.delete("more").await?;
        }
        Ok(answer)
    })
    .await?;
    let Answer::Denied(said) = tenant.make("more", json!({}), taken.clone()).await? else {
        bail!("taken");
    };
    let words = [&web.to_string()[..], "berth.dev/external-ips", "Namespace shop", "has none"];
    ensure!(words.iter().all(|word| said.contains(word)), "{said}");

    // What is there can be edited, and given up, and is not to be had again.
    let spec = |addresses: &[IpAddr]| json!({ "spec": { "externalIPs": addresses } });
    for patch in
        [json!({ "metadata": { "labels": { "x": "y" } } }), spec(&all[1..]), spec(&all[2..])]
    {
        ensure!(tenant.edit("draws", patch.clone()).await? == Answer::Taken, "{patch}");
    }
    drawn(world, web, false).await?;
    ensure!(matches!(tenant.edit("draws", spec(&all)).await?, Answer::Denied(_)), "taken back");
    tenant.delete("draws").await?;

    // What the operator lists, of both families, and what the operator does.
    let [listed, other] = hosts;
    allow(world, "berth.dev/external-ips", &format!("192.0.2.0/24, {listed}"))?;
    let of = |address: IpAddr| json!({ "externalIPs": [address] });
    eventually("what is listed", 10, || async {
        let answer = tenant.make("listed", json!({}), of(listed)).await?;
        Ok((answer == Answer::Taken).then_some(()))
    })
    .await?;
    drawn(world, listed, true).await?;
    let denied = tenant.make("other", json!({}), of(other)).await?;
    ensure!(matches!(denied, Answer::Denied(_)), "{other} is not listed");
    tenant.delete("listed").await?;
    let operator = world.services(SHOP);
    ensure!(make(&operator, "other", json!({}), of(other)).await? == Answer::Taken);
    tenant.delete("other").await
}

/// Lists as long as the API server takes them cost it no more than short ones: CEL copies a list for each entry it adds.
async fn long_lists(tenant: &Tenant) -> Result<()> {
    let many: Vec<String> = (0..30_000).map(|n| format!("192.{}.{}.1", n / 250, n % 250)).collect();
    let balancer = json!({ "type": "LoadBalancer" });
    let start = Instant::now();
    for (metadata, spec) in [
        (json!({ ADDRESSES: "1,".repeat(120_000) }), balancer.clone()),
        (json!({}), json!({ "type": "LoadBalancer", "loadBalancerIP": "1,".repeat(120_000) })),
        (json!({}), json!({ "externalIPs": many })),
    ] {
        let answer = tenant.make("long", metadata, spec).await?;
        ensure!(
            matches!(&answer, Answer::Denied(said) if said.contains("more than")),
            "{answer:?}"
        );
    }
    let took = start.elapsed();
    println!("three long lists: {took:.1?}");
    ensure!(took < LISTS, "{took:?}");
    Ok(())
}

/// As where another program gives the addresses and takes any that a Service names; berth-ccm goes on to write its own.
async fn pins(world: &World, tenant: &Tenant) -> Result<()> {
    let addresses = free(60);
    let (v4, v6) = (IpAddr::from(addresses.v4), IpAddr::from(addresses.v6));
    let balancer = || json!({ "type": "LoadBalancer" });
    let by_field = json!({ "type": "LoadBalancer", "loadBalancerIP": v4 });
    let by_annotation = json!({ ADDRESSES: format!("{v4},{v6}") });
    for (metadata, spec) in [(by_annotation.clone(), balancer()), (json!({}), by_field)] {
        let Answer::Denied(said) = tenant.make("pinned", metadata, spec.clone()).await? else {
            bail!("taken: {spec}");
        };
        let words = [&v4.to_string()[..], "berth.dev/pins", "Namespace shop", "has none"];
        ensure!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    ensure!(tenant.make("given", json!({}), balancer()).await? == Answer::Taken);
    let given = eventually("what berth-ccm gives", 20, || async {
        let service = tenant.0.get("given").await?;
        Ok(service.metadata.annotations.unwrap_or_default().remove(ADDRESSES))
    });
    let given = given.await.with_context(|| world.logs())?;
    let label = json!({ "metadata": { "labels": { "x": "y" } } });
    ensure!(tenant.edit("given", label).await? == Answer::Taken, "{given} is not named anew");
    let pinned = json!({ "metadata": { "annotations": by_annotation } });
    ensure!(matches!(tenant.edit("given", pinned.clone()).await?, Answer::Denied(_)));
    allow(world, "berth.dev/pins", &format!("{v6}/128,{v4}"))?;
    eventually("what is listed", 10, || async {
        Ok((tenant.edit("given", pinned.clone()).await? == Answer::Taken).then_some(()))
    })
    .await?;
    let node = world.lab.node(0).place()?;
    eventually("it moves there", 20, || async { Ok(curl_port(&node, v4, PORT).ok()) })
        .await
        .with_context(|| world.logs())
        .map(drop)
}
