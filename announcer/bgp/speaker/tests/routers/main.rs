//! Sessions with BIRD 2, FRR 8 and GoBGP 4, each router and its node in network namespaces of their own: judged by what
//! `birdc`, `vtysh` and `gobgp` show. Needs root, BIRD, FRR and Go.
#![allow(clippy::unwrap_used)]

/// One test for each router, of each function that takes one.
macro_rules! each {
    ($($test:ident),+ $(,)?) => {
        mod bird {
            $(#[test] fn $test() { super::$test(&lab_routers::Bird) })+
        }
        mod frr {
            $(#[test] fn $test() { super::$test(&lab_routers::Frr) })+
        }
        mod gobgp {
            $(#[test] fn $test() { super::$test(&lab_routers::GoBgp) })+
        }
    };
}

mod attributes;
mod field;
mod others;
mod restart;
mod routes;
mod sessions;
mod speaker;
mod unnumbered;
