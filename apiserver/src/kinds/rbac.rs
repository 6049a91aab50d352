//! Role, ClusterRole and their bindings. Whether a request is allowed is decided in [`crate::rbac`].

use super::field::{complaints, one_of};
use super::json::{child, equal, fill, list, list_mut, text};
use super::table::{age, name};
use super::{metadata, names};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use jiff::Timestamp;
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

/// A binding's references are to this group, its service accounts to the core group.
pub(super) fn default_binding(_: &ResourceKind, binding: &mut Value) {
    if let Some(reference) = child(binding, "roleRef") {
        fill(reference, "apiGroup", GROUP);
    }
    for subject in list_mut(binding, "/subjects") {
        if matches!(text(subject, "/kind"), "User" | "Group") {
            fill(subject, "apiGroup", GROUP);
        }
    }
}

/// Everything wrong with a role.
pub(super) fn role(kind: &ResourceKind, role: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, role, old);
    for (index, rule) in list(role, "/rules").iter().enumerate() {
        let at = |part: &str| format!("rules[{index}].{part}");
        let has = |field: &str| !list(rule, field).is_empty();
        if !has("/verbs") {
            errors.push(FieldError::required(at("verbs"), "verbs must contain at least one value"));
        }
        if has("/nonResourceURLs") {
            let urls = &rule["nonResourceURLs"];
            if kind.namespaced {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(at("nonResourceURLs"), urls, detail));
            }
            if has("/apiGroups") || has("/resources") || has("/resourceNames") {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(at("nonResourceURLs"), urls, detail));
            }
            continue;
        }
        if !has("/apiGroups") {
            errors.push(FieldError::required(at("apiGroups"), "resource rules must supply at least one api group"));
        }
        if !has("/resources") {
            errors.push(FieldError::required(at("resources"), "resource rules must supply at least one resource"));
        }
    }
    errors
}

/// Everything wrong with a binding.
pub(super) fn binding(kind: &ResourceKind, binding: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, binding, old);
    one_of(&mut errors, "roleRef.apiGroup", text(binding, "/roleRef/apiGroup"), &[GROUP]);
    let kinds: &[&str] = if kind.namespaced { &["ClusterRole", "Role"] } else { &["ClusterRole"] };
    one_of(&mut errors, "roleRef.kind", text(binding, "/roleRef/kind"), kinds);
    match text(binding, "/roleRef/name") {
        "" => errors.push(FieldError::required("roleRef.name", "")),
        role => errors.extend(complaints("roleRef.name", role, names::path_segment(role))),
    }
    for (index, subject) in list(binding, "/subjects").iter().enumerate() {
        let at = |part: &str| format!("subjects[{index}].{part}");
        let (kind, own, group) = (text(subject, "/kind"), text(subject, "/name"), text(subject, "/apiGroup"));
        if own.is_empty() {
            errors.push(FieldError::required(at("name"), ""));
        }
        match kind {
            "ServiceAccount" => {
                if !own.is_empty() {
                    errors.extend(complaints(&at("name"), own, names::dns_subdomain(own)));
                }
                one_of(&mut errors, at("apiGroup"), group, &[""]);
                if text(subject, "/namespace").is_empty() {
                    errors.push(FieldError::required(at("namespace"), ""));
                }
            }
            "User" | "Group" => one_of(&mut errors, at("apiGroup"), group, &[GROUP]),
            other => one_of(&mut errors, at("kind"), other, &["Group", "ServiceAccount", "User"]),
        }
    }
    if let Some(old) = old
        && !equal(&binding["roleRef"], &old["roleRef"])
    {
        errors.push(FieldError::invalid("roleRef", &binding["roleRef"], "cannot change roleRef"));
    }
    errors
}

/// NAME ROLE AGE USERS GROUPS SERVICEACCOUNTS.
pub(super) fn binding_row(_: &ResourceKind, binding: &Value, now: Timestamp) -> Vec<Value> {
    let subjects = |kind: &str| -> Value {
        let names: Vec<String> = list(binding, "/subjects")
            .iter()
            .filter(|subject| text(subject, "/kind") == kind)
            .map(|subject| match kind {
                "ServiceAccount" => format!("{}/{}", text(subject, "/namespace"), text(subject, "/name")),
                _ => text(subject, "/name").to_owned(),
            })
            .collect();
        names.join(", ").into()
    };
    vec![
        name(binding),
        format!("{}/{}", text(binding, "/roleRef/kind"), text(binding, "/roleRef/name")).into(),
        age(binding, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

/// What an aggregated ClusterRole selects is not the user's to write, so nothing is asked of its rules.
pub(super) fn cluster_role(kind: &ResourceKind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = role(kind, object, old);
    for (index, selector) in list(object, "/aggregationRule/clusterRoleSelectors").iter().enumerate() {
        super::selector::errors(selector, &format!("aggregationRule.clusterRoleSelectors[{index}]"), &mut errors);
    }
    if object.get("aggregationRule").is_some_and(|rule| !rule.is_null())
        && list(object, "/aggregationRule/clusterRoleSelectors").is_empty()
    {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(FieldError::required("aggregationRule.clusterRoleSelectors", detail));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::super::tests::{row_of, said};
    use super::*;
    use serde_json::json;

    fn binding_to(role: &str, subjects: Value) -> Value {
        json!({"metadata": {"name": "b", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "roleRef": {"kind": "Role", "name": role}, "subjects": subjects})
    }

    #[test]
    fn a_binding_names_its_role_for_good() {
        assert_eq!(said(GROUP, "RoleBinding", binding_to("a", json!([])), None), Vec::<String>::new());
        let changed = said(GROUP, "RoleBinding", binding_to("b", json!([])), Some(binding_to("a", json!([]))));
        assert_eq!(
            changed,
            [
                "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"b\"}: cannot change roleRef"
            ]
        );
        assert_eq!(
            said(
                GROUP,
                "RoleBinding",
                binding_to("", json!([{"kind": "ServiceAccount", "name": "x"}, {"kind": "Robot", "name": ""}])),
                None
            ),
            [
                "roleRef.name: Required value",
                "subjects[0].namespace: Required value",
                "subjects[1].name: Required value",
                "subjects[1].kind: Unsupported value: \"Robot\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
            ]
        );
    }

    #[test]
    fn a_rule_has_verbs_and_things() {
        let role = json!({"metadata": {"name": "system:r", "namespace": "default"}, "rules": [{}, {"verbs": ["get"], "nonResourceURLs": ["/x"]}]});
        assert_eq!(
            said(GROUP, "Role", role, None),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
                "rules[1].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
            ]
        );
    }

    #[test]
    fn a_binding_is_shown_with_its_subjects() {
        let subjects = json!([{"kind": "User", "name": "jane"}, {"kind": "Group", "name": "devs"}, {"kind": "ServiceAccount", "name": "bot", "namespace": "ci"}, {"kind": "User", "name": "joe"}]);
        assert_eq!(
            row_of(GROUP, "RoleBinding", &binding_to("reader", subjects)),
            "b | Role/reader | 3h5m | jane, joe | devs | ci/bot"
        );
    }
}
