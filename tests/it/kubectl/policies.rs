//! An isolated pod seen with kubectl: what policies must not keep away, and from where they keep what away.

use super::pods::Ongoing;
use crate::support::{Bench, http};

const ISOLATED: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: isolated}
spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress, Egress]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, labels: {app: db}}
spec:
  nodeName: node-1
  containers:
  - name: web
    image: nginx:1.27
    ports: [{containerPort: 80}]
    startupProbe: {exec: {command: ['true']}, periodSeconds: 1}
    readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
    livenessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}
  - {name: shell, image: busybox, command: [sh, -c, 'echo started; sleep 9999']}
---
apiVersion: v1
kind: Pod
metadata: {name: talker, labels: {app: db}}
spec:
  restartPolicy: Never
  containers: [{name: talker, image: busybox, stdin: true, stdinOnce: true, command: [sh, -c, 'read line; echo heard $line']}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  nodeName: node-1
  containers:
  - {name: web, image: 'nginx:1.27', ports: [{containerPort: 80}]}
  - {name: shell, image: busybox, command: [sleep, '9999']}
---
apiVersion: v1
kind: Pod
metadata: {name: on-node-1}
spec: {nodeName: node-1, hostNetwork: true, containers: [{name: shell, image: busybox, command: [sleep, '9999']}]}
---
apiVersion: v1
kind: Pod
metadata: {name: on-node-2}
spec: {nodeName: node-2, hostNetwork: true, containers: [{name: shell, image: busybox, command: [sleep, '9999']}]}
";

const LET_NODE_2_IN: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: node-2}
spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{ipBlock: {cidr: 172.18.0.3/32}}]}]}
";

async fn bench() -> Bench {
    let bench = Bench::start().await;
    bench.terminal.write("isolated.yaml", ISOLATED);
    bench.terminal.write("node-2.yaml", LET_NODE_2_IN);
    bench.ok("kubectl apply -f isolated.yaml").await;
    bench.ok("kubectl wait pod --all --for=condition=Ready --timeout=60s").await;
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_10_logs_exec_attach_port_forward_and_probes_of_an_isolated_pod_work() {
    let bench = bench().await; // all probes have succeeded
    bench
        .transcript(
            r#"$ kubectl exec client -c shell -- wget -T 1 -qO- http://$(kubectl get pod db -o jsonpath={.status.podIP}) 2>/dev/null
            [exit 1]
            $ kubectl exec db -c shell -- wget -T 1 -qO- http://$(kubectl get pod client -o jsonpath={.status.podIP}) 2>/dev/null
            [exit 1]
            $ kubectl logs db -c shell
            started
            $ kubectl exec db -c shell -- echo inside
            inside
            $ echo words | kubectl exec -i db -c shell -- cat
            words
            $ echo hello | kubectl attach -i talker 2>/dev/null
            heard hello"#,
        )
        .await;
    let mut forward = Ongoing::start(&bench, "kubectl port-forward pod/db :80");
    let line = forward.line().await;
    let port = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.strip_suffix(" -> 80"));
    let port: u16 = port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{line}"));
    let (status, page) = http::get(([127, 0, 0, 1], port).into(), "/").await.expect("an answer");
    assert!(status == 200 && page.contains("Pod: db"), "{page}");
    // A minute of probes that fail would have restarted it.
    let restarts = bench.ok("kubectl get pod db -o jsonpath='{.status.containerStatuses[*].restartCount}'").await;
    assert_eq!(restarts, "0 0");
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_10_a_pods_own_node_is_let_in_and_another_node_only_by_a_policy_for_its_address() {
    let bench = bench().await;
    bench
        .transcript(
            r#"$ kubectl exec on-node-1 -- wget -qO- http://$(kubectl get pod db -o jsonpath={.status.podIP}) | grep Pod:
            Pod: db…
            $ kubectl exec on-node-2 -- wget -T 1 -qO- http://$(kubectl get pod db -o jsonpath={.status.podIP}) 2>/dev/null
            [exit 1]
            $ kubectl apply -f node-2.yaml
            networkpolicy.networking.k8s.io/node-2 created
            $ kubectl exec on-node-2 -- wget -qO- http://$(kubectl get pod db -o jsonpath={.status.podIP}) | grep Pod:
            Pod: db…
            $ kubectl exec client -c shell -- wget -T 1 -qO- http://$(kubectl get pod db -o jsonpath={.status.podIP}) 2>/dev/null
            [exit 1]"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_that_are_to_be_watched_say_what_does_instead() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"$ kubectl get flows -w
            Error from server (MethodNotAllowed): flows cannot be watched: their counters change with every packet. What happens to them is a stream: coracle flows -f, or kubectl create --raw '/apis/net.coracle.dev/v1alpha1/flowlogs?follow=true' -f /dev/null
            [exit 1]
            $ kubectl create --raw '/apis/net.coracle.dev/v1alpha1/flowlogs?last=1' -f /dev/null | grep -o '"verdict":"FORWARDED"'
            "verdict":"FORWARDED""#,
        )
        .await;
    bench.stop().await;
}
