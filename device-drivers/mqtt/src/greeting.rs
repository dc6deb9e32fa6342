//! From the first byte to CONNACK, and from the end of a connection to the closed socket.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use vitalgate_domain::{DeviceEvent, DeviceEventKind, DeviceId};
use vitalgate_intake::Submitted;

use crate::connection::{Connection, Transport};
use crate::ending::Ending;
use crate::endpoint::Endpoint;
use crate::exchange::Exchange;
use crate::gate::Pass;
use crate::identity::{Proof, Shown, identify};
use crate::limits::{CONNECT_BYTES_MAX, KEEP_ALIVE_MAX_S, LINGER_BYTES_MAX, LINGER_MS, SESSION_EXPIRY_MAX_S, WILL_DELAY_MAX_S, WRITE_MS};
use crate::refusal::Refusal;
use crate::roster::Lease;
use crate::session::Session;
use crate::wire::answer::{Answers, Welcome};
use crate::wire::connect::{self, Connect};
use crate::wire::frame::{self, Framed};
use crate::wire::{Level, WireFault};

/// Bytes that are read at once before the device is known.
const GREETING_READ_BYTES: usize = 1_024;

const LIMITS: frame::Limits = frame::Limits { greeting: true, publish_bytes_max: 0, control_bytes_max: CONNECT_BYTES_MAX };

/// A connection that was not let in: why, and in which version to say so.
struct Rejected {
    refusal: Refusal,
    fault: Option<WireFault>,
    level: Level,
    device: Option<DeviceId>,
}

impl From<WireFault> for Rejected {
    fn from(fault: WireFault) -> Self {
        Self { refusal: fault.into(), fault: Some(fault), level: Level::V311, device: None }
    }
}

impl From<Refusal> for Rejected {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, fault: None, level: Level::V311, device: None }
    }
}

/// Serves one connection from CONNECT to its end.
pub(crate) async fn receive<S: Transport>(
    endpoint: &Endpoint,
    mut stream: S,
    proof: Proof,
    address: SocketAddr,
    pass: Pass,
    deadline: Instant,
) {
    let mut inbound = BytesMut::new();
    match greet(endpoint, &mut stream, &mut inbound, &proof, deadline).await {
        Ok(None) => {}
        Ok(Some((connect, device, shown, lease))) => {
            drop(pass);
            serve(endpoint, stream, inbound, shown, address, connect, device, lease).await;
        }
        Err(rejected) => {
            endpoint.note(rejected.refusal, rejected.device.as_ref(), address, rejected.fault);
            let mut answers = Answers::new(rejected.level, CONNECT_BYTES_MAX);
            answers.refuse(rejected.refusal);
            close(&mut stream, &answers.bytes).await;
        }
    }
}

/// Reads CONNECT and finds out whose it is; `None` if the peer left before it was complete.
async fn greet<S: Transport>(
    endpoint: &Endpoint,
    stream: &mut S,
    inbound: &mut BytesMut,
    proof: &Proof,
    deadline: Instant,
) -> Result<Option<(Connect, DeviceId, Shown, Lease)>, Rejected> {
    let frame = loop {
        match frame::frame(inbound, &LIMITS)? {
            Framed::Complete(frame) => break frame,
            Framed::Incomplete { bytes } => inbound.reserve(GREETING_READ_BYTES.max(bytes.saturating_sub(inbound.len()))),
        }
        match tokio::time::timeout_at(deadline, stream.read_buf(inbound)).await {
            Ok(Ok(0) | Err(_)) => return Ok(None),
            Ok(Ok(_read)) => {}
            Err(_late) => return Err(Refusal::Greeting.into()),
        }
    };
    let level = connect::level(frame.body(inbound))?;
    let connect = connect::read(frame, inbound).map_err(|fault| Rejected { level, ..fault.into() })?;
    inbound.advance(frame.total);
    if level == Level::V311 && connect.client_id.is_empty() && !connect.clean {
        // Section 3.1.3.1 of 3.1.1: state cannot be kept for a client without a name.
        return Err(Rejected { level, ..Refusal::NoClientId.into() });
    }
    let (device, shown) = identify(proof, &connect, endpoint.credentials.as_ref()).map_err(|refusal| {
        let device = match proof {
            Proof::Certificate(device, _) => Some(device.clone()),
            // Named only where it was here before: a log line must not carry what strangers choose to say.
            Proof::Nothing | Proof::Loopback => {
                DeviceId::new(&connect.client_id).ok().filter(|device| endpoint.stats.last_heard_ms(device).is_some())
            }
        };
        Rejected { level, device, ..refusal.into() }
    })?;
    match endpoint.roster.admit(&device, Duration::from_millis(endpoint.config.contest_ms)).await {
        Ok(lease) => Ok(Some((connect, device, shown, lease))),
        Err(refusal) => Err(Rejected { level, device: Some(device), ..refusal.into() }),
    }
}

/// What the gateway and the device agreed on.
struct Terms {
    keep_alive: Option<Duration>,
    session_expiry_s: u32,
    welcome: Welcome,
}

