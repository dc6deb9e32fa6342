//! A bus under test: the poller, a commit that can be told what to answer, and a scripted device.

// Each test file uses its own part of this.
#![allow(dead_code)]

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use vitalgate_domain::{BootId, ClockTrust, DecodedSample, DeviceId, Received, UnixMs, Value};
use vitalgate_intake::{IntakeQueue, Receipt, Submission, Submitted, intake};
use vitalgate_modbus::{BusConfig, BusDevice, DeviceStatus, ModbusStats, run_bus};
use vitalgate_profile::{Profile, Profiles};

/// Longest wait for anything that must happen; generous, since test machines are slow and shared.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn device(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

pub(crate) fn builtin() -> Arc<Profile> {
    Profiles::builtin().unwrap().get("vitals-modbus").unwrap()
}

/// One register for the heart rate at 0 and, as a block of its own, one for the respiratory rate at 100.
pub(crate) fn two_blocks(more: &str) -> Arc<Profile> {
    let text = format!(
        r#"
        id = "two-blocks"
        version = "1"
        source = "Test"
        [polled]
        min_poll_interval_ms = 10
        block = [
            {{ name = "a", function = "holding_registers", address = 0, count = 1, source = "Test" }},
            {{ name = "b", function = "holding_registers", address = 100, count = 1, source = "Test" }}]
        register = [
            {{ block = "a", address = 0, type = "u16", metric = "heart_rate", unit = "/min", source = "Test" }},
            {{ block = "b", address = 100, type = "u16", metric = "resp_rate", unit = "/min", source = "Test" }}]
        {more}
    "#
    );
    let mut profiles = Profiles::default();
    let id = profiles.load("two-blocks.toml", &text).unwrap();
    profiles.get(&id).unwrap()
}

pub(crate) fn polled(name: &str, unit_id: u8, profile: &Arc<Profile>, poll_interval_ms: u64) -> BusDevice {
    BusDevice { device: device(name), unit_id, profile: profile.clone(), poll_interval_ms }
}

/// Metric and value of every reading.
pub(crate) fn shown(sample: &DecodedSample) -> Vec<String> {
    let value = |value: &Value| match value {
        Value::Quantity(quantity) => quantity.value.to_string(),
        Value::Absent(reason) => format!("{reason:?}"),
    };
    sample.readings.iter().map(|reading| format!("{} {}", reading.metric.key(), value(&reading.value))).collect()
}

/// The poller at work.
pub(crate) struct Running {
    pub(crate) samples: mpsc::UnboundedReceiver<DecodedSample>,
    pub(crate) stats: ModbusStats,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) task: JoinHandle<()>,
    pub(crate) beats: Arc<AtomicU64>,
    receipt: Arc<Mutex<Receipt>>,
}

fn clock() -> Received {
    Received { wall: UnixMs(1_000), monotonic_ms: 77, boot: BootId::from_bytes([1; 16]), trust: ClockTrust::Free }
}

/// Starts the poller with an intake that nobody empties yet.
pub(crate) fn start_unattended(config: BusConfig) -> (Running, IntakeQueue, mpsc::UnboundedSender<DecodedSample>) {
    let (intake, queue) = intake();
    let stats = ModbusStats::default();
    let (stop, stopped) = watch::channel(false);
    let beats = Arc::new(AtomicU64::new(0));
    let counted = beats.clone();
    let beacon = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let task = tokio::spawn(run_bus(config, intake, Arc::new(clock), stats.clone(), beacon, stopped));
    let (sender, samples) = mpsc::unbounded_channel();
    (Running { samples, stats, stop, task, beats, receipt: Arc::new(Mutex::new(Receipt::Committed)) }, queue, sender)
}

/// Starts the poller with a commit that takes everything, or answers as [`Running::answer_with`] says.
pub(crate) fn start(config: BusConfig) -> Running {
    let (running, mut queue, sender) = start_unattended(config);
    let receipt = running.receipt.clone();
    tokio::spawn(async move {
        while let Some(submission) = queue.next().await {
            let now = *receipt.lock().unwrap();
            pass_on(submission, &sender, now);
        }
    });
    running
}

/// Answers one submission and shows its sample to the test.
pub(crate) fn pass_on(submission: Submission, to: &mpsc::UnboundedSender<DecodedSample>, receipt: Receipt) {
    let (submitted, sender) = submission.into_parts();
    if let Submitted::Sample(sample) = submitted {
        let _test_is_over = to.send(sample);
    }
    sender.answer(receipt);
}

impl Running {
    pub(crate) fn answer_with(&self, receipt: Receipt) {
        *self.receipt.lock().unwrap() = receipt;
    }

    pub(crate) async fn sample(&mut self) -> DecodedSample {
        within("a sample", self.samples.recv()).await.unwrap()
    }

    pub(crate) fn status(&self, name: &str) -> Option<DeviceStatus> {
        self.stats.device(&device(name))
    }

