//! ClusterNetworkPolicy (`policy.networking.k8s.io/v1alpha2`): policies of the whole cluster, in tiers around NetworkPolicy.
//!
//! Follows the network-policy-api types; the limits are those of its schema.

use super::field::{invalid, one_of, too_many};
use super::json::{int, list, present, text, texts};
use super::table::{age, name};
use super::{metadata, names, selector};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Rules per direction, peers per rule and protocols per rule.
const MOST: usize = 25;
/// Priorities are 0 to this, lower first.
const LOWEST_PRIORITY: i64 = 1000;

/// Everything wrong with a policy.
pub(super) fn errors(kind: &ResourceKind, policy: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, policy, old);
    match text(policy, "/spec/tier") {
        "" => errors.push(FieldError::required("spec.tier", "")),
        tier => one_of(&mut errors, "spec.tier", tier, &["Admin", "Baseline"]),
    }
    match int(policy, "/spec/priority") {
        None => errors.push(FieldError::required("spec.priority", "")),
        Some(0..=LOWEST_PRIORITY) => {}
        Some(priority) => {
            errors.push(FieldError::invalid(
                "spec.priority",
                &json!(priority),
                "must be between 0 and 1000, inclusive",
            ));
        }
    }
    match present(policy, "/spec/subject") {
        None => errors.push(FieldError::required("spec.subject", "")),
        Some(subject) => one_field(subject, "spec.subject", &["namespaces", "pods"], &mut errors),
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules = list(policy, &format!("/spec/{direction}"));
        if rules.len() > MOST {
            errors.push(too_many(format!("spec.{direction}"), rules.len(), MOST));
        }
        for (index, rule) in rules.iter().enumerate() {
            rule_errors(rule, &format!("spec.{direction}[{index}]"), peers, &mut errors);
        }
    }
    errors
}

fn rule_errors(rule: &Value, field: &str, peers: &str, errors: &mut Vec<FieldError>) {
    let name = text(rule, "/name");
    if name.len() > 100 {
        errors.push(super::field::too_long(format!("{field}.name"), 100));
    }
    let action = text(rule, "/action");
    one_of(errors, format!("{field}.action"), action, &["Accept", "Deny", "Pass"]);
    let found = list(rule, &format!("/{peers}"));
    if found.is_empty() {
        errors.push(FieldError::required(format!("{field}.{peers}"), "must have at least 1 item"));
    } else if found.len() > MOST {
        errors.push(too_many(format!("{field}.{peers}"), found.len(), MOST));
    }
    for (index, peer) in found.iter().enumerate() {
        let field = format!("{field}.{peers}[{index}]");
        let known: &[&str] = if peers == "to" {
            &["namespaces", "pods", "networks", "nodes", "domainNames"]
        } else {
            &["namespaces", "pods"]
        };
        one_field(peer, &field, known, errors);
        for (index, network) in texts(peer, "/networks").into_iter().enumerate() {
            errors.extend(super::field::complaints(
                &format!("{field}.networks[{index}]"),
                network,
                names::cidr(network),
            ));
        }
        if present(peer, "/domainNames").is_some() && action != "Accept" {
            errors.push(FieldError::forbidden(
                format!("{field}.domainNames"),
                "may only be used when `action` is 'Accept'",
            ));
        }
    }
    let protocols = list(rule, "/protocols");
    if protocols.len() > MOST {
        errors.push(too_many(format!("{field}.protocols"), protocols.len(), MOST));
    }
    for (index, protocol) in protocols.iter().enumerate() {
        protocol_errors(protocol, &format!("{field}.protocols[{index}]"), errors);
    }
}

fn protocol_errors(protocol: &Value, field: &str, errors: &mut Vec<FieldError>) {
    one_field(protocol, field, &["tcp", "udp", "sctp", "destinationNamedPort"], errors);
    for kind in ["tcp", "udp", "sctp"] {
        let Some(found) = present(protocol, &format!("/{kind}")) else { continue };
        let at = format!("{field}.{kind}.destinationPort");
        let Some(port) = present(found, "/destinationPort") else {
            errors.push(FieldError::required(at, ""));
            continue;
        };
        one_field(port, &at, &["number", "range"], errors);
        let mut number = |pointer: &str| {
            let value = int(port, pointer);
            if let Some(value) = value
                && let Some(complaint) = names::port_number(value)
            {
                errors.push(FieldError::invalid(
                    format!("{at}{}", pointer.replace('/', ".")),
                    &json!(value),
                    complaint,
                ));
            }
            value
        };
        number("/number");
        if let (Some(start), Some(end)) = (number("/range/start"), number("/range/end"))
            && start >= end
        {
            let detail = "start must be less than end";
            errors.push(FieldError::invalid(format!("{at}.range"), &json!(start), detail));
        }
    }
}

