//! ClusterNetworkPolicy, numbered as in the reference of semantics, chapter 12.

use crate::support::{Accept, DenyCluster, DenyEgress, DenyIngress, cluster, masqueraded, via};

const EVERYBODY: &str = "{ namespaces: {} }";

/// A policy for all pods with these ingress rules.
fn ingress(tier: &str, priority: u16, rules: &str) -> String {
    format!("{{ tier: {tier}, priority: {priority}, subject: {EVERYBODY}, ingress: [{rules}] }}")
}

fn egress(tier: &str, priority: u16, rules: &str) -> String {
    format!("{{ tier: {tier}, priority: {priority}, subject: {EVERYBODY}, egress: [{rules}] }}")
}

fn from_web(action: &str) -> String {
    format!("{{ action: {action}, from: [{{ namespaces: {{ matchLabels: {{ team: web }} }} }}] }}")
}

#[test]
fn rule_12_1_the_subject_is_namespaces_or_pods_and_never_one_of_the_host_network() {
    let deny = |subject: &str| {
        let spec = format!(
            "{{ tier: Admin, priority: 1, subject: {subject}, ingress: [{{ action: Deny, from: [{EVERYBODY}] }}] }}"
        );
        cluster().host_network_pod("default/agent", "app=db", "172.18.0.2").cluster_policy("deny", &spec)
    };
    let by_namespace = deny("{ namespaces: { matchLabels: { team: web } } }");
    by_namespace.check(DenyCluster, "default/api", "web/front:80");
    by_namespace.check(Accept, "web/front", "default/db:5432");
    let by_pod = deny("{ pods: { namespaceSelector: {}, podSelector: { matchLabels: { app: api } } } }");
    by_pod.check(DenyCluster, "default/db", "web/api:80");
    by_pod.check(DenyCluster, "default/db", "default/api:80");
    by_pod.check(Accept, "default/db", "web/front:80");
    deny(EVERYBODY).check(Accept, "web/front", "default/agent:9100");
    deny("{}").check(Accept, "default/db", "web/front:80");
}

#[test]
fn rule_12_2_protocols_are_ports_ranges_or_names_and_none_means_all_traffic() {
    let deny = |protocols: &str| {
        let rule = format!("{{ action: Deny, from: [{EVERYBODY}], protocols: [{protocols}] }}");
        cluster().cluster_policy("deny", &ingress("Admin", 1, &rule))
    };
    let number = deny("{ tcp: { destinationPort: { number: 80 } } }");
    number.check(DenyCluster, "web/front", "default/db:80");
    number.check(Accept, "web/front", "default/db:81");
    number.check(Accept, "web/front", "default/db:80/UDP");
    number.check(Accept, "web/front", "default/db:ICMP");
    let range = deny("{ udp: { destinationPort: { range: { start: 80, end: 90 } } } }");
    range.check(DenyCluster, "web/front", "default/db:90/UDP");
    range.check(Accept, "web/front", "default/db:91/UDP");
    let named = deny("{ destinationNamedPort: http }, { destinationNamedPort: dns }");
    named.check(DenyCluster, "web/front", "default/api:8080");
    named.check(DenyCluster, "web/front", "default/api-2:9090");
    named.check(DenyCluster, "web/front", "default/api:53/UDP");
    named.check(Accept, "web/front", "default/api:9090");
    deny("").check(DenyCluster, "web/front", "default/db:ICMP");
}

#[test]
fn rule_12_3_networks_match_addresses_pods_included() {
    let spec = egress("Admin", 1, "{ action: Deny, to: [{ networks: [10.244.2.0/24, 8.8.8.0/24] }] }");
    let net = cluster().cluster_policy("deny", &spec);
    net.check(DenyCluster, "default/db", "web/front:80");
    net.check(DenyCluster, "default/db", "8.8.8.8:53/UDP");
    net.check(DenyCluster, "default/db", "8.8.8.8:ICMP");
    net.check(Accept, "default/db", "default/api:80");
}

