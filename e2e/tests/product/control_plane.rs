//! The control plane's own address: three nodes, each with an API server of its own, which is a way to the one that there is.
//! Judged by a client, the interfaces of all nodes, and every frame on the LAN that claims the address.

mod members;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::Net;
use berth_e2e::api_proxy::{ApiProxy, Trouble};
use berth_e2e::disk::replace;
use berth_e2e::pauses;
use berth_e2e::place::sibling_program;
use berth_e2e::probe::{Manner, Probe};
use berth_e2e::wire::Asker;
use berth_e2e::world::{World, env, eventually, ingress, kubectl};
use kube::config::{AuthInfo, Kubeconfig};
use serde_json::json;

use crate::scene::{ASK, disputed};

const PORT: u16 = 6443;
const ADDRESSES: &str = "10.0.64.99,fd00:10::4063";
const EVERY: Duration = Duration::from_millis(20);

/// `vip_leaseduration`, and the retry of who waits for it.
const LEASE: Duration = Duration::from_secs(4);

/// Longer than it takes until all nodes have found out of their API servers and told each other, and one has moved it.
const PATIENCE: Duration = Duration::from_secs(7);

/// Set to `1`: what takes longer is tried as well.
const LONG: &str = "BERTH_CONTROL_PLANE";

fn is_long() -> bool {
    std::env::var_os(LONG).is_some_and(|value| value == "1")
}

/// An API server that is not ready, and does what it is asked for.
fn slow() -> Trouble {
    Trouble { is_unready: true, ..Trouble::default() }
}

/// One that hangs.
fn hangs() -> Trouble {
    Trouble { latency: Duration::from_secs(3600), ..Trouble::default() }
}

/// What `manifest rbac` has for it, and no more.
pub(crate) fn rights(world: &World) -> Result<()> {
    rights_for(world, &["--address", ADDRESSES])
}

/// The same for an address of its own, by another way.
pub(crate) fn rights_for(world: &World, more: &[&str]) -> Result<()> {
    let program = sibling_program("berth-announcer", "BERTH_ANNOUNCER")?;
    let asked = [&["manifest", "rbac", "--controlplane"], more].concat();
    let printed = Command::new(program).args(asked).env_clear().output()?;
    ensure!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let file = world.lab.dir().join("rights.yaml");
    std::fs::write(&file, printed.stdout)?;
    kubectl(&world.lab, &["apply", "-f", &file.display().to_string()]).map(drop)
}

/// An API server on each node: a way to the one that there is.
async fn servers(world: &World, nodes: usize) -> Result<Vec<ApiProxy>> {
    let mut servers = Vec::new();
    for node in 0..nodes {
        let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        servers.push(ApiProxy::start_in(&world.lab, &world.lab.node(node).place()?, at).await?);
    }
    Ok(servers)
}

struct Scene {
    world: World,
    servers: Vec<ApiProxy>,
    addresses: Vec<IpAddr>,
}

impl Scene {
    async fn up(nodes: usize) -> Result<Self> {
        let mut world = World::without_berth(nodes, env([])).await?;
        world.police()?;
        let servers = servers(&world, nodes).await?;
        rights(&world)?;
        for node in 0..nodes {
            let config = world.kubeconfig_of_pod("berth-control-plane", node).await?;
            let settings = env([
                ("KUBECONFIG", &config.display().to_string()),
                ("svc_enable", "false"),
                ("cp_enable", "true"),
                ("address", ADDRESSES),
                ("kubernetes_addr", "http://127.0.0.1:6443"),
                ("control_plane_health_check_failure_threshold", "2"),
                ("vip_leaseduration", "3"),
                ("vip_renewdeadline", "2"),
                ("vip_retryperiod", "1"),
            ]);
            world.start_announcer_with(node, settings).await?;
        }
        let addresses = ADDRESSES.split(',').map(str::parse).collect::<Result<Vec<IpAddr>, _>>()?;
        Ok(Self { world, servers, addresses })
    }

    /// The one node that has all addresses and answers.
    async fn owner(&self, not: Option<&str>, seconds: u64) -> Result<String> {
        let owner = eventually("one owner", seconds, || async {
            let mut owners = Vec::new();
            for address in &self.addresses {
                owners.extend(self.world.holders(*address)?);
            }
            owners.dedup();
            let [owner] = &owners[..] else { return Ok(None) };
            let is_other = not.is_none_or(|not| owner != not);
            Ok((is_other && self.is_answered()).then(|| owner.clone()))
        });
        owner.await.with_context(|| self.world.logs())
    }

