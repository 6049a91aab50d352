//! AdminNetworkPolicy and BaselineAdminNetworkPolicy (`policy.networking.k8s.io/v1alpha1`): the forerunners of
//! ClusterNetworkPolicy, with which manifests of older clusters come.
//!
//! Follows the network-policy-api types; the limits are those of its schema.

use super::cluster_network_policy::schema::{label_selector, namespaces, pods, scope, status};
use super::cluster_network_policy::{Rules, one_field, priority_errors};
use super::field::{invalid, one_of};
use super::json::{fill, int, list_mut, present, text};
use super::table::{age, name};
use super::{metadata, names};
use crate::registry::ResourceKind;
use crate::schema::ObjectRef;
use crate::schema::structural::object_type;
use crate::status::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Rules per direction, peers and ports per rule.
const MOST: usize = 100;
/// Networks and names per peer.
const MOST_NETWORKS: usize = 25;
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// What the one BaselineAdminNetworkPolicy is called.
const SINGLETON: &str = "default";

const ADMIN: Rules = Rules {
    most: MOST,
    actions: &["Allow", "Deny", "Pass"],
    accept: "Allow",
    destinations: &["namespaces", "pods", "nodes", "networks", "domainNames"],
    ports: "ports",
    named_port: "namedPort",
    port_errors,
};
const BASELINE: Rules =
    Rules { actions: &["Allow", "Deny"], destinations: &["namespaces", "pods", "nodes", "networks"], ..ADMIN };

/// A port is one of TCP.
pub(super) fn default(_: &ResourceKind, policy: &mut Value) {
    for direction in ["/spec/ingress", "/spec/egress"] {
        for rule in list_mut(policy, direction) {
            for port in list_mut(rule, "/ports") {
                for kind in ["portNumber", "portRange"] {
                    if let Some(port) = port.get_mut(kind).filter(|port| port.is_object()) {
                        fill(port, "protocol", "TCP");
                    }
                }
            }
        }
    }
}

/// Everything wrong with an AdminNetworkPolicy.
pub(super) fn errors(kind: &ResourceKind, policy: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, policy, old);
    priority_errors(policy, &mut errors);
    ADMIN.errors(policy, &mut errors);
    errors
}

/// Everything wrong with a BaselineAdminNetworkPolicy.
pub(super) fn baseline_errors(kind: &ResourceKind, policy: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, policy, old);
    let name = text(policy, "/metadata/name");
    if !name.is_empty() && name != SINGLETON {
        let detail =
            "Only one baseline admin network policy with metadata.name=\"default\" can be created in the cluster";
        errors.push(invalid("metadata.name", name, detail));
    }
    BASELINE.errors(policy, &mut errors);
    errors
}

fn port_errors(port: &Value, field: &str, errors: &mut Vec<FieldError>) {
    one_field(port, field, &["portNumber", "portRange", "namedPort"], errors);
    for (kind, numbers) in [("portNumber", &["port"][..]), ("portRange", &["start", "end"])] {
        let Some(found) = present(port, &format!("/{kind}")) else { continue };
        let field = format!("{field}.{kind}");
        one_of(errors, format!("{field}.protocol"), text(found, "/protocol"), &PROTOCOLS);
        for number in numbers {
            let field = format!("{field}.{number}");
            match int(found, &format!("/{number}")) {
                None => errors.push(FieldError::required(field, "")),
                Some(value) => errors.extend(
                    names::port_number(value).map(|complaint| FieldError::invalid(field, &json!(value), complaint)),
                ),
            }
        }
        if let (Some(start), Some(end)) = (int(found, "/start"), int(found, "/end"))
            && start >= end
        {
            errors.push(FieldError::invalid(&field, &json!(start), "start must be less than end"));
        }
    }
}

/// NAME PRIORITY AGE.
pub(super) fn row(_: &ResourceKind, policy: &Value, now: Timestamp) -> Vec<Value> {
    let priority = int(policy, "/spec/priority").map_or(Value::from(""), Value::from);
    vec![name(policy), priority, age(policy, now)]
}

/// NAME AGE.
pub(super) fn baseline_row(_: &ResourceKind, policy: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(policy), age(policy, now)]
}

/// The type of AdminNetworkPolicies.
pub(super) fn schema() -> ObjectRef {
    let priority = json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 1000,
        "description": "Its place among the AdminNetworkPolicies: 0 comes first, 1000 last."});
    let description = "AdminNetworkPolicy is a policy for pods of the whole cluster, evaluated before the NetworkPolicies of namespaces. ClusterNetworkPolicy of v1alpha2 takes its place.";
    typed("AdminNetworkPolicy", description, &ADMIN, Some(priority))
}

