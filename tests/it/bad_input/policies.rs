//! Policies that cannot be.

use super::{POLICIES, check_created, cluster, merged};
use expect_test::expect;
use serde_json::{Value, json};

#[tokio::test]
async fn policies_that_cannot_be_are_refused_with_every_reason() {
    let cluster = cluster().await;
    let policy = |spec: Value| json!({"metadata": {"name": "p"}, "spec": merged(json!({"podSelector": {}}), &spec)});
    let from = |peer: Value| policy(json!({"ingress": [{"from": [peer]}]}));
    let ports = |port: Value| policy(json!({"ingress": [{"ports": [port]}]}));
    check_created(
        &cluster,
        POLICIES,
        vec![
            ("a peer with no field", from(json!({}))),
            ("a block together with a selector", from(json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}))),
            ("a block that is none", from(json!({"ipBlock": {"cidr": "10.0.0.0"}}))),
            ("a block without an address", from(json!({"ipBlock": {}}))),
            ("an exception outside the block", from(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}))),
            ("an exception as wide as the block", from(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}))),
            ("an exception that is none", from(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1"]}}))),
            ("an end without a port", ports(json!({"endPort": 90}))),
            ("an end of a named port", ports(json!({"port": "http", "endPort": 90}))),
            ("an end before the port", ports(json!({"port": 80, "endPort": 79}))),
            ("an end beyond all ports", ports(json!({"port": 80, "endPort": 70000}))),
            ("a port that is none", ports(json!({"port": 70000}))),
            ("a port name that is none", ports(json!({"port": "a name that is none"}))),
            ("a protocol that is none", ports(json!({"port": 80, "protocol": "ICMP"}))),
            ("a type that is none", policy(json!({"policyTypes": ["Ingress", "Both"]}))),
            ("too many types", policy(json!({"policyTypes": ["Ingress", "Egress", "Ingress"]}))),
            ("a selector that is none", policy(json!({"podSelector": {"matchLabels": {"a b": "c"}}}))),
            ("an operator that is none", policy(json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}}))),
            ("an operator without values", policy(json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}))),
            ("much at once", policy(json!({"policyTypes": ["Both"], "ingress": [{"from": [{}], "ports": [{"port": 0}]}], "egress": [{"to": [{}]}]}))),
        ],
        expect![[r#"
            a peer with no field
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].from[0]: Required value: must specify a peer
            a block together with a selector
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer
            a block that is none
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].from[0].ipBlock.cidr: Invalid value: "10.0.0.0": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
            a block without an address
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].from[0].ipBlock.cidr: Required value
            an exception outside the block
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`
            an exception as wide as the block
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`
            an exception that is none
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "10.1": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
            an end without a port
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is not specified
            an end of a named port
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is non-numeric
            an end before the port
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`
            an end beyond all ports
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].ports[0].endPort: Invalid value: 70000: must be between 1 and 65535, inclusive
            a port that is none
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive
            a port name that is none
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: [spec.ingress[0].ports[0].port: Invalid value: "a name that is none": must be no more than 15 characters, spec.ingress[0].ports[0].port: Invalid value: "a name that is none": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)]
            a protocol that is none
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.ingress[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
            a type that is none
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.policyTypes[1]: Unsupported value: "Both": supported values: "Egress", "Ingress"
            too many types
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.policyTypes: Invalid value: ["Ingress","Egress","Ingress"]: may not specify more than two policyTypes
            a selector that is none
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.podSelector.matchLabels: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            an operator that is none
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.podSelector.matchExpressions[0].operator: Invalid value: "Like": not a valid selector operator
            an operator without values
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: spec.podSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'
            much at once
              422 Invalid: NetworkPolicy.networking.k8s.io "p" is invalid: [spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, spec.ingress[0].from[0]: Required value: must specify a peer, spec.egress[0].to[0]: Required value: must specify a peer, spec.policyTypes[0]: Unsupported value: "Both": supported values: "Egress", "Ingress"]
        "#]],
    )
    .await;
    cluster.stop().await;
}
