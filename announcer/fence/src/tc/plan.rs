//! Owns what stands at an interface's egress hook. Decides only.
//!
//! A fence outlives its process, so two of them can meet on one interface: the one that a process left behind and the
//! one of the process that follows it. They stand side by side, each under a handle of its own, until the follower
//! covers all that its predecessor did; at every moment in between, what either of them drops is dropped.
//!
//! Fences of several instances stand side by side in the same way, for good, and none knows of another: each drops what
//! it must and passes on the rest.

use std::fmt;

use crate::instance::Instance;

/// Before any other filter: one that ends the classification would let frames by unseen.
pub(crate) const PRIORITY: u16 = 1;
/// All protocols (`ETH_P_ALL`).
pub(crate) const PROTOCOL: u16 = 3;

/// How far the process that holds the fence has come. The values tell the handles of its filters apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// It does not know all addresses yet. What a predecessor left stays in force beside it.
    Starting = 2,
    /// It covers every address there is; it alone stands.
    Settled = 1,
}

impl Stage {
    const ALL: [Stage; 2] = [Stage::Starting, Stage::Settled];

    /// The handle of the filter of this stage.
    pub(crate) fn handle(self, instance: &Instance) -> u32 {
        instance.handle(self as u8)
    }
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

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "filter {:?} ({}, priority {})", self.name, self.kind, self.priority)
    }
}

impl Filter {
    fn at(&self, instance: &Instance, stage: Stage) -> bool {
        self.ours(instance) && self.handle == stage.handle(instance)
    }

    /// Whether this or an earlier life of the instance put it there.
    fn ours(&self, instance: &Instance) -> bool {
        let named =
            self.name == instance.name() || instance.former_name().as_ref() == Some(&self.name);
        self.has_handle_of(instance) && named
    }

    fn has_handle_of(&self, instance: &Instance) -> bool {
        let handles = Stage::ALL.map(|stage| stage.handle(instance));
        self.kind == "bpf" && self.priority == PRIORITY && handles.contains(&self.handle)
    }

