//! A world with virtual machines that have elastic IPs, and what its tests ask of it. A test makes machines and bindings as
//! users do and writes into the status of machines what KubeVirt would; all else comes from Berth's two programs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::OUTSIDE;
use berth_e2e::guest::Guest;
use berth_e2e::vm::{Eips, Vm, holds, install_kubevirt};
use berth_e2e::world::{Env, POOL, World, addresses_of, eventually};
use serde_json::{Value, json};

use super::streams::{Listener, Streams, connect};

/// How long a machine is copied at least. KubeVirt takes seconds.
const COPY: Duration = Duration::from_millis(300);

/// A machine and its binding, which has the same name.
pub(super) struct Machine {
    pub(super) guest: Guest,
    pub(super) vm: Vm,
    /// IPv4 first.
    pub(super) eips: [IpAddr; 2],
    node: usize,
}

/// A world of both programs, with machines.
pub(super) struct Scene {
    pub(super) world: World,
    pub(super) eips: Eips,
    pub(super) machines: BTreeMap<String, Machine>,
    made: u8,
}

impl Scene {
    /// Announcers on `nodes` nodes, and one node more for pods.
    pub(super) async fn up(nodes: usize, environment: Env) -> Result<Self> {
        Self::of(World::without_berth(nodes + 1, environment).await?, nodes).await
    }

    /// The same in a world where nothing runs yet.
    pub(super) async fn of(mut world: World, nodes: usize) -> Result<Self> {
        install_kubevirt(&world.lab)?;
        world.pools(json!({ "range-global": POOL, "reuse-delay": "1s" })).await?;
        world.start_ccm().await?;
        for node in 0..nodes {
            world.start_announcer(node).await?;
        }
        let eips = Eips::of(&world.client, "default");
        Ok(Self { world, eips, machines: BTreeMap::new(), made: 0 })
    }

    /// Starts a machine on a node and binds it to an elastic IP of each family.
    pub(super) async fn machine(&mut self, name: &str, node: usize) -> Result<()> {
        let number = 200 + self.made;
        self.made += 1;
        let place = self.world.lab.node(node);
        let pods = place.addresses();
        let v4 = u32::from(pods.pods4.network()) + u32::from(number);
        let v6 = u128::from(pods.pods6.network()) + u128::from(number);
        let own = [IpAddr::from(Ipv4Addr::from(v4)), IpAddr::from(Ipv6Addr::from(v6))];
        let mut guest = Guest::new(&self.world.lab, &format!("vm-{name}"), own)?;
        guest.start(&self.world.lab, place.name())?;
        let vm = Vm::create(&self.world.client, "default", name).await?;
        vm.start(place.name(), &own).await?;
        self.eips.create(name, json!({ "vmi": name, "families": ["IPv4", "IPv6"] })).await?;
        let given = |status: &Value| given(status).is_some();
        let status = self.eips.shows(name, "both addresses", given).await?;
        let eips = self::given(&status).context("no addresses")?;
        self.machines.insert(name.to_owned(), Machine { guest, vm, eips, node });
        Ok(())
    }

    /// The nodes that have an address, on whatever interface.
    fn nodes_with(&self, eip: IpAddr) -> Result<Vec<&str>> {
        let mut with = Vec::new();
        for node in self.world.lab.nodes() {
            let all = node.exec(["ip", "-json", "address", "show"])?;
            if all.contains(&format!("\"local\":\"{eip}\"")) {
                with.push(node.name());
            }
        }
        Ok(with)
    }

    /// Waits until the node of a machine answers for it, as its binding says, and as its interfaces do.
    pub(super) async fn is_held(&self, name: &str) -> Result<()> {
        let machine = &self.machines[name];
        let node = self.world.lab.node(machine.node);
        let ready = |status: &Value| {
            let all = ["Allocated", "Bound", "Announced", "Ready"];
            status["node"] == node.name() && all.iter().all(|kind| holds(status, kind))
        };
        let status =
            self.eips.shows(name, "ready", ready).await.with_context(|| self.world.logs())?;
        let holder = json!({ "node": node.name(), "epoch": status["epoch"] });
        ensure!(status["holder"] == holder, "{status:#}");
        for eip in machine.eips {
            eventually(&format!("{eip} is on {} alone", node.name()), 10, || async {
                Ok((self.nodes_with(eip)? == [node.name()]).then_some(()))
            })
            .await
            .with_context(|| self.world.logs())?;
        }
        Ok(())
    }

    /// The first half of a migration: the machine's pod on the target is there, KubeVirt names it, and the machine is
    /// copied, which goes on at least until the target is prepared. Returns the guest's cable to it.
    pub(super) async fn begin_migration(&mut self, name: &str, target: usize) -> Result<String> {
        let machine = self.machines.get_mut(name).context("no such machine")?;
        let (from, to) = (self.world.lab.node(machine.node), self.world.lab.node(target));
        let cable = machine.guest.plug(&self.world.lab, to.name())?;
        machine.vm.begin_migration(from.name(), to.name()).await?;
        let (own, eip) = (machine.guest.addresses()[1], machine.eips[1]);
        let (begin, end) = (format!("POSTROUTING -s {own}/"), format!("SNAT --to-source {eip}"));
        eventually("the target translates what the machine sends", 10, || async {
            // The rules of IPv6 are written last.
            let rules = to.exec(["ip6tables-nft-save", "-t", "nat"])?;
            let found = rules.lines().any(|rule| rule.contains(&begin) && rule.ends_with(&end));
            Ok(found.then_some(()))
        })
        .await
        .with_context(|| self.world.logs())?;
        tokio::time::sleep(COPY).await;
        Ok(cable)
    }

