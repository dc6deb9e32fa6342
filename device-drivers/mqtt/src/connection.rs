//! The task of one connection: reads, submits, acknowledges, keeps the deadlines.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use vitalgate_domain::{DecodedSample, DeviceId, Received};
use vitalgate_intake::Submitted;

use crate::bucket::Bucket;
use crate::ending::Ending;
use crate::endpoint::Endpoint;
use crate::exchange::{Due, Exchange, Settled, Step};
use crate::identity::Shown;
use crate::limits::{ACKNOWLEDGEMENTS_INTERVAL_MS, CONTROL_BYTES_MAX, DRAIN_MS, READ_BYTES, SILENT_FIRST_MS, TIME_INTERVAL_MS};
use crate::probe;
use crate::refusal::Refusal;
use crate::roster::{Allowance, Control, Lease};
use crate::wire::frame::{self, Framed};

/// A byte stream over TCP.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send {
    /// The socket below.
    fn socket(&self) -> &TcpStream;
}

impl Transport for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Transport for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Why nothing more is taken from what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intake {
    /// It holds no whole packet: so many bytes are needed in all.
    Hungry(usize),
    /// Enough messages wait for their commit.
    Full,
    /// The device sent too much; it may go on at this moment.
    Throttled(Instant),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// A message could not be stored: nothing is taken or acknowledged, and this ends it.
    Held(Instant),
    /// The gateway stops: nothing is taken, receipts are waited for until then.
    Draining(Instant),
}

enum Wake {
    Settled(Settled),
    Read(std::io::Result<usize>),
    Deadline,
    Control,
}

/// One connection.
pub(crate) struct Connection<S> {
    stream: S,
    inbound: BytesMut,
    /// The conversation.
    pub(crate) exchange: Exchange,
    allowance: Allowance,
    control: Arc<Control>,
    shown: Shown,
    device: DeviceId,
    limits: frame::Limits,
    heard_ms: Arc<AtomicU64>,
    keep_alive: Option<Duration>,
    phase: Phase,
    intake: Intake,
    /// Until when a second client waits for a sign of life.
    contested_until: Option<Instant>,
    /// Whether the buffer grew for a large packet; it is given back once that is taken.
    grown: bool,
    /// When the last whole packet came.
    heard: Instant,
    /// When the packet that is not whole yet was begun.
    partial_since: Option<Instant>,
    partial: Duration,
    write: Duration,
    next_admission: Instant,
    next_time: Instant,
    next_committed: Instant,
    told_committed: u64,
    alarm: Pin<Box<Sleep>>,
}

impl<S: Transport> Connection<S> {
    /// A connection that was let in; `inbound` is what came after CONNECT.
    #[expect(clippy::too_many_arguments, reason = "everything that greeting found out, handed on once")]
    pub(crate) fn new(
        endpoint: &Endpoint,
        stream: S,
        inbound: BytesMut,
        exchange: Exchange,
        lease: &mut Lease,
        shown: Shown,
        device: &DeviceId,
        keep_alive: Option<Duration>,
    ) -> Self {
        let (config, now) = (&endpoint.config, Instant::now());
        let allowance = lease.allowance.take().unwrap_or_else(|| Allowance {
            packets: Bucket::new(config.packets_per_second_max, config.packets_per_second_max, now),
            bytes: Bucket::new(config.bytes_per_second_max, config.bytes_per_second_max, now),
        });
        let limits = frame::Limits { greeting: false, publish_bytes_max: config.packet_bytes_max, control_bytes_max: CONTROL_BYTES_MAX };
        let next_admission = now + Duration::from_millis(config.admission_check_ms);
        // A subscription that was kept is not made again: nothing else would tell it the time at once.
        let next_time = if exchange.session.time { now } else { now + Duration::from_millis(TIME_INTERVAL_MS) };
        Self {
            stream,
            inbound,
            exchange,
            allowance,
            control: Arc::clone(&lease.control),
            shown,
            device: device.clone(),
            limits,
            heard_ms: endpoint.stats.heard_of(device),
            keep_alive,
            phase: Phase::Open,
            intake: Intake::Hungry(2),
            contested_until: None,
            grown: false,
            heard: now,
            partial_since: None,
            partial: Duration::from_millis(config.partial_packet_ms),
            write: Duration::from_millis(config.write_ms),
            next_admission,
            next_time,
            next_committed: now,
            told_committed: 0,
            alarm: Box::pin(tokio::time::sleep_until(next_admission)),
        }
    }

    /// The parts that outlive the connection.
    pub(crate) fn into_parts(self) -> (S, Exchange, Allowance) {
        (self.stream, self.exchange, self.allowance)
    }

    /// Runs until the connection ends. Answers that are not written yet stay in the exchange.
    pub(crate) async fn run(&mut self, endpoint: &Endpoint) -> Ending {
        self.heard_ms.store((endpoint.clock)().monotonic_ms, Ordering::Relaxed);
        loop {
            if let Err(ending) = self.turn(endpoint).await {
                endpoint.stats.add(&mut self.exchange.tally);
                return ending;
            }
        }
    }

