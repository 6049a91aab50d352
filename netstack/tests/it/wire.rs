//! Two networks joined by a bad wire: loss, duplication, reordering, corruption.

use crate::*;
use netstack::{RawPort, RawSender};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// How bad it is: chances in a thousand, per packet.
#[derive(Clone, Copy)]
struct Wire {
    loss: u32,
    duplication: u32,
    delay: u32,
    corruption: u32,
}

async fn carry(mut from: RawPort, to: RawSender, wire: Wire, seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    while let Some(packet) = from.recv().await {
        let mut chance = |per_mille| rng.random_range(0..1000) < per_mille;
        if chance(wire.loss) {
            continue;
        }
        let copies = 1 + u32::from(chance(wire.duplication));
        let (late, corrupt) = (chance(wire.delay), chance(wire.corruption));
        let mut packet = packet.to_vec();
        if corrupt {
            let at = rng.random_range(0..packet.len());
            packet[at] = rng.random();
            crate::raw::repair(&mut packet);
        }
        let delay = Duration::from_millis(if late { 1 + rng.random_range(0..20) } else { 0 });
        let to = to.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            for _ in 0..copies {
                to.send(&packet);
            }
        });
    }
}

/// Hosts 10.0.0.1 and 10.0.0.2, each in its own network, with the wire between them.
async fn far_apart(wire: Wire, seed: u64) -> [(Network, Host); 2] {
    let networks = [seed, !seed].map(|seed| Network::new(Config { mtu: 1500, seed }));
    let hosts = [host(&networks[0], "10.0.0.1"), host(&networks[1], "10.0.0.2")];
    let a = networks[0].attach_raw(&[ip("10.0.0.2")], PortTag(2)).unwrap();
    let b = networks[1].attach_raw(&[ip("10.0.0.1")], PortTag(1)).unwrap();
    let (to_a, to_b) = (a.sender(), b.sender());
    tokio::spawn(carry(a, to_b, wire, seed + 1));
    tokio::spawn(carry(b, to_a, wire, seed + 2));
    let [one, two] = networks;
    let [a, b] = hosts;
    [(one, a), (two, b)]
}

#[tokio::test(start_paused = true)]
async fn a_good_wire_joins_two_networks_without_waiting() {
    let wire = Wire { loss: 0, duplication: 0, delay: 0, corruption: 0 };
    let [(_one, a), (_two, b)] = far_apart(wire, 1).await;
    serve(&b, 80);
    let start = Instant::now();
    echo(&a, "10.0.0.2:80").await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(20), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn data_survives_loss_duplication_and_reordering() {
    for seed in 0..3 {
        let wire = Wire { loss: 20, duplication: 20, delay: 50, corruption: 0 };
        let [(_one, a), (_two, b)] = far_apart(wire, seed).await;
        serve(&b, 80);
        let mut stream = a.tcp_connect(at("10.0.0.2:80")).await.unwrap();
        greeting(&mut stream).await;
        let data: Vec<u8> = (0..400_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let (mut read, mut write) = tokio::io::split(stream);
        let expected = data.clone();
        let writer = tokio::spawn(async move {
            write.write_all(&data).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        read.read_to_end(&mut received).await.unwrap();
        writer.await.unwrap();
        assert!(received == expected, "seed {seed}: {} bytes", received.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_that_closes_on_a_bad_wire_opens_again() {
    for seed in 0..3 {
        let wire = Wire { loss: 50, duplication: 50, delay: 100, corruption: 0 };
        let [(_one, a), (_two, b)] = far_apart(wire, seed).await;
        let listener = b.tcp_listen(80).unwrap();
        let writer = tokio::spawn(async move {
            let mut client = a.tcp_connect(at("10.0.0.2:80")).await.unwrap();
            client.write_all(&[7; 1_000_000]).await.unwrap();
            client.shutdown().await.unwrap();
            client
        });
        let (mut server, _) = listener.accept().await.unwrap();
        let mut received = 0;
        let mut buffer = [0; 100_000];
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            match server.read(&mut buffer).await.unwrap() {
                0 => break,
                length => received += length,
            }
        }
        assert_eq!(received, 1_000_000, "seed {seed}");
        drop(writer.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn corruption_that_checksums_do_not_show_neither_panics_nor_hangs() {
    for seed in 0..20 {
        let wire = Wire { loss: 10, duplication: 30, delay: 50, corruption: 100 };
        let [(one, a), (two, b)] = far_apart(wire, seed).await;
        serve(&b, 80);
        for _ in 0..20 {
            let attempt = async {
                let mut stream = a.tcp_connect(at("10.0.0.2:80")).await?;
                stream.write_all(&[7; 20_000]).await?;
                stream.shutdown().await?;
                stream.read_to_end(&mut Vec::new()).await
            };
            // Whatever comes of it.
            let _ = tokio::time::timeout(Duration::from_secs(300), attempt).await;
        }
        a.ping(ip("127.0.0.1"), 0, SOON).await.unwrap();
        b.ping(ip("127.0.0.1"), 0, SOON).await.unwrap();
        one.stop();
        two.stop();
    }
}
