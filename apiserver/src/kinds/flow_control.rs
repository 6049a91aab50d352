//! FlowSchema and PriorityLevelConfiguration: what is filled in, and what is wrong. What they do is in [`crate::flow_control`].

use super::field::{complaints, one_of};
use super::json::{child, equal, fill, flag, int, list, present, text, texts};
use super::{metadata, names};
use crate::flow_control;
use crate::registry::ResourceKind;
use crate::status::FieldError;
use serde_json::Value;

const VERBS: [&str; 10] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch", "*"];
const MOST_QUEUES: i64 = 10_000_000;
/// Bits of a hash that dealing a hand may use up.
const MOST_ENTROPY: f64 = 60.0;

/// Precedence 1000.
pub(super) fn default_schema(_: &ResourceKind, schema: &mut Value) {
    if let Some(spec) = child(schema, "spec")
        && spec["matchingPrecedence"].as_i64().unwrap_or_default() == 0
    {
        spec["matchingPrecedence"] = 1000.into();
    }
}

/// 30 shares, nothing lent; 64 queues, hands of 8, 50 in a queue.
pub(super) fn default_level(_: &ResourceKind, level: &mut Value) {
    let Some(spec) = child(level, "spec") else { return };
    for (part, shares) in [("limited", 30), ("exempt", 0)] {
        if let Some(limits) = spec.get_mut(part).filter(|limits| limits.is_object()) {
            fill(limits, "nominalConcurrencyShares", shares);
            fill(limits, "lendablePercent", 0);
        }
    }
    let queuing = spec.pointer_mut("/limited/limitResponse/queuing").filter(|queuing| queuing.is_object());
    if let Some(queuing) = queuing {
        for (field, value) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
            if queuing[field].as_i64().unwrap_or_default() == 0 {
                queuing[field] = value.into();
            }
        }
    }
}

/// The fixed spec of a mandatory object of this name.
fn fixed(kind: &ResourceKind, object: &Value) -> Option<Value> {
    let name = text(object, "/metadata/name");
    let all = flow_control::objects().into_iter();
    let mut mandatory = all.filter(|object| matches!(text(object, "/metadata/name"), "exempt" | "catch-all"));
    mandatory.find(|object| text(object, "/kind") == kind.kind && text(object, "/metadata/name") == name)
}

/// Everything wrong with a FlowSchema.
pub(super) fn schema(kind: &ResourceKind, schema: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, schema, old);
    let name = text(schema, "/metadata/name");
    if let Some(fixed) = fixed(kind, schema)
        && !equal(&fixed["spec"], &schema["spec"])
    {
        let why = format!("spec of '{name}' must equal the fixed value");
        errors.push(FieldError::invalid("spec", &schema["spec"], why));
    }
    let precedence = int(schema, "/spec/matchingPrecedence").unwrap_or_default();
    let field = "spec.matchingPrecedence";
    if precedence <= 0 {
        errors.push(FieldError::invalid(field, &precedence.into(), "must be a positive value"));
    } else if precedence > 10_000 {
        errors.push(FieldError::invalid(field, &precedence.into(), "must not be greater than 10000"));
    } else if precedence == 1 && name != "exempt" {
        let why = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.push(FieldError::invalid(field, &precedence.into(), why));
    }
    if present(schema, "/spec/distinguisherMethod").is_some() {
        let method = text(schema, "/spec/distinguisherMethod/type");
        one_of(&mut errors, "spec.distinguisherMethod.type", method, &["ByNamespace", "ByUser"]);
    }
    match text(schema, "/spec/priorityLevelConfiguration/name") {
        "" => {
            let why = "must reference a priority level";
            errors.push(FieldError::required("spec.priorityLevelConfiguration.name", why));
        }
        level => errors.extend(complaints("spec.priorityLevelConfiguration.name", level, names::dns_subdomain(level))),
    }
    for (index, rules) in list(schema, "/spec/rules").iter().enumerate() {
        policy_rules(&mut errors, rules, &format!("spec.rules[{index}]"));
    }
    errors
}

