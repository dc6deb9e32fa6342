//! A monitor keeps every message until it is acknowledged, whatever becomes of its connections.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck, Publish};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use vitalgate_domain::{DeviceId, UnixMs};
use vitalgate_simulator::recording::ChartedSet;
use vitalgate_simulator::{Message, MqttMonitor, Recording, Transport};

const DEADLINE: Duration = Duration::from_secs(20);

fn message(counter: u64) -> anyhow::Result<Message> {
    let recording = Recording::parse("patient,offset_s,vital,value,unit\np,0,heart_rate,72,/min\n")?;
    let set: &ChartedSet = recording.sets("p").first().context("one set")?;
    Ok(Message::of_set(set, UnixMs(1_795_341_600_000 + counter as i64), counter))
}

/// One connection of a server that does what the test says.
struct Served {
    stream: TcpStream,
    bytes: BytesMut,
}

impl Served {
    async fn next(listener: &TcpListener) -> anyhow::Result<Self> {
        let (stream, _) = listener.accept().await?;
        let mut served = Self { stream, bytes: BytesMut::new() };
        let Packet::Connect(connect) = served.packet().await? else { bail!("no CONNECT first") };
        ensure!(!connect.clean_session, "a monitor keeps its session");
        let mut out = BytesMut::new();
        ConnAck::new(ConnectReturnCode::Success, false).write(&mut out)?;
        served.stream.write_all(&out).await?;
        Ok(served)
    }

    async fn packet(&mut self) -> anyhow::Result<Packet> {
        loop {
            match Packet::read(&mut self.bytes, 100_000) {
                Ok(packet) => return Ok(packet),
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => ensure!(self.stream.read_buf(&mut self.bytes).await? > 0, "closed"),
                Err(error) => bail!("{error}"),
            }
        }
    }

    async fn publish(&mut self) -> anyhow::Result<Publish> {
        match self.packet().await? {
            Packet::Publish(publish) => Ok(publish),
            other => bail!("{other:?} instead of a PUBLISH"),
        }
    }

    async fn acknowledge(&mut self, packet: u16) -> anyhow::Result<()> {
        let mut out = BytesMut::new();
        PubAck::new(packet).write(&mut out)?;
        Ok(self.stream.write_all(&out).await?)
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_and_reported_once() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address: SocketAddr = listener.local_addr()?;
    let (source, messages) = mpsc::channel(8);
    let (acknowledged, mut heard) = mpsc::unbounded_channel();
    let (_stop, stopped) = watch::channel(false);
    let mut monitor = MqttMonitor::new(DeviceId::new("monitor-1")?, address, Transport::Plain);
    monitor.in_flight_max = 3;
    let running = tokio::spawn(async move { monitor.run(messages, acknowledged, stopped).await });
    for counter in 0..3 {
        source.send(message(counter)?).await?;
    }
    drop(source);
    let serving = async {
        let mut first = Served::next(&listener).await?;
        let sent = [first.publish().await?, first.publish().await?, first.publish().await?];
        ensure!(sent.iter().all(|publish| !publish.dup && publish.topic == "vitals/monitor-1/vitals"));
        first.acknowledge(sent[0].pkid).await?;
        drop(first);
        let mut second = Served::next(&listener).await?;
        let again = [second.publish().await?, second.publish().await?];
        ensure!(again.iter().all(|publish| publish.dup), "a resend says that it is one");
        ensure!(again[0].payload == sent[1].payload && again[0].pkid == sent[1].pkid, "in order, the same packet");
        drop(second);
        let mut third = Served::next(&listener).await?;
        for _ in 0..2 {
            let publish = third.publish().await?;
            third.acknowledge(publish.pkid).await?;
        }
        let report = running.await?;
        anyhow::Ok(report)
    };
    let report = timeout(DEADLINE, serving).await.context("in vain")??;
    let mut payloads = Vec::new();
    while let Some(one) = heard.recv().await {
        payloads.push(one.message.payload);
    }
    payloads.dedup();
    assert_eq!(payloads.len(), 3, "each message is reported once");
    assert_eq!((report.acknowledged, report.left, report.connections), (3, 0, 3));
    Ok(())
}