#[test]
fn rule_12_3_what_is_unknown_fails_closed() {
    for unknown in
        ["{ domainNames: [localhost] }", "{ planets: {} }", "{ networks: [nowhere] }", "{ nodes: {}, networks: [] }"]
    {
        let rule = |action: &str| format!("{{ action: {action}, to: [{EVERYBODY}, {unknown}] }}");
        let deny = egress("Admin", 2, "{ action: Deny, to: [{ namespaces: {} }] }");
        let accept = cluster().cluster_policy("a", &egress("Admin", 1, &rule("Accept"))).cluster_policy("b", &deny);
        accept.check(DenyCluster, "default/db", "web/front:80"); // the Accept matched nothing
        accept.check(Accept, "default/db", "8.8.8.8:443");
        for action in ["Deny", "Pass"] {
            let net = cluster().cluster_policy("a", &egress("Admin", 1, &rule(action)));
            net.check(DenyCluster, "default/db", "8.8.8.8:443");
        }
    }
    let no_port = format!(
        "{{ action: Accept, from: [{EVERYBODY}], protocols: [{{ tcp: {{}} }}] }}, {{ action: Deny, from: [{EVERYBODY}] }}"
    );
    cluster().cluster_policy("a", &ingress("Admin", 1, &no_port)).check(DenyCluster, "web/front", "default/db:80");
}

#[test]
fn rule_12_4_the_admin_tier_comes_before_and_the_baseline_tier_after_network_policies() {
    let deny_all = "{ podSelector: { matchLabels: { app: db } }, policyTypes: [Ingress] }";
    let allow_all = "{ podSelector: { matchLabels: { app: db } }, ingress: [{}] }";
    let net = |tier: &str, action: &str, policy: &str| {
        cluster().policy("np", policy).cluster_policy("cnp", &ingress(tier, 1, &from_web(action)))
    };
    net("Admin", "Accept", deny_all).check(Accept, "web/front", "default/db:80");
    net("Admin", "Deny", allow_all).check(DenyCluster, "web/front", "default/db:80");
    net("Admin", "Pass", deny_all).check(DenyIngress, "web/front", "default/db:80");
    net("Admin", "Pass", allow_all).check(Accept, "web/front", "default/db:80");
    net("Admin", "Accept", deny_all).check(DenyIngress, "default/api", "default/db:80"); // no rule for it
    net("Baseline", "Deny", allow_all).check(Accept, "web/front", "default/db:80");
    net("Baseline", "Accept", deny_all).check(DenyIngress, "web/front", "default/db:80");
    net("Baseline", "Deny", allow_all).check(DenyCluster, "web/front", "default/api:80"); // not isolated
    net("Baseline", "Pass", allow_all).check(Accept, "web/front", "default/api:80");
}

#[test]
fn rule_12_4_within_a_tier_priority_then_name_then_place_decide() {
    let both = |first: (&str, u16, &str), second: (&str, u16, &str)| {
        let policy = |(_, priority, action): (&str, u16, &str)| ingress("Admin", priority, &from_web(action));
        cluster().cluster_policy(first.0, &policy(first)).cluster_policy(second.0, &policy(second))
    };
    both(("a", 2, "Deny"), ("b", 1, "Accept")).check(Accept, "web/front", "default/db:80");
    both(("a", 1, "Deny"), ("b", 2, "Accept")).check(DenyCluster, "web/front", "default/db:80");
    both(("b", 1, "Deny"), ("a", 1, "Accept")).check(Accept, "web/front", "default/db:80");
    both(("a", 1, "Pass"), ("b", 2, "Deny")).check(Accept, "web/front", "default/db:80"); // leaves the tier
    let places = format!("{}, {}", from_web("Deny"), from_web("Accept"));
    cluster().cluster_policy("a", &ingress("Admin", 1, &places)).check(DenyCluster, "web/front", "default/db:80");
}

