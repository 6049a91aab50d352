//! EndpointSlices as consumers must read them, numbered as in the reference of semantics, chapter 4.

use crate::support::{CLIENT, VIP, cluster, service, slice, slice_with_ports, web, web_cluster, yaml};
use netstack::{Protocol, Translation};
use proxy::reason;
use tokio::time::Instant;

#[test]
fn rule_4_7_the_union_of_all_slices_counts_and_duplicates_count_once() {
    let net = cluster(
        &[web("")],
        &[
            slice("web", "web-1", &["10.244.1.2@node-1", "10.244.2.2@node-2"]),
            slice("web", "by-hand", &["10.244.2.2@node-2", "10.244.2.3@node-2"]),
            slice("api", "api-1", &["10.244.2.9@node-2"]),
        ],
    );
    let counts = net.counts(CLIENT, VIP, 3000);
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["10.244.1.2", "10.244.2.2", "10.244.2.3"]);
    assert!(counts.values().all(|count| (900..1100).contains(count)), "{counts:?}");
}

#[test]
fn rule_4_7_of_two_records_of_an_endpoint_the_ready_one_counts() {
    for order in [["a", "b"], ["b", "a"]] {
        let net = cluster(
            &[web("")],
            &[
                slice("web", order[0], &["10.244.1.2@node-1 terminating"]),
                slice("web", order[1], &["10.244.1.2@node-1"]),
                slice("web", "c", &["10.244.1.3@node-1 notready"]),
            ],
        );
        assert_eq!(net.spread(CLIENT, VIP), ["10.244.1.2"]);
    }
}

#[test]
fn rule_4_7_conditions_that_are_not_given_mean_ready_serving_and_not_terminating() {
    let mut unknown = slice("web", "web-1", &["10.244.1.2@node-1", "10.244.1.3@node-1"]);
    let endpoints = unknown.endpoints.as_mut().expect("endpoints");
    endpoints[0].conditions = None;
    endpoints[1].conditions = Some(yaml("{ ready: false, terminating: true }")); // serving follows ready
    assert_eq!(cluster(&[web("")], std::slice::from_ref(&unknown)).spread(CLIENT, VIP), ["10.244.1.2"]);
    unknown.endpoints.as_mut().expect("endpoints").remove(0);
    let outcome = cluster(&[web("")], &[unknown]).send(CLIENT, VIP);
    assert_eq!(outcome, Translation::Reject(reason::NO_ENDPOINTS_REJECT));
}

#[test]
fn rule_4_7_slice_ports_are_matched_by_name_and_protocol() {
    let dns = service(
        "dns",
        "{ clusterIPs: [10.96.0.10], ports: [{ name: dns, port: 53, protocol: UDP }, { name: dns-tcp, port: 53 }, { name: metrics, port: 9153 }] }",
    );
    let net = cluster(
        &[dns],
        &[slice_with_ports(
            "dns",
            "dns-1",
            "[{ name: dns, port: 5353, protocol: UDP }, { name: dns-tcp, port: 5300, protocol: TCP }, { name: metrics, port: 1, protocol: UDP }]",
            &["10.244.1.2@node-1"],
        )],
    );
    let to = |protocol, frontend: &str| match net.send_at(protocol, CLIENT, frontend, Instant::now()) {
        Translation::To { dst, .. } => dst.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(to(Protocol::Udp, "10.96.0.10:53"), "10.244.1.2:5353");
    assert_eq!(to(Protocol::Tcp, "10.96.0.10:53"), "10.244.1.2:5300");
    assert!(to(Protocol::Tcp, "10.96.0.10:9153").contains("NO_ENDPOINTS_REJECT"));
}

#[test]
fn rule_4_5_pods_with_different_numbers_for_a_named_port_each_get_their_own() {
    let net = cluster(
        &[service("web", "{ clusterIPs: [10.96.0.20], ports: [{ name: http, port: 80, targetPort: web }] }")],
        &[
            slice_with_ports("web", "web-1", "[{ name: http, port: 8080 }]", &["10.244.1.2@node-1"]),
            slice_with_ports("web", "web-2", "[{ name: http, port: 9090 }]", &["10.244.2.2@node-2"]),
        ],
    );
    let mut seen: Vec<String> = (0..64)
        .map(|_| match net.send(CLIENT, VIP) {
            Translation::To { dst, .. } => dst.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["10.244.1.2:8080", "10.244.2.2:9090"]);
}

#[test]
fn rule_4_8_fqdn_slices_and_unreadable_addresses_are_ignored() {
    let mut fqdn = slice("web", "web-1", &["10.244.1.2@node-1"]);
    fqdn.address_type = "FQDN".into();
    let broken = slice("web", "web-2", &["not-an-address@node-1"]);
    let net = cluster(&[web("")], &[fqdn, broken]);
    assert_eq!(net.send(CLIENT, VIP), Translation::Reject(reason::NO_ENDPOINTS_REJECT));
}

#[test]
fn each_family_has_its_own_endpoints() {
    let net = cluster(
        &[service("web", "{ clusterIPs: [10.96.0.20, 'fd00:96::20'], ports: [{ port: 80 }] }")],
        &[slice("web", "web-1", &["10.244.1.2@node-1"]), slice("web", "web-2", &["fd00:244::2@node-1"])],
    );
    assert_eq!(net.spread(CLIENT, VIP), ["10.244.1.2"]);
    assert_eq!(net.spread("fd00:244::50", "[fd00:96::20]:80"), ["fd00:244::2"]);
    let v4_only = web_cluster("", &["10.244.1.2@node-1"]);
    assert_eq!(v4_only.send("fd00:244::50", "[fd00:96::20]:80"), Translation::Pass);
}
