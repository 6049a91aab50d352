//! Services that cannot be.

use super::{JSON, SERVICES, check, check_created, cluster, merged, request, send};
use expect_test::expect;
use serde_json::{Value, json};

/// A valid Service with a change.
fn service(change: Value) -> Value {
    let base = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    merged(base, &change)
}

#[tokio::test]
async fn services_that_cannot_be_are_refused_with_every_reason() {
    let cluster = cluster().await;
    let spec = |change: Value| service(json!({"spec": change}));
    let ports = |ports: Value| spec(json!({"ports": ports}));
    let external = |change: Value| {
        merged(
            json!({"metadata": {"name": "web"}, "spec": {"type": "ExternalName", "externalName": "example.com"}}),
            &json!({"spec": change}),
        )
    };
    check_created(
        &cluster,
        SERVICES,
        vec![
            ("a name that is no DNS label", service(json!({"metadata": {"name": "Web_1"}}))),
            ("a name that is too long", service(json!({"metadata": {"name": "a".repeat(64)}}))),
            ("no ports", ports(json!([]))),
            ("two ports without names", ports(json!([{"port": 80}, {"port": 81}]))),
            ("two ports of one name", ports(json!([{"name": "a", "port": 80}, {"name": "a", "port": 81}]))),
            ("a port twice", ports(json!([{"name": "a", "port": 80}, {"name": "b", "port": 80}]))),
            ("a port name that is no label", ports(json!([{"name": "A b", "port": 80}]))),
            ("a target port that is no name", ports(json!([{"port": 80, "targetPort": "a-name-that-is-too-long"}]))),
            ("a target port of digits", ports(json!([{"port": 80, "targetPort": "8080"}]))),
            ("a protocol that is none", ports(json!([{"port": 80, "protocol": "ICMP"}]))),
            ("port 0", ports(json!([{"port": 0}]))),
            ("port 70000", ports(json!([{"port": 70000, "targetPort": 70000}]))),
            ("an affinity that is none", spec(json!({"sessionAffinity": "Cookie"}))),
            ("a timeout without affinity", spec(json!({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}))),
            ("a timeout of 0", spec(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}))),
            ("a timeout of more than a day", spec(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}))),
            ("ExternalName without a name", external(json!({"externalName": null}))),
            ("an external name that is none", external(json!({"externalName": "under_score"}))),
            ("an external name with an address", external(json!({"clusterIP": "10.96.0.50"}))),
            ("a type that is none", spec(json!({"type": "Internal"}))),
            ("a headless NodePort", spec(json!({"type": "NodePort", "clusterIP": "None"}))),
            ("a headless LoadBalancer", spec(json!({"type": "LoadBalancer", "clusterIP": "None"}))),
            ("an address that is none", spec(json!({"clusterIP": "10.96.0"}))),
            ("an address outside the range", spec(json!({"clusterIP": "192.168.0.1"}))),
            ("an address that is taken", spec(json!({"clusterIP": "10.96.0.10"}))),
            ("two addresses that differ", spec(json!({"clusterIP": "10.96.0.50", "clusterIPs": ["10.96.0.51"]}))),
            ("an external policy without reason", spec(json!({"externalTrafficPolicy": "Local"}))),
            ("an external policy that is none", spec(json!({"type": "NodePort", "externalTrafficPolicy": "Near"}))),
            ("an internal policy that is none", spec(json!({"internalTrafficPolicy": "Near"}))),
            ("a health check port without Local", spec(json!({"type": "LoadBalancer", "healthCheckNodePort": 31000}))),
            ("a load balancer class without one", spec(json!({"loadBalancerClass": "example.com/lb"}))),
            ("node ports of a load balancer without one", spec(json!({"allocateLoadBalancerNodePorts": true}))),
            ("source ranges that are none", spec(json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1"]}))),
            ("external addresses of no use", spec(json!({"externalIPs": ["127.0.0.1", "0.0.0.0", "169.254.0.1", "224.0.0.1", "x"]}))),
            ("a node port outside the range", spec(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}))),
            ("a node port without the type", ports(json!([{"port": 80, "nodePort": 30001}]))),
            ("two families", spec(json!({"ipFamilyPolicy": "RequireDualStack"}))),
            ("a family that is none", spec(json!({"ipFamilies": ["IPv5"]}))),
            ("a family that is not here", spec(json!({"ipFamilies": ["IPv6"]}))),
            ("a selector that is none", spec(json!({"selector": {"a b": "c d"}}))),
            ("a traffic distribution that is none", spec(json!({"trafficDistribution": "PreferFar"}))),
            ("much at once", spec(json!({"type": "Internal", "sessionAffinity": "Cookie", "ports": [{"port": 0}, {"port": 70000}]}))),
        ],
        expect![[r#"
            a name that is no DNS label
              422 Invalid: Service "Web_1" is invalid: metadata.name: Invalid value: "Web_1": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            a name that is too long
              422 Invalid: Service "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" is invalid: metadata.name: Invalid value: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": must be no more than 63 bytes
            no ports
              422 Invalid: Service "web" is invalid: spec.ports: Required value
            two ports without names
              422 Invalid: Service "web" is invalid: [spec.ports[0].name: Required value, spec.ports[1].name: Required value]
            two ports of one name
              422 Invalid: Service "web" is invalid: spec.ports[1].name: Duplicate value: "a"
            a port twice
              422 Invalid: Service "web" is invalid: spec.ports[1]: Duplicate value: {"port":80,"protocol":"TCP"}
            a port name that is no label
              422 Invalid: Service "web" is invalid: spec.ports[0].name: Invalid value: "A b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            a target port that is no name
              422 Invalid: Service "web" is invalid: spec.ports[0].targetPort: Invalid value: "a-name-that-is-too-long": must be no more than 15 characters
            a target port of digits
              422 Invalid: Service "web" is invalid: spec.ports[0].targetPort: Invalid value: "8080": must contain at least one letter (a-z)
            a protocol that is none
              422 Invalid: Service "web" is invalid: spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
            port 0
              422 Invalid: Service "web" is invalid: [spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive]
            port 70000
              422 Invalid: Service "web" is invalid: [spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive]
            an affinity that is none
              422 Invalid: Service "web" is invalid: spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"
            a timeout without affinity
              422 Invalid: Service "web" is invalid: spec.sessionAffinityConfig: Forbidden: must not be set when session affinity is None
            a timeout of 0
              422 Invalid: Service "web" is invalid: spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400
            a timeout of more than a day
              422 Invalid: Service "web" is invalid: spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400
            ExternalName without a name
              422 Invalid: Service "web" is invalid: spec.externalName: Required value
            an external name that is none
              422 Invalid: Service "web" is invalid: spec.externalName: Invalid value: "under_score": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            an external name with an address
              422 Invalid: Service "web" is invalid: spec.clusterIPs: Forbidden: may not be set for ExternalName services
            a type that is none
              422 Invalid: Service "web" is invalid: spec.type: Unsupported value: "Internal": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"
            a headless NodePort
              422 Invalid: Service "web" is invalid: spec.clusterIPs[0]: Invalid value: "None": may not be set to 'None' for NodePort services
            a headless LoadBalancer
              422 Invalid: Service "web" is invalid: spec.clusterIPs[0]: Invalid value: "None": may not be set to 'None' for LoadBalancer services
            an address that is none
              422 Invalid: Service "web" is invalid: spec.clusterIPs[0]: Invalid value: "10.96.0": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            an address outside the range
              422 Invalid: Service "web" is invalid: spec.clusterIPs: Invalid value: ["192.168.0.1"]: failed to allocate IP 192.168.0.1: the provided IP (192.168.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/12
            an address that is taken
              422 Invalid: Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.10"]: failed to allocate IP 10.96.0.10: provided IP is already allocated
            two addresses that differ
              422 Invalid: Service "web" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.51"]: first value must match `clusterIP`
            an external policy without reason
              422 Invalid: Service "web" is invalid: spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services
            an external policy that is none
              422 Invalid: Service "web" is invalid: spec.externalTrafficPolicy: Unsupported value: "Near": supported values: "Cluster", "Local"
            an internal policy that is none
              422 Invalid: Service "web" is invalid: spec.internalTrafficPolicy: Unsupported value: "Near": supported values: "Cluster", "Local"
            a health check port without Local
              422 Invalid: Service "web" is invalid: spec.healthCheckNodePort: Invalid value: 31000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'
            a load balancer class without one
              422 Invalid: Service "web" is invalid: spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'
            node ports of a load balancer without one
              422 Invalid: Service "web" is invalid: spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'
            source ranges that are none
              422 Invalid: Service "web" is invalid: spec.loadBalancerSourceRanges[0]: Invalid value: "10.0.0.1": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
            external addresses of no use
              422 Invalid: Service "web" is invalid: [spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128), spec.externalIPs[1]: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0), spec.externalIPs[2]: Invalid value: "169.254.0.1": may not be in the link-local range (169.254.0.0/16, fe80::/10), spec.externalIPs[3]: Invalid value: "224.0.0.1": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10), spec.externalIPs[4]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)]
            a node port outside the range
              422 Invalid: Service "web" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767
            a node port without the type
              422 Invalid: Service "web" is invalid: spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'
            two families
              422 Invalid: Service "web" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services
            a family that is none
              422 Invalid: Service "web" is invalid: spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"
            a family that is not here
              422 Invalid: Service "web" is invalid: spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster
            a selector that is none
              422 Invalid: Service "web" is invalid: [spec.selector: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'), spec.selector: Invalid value: "c d": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')]
            a traffic distribution that is none
              422 Invalid: Service "web" is invalid: spec.trafficDistribution: Unsupported value: "PreferFar": supported values: "PreferClose", "PreferSameNode", "PreferSameZone"
            much at once
              422 Invalid: Service "web" is invalid: [spec.ports[0].name: Required value, spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive, spec.ports[1].name: Required value, spec.ports[1].port: Invalid value: 70000: must be between 1 and 65535, inclusive, spec.ports[1].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive, spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None", spec.type: Unsupported value: "Internal": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]
        "#]],
    )
    .await;
    cluster.stop().await;
}