    /// Takes what there is, writes what is due, waits for what comes next.
    async fn turn(&mut self, endpoint: &Endpoint) -> Result<(), Ending> {
        if self.phase == Phase::Open {
            let mut inbound = std::mem::take(&mut self.inbound);
            let taken = self.take_in(&mut inbound, endpoint).await;
            if self.grown && inbound.is_empty() {
                (inbound, self.grown) = (BytesMut::new(), false);
            }
            self.inbound = inbound;
            taken?;
        } else if matches!(self.phase, Phase::Draining(_)) && !self.exchange.is_waiting() {
            return Err(Refusal::Stopping.into());
        }
        self.flush().await?;
        endpoint.stats.add(&mut self.exchange.tally);
        let reading = self.phase == Phase::Open && matches!(self.intake, Intake::Hungry(_));
        let wake = self.wait(reading).await;
        self.attend(wake, endpoint)
    }

    /// Takes every whole packet in `inbound` as far as the limits let it.
    async fn take_in(&mut self, inbound: &mut BytesMut, endpoint: &Endpoint) -> Result<(), Ending> {
        let now = Instant::now();
        // Until the end of this nothing is read and no deadline of reading counts.
        if !matches!(std::mem::replace(&mut self.intake, Intake::Full), Intake::Hungry(_)) {
            self.heard = now; // It could not be heard while it was not read.
        }
        let (mut received, mut took): (Option<Received>, bool) = (None, false);
        self.intake = loop {
            if self.phase != Phase::Open {
                break Intake::Full;
            }
            let frame = match frame::frame(inbound, &self.limits)? {
                Framed::Incomplete { bytes } => break Intake::Hungry(bytes),
                Framed::Complete(frame) => frame,
            };
            if self.exchange.is_full() {
                break Intake::Full;
            }
            let bytes = u64::try_from(frame.total).unwrap_or(u64::MAX);
            let wait = self.allowance.packets.wait_for(1, now).max(self.allowance.bytes.wait_for(bytes, now));
            if let Some(wait) = wait {
                endpoint.stats.throttle();
                break Intake::Throttled(now + wait);
            }
            self.allowance.packets.take(1);
            self.allowance.bytes.take(bytes);
            let received = *received.get_or_insert_with(|| (endpoint.clock)());
            took = true;
            let step = self.exchange.take(frame, inbound, received)?;
            inbound.advance(frame.total);
            if let Step::Submit(sample, due) = step {
                self.submit(sample, due, endpoint).await?;
            }
        };
        // Not the moment of before: to submit may have taken long, and that time was not the device's.
        self.note_heard(received, took, inbound.is_empty(), Instant::now());
        Ok(())
    }

    fn note_heard(&mut self, received: Option<Received>, took: bool, empty: bool, now: Instant) {
        if took {
            self.heard = now;
            if self.contested_until.take().is_some() {
                self.control.proves_alive();
                probe::watch(self.stream.socket());
            }
        }
        if let Some(received) = received {
            self.heard_ms.store(received.monotonic_ms, Ordering::Relaxed);
        }
        let begun = matches!(self.intake, Intake::Hungry(_)) && !empty;
        self.partial_since = if begun { self.partial_since.filter(|_| !took).or(Some(now)) } else { None };
    }

    /// Submits a sample. While the queue is full nothing is read, but receipts are still taken.
    async fn submit(&mut self, sample: DecodedSample, due: Due, endpoint: &Endpoint) -> Result<(), Ending> {
        let mut submit = pin!(endpoint.intake.submit(Submitted::Sample(sample)));
        let receipt = loop {
            let wake = tokio::select! {
                biased;
                receipt = &mut submit => break receipt,
                wake = self.wait(false) => wake,
            };
            self.attend(wake, endpoint)?;
            self.flush().await?;
        };
        let receipt = receipt.map_err(|_stopping| Refusal::Stopping)?;
        self.exchange.expect(due, receipt);
        Ok(())
    }

    async fn wait(&mut self, reading: bool) -> Wake {
        self.set_alarm(reading);
        if reading {
            let missing = match self.intake {
                Intake::Hungry(bytes) => bytes.saturating_sub(self.inbound.len()),
                _ => 0,
            };
            if self.inbound.capacity() - self.inbound.len() < missing.max(READ_BYTES / 8) {
                self.inbound.reserve(missing.max(READ_BYTES));
                self.grown |= missing > READ_BYTES;
            }
        }
        let settling = self.exchange.is_waiting() && !matches!(self.phase, Phase::Held(_));
        let Self { stream, inbound, exchange, alarm, control, .. } = self;
        tokio::select! {
            biased;
            settled = std::future::poll_fn(|context| exchange.poll_settled(context)), if settling => Wake::Settled(settled),
            read = stream.read_buf(inbound), if reading => Wake::Read(read),
            () = alarm.as_mut() => Wake::Deadline,
            () = control.wake.notified() => Wake::Control,
        }
    }

