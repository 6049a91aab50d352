//! The answers that are kept ready say what the zone says.

use crate::cluster::{Cluster, cluster, name, query, service};
use dns::{Config, Dns, Transport};
use hickory_proto::op::{Edns, Message};
use hickory_proto::rr::{Record, RecordType};
use serde_json::json;

/// Services of every kind, over all of which [`names`] asks.
async fn services() -> Cluster {
    let cluster = cluster().await;
    let ports = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let dual = json!({"clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1", "fd00::1"], "ports": ports});
    cluster.service("default", "web", dual).await;
    cluster.service("default", "db", json!({"clusterIP": "None", "ports": ports})).await;
    cluster.service("default", "empty", json!({"clusterIP": "None"})).await;
    cluster.service("default", "many", json!({"clusterIP": "None"})).await;
    cluster
        .service("default", "alias", json!({"type": "ExternalName", "externalName": "web.default.svc.cluster.local"}))
        .await;
    cluster.service("late", "web", json!({"clusterIP": "10.96.1.2"})).await;
    let (yes, no) = (json!(true), json!(false));
    let v4 = [("10.244.1.5", "db-0", yes.clone()), ("10.244.1.6", "", yes.clone()), ("10.244.1.7", "db-2", no)];
    cluster.slice(("default", "db"), "v4", &v4, json!([{"name": "http", "port": 8080}])).await;
    let v6 = [("fd00::5", "db-0", yes.clone()), ("fd00::", "", yes.clone())];
    cluster.slice(("default", "db"), "v6", &v6, json!([{"name": "http", "port": 8080}])).await;
    cluster.slice(("default", "web"), "web", &v4[1..2], json!([])).await;
    let addresses: Vec<String> = (0..300).map(|n| format!("10.244.{}.{}", 2 + n / 200, n % 200 + 1)).collect();
    let endpoints: Vec<_> = addresses.iter().map(|address| (address.as_str(), "", yes.clone())).collect();
    cluster.slice(("default", "many"), "many", &endpoints, json!([{"name": "p", "port": 1}])).await;
    cluster
}

fn names() -> Vec<String> {
    let mut names: Vec<String> =
        ["", "svc.", "default.svc.", "pod.", "foo.", "a.dns-version.", "dns.", "ns.dns.", "WeB.Default.SVC."]
            .map(str::to_owned)
            .to_vec();
    for service in ["web", "db", "empty", "many", "alias", "missing"] {
        for namespace in ["default", "prod", "late", "nowhere"] {
            let below = [
                "",
                "db-0.",
                "db-2.",
                "10-244-1-6.",
                "fd00--0.",
                "_http._tcp.",
                "_dns._udp.",
                "_p._tcp.",
                "_x._tcp.",
                "http.tcp.",
                "a.b.c.",
            ];
            names.extend(below.map(|label| format!("{label}{service}.{namespace}.svc.")));
        }
    }
    names.extend(["www.example.com.default.svc.", "www.example.com.svc.", "www.example.com."].map(str::to_owned));
    names.into_iter().map(|name| name + "cluster.local").collect()
}

async fn ask(dns: &Dns, request: &Message, transport: Transport) -> (Message, usize) {
    let reply = dns.answer(&request.to_vec().unwrap(), transport, None).await.unwrap();
    (Message::from_vec(&reply).unwrap(), reply.len())
}

fn sorted(records: &[Record]) -> Vec<String> {
    // A name that points into the question has the question's case.
    let mut lines: Vec<String> = records.iter().map(|record| record.to_string().to_lowercase()).collect();
    lines.sort();
    lines
}

#[tokio::test(start_paused = true)]
async fn what_is_answered_at_once_is_what_the_zone_answers_in_every_form_of_request() {
    let cluster = services().await;
    let mut config = Config::new("cluster.local");
    // A static name in the zone may be any name, so nothing is answered at once.
    config.hosts = vec![("static.test.cluster.local".to_owned(), [192, 0, 2, 1].into())];
    let slow = dns::start_with(cluster.sources.clone(), config);
    slow.synced().await;
    // The two have counted the same changes differently.
    let serials = |message: &mut Message| {
        for record in &mut message.authorities {
            if let hickory_proto::rr::RData::SOA(soa) = &mut record.data {
                soa.serial = 0;
            }
        }
    };
    let mut compared = 0;
    for text in names() {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::TXT] {
            for payload in [None, Some(0), Some(1232), Some(65_535)] {
                let mut request = query(&text, kind);
                request.metadata.recursion_desired = payload.is_none();
                request.metadata.checking_disabled = payload == Some(0);
                if let Some(payload) = payload {
                    let mut edns = Edns::new();
                    edns.set_max_payload(payload).set_dnssec_ok(payload == 1232);
                    request.set_edns(edns);
                }
                for transport in [Transport::Udp, Transport::Tcp] {
                    let (mut quick, quick_length) = ask(&cluster.dns, &request, transport).await;
                    let (mut whole, whole_length) = ask(&slow, &request, transport).await;
                    serials(&mut quick);
                    serials(&mut whole);
                    let case = format!("{text} {kind} {payload:?} {transport:?}");
                    assert_eq!(quick.metadata, whole.metadata, "{case}");
                    assert_eq!(quick.edns, whole.edns, "{case}");
                    assert_eq!(quick.queries[0].name.to_ascii(), name(&text).to_ascii(), "{case}");
                    if quick.metadata.truncation {
                        // Which records are cut is by chance; with shorter owners more fit.
                        assert!(quick.answers.len() >= whole.answers.len(), "{case}");
                    } else {
                        assert_eq!(sorted(&quick.answers), sorted(&whole.answers), "{case}");
                    }
                    assert_eq!(sorted(&quick.authorities), sorted(&whole.authorities), "{case}");
                    assert_eq!(sorted(&quick.additionals), sorted(&whole.additionals), "{case}");
                    let longer = quick_length > whole_length && !quick.metadata.truncation;
                    assert!(!longer, "{case}: {quick_length} > {whole_length}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 5000, "{compared}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_kept_goes_with_the_state_it_was_made_of() {
    let cluster = services().await;
    let srv = "_http._tcp.db.default.svc.cluster.local";
    assert_eq!(cluster.ask(srv, RecordType::SRV).await.answers.len(), 3);
    assert_eq!(cluster.ask(srv, RecordType::SRV).await.answers.len(), 3);
    let left = [("10.244.1.5", "db-0", json!(true))];
    cluster.slice(("default", "db"), "v4", &left, json!([{"name": "http", "port": 8080}])).await;
    assert_eq!(cluster.ask(srv, RecordType::SRV).await.answers.len(), 2);
    cluster.sources.services.delete(service("default", "db", json!({})));
    cluster.activity.idle().await;
    cluster.no_such_name("db.default.svc.cluster.local").await;
    cluster.no_such_name(srv).await;
}
