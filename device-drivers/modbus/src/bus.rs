//! The owner task of one bus.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use vitalgate_domain::{DecodedSample, Received};
use vitalgate_intake::{Intake, Receipt, Stopping, Submitted};
use vitalgate_profile::{Block, decode_block};

use crate::config::{BusConfig, BusDevice};
use crate::fault::PollFault;
use crate::link::Link;
use crate::schedule::{Schedule, pause};
use crate::stats::ModbusStats;

/// The task gives a sign of life at least this often, in milliseconds.
const BEAT_MS: u64 = 1_000;
/// First pause before a bus that could not be reached is tried again, in milliseconds.
const RECONNECT_MS: u64 = 500;

/// Reads the present.
pub type Clock = Arc<dyn Fn() -> Received + Send + Sync>;
/// Takes the task's signs of life.
pub type Beacon = Arc<dyn Fn() + Send + Sync>;

/// Polls the devices of one bus until `shutdown` says true (or its sender is gone) or the intake is stopping.
///
/// A fault of the bus or of a device never ends it; it shows in `stats`.
pub async fn run_bus(
    config: BusConfig,
    intake: Intake,
    clock: Clock,
    stats: ModbusStats,
    beacon: Beacon,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut bus = Bus::new(config, intake, clock, stats);
    let stopped = async {
        // A sender that is gone asks for nothing more: that is a shutdown too.
        let _gone = shutdown.wait_for(|stop| *stop).await;
    };
    tokio::select! {
        () = stopped => {}
        _stopping = with_beat(&beacon, bus.run()) => {}
    }
}

/// Lets a future go on while giving signs of life.
async fn with_beat<T>(beacon: &Beacon, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        beacon();
        let beat = Instant::now() + Duration::from_millis(BEAT_MS);
        if let Ok(outcome) = timeout_at(beat, &mut future).await {
            return outcome;
        }
    }
}

/// How a poll ended.
enum Polled {
    /// Committed, perhaps not in full.
    Counted,
    /// Not committed, or the device failed in the middle.
    Failed(PollFault),
    /// Nobody can be reached.
    NoConnection,
}

struct Bus {
    devices: Vec<Polling>,
    schedule: Schedule,
    link: Link,
    connect_failures: u32,
    intake: Intake,
    clock: Clock,
    stats: ModbusStats,
}

/// A device with what was proven about it.
struct Polling {
    device: BusDevice,
    /// The connection on which it proved its kind, and since when that counts.
    proven: Option<(u64, Instant)>,
    /// How long a proof counts.
    proof: Duration,
}

impl Bus {
    fn new(config: BusConfig, intake: Intake, clock: Clock, stats: ModbusStats) -> Self {
        let (link, proof) = (Link::new(&config), Duration::from_millis(config.proof_ms));
        let mut devices = Vec::with_capacity(config.devices.len());
        for device in config.devices {
            if device.polled().is_some() {
                stats.waiting(&device.device);
                devices.push(Polling { device, proven: None, proof });
            } else {
                stats.failed(&device.device, PollFault::Profile);
            }
        }
        let intervals: Vec<_> = devices.iter().map(|polling| polling.device.interval()).collect();
        let schedule = Schedule::new(&intervals, Instant::now());
        Self { devices, schedule, link, connect_failures: 0, intake, clock, stats }
    }

    async fn run(&mut self) -> Stopping {
        loop {
            let now = Instant::now();
            let Some((index, due)) = self.schedule.next(now) else {
                // No device can be polled; the task stays so that its supervisor does not start it over and over.
                sleep(Duration::from_millis(BEAT_MS)).await;
                continue;
            };
            self.link.rest_until(due.max(now));
            sleep_until(due).await;
            let started = Instant::now();
            let polled = match self.poll(index).await {
                Ok(polled) => polled,
                Err(stopping) => return stopping,
            };
            let now = Instant::now();
            match polled {
                Polled::Counted => self.schedule.succeeded(index, now),
                Polled::Failed(fault) => {
                    // Waiting for our own disk is no fault of the bus.
                    let took = if fault == PollFault::NotStored { Duration::ZERO } else { now - started };
                    self.schedule.failed(index, now, took, fastrand::f64());
                    if let Some(polling) = self.devices.get(index) {
                        self.stats.failed(&polling.device.device, fault);
                    }
                }
                Polled::NoConnection => self.no_connection().await,
            }
        }
    }

