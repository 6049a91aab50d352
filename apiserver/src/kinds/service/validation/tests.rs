//! The rules of Services, field by field: each wrong one is refused in upstream's words.

use super::*;
use crate::registry::NameRule;

fn kind() -> ResourceKind {
    ResourceKind::new("", "v1", "Service", "services").with_name_rule(NameRule::Label).with_status()
}

fn service(mut spec: Value) -> Value {
    let mut service = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec.take()});
    super::super::prepare(&kind(), &mut service, None, "");
    super::super::default(&kind(), &mut service);
    service
}

fn said(errors: Vec<FieldError>) -> Vec<String> {
    errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
}

/// The errors of a Service with one good port and these fields.
#[track_caller]
fn refused(fields: Value, expected: &[&str]) {
    let mut spec = json!({"ports": [{"port": 80}]});
    for (key, value) in fields.as_object().unwrap() {
        spec[key] = value.clone();
    }
    assert_eq!(said(errors(&kind(), &service(spec), None)), expected);
}

#[test]
fn rule_2_2_the_name_is_a_label() {
    let mut long = service(json!({"ports": [{"port": 80}]}));
    long["metadata"]["name"] = json!("x".repeat(64));
    let expected = format!("metadata.name: Invalid value: {:?}: must be no more than 63 bytes", "x".repeat(64));
    assert_eq!(said(errors(&kind(), &long, None)), [expected]);
    long["metadata"]["name"] = json!("a.b");
    assert_eq!(said(errors(&kind(), &long, None)), ["metadata.name: Invalid value: \"a.b\": must not contain dots"]);
}

#[test]
fn rule_2_2_ports_are_required_unless_headless_or_external_name() {
    refused(json!({"ports": []}), &["spec.ports: Required value"]);
    refused(json!({"ports": [], "clusterIP": "None"}), &[]);
    refused(json!({"ports": [], "type": "ExternalName", "externalName": "a.b."}), &[]);
}

