//! ClusterNetworkPolicy (`policy.networking.k8s.io/v1alpha2`): policies of the whole cluster, in tiers around NetworkPolicy.
//!
//! Follows the network-policy-api types; the limits are those of its schema. Kubernetes reads them from the definition of the
//! custom resource; here they are checked by hand, in the words of a built-in kind.

pub(super) mod schema;

pub(super) use schema::schema;

use super::field::{invalid, one_of, too_many};
use super::json::{int, list, present, text, texts};
use super::table::{age, name};
use super::{metadata, names, selector};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::ops::RangeInclusive;

/// Rules per direction, peers and protocols per rule, networks and names per peer.
const MOST: usize = 25;
/// What rules may look like here; their forerunners of v1alpha1 differ in words and limits.
const RULES: Rules = Rules {
    most: MOST,
    actions: &ACTIONS,
    accept: "Accept",
    destinations: &["namespaces", "pods", "networks", "nodes", "domainNames"],
    ports: "protocols",
    named_port: "destinationNamedPort",
    port_errors: protocol_errors,
};
/// Lower ones come first.
const PRIORITIES: RangeInclusive<i64> = 0..=1000;
/// Bytes of a rule's name.
const LONGEST_NAME: usize = 100;
/// Peers whose ports have no names.
const PORTLESS: [&str; 3] = ["networks", "nodes", "domainNames"];
const TIERS: [&str; 2] = ["Admin", "Baseline"];
const ACTIONS: [&str; 3] = ["Accept", "Deny", "Pass"];
const CONDITION_STATUSES: [&str; 3] = ["True", "False", "Unknown"];

/// What the rules of a kind may look like.
pub(super) struct Rules {
    /// Rules per direction, peers and ports per rule.
    pub(super) most: usize,
    pub(super) actions: &'static [&'static str],
    /// The action that lets connections through.
    pub(super) accept: &'static str,
    /// The fields of an egress peer.
    pub(super) destinations: &'static [&'static str],
    /// The field with the ports.
    pub(super) ports: &'static str,
    /// The field of a port by name.
    pub(super) named_port: &'static str,
    /// What is wrong with a port, which stands at this path.
    pub(super) port_errors: fn(&Value, &str, &mut Vec<FieldError>),
}

/// Everything wrong with a policy.
pub(super) fn errors(kind: &ResourceKind, policy: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, policy, old);
    match text(policy, "/spec/tier") {
        "" => errors.push(FieldError::required("spec.tier", "")),
        tier => one_of(&mut errors, "spec.tier", tier, &TIERS),
    }
    priority_errors(policy, &mut errors);
    RULES.errors(policy, &mut errors);
    errors
}

/// A priority is there, and one of those there are.
pub(super) fn priority_errors(policy: &Value, errors: &mut Vec<FieldError>) {
    match int(policy, "/spec/priority") {
        None => errors.push(FieldError::required("spec.priority", "")),
        Some(priority) if PRIORITIES.contains(&priority) => {}
        Some(priority) => {
            errors.push(FieldError::invalid(
                "spec.priority",
                &json!(priority),
                "must be between 0 and 1000, inclusive",
            ));
        }
    }
}

impl Rules {
    /// Everything wrong with a policy's subject, rules and conditions.
    pub(super) fn errors(&self, policy: &Value, errors: &mut Vec<FieldError>) {
        match present(policy, "/spec/subject") {
            None => errors.push(FieldError::required("spec.subject", "")),
            Some(subject) => one_field(subject, "spec.subject", &["namespaces", "pods"], errors),
        }
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            let rules = list(policy, &format!("/spec/{direction}"));
            if rules.len() > self.most {
                errors.push(too_many(format!("spec.{direction}"), rules.len(), self.most));
            }
            for (index, rule) in rules.iter().enumerate() {
                rule_errors(self, rule, &format!("spec.{direction}[{index}]"), peers, errors);
            }
        }
        condition_errors(policy, errors);
    }
}

