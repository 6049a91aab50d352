//! The structural OpenAPI v3 schema of ClusterNetworkPolicy, as a CustomResourceDefinition would bring it.
//!
//! The row takes it through [`ResourceKind::with_schema`](crate::registry::ResourceKind::with_schema). Limits stand in it for
//! documents (`kubectl explain`); `super` is what enforces them.
//!
//! Follows the v1alpha2 types of network-policy-api, the experimental peers included.

use super::{MOST, PRIORITIES};
use crate::schema::ObjectRef;
use crate::schema::structural::object_type;
use serde_json::{Value, json};

const NAME: &str = "io.k8s.networking.policy.v1alpha2.ClusterNetworkPolicy";

/// The type of the kind.
pub(crate) fn schema() -> ObjectRef {
    object_type(NAME, &whole()).expect("the schema is structural")
}

fn whole() -> Value {
    json!({
        "type": "object",
        "description": "ClusterNetworkPolicy is a policy for pods of the whole cluster, evaluated before or after the NetworkPolicies of namespaces.",
        "required": ["spec"],
        "properties": {"spec": spec(), "status": status()}
    })
}

fn spec() -> Value {
    json!({
        "type": "object",
        "description": "What is wanted.",
        "required": ["tier", "priority", "subject"],
        "properties": {
            "tier": {"type": "string", "enum": super::TIERS,
                "description": "When it is evaluated. Tiers are asked in turn: Admin, then the NetworkPolicies of namespaces, then Baseline. The first that decides is final; what none decides is accepted."},
            "priority": {"type": "integer", "format": "int32", "minimum": PRIORITIES.start(), "maximum": PRIORITIES.end(),
                "description": "Its place within the tier: 0 comes first, 1000 last. Policies of equal priority should not match the same connections."},
            "subject": scope("The pods that the policy is for. Exactly one field must be set. Pods on the host's network are never subjects."),
            "ingress": rules("ingress", "from", "Rules for the connections that subjects receive, in order: the first that matches counts. At most 25."),
            "egress": rules("egress", "to", "Rules for the connections that subjects open, in order: the first that matches counts. At most 25.")
        }
    })
}

fn rules(direction: &str, peers: &str, description: &str) -> Value {
    let peer = if direction == "ingress" { scope("A source. Exactly one field must be set.") } else { destination() };
    let whose = if direction == "ingress" { "sources" } else { "destinations" };
    json!({
        "type": "array", "maxItems": MOST, "x-kubernetes-list-type": "atomic", "description": description,
        "items": {
            "type": "object",
            "required": ["action", peers],
            "properties": {
                "name": {"type": "string", "maxLength": super::LONGEST_NAME,
                    "description": "Names the rule in reports."},
                "action": {"type": "string", "enum": super::ACTIONS,
                    "description": "What happens to a connection that matches: Accept lets it through this direction's policies, Deny drops it, Pass leaves the decision to the next tier."},
                peers: {"type": "array", "minItems": 1, "maxItems": MOST, "x-kubernetes-list-type": "atomic", "items": peer,
                    "description": format!("The {whose} that the rule is about; one of them has to match.")},
                "protocols": {"type": "array", "minItems": 1, "maxItems": MOST, "x-kubernetes-list-type": "atomic", "items": protocol(),
                    "description": "The protocols and ports that the rule is about; one of them has to match. Without any, all traffic matches."}
            }
        }
    })
}

/// Pods, by exactly one of two fields.
pub(in super::super) fn scope(description: &str) -> Value {
    json!({
        "type": "object", "minProperties": 1, "maxProperties": 1, "description": description,
        "properties": {"namespaces": namespaces(), "pods": pods()}
    })
}

