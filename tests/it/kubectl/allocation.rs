//! Where Services' addresses come from, as kubectl shows it: IPAddress and ServiceCIDR objects (SEMANTICS 3.8), and repairs.

use crate::support::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_cidr_extends_the_pool_and_stays_while_an_address_of_it_is_in_use() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"
        $ kubectl wait servicecidr kubernetes --for=condition=Ready --timeout=60s
        servicecidr.networking.k8s.io/kubernetes condition met
        $ kubectl get servicecidr kubernetes -o jsonpath='{.metadata.finalizers} {.status.conditions[0].message}'
        ["networking.k8s.io/service-cidr-finalizer"] Kubernetes Service CIDR is ready
        $ kubectl create service clusterip far --tcp=80 --clusterip=10.200.0.5
        error: failed to create ClusterIP service: Service "far" is invalid: spec.clusterIPs: Invalid value: ["10.200.0.5"]: failed to allocate IP 10.200.0.5: the provided IP (10.200.0.5) is not in the valid range. The range of valid IPs is 10.96.0.0/12
        [exit 1]
        $ kubectl create -f - <<EOF
        > apiVersion: networking.k8s.io/v1
        > kind: ServiceCIDR
        > metadata: {name: more}
        > spec: {cidrs: [10.200.0.0/28]}
        > EOF
        servicecidr.networking.k8s.io/more created
        $ kubectl wait servicecidr more --for=condition=Ready --timeout=60s
        servicecidr.networking.k8s.io/more condition met
        $ kubectl create service clusterip far --tcp=80 --clusterip=10.200.0.5
        service/far created
        $ kubectl get ipaddress 10.200.0.5
        NAME         PARENTREF
        10.200.0.5   services/default/far
        $ kubectl delete servicecidr more --wait=false
        servicecidr.networking.k8s.io "more" deleted
        $ kubectl wait servicecidr more --for=condition=Ready=false --timeout=60s
        servicecidr.networking.k8s.io/more condition met
        $ kubectl get servicecidr more -o jsonpath='{.status.conditions[0].reason}: {.status.conditions[0].message}'
        Terminating: There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR
        $ kubectl create service clusterip near --tcp=80 --clusterip=10.200.0.6 2>&1 | grep -c 'is not in the valid range'
        1
        $ kubectl delete service far
        service "far" deleted…
        $ kubectl wait servicecidr more --for=delete --timeout=60s
        …
        $ kubectl get servicecidrs
        NAME         CIDRS          AGE
        kubernetes   10.96.0.0/12   …
        "#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_service_cidr_gives_out_no_more_while_it_is_being_deleted_and_comes_back_when_another_has_taken_over()
 {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"
        $ kubectl wait servicecidr kubernetes --for=condition=Ready --timeout=60s
        servicecidr.networking.k8s.io/kubernetes condition met
        $ kubectl delete servicecidr kubernetes --wait=false
        servicecidr.networking.k8s.io "kubernetes" deleted
        $ kubectl wait servicecidr kubernetes --for=condition=Ready=false --timeout=60s
        servicecidr.networking.k8s.io/kubernetes condition met
        $ kubectl create service clusterip late --tcp=80
        error: failed to create ClusterIP service: Internal error occurred: failed to allocate a serviceIP: range is full
        [exit 1]
        $ kubectl create service clusterip late --tcp=80 --clusterip=10.96.0.80 2>&1 | grep -c 'does not match the current range'
        1
        $ kubectl create -f - <<EOF
        > apiVersion: networking.k8s.io/v1
        > kind: ServiceCIDR
        > metadata: {name: successor}
        > spec: {cidrs: [10.96.0.0/12]}
        > EOF
        servicecidr.networking.k8s.io/successor created
        $ until [ -z "$(kubectl get servicecidr kubernetes -o jsonpath='{.metadata.deletionTimestamp}' 2>&1)" ]; do :; done
        $ kubectl create service clusterip late --tcp=80 --clusterip=10.96.0.80
        service/late created
        $ kubectl get servicecidrs -o name
        servicecidr.networking.k8s.io/kubernetes
        servicecidr.networking.k8s.io/successor
        "#,
        )
        .await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ip_address_that_is_deleted_by_hand_is_repaired_and_an_event_says_so() {
    let bench = Bench::start().await;
    bench
        .transcript(
            r#"
        $ kubectl create service clusterip web --tcp=80 --clusterip=10.96.0.80
        service/web created
        $ kubectl delete ipaddress 10.96.0.80
        ipaddress.networking.k8s.io "10.96.0.80" deleted
        $ until kubectl get events --field-selector reason=ClusterIPNotAllocated -o name | grep -q .; do :; done
        $ kubectl get events --field-selector reason=ClusterIPNotAllocated -o jsonpath='{.items[0].involvedObject.name}: {.items[0].message}'
        web: Cluster IP [IPv4]: 10.96.0.80 is not allocated; repairing
        $ kubectl get ipaddress 10.96.0.80
        NAME         PARENTREF
        10.96.0.80   services/default/web
        "#,
        )
        .await;
    bench.stop().await;
}
