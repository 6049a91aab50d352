//! A pod's line in a table: READY, STATUS and RESTARTS are worked out from the states of its containers.

use crate::kinds::json::{flag, int, list, present, text};
use crate::kinds::table::{NONE, age, name, or_none, since};
use crate::registry::ResourceKind;
use jiff::Timestamp;
use serde_json::Value;

/// NAME READY STATUS RESTARTS AGE IP NODE NOMINATED-NODE READINESS-GATES.
pub(in crate::kinds) fn row(_: &ResourceKind, pod: &Value, now: Timestamp) -> Vec<Value> {
    let seen = Seen::of(pod);
    let restarts = match &seen.last_restart {
        Some(time) if seen.restarts > 0 => format!("{} ({} ago)", seen.restarts, since(&time.to_string(), now)),
        _ => seen.restarts.to_string(),
    };
    let ip = match list(pod, "/status/podIPs").first() {
        Some(first) => text(first, "/ip"),
        None => text(pod, "/status/podIP"),
    };
    vec![
        name(pod),
        format!("{}/{}", seen.ready, seen.total).into(),
        seen.reason.into(),
        restarts.into(),
        age(pod, now),
        or_none(ip),
        or_none(text(pod, "/spec/nodeName")),
        or_none(text(pod, "/status/nominatedNodeName")),
        readiness_gates(pod).into(),
    ]
}

#[derive(Default)]
struct Seen {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
    reason: String,
}

impl Seen {
    fn restarted(&mut self, status: &Value) {
        self.restarts += int(status, "/restartCount").unwrap_or_default();
        let finished = text(status, "/lastState/terminated/finishedAt").parse::<Timestamp>().ok();
        self.last_restart = self.last_restart.max(finished);
    }

    fn of(pod: &Value) -> Seen {
        let phase = text(pod, "/status/phase");
        let own_reason = text(pod, "/status/reason");
        let mut seen = Seen {
            reason: if own_reason.is_empty() { phase } else { own_reason }.to_owned(),
            total: list(pod, "/spec/containers").len(),
            ..Seen::default()
        };
        if condition(pod, "PodScheduled").is_some_and(|found| text(found, "/reason") == "SchedulingGated") {
            "SchedulingGated".clone_into(&mut seen.reason);
        }
        let init = list(pod, "/spec/initContainers");
        seen.total += init.iter().filter(|container| is_sidecar(container)).count();
        // What the sidecars did counts beyond initialisation.
        let mut sidecars = Seen::default();
        let initializing = seen.init_containers(pod, init, &mut sidecars);
        if !initializing || is_true(condition(pod, "Initialized")) {
            (seen.restarts, seen.last_restart) = (sidecars.restarts, sidecars.last_restart);
            seen.containers(pod);
        }
        if !text(pod, "/metadata/deletionTimestamp").is_empty() {
            if own_reason == "NodeLost" {
                "Unknown".clone_into(&mut seen.reason);
            } else if !matches!(phase, "Succeeded" | "Failed") {
                "Terminating".clone_into(&mut seen.reason);
            }
        }
        seen
    }

