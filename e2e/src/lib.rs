//! The lab: a real control plane, and nodes as network namespaces, for tests that judge Berth from outside.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use std::time::Duration;
//!
//! use berth_e2e::{
//!     addresses::Net,
//!     lab::{Lab, Spec},
//! };
//!
//! let lab = Lab::up(Spec::bare(3)).await?;
//! let echo = berth_e2e::place::sibling_program("echo", "BERTH_ECHO")?;
//! lab.node(0).place()?.start("echo", [echo.display().to_string()])?;
//! let (watch, probe) = (lab.watch()?, lab.probe("10.0.0.11:8080", Duration::from_millis(10))?);
//! lab.cut(0, Net::Lan)?;
//! lab.heal(0, Net::Lan)?;
//! println!("{:?}", probe.finish()?.longest_gap);
//! println!("{:?}", watch.finish()?.spans("10.0.0.11".parse()?));
//! lab.outside().exec(["curl", "-s", "http://10.0.0.11:8080"])?;
//! lab.down()?; // A lab that is dropped instead goes as well, and its logs are kept.
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it owns |
//! |---|---|
//! | [`lab`] | [`lab::Spec`] in, [`lab::Lab`] out |
//! | [`node`] | a node; [`node::NodeContext`] is all that a kind of node needs to start |
//! | [`place`] | run commands, long-lived processes and sockets inside namespaces |
//! | [`process`] | pids, logs, signals of long-lived processes |
//! | [`addresses`] | the address plan, as values |
//! | [`fabric`] | bridges, links, routes |
//! | [`pki`] | certificates and kubeconfigs |
//! | [`fault`] | crash, freeze, cut, lose, reboot |
//! | [`audit`], [`apiserver_metrics`] | how addresses were given, and what it cost, as the API server has it |
//! | [`api_proxy`] | what can go wrong between a client and the API server |
//! | [`guest`] | a virtual machine's inside: a namespace behind a node, which can move |
//! | [`lan_router`], [`bird`] | BIRD or FRR as the LAN's router, and what nodes have told it |
//! | [`other_kernel`] | a program under another kernel than the machine's, in QEMU; needs no lab |
//! | [`get`], [`probe`], [`wire`], [`capture`] | what a client gets, once and all the time, who answers for an address, every frame |
//! | [`cluster`], [`diagnosis`] | what black-box tests need, in the lab or in kind; what shows why one failed |
//! | [`real_node::machine`] | machines that kubeadm makes nodes of |
//! | [`kind_node`] | kind, Docker and a node image, where there are none |
//! | [`rivals`], [`stock`], [`membership`] | other systems in the same lab, for comparison; kube-vip's halves beside ours; what Berth's membership shows |
//! | [`busy_host`] | processors that are taken away |
//! | [`agent`] | the stand-in for the kubelet on bare nodes |
//! | [`control_plane`], [`programs`] | etcd and Kubernetes: how they are run, how they are built |
//! | [`supervisor`], [`keeper`], [`disk`], [`cgroup`] | life and death of a lab; nothing is left behind |
//!
//! **A kind of node** starts from [`node::NodeContext`]: `start_keeper(prepare)` gives a [`place::Place`] whose PID 1
//! (tied to the lab) has PID, mount, UTS, IPC and cgroup namespaces of its own in the node's network namespace and in
//! the cgroup [`node::NodeContext::cgroup`] of every hierarchy; `prepare` is a program that mounts what else is needed.
//! Then `place.start("kubelet", argv)` for each process. Nothing has to be cleaned up: processes, mounts and
//! namespaces die with the lab's first process, cgroups and the lab's folder are removed by its supervisor.
//! Keep files in [`node::NodeContext::folder`], which is on disk.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod addresses;
pub mod agent;
pub mod api_proxy;
pub mod apiserver_metrics;
pub mod apply;
pub mod audit;
pub mod bare_client;
mod bare_node;
pub mod bird;
pub mod busy_host;
pub mod capture;
pub mod cgroup;
pub mod cli;
pub mod cluster;
pub mod control_plane;
pub mod diagnosis;
pub mod disk;
pub mod fabric;
pub mod fault;
pub mod flood;
pub mod get;
pub mod guest;
mod host_link;
pub mod image;
pub mod keeper;
pub mod kind_node;
pub mod lab;
pub mod lan_router;
pub mod membership;
pub mod node;
pub mod other_kernel;
mod packages;
pub mod pauses;
pub mod pki;
pub mod place;
pub mod probe;
pub mod process;
pub mod real_node;
pub mod rivals;
mod start;
mod status;
pub mod stock;
pub mod supervisor;
pub mod tokens;
pub mod vm;
pub mod wire;
mod wire_frame;
mod worker;
pub mod world;

pub use lab_programs::kubernetes as programs;
