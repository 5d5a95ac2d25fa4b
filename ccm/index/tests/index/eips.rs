//! EipBindings and virtual machines of the simulated API server.

use berth_api::NamespacedName;
use berth_api::conflict::Conflicts;
use berth_api::eip::EipHolder;
use berth_index::Source;
use berth_index::binding::{Binding, Decided};
use berth_index::claimant::Claimant;
use berth_index::finalizers::Finalizers;
use berth_index::intake::Change;
use berth_index::kubevirt::{Interface, Origin, Vmi};
use berth_index::write::Outcome;
use berth_ipam::{Families, Family};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::{Arc, Cluster, Lab, Logged, ip, key};

/// A binding for the machine of that name, as a user makes it.
pub(crate) fn binding(name: &str, vmi: &str) -> Binding {
    Binding {
        key: key(name),
        uid: String::new(),
        version: String::new(),
        generation: 1,
        created: 0,
        deleting: false,
        finalizers: Finalizers::default(),
        vmi: key(vmi),
        interface: None,
        retain: true,
        pin: None,
        families: Families::single(Family::V4),
        eips: Vec::new(),
        node: None,
        target: None,
        vmi_ips: Vec::new(),
        epoch: None,
        observed: None,
        holder: None,
        conflicts: Conflicts::default(),
        conditions: Vec::new(),
    }
}

/// A machine that runs on a node.
pub(crate) fn machine(name: &str, node: &str, addresses: &[&str]) -> Vmi {
    let addresses = addresses.iter().map(|text| ip(text)).collect();
    let origin = Origin { on_pods: true, by_guest: true };
    Vmi {
        key: key(name),
        uid: String::new(),
        version: String::new(),
        phase: "Running".to_owned(),
        node: Some(node.to_owned()),
        target: None,
        interfaces: vec![Interface {
            name: "default".to_owned(),
            origin,
            addresses,
            inner: Vec::new(),
        }],
    }
}

/// What the API server makes of what is applied to the status of a binding.
pub(super) fn say(binding: &mut Binding, decided: &Decided) {
    let Decided { eips, node, target, vmi_ips, epoch, generation, conditions } = decided.clone();
    let grows = (&binding.eips, &binding.node, &binding.vmi_ips) != (&eips, &node, &vmi_ips);
    assert_eq!(epoch > binding.epoch, grows, "{binding:?} becomes {decided:?}");
    (binding.eips, binding.node, binding.vmi_ips) = (eips, node, vmi_ips);
    binding.target = target;
    (binding.epoch, binding.observed) = (epoch, Some(generation));
    let own = conditions.map(|stated| Condition {
        type_: stated.kind.to_owned(),
        status: if stated.holds { "True" } else { "False" }.to_owned(),
        reason: stated.reason.into_owned(),
        message: stated.message,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: Some(generation),
    });
    binding.conditions.retain(|shown| own.iter().all(|own| own.type_ != shown.type_));
    binding.conditions.extend(own);
}

impl Cluster {
    fn store_binding(&mut self, mut binding: Binding) -> Binding {
        binding.version = self.next();
        let change = if binding.deleting && binding.finalizers.is_empty() {
            self.bindings.remove(&binding.key);
            Change::EipGone(binding.key.clone(), binding.uid.clone())
        } else {
            self.bindings.insert(binding.key.clone(), binding.clone());
            Change::Eip(Box::new(binding.clone()))
        };
        self.log.push(Logged(Arc::new(change)));
        binding
    }

    pub(crate) fn bind(&mut self, binding: Binding) {
        let uid = format!("uid-{}", self.version + 1);
        self.store_binding(Binding { uid, ..binding });
    }

    pub(crate) fn edit_binding(&mut self, name: &str, edit: impl FnOnce(&mut Binding)) {
        let mut binding = self.bindings[&key(name)].clone();
        edit(&mut binding);
        self.store_binding(binding);
    }

    pub(crate) fn unbind(&mut self, name: &str) {
        self.edit_binding(name, |binding| binding.deleting = true);
    }

    pub(super) fn patch_binding(
        &mut self,
        key: &NamespacedName,
        uid: &str,
        version: &str,
        edit: impl FnOnce(&mut Binding),
    ) -> Outcome {
        let Some(binding) = self.bindings.get(key) else { return Outcome::Missing };
        if binding.uid != uid || binding.version != version {
            return Outcome::Conflict;
        }
        let mut binding = binding.clone();
        edit(&mut binding);
        Outcome::Claimant(Box::new(Claimant::Eip(self.store_binding(binding))))
    }

    /// The announcers carry out what the status says.
    pub(crate) fn obey(&mut self, name: &str) {
        self.edit_binding(name, |binding| {
            let epoch = binding.epoch.unwrap_or_default();
            binding.holder = binding.node.clone().map(|node| EipHolder { node, epoch });
        });
    }

    /// The machine is now like this.
    pub(crate) fn run(&mut self, vmi: Vmi) {
        let version = self.next();
        let known = self.machines.get(&vmi.key).map(|known| known.uid.clone());
        let uid = known.unwrap_or_else(|| format!("uid-{version}"));
        let vmi = Vmi { uid, version, ..vmi };
        self.machines.insert(vmi.key.clone(), vmi.clone());
        self.log.push(Logged(Arc::new(Change::Machine(Box::new(vmi)))));
    }

    /// The machine's object is deleted.
    pub(crate) fn stop(&mut self, name: &str) {
        self.next();
        if let Some(vmi) = self.machines.remove(&key(name)) {
            self.log.push(Logged(Arc::new(Change::MachineGone(vmi.key, vmi.uid))));
        }
    }

    pub(super) fn list_eips(&self) -> Vec<Change> {
        let mut changes = vec![Change::Listing(Source::Eips)];
        changes.extend(self.bindings.values().cloned().map(|one| Change::Eip(Box::new(one))));
        changes.extend([Change::Listed(Source::Eips), Change::Listing(Source::Machines)]);
        changes.extend(self.machines.values().cloned().map(|one| Change::Machine(Box::new(one))));
        changes.push(Change::Listed(Source::Machines));
        changes
    }

    /// How a binding stands: `192.0.2.1 on a to 10.0.0.5 #1`.
    pub(crate) fn shown(&self, name: &str) -> String {
        let Some(binding) = self.bindings.get(&key(name)) else { return "gone".to_owned() };
        let list =
            |addresses: &[std::net::IpAddr]| berth_api::address::format(addresses.iter().copied());
        let node = binding.node.as_deref().unwrap_or("none");
        let (eips, to) = (list(&binding.eips), list(&binding.vmi_ips));
        format!("{eips} on {node} to {to} #{}", binding.epoch.unwrap_or_default())
    }

    /// The reasons of the conditions Allocated and Ready, with a plus where they are true.
    pub(crate) fn standing(&self, name: &str) -> String {
        let shown = |kind: &str| {
            let shown = self.bindings[&key(name)].condition(kind).unwrap();
            let sign = if shown.status == "True" { "+" } else { "-" };
            format!("{sign}{}", shown.reason)
        };
        format!("{} {}", shown("Allocated"), shown("Ready"))
    }
}

impl Lab {
    pub(crate) fn bind(&mut self, binding: Binding) {
        self.cluster.bind(binding);
        self.settle();
    }

    pub(crate) fn run(&mut self, vmi: Vmi) {
        self.cluster.run(vmi);
        self.settle();
    }

    pub(crate) fn stop(&mut self, name: &str) {
        self.cluster.stop(name);
        self.settle();
    }

    pub(crate) fn obey(&mut self, name: &str) {
        self.cluster.obey(name);
        self.settle();
    }
}
