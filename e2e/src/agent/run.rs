//! One pod's life on a bare node.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{
    pod::{self, Plan, Probe, Shown},
    sandbox::{Sandbox, Sandboxes},
};
use crate::{
    disk::LabDir,
    keeper::{Answer, Run},
    process::Pidded,
};

/// How often a pod that is not Ready is looked at, and one that is.
const EAGER: Duration = Duration::from_millis(20);
const CALM: Duration = Duration::from_millis(500);

/// Runs a pod from its binding to its deletion. `stop` ends when the pod is to go.
pub(super) async fn live(
    client: Client,
    sandboxes: Sandboxes,
    pod: Pod,
    mut stop: oneshot::Receiver<()>,
) {
    let name = pod.name_any();
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    tokio::select! {
        _ = &mut stop => {}
        result = keep_running(&api, &sandboxes, &pod) => if let Err(e) = result {
            eprintln!("pod {name}: {e:#}");
            report(&api, &name, &pod::waiting(&pod, &format!("{e:#}"))).await;
            let _ = stop.await;
        }
    }
    if let Err(e) = end(&api, &sandboxes, &pod).await {
        eprintln!("pod {name}: {e:#}");
    }
}

/// Starts the pod's processes, or finds them, and keeps its status true. Returns on an error only.
async fn keep_running(api: &Api<Pod>, sandboxes: &Sandboxes, pod: &Pod) -> Result<()> {
    let uid = pod.uid().context("no uid")?;
    let (boxes, of) = (sandboxes.clone(), pod.clone());
    let (mut sandbox, plans) = spawn_blocking(move || start(&boxes, &of)).await??;
    let began = Timestamp::now().to_string();
    let mut shown: Option<(bool, i32)> = None;
    loop {
        if !sandbox.processes.iter().all(Pidded::is_alive) {
            let (boxes, of, mut again) = (sandboxes.clone(), pod.clone(), sandbox.clone());
            again.restarts += 1;
            again.processes.clear();
            sandbox = spawn_blocking(move || start_processes(&boxes, &of, again)).await??.0;
        }
        let ready = is_ready(&plans, &sandbox.addresses).await;
        if shown != Some((ready, sandbox.restarts)) {
            let now = Timestamp::now().to_string();
            let status = Shown {
                host: &sandboxes.host(),
                addresses: &sandbox.addresses,
                ready,
                started: &began,
                changed: &now,
                restarts: sandbox.restarts,
            };
            if report(api, &pod.name_any(), &pod::running(pod, &status)).await {
                shown = Some((ready, sandbox.restarts));
            }
        }
        sandboxes.save(&uid, &sandbox)?;
        sleep(if shown.is_some_and(|(ready, _)| ready) { CALM } else { EAGER }).await;
    }
}

fn start(sandboxes: &Sandboxes, pod: &Pod) -> Result<(Sandbox, Vec<Plan>)> {
    let uid = pod.uid().context("no uid")?;
    let sandbox = match sandboxes.load(&uid) {
        Some(found) => found,
        None if pod::on_host_network(pod) => sandboxes.on_host(&uid)?,
        None => sandboxes.create(&uid)?,
    };
    start_processes(sandboxes, pod, sandbox)
}

/// The keeper of the node starts them, so that they outlive the agent.
fn start_processes(
    sandboxes: &Sandboxes,
    pod: &Pod,
    mut sandbox: Sandbox,
) -> Result<(Sandbox, Vec<Plan>)> {
    let plans = pod::plan(pod, sandboxes.node(), &sandbox.addresses, sandboxes.programs())?;
    if sandbox.processes.is_empty() {
        for plan in &plans {
            sandbox.processes.push(start_process(sandboxes, pod, plan, &sandbox)?);
        }
        sandboxes.save(&pod.uid().context("no uid")?, &sandbox)?;
    }
    Ok((sandbox, plans))
}

fn start_process(
    sandboxes: &Sandboxes,
    pod: &Pod,
    plan: &Plan,
    sandbox: &Sandbox,
) -> Result<Pidded> {
    let lab = std::env::var("BERTH_LAB").context("BERTH_LAB")?;
    let dir = LabDir::new(&lab)?;
    let log = dir.log(&format!("{}.pod-{}.{}", sandboxes.node(), pod.name_any(), plan.name));
    let run = Run {
        argv: plan.argv.clone(),
        env: plan.env.clone(),
        net: sandbox.net.clone(),
        log: log.clone(),
        new_pid_namespace: false,
    };
    match crate::place::ask(&dir.join("keepers").join(sandboxes.node()), &run)? {
        Answer::Failed(reason) => anyhow::bail!("{reason}"),
        Answer::Started(pid) => Pidded::of(pid)
            .with_context(|| format!("{} ended at once; see {}", plan.name, log.display())),
    }
}

/// What the pod sleeps before it is told (KEP-3960), SIGTERM, its grace, SIGKILL; then the API server may forget it.
async fn end(api: &Api<Pod>, sandboxes: &Sandboxes, pod: &Pod) -> Result<()> {
    let uid = pod.uid().context("no uid")?;
    let grace = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
    let sleeps = pod.spec.iter().flat_map(|spec| &spec.containers);
    let sleeps = sleeps.filter_map(|one| one.lifecycle.as_ref()?.pre_stop.as_ref()?.sleep.as_ref());
    let pause = sleeps.map(|action| action.seconds).max().unwrap_or_default();
    sleep(Duration::from_secs(u64::try_from(pause).unwrap_or(0))).await;
    let boxes = sandboxes.clone();
    let of = uid.clone();
    spawn_blocking(move || {
        let processes = boxes.load(&of).map(|s| s.processes).unwrap_or_default();
        for process in &processes {
            let _ = process.signal(Signal::SIGTERM);
        }
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        for process in &processes {
            let _ = process.wait(grace);
        }
        boxes.remove(&of);
    })
    .await?;
    let only_this = Preconditions { uid: Some(uid), resource_version: None };
    let now =
        DeleteParams { preconditions: Some(only_this), ..DeleteParams::default().grace_period(0) };
    loop {
        match api.delete(&pod.name_any(), &now).await {
            Ok(_) => return Ok(()),
            // Gone already, or another pod of the same name.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
                return Ok(());
            }
            Err(e) => eprintln!("delete pod {}: {e}", pod.name_any()),
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn report(api: &Api<Pod>, name: &str, status: &Value) -> bool {
    match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await {
        Ok(_) => true,
        Err(e) => {
            eprintln!("status of pod {name}: {e}");
            sleep(Duration::from_secs(1)).await;
            false
        }
    }
}

async fn is_ready(plans: &[Plan], addresses: &[IpAddr]) -> bool {
    let Some(address) = addresses.first() else { return false };
    for probe in plans.iter().filter_map(|plan| plan.probe.as_ref()) {
        if !matches!(timeout(Duration::from_secs(1), ask(probe, *address)).await, Ok(Ok(()))) {
            return false;
        }
    }
    true
}

async fn ask(probe: &Probe, address: IpAddr) -> Result<()> {
    let mut stream = TcpStream::connect(SocketAddr::new(address, probe.port)).await?;
    if let Some(path) = &probe.path {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        ensure!(head.starts_with(b"HTTP/1.") && matches!(head[9], b'2' | b'3'), "not a 2xx or 3xx");
    }
    Ok(())
}
