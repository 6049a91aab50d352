//! The hook of the switch: the newest table.

use crate::table::PolicyTable;
use arc_swap::ArcSwap;
use netstack::{Filter, Network, NewFlow, Reason, Verdict};
use tokio::time::Instant;

/// What happens to a flow that no rule allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Denial {
    /// Nothing: the client times out, as in most clusters.
    #[default]
    Drop,
    /// An answer: the client fails at once, which makes tests fast.
    Reject,
}

/// What a new table means for flows that have been let in by an older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Established {
    /// They are judged again at their next packet, and cut if they would not be let in any more.
    #[default]
    ReEvaluate,
    /// They stay as they are until they end, as in clusters whose tables hold only new connections.
    Keep,
}

/// Judges new flows by the newest [`PolicyTable`].
#[derive(Debug)]
pub(crate) struct TableFilter {
    pub(crate) table: ArcSwap<PolicyTable>,
    pub(crate) denial: Denial,
}

impl Established {
    /// What a table that says other things than before, or names that have further addresses, mean for known flows.
    pub(crate) fn judge_anew(self, network: &Network) {
        match self {
            Established::ReEvaluate => network.reevaluate(),
            // Who has been refused asks anew; who has been let in is never asked again.
            Established::Keep => network.forget_dropped_flows(),
        }
    }
}

impl TableFilter {
    fn verdict_of(&self, allowed: Result<(), Reason>) -> Verdict {
        match (allowed, self.denial) {
            (Ok(()), _) => Verdict::Accept,
            (Err(reason), Denial::Drop) => Verdict::Drop(reason),
            (Err(reason), Denial::Reject) => Verdict::Reject(reason),
        }
    }
}

impl Filter for TableFilter {
    fn verdict(&self, flow: &NewFlow) -> Verdict {
        self.verdict_of(self.table.load().allows(flow))
    }

    fn verdict_again(&self, flow: &NewFlow, since: Instant) -> Verdict {
        self.verdict_of(self.table.load().still_allows(flow, since))
    }
}