    /// A whole migration. The guest goes on at the target, then the target's virt-handler sees it at work, then the
    /// source hands over.
    pub(super) async fn migrate(&mut self, name: &str, target: usize) -> Result<()> {
        let cable = self.begin_migration(name, target).await?;
        let node = self.world.lab.node(target).name().to_owned();
        let machine = self.machines.get_mut(name).context("no such machine")?;
        machine.guest.switch(&self.world.lab, &node, cable)?;
        machine.node = target;
        machine.vm.target_is_ready().await?;
        machine.vm.hand_over(&node).await?;
        machine.vm.readdress(&machine.guest.addresses()).await?;
        self.is_held(name).await
    }

    /// Streams of both families: from the client to a machine's elastic IP, and from the machine to a third party.
    pub(super) fn streams(&self, name: &str) -> Result<Streams> {
        let machine = &self.machines[name];
        let lab = &self.world.lab;
        let mut streams = Vec::new();
        let inward = Listener::open(machine.guest.place(), 8100)?;
        let outward = Listener::open(&lab.router(), 8101)?;
        for (eip, third_party) in machine.eips.into_iter().zip(OUTSIDE) {
            let to_machine = connect(&lab.outside(), SocketAddr::new(eip, 8100))?;
            let (served, _) = inward.accept()?;
            streams.push((format!("to {eip}"), to_machine, served));
            let from_machine = connect(machine.guest.place(), SocketAddr::new(third_party, 8101))?;
            let (answering, peer) = outward.accept()?;
            ensure!(peer.ip() == eip, "the third party sees {peer}");
            streams.push((format!("from {eip}"), from_machine, answering));
        }
        Ok(Streams::start(streams))
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

    /// The protocols and ports on which a node listens, as `ss` says; those of clients that come and go left out.
    pub(super) fn ports(&self, node: usize) -> Result<BTreeSet<(String, u16)>> {
        let sockets = self.world.lab.node(node).exec(["ss", "-H", "-l", "-n", "-t", "-u"])?;
        let port = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let port = words.get(4)?.rsplit(':').next()?.parse().ok()?;
            Some((words[0].to_owned(), port))
        };
        Ok(sockets.lines().filter_map(port).filter(|(_, port)| *port < 32_768).collect())
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
                serde_json::from_str(&node.exec(["ip", "-N", family, "-j", "rule"])?)?;
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

    /// Whatever there is of bindings: objects, claims, and on each node rules, sets, addresses and tracked connections.
    pub(super) async fn left(&self) -> Result<Vec<String>> {
        let mut left = self.eips.names().await?;
        left.extend(self.world.claims().await?.into_keys());
        let eips = self.machines.values().flat_map(|machine| machine.eips);
        let eips: Vec<String> = eips.map(|eip| eip.to_string()).collect();
        for (number, node) in self.world.lab.nodes().iter().enumerate() {
            let say = |what: String| format!("{}: {what}", node.name());
            left.extend(self.traces(number)?.into_iter().map(say));
            left.extend(node.exec(["ipset", "list", "-name"])?.lines().map(str::to_owned).map(say));
            for family in ["ipv4", "ipv6"] {
                let tracked = node.exec(["conntrack", "-L", "-f", family])?;
                let names = |flow: &&str| {
                    let mut words = flow.split([' ', '=']);
                    words.any(|word| eips.iter().any(|eip| eip == word))
                };
                left.extend(tracked.lines().filter(names).map(str::to_owned).map(say));
            }
            let has = addresses_of(node)?.into_iter().map(|address| address.to_string());
            left.extend(has.filter(|address| eips.contains(address)).map(say));
        }
        Ok(left)
    }

    /// All rules of others on a node.
    pub(super) fn foreign(&self, node: usize) -> Result<Vec<String>> {
        let rules = self.world.lab.node(node).exec(["iptables-nft-save"])?;
        let others = rules.lines().filter(|line| line.starts_with("-A ") && !is_ours(line));
        Ok(others.map(str::to_owned).collect())
    }

    pub(super) fn down(self) -> Result<()> {
        self.world.lab.down()
    }
}

/// Both addresses of a binding, IPv4 first.
fn given(status: &Value) -> Option<[IpAddr; 2]> {
    let texts = status["eips"].as_array()?.iter();
    let addresses: Vec<IpAddr> = texts.filter_map(|text| text.as_str()?.parse().ok()).collect();
    addresses.try_into().ok()
}

fn is_ours(rule: &str) -> bool {
    rule.starts_with("-A ") && (rule.contains("KUBE-EIP-") || rule.contains("kube-eip-"))
}
