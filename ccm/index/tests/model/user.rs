//! What users do.

use berth_index::binding::Binding;
use berth_ipam::Protocol;

use crate::cluster::eips::{binding, machine};
use crate::cluster::{ip, key, service};
use crate::world::World;

/// What the user does, in this order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum User {
    /// Makes a Service, perhaps with an address of their choice.
    Create(&'static str, Option<&'static str>),
    /// Deletes it.
    Delete(&'static str),
    /// Deletes it and takes the finalizers off.
    Strip(&'static str),
    /// Asks for another address by annotation.
    Move(&'static str, &'static str),
    /// Asks for another address by `spec.loadBalancerIP`.
    MoveField(&'static str, &'static str),
    /// Makes an EipBinding for a machine of its name, which runs, perhaps with an address of their choice.
    Bind(&'static str, Option<&'static str>),
    /// Asks for this address for it.
    Pin(&'static str, &'static str),
    /// Deletes it.
    Unbind(&'static str),
    /// Deletes it and takes the finalizers off.
    StripBinding(&'static str),
}

impl World {
    pub(crate) fn can(&self, user: &User) -> bool {
        match user {
            User::Create(name, _) => !self.cluster.services.contains_key(&key(name)),
            User::Delete(name)
            | User::Strip(name)
            | User::Move(name, _)
            | User::MoveField(name, _) => self.cluster.services.contains_key(&key(name)),
            User::Bind(name, _) => !self.cluster.bindings.contains_key(&key(name)),
            User::Pin(name, _) | User::Unbind(name) | User::StripBinding(name) => {
                self.cluster.bindings.contains_key(&key(name))
            }
        }
    }

    pub(crate) fn act(&mut self, user: &User) {
        match *user {
            User::Create(name, address) => {
                let mut made = service(name);
                made.annotated = address.map(str::to_owned);
                if self.shares {
                    made.sharing.ports =
                        [(Protocol::Tcp, if name == "a" { 80 } else { 443 })].into();
                }
                self.cluster.create(made);
            }
            User::Delete(name) => self.cluster.delete(name),
            User::Strip(name) => self.cluster.edit(name, |service| {
                service.finalizers = Default::default();
                service.deleting = true;
            }),
            User::Move(name, address) => {
                self.cluster.edit(name, |service| service.annotated = Some(address.to_owned()));
            }
            User::MoveField(name, address) => {
                self.cluster.edit(name, |service| service.deprecated = Some(address.to_owned()));
            }
            User::Bind(name, address) => {
                if !self.cluster.machines.contains_key(&key(name)) {
                    self.cluster.run(machine(name, "node", &["10.0.0.5"]));
                }
                self.cluster.bind(Binding { pin: address.map(ip), ..binding(name, name) });
            }
            User::Pin(name, address) => self.cluster.edit_binding(name, |binding| {
                binding.pin = Some(ip(address));
                binding.generation += 1;
            }),
            User::Unbind(name) => self.cluster.unbind(name),
            User::StripBinding(name) => self.cluster.edit_binding(name, |binding| {
                binding.finalizers = Default::default();
                binding.deleting = true;
            }),
        }
    }
}
