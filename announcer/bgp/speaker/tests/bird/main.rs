//! Sessions with BIRD 2, each router and its peers in network namespaces of their own: judged by what `birdc` shows. Needs
//! root and BIRD.
#![allow(clippy::unwrap_used)]

mod restart;
mod router;
mod routes;
mod sessions;
mod speaker;
