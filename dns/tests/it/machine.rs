//! UDP and TCP on sockets of the operating system, for whoever asks from outside the cluster's network.

use crate::cluster::{Cluster, addresses, cluster, cluster_with, code, query};
use dns::{Config, MachineSockets};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::task::AbortOnDropHandle;

const KUBE_DNS: &str = "kube-dns.kube-system.svc.cluster.local";

async fn serve(cluster: &Arc<Cluster>, sockets: MachineSockets) -> AbortOnDropHandle<std::io::Result<()>> {
    let serving = cluster.clone();
    AbortOnDropHandle::new(tokio::spawn(async move { serving.dns.serve_machine(sockets).await }))
}

async fn bound() -> (MachineSockets, SocketAddr) {
    let sockets = MachineSockets::bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let address = sockets.local_addr().unwrap();
    (sockets, address)
}

pub(crate) async fn over_udp(server: SocketAddr, request: &Message) -> Message {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(&request.to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).await.unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

pub(crate) async fn over_tcp(server: SocketAddr, request: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let bytes = request.to_vec().unwrap();
    stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut reply).await.unwrap();
    Message::from_vec(&reply).unwrap()
}

#[tokio::test]
async fn the_machine_is_answered_over_udp_and_tcp_on_one_port() {
    let cluster = Arc::new(cluster().await);
    let (sockets, address) = bound().await;
    let _serving = serve(&cluster, sockets).await;
    for (request, code_wanted) in [
        (query(KUBE_DNS, RecordType::A), ResponseCode::NoError),
        (query("nobody.default.svc.cluster.local", RecordType::A), ResponseCode::NXDomain),
    ] {
        let reply = over_udp(address, &request).await;
        assert_eq!(code(&reply), code_wanted);
        assert_eq!(over_tcp(address, &request).await, reply);
    }
    let reply = over_udp(address, &query(KUBE_DNS, RecordType::A)).await;
    assert_eq!(addresses(&reply), ["10.96.0.10".parse::<IpAddr>().unwrap()]);
}

#[tokio::test]
async fn many_datagrams_at_once_are_all_answered_each_to_its_asker() {
    let cluster = Arc::new(cluster().await);
    let (sockets, address) = bound().await;
    let _serving = serve(&cluster, sockets).await;
    let mut askers = Vec::new();
    for asker in 0..4u16 {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(address).await.unwrap();
        for n in 0..40 {
            let mut request = query(KUBE_DNS, RecordType::A);
            request.metadata.id = asker * 1000 + n;
            socket.send(&request.to_vec().unwrap()).await.unwrap();
        }
        askers.push(socket);
    }
    for (asker, socket) in (0..).zip(askers) {
        let mut ids = Vec::new();
        for _ in 0..40 {
            let mut buffer = [0; 512];
            let length = socket.recv(&mut buffer).await.unwrap();
            let reply = Message::from_vec(&buffer[..length]).unwrap();
            assert_eq!(reply.answers.len(), 1);
            ids.push(reply.metadata.id);
        }
        ids.sort();
        assert_eq!(ids, (asker * 1000..asker * 1000 + 40).collect::<Vec<u16>>());
    }
}

#[tokio::test]
async fn a_port_that_somebody_has_for_either_protocol_is_taken() {
    let (_sockets, address) = bound().await;
    assert_eq!(MachineSockets::bind(address).await.unwrap_err().kind(), ErrorKind::AddrInUse);
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let taken = MachineSockets::bind(udp.local_addr().unwrap()).await;
    assert_eq!(taken.unwrap_err().kind(), ErrorKind::AddrInUse);
}

#[tokio::test]
async fn an_upstream_that_is_the_servers_own_port_on_the_machine_is_a_loop() {
    let (sockets, address) = bound().await;
    let mut config = Config::new("cluster.local");
    config.upstreams = vec![address];
    let cluster = Arc::new(cluster_with(config).await);
    let _serving = serve(&cluster, sockets).await;
    assert_eq!(code(&over_udp(address, &query("www.example.com", RecordType::A)).await), ResponseCode::ServFail);
}

#[tokio::test]
async fn what_has_to_be_asked_elsewhere_holds_nobody_up() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut config = Config::new("cluster.local");
    config.upstreams = vec![silent.local_addr().unwrap()];
    let cluster = Arc::new(cluster_with(config).await);
    let (sockets, address) = bound().await;
    let _serving = serve(&cluster, sockets).await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.send_to(&query("www.example.com", RecordType::A).to_vec().unwrap(), address).await.unwrap();
    // The upstream has the question, so the server waits for it; and answers others.
    let (length, _) = silent.recv_from(&mut [0; 512]).await.unwrap();
    assert!(length > 12);
    assert_eq!(over_udp(address, &query(KUBE_DNS, RecordType::A)).await.answers.len(), 1);
    assert!(socket.try_recv_from(&mut [0; 512]).is_err(), "nobody has answered yet");
}