fn agree(endpoint: &Endpoint, connect: &Connect, device: &DeviceId, session_present: bool) -> Terms {
    let v5 = connect.level == Level::V5;
    let mut welcome = Welcome {
        session_present,
        receive_max: endpoint.config.in_flight_max,
        packet_bytes_max: u32::try_from(endpoint.config.packet_bytes_max).unwrap_or(u32::MAX),
        ..Welcome::default()
    };
    if connect.client_id.is_empty() {
        welcome.assigned_client_id = Some(device.to_string());
    }
    let mut keep_alive_s = connect.keep_alive_s;
    if v5 && (keep_alive_s == 0 || keep_alive_s > KEEP_ALIVE_MAX_S) {
        keep_alive_s = KEEP_ALIVE_MAX_S;
        welcome.keep_alive_s = Some(keep_alive_s);
    }
    let mut session_expiry_s = connect.session_expiry_s;
    if v5 && session_expiry_s > SESSION_EXPIRY_MAX_S {
        session_expiry_s = SESSION_EXPIRY_MAX_S;
        welcome.session_expiry_s = Some(session_expiry_s);
    }
    // Section 3.1.2.10: one and a half times the keep-alive.
    let keep_alive = (keep_alive_s > 0).then(|| Duration::from_millis(u64::from(keep_alive_s) * 1_500));
    Terms { keep_alive, session_expiry_s, welcome }
}

#[expect(clippy::too_many_arguments, reason = "everything that greeting found out, handed on once")]
async fn serve<S: Transport>(
    endpoint: &Endpoint,
    stream: S,
    inbound: BytesMut,
    shown: Shown,
    address: SocketAddr,
    connect: Connect,
    device: DeviceId,
    mut lease: Lease,
) {
    let kept = lease.session.take().filter(|_| !connect.clean);
    let terms = agree(endpoint, &connect, &device, kept.is_some());
    let mut answers = Answers::new(connect.level, connect.packet_bytes_max);
    answers.welcome(terms.welcome);
    let session = kept.unwrap_or_else(Session::new);
    let exchange = Exchange::new(
        device.clone(),
        session,
        answers,
        connect.level,
        std::sync::Arc::clone(&endpoint.decode),
        endpoint.config.in_flight_max,
    );
    if !tell(endpoint, &device, DeviceEventKind::Connected).await {
        return;
    }
    endpoint.stats.opened();
    tracing::debug!(device = device.as_str(), %address, "device connected");
    let mut connection = Connection::new(endpoint, stream, inbound, exchange, &mut lease, shown, &device, terms.keep_alive);
    let ending = connection.run(endpoint).await;
    endpoint.stats.closed();
    tracing::debug!(device = device.as_str(), %address, ?ending, "device gone");
    if let Ending::Refused(refusal, fault) = ending {
        if refusal != Refusal::Stopping {
            endpoint.note(refusal, Some(&device), address, fault);
        }
        // Of a slow reader's answers a packet may be half written: it would read anything more as the rest of that.
        if refusal != Refusal::SlowReader {
            connection.exchange.answers.dismiss(refusal);
        }
    }
    let (mut stream, exchange, allowance) = connection.into_parts();
    let last_words = exchange.answers.bytes.clone();
    let expiry_s = match exchange.session_expiry_s {
        // Kept, it would shut out for ever a device that forgot what it has to let go of.
        _ if ending == Ending::Refused(Refusal::ReceiveMaximum, None) => 0,
        // Section 3.14.2.2.2: a session that was to end with the connection cannot be prolonged.
        Some(asked) if terms.session_expiry_s > 0 => asked.min(SESSION_EXPIRY_MAX_S),
        _ => terms.session_expiry_s,
    };
    let expiry = (expiry_s != u32::MAX).then(|| Duration::from_secs(u64::from(expiry_s)));
    let stopping = ending == Ending::Refused(Refusal::Stopping, None);
    let gone = match ending {
        Ending::Left { with_will } if !with_will || connect.will_delay_s.is_none() => DeviceEventKind::Disconnected,
        _ => DeviceEventKind::Lost,
    };
    let will_delay_s = connect.will_delay_s.unwrap_or(0).min(WILL_DELAY_MAX_S).min(expiry_s);
    let turn = lease.turn;
    if stopping {
        lease.release(exchange.into_session(), expiry, allowance);
    } else if gone == DeviceEventKind::Lost && will_delay_s > 0 {
        lease.release(exchange.into_session(), expiry, allowance);
        close(&mut stream, &last_words).await;
        tell_later(endpoint, &device, turn, will_delay_s).await;
        return;
    } else {
        // Before another connection of this device may begin: events keep their order.
        tell(endpoint, &device, gone).await;
        lease.release(exchange.into_session(), expiry, allowance);
    }
    close(&mut stream, &last_words).await;
}

async fn tell_later(endpoint: &Endpoint, device: &DeviceId, turn: u64, will_delay_s: u32) {
    if !endpoint.roster.returns_within(device, turn, Duration::from_secs(u64::from(will_delay_s))).await {
        tell(endpoint, device, DeviceEventKind::Lost).await;
    }
}

/// Submits a device's coming or going; false when the gateway stops.
async fn tell(endpoint: &Endpoint, device: &DeviceId, kind: DeviceEventKind) -> bool {
    let received = (endpoint.clock)();
    endpoint.intake.submit(Submitted::Event(DeviceEvent { device: device.clone(), kind, received })).await.is_ok()
}

/// Writes the last words and closes. What the peer still sends is thrown away for a moment: a socket closed
/// with unread bytes resets the connection, and the peer would not get to read why.
async fn close<S: Transport>(stream: &mut S, last_words: &[u8]) {
    let write = async {
        stream.write_all(last_words).await?;
        stream.flush().await?;
        stream.shutdown().await
    };
    if !matches!(tokio::time::timeout(Duration::from_millis(WRITE_MS.min(LINGER_MS)), write).await, Ok(Ok(()))) || last_words.is_empty() {
        return;
    }
    let drain = async {
        let mut waste = [0_u8; 1_024];
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            match stream.read(&mut waste).await {
                Ok(read) if read > 0 => left = left.saturating_sub(read),
                _ => break,
            }
        }
    };
    let _elapsed = tokio::time::timeout(Duration::from_millis(LINGER_MS), drain).await;
}
