//! A FlowSchema, compiled: which requests it is about, and which flow each of them belongs to.

use crate::authn::UserInfo;
use crate::request::RequestInfo;
use serde_json::Value;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A compiled FlowSchema.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(super) name: String,
    /// The name of its PriorityLevelConfiguration.
    pub(super) level: String,
    precedence: i64,
    distinguisher: Distinguisher,
    rules: Vec<PolicyRules>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    /// All requests are one flow.
    None,
    User,
    Namespace,
}

#[derive(Debug)]
struct PolicyRules {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Debug)]
enum Subject {
    User(String),
    Group(String),
    /// `system:serviceaccount:<namespace>:`, and the name or `*`.
    ServiceAccount(String, String),
}

#[derive(Debug)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

#[derive(Debug)]
struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Subject {
    fn new(subject: &Value) -> Option<Subject> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Some(match subject["kind"].as_str()? {
            "User" => Subject::User(text(&subject["user"]["name"])),
            "Group" => Subject::Group(text(&subject["group"]["name"])),
            "ServiceAccount" => {
                let account = &subject["serviceAccount"];
                let namespace = text(&account["namespace"]);
                Subject::ServiceAccount(format!("system:serviceaccount:{namespace}:"), text(&account["name"]))
            }
            _ => return None,
        })
    }

    fn matches(&self, user: &UserInfo) -> bool {
        match self {
            Subject::User(name) => name == "*" || *name == user.name,
            Subject::Group(name) => name == "*" || user.groups.contains(name),
            Subject::ServiceAccount(prefix, name) => {
                user.name.strip_prefix(prefix.as_str()).is_some_and(|account| name == "*" || name == account)
            }
        }
    }
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let resource = |item: &String| match item.split_once('/') {
            Some((resource, subresource)) => resource == info.resource && subresource == info.subresource,
            None => item == "*" || (info.subresource.is_empty() && *item == info.resource),
        };
        let in_scope =
            if info.namespace.is_empty() { self.cluster_scope } else { has(&self.namespaces, &info.namespace) };
        in_scope
            && has(&self.verbs, &info.verb)
            && has(&self.groups, &info.group)
            && self.resources.iter().any(resource)
    }
}

impl PathRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let path = |item: &String| match item.strip_suffix('*') {
            Some(prefix) => info.path.starts_with(prefix),
            None => *item == info.path,
        };
        has(&self.verbs, &info.verb) && self.paths.iter().any(path)
    }
}

impl Schema {
    pub(super) fn new(object: &Value) -> Schema {
        let (spec, text) = (&object["spec"], |value: &Value| value.as_str().unwrap_or_default().to_owned());
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let rules = list(&spec["rules"]);
        let rules = rules.iter().map(|rules| PolicyRules {
            subjects: list(&rules["subjects"]).iter().filter_map(Subject::new).collect(),
            resources: list(&rules["resourceRules"])
                .iter()
                .map(|rule| ResourceRule {
                    verbs: strings(&rule["verbs"]),
                    groups: strings(&rule["apiGroups"]),
                    resources: strings(&rule["resources"]),
                    namespaces: strings(&rule["namespaces"]),
                    cluster_scope: rule["clusterScope"] == true,
                })
                .collect(),
            paths: list(&rules["nonResourceRules"])
                .iter()
                .map(|rule| PathRule { verbs: strings(&rule["verbs"]), paths: strings(&rule["nonResourceURLs"]) })
                .collect(),
        });
        Schema {
            name: text(&object["metadata"]["name"]),
            level: text(&spec["priorityLevelConfiguration"]["name"]),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1000),
            distinguisher: match spec["distinguisherMethod"]["type"].as_str() {
                Some("ByUser") => Distinguisher::User,
                Some("ByNamespace") => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            rules: rules.collect(),
        }
    }

    /// The lower comes first; of the same precedence, the lesser name.
    pub(super) fn order(&self) -> (i64, &str) {
        (self.precedence, &self.name)
    }

    pub(super) fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rules| {
            rules.subjects.iter().any(|subject| subject.matches(user))
                && if info.is_resource {
                    rules.resources.iter().any(|rule| rule.matches(info))
                } else {
                    rules.paths.iter().any(|rule| rule.matches(info))
                }
        })
    }

    /// A number for the flow that a request belongs to.
    pub(super) fn flow(&self, user: &UserInfo, info: &RequestInfo) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        match self.distinguisher {
            Distinguisher::None => {}
            Distinguisher::User => user.name.hash(&mut hasher),
            Distinguisher::Namespace => info.namespace.hash(&mut hasher),
        }
        hasher.finish()
    }
}
