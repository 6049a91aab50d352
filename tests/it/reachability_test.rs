//! `coracle test`: expectations in files, checked in throw-away clusters.

use crate::support::{Terminal, repository};
use std::path::Path;

const SUITE: &str = "
apiVersion: net.coracle.dev/v1alpha1
kind: ReachabilityTest
metadata: {name: shop}
manifests: [policy.yaml]
pods:
- {name: web, namespace: shop, labels: {app: web}, ports: [80]}
- {name: db, namespace: shop, labels: {app: db}, ports: [5432]}
expect:
- {from: shop/web, to: 'shop/db:5432', verdict: allowed}
- {from: shop/app=web, to: ['shop/app=db:5433', 'shop/db:53/UDP'], verdict: denied}
";

const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]
";

fn terminal() -> Terminal {
    let terminal = Terminal::new(&[Path::new(env!("CARGO_BIN_EXE_coracle"))]);
    terminal.write("shop.yaml", SUITE);
    terminal.write("policy.yaml", POLICY);
    terminal
}

#[tokio::test]
async fn expectations_that_hold_pass_by_computation_and_by_packets() {
    let terminal = terminal();
    terminal
        .transcript(
            r#"$ coracle test shop.yaml
                FROM       TO             EXPECTED   COMPUTED   PACKETS
            ✓   shop/web   shop/db:5432   allowed    allowed    allowed
            ✓   shop/web   shop/db:5433   denied     denied     denied
            ✓   shop/web   shop/db:53/UDP   denied     denied     -
            3 passed, 0 failed"#,
        )
        .await;
}

#[tokio::test]
async fn an_expectation_that_does_not_hold_fails_with_the_reason() {
    let terminal = terminal();
    terminal.write("policy.yaml", &POLICY.replace("port: 5432", "port: 5433"));
    let ran = terminal.sh("coracle test shop.yaml --junit report.xml").await;
    assert_eq!(ran.code, 1, "{ran}");
    for line in [
        "shop/web → shop/db:5432: expected allowed, computed denied, denied by packets",
        "rule 0 of shop/db nearly matched: port 5432/TCP is not in [5433/TCP]",
        "shop/web → shop/db:5433: expected denied, computed allowed, allowed by packets",
    ] {
        assert!(ran.stdout.contains(line), "{line:?} is missing in {ran}");
    }
    let report = std::fs::read_to_string(terminal.dir().join("report.xml")).expect("a report");
    assert!(report.contains("<testsuite name=\"shop\" tests=\"3\" failures=\"2\">"), "{report}");
}

#[tokio::test]
async fn a_file_that_cannot_be_checked_is_refused_with_the_reason() {
    let terminal = terminal();
    terminal.write("typo.yaml", &SUITE.replace("shop/web", "shop/wep"));
    terminal.write("nobody.yaml", &SUITE.replace("app=web", "app=nobody"));
    terminal.write("empty.yaml", "{}");
    for (file, why) in [
        ("typo.yaml", "pods \"wep\" not found"),
        ("nobody.yaml", "no pod of namespace shop has the labels app=nobody"),
        ("empty.yaml", "error parsing empty.yaml"),
        ("missing.yaml", "cannot read missing.yaml"),
    ] {
        let ran = terminal.sh(&format!("coracle test {file}")).await;
        assert_eq!(ran.code, 1, "{ran}");
        assert!(ran.stderr.contains(why), "{why:?} is missing in {ran}");
    }
}

#[tokio::test]
async fn the_lesson_keeps_its_promises() {
    let example = repository("examples/policy-tests/lesson.yaml");
    terminal().sh(&format!("coracle test {}", example.display())).await.ok();
}

#[tokio::test]
async fn every_policy_recipe_keeps_its_promises() {
    let directory = repository("examples/policy-recipes");
    let listed = std::fs::read_dir(&directory).expect("the recipes");
    let names: Vec<String> =
        listed.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into()).collect();
    let recipes: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(".test.yaml")).collect();
    assert!(recipes.len() >= 20, "{recipes:?}");
    for name in names.iter().filter_map(|name| name.strip_suffix(".yaml")).filter(|name| !name.ends_with(".test")) {
        assert!(recipes.contains(&name), "{name} has no expectations");
    }
    // Some at a time: a cluster each, on a machine that may be slow and busy.
    for some in recipes.chunks(6) {
        let files: Vec<String> = some.iter().map(|name| format!("{}/{name}.test.yaml", directory.display())).collect();
        let ran = terminal().sh(&format!("coracle test {}", files.join(" "))).await;
        assert!(ran.code == 0 && ran.stderr.contains(" 0 failed"), "{ran}");
    }
}
