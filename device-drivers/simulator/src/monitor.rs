//! A bedside monitor that publishes with QoS 1 and keeps every message until it is acknowledged.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use vitalgate_domain::DeviceId;

use crate::connection::{Stream, Transport};
use crate::message::Message;
use crate::protocol::{Incoming, ProtocolVersion};

/// First and longest wait before the next attempt to connect.
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_LONGEST: Duration = Duration::from_secs(1);
/// Longest wait for the answer to CONNECT.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);
/// Without any acknowledgement for this long while some are due, the connection is taken for dead.
const SILENCE_LONGEST: Duration = Duration::from_secs(10);
/// Room for incoming packets, in bytes.
const READ_BYTES: usize = 4 * 1024;

/// A publishing device.
#[derive(Clone)]
pub struct MqttMonitor {
    /// The device, also its client id.
    pub device: DeviceId,
    /// The gateway.
    pub address: SocketAddr,
    /// Plain or TLS.
    pub transport: Transport,
    /// The version of MQTT.
    pub version: ProtocolVersion,
    /// Password for the user name that equals the device id.
    pub password: Option<String>,
    /// Messages sent and not yet acknowledged, at most; at least 1.
    pub in_flight_max: usize,
    /// Keep-alive in seconds, at least 1.
    pub keep_alive_s: u16,
}

/// A message that the gateway acknowledged.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    /// The device that sent it.
    pub device: DeviceId,
    /// The message.
    pub message: Message,
    /// From its first sending to its acknowledgement.
    pub waited: Duration,
}

/// What a monitor did until it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MonitorReport {
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Messages sent again after a broken connection.
    pub sent_again: u64,
    /// Connections that were accepted.
    pub connections: u64,
    /// CONNECTs or publishes that the server refused.
    pub refused: u64,
    /// Messages handed over but not acknowledged when it ended.
    pub left: u64,
}

struct Waiting {
    packet: u16,
    message: Message,
    first_sent: Instant,
}

/// How one connection ended.
enum Ended {
    Broken,
    Finished,
}

struct Session<'a> {
    monitor: &'a MqttMonitor,
    waiting: VecDeque<Waiting>,
    next_packet: u16,
    report: MonitorReport,
    acknowledged: mpsc::UnboundedSender<Acknowledged>,
}

impl MqttMonitor {
    /// A monitor with one message in flight over MQTT 3.1.1.
    #[must_use]
    pub fn new(device: DeviceId, address: SocketAddr, transport: Transport) -> Self {
        Self { device, address, transport, version: ProtocolVersion::V311, password: None, in_flight_max: 1, keep_alive_s: 30 }
    }

    /// Publishes what comes from `source` and reports each acknowledged message once.
    ///
    /// Ends when `source` is closed and everything is acknowledged, or when `stop` turns true; the
    /// report then says how many were left.
    pub async fn run(
        &self,
        mut source: mpsc::Receiver<Message>,
        acknowledged: mpsc::UnboundedSender<Acknowledged>,
        mut stop: watch::Receiver<bool>,
    ) -> MonitorReport {
        let mut session =
            Session { monitor: self, waiting: VecDeque::new(), next_packet: 1, report: MonitorReport::default(), acknowledged };
        let mut wait = RECONNECT_FIRST;
        loop {
            let connections = session.report.connections;
            let ended = tokio::select! {
                ended = session.connection(&mut source) => ended,
                () = stopped(&mut stop) => Ended::Finished,
            };
            if matches!(ended, Ended::Finished) {
                break;
            }
            wait = if session.report.connections > connections { RECONNECT_FIRST } else { (wait * 2).min(RECONNECT_LONGEST) };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stopped(&mut stop) => break,
            }
        }
        session.report.left = session.waiting.len() as u64;
        session.report
    }
}

