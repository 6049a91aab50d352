//! One good and at least one bad pod for each check; versions; what a request is told.

use super::checks::{CHECKS, Pod, violations};
use super::policy::{Level, LevelVersion, Version};
use super::*;
use serde_json::json;

/// A pod that violates nothing.
fn hardened() -> Value {
    json!({"metadata": {"name": "p"}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "image": "i", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}})
}

/// The hardened pod with fields set: `containers.0` and the like are steps of the path.
fn with(fields: &[(&str, Value)]) -> Value {
    let mut pod = hardened();
    for (path, value) in fields {
        let mut place = &mut pod;
        for step in path.split('|') {
            place = match step.parse::<usize>() {
                Ok(index) => &mut place[index],
                Err(_) => &mut place[step],
            };
        }
        *place = value.clone();
    }
    pod
}

fn told(pod: &Value, level: Level, version: Version) -> Vec<String> {
    let pod = Pod { metadata: &pod["metadata"], spec: &pod["spec"] };
    let violations = violations(LevelVersion { level, version }, pod);
    violations.into_iter().map(|each| format!("{} ({})", each.reason, each.detail)).collect()
}

const CONTEXT: &str = "spec|containers|0|securityContext";

/// A check, a pod it lets pass, a pod it does not, and what it says then.
fn cases() -> Vec<(&'static str, Value, Value, &'static str)> {
    let context = |field: &str, value: Value| with(&[(&format!("{CONTEXT}|{field}"), value)]);
    let of_pod = |field: &str, value: Value| with(&[(&format!("spec|{field}"), value)]);
    let two = |field: &str, value: Value| {
        let init = json!([{"name": "b", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, field: value.clone()}}]);
        with(&[(&format!("{CONTEXT}|{field}"), value), ("spec|initContainers", init)])
    };
    vec![
        (
            "appArmorProfile",
            context("appArmorProfile", json!({"type": "Localhost"})),
            of_pod("securityContext|appArmorProfile", json!({"type": "Unconfined"})),
            r#"forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")"#,
        ),
        (
            "appArmorProfile",
            with(&[(
                "metadata|annotations",
                json!({"container.apparmor.security.beta.kubernetes.io/a": "localhost/x"}),
            )]),
            context("appArmorProfile", json!({"type": "Unconfined"})),
            r#"forbidden AppArmor profile (container "a" must not set AppArmor profile type to "Unconfined")"#,
        ),
        (
            "capabilities_baseline",
            context("capabilities", json!({"add": ["CHOWN", "KILL"], "drop": ["ALL"]})),
            two("capabilities", json!({"add": ["SYS_ADMIN", "NET_RAW", "CHOWN"], "drop": ["ALL"]})),
            r#"non-default capabilities (containers "b", "a" must not include "NET_RAW", "SYS_ADMIN" in securityContext.capabilities.add)"#,
        ),
        (
            "hostNamespaces",
            of_pod("hostNetwork", json!(false)),
            with(&[("spec|hostNetwork", json!(true)), ("spec|hostIPC", json!(true)), ("spec|hostPID", json!(true))]),
            "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
        ),
        (
            "hostPathVolumes",
            of_pod("volumes", json!([{"name": "v", "emptyDir": {}}])),
            of_pod(
                "volumes",
                json!([{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "hostPath": {"path": "/"}}]),
            ),
            r#"hostPath volumes (volumes "v", "w")"#,
        ),
        (
            "hostPorts",
            of_pod("containers|0|ports", json!([{"containerPort": 80}])),
            of_pod("containers|0|ports", json!([{"hostPort": 81}, {"hostPort": 80}])),
            r#"hostPort (container "a" uses hostPorts 80, 81)"#,
        ),
        (
            "hostProbesAndHostLifecycle",
            of_pod("containers|0|livenessProbe", json!({"httpGet": {"port": 80, "host": ""}})),
            with(&[
                ("spec|containers|0|livenessProbe", json!({"httpGet": {"port": 80, "host": "10.0.0.1"}})),
                ("spec|containers|0|lifecycle", json!({"preStop": {"tcpSocket": {"host": "x"}}})),
            ]),
            r#"probe or lifecycle host (container "a" uses probe or lifecycle hosts "10.0.0.1", "x")"#,
        ),
        (
            "privileged",
            context("privileged", json!(false)),
            two("privileged", json!(true)),
            r#"privileged (containers "b", "a" must not set securityContext.privileged=true)"#,
        ),
        (
            "procMount_baseline",
            context("procMount", json!("Default")),
            context("procMount", json!("Unmasked")),
            r#"procMount (container "a" must not set securityContext.procMount to "Unmasked")"#,
        ),
        (
            "seLinuxOptions",
            context("seLinuxOptions", json!({"type": "container_engine_t", "level": "s0"})),
            with(&[
                ("spec|securityContext|seLinuxOptions", json!({"type": "spc_t"})),
                (&format!("{CONTEXT}|seLinuxOptions"), json!({"user": "u", "role": "r"})),
            ]),
            r#"seLinuxOptions (pod and container "a" set forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be set; role may not be set)"#,
        ),
        (
            "seccompProfile_baseline",
            of_pod("securityContext|seccompProfile", json!({"type": "Localhost"})),
            context("seccompProfile", json!({"type": "Unconfined"})),
            r#"seccompProfile (container "a" must not set securityContext.seccompProfile.type to "Unconfined")"#,
        ),
        (
            "sysctls",
            of_pod("securityContext|sysctls", json!([{"name": "net.ipv4.tcp_rmem"}])),
            of_pod("securityContext|sysctls", json!([{"name": "kernel.msgmax"}, {"name": "net.core.somaxconn"}])),
            "forbidden sysctls (kernel.msgmax, net.core.somaxconn)",
        ),
        (
            "windowsHostProcess",
            context("windowsOptions", json!({"hostProcess": false})),
            with(&[
                ("spec|securityContext|windowsOptions", json!({"hostProcess": true})),
                (&format!("{CONTEXT}|windowsOptions"), json!({"hostProcess": true})),
            ]),
            r#"hostProcess (pod and container "a" must not set securityContext.windowsOptions.hostProcess=true)"#,
        ),
        (
            "allowPrivilegeEscalation",
            hardened(),
            context("allowPrivilegeEscalation", Value::Null),
            r#"allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false)"#,
        ),
        (
            "capabilities_restricted",
            context("capabilities", json!({"add": ["NET_BIND_SERVICE"], "drop": ["KILL", "ALL"]})),
            context("capabilities", json!({"add": ["CHOWN"], "drop": ["KILL"]})),
            r#"unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"]; container "a" must not include "CHOWN" in securityContext.capabilities.add)"#,
        ),
        (
            "procMount_restricted",
            context("procMount", json!("Default")),
            with(&[("spec|hostUsers", json!(false)), (&format!("{CONTEXT}|procMount"), json!("Unmasked"))]),
            r#"procMount (container "a" must not set securityContext.procMount to "Unmasked")"#,
        ),
        (
            "restrictedVolumes",
            of_pod(
                "volumes",
                json!([{"name": "v", "image": {}}, {"name": "w", "csi": {}}, {"name": "x", "projected": {}}]),
            ),
            of_pod("volumes", json!([{"name": "v", "nfs": {}}, {"name": "w", "gitRepo": {}}])),
            r#"restricted volume types (volumes "v", "w" use restricted volume types "gitRepo", "nfs")"#,
        ),
        (
            "runAsNonRoot",
            with(&[
                ("spec|securityContext|runAsNonRoot", Value::Null),
                (&format!("{CONTEXT}|runAsNonRoot"), json!(true)),
            ]),
            of_pod("securityContext|runAsNonRoot", Value::Null),
            r#"runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true)"#,
        ),
        (
            "runAsNonRoot",
            with(&[("spec|hostUsers", json!(false)), ("spec|securityContext|runAsNonRoot", json!(false))]),
            with(&[
                ("spec|securityContext|runAsNonRoot", json!(false)),
                (&format!("{CONTEXT}|runAsNonRoot"), json!(false)),
            ]),
            r#"runAsNonRoot != true (pod and container "a" must not set securityContext.runAsNonRoot=false)"#,
        ),
        (
            "runAsUser",
            context("runAsUser", json!(1)),
            context("runAsUser", json!(0)),
            r#"runAsUser=0 (container "a" must not set runAsUser=0)"#,
        ),
        (
            "seccompProfile_restricted",
            with(&[
                ("spec|securityContext|seccompProfile", Value::Null),
                (&format!("{CONTEXT}|seccompProfile"), json!({"type": "Localhost"})),
            ]),
            of_pod("securityContext|seccompProfile", Value::Null),
            r#"seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
        ),
    ]
}

