//! How an announcer reaches its API server: where it has the control plane's address, that of its own node, which is asked
//! whether it is healthy.

use berth_api::host::{ControlPlane as Words, Told};
use berth_runtime::http::Health;
use berth_runtime::supervise::Supervisor;
use kube::Client;
use tokio::sync::watch;

use super::ties::connect;
use crate::config::{Api, Config, ControlPlane};
use crate::control_plane::access::{self, Way};
use crate::control_plane::{certificate, checker};
use crate::kernel::{Host, Left};
use crate::ownership::health::Standing;

/// What is known of the API server of this node, for whoever decides by it and for the other nodes.
pub(super) struct Known {
    pub(super) standing: watch::Receiver<Standing>,
    pub(super) told: watch::Receiver<Option<Told>>,
}

impl Known {
    /// Nothing, and nothing ever will be.
    pub(super) fn nothing() -> Self {
        Self { standing: watch::channel(Standing::default()).1, told: watch::channel(None).1 }
    }
}

/// A client of the API server, and what becomes known of its health.
pub(super) async fn reach(
    config: &Config,
    api: &Api,
    health: &Health,
    supervisor: &mut Supervisor,
) -> anyhow::Result<(Client, Known)> {
    let Some(own) = &config.control_plane else {
        return Ok((connect(api).await?, Known::nothing()));
    };
    let (stands, standing) = watch::channel(Standing::default());
    let word = |is_healthy| {
        let addresses = own.addresses.iter().copied().collect();
        Some(Told { control_plane: Words { is_healthy, addresses }, ..Told::default() })
    };
    let words = [word(false), word(true)];
    let (tell, told) = watch::channel(words[0].clone());
    let way = Way::of(api, own);
    let (client, keeping) = access::open(way.clone(), health.clone()).await;
    supervisor.spawn_all([keeping]);
    health.unready(checker::TASK, "not yet");
    let tell = move |standing: Standing| {
        stands.send_replace(standing);
        tell.send_replace(words[usize::from(standing == Standing::Healthy)].clone());
    };
    let looking = certificate::watch(own.addresses.clone(), way.clone(), health.clone());
    supervisor.spawn(certificate::TASK, looking);
    let asking = checker::ask(own.health.clone(), client.clone(), way, health.clone(), tell);
    supervisor.spawn(checker::TASK, asking);
    Ok((client, Known { standing, told }))
}

/// That no address of the control plane is this node's own: bound by us and taken off again, the node would be gone.
///
/// # Errors
/// Which one is, and where.
pub(super) fn are_free(own: Option<&ControlPlane>, host: &Host) -> anyhow::Result<()> {
    for address in own.into_iter().flat_map(|own| &own.addresses) {
        if let Some(interface) = host.has_itself(address, Left::Marked) {
            anyhow::bail!(
                "address={address}: it is an address of this node itself, on interface {interface}; accepted is one that no \
                 host has, and what another program left there goes by: ip address del {address} dev {interface}"
            );
        }
    }
    Ok(())
}
