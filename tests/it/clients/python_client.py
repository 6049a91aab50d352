"""The official Python client against a Coracle: typed, dynamic, watches and streams. Each function is a rule; the first that fails ends it.

Run with KUBECONFIG and PYTHONPATH set; a namespace per rule keeps them apart.
"""

import base64
import json
import socket
import sys
import threading

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.stream import portforward, stream

RULES = []


def rule(function):
    RULES.append(function)
    return function


def refused(status, call, *arguments, **options):
    """The Status of a call that must fail with this code."""
    try:
        call(*arguments, **options)
    except ApiException as error:
        assert error.status == status, f"{error.status}, not {status}: {error.body}"
        return json.loads(error.body)
    raise AssertionError(f"{call} was not refused")


def configmap(name, data, **metadata):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, **metadata), data=data)


def running(namespace, name, command, **more):
    """Runs a busybox pod and waits, by a watch, until it is ready."""
    container = client.V1Container(name="c", image="busybox", command=command, **more)
    pod = client.V1Pod(metadata=client.V1ObjectMeta(name=name), spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=1))
    core = client.CoreV1Api()
    core.create_namespaced_pod(namespace, pod)
    events = watch.Watch().stream(core.list_namespaced_pod, namespace, field_selector=f"metadata.name={name}", timeout_seconds=60)
    for event in events:
        conditions = event["object"].status.conditions or []
        if any(condition.type == "Ready" and condition.status == "True" for condition in conditions):
            return core
    raise AssertionError(f"{name} is not ready")


@rule
def typed_objects_are_created_read_changed_and_deleted(namespace):
    core = client.CoreV1Api()
    made = core.create_namespaced_config_map(namespace, configmap("a", {"k": "one"}, labels={"app": "a"}))
    assert made.metadata.uid and made.metadata.creation_timestamp.tzinfo
    assert core.read_namespaced_config_map("a", namespace).data == {"k": "one"}
    changed = core.patch_namespaced_config_map("a", namespace, {"data": {"l": "two"}})
    assert changed.data == {"k": "one", "l": "two"}
    stale = made
    made = core.read_namespaced_config_map("a", namespace)
    made.data = {"k": "three"}
    assert core.replace_namespaced_config_map("a", namespace, made).data == {"k": "three"}
    assert refused(409, core.replace_namespaced_config_map, "a", namespace, stale)["reason"] == "Conflict"
    patch = [{"op": "replace", "path": "/data/k", "value": "four"}]
    assert core.patch_namespaced_config_map("a", namespace, patch).data == {"k": "four"}
    assert core.delete_namespaced_config_map("a", namespace)["status"] == "Success"
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name="s"), string_data={"word": "hush"})
    core.create_namespaced_secret(namespace, secret)
    assert base64.b64decode(core.read_namespaced_secret("s", namespace).data["word"]) == b"hush"


