//! What both programs need to run: the client, watches, the Lease driver, Events, health and metrics over HTTP, logs,
//! background tasks, and the end by signal.
//!
//! Nothing here decides anything; what a candidate does is in [`berth_api::election`].
//!
//! # Permissions
//!
//! | module | verbs | on |
//! |---|---|---|
//! | [`lease`] | `get`, `list`, `watch`, `create`, `update` | `leases.coordination.k8s.io`, the namespace of the Lease |
//! | [`lease::Leases::delete`] | `delete` | the same |
//! | [`events`] | `create`, `patch` | `events.events.k8s.io`, every namespace that is reported on |
//! | [`rights`] | `create` | `selfsubjectrulesreviews` and `selfsubjectaccessreviews` of `authorization.k8s.io`, as every account may |
//! | [`services`] | `patch`; else `get` of `services` and `update` | `services`, `services/status` |
//! | [`watch`] | `list`, `watch` | what the caller watches |
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod client;
pub mod events;
pub mod freshness;
pub mod http;
pub mod lease;
pub mod logs;
pub mod refusals;
pub mod rights;
pub mod services;
pub mod shutdown;
pub mod supervise;
pub mod watch;