/// Completes when the flag is true; never when its sender went away without saying so.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Session<'_> {
    async fn connection(&mut self, source: &mut mpsc::Receiver<Message>) -> Ended {
        let mut bytes = BytesMut::with_capacity(READ_BYTES);
        let welcomed = tokio::time::timeout(WELCOME_TIMEOUT, self.open(&mut bytes)).await;
        let Ok(Some(mut stream)) = welcomed else { return Ended::Broken };
        self.report.connections += 1;
        let ended = self.publish_all(&mut stream, &mut bytes, source).await;
        if matches!(ended, Ended::Finished) {
            // MQTT 3.1.1 section 3.14, MQTT 5 section 3.14: DISCONNECT of two bytes. A server that
            // is gone already needs none.
            let _ = stream.write_all(&[0xE0, 0x00]).await;
            let _ = stream.shutdown().await;
        }
        ended
    }

    /// Connects, is welcomed, and sends again what is still waiting.
    async fn open(&mut self, bytes: &mut BytesMut) -> Option<Stream> {
        let monitor = self.monitor;
        let mut stream = monitor.transport.connect(monitor.address).await.ok()?;
        let mut out = BytesMut::new();
        monitor.version.connect(&monitor.device, monitor.password.as_deref(), monitor.keep_alive_s, &mut out).ok()?;
        stream.write_all(&out).await.ok()?;
        stream.flush().await.ok()?;
        loop {
            match monitor.version.read(bytes).ok()? {
                Some(Incoming::Welcome) => break,
                Some(Incoming::Refused(code)) => {
                    self.report.refused += 1;
                    tracing::debug!(device = %monitor.device, code, "the gateway refused the connection");
                    return None;
                }
                Some(_) => return None,
                None if stream.read_buf(bytes).await.ok()? == 0 => return None,
                None => {}
            }
        }
        out.clear();
        for waiting in &self.waiting {
            self.report.sent_again += 1;
            let topic = waiting.message.topic(&monitor.device);
            monitor.version.publish(&topic, waiting.message.payload.clone(), waiting.packet, true, &mut out).ok()?;
        }
        stream.write_all(&out).await.ok()?;
        stream.flush().await.ok()?;
        Some(stream)
    }

    async fn publish_all(&mut self, stream: &mut Stream, bytes: &mut BytesMut, source: &mut mpsc::Receiver<Message>) -> Ended {
        let mut ping = tokio::time::interval(Duration::from_secs(u64::from(self.monitor.keep_alive_s.max(2) / 2)));
        ping.reset();
        let mut heard = Instant::now();
        let mut open = true;
        loop {
            if !open && self.waiting.is_empty() {
                return Ended::Finished;
            }
            let room = open && self.waiting.len() < self.monitor.in_flight_max.max(1);
            let written = tokio::select! {
                message = source.recv(), if room => match message {
                    Some(message) => self.send(stream, message).await,
                    None => { open = false; Some(()) }
                },
                read = stream.read_buf(bytes) => match read {
                    Ok(count) if count > 0 => { heard = Instant::now(); self.answers(bytes) }
                    _ => None,
                },
                _ = ping.tick() => self.ping(stream, heard).await,
            };
            if written.is_none() {
                return Ended::Broken;
            }
        }
    }

    async fn ping(&self, stream: &mut Stream, heard: Instant) -> Option<()> {
        let silent = heard.elapsed() > SILENCE_LONGEST.max(Duration::from_secs(u64::from(self.monitor.keep_alive_s)) * 2);
        if silent {
            return None;
        }
        stream.write_all(&[0xC0, 0x00]).await.ok()?;
        stream.flush().await.ok()
    }

    async fn send(&mut self, stream: &mut Stream, message: Message) -> Option<()> {
        let packet = self.free_packet();
        let mut out = BytesMut::with_capacity(message.payload.len() + 64);
        let topic = message.topic(&self.monitor.device);
        let encoded = self.monitor.version.publish(&topic, message.payload.clone(), packet, false, &mut out);
        // It is ours from here on, whatever becomes of the connection.
        self.waiting.push_back(Waiting { packet, message, first_sent: Instant::now() });
        encoded.ok()?;
        stream.write_all(&out).await.ok()?;
        stream.flush().await.ok()
    }

    fn free_packet(&mut self) -> u16 {
        loop {
            let packet = self.next_packet;
            self.next_packet = self.next_packet.checked_add(1).unwrap_or(1);
            if self.waiting.iter().all(|waiting| waiting.packet != packet) {
                return packet;
            }
        }
    }

    fn answers(&mut self, bytes: &mut BytesMut) -> Option<()> {
        while let Some(incoming) = self.monitor.version.read(bytes).ok()? {
            match incoming {
                Incoming::Acknowledged(packet) => self.acknowledge(packet),
                Incoming::PublishRefused(packet) => {
                    self.report.refused += 1;
                    tracing::debug!(device = %self.monitor.device, packet, "a publish was refused; it is sent again");
                    return None;
                }
                Incoming::Alive | Incoming::Other => {}
                Incoming::Welcome | Incoming::Refused(_) | Incoming::Goodbye => return None,
            }
        }
        Some(())
    }

    fn acknowledge(&mut self, packet: u16) {
        let Some(index) = self.waiting.iter().position(|waiting| waiting.packet == packet) else { return };
        if let Some(waiting) = self.waiting.remove(index) {
            self.report.acknowledged += 1;
            let device = self.monitor.device.clone();
            // Nobody listening any more is the listener's choice.
            let _ = self.acknowledged.send(Acknowledged { device, message: waiting.message, waited: waiting.first_sent.elapsed() });
        }
    }
}