@rule
def typed_workloads_scale_and_report(namespace):
    apps = client.AppsV1Api()
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": "web"}),
        spec=client.V1PodSpec(containers=[client.V1Container(name="web", image="nginx:1.27", ports=[client.V1ContainerPort(container_port=80)])]),
    )
    spec = client.V1DeploymentSpec(replicas=1, selector=client.V1LabelSelector(match_labels={"app": "web"}), template=template)
    apps.create_namespaced_deployment(namespace, client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec))
    apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 2}})
    for event in watch.Watch().stream(apps.list_namespaced_deployment, namespace, timeout_seconds=60):
        if event["object"].status.ready_replicas == 2:
            break
    scale = apps.read_namespaced_deployment_scale("web", namespace)
    assert (scale.spec.replicas, scale.status.replicas, scale.status.selector) == (2, 2, "app=web")
    batch = client.BatchV1Api()
    job = {"metadata": {"name": "once"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox", "command": ["true"]}]}}}}
    batch.create_namespaced_job(namespace, job)
    for event in watch.Watch().stream(batch.list_namespaced_job, namespace, timeout_seconds=60):
        if event["object"].status.succeeded:
            break
    assert batch.read_namespaced_job_status("once", namespace).status.completion_time
    apps.delete_namespaced_deployment("web", namespace, propagation_policy="Foreground")
    for event in watch.Watch().stream(apps.list_namespaced_deployment, namespace, timeout_seconds=60):
        if event["type"] == "DELETED":
            break
    assert not apps.list_namespaced_replica_set(namespace).items


@rule
def typed_networking_objects_are_as_they_were_said(namespace):
    networking = client.NetworkingV1Api()
    port = client.V1NetworkPolicyPort(port=5432, protocol="TCP")
    ingress = client.V1NetworkPolicyIngressRule(ports=[port], _from=[client.V1NetworkPolicyPeer(pod_selector=client.V1LabelSelector(match_labels={"app": "api"}))])
    spec = client.V1NetworkPolicySpec(pod_selector=client.V1LabelSelector(), ingress=[ingress], policy_types=["Ingress"])
    networking.create_namespaced_network_policy(namespace, client.V1NetworkPolicy(metadata=client.V1ObjectMeta(name="db"), spec=spec))
    read = networking.read_namespaced_network_policy("db", namespace).spec
    assert read.ingress[0].ports[0].port == 5432 and read.ingress[0]._from[0].pod_selector.match_labels == {"app": "api"}
    service = client.V1Service(metadata=client.V1ObjectMeta(name="db"), spec=client.V1ServiceSpec(selector={"app": "db"}, ports=[client.V1ServicePort(port=5432)]))
    made = client.CoreV1Api().create_namespaced_service(namespace, service)
    assert made.spec.cluster_ip.startswith("10.") and made.spec.ports[0].target_port == 5432 and made.spec.type == "ClusterIP"
    rule = client.V1IngressRule(host="shop.example", http=client.V1HTTPIngressRuleValue(paths=[client.V1HTTPIngressPath(path="/", path_type="Prefix", backend=client.V1IngressBackend(service=client.V1IngressServiceBackend(name="db", port=client.V1ServiceBackendPort(number=5432))))]))
    networking.create_namespaced_ingress(namespace, client.V1Ingress(metadata=client.V1ObjectMeta(name="front"), spec=client.V1IngressSpec(rules=[rule])))
    assert networking.list_ingress_for_all_namespaces(field_selector=f"metadata.namespace={namespace}").items[0].spec.rules[0].host == "shop.example"


@rule
def errors_carry_a_status_that_says_what_is_wrong(namespace):
    core = client.CoreV1Api()
    missing = refused(404, core.read_namespaced_pod, "none", namespace)
    assert missing["reason"] == "NotFound" and missing["details"] == {"name": "none", "kind": "pods"}, missing
    wrong = refused(422, core.create_namespaced_service, namespace, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 70000, "targetPort": 80}], "type": "ClusterIp"}})
    fields = sorted(cause["field"] for cause in wrong["details"]["causes"])
    assert fields == ["spec.ports[0].port", "spec.type"], wrong
    core.create_namespaced_config_map(namespace, configmap("a", {}))
    assert refused(409, core.create_namespaced_config_map, namespace, configmap("a", {}))["reason"] == "AlreadyExists"
    fresh = client.Configuration()
    fresh.host, fresh.ssl_ca_cert = core.api_client.configuration.host, core.api_client.configuration.ssl_ca_cert
    nobody = client.ApiClient(fresh, header_name="Authorization", header_value="Bearer none")
    assert refused(401, client.CoreV1Api(nobody).list_namespaced_pod, namespace)["reason"] == "Unauthorized"
    anonymous = client.CoreV1Api(client.ApiClient(fresh))
    assert "system:anonymous" in refused(403, anonymous.list_namespaced_pod, namespace)["message"]


@rule
def lists_come_in_pages_of_one_moment(namespace):
    core = client.CoreV1Api()
    for number in range(7):
        core.create_namespaced_config_map(namespace, configmap(f"c{number}", {}, labels={"paged": "yes"}))
    names, after, revisions = [], None, set()
    while True:
        page = core.list_namespaced_config_map(namespace, label_selector="paged", limit=3, _continue=after)
        names += [item.metadata.name for item in page.items]
        revisions.add(page.metadata.resource_version)
        after = page.metadata._continue
        if not after:
            break
        core.create_namespaced_config_map(namespace, configmap(f"c0late{len(names)}", {}, labels={"paged": "yes"}))
    assert names == [f"c{number}" for number in range(7)] and len(revisions) == 1, (names, revisions)
    core.delete_collection_namespaced_config_map(namespace, label_selector="paged")
    assert not core.list_namespaced_config_map(namespace, label_selector="paged").items


@rule
def a_watch_tells_every_change_in_order(namespace):
    core = client.CoreV1Api()
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.create_namespaced_config_map(namespace, configmap("w", {"k": "1"}))
    core.patch_namespaced_config_map("w", namespace, {"data": {"k": "2"}})
    core.delete_namespaced_config_map("w", namespace)
    seen = []
    for event in watch.Watch().stream(core.list_namespaced_config_map, namespace, resource_version=start, field_selector="metadata.name=w", timeout_seconds=30):
        seen.append((event["type"], event["object"].data["k"]))
        if event["type"] == "DELETED":
            break
    assert seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")], seen
    try:
        for _ in watch.Watch().stream(core.list_namespaced_config_map, namespace, resource_version="99999999999", timeout_seconds=1):
            pass
    except ApiException as error:
        assert error.status in (410, 504), error


