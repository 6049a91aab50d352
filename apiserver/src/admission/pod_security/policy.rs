//! Which policy a namespace has: a level and a version to enforce, to audit and to warn by, from its labels.
//!
//! Follows `k8s.io/pod-security-admission/api` (KEP-2579). Labels that cannot be read enforce the strictest, and warn of nothing.

use crate::status::FieldError;
use serde_json::Value;
use std::fmt;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much a pod may do, from everything to little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// Of which Kubernetes the checks are: the minor version, or the newest there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Minor(u32),
    Latest,
}

/// A level as one version has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LevelVersion {
    pub(super) level: Level,
    pub(super) version: Version,
}

/// What a namespace asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: LevelVersion,
    pub(super) audit: LevelVersion,
    pub(super) warn: LevelVersion,
}

impl Version {
    /// The minor version by which checks are chosen.
    pub(super) fn minor(self) -> u32 {
        match self {
            Version::Minor(minor) => minor,
            Version::Latest => u32::MAX,
        }
    }

    fn parse(text: &str) -> Option<Version> {
        if text == "latest" {
            return Some(Version::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor.bytes().all(|digit| digit.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
        minor.parse().ok().filter(|_| plain).map(Version::Minor)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })
    }
}

impl Level {
    fn parse(text: &str) -> Option<Level> {
        [Level::Privileged, Level::Baseline, Level::Restricted].into_iter().find(|level| level.to_string() == text)
    }
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Version::Latest => write!(f, "{}:latest", self.level),
            Version::Minor(minor) => write!(f, "{}:v1.{minor}", self.level),
        }
    }
}

impl LevelVersion {
    const PRIVILEGED: LevelVersion = LevelVersion { level: Level::Privileged, version: Version::Latest };
}

/// One mode's labels: what they say, and whether there are any.
struct Mode {
    said: LevelVersion,
    has_level: bool,
    has_version: bool,
}

fn mode(labels: &Value, name: &str, unreadable: Level, errors: &mut Vec<FieldError>) -> Mode {
    let mut said = LevelVersion::PRIVILEGED;
    let mut note = |label: &str, value: &str, detail: &str| {
        errors.push(FieldError::invalid(format!("metadata.labels[{label}]"), &value.into(), detail));
    };
    let (level, version) = (format!("{PREFIX}{name}"), format!("{PREFIX}{name}-version"));
    let mut has_level = false;
    if let Some(text) = labels[&level].as_str() {
        has_level = true;
        said.level = Level::parse(text).unwrap_or_else(|| {
            note(&level, text, "must be one of privileged, baseline, restricted");
            unreadable
        });
    }
    let mut has_version = false;
    if let Some(text) = labels[&version].as_str() {
        has_version = true;
        said.version = Version::parse(text).unwrap_or_else(|| {
            note(&version, text, "must be \"latest\" or \"v1.x\"");
            Version::Latest
        });
    }
    Mode { said, has_level, has_version }
}

impl Policy {
    /// The policy of a namespace, and what is wrong with its labels.
    pub(super) fn of(namespace: &Value) -> (Policy, Vec<FieldError>) {
        let (labels, mut errors) = (&namespace["metadata"]["labels"], Vec::new());
        let enforce = mode(labels, "enforce", Level::Restricted, &mut errors);
        let readable = errors.is_empty();
        let audit = mode(labels, "audit", Level::Privileged, &mut errors);
        let warn = mode(labels, "warn", Level::Privileged, &mut errors);
        let mut policy = Policy { enforce: enforce.said, audit: audit.said, warn: warn.said };
        // Whoever enforces wants to be told of templates whose pods will be refused.
        if enforce.has_level && readable && !warn.has_level {
            policy.warn.level = policy.enforce.level;
            if !warn.has_version {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(labels: Value) -> String {
        let (policy, errors) = Policy::of(&json!({"metadata": {"labels": labels}}));
        let mut lines = vec![format!("{} {} {}", policy.enforce, policy.audit, policy.warn)];
        lines.extend(errors.iter().map(|error| format!("{}: {}", error.field, error.message)));
        lines.join("\n")
    }

    #[test]
    fn a_namespace_without_labels_is_privileged_and_enforcing_warns_too() {
        let p = "pod-security.kubernetes.io";
        assert_eq!(said(json!({})), "privileged:latest privileged:latest privileged:latest");
        assert_eq!(
            said(json!({format!("{p}/enforce"): "baseline", format!("{p}/enforce-version"): "v1.24"})),
            "baseline:v1.24 privileged:latest baseline:v1.24"
        );
        assert_eq!(
            said(
                json!({format!("{p}/enforce"): "restricted", format!("{p}/warn"): "baseline", format!("{p}/audit"): "baseline"})
            ),
            "restricted:latest baseline:latest baseline:latest"
        );
    }

    #[test]
    fn labels_that_cannot_be_read_enforce_the_strictest_and_warn_of_nothing() {
        let p = "pod-security.kubernetes.io";
        assert_eq!(
            said(
                json!({format!("{p}/enforce"): "Baseline", format!("{p}/warn"): "all", format!("{p}/audit-version"): "v1.024"})
            ),
            "restricted:latest privileged:latest privileged:latest\n\
             metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"Baseline\": must be one of privileged, baseline, restricted\n\
             metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"v1.024\": must be \"latest\" or \"v1.x\"\n\
             metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \"all\": must be one of privileged, baseline, restricted"
        );
        for (text, version) in [("v1.0", Some(0)), ("v1.36", Some(36)), ("v2.0", None), ("1.20", None), ("v1.+3", None)]
        {
            assert_eq!(Version::parse(text).map(Version::minor), version, "{text}");
        }
    }
}
