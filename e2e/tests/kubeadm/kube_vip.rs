//! From kube-vip's static pod to ours and back, by the files of `/etc/kubernetes/manifests`: kube-vip itself, as whoever asks for
//! it has built it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use berth_e2e::image::{Image, Layer};
use berth_e2e::wire::disputed;
use berth_e2e::world::eventually;

use crate::gaps::Gaps;
use crate::scene::{ADDRESS, PORT, Scene};

/// The program; without it there is nothing to move from.
const PROGRAM: &str = "KUBE_VIP";

const THEIRS: &str = "kubernetes/manifests/kube-vip.yaml";
/// Where a file lies that the kubelet is not to read.
const AWAY: &str = "kubernetes/kube-vip.yaml";

/// Its Pod as it prints it, by the kubeconfig that the machine has when it starts: what people do for kubeadm 1.29 and later.
fn pod(program: &Path, image: &str, i: usize) -> Result<String> {
    let config = if i == 0 { "super-admin.conf" } else { "admin.conf" };
    let given = format!(
        "manifest pod --controlplane --arp --leaderElection --interface eth0 --address {ADDRESS} --leaseDuration 5 \
         --leaseRenewDuration 3 --leaseRetry 1 --k8sConfigPath /etc/kubernetes/{config}"
    );
    let printed = Command::new(program).args(given.split_whitespace()).output()?;
    let text = String::from_utf8(printed.stdout)?;
    let own = text.lines().find_map(|line| line.trim().strip_prefix("image: "));
    let own = own.with_context(|| format!("no image in {text}"))?;
    Ok(text.replace(own, image).replace("imagePullPolicy: Always", "imagePullPolicy: Never"))
}

/// Waits until no container of it runs on a machine.
async fn is_gone(scene: &Scene, i: usize) -> Result<()> {
    eventually("kube-vip has ended", 60, || async {
        let found = scene.machine(i).output(["pgrep", "--exact", "kube-vip"])?;
        Ok((!found.status.success()).then_some(()))
    })
    .await
}

/// The machine without the address first.
async fn order(scene: &Scene) -> Result<[usize; 2]> {
    let has = scene.owner(&[0, 1], 30).await?;
    Ok([1 - has, has])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_of_kube_vips_static_pod_goes_over_to_ours_and_back() -> Result<()> {
    let program = std::env::var_os(PROGRAM).context("KUBE_VIP is to name the program")?;
    let program = Path::new(&program);
    let scene = Scene::up(2, PORT).await?;
    let image = Image::new("kube-vip", &["/kube-vip"]);
    let image = image.layer(Layer::new().copy("/kube-vip", program)?.libraries_of(program)?);
    let archive = image.write(scene.lab.dir().path())?.display().to_string();
    for i in [0, 1] {
        let machine = scene.machine(i);
        machine.exec(["ctr", "--namespace=k8s.io", "images", "import", &archive])?;
        fs::write(machine.file(THEIRS)?, pod(program, &image.reference(), i)?)?;
    }
    tokio::task::block_in_place(|| scene.init())?;
    tokio::task::block_in_place(|| scene.join(1))?;
    scene.ready(&[0, 1], 120).await?;

    let (wire, begun) = (scene.lab.watch()?, Instant::now());
    let client = Gaps::start(&scene.lab, SocketAddr::new(ADDRESS, PORT))?;
    for i in order(&scene).await? {
        let machine = scene.machine(i);
        fs::rename(machine.file(THEIRS)?, machine.file(AWAY)?)?;
        is_gone(&scene, i).await?;
        scene.place_pod(i)?;
        scene.settled(&[i], 60).await?;
    }
    scene.owner(&[0, 1], 30).await?;
    scene.ready(&[0, 1], 60).await?;
    println!("from kube-vip: away for {:.1?} at most", client.finish()?);

    let client = Gaps::start(&scene.lab, SocketAddr::new(ADDRESS, PORT))?;
    for i in order(&scene).await? {
        let machine = scene.machine(i);
        scene.take_pod(i).await?;
        fs::rename(machine.file(AWAY)?, machine.file(THEIRS)?)?;
    }
    scene.owner(&[0, 1], 60).await?;
    scene.ready(&[0, 1], 60).await?;
    println!("back to kube-vip: away for {:.1?} at most", client.finish()?);
    let record = wire.finish()?;
    ensure!(!disputed(&record.since(ADDRESS, begun)), "two answer\n{}", scene.logs());
    scene.lab.down()
}