/// Exactly one of `known` is there, and the selectors in it are good.
fn one_field(value: &Value, field: &str, known: &[&str], errors: &mut Vec<FieldError>) {
    let given: Vec<&&str> = known.iter().filter(|name| present(value, &format!("/{name}")).is_some()).collect();
    if given.len() != 1 {
        errors.push(invalid(field, "", format!("must specify exactly one of: {}", known.join(", "))));
    }
    for (path, pointer) in [
        ("namespaces", "/namespaces"),
        ("nodes", "/nodes"),
        ("pods.namespaceSelector", "/pods/namespaceSelector"),
        ("pods.podSelector", "/pods/podSelector"),
    ] {
        if let Some(found) = present(value, pointer) {
            selector::errors(found, &format!("{field}.{path}"), errors);
        }
    }
}

/// NAME TIER PRIORITY AGE.
pub(super) fn row(_: &ResourceKind, policy: &Value, now: Timestamp) -> Vec<Value> {
    let priority = int(policy, "/spec/priority").map_or(Value::from(""), Value::from);
    vec![name(policy), text(policy, "/spec/tier").into(), priority, age(policy, now)]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{row_of, said};
    use super::*;

    const GROUP: &str = "policy.networking.k8s.io";

    fn policy(fields: Value) -> Value {
        let mut policy = json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"tier": "Admin", "priority": 10, "subject": {"namespaces": {}}}});
        for (key, value) in fields.as_object().unwrap() {
            policy["spec"][key] = value.clone();
        }
        policy
    }

    #[track_caller]
    fn refused(fields: Value, expected: &[&str]) {
        assert_eq!(said(GROUP, "ClusterNetworkPolicy", policy(fields), None), expected);
    }

    #[test]
    fn rule_12_1_a_policy_has_a_tier_a_priority_and_one_subject() {
        refused(json!({}), &[]);
        refused(
            json!({"tier": "Middle", "priority": 1001, "subject": {"namespaces": {}, "pods": {}}}),
            &[
                "spec.tier: Unsupported value: \"Middle\": supported values: \"Admin\", \"Baseline\"",
                "spec.priority: Invalid value: 1001: must be between 0 and 1000, inclusive",
                "spec.subject: Invalid value: \"\": must specify exactly one of: namespaces, pods",
            ],
        );
    }

    #[test]
    fn rule_12_2_a_rule_has_an_action_peers_and_whole_protocols() {
        refused(
            json!({"egress": [{"action": "Allow", "to": [{"networks": ["10.0.0.0/8"]}], "protocols": [{"tcp": {}}, {"udp": {"destinationPort": {"range": {"start": 9, "end": 9}}}}]}]}),
            &[
                "spec.egress[0].action: Unsupported value: \"Allow\": supported values: \"Accept\", \"Deny\", \"Pass\"",
                "spec.egress[0].protocols[0].tcp.destinationPort: Required value",
                "spec.egress[0].protocols[1].udp.destinationPort.range: Invalid value: 9: start must be less than end",
            ],
        );
        refused(
            json!({"ingress": [{"action": "Deny", "from": []}]}),
            &["spec.ingress[0].from: Required value: must have at least 1 item"],
        );
    }

    #[test]
    fn rule_12_3_networks_and_names_are_for_egress() {
        refused(
            json!({"ingress": [{"action": "Deny", "from": [{"networks": ["10.0.0.0/8"]}]}]}),
            &["spec.ingress[0].from[0]: Invalid value: \"\": must specify exactly one of: namespaces, pods"],
        );
        refused(
            json!({"egress": [{"action": "Deny", "to": [{"domainNames": ["a.b"]}]}]}),
            &["spec.egress[0].to[0].domainNames: Forbidden: may only be used when `action` is 'Accept'"],
        );
    }

    #[test]
    fn rule_12_6_a_policy_is_shown_with_tier_and_priority() {
        assert_eq!(row_of(GROUP, "ClusterNetworkPolicy", &policy(json!({}))), "p | Admin | 10 | 3h5m");
    }
}
