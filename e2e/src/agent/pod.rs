//! What a pod asks for, and what its status says: pure.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::{
    api::core::v1::{Container, Pod},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;
use serde_json::{Value, json};

/// One container as a plain process.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) name: String,
    pub(super) argv: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) probe: Option<Probe>,
}

/// A readiness probe: a TCP connect, or a GET of a path.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Probe {
    pub(super) port: u16,
    pub(super) path: Option<String>,
}

/// What the status says beside the pod's name.
#[derive(Clone, Debug)]
pub(super) struct Shown<'a> {
    pub(super) host: &'a [IpAddr],
    pub(super) addresses: &'a [IpAddr],
    pub(super) ready: bool,
    pub(super) started: &'a str,
    pub(super) changed: &'a str,
    pub(super) restarts: i32,
}

/// Whether the pod shares the node's network namespace.
pub(super) fn on_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false)
}

/// What to run for each container; `programs` is the folder with this workspace's programs.
pub(super) fn plan(
    pod: &Pod,
    node: &str,
    addresses: &[IpAddr],
    programs: &Path,
) -> Result<Vec<Plan>> {
    let spec = pod.spec.as_ref().context("no spec")?;
    ensure!(
        spec.init_containers.as_deref().unwrap_or_default().is_empty(),
        "bare nodes run no init containers"
    );
    spec.containers.iter().map(|c| container(pod, c, node, addresses, programs)).collect()
}

fn container(
    pod: &Pod,
    container: &Container,
    node: &str,
    addresses: &[IpAddr],
    programs: &Path,
) -> Result<Plan> {
    let image = container.image.as_deref().unwrap_or_default();
    let program = program_of(image, programs)?;
    let command = container.command.clone().unwrap_or_default();
    let mut argv = if command.is_empty() { vec![program.display().to_string()] } else { command };
    argv.extend(container.args.clone().unwrap_or_default());

    let mut env = BTreeMap::from([("HOSTNAME".to_owned(), pod.name_any())]);
    for variable in container.env.iter().flatten() {
        let field = variable
            .value_from
            .as_ref()
            .and_then(|v| v.field_ref.as_ref())
            .map(|f| f.field_path.as_str());
        let value = match field {
            None => variable.value.clone().unwrap_or_default(),
            Some("metadata.name") => pod.name_any(),
            Some("metadata.namespace") => pod.namespace().unwrap_or_default(),
            Some("metadata.uid") => pod.uid().unwrap_or_default(),
            Some("spec.nodeName") => node.to_owned(),
            Some("status.podIP") => addresses.first().map(ToString::to_string).unwrap_or_default(),
            Some(other) => bail!("env {}: bare nodes know no field {other}", variable.name),
        };
        env.insert(variable.name.clone(), value);
    }
    Ok(Plan { name: container.name.clone(), argv, env, probe: probe(container)? })
}

/// `localhost/berth/<program>:<version>` is the program that lies beside the agent's own.
fn program_of(image: &str, programs: &Path) -> Result<PathBuf> {
    let name =
        image.strip_prefix("localhost/berth/").and_then(|rest| rest.split([':', '@']).next());
    let path = programs.join(name.with_context(|| {
        format!(
            "image {image:?}: a bare node runs localhost/berth/<program> only; a real node runs any"
        )
    })?);
    ensure!(path.is_file(), "image {image:?}: {} is not built", path.display());
    Ok(path)
}

fn probe(container: &Container) -> Result<Option<Probe>> {
    let Some(probe) = &container.readiness_probe else { return Ok(None) };
    let number = |port: &IntOrString| match port {
        IntOrString::Int(n) => u16::try_from(*n).ok(),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_ref() == Some(name))
            .and_then(|p| u16::try_from(p.container_port).ok()),
    };
    let (port, path) = match (&probe.http_get, &probe.tcp_socket) {
        (Some(get), _) => (number(&get.port), Some(get.path.clone().unwrap_or_else(|| "/".into()))),
        (None, Some(tcp)) => (number(&tcp.port), None),
        _ => bail!("container {}: bare nodes know httpGet and tcpSocket probes", container.name),
    };
    let port =
        port.with_context(|| format!("container {}: the probe's port is no port", container.name))?;
    Ok(Some(Probe { port, path }))
}

/// The status of a pod whose containers run, as a patch.
pub(super) fn running(pod: &Pod, shown: &Shown<'_>) -> Value {
    let address = |a: &IpAddr| json!({"ip": a});
    let truth = |is: bool| if is { "True" } else { "False" };
    let condition = |kind: &str, is: bool| json!({"type": kind, "status": truth(is), "lastTransitionTime": shown.changed});
    let containers = pod.spec.iter().flat_map(|s| &s.containers).map(|c| {
        json!({
            "name": c.name, "image": c.image, "imageID": c.image, "ready": shown.ready, "started": true,
            "restartCount": shown.restarts, "state": {"running": {"startedAt": shown.started}},
        })
    });
    json!({"status": {
        "phase": "Running",
        "hostIP": shown.host.first(),
        "hostIPs": shown.host.iter().map(address).collect::<Vec<_>>(),
        "podIP": shown.addresses.first(),
        "podIPs": shown.addresses.iter().map(address).collect::<Vec<_>>(),
        "startTime": shown.started,
        "conditions": [
            condition("PodReadyToStartContainers", true), condition("Initialized", true),
            condition("ContainersReady", shown.ready), condition("Ready", shown.ready),
        ],
        "containerStatuses": containers.collect::<Vec<_>>(),
    }})
}

/// The status of a pod that could not be started, as a patch.
pub(super) fn waiting(pod: &Pod, why: &str) -> Value {
    let containers = pod.spec.iter().flat_map(|s| &s.containers).map(|c| {
        json!({
            "name": c.name, "image": c.image, "imageID": "", "ready": false, "started": false, "restartCount": 0,
            "state": {"waiting": {"reason": "CreateContainerError", "message": why}},
        })
    });
    json!({"status": {"phase": "Pending", "containerStatuses": containers.collect::<Vec<_>>()}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(container: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [container]},
        }))
        .unwrap()
    }

    #[test]
    fn a_container_is_the_program_of_its_image_with_its_environment() {
        let folder = std::env::current_exe().unwrap();
        let (folder, program) =
            (folder.parent().unwrap(), folder.file_name().unwrap().to_str().unwrap());
        let pod = pod(json!({
            "name": "c", "image": format!("localhost/berth/{program}:1.0"), "args": ["--x"],
            "env": [{"name": "A", "value": "b"}, {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
        }));
        let plan = plan(&pod, "node0", &[], folder).unwrap().remove(0);
        assert_eq!(plan.argv, [folder.join(program).to_str().unwrap(), "--x"]);
        assert_eq!(plan.env["NODE"], "node0");
        assert_eq!(plan.env["HOSTNAME"], "p");
        assert_eq!(plan.probe, Some(Probe { port: 8080, path: Some("/ready".into()) }));
    }

    #[test]
    fn an_image_that_is_no_program_of_ours_is_refused_by_name() {
        let error =
            plan(&pod(json!({"name": "c", "image": "nginx:1"})), "node0", &[], Path::new("/"))
                .unwrap_err();
        assert!(error.to_string().contains("nginx:1"), "{error}");
    }
}
