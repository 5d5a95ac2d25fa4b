//! Which of several refusals stands first: one object has one reason, and always the same for the same refusals. Pure.

use super::Refusal;

impl Refusal {
    /// Whether an address is not answered for because of it. All others are remarks: what is wrong with an object that is
    /// served all the same.
    pub fn silences(&self) -> bool {
        !matches!(
            self,
            Self::InvalidAddress { .. }
                | Self::TooManyAddresses { .. }
                | Self::InvalidPreference { .. }
                | Self::TooManyPreferences { .. }
                | Self::TooManyPorts { .. }
                | Self::InvalidLease { .. }
                | Self::NotSupported { .. }
                | Self::InvalidBgp { .. }
                | Self::BgpLeftOut { .. }
                | Self::BgpNotPermitted { .. }
                | Self::BgpOfAnother { .. }
                | Self::BgpOnLan
                | Self::TooManyLabels { .. }
        )
    }

    /// Whether it is so on every node: for whose the address is, or for what the object asks for.
    pub fn is_of_object(&self) -> bool {
        self.rank() < 20
    }

    /// The smaller stands first: whose the address is, then what the object asks for, then where its traffic could go, then
    /// what the host lacks, and last who is to have it, which often only follows.
    pub fn rank(&self) -> u8 {
        match self {
            Self::NotClaimed { .. } => 0,
            refusal if refusal.is_of_another() => 1,
            Self::AddressConflict { .. } => 2,
            Self::InvalidInterface { .. } | Self::InvalidVlan { .. } => 10,
            Self::InterfaceNotPermitted { .. } | Self::VlanNotPermitted { .. } => 11,
            Self::TooManyGuarded { .. } => 12,
            Self::DhcpNotServed { .. } => 13,
            Self::NoEndpoint => 20,
            Self::EndpointWithoutNode => 21,
            Self::NotServedTogether { .. } => 22,
            Self::NoLocalEndpoint { .. } => 23,
            Self::AddressOnHost { .. } | Self::AddressOfRouter { .. } => 30,
            Self::InterfaceMissing { .. } => 31,
            Self::VlanNotMade { .. } => 32,
            Self::InterfaceUnfit { .. } => 33,
            Self::NotBound { .. } => 39,
            Self::NoSession { .. } => 40,
            Self::KeptFromRouters { .. } => 41,
            Self::NoLiveNode { .. } => 50,
            Self::MembersWait { .. } | Self::LeaseWithheld { .. } => 51,
            Self::LeftToLease { .. } => 52,
            Self::NotGranted { .. } => 53,
            remark if !remark.silences() => u8::MAX,
            // What else a host lacks.
            _ => 35,
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_api::Few;

    use super::*;

    #[test]
    fn what_only_follows_stands_behind_its_cause_and_remarks_are_no_cause() {
        let (address, none) = ("192.0.2.1".parse().unwrap(), Few::default);
        let not_granted = Refusal::NotGranted {
            node: "a".to_owned(),
            had: false,
            unheard: none(),
            could: none(),
        };
        let refusals = [
            Refusal::NotClaimed { address },
            Refusal::NoEndpoint,
            Refusal::InterfaceMissing { node: "a".to_owned(), name: None },
            Refusal::NotBound { node: "a".to_owned(), address, error: "no".to_owned() },
            not_granted,
            Refusal::TooManyPorts { count: 2_000 },
        ];
        assert!(refusals.is_sorted_by_key(Refusal::rank));
        let silences: Vec<bool> = refusals.iter().map(Refusal::silences).collect();
        assert_eq!(silences, [true, true, true, true, true, false]);
    }
}
