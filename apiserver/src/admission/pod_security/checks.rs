//! The Pod Security Standards, check by check: what a pod must not say at a level, since which version.
//!
//! The checks of the level `restricted` stand in [`super::restricted`]. Identifiers, versions and words are those of
//! `k8s.io/pod-security-admission/policy`, since users search for them.

use super::policy::{Level, LevelVersion};
use super::restricted;
use serde_json::Value;
use std::collections::BTreeSet;

/// A pod, or what a template would make.
#[derive(Clone, Copy)]
pub(super) struct Pod<'a> {
    pub(super) metadata: &'a Value,
    pub(super) spec: &'a Value,
}

/// What is wrong: in short, and in whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// Identifier of the check.
    pub(super) check: &'static str,
    pub(super) reason: String,
    pub(super) detail: String,
}

/// One of the standards' checks.
pub(super) struct Check {
    /// As upstream calls it.
    pub(super) id: &'static str,
    pub(super) level: Level,
    /// The first minor version that has it.
    pub(super) since: u32,
    /// From this version on a check of the level above says the same more strictly, and stands for it there.
    replaced_since: Option<u32>,
    /// Looks at a pod by the rules of a minor version.
    pub(super) find: fn(Pod<'_>, u32) -> Option<Violation>,
}

const fn baseline(id: &'static str, since: u32, find: fn(Pod<'_>, u32) -> Option<Violation>) -> Check {
    Check { id, level: Level::Baseline, since, replaced_since: None, find }
}

const fn restricted(id: &'static str, since: u32, find: fn(Pod<'_>, u32) -> Option<Violation>) -> Check {
    Check { id, level: Level::Restricted, since, replaced_since: None, find }
}

/// Every check, in the order in which violations are told.
pub(super) const CHECKS: [Check; 19] = [
    baseline("appArmorProfile", 0, app_armor),
    Check { replaced_since: Some(22), ..baseline("capabilities_baseline", 0, capabilities) },
    baseline("hostNamespaces", 0, host_namespaces),
    Check { replaced_since: Some(0), ..baseline("hostPathVolumes", 0, host_path) },
    baseline("hostPorts", 0, host_ports),
    baseline("hostProbesAndHostLifecycle", 34, host_probes),
    baseline("privileged", 0, privileged),
    Check { replaced_since: Some(35), ..baseline("procMount_baseline", 0, proc_mount) },
    baseline("seLinuxOptions", 0, selinux),
    Check { replaced_since: Some(19), ..baseline("seccompProfile_baseline", 0, seccomp) },
    baseline("sysctls", 0, sysctls),
    baseline("windowsHostProcess", 0, windows_host_process),
    restricted("allowPrivilegeEscalation", 8, restricted::privilege_escalation),
    restricted("capabilities_restricted", 22, restricted::capabilities),
    restricted("procMount_restricted", 35, restricted::proc_mount),
    restricted("restrictedVolumes", 0, restricted::volumes),
    restricted("runAsNonRoot", 0, restricted::run_as_non_root),
    restricted("runAsUser", 23, restricted::run_as_user),
    restricted("seccompProfile_restricted", 19, restricted::seccomp),
];

/// In what a pod violates a level.
pub(super) fn violations(policy: LevelVersion, pod: Pod<'_>) -> Vec<Violation> {
    let (level, minor) = (policy.level, policy.version.minor());
    let applies = |check: &&Check| {
        let replaced = level > check.level && check.replaced_since.is_some_and(|since| minor >= since);
        check.level <= level && check.since <= minor && !replaced
    };
    let found = |check: &Check| Some(Violation { check: check.id, ..(check.find)(pod, minor)? });
    CHECKS.iter().filter(applies).filter_map(found).collect()
}

impl Violation {
    /// What a check has found.
    pub(super) fn new(reason: impl Into<String>, detail: impl Into<String>) -> Option<Self> {
        Some(Violation { check: "", reason: reason.into(), detail: detail.into() })
    }
}

