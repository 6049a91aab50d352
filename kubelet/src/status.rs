//! A pod's status from the records of its containers: phase, conditions, container statuses.

use crate::container_runner::{Record, Records, State, Termination};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use std::net::IpAddr;

/// What a status is made from.
pub(crate) struct Inputs<'a> {
    pub(crate) pod: &'a core::Pod,
    pub(crate) records: &'a Records,
    /// Its addresses, the primary family's first; none before it has a sandbox.
    pub(crate) ips: &'a [IpAddr],
    pub(crate) node_ips: &'a [IpAddr],
    pub(crate) started: Timestamp,
    pub(crate) now: Timestamp,
    /// A reason that fails the pod whatever its containers do, such as `DeadlineExceeded`.
    pub(crate) failed: Option<(&'static str, String)>,
}

/// The `status` to write, as JSON for a patch; conditions of others are left alone.
pub(crate) fn status(inputs: &Inputs<'_>) -> Value {
    let spec = inputs.pod.spec.clone().unwrap_or_default();
    let init_specs = spec.init_containers.clone().unwrap_or_default();
    let statuses = |containers: &[core::Container]| -> Vec<Value> {
        let with_amounts = |container: &core::Container| {
            let mut status = container_status(inputs.records, &container.name)?;
            amounts(&mut status, container);
            Some(status)
        };
        containers.iter().filter_map(with_amounts).collect()
    };
    let read = |container: &core::Container| {
        inputs
            .records
            .read(&container.name, |record| (record.finished, exit_code(record), record.ready, record.state.clone()))
    };
    let init: Vec<_> =
        init_specs.iter().filter(|container| container.restart_policy.is_none()).filter_map(read).collect();
    let initialized = init.iter().all(|(finished, code, ..)| *finished && *code == Some(0));
    let init_failed = init.iter().any(|(finished, code, ..)| *finished && code.is_some_and(|code| code != 0));
    let main: Vec<_> = spec.containers.iter().filter_map(read).collect();
    let all_finished = main.iter().all(|(finished, ..)| *finished);
    let ever_ran = |state: &State| !matches!(state, State::Waiting { reason, .. } if *reason != "CrashLoopBackOff");
    let phase = if inputs.failed.is_some() || init_failed {
        "Failed"
    } else if initialized && all_finished && !main.is_empty() {
        if main.iter().all(|(_, code, ..)| *code == Some(0)) { "Succeeded" } else { "Failed" }
    } else if initialized && main.iter().all(|(.., state)| ever_ran(state)) {
        "Running"
    } else {
        "Pending"
    };
    let over = matches!(phase, "Succeeded" | "Failed");
    let completed = if phase == "Succeeded" { Some("PodCompleted") } else { over.then_some("PodFailed") };
    let unready: Vec<&str> = spec
        .containers
        .iter()
        .filter(|container| inputs.records.read(&container.name, |record| record.ready) != Some(true))
        .map(|container| container.name.as_str())
        .collect();
    let containers_ready = unready.is_empty() && !over;
    let not_ready = if let Some(reason) = completed {
        Some((reason, String::new()))
    } else if !containers_ready {
        Some(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))))
    } else {
        None
    };
    let ready = not_ready.clone().or_else(|| {
        (!gates_are_open(inputs.pod)).then(|| ("ReadinessGatesNotReady", "a readiness gate is not open".to_owned()))
    });
    let mut conditions = vec![
        condition(inputs, "PodReadyToStartContainers", !inputs.ips.is_empty() && !over, None),
        condition(
            inputs,
            "Initialized",
            initialized,
            match (initialized, completed) {
                (true, Some("PodCompleted")) => Some(("PodCompleted", String::new())),
                (true, _) => None,
                (false, _) => Some(("ContainersNotInitialized", "containers with incomplete status".to_owned())),
            },
        ),
        condition(inputs, "Ready", ready.is_none(), ready),
        condition(inputs, "ContainersReady", not_ready.is_none(), not_ready),
    ];
    if let Some(scheduled) = known_condition(inputs.pod, "PodScheduled") {
        conditions.push(json!(scheduled));
    }
    let mut status = json!({
        "phase": phase,
        "conditions": conditions,
        "hostIP": inputs.node_ips.first(),
        "hostIPs": listed(inputs.node_ips),
        "startTime": Time(inputs.started),
        "qosClass": qos_class(&spec),
        "containerStatuses": statuses(&spec.containers),
        "observedGeneration": inputs.pod.metadata.generation,
    });
    if !init_specs.is_empty() {
        status["initContainerStatuses"] = statuses(&init_specs).into();
    }
    if !spec.ephemeral_containers.iter().flatten().collect::<Vec<_>>().is_empty() {
        let names = spec.ephemeral_containers.iter().flatten().map(|container| &container.name);
        let list: Vec<Value> = names.filter_map(|name| container_status(inputs.records, name)).collect();
        status["ephemeralContainerStatuses"] = list.into();
    }
    if let Some(ip) = inputs.ips.first() {
        status["podIP"] = json!(ip);
        status["podIPs"] = listed(inputs.ips);
    }
    if let Some((reason, message)) = &inputs.failed {
        status["reason"] = (*reason).into();
        status["message"] = message.as_str().into();
    }
    status
}

