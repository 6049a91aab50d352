//! The checks that only the level `restricted` makes: what a hardened pod has to say of itself.

use super::checks::{
    Pod, Setters, Violation, beyond, containers_text, loose_seccomp, name, plural, quoted, unmasked_proc,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// From here on pods for Windows need not say what means nothing there.
const KNOWS_WINDOWS: u32 = 25;
/// From here on root in a user namespace of its own counts as nobody.
const KNOWS_USER_NAMESPACES: u32 = 35;

pub(super) fn privilege_escalation(pod: Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= KNOWS_WINDOWS && pod.is_windows() {
        return None;
    }
    let bad = pod.named(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    (!bad.is_empty()).then_some(())?;
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers_text(&bad));
    Violation::new("allowPrivilegeEscalation != false", detail)
}

pub(super) fn capabilities(pod: Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= KNOWS_WINDOWS && pod.is_windows() {
        return None;
    }
    fn of(container: &Value) -> &Value {
        &container["securityContext"]["capabilities"]
    }
    fn added(container: &Value) -> Vec<&str> {
        beyond(&of(container)["add"], &["NET_BIND_SERVICE"])
    }
    let keeping = pod.named(|container| {
        !of(container)["drop"].as_array().is_some_and(|dropped| dropped.iter().any(|capability| capability == "ALL"))
    });
    let adding = pod.named(|container| !added(container).is_empty());
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!(r#"{} must set securityContext.capabilities.drop=["ALL"]"#, containers_text(&keeping)));
    }
    if !adding.is_empty() {
        let values: BTreeSet<&str> = pod.containers().flat_map(added).collect();
        let (who, values) = (containers_text(&adding), quoted(values));
        details.push(format!("{who} must not include {values} in securityContext.capabilities.add"));
    }
    if details.is_empty() { None } else { Violation::new("unrestricted capabilities", details.join("; ")) }
}

pub(super) fn proc_mount(pod: Pod<'_>, _: u32) -> Option<Violation> {
    unmasked_proc(pod)
}

pub(super) fn volumes(pod: Pod<'_>, _: u32) -> Option<Violation> {
    const ALLOWED: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let (mut names, mut kinds) = (Vec::new(), BTreeSet::new());
    for volume in pod.spec["volumes"].as_array().into_iter().flatten() {
        let sources = volume.as_object().into_iter().flatten();
        let mut sources =
            sources.filter(|(key, value)| *key != "name" && !value.is_null()).map(|(key, _)| key.as_str());
        let source = sources.next().unwrap_or("unknown");
        if !ALLOWED.contains(&source) {
            names.push(name(volume));
            kinds.insert(source);
        }
    }
    (!names.is_empty()).then_some(())?;
    let (volumes, uses) = (plural("volume", "volumes", names.len()), plural("uses", "use", names.len()));
    let types = plural("restricted volume type", "restricted volume types", kinds.len());
    Violation::new("restricted volume types", format!("{volumes} {} {uses} {types} {}", quoted(names), quoted(kinds)))
}

pub(super) fn run_as_non_root(pod: Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= KNOWS_USER_NAMESPACES && pod.in_user_namespace() {
        return None;
    }
    const REASON: &str = "runAsNonRoot != true";
    let saying_no = Setters::find(pod, |context| (context["runAsNonRoot"] == false).then_some(""));
    if let Some(who) = saying_no.who {
        return Violation::new(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    if pod.spec["securityContext"]["runAsNonRoot"] == true {
        return None;
    }
    let silent = pod.named(|container| container["securityContext"]["runAsNonRoot"].is_null());
    (!silent.is_empty()).then_some(())?;
    Violation::new(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers_text(&silent)))
}

pub(super) fn run_as_user(pod: Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= KNOWS_USER_NAMESPACES && pod.in_user_namespace() {
        return None;
    }
    let root = Setters::find(pod, |context| (context["runAsUser"] == 0).then_some(""));
    Violation::new("runAsUser=0", format!("{} must not set runAsUser=0", root.who?))
}

pub(super) fn seccomp(pod: Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= KNOWS_WINDOWS && pod.is_windows() {
        return None;
    }
    const REASON: &str = "seccompProfile";
    let loose = Setters::find(pod, loose_seccomp);
    if let Some(who) = loose.who {
        let values = quoted(loose.values);
        return Violation::new(REASON, format!("{who} must not set securityContext.seccompProfile.type to {values}"));
    }
    if !pod.spec["securityContext"]["seccompProfile"].is_null() {
        return None;
    }
    let silent = pod.named(|container| container["securityContext"]["seccompProfile"].is_null());
    (!silent.is_empty()).then_some(())?;
    let who = containers_text(&silent);
    let detail =
        format!(r#"pod or {who} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#);
    Violation::new(REASON, detail)
}
