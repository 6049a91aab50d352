//! `test`: expectations of who can talk to whom, checked in a throw-away cluster, by computation and by real packets.
//!
//! Every file gets a cluster of its own: its manifests are applied, its stand-in pods started, and each pair is judged by a
//! `PolicyReview` and, where both ends are real and the protocol is TCP, by a connection of a `Trace`. Both have to be as expected.

mod junit;
mod suite;

use super::signals::{self, Signals};
use super::{get, print, say};
use anyhow::{Context, Result, bail};
use clap::Args;
use coracle::Cluster;
use futures::StreamExt;
use http::Request;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use suite::{Suite, Verdict};
use tokio::time::Instant;

/// Pods that have not become ready by then will not.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at whether pods are ready.
const READY_PAUSE: Duration = Duration::from_millis(20);
/// Pairs at a time.
const PARALLEL: usize = 64;
/// Files at a time: a denied connection is waited for, which costs nothing but time.
const FILES: usize = 8;

/// Check expectations in a throw-away cluster
#[derive(Clone, Debug, Args)]
pub(crate) struct Test {
    /// Files of kind ReachabilityTest
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Write a JUnit report here too
    #[arg(long)]
    junit: Option<PathBuf>,
    /// Do not open connections: check the computed verdicts only
    #[arg(long)]
    no_packets: bool,
}

/// One pair, and how it came out.
#[derive(Clone, Debug)]
struct Check {
    suite: String,
    from: String,
    to: String,
    expected: Verdict,
    computed: Verdict,
    /// `None`: no connection was opened.
    measured: Option<Verdict>,
    /// Why, in the words of the explanation.
    reasons: Vec<String>,
}

impl Check {
    fn passed(&self) -> bool {
        self.computed == self.expected && self.measured.is_none_or(|measured| measured == self.expected)
    }

    fn found(&self) -> String {
        let measured = self.measured.map_or("not measured", Verdict::word);
        format!("expected {}, computed {}, {measured} by packets", self.expected.word(), self.computed.word())
    }
}

impl Test {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let mut signals = Signals::new()?;
        let mut suites = Vec::new();
        for path in &self.files {
            suites.push((path.as_path(), Suite::read(path)?));
        }
        let one = |(path, suite)| {
            let test = &self;
            async move {
                let checked = test.suite(path, suite).await;
                checked.with_context(|| format!("{} cannot be checked", path.display()))
            }
        };
        let all = suites.iter().map(|(path, suite)| (*path, suite));
        let checked = futures::stream::iter(all).map(one).buffered(FILES).collect::<Vec<_>>();
        let checked = tokio::select! {
            checked = checked => checked,
            signal = signals.next() => return Ok(signals::exit_code(signal)),
        };
        let mut checks = Vec::new();
        for ((_, suite), checked) in suites.iter().zip(checked) {
            let checked = checked?;
            if suites.len() > 1 {
                print(&format!("{}\n", suite.name()));
            }
            print(&table(&checked));
            checks.extend(checked);
        }
        let failed: Vec<&Check> = checks.iter().filter(|check| !check.passed()).collect();
        for check in &failed {
            let suite = if suites.len() > 1 { format!("{}: ", check.suite) } else { String::new() };
            print(&format!("\n{suite}{} → {}: {}\n", check.from, check.to, check.found()));
            check.reasons.iter().for_each(|reason| print(&format!("  {reason}\n")));
        }
        if let Some(path) = &self.junit {
            std::fs::write(path, junit::report(&checks)).with_context(|| format!("cannot write {}", path.display()))?;
        }
        say(&format!("{} passed, {} failed", checks.len() - failed.len(), failed.len()));
        Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn suite(&self, path: &Path, suite: &Suite) -> Result<Vec<Check>> {
        let objects = suite.objects(path)?;
        let cluster = Cluster::builder().start().await?;
        let checked = async {
            // A pod is refused in a namespace that has no service account yet, and namespaces come first.
            let (namespaces, others) =
                objects.split_at(objects.iter().take_while(|it| it["kind"] == "Namespace").count());
            for group in [namespaces, others] {
                for object in group {
                    cluster.apply(&object.to_string()).await?;
                }
                cluster.settled().await;
            }
            ready(&cluster).await?;
            let mut pairs = Vec::new();
            for expectation in &suite.expect {
                for from in expectation.from.iter() {
                    for from in expand(&cluster, from).await? {
                        for to in expectation.to.iter() {
                            let targets = expand_target(&cluster, to).await?;
                            pairs.extend(targets.into_iter().map(|to| (from.clone(), to, expectation.verdict)));
                        }
                    }
                }
            }
            let checks = futures::stream::iter(pairs)
                .map(|(from, to, expected)| self.check(&cluster, suite.name(), from, to, expected))
                .buffered(PARALLEL)
                .collect::<Vec<_>>()
                .await;
            checks.into_iter().collect::<Result<Vec<Check>>>()
        };
        let checked = checked.await;
        cluster.stop().await;
        checked
    }

