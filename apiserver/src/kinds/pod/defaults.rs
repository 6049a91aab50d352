//! What a pod gets that the user left out: the defaults of its spec. Priority, tolerations and service account are admission's.

use crate::kinds::json::{child, fill, fill_zero, flag, list_mut, object, present, put, text};
use crate::kinds::quantity::canonicalize;
use crate::registry::ResourceKind;
use serde_json::{Value, json};

/// A Pod.
pub(in crate::kinds) fn default(_: &ResourceKind, pod: &mut Value) {
    let Some(spec) = child(pod, "spec") else { return };
    fill(spec, "enableServiceLinks", true);
    for group in ["/containers", "/initContainers"] {
        for container in list_mut(spec, group) {
            requests_from_limits(container);
        }
    }
    pod_spec(spec);
    if let Some(status) = child(pod, "status") {
        fill(status, "phase", "Pending");
    }
}

/// A PodTemplate.
pub(in crate::kinds) fn default_template(_: &ResourceKind, object: &mut Value) {
    template(object);
}

/// The `template` of `value`, a workload's spec.
pub(in crate::kinds) fn template(value: &mut Value) {
    if let Some(spec) = child(value, "template").and_then(|template| child(template, "spec")) {
        pod_spec(spec);
    }
}

/// A pod spec, wherever it stands.
pub(in crate::kinds) fn pod_spec(spec: &mut Value) {
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "restartPolicy", "Always");
    fill(spec, "schedulerName", "default-scheduler");
    fill(spec, "terminationGracePeriodSeconds", 30);
    child(spec, "securityContext");
    // The older name of the field is kept equal to the newer one, for clients that read it.
    let account =
        [text(spec, "/serviceAccountName"), text(spec, "/serviceAccount")].into_iter().find(|name| !name.is_empty());
    if let Some(account) = account.map(str::to_owned) {
        put(spec, "serviceAccountName", Some(account.clone().into()));
        put(spec, "serviceAccount", Some(account.into()));
    }
    let host_network = flag(spec, "/hostNetwork");
    for group in ["/containers", "/initContainers", "/ephemeralContainers"] {
        for each in list_mut(spec, group) {
            container(each, host_network);
        }
    }
    for each in list_mut(spec, "/volumes") {
        volume(each);
    }
    canonicalize(spec, "/overhead");
    canonicalize(spec, "/resources/limits");
    canonicalize(spec, "/resources/requests");
}

fn container(container: &mut Value, host_network: bool) {
    let policy = pull_policy(text(container, "/image"));
    fill(container, "imagePullPolicy", policy);
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    child(container, "resources");
    canonicalize(container, "/resources/limits");
    canonicalize(container, "/resources/requests");
    for port in list_mut(container, "/ports") {
        fill(port, "protocol", "TCP");
        if host_network {
            let number = port.get("containerPort").cloned().unwrap_or(json!(0));
            fill_zero(port, "hostPort", number);
        }
    }
    for variable in list_mut(container, "/env") {
        if let Some(reference) = variable.pointer_mut("/valueFrom/fieldRef") {
            fill(reference, "apiVersion", "v1");
        }
        if let Some(reference) = variable.pointer_mut("/valueFrom/resourceFieldRef") {
            fill_zero(reference, "divisor", "0");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name).filter(|probe| probe.is_object()) {
            fill_zero(probe, "timeoutSeconds", 1);
            fill_zero(probe, "periodSeconds", 10);
            fill_zero(probe, "successThreshold", 1);
            fill_zero(probe, "failureThreshold", 3);
            handler(probe);
            if let Some(grpc) = probe.get_mut("grpc").filter(|grpc| grpc.is_object()) {
                put_if_missing(grpc, "service", json!(""));
            }
        }
    }
    for hook in ["/lifecycle/postStart", "/lifecycle/preStop"] {
        if let Some(hook) = container.pointer_mut(hook) {
            handler(hook);
        }
    }
}

fn put_if_missing(value: &mut Value, key: &str, default: Value) {
    if value.get(key).is_none_or(Value::is_null) {
        put(value, key, Some(default));
    }
}

fn handler(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet").filter(|get| get.is_object()) {
        fill(get, "path", "/");
        fill(get, "scheme", "HTTP");
    }
}

/// `Always` for an image without tag or with `latest`, since it may be another one tomorrow.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or_default();
    let fixed = image.contains('@') || name.split_once(':').is_some_and(|(_, tag)| tag != "latest");
    if fixed { "IfNotPresent" } else { "Always" }
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = object(container, "/resources/limits").filter(|limits| !limits.is_empty()).cloned() else {
        return;
    };
    if let Some(requests) = child(container, "resources").and_then(|resources| child(resources, "requests")) {
        for (name, limit) in limits {
            put_if_missing(requests, &name, limit);
        }
    }
}

