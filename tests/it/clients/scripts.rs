//! The official Python and JavaScript clients. What they must be able to do is written in their own languages, a function for a rule,
//! in the scripts beside this file, which print the name of each rule that holds.

use crate::support::{Bench, repository, run, tools};
use coracle::Cluster;
use tokio::process::Command;

/// Runs a script that is to print these rules and nothing else.
async fn every_rule_holds(bench: &Bench, mut command: Command, script: &str, rules: &[&str]) {
    let source = std::fs::read_to_string(repository(&format!("tests/it/clients/{script}"))).expect("a script");
    let file = bench.terminal.write(script, &source);
    command.arg(file);
    let ran = run(command, script).await;
    assert_eq!(ran.code, 0, "{ran}");
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), rules, "{ran}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_works_typed_and_dynamic() {
    let client = tools::python_client().await;
    let bench = Bench::with(Cluster::builder()).await;
    let mut python = bench.terminal.command("python3");
    python.env("PYTHONPATH", client).env("PYTHONDONTWRITEBYTECODE", "1");
    let rules = [
        "typed_objects_are_created_read_changed_and_deleted",
        "typed_workloads_scale_and_report",
        "typed_networking_objects_are_as_they_were_said",
        "errors_carry_a_status_that_says_what_is_wrong",
        "lists_come_in_pages_of_one_moment",
        "a_watch_tells_every_change_in_order",
        "exec_carries_streams_and_the_exit_code",
        "logs_are_read_and_followed",
        "port_forward_reaches_the_pod",
        "the_dynamic_client_discovers_applies_and_watches",
        "manifests_are_created_as_they_are_written",
    ];
    every_rule_holds(&bench, python, "python_client.py", &rules).await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_client_lists_watches_informs_and_streams() {
    let client = tools::node_client().await;
    let bench = Bench::with(Cluster::builder()).await;
    // A module finds packages beside itself only.
    let modules = client.join("node_modules");
    std::os::unix::fs::symlink(modules, bench.terminal.dir().join("node_modules")).expect("a link");
    let node = bench.terminal.command("node");
    let rules = [
        "objects_are_created_listed_patched_and_deleted",
        "fields_are_applied_and_owned",
        "a_watch_tells_every_change_in_order",
        "an_informer_keeps_what_there_is",
        "exec_carries_streams_and_the_exit_code",
        "logs_are_followed",
        "ports_are_forwarded",
    ];
    every_rule_holds(&bench, node, "node_client.mjs", &rules).await;
    bench.stop().await;
}

/// Groups, and what is tried of them: what stands in a namespace, and does not end the cluster.
const DOCUMENTS: [&str; 3] = [
    "api/v1=/namespaces/[{]namespace[}]/(configmaps|services)",
    "apis/apps/v1=/namespaces/[{]namespace[}]/deployments",
    "apis/networking.k8s.io/v1=/namespaces/[{]namespace[}]/networkpolicies",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_is_what_the_api_s_documents_say() {
    let tool = tools::schemathesis().await;
    let bench = Bench::with(Cluster::builder()).await;
    let mut python = bench.terminal.command("python3");
    python.env("PYTHONPATH", tool).env("PYTHONDONTWRITEBYTECODE", "1");
    let script = bench.terminal.write(
        "api_documents.py",
        &std::fs::read_to_string(repository("tests/it/clients/api_documents.py")).expect("a script"),
    );
    python.arg(script).arg(bench.terminal.dir().join("kubeconfig")).args(["7", "5"]).args(DOCUMENTS);
    let ran = run(python, "schemathesis").await;
    assert_eq!(ran.code, 0, "{ran}");
    let tried: Vec<&str> = DOCUMENTS.iter().filter_map(|document| Some(document.split_once('=')?.0)).collect();
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), tried, "{ran}");
    bench.stop().await;
}
