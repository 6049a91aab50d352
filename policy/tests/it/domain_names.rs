//! Rule 12.3 of the reference of semantics, `domainNames`: what a name lets in, from when, until when, and what an explanation says.

use crate::network::{Net, at, connects, echoed, net, net_with, network_policy};
use crate::support::{Accept, DenyCluster, cluster, yaml};
use netstack::{Host, Protocol};
use policy::v1alpha2::ClusterNetworkPolicy;
use policy::{Denial, Destination, Established, Ruling};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Pods may go to these names, and nowhere else.
fn only(names: &str) -> String {
    format!(
        "{{ tier: Admin, priority: 1, subject: {{ namespaces: {{}} }}, egress: [{{ name: names, action: Accept, to: [{{ domainNames: [{names}] }}] }}, {{ name: rest, action: Deny, to: [{{ networks: [0.0.0.0/0, '::/0'] }}] }}] }}"
    )
}

// ── the rules ──────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn rule_12_3_a_domain_name_means_the_addresses_that_it_was_answered_with_and_no_others() {
    let net = cluster().cluster_policy("names", &only("example.com"));
    net.check(DenyCluster, "default/db", "203.0.113.7:443"); // nobody has asked
    let net = net.answered("example.com", "203.0.113.7").answered("example.com", "2001:db8::7");
    let net = net.answered("www.example.com", "203.0.113.8").answered("example.org", "203.0.113.9");
    net.check(Accept, "default/db", "203.0.113.7:443");
    net.check(Accept, "default/db", "203.0.113.7:443/UDP");
    net.check(Accept, "default/db", "203.0.113.7:ICMP");
    net.check(DenyCluster, "default/db", "203.0.113.8:443");
    net.check(DenyCluster, "default/db", "203.0.113.9:443");
    net.check(DenyCluster, "default/db", "203.0.113.10:443");
}

#[test]
fn rule_12_3_a_wildcard_means_names_below_by_one_or_more_labels() {
    let net = cluster().cluster_policy("names", &only("'*.Example.com.'"));
    let net = net.answered("example.com", "203.0.113.1").answered("a.example.com", "203.0.113.2");
    let net = net.answered("a.b.c.example.com", "203.0.113.3").answered("myexample.com", "203.0.113.4");
    net.check(DenyCluster, "default/db", "203.0.113.1:443");
    net.check(Accept, "default/db", "203.0.113.2:443");
    net.check(Accept, "default/db", "203.0.113.3:443");
    net.check(DenyCluster, "default/db", "203.0.113.4:443");
}

#[test]
fn rule_12_3_a_rule_for_names_stands_in_the_order_of_rules_with_its_ports() {
    let rule = |action: &str, to: &str, more: &str| format!("{{ action: {action}, to: [{to}]{more} }}");
    let name = "{ domainNames: ['*.example.com', example.org] }";
    let net = |rules: &[String]| {
        let rules = rules.join(", ");
        let spec = format!("{{ tier: Baseline, priority: 1, subject: {{ namespaces: {{}} }}, egress: [{rules}] }}");
        cluster().cluster_policy("names", &spec).answered("a.example.com", "203.0.113.7")
    };
    let https = ", protocols: [{ tcp: { destinationPort: { number: 443 } } }]";
    let deny = rule("Deny", "{ networks: [203.0.113.0/24] }", "");
    let by_port = net(&[rule("Accept", name, https), deny.clone()]);
    by_port.check(Accept, "default/db", "203.0.113.7:443");
    by_port.check(DenyCluster, "default/db", "203.0.113.7:80");
    by_port.check(DenyCluster, "default/db", "203.0.113.7:443/UDP");
    net(&[deny.clone(), rule("Accept", name, "")]).check(DenyCluster, "default/db", "203.0.113.7:443");
    // Beside others in one rule; and a tier before it decides first.
    let both = net(&[rule("Accept", &format!("{{ networks: [203.0.113.9/32] }}, {name}"), ""), deny]);
    both.check(Accept, "default/db", "203.0.113.7:443");
    both.check(Accept, "default/db", "203.0.113.9:443");
    both.check(DenyCluster, "default/db", "203.0.113.10:443");
    let before = "{ tier: Admin, priority: 1, subject: { namespaces: {} }, egress: [{ action: Deny, to: [{ networks: [203.0.113.7/32] }] }] }";
    both.cluster_policy("before", before).check(DenyCluster, "default/db", "203.0.113.7:443");
}

