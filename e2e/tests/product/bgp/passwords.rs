//! Passwords in Secrets, which the manifests let nobody read, and a router that connects to the node: who is let in, and that
//! nothing of a password is anywhere to be found.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::router;
use berth_e2e::bird::{Bird, protocol};
use berth_e2e::world::{World, eventually, kubectl};
use serde_json::json;

use super::{PASSWORD, POOL, SOON, by_bgp, configure};

/// Another one, after that.
const LATER: &str = "battery-staple";

/// That of the router that connects.
const OPENS: &str = "hunter2-hunter2";

const ROLE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: berth-bgp-passwords, namespace: kube-system }
rules: [{ apiGroups: [\"\"], resources: [secrets], resourceNames: [tor], verbs: [get] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: berth-bgp-passwords, namespace: kube-system }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: berth-bgp-passwords }
subjects: [{ kind: ServiceAccount, name: berth-announcer, namespace: kube-system }]
";

/// A router by IPv4, to which both nodes connect, and by IPv6, which connects to one of them.
fn document() -> String {
    format!(
        "
listen: {{port: 1790, addresses: [\"fd00:10::/64\"]}}
peers:
- {{name: tor, address: {}, asn: 65001, password: {{secret: tor, key: tor}}}}
- name: opens
  address: \"{}\"
  asn: 65001
  connect: passive
  families: [ipv4, ipv6]
  password: {{secret: tor, key: opens}}
  nodes: {{matchLabels: {{rack: a}}}}
",
        router().v4,
        router().v6
    )
}

/// A session that the router opens, to the port of a node.
fn opening(to: std::net::Ipv6Addr) -> String {
    format!(
        "protocol bgp opens {{ local {} as 65001; neighbor {to} port 1790 as 65000; password \"{OPENS}\"; \
         connect delay time 1; connect retry time 2; error wait time 1, 2; \
         ipv4 {{ import all; export none; }}; ipv6 {{ import all; export none; }}; }}\n",
        router().v6
    )
}

/// Waits until `/readyz` of a node says this.
async fn ready_says(world: &World, node: usize, text: &str) -> Result<()> {
    eventually(&format!("{text:?} in /readyz"), 20, || async {
        Ok(asked(world, node, "/readyz")?.contains(text).then_some(()))
    })
    .await
    .with_context(|| asked(world, node, "/readyz").unwrap_or_default())
}

fn asked(world: &World, node: usize, path: &str) -> Result<String> {
    world.lab.node(node).exec(["curl", "-s", &format!("http://127.0.0.1:2112{path}")])
}

/// Waits until these protocols of the router are up, and all others down.
async fn up(bird: &Bird, protocols: &[&str], within: u64) -> Result<()> {
    let is_up = |line: &str| line.contains("Established");
    eventually(&format!("{protocols:?} and no other is up"), within, || async {
        let said = bird.says("show protocols")?;
        let up = said.lines().filter(|line| line.contains(" BGP ") && is_up(line));
        let mut up: Vec<&str> = up.filter_map(|line| line.split_whitespace().next()).collect();
        up.sort_unstable();
        Ok((up == protocols).then_some(()))
    })
    .await
    .with_context(|| {
        format!("{}\n{}", bird.says("show protocols all").unwrap_or_default(), bird.log())
    })
}

/// The ports that a node listens at for BGP, as `ss` has them.
fn listening(world: &World, node: usize) -> Result<String> {
    world.lab.node(node).exec(["ss", "-Hltn", "sport = :1790 or sport = :179"])
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_come_from_secrets_and_are_followed_and_only_peers_are_let_in() -> Result<()> {
    let world = World::up(2, by_bgp("")).await?;
    world.pools(json!({ "range-global": POOL })).await?;
    let names: Vec<String> = world.lab.nodes().iter().map(|node| node.name().to_owned()).collect();
    let own = world.lab.node(0).addresses().lan;
    configure(&world, &document()).await?;
    let bird = Bird::start_with(
        &world.lab,
        65000,
        &format!("password \"{PASSWORD}\";"),
        &opening(own.v6),
    )?;
    world.expose("web", json!({})).await?;
    for node in 0..2 {
        ready_says(&world, node, "no permission to get Secret kube-system/tor").await?;
        ready_says(&world, node, "resourceNames [tor]").await?;
        ensure!(listening(&world, node)?.is_empty(), "no peer connects to it");
    }
    kubectl(&world.lab, &["label", "node", &names[0], "rack=a"])?;

    let file = world.lab.dir().join("role.yaml");
    std::fs::write(&file, ROLE)?;
    kubectl(&world.lab, &["apply", "-f", &file.display().to_string()])?;
    ready_says(&world, 1, "there is no Secret kube-system/tor").await?;
    let literal = |key: &str, text: &str| format!("--from-literal={key}={text}");
    let (tor, opens) = (literal("tor", PASSWORD), literal("opens", OPENS));
    let secret = |texts: &[&str]| {
        let all =
            [&["-n", "kube-system", "create", "secret", "generic", "tor"][..], texts].concat();
        kubectl(&world.lab, &all)
    };
    secret(&[&tor, &opens])?;
    let (a, b) = (protocol(&names[0]), protocol(&names[1]));
    let mut all = [a.as_str(), b.as_str(), "opens"];
    all.sort_unstable();
    up(&bird, &all, 20).await?;
    let address = world.published("web", 1).await?[0];
    eventually("a way by each session", SOON, || async {
        Ok((bird.knows(address)?.len() == 3).then_some(()))
    })
    .await?;

    // One node has a port, at one address, and hangs up on whoever is no peer before that says anything.
    let open = listening(&world, 0)?;
    ensure!(open.lines().count() == 1 && open.contains(&format!("[{}]:1790", own.v6)), "{open}");
    ensure!(listening(&world, 1)?.is_empty(), "{}", listening(&world, 1)?);
    let connect = format!(
        "import socket; s = socket.create_connection(('{}', 1790), 5); s.settimeout(5); print(len(s.recv(9)))",
        own.v6
    );
    for _ in 0..20 {
        ensure!(world.lab.outside().exec(["python3", "-c", &connect])?.trim() == "0");
    }
    let held = world.lab.node(0).exec(["ss", "-Htn", "sport = :1790"])?;
    ensure!(held.lines().count() <= 1, "strangers hold nothing: {held}");

    // Both sides exchange it: first the router, whose sessions are lost, then the Secret.
    bird.exchange(PASSWORD, LATER)?;
    up(&bird, &["opens"], 30).await?;
    kubectl(&world.lab, &["-n", "kube-system", "delete", "secret", "tor"])?;
    secret(&[&literal("tor", LATER), &opens])?;
    up(&bird, &all, 45).await.with_context(|| world.logs())?;

    // What all of it has printed.
    let events = kubectl(&world.lab, &["get", "events", "--all-namespaces", "-o", "yaml"])?;
    let services = kubectl(&world.lab, &["get", "services", "-o", "yaml"])?;
    let mut said = vec![events, services];
    for (node, name) in names.iter().take(2).enumerate() {
        let process = world.announcer(name)?;
        process.signal(nix::sys::signal::Signal::SIGUSR1)?;
        let dumped = || async { Ok(process.log_text().contains("SIGUSR1").then_some(())) };
        eventually("the dump", 5, dumped).await?;
        said.push(process.log_text());
        for path in ["/metrics", "/debug/vips", "/debug/bgp", "/readyz"] {
            said.push(asked(&world, node, path)?);
        }
    }
    let said = said.concat();
    ensure!(said.contains("bgp_session_up"), "it was asked: {said}");
    for text in [PASSWORD, LATER, OPENS, "Y29ycmVjdC1ob3JzZQ", "YmF0dGVyeS1zdGFwbGU", "aHVudGVyMi"]
    {
        ensure!(!said.contains(text), "{text} is to be found");
    }
    // The port goes with the last that asks for it.
    configure(&world, &document().replace("connect: passive", "connect: active")).await?;
    let closed = || async { Ok(listening(&world, 0)?.is_empty().then_some(())) };
    eventually("no port", 10, closed).await?;
    world.announcer(&names[0])?.terminate(Duration::from_secs(10))?;
    world.lab.down()
}
