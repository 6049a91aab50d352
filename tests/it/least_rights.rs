//! Every component works as itself, with the rights of its role and no others; none of them asks for more than it has.

use crate::support::Bench;

const WORKLOADS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: work}
---
apiVersion: v1
kind: Secret
metadata: {name: used, namespace: work}
stringData: {word: hello}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: work}
data: {word: hello}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: work}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: nginx:1
        ports: [{containerPort: 80}]
        envFrom: [{secretRef: {name: used}}, {configMapRef: {name: settings}}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: work}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: work}
spec: {minAvailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: work}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: work}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: "nginx:1", volumeMounts: [{name: data, mountPath: /data}]}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: work}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: agent, image: "nginx:1"}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: work}
spec:
  template:
    spec: {restartPolicy: Never, containers: [{name: c, image: "busybox:1", command: [echo, done]}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: often, namespace: work}
spec:
  schedule: "*/1 * * * *"
  jobTemplate:
    spec:
      template:
        spec: {restartPolicy: Never, containers: [{name: c, image: "busybox:1", command: [echo, done]}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: outside, namespace: work}
subsets: [{addresses: [{ip: 192.0.2.1}], ports: [{port: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: work}
spec: {ports: [{port: 80}]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn no_component_asks_for_more_than_its_role_allows() {
    let bench = Bench::start().await;
    bench.terminal.write("work.yaml", WORKLOADS);
    bench.ok("kubectl apply -f work.yaml").await;
    bench.ok("kubectl -n work rollout status deployment/web statefulset/db daemonset/agent --timeout=60s").await;
    bench.ok("kubectl -n work wait job/once --for=condition=complete --timeout=60s").await;
    bench.ok("kubectl -n work set image deployment/web web=nginx:2").await;
    bench.ok("kubectl -n work rollout status deployment/web --timeout=60s").await;
    bench.ok("kubectl -n work rollout undo deployment/web").await;
    bench.ok("kubectl -n work scale deployment/web statefulset/db --replicas=1").await;
    bench.ok("kubectl -n work create job now --from=cronjob/often").await;
    bench.ok("kubectl -n work patch service web -p '{\"spec\":{\"type\":\"ClusterIP\"}}'").await;
    bench.ok("kubectl -n work delete deployment web --cascade=orphan").await;
    bench.ok("kubectl -n work delete statefulset db --cascade=foreground --timeout=60s").await;
    // Nobody brings its pods back, so nothing could ever be evicted.
    bench.ok("kubectl -n work delete poddisruptionbudget web").await;
    bench.ok("kubectl drain node-1 --ignore-daemonsets --delete-emptydir-data --force --timeout=60s").await;
    bench.ok("kubectl uncordon node-1").await;
    bench.ok("kubectl delete namespace work --timeout=60s").await;
    bench.cluster.settled().await;
    let metrics = bench.ok("kubectl get --raw /metrics").await;
    let denied: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("coracle_component_denials_total{")).collect();
    assert!(denied.is_empty(), "components were denied what they asked for:\n{}", denied.join("\n"));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cannot_read_a_secret_that_none_of_its_pods_uses() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"$ kubectl create secret generic used --from-literal=a=b
            secret/used created
            $ kubectl create secret generic unused --from-literal=a=b
            secret/unused created
            $ kubectl run web --image=nginx:1 --overrides='{"spec":{"nodeName":"node-1","containers":[{"name":"web","image":"nginx:1","envFrom":[{"secretRef":{"name":"used"}}]}]}}'
            pod/web created
            $ node="--as=system:node:node-1 --as-group=system:nodes"
            > kubectl get secret used -o name $node; kubectl get secret unused $node; kubectl get secrets $node
            secret/used
            Error from server (Forbidden): secrets "unused" is forbidden: User "system:node:node-1" cannot get resource "secrets" in API group "" in the namespace "default": no relationship found between node 'node-1' and this object
            Error from server (Forbidden): secrets is forbidden: User "system:node:node-1" cannot list resource "secrets" in API group "" in the namespace "default": can only read namespaced object of this type
            [exit 1]
            $ kubectl get secret used --as=system:node:node-2 --as-group=system:nodes
            Error from server (Forbidden): secrets "used" is forbidden: User "system:node:node-2" cannot get resource "secrets" in API group "" in the namespace "default": no relationship found between node 'node-2' and this object
            [exit 1]
            $ kubectl get secrets --as=system:kube-scheduler
            Error from server (Forbidden): secrets is forbidden: User "system:kube-scheduler" cannot list resource "secrets" in API group "" in the namespace "default"
            [exit 1]
            $ kubectl auth can-i create pods --as=system:serviceaccount:kube-system:deployment-controller
            no
            [exit 1]
            $ kubectl auth can-i create replicasets.apps --as=system:serviceaccount:kube-system:deployment-controller
            yes"#,
        )
        .await;
    bench.stop().await;
}
