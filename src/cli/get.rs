//! `get`: objects as the server's own tables, or as JSON, YAML or names.

use super::remote::{self, Remote, Resource};
use super::{Scope, print, say};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Show objects
#[derive(Clone, Debug, Args)]
pub(crate) struct Get {
    /// Resource types, separated by commas: pods, svc, deployments.apps, all; or TYPE/NAME
    #[arg(required = true)]
    types: String,
    /// Names
    names: Vec<String>,
    #[command(flatten)]
    scope: Scope,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Only with these labels
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Only with these fields
    #[arg(long)]
    field_selector: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

impl Get {
    pub(crate) async fn run(self) -> Result<()> {
        let remote = Remote::connect(&self.scope.cluster)?;
        let (types, names) = match self.types.split_once('/') {
            Some((kind, name)) => (kind.to_owned(), vec![name.to_owned()]),
            None => (self.types.clone(), self.names.clone()),
        };
        let mut resources: Vec<Resource> = Vec::new();
        for name in types.split(',').filter(|name| !name.is_empty()) {
            resources.extend(remote.find(name).await?);
        }
        let several = resources.len() > 1;
        let mut objects = Vec::new();
        let mut blocks = Vec::new();
        for resource in &resources {
            for url in self.urls(resource, &names) {
                if matches!(self.output, Output::Table | Output::Wide) {
                    let table = remote.get(&url, TABLE).await.map_err(remote::explain)?;
                    let prefix = if several { format!("{}/", resource.qualified()) } else { String::new() };
                    let text = self.table(&table, &prefix, resource.namespaced);
                    if !text.is_empty() {
                        blocks.push(text);
                    }
                } else {
                    let answer = remote.get(&url, "application/json").await.map_err(remote::explain)?;
                    match answer["items"].as_array() {
                        Some(items) => objects.extend(items.iter().map(|item| (resource, with_kind(item, resource)))),
                        None => objects.push((resource, answer)),
                    }
                }
            }
        }
        match self.output {
            Output::Table | Output::Wide if blocks.is_empty() => {
                let place =
                    if self.all_namespaces { String::new() } else { format!(" in {} namespace", self.scope.namespace) };
                say(&format!("No resources found{place}."));
            }
            Output::Table | Output::Wide => print(&blocks.join("\n")),
            Output::Name => {
                for (resource, object) in objects {
                    print(&format!(
                        "{}/{}\n",
                        resource.qualified(),
                        object["metadata"]["name"].as_str().unwrap_or_default()
                    ));
                }
            }
            Output::Json | Output::Yaml => {
                let single = names.len() == 1 && objects.len() == 1;
                let mut all: Vec<Value> = objects.into_iter().map(|(_, object)| object).collect();
                let document = if single {
                    all.swap_remove(0)
                } else {
                    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": all})
                };
                let text = match self.output {
                    Output::Json => serde_json::to_string_pretty(&document)? + "\n",
                    _ => serde_saphyr::to_string(&document).context("cannot write YAML")?,
                };
                print(&text);
            }
        }
        Ok(())
    }

    fn urls(&self, resource: &Resource, names: &[String]) -> Vec<String> {
        let namespace = (!self.all_namespaces).then_some(self.scope.namespace.as_str());
        let path = resource.path(namespace);
        if !names.is_empty() {
            return names.iter().map(|name| format!("{path}/{}", remote::encode(name))).collect();
        }
        let selectors = [("labelSelector", &self.selector), ("fieldSelector", &self.field_selector)];
        let query: Vec<String> = selectors
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", remote::encode(value.as_ref()?))))
            .collect();
        vec![if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }]
    }

    /// A Table as text: columns as wide as their widest cell, three spaces between.
    fn table(&self, table: &Value, prefix: &str, namespaced: bool) -> String {
        let wide = self.output == Output::Wide;
        let definitions = table["columnDefinitions"].as_array().cloned().unwrap_or_default();
        let shown: Vec<usize> = (0..definitions.len())
            .filter(|index| wide || definitions[*index]["priority"].as_i64().unwrap_or(0) == 0)
            .collect();
        let with_namespace = self.all_namespaces && namespaced;
        let mut lines: Vec<Vec<String>> = Vec::new();
        let mut header: Vec<String> =
            shown.iter().map(|index| definitions[*index]["name"].as_str().unwrap_or_default().to_uppercase()).collect();
        if with_namespace {
            header.insert(0, "NAMESPACE".to_owned());
        }
        lines.push(header);
        for row in table["rows"].as_array().into_iter().flatten() {
            let mut line: Vec<String> = shown
                .iter()
                .map(|index| match &row["cells"][*index] {
                    Value::String(text) if definitions[*index]["format"] == "name" => format!("{prefix}{text}"),
                    Value::String(text) => text.clone(),
                    Value::Null => "<none>".to_owned(),
                    other => other.to_string(),
                })
                .collect();
            if with_namespace {
                line.insert(0, row["object"]["metadata"]["namespace"].as_str().unwrap_or_default().to_owned());
            }
            lines.push(line);
        }
        if lines.len() == 1 {
            return String::new();
        }
        aligned(&lines)
    }
}

/// Lines of cells as text: columns as wide as their widest cell, three spaces between. Every line has as many cells as the first.
pub(crate) fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> =
        (0..columns).map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// Items of a list do not say what they are.
fn with_kind(item: &Value, resource: &Resource) -> Value {
    let api_version = if resource.group.is_empty() {
        resource.version.clone()
    } else {
        format!("{}/{}", resource.group, resource.version)
    };
    let mut object = json!({"apiVersion": api_version, "kind": resource.kind});
    if let (Some(object), Some(item)) = (object.as_object_mut(), item.as_object()) {
        object.extend(item.clone());
    }
    object
}

/// `TYPE/NAME` or `NAME` of a pod.
pub(crate) fn pod_name(text: &str) -> Result<&str> {
    match text.split_once('/') {
        None => Ok(text),
        Some(("pod" | "pods" | "po", name)) => Ok(name),
        Some((kind, _)) => bail!("{kind:?} is not a pod: name a pod, or pod/NAME"),
    }
}
