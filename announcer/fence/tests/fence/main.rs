//! The fence in real kernels' hands: throwaway network namespaces, judged from outside. Needs root.

#![allow(clippy::unwrap_used)]

mod backlog;
mod cost;
mod deadline;
mod fallback;
mod forwarding;
mod instances;
mod interfaces;
mod refusal;
mod restart;
mod support;
mod traces;
