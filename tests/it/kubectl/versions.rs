//! The versions of kubectl that a server of 1.36 must serve, one older and one newer, and helm beside them.

use crate::support::{Bench, tools};
use coracle::Cluster;

async fn everyday_commands_work_with(minor: &str) {
    let bench = Bench::with_kubectl(Cluster::builder(), minor).await;
    let client = bench.ok("kubectl version").await;
    assert!(client.starts_with(&format!("Client Version: v{minor}.")), "{client}");
    bench
        .transcript(
            r#"$ kubectl get nodes -o name
            node/node-1
            node/node-2
            $ kubectl create deployment web --image=nginx:1.27 --replicas=2 --port=80
            deployment.apps/web created
            $ kubectl rollout status deployment/web --timeout=60s
            …
            deployment "web" successfully rolled out
            $ kubectl expose deployment web
            service/web exposed
            $ kubectl run client --image=busybox --command -- sleep 9999
            pod/client created
            $ kubectl wait pod/client --for=condition=Ready --timeout=60s
            pod/client condition met
            $ kubectl exec client -- wget -qO- http://web | head -1
            Stand-in for: nginx:1.27
            $ echo hello | kubectl exec -i client -- cat
            hello
            $ kubectl create configmap c --from-literal=a=b --dry-run=client -o yaml | kubectl apply -f -
            configmap/c created
            $ kubectl create configmap c --from-literal=a=c --dry-run=client -o yaml | kubectl apply --server-side --force-conflicts -f -
            configmap/c serverside-applied
            $ kubectl get configmap c -o jsonpath='{.data.a}'
            c
            $ kubectl describe service web | grep ^Type
            Type: ClusterIP
            $ kubectl auth can-i create pods
            yes
            $ kubectl delete deployment,service web
            deployment.apps "web" deleted from default namespace
            service "web" deleted from default namespace"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_one_version_older_works() {
    everyday_commands_work_with("1.35").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_one_version_newer_works() {
    everyday_commands_work_with("1.37").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_installs_upgrades_rolls_back_and_uninstalls() {
    let bench = Bench::start().await;
    assert!(tools::kubectl("1.36").await.with_file_name("helm").is_file(), "helm comes with kubectl");
    bench.terminal.write("web/Chart.yaml", "apiVersion: v2\nname: web\nversion: 0.1.0\n");
    bench.terminal.write("web/values.yaml", "replicas: 2\n");
    bench.terminal.write(
        "web/templates/all.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {{ .Release.Name }}\nspec:\n  replicas: {{ .Values.replicas }}\n  \
         selector:\n    matchLabels: {app: web}\n  template:\n    metadata:\n      labels: {app: web}\n    spec:\n      containers:\n      \
         - {name: web, image: 'nginx:1.27'}\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: {{ .Release.Name }}\nspec:\n  \
         selector: {app: web}\n  ports: [{port: 80}]\n",
    );
    bench
        .transcript(
            r#"$ helm install site web --wait --timeout 60s
            NAME: site
            LAST DEPLOYED: …
            NAMESPACE: default
            STATUS: deployed
            REVISION: 1
            …
            $ helm upgrade site web --set replicas=3 --wait --timeout 60s
            Release "site" has been upgraded. Happy Helming!
            …
            REVISION: 2
            …
            $ kubectl get deployment site
            NAME   READY   UP-TO-DATE   AVAILABLE   AGE
            site   3/3     3            3           …s
            $ helm rollback site 1 --wait --timeout 60s
            Rollback was a success! Happy Helming!
            $ kubectl get deployment site -o jsonpath='{.spec.replicas}'
            2
            $ helm list
            NAME   NAMESPACE   REVISION   UPDATED   STATUS   CHART   APP VERSION
            site   default     3          …         deployed web-0.1.0
            $ helm uninstall site
            release "site" uninstalled
            $ kubectl get deployment,service site
            Error from server (NotFound): deployments.apps "site" not found
            Error from server (NotFound): services "site" not found
            [exit 1]"#,
        )
        .await;
    bench.stop().await;
}
