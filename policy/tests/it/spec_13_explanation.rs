//! Explanations, numbered as in the reference of semantics, chapter 13.

use crate::support::{cluster, via};
use expect_test::expect;
use policy::{NearMiss, Ruling};

const DENY_ALL_INGRESS: &str = "{ podSelector: {}, policyTypes: [Ingress] }";
const EVERYBODY: &str = "{ namespaces: {} }";

#[test]
fn rule_13_1_a_denial_names_the_isolating_policies_and_the_near_misses() {
    let net = cluster()
        .policy("allow-web", "{ podSelector: { matchLabels: { app: api } }, ingress: [{ from: [{ namespaceSelector: { matchLabels: { name: frontend } } }], ports: [{ port: 8080 }] }, { from: [{ podSelector: { matchLabels: { app: front } } }], ports: [{ port: http }] }, { from: [{ ipBlock: { cidr: 10.0.0.0/8, except: [10.244.2.0/24] } }], ports: [{ port: 8080 }] }] }")
        .policy("default-deny", DENY_ALL_INGRESS)
        .policy("metrics", "{ podSelector: {}, ingress: [{ ports: [{ port: 9100 }, { port: 9200, endPort: 9299 }] }] }");
    let explanation = net.explain("web/front", "default/api:8080");
    assert_eq!(explanation.egress.ruling, Ruling::NotIsolated);
    expect![[r#"
        {
          "ruling": "Denied",
          "why": "default/api is isolated for ingress by default/allow-web, default/default-deny, default/metrics; no rule matched",
          "tier": "NetworkPolicy",
          "policies": [
            "default/allow-web",
            "default/default-deny",
            "default/metrics"
          ],
          "decidedBy": null,
          "nearMisses": [
            {
              "rule": {
                "policy": "default/allow-web",
                "rule": 0
              },
              "problem": "namespace label `name=frontend` is missing on `web`"
            },
            {
              "rule": {
                "policy": "default/allow-web",
                "rule": 1
              },
              "problem": "a `podSelector` alone means pods of namespace `default`, and `web/front` is in `web`"
            },
            {
              "rule": {
                "policy": "default/allow-web",
                "rule": 2
              },
              "problem": "10.244.2.4 is in 10.0.0.0/8, but 10.244.2.0/24 is excepted"
            },
            {
              "rule": {
                "policy": "default/metrics",
                "rule": 0
              },
              "problem": "port 8080/TCP is not in [9100/TCP, 9200-9299/TCP]"
            }
          ]
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&explanation.ingress).expect("serialisable"));
}

#[test]
fn rule_13_1_an_acceptance_names_the_rule_that_decided() {
    let net = cluster()
        .policy("a", DENY_ALL_INGRESS)
        .policy("b", "{ podSelector: {}, ingress: [{ ports: [{ port: 1 }] }, { ports: [{ port: 2 }] }] }");
    let explanation = net.explain("web/front", "default/db:2");
    assert_eq!(explanation.ingress.why, "ingress rule 1 of default/b allows it");
    assert_eq!(explanation.ingress.decided_by.map(|rule| (rule.policy, rule.rule)), Some(("default/b".into(), 1)));
    let reverse = net.explain("default/db", "8.8.8.8:443");
    assert_eq!((reverse.egress.ruling, reverse.ingress.ruling), (Ruling::NotIsolated, Ruling::NoPod));
}

#[test]
fn rule_13_1_an_explanation_names_the_tier_and_the_rule() {
    let spec = format!(
        "{{ tier: Admin, priority: 1, subject: {EVERYBODY}, ingress: [{{ action: Accept, from: [{EVERYBODY}], protocols: [{{ tcp: {{ destinationPort: {{ number: 443 }} }} }}] }}, {{ name: no-web, action: Deny, from: [{EVERYBODY}] }}] }}"
    );
    let net = cluster().cluster_policy("lockdown", &spec).policy("np", "{ podSelector: {}, ingress: [{}] }");
    let side = net.explain("web/front", "default/db:80").ingress;
    assert_eq!((side.ruling, side.tier), (Ruling::Denied, Some("Admin")));
    assert_eq!(side.why, "ingress rule 1 of lockdown denies it");
    assert_eq!(side.policies, ["lockdown", "default/np"]);
    assert_eq!(side.decided_by.and_then(|rule| rule.name).as_deref(), Some("no-web"));
    let misses: Vec<&str> = side.near_misses.iter().map(|miss| miss.problem.as_str()).collect();
    assert_eq!(misses, ["port 80/TCP is not in [443/TCP]"]);
}

#[test]
fn rule_13_1_a_refusal_has_the_code_of_the_side_and_the_tier_that_refused() {
    let deny = "{ podSelector: {}, policyTypes: [Ingress, Egress] }";
    let reason = |net: &crate::support::Cluster, from: &str, to: &str| net.explain(from, to).reason;
    let net = cluster().policy("deny", deny);
    assert_eq!(reason(&net, "web/front", "default/db:80"), Some("POLICY_DENIED_INGRESS"));
    assert_eq!(reason(&net, "default/db", "web/front:80"), Some("POLICY_DENIED_EGRESS"));
    assert_eq!(reason(&net, "web/front", "web/api:80"), None);
    let tiers = format!(
        "{{ tier: Baseline, priority: 1, subject: {EVERYBODY}, egress: [{{ action: Deny, to: [{EVERYBODY}] }}] }}"
    );
    assert_eq!(reason(&cluster().cluster_policy("c", &tiers), "web/front", "web/api:80"), Some("CNP_DENY"));
}

#[test]
fn rule_13_1_a_near_miss_names_the_one_thing_that_is_in_the_way() {
    let miss = |rule: &str, from: &str, to: &str| {
        let net = cluster().policy("p", &format!("{{ podSelector: {{}}, ingress: [{rule}] }}"));
        let misses: Vec<NearMiss> = net.explain(from, to).ingress.near_misses;
        misses.into_iter().map(|miss| miss.problem).collect::<Vec<_>>().join("; ")
    };
    let from = |peer: &str| format!("{{ from: [{peer}] }}");
    //   rule                                                             from          to                  what is in the way
    for (rule, source, to, problem) in [
        (
            "{ ports: [{ port: 8080 }] }".to_owned(),
            "web/front",
            "default/db:8081",
            "port 8081/TCP is not in [8080/TCP]",
        ),
        ("{ ports: [{ port: http }] }".to_owned(), "web/front", "default/db:80", "port 80/TCP is not in [http/TCP]"),
        (
            "{ ports: [{ protocol: UDP }] }".to_owned(),
            "web/front",
            "default/db:ICMP",
            "ICMP has no ports, and the rule names ports: [UDP]",
        ),
        (from("{ ipBlock: { cidr: 10.0.0.0/8 } }"), "8.8.8.8", "default/db:80", "8.8.8.8 is not in 10.0.0.0/8"),
        (
            from("{ podSelector: {} }"),
            "8.8.8.8",
            "default/db:80",
            "8.8.8.8 is seen as an address, and selectors match only pods",
        ),
        (
            from("{ podSelector: { matchLabels: { app: api } } }"),
            "default/db",
            "default/api:80",
            "pod label `app` of `default/db` is `db`, not `api`",
        ),
        (
            from("{ podSelector: { matchExpressions: [{ key: tier, operator: Exists }] } }"),
            "default/db",
            "default/api:80",
            "pod label `tier` is missing on `default/db`",
        ),
        (
            from("{ podSelector: { matchExpressions: [{ key: app, operator: NotIn, values: [db] }] } }"),
            "default/db",
            "default/api:80",
            "pod label `app` of `default/db` is `db`, which is in [db]",
        ),
        (
            from("{ namespaceSelector: { matchExpressions: [{ key: team, operator: DoesNotExist }] } }"),
            "web/api",
            "default/api:80",
            "namespace label `team` is set on `web`",
        ),
        // Two things in the way are no near miss.
        ("{ from: [{ podSelector: {} }], ports: [{ port: 1 }] }".to_owned(), "web/front", "default/db:80", ""),
    ] {
        assert_eq!(miss(&rule, source, to), problem, "{rule} {source} → {to}");
    }
}

#[test]
fn rule_13_2_what_if_judges_by_policies_that_are_not_applied_and_without_some_that_are() {
    let net = cluster().policy("deny", DENY_ALL_INGRESS);
    let flow = net.flow("web/front", "default/db:80");
    let table = net.table();
    assert!(!table.explain(&flow).allowed);
    let allow = cluster().policy("allow", "{ podSelector: {}, ingress: [{}] }").only_policy();
    let with = table.with_policy(&allow);
    assert_eq!(with.explain(&flow).ingress.why, "ingress rule 0 of default/allow allows it");
    assert!(table.without_policy("default", "deny").explain(&flow).allowed);
    assert!(!table.explain(&flow).allowed, "what is in force has not changed");
}

#[test]
fn rule_13_2_the_service_that_a_flow_came_through_does_not_change_the_explanation() {
    let net = cluster().policy("deny", DENY_ALL_INGRESS);
    let direct = net.explain("web/front", "default/db:80");
    let through = net.table().explain(&via(net.flow("web/front", "default/db:80"), "10.96.0.20:80"));
    assert_eq!(direct, through);
}