fn destination() -> Value {
    json!({
        "type": "object", "minProperties": 1, "maxProperties": 1,
        "description": "A destination. Exactly one field must be set.",
        "properties": {
            "namespaces": namespaces(),
            "pods": pods(),
            "networks": {"type": "array", "minItems": 1, "maxItems": MOST, "x-kubernetes-list-type": "set",
                "items": {"type": "string", "maxLength": 43},
                "description": "Address ranges in CIDR notation, such as 10.0.0.0/8 or fd00::/8. Addresses of pods count too."},
            "nodes": label_selector("Nodes, by their labels: the addresses in their status. Experimental."),
            "domainNames": {"type": "array", "minItems": 1, "maxItems": MOST, "x-kubernetes-list-type": "set",
                "items": {"type": "string"},
                "description": "Domain names; a leading *. stands for one or more labels. For Accept rules only. Experimental: not evaluated here, so that the rule matches nothing."}
        }
    })
}

pub(in super::super) fn namespaces() -> Value {
    label_selector("All pods of the namespaces with these labels. Empty: of every namespace.")
}

pub(in super::super) fn pods() -> Value {
    json!({
        "type": "object",
        "description": "Pods by their own labels and those of their namespace.",
        "required": ["podSelector"],
        "properties": {
            "namespaceSelector": label_selector("Labels of the namespace. Empty: every namespace."),
            "podSelector": label_selector("Labels of the pod. Empty: every pod.")
        }
    })
}

fn protocol() -> Value {
    json!({
        "type": "object", "minProperties": 1, "maxProperties": 1,
        "description": "A protocol with its ports. Exactly one field must be set.",
        "properties": {
            "tcp": ports("TCP"),
            "udp": ports("UDP"),
            "sctp": ports("SCTP"),
            "destinationNamedPort": {"type": "string",
                "description": "The port of the destination pod that has this name, whatever its protocol. Not with networks, nodes or domainNames. Experimental."}
        }
    })
}

fn ports(protocol: &str) -> Value {
    let port = |description: &str| json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535, "description": description});
    json!({
        "type": "object", "minProperties": 1,
        "description": format!("{protocol} traffic."),
        "properties": {
            "destinationPort": {
                "type": "object", "minProperties": 1, "maxProperties": 1,
                "description": "The port of the destination. Exactly one field must be set.",
                "properties": {
                    "number": port("One port."),
                    "range": {
                        "type": "object", "required": ["start", "end"],
                        "description": "Several ports, both ends included.",
                        "properties": {
                            "start": port("The first port."),
                            "end": port("The last port; must be greater than start.")
                        }
                    }
                }
            }
        }
    })
}

pub(in super::super) fn label_selector(description: &str) -> Value {
    json!({
        "type": "object", "x-kubernetes-map-type": "atomic", "description": description,
        "properties": {
            "matchLabels": {"type": "object", "additionalProperties": {"type": "string"},
                "description": "Labels that must be there, with these values."},
            "matchExpressions": {"type": "array", "x-kubernetes-list-type": "atomic",
                "description": "Requirements that must all be met.",
                "items": {
                    "type": "object", "required": ["key", "operator"],
                    "properties": {
                        "key": {"type": "string", "description": "The label's key."},
                        "operator": {"type": "string", "description": "In, NotIn, Exists or DoesNotExist."},
                        "values": {"type": "array", "x-kubernetes-list-type": "atomic", "items": {"type": "string"},
                            "description": "Values for In and NotIn; empty for the others."}
                    }
                }}
        }
    })
}

pub(in super::super) fn status() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    json!({
        "type": "object",
        "description": "What was made of the policy.",
        "required": ["conditions"],
        "properties": {
            "conditions": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                "description": "Whether, and by whom, it is in force.",
                "items": {
                    "type": "object",
                    "required": ["lastTransitionTime", "message", "reason", "status", "type"],
                    "properties": {
                        "type": text("What the condition is about, in CamelCase."),
                        "status": {"type": "string", "enum": super::CONDITION_STATUSES, "description": "Whether it holds."},
                        "reason": text("Why, as one word in CamelCase."),
                        "message": text("Why, for people."),
                        "lastTransitionTime": {"type": "string", "format": "date-time",
                            "description": "When the status changed last."},
                        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0,
                            "description": "The metadata.generation that it was found for."}
                    }
                }
            }
        }
    })
}
