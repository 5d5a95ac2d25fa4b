//! What users of other announcers have met, tried on this one: e2e/field/README.md names the reports.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use berth_announcer::advertise::arp_nd::frame;
use berth_announcer::advertise::arp_nd::schedule::Frame;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::life::{get, records};
use crate::namespace::{address, attempt, run};
use crate::{ADDRESS, Election, Peer, SOON, Scene, Test, listen, real, signal_to};

const SIX: &str = "2001:db8::1";
pub(crate) const CLOSES: (&str, &str) = ("enable_service_security", "true");

pub(crate) fn tests() -> Vec<(String, Test)> {
    // The longest first.
    tests![
        nft_that_hangs_keeps_no_address_away_and_nobody_from_ending,
        a_table_of_our_name_that_another_program_owns_is_waited_for_by_nobody,
        a_kernel_that_takes_a_part_of_the_guard_has_that_part_and_it_is_told,
        without_nft_who_has_not_asked_for_closed_ports_is_ready,
        a_port_of_a_bridge_stands_for_the_bridge,
        a_family_that_the_interface_lacks_is_told_and_the_other_one_served,
        an_interface_may_be_down_at_first_change_its_hardware_address_and_be_renamed,
        what_is_lost_in_a_storm_of_changes_is_found,
        sockets_of_interfaces_that_are_gone_are_closed,
        a_log_that_nobody_reads_holds_up_nothing,
        a_hangup_is_an_end_as_any_other_but_where_it_is_ignored,
        the_address_of_the_node_itself_stays_its_own,
        an_alternative_name_of_an_interface_is_one_of_its_names,
        the_loopback_interface_is_no_lan,
    ]
}

impl Scene {
    pub(crate) fn settings(&self, settings: &[(&str, &str)]) -> Child {
        let mut command = self.command(real(), Election::Membership, None, &self.log);
        command.envs(settings.iter().copied()).spawn().expect("an announcer")
    }

    /// Runs something until it says yes.
    pub(crate) async fn until(&self, what: &str, mut is: impl AsyncFnMut() -> bool) {
        let start = Instant::now();
        while !is().await {
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            assert!(start.elapsed() < SOON, "never: {what}\n{}", log());
            pause(20).await;
        }
    }

    /// How many Events say that ports of the node are open that are to be closed.
    async fn told_of_open_ports(&self) -> usize {
        let events = get(&self.server.to_string(), "/apis/events.k8s.io/v1/events").await;
        events.matches("\"HostPortsOpen\"").count()
    }

    /// The Service has an address of each family.
    fn dual_stack(&self) {
        self.api.put(
            "/api/v1/namespaces/shop/services/web",
            json!({
                "metadata": {
                    "uid": "u",
                    "annotations": { "kube-vip.io/loadbalancerIPs": format!("{ADDRESS},{SIX}") },
                },
                "spec": { "type": "LoadBalancer", "ports": [{ "port": 80, "protocol": "TCP" }] },
            }),
        );
        self.api.put(
            "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/web-2",
            json!({
                "metadata": { "labels": { "kubernetes.io/service-name": "web" } },
                "addressType": "IPv6",
                "ports": [{ "port": 8080, "protocol": "TCP" }],
                "endpoints": [{
                    "addresses": ["fd00::1"], "conditions": { "ready": true }, "nodeName": "node-a",
                }],
            }),
        );
    }
}

pub(crate) async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

async fn ready() -> String {
    get("127.0.0.1:2112", "/readyz").await
}

/// What the announcer refuses of an address.
async fn refusals(of: &str) -> Value {
    let page = get("127.0.0.1:2112", "/debug/vips").await;
    let body = page.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    let known = records(&body).into_iter().find(|record| record["address"] == of);
    known.unwrap_or_default()["refusals"].clone()
}

fn mac_of(interface: &str) -> String {
    let shown: Value = serde_json::from_str(&run(&format!("ip -j link show {interface}"))).unwrap();
    shown[0]["address"].as_str().unwrap().to_owned()
}

