//! What keeps the control plane's address on one of the nodes.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use berth_e2e::addresses::Net;
use berth_e2e::control_plane::API_PORT;
use berth_e2e::lab::Lab;
use berth_e2e::place::sibling_program;
use berth_e2e::process::Process;
use berth_e2e::world::env;

/// The address that is kept.
pub(crate) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 64, 99));

/// Where one is started.
pub(crate) struct Seat<'a> {
    pub(crate) lab: &'a Lab,
    /// Which node of it.
    pub(crate) node: usize,
    /// By which the node's own API server is reached.
    pub(crate) kubeconfig: &'a Path,
}

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) enum System {
    /// Berth; the nodes decide among themselves.
    Members,
    /// Berth by a Lease of 5, 3 and 1 s.
    Lease,
    /// keepalived with a check script.
    Keepalived {
        /// Between two checks.
        interval: u32,
        /// How many fail.
        fall: u32,
        /// Between two advertisements.
        advert: Duration,
    },
    /// kube-vip itself by the same Lease, as whoever asks for it has built it.
    KubeVip(PathBuf),
}

impl System {
    /// Those that can be measured here. keepalived's times are those of kubeadm's guide, and brisk ones.
    pub(crate) fn all() -> Vec<Self> {
        let stock = std::env::var_os("KUBE_VIP").map(|path| Self::KubeVip(path.into()));
        let guide = Self::Keepalived { interval: 3, fall: 10, advert: Duration::from_secs(1) };
        let brisk = Self::Keepalived { interval: 1, fall: 2, advert: Duration::from_millis(100) };
        [Self::Members, Self::Lease, brisk, guide].into_iter().chain(stock).collect()
    }

    /// As in the report.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Members => "Berth, members".to_owned(),
            Self::Lease => "Berth, Lease of 5 s".to_owned(),
            Self::Keepalived { interval, fall, advert } => {
                format!("keepalived, check {interval} s × {fall}, advert {advert:?}")
            }
            Self::KubeVip(_) => "kube-vip, Lease of 5 s".to_owned(),
        }
    }

    /// What its metrics say on a node whose API server counts as healthy.
    pub(crate) fn sign_of_health(&self) -> Option<&'static str> {
        let is_ours = matches!(self, Self::Members | Self::Lease);
        is_ours.then_some("berth_announcer_api_server_healthy 1")
    }

    /// Starts it on a node, as a process of this name.
    pub(crate) fn start(&self, seat: &Seat<'_>, name: &str) -> Result<Process> {
        let Seat { lab, node, kubeconfig } = *seat;
        let place = lab.node(node).place()?;
        let config = kubeconfig.display().to_string();
        let (address, port) = (ADDRESS.to_string(), API_PORT.to_string());
        let folder = lab.dir().join(format!("members-{node}")).display().to_string();
        let mut settings = env([
            ("cp_enable", "true"),
            ("svc_enable", "false"),
            ("vip_arp", "true"),
            ("vip_leaderelection", "true"),
            ("address", &address),
            ("port", &port),
            ("vip_interface", Net::Lan.interface()),
            ("vip_nodename", lab.node(node).name()),
            ("k8s_config_file", &config),
        ]);
        let by_lease =
            env([("vip_leaseduration", "5"), ("vip_renewdeadline", "3"), ("vip_retryperiod", "1")]);
        let own = || sibling_program("berth-announcer", "BERTH_ANNOUNCER");
        let program = match self {
            Self::Members => {
                settings
                    .extend(env([("berth_election", "membership"), ("berth_cp_folder", &folder)]));
                own()?
            }
            Self::Lease => {
                settings.extend(by_lease);
                own()?
            }
            Self::KubeVip(program) => {
                settings.extend(by_lease);
                program.clone()
            }
            Self::Keepalived { .. } => {
                let file = lab.dir().join(format!("keepalived-{node}.conf"));
                std::fs::write(&file, self.configuration(node))?;
                let file = format!("--use-file={}", file.display());
                let argv = ["keepalived", "--dont-fork", "--log-console", "--vrrp", &file];
                return place.start(name, argv);
            }
        };
        place.start_with(name, [program.display().to_string(), "manager".to_owned()], settings)
    }

    /// As kubeadm's guide has it (kubernetes/kubeadm, docs/ha-considerations.md), its check asking the API server itself.
    fn configuration(&self, node: usize) -> String {
        let Self::Keepalived { interval, fall, advert } = self else { return String::new() };
        let check = format!(
            "curl --silent --fail --insecure --max-time {interval} --output /dev/null https://127.0.0.1:{API_PORT}/readyz"
        );
        let (state, priority) = if node == 0 { ("MASTER", 101) } else { ("BACKUP", 100 - node) };
        // Intervals below one second need version 3 of the protocol.
        let version = if *advert < Duration::from_secs(1) { 3 } else { 2 };
        format!(
            "global_defs {{\n  router_id LVS_DEVEL\n  script_user root\n}}\n\
             vrrp_script check_apiserver {{\n  script \"/usr/bin/{check}\"\n  interval {interval}\n  weight -10\n  fall {fall}\n  rise 2\n}}\n\
             vrrp_instance VI_1 {{\n  state {state}\n  version {version}\n  interface {}\n  virtual_router_id 51\n  priority {priority}\n  \
             advert_int {}\n  virtual_ipaddress {{\n    {ADDRESS}\n  }}\n  track_script {{\n    check_apiserver\n  }}\n}}\n",
            Net::Lan.interface(),
            advert.as_secs_f64(),
        )
    }
}
