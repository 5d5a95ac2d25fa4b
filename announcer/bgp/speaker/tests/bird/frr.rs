//! FRR's unnumbered sessions: it knows whom it may speak to by router advertisements, and is known by its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use berth_bgp::{Family, Parameters, Stop};
use berth_bgp_speaker::{Target, router_on};

use crate::router::{Namespace, SEARCHED, cable};
use crate::speaker::{block_on, hosts, parameters, speak, target};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

const CONFIGURED: &str = "
router bgp 65001
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 neighbor eth0 interface remote-as external
 address-family ipv6 unicast
  neighbor eth0 activate
 exit-address-family
";

/// zebra and bgpd of FRR in a namespace.
struct Frr {
    node: Namespace,
    _router: Namespace,
    daemons: Vec<Child>,
    folder: PathBuf,
}

impl Frr {
    fn start() -> Self {
        let (node, router) = cable();
        let folder = std::env::temp_dir().join(format!("berth-frr-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("bgpd.conf"), CONFIGURED).unwrap();
        fs::write(folder.join("zebra.conf"), "").unwrap();
        // Its daemons have an account of their own.
        let owner = Command::new("chown").args(["-R", "frr:frr"]).arg(&folder).status();
        assert!(owner.unwrap().success(), "FRR is needed: Debian's package frr");
        let mut frr = Self { node, _router: router, daemons: vec![], folder };
        for daemon in ["zebra", "bgpd"] {
            let child = frr._router.within(|| {
                let file = |name: String| frr.folder.join(name).display().to_string();
                let mut command = Command::new(format!("/usr/lib/frr/{daemon}"));
                command.args(["-f", &file(format!("{daemon}.conf"))]);
                command.args(["-i", &file(format!("{daemon}.pid"))]);
                command.args(["-z", &file("zserv.api".to_owned())]);
                command.args(["--vty_socket", &frr.folder.display().to_string()]);
                command.args(["-P", "0"]);
                command.args(["--log", &format!("file:{}", file(format!("{daemon}.log")))]);
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                command.spawn().expect("FRR is needed: Debian's package frr")
            });
            frr.daemons.push(child);
            let (begun, socket) = (Instant::now(), frr.folder.join(format!("{daemon}.vty")));
            while !socket.exists() {
                assert!(begun.elapsed() < PATIENCE, "{}", frr.log());
                thread::sleep(Duration::from_millis(10));
            }
        }
        frr
    }

    /// What FRR says to a command.
    fn says(&self, command: &str) -> String {
        let mut vtysh = Command::new("vtysh");
        vtysh.env("PATH", SEARCHED).arg("--vty_socket").arg(&self.folder).args(["-c", command]);
        let output = vtysh.output().expect("vtysh is needed");
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).into_owned()
    }

    fn until(&self, command: &str, is: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let said = self.says(command);
            if is(&said) {
                return said;
            }
            assert!(begun.elapsed() < PATIENCE, "{command}: {said}\n{}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        let log = |daemon: &str| fs::read_to_string(self.folder.join(format!("{daemon}.log")));
        ["zebra", "bgpd"].map(|daemon| log(daemon).unwrap_or_default()).concat()
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn an_unnumbered_session_with_frr_carries_both_families_by_the_link_alone() {
    let frr = Frr::start();
    frr.node.within(|| {
        block_on(async {
            let found = router_on("eth0", 179).await.unwrap();
            assert_eq!(found.ip().to_string(), "fe80::1");
            let unnumbered = Target {
                remote: found,
                interface: Some("eth0".to_owned()),
                ..target("192.0.2.1:179")
            };
            let parameters = Parameters {
                families: Family::ALL.into(),
                connect_retry: Duration::from_secs(1),
                ..parameters()
            };
            let speaker = speak(unnumbered, parameters, hosts("198.51.100.1", 1), false).await;
            speaker.until_up().await;
            let said = frr
                .until("show bgp ipv4 unicast 198.51.100.1/32", |said| said.contains("fe80::11"));
            assert!(said.contains("eth0"), "{said}");
            speaker.handle.stop(Stop::Removed).await.unwrap();
            frr.until("show bgp ipv4 unicast 198.51.100.1/32", |said| !said.contains("fe80::11"));
        });
    });
}
