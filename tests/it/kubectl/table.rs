//! Every command of `kubectl --help` that touches a server, with what it prints and what it leaves behind.
//!
//! The table is the files in `table/`. A row begins with `## NAMESPACE: RULE` and is a transcript (see
//! [`crate::support::transcript`]) which runs in that namespace and in a directory of its own, beside all other rows; lines between the
//! heading and the first command are remarks. A row that touches what has no namespace uses names that begin with its own, and
//! node-3, which the table keeps free of everybody else's pods. `@1.36,1.37 ` in front of a line: so only with these versions.
//!
//! [`NOT_A_SERVERS`] lists what is left out, and a test reads each version's own `--help` to see that nothing else is.

use crate::support::{Bench, Terminal, run, tools, transcript};
use coracle::Cluster;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeSet;

/// The table, in the order of kubectl's own help.
const TABLE: [&str; 7] = [
    include_str!("table/create.txt"),
    include_str!("table/get.txt"),
    include_str!("table/deploy.txt"),
    include_str!("table/cluster.txt"),
    include_str!("table/trouble.txt"),
    include_str!("table/advanced.txt"),
    include_str!("table/other.txt"),
];

/// Commands that no server hears of, and why.
const NOT_A_SERVERS: [(&str, &str); 6] = [
    ("completion", "prints a script for a shell"),
    ("config", "edits the kubeconfig file"),
    ("kuberc", "edits the user's preferences file"),
    ("plugin", "looks for programs on the path"),
    ("options", "prints the flags that every command has"),
    ("alpha", "a heading; no version under test has a command below it"),
];

/// Rows at the same time: enough to keep the machine busy while rows wait.
const AT_ONCE: usize = 5;

struct Row<'a> {
    namespace: &'a str,
    rule: &'a str,
    transcript: String,
}

/// The rows as they are for one version of kubectl.
fn rows(minor: &str) -> Vec<Row<'static>> {
    let sections = TABLE.iter().flat_map(|file| file.split("\n## ").skip(1));
    let row = |section: &'static str| {
        let (heading, rest) = section.split_once('\n').expect("a heading, then commands");
        let (namespace, rule) = heading.split_once(": ").unwrap_or_else(|| panic!("{heading:?}: NAMESPACE: RULE"));
        let lines = rest.lines().skip_while(|line| !line.starts_with(['$', '@'])).filter_map(|line| {
            match line.strip_prefix('@').and_then(|line| line.split_once(' ')) {
                Some((versions, line)) if versions.starts_with("1.") => {
                    versions.split(',').any(|version| version == minor).then_some(line)
                }
                _ => Some(line),
            }
        });
        Row { namespace, rule, transcript: lines.collect::<Vec<_>>().join("\n") }
    };
    sections.map(row).collect()
}

async fn every_row_has_its_effect(minor: &str) {
    let bench = Bench::with_kubectl(Cluster::builder().nodes(3), minor).await;
    let nodes: Api<Node> = Api::all(bench.cluster.client());
    let taint = json!({"spec": {"taints": [{"key": "table", "value": "maintenance", "effect": "NoSchedule"}]}});
    nodes.patch("node-3", &PatchParams::default(), &Patch::Merge(taint)).await.expect("node-3 is set apart");
    let rows = rows(minor);
    let only = std::env::var("KUBECTL_ROW").ok();
    let rows = rows.iter().filter(|row| only.as_deref().is_none_or(|only| row.namespace == only));
    let failures = futures::stream::iter(rows).map(|row| effect(&bench, row)).buffer_unordered(AT_ONCE);
    let failures: Vec<String> = failures.filter_map(|result| async { result.err() }).collect().await;
    assert!(failures.is_empty(), "with kubectl {minor}:\n\n{}", failures.join("\n\n"));
    bench.stop().await;
}

/// Runs one row; an error says what is not as the table has it.
async fn effect(bench: &Bench, row: &Row<'_>) -> Result<(), String> {
    let namespaces: Api<Namespace> = Api::all(bench.cluster.client());
    let namespace = serde_json::from_value(json!({"metadata": {"name": row.namespace}})).expect("a Namespace");
    namespaces.create(&PostParams::default(), &namespace).await.expect("the row's namespace");
    let kubeconfig = bench.cluster.kubeconfig("it").expect("the API has an address");
    let mut terminal = bench.terminal.beside();
    let path = terminal.write(".kubeconfig", &kubeconfig);
    terminal.set("KUBECONFIG", path);
    let chosen = terminal.sh(&format!("kubectl config set-context --current --namespace={}", row.namespace)).await;
    assert_eq!(chosen.code, 0, "{chosen}");
    let result = transcript::compare(&terminal, &row.transcript).await;
    result.map_err(|difference| format!("## {}: {}\n{difference}", row.namespace, row.rule))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_kubectl_1_35_has_its_effect() {
    every_row_has_its_effect("1.35").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_kubectl_1_36_has_its_effect() {
    every_row_has_its_effect("1.36").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_kubectl_1_37_has_its_effect() {
    every_row_has_its_effect("1.37").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_of_kubectls_help_is_left_out() {
    for minor in ["1.35", "1.36", "1.37"] {
        let kubectl = tools::kubectl(minor).await;
        let terminal = Terminal::new(&[&kubectl]);
        let invoked: Vec<Vec<String>> = rows(minor)
            .iter()
            .flat_map(|row| transcript::commands(&row.transcript))
            .flat_map(|command| invocations(&command))
            .collect();
        let mut unknown: Vec<Vec<String>> = vec![Vec::new()];
        let mut seen = 0;
        while let Some(path) = unknown.pop() {
            let below = subcommands(&terminal, &path).await;
            for name in below {
                let path: Vec<String> = path.iter().cloned().chain([name]).collect();
                let reason = NOT_A_SERVERS.iter().find(|(command, _)| *command == path[0]);
                if reason.is_some() {
                    continue;
                }
                assert!(
                    invoked.iter().any(|words| words.starts_with(&path)),
                    "kubectl {minor} has `kubectl {}`, which no row of the table runs",
                    path.join(" ")
                );
                seen += 1;
                unknown.push(path);
            }
        }
        assert!(seen > 80, "kubectl {minor} --help names only {seen} commands: is it read as it is written?");
    }
}

/// The commands that `kubectl PATH --help` lists.
async fn subcommands(terminal: &Terminal, path: &[String]) -> BTreeSet<String> {
    let mut command = terminal.command("kubectl");
    command.args(path).arg("--help");
    let help = run(command, "kubectl --help").await.ok();
    let mut listed = false;
    let mut names = BTreeSet::new();
    for line in help.lines() {
        if !line.starts_with(' ') {
            listed = if line.is_empty() { listed } else { line.contains("Commands") && line.ends_with(':') };
        } else if let (true, Some(name)) = (listed, line.split_whitespace().next()) {
            names.insert(name.to_owned());
        }
    }
    names
}

/// The words after each `kubectl` of a line of shell, without flags.
fn invocations(line: &str) -> Vec<Vec<String>> {
    let calls = line.split("kubectl ").skip(1);
    let words = |call: &str| call.split_whitespace().filter(|word| !word.starts_with('-')).map(str::to_owned).collect();
    calls.map(words).collect()
}
