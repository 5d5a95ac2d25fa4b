//! A cluster that kubeadm makes of machines, at an address that Berth's static pod keeps.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use berth_e2e::addresses::{Mac, Net, mac, node_host};
use berth_e2e::lab::{Lab, Spec};
use berth_e2e::place::sibling_program;
use berth_e2e::real_node::machine::{Machine, for_kubeadm};
use berth_e2e::world::{addresses_of, eventually};
use serde_json::{Value, json};

/// As `kubeadm init` and `kubeadm join` are given it.
pub(crate) const ADDRESSES: &str = "10.0.64.99,fd00:10::4063";
pub(crate) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 64, 99));
/// Of the API servers.
pub(crate) const PORT: u16 = 6443;

const TOKEN: &str = "abcdef.0123456789abcdef";
const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Where the Pod belongs, of `/etc/kubernetes`.
const MANIFEST: &str = "kubernetes/manifests/berth-control-plane.yaml";

pub(crate) struct Scene {
    pub(crate) lab: Lab,
    /// The one Pod for all machines.
    pod: String,
    /// What goes with it for kubeadm.
    cluster: String,
    /// The port by which everybody comes to the address.
    endpoint: AtomicU16,
}

/// What was seen of a machine while kubeadm made a node of it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// When its own API server first said that it is ready.
    pub(crate) ready: Option<Instant>,
    /// When it first had the address.
    pub(crate) bound: Option<Instant>,
}

impl Scene {
    /// `machines` that are no nodes yet. Everybody is to come by the port `endpoint` of the address.
    pub(crate) async fn up(machines: usize, endpoint: u16) -> Result<Self> {
        let lab = Lab::up(Spec::machines(machines)).await?;
        let flags = "--interface eth0 --leaseDuration 5 --leaseRenewDuration 3 --leaseRetry 1";
        let program = sibling_program("berth-announcer", "BERTH_ANNOUNCER")?;
        let mut command = Command::new(program);
        command.args(["manifest", "kubeadm", "--address", ADDRESSES]).args(flags.split(' '));
        let printed = command.env_clear().output()?;
        ensure!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        let text = String::from_utf8(printed.stdout)?;
        let (pod, cluster) = text.split_once("\n---\n").context("two documents")?;
        let ours = format!("controlPlaneEndpoint: {ADDRESS}:{PORT}");
        ensure!(cluster.contains(&ours), "{cluster}");
        let cluster =
            cluster.replace(&ours, &format!("controlPlaneEndpoint: {ADDRESS}:{endpoint}"));
        Ok(Self { pod: format!("{pod}\n"), cluster, endpoint: endpoint.into(), lab })
    }

    /// From now on everybody comes by this port.
    pub(crate) fn goes_by(&self, port: u16) {
        self.endpoint.store(port, Ordering::Relaxed);
    }

    fn target(&self) -> SocketAddr {
        SocketAddr::new(ADDRESS, self.endpoint.load(Ordering::Relaxed))
    }