impl Peer {
    /// Waits until this hardware address answers.
    async fn is_answered_by(&mut self, mac: &str, scene: &Scene) {
        let start = Instant::now();
        loop {
            let bytes = frame::probe(ADDRESS.parse().unwrap(), [2, 0, 0, 0, 0, 9], *b"theirs");
            // The interface at the other end of the cable may be down for a moment.
            let _ = self.sockets.send(&Frame { index: self.index, bytes });
            let line = tokio::time::timeout(Duration::from_millis(50), self.heard.next_line());
            if let Ok(line) = line.await
                && line.unwrap().is_some_and(|line| line.contains(&format!("is-at {mac}")))
            {
                return;
            }
            let log = || fs::read_to_string(&scene.log).unwrap_or_default();
            assert!(start.elapsed() < SOON, "{mac} never answers\n{}", log());
        }
    }
}

async fn an_alternative_name_of_an_interface_is_one_of_its_names() {
    run("ip link property add dev eth0 altname uplink-of-this-node");
    run("ip link property add dev eth0 altname uplink");
    let scene = Scene::new().await;
    // kube-vip binds an address with what this says (kube-vip#324).
    let announcer = scene.settings(&[("vip_interface", "uplink"), ("vip_cidr", "29")]);
    Peer::new().await.until(true, "an alternative name", &scene.log).await;
    assert_eq!(address("eth0", ADDRESS).unwrap()["prefixlen"], 32);
    let log = fs::read_to_string(&scene.log).unwrap();
    assert!(log.contains("vip_cidr=29 is not done"), "{log}");
    scene.leaves(announcer).await;
}

