//! Labs come up, do not meet, and go without a trace, whoever dies first.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use berth_e2e::{
    addresses::KUBERNETES_SERVICE,
    disk::LabDir,
    lab::{Lab, Spec},
    node::ProxyMode,
    place::lab_program,
    process::Pidded,
    supervisor,
};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::ListParams};
use nix::sys::signal::Signal;

use crate::leftovers::Traces;

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_lab_of_three_comes_up_ready_and_leaves_nothing() -> Result<()> {
    berth_e2e::programs::build()?;
    let start = Instant::now();
    let lab = Lab::up(Spec::bare(3)).await?;
    let up = start.elapsed();
    let nodes = Api::<Node>::all(lab.client()).list(&ListParams::default()).await?;
    ensure!(nodes.items.len() == 3, "{} nodes", nodes.items.len());
    let settings = host_settings()?;
    let traces = Traces::of(lab.name())?;
    let start = Instant::now();
    lab.down()?;
    println!("a bare lab of 3: up in {up:.1?}, down in {:.2?}", start.elapsed());
    ensure!(traces.left()?.is_empty(), "left: {:#?}", traces.left()?);
    ensure!(host_settings()? == settings, "host-wide settings changed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_labs_have_the_same_addresses_and_do_not_meet() -> Result<()> {
    let (one, two) = tokio::join!(Lab::up(Spec::bare(1)), Lab::up(Spec::bare(1)));
    let (one, two) = (one?, two?);
    ensure!(one.name() != two.name());
    one.node(0).exec(["touch", "/run/only-in-one"])?;
    ensure!(two.node(0).exec(["ls", "/run"])?.find("only-in-one").is_none(), "the labs share /run");
    one.node(0).exec(["ip", "address", "add", "10.0.64.1/32", "dev", "eth0"])?;
    one.outside().exec(["ping", "-c", "1", "-W", "2", "10.0.64.1"])?;
    let stranger = two.outside().output(["ping", "-c", "1", "-W", "1", "10.0.64.1"])?;
    ensure!(!stranger.status.success(), "one lab's address answers in the other");
    one.down()?;
    Api::<Node>::all(two.client()).get("node0").await.context("the other lab must live on")?;
    two.down()
}

#[tokio::test]
async fn kube_proxy_programs_services_with_nftables_too() -> Result<()> {
    let lab = Lab::up(Spec { proxy_mode: ProxyMode::Nftables, ..Spec::bare(1) }).await?;
    let kubernetes = format!("https://{}/version", KUBERNETES_SERVICE[0]);
    let node = lab.node(0);
    berth_e2e::world::eventually("the API server by its ClusterIP", 10, || async {
        Ok(node.exec(["curl", "-skf", "-m", "2", &kubernetes]).ok())
    })
    .await?;
    let rules = node.exec(["nft", "list", "tables"])?;
    ensure!(rules.contains("table ip kube-proxy"), "{rules}");
    lab.down()
}

#[test]
fn a_lab_goes_when_its_owner_is_killed() -> Result<()> {
    let (mut owner, name) = in_foreground("killed")?;
    let traces = Traces::of(&name)?;
    owner.kill()?;
    owner.wait()?;
    until_nothing_is_left(&traces)
}

#[test]
fn a_lab_goes_on_ctrl_c() -> Result<()> {
    let (mut owner, name) = in_foreground("ctrlc")?;
    let traces = Traces::of(&name)?;
    interrupt(&owner)?;
    ensure!(owner.wait()?.success(), "Ctrl-C is an orderly end");
    ensure!(traces.left()?.is_empty(), "left: {:#?}", traces.left()?);
    Ok(())
}

#[test]
fn a_lab_goes_on_ctrl_c_while_it_starts() -> Result<()> {
    let name = unique("early");
    // Whoever runs the tests in the background of a shell has them ignore this signal, and all that they start.
    let mut owner = Command::new("env")
        .arg("--default-signal=INT")
        .arg(lab_program()?)
        .args(["up", "--bare", "1", "--name", &name])
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()?;
    let dir = LabDir::new(&name)?;
    wait_for("the API server's log", || dir.log("control.kube-apiserver").exists())?;
    let traces = Traces::of(&name)?;
    interrupt(&owner)?;
    ensure!(!owner.wait()?.success(), "an interrupted `lab up` is no success");
    until_nothing_is_left(&traces)
}

#[test]
fn processes_die_with_the_supervisor_and_the_next_lab_sweeps_the_rest() -> Result<()> {
    let name = unique("swept");
    let status = lab(&["up", "--bare", "1", "--name", &name]).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{status}");
    let traces = Traces::of(&name)?;
    let dir = LabDir::new(&name)?;
    let who: serde_json::Value = dir.load("supervision")?;
    let supervisor = Pidded::of(i32::try_from(who["supervisor"].as_i64().context("no pid")?)?);
    supervisor.context("no supervisor")?.kill()?;
    wait_for("the processes to die", || traces.processes().iter().all(|p| !p.is_alive()))?;
    ensure!(!traces.left()?.is_empty(), "files at least must be left for the sweep");
    ensure!(supervisor::sweep()?.contains(&name), "the sweep must name what it swept");
    ensure!(traces.left()?.is_empty(), "left: {:#?}", traces.left()?);
    Ok(())
}

#[test]
fn a_frozen_node_does_not_keep_a_lab_alive() -> Result<()> {
    let (mut owner, name) = in_foreground("frozen")?;
    let traces = Traces::of(&name)?;
    runtime()?.block_on(async { Lab::attach(&name).await?.freeze(0) })?;
    owner.kill()?;
    owner.wait()?;
    until_nothing_is_left(&traces)
}

#[test]
fn a_detached_lab_is_shown_used_and_taken_down() -> Result<()> {
    let name = unique("cli");
    let run = |arguments: &[&str]| -> Result<(bool, String, String)> {
        let output = lab(arguments).output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((output.status.success(), text(output.stdout), text(output.stderr)))
    };
    let (ok, _, errors) = run(&["up", "--bare", "1", "--name", &name])?;
    ensure!(ok, "{errors}");
    let traces = Traces::of(&name)?;
    let (ok, _, errors) = run(&["up", "--bare", "1", "--name", &name])?;
    ensure!(!ok && errors.contains("already up"), "a second lab of the name: {errors}");
    let (ok, text, _) = run(&["status", "--name", &name])?;
    ensure!(ok && text.contains("node0") && text.contains("kube-apiserver"), "{text}");
    let (ok, text, _) = run(&["exec", "--name", &name, "node0", "--", "hostname"])?;
    ensure!(ok && text.trim() == "node0", "{text}");
    let (ok, _, errors) = run(&["exec", "--name", &name, "nowhere", "--", "true"])?;
    ensure!(!ok && errors.contains("nowhere") && errors.contains("client"), "{errors}");
    let (ok, _, errors) = run(&["down", "--name", &name])?;
    ensure!(ok, "{errors}");
    ensure!(traces.left()?.is_empty(), "left: {:#?}", traces.left()?);
    let (ok, _, errors) = run(&["down", "--name", &name])?;
    ensure!(!ok && errors.contains(&name), "{errors}");
    Ok(())
}

/// What a terminal does on Ctrl-C: a signal to the whole process group.
fn interrupt(owner: &Child) -> Result<()> {
    let group = nix::unistd::Pid::from_raw(-i32::try_from(owner.id())?);
    Ok(nix::sys::signal::kill(group, Signal::SIGINT)?)
}

/// A lab owned by a process of its own, which leads a process group as a shell's job does.
fn in_foreground(what: &str) -> Result<(Child, String)> {
    let name = unique(what);
    let mut owner = lab(&["up", "--foreground", "--bare", "1", "--name", &name])
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let mut line = String::new();
    BufReader::new(owner.stdout.take().context("no output")?).read_line(&mut line)?;
    ensure!(line.contains("is up"), "{line:?}");
    Ok((owner, name))
}

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(lab_program().unwrap());
    command.args(arguments);
    command
}

fn unique(what: &str) -> String {
    format!("{what}-{}", std::process::id())
}

fn until_nothing_is_left(traces: &Traces) -> Result<()> {
    wait_for("nothing to be left", || traces.left().is_ok_and(|left| left.is_empty()))
        .with_context(|| format!("left: {:#?}", traces.left()))
}

fn wait_for(what: &str, done: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !done() {
        ensure!(start.elapsed() < Duration::from_secs(20), "waited 20 s for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn host_settings() -> Result<Vec<String>> {
    let names =
        ["vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward"];
    Ok(names
        .map(|name| fs::read_to_string(format!("/proc/sys/{name}")))
        .into_iter()
        .collect::<Result<_, _>>()?)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Runtime::new()?)
}
