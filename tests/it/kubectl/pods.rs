//! What goes on in pods: exec, logs, cp, run, attach, debug, port-forward, watches and events.

use crate::support::{Bench, http};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

/// A kubectl that goes on while others run; ends with its handle.
pub(super) struct Ongoing {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Ongoing {
    pub(super) fn start(bench: &Bench, line: &str) -> Ongoing {
        let mut command = bench.terminal.command("sh");
        command.args(["-c", &format!("exec {line}")]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a shell");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Ongoing { _child: child, lines }
    }

    /// Its next line.
    pub(super) async fn line(&mut self) -> String {
        let line = tokio::time::timeout(Duration::from_secs(60), self.lines.next_line()).await.expect("a line in time");
        line.expect("readable").expect("a line before the end")
    }

    /// Its lines until its end.
    async fn rest(&mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Some(line) = self.lines.next_line().await.expect("readable") {
            rest.push(line);
        }
        rest
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_carries_streams_and_exit_codes_and_cp_carries_files() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"$ kubectl run tools --image=busybox --command -- sleep 9999
            pod/tools created
            $ kubectl wait pod/tools --for=condition=Ready --timeout=60s
            pod/tools condition met
            $ kubectl exec tools -- sh -c 'exit 3'
            command terminated with exit code 3
            [exit 3]
            $ kubectl exec tools -- sh -c 'echo out; echo err >&2' 2>/dev/null
            out
            $ kubectl exec tools -- sh -c 'echo out; echo err >&2' 2>&1 >/dev/null
            err
            $ echo hello | kubectl exec -i tools -- sh -c 'wc -c; echo after the end of input'
            6
            after the end of input
            $ kubectl exec tools -- sh -c 'cat /etc/hostname; cat /etc/resolv.conf'
            tools
            nameserver 10.96.0.10
            search default.svc.cluster.local svc.cluster.local cluster.local…
            options ndots:5…
            $ kubectl exec tools -- env | grep KUBERNETES_SERVICE
            KUBERNETES_SERVICE_HOST=10.96.0.1
            KUBERNETES_SERVICE_PORT=443
            KUBERNETES_SERVICE_PORT_HTTPS=443
            $ kubectl exec tools -c nothing -- true
            error: container nothing is not valid for pod tools out of: tools
            [exit 1]
            $ kubectl exec nothing -- true
            Error from server (NotFound): pods "nothing" not found
            [exit 1]
            $ head -c 10000000 /dev/urandom > big; kubectl cp big tools:/tmp/big
            $ kubectl exec tools -- sha256sum /tmp/big > inside; sha256sum big > outside
            $ cut -d' ' -f1 inside > a; cut -d' ' -f1 outside > b; cmp a b && echo equal
            equal
            $ kubectl cp tools:/tmp/big back >/dev/null; cmp big back && echo equal
            equal
            $ mkdir -p tree/sub; echo 1 > tree/a; echo 2 > tree/sub/b; kubectl cp tree tools:/tmp/tree
            $ kubectl exec tools -- sh -c 'cat /tmp/tree/a /tmp/tree/sub/b'
            1
            2
            $ kubectl cp tools:/tmp/tree copy >/dev/null; diff -r tree copy && echo equal
            equal
            $ kubectl cp nothing:/x y
            Error from server (NotFound): pods "nothing" not found
            [exit 1]"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_show_what_containers_said_and_go_on_with_what_they_say() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"$ kubectl run speak --image=busybox --restart=Never --command -- sh -c 'echo one; echo two >&2; echo three'
            pod/speak created
            $ kubectl wait pod/speak --for=jsonpath='{.status.phase}'=Succeeded --timeout=60s
            pod/speak condition met
            $ kubectl get pod speak
            NAME    READY   STATUS      RESTARTS   AGE
            speak   0/1     Completed   0          …s
            $ kubectl logs speak
            one
            two
            three
            $ kubectl logs speak --tail=1 --timestamps
            20…T…Z three
            $ kubectl logs speak --limit-bytes=3
            one
            $ kubectl logs speak --previous
            Error from server (BadRequest): previous terminated container "speak" in pod "speak" not found
            [exit 1]
            $ kubectl logs speak -c other
            error: container other is not valid for pod speak out of: speak
            [exit 1]
            $ kubectl logs nothing
            error: error from server (NotFound): pods "nothing" not found in namespace "default"
            [exit 1]
            $ kubectl run crash --image=busybox --command -- sh -c 'echo run; exit 5'
            pod/crash created
            $ kubectl wait pod/crash --for=jsonpath='{.status.containerStatuses[0].state.waiting.reason}'=CrashLoopBackOff --timeout=60s
            pod/crash condition met
            $ kubectl get pod crash
            NAME    READY   STATUS             RESTARTS     AGE
            crash   0/1     CrashLoopBackOff   1 (…s ago)   …s
            $ kubectl logs crash --previous
            run
            $ kubectl get pod crash -o jsonpath='{.status.containerStatuses[0].lastState.terminated.exitCode}'
            5
            $ kubectl run slow --image=busybox --restart=Never --command -- sh -c 'echo first; until [ -f /go ]; do sleep 0.1; done; echo second'
            pod/slow created
            $ kubectl wait pod/slow --for=condition=Ready --timeout=60s
            pod/slow condition met"#,
        )
        .await;
    let mut logs = Ongoing::start(&bench, "kubectl logs -f slow");
    assert_eq!(logs.line().await, "first");
    bench.ok("kubectl exec slow -- touch /go").await;
    assert_eq!(logs.rest().await, ["second"]);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn run_attach_and_debug_show_the_program_and_pass_input_on() {
    let bench = Bench::start().await;
    bench.terminal.write(
        "talker.yaml",
        "{apiVersion: v1, kind: Pod, metadata: {name: talker}, spec: {restartPolicy: Never, containers: [{name: talker, image: \
         busybox, stdin: true, stdinOnce: true, command: [sh, -c, 'read line; echo heard $line']}]}}",
    );
    bench
        .transcript(
            r#"$ kubectl run -it --rm debug --image=busybox --restart=Never 2>/dev/null -- nslookup kubernetes
            Server:		10.96.0.10
            Address:	10.96.0.10#53
            Name:	kubernetes.default.svc.cluster.local
            Address: 10.96.0.1
            pod "debug" deleted from default namespace
            $ echo 'echo hi from $(hostname)' | kubectl run -i --rm shell --image=busybox --restart=Never 2>/dev/null -- sh
            hi from shell
            pod "shell" deleted from default namespace
            $ kubectl run --rm -i fails --image=busybox --restart=Never 2>/dev/null -- sh -c 'exit 4'
            pod "fails" deleted from default namespace
            [exit 4]
            $ kubectl apply -f talker.yaml
            pod/talker created
            $ kubectl wait pod/talker --for=condition=Ready --timeout=60s
            pod/talker condition met
            $ echo hello | kubectl attach -i talker 2>/dev/null
            heard hello
            $ kubectl run target --image=busybox --command -- sleep 9999
            pod/target created
            $ kubectl wait pod/target --for=condition=Ready --timeout=60s
            pod/target condition met
            $ kubectl debug target -c look --image=busybox -- sh -c 'hostname'
            $ kubectl wait pod/target --for=jsonpath='{.status.ephemeralContainerStatuses[0].state.terminated.exitCode}'=0 --timeout=60s
            pod/target condition met
            $ kubectl logs target -c look
            target
            $ kubectl get pod target
            NAME     READY   STATUS    RESTARTS   AGE
            target   1/1     Running   0          …s"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn port_forward_reaches_the_pod_behind_a_service() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"$ kubectl create deployment web --image=nginx:1.27 --port=80
            deployment.apps/web created
            $ kubectl expose deployment web --port=8080 --target-port=80
            service/web exposed
            $ kubectl rollout status deployment/web --timeout=60s
            …
            deployment "web" successfully rolled out
            $ kubectl port-forward svc/web :81
            error: Service web does not have a service port 81
            [exit 1]"#,
        )
        .await;
    let mut forward = Ongoing::start(&bench, "kubectl port-forward svc/web :8080");
    let line = forward.line().await;
    let port = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.strip_suffix(" -> 80"));
    let port: u16 = port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{line}"));
    for path in ["/first", "/second"] {
        let (status, page) = http::get(([127, 0, 0, 1], port).into(), path).await.expect("an answer");
        assert!(status == 200 && page.contains("Pod: web-") && page.contains(&format!("GET {path} ")), "{page}");
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_and_events_tell_a_pods_story_and_watches_its_changes() {
    let bench = Bench::start().await;
    // On no node, so that it stays as it is: a watch that has shown it sees everything that comes after.
    bench.ok("kubectl run before --image=none --overrides='{\"spec\":{\"nodeSelector\":{\"no\":\"node\"}}}'").await;
    let mut watch = Ongoing::start(
        &bench,
        "kubectl get pods --watch -o custom-columns=N:.metadata.name,P:.status.phase --no-headers",
    );
    assert!(watch.line().await.starts_with("before "));
    bench
        .transcript(
            r#"$ kubectl run web --image=nginx:1.27 --port=80 --labels=app=web
            pod/web created
            $ kubectl wait pod/web --for=condition=Ready --timeout=60s
            pod/web condition met
            $ kubectl get pods -l app=web -o wide
            NAME   READY   STATUS    RESTARTS   AGE   IP         NODE     NOMINATED NODE   READINESS GATES
            web    1/1     Running   0          …s    10.244.…   node-…   <none>           <none>
            $ kubectl get pods --field-selector status.phase=Running -o name
            pod/web
            $ kubectl get pods --field-selector status.phase!=Running
            NAME     READY   STATUS    RESTARTS   AGE
            before   0/1     Pending   0          …s
            $ kubectl get pods --field-selector spec.nothing=1
            Error from server (BadRequest): Unable to find "/v1, Resource=pods" that match label selector "", field selector "spec.nothing=1": field label not supported: spec.nothing
            [exit 1]
            $ kubectl describe pod web
            Name:             web
            Namespace:        default
            Priority:         0
            Service Account:  default
            Node:             node-…/172.18.0.…
            Start Time:       …
            Labels:           app=web
            topology.kubernetes.io/zone=zone-…
            Annotations:      <none>
            Status:           Running
            IP:               10.244.…
            IPs:
            IP: 10.244.…
            Containers:
            web:
            Container ID:   coracle://…
            Image:          nginx:1.27
            Image ID:       …
            Port:           80/TCP
            Host Port:      0/TCP
            State:          Running
            Started: …
            Ready:          True
            Restart Count:  0
            Environment:    <none>
            Mounts:
            /var/run/secrets/kubernetes.io/serviceaccount from kube-api-access-… (ro)
            Conditions:
            Type                        Status
            PodReadyToStartContainers   True
            Initialized                 True
            Ready                       True
            ContainersReady             True
            PodScheduled                True
            Volumes:
            kube-api-access-…:
            …
            QoS Class:                   BestEffort
            Node-Selectors:              <none>
            Tolerations:                 node.kubernetes.io/not-ready:NoExecute op=Exists for 300s
            node.kubernetes.io/unreachable:NoExecute op=Exists for 300s
            Events:
            Type    Reason     Age   From                Message
            ----    ------     ----  ----                -------
            Normal  Scheduled  …     default-scheduler   Successfully assigned default/web to node-…
            Normal  StandIn    …     kubelet             Image "nginx:1.27" is not run: a stand-in listens on the declared ports and answers for it
            Normal  Created    …     kubelet             …
            Normal  Started    …     kubelet             …
            $ kubectl events --for pod/web | head -2
            LAST SEEN   TYPE     REASON      OBJECT    MESSAGE
            …           Normal   Scheduled   Pod/web   Successfully assigned default/web to node-…
            $ kubectl get events --field-selector involvedObject.name=web,reason=Scheduled
            LAST SEEN   TYPE     REASON      OBJECT    MESSAGE
            …           Normal   Scheduled   pod/web   Successfully assigned default/web to node-…
            $ kubectl wait --for=delete pod/nothing --timeout=5s
            $ kubectl wait pod/web --for=condition=Nothing --timeout=1s
            error: timed out waiting for the condition on pods/web
            [exit 1]
            $ kubectl delete pod web
            pod "web" deleted from default namespace"#,
        )
        .await;
    let mut seen: Vec<String> = Vec::new();
    while !seen.iter().any(|line| line.starts_with("web ") && line.ends_with("Running")) {
        seen.push(watch.line().await);
    }
    seen.retain(|line| line.starts_with("web "));
    assert!(seen[0].ends_with(" Pending"), "{seen:?}");
    bench.stop().await;
}