    async fn check(
        &self,
        cluster: &Cluster,
        suite: &str,
        from: String,
        to: String,
        expected: Verdict,
    ) -> Result<Check> {
        let spec = json!({"from": from, "to": to});
        let review = ask(cluster, ("PolicyReview", "policyreviews"), spec).await;
        let review = review.with_context(|| format!("{from} → {to}"))?;
        let mut reasons = Vec::new();
        for verdict in review["verdicts"].as_array().into_iter().flatten() {
            for direction in ["egress", "ingress"] {
                let report = &verdict[direction];
                reasons.push(format!("{direction}: {}", report["why"].as_str().unwrap_or_default()));
                for miss in report["nearMisses"].as_array().into_iter().flatten() {
                    let policy = miss["rule"]["policy"].as_str().unwrap_or_default();
                    let problem = miss["problem"].as_str().unwrap_or_default();
                    reasons.push(format!("  rule {} of {policy} nearly matched: {problem}", miss["rule"]["rule"]));
                }
            }
        }
        if reasons.is_empty() {
            let steps = review["service"]["steps"].as_array().into_iter().flatten().filter_map(Value::as_str);
            reasons.extend(steps.map(str::to_owned));
        }
        reasons.dedup();
        let tcp = !to.to_ascii_uppercase().ends_with("/UDP") && !to.to_ascii_uppercase().ends_with("/SCTP");
        // What is outside the cluster need not be there; a Service without endpoints answers itself.
        let mut ends =
            review["verdicts"].as_array().into_iter().flatten().map(|verdict| &verdict["destination"]["pod"]);
        let inside = review["source"]["pod"].is_string() && ends.all(Value::is_string);
        let measured = if !self.no_packets && tcp && inside {
            let destination = review["destination"]["address"].as_str().unwrap_or_default();
            let spec = json!({"from": from, "to": destination, "connect": true, "timeoutSeconds": 1});
            let trace = ask(cluster, ("Trace", "traces"), spec).await.with_context(|| format!("{from} → {to}"))?;
            // A refusal comes from the other end, or from a Service without one: only the former has arrived.
            let arrived = match trace["outcome"].as_str() {
                Some("Connected") => true,
                Some("Refused") => trace["service"]["outcome"] != "reject",
                _ => false,
            };
            Some(Verdict::of(arrived))
        } else {
            None
        };
        let computed = Verdict::of(review["allowed"] == true);
        Ok(Check { suite: suite.to_owned(), from, to, expected, computed, measured, reasons })
    }
}

async fn ask(cluster: &Cluster, (kind, plural): (&str, &str), spec: Value) -> Result<Value> {
    let body = json!({"apiVersion": "net.coracle.dev/v1alpha1", "kind": kind, "spec": spec});
    let request = Request::post(format!("/apis/net.coracle.dev/v1alpha1/{plural}"))
        .header("Content-Type", "application/json")
        .header("Accept", "application/json")
        .body(body.to_string().into_bytes())?;
    let mut answer: Value = cluster.client().request(request).await.map_err(super::remote::explain)?;
    Ok(answer["status"].take())
}

async fn pods(cluster: &Cluster, path: &str) -> Result<Vec<Value>> {
    let request = Request::get(path).header("Accept", "application/json").body(Vec::new())?;
    let list: Value = cluster.client().request(request).await.map_err(super::remote::explain)?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

fn full_name(pod: &Value) -> String {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

/// Waits until every pod is ready or has ended.
async fn ready(cluster: &Cluster) -> Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        cluster.settled().await;
        let waiting: Vec<String> =
            pods(cluster, "/api/v1/pods").await?.iter().filter(|pod| !is_ready(pod)).map(full_name).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("not ready after {} s: {}", READY_TIMEOUT.as_secs(), waiting.join(", "));
        }
        tokio::time::sleep(READY_PAUSE).await;
    }
}

fn is_ready(pod: &Value) -> bool {
    let status = &pod["status"];
    let ended = matches!(status["phase"].as_str(), Some("Succeeded" | "Failed"));
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    ended || conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// The pods meant by `NAMESPACE/LABEL=VALUE`; any other text means itself.
async fn expand(cluster: &Cluster, place: &str) -> Result<Vec<String>> {
    if !place.contains('=') {
        return Ok(vec![place.to_owned()]);
    }
    let (namespace, selector) = match place.split_once('/') {
        // The key of a label may hold a slash itself; a namespace has no dot.
        Some((namespace, selector)) if !namespace.contains('.') => (namespace, selector),
        _ => ("default", place),
    };
    let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={}", super::remote::encode(selector));
    let found: Vec<String> = pods(cluster, &path).await?.iter().map(full_name).collect();
    if found.is_empty() {
        bail!("no pod of namespace {namespace} has the labels {selector}");
    }
    Ok(found)
}

/// The same of `PLACE:PORT`.
async fn expand_target(cluster: &Cluster, target: &str) -> Result<Vec<String>> {
    let Some((place, port)) = target.rsplit_once(':').filter(|(place, _)| place.contains('=')) else {
        return Ok(vec![target.to_owned()]);
    };
    Ok(expand(cluster, place).await?.into_iter().map(|pod| format!("{pod}:{port}")).collect())
}

fn table(checks: &[Check]) -> String {
    let header = ["", "FROM", "TO", "EXPECTED", "COMPUTED", "PACKETS"].map(str::to_owned).to_vec();
    let mut lines = vec![header];
    for check in checks {
        let sign = if check.passed() { "✓" } else { "✗" };
        let measured = check.measured.map_or("-", Verdict::word);
        lines.push(
            [sign, &check.from, &check.to, check.expected.word(), check.computed.word(), measured]
                .map(str::to_owned)
                .to_vec(),
        );
    }
    get::aligned(&lines)
}
