//! A cluster that many worlds have in common.

use std::cell::OnceCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use crate::cluster::Cluster;
use crate::shape::{self, Parts};

/// The cluster of the worlds from which this one comes, until it changes in one of them, and what it shows, found once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    cluster: Rc<Cluster>,
    shape: Rc<OnceCell<Parts>>,
}

impl Shared {
    /// What the API server has of objects.
    pub(crate) fn shape(&self) -> &Parts {
        let Cluster { services, bindings, claims, .. } = &*self.cluster;
        self.shape.get_or_init(|| shape::of(&(services, bindings, claims)))
    }
}

impl Deref for Shared {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl DerefMut for Shared {
    fn deref_mut(&mut self) -> &mut Cluster {
        self.shape = Rc::default();
        Rc::make_mut(&mut self.cluster)
    }
}
