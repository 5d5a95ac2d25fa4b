//! Sessions judged from outside: two of ours on a network whose time is a number, and one against octets that somebody
//! else might send.
#![allow(clippy::unwrap_used)]

mod collision;
mod converge;
mod edit;
mod field;
mod hostile;
mod network;
mod packed;
mod pair;
mod restart;
mod scripted;
mod stop;
mod table;

#[global_allocator]
static ALLOCATOR: berth_hostile::Counting = berth_hostile::Counting;
