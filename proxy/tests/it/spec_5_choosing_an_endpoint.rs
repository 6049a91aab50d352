//! Which endpoint a new flow gets, numbered as in the reference of semantics, chapter 5.

use crate::support::{
    CLIENT, NODE_1, NODE_2, OTHER_CLIENT, OUTSIDE, VIP, cluster, external_cluster, external_web, service, slice, web,
    web_cluster,
};
use expect_test::expect;
use netstack::{Protocol, Translation};
use proxy::{FrontendKind, reason};
use std::time::Duration;
use tokio::time::Instant;

const ON_BOTH: [&str; 2] = ["10.244.1.2@node-1", "10.244.2.2@node-2"];
const ON_NODE_2: [&str; 1] = ["10.244.2.2@node-2"];

#[test]
fn rule_5_1_a_service_port_is_reached_by_every_kind_of_frontend() {
    let net = external_cluster("", &ON_BOTH);
    for frontend in [VIP, "192.0.2.1:80", "192.0.2.2:80", "172.18.0.2:30080", "172.18.0.3:30080"] {
        for from in [CLIENT, NODE_1, OUTSIDE] {
            assert_eq!(net.spread(from, frontend), ["10.244.1.2", "10.244.2.2"], "{from} → {frontend}");
        }
    }
    assert_eq!(net.send(CLIENT, "172.18.0.2:30081"), Translation::Pass);
    assert!(net.as_addressed(CLIENT, "192.0.2.1:81"));
    assert_eq!(net.send(CLIENT, "10.244.1.2:8080"), Translation::Pass);
}

#[test]
fn rule_5_1_a_load_balancer_in_proxy_mode_is_not_captured() {
    let mut service = external_web("");
    let status = service.status.as_mut().expect("a status").load_balancer.as_mut().expect("a load balancer");
    status.ingress.as_mut().expect("an ingress")[0].ip_mode = Some("Proxy".into());
    let net = cluster(&[service], &[slice("web", "web-1", &ON_BOTH)]);
    assert!(net.as_addressed(CLIENT, "192.0.2.2:80"));
}

#[test]
fn rule_5_2_ready_endpoints_are_used_and_terminating_ones_only_if_none_is_ready() {
    let all = ["10.244.1.2@node-1", "10.244.1.3@node-1 terminating", "10.244.1.4@node-1 notready"];
    assert_eq!(web_cluster("", &all).spread(CLIENT, VIP), ["10.244.1.2"]);
    assert_eq!(web_cluster("", &all[1..]).spread(CLIENT, VIP), ["10.244.1.3"]);
    let none = web_cluster("", &all[2..]);
    assert_eq!(none.send(CLIENT, VIP), Translation::Reject(reason::NO_ENDPOINTS_REJECT));
}

#[test]
fn rule_5_2_zone_hints_keep_traffic_in_the_zone() {
    let net = web_cluster("", &["10.244.1.2@node-1 zone=a", "10.244.2.2@node-2 zone=b", "10.244.2.3@node-2 zone=b"]);
    assert_eq!(net.spread(CLIENT, VIP), ["10.244.1.2"]);
    assert_eq!(net.spread(OTHER_CLIENT, VIP), ["10.244.2.2", "10.244.2.3"]);
}

#[test]
fn rule_5_2_node_hints_come_before_zone_hints() {
    let net = web_cluster(
        "",
        &[
            "10.244.1.2@node-1 zone=a node=node-1",
            "10.244.1.3@node-1 zone=a node=node-3",
            "10.244.2.2@node-2 zone=b node=node-3",
        ],
    );
    assert_eq!(net.spread(CLIENT, VIP), ["10.244.1.2"]);
    assert_eq!(net.spread(OTHER_CLIENT, VIP), ["10.244.2.2"]); // no node hint for node-2, so the zone's
}

