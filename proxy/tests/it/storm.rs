//! Services that come and go by the hundred while clients use them: nobody ever hears a wrong endpoint, and nothing is left.

use crate::network::{Net, at, greeting, net};
use crate::support::{service, slice_with_ports};
use netstack::{Host, Timeouts, Translation};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const SERVICES: u32 = 1000;
/// Services there at one time: the addresses of those that have gone are soon used again.
const AT_ONCE: usize = 24;
const BACKENDS: u8 = 12;
const CLIENTS: u8 = 4;

/// Which endpoints may answer at an address, and from when till when (in changes made).
#[derive(Default)]
struct Ledger {
    now: usize,
    owners: HashMap<String, Vec<Owner>>,
}

struct Owner {
    from: usize,
    /// `None`: still.
    to: Option<usize>,
    endpoints: BTreeSet<String>,
}

impl Ledger {
    /// Whether `endpoint` may have answered at `address` to who asked between `from` and now.
    fn may_answer(&self, address: &str, endpoint: &str, from: usize) -> bool {
        let owners = self.owners.get(address).map_or(&[][..], Vec::as_slice);
        owners.iter().any(|owner| owner.to.is_none_or(|to| to >= from) && owner.endpoints.contains(endpoint))
    }
}

struct Storm {
    net: Net,
    ledger: Arc<Mutex<Ledger>>,
    rng: SmallRng,
    free: Vec<u8>,
    live: Vec<(String, u8)>,
}

impl Storm {
    /// The addresses of the Service with that number: ClusterIP, node port, external address.
    fn addresses(number: u8) -> [String; 3] {
        let (node, port) =
            (if number.is_multiple_of(2) { "172.18.0.2" } else { "172.18.0.3" }, 30_000 + u16::from(number));
        [format!("10.96.0.{number}:80"), format!("{node}:{port}"), format!("192.0.2.{number}:80")]
    }

    fn endpoints(&mut self) -> BTreeSet<String> {
        let backends: Vec<u8> = (2..2 + BACKENDS).collect();
        let count = self.rng.random_range(1..=3);
        backends.choose_multiple(&mut self.rng, count).map(|backend| format!("10.244.1.{backend}")).collect()
    }

    fn slice(&self, name: &str, endpoints: &BTreeSet<String>) -> k8s_openapi::api::discovery::v1::EndpointSlice {
        let endpoints: Vec<String> = endpoints.iter().map(|ip| format!("{ip}@node-1")).collect();
        let ports = "[{ name: tcp, port: 8080, protocol: TCP }, { name: udp, port: 8080, protocol: UDP }]";
        slice_with_ports(name, &format!("{name}-1"), ports, &endpoints.iter().map(String::as_str).collect::<Vec<_>>())
    }

    async fn create(&mut self, name: String) {
        let number = self.free.pop().expect("a free number");
        let endpoints = self.endpoints();
        {
            let mut ledger = self.ledger.lock();
            ledger.now += 1;
            for address in Storm::addresses(number) {
                let from = ledger.now;
                let owner = Owner { from, to: None, endpoints: endpoints.clone() };
                ledger.owners.entry(address).or_default().push(owner);
            }
        }
        let affinity = if self.rng.random() { "ClientIP" } else { "None" };
        let slice = self.slice(&name, &endpoints);
        self.net.apply(
            service(
                &name,
                &format!(
                    "{{ type: NodePort, clusterIPs: [10.96.0.{number}], externalIPs: [192.0.2.{number}], sessionAffinity: {affinity}, ports: [{{ name: tcp, port: 80, nodePort: {0} }}, {{ name: udp, port: 80, protocol: UDP, nodePort: {0} }}] }}",
                    30_000 + u16::from(number)
                ),
            ),
            &[slice],
        )
        .await;
        self.live.push((name, number));
    }

    async fn delete(&mut self) {
        let index = self.rng.random_range(0..self.live.len());
        let (name, number) = self.live.swap_remove(index);
        self.net.slices.delete(self.slice(&name, &BTreeSet::new()));
        self.net.services.delete(service(&name, "{}"));
        self.net.activity.idle().await;
        let mut ledger = self.ledger.lock();
        ledger.now += 1;
        let now = ledger.now;
        for address in Storm::addresses(number) {
            let last = ledger.owners.get_mut(&address).and_then(|owners| owners.last_mut()).expect("an owner");
            assert!(last.from < now);
            last.to = Some(now - 1);
        }
        drop(ledger);
        self.free.push(number);
        self.free.shuffle(&mut self.rng);
    }
}