    /// Whether it is the fence of an instance of Berth, whichever: it ends the classification by dropping only.
    pub(crate) fn is_fence(&self) -> bool {
        self.kind == "bpf" && Instance::is_any(&self.name, self.handle)
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
    pub(crate) fn preceding(&self, instance: &Instance) -> impl Iterator<Item = &Filter> {
        let before = self.egress.iter().take_while(|filter| !filter.ours(instance));
        before.filter(|filter| !filter.is_fence())
    }

    /// Whether the interface runs `program` as `stage` wants it.
    pub(crate) fn runs(&self, instance: &Instance, program: u32, stage: Stage) -> bool {
        let runs = |filter: &Filter| filter.at(instance, stage) && filter.program == Some(program);
        self.egress.iter().any(runs)
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
    /// A filter of this name has a handle of ours.
    Handle(String, u32),
}

/// Lists the steps that put `program` on an interface. There is no moment in between at which less is dropped.
pub(crate) fn guard(
    observed: &Observed,
    instance: &Instance,
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
    let others = |filter: &&Filter| filter.has_handle_of(instance) && !filter.ours(instance);
    if let Some(filter) = observed.egress.iter().find(others) {
        return Err(Obstacle::Handle(filter.name.clone(), filter.handle));
    }
    if !observed.runs(instance, program, stage) {
        steps.push(Step::Put(stage));
    }
    let starting = |filter: &Filter| filter.at(instance, Stage::Starting);
    if stage == Stage::Settled && observed.egress.iter().any(starting) {
        steps.push(Step::Retire(Stage::Starting));
    }
    Ok(steps)
}

/// Lists the stages whose filters are to go, so that nothing of ours is left that looks at a frame.
///
/// The clsact qdisc stays, empty as it may be: when it comes or goes, Linux stops the interface for a moment and drops
/// what is sent meanwhile (`qdisc_graft`).
pub(crate) fn clear(observed: &Observed, instance: &Instance) -> Vec<Stage> {
    let is_there = |stage: &Stage| observed.egress.iter().any(|filter| filter.at(instance, *stage));
    Stage::ALL.into_iter().filter(is_there).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "berth-fence";
    const FORMER_NAME: &str = "berth-fence+clsact";

    fn me() -> Instance {
        Instance::services()
    }

    fn other() -> Instance {
        Instance::of("cp", 191).unwrap()
    }

    fn ours(stage: Stage, name: &str, program: u32) -> Filter {
        Filter {
            priority: PRIORITY,
            protocol: PROTOCOL,
            handle: stage.handle(&me()),
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
        assert_eq!(
            guard(&Observed::default(), &me(), 9, Stage::Settled),
            Ok(vec![Step::AddQdisc, put])
        );
    }

    #[test]
    fn what_a_predecessor_left_stays_until_its_follower_is_settled() {
        let left = ours(Stage::Settled, FORMER_NAME, 8);
        let starting = Step::Put(Stage::Starting);
        assert_eq!(
            guard(&clsact(vec![left.clone()]), &me(), 9, Stage::Starting),
            Ok(vec![starting])
        );
        let both = clsact(vec![ours(Stage::Starting, NAME, 9), left]);
        let settled = Step::Put(Stage::Settled);
        assert_eq!(
            guard(&both, &me(), 9, Stage::Settled),
            Ok(vec![settled, Step::Retire(Stage::Starting)])
        );
    }

    #[test]
    fn a_process_that_dies_while_starting_leaves_one_filter_however_often() {
        let left = clsact(vec![ours(Stage::Starting, NAME, 8), ours(Stage::Settled, NAME, 7)]);
        let replace = Step::Put(Stage::Starting);
        assert_eq!(guard(&left, &me(), 9, Stage::Starting), Ok(vec![replace]));
    }

    #[test]
    fn an_interface_that_is_guarded_needs_nothing() {
        assert_eq!(
            guard(&clsact(vec![ours(Stage::Settled, NAME, 9)]), &me(), 9, Stage::Settled),
            Ok(vec![])
        );
    }

    #[test]
    fn a_hook_that_another_holds_is_an_obstacle() {
        let ingress = Observed { qdisc: Some("ingress".into()), ..Observed::default() };
        assert_eq!(
            guard(&ingress, &me(), 9, Stage::Settled),
            Err(Obstacle::Qdisc("ingress".into()))
        );
        let taken = clsact(vec![foreign("flower", PRIORITY)]);
        assert_eq!(
            guard(&taken, &me(), 9, Stage::Settled),
            Err(Obstacle::Priority("flower".into()))
        );
    }

    #[test]
    fn clearing_takes_what_is_ours_by_either_name_and_spares_what_is_foreign() {
        let (mine, former) = (ours(Stage::Settled, NAME, 9), ours(Stage::Starting, FORMER_NAME, 8));
        let shared = clsact(vec![former, mine, foreign("bpf", PRIORITY)]);
        assert_eq!(clear(&shared, &me()), [Stage::Starting, Stage::Settled]);
        assert_eq!(clear(&clsact(vec![foreign("bpf", 1)]), &me()), []);
    }

    #[test]
    fn filters_that_run_first_are_seen() {
        let observed =
            clsact(vec![foreign("bpf", 1), ours(Stage::Settled, NAME, 9), foreign("flower", 2)]);
        assert_eq!(observed.preceding(&me()).collect::<Vec<_>>(), [&foreign("bpf", 1)]);
    }

    #[test]
    fn fences_of_two_instances_stand_side_by_side_and_clear_their_own() {
        let mine = ours(Stage::Settled, NAME, 9);
        let its = Filter {
            handle: Stage::Settled.handle(&other()),
            name: other().name(),
            ..ours(Stage::Settled, NAME, 8)
        };
        let both = clsact(vec![its, mine]);
        assert_eq!(guard(&both, &me(), 9, Stage::Settled), Ok(vec![]));
        assert_eq!(guard(&both, &other(), 8, Stage::Settled), Ok(vec![]));
        assert_eq!(
            guard(&both, &other(), 7, Stage::Starting),
            Ok(vec![Step::Put(Stage::Starting)])
        );
        assert_eq!(clear(&both, &me()), [Stage::Settled]);
        assert_eq!(both.preceding(&me()).count(), 0, "it passes on what it does not drop");
    }

    #[test]
    fn a_filter_of_another_name_with_a_handle_of_ours_is_never_replaced() {
        let left = clsact(vec![ours(Stage::Settled, "berth-fence-gone", 9)]);
        let taken = Obstacle::Handle("berth-fence-gone".into(), 0xbe01);
        assert_eq!(guard(&left, &me(), 9, Stage::Starting), Err(taken));
        assert_eq!(clear(&left, &me()), []);
    }
}