#[test]
fn rule_5_2_hints_are_ignored_if_a_ready_endpoint_has_none_or_none_is_for_here() {
    let unhinted = web_cluster("", &["10.244.1.2@node-1 zone=a", "10.244.2.2@node-2"]);
    assert_eq!(unhinted.spread(CLIENT, VIP), ["10.244.1.2", "10.244.2.2"]);
    let elsewhere = web_cluster("", &["10.244.1.2@node-1 zone=a", "10.244.1.3@node-1 zone=a"]);
    assert_eq!(elsewhere.spread(OTHER_CLIENT, VIP), ["10.244.1.2", "10.244.1.3"]);
    let not_ready = web_cluster("", &["10.244.1.2@node-1 zone=a", "10.244.2.2@node-2 notready"]);
    assert_eq!(not_ready.spread(CLIENT, VIP), ["10.244.1.2"], "only ready endpoints' hints count");
}

#[test]
fn rule_5_3_the_internal_traffic_policy_local_uses_the_clients_node_only() {
    let local = ", internalTrafficPolicy: Local";
    let net = web_cluster(local, &["10.244.1.2@node-1", "10.244.1.3@node-1 terminating", "10.244.2.2@node-2"]);
    assert_eq!(net.spread(CLIENT, VIP), ["10.244.1.2"]);
    assert_eq!(net.spread(NODE_2, VIP), ["10.244.2.2"]);
    let draining = web_cluster(local, &["10.244.1.3@node-1 terminating", "10.244.2.2@node-2"]);
    assert_eq!(draining.spread(CLIENT, VIP), ["10.244.1.3"]);
}

#[test]
fn rule_5_3_the_external_traffic_policy_local_uses_the_entered_node_only_except_for_the_clusters_own() {
    let net = external_cluster(", externalTrafficPolicy: Local", &ON_BOTH);
    assert_eq!(net.spread(OUTSIDE, "172.18.0.2:30080"), ["10.244.1.2"]);
    assert_eq!(net.spread(OUTSIDE, "172.18.0.3:30080"), ["10.244.2.2"]);
    assert_eq!(net.spread(NODE_2, "172.18.0.2:30080"), ["10.244.1.2"]); // another node is outside
    assert_eq!(net.spread(NODE_1, "172.18.0.2:30080"), ["10.244.1.2", "10.244.2.2"]);
    for frontend in ["172.18.0.2:30080", "192.0.2.1:80", "192.0.2.2:80"] {
        assert_eq!(net.spread(CLIENT, frontend), ["10.244.1.2", "10.244.2.2"], "{frontend}");
    }
    // A load balancer sends to any node that has an endpoint, and asks only ready ones about their health.
    assert_eq!(net.spread(OUTSIDE, "192.0.2.2:80"), ["10.244.1.2", "10.244.2.2"]);
    let one = external_cluster(", externalTrafficPolicy: Local", &ON_NODE_2);
    assert_eq!(one.spread(OUTSIDE, "192.0.2.2:80"), ["10.244.2.2"]);
}

#[test]
fn rule_5_4_the_choice_is_uniform_and_repeats_with_its_seed() {
    let endpoints = ["10.244.1.2@node-1", "10.244.1.3@node-1", "10.244.2.2@node-2", "10.244.2.3@node-2"];
    let counts = web_cluster("", &endpoints).counts(CLIENT, VIP, 8000);
    assert!(counts.values().all(|count| (1850..2150).contains(count)), "{counts:?}");
    assert_eq!(counts, web_cluster("", &endpoints).counts(CLIENT, VIP, 8000));
}

#[test]
fn rule_5_5_without_any_endpoint_every_frontend_rejects() {
    let net = external_cluster("", &[]);
    for frontend in [VIP, "192.0.2.1:80", "192.0.2.2:80", "172.18.0.2:30080"] {
        assert_eq!(net.send(CLIENT, frontend), Translation::Reject(reason::NO_ENDPOINTS_REJECT), "{frontend}");
        assert_eq!(net.send(OUTSIDE, frontend), Translation::Reject(reason::NO_ENDPOINTS_REJECT), "{frontend}");
    }
    let without_slices = cluster(&[web(", internalTrafficPolicy: Local")], &[]);
    assert_eq!(without_slices.send(CLIENT, VIP), Translation::Reject(reason::NO_ENDPOINTS_REJECT));
}