/// The type of BaselineAdminNetworkPolicies.
pub(super) fn baseline_schema() -> ObjectRef {
    let description = "BaselineAdminNetworkPolicy is the policy for connections that no AdminNetworkPolicy and no NetworkPolicy decides over. There is one, named default. ClusterNetworkPolicy of v1alpha2 takes its place.";
    typed("BaselineAdminNetworkPolicy", description, &BASELINE, None)
}

fn typed(kind: &str, description: &str, rules: &Rules, priority: Option<Value>) -> ObjectRef {
    let mut spec = json!({
        "type": "object",
        "description": "What is wanted.",
        "required": ["subject"],
        "properties": {
            "subject": scope("The pods that the policy is for. Exactly one field must be set. Pods on the host's network are never subjects."),
            "ingress": rules_schema(rules, "from", "Rules for the connections that subjects receive, in order: the first that matches counts. At most 100."),
            "egress": rules_schema(rules, "to", "Rules for the connections that subjects open, in order: the first that matches counts. At most 100.")
        }
    });
    if let Some(priority) = priority {
        spec["properties"]["priority"] = priority;
        spec["required"] = json!(["priority", "subject"]);
    }
    let whole = json!({"type": "object", "description": description, "required": ["spec"],
        "properties": {"spec": spec, "status": status()}});
    object_type(&format!("io.k8s.networking.policy.v1alpha1.{kind}"), &whole).expect("the schema is structural")
}

fn rules_schema(rules: &Rules, peers: &str, description: &str) -> Value {
    let (peer, whose) = match peers {
        "from" => (scope("A source. Exactly one field must be set."), "sources"),
        _ => (destination(rules), "destinations"),
    };
    json!({
        "type": "array", "maxItems": MOST, "x-kubernetes-list-type": "atomic", "description": description,
        "items": {
            "type": "object",
            "required": ["action", peers],
            "properties": {
                "name": {"type": "string", "maxLength": 100, "description": "Names the rule in reports."},
                "action": {"type": "string", "enum": rules.actions,
                    "description": format!("What happens to a connection that matches: {}.", rules.actions.join(", "))},
                peers: {"type": "array", "minItems": 1, "maxItems": MOST, "x-kubernetes-list-type": "atomic", "items": peer,
                    "description": format!("The {whose} that the rule is about; one of them has to match.")},
                "ports": {"type": "array", "minItems": 1, "maxItems": MOST, "x-kubernetes-list-type": "atomic", "items": port(),
                    "description": "The ports that the rule is about; one of them has to match. Without any, all traffic matches."}
            }
        }
    })
}

fn destination(rules: &Rules) -> Value {
    let mut schema = json!({
        "type": "object", "minProperties": 1, "maxProperties": 1,
        "description": "A destination. Exactly one field must be set.",
        "properties": {
            "namespaces": namespaces(),
            "pods": pods(),
            "nodes": label_selector("Nodes, by their labels: the addresses in their status. Experimental."),
            "networks": {"type": "array", "minItems": 1, "maxItems": MOST_NETWORKS, "x-kubernetes-list-type": "set",
                "items": {"type": "string", "maxLength": 43},
                "description": "Address ranges in CIDR notation, such as 10.0.0.0/8 or fd00::/8. Addresses of pods count too."}
        }
    });
    if rules.destinations.contains(&"domainNames") {
        schema["properties"]["domainNames"] = json!({"type": "array", "minItems": 1, "maxItems": MOST_NETWORKS,
            "x-kubernetes-list-type": "set", "items": {"type": "string"},
            "description": "Domain names; a leading *. stands for one or more labels. For Allow rules only. Experimental: not evaluated here, so that the rule matches nothing."});
    }
    schema
}

