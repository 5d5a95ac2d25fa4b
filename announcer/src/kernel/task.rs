//! What runs beside the rounds.

use futures::future::BoxFuture;

/// A task that is to run as long as the program, and its name. Whoever starts it notices its end.
pub type Task = (&'static str, BoxFuture<'static, ()>);