async fn the_loopback_interface_is_no_lan() {
    let scene = Scene::new().await;
    let announcer = scene.settings(&[("vip_interface", "lo")]);
    let told =
        async || ready().await.contains(r#"interface "lo" of node node-a has no Ethernet address"#);
    scene.until("lo is refused", told).await;
    assert!(!Peer::new().await.is_answered().await);
    scene.leaves(announcer).await;
}

async fn a_log_that_nobody_reads_holds_up_nothing() {
    let scene = Scene::new().await;
    let (reader, writer) = nix::unistd::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    let mut command = scene.command(real(), Election::Membership, None, &scene.log);
    let mut announcer = command.stderr(writer).spawn().unwrap();
    drop(command);
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    for _ in 0..20 {
        signal_to(&announcer, Signal::SIGUSR1);
        pause(20).await;
    }
    for _ in 0..3 {
        run(&format!("ip addr del {ADDRESS}/32 dev eth0"));
        scene.until("it is back", async || address("eth0", ADDRESS).is_some()).await;
    }
    let page = get("127.0.0.1:2112", "/debug/vips").await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    signal_to(&announcer, Signal::SIGTERM);
    let status = tokio::time::timeout(SOON, announcer.wait()).await.expect("it leaves").unwrap();
    assert!(status.success());
    assert!(address("eth0", ADDRESS).is_none());
    drop(reader);
}

async fn a_hangup_is_an_end_as_any_other_but_where_it_is_ignored() {
    let scene = Scene::new().await;
    let command = scene.command(real(), Election::Membership, None, &scene.log);
    // Where these tests are run under nohup themselves, it is ignored by whatever they start.
    let mut announcer = under(&["env", "--default-signal=HUP"], &command).spawn().unwrap();
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    signal_to(&announcer, Signal::SIGHUP);
    let status = tokio::time::timeout(SOON, announcer.wait()).await.expect("it leaves").unwrap();
    assert!(status.success() && address("eth0", ADDRESS).is_none(), "{status}");
    assert_eq!(run("nft list ruleset"), "");

    let announcer = under(&["nohup"], &command).spawn().unwrap();
    peer.until(true, "under nohup", &scene.log).await;
    signal_to(&announcer, Signal::SIGHUP);
    pause(500).await;
    assert!(peer.is_answered().await, "it goes on");
    scene.leaves(announcer).await;
}

/// The same, started by another program with these arguments.
fn under(program: &[&str], command: &Command) -> Command {
    let command = command.as_std();
    let mut outer = Command::new(program[0]);
    outer.args(&program[1..]).arg(real()).arg("manager").stdin(Stdio::null()).stdout(Stdio::null());
    let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    outer.envs(set).kill_on_drop(true).stderr(Stdio::null());
    outer
}

async fn a_port_of_a_bridge_stands_for_the_bridge() {
    const BRIDGE: &str = "02:00:00:00:00:42";
    let scene = Scene::new().await;
    scene.dual_stack();
    let announcer = scene.settings(&[]);
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    // As a virtualization host does with its only interface.
    run(&format!("ip link add br0 address {BRIDGE} type bridge"));
    run("ip link set br0 up");
    run("ip link set eth0 master br0");
    for (own, nodad) in [("192.0.2.250/24", ""), ("2001:db8::250/64", " nodad")] {
        run(&format!("ip addr del {own} dev eth0"));
        run(&format!("ip addr add {own} dev br0{nodad}"));
    }
    let on = |interface| address(interface, ADDRESS).is_some() && address(interface, SIX).is_some();
    scene.until("both are on the bridge", async || on("br0")).await;
    peer.is_answered_by(BRIDGE, &scene).await;
    // The announcements of a takeover look the same: there are fewer of them.
    let (_tcpdump, mut heard) = listen("icmp6 and ip6[40] = 136").await;
    for _ in 0..20 {
        let bytes = frame::probe(SIX.parse().unwrap(), [2, 0, 0, 0, 0, 9], *b"theirs");
        peer.sockets.send(&Frame { index: peer.index, bytes }).unwrap();
        pause(50).await;
    }
    let mut answers = 0;
    while let Ok(line) = tokio::time::timeout(Duration::from_millis(300), heard.next_line()).await {
        answers += usize::from(line.unwrap().is_some_and(|line| line.contains(SIX)));
    }
    assert!(answers >= 15, "{answers} answers to 20 questions");

    run("ip link set eth0 nomaster");
    scene.until("both are back", async || on("eth0")).await;
    let own = mac_of("eth0");
    peer.is_answered_by(&own, &scene).await;
    scene.leaves(announcer).await;
}

async fn sockets_of_interfaces_that_are_gone_are_closed() {
    const AGAIN: usize = 12;
    let scene = Scene::new().await;
    let make = || {
        run("ip link add lan0 link eth0 type macvlan mode bridge");
        run("ip link set lan0 up");
    };
    make();
    let announcer = scene.settings(&[("vip_interface", "lan0")]);
    let mut peer = Peer::new().await;
    let pid = announcer.id().unwrap();
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let own = mac_of("lan0");
    peer.is_answered_by(&own, &scene).await;
    let before = descriptors();
    for _ in 0..AGAIN {
        run("ip link del lan0");
        make();
        let own = mac_of("lan0");
        peer.is_answered_by(&own, &scene).await;
    }
    let few = async || descriptors() < before + AGAIN / 2;
    scene.until("descriptors are closed", few).await;
    scene.leaves(announcer).await;
}

/// A program of this name that comes first in the path.
pub(crate) fn replace(scene: &Scene, program: &str, script: &str) -> String {
    let (folder, new) = (scene.folder.join("bin"), scene.folder.join("new"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, folder.join(program)).unwrap();
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

async fn nft_that_hangs_keeps_no_address_away_and_nobody_from_ending() {
    /// What the manifest gives a pod to end.
    const GRACE: Duration = Duration::from_secs(15);
    let scene = Scene::new().await;
    let path = replace(&scene, "nft", "exec sleep 1000");
    let start = Instant::now();
    let mut announcer = scene.settings(&[("PATH", &path), CLOSES]);
    let mut peer = Peer::new().await;
    scene.until("it tells that it lives", async || ready().await.contains("HTTP")).await;
    assert!(start.elapsed() < Duration::from_secs(10), "probes were not answered before");
    peer.until(true, "without a guard", &scene.log).await;
    let told = "nothing heard of nft for 5s; it is tried again";
    scene
        .until("it is not ready", async || ready().await.contains(&format!("guard: {told}")))
        .await;
    scene.until("the Service is told", async || scene.told_of_open_ports().await == 1).await;
    let logged = || fs::read_to_string(&scene.log).unwrap().matches(told).count();
    scene.until("the log says it", async || logged() > 0).await;
    assert_eq!(logged(), 1, "once is enough");
    let told = Instant::now();
    signal_to(&announcer, Signal::SIGTERM);
    let status = tokio::time::timeout(SOON, announcer.wait()).await.expect("it leaves").unwrap();
    assert!(status.success() && told.elapsed() < GRACE, "{status} after {:?}", told.elapsed());
    assert!(address("eth0", ADDRESS).is_none());
}

async fn a_table_of_our_name_that_another_program_owns_is_waited_for_by_nobody() {
    let scene = Scene::new().await;
    let mut nft = Command::new("nft")
        .arg("-i")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = nft.stdin.take().unwrap();
    input.write_all(b"add table inet berth { flags owner; }\n").await.unwrap();
    input.flush().await.unwrap();
    let is_owned = async || run("nft list ruleset").contains("flags owner");
    scene.until("the table is there", is_owned).await;
    let announcer = scene.settings(&[CLOSES]);
    Peer::new().await.until(true, "without a guard", &scene.log).await;
    let log = fs::read_to_string(&scene.log).unwrap();
    assert!(log.contains("no guard in nftables") && log.contains("not permitted"), "{log}");
    let unready = ready().await;
    let owned =
        format!("the table inet berth belongs to another program (process {}", nft.id().unwrap());
    assert!(unready.contains(&owned) && unready.contains("not permitted"), "{unready}");
    assert!(get("127.0.0.1:2112", "/healthz").await.starts_with("HTTP/1.1 200"));
    scene.until("the Service is told", async || scene.told_of_open_ports().await == 1).await;
    drop(input);
    nft.wait().await.unwrap();
    let guarded = async || run("nft list ruleset").contains(ADDRESS);
    scene.until("the guard is made when the table is free", guarded).await;
    scene.until("it is ready", async || !ready().await.contains("guard")).await;
    assert_eq!(scene.told_of_open_ports().await, 1, "once is enough");
    scene.leaves(announcer).await;
}

async fn a_kernel_that_takes_a_part_of_the_guard_has_that_part_and_it_is_told() {
    let scene = Scene::new().await;
    let nft = run("which nft");
    let script = format!(
        "nft={}\ncase \"$*\" in *-f*) ;; *) exec $nft \"$@\" ;; esac\ninput=$(cat)\n\
         case $input in *fib*) echo 'Error: no fib here' >&2; exit 1 ;; esac\n\
         printf '%s\\n' \"$input\" | exec $nft -f -",
        nft.trim()
    );
    let path = replace(&scene, "nft", &script);
    let announcer = scene.settings(&[("PATH", &path), CLOSES]);
    Peer::new().await.until(true, "it serves", &scene.log).await;
    let is_closed = async |address: &str| {
        let set = attempt(&format!(
            "nft list set inet berth closed{}",
            if address.contains(':') { 6 } else { 4 }
        ));
        String::from_utf8_lossy(&set.stdout).contains(address)
    };
    scene.until("ports are closed", async || is_closed(ADDRESS).await).await;
    assert!(ready().await.contains("guard: nft: Error: no fib here"), "{}", ready().await);
    scene.dual_stack();
    scene.until("and of what comes later", async || is_closed(SIX).await).await;
    scene.leaves(announcer).await;
}

async fn without_nft_who_has_not_asked_for_closed_ports_is_ready() {
    let scene = Scene::new().await;
    let path = replace(&scene, "nft", "exit 1");
    let mut announcer = scene.settings(&[("PATH", &path)]);
    Peer::new().await.until(true, "without a guard", &scene.log).await;
    pause(8000).await;
    let said = ready().await;
    assert!(!said.contains("guard") && scene.told_of_open_ports().await == 0, "{said}");
    signal_to(&announcer, Signal::SIGTERM);
    let status = tokio::time::timeout(SOON, announcer.wait()).await.expect("it leaves").unwrap();
    assert!(status.success());
}

async fn a_family_that_the_interface_lacks_is_told_and_the_other_one_served() {
    run("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1");
    let scene = Scene::new().await;
    scene.dual_stack();
    let announcer = scene.settings(&[]);
    Peer::new().await.until(true, "IPv4 is served", &scene.log).await;
    let server = scene.server.to_string();
    let told = async || {
        let events = get(&server, "/apis/events.k8s.io/v1/events").await;
        events.contains("NotBound") && events.contains(SIX)
    };
    scene.until("the Service is told", told).await;
    assert_eq!(refusals(SIX).await, json!(["NotBound"]));
    let log = fs::read_to_string(&scene.log).unwrap();
    assert_eq!(log.matches("Permission denied").count(), 1, "once is enough: {log}");
    run("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0");
    // Without a route of the family nobody could be answered yet.
    let told = async || refusals(SIX).await.to_string().contains("NoWayBack");
    scene.until("the Service is told what it lacks now", told).await;
    run("ip addr add 2001:db8::250/64 dev eth0 nodad");
    scene.until("IPv6 is served", async || address("eth0", SIX).is_some()).await;
    scene.until("nothing is refused", async || refusals(SIX).await == json!([])).await;
    scene.leaves(announcer).await;
}

async fn the_address_of_the_node_itself_stays_its_own() {
    run(&format!("ip addr add {ADDRESS}/24 dev eth0"));
    let scene = Scene::new().await;
    let mut announcer = scene.settings(&[]);
    let refused = async || refusals(ADDRESS).await == json!(["AddressOnHost"]);
    scene.until("the Service is refused", refused).await;
    pause(500).await;
    let mut peer = Peer::new().await;
    assert!(peer.is_answered().await, "the node is on the LAN still");
    signal_to(&announcer, Signal::SIGTERM);
    assert!(announcer.wait().await.unwrap().success());
    assert!(peer.is_answered().await, "and stays there");
}

async fn an_interface_may_be_down_at_first_change_its_hardware_address_and_be_renamed() {
    const OTHER: &str = "02:00:00:00:00:77";
    run("ip link set eth0 down");
    let scene = Scene::new().await;
    let announcer = scene.settings(&[]);
    let down = async || ready().await.contains(r#"interface "eth0" of node node-a has no carrier"#);
    scene.until("it says what it waits for", down).await;
    run("ip link set eth0 up");
    let mut peer = Peer::new().await;
    peer.until(true, "it is up", &scene.log).await;
    run(&format!("ip link set eth0 address {OTHER}"));
    peer.is_answered_by(OTHER, &scene).await;
    run("ip link set eth0 name lan9");
    scene.until("it goes with the name", async || address("lan9", ADDRESS).is_none()).await;
    run("ip link set lan9 name eth0");
    peer.is_answered_by(OTHER, &scene).await;
    scene.leaves(announcer).await;
}

async fn what_is_lost_in_a_storm_of_changes_is_found() {
    let scene = Scene::new().await;
    let announcer = scene.settings(&[("vip_loglevel", "-4")]);
    let mut peer = Peer::new().await;
    peer.until(true, "it serves", &scene.log).await;
    // More than the kernel keeps for whoever does not listen.
    signal_to(&announcer, Signal::SIGSTOP);
    let change = |verb: &str, number: u32| {
        format!("addr {verb} 127.1.{}.{}/32 dev lo\n", number / 250, number % 250 + 1)
    };
    let storm: String = (0..4000).map(|number| change("add", number)).collect();
    fs::write(scene.folder.join("storm"), storm).unwrap();
    run(&format!("ip -batch {}", scene.folder.join("storm").display()));
    let _ = attempt(&format!("ip addr del {ADDRESS}/32 dev eth0"));
    assert!(address("eth0", ADDRESS).is_none());
    signal_to(&announcer, Signal::SIGCONT);
    scene.until("it is bound again", async || address("eth0", ADDRESS).is_some()).await;
    peer.until(true, "what was lost is found", &scene.log).await;
    let log = fs::read_to_string(&scene.log).unwrap();
    assert!(log.contains("netlink events overran"), "the storm was too small");
    scene.leaves(announcer).await;
}