fn volume(volume: &mut Value) {
    if volume.as_object().is_some_and(|fields| fields.iter().all(|(key, value)| key == "name" || value.is_null())) {
        put(volume, "emptyDir", Some(json!({})));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).filter(|source| source.is_object()) {
            fill(source, "defaultMode", 0o644);
        }
    }
    downward_items(volume, "/downwardAPI/items");
    for source in list_mut(volume, "/projected/sources") {
        downward_items(source, "/downwardAPI/items");
        if let Some(token) = source.get_mut("serviceAccountToken").filter(|token| token.is_object()) {
            fill(token, "expirationSeconds", 3600);
        }
    }
    if let Some(path) = volume.get_mut("hostPath").filter(|path| path.is_object()) {
        put_if_missing(path, "type", json!(""));
    }
    if let Some(spec) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec") {
        fill(spec, "volumeMode", "Filesystem");
    }
    if let Some(limit) = present(volume, "/emptyDir/sizeLimit").and_then(crate::kinds::quantity::Quantity::of) {
        put(&mut volume["emptyDir"], "sizeLimit", Some(limit.to_string().into()));
    }
}

fn downward_items(value: &mut Value, pointer: &str) {
    for item in list_mut(value, pointer) {
        if let Some(reference) = item.get_mut("fieldRef") {
            fill(reference, "apiVersion", "v1");
        }
        if let Some(reference) = item.get_mut("resourceFieldRef") {
            fill_zero(reference, "divisor", "0");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_pod_of_one_image_gets_everything_else() {
        let mut pod = json!({"spec": {"containers": [{
            "name": "web", "image": "nginx", "ports": [{"containerPort": 80}], "readinessProbe": {"httpGet": {"port": 80}},
            "resources": {"limits": {"cpu": 0.5}},
            "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        }], "volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "c"}}]}});
        let kind = ResourceKind::new("", "v1", "Pod", "pods");
        default(&kind, &mut pod);
        expect![[r#"
            {
              "spec": {
                "containers": [
                  {
                    "env": [
                      {
                        "name": "IP",
                        "valueFrom": {
                          "fieldRef": {
                            "apiVersion": "v1",
                            "fieldPath": "status.podIP"
                          }
                        }
                      }
                    ],
                    "image": "nginx",
                    "imagePullPolicy": "Always",
                    "name": "web",
                    "ports": [
                      {
                        "containerPort": 80,
                        "protocol": "TCP"
                      }
                    ],
                    "readinessProbe": {
                      "failureThreshold": 3,
                      "httpGet": {
                        "path": "/",
                        "port": 80,
                        "scheme": "HTTP"
                      },
                      "periodSeconds": 10,
                      "successThreshold": 1,
                      "timeoutSeconds": 1
                    },
                    "resources": {
                      "limits": {
                        "cpu": "500m"
                      },
                      "requests": {
                        "cpu": "500m"
                      }
                    },
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File"
                  }
                ],
                "dnsPolicy": "ClusterFirst",
                "enableServiceLinks": true,
                "restartPolicy": "Always",
                "schedulerName": "default-scheduler",
                "securityContext": {},
                "terminationGracePeriodSeconds": 30,
                "volumes": [
                  {
                    "emptyDir": {},
                    "name": "a"
                  },
                  {
                    "configMap": {
                      "defaultMode": 420,
                      "name": "c"
                    },
                    "name": "b"
                  }
                ]
              },
              "status": {
                "phase": "Pending"
              }
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&pod).unwrap());
        let once = pod.clone();
        default(&kind, &mut pod);
        assert_eq!(pod, once, "defaulting twice changes nothing");
    }

    #[test]
    fn an_image_that_may_change_is_always_pulled() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:0123", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn a_template_gets_no_more_than_its_spec_has() {
        let mut spec = json!({"template": {"spec": {"serviceAccount": "bot", "hostNetwork": true,
            "containers": [{"name": "a", "image": "b:1", "ports": [{"containerPort": 80}]}]}}});
        template(&mut spec);
        let spec = &spec["template"]["spec"];
        assert_eq!(spec["serviceAccountName"], "bot");
        assert_eq!(spec["containers"][0]["ports"][0]["hostPort"], 80);
        assert_eq!((spec.get("tolerations"), spec.get("enableServiceLinks"), spec.get("priority")), (None, None, None));
    }
}
