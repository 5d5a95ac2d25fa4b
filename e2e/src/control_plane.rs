//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler, each startable and stoppable alone.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::{Deserialize, Serialize};

use crate::{
    addresses::{CLUSTER_CIDR, KUBERNETES_SERVICE, SERVICE_CIDR, Slot, control_plane},
    pki::Pki,
    place::Place,
    process::Process,
};

/// The API server's port.
pub const API_PORT: u16 = 6443;

/// What a test may want different.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tuning {
    /// More arguments for kube-apiserver.
    pub apiserver: Vec<String>,
    /// More arguments for kube-controller-manager, e.g. `--node-monitor-grace-period=4s`.
    pub controller_manager: Vec<String>,
}

/// One of the control plane's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Part {
    /// etcd.
    Etcd,
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
}

impl Part {
    /// The program's name.
    pub fn program(self) -> &'static str {
        match self {
            Part::Etcd => "etcd",
            Part::ApiServer => "kube-apiserver",
            Part::ControllerManager => "kube-controller-manager",
            Part::Scheduler => "kube-scheduler",
        }
    }
}

/// One control-plane node of several, each with etcd and an API server of its own: stacked, as kubeadm calls it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its own address.
    pub address: Ipv4Addr,
    /// Name and address of each of them, its own as well.
    pub all: Vec<(String, Ipv4Addr)>,
}

/// What the programs are started with.
#[derive(Debug)]
pub struct ControlPlane {
    place: Place,
    programs: PathBuf,
    tuning: Tuning,
    member: Option<Member>,
}

/// The API server as nodes reach it.
pub fn url_for_nodes() -> String {
    format!("https://{}:{API_PORT}", control_plane().v4)
}

/// The API server as processes in the host's network namespace reach it.
pub fn url_for_host(slot: Slot) -> String {
    format!("https://{}:{API_PORT}", slot.control_plane())
}

impl ControlPlane {
    /// In `place`, out of the folder `programs`.
    pub fn new(place: Place, programs: &Path, tuning: Tuning) -> Self {
        Self { place, programs: programs.to_owned(), tuning, member: None }
    }

    /// One of several, in the node `place`.
    pub fn stacked(place: Place, programs: &Path, member: Member) -> Self {
        Self { member: Some(member), ..Self::new(place, programs, Tuning::default()) }
    }

    /// Writes every certificate and kubeconfig the programs need.
    pub fn write_credentials(pki: &Pki, slot: Slot) -> Result<()> {
        Self::write_certificate(pki, &[slot.control_plane().into()])?;
        pki.client("apiserver-kubelet", "kube-apiserver-kubelet-client", &["system:masters"])?;
        let local = format!("https://127.0.0.1:{API_PORT}");
        pki.kubeconfig("controller-manager", &local, "system:kube-controller-manager", &[])?;
        pki.kubeconfig("scheduler", &local, "system:kube-scheduler", &[])?;
        pki.kubeconfig("kube-proxy", &url_for_nodes(), "system:kube-proxy", &[])?;
        pki.kubeconfig("admin", &url_for_host(slot), "admin", &["system:masters"])?;
        Ok(())
    }

    /// Writes the certificate of API servers, which are reached at `more` addresses as well.
    pub fn write_certificate(pki: &Pki, more: &[IpAddr]) -> Result<()> {
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
        let names =
            names.into_iter().chain(["kubernetes.default.svc.cluster.local"]).collect::<Vec<_>>();
        let mut addresses: Vec<IpAddr> = vec![[127, 0, 0, 1].into()];
        addresses.extend(control_plane().both());
        addresses.extend(KUBERNETES_SERVICE);
        addresses.extend(more);
        pki.server("apiserver", &names, &addresses).map(drop)
    }

    /// Starts one program.
    pub fn start(&self, part: Part) -> Result<Process> {
        self.start_as(part, part.program())
    }

    /// Starts one program under another name, as one that is started again in its place needs.
    pub fn start_as(&self, part: Part, name: &str) -> Result<Process> {
        let mut argv = vec![self.programs.join(part.program()).display().to_string()];
        argv.extend(match part {
            Part::Etcd => self.etcd(),
            Part::ApiServer => self.apiserver(),
            Part::ControllerManager => self.controller_manager(),
            Part::Scheduler => self.scheduler(),
        });
        self.place.start(name, argv)
    }

    fn file(&self, name: &str) -> String {
        self.place.dir.join("pki").join(name).display().to_string()
    }