fn policy_rules(errors: &mut Vec<FieldError>, rules: &Value, at: &str) {
    let subjects = list(rules, "/subjects");
    if subjects.is_empty() {
        errors.push(FieldError::required(format!("{at}.subjects"), "subjects must contain at least one value"));
    }
    for (index, one) in subjects.iter().enumerate() {
        subject(errors, one, &format!("{at}.subjects[{index}]"));
    }
    let (resources, paths) = (list(rules, "/resourceRules"), list(rules, "/nonResourceRules"));
    if resources.is_empty() && paths.is_empty() {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(at, why));
    }
    for (index, rule) in resources.iter().enumerate() {
        let at = format!("{at}.resourceRules[{index}]");
        verbs(errors, rule, &at);
        wildcards(errors, rule, &at, "apiGroups");
        wildcards(errors, rule, &at, "resources");
        let namespaces = texts(rule, "/namespaces");
        if namespaces.is_empty() && !flag(rule, "/clusterScope") {
            let why = "resource rules that are not cluster scoped must supply at least one namespace";
            errors.push(FieldError::required(format!("{at}.namespaces"), why));
        }
        for (index, namespace) in namespaces.iter().enumerate().filter(|(_, namespace)| **namespace != "*") {
            let field = format!("{at}.namespaces[{index}]");
            let wrong = names::dns_subdomain(namespace).into_iter();
            errors.extend(complaints(&field, namespace, wrong.collect()));
        }
    }
    for (index, rule) in paths.iter().enumerate() {
        let at = format!("{at}.nonResourceRules[{index}]");
        verbs(errors, rule, &at);
        wildcards(errors, rule, &at, "nonResourceURLs");
        for (index, url) in texts(rule, "/nonResourceURLs").iter().enumerate().filter(|(_, url)| **url != "*") {
            let field = format!("{at}.nonResourceURLs[{index}]");
            let inner = url.strip_suffix("/*").unwrap_or(url);
            let why = if !url.starts_with('/') {
                "must start with slash"
            } else if url.contains(' ') {
                "must not contain white-space"
            } else if url.contains("//") {
                "must not contain double slash"
            } else if inner.contains('*') {
                "wildcard can only do suffix matching"
            } else {
                continue;
            };
            errors.push(FieldError::invalid(field, &(*url).into(), why));
        }
    }
}

fn subject(errors: &mut Vec<FieldError>, subject: &Value, at: &str) {
    const PARTS: [(&str, &str); 3] = [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];
    let kind = text(subject, "/kind");
    one_of(errors, format!("{at}.kind"), kind, &PARTS.map(|(kind, _)| kind));
    for (wanted, part) in PARTS.iter().filter(|_| PARTS.iter().any(|(known, _)| *known == kind)) {
        let there = subject.get(*part).is_some_and(Value::is_object);
        let field = format!("{at}.{part}");
        if kind != *wanted && there {
            errors
                .push(FieldError::forbidden(field, format!("{part} is forbidden when subject kind is not '{wanted}'")));
        } else if kind == *wanted && !there {
            errors.push(FieldError::required(field, format!("{part} is required when subject kind is '{wanted}'")));
        } else if kind == *wanted {
            for name in if *part == "serviceAccount" { vec!["namespace", "name"] } else { vec!["name"] } {
                if text(subject, &format!("/{part}/{name}")).is_empty() {
                    errors.push(FieldError::required(format!("{field}.{name}"), ""));
                }
            }
        }
    }
}

fn verbs(errors: &mut Vec<FieldError>, rule: &Value, at: &str) {
    wildcards(errors, rule, at, "verbs");
    for (index, verb) in texts(rule, "/verbs").into_iter().enumerate().filter(|(_, verb)| !VERBS.contains(verb)) {
        if at.contains("resourceRules") {
            errors.push(FieldError::not_supported(format!("{at}.verbs[{index}]"), &verb.into(), &VERBS[..9]));
        }
    }
}

