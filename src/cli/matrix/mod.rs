//! `matrix` and `diff-policy`: which pods can talk to which; computed, measured, at a revision, or compared with what policies in
//! files would make of it; as a table, JSON, or a picture.

mod changes;
mod picture;

use super::question;
use super::{ClusterName, get, print, say};
use anyhow::{Result, bail};
use changes::Changes;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;

/// Form of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people
    #[default]
    #[value(alias = "text")]
    Table,
    /// The whole answer
    Json,
    /// A picture
    Svg,
    /// A page that says of each pair why
    Html,
}

/// Which pods and ports.
#[derive(Clone, Debug, Args)]
struct Selection {
    /// Only pods of this namespace; may be repeated [default: every namespace]
    #[arg(short, long)]
    namespace: Vec<String>,
    /// This port of every pod: PORT or PORT/PROTOCOL; may be repeated [default: those that each pod declares]
    #[arg(long)]
    port: Vec<String>,
    #[command(flatten)]
    cluster: ClusterName,
}

/// Show which pods can talk to which
#[derive(Clone, Debug, Args)]
pub(crate) struct Matrix {
    #[command(flatten)]
    selection: Selection,
    /// Open a real connection for every pair too; exit code 1 if one disagrees with what was computed
    #[arg(long)]
    probe: bool,
    /// Show what would change if the policies in these files or directories were applied
    #[arg(short = 'f', long = "filename", conflicts_with = "probe")]
    files: Vec<PathBuf>,
    /// Show what would change if this policy (NAMESPACE/NAME, or a ClusterNetworkPolicy's name) were deleted
    #[arg(long, conflicts_with = "probe")]
    without: Vec<String>,
    /// As it was at this resourceVersion of the cluster
    #[arg(long, value_name = "REVISION", conflicts_with_all = ["probe", "files", "without"])]
    at_revision: Option<u64>,
    /// Show what changed from --at-revision to this resourceVersion, or `now`
    #[arg(long, value_name = "REVISION", requires = "at_revision", value_parser = revision)]
    to: Option<Revision>,
    /// Form of the answer; pictures and pages go to standard output too: `-o html > matrix.html`
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Say which pairs of pods would gain or lose reachability if policies were applied or deleted
#[derive(Clone, Debug, Args)]
pub(crate) struct DiffPolicy {
    #[command(flatten)]
    selection: Selection,
    /// The policies: a file, a directory (its .yaml, .yml and .json files), or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", required_unless_present = "without")]
    files: Vec<PathBuf>,
    /// As if this policy (NAMESPACE/NAME, or a ClusterNetworkPolicy's name) were deleted; may be repeated
    #[arg(long)]
    without: Vec<String>,
    /// Exit with 1 if a pair gains or loses reachability, for scripts
    #[arg(long)]
    exit_code: bool,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// A point of the cluster's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Revision {
    Now,
    At(u64),
}

fn revision(text: &str) -> Result<Revision, String> {
    if text == "now" {
        return Ok(Revision::Now);
    }
    text.parse().map(Revision::At).map_err(|_| "must be a resourceVersion or `now`".to_owned())
}

/// As many columns fit into a terminal; more are listed by row.
const WIDEST: usize = 16;

impl Matrix {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let selection = &self.selection;
        let mut spec = selection.spec();
        spec["probe"] = self.probe.into();
        spec["explain"] = (self.output == Form::Html).into();
        if let Some(revision) = self.at_revision {
            spec["resourceVersion"] = revision.to_string().into();
        }
        let now = selection.ask(&spec).await?;
        if let Some(to) = self.to {
            spec["resourceVersion"] = match to {
                Revision::Now => "".into(),
                Revision::At(revision) => revision.to_string().into(),
            };
            return show(&now, &selection.ask(&spec).await?, self.output, "gained");
        }
        if self.files.is_empty() && self.without.is_empty() {
            match self.output {
                Form::Json => question::print_json(&now)?,
                Form::Table => print(&text(&now)),
                Form::Svg => print(&picture::svg(&now, None)?),
                Form::Html => print(&picture::html(&now, None)?),
            }
            let disagreements = now["disagreements"].as_array().cloned().unwrap_or_default();
            for wrong in &disagreements {
                say(&format!("computed and measured disagree: {wrong}"));
            }
            return Ok(if disagreements.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        let then = selection.then(&mut spec, &self.files, &self.without).await?;
        show(&now, &then, self.output, "would be gained")
    }
}

impl DiffPolicy {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let selection = &self.selection;
        let mut spec = selection.spec();
        spec["explain"] = (self.output == Form::Html).into();
        let now = selection.ask(&spec).await?;
        let then = selection.then(&mut spec, &self.files, &self.without).await?;
        show(&now, &then, self.output, "would be gained")?;
        let changed = !Changes::between(&now, &then).is_empty();
        Ok(if changed && self.exit_code { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

impl Selection {
    fn spec(&self) -> Value {
        json!({"namespaces": self.namespace, "ports": self.port})
    }

    async fn ask(&self, spec: &Value) -> Result<Value> {
        question::ask(&self.cluster, ("Reachability", "reachabilities"), spec.clone()).await
    }

    /// The matrix as if policies were applied and deleted.
    async fn then(&self, spec: &mut Value, files: &[PathBuf], without: &[String]) -> Result<Value> {
        let namespace = self.namespace.first().map_or("default", String::as_str);
        let policies = question::policies(&self.cluster, files, namespace).await?;
        if !files.is_empty() && policies.is_empty() {
            bail!("no NetworkPolicy or ClusterNetworkPolicy in {}", shown(files));
        }
        spec["policies"] = policies.into();
        spec["absent"] = without.to_vec().into();
        self.ask(spec).await
    }
}

fn shown(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The difference of two matrices.
fn show(now: &Value, then: &Value, form: Form, gained: &str) -> Result<ExitCode> {
    let changes = Changes::between(now, then);
    match form {
        Form::Json => question::print_json(&json!(changes))?,
        Form::Svg => print(&picture::svg(then, Some(now))?),
        Form::Html => print(&picture::html(then, Some(now))?),
        Form::Table => {
            let signed = [('+', &changes.gained), ('-', &changes.lost)];
            for (sign, pairs) in signed {
                pairs.iter().for_each(|pair| print(&format!("{sign} {pair}\n")));
            }
            for (word, pods) in [("came", &changes.pods.added), ("went", &changes.pods.removed)] {
                pods.iter().for_each(|pod| say(&format!("{pod} {word}, and is not compared")));
            }
            let counts = (changes.gained.len(), changes.lost.len());
            say(&format!("{} pairs {gained}, {} lost", counts.0, counts.1));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn column(to: &Value) -> String {
    format!("{}:{}/{}", to["pod"].as_str().unwrap_or_default(), to["port"], to["protocol"].as_str().unwrap_or_default())
}

fn columns(matrix: &Value) -> Vec<String> {
    matrix["to"].as_array().into_iter().flatten().map(column).collect()
}

/// Every source with its row of cells.
fn rows(matrix: &Value) -> impl Iterator<Item = (&str, &str)> {
    let sources = matrix["from"].as_array().into_iter().flatten().filter_map(Value::as_str);
    sources.zip(matrix["allowed"].as_array().into_iter().flatten().filter_map(Value::as_str))
}

fn text(matrix: &Value) -> String {
    let columns = columns(matrix);
    if rows(matrix).next().is_none() {
        return "there is no pod\n".to_owned();
    }
    if columns.is_empty() {
        return "no pod declares a port; choose one with --port\n".to_owned();
    }
    if columns.len() > WIDEST {
        let mut text = String::new();
        for (from, cells) in rows(matrix) {
            let reached = cells.chars().filter(|cell| *cell == '1').count();
            text.push_str(&format!("{from}: reaches {reached} of {}\n", columns.len()));
            for (to, _) in columns.iter().zip(cells.chars()).filter(|(_, cell)| *cell == '0') {
                text.push_str(&format!("  ✗ {to}\n"));
            }
        }
        return text;
    }
    let mut lines = vec![std::iter::once("FROM \\ TO".to_owned()).chain(columns).collect::<Vec<_>>()];
    for (from, cells) in rows(matrix) {
        let marks = cells.chars().map(|cell| if cell == '1' { "✓" } else { "✗" }.to_owned());
        lines.push(std::iter::once(from.to_owned()).chain(marks).collect());
    }
    get::aligned(&lines)
}
