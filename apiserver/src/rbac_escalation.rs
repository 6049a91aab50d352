//! Nobody grants what he does not have: the check on roles and bindings as they are written.
//!
//! A role may contain only rules that its author holds, unless he may `escalate` it; a binding may refer only to a role whose rules
//! its author holds, unless he may `bind` it. Follows Kubernetes' "Privilege escalation prevention and bootstrapping".

use crate::admission::{Admission, AdmissionOperation, AdmissionRequest};
use crate::authn::UserInfo;
use crate::authz::{Authorizer, Decision};
use crate::rbac::{API_GROUP, Rbac, Rule, covers_path, covers_resource};
use crate::request::RequestInfo;
use crate::status::Status;
use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The plug-in.
pub struct RbacEscalation {
    /// Who may what.
    pub rbac: Rbac,
    /// Who may `escalate` and `bind`.
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Admission for RbacEscalation {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        request.kind.group == API_GROUP
            && request.operation != AdmissionOperation::Delete
            && !request.user.groups.iter().any(|group| group == "system:masters")
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, object: &Value) -> Result<(), Status> {
        match &*request.kind.kind {
            "Role" | "ClusterRole" => self.role(request, object).await,
            "RoleBinding" | "ClusterRoleBinding" => self.binding(request, object).await,
            _ => Ok(()),
        }
    }
}

impl RbacEscalation {
    async fn role(&self, request: &AdmissionRequest<'_>, role: &Value) -> Result<(), Status> {
        if self.may(request, "escalate", &request.kind.plural, request.name).await || unchanged(request, role) {
            return Ok(());
        }
        let rules: Vec<Rule> = role["rules"].as_array().into_iter().flatten().map(Rule::from_json).collect();
        self.holds(request, &rules).await?;
        let aggregated = |role: &Value| role["aggregationRule"].is_object();
        if aggregated(role) || request.old.is_some_and(aggregated) {
            let all = || vec!["*".to_owned()];
            let resources = Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() };
            let everything = [resources, Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() }];
            let (held, _) = self.rbac.rules(request.user, request.namespace).await;
            if !uncovered(&held, &everything).is_empty() {
                return Err(request.forbidden("must have cluster-admin privileges to use an aggregationRule"));
            }
        }
        Ok(())
    }

    async fn binding(&self, request: &AdmissionRequest<'_>, binding: &Value) -> Result<(), Status> {
        if unchanged(request, binding) {
            return Ok(());
        }
        let reference = &binding["roleRef"];
        let (kind, name) =
            (reference["kind"].as_str().unwrap_or_default(), reference["name"].as_str().unwrap_or_default());
        let plural = if kind == "Role" { "roles" } else { "clusterroles" };
        if self.may(request, "bind", plural, name).await {
            return Ok(());
        }
        let rules = self.rbac.role_rules(request.namespace, reference).await;
        let rules = rules.ok_or_else(|| Status::not_found(API_GROUP, plural, name))?;
        self.holds(request, &rules).await
    }

    async fn may(&self, request: &AdmissionRequest<'_>, verb: &str, resource: &str, name: &str) -> bool {
        let asked = RequestInfo {
            is_resource: true,
            verb: verb.to_owned(),
            group: API_GROUP.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            namespace: request.namespace.to_owned(),
            name: name.to_owned(),
            ..RequestInfo::default()
        };
        matches!(self.authorizer.authorize(request.user, &asked).await, Decision::Allow(_))
    }

    async fn holds(&self, request: &AdmissionRequest<'_>, rules: &[Rule]) -> Result<(), Status> {
        let (held, errors) = self.rbac.rules(request.user, request.namespace).await;
        let missing = uncovered(&held, rules);
        if missing.is_empty() {
            return Ok(());
        }
        let missing: BTreeSet<String> = compact(missing).iter().map(described).collect();
        let missing: Vec<String> = missing.into_iter().collect();
        let UserInfo { name, groups, .. } = request.user;
        let mut why = format!(
            "user {name:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            quoted(groups),
            missing.join("\n")
        );
        if !errors.is_empty() {
            why.push_str(&format!("; resolution errors: [{}]", errors.join(", ")));
        }
        Err(request.forbidden(&why))
    }
}

/// Whether an update touches nothing but metadata that the garbage collector needs: finalizers and owners.
fn unchanged(request: &AdmissionRequest<'_>, new: &Value) -> bool {
    let Some(old) = request.old else { return false };
    let without = |object: &Value| {
        let mut object = object.clone();
        for field in ["finalizers", "ownerReferences", "managedFields"] {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove(field);
            }
        }
        object
    };
    without(old) == without(new)
}

