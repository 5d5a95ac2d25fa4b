//! From keepalived and haproxy, as kubeadm's own guide has them (kubernetes/kubeadm, docs/ha-considerations.md), to Berth's
//! static pod, and haproxy away.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::process::Process;
use berth_e2e::wire::disputed;

use crate::gaps::Gaps;
use crate::scene::{ADDRESS, PORT, Scene};

/// Of haproxy on each node: the API servers have theirs.
const BALANCED: u16 = 8443;

/// What is moved from, on one machine.
struct Before {
    keepalived: Process,
    haproxy: Process,
}

/// The guide's files, with the lab's addresses. `localhost` of this machine is of both families, and haproxy of one.
fn begin(scene: &Scene, i: usize, machines: usize) -> Result<Before> {
    let folder = scene.machine(i).file("before")?;
    fs::create_dir_all(&folder)?;
    let check = folder.join("check_apiserver.sh");
    let script = format!(
        "#!/bin/sh\nerrorExit() {{ echo \"*** $*\" 1>&2; exit 1; }}\n\
         curl -sfk --max-time 2 https://127.0.0.1:{BALANCED}/healthz -o /dev/null || errorExit no healthz\n"
    );
    fs::write(&check, script)?;
    let (state, priority) = if i == 0 { ("MASTER", 101) } else { ("BACKUP", 100) };
    let keepalived = format!(
        "global_defs {{\n  router_id LVS_DEVEL\n  script_user root\n}}\n\
         vrrp_script check_apiserver {{\n  script \"/bin/sh {}\"\n  interval 3\n  weight -2\n  fall 10\n  rise 2\n}}\n\
         vrrp_instance VI_1 {{\n  state {state}\n  interface eth0\n  virtual_router_id 51\n  priority {priority}\n  \
         authentication {{\n    auth_type PASS\n    auth_pass 42\n  }}\n  virtual_ipaddress {{\n    {ADDRESS}\n  }}\n  \
         track_script {{\n    check_apiserver\n  }}\n}}\n",
        check.display()
    );
    let servers: String = (0..machines)
        .map(|n| {
            let node = scene.lab.node(n);
            let address = node.addresses().lan.v4;
            format!("  server {} {address}:{PORT} check verify none\n", node.name())
        })
        .collect();
    let haproxy = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         frontend apiserver\n  bind *:{BALANCED}\n  default_backend apiserverbackend\n\
         backend apiserverbackend\n  option httpchk\n  http-check connect ssl\n  http-check send meth GET uri /healthz\n  \
         http-check expect status 200\n  balance roundrobin\n{servers}"
    );
    let start = |program: &str, flag: &[&str], text: &str| -> Result<Process> {
        let file = folder.join(format!("{program}.cfg"));
        fs::write(&file, text)?;
        // The working directory of who starts it is the host's.
        let (path, file) = (format!("/usr/sbin/{program}"), file.display().to_string());
        let begin = ["env", "--chdir=/", path.as_str()];
        let argv = begin.into_iter().chain(flag.iter().copied()).chain([file.as_str()]);
        scene.lab.node(i).place()?.start(program, argv)
    };
    Ok(Before {
        keepalived: start(
            "keepalived",
            &["--dont-fork", "--log-console", "--vrrp", "-f"],
            &keepalived,
        )?,
        haproxy: start("haproxy", &["-db", "-f"], &haproxy)?,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_behind_keepalived_and_haproxy_goes_over_to_our_address() -> Result<()> {
    let machines = 2;
    let scene = Scene::up(machines, BALANCED).await?;
    let before = (0..machines).map(|i| begin(&scene, i, machines)).collect::<Result<Vec<_>>>()?;
    tokio::task::block_in_place(|| scene.init())?;
    tokio::task::block_in_place(|| scene.join(1))?;
    let all: Vec<usize> = (0..machines).collect();
    scene.ready(&all, 120).await?;

    // The node without the address first.
    let has = scene.owner(&all, 20).await?;
    let order = all.iter().copied().filter(|i| *i != has).chain([has]);
    let (wire, begun) = (scene.lab.watch()?, Instant::now());
    let client = Gaps::start(&scene.lab, SocketAddr::new(ADDRESS, BALANCED))?;
    for i in order {
        before[i].keepalived.terminate(Duration::from_secs(10))?;
        scene.place_pod(i)?;
        if i != has {
            scene.runs(i, 60).await?;
            // Whoever does this takes a while, and keepalived has the address still.
            tokio::time::sleep(Duration::from_secs(8)).await;
            ensure!(scene.owner(&all, 5).await? == has, "it moves\n{}", scene.logs());
        }
    }
    scene.settled(&all, 60).await?;
    let owner = scene.owner(&all, 60).await?;
    println!("from keepalived on machine {has} to machine {owner}");
    scene.ready(&all, 60).await?;
    let away = client.finish()?;
    println!("from keepalived: away for {away:.1?} at most");
    // It asks for the address each five seconds, three times then.
    ensure!(away < Duration::from_secs(10), "away for {away:.1?}\n{}", scene.logs());

    // By now haproxy is one more way that may fail: what names its port is given that of the API servers.
    let client = Gaps::start(&scene.lab, SocketAddr::new(ADDRESS, PORT))?;
    let (old, new) = (format!("{ADDRESS}:{BALANCED}"), format!("{ADDRESS}:{PORT}"));
    for (namespace, name) in [
        ("kube-public", "cluster-info"),
        ("kube-system", "kubeadm-config"),
        ("kube-system", "kube-proxy"),
    ] {
        let of = ["--namespace", namespace, "configmap", name];
        let get = [&["get"], &of[..], &["--output=yaml"]].concat();
        let text = scene.kubectl(0, &get)?;
        ensure!(text.contains(&old), "{name} does not name {old}:\n{text}");
        let file = scene.machine(0).file("before/configmap.yaml")?;
        fs::write(&file, text.replace(&old, &new))?;
        scene.kubectl(0, &["replace", "-f", &file.display().to_string()])?;
    }
    for i in &all {
        let machine = scene.machine(*i);
        let edit = format!("s/{old}/{new}/");
        machine.exec(["sh", "-c", &format!("sed -i '{edit}' /etc/kubernetes/*.conf")])?;
        machine.exec(["systemctl", "restart", "kubelet"])?;
    }
    scene.goes_by(PORT);
    let proxies = ["--namespace=kube-system", "rollout", "restart", "daemonset/kube-proxy"];
    scene.kubectl(0, &proxies)?;
    let done =
        ["--namespace=kube-system", "rollout", "status", "daemonset/kube-proxy", "--timeout=90s"];
    scene.kubectl(0, &done).with_context(|| scene.logs())?;
    for one in &before {
        one.haproxy.terminate(Duration::from_secs(10))?;
    }
    scene.ready(&all, 60).await?;
    ensure!(scene.owner(&all, 10).await? == owner, "it moves");
    println!("without haproxy: away for {:.1?} at most", client.finish()?);
    let record = wire.finish()?;
    ensure!(!disputed(&record.since(ADDRESS, begun)), "two answer\n{}", scene.logs());
    scene.lab.down()
}
