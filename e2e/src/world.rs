//! A lab with Berth running in it, and what tests ask of it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::networking::v1::IPAddress;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::apply;
use crate::control_plane::url_for_nodes;
use crate::disk::replace;
use crate::get::get;
use crate::lab::{Lab, Spec};
use crate::node::{Node, ProxyMode};
use crate::place::{Place, sibling_program};
use crate::process::Process;
use crate::tokens;

/// The annotation with a Service's addresses.
pub const ADDRESSES: &str = "kube-vip.io/loadbalancerIPs";
/// The annotation with the node that holds them.
pub const HOST: &str = "kube-vip.io/vipHost";

/// Addresses of the lab's LAN that nothing else uses.
pub const POOL: &str = "10.0.64.1-10.0.64.250,fd00:10::4001-fd00:10::40fa";

/// What `manifests/` have of the rights of both programs.
const RIGHTS: [&str; 2] = ["ccm-rbac.yaml", "announcer-rbac.yaml"];
/// What they have beside the programs.
const FILES: [&str; 4] = ["eipbinding-crd.yaml", "eipbinding-rbac.yaml", RIGHTS[0], RIGHTS[1]];

/// The environment of the announcers.
pub type Env = BTreeMap<String, String>;

/// Environment from pairs.
pub fn env<const N: usize>(pairs: [(&str, &str); N]) -> Env {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// One Lease for all Services, with the timing of kube-vip's own manifests: a lost owner is replaced within some 5 s.
pub fn by_lease() -> Env {
    env([
        ("vip_leaderelection", "true"),
        ("vip_leaseduration", "5"),
        ("vip_renewdeadline", "3"),
        ("vip_retryperiod", "1"),
    ])
}

/// A lab of bare nodes with the CCM on the control plane and an announcer on each node.
pub struct World {
    /// The lab.
    pub lab: Lab,
    /// A client with all rights.
    pub client: Client,
    announcer_env: Env,
    starts: usize,
    ccm: Option<Process>,
    announcers: BTreeMap<String, Process>,
    programs: Option<PathBuf>,
    is_policed: bool,
}

/// Set to `1`: every world is held by `overlays/policies`.
const POLICIES_VARIABLE: &str = "BERTH_POLICIES";

impl World {
    /// `nodes` bare nodes with an announcer each, the pool [`POOL`], and both programs running. The pods of the echo
    /// Deployment `hello` are on one node more, so that a test which takes an owner away takes no pod with it.
    pub async fn up(nodes: usize, announcer_env: Env) -> Result<Self> {
        Self::up_with(ProxyMode::default(), nodes, announcer_env).await
    }

    /// The same with kube-proxy in this mode.
    pub async fn up_with(proxy: ProxyMode, nodes: usize, announcer_env: Env) -> Result<Self> {
        let spec = Spec { proxy_mode: proxy, ..Spec::bare(nodes + 1) };
        let mut world = Self::of_manifests(spec, announcer_env, &FILES).await?;
        world.pools(json!({ "range-global": POOL })).await?;
        world.start_ccm().await?;
        for node in 0..nodes {
            world.start_announcer(node).await?;
        }
        world.deploy("default", "hello", 2)?;
        Ok(world)
    }

    /// The same lab with the RBAC of `manifests/` and nothing else.
    pub async fn without_berth(nodes: usize, announcer_env: Env) -> Result<Self> {
        Self::of_manifests(Spec::bare(nodes), announcer_env, &FILES).await
    }

    /// The same lab with the RBAC alone. An API server takes half a minute to forget a resource that is new.
    pub async fn without_eip_bindings(nodes: usize, announcer_env: Env) -> Result<Self> {
        Self::of_manifests(Spec::bare(nodes), announcer_env, &RIGHTS).await
    }

    async fn of_manifests(spec: Spec, announcer_env: Env, files: &[&str]) -> Result<Self> {
        let lab = Lab::up(spec).await?;
        let client = lab.client();
        let is_per_service = announcer_env.get("svc_election").is_some_and(|set| set == "true");
        let files = files.iter().map(|file| format!("manifests/{file}"));
        let files =
            files.chain(is_per_service.then(|| "overlays/svc-election/rbac.yaml".to_owned()));
        let read = |file| std::fs::read_to_string(repository().join(file));
        let all: Vec<_> = files.map(read).collect::<Result<_, _>>()?;
        apply::create(&client, &all.join("\n---\n"), "kube-system").await?;
        let (ccm, announcers, programs) = (None, BTreeMap::new(), None);
        let (starts, is_policed) = (0, false);
        let mut world =
            Self { lab, client, announcer_env, starts, ccm, announcers, programs, is_policed };
        if std::env::var_os(POLICIES_VARIABLE).is_some_and(|value| value == "1") {
            world.police()?;
        }
        Ok(world)
    }

    /// Applies `overlays/policies`. What starts from now on has a token of a pod on its node, as a kubelet gives it.
    pub fn police(&mut self) -> Result<()> {
        self.is_policed = true;
        let overlay = repository().join("overlays/policies").display().to_string();
        kubectl(&self.lab, &["apply", "-k", &overlay]).map(drop)
    }

    /// What starts from now on are the programs of this folder; of this build where there is none.
    pub fn use_programs_of(&mut self, folder: Option<&Path>) {
        self.programs = folder.map(Path::to_owned);
    }

    fn program(&self, name: &str, variable: &str) -> Result<PathBuf> {
        match &self.programs {
            Some(folder) => Ok(folder.join(name)),
            None => sibling_program(name, variable),
        }
    }

    /// Replaces the data of the pools' ConfigMap.
    pub async fn pools(&self, data: Value) -> Result<()> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), "kube-system");
        let object =
            serde_json::from_value(json!({ "metadata": { "name": "kubevip" }, "data": data }))?;
        match api.get_opt("kubevip").await? {
            None => api.create(&PostParams::default(), &object).await?,
            Some(_) => api.replace("kubevip", &PostParams::default(), &object).await?,
        };
        Ok(())
    }

    /// Starts berth-ccm with the rights of its ServiceAccount.
    pub async fn start_ccm(&mut self) -> Result<&Process> {
        let config = self.kubeconfig_on("berth-ccm", 0).await?;
        let process = self.run_ccm(&config, &[])?;
        Ok(self.ccm.insert(process))
    }

    /// Starts one more berth-ccm beside those that run, with more arguments. `server` is how it reaches the API server.
    pub async fn start_another_ccm(&mut self, server: &str, arguments: &[&str]) -> Result<Process> {
        let text = std::fs::read_to_string(self.kubeconfig_on("berth-ccm", 0).await?)?;
        let name = format!("berth-ccm-through-{}.kubeconfig", server.replace(['/', ':', '.'], "-"));
        let config = self.lab.dir().join(name);
        // Others that read it may be starting right now.
        replace(&config, text.replace(&url_for_nodes(), server))?;
        // One port for each, of the kernel's choice.
        self.run_ccm(&config, &[&["--http-address=127.0.0.1:0"], arguments].concat())
    }

    fn run_ccm(&mut self, config: &Path, arguments: &[&str]) -> Result<Process> {
        let program = self.program("berth-ccm", "BERTH_CCM")?.display().to_string();
        let config = format!("--kubeconfig={}", config.display());
        let name = self.unused("berth-ccm");
        let argv =
            [&program, &config].map(String::as_str).into_iter().chain(arguments.iter().copied());
        self.lab.control_plane().start(&name, argv)
    }

    /// The CCM that was started last.
    pub fn ccm(&self) -> Result<&Process> {
        self.ccm.as_ref().context("no CCM was started")
    }

    /// Starts an announcer on one node with the rights of its ServiceAccount.
    pub async fn start_announcer(&mut self, node: usize) -> Result<&Process> {
        let extra = self.announcer_env.clone();
        self.start_announcer_with(node, extra).await
    }

    /// The same with other environment.
    pub async fn start_announcer_with(&mut self, node: usize, extra: Env) -> Result<&Process> {
        let config = self.kubeconfig_on("berth-announcer", node).await?;
        let program = self.program("berth-announcer", "BERTH_ANNOUNCER")?;
        let host = self.lab.node(node).name().to_owned();
        let mut variables = env([
            ("vip_arp", "true"),
            ("svc_enable", "true"),
            ("vip_interface", "eth0"),
            ("vip_nodename", host.as_str()),
        ]);
        variables.insert("KUBECONFIG".to_owned(), config.display().to_string());
        variables.extend(extra);
        let name = self.unused("berth-announcer");
        let argv = [program.display().to_string(), "manager".to_owned()];
        let process = self.lab.node(node).place()?.start_with(&name, argv, variables)?;
        self.announcers.insert(host.clone(), process);
        self.announcer(&host)
    }

    /// The announcer that was started last on a node.
    pub fn announcer(&self, node: &str) -> Result<&Process> {
        self.announcers.get(node).with_context(|| format!("no announcer was started on {node}"))
    }

    /// Every announcer, by node.
    pub fn announcers(&self) -> impl Iterator<Item = (&str, &Process)> {
        self.announcers.iter().map(|(node, process)| (node.as_str(), process))
    }

    /// A Deployment of the echo server on the last node, its pods Ready.
    pub fn deploy(&self, namespace: &str, name: &str, replicas: usize) -> Result<()> {
        let last = self.lab.nodes().last().map(Node::name);
        deploy(&self.lab, namespace, name, replicas, last)
    }

    /// Creates a Service of type LoadBalancer in front of the Deployment `hello`; `spec` is merged in.
    pub async fn expose(&self, name: &str, spec: Value) -> Result<Service> {
        let mut object = json!({
            "metadata": { "name": name },
            "spec": {
                "type": "LoadBalancer",
                "selector": { "app": "hello" },
                "ports": [{ "port": 80, "targetPort": 8080 }],
            },
        });
        merge(&mut object, json!({ "spec": spec }));
        self.create(object).await
    }

    /// Creates a Service from its JSON.
    pub async fn create(&self, object: Value) -> Result<Service> {
        let api = self.services(object["metadata"]["namespace"].as_str().unwrap_or("default"));
        Ok(api.create(&PostParams::default(), &serde_json::from_value(object)?).await?)
    }

    /// The Services of a namespace.
    pub fn services(&self, namespace: &str) -> Api<Service> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A Service of namespace `default`.
    pub async fn service(&self, name: &str) -> Result<Service> {
        Ok(self.services("default").get(name).await?)
    }

    /// Changes a Service of namespace `default` by merge patch.
    pub async fn patch(&self, name: &str, patch: Value) -> Result<Service> {
        Ok(self
            .services("default")
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?)
    }

    /// Deletes a Service of namespace `default`.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.services("default").delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until the status of a Service has `count` addresses and returns them.
    pub async fn published(&self, name: &str, count: usize) -> Result<Vec<IpAddr>> {
        let shown = || async {
            let service = self.service(name).await?;
            let addresses = ingress(&service);
            Ok((addresses.len() == count).then_some(addresses))
        };
        let result =
            eventually(&format!("{count} addresses in the status of {name}"), 30, shown).await;
        match result {
            Ok(addresses) => Ok(addresses),
            Err(error) => Err(error.context(self.story(name).await)),
        }
    }

    /// What a human would look at when `name` does not come up.
    async fn story(&self, name: &str) -> String {
        let service =
            self.service(name).await.map(|service| serde_json::to_string_pretty(&service));
        format!("service: {service:?}\n{}", self.logs())
    }

    /// What both programs said last, on each node.
    pub fn logs(&self) -> String {
        let ccm = self.ccm.iter().map(|ccm| ("berth-ccm", ccm));
        let tails = self.announcers().chain(ccm);
        let tails = tails.map(|(who, process)| format!("--- {who}\n{}", process.log_tail()));
        tails.collect::<Vec<_>>().join("\n")
    }

    /// The claims, by address.
    pub async fn claims(&self) -> Result<BTreeMap<String, IPAddress>> {
        let mine = ListParams::default().labels("ipaddress.kubernetes.io/managed-by=berth");
        let list = Api::<IPAddress>::all(self.client.clone()).list(&mine).await?;
        Ok(list.into_iter().map(|claim| (claim.name_any(), claim)).collect())
    }

    /// The nodes whose LAN interface carries the address, as `ip -j` says.
    pub fn holders(&self, address: IpAddr) -> Result<Vec<String>> {
        let mut holders = Vec::new();
        for node in self.lab.nodes() {
            if addresses_of(node)?.contains(&address) {
                holders.push(node.name().to_owned());
            }
        }
        Ok(holders)
    }

    /// One HTTP request from the client on the LAN; the body, or why not.
    pub fn curl(&self, address: IpAddr) -> Result<String> {
        curl(&self.lab.outside(), address)
    }

    /// The number of a node by name.
    pub fn index_of(&self, node: &str) -> Result<usize> {
        let found = self.lab.nodes().iter().position(|candidate| candidate.name() == node);
        found.with_context(|| format!("no node {node}"))
    }

    /// The node that the Service says holds its addresses.
    pub async fn host(&self, name: &str) -> Result<String> {
        let service = self.service(name).await?;
        service.annotations().get(HOST).cloned().with_context(|| format!("{name} has no {HOST}"))
    }

    fn unused(&mut self, program: &str) -> String {
        self.starts += 1;
        format!("{program}-{}", self.starts)
    }

    /// Starts the account's programs from now on with the token of a pod on this node, as a kubelet would; the token.
    pub async fn bind(&self, account: &str, node: &str) -> Result<String> {
        let token = tokens::of_pod(&self.client, account, node).await?;
        tokens::write_kubeconfig(self.lab.dir(), account, &token)?;
        Ok(token)
    }

    /// The kubeconfig of a program on a node: with a token of its pod there where policies go by that.
    async fn kubeconfig_on(&self, account: &str, node: usize) -> Result<PathBuf> {
        if !self.is_policed {
            return self.kubeconfig(account).await;
        }
        self.kubeconfig_of_pod(account, node).await
    }

    /// A kubeconfig with a token of a pod of an account of `kube-system`, which is on this node and never runs.
    pub async fn kubeconfig_of_pod(&self, account: &str, node: usize) -> Result<PathBuf> {
        let node = self.lab.node(node).name();
        let pod = format!("{account}-{node}");
        let path = tokens::kubeconfig(self.lab.dir(), &pod);
        if !path.exists() {
            let token = tokens::of_pod(&self.client, account, node).await?;
            tokens::write_kubeconfig(self.lab.dir(), &pod, &token)?;
        }
        Ok(path)
    }

    /// A kubeconfig with a token of a ServiceAccount of `kube-system`.
    pub(crate) async fn kubeconfig(&self, account: &str) -> Result<PathBuf> {
        let path = tokens::kubeconfig(self.lab.dir(), account);
        if !path.exists() {
            let token = tokens::of_account(&self.client, "kube-system", account).await?;
            tokens::write_kubeconfig(self.lab.dir(), account, &token)?;
        }
        Ok(path)
    }
}

