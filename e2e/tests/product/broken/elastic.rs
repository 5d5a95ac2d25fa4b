//! Elastic IPs in a broken world: of a machine that had one before, and of another that gets one then.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use berth_e2e::vm::{Eips, Vm, install_kubevirt, reason};
use berth_e2e::world::{World, eventually};
use serde_json::{Value, json};

use super::fault::Fault;

/// The node of both machines.
pub(super) const NODE: usize = 0;

/// Machines have the names of their bindings.
const NAMES: [&str; 2] = ["old", "new"];

/// The conditions that tell why an elastic IP is not answered for, what is of the address first.
const CONDITIONS: [&str; 2] = ["Allocated", "Ready"];

/// Both machines and their bindings.
pub(super) struct Elastic {
    eips: Eips,
    machines: [Vm; 2],
    node: String,
    /// What the machines have of each family.
    own: [[IpAddr; 2]; 2],
}

impl Elastic {
    /// Before berth-ccm begins.
    pub(super) fn prepare(world: &World) -> Result<()> {
        install_kubevirt(&world.lab)
    }

    /// Both machines at work, one with an elastic IP of each family.
    pub(super) async fn up(world: &World) -> Result<Self> {
        let place = world.lab.node(NODE);
        let pods = place.addresses();
        let (v4, v6) = (u32::from(pods.pods4.network()), u128::from(pods.pods6.network()));
        let own = [200, 201].map(|last: u8| {
            let (v4, v6) =
                (Ipv4Addr::from(v4 + u32::from(last)), Ipv6Addr::from(v6 + u128::from(last)));
            [IpAddr::from(v4), IpAddr::from(v6)]
        });
        let machines = NAMES.map(|name| Vm::named(&world.client, "default", name));
        let node = place.name().to_owned();
        let elastic = Self { eips: Eips::of(&world.client, "default"), machines, node, own };
        elastic.start(world).await?;
        elastic.bind(NAMES[0]).await?;
        eventually("the first elastic IP", 20, || async {
            let (told, answers, _) = elastic.look(world, NAMES[0]).await?;
            Ok((told.is_none() && answers).then_some(()))
        })
        .await
        .with_context(|| world.logs())?;
        Ok(elastic)
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    async fn start(&self, world: &World) -> Result<()> {
        for (name, own) in NAMES.into_iter().zip(&self.own) {
            let machine = Vm::create(&world.client, "default", name).await?;
            machine.start(&self.node, own).await?;
        }
        Ok(())
    }

    async fn bind(&self, name: &str) -> Result<()> {
        self.eips.create(name, json!({ "vmi": name, "families": ["IPv4", "IPv6"] })).await?;
        Ok(())
    }

    /// The second one comes.
    pub(super) async fn comes(&self) -> Result<()> {
        self.bind(NAMES[1]).await
    }

    pub(super) async fn damage(&self, fault: Fault) -> Result<()> {
        for machine in &self.machines {
            match fault {
                Fault::MachineGone => machine.delete().await?,
                Fault::MachineOff => machine.shut_down().await?,
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) async fn mend(&self, world: &World, fault: Fault) -> Result<()> {
        self.eips.delete(NAMES[1]).await?;
        match fault {
            Fault::MachineGone => self.start(world).await,
            Fault::MachineOff => {
                for (machine, own) in self.machines.iter().zip(&self.own) {
                    machine.start(&self.node, own).await?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether all is as it was before.
    pub(super) async fn is_mended(&self, world: &World) -> Result<bool> {
        let (told, answers, _) = self.look(world, NAMES[0]).await?;
        Ok(told.is_none() && answers && !self.eips.exists(NAMES[1]).await?)
    }

    /// Why a binding is silent, whether all that it was given is on its node and on no other, and what it says of that.
    pub(super) async fn look(
        &self,
        world: &World,
        name: &str,
    ) -> Result<(Option<String>, bool, String)> {
        let status = self.eips.status(name).await?;
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let is = |kind: &str| conditions.iter().find(|shown| shown["type"] == kind);
        // An address that is kept is answered for, whatever is against giving it again.
        let silent = CONDITIONS.into_iter().filter_map(is).find(|shown| shown["status"] == "False");
        if let Some(shown) = silent {
            let why = reason(&status, shown["type"].as_str().unwrap_or_default());
            return Ok((
                Some(why),
                false,
                shown["message"].as_str().unwrap_or_default().to_owned(),
            ));
        }
        let mut given: Vec<IpAddr> = Vec::new();
        for eip in status["eips"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            given.push(eip.parse()?);
        }
        ensure!(given.len() <= 2, "{status:#}");
        let is_there =
            |eip: &IpAddr| world.holders(*eip).is_ok_and(|has| has == [self.node.clone()]);
        let is_held = is("Ready").is_some() && given.len() == 2 && given.iter().all(is_there);
        Ok((None, is_held, String::new()))
    }
}