    /// Whether the pod is still at its init containers.
    fn init_containers(&mut self, pod: &Value, init: &[Value], sidecars: &mut Seen) -> bool {
        for (index, status) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
            self.restarted(status);
            let name = text(status, "/name");
            let sidecar = init.iter().any(|container| text(container, "/name") == name && is_sidecar(container));
            if sidecar {
                sidecars.restarted(status);
            }
            let terminated = present(status, "/state/terminated");
            if terminated.is_some_and(|state| int(state, "/exitCode").unwrap_or_default() == 0) {
                continue;
            }
            if sidecar && flag(status, "/started") {
                self.ready += usize::from(flag(status, "/ready"));
                continue;
            }
            self.reason = match (terminated, text(status, "/state/waiting/reason")) {
                (Some(state), _) => format!("Init:{}", end(state)),
                (None, "" | "PodInitializing") => format!("Init:{index}/{}", init.len()),
                (None, waiting) => format!("Init:{waiting}"),
            };
            return true;
        }
        false
    }

    fn containers(&mut self, pod: &Value) {
        let mut any_running = false;
        for status in list(pod, "/status/containerStatuses").iter().rev() {
            self.restarted(status);
            let waiting = text(status, "/state/waiting/reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if let Some(state) = present(status, "/state/terminated") {
                self.reason = end(state);
            } else if flag(status, "/ready") && present(status, "/state/running").is_some() {
                any_running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && any_running {
            let ready = is_true(condition(pod, "Ready"));
            self.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
}

/// How a container ended.
fn end(terminated: &Value) -> String {
    let (reason, signal) = (text(terminated, "/reason"), int(terminated, "/signal").unwrap_or_default());
    match (reason, signal) {
        ("", 0) => format!("ExitCode:{}", int(terminated, "/exitCode").unwrap_or_default()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn is_sidecar(container: &Value) -> bool {
    text(container, "/restartPolicy") == "Always"
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    list(pod, "/status/conditions").iter().find(|condition| text(condition, "/type") == kind)
}

fn is_true(condition: Option<&Value>) -> bool {
    condition.is_some_and(|condition| text(condition, "/status") == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates.iter().filter(|gate| is_true(condition(pod, text(gate, "/conditionType")))).count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// READY, STATUS and RESTARTS of a pod with these parts.
    fn shown(spec: Value, status: Value, metadata: Value) -> String {
        let mut pod = json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a"}]}, "status": status});
        for (part, fields) in [("spec", spec), ("metadata", metadata)] {
            for (key, value) in fields.as_object().unwrap() {
                pod[part][key] = value.clone();
            }
        }
        let row = row(&ResourceKind::new("", "v1", "Pod", "pods"), &pod, "2026-01-01T01:00:00Z".parse().unwrap());
        let cells: Vec<&str> = row[1..4].iter().filter_map(Value::as_str).collect();
        cells.join(" ")
    }

    fn containers(states: Value) -> Value {
        json!({"phase": "Running", "containerStatuses": states})
    }

    #[test]
    fn the_status_is_that_of_the_containers() {
        let none = || json!({});
        let running = json!({"ready": true, "state": {"running": {}}});
        for (status, expected) in [
            (json!({"phase": "Pending"}), "0/1 Pending 0"),
            (json!({"phase": "Failed", "reason": "Evicted"}), "0/1 Evicted 0"),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
                "0/1 SchedulingGated 0",
            ),
            (containers(json!([running])), "1/1 Running 0"),
            (containers(json!([{"ready": false, "state": {"running": {}}}])), "0/1 Running 0"),
            (containers(json!([{"state": {"waiting": {"reason": "ContainerCreating"}}}])), "0/1 ContainerCreating 0"),
            (
                containers(json!([{"restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}}}])),
                "0/1 CrashLoopBackOff 2 (5m ago)",
            ),
            (containers(json!([{"state": {"terminated": {"reason": "Completed"}}}])), "0/1 Completed 0"),
            (containers(json!([{"state": {"terminated": {"exitCode": 3}}}])), "0/1 ExitCode:3 0"),
            (containers(json!([{"state": {"terminated": {"signal": 9}}}])), "0/1 Signal:9 0"),
            (containers(json!([{"state": {"terminated": {"reason": "Completed"}}}, running])), "1/1 NotReady 0"),
        ] {
            assert_eq!(shown(none(), status.clone(), none()), expected, "{status}");
        }
    }

    #[test]
    fn init_containers_show_how_far_they_are() {
        let init = |states: Value| {
            let spec = json!({"initContainers": [{"name": "i"}, {"name": "j"}]});
            shown(spec, json!({"phase": "Pending", "initContainerStatuses": states}), json!({}))
        };
        let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}});
        assert_eq!(init(json!([{"name": "i", "state": {"running": {}}}])), "0/1 Init:0/2 0");
        assert_eq!(
            init(json!([done, {"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}}])),
            "0/1 Init:1/2 0"
        );
        assert_eq!(
            init(json!([done, {"name": "j", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}])),
            "0/1 Init:Error 0"
        );
        assert_eq!(
            init(json!([{"name": "i", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}])),
            "0/1 Init:CrashLoopBackOff 3"
        );
    }

    #[test]
    fn a_sidecar_counts_as_a_container() {
        let spec = json!({"initContainers": [{"name": "s", "restartPolicy": "Always"}]});
        let status = json!({"phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}}],
            "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}]});
        assert_eq!(shown(spec, status, json!({})), "2/2 Running 1");
    }

    #[test]
    fn a_pod_that_is_leaving_says_so() {
        let leaving = || json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(shown(json!({}), json!({"phase": "Running"}), leaving()), "0/1 Terminating 0");
        assert_eq!(shown(json!({}), json!({"phase": "Succeeded"}), leaving()), "0/1 Succeeded 0");
        assert_eq!(shown(json!({}), json!({"phase": "Running", "reason": "NodeLost"}), leaving()), "0/1 Unknown 0");
    }

    #[test]
    fn wide_shows_where_the_pod_is() {
        let pod = json!({"metadata": {"name": "web"}, "status": {"podIPs": [{"ip": "10.244.1.5"}], "conditions": [{"type": "a/b", "status": "True"}]},
            "spec": {"nodeName": "node-1", "readinessGates": [{"conditionType": "a/b"}, {"conditionType": "a/c"}]}});
        let row = row(&ResourceKind::new("", "v1", "Pod", "pods"), &pod, Timestamp::UNIX_EPOCH);
        assert_eq!(row[5..], ["10.244.1.5", "node-1", "<none>", "1/2"]);
    }
}