impl<'a> Pod<'a> {
    /// Every container, those for debugging included.
    pub(super) fn containers(self) -> impl Iterator<Item = &'a Value> {
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |field| self.spec[field].as_array().into_iter().flatten())
    }

    /// Names of the containers for which something holds.
    pub(super) fn named(self, holds: impl Fn(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| holds(container)).map(name).collect()
    }

    /// Whether it runs in a user namespace, where root is nobody on the node (KEP-127).
    pub(super) fn in_user_namespace(self) -> bool {
        self.spec["hostUsers"] == false
    }

    pub(super) fn is_windows(self) -> bool {
        self.spec["os"]["name"] == "windows"
    }
}

pub(super) fn name(container: &Value) -> &str {
    container["name"].as_str().unwrap_or_default()
}

pub(super) fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`.
pub(super) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

/// `container "a"`, or `containers "a", "b"`.
pub(super) fn containers_text(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names.iter().copied()))
}

/// Who sets something in a security context that is not allowed, and what.
pub(super) struct Setters<'a> {
    /// `pod and container "a"`; `None` if nobody does.
    pub(super) who: Option<String>,
    pub(super) values: BTreeSet<&'a str>,
}

impl<'a> Setters<'a> {
    /// Asks the pod's security context, then each container's; `bad` gives what is wrong there.
    pub(super) fn find(pod: Pod<'a>, bad: impl Fn(&'a Value) -> Option<&'a str>) -> Self {
        let of_pod = bad(&pod.spec["securityContext"]);
        let (mut values, mut names) = (BTreeSet::from_iter(of_pod), Vec::new());
        for container in pod.containers() {
            if let Some(value) = bad(&container["securityContext"]) {
                names.push(name(container));
                values.insert(value);
            }
        }
        let mut who: Vec<String> = of_pod.map(|_| "pod".to_owned()).into_iter().collect();
        if !names.is_empty() {
            who.push(containers_text(&names));
        }
        Setters { who: (!who.is_empty()).then(|| who.join(" and ")), values }
    }
}

/// The texts of a list that are not among `allowed`.
pub(super) fn beyond<'a>(list: &'a Value, allowed: &[&str]) -> Vec<&'a str> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.filter(|text| !allowed.contains(text)).collect()
}

fn app_armor(pod: Pod<'_>, _: u32) -> Option<Violation> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let setters = Setters::find(pod, |context| {
        let kind = context["appArmorProfile"]["type"].as_str();
        kind.filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"))
    });
    let mut values: Vec<String> = setters.values.iter().map(|value| (*value).to_owned()).collect();
    let mut who: Vec<String> = setters.who.into_iter().collect();
    let annotations = pod.metadata["annotations"].as_object().into_iter().flatten();
    let mut annotated: Vec<String> = annotations
        .filter(|(key, _)| key.starts_with(ANNOTATION))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| !value.is_empty() && *value != "runtime/default" && !value.starts_with("localhost/"))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if !annotated.is_empty() {
        who.push(plural("annotation", "annotations", annotated.len()).to_owned());
        annotated.sort();
        values.extend(annotated);
    }
    if who.is_empty() {
        return None;
    }
    let values_text = quoted(values.iter().map(String::as_str));
    Violation::new(
        plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len()),
        format!("{} must not set AppArmor profile type to {values_text}", who.join(" and ")),
    )
}

fn capabilities(pod: Pod<'_>, _: u32) -> Option<Violation> {
    const ALLOWED: [&str; 13] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    fn added(container: &Value) -> Vec<&str> {
        beyond(&container["securityContext"]["capabilities"]["add"], &ALLOWED)
    }
    let bad = pod.named(|container| !added(container).is_empty());
    let values: BTreeSet<&str> = pod.containers().flat_map(added).collect();
    (!bad.is_empty()).then_some(())?;
    let values = quoted(values);
    Violation::new(
        "non-default capabilities",
        format!("{} must not include {values} in securityContext.capabilities.add", containers_text(&bad)),
    )
}

fn host_namespaces(pod: Pod<'_>, _: u32) -> Option<Violation> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| pod.spec[**field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    if shared.is_empty() { None } else { Violation::new("host namespaces", shared.join(", ")) }
}

fn host_path(pod: Pod<'_>, _: u32) -> Option<Violation> {
    let volumes = pod.spec["volumes"].as_array().into_iter().flatten();
    let bad: Vec<&str> = volumes.filter(|volume| !volume["hostPath"].is_null()).map(name).collect();
    (!bad.is_empty()).then_some(())?;
    let word = plural("volume", "volumes", bad.len());
    Violation::new("hostPath volumes", format!("{word} {}", quoted(bad)))
}

fn host_ports(pod: Pod<'_>, _: u32) -> Option<Violation> {
    let ports = |container: &Value| -> Vec<String> {
        let ports = container["ports"].as_array().into_iter().flatten();
        let ports = ports.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0);
        ports.map(|port| port.to_string()).collect()
    };
    let bad = pod.named(|container| !ports(container).is_empty());
    let values: BTreeSet<String> = pod.containers().flat_map(ports).collect();
    (!bad.is_empty()).then_some(())?;
    let (uses, word) = (plural("uses", "use", bad.len()), plural("hostPort", "hostPorts", values.len()));
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    Violation::new("hostPort", format!("{} {uses} {word} {}", containers_text(&bad), values.join(", ")))
}

fn host_probes(pod: Pod<'_>, _: u32) -> Option<Violation> {
    const HANDLERS: [&str; 5] =
        ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    let hosts = |container: &Value| -> Vec<String> {
        let handlers = HANDLERS.iter().filter_map(|pointer| container.pointer(pointer));
        let hosts =
            handlers.flat_map(|handler| ["httpGet", "tcpSocket"].map(|action| handler[action]["host"].as_str()));
        hosts.flatten().filter(|host| !host.is_empty()).map(str::to_owned).collect()
    };
    let bad: BTreeSet<&str> = pod.named(|container| !hosts(container).is_empty()).into_iter().collect();
    let values: BTreeSet<String> = pod.containers().flat_map(hosts).collect();
    (!bad.is_empty()).then_some(())?;
    let bad: Vec<&str> = bad.into_iter().collect();
    let uses = plural("uses", "use", bad.len());
    let word = plural("probe or lifecycle host", "probe or lifecycle hosts", values.len());
    let values = quoted(values.iter().map(String::as_str));
    Violation::new("probe or lifecycle host", format!("{} {uses} {word} {values}", containers_text(&bad)))
}

fn privileged(pod: Pod<'_>, _: u32) -> Option<Violation> {
    let bad = pod.named(|container| container["securityContext"]["privileged"] == true);
    (!bad.is_empty()).then_some(())?;
    Violation::new("privileged", format!("{} must not set securityContext.privileged=true", containers_text(&bad)))
}

fn proc_mount(pod: Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= 35 && pod.in_user_namespace() { None } else { unmasked_proc(pod) }
}

/// Containers which see more of `/proc` than is usual.
pub(super) fn unmasked_proc(pod: Pod<'_>) -> Option<Violation> {
    fn kind(container: &Value) -> Option<&str> {
        container["securityContext"]["procMount"].as_str().filter(|kind| *kind != "Default")
    }
    let bad = pod.named(|container| kind(container).is_some());
    let values: BTreeSet<&str> = pod.containers().filter_map(kind).collect();
    (!bad.is_empty()).then_some(())?;
    let who = containers_text(&bad);
    Violation::new("procMount", format!("{who} must not set securityContext.procMount to {}", quoted(values)))
}

fn selinux(pod: Pod<'_>, minor: u32) -> Option<Violation> {
    const TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
    let types = if minor >= 31 { &TYPES[..] } else { &TYPES[..4] };
    fn of<'a>(context: &'a Value, field: &str) -> &'a str {
        context["seLinuxOptions"][field].as_str().unwrap_or_default()
    }
    let bad_type = |context: &Value| !types.contains(&of(context, "type"));
    let set = |field: &'static str| move |context: &Value| !of(context, field).is_empty();
    let anything = Setters::find(pod, |context| {
        let bad = bad_type(context) || set("user")(context) || set("role")(context);
        bad.then_some("")
    });
    let who = anything.who?;
    let kinds = Setters::find(pod, |context| bad_type(context).then(|| of(context, "type"))).values;
    let mut data = Vec::new();
    if !kinds.is_empty() {
        data.push(format!("{} {}", plural("type", "types", kinds.len()), quoted(kinds)));
    }
    for field in ["user", "role"] {
        if Setters::find(pod, |context| set(field)(context).then_some("")).who.is_some() {
            data.push(format!("{field} may not be set"));
        }
    }
    Violation::new("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")))
}

/// A seccomp profile that takes the pod's system calls out of hand.
pub(super) fn loose_seccomp(context: &Value) -> Option<&str> {
    let kind = context["seccompProfile"]["type"].as_str();
    kind.filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"))
}

fn seccomp(pod: Pod<'_>, minor: u32) -> Option<Violation> {
    if minor < 19 {
        return annotated_seccomp(pod);
    }
    let setters = Setters::find(pod, loose_seccomp);
    let values = quoted(setters.values);
    Violation::new(
        "seccompProfile",
        format!("{} must not set securityContext.seccompProfile.type to {values}", setters.who?),
    )
}

/// Before v1.19 profiles stood in annotations.
fn annotated_seccomp(pod: Pod<'_>) -> Option<Violation> {
    let of_containers =
        pod.containers().map(|each| format!("container.seccomp.security.alpha.kubernetes.io/{}", name(each)));
    let keys = std::iter::once("seccomp.security.alpha.kubernetes.io/pod".to_owned()).chain(of_containers);
    let bad: BTreeSet<String> = keys
        .filter_map(|key| {
            let value = pod.metadata["annotations"][&key].as_str()?;
            let fine = matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
            (!fine).then(|| format!("{key}={value:?}"))
        })
        .collect();
    (!bad.is_empty()).then_some(())?;
    let word = plural("annotation", "annotations", bad.len());
    Violation::new("seccompProfile", format!("forbidden {word} {}", bad.into_iter().collect::<Vec<_>>().join(", ")))
}

fn sysctls(pod: Pod<'_>, minor: u32) -> Option<Violation> {
    const SAFE: [(&str, u32); 12] = [
        ("kernel.shm_rmid_forced", 0),
        ("net.ipv4.ip_local_port_range", 0),
        ("net.ipv4.tcp_syncookies", 0),
        ("net.ipv4.ping_group_range", 0),
        ("net.ipv4.ip_unprivileged_port_start", 0),
        ("net.ipv4.ip_local_reserved_ports", 27),
        ("net.ipv4.tcp_keepalive_time", 29),
        ("net.ipv4.tcp_fin_timeout", 29),
        ("net.ipv4.tcp_keepalive_intvl", 29),
        ("net.ipv4.tcp_keepalive_probes", 29),
        ("net.ipv4.tcp_rmem", 32),
        ("net.ipv4.tcp_wmem", 32),
    ];
    let safe = |sysctl: &&str| SAFE.iter().any(|(name, since)| name == sysctl && *since <= minor);
    let sysctls = pod.spec["securityContext"]["sysctls"].as_array().into_iter().flatten().map(name);
    let bad: Vec<&str> = sysctls.filter(|sysctl| !safe(sysctl)).collect();
    if bad.is_empty() { None } else { Violation::new("forbidden sysctls", bad.join(", ")) }
}

fn windows_host_process(pod: Pod<'_>, _: u32) -> Option<Violation> {
    let setters = Setters::find(pod, |context| (context["windowsOptions"]["hostProcess"] == true).then_some(""));
    let detail = format!("{} must not set securityContext.windowsOptions.hostProcess=true", setters.who?);
    Violation::new("hostProcess", detail)
}
