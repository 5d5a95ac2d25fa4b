//! Whatever happens to a machine, its elastic IP is at the node where the guest is at work or nowhere, and the epoch
//! never goes back.

use std::time::Duration;

use berth_index::kubevirt::{VirtualMachineInstance, Vmi};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::cluster::eips::{binding, machine};
use crate::cluster::{Lab, key};

/// What happens. What cannot happen in the state that there is, does not.
#[derive(Clone, Copy, Debug)]
enum Event {
    Start(u8),
    ShutDown,
    Delete,
    /// KubeVirt shows other addresses, or none.
    Addresses(u8),
    BeginMigration(u8),
    TargetReady,
    HandOver,
    FailMigration,
    /// The announcers carry out what they see.
    Obey,
    /// berth-ccm starts again and knows nothing.
    Restart,
    Pass(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..3u8).prop_map(Event::Start),
        Just(Event::ShutDown),
        Just(Event::Delete),
        (0..3u8).prop_map(Event::Addresses),
        (0..3u8).prop_map(Event::BeginMigration),
        Just(Event::TargetReady),
        Just(Event::HandOver),
        Just(Event::FailMigration),
        Just(Event::Obey),
        Just(Event::Restart),
        (0..5u8).prop_map(Event::Pass),
    ]
}

/// The machine as KubeVirt has it, and where the guest really is.
#[derive(Clone, Debug, Default)]
struct Guest {
    status: Option<Value>,
    at: Option<String>,
}

impl Guest {
    /// Returns whether it happened.
    fn take(&mut self, event: Event) -> bool {
        let node = |number: u8| format!("node-{number}");
        let now = "2026-01-01T00:00:00Z";
        let is_running = self.at.is_some();
        match (event, &mut self.status) {
            (Event::Start(number), None) => {
                self.at = Some(node(number));
                self.status = Some(json!({ "phase": "Running", "nodeName": node(number) }));
            }
            (Event::ShutDown, Some(status)) if is_running => {
                status["phase"] = json!("Succeeded");
                self.at = None;
            }
            (Event::Delete, Some(_)) => (self.status, self.at) = (None, None),
            (Event::Addresses(0), Some(status)) => status["interfaces"] = json!([]),
            (Event::Addresses(number), Some(status)) => {
                let address = format!("10.0.0.{number}");
                status["interfaces"] = json!([{ "name": "default", "ipAddress": address }]);
            }
            (Event::BeginMigration(number), Some(status)) if is_running => {
                let target = node(number);
                let is_going = is_going(status);
                if is_going || status["nodeName"] == *target {
                    return false;
                }
                status["migrationState"] =
                    json!({ "sourceNode": status["nodeName"], "targetNode": target });
            }
            (Event::TargetReady, Some(status)) if is_running && is_going(status) => {
                let state = &mut status["migrationState"];
                state["targetNodeDomainReadyTimestamp"] = json!(now);
                self.at = state["targetNode"].as_str().map(str::to_owned);
            }
            (Event::HandOver, Some(status)) if is_running && is_going(status) => {
                if status["migrationState"]["targetNodeDomainReadyTimestamp"].is_null() {
                    return false;
                }
                status["migrationState"]["completed"] = json!(true);
                status["nodeName"] = status["migrationState"]["targetNode"].clone();
                status["interfaces"] = json!([]);
            }
            (Event::FailMigration, Some(status)) if is_running && is_going(status) => {
                status["migrationState"]["failed"] = json!(true);
                self.at = status["nodeName"].as_str().map(str::to_owned);
            }
            _ => return false,
        }
        true
    }

    fn vmi(&self) -> Option<Vmi> {
        let status = self.status.clone()?;
        let object = json!({ "metadata": { "namespace": "shop", "name": "vm" }, "status": status });
        let object: VirtualMachineInstance = serde_json::from_value(object).unwrap();
        Vmi::read(&object)
    }
}

fn is_going(status: &Value) -> bool {
    let state = &status["migrationState"];
    !state.is_null() && state["completed"] != true && state["failed"] != true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn an_elastic_ip_is_where_the_guest_is_or_nowhere(
        events in prop::collection::vec(event(), 1..40),
        retain in any::<bool>(),
    ) {
        let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/29"), ("reuse-delay", "1s")]);
        let mut web = binding("web", "vm");
        web.retain = retain;
        lab.bind(web);
        let mut guest = Guest::default();
        let mut epoch = 0;
        for event in events {
            match event {
                Event::Obey => lab.obey("web"),
                Event::Pass(seconds) => lab.pass(Duration::from_secs(seconds.into())),
                Event::Restart => {
                    lab = lab.restart();
                    lab.pools([("cidr-global", "192.0.2.0/29"), ("reuse-delay", "1s")]);
                    lab.start();
                }
                event => {
                    if guest.take(event) {
                        match guest.vmi() {
                            Some(vmi) => lab.run(vmi),
                            None => lab.stop("vm"),
                        }
                    }
                }
            }
            let shown = &lab.cluster.bindings[&key("web")];
            let now = shown.epoch.unwrap_or_default();
            prop_assert!(now >= epoch, "{} after {epoch}", lab.cluster.shown("web"));
            epoch = now;
            if let Some(target) = &shown.target {
                let status = guest.status.as_ref().unwrap();
                prop_assert!(is_going(status), "{:?}", guest);
                prop_assert_eq!(&status["migrationState"]["targetNode"], target);
                prop_assert_ne!(Some(target), shown.node.as_ref());
            }
            if let Some(node) = &shown.node {
                prop_assert_eq!(Some(node), guest.at.as_ref(), "{:?}", guest);
                prop_assert_eq!(shown.vmi_ips.len(), 1);
                prop_assert_eq!(shown.eips.len(), 1);
            }
            // What is shown to be given is claimed.
            for eip in &shown.eips {
                let holder = lab.cluster.holder(&eip.to_string());
                prop_assert_eq!(holder.as_deref(), Some("web"));
            }
        }
        // In the end it is where the guest is, if that shows an address.
        let addressed = machine("vm", guest.at.as_deref().unwrap_or_default(), &["10.0.0.7"]);
        if guest.at.is_some() {
            lab.run(Vmi { interfaces: addressed.interfaces, ..guest.vmi().unwrap() });
            lab.obey("web");
            lab.pass(Duration::from_secs(60));
            lab.obey("web");
            let shown = &lab.cluster.bindings[&key("web")];
            prop_assert_eq!(&shown.node, &guest.at);
            prop_assert_eq!(lab.cluster.standing("web"), "+AddressAllocated +Held");
        }
    }
}
