//! A world with virtual machines that have elastic IPs, and what its tests ask of it. The tests stand in for berth-ccm:
//! they write into the status of bindings what it would.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::OUTSIDE;
use berth_e2e::guest::Guest;
use berth_e2e::world::{Env, World, addresses_of, eventually, kubectl, repository};
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::streams::{Listener, Streams, connect};

/// The bindings of namespace `default`.
pub(super) struct Bindings(Api<DynamicObject>);

impl Bindings {
    fn of(client: &Client) -> Self {
        let kind = GroupVersionKind::gvk("berth.dev", "v1alpha1", "EipBinding");
        let resource = ApiResource::from_gvk_with_plural(&kind, "eipbindings");
        Self(Api::namespaced_with(client.clone(), "default", &resource))
    }

    async fn create(&self, name: &str) -> Result<()> {
        let object = json!({
            "apiVersion": "berth.dev/v1alpha1", "kind": "EipBinding",
            "metadata": { "name": name },
            "spec": { "vmi": name, "families": ["IPv4", "IPv6"] },
        });
        self.0.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(())
    }

    pub(super) async fn delete(&self, name: &str) -> Result<()> {
        self.0.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn status(&self, name: &str) -> Result<Value> {
        Ok(self.0.get(name).await?.data["status"].clone())
    }

    async fn write(&self, name: &str, status: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "status": status }));
        self.0.patch_status(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

/// A machine and its binding.
pub(super) struct Machine {
    pub(super) guest: Guest,
    /// IPv4 first.
    pub(super) eips: [IpAddr; 2],
    node: usize,
    epoch: i64,
}

/// A world of announcers with machines.
pub(super) struct Scene {
    pub(super) world: World,
    pub(super) eips: Bindings,
    pub(super) machines: BTreeMap<String, Machine>,
}

impl Scene {
    /// Announcers on `nodes` nodes, and one node more for pods.
    pub(super) async fn up(nodes: usize, environment: Env) -> Result<Self> {
        let mut world = World::without_berth(nodes + 1, environment).await?;
        let file = repository().join("manifests/eipbinding-crd.yaml");
        kubectl(&world.lab, &["apply", "-f", &file.display().to_string()])?;
        let crd = "crd/eipbindings.berth.dev";
        kubectl(&world.lab, &["wait", "--for=condition=Established", crd, "--timeout=30s"])?;
        for node in 0..nodes {
            world.start_announcer(node).await?;
        }
        let eips = Bindings::of(&world.client);
        Ok(Self { world, eips, machines: BTreeMap::new() })
    }

    /// Starts a machine on a node and binds it to an elastic IP of each family.
    pub(super) async fn machine(&mut self, name: &str, node: usize) -> Result<()> {
        let number = u8::try_from(200 + self.machines.len())?;
        let pods = self.world.lab.node(node).addresses();
        let v4 = u32::from(pods.pods4.network()) + u32::from(number);
        let v6 = u128::from(pods.pods6.network()) + u128::from(number);
        let own = [IpAddr::from(Ipv4Addr::from(v4)), IpAddr::from(Ipv6Addr::from(v6))];
        let eips = [
            IpAddr::from([10, 0, 64, number]),
            IpAddr::from([0xfd00, 0x10, 0, 0, 0, 0, 0x40, u16::from(number)]),
        ];
        let mut guest = Guest::new(&self.world.lab, &format!("vm-{name}"), own)?;
        guest.start(&self.world.lab, self.world.lab.node(node).name())?;
        self.eips.create(name).await?;
        let machine = Machine { guest, eips, node, epoch: 1 };
        self.eips.write(name, self.placed(&machine)).await?;
        self.machines.insert(name.to_owned(), machine);
        Ok(())
    }

    /// What berth-ccm would write.
    fn placed(&self, machine: &Machine) -> Value {
        json!({
            "eips": machine.eips,
            "vmiIPs": machine.guest.addresses(),
            "node": self.world.lab.node(machine.node).name(),
            "epoch": machine.epoch,
        })
    }

    /// Waits until the node of a machine says that it holds its addresses, and has them.
    pub(super) async fn is_held(&self, name: &str) -> Result<()> {
        let machine = &self.machines[name];
        let node = self.world.lab.node(machine.node);
        let wanted = json!({ "node": node.name(), "epoch": machine.epoch });
        let held = eventually(&format!("{name} is held"), 30, || async {
            Ok((self.eips.status(name).await?["holder"] == wanted).then_some(()))
        })
        .await;
        if let Err(error) = held {
            let status = self.eips.status(name).await?;
            return Err(error.context(format!("{status:#}\n{}", self.logs())));
        }
        let status = self.eips.status(name).await?;
        for kind in ["Bound", "Announced"] {
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let shown = conditions.iter().find(|condition| condition["type"] == kind);
            ensure!(shown.is_some_and(|c| c["status"] == "True"), "{kind}: {status:#}");
        }
        ensure!(
            machine.eips.iter().all(|eip| addresses_of(node).is_ok_and(|has| has.contains(eip)))
        );
        Ok(())
    }

    /// Migrates a machine as KubeVirt does: the target is made ready, which its node hears of, and then the machine goes
    /// over to it. Until then it goes on where it was.
    pub(super) async fn migrate(&mut self, name: &str, target: usize) -> Result<()> {
        let node = self.world.lab.node(target).name().to_owned();
        let machine = self.machines.get_mut(name).context("no such machine")?;
        let cable = machine.guest.plug(&self.world.lab, &node)?;
        (machine.node, machine.epoch) = (target, machine.epoch + 1);
        let status = json!({ "node": node, "epoch": machine.epoch });
        self.eips.write(name, status).await?;
        let leads = format!("--to-destination {}", self.machines[name].guest.addresses()[0]);
        eventually("the target translates", 10, || async {
            let rules = self.world.lab.node(target).exec(["iptables-nft-save", "-t", "nat"])?;
            Ok(rules.contains(&leads).then_some(()))
        })
        .await?;
        let machine = self.machines.get_mut(name).context("no such machine")?;
        machine.guest.switch(&self.world.lab, &node, cable)?;
        self.is_held(name).await?;
        for eip in self.machines[name].eips {
            eventually("one holder", 10, || async {
                Ok((self.world.holders(eip)? == [node.clone()]).then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// One stream from the client to a machine's elastic IP, and one from the machine to a third party.
    pub(super) fn streams(&self, name: &str) -> Result<Streams> {
        let machine = &self.machines[name];
        let lab = &self.world.lab;
        let inward = Listener::open(machine.guest.place(), 8100)?;
        let to_machine = connect(&lab.outside(), SocketAddr::new(machine.eips[0], 8100))?;
        let (served, _) = inward.accept()?;
        let outward = Listener::open(&lab.router(), 8101)?;
        let from_machine = connect(machine.guest.place(), SocketAddr::new(OUTSIDE[0], 8101))?;
        let (answering, peer) = outward.accept()?;
        ensure!(peer.ip() == machine.eips[0], "the third party sees {peer}");
        Streams::start([(to_machine, served), (from_machine, answering)])
    }

    /// A pod and a Service see a machine under its own address: frames on the LAN say so.
    pub(super) async fn pods_and_services_see_it_untranslated(&self, name: &str) -> Result<()> {
        let machine = &self.machines[name];
        let [own, _] = machine.guest.addresses();
        let service = json!({
            "metadata": { "name": "inner" },
            "spec": { "selector": { "app": "hello" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
        });
        let cluster = self.world.create(service).await?;
        let cluster = cluster.spec.and_then(|spec| spec.cluster_ip).context("no cluster IP")?;
        let capture = self.world.lab.capture("inner", "tcp port 8080")?;
        let url = format!("http://{cluster}/");
        let curl = ["curl", "-s", "--fail", "--max-time", "2", &url];
        eventually(
            "the Service answers the machine, and the frames are written down",
            20,
            || async {
                let answered = machine.guest.place().exec(curl).is_ok();
                // An empty capture is its header of 24 bytes.
                let written = std::fs::metadata(capture.path())?.len() > 24;
                Ok((answered && written).then_some(()))
            },
        )
        .await?;
        let frames = capture.finish()?;
        let from_own = format!(" {own}.");
        ensure!(frames.contains(&from_own), "{frames}");
        ensure!(!frames.contains(&format!(" {}.", machine.eips[0])), "{frames}");
        Ok(())
    }

    /// Our rules on a node, compared with the table of docs/contract.md.
    pub(super) fn rules_are_those_of_the_contract(
        &self,
        node: usize,
        names: &[&str],
    ) -> Result<()> {
        let mut wanted = BTreeSet::new();
        for (family, six) in [(0, ""), (1, "6")] {
            let bits = [32, 128][family];
            wanted.extend([
                format!("{six} -A PREROUTING -m set --match-set kube-eip-eip{six} dst -j KUBE-EIP-PREROUTING"),
                format!("{six} -A POSTROUTING -m set --match-set kube-eip-vmi{six} src -j KUBE-EIP-POSTROUTING"),
                format!("{six} -A PREROUTING -m set --match-set kube-eip-moving{six} dst -m set ! --match-set k8s_internal_net{six} src -j CT --notrack"),
                format!("{six} -A INPUT -m set --match-set kube-eip-eip{six} dst -m conntrack ! --ctstate UNTRACKED -j DROP"),
                format!("{six} -A FORWARD -m set --match-set kube-eip-vmi{six} src -j ACCEPT"),
            ]);
            for name in names {
                let machine = &self.machines[*name];
                let (eip, vmi) = (machine.eips[family], machine.guest.addresses()[family]);
                wanted.extend([
                    format!("{six} -A KUBE-EIP-PREROUTING -d {eip}/{bits} -j DNAT --to-destination {vmi}"),
                    format!("{six} -A KUBE-EIP-POSTROUTING -s {vmi}/{bits} -m set ! --match-set k8s_internal_net{six} dst -j SNAT --to-source {eip}"),
                    format!("{six} rule from {vmi} table 190"),
                    format!("{six} set kube-eip-eip{six} {eip}"),
                    format!("{six} set kube-eip-vmi{six} {vmi}"),
                ]);
            }
        }
        let has = self.traces(node)?;
        let missing: Vec<_> = wanted.difference(&has).collect();
        ensure!(missing.is_empty(), "missing {missing:#?} in {has:#?}");
        let more: Vec<_> =
            has.difference(&wanted).filter(|trace| !trace.contains("HAIRPIN")).collect();
        let other: Vec<_> =
            more.iter().filter(|trace| !trace.contains("k8s_internal_net")).collect();
        ensure!(other.is_empty(), "not in the contract: {other:#?}");
        Ok(())
    }

    /// All rules of ours on a node, the elements of our sets and our policy rules.
    pub(super) fn traces(&self, node: usize) -> Result<BTreeSet<String>> {
        let node = self.world.lab.node(node);
        let mut traces = BTreeSet::new();
        for six in ["", "6"] {
            let rules = node.exec([&format!("ip{six}tables-nft-save")])?;
            let ours = rules.lines().filter(|line| is_ours(line));
            traces.extend(ours.map(|line| format!("{six} {line}")));
            let family = if six.is_empty() { "-4" } else { "-6" };
            let shown: Vec<Value> =
                serde_json::from_str(&node.exec(["ip", family, "-j", "rule"])?)?;
            for rule in shown.iter().filter(|rule| rule["priority"] == 1001) {
                let (from, table) = (rule["src"].as_str(), rule["table"].as_str());
                let (from, table) = (from.unwrap_or("all"), table.unwrap_or_default());
                traces.insert(format!("{six} rule from {from} table {table}"));
            }
        }
        let sets = node.exec(["ipset", "save"])?;
        // Which machines have come not long ago changes by itself.
        let elements = sets.lines().filter_map(|line| line.strip_prefix("add "));
        for element in elements.filter(|element| !element.starts_with("kube-eip-moving")) {
            let six = if element.split(' ').next().is_some_and(|set| set.ends_with('6')) {
                "6"
            } else {
                ""
            };
            traces.insert(format!("{six} set {element}"));
        }
        Ok(traces)
    }

    /// All rules of others on a node.
    pub(super) fn foreign(&self, node: usize) -> Result<Vec<String>> {
        let rules = self.world.lab.node(node).exec(["iptables-nft-save"])?;
        let others = rules.lines().filter(|line| line.starts_with("-A ") && !is_ours(line));
        Ok(others.map(str::to_owned).collect())
    }

    pub(super) fn logs(&self) -> String {
        let logs = self.world.announcers().map(|(node, p)| format!("--- {node}\n{}", p.log_tail()));
        logs.collect::<Vec<_>>().join("\n")
    }

    pub(super) fn down(self) -> Result<()> {
        self.world.lab.down()
    }
}

fn is_ours(rule: &str) -> bool {
    rule.starts_with("-A ") && (rule.contains("KUBE-EIP-") || rule.contains("kube-eip-"))
}
