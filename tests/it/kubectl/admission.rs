//! What a namespace allows: quotas, limits and Pod Security, as the user sees them.

use crate::support::Bench;
use std::time::Duration;

/// Waits until a line of shell prints something.
async fn until_printed(bench: &Bench, line: &str) -> String {
    let wait = async {
        loop {
            let ran = bench.sh(line).await;
            if !ran.stdout.trim().is_empty() {
                return ran.stdout;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("`{line}` prints nothing"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_shown_kept_and_freed() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"$ kubectl create namespace team
            namespace/team created
            $ kubectl config set-context --current --namespace=team > /dev/null
            $ kubectl create quota q --hard=pods=2,requests.cpu=2,limits.memory=1Gi,count/configmaps=3,services.nodeports=1
            resourcequota/q created
            $ kubectl get quota
            NAME   REQUEST                                                                              LIMIT                  AGE
            q      count/configmaps: 1/3, pods: 0/2, requests.cpu: 0/2, services.nodeports: 0/1   limits.memory: 0/1Gi   …s
            $ kubectl run bare --image=nginx
            Error from server (Forbidden): pods "bare" is forbidden: failed quota: q: must specify limits.memory for: bare; requests.cpu for: bare
            [exit 1]
            $ kubectl create -f - <<E
            > {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "defaults"}, "spec": {"limits": [
            > {"type": "Container", "default": {"memory": "256Mi"}, "defaultRequest": {"cpu": "400m", "memory": "128Mi"}}]}}
            > E
            limitrange/defaults created
            $ kubectl run one --image=nginx
            pod/one created
            $ kubectl run two --image=nginx --dry-run=server
            pod/two created (server dry run)
            $ kubectl describe quota q
            Name:               q
            Namespace:          team
            Resource            Used   Hard
            --------            ----   ----
            count/configmaps    1      3
            limits.memory       256Mi  1Gi
            pods                1      2
            requests.cpu        400m   2
            services.nodeports  0      1
            $ kubectl create deployment web --image=nginx --replicas=3
            deployment.apps/web created
            $ kubectl create service nodeport a --tcp=80
            service/a created
            $ kubectl create service nodeport b --tcp=80
            error: failed to create NodePort service: services "b" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1
            [exit 1]"#,
        )
        .await;
    let refused = "kubectl get events --field-selector reason=FailedCreate -o custom-columns=M:.message --no-headers";
    let event = until_printed(&bench, refused).await;
    assert!(
        event.contains("is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"),
        "{event}"
    );
    assert!(event.starts_with("Error creating: pods \"web-"), "{event}");
    bench
        .transcript(
            r#"$ kubectl get quota q -o jsonpath='{.status.used.pods} {.status.used.requests\.cpu}'
            2 800m
            $ kubectl get deployment web -o jsonpath='{.status.conditions[?(@.type=="ReplicaFailure")].reason}'
            FailedCreate
            $ kubectl delete pod one --now
            pod "one" deleted from team namespace
            $ kubectl patch quota q --type=merge -p '{"spec":{"hard":{"pods":"9","requests.cpu":"4"}}}'
            resourcequota/q patched
            $ kubectl rollout status deployment/web --timeout=90s
            …
            deployment "web" successfully rolled out
            $ kubectl describe namespace team
            Name:         team
            Labels:       kubernetes.io/metadata.name=team
            Annotations:  <none>
            Status:       Active
            Resource Quotas
            Name:               q
            Resource            Used   Hard
            --------            ---    ---
            count/configmaps    1      3
            limits.memory       768Mi  1Gi
            pods                3      9
            requests.cpu        1200m  4
            services.nodeports  1      1
            Resource Limits
            Type       Resource  Min  Max  Default Request  Default Limit  Max Limit/Request Ratio
            ----       --------  ---  ---  ---------------  -------------  -----------------------
            …
            …
            $ kubectl scale deployment/web --replicas=0
            deployment.apps/web scaled
            $ kubectl wait --for=delete pod -l app=web --timeout=60s > /dev/null
            $ kubectl get quota q -o jsonpath='{.status.used.pods}'
            0
            $ kubectl create quota wrong --hard=bananas=1
            error: failed to create quota: ResourceQuota "wrong" is invalid: spec.hard[bananas]: Invalid value: "bananas": must be a standard resource for quota
            [exit 1]"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_security_warns_refuses_and_lets_hardened_pods_run() {
    let bench = Bench::start().await;
    let restricted = r#"allowPrivilegeEscalation != false (container "web" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "web" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "web" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "web" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#;
    bench
        .transcript(
            &r#"$ kubectl create namespace safe
            namespace/safe created
            $ kubectl config set-context --current --namespace=safe > /dev/null
            $ kubectl run web --image=nginx
            pod/web created
            $ kubectl label namespace safe pod-security.kubernetes.io/enforce=restricted
            Warning: existing pods in namespace "safe" violate the new PodSecurity enforce level "restricted:latest"
            Warning: web: allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile
            namespace/safe labeled
            $ kubectl label namespace safe pod-security.kubernetes.io/audit=strict
            The Namespace "safe" is invalid: metadata.labels[pod-security.kubernetes.io/audit]: Invalid value: "strict": must be one of privileged, baseline, restricted
            [exit 1]
            $ kubectl label pod web still=fine
            pod/web labeled
            $ kubectl delete pod web --now
            pod "web" deleted from safe namespace
            $ kubectl run web --image=nginx
            Error from server (Forbidden): pods "web" is forbidden: violates PodSecurity "restricted:latest": RESTRICTED
            [exit 1]
            $ kubectl create deployment api --image=web --port=80 2>&1 | grep -c 'Warning: would violate PodSecurity "restricted:latest"'
            1
            $ kubectl apply -f - <<E
            > {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hardened"}, "spec": {
            > "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            > "containers": [{"name": "c", "image": "nginx", "securityContext": {
            > "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}}
            > E
            pod/hardened created
            $ kubectl wait --for=condition=Ready pod/hardened --timeout=60s
            pod/hardened condition met"#
                .replace("RESTRICTED", restricted),
        )
        .await;
    let refused = "kubectl get events --field-selector reason=FailedCreate -o custom-columns=M:.message --no-headers";
    let event = until_printed(&bench, refused).await;
    assert!(
        event.contains("is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false"),
        "{event}"
    );
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_in_use_stays_until_its_pod_is_gone() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"$ kubectl apply -f - <<E
            > {"apiVersion": "v1", "kind": "List", "items": [
            > {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
            >   "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
            > {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "user"}, "spec": {
            >   "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            >   "containers": [{"name": "c", "image": "nginx", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}}]}
            > E
            persistentvolumeclaim/data created
            pod/user created
            $ kubectl wait --for=condition=Ready pod/user --timeout=60s
            pod/user condition met
            $ kubectl delete pvc data --wait=false
            persistentvolumeclaim "data" deleted from default namespace
            $ kubectl get pvc data
            NAME   STATUS        VOLUME   CAPACITY   ACCESS MODES   STORAGECLASS   VOLUMEATTRIBUTESCLASS   AGE
            data   Terminating   pvc-…    1Gi        RWO                           <unset>                 …s
            $ kubectl delete pod user --now
            pod "user" deleted from default namespace
            $ kubectl wait --for=delete pvc/data --timeout=60s > /dev/null
            $ kubectl wait --for=delete pv --all --timeout=60s > /dev/null
            $ kubectl get pvc,pv
            No resources found"#,
        )
        .await;
    bench.stop().await;
}