#[test]
fn rule_12_4_rules_for_pods_and_rules_for_their_addresses_share_one_order() {
    let pods =
        |action: &str| format!("{{ action: {action}, to: [{{ namespaces: {{ matchLabels: {{ team: web }} }} }}] }}");
    let networks = |action: &str| format!("{{ action: {action}, to: [{{ networks: [0.0.0.0/0] }}] }}");
    let net = |rules: [String; 2]| cluster().cluster_policy("a", &egress("Admin", 1, &rules.join(", ")));
    let inside_only = net([pods("Accept"), networks("Deny")]);
    inside_only.check(Accept, "default/db", "web/front:80");
    inside_only.check(DenyCluster, "default/db", "default/api:80");
    net([networks("Accept"), pods("Deny")]).check(Accept, "default/db", "web/front:80");
}

#[test]
fn rule_12_4_an_accepted_egress_does_not_bypass_the_destinations_ingress() {
    let accept = egress("Admin", 1, &format!("{{ action: Accept, to: [{EVERYBODY}] }}"));
    let net = cluster()
        .cluster_policy("out", &accept)
        .policy("no-egress", "{ podSelector: {}, policyTypes: [Egress] }")
        .policy_in("web", "no-ingress", "{ podSelector: {}, policyTypes: [Ingress] }");
    net.check(Accept, "default/api", "default/db:80");
    net.check(DenyIngress, "default/api", "web/front:80");
    net.check(DenyEgress, "default/api", "8.8.8.8:443");
}

#[test]
fn rule_12_5_a_pods_own_address_is_exempt_and_a_hairpin_through_a_service_is_not() {
    let deny = ingress("Admin", 1, &format!("{{ action: Deny, from: [{EVERYBODY}] }}"));
    let net = cluster().cluster_policy("deny", &deny);
    net.check(Accept, "default/db", "default/db:5432");
    let hairpin = via(net.flow("default/db", "default/db:5432"), "10.96.0.20:80");
    assert_eq!(net.outcome(&masqueraded(hairpin, "172.18.0.2")), DenyCluster);
    net.check(Accept, "172.18.0.2", "default/db:5432"); // the kubelet
}

#[test]
fn rule_12_3_an_empty_selector_means_all_pods_and_none_of_the_host_network() {
    let deny = |peer: &str| {
        let net = cluster().host_network_pod("default/agent", "app=agent", "172.18.0.3");
        net.cluster_policy("deny", &ingress("Admin", 1, &format!("{{ action: Deny, from: [{peer}] }}")))
    };
    for everybody in
        [EVERYBODY, "{ pods: { namespaceSelector: {}, podSelector: {} } }", "{ pods: { podSelector: {} } }"]
    {
        deny(everybody).check(DenyCluster, "web/front", "default/db:80");
        deny(everybody).check(Accept, "172.18.0.3", "default/db:80");
        deny(everybody).check(Accept, "8.8.8.8", "default/db:80");
    }
}

#[test]
fn rule_12_3_nodes_are_matched_by_their_labels_at_the_addresses_of_their_status() {
    let net = |selector: &str| {
        let deny = egress("Admin", 1, &format!("{{ action: Deny, to: [{{ nodes: {selector} }}] }}"));
        let nodes = cluster().labelled_node("node-3", "172.18.0.4", "pool=gpu");
        nodes.host_network_pod("default/agent", "app=agent", "172.18.0.4").cluster_policy("deny", &deny)
    };
    let gpu = net("{ matchLabels: { pool: gpu } }");
    gpu.check(DenyCluster, "default/db", "172.18.0.4:22");
    gpu.check(DenyCluster, "default/db", "default/agent:9100"); // it has its node's address
    gpu.check(DenyCluster, "default/db", "172.18.0.4:ICMP");
    gpu.check(Accept, "default/db", "172.18.0.2:22");
    gpu.check(Accept, "default/db", "web/front:80");
    net("{}").check(DenyCluster, "default/db", "172.18.0.2:22");
    let ports = egress(
        "Admin",
        1,
        "{ action: Deny, to: [{ nodes: {} }], protocols: [{ tcp: { destinationPort: { number: 6443 } } }] }",
    );
    let ports = cluster().cluster_policy("deny", &ports);
    ports.check(DenyCluster, "default/db", "172.18.0.2:6443");
    ports.check(Accept, "default/db", "172.18.0.2:22");
    let why = net("{ matchLabels: { pool: gpu } }");
    let accept = egress(
        "Admin",
        1,
        "{ action: Accept, to: [{ nodes: { matchLabels: { pool: gpu } } }] }, { action: Deny, to: [{ networks: [0.0.0.0/0] }] }",
    );
    let side = why.cluster_policy("deny", &accept).explain("default/db", "172.18.0.2:22").egress;
    let misses: Vec<&str> = side.near_misses.iter().map(|miss| miss.problem.as_str()).collect();
    assert_eq!(misses, ["node label `pool=gpu` is missing on `node-1`"]);
}