#[test]
fn rule_5_5_a_local_policy_with_endpoints_elsewhere_drops() {
    let internal = web_cluster(", internalTrafficPolicy: Local", &ON_NODE_2);
    assert_eq!(internal.send(CLIENT, VIP), Translation::Drop(reason::LOCAL_POLICY_NO_LOCAL_ENDPOINT));
    let external = external_cluster(", externalTrafficPolicy: Local", &ON_NODE_2);
    let dropped = Translation::Drop(reason::LOCAL_POLICY_NO_LOCAL_ENDPOINT);
    assert_eq!(external.send(OUTSIDE, "172.18.0.2:30080"), dropped);
    assert_eq!(external.spread(CLIENT, "172.18.0.2:30080"), ["10.244.2.2"], "not a real external source");
    let nowhere = external_cluster(", externalTrafficPolicy: Local", &["10.244.2.2@"]);
    assert_eq!(nowhere.send(OUTSIDE, "192.0.2.2:80"), dropped);
}

#[test]
fn rule_5_5_an_unknown_port_of_a_cluster_ip_rejects_and_an_unallocated_address_drops() {
    let net = web_cluster("", &ON_BOTH);
    assert_eq!(net.send(CLIENT, "10.96.0.20:81"), Translation::Reject(reason::UNKNOWN_CLUSTERIP_PORT));
    let udp = net.send_at(Protocol::Udp, CLIENT, VIP, Instant::now());
    assert_eq!(udp, Translation::Reject(reason::UNKNOWN_CLUSTERIP_PORT));
    let ping = net.send_at(Protocol::Icmp, CLIENT, "10.96.0.20:0", Instant::now());
    assert_eq!(ping, Translation::Reject(reason::UNKNOWN_CLUSTERIP_PORT));
    assert_eq!(net.send(CLIENT, "10.96.0.21:80"), Translation::Drop(reason::UNALLOCATED_CLUSTERIP));
    assert!(net.as_addressed(CLIENT, "10.112.0.1:80"));
}

#[test]
fn rule_5_6_a_client_keeps_its_endpoint_until_the_timeout_after_its_last_connection() {
    let sticky = ", sessionAffinity: ClientIP, sessionAffinityConfig: { clientIP: { timeoutSeconds: 60 } }";
    let endpoints: Vec<String> = (2..34).map(|n| format!("10.244.1.{n}@node-1")).collect();
    let net = external_cluster(sticky, &endpoints.iter().map(String::as_str).collect::<Vec<_>>());
    let start = Instant::now();
    let to = |from: &str, frontend: &str, after: u64| match net.send_at(
        Protocol::Tcp,
        from,
        frontend,
        start + Duration::from_secs(after),
    ) {
        Translation::To { dst, .. } => dst,
        other => panic!("{other:?}"),
    };
    let first = to(CLIENT, VIP, 0);
    // Each connection starts the timeout again, by whichever frontend.
    assert!((1..10).all(|n| to(CLIENT, VIP, 59 * n) == first));
    assert_eq!(to(CLIENT, "172.18.0.3:30080", 59 * 10), first);
    assert!((3..9).any(|n| to(&format!("10.244.1.{}", 100 + n), VIP, 0) != first), "other clients choose anew");
    let expired: Vec<_> = (0..6).map(|n| to(CLIENT, VIP, 59 * 10 + 60 + 61 * n)).collect();
    assert!(expired.iter().any(|endpoint| *endpoint != first), "{expired:?}");
}