fn port() -> Value {
    let number = |description: &str| json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535, "description": description});
    let protocol = json!({"type": "string", "default": "TCP", "description": "TCP, UDP or SCTP."});
    json!({
        "type": "object", "minProperties": 1, "maxProperties": 1,
        "description": "A port of the destination. Exactly one field must be set.",
        "properties": {
            "portNumber": {"type": "object", "required": ["port"], "description": "One port.",
                "properties": {"protocol": protocol, "port": number("Its number.")}},
            "portRange": {"type": "object", "required": ["start", "end"], "description": "Several ports, both ends included.",
                "properties": {"protocol": protocol, "start": number("The first port."),
                    "end": number("The last port; must be greater than start.")}},
            "namedPort": {"type": "string",
                "description": "The port of the destination pod that has this name, whatever its protocol. Not with networks, nodes or domainNames. Experimental."}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{row_of, said};
    use super::*;

    const GROUP: &str = "policy.networking.k8s.io";

    fn policy(name: &str, fields: Value) -> Value {
        let mut policy = json!({"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"subject": {"namespaces": {}}}});
        for (key, value) in fields.as_object().unwrap() {
            policy["spec"][key] = value.clone();
        }
        policy
    }

    #[track_caller]
    fn refused(kind: &str, name: &str, fields: Value, expected: &[&str]) {
        let mut policy = policy(name, fields);
        default(&ResourceKind::new(GROUP, "v1alpha1", "AdminNetworkPolicy", "adminnetworkpolicies"), &mut policy);
        assert_eq!(said(GROUP, kind, policy, None), expected);
    }

    #[test]
    fn rule_12_7_an_admin_network_policy_has_a_priority_and_rules_that_allow_deny_or_pass() {
        let all = json!({"priority": 7, "ingress": [
            {"action": "Allow", "from": [{"namespaces": {}}], "ports": [{"portNumber": {"port": 80}}, {"namedPort": "dns"}]},
            {"action": "Pass", "from": [{"pods": {"namespaceSelector": {}, "podSelector": {}}}], "ports": [{"portRange": {"protocol": "UDP", "start": 1, "end": 9}}]}],
            "egress": [{"action": "Deny", "to": [{"networks": ["10.0.0.0/8"]}, {"nodes": {}}]},
            {"action": "Allow", "to": [{"domainNames": ["*.example.com"]}]}]});
        refused("AdminNetworkPolicy", "a", all, &[]);
        refused(
            "AdminNetworkPolicy",
            "a",
            json!({"priority": 1001, "subject": {}, "ingress": [{"action": "Accept", "from": [{}], "ports": []}]}),
            &[
                "spec.priority: Invalid value: 1001: must be between 0 and 1000, inclusive",
                "spec.subject: Invalid value: \"\": must specify exactly one of: namespaces, pods",
                "spec.ingress[0].action: Unsupported value: \"Accept\": supported values: \"Allow\", \"Deny\", \"Pass\"",
                "spec.ingress[0].from[0]: Invalid value: \"\": must specify exactly one of: namespaces, pods",
                "spec.ingress[0].ports: Required value: must have at least 1 item",
            ],
        );
        refused("AdminNetworkPolicy", "a", json!({}), &["spec.priority: Required value"]);
    }

    #[test]
    fn rule_12_7_a_port_is_a_number_a_range_or_a_name() {
        let rule = |ports: Value| json!({"priority": 1, "egress": [{"action": "Deny", "to": [{"networks": ["10.0.0.0/8"]}], "ports": ports}]});
        refused(
            "AdminNetworkPolicy",
            "a",
            rule(json!([{"portNumber": {"port": 0, "protocol": "ICMP"}}, {"portRange": {"start": 9, "end": 9}},
                {"portRange": {"start": 9}}, {}, {"namedPort": "web"}])),
            &[
                "spec.egress[0].to[0]: Forbidden: networks, nodes and domainNames have no named ports and may not be used with `namedPort`",
                "spec.egress[0].ports[0].portNumber.protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                "spec.egress[0].ports[0].portNumber.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.egress[0].ports[1].portRange: Invalid value: 9: start must be less than end",
                "spec.egress[0].ports[2].portRange.end: Required value",
                "spec.egress[0].ports[3]: Invalid value: \"\": must specify exactly one of: portNumber, portRange, namedPort",
            ],
        );
        let most =
            json!({"priority": 1, "ingress": vec![json!({"action": "Deny", "from": [{"namespaces": {}}]}); 101]});
        refused("AdminNetworkPolicy", "a", most, &["spec.ingress: Too many: 101: must have at most 100 items"]);
    }

    #[test]
    fn rule_12_7_there_is_one_baseline_admin_network_policy_named_default_and_it_does_not_pass() {
        refused("BaselineAdminNetworkPolicy", "default", json!({}), &[]);
        refused(
            "BaselineAdminNetworkPolicy",
            "other",
            json!({"egress": [{"action": "Pass", "to": [{"domainNames": ["a.b"]}]}]}),
            &[
                "metadata.name: Invalid value: \"other\": Only one baseline admin network policy with metadata.name=\"default\" can be created in the cluster",
                "spec.egress[0].action: Unsupported value: \"Pass\": supported values: \"Allow\", \"Deny\"",
                "spec.egress[0].to[0]: Invalid value: \"\": must specify exactly one of: namespaces, pods, nodes, networks",
                "spec.egress[0].to[0].domainNames: Forbidden: may only be used when `action` is 'Allow'",
            ],
        );
    }

    #[test]
    fn rule_12_7_the_policies_are_shown_with_priority_and_age() {
        let fields = json!({"priority": 7});
        assert_eq!(row_of(GROUP, "AdminNetworkPolicy", &policy("a", fields)), "a | 7 | 3h5m");
        assert_eq!(row_of(GROUP, "BaselineAdminNetworkPolicy", &policy("default", json!({}))), "default | 3h5m");
    }
}