#[test]
fn rule_12_7_an_admin_network_policy_is_of_tier_admin_and_a_baseline_of_tier_baseline_with_priority_0() {
    let deny = "{ action: Deny, from: [{ namespaces: { matchLabels: { team: web } } }] }";
    let admin =
        |priority: u16, rules: &str| format!("{{ priority: {priority}, subject: {EVERYBODY}, ingress: [{rules}] }}");
    let baseline = format!("{{ subject: {EVERYBODY}, ingress: [{deny}] }}");
    let allow_all = "{ podSelector: { matchLabels: { app: db } }, ingress: [{}] }";
    let net = cluster().admin_policy("a", &admin(1, deny)).policy("np", allow_all);
    net.check(DenyCluster, "web/front", "default/db:80"); // before NetworkPolicies
    let net = cluster().baseline_policy(&baseline).policy("np", allow_all);
    net.check(Accept, "web/front", "default/db:80"); // after them
    net.check(DenyCluster, "web/front", "default/api:80");
    let pass = deny.replace("Deny", "Pass");
    let net = cluster().admin_policy("a", &admin(1, &pass)).admin_policy("b", &admin(2, deny));
    net.check(Accept, "web/front", "default/db:80"); // it leaves the tier
    let allow = deny.replace("Deny", "Allow");
    let net = cluster().admin_policy("a", &admin(1, &allow)).cluster_policy("c", &ingress("Admin", 0, deny));
    net.check(DenyCluster, "web/front", "default/db:80"); // one order of priorities for both kinds
    let net = cluster().baseline_policy(&baseline).cluster_policy("c", &ingress("Baseline", 1, &from_web("Accept")));
    net.check(DenyCluster, "web/front", "default/db:80"); // 0 comes first
    let why = net.explain("web/front", "default/db:80").ingress.why;
    assert_eq!(why, "ingress rule 0 of baselineadminnetworkpolicy/default denies it");
}

#[test]
fn rule_12_7_ports_are_numbers_ranges_and_names() {
    let net = |ports: &str| {
        let spec = format!(
            "{{ priority: 1, subject: {EVERYBODY}, egress: [{{ action: Deny, to: [{EVERYBODY}], ports: [{ports}] }}] }}"
        );
        cluster().admin_policy("a", &spec)
    };
    let number = net("{ portNumber: { protocol: UDP, port: 53 } }");
    number.check(DenyCluster, "default/db", "default/api:53/UDP");
    number.check(Accept, "default/db", "default/api:53");
    let range = net("{ portRange: { start: 80, end: 90 } }"); // TCP
    range.check(DenyCluster, "default/db", "default/api:90");
    range.check(Accept, "default/db", "default/api:91");
    range.check(Accept, "default/db", "default/api:90/UDP");
    let named = net("{ namedPort: http }");
    named.check(DenyCluster, "default/db", "default/api:8080");
    named.check(DenyCluster, "default/db", "default/api-2:9090");
    named.check(Accept, "default/db", "default/api:9090");
    for unknown in ["{}", "{ portNumber: { protocol: QUIC, port: 1 } }", "{ portNumber: { port: 1 }, namedPort: http }"]
    {
        net(unknown).check(DenyCluster, "default/db", "default/api:ICMP"); // a Deny with it denies everything
    }
}
