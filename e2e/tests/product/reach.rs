//! What a tenant reaches by one object, and a host of the LAN by the ports of a node: nothing of anybody else, no more memory
//! than before, and no port of the node behind an address of a Service.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::get::get;
use berth_e2e::place::Place;
use berth_e2e::process::Process;
use berth_e2e::world::{World, annotated, env, eventually};
use serde_json::json;

use crate::conflict::event;
use crate::scene::PATIENCE;

/// How much larger a program may be afterwards, in octets.
const MORE: u64 = 10 << 20;
const CROWD: usize = 900;
/// None of those connections is kept for so long.
const KEPT: Duration = Duration::from_secs(30);
/// A port of the node on which somebody listens at all addresses.
const ON_HOST: u16 = 1234;
/// Of a head that does not end, in octets.
const UNENDING: usize = 300_000;

/// Opens connections that ask and do not end their question; each keeps what it may send.
fn crowd(place: &Place, to: SocketAddr) -> Result<Vec<TcpStream>> {
    let connect = || -> Result<Vec<TcpStream>> {
        let mut streams = Vec::new();
        for _ in 0..CROWD {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
            stream.set_write_timeout(Some(Duration::from_millis(50)))?;
            // What is not taken any more is an error, and as it should be.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nA: ");
            let _ = stream.write_all(&vec![b'x'; UNENDING]);
            streams.push(stream);
        }
        Ok(streams)
    };
    place.in_network(connect)?
}

/// What a probe from elsewhere is told beside them.
fn probe(place: &Place, to: SocketAddr) -> Result<String> {
    get(place, to, "/healthz", Duration::from_secs(2))
}

async fn is_no_larger(what: &str, process: &Process, before: u64) -> Result<()> {
    // What was sent off is freed by and by.
    eventually(&format!("{what} is no larger than it was"), 20, || async {
        Ok((process.resident_bytes()? <= before + MORE).then_some(()))
    })
    .await
    .with_context(|| format!("{before} octets before, {:?} now", process.resident_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reaches_the_pool_or_the_memory_of_others_by_one_object_or_many_connections()
-> Result<()> {
    let world = World::up(1, env([("enable_service_security", "true")])).await?;
    let on_host = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, ON_HOST));
    let _on_host = world.lab.node(0).place()?.in_network(on_host)??;
    world.expose("web", json!({})).await?;
    let address = world.published("web", 1).await?[0];
    // No announcer decides on it: it has no endpoint.
    world.expose("wanders", json!({ "selector": { "app": "nobody" } })).await?;
    let own = eventually("an address", 10, || async {
        Ok(annotated(&world.service("wanders").await?).first().copied())
    })
    .await?;
    let node: IpAddr = world.lab.node(0).addresses().lan.v4.into();
    let logs = || world.logs();

    // A tenant says that other hosts have all addresses there are.
    let all: Vec<String> =
        (1..=250).map(|last| format!("10.0.64.{last}=02:00:00:00:00:0a")).collect();
    let forged = json!({ "metadata": { "annotations": { "berth.dev/conflict": all.join(",") } } });
    world.patch("wanders", forged).await?;
    for number in 0..4 {
        let late = format!("late-{number}");
        world.expose(&late, json!({})).await?;
        world.published(&late, 1).await.with_context(logs)?;
    }
    tokio::time::sleep(PATIENCE).await;
    ensure!(annotated(&world.service("wanders").await?) == [own], "{}", logs());

    // 120 edits of an annotation of 200 KB that nobody can read.
    let ccm = world.ccm()?;
    let before = ccm.resident_bytes()?;
    for edit in 0..120 {
        let text = format!("{edit}{}", "!".repeat(200_000));
        let patch =
            json!({ "metadata": { "annotations": { "kube-vip.io/loadbalancerIPs": text } } });
        world.patch("wanders", patch).await?;
    }
    is_no_larger("berth-ccm", ccm, before).await.with_context(logs)?;
    ensure!(world.curl(address).is_ok(), "{}", logs());

    // 900 connections with a head that does not end, from the LAN.
    let announcer = world.announcer("node0")?;
    let outside = world.lab.outside();
    let (to, before) = (SocketAddr::new(node, 2112), announcer.resident_bytes()?);
    let (begun, streams) = (Instant::now(), crowd(&outside, to)?);
    probe(&outside, to).with_context(|| format!("beside the crowd\n{}", logs()))?;
    probe(&world.lab.node(0).place()?, "127.0.0.1:2112".parse()?).with_context(logs)?;
    is_no_larger("the announcer", announcer, before).await.with_context(logs)?;
    ensure!(world.curl(address).is_ok(), "{}", logs());
    for mut stream in streams {
        stream.set_read_timeout(Some(KEPT))?;
        let _ = stream.read(&mut [0; 512]);
    }
    ensure!(begun.elapsed() < KEPT, "one was kept for {:?}", begun.elapsed());

    // What listens on the node does not answer behind the Service's address; what the Service serves does, and ICMP.
    let closed = probe(&outside, SocketAddr::new(address, 2112));
    ensure!(closed.is_err(), "a port of the node answers: {closed:?}");
    let reach = |host: IpAddr| {
        let to = SocketAddr::new(host, ON_HOST);
        outside.in_network(|| TcpStream::connect_timeout(&to, Duration::from_secs(2)))
    };
    ensure!(reach(node)?.is_ok() && reach(address)?.is_err());
    event(&world, "web", "HostPortsClosed", &["node node0 ", &format!(" {ON_HOST}")]).await?;
    outside.exec(["ping", "-c", "1", "-W", "5", &address.to_string()])?;
    ensure!(world.curl(address).is_ok(), "{}", logs());
    world.lab.down()
}