fn listed(ips: &[IpAddr]) -> Value {
    ips.iter().map(|ip| json!({"ip": ip})).collect()
}

fn exit_code(record: &Record) -> Option<i32> {
    match &record.state {
        State::Terminated(ended) => Some(ended.exit_code),
        _ => None,
    }
}

/// Whether every readiness gate of the pod is open: somebody has set its condition.
pub(crate) fn gates_are_open(pod: &core::Pod) -> bool {
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    gates.into_iter().all(|gate| known_condition(pod, &gate.condition_type).is_some_and(|known| known.status == "True"))
}

fn known_condition<'a>(pod: &'a core::Pod, kind: &str) -> Option<&'a core::PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// `lastTransitionTime` moves only when the status does.
fn condition(inputs: &Inputs<'_>, kind: &str, holds: bool, why: Option<(&'static str, String)>) -> Value {
    let status = if holds { "True" } else { "False" };
    let known = known_condition(inputs.pod, kind).filter(|known| known.status == status);
    let since = known.and_then(|known| known.last_transition_time.clone()).unwrap_or(Time(inputs.now));
    let mut condition = json!({"type": kind, "status": status, "lastTransitionTime": since, "lastProbeTime": null});
    condition["observedGeneration"] = json!(inputs.pod.metadata.generation);
    let (reason, message) = why.map_or((Value::Null, Value::Null), |(reason, message)| {
        (reason.into(), if message.is_empty() { Value::Null } else { message.into() })
    });
    condition["reason"] = reason;
    condition["message"] = message;
    condition
}

fn container_status(records: &Records, name: &str) -> Option<Value> {
    records.read(name, |record| {
        let terminated = |ended: &Termination| {
            let mut state = json!({"exitCode": ended.exit_code, "reason": ended.reason,
                "startedAt": Time(ended.started), "finishedAt": Time(ended.finished)});
            if !ended.message.is_empty() {
                state["message"] = ended.message.as_str().into();
            }
            json!({"terminated": state})
        };
        let state = match &record.state {
            State::Waiting { reason, message } => {
                let mut state = json!({"reason": reason});
                if !message.is_empty() {
                    state["message"] = message.as_str().into();
                }
                json!({"waiting": state})
            }
            State::Running { since } => json!({"running": {"startedAt": Time(*since)}}),
            State::Terminated(ended) => terminated(ended),
        };
        let id = format!("coracle://{name}-{}", record.restarts);
        json!({
            "name": name,
            "image": record.image,
            "imageID": record.image,
            "containerID": if matches!(record.state, State::Waiting { .. }) && record.last.is_none() { String::new() } else { id },
            "ready": record.ready,
            "started": record.started,
            "restartCount": record.restarts,
            "state": state,
            "lastState": record.last.as_ref().map_or_else(|| json!({}), terminated),
        })
    })
}

/// What a container has been given: nothing here limits a program, so a resize is in force as soon as it is seen (KEP-1287).
fn amounts(status: &mut Value, container: &core::Container) {
    let Some(resources) = &container.resources else { return };
    let kept = ["requests", "limits"].into_iter().zip([&resources.requests, &resources.limits]);
    let kept: serde_json::Map<String, Value> = kept
        .filter_map(|(name, amounts)| Some((name.to_owned(), json!(amounts.as_ref().filter(|all| !all.is_empty())?))))
        .collect();
    if let Some(requests) = kept.get("requests") {
        status["allocatedResources"] = requests.clone();
    }
    status["resources"] = kept.into();
}

/// Follows Kubernetes' "Pod Quality of Service Classes".
fn qos_class(spec: &core::PodSpec) -> &'static str {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        let resources = container.resources.clone().unwrap_or_default();
        let (requests, limits) = (resources.requests.unwrap_or_default(), resources.limits.unwrap_or_default());
        for name in ["cpu", "memory"] {
            any |= requests.contains_key(name) || limits.contains_key(name);
            guaranteed &=
                limits.contains_key(name) && requests.get(name).is_none_or(|value| Some(value) == limits.get(name));
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
