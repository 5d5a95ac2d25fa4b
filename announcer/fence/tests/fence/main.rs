//! The fence in real kernels' hands: throwaway network namespaces, judged from outside. Needs root.

#![allow(clippy::unwrap_used)]

mod deadline;
mod support;
