//! Owns what stands at an interface's egress hook. Decides only.
//!
//! A fence outlives its process, so two of them can meet on one interface: the one that a process left behind and the
//! one of the process that follows it. They stand side by side, each under a handle of its own, until the follower
//! covers all that its predecessor did; at every moment in between, what either of them drops is dropped.

/// The name of our filters in `tc filter show`.
pub(crate) const NAME: &str = "berth-fence";
/// The same by a Berth that removed the clsact qdisc when it went.
const FORMER_NAME: &str = "berth-fence+clsact";
/// Before any other filter: one that ends the classification would let frames by unseen.
pub(crate) const PRIORITY: u16 = 1;
/// All protocols (`ETH_P_ALL`).
pub(crate) const PROTOCOL: u16 = 3;

/// How far the process that holds the fence has come. The values are the handles of its filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Stage {
    /// It does not know all addresses yet. What a predecessor left stays in force beside it.
    Starting = 0xbe02,
    /// It covers every address there is; it alone stands.
    Settled = 0xbe01,
}

/// A filter, in the order in which the kernel runs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) priority: u16,
    pub(crate) protocol: u16,
    pub(crate) handle: u32,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) program: Option<u32>,
}

impl Filter {
    fn at(&self, stage: Stage) -> bool {
        self.ours() && self.handle == stage as u32
    }

    /// Whether this or an earlier Berth put it there.
    pub(crate) fn ours(&self) -> bool {
        self.kind == "bpf"
            && self.priority == PRIORITY
            && (self.name == NAME || self.name == FORMER_NAME)
            && [Stage::Starting as u32, Stage::Settled as u32].contains(&self.handle)
    }
}

/// What an interface has now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// The kind of its ingress qdisc: `clsact`, `ingress` or none.
    pub(crate) qdisc: Option<String>,
    pub(crate) egress: Vec<Filter>,
}

impl Observed {
    /// The foreign filters that run before ours and may end the classification.
    pub(crate) fn preceding(&self) -> impl Iterator<Item = &Filter> {
        self.egress.iter().take_while(|filter| !filter.ours())
    }

    /// Whether the interface runs `program` as `stage` wants it.
    pub(crate) fn runs(&self, program: u32, stage: Stage) -> bool {
        self.egress.iter().any(|filter| filter.at(stage) && filter.program == Some(program))
    }
}

/// A step towards a guarded interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make the clsact qdisc.
    AddQdisc,
    /// Put our program there, in one step with the removal of what has the handle of this stage.
    Put(Stage),
    /// Take the filter of an earlier stage away.
    Retire(Stage),
}

/// Why an interface cannot be guarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Its ingress qdisc has no egress hook.
    Qdisc(String),
    /// Another kind of filter has our priority.
    Priority(String),
}

/// Lists the steps that put `program` on an interface. There is no moment in between at which less is dropped.
pub(crate) fn guard(
    observed: &Observed,
    program: u32,
    stage: Stage,
) -> Result<Vec<Step>, Obstacle> {
    let mut steps = Vec::new();
    match observed.qdisc.as_deref() {
        None => steps.push(Step::AddQdisc),
        Some("clsact") => {}
        Some(other) => return Err(Obstacle::Qdisc(other.to_owned())),
    }
    // The kernel keeps one kind and one protocol to a priority.
    let taken = |filter: &&Filter| {
        filter.priority == PRIORITY && (filter.kind != "bpf" || filter.protocol != PROTOCOL)
    };
    if let Some(filter) = observed.egress.iter().find(taken) {
        return Err(Obstacle::Priority(filter.kind.clone()));
    }
    if !observed.runs(program, stage) {
        steps.push(Step::Put(stage));
    }
    if stage == Stage::Settled && observed.egress.iter().any(|filter| filter.at(Stage::Starting)) {
        steps.push(Step::Retire(Stage::Starting));
    }
    Ok(steps)
}