/// At least one value, and nothing beside a `*`.
fn wildcards(errors: &mut Vec<FieldError>, rule: &Value, at: &str, field: &str) {
    let values = texts(rule, &format!("/{field}"));
    if values.is_empty() {
        errors.push(FieldError::required(format!("{at}.{field}"), format!("{field} must contain at least one value")));
    } else if values.len() > 1 && values.contains(&"*") {
        let why = format!("if '*' is present, must not specify other {field}");
        errors.push(FieldError::invalid(format!("{at}.{field}"), &rule[field], why));
    }
}

/// Everything wrong with a PriorityLevelConfiguration.
pub(super) fn level(kind: &ResourceKind, level: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, level, old);
    let (name, spec) = (text(level, "/metadata/name"), &level["spec"]);
    if let Some(fixed) = fixed(kind, level) {
        let same = if name == "exempt" { fixed["spec"]["type"] == spec["type"] } else { equal(&fixed["spec"], spec) };
        if !same {
            let (field, value) = if name == "exempt" { ("spec.type", &spec["type"]) } else { ("spec", spec) };
            let why = format!("{} of '{name}' must equal the fixed value", field.trim_start_matches("spec."));
            errors.push(FieldError::invalid(field, value, why));
        }
    }
    let (limited, exempt) = (&spec["limited"], &spec["exempt"]);
    match text(spec, "/type") {
        "Exempt" => {
            if limited.is_object() {
                errors.push(FieldError::forbidden("spec.limited", "must be nil if the type is not Limited"));
            }
            shares(&mut errors, exempt, "spec.exempt");
        }
        "Limited" => {
            if exempt.is_object() {
                errors.push(FieldError::forbidden("spec.exempt", "must be nil if the type is Limited"));
            }
            if limited.is_object() {
                shares(&mut errors, limited, "spec.limited");
                response(&mut errors, &limited["limitResponse"]);
            } else {
                errors.push(FieldError::required("spec.limited", "must not be empty when type is Limited"));
            }
        }
        other => one_of(&mut errors, "spec.type", other, &["Exempt", "Limited"]),
    }
    errors
}

fn shares(errors: &mut Vec<FieldError>, limits: &Value, at: &str) {
    if let Some(shares) = int(limits, "/nominalConcurrencyShares").filter(|shares| *shares < 0) {
        let why = "must be a non-negative integer";
        errors.push(FieldError::invalid(format!("{at}.nominalConcurrencyShares"), &shares.into(), why));
    }
    if let Some(percent) = int(limits, "/lendablePercent").filter(|percent| !(0..=100).contains(percent)) {
        let why = "must be between 0 and 100, inclusive";
        errors.push(FieldError::invalid(format!("{at}.lendablePercent"), &percent.into(), why));
    }
    if let Some(percent) = int(limits, "/borrowingLimitPercent").filter(|percent| *percent < 0) {
        let why = "if specified, must be a non-negative integer";
        errors.push(FieldError::invalid(format!("{at}.borrowingLimitPercent"), &percent.into(), why));
    }
}

fn response(errors: &mut Vec<FieldError>, response: &Value) {
    let (at, queuing) = ("spec.limited.limitResponse", &response["queuing"]);
    match text(response, "/type") {
        "Reject" if queuing.is_object() => {
            let why = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(FieldError::forbidden(format!("{at}.queuing"), why));
        }
        "Reject" => {}
        "Queue" if !queuing.is_object() => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(FieldError::required(format!("{at}.queuing"), why));
        }
        "Queue" => queues(errors, queuing, &format!("{at}.queuing")),
        other => one_of(errors, format!("{at}.type"), other, &["Queue", "Reject"]),
    }
}