#[test]
fn rule_5_6_affinity_is_shared_neither_between_ports_nor_between_services() {
    let spec = |ip: &str| {
        format!(
            "{{ clusterIPs: [{ip}], sessionAffinity: ClientIP, ports: [{{ name: a, port: 80 }}, {{ name: b, port: 81 }}] }}"
        )
    };
    let endpoints: Vec<String> = (2..66).map(|n| format!("10.244.1.{n}@node-1")).collect();
    let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
    let ports = "[{ name: a, port: 8080 }, { name: b, port: 8081 }]";
    let net = cluster(
        &[service("one", &spec("10.96.0.1")), service("two", &spec("10.96.0.2"))],
        &[
            crate::support::slice_with_ports("one", "one-1", ports, &endpoints),
            crate::support::slice_with_ports("two", "two-1", ports, &endpoints),
        ],
    );
    let of = |frontend: &str| {
        let spread = net.spread(CLIENT, frontend);
        assert_eq!(spread.len(), 1, "{frontend} is sticky");
        spread[0].clone()
    };
    let all = [of("10.96.0.1:80"), of("10.96.0.1:81"), of("10.96.0.2:80"), of("10.96.0.2:81")];
    assert!(all.iter().any(|endpoint| *endpoint != all[0]), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn rule_5_6_a_client_whose_endpoint_has_gone_gets_another_and_stays_there() {
    let net = crate::network::net().await;
    let _servers = ["10.244.1.2", "10.244.2.2"].map(|address| net.server(address));
    let client = net.host(CLIENT);
    let both = || slice("web", "web-1", &ON_BOTH);
    net.apply(web(", sessionAffinity: ClientIP"), &[both()]).await;
    let ask = async || crate::network::greeting(&client, VIP).await.expect("connected");
    let first = ask().await;
    let left: Vec<&str> = ON_BOTH.into_iter().filter(|endpoint| !first.starts_with(&endpoint[..10])).collect();
    net.apply_slice(slice("web", "web-1", &left)).await;
    let second = ask().await;
    assert_ne!(first, second);
    net.apply_slice(both()).await;
    for _ in 0..8 {
        assert_eq!(ask().await, second, "the old one has been forgotten with its endpoint");
    }
}

#[test]
fn rule_5_7_and_5_8_headless_and_external_name_services_are_not_translated() {
    let headless = service("db", "{ clusterIP: None, clusterIPs: [None], ports: [{ port: 80 }] }");
    let external = service("ext", "{ type: ExternalName, externalName: example.com }");
    let net = cluster(&[headless, external], &[slice("db", "db-1", &ON_BOTH)]);
    assert_eq!(net.send(CLIENT, "10.244.1.2:80"), Translation::Pass);
    assert!(net.translator.table().is_empty());
}

#[test]
fn rule_5_9_source_ranges_filter_the_load_balancer_address_only() {
    let net = external_cluster(", loadBalancerSourceRanges: [203.0.113.0/24, ' 172.18.0.2/32 ']", &ON_BOTH);
    assert_eq!(net.spread(OUTSIDE, "192.0.2.2:80").len(), 2);
    let dropped = Translation::Drop(reason::LB_SOURCE_RANGE);
    assert_eq!(net.send("198.51.100.1", "192.0.2.2:80"), dropped);
    assert_eq!(net.send(CLIENT, "192.0.2.2:80"), dropped, "pods too");
    assert_eq!(net.spread(NODE_1, "192.0.2.2:80").len(), 2);
    for open in ["192.0.2.1:80", "172.18.0.2:30080", VIP] {
        assert_eq!(net.spread("198.51.100.1", open).len(), 2, "{open}");
    }
    let empty = external_cluster(", loadBalancerSourceRanges: [203.0.113.0/24]", &[]);
    assert_eq!(empty.send(CLIENT, "192.0.2.2:80"), dropped, "before endpoints are asked for");
}

#[test]
fn of_two_services_that_claim_an_external_address_the_older_has_it_until_it_is_gone() {
    let claim = |name: &str, ip: &str, created: &str| {
        let mut claim =
            service(name, &format!("{{ clusterIPs: [{ip}], externalIPs: [192.0.2.9], ports: [{{ port: 80 }}] }}"));
        claim.metadata.creation_timestamp = Some(serde_json::from_value(created.into()).expect("a time"));
        claim
    };
    let old = claim("z-old", "10.96.0.1", "2026-01-01T00:00:00Z");
    let young = claim("a-young", "10.96.0.2", "2026-02-01T00:00:00Z");
    let slices = [slice("z-old", "z", &["10.244.1.2@node-1"]), slice("a-young", "a", &["10.244.1.3@node-1"])];
    for order in [[old.clone(), young.clone()], [young.clone(), old]] {
        let net = cluster(&order, &slices);
        assert_eq!(net.spread(OUTSIDE, "192.0.2.9:80"), ["10.244.1.2"]);
        let name = proxy::ServiceName { namespace: "default".into(), name: "z-old".into() };
        let table = net.translator.table().without_service(&name);
        let left = crate::support::Cluster { translator: proxy::Translator::new(table, 1) };
        assert_eq!(left.spread(OUTSIDE, "192.0.2.9:80"), ["10.244.1.3"]);
    }
}

#[test]
fn rule_1_2_host_ports_are_served_at_their_nodes_address_and_services_come_first() {
    let table = |port: &str| {
        let services = [external_web("")];
        let table = cluster(&services, &[slice("web", "web-1", &ON_NODE_2)]).translator.table();
        let table = table.with_pod(&crate::support::host_port_pod("a", "10.244.1.2", port));
        crate::support::Cluster { translator: proxy::Translator::new(table, 1) }
    };
    let any = table("{ containerPort: 80, hostPort: 8888 }");
    assert_eq!(any.spread(OUTSIDE, "172.18.0.2:8888"), ["10.244.1.2"]);
    assert_eq!(any.snat(OUTSIDE, "172.18.0.2:8888"), None);
    assert_eq!(any.snat("10.244.1.2", "172.18.0.2:8888").as_deref(), Some(NODE_1), "the pod itself");
    assert_eq!(any.send(OUTSIDE, "172.18.0.3:8888"), Translation::Pass, "another node");
    assert_eq!(any.explain(OUTSIDE, "172.18.0.2:8888").steps[1], "172.18.0.2:8888 is a host port of pod default/a");
    let elsewhere = table("{ containerPort: 80, hostPort: 8888, hostIP: 127.0.0.1 }");
    assert_eq!(elsewhere.send(OUTSIDE, "172.18.0.2:8888"), Translation::Pass);
    let everywhere = table("{ containerPort: 80, hostPort: 8888, hostIP: 0.0.0.0 }");
    assert_eq!(everywhere.spread(OUTSIDE, "172.18.0.2:8888"), ["10.244.1.2"]);
    let taken = table("{ containerPort: 80, hostPort: 30080 }");
    assert_eq!(taken.spread(OUTSIDE, "172.18.0.2:30080"), ["10.244.2.2"]);
}

#[test]
fn the_external_frontends_are_those_that_the_outside_can_reach() {
    let table = external_cluster("", &[]).translator.table();
    let all: Vec<String> = table
        .external_frontends()
        .iter()
        .map(|frontend| format!("{:?} {}:{}", frontend.kind, frontend.address, frontend.port))
        .collect();
    assert_eq!(
        all,
        [
            "ExternalIp 192.0.2.1:80",
            "LoadBalancer 192.0.2.2:80",
            "NodePort 172.18.0.2:30080",
            "NodePort 172.18.0.3:30080"
        ]
    );
    assert!(web_cluster("", &[]).translator.table().external_frontends().is_empty());
    let checked =
        external_cluster(", externalTrafficPolicy: Local, healthCheckNodePort: 30999", &[]).translator.table();
    let checks = checked.external_frontends();
    let checks = checks.iter().filter(|frontend| frontend.kind == FrontendKind::HealthCheck);
    assert_eq!(checks.map(|frontend| frontend.address.to_string()).collect::<Vec<_>>(), [NODE_1, NODE_2]);
}

#[test]
fn an_explanation_names_the_frontend_the_candidates_and_who_is_left_out() {
    let net = web_cluster(
        ", internalTrafficPolicy: Local",
        &["10.244.1.2@node-1", "10.244.1.3@node-1 terminating", "10.244.1.4@node-1 notready", "10.244.2.2@node-2"],
    );
    let explanation = net.explain(CLIENT, VIP);
    assert_eq!(explanation.frontend.as_ref().map(|frontend| frontend.kind), Some(FrontendKind::ClusterIp));
    expect![[r#"
        TCP 10.244.1.50:40000 → 10.96.0.20:80: from pod on node-1
        10.96.0.20:80 is a ClusterIP of Service default/web, decided on node-1
        10.244.1.3:8080 is left out: terminating, and others are ready
        10.244.1.4:8080 is left out: not ready
        10.244.2.2:8080 is left out: on node-2, and the traffic policy Local wants node-1
        10.244.1.2:8080, the only one"#]]
    .assert_eq(&explanation.steps.join("\n"));
    let elsewhere = web_cluster(", internalTrafficPolicy: Local", &ON_NODE_2).explain(CLIENT, VIP);
    assert_eq!((elsewhere.outcome, elsewhere.reason), ("drop", Some("LOCAL_POLICY_NO_LOCAL_ENDPOINT")));
}