#[test]
fn rule_12_3_domain_names_in_a_rule_that_does_not_accept_fail_closed() {
    for action in ["Deny", "Pass"] {
        let spec = format!(
            "{{ tier: Admin, priority: 1, subject: {{ namespaces: {{}} }}, egress: [{{ action: {action}, to: [{{ domainNames: [example.com] }}] }}] }}"
        );
        let net = cluster().cluster_policy("names", &spec).answered("example.com", "203.0.113.7");
        net.check(DenyCluster, "default/db", "203.0.113.7:443");
        net.check(DenyCluster, "default/db", "8.8.8.8:443");
    }
}

#[test]
fn rule_12_3_a_name_may_lead_to_pods_as_headless_services_do_and_never_to_a_service_address() {
    let net = cluster().cluster_policy("names", &only("db.default.svc.cluster.local"));
    let net = net.answered("db.default.svc.cluster.local", "10.244.1.2");
    net.check(Accept, "web/front", "default/db:5432");
    net.check(DenyCluster, "web/front", "default/api:8080");
    // Judged behind the Service: the name of its address selects nothing.
    let net = net.answered("db.default.svc.cluster.local", "10.96.0.20");
    let flow = crate::support::via(net.flow("web/front", "default/api:8080"), "10.96.0.20:80");
    assert_eq!(net.outcome(&flow), DenyCluster);
}

#[test]
fn rule_12_7_domain_names_of_an_admin_network_policy_mean_the_same() {
    let admin = "{ priority: 1, subject: { namespaces: {} }, egress: [{ action: Allow, to: [{ domainNames: ['*.example.com'] }] }, { action: Deny, to: [{ networks: [0.0.0.0/0] }] }] }";
    let net = cluster().admin_policy("names", admin).answered("a.example.com", "203.0.113.7");
    net.check(Accept, "default/db", "203.0.113.7:443");
    net.check(DenyCluster, "default/db", "203.0.113.8:443");
}

#[test]
fn rule_13_2_the_matrix_and_a_policy_that_is_not_applied_know_the_names() {
    let net = cluster().answered("example.com", "203.0.113.7");
    let policy: ClusterNetworkPolicy =
        yaml(&format!("{{ metadata: {{ name: names }}, spec: {} }}", only("example.com")));
    let table = net.table().with_cluster_policy(&policy);
    let to = ["203.0.113.7", "203.0.113.8"].map(|address| Destination {
        address: address.parse().expect("an address"),
        protocol: Protocol::Tcp,
        port: 443,
    });
    let from = ["10.244.1.2".parse().expect("an address")];
    assert_eq!(table.matrix(&from, &to), [[true, false]]);
    assert_eq!(net.table().matrix(&from, &to), [[true, true]]);
    assert!(table.allows(&net.flow("default/db", "203.0.113.7:443")).is_ok());
    assert!(table.allows(&net.flow("default/db", "203.0.113.8:443")).is_err());
}

// ── what is said ───────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn rule_13_1_a_denial_says_with_what_the_name_was_answered_last_and_when_that_ran_out() {
    let misses = |net: &crate::support::Cluster, to: &str| -> Vec<String> {
        let side = net.explain("default/db", to).egress;
        assert_eq!((side.ruling, side.why.as_str()), (Ruling::Denied, "egress rule 1 of names denies it"));
        side.near_misses.into_iter().map(|miss| miss.problem).collect()
    };
    let net = cluster().cluster_policy("names", &only("example.org, '*.example.com'"));
    assert_eq!(
        misses(&net, "1.2.3.5:443"),
        [
            "no pod has been answered `example.org` lately, so that it has no address",
            "no pod has been answered `*.example.com` lately, so that it has no address"
        ]
    );
    let net = net.answered("example.org", "1.2.3.4").answered("example.org", "1.2.3.3");
    sleep(Duration::from_secs(1)).await;
    let net = net.answered("www.example.com", "1.2.3.6");
    assert_eq!(
        misses(&net, "1.2.3.5:443"),
        [
            "`example.org` was last answered with 1.2.3.3, 1.2.3.4, and this is 1.2.3.5",
            "`www.example.com` was last answered with 1.2.3.6, and this is 1.2.3.5"
        ]
    );
    sleep(Duration::from_secs(71)).await;
    assert_eq!(
        misses(&net, "1.2.3.4:443")[0],
        "`example.org` was answered with 1.2.3.4, but that ran out 12 s ago and nobody has asked again"
    );
    let side = net.answered("example.org", "1.2.3.4").explain("default/db", "1.2.3.4:443").egress;
    assert_eq!(side.why, "egress rule 0 of names allows it");
}

// ── real packets ───────────────────────────────────────────────────────────────────────────────────────────────────