fn queues(errors: &mut Vec<FieldError>, queuing: &Value, at: &str) {
    let number = |field: &str| queuing[field].as_i64().unwrap_or_default();
    let before = errors.len();
    for field in ["queueLengthLimit", "queues", "handSize"] {
        if number(field) <= 0 {
            errors.push(FieldError::invalid(format!("{at}.{field}"), &number(field).into(), "must be positive"));
        }
    }
    let (queues, hand) = (number("queues"), number("handSize"));
    if queues > MOST_QUEUES {
        let why = format!("must not be greater than {MOST_QUEUES}");
        errors.push(FieldError::invalid(format!("{at}.queues"), &queues.into(), why));
    } else if hand > queues {
        let why = format!("should not be greater than queues ({queues})");
        errors.push(FieldError::invalid(format!("{at}.handSize"), &hand.into(), why));
    } else if errors.len() == before {
        // Each card is drawn from one fewer.
        let bits: f64 = (0..hand).map(|drawn| ((queues - drawn) as f64).log2()).sum();
        if bits > MOST_ENTROPY {
            let why = format!(
                "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MOST_ENTROPY}"
            );
            errors.push(FieldError::invalid(format!("{at}.handSize"), &hand.into(), why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::said;
    use super::*;
    use serde_json::json;

    const GROUP: &str = "flowcontrol.apiserver.k8s.io";

    fn named(name: &str, spec: Value) -> Value {
        json!({"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec})
    }

    #[test]
    fn the_default_objects_are_valid() {
        for mut object in flow_control::objects() {
            let kind = text(&object, "/kind").to_owned();
            object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
            assert_eq!(said(GROUP, &kind, object.clone(), None), Vec::<String>::new(), "{object}");
        }
    }

    #[test]
    fn a_flow_schema_says_who_what_and_where() {
        let spec = json!({"matchingPrecedence": 1, "distinguisherMethod": {"type": "ByMood"}, "priorityLevelConfiguration": {"name": ""},
            "rules": [{}, {"subjects": [{"kind": "User"}, {"kind": "Robot"}],
                "resourceRules": [{"verbs": ["get", "*"], "apiGroups": ["*"], "resources": ["pods"]}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["healthz"]}]}]});
        assert_eq!(
            said(GROUP, "FlowSchema", named("mine", spec), None),
            [
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                "spec.distinguisherMethod.type: Unsupported value: \"ByMood\": supported values: \"ByNamespace\", \"ByUser\"",
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
                "spec.rules[0].subjects: Required value: subjects must contain at least one value",
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
                "spec.rules[1].subjects[0].user: Required value: user is required when subject kind is 'User'",
                "spec.rules[1].subjects[1].kind: Unsupported value: \"Robot\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
                "spec.rules[1].resourceRules[0].verbs: Invalid value: [\"get\",\"*\"]: if '*' is present, must not specify other verbs",
                "spec.rules[1].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
                "spec.rules[1].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"healthz\": must start with slash",
            ]
        );
    }

    #[test]
    fn a_level_has_shares_and_queues_that_can_be_dealt() {
        let limited = |queuing: Value| {
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": -1, "lendablePercent": 101,
                "limitResponse": {"type": "Queue", "queuing": queuing}}})
        };
        assert_eq!(
            said(
                GROUP,
                "PriorityLevelConfiguration",
                named("a", limited(json!({"queues": 4, "handSize": 5, "queueLengthLimit": 50}))),
                None
            ),
            [
                "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
                "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 5: should not be greater than queues (4)",
            ]
        );
        let entropy = said(
            GROUP,
            "PriorityLevelConfiguration",
            named("a", limited(json!({"queues": 1024, "handSize": 8, "queueLengthLimit": 1}))),
            None,
        );
        assert!(entropy[2].contains("required entropy bits of deckSize 1024 and handSize 8"), "{entropy:?}");
        assert_eq!(
            said(GROUP, "PriorityLevelConfiguration", named("exempt", json!({"type": "Limited"})), None),
            [
                "spec.type: Invalid value: \"Limited\": type of 'exempt' must equal the fixed value",
                "spec.limited: Required value: must not be empty when type is Limited",
            ]
        );
    }
}