fn rule_errors(kind: &Rules, rule: &Value, field: &str, peers: &str, errors: &mut Vec<FieldError>) {
    let name = text(rule, "/name");
    if name.len() > LONGEST_NAME {
        errors.push(super::field::too_long(format!("{field}.name"), LONGEST_NAME));
    }
    let action = text(rule, "/action");
    match action {
        "" => errors.push(FieldError::required(format!("{field}.action"), "")),
        _ => one_of(errors, format!("{field}.action"), action, kind.actions),
    }
    let found = list(rule, &format!("/{peers}"));
    if found.is_empty() {
        errors.push(FieldError::required(format!("{field}.{peers}"), "must have at least 1 item"));
    } else if found.len() > kind.most {
        errors.push(too_many(format!("{field}.{peers}"), found.len(), kind.most));
    }
    let ports = list(rule, &format!("/{}", kind.ports));
    let named = format!("/{}", kind.named_port);
    for (index, peer) in found.iter().enumerate() {
        let field = format!("{field}.{peers}[{index}]");
        let known: &[&str] = if peers == "to" { kind.destinations } else { &["namespaces", "pods"] };
        one_field(peer, &field, known, errors);
        set_errors(peer, "networks", &field, names::cidr, errors);
        set_errors(peer, "domainNames", &field, domain_name, errors);
        let portless = PORTLESS.iter().any(|name| present(peer, &format!("/{name}")).is_some());
        if portless && ports.iter().any(|it| present(it, &named).is_some()) {
            let detail = format!(
                "networks, nodes and domainNames have no named ports and may not be used with `{}`",
                kind.named_port
            );
            errors.push(FieldError::forbidden(&field, detail));
        }
        if present(peer, "/domainNames").is_some() && action != kind.accept {
            let detail = format!("may only be used when `action` is '{}'", kind.accept);
            errors.push(FieldError::forbidden(format!("{field}.domainNames"), detail));
        }
    }
    let field = format!("{field}.{}", kind.ports);
    if present(rule, &format!("/{}", kind.ports)).is_some() && ports.is_empty() {
        errors.push(FieldError::required(&field, "must have at least 1 item"));
    } else if ports.len() > kind.most {
        errors.push(too_many(&field, ports.len(), kind.most));
    }
    for (index, port) in ports.iter().enumerate() {
        (kind.port_errors)(port, &format!("{field}[{index}]"), errors);
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
        for number in ["/number", "/range/start", "/range/end"] {
            let field = format!("{at}{}", number.replace('/', "."));
            match int(port, number) {
                Some(value) => errors.extend(
                    names::port_number(value).map(|complaint| FieldError::invalid(field, &json!(value), complaint)),
                ),
                None if number != "/number" && present(port, "/range").is_some() => {
                    errors.push(FieldError::required(field, ""));
                }
                None => {}
            }
        }
        if let (Some(start), Some(end)) = (int(port, "/range/start"), int(port, "/range/end"))
            && start >= end
        {
            let detail = "start must be less than end";
            errors.push(FieldError::invalid(format!("{at}.range"), &json!(start), detail));
        }
    }
}

/// The list `name` of a peer is a set of 1 to [`MOST`] texts, each of which is as it should be.
fn set_errors(
    peer: &Value,
    name: &str,
    field: &str,
    complaints: fn(&str) -> Vec<String>,
    errors: &mut Vec<FieldError>,
) {
    let field = format!("{field}.{name}");
    let found = texts(peer, &format!("/{name}"));
    if peer.get(name).is_some() && found.is_empty() {
        errors.push(FieldError::required(&field, "must have at least 1 item"));
    } else if found.len() > MOST {
        errors.push(too_many(&field, found.len(), MOST));
    }
    let mut seen = HashSet::new();
    for (index, text) in found.into_iter().enumerate() {
        let field = format!("{field}[{index}]");
        errors.extend(super::field::complaints(&field, text, complaints(text)));
        if !seen.insert(text) {
            errors.push(FieldError::duplicate(field, &json!(text)));
        }
    }
}

/// Labels of letters, digits, `-` and `_`; at least two; `*` may stand for the first ones, and a dot at the end.
fn domain_name(name: &str) -> Vec<String> {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let (first, last) = (label.bytes().next(), label.bytes().last());
        label.bytes().all(inner) && [first, last].iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
    };
    let labels = name.strip_prefix("*.").unwrap_or(name);
    let labels: Vec<&str> = labels.strip_suffix('.').unwrap_or(labels).split('.').collect();
    if labels.len() >= 2 && labels.into_iter().all(label) {
        return Vec::new();
    }
    vec!["must be a domain name of at least two labels, such as 'example.com' or '*.example.com'".to_owned()]
}

/// Conditions are whole, or clients could not read the object.
fn condition_errors(policy: &Value, errors: &mut Vec<FieldError>) {
    for (index, condition) in list(policy, "/status/conditions").iter().enumerate() {
        let field = format!("status.conditions[{index}]");
        for name in ["type", "reason"].iter().filter(|name| text(condition, &format!("/{name}")).is_empty()) {
            errors.push(FieldError::required(format!("{field}.{name}"), ""));
        }
        if condition.get("message").is_none() {
            errors.push(FieldError::required(format!("{field}.message"), ""));
        }
        one_of(errors, format!("{field}.status"), text(condition, "/status"), &CONDITION_STATUSES);
        let time = text(condition, "/lastTransitionTime");
        if let Err(why) = crate::schema::time::parse(time) {
            errors.push(invalid(format!("{field}.lastTransitionTime"), time, why));
        }
    }
}