/// A pod that may go to a name only, and a server outside.
async fn pod_and_server(net: &Net, names: &str) -> (Host, Host) {
    apply(net, names).await;
    let server = net.pod("elsewhere/server", "", "203.0.113.7").await;
    net.policy.detach(&["203.0.113.7".parse().expect("an address")]);
    (net.pod("default/db", "app=db", "10.244.1.2").await, server)
}

fn policy(names: &str) -> ClusterNetworkPolicy {
    yaml(&format!("{{ metadata: {{ name: names }}, spec: {} }}", only(names)))
}

async fn apply(net: &Net, names: &str) {
    net.sources.cluster_policies.as_ref().expect("followed").cluster.apply(policy(names));
    net.activity.idle().await;
}

fn answered(net: &Net, name: &str, ttl: u64) {
    net.policy.answered([(name, "203.0.113.7".parse().expect("an address"), Duration::from_secs(ttl))]);
}

const SERVER: &str = "203.0.113.7:80";

/// Whether a connection is opened in no time: nothing waits for a retry.
async fn opens(pod: &Host) -> bool {
    matches!(tokio::time::timeout(Duration::from_millis(1), pod.tcp_connect(at(SERVER))).await, Ok(Ok(_)))
}

#[tokio::test(start_paused = true)]
async fn rule_12_3_an_address_is_let_in_from_the_answer_until_its_time_to_live_has_run_out_to_the_moment() {
    let net = net(Denial::Drop);
    let (pod, _server) = pod_and_server(&net, "example.com").await;
    assert!(!opens(&pod).await);
    let begun = Instant::now();
    answered(&net, "example.com", 10);
    assert!(opens(&pod).await);
    sleep_until(begun + Duration::from_millis(9_990)).await;
    assert!(opens(&pod).await);
    sleep_until(begun + Duration::from_secs(10)).await;
    assert!(!opens(&pod).await);
    // An answer that may not be remembered can still be used.
    answered(&net, "example.com", 0);
    assert!(opens(&pod).await);
    sleep(Duration::from_secs(1)).await;
    assert!(!opens(&pod).await);
}

#[tokio::test(start_paused = true)]
async fn rule_12_3_a_connection_that_is_open_outlives_the_time_to_live_and_not_the_policy() {
    for end in ["the policy names another", "the policy is deleted and all is denied"] {
        let net = net(Denial::Drop);
        let (pod, _server) = pod_and_server(&net, "'*.example.com'").await;
        answered(&net, "a.example.com", 5);
        let mut open = pod.tcp_connect(at(SERVER)).await.expect("let in");
        assert!(echoed(&mut open).await);
        sleep(Duration::from_secs(3600)).await;
        assert!(echoed(&mut open).await);
        // Judged again, as something else changes.
        net.apply(network_policy("other", "{ podSelector: { matchLabels: { app: other } } }")).await;
        assert!(echoed(&mut open).await, "{end}");
        assert!(!connects(&pod, SERVER).await);
        if end.ends_with("another") {
            apply(&net, "example.com").await;
        } else {
            net.sources.cluster_policies.as_ref().expect("followed").cluster.delete(policy("'*.example.com'"));
            net.apply(network_policy("deny", "{ podSelector: {}, policyTypes: [Egress] }")).await;
        }
        assert!(!echoed(&mut open).await, "{end}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_12_3_who_has_tried_before_the_answer_is_let_in_after_it() {
    for established in [Established::ReEvaluate, Established::Keep] {
        let net = net_with(policy::Config { established, ..policy::Config::default() });
        let (pod, server) = pod_and_server(&net, "example.com").await;
        let (client, echo) = (pod.udp_bind(4000).expect("a free port"), server.udp_bind(53).expect("a free port"));
        let passes = async || {
            client.send_to(b"x", at("203.0.113.7:53")).await.expect("sent");
            tokio::time::timeout(Duration::from_millis(1), echo.recv_from(&mut [0; 16])).await.is_ok()
        };
        assert!(!passes().await, "{established:?}");
        answered(&net, "example.com", 10);
        assert!(passes().await, "{established:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_12_3_an_answer_that_is_older_than_the_policy_counts() {
    let net = net(Denial::Drop);
    answered(&net, "example.com", 10);
    let (pod, _server) = pod_and_server(&net, "example.com").await;
    assert!(opens(&pod).await);
    assert!(!net.policy.names_in("cluster.local"));
    apply(&net, "'*.svc.cluster.local'").await;
    assert!(net.policy.names_in("cluster.local"));
    assert!(!opens(&pod).await);
}
