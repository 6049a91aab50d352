//! Certificates asked for, approved and used; tokens in Secrets; flow control as kubectl shows it.

use crate::support::Bench;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_asked_for_and_approved_makes_a_user_who_is_bound_by_rbac() {
    let bench = Bench::start().await;
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "dev");
    params.distinguished_name.push(DnType::CommonName, "jane");
    let request = params.serialize_request(&key).expect("a request").pem().expect("PEM");
    bench.terminal.write("jane.key", &key.serialize_pem());
    bench.terminal.write(
        "csr.yaml",
        &format!(
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata:\n  name: jane\nspec:\n  \
             request: {}\n  signerName: kubernetes.io/kube-apiserver-client\n  expirationSeconds: 86400\n  usages:\n  \
             - client auth\n",
            STANDARD.encode(request)
        ),
    );
    bench
        .transcript(
            r#"$ kubectl apply -f csr.yaml
            certificatesigningrequest.certificates.k8s.io/jane created
            $ kubectl get csr
            NAME   AGE   SIGNERNAME                            REQUESTOR          REQUESTEDDURATION   CONDITION
            jane   …s    kubernetes.io/kube-apiserver-client   kubernetes-admin   24h                 Pending
            $ kubectl certificate approve jane
            certificatesigningrequest.certificates.k8s.io/jane approved
            $ kubectl wait csr jane --for=jsonpath='{.status.certificate}' --timeout=30s
            certificatesigningrequest.certificates.k8s.io/jane condition met
            $ kubectl get csr jane -o jsonpath='{.status.conditions[0].type} {.status.conditions[0].reason}'
            Approved KubectlApprove
            $ kubectl get csr jane -o jsonpath='{.status.certificate}' | base64 -d > jane.crt; head -1 jane.crt
            -----BEGIN CERTIFICATE-----
            $ kubectl create role reader --verb=get,list --resource=pods
            role.rbac.authorization.k8s.io/reader created
            $ kubectl create rolebinding readers --role=reader --group=dev
            rolebinding.rbac.authorization.k8s.io/readers created
            $ server=$(kubectl config view --minify -o jsonpath='{.clusters[0].cluster.server}')
            > k="kubectl --kubeconfig /dev/null --server $server --insecure-skip-tls-verify --client-certificate jane.crt --client-key jane.key"
            > $k auth whoami -o jsonpath='{.status.userInfo.username} {.status.userInfo.groups}{"\n"}'; $k get pods; $k get secrets
            jane ["dev","system:authenticated"]
            No resources found in default namespace.
            Error from server (Forbidden): secrets is forbidden: User "jane" cannot list resource "secrets" in API group "" in the namespace "default"
            [exit 1]"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_for_a_service_account_is_filled_with_a_token_that_works() {
    let bench = Bench::start().await;
    bench.terminal.write(
        "secret.yaml",
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/service-account-token\nmetadata:\n  name: robot-token\n  \
         annotations:\n    kubernetes.io/service-account.name: robot\n",
    );
    bench
        .transcript(
            r#"$ kubectl create serviceaccount robot
            serviceaccount/robot created
            $ kubectl apply -f secret.yaml
            secret/robot-token created
            $ kubectl wait secret robot-token --for=jsonpath='{.data.token}' --timeout=30s
            secret/robot-token condition met
            $ kubectl describe secret robot-token | sed -n 's/^\(Type\|namespace\|ca.crt\):.*/\1/p' | sort
            Type
            ca.crt
            namespace
            $ server=$(kubectl config view --minify -o jsonpath='{.clusters[0].cluster.server}')
            > token=$(kubectl get secret robot-token -o jsonpath='{.data.token}' | base64 -d)
            > k="kubectl --kubeconfig /dev/null --server $server --insecure-skip-tls-verify --token $token"
            > $k auth whoami -o jsonpath='{.status.userInfo.username}{"\n"}'
            > kubectl delete secret robot-token; $k get pods
            system:serviceaccount:default:robot
            secret "robot-token" deleted from default namespace
            error: You must be logged in to the server (Unauthorized)
            [exit 1]"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_can_be_bound_to_a_pod() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"$ kubectl run web --image=registry.k8s.io/pause
            pod/web created
            $ kubectl wait pod web --for=condition=Ready --timeout=60s
            pod/web condition met
            $ kubectl create token default --bound-object-kind=Pod --bound-object-name=web > token
            > server=$(kubectl config view --minify -o jsonpath='{.clusters[0].cluster.server}')
            > k="kubectl --kubeconfig /dev/null --server $server --insecure-skip-tls-verify --token $(cat token)"
            > $k auth whoami -o jsonpath='{.status.userInfo.extra.authentication\.kubernetes\.io/pod-name}{"\n"}'
            > kubectl delete pod web --now; $k get pods
            ["web"]
            pod "web" deleted from default namespace
            error: You must be logged in to the server (Unauthorized)
            [exit 1]
            $ kubectl create token default --bound-object-kind=Pod --bound-object-name=web
            error: failed to create token: pods "web" not found
            [exit 1]
            $ kubectl create token default --duration=1m
            error: failed to create token: TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes
            [exit 1]"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flow_control_is_there_to_be_looked_at() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"$ kubectl wait flowschemas --all --for=jsonpath='{.status.conditions[0].status}'=False --timeout=30s | wc -l
            13
            $ kubectl get flowschemas | awk '{print $1, $2, $3, $4, $6}'
            NAME PRIORITYLEVEL MATCHINGPRECEDENCE DISTINGUISHERMETHOD MISSINGPL
            catch-all catch-all 10000 ByUser False
            endpoint-controller workload-high 150 ByUser False
            exempt exempt 1 <none> False
            global-default global-default 9900 ByUser False
            kube-controller-manager workload-high 800 ByNamespace False
            kube-scheduler workload-high 800 ByNamespace False
            kube-system-service-accounts workload-high 900 ByNamespace False
            probes exempt 2 <none> False
            service-accounts workload-low 9000 ByUser False
            system-leader-election leader-election 100 ByUser False
            system-node-high node-high 400 ByUser False
            system-nodes system 500 ByUser False
            workload-leader-election leader-election 200 ByUser False
            $ kubectl get prioritylevelconfigurations workload-low exempt | awk '{print $1, $2, $3, $4, $5, $6}'
            NAME TYPE NOMINALCONCURRENCYSHARES QUEUES HANDSIZE QUEUELENGTHLIMIT
            workload-low Limited 100 128 6 50
            exempt Exempt <none> <none> <none> <none>
            $ kubectl get --raw /metrics | grep -c '^apiserver_flowcontrol_nominal_limit_seats'
            8"#,
        )
        .await;
    bench.stop().await;
}