#[test]
fn each_check_lets_good_pods_pass_and_says_what_is_wrong_with_bad_ones() {
    for (id, good, bad, says) in cases() {
        let check = CHECKS.iter().find(|check| check.id == id).expect("a check by that name");
        assert_eq!(told(&good, check.level, Version::Latest), Vec::<String>::new(), "{id}: {good}");
        assert_eq!(told(&bad, check.level, Version::Latest), [says], "{id}: {bad}");
        let below = if check.level == Level::Restricted { Level::Baseline } else { Level::Privileged };
        assert_eq!(told(&bad, below, Version::Latest), Vec::<String>::new(), "{id} is not of {below}");
        if check.since > 0 {
            let before = Version::Minor(check.since - 1);
            let older = told(&bad, check.level, before);
            let pod = Pod { metadata: &bad["metadata"], spec: &bad["spec"] };
            let by_another =
                CHECKS.iter().any(|other| other.level < check.level && (other.find)(pod, check.since - 1).is_some());
            assert!(by_another || older.is_empty(), "{id} begins with v1.{}: {older:?}", check.since);
        }
        // What baseline forbids, restricted forbids too, by this check or a stricter one.
        assert!(!told(&bad, Level::Restricted, Version::Latest).is_empty(), "{id}");
    }
    for check in &CHECKS {
        assert!(cases().iter().any(|case| case.0 == check.id), "no case for {}", check.id);
    }
}