@rule
def exec_carries_streams_and_the_exit_code(namespace):
    core = running(namespace, "p", ["sleep", "9999"])
    said = stream(core.connect_get_namespaced_pod_exec, "p", namespace, command=["sh", "-c", "echo out; echo err >&2"], stdout=True, stderr=True)
    assert sorted(said.split()) == ["err", "out"], said
    shell = stream(core.connect_get_namespaced_pod_exec, "p", namespace, command=["sh"], stdin=True, stdout=True, stderr=True, _preload_content=False)
    shell.write_stdin("echo hello $((6*7)); exit 3\n")
    shell.run_forever(timeout=30)
    assert shell.read_stdout() == "hello 42\n" and shell.returncode == 3, shell.returncode


@rule
def logs_are_read_and_followed(namespace):
    core = running(namespace, "p", ["sh", "-c", "for n in 1 2 3; do echo line $n; sleep 0.1; done; sleep 9999"])
    lines = []
    for line in watch.Watch().stream(core.read_namespaced_pod_log, "p", namespace, follow=True):
        lines.append(line)
        if len(lines) == 3:
            break
    assert lines == ["line 1", "line 2", "line 3"], lines
    assert core.read_namespaced_pod_log("p", namespace, tail_lines=1) == "line 3\n"


@rule
def port_forward_reaches_the_pod(namespace):
    container = client.V1Container(name="web", image="nginx:1.27", ports=[client.V1ContainerPort(container_port=80)])
    core = client.CoreV1Api()
    core.create_namespaced_pod(namespace, client.V1Pod(metadata=client.V1ObjectMeta(name="web"), spec=client.V1PodSpec(containers=[container])))
    for event in watch.Watch().stream(core.list_namespaced_pod, namespace, timeout_seconds=60):
        if event["object"].status.phase == "Running":
            break
    forward = portforward(core.connect_get_namespaced_pod_portforward, "web", namespace, ports="80")
    http = forward.socket(80)
    http.setblocking(True)
    http.sendall(b"GET /path HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
    answer = b""
    while piece := http.recv(4096):
        answer += piece
    http.close()
    assert answer.startswith(b"HTTP/1.1 200") and b"GET /path" in answer, answer
    assert forward.error(80) is None, forward.error(80)


@rule
def the_dynamic_client_discovers_applies_and_watches(namespace):
    api = dynamic.DynamicClient(client.ApiClient())
    deployments = api.resources.get(api_version="apps/v1", kind="Deployment")
    assert deployments.namespaced and "deploy" in deployments.short_names
    body = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}},
                 "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "nginx"}]}}},
    }
    made = deployments.server_side_apply(body=body, namespace=namespace, field_manager="python")
    assert made.metadata.managedFields[0].manager == "python" and made.metadata.managedFields[0].operation == "Apply"
    body["spec"]["replicas"] = 1
    try:
        deployments.server_side_apply(body=body, namespace=namespace, field_manager="other")
        raise AssertionError("no conflict")
    except ConflictError as error:
        assert 'conflict with "python"' in json.loads(error.body)["message"], error.body
    forced = deployments.server_side_apply(body=body, namespace=namespace, field_manager="other", force_conflicts=True)
    assert forced.spec.replicas == 1
    scaled = deployments.scale.patch(name="web", namespace=namespace, body={"spec": {"replicas": 0}}, content_type="application/merge-patch+json")
    assert scaled.kind == "Scale" and not scaled.spec.replicas
    events = [event["type"] for event in deployments.watch(namespace=namespace, timeout=1)]
    assert events[0] == "ADDED", events
    assert [item.metadata.name for item in deployments.get(namespace=namespace).items] == ["web"]
    deployments.delete(name="web", namespace=namespace, body={"propagationPolicy": "Background"})
    try:
        deployments.get(name="web", namespace=namespace)
        raise AssertionError("it is still there")
    except NotFoundError:
        pass
    assert {"v1"} <= {resource.group_version for resource in api.resources.search(kind="Pod")}


@rule
def manifests_are_created_as_they_are_written(namespace):
    documents = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
        {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}},
    ]
    for document in documents:
        utils.create_from_dict(client.ApiClient(), document, namespace=namespace)
    review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=client.V1ResourceAttributes(namespace=namespace, verb="get", resource="pods")))
    assert client.AuthorizationV1Api().create_self_subject_access_review(review).status.allowed
    token = client.CoreV1Api().create_namespaced_service_account_token("default", namespace, {"spec": {"expirationSeconds": 600}})
    assert token.status.token.count(".") == 2
    assert client.VersionApi().get_code().git_version.startswith("v1.36")


def main():
    config.load_kube_config()
    core = client.CoreV1Api()
    for function in RULES:
        namespace = function.__name__.replace("_", "-")[:60].rstrip("-")
        core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=namespace)))
        core.list_namespaced_service_account(namespace)
        function(namespace)
        print(function.__name__, flush=True)


if __name__ == "__main__":
    threading.excepthook = lambda arguments: sys.exit(f"{arguments.exc_type}: {arguments.exc_value}")
    socket.setdefaulttimeout(60)
    main()