    fn etcd(&self) -> Vec<String> {
        let alone = || ("lab".to_owned(), Ipv4Addr::LOCALHOST);
        let (name, address) =
            self.member.as_ref().map_or_else(alone, |of| (self.place.name.clone(), of.address));
        let data = self.place.dir.join(format!("etcd/{name}")).display().to_string();
        let own = format!("http://{address}:2380");
        let all = self.member.as_ref().map_or_else(|| vec![alone()], |of| of.all.clone());
        let all: Vec<_> = all.iter().map(|(name, at)| format!("{name}=http://{at}:2380")).collect();
        let flags = [
            &format!("--name={name}"),
            &format!("--data-dir={data}"),
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            &format!("--listen-peer-urls={own}"),
            &format!("--initial-advertise-peer-urls={own}"),
            &format!("--initial-cluster={}", all.join(",")),
            // The data lies in memory: a lab does not outlive its machine.
            "--unsafe-no-fsync",
            "--heartbeat-interval=50",
            "--election-timeout=500",
            "--initial-election-tick-advance=true",
            "--snapshot-count=10000",
            "--log-level=warn",
        ];
        flags.map(ToOwned::to_owned).to_vec()
    }

    fn apiserver(&self) -> Vec<String> {
        let mut flags = vec![
            format!(
                "--advertise-address={}",
                self.member.as_ref().map_or(control_plane().v4, |of| of.address)
            ),
            "--bind-address=::".into(),
            format!("--secure-port={API_PORT}"),
            "--etcd-servers=http://127.0.0.1:2379".into(),
            "--etcd-healthcheck-timeout=10s".into(),
            format!("--client-ca-file={}", self.file("ca.crt")),
            format!("--tls-cert-file={}", self.file("apiserver.crt")),
            format!("--tls-private-key-file={}", self.file("apiserver.key")),
            format!("--kubelet-client-certificate={}", self.file("apiserver-kubelet.crt")),
            format!("--kubelet-client-key={}", self.file("apiserver-kubelet.key")),
            "--kubelet-preferred-address-types=InternalIP".into(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
            format!("--service-account-key-file={}", self.file("sa.pub")),
            format!("--service-account-signing-key-file={}", self.file("sa.key")),
            format!("--service-cluster-ip-range={SERVICE_CIDR}"),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            "--allow-privileged=true".into(),
            "--profiling=false".into(),
        ];
        flags.extend(self.tuning.apiserver.iter().cloned());
        flags
    }

    // Where it is given no certificate, a program makes a key of RSA: a third of what its start costs.
    fn controller_manager(&self) -> Vec<String> {
        let kubeconfig = self.file("controller-manager.kubeconfig");
        let mut flags = vec![
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--bind-address=127.0.0.1".into(),
            format!("--tls-cert-file={}", self.file("apiserver.crt")),
            format!("--tls-private-key-file={}", self.file("apiserver.key")),
            "--leader-elect=false".into(),
            "--use-service-account-credentials=true".into(),
            format!("--root-ca-file={}", self.file("ca.crt")),
            format!("--service-account-private-key-file={}", self.file("sa.key")),
            format!("--cluster-signing-cert-file={}", self.file("ca.crt")),
            format!("--cluster-signing-key-file={}", self.file("ca.key")),
            "--allocate-node-cidrs=true".into(),
            format!("--cluster-cidr={CLUSTER_CIDR}"),
            "--node-cidr-mask-size-ipv4=24".into(),
            "--node-cidr-mask-size-ipv6=64".into(),
            format!("--service-cluster-ip-range={SERVICE_CIDR}"),
            "--kube-api-qps=200".into(),
            "--kube-api-burst=400".into(),
            "--profiling=false".into(),
        ];
        flags.extend(self.tuning.controller_manager.iter().cloned());
        flags
    }

    fn scheduler(&self) -> Vec<String> {
        let kubeconfig = self.file("scheduler.kubeconfig");
        vec![
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--bind-address=127.0.0.1".into(),
            format!("--tls-cert-file={}", self.file("apiserver.crt")),
            format!("--tls-private-key-file={}", self.file("apiserver.key")),
            "--leader-elect=false".into(),
            "--profiling=false".into(),
        ]
    }
}

/// A client for a kubeconfig file.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let file =
        Kubeconfig::read_from(kubeconfig).with_context(|| kubeconfig.display().to_string())?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Waits until the API server answers `ok` on `/readyz`.
pub async fn wait_until_ready(client: &Client, server: &Process, limit: Duration) -> Result<()> {
    let start = Instant::now();
    loop {
        let request = http_get("/readyz")?;
        let answer =
            tokio::time::timeout(Duration::from_secs(2), client.request_text(request)).await;
        if matches!(&answer, Ok(Ok(text)) if text == "ok") {
            return Ok(());
        }
        ensure!(server.is_alive(), "kube-apiserver ended:\n{}", server.log_tail());
        ensure!(
            start.elapsed() < limit,
            "kube-apiserver is not ready after {limit:?}:\n{}",
            server.log_tail()
        );
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

fn http_get(path: &str) -> Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}
