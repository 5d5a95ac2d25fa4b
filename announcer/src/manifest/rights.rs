//! The rights that an announcer needs, each with what is lost without it. Both what is generated and what is checked
//! goes by this one list.

use berth_runtime::rights;

use super::modes::{Decides, Modes};

/// Where a right holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// In all namespaces, or of objects that are in none.
    Everywhere,
    /// In one.
    Namespace(String),
}

/// A right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Right {
    /// Where.
    pub(super) place: Place,
    /// API group; empty for the core.
    pub(super) group: &'static str,
    /// Resource, with a subresource behind a slash.
    pub(super) resource: &'static str,
    /// The only object.
    pub(super) name: Option<&'static str>,
    /// What may be done.
    pub(super) verbs: &'static [&'static str],
    /// The verbs and resources by which it goes, and less well, where this is not given.
    pub(super) instead: &'static [(&'static str, &'static str)],
    /// What is lost without it.
    pub(super) without: &'static str,
}

impl Right {
    /// The same without what it goes by where it is not given.
    pub(super) fn plain(&self) -> rights::Right {
        let Self { place, group, resource, name, verbs, without, .. } = self;
        let namespace = match place {
            Place::Everywhere => None,
            Place::Namespace(namespace) => Some(namespace.clone()),
        };
        let name = name.map(str::to_owned);
        rights::Right { namespace, group, resource, name, verbs, without }
    }
}

const SEE: &[&str] = &["list", "watch"];
const LEASES: &str = "leases";
const COORDINATION: &str = "coordination.k8s.io";

/// Those for what is asked.
pub(super) fn needed(modes: &Modes) -> Vec<Right> {
    if !modes.cluster {
        return Vec::new();
    }
    let right = |place: &Place, group, resource, verbs, without| Right {
        place: place.clone(),
        group,
        resource,
        name: None,
        verbs,
        instead: &[],
        without,
    };
    let all = Place::Everywhere;
    let own = Place::Namespace(modes.namespace.clone());
    let services = modes.services_in.clone().map_or(Place::Everywhere, Place::Namespace);
    let mut rights = Vec::new();
    if modes.services {
        rights.push(right(&services, "", "services", SEE, "no Service is served"));
    }
    if modes.publishes {
        let without = "each status is read before it is written, and by nobody who may not get services and update services/status either";
        rights.push(Right {
            instead: &[("get", "services"), ("update", "services/status")],
            ..right(&services, "", "services/status", &["patch"], without)
        });
    }
    if modes.services {
        rights.push(Right {
            instead: &[("list", "endpoints"), ("watch", "endpoints")],
            ..right(
                &services,
                "discovery.k8s.io",
                "endpointslices",
                SEE,
                "Endpoints are read, which know one family of a Service; without these either, no Service is served",
            )
        });
    }
    rights.push(right(
        &all,
        "",
        "nodes",
        SEE,
        match modes.decides {
            Decides::Membership => "no member is known, and nothing is served",
            Decides::Everyone => {
                "a node that is emptied goes on to announce, and routers of some nodes alone are not known"
            }
            Decides::Lease | Decides::LeasePerService => {
                "a node that is drained keeps its addresses until it ends"
            }
        },
    ));
    if modes.labels {
        let without = "no Node is labelled with the addresses that it answers for";
        rights.push(right(&all, "", "nodes", &["list", "patch"], without));
    }
    match modes.decides {
        Decides::Membership if modes.services => rights.push(right(
            &services,
            COORDINATION,
            LEASES,
            SEE,
            "Leases of single Services that another announcer holds are not seen, and both announce",
        )),
        Decides::LeasePerService => rights.push(right(
            &services,
            COORDINATION,
            LEASES,
            &["get", "list", "watch", "create", "update", "delete"],
            "no Service is served; without delete alone, the Lease of a Service stays behind when that is deleted",
        )),
        Decides::Membership | Decides::Lease | Decides::Everyone => {}
    }
    let eips = "no elastic IP is served";
    let bindings = &services;
    if modes.services {
        rights.extend([
            right(bindings, "berth.dev", "eipbindings", SEE, eips),
            right(bindings, "berth.dev", "eipbindings/status", &["patch"], eips),
            Right {
                name: Some("eipbindings.berth.dev"),
                ..right(&all, "apiextensions.k8s.io", "customresourcedefinitions", SEE, eips)
            },
        ]);
    }
    if modes.claims {
        let without =
            "claims are ignored, and what an annotation names is served, whoever else holds it";
        rights.push(right(&all, "networking.k8s.io", "ipaddresses", SEE, without));
    }
    if modes.networks {
        let without = "a machine meets other pods and Services under its elastic IP; berth_eip_internal_net says it instead";
        rights.push(right(&all, "networking.k8s.io", "servicecidrs", SEE, without));
    }
    let without = "no Event tells what is wrong; the log and conditions do";
    rights.push(right(&all, "events.k8s.io", "events", &["create", "patch"], without));
    if modes.decides == Decides::Membership {
        rights.push(Right {
            name: Some(modes.secret),
            ..right(
                &own,
                "",
                "secrets",
                &["get", "update"],
                match modes.services {
                    true => {
                        "one Lease decides for all Services, which costs seconds where an owner dies, and not fenced membership"
                    }
                    false => "no member hears another, and nothing is served",
                },
            )
        });
    }
    if modes.routed {
        let without =
            "the ConfigMap berth-bgp is not read, and settings alone say which routers are told";
        rights
            .push(Right { name: Some("berth-bgp"), ..right(&own, "", "configmaps", SEE, without) });
        let without =
            "each stop counts as the end, and routers lead addresses elsewhere while it restarts";
        let name = if modes.services { "berth-announcer" } else { "berth-control-plane" };
        rights.push(Right {
            name: Some(name),
            ..right(&own, "apps", "daemonsets", &["get"], without)
        });
    }
    let without =
        "nodes do not tell their own addresses, and no Lease can be held: nothing is served by one";
    rights.push(right(
        &own,
        COORDINATION,
        LEASES,
        &["get", "list", "watch", "create", "update"],
        without,
    ));
    rights
}
