//! Creating, showing, changing and deleting objects.

use crate::support::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_created_shown_and_deleted() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"$ kubectl create namespace staging
            namespace/staging created
            $ kubectl create namespace staging
            Error from server (AlreadyExists): namespaces "staging" already exists
            [exit 1]
            $ kubectl create configmap settings --from-literal=mode=fast --from-literal=level=3
            configmap/settings created
            $ kubectl create configmap settings --from-literal=mode=fast
            error: failed to create configmap: configmaps "settings" already exists
            [exit 1]
            $ kubectl get configmap settings -o yaml
            apiVersion: v1
            data:
            level: "3"
            mode: fast
            kind: ConfigMap
            metadata:
            creationTimestamp: "20…Z"
            name: settings
            namespace: default
            resourceVersion: "…"
            uid: …-…-…-…-…
            $ kubectl get configmap
            NAME               DATA   AGE
            kube-root-ca.crt   1      …s
            settings           2      …s
            $ kubectl get configmap settings -o jsonpath='{.data.mode}'
            fast
            $ kubectl get cm settings -o json | head -3
            {
            "apiVersion": "v1",
            "data": {
            $ kubectl get cm -o custom-columns=NAME:.metadata.name,LEVEL:.data.level
            NAME               LEVEL
            kube-root-ca.crt   <none>
            settings           3
            $ kubectl get cm,ns -o name
            configmap/kube-root-ca.crt
            configmap/settings
            namespace/default
            namespace/kube-node-lease
            namespace/kube-public
            namespace/kube-system
            namespace/staging
            $ kubectl create secret generic key --from-literal=password=hunter2
            secret/key created
            $ kubectl get secret key -o go-template='{{.data.password | base64decode}}'
            hunter2
            $ kubectl describe secret key
            Name:         key
            Namespace:    default
            Labels:       <none>
            Annotations:  <none>
            Type:         Opaque
            Data
            ====
            password:  7 bytes
            $ kubectl get pods
            No resources found in default namespace.
            $ kubectl get pods -n nowhere
            No resources found in nowhere namespace.
            $ kubectl get configmap nothing
            Error from server (NotFound): configmaps "nothing" not found
            [exit 1]
            $ kubectl get nothing
            error: the server doesn't have a resource type "nothing"
            [exit 1]
            $ kubectl get endpoints kubernetes
            Warning: v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice
            NAME         ENDPOINTS          AGE
            kubernetes   172.18.0.1:6443    …s
            $ kubectl create configmap inner -n staging
            configmap/inner created
            $ kubectl create configmap late -n nowhere
            error: failed to create configmap: namespaces "nowhere" not found
            [exit 1]
            $ kubectl delete namespace staging
            namespace "staging" deleted
            $ kubectl get configmap inner -n staging
            Error from server (NotFound): namespaces "staging" not found
            [exit 1]
            $ kubectl delete configmap settings
            configmap "settings" deleted from default namespace
            $ kubectl delete configmap settings
            Error from server (NotFound): configmaps "settings" not found
            [exit 1]
            $ kubectl delete configmap settings --ignore-not-found
            $ kubectl delete namespace default
            Error from server (Forbidden): namespaces "default" is forbidden: this namespace may not be deleted
            [exit 1]"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_changes_what_its_manifest_says_and_keeps_what_others_wrote() {
    let bench = Bench::start().await;
    bench.terminal.write(
        "app.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: app\n  labels: {team: a}\ndata:\n  keep: one\n  drop: two\n",
    );
    bench
        .transcript(
            r#"$ kubectl diff -f app.yaml > /dev/null
            [exit 1]
            $ kubectl apply -f app.yaml
            configmap/app created
            $ kubectl apply -f app.yaml
            configmap/app unchanged
            $ sed -i /drop/d app.yaml; kubectl diff -f app.yaml | grep '^[-+] '
            - drop: two
            $ kubectl apply -f app.yaml --dry-run=server
            configmap/app configured (server dry run)
            $ kubectl get cm app -o jsonpath='{.data}'
            {"drop":"two","keep":"one"}
            $ kubectl patch configmap app --type=merge -p '{"data":{"other":"three"}}'
            configmap/app patched
            $ kubectl apply -f app.yaml
            configmap/app configured
            $ kubectl get cm app -o jsonpath='{.data}'
            {"keep":"one","other":"three"}
            $ kubectl diff -f app.yaml
            $ kubectl replace -f app.yaml
            configmap/app replaced
            $ kubectl get cm app -o jsonpath='{.data}'
            {"keep":"one"}
            $ KUBE_EDITOR='sed -i s/one/uno/' kubectl edit configmap app
            configmap/app edited
            $ kubectl get cm app -o jsonpath='{.data.keep}'
            uno
            $ KUBE_EDITOR=true kubectl edit configmap app
            Edit cancelled, no changes made.
            $ echo '{apiVersion: v1, kind: ConfigMap, metadata: {name: typo}, dta: {a: b}}' | kubectl apply -f -
            Error from server (BadRequest): error when creating "STDIN": ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dta"
            [exit 1]
            $ echo '{apiVersion: v1, kind: ConfigMap, metadata: {name: typo}, dta: {a: b}}' | kubectl apply --validate=warn -f -
            Warning: unknown field "dta"
            configmap/typo created
            $ echo '{apiVersion: v1, kind: Nothing, metadata: {name: a}}' | kubectl apply -f -
            error: resource mapping not found for name: "a" namespace: "" from "STDIN": no matches for kind "Nothing" in version "v1"
            ensure CRDs are installed first
            [exit 1]
            $ echo '{apiVersion: v1, kind: Pod, metadata: {name: a' | kubectl apply -f -
            error: error parsing STDIN: …
            [exit 1]"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_side_apply_tells_who_owns_a_field() {
    let bench = Bench::start().await;
    bench.terminal.write(
        "web.yaml",
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 1, selector: {matchLabels: {app: web}}, \
         template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: 'nginx:1.27'}]}}}}",
    );
    bench
        .transcript(
            r#"$ kubectl apply --server-side -f web.yaml
            deployment.apps/web serverside-applied
            $ sed -i 's/replicas: 1/replicas: 2/' web.yaml; kubectl apply --server-side --field-manager=other -f web.yaml
            error: Apply failed with 1 conflict: conflict with "kubectl": .spec.replicas
            Please review the fields above--they currently have other managers. Here
            …
            See https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts
            [exit 1]
            $ kubectl apply --server-side --field-manager=other --force-conflicts -f web.yaml
            deployment.apps/web serverside-applied
            $ kubectl get deployment web --show-managed-fields -o jsonpath='{range .metadata.managedFields[*]}{.manager} {.operation} {.fieldsV1.f:spec.f:replicas}{"\n"}{end}'
            kubectl Apply
            other Apply {}
            …
            $ kubectl scale deployment web --replicas=3
            deployment.apps/web scaled
            $ kubectl apply --server-side --field-manager=other -f web.yaml
            error: Apply failed with 1 conflict: conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas
            …
            [exit 1]"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_annotations_and_patches_change_what_they_name() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"$ kubectl create deployment web --image=nginx:1.27 --replicas=2
            deployment.apps/web created
            $ kubectl label deployment web tier=front
            deployment.apps/web labeled
            $ kubectl label deployment web tier=back
            error: 'tier' already has a value (front), and --overwrite is false
            [exit 1]
            $ kubectl label deployment web tier=back --overwrite
            deployment.apps/web labeled
            $ kubectl get deployments -l 'tier in (back,middle),app' -o name
            deployment.apps/web
            $ kubectl get deployments -l tier=front
            No resources found in default namespace.
            $ kubectl label deployment web tier-
            deployment.apps/web unlabeled
            $ kubectl patch deployment web --type=merge -p '{"metadata":{"labels":{"tier":"not valid"}}}'
            The Deployment "web" is invalid: metadata.labels: Invalid value: "not valid": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue', or 'my_value', or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            [exit 1]
            $ kubectl annotate deployment web note=hello
            deployment.apps/web annotated
            $ kubectl get deployment web -o jsonpath='{.metadata.annotations.note}'
            hello
            $ kubectl patch deployment web -p '{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"busybox","command":["sleep","9999"]}]}}}}'
            deployment.apps/web patched
            $ kubectl get deployment web -o jsonpath='{.spec.template.spec.containers[*].name}'
            side nginx
            $ kubectl patch deployment web -p '{"spec":{"template":{"spec":{"containers":[{"name":"side","$patch":"delete"}]}}}}'
            deployment.apps/web patched
            $ kubectl get deployment web -o jsonpath='{.spec.template.spec.containers[*].name}'
            nginx
            $ kubectl patch deployment web --type=merge -p '{"metadata":{"annotations":{"note":null}}}'
            deployment.apps/web patched
            $ kubectl patch deployment web --type=merge -p '{"metadata":{"annotations":{"note":null}}}'
            deployment.apps/web patched (no change)
            $ kubectl patch deployment web --type=json -p '[{"op":"replace","path":"/spec/replicas","value":3}]'
            deployment.apps/web patched
            $ kubectl get deployment web -o jsonpath='{.spec.replicas}'
            3
            $ kubectl patch deployment web --type=json -p '[{"op":"test","path":"/spec/replicas","value":9}]'
            The request is invalid: the server rejected our request due to an error in our request…
            [exit 1]
            $ kubectl patch deployment web -p '{"spec":{"replicas":-1}}'
            The Deployment "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0
            [exit 1]
            $ kubectl patch deployment web --subresource=scale --type=merge -p '{"spec":{"replicas":1}}'
            scale.autoscaling/web patched
            $ KUBE_EDITOR="sed -i 's/replicas: 1/replicas: -1/'" kubectl edit deployment web
            error: deployments.apps "web" is invalid
            A copy of your changes has been stored to "…"
            error: Edit cancelled, no valid changes were saved.
            [exit 1]"#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_of_every_type_are_created_exposed_and_described() {
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
            $ kubectl wait endpointslices -l kubernetes.io/service-name=web --for=jsonpath='{.endpoints[0].conditions.ready}'=true --timeout=60s
            endpointslice.discovery.k8s.io/web-… condition met
            $ kubectl describe service web
            Name:                     web
            Namespace:                default
            Labels:                   app=web
            Annotations:              <none>
            Selector:                 app=web
            Type:                     ClusterIP
            IP Family Policy:         SingleStack
            IP Families:              IPv4
            IP:                       10.…
            IPs:                      10.…
            Port:                     <unset> 8080/TCP
            TargetPort:               80/TCP
            Endpoints:                10.244.…:80
            Session Affinity:         None
            Internal Traffic Policy:  Cluster
            Events:                   <none>
            $ kubectl create service nodeport np --tcp=80:80
            service/np created
            $ kubectl create service externalname en --external-name=example.com
            service/en created
            $ kubectl create service clusterip headless --clusterip=None --tcp=1
            service/headless created
            $ kubectl create service loadbalancer lb --tcp=5:5
            service/lb created
            $ kubectl wait service/lb --for=jsonpath='{.status.loadBalancer.ingress[0].ip}' --timeout=60s
            service/lb condition met
            $ kubectl get services
            NAME         TYPE           CLUSTER-IP   EXTERNAL-IP    PORT(S)     AGE
            en           ExternalName   <none>       example.com    <none>      …s
            headless     ClusterIP      None         <none>         1/TCP       …s
            kubernetes   ClusterIP      10.96.0.1    <none>         443/TCP     …s
            lb           LoadBalancer   10.…         172.18.255.…   5:3…/TCP    …s
            np           NodePort       10.…         <none>         80:3…/TCP   …s
            web          ClusterIP      10.…         <none>         8080/TCP    …s
            $ kubectl patch service web -p '{"spec":{"clusterIP":"10.96.0.200"}}'
            The Service "web" is invalid: …
            [exit 1]
            $ kubectl create ingress front --rule='example.com/=web:8080'
            ingress.networking.k8s.io/front created
            $ kubectl get ingress
            NAME    CLASS    HOSTS         ADDRESS   PORTS   AGE
            front   <none>   example.com             80      …s
            $ kubectl delete services --all
            service "en" deleted from default namespace
            service "headless" deleted from default namespace
            service "kubernetes" deleted from default namespace
            service "lb" deleted from default namespace
            service "np" deleted from default namespace
            service "web" deleted from default namespace"#,
        )
        .await;
    bench.stop().await;
}