/// The echo server as a Deployment, its pods Ready, anywhere.
pub fn deploy_echo(lab: &Lab, namespace: &str, name: &str, replicas: usize) -> Result<()> {
    deploy(lab, namespace, name, replicas, None)
}

/// The echo server as a Deployment, its pods Ready; all on `node`, or anywhere.
fn deploy(
    lab: &Lab,
    namespace: &str,
    name: &str,
    replicas: usize,
    node: Option<&str>,
) -> Result<()> {
    let text = std::fs::read_to_string(repository().join("examples/01-expose/deployment.yaml"))?;
    let mut text =
        text.replace("hello", name).replace("replicas: 3", &format!("replicas: {replicas}"));
    if let Some(node) = node {
        let selector = format!(
            "      nodeSelector: {{ kubernetes.io/hostname: {node} }}\n      containers:\n"
        );
        text = text.replace("      containers:\n", &selector);
    }
    let deployed = async {
        apply::create(&lab.client(), &text, namespace).await?;
        apply::rolled_out(&lab.client(), namespace, name).await
    };
    let deployed = tokio::task::block_in_place(|| Handle::current().block_on(deployed));
    deployed.with_context(|| format!("deployment {name} of {namespace}"))
}

/// The lab's kubectl with all rights; its standard output.
pub fn kubectl(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let output = Command::new(lab.programs().join("kubectl"))
        .arg("--kubeconfig")
        .arg(lab.kubeconfig())
        .args(arguments)
        .output()
        .context("start kubectl")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "kubectl {arguments:?}: {}", text(&output.stderr));
    Ok(text(&output.stdout))
}