/// Lists the stages whose filters are to go, so that nothing of ours is left that looks at a frame.
///
/// The clsact qdisc stays, empty as it may be: when it comes or goes, Linux stops the interface for a moment and drops
/// what is sent meanwhile (`qdisc_graft`).
pub(crate) fn clear(observed: &Observed) -> Vec<Stage> {
    let stages = [Stage::Starting, Stage::Settled].into_iter();
    stages.filter(|&stage| observed.egress.iter().any(|filter| filter.at(stage))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(stage: Stage, name: &str, program: u32) -> Filter {
        Filter {
            priority: PRIORITY,
            protocol: PROTOCOL,
            handle: stage as u32,
            kind: "bpf".into(),
            name: name.into(),
            program: Some(program),
        }
    }

    fn foreign(kind: &str, priority: u16) -> Filter {
        Filter {
            priority,
            protocol: PROTOCOL,
            handle: 1,
            kind: kind.into(),
            name: "cil_to_netdev".into(),
            program: Some(7),
        }
    }

    fn clsact(egress: Vec<Filter>) -> Observed {
        Observed { qdisc: Some("clsact".into()), egress }
    }

    #[test]
    fn a_bare_interface_gets_a_qdisc_and_a_filter() {
        let put = Step::Put(Stage::Settled);
        assert_eq!(guard(&Observed::default(), 9, Stage::Settled), Ok(vec![Step::AddQdisc, put]));
    }

    #[test]
    fn what_a_predecessor_left_stays_until_its_follower_is_settled() {
        let left = ours(Stage::Settled, FORMER_NAME, 8);
        let starting = Step::Put(Stage::Starting);
        assert_eq!(guard(&clsact(vec![left.clone()]), 9, Stage::Starting), Ok(vec![starting]));
        let both = clsact(vec![ours(Stage::Starting, NAME, 9), left]);
        let settled = Step::Put(Stage::Settled);
        assert_eq!(
            guard(&both, 9, Stage::Settled),
            Ok(vec![settled, Step::Retire(Stage::Starting)])
        );
    }

    #[test]
    fn a_process_that_dies_while_starting_leaves_one_filter_however_often() {
        let left = clsact(vec![ours(Stage::Starting, NAME, 8), ours(Stage::Settled, NAME, 7)]);
        let replace = Step::Put(Stage::Starting);
        assert_eq!(guard(&left, 9, Stage::Starting), Ok(vec![replace]));
    }

    #[test]
    fn an_interface_that_is_guarded_needs_nothing() {
        assert_eq!(
            guard(&clsact(vec![ours(Stage::Settled, NAME, 9)]), 9, Stage::Settled),
            Ok(vec![])
        );
    }

    #[test]
    fn a_hook_that_another_holds_is_an_obstacle() {
        let ingress = Observed { qdisc: Some("ingress".into()), ..Observed::default() };
        assert_eq!(guard(&ingress, 9, Stage::Settled), Err(Obstacle::Qdisc("ingress".into())));
        let taken = clsact(vec![foreign("flower", PRIORITY)]);
        assert_eq!(guard(&taken, 9, Stage::Settled), Err(Obstacle::Priority("flower".into())));
    }

    #[test]
    fn clearing_takes_what_is_ours_by_either_name_and_spares_what_is_foreign() {
        let (mine, former) = (ours(Stage::Settled, NAME, 9), ours(Stage::Starting, FORMER_NAME, 8));
        let shared = clsact(vec![former, mine, foreign("bpf", PRIORITY)]);
        assert_eq!(clear(&shared), [Stage::Starting, Stage::Settled]);
        assert_eq!(clear(&clsact(vec![foreign("bpf", 1)])), []);
    }

    #[test]
    fn filters_that_run_first_are_seen() {
        let observed =
            clsact(vec![foreign("bpf", 1), ours(Stage::Settled, NAME, 9), foreign("flower", 2)]);
        assert_eq!(observed.preceding().collect::<Vec<_>>(), [&foreign("bpf", 1)]);
    }
}
