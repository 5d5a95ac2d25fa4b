//! MetalLB in its layer 2 mode: a speaker on each node and the controller, built from `e2e/metallb/go.mod`.
//!
//! They run as processes, not as pods. Speakers find each other by the addresses of pods, so there is a pod for each
//! that nobody schedules. What they talk is not encrypted, and webhooks are off; neither is on the way of a takeover.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams, PostParams};
use lab_programs::go_tools::GoTools;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::lab::Lab;
use crate::process::Process;
use crate::world::{World, env, eventually, kubectl};

const NAMESPACE: &str = "metallb-system";
const LABEL: &str = "component";

/// The name of the pool, and of its advertisement.
pub const POOL: &str = "lan";

/// How long a program may take to end.
const END: Duration = Duration::from_secs(30);

fn tools() -> GoTools {
    GoTools {
        folder: "metallb",
        module: "go.universe.tf/metallb",
        programs: &[("controller", "controller"), ("speaker", "speaker")],
        linker: String::new(),
    }
}

/// MetalLB on some nodes of a lab.
pub struct MetalLb {
    programs: PathBuf,
    kubeconfig: PathBuf,
    starts: usize,
    controller: Process,
    speakers: Vec<Option<Process>>,
}

impl MetalLb {
    /// The version that is built.
    pub(super) fn version() -> Result<String> {
        tools().version()
    }

    /// Its objects, the pool [`POOL`] of these prefixes and ranges, and the controller; no speakers yet.
    pub async fn up(world: &World, nodes: usize, addresses: &[String]) -> Result<Self> {
        let programs = tokio::task::spawn_blocking(|| tools().build()).await??;
        let definitions = tools().source()?.join("config/crd/bases").display().to_string();
        kubectl(&world.lab, &["apply", "-f", &definitions])?;
        kubectl(
            &world.lab,
            &["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"],
        )?;
        kubectl(&world.lab, &["create", "namespace", NAMESPACE])?;
        kubectl(&world.lab, &["create", "serviceaccount", "--namespace=kube-system", "metallb"])?;
        let all = ["--clusterrole=cluster-admin", "--serviceaccount=kube-system:metallb"];
        kubectl(&world.lab, &["create", "clusterrolebinding", "metallb", all[0], all[1]])?;
        let kubeconfig = world.kubeconfig("metallb").await?;
        configure(&world.lab, addresses)?;
        for node in 0..nodes {
            announce_pod(world, node).await?;
        }
        let argv = [
            programs.join("controller").display().to_string(),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--namespace={NAMESPACE}"),
            "--webhook-mode=disabled".to_owned(),
            "--disable-cert-rotation=true".to_owned(),
        ];
        let controller = world.lab.control_plane().start("metallb-controller", argv)?;
        Ok(Self { programs, kubeconfig, starts: 0, controller, speakers: vec![None; nodes] })
    }

    /// Ends the controller, as a Deployment that is scaled to nothing.
    pub fn end_controller(&self) -> Result<()> {
        self.controller.terminate(END)
    }

    /// Ends all speakers, as a DaemonSet that is deleted.
    pub fn end_speakers(&self) -> Result<()> {
        let speakers = || self.speakers.iter().flatten();
        speakers().try_for_each(|speaker| speaker.signal(Signal::SIGTERM))?;
        speakers().try_for_each(|speaker| speaker.terminate(END))
    }

    /// Starts a speaker on a node.
    pub fn start(&mut self, lab: &Lab, node: usize) -> Result<()> {
        self.starts += 1;
        let node_addresses = lab.node(node).addresses();
        let argv = [
            self.programs.join("speaker").display().to_string(),
            format!("--kubeconfig={}", self.kubeconfig.display()),
        ];
        let environment = env([
            ("METALLB_NAMESPACE", NAMESPACE),
            ("METALLB_NODE_NAME", lab.node(node).name()),
            ("METALLB_POD_NAME", &pod_of(lab.node(node).name())),
            ("METALLB_HOST", "127.0.0.1"),
            ("METALLB_ML_BIND_ADDR", &node_addresses.lan.v4.to_string()),
            ("METALLB_ML_LABELS", &format!("{LABEL}=speaker")),
        ]);
        let name = format!("metallb-speaker-{}", self.starts);
        self.speakers[node] = Some(lab.node(node).place()?.start_with(&name, argv, environment)?);
        Ok(())
    }

    /// Whether the speakers that were started last have met all others.
    pub(super) fn is_settled(&self, lab: &Lab) -> bool {
        let met = |log: String| {
            let joined = |node: usize| {
                let name = format!("\"node name\":\"{}\"", lab.node(node).name());
                log.lines().any(|line| line.contains("NodeJoin") && line.contains(&name))
            };
            (0..self.speakers.len()).all(joined)
        };
        self.speakers.iter().all(|speaker| speaker.as_ref().is_some_and(|p| met(p.log_text())))
    }

    pub(super) fn logs(&self) -> String {
        self.speakers.iter().flatten().map(Process::log_tail).collect::<Vec<_>>().join("\n---\n")
    }
}

/// A pool, for layer 2.
fn configure(lab: &Lab, addresses: &[String]) -> Result<()> {
    let object = |kind: &str, spec: serde_json::Value| {
        json!({
            "apiVersion": "metallb.io/v1beta1",
            "kind": kind,
            "metadata": { "name": POOL, "namespace": NAMESPACE },
            "spec": spec,
        })
    };
    let items = [
        object("IPAddressPool", json!({ "addresses": addresses })),
        object("L2Advertisement", json!({})),
    ];
    let file = lab.dir().join("metallb.json");
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    std::fs::write(&file, list.to_string())?;
    kubectl(lab, &["apply", "-f", &file.display().to_string()]).map(drop)
}

fn pod_of(node: &str) -> String {
    format!("speaker-{node}")
}

/// The pod by which other speakers learn a node's address.
async fn announce_pod(world: &World, node: usize) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), NAMESPACE);
    let name = pod_of(world.lab.node(node).name());
    let pod = json!({
        "metadata": { "name": name, "labels": { LABEL: "speaker" } },
        "spec": { "schedulerName": "none", "containers": [{ "name": "speaker", "image": "none" }] },
    });
    let pod: Pod = serde_json::from_value(pod)?;
    // The namespace's ServiceAccount, which admission asks for, is made by a controller.
    eventually("the pod of a speaker", 10, || async {
        Ok(Some(pods.create(&PostParams::default(), &pod).await?))
    })
    .await?;
    let address = world.lab.node(node).addresses().lan.v4.to_string();
    let status = json!({ "status": { "podIP": address, "podIPs": [{ "ip": address }] } });
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}
