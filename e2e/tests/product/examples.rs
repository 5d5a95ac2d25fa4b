//! The examples, as their READMEs tell: the files as they are, but with addresses of the lab's LAN put in.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::client;
use berth_e2e::place::sibling_program;
use berth_e2e::probe::{Manner, Probe};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use berth_e2e::world::{
    World, annotated, curl_port, deploy_echo, env, eventually, ingress, kubectl, repository,
};

use crate::scene::TAKEOVER;

#[tokio::test(flavor = "multi_thread")]
async fn example_02_pools_works_as_it_reads() -> Result<()> {
    let example = Example::up("02-pools").await?;
    let world = &example.world;
    let said = example.check("pools.yaml", false)?;
    ensure!(said.ends_with("no problem found\n"), "{said}");
    ensure!(example.readme()?.contains(&said), "the README shows something else than\n{said}");
    example.apply("pools.yaml")?;
    kubectl(&world.lab, &["create", "namespace", "shop"])?;
    deploy_echo(&world.lab, "shop", "hello", 2)?;
    example.apply("services.yaml")?;

    example.holds("default", "web", &["10.0.64.2"]).await?;
    example.holds("default", "asks", &["10.0.64.100"]).await?;
    let mut shop = Vec::new();
    for name in ["web", "api"] {
        shop.push((name, example.shown("shop", name, 1).await?[0]));
    }
    let given: Vec<_> = shop.iter().map(|(_, address)| address.to_string()).collect();
    ensure!(given.iter().all(|given| ["10.0.64.200", "10.0.64.201"].contains(&given.as_str())));
    for (_, address) in &shop {
        eventually("an answer", 10, || async { Ok(world.curl(*address).ok()) }).await?;
    }
    example.apply("late.yaml")?;
    example.waits("shop", "late", "QuotaExceeded").await?;

    let said = example.check("pools-moved.yaml", true)?;
    let table = said.split_once('\n').map_or("", |(head, _)| head);
    ensure!(table.contains("USED") && said.matches("drains from").count() == 2, "{said}");
    ensure!(said.contains("4 addresses assigned") && said.contains("no problem found"), "{said}");
    let order = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    // Which of the two Services got the lower address is up to their names and ages.
    let lines = order(&said.replace("shop/api", "shop/*").replace("shop/web", "shop/*"));
    let readme =
        order(&example.readme()?.replace("shop/api", "shop/*").replace("shop/web", "shop/*"));
    ensure!(lines.is_subset(&readme), "the README shows something else than\n{said}");
    example.apply("pools-moved.yaml")?;
    example.holds("shop", "late", &["10.0.64.210"]).await?;
    for (name, address) in &shop {
        ensure!(annotated(&example.service("shop", name)?) == [*address], "shop/{name} moved");
    }
    example.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn example_03_dual_stack_works_as_it_reads() -> Result<()> {
    let example = Example::up("03-dual-stack").await?;
    example.apply("pools-ipv4.yaml")?;
    example.apply("services.yaml")?;
    let four = example.shown("default", "four", 1).await?[0];
    let prefers = example.shown("default", "prefers", 1).await?[0];
    ensure!(four.is_ipv4() && prefers.is_ipv4(), "{four} {prefers}");
    for name in ["six", "requires"] {
        example.waits("default", name, "FamilyUnavailable").await?;
        ensure!(annotated(&example.service("default", name)?).is_empty(), "{name} has an address");
    }

    example.apply("pools.yaml")?;
    let six = example.shown("default", "six", 1).await?;
    ensure!(six[0].is_ipv6(), "{six:?}");
    let both = example.shown("default", "prefers", 2).await?;
    ensure!(both[0] == prefers && both[1].is_ipv6(), "{prefers} became {both:?}");
    let requires = example.shown("default", "requires", 2).await?;
    ensure!(requires[0].is_ipv6() && requires[1].is_ipv4(), "{requires:?}");
    for address in requires.into_iter().chain(both).chain(six) {
        eventually("an answer", 10, || async { Ok(example.world.curl(address).ok()) }).await?;
    }

    let world = &example.world;
    world.patch("four", json!({ "spec": { "ipFamilyPolicy": "RequireDualStack" } })).await?;
    let both = example.shown("default", "four", 2).await?;
    ensure!(both[0] == four && both[1].is_ipv6(), "{four} became {both:?}");
    world.patch("four", json!({ "spec": { "ipFamilyPolicy": "SingleStack" } })).await?;
    ensure!(example.shown("default", "four", 1).await? == [four], "it moved");
    let second = both[1].to_string();
    eventually("the IPv6 address given back", 10, || async {
        Ok((!world.claims().await?.contains_key(&second)).then_some(()))
    })
    .await?;
    example.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn example_04_sharing_works_as_it_reads() -> Result<()> {
    let example = Example::up("04-sharing").await?;
    example.apply("pools.yaml")?;
    example.apply("services.yaml")?;
    let web = example.shown("default", "web", 1).await?[0];
    ensure!(web.to_string() == "10.0.64.100", "{web}");
    ensure!(example.shown("default", "admin", 1).await? == [web], "admin has another address");
    let world = &example.world;
    let answers = |port| async move { Ok(curl_port(&world.lab.outside(), web, port).ok()) };
    for port in [80, 8443] {
        eventually(&format!("an answer on port {port}"), 10, || answers(port)).await?;
    }
    let hosts = [world.host("web").await?, world.host("admin").await?];
    ensure!(hosts[0] == hosts[1], "one address, two nodes: {hosts:?}");

    example.apply("more.yaml")?;
    let mut given = vec![web];
    for name in ["blog", "local"] {
        given.push(example.shown("default", name, 1).await?[0]);
    }
    ensure!(given.iter().collect::<BTreeSet<_>>().len() == 3, "{given:?}");
    example.waits("default", "refused", "AddressInUse").await?;

    world.delete("web").await?;
    eventually("port 80 served by nobody", 10, || async {
        Ok(curl_port(&world.lab.outside(), web, 80).is_err().then_some(()))
    })
    .await?;
    curl_port(&world.lab.outside(), web, 8443)?;
    ensure!(world.claims().await?.contains_key(&web.to_string()), "admin lost its address");
    // Whoever waited for a port of `admin` gets in with the last of its claims on it.
    world.delete("admin").await?;
    example.holds("default", "refused", &["10.0.64.100"]).await?;
    example.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn example_05_local_traffic_works_as_it_reads() -> Result<()> {
    let example = Example::up("05-local-traffic").await?;
    let world = &example.world;
    example.apply("pools.yaml")?;
    example.apply("deployment.yaml")?;
    kubectl(&world.lab, &["rollout", "status", "deployment/local", "--timeout=60s"])?;
    example.apply("services.yaml")?;
    let local = example.shown("default", "local", 2).await?;
    let cluster = example.shown("default", "cluster", 1).await?[0];
    let asked = |address: IpAddr| {
        let url = format!("http://{}/client", SocketAddr::new(address, 80));
        let answer = world.lab.outside().exec(["curl", "--silent", "--max-time", "5", &url])?;
        answer.trim().parse::<IpAddr>().with_context(|| format!("{address}: {answer:?}"))
    };
    let own = |address: IpAddr| match address {
        IpAddr::V4(_) => IpAddr::from(client().v4),
        IpAddr::V6(_) => client().v6.into(),
    };
    for address in &local {
        let seen = eventually("an answer", 10, || async { Ok(asked(*address).ok()) }).await?;
        ensure!(seen == own(*address), "the pod sees {seen}");
    }
    let seen = eventually("an answer", 10, || async { Ok(asked(cluster).ok()) }).await?;
    ensure!(seen != own(cluster), "with the other policy the pod sees {seen}");

    let before = world.host("local").await?;
    let probe = Probe::start(
        &world.lab.outside(),
        SocketAddr::new(local[0], 80),
        Duration::from_millis(10),
        Manner::NewConnections,
    )?;
    let on = format!("spec.nodeName={before}");
    let gone =
        ["delete", "pod", "--selector", "app=local", "--field-selector", &on, "--wait=false"];
    kubectl(&world.lab, &gone)?;
    let after = eventually("the other node", 15, || async {
        let host = world.host("local").await?;
        Ok((host != before).then_some(host))
    })
    .await?;
    for address in &local {
        eventually("an answer", 10, || async { Ok(asked(*address).ok()) }).await?;
    }
    let report = probe.finish()?;
    println!(
        "its pod deleted: longest gap {:.0?}, {} failed",
        report.longest_gap,
        report.failed.len()
    );
    report.answered_within(TAKEOVER).with_context(|| world.logs())?;
    kubectl(&world.lab, &["rollout", "status", "deployment/local", "--timeout=60s"])?;
    ensure!(world.host("local").await? == after, "the pod that replaces it took the address back");
    for address in &local {
        ensure!(asked(*address)? == own(*address), "the pod sees somebody else");
    }
    example.down()
}

/// A lab with both programs running and the files of one example at hand.
struct Example {
    world: World,
    folder: PathBuf,
}

impl Example {
    /// Two nodes, no pool yet, and the Deployment of the first example in namespace `default`.
    async fn up(name: &str) -> Result<Self> {
        let mut world = World::without_berth(2, env([])).await?;
        world.start_ccm().await?;
        for node in 0..2 {
            world.start_announcer(node).await?;
        }
        world.deploy("default", "hello", 2)?;
        Ok(Self { world, folder: repository().join("examples").join(name) })
    }

    fn down(self) -> Result<()> {
        self.world.lab.down()
    }

    fn readme(&self) -> Result<String> {
        Ok(on_the_lan(&fs::read_to_string(self.folder.join("README.md"))?))
    }

    /// The example's file with addresses of the lab's LAN.
    fn file(&self, name: &str) -> Result<String> {
        let text = fs::read_to_string(self.folder.join(name)).with_context(|| name.to_owned())?;
        let file = self.world.lab.dir().join(name);
        fs::write(&file, on_the_lan(&text))?;
        Ok(file.display().to_string())
    }

    fn apply(&self, name: &str) -> Result<()> {
        kubectl(&self.world.lab, &["apply", "-f", &self.file(name)?])?;
        Ok(())
    }

    /// What `berth-ccm check` says, which must end with 0.
    fn check(&self, name: &str, against: bool) -> Result<String> {
        let mut command = Command::new(sibling_program("berth-ccm", "BERTH_CCM")?);
        command.args(["check", &self.file(name)?]);
        if against {
            command.env("KUBECONFIG", self.world.lab.kubeconfig()).args(["--against", "current"]);
        }
        let output = command.output()?;
        let (said, complained) =
            (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        ensure!(output.status.success(), "check {name}: {said}{complained}");
        Ok(said)
    }

    fn service(&self, namespace: &str, name: &str) -> Result<Service> {
        let get = ["get", "service", name, "--namespace", namespace, "-o", "json"];
        Ok(serde_json::from_str(&kubectl(&self.world.lab, &get)?)?)
    }

    /// Waits until the Service is given exactly these addresses.
    async fn holds(&self, namespace: &str, name: &str, addresses: &[&str]) -> Result<()> {
        eventually(&format!("{namespace}/{name} with {addresses:?}"), 15, || async {
            let held = annotated(&self.service(namespace, name)?);
            let held: Vec<_> = held.iter().map(IpAddr::to_string).collect();
            Ok((held == addresses).then_some(()))
        })
        .await
    }

    /// Waits until the status of the Service has so many addresses.
    async fn shown(&self, namespace: &str, name: &str, count: usize) -> Result<Vec<IpAddr>> {
        eventually(&format!("{count} addresses of {namespace}/{name}"), 20, || async {
            let addresses = ingress(&self.service(namespace, name)?);
            Ok((addresses.len() == count).then_some(addresses))
        })
        .await
    }

    /// Waits until the condition of the Service says that it waits for this reason.
    async fn waits(&self, namespace: &str, name: &str, reason: &str) -> Result<()> {
        eventually(&format!("{namespace}/{name} waiting: {reason}"), 15, || async {
            let get = ["get", "service", name, "--namespace", namespace, "-o", "json"];
            let service: Value = serde_json::from_str(&kubectl(&self.world.lab, &get)?)?;
            let conditions =
                service["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let says = |condition: &Value| {
                condition["type"] == "berth.dev/AddressAllocated"
                    && condition["status"] == "False"
                    && condition["reason"] == reason
            };
            Ok(conditions.iter().any(says).then_some(()))
        })
        .await
    }
}

/// The addresses for documentation (RFC 5737, RFC 3849) become addresses of the lab's LAN that nothing else uses.
fn on_the_lan(text: &str) -> String {
    text.replace("192.0.2.", "10.0.64.").replace("2001:db8::", "fd00:10::")
}