#[tokio::test]
async fn updates_of_services_keep_what_must_not_change() {
    let cluster = cluster().await;
    let create = |change: Value| send(&cluster, "POST", SERVICES, JSON, service(change).to_string());
    create(json!({"spec": {"clusterIP": "10.96.0.50"}})).await;
    create(json!({"metadata": {"name": "taken"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}})).await;
    create(
        json!({"metadata": {"name": "lb"}, "spec": {"type": "LoadBalancer", "loadBalancerClass": "example.com/lb"}}),
    )
    .await;
    let patch = |what, name: &str, spec: Value| {
        request(what, "PATCH", format!("{SERVICES}/{name}"), "application/merge-patch+json", json!({"spec": spec}))
    };
    check(
        &cluster,
        [
            patch("another address", "web", json!({"clusterIP": "10.96.0.51", "clusterIPs": ["10.96.0.51"]})),
            patch("no address any more", "web", json!({"clusterIP": "None", "clusterIPs": ["None"]})),
            patch("another class", "lb", json!({"loadBalancerClass": "example.com/other"})),
            patch(
                "a node port that is taken",
                "web",
                json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}),
            ),
            patch("another type keeps the address", "web", json!({"type": "NodePort"})),
            patch("ExternalName drops it", "web", json!({"type": "ExternalName", "externalName": "example.com"})),
        ],
        expect![[r#"
            another address
              422 Invalid: Service "web" is invalid: spec.clusterIPs[0]: Invalid value: ["10.96.0.51"]: may not change once set
            no address any more
              422 Invalid: Service "web" is invalid: spec.clusterIPs[0]: Invalid value: ["None"]: may not change once set
            another class
              422 Invalid: Service "lb" is invalid: spec.loadBalancerClass: Invalid value: "example.com/other": may not change once set
            a node port that is taken
              422 Invalid: Service "web" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated
            another type keeps the address
              200
            ExternalName drops it
              200
        "#]],
    )
    .await;
    cluster.stop().await;
}
