//! Whatever comes in, the server stands.

use crate::cluster::{cluster, query, with_edns};
use dns::Transport;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use proptest::prelude::*;

/// Any bytes; and messages with some bytes changed, some lost and some added.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let names = prop::sample::select(vec![
        "kube-dns.kube-system.svc.cluster.local",
        "_dns._udp.kube-dns.kube-system.svc.cluster.local",
        "10.0.96.10.in-addr.arpa",
        "1-2-3-4.default.pod.cluster.local",
        "example.com",
        ".",
    ]);
    let kinds = any::<u16>().prop_map(RecordType::from);
    let message = (names, kinds, any::<bool>()).prop_map(|(name, kind, edns)| {
        let message = query(name, kind);
        if edns { with_edns(message, 1232) } else { message }.to_vec().unwrap()
    });
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let mutated = (message, changes, 0..40usize, prop::collection::vec(any::<u8>(), 0..4));
    let mutated = mutated.prop_map(|(mut bytes, changes, lost, added)| {
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        bytes.truncate(bytes.len().saturating_sub(lost / 4));
        bytes.extend(added);
        bytes
    });
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..600), 4 => mutated]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_gets_a_reply_with_its_id_or_nothing(requests in prop::collection::vec(request(), 100)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let cluster = cluster().await;
            for request in requests {
                for transport in [Transport::Udp, Transport::Tcp] {
                    let Some(reply) = cluster.ask_bytes(&request, transport).await else { continue };
                    assert_eq!(reply[..2], request[..2]);
                    assert!(reply[2] & 0x80 != 0, "a reply says that it is one");
                    assert!(transport == Transport::Tcp || reply.len() <= 4096);
                    Message::from_vec(&reply).expect("the reply is a message");
                }
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_a_header_only_gets_formerr_and_what_is_less_or_a_reply_gets_nothing() {
    let cluster = cluster().await;
    let request = query("cluster.local", RecordType::SOA).to_vec().unwrap();
    let reply = cluster.ask_bytes(&request[..request.len() - 1], Transport::Udp).await.unwrap();
    let reply = Message::from_vec(&reply).unwrap().metadata;
    assert_eq!((reply.id, reply.response_code), (4711, ResponseCode::FormErr));
    assert_eq!(cluster.ask_bytes(&request[..11], Transport::Udp).await, None);
    assert_eq!(cluster.ask_bytes(&[], Transport::Udp).await, None);
    let mut answer = request.clone();
    answer[2] |= 0x80;
    assert_eq!(cluster.ask_bytes(&answer, Transport::Udp).await, None);
    assert_eq!(cluster.ask_bytes(&answer[..20], Transport::Udp).await, None);
}
