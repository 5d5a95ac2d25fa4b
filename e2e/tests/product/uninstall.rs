//! The README's uninstall, as it stands there, with Services and EipBindings left: nothing hangs.

use std::ffi::OsStr;
use std::fs;

use anyhow::{Context, Result, ensure};
use berth_e2e::place::sibling_program;
use berth_e2e::process::Process;
use berth_e2e::vm::{Eips, Vm, install_kubevirt};
use berth_e2e::world::{POOL, World, env, eventually, kubectl, repository};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::json;
use std::time::Duration;

/// How long a program takes to end.
const END: Duration = Duration::from_secs(15);
/// What deletes the programs, which are no pods in the lab.
const PROGRAMS: &str = "kubectl --namespace kube-system delete --cascade=foreground";

/// The commands of the README's chapter.
fn commands() -> Result<String> {
    let readme = fs::read_to_string(repository().join("README.md"))?;
    let chapter = readme.split("## Uninstall").nth(1).context("no chapter")?;
    let block = chapter.split("```sh\n").nth(1).and_then(|text| text.split("```").next());
    let block = block.context("no commands")?;
    ensure!(block.contains(PROGRAMS) && block.contains("\nberth-ccm uninstall\n"), "{block}");
    let lines = block.lines().filter(|line| !line.starts_with(PROGRAMS));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Runs them in the repository.
fn shell(world: &World, text: &str) -> Result<String> {
    super::shell::shell(world, repository(), 120, text)
}

/// Both programs, a Service and an elastic IP in the namespace `shop`, and a Service in `default`.
async fn installed() -> Result<World> {
    let mut world = World::without_berth(2, env([])).await?;
    install_kubevirt(&world.lab)?;
    world.pools(json!({ "range-global": POOL })).await?;
    world.start_ccm().await?;
    world.start_announcer(0).await?;
    kubectl(&world.lab, &["create", "namespace", "shop"])?;
    world.deploy("default", "hello", 1)?;
    world.expose("web", json!({})).await?;
    let create = "create service loadbalancer left --tcp=80:80 --namespace shop";
    kubectl(&world.lab, &create.split(' ').collect::<Vec<_>>())?;
    Vm::create(&world.client, "shop", "vm").await?;
    Eips::of(&world.client, "shop").create("vm", json!({ "vmi": "vm" })).await?;
    world.published("web", 1).await?;
    eventually("three claims", 15, || async {
        Ok((world.claims().await?.len() == 3).then_some(()))
    })
    .await?;
    Ok(world)
}

fn announcer(world: &World) -> Result<&Process> {
    world.announcer(world.lab.node(0).name())
}

/// What `berth-announcer sweep` says on the node.
fn sweep(world: &World) -> Result<String> {
    let program = sibling_program("berth-announcer", "BERTH_ANNOUNCER")?;
    let output = world.lab.node(0).place()?.output([program.as_os_str(), OsStr::new("sweep")])?;
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    ensure!(output.status.success(), "{said:?}");
    Ok(said.concat())
}

/// What the node has of announcers, as the script of the docs shows it; nothing if it is empty.
fn on_node(world: &World) -> Result<String> {
    let script = fs::read_to_string(repository().join("docs/moving/berth-on-node.sh"))?;
    let output = world.lab.node(0).place()?.output(["sh", "-c", &script])?;
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() == shown.is_empty(), "{}: {shown}", output.status);
    Ok(shown)
}

/// Nothing of both programs is left, and the namespace goes.
async fn is_clean(world: &World) -> Result<()> {
    ensure!(world.claims().await?.is_empty(), "claims are left");
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "kube-system");
    let leases = leases.list(&ListParams::default()).await?;
    let left: Vec<String> = leases.items.iter().map(ResourceExt::name_any).collect();
    let is_ours = |name: &String| name.contains("berth") || name.contains("vip");
    ensure!(!left.iter().any(is_ours), "{left:?}");
    let web = world.service("web").await?;
    ensure!(web.finalizers().is_empty() && web.labels().contains_key("implementation"), "{web:?}");
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces.delete("shop", &DeleteParams::default()).await?;
    eventually("the namespace is gone", 60, || async {
        Ok(namespaces.get_opt("shop").await?.is_none().then_some(()))
    })
    .await?;
    world.delete("web").await
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstalled_as_the_readme_says_with_services_and_elastic_ips_left_nothing_hangs()
-> Result<()> {
    let world = installed().await?;
    let refused = shell(&world, "berth-ccm uninstall || [ $? = 2 ]")?;
    ensure!(refused.contains("runs. Delete it first"), "{refused}");
    ensure!(world.claims().await?.len() == 3, "it changes nothing while a program runs");
    let refused = sweep(&world).err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(refused.contains("another announcer runs on this node"), "{refused}");
    ensure!(on_node(&world)?.contains("berth"), "an announcer runs there");
    world.ccm()?.terminate(END)?;
    announcer(&world)?.terminate(END)?;
    let left = on_node(&world)?;
    ensure!(left.is_empty(), "{left}");
    let said = shell(&world, &commands()?)?;
    ensure!(
        said.contains("finalizers of 2 Services and 1 EipBindings taken off, 3 claims"),
        "{said}"
    );
    is_clean(&world).await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_manifests_were_deleted_first_and_an_announcer_was_killed_the_commands_end_it()
-> Result<()> {
    let world = installed().await?;
    let vips: Vec<String> =
        world.published("web", 1).await?.iter().map(ToString::to_string).collect();
    world.ccm()?.terminate(END)?;
    announcer(&world)?.kill()?;
    let left = on_node(&world)?;
    ensure!(vips.iter().all(|vip| left.contains(vip)), "its addresses are left, {vips:?}: {left}");
    shell(&world, "kubectl delete -k manifests/ --ignore-not-found --wait=false")?;
    let crd = "kubectl wait --for=delete crd/eipbindings.berth.dev --timeout=";
    ensure!(shell(&world, &format!("{crd}5s")).is_err(), "it hangs on a finalizer");
    shell(&world, "berth-ccm uninstall")?;
    shell(&world, &format!("{crd}60s"))?;
    is_clean(&world).await?;
    // Nobody comes after the announcer that was killed.
    let left = on_node(&world)?;
    ensure!(left.contains("berth-fence"), "what was killed leaves its fence: {left}");
    let program = sibling_program("berth-announcer", "BERTH_ANNOUNCER")?;
    let bare = ["setpriv", "--bounding-set=-net_admin"].map(OsStr::new);
    let bare = bare.into_iter().chain([program.as_os_str(), OsStr::new("sweep")]);
    let refused = world.lab.node(0).place()?.output(bare)?;
    let told = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && told.contains("CAP_NET_ADMIN"), "without rights: {told}");
    let said = sweep(&world)?;
    let left = on_node(&world)?;
    ensure!(left.is_empty(), "{left}{said}");
    world.lab.down()
}