    fn attend(&mut self, wake: Wake, endpoint: &Endpoint) -> Result<(), Ending> {
        match wake {
            Wake::Settled(Settled::Progress) | Wake::Read(Ok(1..)) => Ok(()),
            Wake::Settled(Settled::Refused) => {
                let hold = Duration::from_millis(endpoint.config.storage_full_hold_ms);
                self.phase = Phase::Held(Instant::now() + hold);
                Ok(())
            }
            Wake::Settled(Settled::Stopping) => Err(Refusal::Stopping.into()),
            Wake::Read(Ok(0) | Err(_)) => Err(Ending::Vanished),
            Wake::Deadline => self.check_deadlines(endpoint),
            Wake::Control => {
                if self.control.stops() && self.phase == Phase::Open {
                    self.phase = Phase::Draining(Instant::now() + Duration::from_millis(DRAIN_MS));
                }
                if self.control.takes_challenge() {
                    let read = self.phase == Phase::Open && matches!(self.intake, Intake::Hungry(_));
                    if read && self.heard.elapsed() >= Duration::from_millis(SILENT_FIRST_MS) {
                        return Err(Refusal::GaveWay.into());
                    }
                    self.contested_until = Some(Instant::now() + Duration::from_millis(endpoint.config.contest_ms));
                    probe::challenge(self.stream.socket());
                }
                Ok(())
            }
        }
    }

    /// Writes all answers at once.
    async fn flush(&mut self) -> Result<(), Ending> {
        if self.exchange.answers.bytes.is_empty() {
            return Ok(());
        }
        let Self { stream, exchange, .. } = self;
        let bytes = &mut exchange.answers.bytes;
        let write = async {
            stream.write_all_buf(bytes).await?;
            stream.flush().await
        };
        match tokio::time::timeout(self.write, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(Ending::Vanished),
            Err(_late) => {
                // The rest of a packet that was half written would be garbage to the device.
                bytes.clear();
                Err(Refusal::SlowReader.into())
            }
        }
    }

    /// Sets the alarm to the next deadline. An alarm that is early costs a look, resetting it costs more.
    fn set_alarm(&mut self, reading: bool) {
        let mut next = self.next_admission;
        let mut also = |deadline: Instant| next = next.min(deadline);
        match self.phase {
            Phase::Held(until) | Phase::Draining(until) => also(until),
            Phase::Open => {}
        }
        if let (Phase::Open, Intake::Throttled(until)) = (self.phase, self.intake) {
            also(until);
        }
        if reading {
            self.partial_since.iter().for_each(|since| also(*since + self.partial));
            self.keep_alive.iter().for_each(|keep_alive| also(self.heard + *keep_alive));
        }
        self.contested_until.iter().for_each(|until| also(*until));
        if self.exchange.session.time {
            also(self.next_time);
        }
        if self.owes_committed() {
            also(self.next_committed);
        }
        if next < self.alarm.deadline() || self.alarm.is_elapsed() {
            self.alarm.as_mut().reset(next);
        }
    }

    fn owes_committed(&self) -> bool {
        self.exchange.session.acknowledgements && self.exchange.committed != self.told_committed
    }

    fn check_deadlines(&mut self, endpoint: &Endpoint) -> Result<(), Ending> {
        let now = Instant::now();
        match self.phase {
            Phase::Held(until) if now >= until => return Err(Refusal::StorageFull.into()),
            Phase::Draining(until) if now >= until => return Err(Refusal::Stopping.into()),
            _ => {}
        }
        if self.phase == Phase::Open && matches!(self.intake, Intake::Hungry(_)) {
            if self.partial_since.is_some_and(|since| now >= since + self.partial) {
                return Err(Refusal::PartialPacket.into());
            }
            if self.keep_alive.is_some_and(|keep_alive| now >= self.heard + keep_alive) {
                return Err(Refusal::KeepAlive.into());
            }
        }
        if self.contested_until.take_if(|until| now >= *until).is_some() {
            probe::watch(self.stream.socket());
        }
        if now >= self.next_admission {
            self.next_admission = now + Duration::from_millis(endpoint.config.admission_check_ms);
            if !endpoint.credentials.is_admitted(&self.device, &self.shown) {
                return Err(Refusal::NotAdmitted.into());
            }
        }
        if self.exchange.session.time && now >= self.next_time {
            self.next_time = now + Duration::from_millis(TIME_INTERVAL_MS);
            self.exchange.tell_time((endpoint.clock)());
        }
        if self.owes_committed() && now >= self.next_committed {
            self.next_committed = now + Duration::from_millis(ACKNOWLEDGEMENTS_INTERVAL_MS);
            self.told_committed = self.exchange.committed;
            self.exchange.tell_committed();
        }
        Ok(())
    }
}
