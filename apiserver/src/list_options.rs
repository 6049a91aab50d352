//! The query of a list or watch: `metav1.ListOptions`, its rules, and the continue token.
//!
//! Follows `ValidateListOptions` in `k8s.io/apimachinery` and `k8s.io/apiserver/pkg/storage/continue.go`.

use crate::registry::ResourceKind;
use crate::request::Query;
use crate::selector::Selector;
use crate::status::{FieldError, Status};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::time::Duration;
use store::Revision;

/// The version of continue tokens.
const VERSION: &str = "meta.k8s.io/v1";

/// What a list or watch asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    pub(crate) selector: Selector,
    /// 0: no limit.
    pub(crate) limit: usize,
    pub(crate) continue_from: Option<Continue>,
    /// `None`: unset; `Some(0)`: any.
    pub(crate) resource_version: Option<u64>,
    pub(crate) exact: bool,
    pub(crate) allow_bookmarks: bool,
    pub(crate) send_initial_events: Option<bool>,
    pub(crate) timeout: Option<Duration>,
}

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Continue {
    /// `None`: on the newest snapshot, although the first page was taken from another.
    pub(crate) revision: Option<Revision>,
    /// The last key of the page before, below the prefix of the list.
    pub(crate) after: String,
}

impl ListOptions {
    /// Reads and checks the query.
    pub(crate) fn new(kind: &ResourceKind, query: &Query, watch: bool) -> Result<Self, Status> {
        let number = |name: &str| -> Result<Option<u64>, Status> {
            let parsed = query.text(name).map(whole_number).transpose()?;
            Ok(parsed.map(|number| number.max(0).unsigned_abs()))
        };
        let resource_version = match query.text("resourceVersion") {
            None => None,
            Some(text) => Some(read_version(kind, "", text)?),
        };
        let selector = Selector::new(
            kind,
            query.text("labelSelector").unwrap_or_default(),
            query.text("fieldSelector").unwrap_or_default(),
        )?;
        let continue_from = query.text("continue").filter(|_| !watch).map(Continue::decode).transpose()?;
        let matching = query.text("resourceVersionMatch");
        let send_initial_events = query.optional_flag("sendInitialEvents");
        let errors = mistakes(watch, matching, resource_version, continue_from.is_some(), send_initial_events);
        if !errors.is_empty() {
            return Err(options_invalid(&errors));
        }
        if continue_from.is_some() && resource_version.is_some_and(|version| version != 0) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let limit = usize::try_from(number("limit")?.unwrap_or_default()).unwrap_or(usize::MAX);
        // With a limit, a version without a rule means exactly this one; that is how the first pages of old clients read.
        let legacy = matching.is_none() && limit > 0 && resource_version.is_some_and(|version| version > 0);
        Ok(ListOptions {
            selector,
            limit,
            continue_from,
            resource_version,
            exact: matching == Some("Exact") || legacy,
            allow_bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events,
            timeout: number("timeoutSeconds")?.filter(|seconds| *seconds > 0).map(Duration::from_secs),
        })
    }
}

/// A number in a query.
pub(crate) fn whole_number(text: &str) -> Result<i64, Status> {
    // As upstream says it, which users search for.
    text.parse().map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
}

/// A resourceVersion in a query.
pub(crate) fn read_version(kind: &ResourceKind, name: &str, text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_| {
        // As upstream says it, which users search for.
        let detail = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        let error = FieldError::invalid("resourceVersion", &text.into(), detail);
        Status::invalid(&kind.group, &kind.plural, name, &[error])
    })
}

fn options_invalid(errors: &[FieldError]) -> Status {
    Status::invalid("meta.k8s.io", "ListOptions", "", errors)
}