/// Exactly one of `known` is there, and the selectors in it are good.
pub(super) fn one_field(value: &Value, field: &str, known: &[&str], errors: &mut Vec<FieldError>) {
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
    fn rule_12_3_networks_and_names_are_sets_of_1_to_25_without_named_ports() {
        let egress = |action: &str, peer: Value| json!({"egress": [{"action": action, "to": [peer]}]});
        refused(egress("Accept", json!({"domainNames": ["example.com", "*.a_b.example.com."]})), &[]);
        refused(
            egress("Accept", json!({"domainNames": ["localhost", "a.*.b", "-a.b"]})),
            &["localhost", "a.*.b", "-a.b"].map(|name| {
                let index = ["localhost", "a.*.b", "-a.b"].iter().position(|known| *known == name).unwrap();
                format!("spec.egress[0].to[0].domainNames[{index}]: Invalid value: {name:?}: must be a domain name of at least two labels, such as 'example.com' or '*.example.com'")
            }).each_ref().map(String::as_str),
        );
        refused(
            egress("Deny", json!({"networks": ["10.0.0.0/8", "10.0.0.0/8"]})),
            &["spec.egress[0].to[0].networks[1]: Duplicate value: \"10.0.0.0/8\""],
        );
        refused(
            egress("Deny", json!({"networks": []})),
            &["spec.egress[0].to[0].networks: Required value: must have at least 1 item"],
        );
        refused(
            json!({"egress": [{"action": "Deny", "to": [{"networks": ["10.0.0.0/8"]}], "protocols": [{"destinationNamedPort": "web"}]}]}),
            &[
                "spec.egress[0].to[0]: Forbidden: networks, nodes and domainNames have no named ports and may not be used with `destinationNamedPort`",
            ],
        );
    }

    #[test]
    fn rule_12_1_a_policy_has_at_most_25_rules_a_direction_and_a_rule_1_to_25_peers_and_protocols() {
        let peer = json!({"namespaces": {}});
        let rule = |peers: usize, protocols: usize| {
            let protocol = json!({"tcp": {"destinationPort": {"number": 1}}});
            json!({"action": "Deny", "from": vec![peer.clone(); peers], "protocols": vec![protocol; protocols]})
        };
        refused(json!({"ingress": vec![rule(25, 25); 25]}), &[]);
        let deny = json!({"action": "Deny", "to": [{"namespaces": {}}]});
        refused(
            json!({"ingress": [rule(26, 26), rule(0, 0)], "egress": vec![deny; 26]}),
            &[
                "spec.ingress[0].from: Too many: 26: must have at most 25 items",
                "spec.ingress[0].protocols: Too many: 26: must have at most 25 items",
                "spec.ingress[1].from: Required value: must have at least 1 item",
                "spec.ingress[1].protocols: Required value: must have at least 1 item",
                "spec.egress: Too many: 26: must have at most 25 items",
            ],
        );
    }

    #[test]
    fn rule_12_2_a_name_has_at_most_100_characters_and_a_port_is_one_number_or_one_range() {
        let port = |port: Value| json!({"action": "Deny", "from": [{"namespaces": {}}], "protocols": [{"udp": {"destinationPort": port}}]});
        let mut named = port(json!({"number": 1}));
        named["name"] = "n".repeat(101).into();
        let two = json!({"action": "Deny", "from": [{"namespaces": {}}], "protocols": [
            {"tcp": {"destinationPort": {"number": 1}}, "destinationNamedPort": "web"}]});
        refused(
            json!({"ingress": [named, port(json!({})), port(json!({"number": 0})), port(json!({"range": {"start": 1, "end": 65536}})), port(json!({"number": 1, "range": {"start": 1, "end": 2}})), two]}),
            &[
                "spec.ingress[0].name: Too long: may not be more than 100 bytes",
                "spec.ingress[1].protocols[0].udp.destinationPort: Invalid value: \"\": must specify exactly one of: number, range",
                "spec.ingress[2].protocols[0].udp.destinationPort.number: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ingress[3].protocols[0].udp.destinationPort.range.end: Invalid value: 65536: must be between 1 and 65535, inclusive",
                "spec.ingress[4].protocols[0].udp.destinationPort: Invalid value: \"\": must specify exactly one of: number, range",
                "spec.ingress[5].protocols[0]: Invalid value: \"\": must specify exactly one of: tcp, udp, sctp, destinationNamedPort",
            ],
        );
    }

    #[test]
    fn rule_12_6_a_policy_is_shown_with_tier_and_priority() {
        assert_eq!(row_of(GROUP, "ClusterNetworkPolicy", &policy(json!({}))), "p | Admin | 10 | 3h5m");
    }
}
