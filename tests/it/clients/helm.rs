//! A release's whole life with helm 4: a chart of many kinds with hooks, a test, a lookup and another chart in it.

use crate::support::{Bench, repository};
use coracle::Cluster;

/// helm without what client-go logs when a watch is cancelled: whether it does depends on who is quicker.
const QUIET: &str = r#"#!/bin/sh
helm "$@" 2>"said.$$"
code=$?
grep -v reflector.go "said.$$" >&2
rm "said.$$"
exit $code
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_installed_tested_upgraded_rolled_back_and_removed() {
    let bench = Bench::with(Cluster::builder()).await;
    let chart = repository("tests/it/clients/charts/shop");
    bench.ok(&format!("cp -r '{}' .", chart.display())).await;
    bench.terminal.write("helm", QUIET);
    bench.ok("chmod +x helm").await;
    bench
        .transcript(
            &r#"$ helm lint shop
            ==> Linting shop
            [INFO] Chart.yaml: icon is recommended
            1 chart(s) linted, 0 chart(s) failed
            $ helm upgrade --install my shop --wait --timeout 60s
            Release "my" does not exist. Installing it now.
            NAME: my
            LAST DEPLOYED: …
            NAMESPACE: default
            STATUS: deployed
            REVISION: 1
            DESCRIPTION: Install complete
            NOTES:
            The shop my is open.
            $ kubectl get deployment,statefulset,service,pods -o name | sort
            deployment.apps/my-web
            pod/my-cache-0
            pod/my-prepare-…
            pod/my-web-…
            service/kubernetes
            service/my
            service/my-cache
            statefulset.apps/my-cache
            $ helm test my --logs --timeout 60s
            …
            TEST SUITE:     my-reach
            Last Started:   …
            Last Completed: …
            Phase:          Succeeded
            …
            Pod: my-web-…
            …
            $ helm list
            NAME   NAMESPACE   REVISION   UPDATED   STATUS     CHART        APP VERSION
            my     default     1          …         deployed   shop-0.1.0   1.27
            $ helm status my | grep ^STATUS
            STATUS: deployed
            $ helm get values my --all
            COMPUTED VALUES:
            broken: false
            cache:
            enabled: true
            global: {}
            size: 1
            image: nginx:1.27
            replicas: 1
            $ helm get manifest my | grep -c '^kind: '
            11
            $ helm get hooks my | grep '^kind: '
            kind: Pod
            kind: Job
            $ helm get notes my
            NOTES:
            The shop my is open.
            $ token=$(kubectl get configmap my -o jsonpath='{.data.TOKEN}')
            > helm upgrade my shop --set replicas=2 --wait --timeout 60s | grep -e STATUS -e REVISION
            > [ "$token" = "$(kubectl get configmap my -o jsonpath='{.data.TOKEN}')" ] && echo the looked-up token is kept
            STATUS: deployed
            REVISION: 2
            the looked-up token is kept
            $ helm template my shop --dry-run=server | grep -c "TOKEN: $(kubectl get configmap my -o jsonpath='{.data.TOKEN}')"
            1
            $ helm upgrade my shop --set broken=true --rollback-on-failure --wait --timeout 5s
            level=WARN msg="upgrade failed" …
            Error: UPGRADE FAILED: release my failed, and has been rolled back due to rollback-on-failure being set: resource Deployment/default/my-web not ready. …
            context deadline exceeded
            [exit 1]
            $ helm history my
            REVISION   UPDATED   STATUS       CHART        APP VERSION   DESCRIPTION
            1          …         superseded   shop-0.1.0   1.27          Install complete
            2          …         superseded   shop-0.1.0   1.27          Upgrade complete
            3          …         failed       shop-0.1.0   1.27          Upgrade "my" failed: …
            4          …         deployed     shop-0.1.0   1.27          Rollback to 2
            $ kubectl get deployment my-web -o jsonpath='{.spec.template.spec.nodeSelector}{.spec.replicas}'
            2
            $ helm rollback my 1 --wait --timeout 60s
            Rollback was a success! Happy Helming!
            $ kubectl get deployment my-web
            NAME     READY   UP-TO-DATE   AVAILABLE   AGE
            my-web   1/1     1            1           …
            $ helm upgrade my shop --set cache.enabled=false --wait --timeout 60s | grep REVISION; kubectl get statefulset
            REVISION: 6
            No resources found in default namespace.
            $ helm install my shop
            level=ERROR msg="release name check failed" …
            Error: INSTALLATION FAILED: release name check failed: cannot reuse a name that is still in use
            [exit 1]
            $ helm install other shop --set replicas=-1
            Error: INSTALLATION FAILED: server-side apply failed for object default/other-web apps/v1, Kind=Deployment: Deployment.apps "other-web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0
            [exit 1]
            $ helm uninstall other
            release "other" uninstalled
            $ helm install dry shop --dry-run=server | grep -c 'name: dry-web'
            1
            $ helm uninstall my --wait --timeout 60s
            release "my" uninstalled
            $ helm list
            NAME   NAMESPACE   REVISION   UPDATED   STATUS   CHART   APP VERSION
            $ kubectl get deployments,services,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,pdb,ingresses,secrets -o name
            service/kubernetes
            configmap/kube-root-ca.crt
            serviceaccount/default
            $ helm status my
            Error: release: not found
            [exit 1]"#
                .replace("$ helm ", "$ ./helm ")
                .replace("> helm ", "> ./helm "),
        )
        .await;
    bench.stop().await;
}
