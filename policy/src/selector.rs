//! Label selectors, compiled, and what a set of labels lacks.

use crate::endpoint::Identity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

/// The labels of a pod or a namespace.
pub(crate) type Labels = BTreeMap<String, String>;

/// All requirements must hold; none selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Requirement {
    Equals(String, String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    DoesNotExist(String),
    /// An operator that the API does not have: nothing meets it.
    Unknown(String),
}

impl Selector {
    pub(crate) fn compile(selector: &LabelSelector) -> Selector {
        let labels = selector.match_labels.iter().flatten();
        let mut requirements: Vec<Requirement> =
            labels.map(|(key, value)| Requirement::Equals(key.clone(), value.clone())).collect();
        for expression in selector.match_expressions.iter().flatten() {
            let key = expression.key.clone();
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(match expression.operator.as_str() {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::DoesNotExist(key),
                other => Requirement::Unknown(other.to_owned()),
            });
        }
        Selector(requirements)
    }

    /// Whether it selects what has these labels.
    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.is_met(labels))
    }

    /// The first requirement that the labels of `what` (`pod`, `namespace`) called `name` do not meet.
    pub(crate) fn mismatch(&self, labels: &Labels, what: &str, name: &str) -> Option<String> {
        let unmet = self.0.iter().find(|requirement| !requirement.is_met(labels))?;
        let actual = |key: &String| labels.get(key).map(String::as_str);
        Some(match unmet {
            Requirement::Equals(key, value) => match actual(key) {
                None => format!("{what} label `{key}={value}` is missing on `{name}`"),
                Some(actual) => format!("{what} label `{key}` of `{name}` is `{actual}`, not `{value}`"),
            },
            Requirement::In(key, values) => match actual(key) {
                None => format!("{what} label `{key}` in [{}] is missing on `{name}`", values.join(", ")),
                Some(actual) => {
                    format!("{what} label `{key}` of `{name}` is `{actual}`, not in [{}]", values.join(", "))
                }
            },
            Requirement::NotIn(key, values) => format!(
                "{what} label `{key}` of `{name}` is `{}`, which is in [{}]",
                actual(key).unwrap_or_default(),
                values.join(", ")
            ),
            Requirement::Exists(key) => format!("{what} label `{key}` is missing on `{name}`"),
            Requirement::DoesNotExist(key) => format!("{what} label `{key}` is set on `{name}`"),
            Requirement::Unknown(operator) => format!("selector operator `{operator}` is unknown"),
        })
    }
}

/// Pods, by their own labels and those of their namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    /// `None`: the policy's own namespace.
    pub(crate) namespaces: Option<Selector>,
    pub(crate) pods: Selector,
}

impl Scope {
    /// Whether it selects this pod, in a policy of namespace `own`.
    pub(crate) fn selects(&self, identity: &Identity, own: &str) -> bool {
        let in_namespace = match &self.namespaces {
            None => identity.namespace == own,
            Some(selector) => selector.matches(&identity.namespace_labels),
        };
        in_namespace && self.pods.matches(&identity.labels)
    }
}

impl Requirement {
    fn is_met(&self, labels: &Labels) -> bool {
        match self {
            Requirement::Equals(key, value) => labels.get(key) == Some(value),
            Requirement::In(key, values) => labels.get(key).is_some_and(|actual| values.contains(actual)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|actual| !values.contains(actual)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::DoesNotExist(key) => !labels.contains_key(key),
            Requirement::Unknown(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Selector {
        let requirement = LabelSelectorRequirement {
            key: key.into(),
            operator: operator.into(),
            values: Some(values.iter().map(|value| value.to_string()).collect()),
        };
        Selector::compile(&LabelSelector { match_expressions: Some(vec![requirement]), ..LabelSelector::default() })
    }

    #[test]
    fn an_empty_selector_selects_everything() {
        assert!(Selector::compile(&LabelSelector::default()).matches(&labels(&[])));
    }

    #[test]
    fn the_operators_mean_what_the_api_says() {
        let web = labels(&[("app", "web")]);
        let bare = labels(&[]);
        //      selector                                  app=web  no labels
        let cases = [
            (expression("app", "In", &["web", "api"]), true, false),
            (expression("app", "In", &["api"]), false, false),
            (expression("app", "NotIn", &["web"]), false, true),
            (expression("app", "NotIn", &["api"]), true, true),
            (expression("app", "Exists", &[]), true, false),
            (expression("app", "DoesNotExist", &[]), false, true),
            (expression("app", "Near", &["web"]), false, false),
        ];
        for (selector, with, without) in cases {
            assert_eq!((selector.matches(&web), selector.matches(&bare)), (with, without), "{selector:?}");
            assert_eq!(selector.mismatch(&web, "pod", "x").is_none(), with, "{selector:?}");
        }
    }
}