    /// Waits until the device's status is as asked for.
    pub(crate) async fn until(&self, name: &str, what: &str, reached: impl Fn(DeviceStatus) -> bool) -> DeviceStatus {
        let poll = async {
            let mut ticks = interval(Duration::from_millis(5));
            loop {
                ticks.tick().await;
                if let Some(status) = self.status(name).filter(|status| reached(*status)) {
                    return status;
                }
            }
        };
        match timeout(DEADLINE, poll).await {
            Ok(status) => status,
            Err(_) => panic!("{name} never became {what}; it is {:?}", self.status(name)),
        }
    }

    pub(crate) async fn end(self) {
        self.stop.send(true).unwrap();
        within("the end of the task", self.task).await.unwrap();
    }
}

/// Waits for what must happen.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("{what} did not come"),
    }
}

/// A question as the scripted device sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Which connection, from 0.
    pub(crate) connection: usize,
    /// Which question of all, from 0.
    pub(crate) nth: usize,
    pub(crate) transaction: u16,
    pub(crate) unit: u8,
    pub(crate) function: u8,
    pub(crate) address: u16,
    pub(crate) count: u16,
}

/// What the scripted device does.
pub(crate) enum Act {
    /// Answers with these registers.
    Registers(Vec<u16>),
    /// Answers with these bits packed into bytes.
    Bits(Vec<u8>),
    /// Answers with an exception code.
    Exception(u8),
    /// Says nothing.
    Silence,
    /// Sends these bytes.
    Raw(Vec<u8>),
    /// Answers with these registers and closes the connection.
    RegistersThenClose(Vec<u16>),
    /// Closes the connection.
    Close,
}

/// A scripted device on a free port of this machine.
pub(crate) struct Device {
    pub(crate) address: String,
    pub(crate) asked: mpsc::UnboundedReceiver<Asked>,
    pub(crate) log: Arc<Mutex<Vec<Asked>>>,
    pub(crate) closed: Arc<AtomicU64>,
}

impl Device {
    pub(crate) async fn start(script: impl Fn(Asked) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, script)
    }

    pub(crate) fn on(listener: TcpListener, script: impl Fn(Asked) -> Act + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let (sender, asked) = mpsc::unbounded_channel();
        let log = Arc::new(Mutex::new(Vec::new()));
        let closed = Arc::new(AtomicU64::new(0));
        let script = Arc::new(script);
        let (all, gone) = (log.clone(), closed.clone());
        tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((stream, _)) = listener.accept().await {
                let (script, all, sender, gone) = (script.clone(), all.clone(), sender.clone(), gone.clone());
                tokio::spawn(async move {
                    converse(stream, connection, &*script, &all, &sender).await;
                    gone.fetch_add(1, Ordering::SeqCst);
                });
                connection += 1;
            }
        });
        Self { address, asked, log, closed }
    }

    pub(crate) async fn question(&mut self) -> Asked {
        within("a question", self.asked.recv()).await.unwrap()
    }

    pub(crate) fn connections(&self) -> usize {
        self.log.lock().unwrap().iter().map(|asked| asked.connection + 1).max().unwrap_or_default()
    }
}

async fn converse(
    mut stream: TcpStream,
    connection: usize,
    script: &(dyn Fn(Asked) -> Act + Send + Sync),
    log: &Mutex<Vec<Asked>>,
    asked: &mpsc::UnboundedSender<Asked>,
) {
    let mut frame = [0; 12];
    while stream.read_exact(&mut frame).await.is_ok() {
        let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        let question = {
            let mut log = log.lock().unwrap();
            let question = Asked {
                connection,
                nth: log.len(),
                transaction: word(0),
                unit: frame[6],
                function: frame[7],
                address: word(8),
                count: word(10),
            };
            log.push(question);
            question
        };
        let _test_is_over = asked.send(question);
        let act = script(question);
        let last = matches!(act, Act::Close | Act::RegistersThenClose(_));
        let bytes = match act {
            Act::Registers(words) | Act::RegistersThenClose(words) => answer(question, &registers(&words)),
            Act::Bits(bits) => answer(question, &bits),
            Act::Exception(code) => adu(question.transaction, question.unit, &[question.function | 0x80, code]),
            Act::Raw(bytes) => bytes,
            Act::Silence | Act::Close => Vec::new(),
        };
        if stream.write_all(&bytes).await.is_err() || last {
            return;
        }
    }
}

pub(crate) fn registers(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// A whole answer to a read question.
pub(crate) fn answer(asked: Asked, data: &[u8]) -> Vec<u8> {
    let mut pdu = vec![asked.function, u8::try_from(data.len()).unwrap()];
    pdu.extend_from_slice(data);
    adu(asked.transaction, asked.unit, &pdu)
}

/// A PDU in its MBAP header.
pub(crate) fn adu(transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut bytes = transaction.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&u16::try_from(pdu.len() + 1).unwrap().to_be_bytes());
    bytes.push(unit);
    bytes.extend_from_slice(pdu);
    bytes
}
