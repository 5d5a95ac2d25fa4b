//! What a user does to a Service that is served: another address, another port, its end, and its like again.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use berth_e2e::wire::Asker;
use berth_e2e::world::{ADDRESSES, curl_port, eventually, ingress};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::case::{Exposed, Step};
use super::play::{GAP, Play};
use crate::scene::ASK;

impl Play<'_> {
    /// Does it, or finds it as it is to be. False if it is none of these.
    pub(super) async fn edit(&mut self, step: &Step) -> Result<bool> {
        match step {
            Step::Asks { of, number, field } => self.asks(of, *number, *field).await?,
            Step::Deleted(name) => self.delete(name).await?,
            Step::Remade(name) => {
                let exposed = self.service(name)?.exposed.clone();
                self.remake(name, &exposed).await?;
            }
            Step::Port { of, port } => {
                self.begin();
                let ports = json!([{ "port": port, "targetPort": 8080 }]);
                self.patch(of, json!({ "spec": { "ports": ports } })).await?;
            }
            Step::Refuses { of, port } => {
                let (address, outside) = (self.address(of)?, self.stage.world.lab.outside());
                let refuses = || async { Ok(curl_port(&outside, address, *port).err().map(drop)) };
                eventually("nobody answers", 10, refuses).await?;
            }
            Step::Left(name) => self.left(name).await?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    async fn patch(&self, name: &str, patch: serde_json::Value) -> Result<()> {
        let merge = Patch::Merge(&patch);
        self.services().patch(name, &PatchParams::default(), &merge).await?;
        Ok(())
    }

    async fn asks(&mut self, name: &str, number: u8, by_field: bool) -> Result<()> {
        let address = self.stage.address(self.namespace, number);
        self.begin();
        let patch = match by_field {
            true => json!({ "spec": { "loadBalancerIP": address } }),
            false => json!({ "metadata": { "annotations": { ADDRESSES: address } } }),
        };
        self.patch(name, patch).await?;
        let services = self.services();
        let shows =
            || async { Ok((ingress(&services.get(name).await?) == [address]).then_some(())) };
        let shown = eventually(&format!("{address} in the status"), 20, shows).await;
        shown.with_context(|| self.stage.logs())?;
        let asker = self.stage.world.lab.ask(address, ASK)?;
        let shown = self.shown.get_mut(name).context("no such Service")?;
        shown.was = shown.address.replace(address);
        shown.asker.replace(asker).map_or(Ok(()), Asker::finish)?;
        eventually("an answer", 10, || async { Ok(self.answers(name)?.map(drop)) }).await
    }

    async fn delete(&mut self, name: &str) -> Result<()> {
        self.begin();
        let services = self.services();
        services.delete(name, &DeleteParams::default()).await?;
        let gone = || async { Ok(services.get_opt(name).await?.is_none().then_some(())) };
        eventually("its end", 20, gone).await.with_context(|| self.stage.logs())?;
        let shown = self.shown.get_mut(name).context("no such Service")?;
        shown.was = shown.address.take();
        shown.asker.take().map_or(Ok(()), Asker::finish)
    }

    async fn remake(&mut self, name: &str, exposed: &Exposed) -> Result<()> {
        let was = self.service(name)?.was;
        self.expose(name, exposed).await?;
        self.shown.entry(name.to_owned()).and_modify(|shown| shown.was = was);
        self.begin();
        Ok(())
    }

    /// Its former address is on no node, and whoever asks for it hears nothing.
    async fn left(&self, name: &str) -> Result<()> {
        let was = self.service(name)?.was.context("it had no other address")?;
        let world = &self.stage.world;
        let asker = world.lab.ask(was, ASK)?;
        let left = || async {
            let holders = world.holders(was)?;
            let moment = Instant::now().checked_sub(GAP).context("the clock has just begun")?;
            let said = self.stage.wire.heard(was, moment).len();
            Ok((holders.is_empty() && said == 0).then_some(()))
        };
        let result = eventually(&format!("{was} is on no node, and silent"), 15, left).await;
        result.with_context(|| self.stage.logs())?;
        tokio::time::sleep(GAP).await;
        let since = Instant::now().checked_sub(GAP).context("the clock has just begun")?;
        ensure!(self.stage.wire.heard(was, since).is_empty(), "{was} is answered for again");
        asker.finish()
    }
}
