//! NetworkPolicy: its types, ports and peers.

use super::field::{complaints, invalid, one_of};
use super::json::{child, fill, int, list, list_mut, present, text, texts};
use super::names::Cidr;
use super::table::{age, name, selector_text};
use super::{metadata, names, selector};
use crate::registry::ResourceKind;
use crate::status::FieldError;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Without types it is an ingress policy, and one for egress too if it has egress rules.
pub(super) fn default(_: &ResourceKind, policy: &mut Value) {
    let Some(spec) = child(policy, "spec") else { return };
    child(spec, "podSelector");
    for direction in ["/ingress", "/egress"] {
        for rule in list_mut(spec, direction) {
            for port in list_mut(rule, "/ports") {
                fill(port, "protocol", "TCP");
            }
        }
    }
    if list(spec, "/policyTypes").is_empty() {
        let mut types = vec!["Ingress"];
        if !list(spec, "/egress").is_empty() {
            types.push("Egress");
        }
        super::json::put(spec, "policyTypes", Some(json!(types)));
    }
}

/// Everything wrong with a policy.
pub(super) fn errors(kind: &ResourceKind, policy: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = metadata::errors(kind, policy, old);
    selector::errors(&policy["spec"]["podSelector"], "spec.podSelector", &mut errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in list(policy, &format!("/spec/{direction}")).iter().enumerate() {
            let field = format!("spec.{direction}[{index}]");
            for (index, port) in list(rule, "/ports").iter().enumerate() {
                port_errors(port, &format!("{field}.ports[{index}]"), &mut errors);
            }
            for (index, peer) in list(rule, &format!("/{peers}")).iter().enumerate() {
                peer_errors(peer, &format!("{field}.{peers}[{index}]"), &mut errors);
            }
        }
    }
    let types = texts(policy, "/spec/policyTypes");
    if types.len() > 2 {
        let detail = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid("spec.policyTypes", &json!(types), detail));
    } else {
        for (index, kind) in types.into_iter().enumerate() {
            one_of(&mut errors, format!("spec.policyTypes[{index}]"), kind, &["Egress", "Ingress"]);
        }
    }
    errors
}

fn port_errors(port: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let at = |part: &str| format!("{field}.{part}");
    one_of(errors, at("protocol"), text(port, "/protocol"), &["SCTP", "TCP", "UDP"]);
    let end = int(port, "/endPort");
    let mut wrong_end = |why: &str| {
        if let Some(end) = end {
            errors.push(FieldError::invalid(at("endPort"), &json!(end), why));
        }
    };
    match present(port, "/port") {
        None => wrong_end("may not be specified when `port` is not specified"),
        Some(Value::String(name)) => {
            wrong_end("may not be specified when `port` is non-numeric");
            errors.extend(complaints(&at("port"), name, names::port_name(name)));
        }
        Some(number) => {
            let first = number.as_i64().unwrap_or_default();
            if let Some(complaint) = names::port_number(first) {
                errors.push(FieldError::invalid(at("port"), number, complaint));
            }
            if let Some(end) = end {
                if end < first {
                    errors.push(FieldError::invalid(at("endPort"), number, "must be greater than or equal to `port`"));
                }
                if let Some(complaint) = names::port_number(end) {
                    errors.push(FieldError::invalid(at("endPort"), &json!(end), complaint));
                }
            }
        }
    }
}

fn peer_errors(peer: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let mut given = 0;
    for name in ["podSelector", "namespaceSelector"] {
        if let Some(found) = present(peer, &format!("/{name}")) {
            given += 1;
            selector::errors(found, &format!("{field}.{name}"), errors);
        }
    }
    let block = present(peer, "/ipBlock");
    if let Some(block) = block {
        block_errors(block, &format!("{field}.ipBlock"), errors);
    }
    match (given, block) {
        (0, None) => errors.push(FieldError::required(field, "must specify a peer")),
        (1.., Some(_)) => errors.push(FieldError::forbidden(field, "may not specify both ipBlock and another peer")),
        _ => {}
    }
}

fn block_errors(block: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let cidr = text(block, "/cidr");
    if cidr.is_empty() {
        errors.push(FieldError::required(format!("{field}.cidr"), ""));
        return;
    }
    errors.extend(complaints(&format!("{field}.cidr"), cidr, names::cidr(cidr)));
    let whole = Cidr::parse(cidr);
    for (index, except) in texts(block, "/except").into_iter().enumerate() {
        let field = format!("{field}.except[{index}]");
        errors.extend(complaints(&field, except, names::cidr(except)));
        if let (Some(whole), Some(part)) = (whole, Cidr::parse(except))
            && (!whole.contains(part.address) || whole.prefix >= part.prefix)
        {
            errors.push(invalid(&field, except, "must be a strict subset of `cidr`"));
        }
    }
}

