//! Owns what only a simulation does to a node: it takes rules out, and makes the node act against its policy.

use std::net::IpAddr;
use std::time::Duration;

use super::Node;
use crate::event::Output;
use crate::keyring::Keyring;
use crate::moment::Moment;
use crate::name::NodeId;
use crate::parameters::{ParameterError, Parameters};
use crate::rules::Rules;
use crate::view::Voters;

/// What a simulation makes a node do against its policy, so that nothing but the rules keeps two nodes apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// Ask for an address at once, whatever placement says, if this node may have it.
    Take {
        /// The address.
        address: IpAddr,
    },
    /// Propose these voters, if this node is one now.
    Propose(Voters),
    /// Ask for so long a lease from now on, whatever happens; or none in particular.
    Ask(Option<Duration>),
}

impl Node {
    /// A run that may lack rules.
    ///
    /// # Errors
    /// If the parameters do not fit each other.
    pub fn with_rules(
        me: NodeId,
        parameters: Parameters,
        keyring: Keyring,
        seed: u64,
        now: Moment,
        rules: Rules,
    ) -> Result<Self, ParameterError> {
        Self::of_rules(me, parameters, keyring, seed, now, rules)
    }

    /// Makes the node act against its policy.
    pub fn press(&mut self, now: Moment, pressure: Pressure) -> Vec<Output> {
        self.begin(now);
        match pressure {
            Pressure::Take { address } => self.take(address),
            Pressure::Propose(voters) => self.propose_these(voters),
            Pressure::Ask(lease) => self.pace.press(lease),
        }
        self.settle();
        self.out.take()
    }

    fn propose_these(&mut self, voters: Voters) {
        let Some(standing) = self.standing.as_ref().filter(|standing| standing.votes()) else {
            return;
        };
        if let Some(view) = standing.next(voters) {
            self.out.extend(self.proposer.put(standing.epoch(), view));
        }
    }
}
