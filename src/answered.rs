//! What the cluster's DNS tells pods of names, carried to the policies that go by names.

use dns::{AnswerListener, NameAddress};
use policy::Policy;
use std::sync::{Arc, Weak};

/// Tells the policies. Held by the DNS server, which must not keep stopped policies alive.
pub(crate) struct PolicyAnswers {
    policy: Weak<Policy>,
    zone: &'static str,
}

impl PolicyAnswers {
    pub(crate) fn new(policy: &Arc<Policy>, zone: &'static str) -> PolicyAnswers {
        PolicyAnswers { policy: Arc::downgrade(policy), zone }
    }
}

impl std::fmt::Debug for PolicyAnswers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyAnswers").finish_non_exhaustive()
    }
}

impl AnswerListener for PolicyAnswers {
    fn wants_zone(&self) -> bool {
        self.policy.upgrade().is_some_and(|policy| policy.names_in(self.zone))
    }

    fn answered(&self, answers: &[NameAddress]) {
        if let Some(policy) = self.policy.upgrade() {
            policy.answered(answers.iter().map(|told| (told.name.as_str(), told.address, told.ttl)));
        }
    }
}