/// NAME POD-SELECTOR AGE.
pub(super) fn row(_: &ResourceKind, policy: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(policy), selector_text(policy, "/spec/podSelector").into(), age(policy, now)]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{row_of, said};
    use super::*;

    fn policy(mut spec: Value) -> Value {
        json!({"metadata": {"name": "p", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec.take()})
    }

    #[track_caller]
    fn refused(spec: Value, expected: &[&str]) {
        assert_eq!(said("networking.k8s.io", "NetworkPolicy", policy(spec), None), expected);
    }

    fn ingress(rule: Value) -> Value {
        json!({"podSelector": {}, "ingress": [rule]})
    }

    #[test]
    fn rule_11_1_types_follow_from_the_rules_and_ports_are_tcp() {
        let types = |spec: Value| {
            let mut object = policy(spec);
            default(&ResourceKind::new("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"), &mut object);
            object["spec"]["policyTypes"].clone()
        };
        assert_eq!(types(json!({"podSelector": {}})), json!(["Ingress"]));
        assert_eq!(types(json!({"podSelector": {}, "egress": [{}]})), json!(["Ingress", "Egress"]));
        assert_eq!(types(json!({"podSelector": {}, "egress": []})), json!(["Ingress"]));
        assert_eq!(types(json!({"podSelector": {}, "policyTypes": ["Egress"]})), json!(["Egress"]));

        let mut object = policy(ingress(json!({"ports": [{"port": 80}, {"protocol": "UDP"}]})));
        default(&ResourceKind::new("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"), &mut object);
        assert_eq!(
            object["spec"]["ingress"][0]["ports"],
            json!([{"port": 80, "protocol": "TCP"}, {"protocol": "UDP"}])
        );
    }

    #[test]
    fn rule_11_1_a_peer_is_a_selector_or_a_block() {
        refused(ingress(json!({"from": [{}]})), &["spec.ingress[0].from[0]: Required value: must specify a peer"]);
        refused(
            ingress(json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]})),
            &["spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"],
        );
        refused(ingress(json!({"from": [{"podSelector": {}, "namespaceSelector": {}}]})), &[]);
    }

    #[test]
    fn rule_11_1_an_exception_is_strictly_inside_its_block() {
        refused(
            json!({"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8", "11.0.0.0/16", "10.1.0.0/16", "x"]}}]}]}),
            &[
                "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
                "spec.egress[0].to[0].ipBlock.except[1]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
                "spec.egress[0].to[0].ipBlock.except[3]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ],
        );
    }

    #[test]
    fn rule_11_1_an_end_port_needs_a_number_below_it() {
        refused(
            ingress(json!({"ports": [
                {"port": 80, "endPort": 79}, {"port": "http", "endPort": 90}, {"endPort": 90}, {"port": 80, "endPort": 90}, {"port": "-"}, {"port": 0}, {"protocol": "ICMP"}]})),
            &[
                "spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`",
                "spec.ingress[0].ports[1].endPort: Invalid value: 90: may not be specified when `port` is non-numeric",
                "spec.ingress[0].ports[2].endPort: Invalid value: 90: may not be specified when `port` is not specified",
                "spec.ingress[0].ports[4].port: Invalid value: \"-\": must contain at least one letter (a-z)",
                "spec.ingress[0].ports[4].port: Invalid value: \"-\": must not begin or end with a hyphen",
                "spec.ingress[0].ports[5].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ingress[0].ports[6].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ],
        );
    }

    #[test]
    fn rule_11_1_a_policy_type_is_ingress_or_egress() {
        refused(
            json!({"podSelector": {}, "policyTypes": ["Inbound"]}),
            &["spec.policyTypes[0]: Unsupported value: \"Inbound\": supported values: \"Egress\", \"Ingress\""],
        );
    }

    #[test]
    fn a_policy_is_shown_with_its_pod_selector() {
        let row = |spec: Value| row_of("networking.k8s.io", "NetworkPolicy", &policy(spec));
        assert_eq!(row(json!({"podSelector": {"matchLabels": {"app": "db"}}})), "p | app=db | 3h5m");
        assert_eq!(row(json!({"podSelector": {}})), "p | <none> | 3h5m");
    }
}