#[test]
fn a_plain_pod_is_told_all_that_restricted_wants_in_one_line() {
    let pod = json!({"metadata": {}, "spec": {"hostNetwork": true, "containers": [{"name": "a"}, {"name": "b"}]}});
    assert_eq!(
        told(&pod, Level::Restricted, Version::Latest).join(", "),
        r#"host namespaces (hostNetwork=true), allowPrivilegeEscalation != false (containers "a", "b" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers "a", "b" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or containers "a", "b" must set securityContext.runAsNonRoot=true), seccompProfile (pod or containers "a", "b" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#
    );
}

#[test]
fn a_version_has_the_checks_of_its_day() {
    let version = |pod: &Value, level, minor| told(pod, level, Version::Minor(minor));
    let none = Vec::<String>::new();
    let windows = json!({"metadata": {}, "spec": {"os": {"name": "windows"},
        "securityContext": {"runAsNonRoot": true}, "containers": [{"name": "a"}]}});
    assert_eq!(version(&windows, Level::Restricted, 25), none);
    assert_eq!(version(&windows, Level::Restricted, 24).len(), 3);
    let sysctl = with(&[("spec|securityContext|sysctls", json!([{"name": "net.ipv4.tcp_keepalive_time"}]))]);
    assert_eq!(version(&sysctl, Level::Baseline, 29), none);
    assert_eq!(version(&sysctl, Level::Baseline, 28), ["forbidden sysctls (net.ipv4.tcp_keepalive_time)"]);
    let engine = with(&[("spec|securityContext|seLinuxOptions", json!({"type": "container_engine_t"}))]);
    assert_eq!(version(&engine, Level::Baseline, 31), none);
    assert_eq!(version(&engine, Level::Baseline, 30).len(), 1);
    let annotated =
        with(&[("metadata|annotations", json!({"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}))]);
    assert_eq!(version(&annotated, Level::Baseline, 19), none);
    assert_eq!(
        version(&annotated, Level::Restricted, 18),
        [r#"seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod="unconfined")"#]
    );
    let root = with(&[("spec|hostUsers", json!(false)), ("spec|securityContext|runAsUser", json!(0))]);
    assert_eq!(version(&root, Level::Restricted, 35), none);
    assert_eq!(version(&root, Level::Restricted, 34), ["runAsUser=0 (pod must not set runAsUser=0)"]);
    assert_eq!(version(&root, Level::Restricted, 22), none);
}
