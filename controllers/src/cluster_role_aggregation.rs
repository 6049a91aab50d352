//! Aggregated ClusterRoles: a role with an `aggregationRule` has the rules of all roles its selectors match.
//!
//! Follows Kubernetes' "Aggregated ClusterRoles". The API server's authorizer reads the same selectors by itself; what is written here
//! is what users see in `kubectl describe clusterrole`.

use crate::meta::{labels, selects};
use crate::queue::{Next, Queue};
use crate::session::{Key, Result, Session};
use crate::{Controller, Shared, follow, run};
use informer::Informer;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use std::sync::Arc;
use tokio::task::JoinSet;

pub(crate) fn start(shared: &Shared, tasks: &mut JoinSet<()>) {
    let queue = Queue::new();
    let roles = shared.informers.of::<ClusterRole>();
    // Any role may be part of any aggregated one, and there are few of those.
    tasks.spawn(follow(roles.clone(), queue.clone(), {
        let roles = roles.clone();
        move |_| {
            let all = roles.list().into_iter();
            all.filter(|role| role.aggregation_rule.is_some()).map(|role| Key::of(&role.metadata)).collect()
        }
    }));
    tasks.spawn(run(shared.clone(), queue, AggregationController { roles }));
}

struct AggregationController {
    roles: Informer<ClusterRole>,
}

impl Controller for AggregationController {
    const NAME: &'static str = "clusterrole-aggregation-controller";

    async fn reconcile(&self, session: &Session, key: &Key) -> Result<Next> {
        let Some(role) = self.roles.get(&key.namespace, &key.name) else { return Ok(Next::OnChange) };
        let rules = rules(&role, &self.roles.list());
        if role.aggregation_rule.is_none() || role.rules.as_deref().unwrap_or_default() == rules {
            return Ok(Next::OnChange);
        }
        match session.replace(&ClusterRole { rules: Some(rules), ..(*role).clone() }).await {
            Err(error) if error.is_not_found() => {}
            written => drop(written?),
        }
        Ok(Next::OnChange)
    }
}

/// The rules of all other roles that `role`'s selectors match, by their names, each once.
fn rules(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Vec<PolicyRule> {
    let aggregation = role.aggregation_rule.clone().unwrap_or_default();
    let selectors = aggregation.cluster_role_selectors.unwrap_or_default();
    let mut rules = Vec::new();
    for other in all.iter().filter(|other| other.metadata.name != role.metadata.name) {
        if selectors.iter().any(|selector| selects(selector, labels(&other.metadata))) {
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn role(value: serde_json::Value) -> Arc<ClusterRole> {
        Arc::new(serde_json::from_value(value).expect("a ClusterRole"))
    }

    #[test]
    fn an_aggregated_role_has_the_rules_of_the_roles_it_selects_each_once() {
        let rule = |verb: &str| json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]});
        let part = |name: &str, label: &str, rules: serde_json::Value| {
            role(json!({"metadata": {"name": name, "labels": {label: "true"}}, "rules": rules}))
        };
        let view = role(json!({"metadata": {"name": "view", "labels": {"to-view": "true"}}, "rules": [rule("delete")],
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to-view": "true"}}]}}));
        let all = [
            part("a", "to-view", json!([rule("get"), rule("list")])),
            part("b", "to-view", json!([rule("get")])),
            part("c", "to-edit", json!([rule("update")])),
            view.clone(),
        ];
        let verbs: Vec<String> = rules(&view, &all).into_iter().flat_map(|rule| rule.verbs).collect();
        assert_eq!(verbs, ["get", "list"]);
    }
}