/// One HTTP request with a short limit; the body, or why not.
pub fn curl(from: &Place, address: IpAddr) -> Result<String> {
    curl_port(from, address, 80)
}

/// The same to another port.
pub fn curl_port(from: &Place, address: IpAddr, port: u16) -> Result<String> {
    get(from, SocketAddr::new(address, port), "/", Duration::from_secs(5))
}

/// The addresses of a node's LAN interface, as `ip -j` says.
pub fn addresses_of(node: &Node) -> Result<BTreeSet<IpAddr>> {
    let text = node.exec(["ip", "-json", "address", "show", "dev", "eth0"])?;
    let links: Vec<Value> = serde_json::from_str(&text)?;
    let infos = links.iter().filter_map(|link| link["addr_info"].as_array()).flatten();
    infos
        .filter_map(|info| info["local"].as_str())
        .map(|local| local.parse().with_context(|| format!("ip says {local}")))
        .collect()
}

/// The addresses of a Service's status.
pub fn ingress(service: &Service) -> Vec<IpAddr> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|entry| entry.ip.as_ref()?.parse().ok()).collect()
}

/// The addresses of a Service's annotation.
pub fn annotated(service: &Service) -> Vec<IpAddr> {
    let text = service.annotations().get(ADDRESSES).map_or("", String::as_str);
    text.split(',').filter_map(|part| part.trim().parse().ok()).collect()
}

