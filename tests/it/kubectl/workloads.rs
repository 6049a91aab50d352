//! Deployments and their rollouts, jobs, nodes and their maintenance.

use crate::support::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_rolled_out_scaled_restarted_and_undone() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"$ kubectl create deployment web --image=nginx:1.27 --replicas=2 --port=80
            deployment.apps/web created
            $ kubectl rollout status deployment/web --timeout=60s
            …
            deployment "web" successfully rolled out
            $ kubectl get deployment web -o wide
            NAME   READY   UP-TO-DATE   AVAILABLE   AGE   CONTAINERS   IMAGES       SELECTOR
            web    2/2     2            2           …s    nginx        nginx:1.27   app=web
            $ kubectl get replicasets
            NAME    DESIRED   CURRENT   READY   AGE
            web-…   2         2         2       …s
            $ kubectl set image deployment/web nginx=nginx:1.28
            deployment.apps/web image updated
            $ kubectl rollout status deployment/web --timeout=60s
            …
            deployment "web" successfully rolled out
            $ kubectl rollout history deployment/web
            deployment.apps/web
            REVISION  CHANGE-CAUSE
            1         <none>
            2         <none>
            $ kubectl rollout undo deployment/web
            deployment.apps/web rolled back
            $ kubectl rollout status deployment/web --timeout=60s
            …
            deployment "web" successfully rolled out
            $ kubectl get deployment web -o jsonpath='{.spec.template.spec.containers[0].image}'
            nginx:1.27
            $ kubectl rollout history deployment/web --revision=3
            deployment.apps/web with revision #3
            Pod Template:
            Labels:	app=web
            pod-template-hash=…
            Containers:
            nginx:
            Image:	nginx:1.27
            Port:	80/TCP
            …
            $ kubectl rollout restart deployment/web
            deployment.apps/web restarted
            $ kubectl rollout status deployment/web --timeout=60s
            …
            deployment "web" successfully rolled out
            $ kubectl rollout pause deployment/web
            deployment.apps/web paused
            $ kubectl rollout pause deployment/web
            error: deployments.apps "web" is already paused
            [exit 1]
            $ kubectl rollout resume deployment/web
            deployment.apps/web resumed
            $ kubectl scale deployment/web --replicas=1 --current-replicas=2
            deployment.apps/web scaled
            $ kubectl scale deployment/web --replicas=1 --current-replicas=2
            error: Expected replicas to be 2, was 1
            [exit 1]
            $ kubectl rollout status deployment/web --timeout=60s
            …
            deployment "web" successfully rolled out
            $ kubectl wait deployment/web --for=jsonpath='{.status.replicas}'=1 --timeout=60s
            deployment.apps/web condition met
            $ kubectl wait deployment/web --for=condition=Available --timeout=60s
            deployment.apps/web condition met
            $ kubectl describe deployment web
            Name:                   web
            Namespace:              default
            CreationTimestamp:      …
            Labels:                 app=web
            Annotations:            deployment.kubernetes.io/revision: 4
            Selector:               app=web
            Replicas:               1 desired | 1 updated | 1 total | 1 available | 0 unavailable
            StrategyType:           RollingUpdate
            MinReadySeconds:        0
            RollingUpdateStrategy:  25% max unavailable, 25% max surge
            Pod Template:
            Labels:  app=web
            Annotations: kubectl.kubernetes.io/restartedAt: 20…
            Containers:
            nginx:
            Image:         nginx:1.27
            Port:          80/TCP
            …
            Conditions:
            Type           Status  Reason
            ----           ------  ------
            Available      True    MinimumReplicasAvailable
            Progressing    True    NewReplicaSetAvailable
            OldReplicaSets: web-…
            NewReplicaSet:  web-… (1/1 replicas created)
            Events:
            Type    Reason             Age   From   Message
            ----    ------             ----  ----   -------
            Normal  ScalingReplicaSet  …     …      Scaled up replica set web-… from 0 to 2
            …
            $ kubectl set env deployment/web MODE=fast
            deployment.apps/web env updated
            $ kubectl set resources deployment/web --limits=cpu=100m
            deployment.apps/web resource requirements updated
            $ kubectl rollout status deployment/web --timeout=60s
            …
            deployment "web" successfully rolled out
            $ kubectl get pods -l app=web -o jsonpath='{.items[*].spec.containers[0].env[0].value} {.items[*].spec.containers[0].resources.requests.cpu}'
            …fast…100m…
            $ kubectl rollout status deployment/none
            Error from server (NotFound): deployments.apps "none" not found
            [exit 1]
            $ kubectl delete deployment web --cascade=foreground
            deployment.apps "web" deleted from default namespace
            $ kubectl get all
            NAME                 TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)   AGE
            service/kubernetes   ClusterIP   10.96.0.1    <none>        443/TCP   …s"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_to_their_end_and_other_kinds_are_kept() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"$ kubectl create job once --image=busybox -- echo done
            job.batch/once created
            $ kubectl wait --for=condition=complete job/once --timeout=60s
            job.batch/once condition met
            $ kubectl get jobs
            NAME   STATUS     COMPLETIONS   DURATION   AGE
            once   Complete   1/1           …s         …s
            $ kubectl logs job/once
            done
            $ kubectl create cronjob tick --image=busybox --schedule='*/5 * * * *' -- date
            cronjob.batch/tick created
            $ kubectl get cronjobs
            NAME   SCHEDULE      TIMEZONE   SUSPEND   ACTIVE   LAST SCHEDULE   AGE
            tick   */5 * * * *   <none>     False     0        <none>          …s
            $ kubectl create job now --from=cronjob/tick
            job.batch/now created
            $ kubectl wait --for=condition=complete job/now --timeout=60s
            job.batch/now condition met
            $ kubectl create deployment web --image=nginx
            deployment.apps/web created
            $ kubectl create poddisruptionbudget web --selector=app=web --min-available=1
            poddisruptionbudget.policy/web created
            $ kubectl get pdb
            NAME   MIN AVAILABLE   MAX UNAVAILABLE   ALLOWED DISRUPTIONS   AGE
            web    1               N/A               …                     …s
            $ kubectl autoscale deployment web --min=1 --max=3 --cpu=50%
            horizontalpodautoscaler.autoscaling/web autoscaled
            $ kubectl get hpa
            NAME   REFERENCE        TARGETS              MINPODS   MAXPODS   REPLICAS   AGE
            web    Deployment/web   cpu: <unknown>/50%   1         3         0          …s
            $ kubectl create priorityclass high --value=10
            priorityclass.scheduling.k8s.io/high created
            $ kubectl get priorityclasses
            NAME                      VALUE        GLOBAL-DEFAULT   AGE   PREEMPTIONPOLICY
            high                      10           false            …s    PreemptLowerPriority
            system-cluster-critical   2000000000   false            …s    PreemptLowerPriority
            system-node-critical      2000001000   false            …s    PreemptLowerPriority"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_cordoned_drained_tainted_and_taken_back() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"$ kubectl create deployment web --image=nginx --replicas=4
            deployment.apps/web created
            $ kubectl rollout status deployment/web --timeout=60s
            …
            deployment "web" successfully rolled out
            $ kubectl run alone --image=busybox --overrides='{"spec":{"nodeName":"node-1"}}' --command -- sleep 9999
            pod/alone created
            $ kubectl wait pod/alone --for=condition=Ready --timeout=60s
            pod/alone condition met
            $ kubectl cordon node-1
            node/node-1 cordoned
            $ kubectl get nodes
            NAME     STATUS                     ROLES    AGE   VERSION
            node-1   Ready,SchedulingDisabled   <none>   …s    v1.36.0
            node-2   Ready                      <none>   …s    v1.36.0
            $ kubectl drain node-1
            node/node-1 already cordoned
            error: unable to drain node "node-1" due to error: cannot delete Pods that declare no controller (use --force to override): default/alone, continuing command...
            There are pending nodes to be drained:
            node-1
            cannot delete Pods that declare no controller (use --force to override): default/alone
            [exit 1]
            $ kubectl drain node-1 --force --grace-period=1 --timeout=60s
            node/node-1 already cordoned
            Warning: deleting Pods that declare no controller: default/alone
            …
            node/node-1 drained
            $ kubectl rollout status deployment/web --timeout=60s
            …
            deployment "web" successfully rolled out
            $ kubectl get pods -A --field-selector spec.nodeName=node-1
            No resources found
            $ kubectl uncordon node-1
            node/node-1 uncordoned
            $ kubectl taint nodes node-1 key=value:NoSchedule
            node/node-1 tainted
            $ kubectl scale deployment web --replicas=6
            deployment.apps/web scaled
            $ kubectl rollout status deployment/web --timeout=60s
            …
            deployment "web" successfully rolled out
            $ kubectl get pods --field-selector spec.nodeName=node-1
            No resources found in default namespace.
            $ kubectl taint nodes node-1 key:NoSchedule-
            node/node-1 untainted
            $ kubectl describe node node-1
            Name:               node-1
            Roles:              <none>
            Labels:             …
            …
            Unschedulable:      false
            …
            Conditions:
            …
            Ready            True    …   KubeletReady   …
            Addresses:
            InternalIP:  172.18.0.2
            Hostname:    node-1
            Capacity:
            …
            PodCIDR:      10.244.1.0/24
            …
            $ kubectl top nodes
            error: Metrics API not available
            [exit 1]"#,
        )
        .await;
    bench.stop().await;
}