    pub(crate) fn machine(&self, i: usize) -> Machine<'_> {
        Machine(self.lab.node(i))
    }

    /// The Pod, before kubeadm is run: as the page has it.
    pub(crate) fn place_pod(&self, i: usize) -> Result<()> {
        fs::write(self.machine(i).file(MANIFEST)?, &self.pod).context("write the Pod")
    }

    /// The Pod away; it has ended when this returns.
    pub(crate) async fn take_pod(&self, i: usize) -> Result<()> {
        fs::remove_file(self.machine(i).file(MANIFEST)?).context("remove the Pod")?;
        eventually("the announcer has ended", 60, || async {
            let found = self.machine(i).output(["pgrep", "--full", "berth-announcer manager"])?;
            Ok((!found.status.success()).then_some(()))
        })
        .await
    }

    /// `kubeadm init` on machine 0.
    pub(crate) fn init(&self) -> Result<Seen> {
        let (release, others) = for_kubeadm()?;
        let first = json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "InitConfiguration",
            "bootstrapTokens": [{"token": TOKEN}],
            "certificateKey": KEY,
            "nodeRegistration": registration(),
            // No image of it is here, and nothing asks for a name.
            "skipPhases": ["addon/coredns"],
        });
        let mut documents = vec![first.to_string(), format!("{}{release}", self.cluster)];
        documents.extend(others.iter().map(Value::to_string));
        self.run(0, &documents, &["init", "--upload-certs"])
    }

    /// `kubeadm join` on another machine, by the address, into the control plane.
    pub(crate) fn join(&self, i: usize) -> Result<Seen> {
        self.join_with(i, &json!({ "controlPlane": {"certificateKey": KEY} }))
    }

    /// The same as a worker, whose kubelet knows the address alone.
    pub(crate) fn join_as_worker(&self, i: usize) -> Result<Seen> {
        self.join_with(i, &json!({}))
    }

    fn join_with(&self, i: usize, more: &Value) -> Result<Seen> {
        let mut wish = json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "JoinConfiguration",
            "discovery": {"bootstrapToken": {
                "apiServerEndpoint": self.target().to_string(),
                "token": TOKEN, "unsafeSkipCAVerification": true,
            }},
            "nodeRegistration": registration(),
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            wish[key] = value.clone();
        }
        self.run(i, &[wish.to_string()], &["join"])
    }

    /// Takes a machine out of the cluster, as the page says: the address first, then kubeadm, then the Node.
    pub(crate) fn reset(&self, i: usize, by: usize) -> Result<()> {
        let machine = self.machine(i);
        let own = machine.file("bin/berth-announcer")?;
        fs::copy(sibling_program("berth-announcer", "BERTH_ANNOUNCER")?, own)?;
        machine.exec(["berth-announcer", "kubeadm", "reset"])?;
        machine.exec(["kubeadm", "reset", "--force"])?;
        self.kubectl(by, &["delete", "node", self.lab.node(i).name()]).map(drop)
    }

    fn run(&self, i: usize, documents: &[String], command: &[&str]) -> Result<Seen> {
        let machine = self.machine(i);
        fs::write(machine.file("kubernetes/kubeadm.yaml")?, documents.join("\n---\n"))?;
        let argv = ["kubeadm"].iter().chain(command);
        let argv = argv.chain(["--config=/etc/kubernetes/kubeadm.yaml"].iter());
        let (ended, begun) = (AtomicBool::new(false), Instant::now());
        std::thread::scope(|scope| {
            let seen = scope.spawn(|| self.see(i, &ended));
            let output = machine.output(argv);
            ended.store(true, Ordering::Relaxed);
            let seen = seen.join().unwrap_or_else(|_| bail!("a thread panicked"));
            let output = output?;
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            let log =
                self.lab.dir().log(&format!("{}.kubeadm-{}", self.lab.node(i).name(), command[0]));
            fs::write(log, &text)?;
            ensure!(output.status.success(), "kubeadm {command:?}:\n{text}\n{}", self.logs());
            println!("kubeadm {} on machine {i}: {:.1?}", command[0], begun.elapsed());
            seen
        })
    }

    /// Looks at a machine until `ended`: at its addresses first, so that one it has before its API server is ready is seen.
    fn see(&self, i: usize, ended: &AtomicBool) -> Result<Seen> {
        let mut seen = Seen::default();
        while !ended.load(Ordering::Relaxed) {
            if seen.bound.is_none() && self.has(i)? {
                seen.bound = Some(Instant::now());
            }
            if seen.ready.is_none() && self.is_ready(i)? {
                seen.ready = Some(Instant::now());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(seen)
    }

    /// Whether a machine has the address.
    fn has(&self, i: usize) -> Result<bool> {
        Ok(addresses_of(self.lab.node(i))?.contains(&ADDRESS))
    }

    /// Whether a machine's own API server is ready, as anybody may ask.
    pub(crate) fn is_ready(&self, i: usize) -> Result<bool> {
        let url = format!("https://127.0.0.1:{PORT}/readyz");
        let ask = ["curl", "--insecure", "--silent", "--fail", "--max-time", "2", &url];
        Ok(self.lab.node(i).place()?.output(ask)?.status.success())
    }

    /// kubectl on the client, by the `admin.conf` of a machine, which knows the address alone.
    pub(crate) fn kubectl(&self, of: usize, arguments: &[&str]) -> Result<String> {
        let config = self.machine(of).file("kubernetes/admin.conf")?;
        let text = fs::read_to_string(&config).context("admin.conf")?;
        let server = format!("server: https://{}", self.target());
        ensure!(text.contains(&server), "admin.conf does not go by the address:\n{text}");
        let program = self.lab.programs().join("kubectl").display().to_string();
        let config = format!("--kubeconfig={}", config.display());
        let argv = [program.as_str(), &config, "--request-timeout=5s"];
        self.lab.outside().exec(argv.iter().chain(arguments))
    }

    /// The one machine among `machines` that has the address, and answers.
    pub(crate) async fn owner(&self, machines: &[usize], seconds: u64) -> Result<usize> {
        let owner = eventually("one owner", seconds, || async {
            let mut owners = Vec::new();
            for i in machines {
                if self.has(*i)? {
                    owners.push(*i);
                }
            }
            let is_answered = self.lab.outside().in_network(|| connects(self.target()))?;
            Ok(owners.first().copied().filter(|_| owners.len() == 1 && is_answered))
        });
        owner.await.with_context(|| self.logs())
    }

    /// All `nodes` are there and Ready, by the address.
    pub(crate) async fn ready(&self, nodes: &[usize], seconds: u64) -> Result<()> {
        let wanted: BTreeSet<_> = nodes.iter().map(|i| self.lab.node(*i).name()).collect();
        let ready = eventually("all nodes are Ready", seconds, || async {
            let list = self.kubectl(nodes[0], &["get", "nodes", "--output=json"])?;
            let list: Value = serde_json::from_str(&list)?;
            let all = list["items"].as_array().context("no items")?;
            let ready = all.iter().filter(|node| {
                let conditions = node["status"]["conditions"].as_array();
                conditions
                    .into_iter()
                    .flatten()
                    .any(|c| c["type"] == "Ready" && c["status"] == "True")
            });
            let ready: BTreeSet<_> =
                ready.filter_map(|node| node["metadata"]["name"].as_str()).collect();
            Ok(ready.is_superset(&wanted).then_some(()))
        });
        ready.await.with_context(|| self.logs())
    }

    /// The announcers of `machines` say that nothing is missing.
    pub(crate) async fn settled(&self, machines: &[usize], seconds: u64) -> Result<()> {
        for i in machines {
            let what = format!("the announcer of machine {i} is ready");
            let ready = eventually(&what, seconds, || async {
                let ask = ["curl", "-sS", "--fail-with-body", "--max-time", "2", READYZ];
                self.lab.node(*i).exec(ask).map(Some)
            });
            ready.await.with_context(|| self.logs())?;
        }
        Ok(())
    }

    /// The announcer of a machine has said this.
    pub(crate) async fn says(&self, i: usize, word: &str, seconds: u64) -> Result<()> {
        let says = eventually(word, seconds, || async {
            let said = self.machine(i).log_of("berth-control-plane")?;
            Ok(said.contains(word).then_some(()))
        });
        says.await.with_context(|| self.logs())
    }

    /// The announcer of a machine has begun, whatever it waits for.
    pub(crate) async fn runs(&self, i: usize, seconds: u64) -> Result<()> {
        let runs = eventually("the announcer runs", seconds, || async {
            let ask = ["curl", "-sS", "--max-time", "2", READYZ];
            self.lab.node(i).exec(ask).map(Some)
        });
        runs.await.map(drop).with_context(|| self.logs())
    }

    /// Machines that lose their power, all at the same time, and come back all at the same time.
    pub(crate) fn power_cycle(&self, machines: &[usize]) -> Result<()> {
        machines.iter().try_for_each(|i| self.lab.crash(*i))?;
        std::thread::scope(|scope| {
            let boot = |i: usize| self.lab.reboot(i, berth_e2e::fault::Leftovers::Flush);
            let booting: Vec<_> = machines.iter().map(|i| scope.spawn(move || boot(*i))).collect();
            booting
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
        })
    }

    pub(crate) fn logs(&self) -> String {
        let log = |i: usize| {
            let said = self.machine(i).log_of("berth-control-plane").unwrap_or_default();
            let lines: Vec<_> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(30)..];
            format!("--- announcer of machine {i}\n{}", last.join("\n"))
        };
        (0..self.lab.nodes().len()).map(log).collect::<Vec<_>>().join("\n")
    }
}

/// The announcer's own, of a static pod.
const READYZ: &str = "http://127.0.0.1:2115/readyz";

/// Warnings about the host, which is what it is.
fn registration() -> Value {
    json!({ "ignorePreflightErrors": ["all"], "imagePullPolicy": "Never" })
}

fn connects(target: SocketAddr) -> bool {
    TcpStream::connect_timeout(&target, Duration::from_secs(1)).is_ok()
}

/// The hardware address of a machine on the LAN.
pub(crate) fn mac_of(i: usize) -> Mac {
    mac(Net::Lan, node_host(i))
}