#[test]
fn rule_2_2_several_ports_have_distinct_names_and_distinct_pairs() {
    refused(json!({"ports": [{"port": 80}, {"name": "b", "port": 81}]}), &["spec.ports[0].name: Required value"]);
    refused(
        json!({"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 80}]}),
        &[
            "spec.ports[1].name: Duplicate value: \"a\"",
            "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
        ],
    );
    refused(json!({"ports": [{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]}), &[]);
    refused(
        json!({"ports": [{"name": "a.b", "port": 80}]}),
        &["spec.ports[0].name: Invalid value: \"a.b\": must not contain dots"],
    );
}

#[test]
fn rule_2_2_target_ports_are_numbers_or_service_names() {
    refused(json!({"ports": [{"port": 80, "targetPort": "http-web"}]}), &[]);
    refused(
        json!({"ports": [{"port": 80, "targetPort": "8080"}, {"name": "b", "port": 81, "targetPort": 70000}]}),
        &[
            "spec.ports[0].name: Required value",
            "spec.ports[0].targetPort: Invalid value: \"8080\": must contain at least one letter (a-z)",
            "spec.ports[1].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ],
    );
}

#[test]
fn rule_2_2_protocol_and_port_number_are_known() {
    refused(
        json!({"ports": [{"port": 70000, "targetPort": 1, "protocol": "ICMP"}]}),
        &[
            "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ],
    );
    refused(
        json!({"type": "ClusterIp"}),
        &[
            "spec.type: Unsupported value: \"ClusterIp\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
}

#[test]
fn rule_2_2_affinity_seconds_need_affinity_and_a_day_at_most() {
    refused(
        json!({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}),
        &["spec.sessionAffinityConfig: Forbidden: must not be set when session affinity is None"],
    );
    refused(
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}),
        &[
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400",
        ],
    );
    refused(json!({"sessionAffinity": "ClientIP"}), &[]);
}

#[test]
fn rule_2_2_an_external_name_is_a_name_and_has_no_addresses() {
    refused(json!({"type": "ExternalName"}), &["spec.externalName: Required value"]);
    refused(
        json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.96.0.7", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}),
        &[
            "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
            "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
            "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
        ],
    );
}

#[test]
fn rule_2_2_node_port_and_load_balancer_services_are_not_headless() {
    for kind in ["NodePort", "LoadBalancer"] {
        refused(
            json!({"type": kind, "clusterIP": "None"}),
            &[&format!("spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for {kind} services")],
        );
    }
}

#[test]
fn rule_2_2_traffic_policies_stand_where_they_mean_something() {
    refused(
        json!({"externalTrafficPolicy": "Local"}),
        &["spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services"],
    );
    refused(
        json!({"type": "NodePort", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000}),
        &[
            "spec.healthCheckNodePort: Invalid value: 31000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ],
    );
    refused(json!({"externalIPs": ["192.0.2.7"], "externalTrafficPolicy": "Local"}), &[]);
    refused(
        json!({"internalTrafficPolicy": "Near"}),
        &["spec.internalTrafficPolicy: Unsupported value: \"Near\": supported values: \"Cluster\", \"Local\""],
    );
}

#[test]
fn rule_2_2_load_balancer_fields_need_a_load_balancer() {
    refused(
        json!({"allocateLoadBalancerNodePorts": true, "loadBalancerClass": "a/b", "loadBalancerSourceRanges": ["10.0.0.0/8"]}),
        &[
            "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
            "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
            "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ],
    );
    refused(
        json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0"]}),
        &[
            "spec.loadBalancerSourceRanges[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ],
    );
}

#[test]
fn rule_2_2_external_ips_are_other_machines() {
    refused(
        json!({"externalIPs": ["0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "239.1.1.1", "x", "192.0.2.1"]}),
        &[
            "spec.externalIPs[0]: Invalid value: \"0.0.0.0\": may not be unspecified (0.0.0.0)",
            "spec.externalIPs[1]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            "spec.externalIPs[2]: Invalid value: \"169.254.1.1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)",
            "spec.externalIPs[3]: Invalid value: \"224.0.0.1\": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
            "spec.externalIPs[4]: Invalid value: \"239.1.1.1\": may not be a multicast address",
            "spec.externalIPs[5]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ],
    );
}

#[test]
fn rule_2_2_cluster_ips_agree_with_each_other_and_with_the_families() {
    refused(
        json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.8", "10.96.0.9"]}),
        &[
            "spec.clusterIPs: Invalid value: [\"10.96.0.8\",\"10.96.0.9\"]: first value must match `clusterIP`",
            "spec.clusterIPs: Invalid value: [\"10.96.0.8\",\"10.96.0.9\"]: may specify no more than one IP for each IP family",
        ],
    );
    refused(
        json!({"clusterIPs": ["10.96.0.8"]}),
        &["spec.clusterIPs: Invalid value: [\"10.96.0.8\"]: must be empty when `clusterIP` is not specified"],
    );
    refused(
        json!({"clusterIP": "10.96.0.7", "ipFamilies": ["IPv6"]}),
        &["spec.clusterIPs[0]: Invalid value: \"10.96.0.7\": expected an IPv6 value as indicated by `ipFamilies[0]`"],
    );
    refused(
        json!({"clusterIP": "nonsense"}),
        &[
            "spec.clusterIPs[0]: Invalid value: \"nonsense\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ],
    );
    refused(json!({"ipFamilies": ["IPv4", "IPv4"]}), &["spec.ipFamilies[1]: Duplicate value: \"IPv4\""]);
}

#[track_caller]
fn update_refused(old: Value, new: Value, expected: &[&str]) {
    let (old, mut new) = (json!({"metadata": {}, "spec": old}), json!({"metadata": {}, "spec": new}));
    super::super::prepare(&kind(), &mut new, Some(&old), "");
    super::super::default(&kind(), &mut new);
    assert_eq!(said(update_errors(&kind(), &new, &old, "")), expected);
}

#[test]
fn rule_2_2_the_primary_cluster_ip_changes_only_by_way_of_external_name() {
    let old =
        json!({"type": "ClusterIP", "clusterIP": "10.96.1.7", "clusterIPs": ["10.96.1.7"], "ipFamilies": ["IPv4"]});
    update_refused(old.clone(), json!({"clusterIP": "10.96.1.7"}), &[]);
    update_refused(
        old.clone(),
        json!({"clusterIP": "10.96.1.8"}),
        &["spec.clusterIPs[0]: Invalid value: [\"10.96.1.8\"]: may not change once set"],
    );
    update_refused(
        old.clone(),
        json!({"clusterIP": "None"}),
        &["spec.clusterIPs[0]: Invalid value: [\"None\"]: may not change once set"],
    );
    update_refused(old, json!({"type": "ExternalName", "externalName": "a.b"}), &[]);
    update_refused(json!({"type": "ExternalName", "externalName": "a.b"}), json!({"clusterIP": "10.96.1.8"}), &[]);
}

#[test]
fn rule_3_7_the_order_of_families_may_not_change_once_set() {
    let old = json!({"type": "ClusterIP", "clusterIP": "10.96.1.7", "clusterIPs": ["10.96.1.7", "fd00::7"],
        "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"});
    let mut turned = old.clone();
    turned["ipFamilies"] = json!(["IPv6", "IPv4"]);
    update_refused(
        old.clone(),
        turned,
        &[
            "spec.ipFamilies[0]: Invalid value: [\"IPv6\",\"IPv4\"]: may not change once set",
            "spec.ipFamilies[1]: Invalid value: [\"IPv6\",\"IPv4\"]: may not change once set",
        ],
    );
    update_refused(old.clone(), old, &[]);
}

#[test]
fn rule_2_2_a_load_balancer_class_may_not_change_once_set() {
    let with_class = |class: Value| json!({"type": "LoadBalancer", "loadBalancerClass": class});
    update_refused(with_class(json!("a/b")), with_class(json!("a/b")), &[]);
    update_refused(
        with_class(json!("a/b")),
        with_class(json!("a/c")),
        &["spec.loadBalancerClass: Invalid value: \"a/c\": may not change once set"],
    );
    update_refused(json!({"type": "ClusterIP"}), with_class(json!("a/c")), &[]);
}

#[test]
fn rule_2_2_releasing_the_second_address_needs_the_policy_to_say_so() {
    let old = json!({"clusterIP": "10.96.1.7", "clusterIPs": ["10.96.1.7", "fd00::7"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"});
    let one = json!({"clusterIP": "10.96.1.7", "clusterIPs": ["10.96.1.7"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "PreferDualStack"});
    update_refused(
        old,
        one,
        &[
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the secondary clusterIP",
        ],
    );
}