/// Until something is asked again, in its first second and from then on. What nobody answers for long is asked for long, and
/// that by several tests at once keeps processors from those who are to answer.
const SOON: Duration = Duration::from_millis(20);
const LATER: Duration = Duration::from_millis(50);

/// Asks until there is an answer; an error after `seconds`. For what has no event to wait for.
pub async fn eventually<T, F>(what: &str, seconds: u64, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let start = Instant::now();
    loop {
        let answer = ask().await;
        match answer {
            Ok(Some(value)) => return Ok(value),
            Err(error) if start.elapsed() > Duration::from_secs(seconds) => {
                return Err(error.context(what.to_owned()));
            }
            Ok(None) if start.elapsed() > Duration::from_secs(seconds) => {
                bail!("not within {seconds} s: {what}")
            }
            _ if start.elapsed() < Duration::from_secs(1) => tokio::time::sleep(SOON).await,
            _ => tokio::time::sleep(LATER).await,
        }
    }
}

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Merges `more` into `object`, member by member.
fn merge(object: &mut Value, more: Value) {
    match (object, more) {
        (Value::Object(object), Value::Object(more)) => {
            for (key, value) in more {
                merge(object.entry(key).or_insert(Value::Null), value);
            }
        }
        (place, value) => *place = value,
    }
}