    /// Nobody behind the address can be asked: all wait, longer each time. The device whose turn it was stays due.
    async fn no_connection(&mut self) {
        for polling in &self.devices {
            self.stats.failed(&polling.device.device, PollFault::Unreachable);
        }
        let pause = pause(Duration::from_millis(RECONNECT_MS), self.connect_failures, fastrand::f64());
        self.connect_failures = self.connect_failures.saturating_add(1);
        sleep(pause).await;
    }

    /// Polls a device. A connection that lay idle and turns out closed says nothing of the device: it is
    /// opened anew, once.
    async fn poll(&mut self, index: usize) -> Result<Polled, Stopping> {
        let may_be_stale = self.link.has_answered();
        match self.attempt(index).await? {
            Polled::Failed(PollFault::ConnectionLost) if may_be_stale => self.attempt(index).await,
            polled => Ok(polled),
        }
    }

    async fn attempt(&mut self, index: usize) -> Result<Polled, Stopping> {
        match self.link.open().await {
            Ok(true) => self.stats.connected(),
            Ok(false) => {}
            Err(_) => return Ok(Polled::NoConnection),
        }
        self.connect_failures = 0;
        let Some(polling) = self.devices.get_mut(index) else { return Ok(Polled::Failed(PollFault::Profile)) };
        if let Err(fault) = polling.prove(&mut self.link).await {
            return Ok(Polled::Failed(fault));
        }
        let asked = Instant::now();
        let (samples, fault) = polling.read(&mut self.link, &self.clock).await;
        self.stats.responded(asked.elapsed());
        let device = polling.device.device.clone();
        if samples.is_empty() {
            return Ok(Polled::Failed(fault.unwrap_or(PollFault::Profile)));
        }
        let undecodable = samples.iter().any(|sample| sample.unreadable.is_some()).then_some(PollFault::Undecodable);
        let readings = samples.iter().map(|sample| sample.readings.len()).sum();
        if !commit(&self.intake, samples).await? {
            return Ok(Polled::Failed(PollFault::NotStored));
        }
        match fault {
            // The connection is sound and the rest was read: the device keeps its rhythm.
            None | Some(PollFault::Exception(_)) => {
                let in_part = fault.or(undecodable);
                self.stats.committed(&device, readings, (self.clock)().monotonic_ms, in_part);
                Ok(Polled::Counted)
            }
            Some(fault) => Ok(Polled::Failed(fault)),
        }
    }
}

impl Polling {
    /// Proves that the device is what its profile says, where it has something to prove it with and no proof counts any more. A
    /// gateway keeps its connection when another device takes the unit id: the connection alone proves nothing.
    async fn prove(&mut self, link: &mut Link) -> Result<(), PollFault> {
        let Some(check) = self.device.polled().and_then(vitalgate_profile::PolledProfile::identity_check) else { return Ok(()) };
        let (connection, now) = (link.generation(), Instant::now());
        if self.proven.is_some_and(|(proven_on, since)| proven_on == connection && now.duration_since(since) < self.proof) {
            return Ok(());
        }
        if !check.matches(&link.read(self.device.unit_id, check.block()).await?) {
            return Err(PollFault::WrongDevice);
        }
        self.proven = Some((connection, now));
        Ok(())
    }

    /// Reads every block. An exception answer concerns its block only; any other fault ends the poll. After a fault of any kind
    /// the device has to prove its kind again.
    async fn read(&mut self, link: &mut Link, clock: &Clock) -> (Vec<DecodedSample>, Option<PollFault>) {
        let (samples, fault) = self.read_blocks(link, clock).await;
        if fault.is_some() {
            self.proven = None;
        }
        (samples, fault)
    }

    async fn read_blocks(&self, link: &mut Link, clock: &Clock) -> (Vec<DecodedSample>, Option<PollFault>) {
        let blocks: &[Block] = self.device.polled().map_or(&[], |polled| polled.blocks());
        let (mut samples, mut fault) = (Vec::with_capacity(blocks.len()), None);
        for block in blocks {
            match link.read(self.device.unit_id, block).await {
                Ok(words) => samples.push(decode_block(&self.device.profile, block, &self.device.device, &words, clock())),
                Err(exception @ PollFault::Exception(_)) => fault = Some(exception),
                Err(other) => return (samples, Some(other)),
            }
        }
        (samples, fault)
    }
}

/// Hands the samples over and waits for their receipts; true when all are on disk. A full queue waits here.
async fn commit(intake: &Intake, samples: Vec<DecodedSample>) -> Result<bool, Stopping> {
    let mut pending = Vec::with_capacity(samples.len());
    for sample in samples {
        pending.push(intake.submit(Submitted::Sample(sample)).await?);
    }
    let mut committed = true;
    for receipt in pending {
        committed &= receipt.await? == Receipt::Committed;
    }
    Ok(committed)
}