/// What of `wanted` nobody who holds `held` may do, in rules of one verb and one thing each; those differing by verb only in one rule.
pub(crate) fn uncovered(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let parts = wanted.iter().flat_map(parts);
    parts.filter(|part| !held.iter().any(|rule| covers(rule, part))).collect()
}

/// A rule as rules of one verb, and one group, resource and name, or one path.
fn parts(rule: &Rule) -> Vec<Rule> {
    let one = |text: &String| vec![text.clone()];
    let mut parts = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let part =
                    Rule { verbs: one(verb), api_groups: one(group), resources: one(resource), ..Rule::default() };
                if rule.resource_names.is_empty() {
                    parts.push(part);
                } else {
                    let named =
                        rule.resource_names.iter().map(|name| Rule { resource_names: one(name), ..part.clone() });
                    parts.extend(named);
                }
            }
        }
    }
    for url in &rule.non_resource_urls {
        parts.extend(rule.verbs.iter().map(|verb| Rule {
            verbs: one(verb),
            non_resource_urls: one(url),
            ..Rule::default()
        }));
    }
    parts
}

fn covers(held: &Rule, part: &Rule) -> bool {
    let within = |held: &[String], wanted: &[String]| {
        held.iter().any(|item| item == "*") || wanted.iter().all(|item| held.contains(item))
    };
    let resources = part.resources.iter().all(|wanted| held.resources.iter().any(|item| covers_resource(item, wanted)));
    let names = held.resource_names.is_empty()
        || (!part.resource_names.is_empty()
            && part.resource_names.iter().all(|name| held.resource_names.contains(name)));
    let urls =
        part.non_resource_urls.iter().all(|wanted| held.non_resource_urls.iter().any(|item| covers_path(item, wanted)));
    within(&held.verbs, &part.verbs) && within(&held.api_groups, &part.api_groups) && resources && names && urls
}

/// Joins rules that differ by their verb only.
fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut all: Vec<Rule> = Vec::new();
    for rule in rules {
        let same = |other: &&mut Rule| {
            rule.non_resource_urls.is_empty()
                && (&other.api_groups, &other.resources, &other.resource_names)
                    == (&rule.api_groups, &rule.resources, &rule.resource_names)
        };
        match all.iter_mut().find(same) {
            Some(other) => {
                let more = rule.verbs.into_iter().filter(|verb| !other.verbs.contains(verb)).collect::<Vec<_>>();
                other.verbs.extend(more);
            }
            None => all.push(rule),
        }
    }
    all
}

/// `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}`.
fn described(rule: &Rule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let parts = parts.iter().filter(|(_, list)| !list.is_empty());
    let parts: Vec<String> = parts.map(|(name, list)| format!("{name}:{}", quoted(list))).collect();
    format!("{{{}}}", parts.join(", "))
}

fn quoted(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|item| format!("{item:?}")).collect();
    format!("[{}]", items.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(value: Value) -> Vec<Rule> {
        value.as_array().expect("rules").iter().map(Rule::from_json).collect()
    }

    #[track_caller]
    fn missing(expected: &[&str], held: Value, wanted: Value) {
        let missing: Vec<String> = compact(uncovered(&rules(held), &rules(wanted))).iter().map(described).collect();
        assert_eq!(missing, expected);
    }

    #[test]
    fn a_rule_is_held_when_each_verb_on_each_thing_is() {
        let pods = |verbs: &[&str]| json!({"verbs": verbs, "apiGroups": [""], "resources": ["pods"]});
        let named = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]});
        missing(&[], json!([pods(&["*"])]), json!([pods(&["get", "list"])]));
        missing(&[], json!([pods(&["get"]), pods(&["list"])]), json!([pods(&["get", "list"])]));
        missing(&[], json!([pods(&["get"])]), json!([named]));
        missing(
            &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "delete"]}"#],
            json!([pods(&["get"])]),
            json!([pods(&["get", "list", "delete"])]),
        );
        missing(&[r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#], json!([named]), json!([pods(&["get"])]));
        missing(
            &[r#"{APIGroups:[""], Resources:["pods"], Verbs:["*"]}"#],
            json!([pods(&["get"])]),
            json!([pods(&["*"])]),
        );
        let scale =
            |group: &str, resource: &str| json!({"verbs": ["get"], "apiGroups": [group], "resources": [resource]});
        missing(&[], json!([scale("*", "*/scale")]), json!([scale("apps", "deployments/scale")]));
        missing(
            &[r#"{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}"#],
            json!([scale("*", "*/scale")]),
            json!([scale("apps", "deployments")]),
        );
        let url = |path: &str| json!({"verbs": ["get"], "nonResourceURLs": [path]});
        missing(&[], json!([url("/a/*")]), json!([url("/a/b")]));
        missing(&[r#"{NonResourceURLs:["*"], Verbs:["get"]}"#], json!([url("/a/*")]), json!([url("*")]));
    }
}
