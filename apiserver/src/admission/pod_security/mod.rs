//! Pod Security Standards: pods that violate what their namespace enforces are refused; of templates and of what it warns by, the
//! client is told.
//!
//! What a namespace asks for is [`policy`], what the standards say is [`checks`] and [`restricted`]. Nobody is exempt, and without
//! labels nothing is enforced, as in kube-apiserver's defaults.
//!
//! Follows `k8s.io/pod-security-admission` (KEP-2579).

mod checks;
mod policy;
mod restricted;
#[cfg(test)]
mod tests;

use super::{Admission, AdmissionOperation, AdmissionRequest};
use crate::status::Status;
use async_trait::async_trait;
use checks::{Pod, Violation, violations};
use policy::{Level, LevelVersion, Policy};
use serde_json::Value;
use std::collections::BTreeMap;
use tracing::info;

/// At most so many pods are looked at when a namespace's policy changes.
const MOST_PODS: usize = 3000;
/// What of a pod can be written without touching what the standards look at.
const HARMLESS_SUBRESOURCES: [&str; 3] = ["binding", "eviction", "status"];
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// The plug-in.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodSecurity;

#[async_trait]
impl Admission for PodSecurity {
    fn handles(&self, request: &AdmissionRequest<'_>) -> bool {
        let subresource = request.subresource;
        request.operation != AdmissionOperation::Delete
            && match (&*request.kind.group, &*request.kind.plural) {
                ("", "pods") => !HARMLESS_SUBRESOURCES.contains(&subresource),
                ("", "namespaces") => subresource.is_empty(),
                _ => subresource.is_empty() && template_of(request).is_some(),
            }
    }

    async fn validate(&self, request: &AdmissionRequest<'_>, object: &Value) -> Result<(), Status> {
        if request.is_about("", "namespaces") {
            return of_namespace(request, object).await;
        }
        let Some(namespace) = request.object(&format!("/registry/namespaces/{}", request.namespace)).await? else {
            return Ok(());
        };
        let (policy, _) = Policy::of(&namespace);
        match template_of(request) {
            None if request.old.is_some_and(|old| !is_significant(object, old)) => Ok(()),
            None => {
                let pod = Pod { metadata: &object["metadata"], spec: &object["spec"] };
                evaluate(request, &policy, pod, Some(policy.enforce))
            }
            Some(pointer) => match object.pointer(pointer) {
                Some(template) => {
                    let pod = Pod { metadata: &template["metadata"], spec: &template["spec"] };
                    evaluate(request, &policy, pod, None)
                }
                None => Ok(()),
            },
        }
    }
}

/// Where kinds that make pods have their template.
fn template_of(request: &AdmissionRequest<'_>) -> Option<&'static str> {
    match (&*request.kind.group, &*request.kind.plural) {
        ("", "podtemplates") => Some("/template"),
        ("", "replicationcontrollers")
        | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => Some("/spec/template"),
        ("batch", "cronjobs") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// `reason (detail), reason (detail)`.
fn in_whole(violations: &[Violation]) -> String {
    violations.iter().map(|each| format!("{} ({})", each.reason, each.detail)).collect::<Vec<_>>().join(", ")
}

fn evaluate(
    request: &AdmissionRequest<'_>,
    policy: &Policy,
    pod: Pod<'_>,
    enforce: Option<LevelVersion>,
) -> Result<(), Status> {
    if let Some(enforce) = enforce {
        let found = violations(enforce, pod);
        if !found.is_empty() {
            let why = format!("violates PodSecurity \"{enforce}\": {}", in_whole(&found));
            return Err(request.forbidden(&why));
        }
    }
    let audit = violations(policy.audit, pod);
    if !audit.is_empty() {
        let checks: Vec<&str> = audit.iter().map(|violation| violation.check).collect();
        let (namespace, kind, name) = (request.namespace, &*request.kind.plural, request.name);
        let (policy, violations) = (policy.audit, in_whole(&audit));
        info!(namespace, kind, name, %policy, ?checks, violations, "audit: would violate PodSecurity");
    }
    let warn = violations(policy.warn, pod);
    if !warn.is_empty() {
        request.warn(format!("would violate PodSecurity \"{}\": {}", policy.warn, in_whole(&warn)));
    }
    Ok(())
}

/// Whether an update of a pod changes something the standards look at.
fn is_significant(new: &Value, old: &Value) -> bool {
    let annotation = |pod: &Value, key: &str| pod["metadata"]["annotations"][key].as_str().map(str::to_owned);
    let changed = |key: &str| annotation(new, key) != annotation(old, key);
    let of = |pod: &Value, field: &str| pod["spec"][field].as_array().cloned().unwrap_or_default();
    let differs = |new: &Value, old: &Value| {
        new["image"] != old["image"]
            || changed(&format!("{SECCOMP_CONTAINER}{}", new["name"].as_str().unwrap_or_default()))
    };
    let significant = |field: &str| {
        let (new, old) = (of(new, field), of(old, field));
        new.len() != old.len() || new.iter().zip(&old).any(|(new, old)| differs(new, old))
    };
    let debuggers = of(old, "ephemeralContainers");
    let is_new = |debugger: &Value| {
        let known = debuggers.iter().find(|known| known["name"] == debugger["name"]);
        known.is_none_or(|known| differs(debugger, known))
    };
    changed(SECCOMP_POD)
        || significant("containers")
        || significant("initContainers")
        || of(new, "ephemeralContainers").iter().any(is_new)
}

/// A namespace's labels must make sense; when it becomes stricter, its pods are looked at.
async fn of_namespace(request: &AdmissionRequest<'_>, namespace: &Value) -> Result<(), Status> {
    let (policy, errors) = Policy::of(namespace);
    let (before, known) = request.old.map_or((None, Vec::new()), |old| {
        let (before, known) = Policy::of(old);
        (Some(before.enforce), known)
    });
    // What was wrong already is not held against an update of something else.
    if !errors.is_empty() && errors != known {
        return Err(Status::invalid("", "Namespace", request.name, &errors));
    }
    let (Some(before), now) = (before, policy.enforce) else { return Ok(()) };
    let relaxed = now.version == before.version && now.level <= before.level;
    if now == before || now.level == Level::Privileged || relaxed {
        return Ok(());
    }
    let mut pods = request.objects(&format!("/registry/pods/{}/", request.name)).await?;
    let all = pods.len();
    pods.truncate(MOST_PODS);
    if pods.len() < all {
        let checked = pods.len();
        request.warn(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {all} existing pods"
        ));
    }
    // By what is wrong: the first pod by name, and how many there are.
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in &pods {
        let violations = violations(now, Pod { metadata: &pod["metadata"], spec: &pod["spec"] });
        if !violations.is_empty() {
            let reasons: Vec<&str> = violations.iter().map(|violation| violation.reason.as_str()).collect();
            let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let (first, count) = found.entry(reasons.join(", ")).or_insert((name.clone(), 0));
            *first = name.min(std::mem::take(first));
            *count += 1;
        }
    }
    if !found.is_empty() {
        let name = request.name;
        request
            .warn(format!("existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{now}\""));
    }
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(reasons, (first, count))| match count {
            1 => format!("{first}: {reasons}"),
            2 => format!("{first} (and 1 other pod): {reasons}"),
            more => format!("{first} (and {} other pods): {reasons}", more - 1),
        })
        .collect();
    lines.sort();
    lines.into_iter().for_each(|line| request.warn(line));
    Ok(())
}
