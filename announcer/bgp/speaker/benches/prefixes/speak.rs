//! The speaker, as a process of its own: this program again.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Instant;

use berth_bgp::config::Distance;
use berth_bgp::{NextHops, Parameters, Prefix, RemoteAs, Role, Routes, Session};
use berth_bgp_speaker::{Target, spawn};
use lab_routers::{Cable, Namespace};
use tokio::sync::mpsc;

use crate::{Announcer, Known, OWN, THEIRS};

/// What this program is told to be it.
pub(crate) const MODE: &str = "--speak";

/// The first prefix.
pub(crate) const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

pub(crate) struct Berth;

impl Announcer for Berth {
    fn start(&mut self, node: &Namespace, count: u32, known: Known) -> Child {
        let own = std::env::current_exe().unwrap().display().to_string();
        let known = if known == Known::Later { "later" } else { "start" };
        crate::spawn(node, &own, &[MODE, &count.to_string(), known], Stdio::null())
    }

    fn give(&mut self, child: &mut Child) {
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

/// Announces so many to the routers of all three cables, at once or when there is something on standard input.
pub(crate) fn run(count: u32, later: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let given = routes(count);
        let mut handles = Vec::new();
        for number in 0..3 {
            let (_, nobody) = mpsc::channel(1);
            let cable = Cable(number);
            let parameters = Parameters {
                role: Role::Active,
                ..Parameters::new(OWN, RemoteAs::Is(THEIRS), Cable(0).v4(11))
            };
            let mut session = Session::new(Instant::now(), parameters, number.into());
            if !later {
                session.set_routes(given.clone());
            }
            let (handle, _) = spawn(target(cable), session, Arc::new(own), nobody);
            handle.start(None).await.unwrap();
            handles.push(handle);
        }
        if later {
            let told = || std::io::stdin().read_line(&mut String::new());
            tokio::task::spawn_blocking(told).await.unwrap().unwrap();
            for handle in &handles {
                handle.set_routes(given.clone()).await.unwrap();
            }
        }
        std::future::pending::<()>().await;
    });
}

fn routes(count: u32) -> Routes {
    let shared = Arc::default();
    let host = |n| Prefix::host(Ipv4Addr::from_bits(FIRST.to_bits() + n).into());
    (0..count).map(|n| (host(n), Arc::clone(&shared))).collect()
}

fn target(cable: Cable) -> Target {
    Target {
        remote: SocketAddr::from((cable.v4(1), 179)),
        source: None,
        interface: None,
        key: None,
        distance: Distance::Near,
        external: true,
    }
}

fn own(address: SocketAddr, _: NextHops) -> NextHops {
    let v4 = match address.ip() {
        IpAddr::V4(own) => Some(own),
        IpAddr::V6(_) => None,
    };
    NextHops { v4, ..NextHops::default() }
}
