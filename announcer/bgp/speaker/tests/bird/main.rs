//! Sessions with BIRD 2, and with FRR where there is no address but that of the link, each router and its peers in network
//! namespaces of their own: judged by what `birdc` and `vtysh` show. Needs root, BIRD and FRR.
#![allow(clippy::unwrap_used)]

mod frr;
mod restart;
mod router;
mod routes;
mod sessions;
mod speaker;