fn mistakes(
    watch: bool,
    matching: Option<&str>,
    version: Option<u64>,
    continued: bool,
    initial: Option<bool>,
) -> Vec<FieldError> {
    let field = "resourceVersionMatch";
    let mut errors = Vec::new();
    if watch {
        match (initial, matching) {
            (Some(_), Some("NotOlderThan")) | (None, None) => {}
            (Some(_), None) => {
                errors.push(FieldError::forbidden(
                    field,
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
            (Some(_), Some(other)) => errors.push(FieldError::not_supported(field, &other.into(), &["NotOlderThan"])),
            (None, Some(_)) => {
                errors.push(FieldError::forbidden(
                    field,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
        }
        return errors;
    }
    if initial.is_some() {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    let Some(matching) = matching else { return errors };
    if version.is_none() {
        errors
            .push(FieldError::forbidden(field, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
    }
    if continued {
        errors.push(FieldError::forbidden(field, "resourceVersionMatch is forbidden when continue is provided"));
    }
    if !matches!(matching, "Exact" | "NotOlderThan") {
        errors.push(FieldError::not_supported(field, &matching.into(), &["Exact", "NotOlderThan"]));
    }
    if matching == "Exact" && version == Some(0) {
        errors.push(FieldError::forbidden(
            field,
            "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
        ));
    }
    errors
}

impl Continue {
    pub(crate) fn encode(&self) -> String {
        let revision = self.revision.map_or(json!(-1), |revision| json!(revision.0));
        URL_SAFE_NO_PAD.encode(json!({"v": VERSION, "rv": revision, "start": self.after}).to_string())
    }

    /// # Errors
    /// 400 for what no server has given, in upstream's words: another alphabet, no JSON, another version, a start that leads out
    /// of the collection.
    fn decode(token: &str) -> Result<Self, Status> {
        let invalid =
            |why: String| Status::bad_request(format!("invalid continue token: continue key is not valid{why}"));
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|why| invalid(format!(": {why}")))?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|why| invalid(format!(": {why}")))?;
        if token["v"] != VERSION {
            return Err(invalid(": server does not recognize this encoded version".to_owned()));
        }
        // Every negative version stands for the newest snapshot.
        let revision = match token["rv"].as_i64() {
            Some(revision) if revision < 0 => None,
            Some(revision) if revision > 0 => Some(Revision(revision.unsigned_abs())),
            _ => return Err(invalid(format!(": incorrect encoded start resourceVersion (version {VERSION})"))),
        };
        let start = token["start"].as_str().unwrap_or_default();
        if start.is_empty() {
            return Err(invalid(format!(": encoded start key empty (version {VERSION})")));
        }
        let after = start.strip_prefix('/').unwrap_or(start);
        if !after.is_empty() && after.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(invalid(format!(": {start}")));
        }
        Ok(Continue { revision, after: after.to_owned() })
    }
}

#[cfg(test)]
mod laws;

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str, watch: bool) -> Result<ListOptions, Status> {
        let kind = ResourceKind::new("", "v1", "ConfigMap", "configmaps");
        ListOptions::new(&kind, &Query::new(&format!("/?{query}").parse().expect("a URI")), watch)
    }

    #[test]
    fn combinations_that_mean_nothing_are_refused() {
        for (query, watch, code) in [
            ("limit=x", false, 400),
            ("resourceVersion=x", false, 422),
            ("resourceVersionMatch=Exact", false, 422),
            ("resourceVersionMatch=Exact&resourceVersion=0", false, 422),
            ("resourceVersionMatch=Newest&resourceVersion=1", false, 422),
            ("sendInitialEvents=true", false, 422),
            ("sendInitialEvents=true", true, 422),
            ("sendInitialEvents=true&resourceVersionMatch=Exact", true, 422),
            ("resourceVersionMatch=NotOlderThan", true, 422),
            ("continue=x", false, 400),
            ("continue=e30", false, 400),
        ] {
            assert_eq!(options(query, watch).expect_err(query).code, code, "{query}");
        }
    }

    #[test]
    fn a_continue_token_comes_back_as_it_was_given() {
        for revision in [Some(Revision(7)), None] {
            let token = Continue { revision, after: "default/a".to_owned() };
            let read = options(&format!("continue={}", token.encode()), false).expect("a token");
            assert_eq!(read.continue_from, Some(token));
        }
    }

    #[test]
    fn a_version_with_a_limit_but_no_rule_is_exact() {
        assert!(options("resourceVersion=5&limit=3", false).expect("options").exact);
        assert!(!options("resourceVersion=0&limit=3", false).expect("options").exact);
        assert!(!options("resourceVersion=5", false).expect("options").exact);
    }
}
