//! Who may do what, and what the server has to offer: auth, tokens, discovery, explain, health.

use crate::support::{Bench, line_set};

#[tokio::test(flavor = "multi_thread")]
async fn roles_decide_what_a_service_account_may_do() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"$ kubectl create serviceaccount robot
            serviceaccount/robot created
            $ kubectl create role reader --verb=get,list --resource=pods
            role.rbac.authorization.k8s.io/reader created
            $ kubectl create rolebinding reader --role=reader --serviceaccount=default:robot
            rolebinding.rbac.authorization.k8s.io/reader created
            $ kubectl auth can-i list pods --as=system:serviceaccount:default:robot
            yes
            $ kubectl auth can-i delete pods --as=system:serviceaccount:default:robot
            no
            [exit 1]
            $ kubectl auth can-i '*' '*'
            yes
            $ kubectl auth can-i --list --as=system:serviceaccount:default:robot | grep '^pods'
            pods [] [] [get list]
            $ kubectl auth whoami
            ATTRIBUTE                                           VALUE
            Username                                            kubernetes-admin
            Groups                                              [system:masters system:authenticated]
            Extra: authentication.kubernetes.io/credential-id   [X509SHA256=…]
            $ kubectl delete pod any --as=system:serviceaccount:default:robot
            Error from server (Forbidden): pods "any" is forbidden: User "system:serviceaccount:default:robot" cannot delete resource "pods" in API group "" in the namespace "default"
            [exit 1]
            $ kubectl create token robot --duration=10m > token; wc -l < token
            0
            $ tr '.' '\n' < token | wc -l
            2
            $ server=$(kubectl config view --minify -o jsonpath='{.clusters[0].cluster.server}')
            > k="kubectl --kubeconfig /dev/null --server $server --insecure-skip-tls-verify --token $(cat token)"
            > $k auth whoami | awk 'NR < 3 {print $1, $2}'; $k get pods; $k get secrets
            ATTRIBUTE VALUE
            Username system:serviceaccount:default:robot
            No resources found in default namespace.
            Error from server (Forbidden): secrets is forbidden: User "system:serviceaccount:default:robot" cannot list resource "secrets" in API group "" in the namespace "default"
            [exit 1]
            $ server=$(kubectl config view --minify -o jsonpath='{.clusters[0].cluster.server}')
            > kubectl --kubeconfig /dev/null --server $server --insecure-skip-tls-verify --token nonsense get pods
            error: You must be logged in to the server (Unauthorized)
            [exit 1]
            $ kubectl create token nobody
            error: failed to create token: serviceaccounts "nobody" not found
            [exit 1]"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_says_what_it_has() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"$ kubectl version
            Client Version: v1.36.3
            Kustomize Version: v…
            Server Version: v1.36.0
            $ kubectl cluster-info
            Kubernetes control plane is running at https://127.0.0.1:…
            CoreDNS is running at https://127.0.0.1:…/api/v1/namespaces/kube-system/services/kube-dns:dns/proxy
            To further debug and diagnose cluster problems, use 'kubectl cluster-info dump'.
            $ kubectl api-resources --api-group=apps
            NAME                  SHORTNAMES   APIVERSION   NAMESPACED   KIND
            controllerrevisions                apps/v1      true         ControllerRevision
            daemonsets            ds           apps/v1      true         DaemonSet
            deployments           deploy       apps/v1      true         Deployment
            replicasets           rs           apps/v1      true         ReplicaSet
            statefulsets          sts          apps/v1      true         StatefulSet
            $ kubectl explain service.spec.sessionAffinity
            KIND:       Service
            VERSION:    v1
            FIELD: sessionAffinity <string>
            …
            $ kubectl explain networkpolicy.spec.ingress.from.ipBlock
            GROUP:      networking.k8s.io
            KIND:       NetworkPolicy
            VERSION:    v1
            FIELD: ipBlock <IPBlock>
            …
            FIELDS:
            cidr	<string> -required-
            …
            except	<[]string>
            …
            $ kubectl explain nothing
            the server doesn't have a resource type "nothing"
            [exit 1]
            $ kubectl explain pod.spec.nothing
            KIND:       Pod
            VERSION:    v1
            error: field "nothing" does not exist
            [exit 1]
            $ kubectl get --raw /healthz
            ok
            $ kubectl get --raw '/readyz?verbose'
            …
            readyz check passed
            $ kubectl get --raw /nothing
            Error from server (NotFound): the server could not find the requested resource
            [exit 1]
            $ kubectl top pods
            error: Metrics API not available
            [exit 1]"#,
        )
        .await;
    let versions = line_set(&bench.ok("kubectl api-versions").await);
    for version in
        ["v1", "apps/v1", "discovery.k8s.io/v1", "networking.k8s.io/v1", "rbac.authorization.k8s.io/v1", "policy/v1"]
    {
        assert!(versions.contains(version), "{version} is missing in {versions:?}");
    }
    // Every kind that can be listed is listed, by its own name.
    let kinds = bench.ok("kubectl api-resources --verbs=list -o name").await;
    assert!(kinds.lines().count() > 40, "{kinds}");
    let all = kinds.lines().collect::<Vec<_>>().join(",");
    bench.ok(&format!("kubectl get {all} -A --ignore-not-found --request-timeout=60s")).await;
    bench.stop().await;
}