/// Connects to all addresses by turns, and notes who answers.
async fn connect(
    client: Host,
    ledger: Arc<Mutex<Ledger>>,
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    seed: u64,
) {
    let mut rng = SmallRng::seed_from_u64(seed);
    while !over.load(Ordering::Relaxed) {
        let address = Storm::addresses(rng.random_range(1..=32)).choose(&mut rng).expect("an address").clone();
        let from = ledger.lock().now;
        // Nobody's addresses do not answer at all; a real client would wait for longer.
        let asked = tokio::time::timeout(Duration::from_millis(10), greeting(&client, &address)).await;
        if let Ok(Ok(answer)) = asked {
            let endpoint = answer.split(' ').next().unwrap_or_default();
            assert!(ledger.lock().may_answer(&address, endpoint, from), "{endpoint} answered at {address}");
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The same with datagrams from one socket, which outlives the Services.
async fn ask(client: Host, ledger: Arc<Mutex<Ledger>>, over: Arc<AtomicBool>, answered: Arc<AtomicUsize>, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let socket = client.udp_bind(4000).expect("a free port");
    let mut buffer = [0; 64];
    while !over.load(Ordering::Relaxed) {
        let address = Storm::addresses(rng.random_range(1..=32)).choose(&mut rng).expect("an address").clone();
        let from = ledger.lock().now;
        let _ = socket.send_to(b"who?", at(&address)).await;
        let received = tokio::time::timeout(Duration::from_millis(10), socket.recv_from(&mut buffer)).await;
        if let Ok(Ok((length, _))) = received {
            let endpoint = String::from_utf8_lossy(&buffer[..length]).into_owned();
            assert!(ledger.lock().may_answer(&address, &endpoint, from), "{endpoint} answered at {address}");
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_services_lets_no_wrong_endpoint_answer_and_leaves_nothing_behind() {
    let net = net().await;
    let _servers: Vec<Host> = (2..2 + BACKENDS).map(|backend| net.server(&format!("10.244.1.{backend}"))).collect();
    let (ledger, over, answered) = (Arc::<Mutex<Ledger>>::default(), Arc::<AtomicBool>::default(), Arc::default());
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        // Pods of both nodes and the outside.
        let tcp = net.host(&format!("10.244.{}.{}", 1 + number % 2, 200 + number));
        let udp = net.host(&format!("203.0.113.{}", 1 + number));
        let (ledger, over, answered) = (&ledger, &over, &answered);
        clients.spawn(connect(tcp, ledger.clone(), over.clone(), Arc::clone(answered), number.into()));
        clients.spawn(ask(udp, ledger.clone(), over.clone(), Arc::clone(answered), 100 + u64::from(number)));
    }
    let rng = SmallRng::seed_from_u64(11);
    let mut storm = Storm { net, ledger, rng, free: (1..=32).collect(), live: Vec::new() };
    for number in 0..SERVICES {
        storm.create(format!("s{number}")).await;
        if storm.live.len() > AT_ONCE {
            storm.delete().await;
        }
        // The clients' turn: often in the midst of changes, sometimes for a while.
        tokio::time::sleep(Duration::from_millis(storm.rng.random_range(0..4))).await;
        if number.is_multiple_of(100) {
            let told = storm.net.proxy.external_frontends().borrow().clone();
            assert_eq!(told, storm.net.proxy.table().external_frontends(), "what listeners are told");
        }
    }
    while !storm.live.is_empty() {
        storm.delete().await;
    }
    over.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.expect("no client has heard a wrong endpoint");
    }
    assert!(Arc::<AtomicUsize>::clone(&answered).load(Ordering::Relaxed) > 1000, "{answered:?} answers");

    let Storm { net, .. } = storm;
    assert!(net.proxy.table().is_empty());
    assert!(net.proxy.external_frontends().borrow().is_empty());
    assert_eq!(net.proxy.held_clients(), 0, "of session affinity");
    for number in 1..=32 {
        for address in Storm::addresses(number) {
            let flow = crate::support::flow(netstack::Protocol::Tcp, "10.244.1.200", &address);
            let translated = net.proxy.translator().translate(&flow, netstack::PortTag(1), tokio::time::Instant::now());
            let leads_away = matches!(translated, Translation::To { dst, .. } if dst != flow.dst);
            assert!(!leads_away, "{address} leads to {translated:?}");
        }
    }
    let of_udp = net.network.flows().iter().filter(|flow| flow.original.protocol == netstack::Protocol::Udp).count();
    assert_eq!(of_udp, 0, "UDP flows of Services that are gone");
    tokio::time::sleep(Timeouts::default().tcp_syn_sent).await;
    let left = net.network.flows();
    assert!(left.is_empty(), "{} flows, such as {:?}", left.len(), left.first());
}