    fn is_answered(&self) -> bool {
        let outside = self.world.lab.outside();
        self.addresses
            .iter()
            .filter(|address| address.is_ipv4())
            .all(|address| berth_e2e::world::curl_port(&outside, *address, PORT).is_ok())
    }

    fn server(&self, node: &str) -> Result<&ApiProxy> {
        Ok(&self.servers[self.world.index_of(node)?])
    }

    fn probe(&self) -> Result<Probe> {
        let target = SocketAddr::new(self.addresses[0], PORT);
        Probe::start(&self.world.lab.outside(), target, EVERY, Manner::NewConnections)
    }

    async fn stays_with(&self, node: &str, long: Duration) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < long {
            let owner = self.owner(None, 1).await?;
            ensure!(owner == node, "{owner} has it, and {node} had\n{}", self.world.logs());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Pins of a Service, which berth-ccm decides on.
    async fn a_tenant_asks_for_it(&mut self) -> Result<()> {
        self.world.start_ccm().await?;
        let wish = json!({
            "metadata": {
                "name": "wish", "namespace": "default",
                "annotations": { "kube-vip.io/loadbalancerIPs": ADDRESSES },
            },
            "spec": { "type": "LoadBalancer", "ports": [{ "port": PORT }] },
        });
        self.world.create(wish).await.map(drop)
    }

    async fn the_tenant_has_nothing(&self) -> Result<()> {
        let refused = eventually("the Service is told whose address it is", 10, || async {
            let service = self.world.service("wish").await?;
            ensure!(ingress(&service).is_empty(), "it has the control plane's address");
            let conditions = service.status.and_then(|status| status.conditions);
            let is_told =
                conditions.into_iter().flatten().any(|told| told.reason == "AddressReserved");
            Ok(is_told.then_some(()))
        });
        refused.await.with_context(|| self.world.logs())
    }

    /// What takes longer: `node` has it, and its server alone is ready.
    async fn goes_on(&self, node: String) -> Result<()> {
        self.servers.iter().for_each(|server| server.make(Trouble::default()));
        self.stays_with(&node, PATIENCE).await.context("somebody preempts")?;

        // The others hang, and the last that they could say is that they are healthy: nobody is to have it for that.
        let probe = self.probe()?;
        let names = self.world.lab.nodes().iter().map(|node| node.name());
        for other in names.filter(|other| *other != node) {
            self.server(other)?.make(hangs());
        }
        self.server(&node)?.make(slow());
        self.stays_with(&node, 2 * PATIENCE).await.context("it yields to one that hangs")?;
        let report = probe.finish()?;
        report.answered_within(Duration::from_millis(500)).with_context(|| self.world.logs())?;
        self.servers.iter().for_each(|server| server.make(Trouble::default()));
        self.stays_with(&node, PATIENCE).await.context("it moves when all are back")?;

        // It is not ready, and lives: another one that is takes it over by its word.
        let probe = self.probe()?;
        let begun = Instant::now();
        self.server(&node)?.make(slow());
        let second = self.owner(Some(&node), 2 * PATIENCE.as_secs()).await?;
        println!("not ready: moved after {:.1?}", begun.elapsed());
        let report = probe.finish()?;
        println!("not ready: away for {:.0?} at most, {} answers", report.longest_gap, report.ok);
        report.answered_within(Duration::from_secs(1)).with_context(|| self.world.logs())?;

        // It hangs: its Lease runs out.
        let probe = self.probe()?;
        let begun = Instant::now();
        self.server(&second)?.make(hangs());
        let third = self.owner(Some(&second), 15).await?;
        println!("hangs: moved after {:.1?}", begun.elapsed());
        let report = probe.finish()?;
        println!("hangs: away for {:.0?} at most", report.longest_gap);
        let limit = LEASE + Duration::from_secs(1);
        pauses::within("a server that hangs: answered after", report.longest_gap, limit, begun)
            .with_context(|| self.world.logs())?;
        self.servers.iter().for_each(|server| server.make(Trouble::default()));
        self.stays_with(&third, 2 * PATIENCE).await?;

        // Its announcer ends.
        let probe = self.probe()?;
        self.world.announcer(&third)?.terminate(Duration::from_secs(10))?;
        self.owner(Some(&third), 10).await?;
        let report = probe.finish()?;
        println!("SIGTERM: away for {:.0?} at most", report.longest_gap);
        report.answered_within(Duration::from_secs(1)).with_context(|| self.world.logs())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_planes_address_goes_by_the_health_of_the_own_api_server() -> Result<()> {
    let mut scene = Scene::up(3).await?;
    let first = scene.owner(None, 20).await?;
    let (start, wire) = (Instant::now(), scene.world.lab.watch()?);
    let client = scene.world.lab.outside();
    let ask = |address: &IpAddr| Asker::start(&client, *address, ASK);
    let askers = scene.addresses.iter().map(ask).collect::<Result<Vec<_>>>()?;
    scene.a_tenant_asks_for_it().await?;

    // None is ready: who has it keeps it.
    let probe = scene.probe()?;
    scene.servers.iter().for_each(|server| server.make(slow()));
    scene.stays_with(&first, PATIENCE).await.context("it hops")?;
    let report = probe.finish()?;
    report.answered_within(Duration::from_millis(500)).with_context(|| scene.world.logs())?;
    scene.the_tenant_has_nothing().await?;

    // Another one's is, and says so: to that it goes.
    let names = scene.world.lab.nodes().iter().map(|node| node.name().to_owned());
    let second = names.clone().find(|node| *node != first).context("a second node")?;
    let probe = scene.probe()?;
    let begun = Instant::now();
    scene.server(&second)?.make(Trouble::default());
    let owner = scene.owner(Some(&first), 10).await?;
    ensure!(owner == second, "{owner} has it, whose server is not ready\n{}", scene.world.logs());
    println!("another is ready: moved after {:.1?}", begun.elapsed());
    let report = probe.finish()?;
    println!("another is ready: away for {:.0?} at most", report.longest_gap);
    report.answered_within(Duration::from_secs(1)).with_context(|| scene.world.logs())?;

    if is_long() {
        scene.goes_on(second).await?;
    }
    askers.into_iter().try_for_each(Asker::finish)?;
    let record = wire.finish()?;
    for address in &scene.addresses {
        ensure!(
            !disputed(&record.since(*address, start)),
            "{address}: two answer\n{}",
            scene.world.logs()
        );
    }
    scene.world.lab.down()
}

/// On the first node `admin.conf` has no rights before `kubeadm init` has given it some, and names the address that nobody has yet.
#[tokio::test(flavor = "multi_thread")]
async fn before_admin_conf_has_rights_the_other_one_is_used_and_the_own_server_is_asked_by_its_name()
-> Result<()> {
    let world = World::without_berth(1, env([])).await?;
    let place = world.lab.control_plane();
    let folder = place.dir.join("kubernetes");
    std::fs::create_dir_all(&folder)?;
    let address: IpAddr = Net::Api.host(0x4063).v4.into();
    let write = |name: &str, is_known: bool| -> Result<()> {
        let mut admin = Kubeconfig::read_from(world.lab.kubeconfig())?;
        let cluster = admin.clusters[0].cluster.as_mut().context("a cluster")?;
        cluster.server = Some(format!("https://{address}:{PORT}"));
        if !is_known {
            let token = Some("nobody".to_owned().into());
            admin.auth_infos[0].auth_info = Some(AuthInfo { token, ..AuthInfo::default() });
        }
        replace(&folder.join(name), serde_json::to_string(&admin)?)
    };
    write("admin.conf", false)?;
    let settings = env([
        ("cp_enable", "true"),
        ("address", &address.to_string()),
        ("vip_interface", Net::Api.interface()),
        ("vip_nodename", "control"),
        ("k8s_config_file", &folder.join("admin.conf").display().to_string()),
        ("vip_leaseduration", "3"),
        ("vip_renewdeadline", "2"),
        ("vip_retryperiod", "1"),
    ]);
    let program = sibling_program("berth-announcer", "BERTH_ANNOUNCER")?;
    let argv = [program.display().to_string(), "manager".to_owned()];
    let process = place.start_with("berth-control-plane", argv, settings)?;
    let client = world.lab.node(0).place()?;
    let reached = || {
        let target = SocketAddr::new(address, PORT);
        client.in_network(|| TcpStream::connect_timeout(&target, Duration::from_secs(1)).is_ok())
    };
    let says = async |word: &str| {
        let said = || async { Ok(process.log_text().contains(word).then_some(())) };
        eventually(word, 15, said).await.with_context(|| process.log_text())
    };
    says("Unauthorized").await?;
    ensure!(!reached()?, "it has no rights");
    write("super-admin.conf", true)?;
    says("going by super-admin.conf until it may").await?;
    let answered = eventually("it is answered", 20, || async { Ok(reached()?.then_some(())) });
    answered.await.with_context(|| process.log_text())?;
    says(&format!("certificate of this node's API server does not have {address}")).await?;
    write("admin.conf", true)?;
    says("going by it from now on").await?;
    std::fs::remove_file(folder.join("super-admin.conf"))?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(reached()? && process.is_alive(), "{}", process.log_text());
    process.terminate(Duration::from_secs(10))?;
    ensure!(!reached()?, "it leaves nothing");
    world.lab.down()
}
