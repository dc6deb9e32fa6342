//! What a connection does when its time is up, on a clock that a test turns.

use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use vitalgate_domain::{BootId, ClockTrust, DeviceEvent, DeviceEventKind, DeviceId, Received, UnixMs};
use vitalgate_intake::{Intake, IntakeQueue, QUEUE_SUBMISSIONS_MAX, Receipt, Submitted, intake};

use crate::connection::Transport;
use crate::endpoint::Endpoint;
use crate::gate::Gate;
use crate::identity::{Credentials, Proof, Shown};
use crate::limits::{CONTEST_MS, GREETING_MS, PARTIAL_PACKET_MS, SILENT_FIRST_MS};
use crate::refusal::Refusal;
use crate::{EndpointConfig, MqttStats, greeting, probe};

/// Within this everything that a test waits for has happened.
const PATIENCE: Duration = Duration::from_secs(20);
const BUFFER_BYTES: usize = 64 * 1024;

struct Everybody;

impl Credentials for Everybody {
    fn verify_password(&self, _device: &DeviceId, _password: &[u8]) -> Option<[u8; 32]> {
        None
    }
    fn is_admitted(&self, _device: &DeviceId, _shown: &Shown) -> bool {
        true
    }
}

/// A connection whose bytes stay in memory, so that the clock stands while they are on their way.
struct Pipe(DuplexStream, TcpStream);

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl Transport for Pipe {
    fn socket(&self) -> &TcpStream {
        &self.1
    }
}

/// A device that is connected, and the gateway around it.
struct Scene {
    endpoint: Arc<Endpoint>,
    intake: Intake,
    queue: IntakeQueue,
    /// The device's end.
    device: DuplexStream,
    socket: OwnedFd,
    /// Messages that were decoded.
    decoded: Arc<AtomicUsize>,
}

fn received() -> Received {
    Received { wall: UnixMs(0), monotonic_ms: 1, boot: BootId::from_bytes([0; 16]), trust: ClockTrust::Free }
}

fn device() -> DeviceId {
    DeviceId::new("m1").unwrap()
}

impl Scene {
    /// A device of 3.1.1.
    async fn connected(config: EndpointConfig, keep_alive_s: u8) -> Self {
        let connect = [b"\x10\x0e\x00\x04MQTT\x04\x02\x00", &[keep_alive_s][..], b"\x00\x02m1"].concat();
        let mut scene = Self::taken(config, BUFFER_BYTES, &connect).await;
        assert_eq!(scene.hears().await, [0x20, 2, 0, 0]);
        scene
    }

    /// A device whose CONNACK is still to be read; `buffer_bytes` are on their way to it at most.
    async fn taken(config: EndpointConfig, buffer_bytes: usize, connect: &[u8]) -> Self {
        let (intake, queue) = intake();
        let decoded = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&decoded);
        let decode: crate::Decode = Arc::new(move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            None
        });
        let endpoint =
            Arc::new(Endpoint::new(config, intake.clone(), decode, Arc::new(Everybody), Arc::new(received), MqttStats::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let socket = stream.as_fd().try_clone_to_owned().unwrap();
        let (near, device) = tokio::io::duplex(buffer_bytes);
        let pass = Arc::new(Gate::new()).place(address.ip()).unwrap().pass().await.unwrap();
        let (serving, deadline) = (Arc::clone(&endpoint), Instant::now() + Duration::from_millis(GREETING_MS));
        tokio::spawn(async move { greeting::receive(&serving, Pipe(near, stream), Proof::Loopback, address, pass, deadline).await });
        let mut scene = Self { endpoint, intake, queue, device, socket, decoded };
        scene.device.write_all(connect).await.unwrap();
        scene.commit().await;
        scene
    }

    /// Commits what is next; whether it was a message.
    async fn commit(&mut self) -> bool {
        let submission = tokio::time::timeout(PATIENCE, self.queue.next()).await.expect("nothing was submitted").unwrap();
        let is_message = matches!(submission.submitted, Submitted::Sample(_));
        submission.answer(Receipt::Committed);
        is_message
    }

    async fn hears(&mut self) -> [u8; 4] {
        let mut packet = [0; 4];
        tokio::time::timeout(PATIENCE, self.device.read_exact(&mut packet)).await.expect("no answer came").unwrap();
        packet
    }

    /// Whether, within `time`, nothing comes and the connection stays.
    async fn stays_silent(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.device.read_u8()).await.is_err()
    }

    fn silence_ms(&self) -> u32 {
        getsockopt(&self.socket, sockopt::TcpUserTimeout).unwrap()
    }

    /// A second client comes; gives what becomes of it.
    async fn contested(&self) -> tokio::task::JoinHandle<Option<Refusal>> {
        let (roster, contest) = (Arc::clone(&self.endpoint.roster), Duration::from_millis(self.endpoint.config.contest_ms));
        let second = tokio::spawn(async move { roster.admit(&device(), contest).await.err() });
        eventually("the first is probed at once", || self.silence_ms() == probe::CONTESTED_SILENCE_MS).await;
        second
    }
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let waiting = async {
        while !condition() {
            tick.tick().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never came: {what}");
}

/// After a contest a short gap of the radio must not hand the device's id to the next second client.
#[tokio::test(start_paused = true)]
async fn a_contest_that_is_over_leaves_the_first_as_patient_as_before() {
    // It is heard.
    let mut scene = Scene::connected(EndpointConfig { contest_ms: 600_000, ..EndpointConfig::default() }, 0).await;
    let second = scene.contested().await;
    scene.device.write_all(&[0xC0, 0]).await.unwrap();
    assert_eq!(second.await.unwrap(), Some(Refusal::SecondClient));
    eventually("a packet ends the contest", || scene.silence_ms() == probe::SILENCE_MS).await;
    // It says nothing, but its host answers.
    let scene = Scene::connected(EndpointConfig { contest_ms: CONTEST_MS, ..EndpointConfig::default() }, 0).await;
    assert_eq!(scene.contested().await.await.unwrap(), Some(Refusal::SecondClient));
    eventually("its time ends the contest", || scene.silence_ms() == probe::SILENCE_MS).await;
}

/// A device that asked for no keep-alive, and whose old connection is held open by its own host, must not be locked out for ever. The
/// first gives way only once it was silent for long: until then the second is refused.
#[tokio::test(start_paused = true)]
async fn a_first_that_was_silent_for_long_gives_way_to_a_second() {
    let contest = Duration::from_millis(CONTEST_MS);
    let silent = Duration::from_millis(SILENT_FIRST_MS);
    let mut scene = Scene::connected(EndpointConfig::default(), 0).await;
    let second = async |scene: &Scene| scene.endpoint.roster.admit(&device(), contest).await.map(drop).err();
    tokio::time::advance(silent - 3 * contest).await;
    assert_eq!(second(&scene).await, Some(Refusal::SecondClient), "it was not silent for long enough");
    scene.device.write_all(&[0xC0, 0]).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, scene.device.read_u16()).await.unwrap().unwrap(), 0xD000);
    tokio::time::advance(silent - 2 * contest).await;
    assert_eq!(second(&scene).await, Some(Refusal::SecondClient), "it was heard meanwhile");
    tokio::time::advance(contest).await;
    assert_eq!(second(&scene).await, None);
    assert!(scene.device.read_u8().await.is_err(), "the first was not closed");
}

/// While the queue is full the gateway does not read: that time counts neither against a packet that was begun nor
/// against the keep-alive.
#[tokio::test(start_paused = true)]
async fn the_time_that_the_gateway_takes_is_not_the_devices() {
    let partial = Duration::from_millis(PARTIAL_PACKET_MS);
    let mut scene = Scene::connected(EndpointConfig::default(), 4).await;
    for _ in 0..QUEUE_SUBMISSIONS_MAX {
        let event = DeviceEvent { device: device(), kind: DeviceEventKind::Connected, received: received() };
        drop(scene.intake.submit(Submitted::Event(event)).await.unwrap());
    }
    let message = |id: u8| [&b"\x32\x10\x00\x0bvitals/m1/a\x00"[..], &[id], b"x"].concat();
    let (first, second) = (message(1), message(2));
    let (begun, rest) = second.split_at(9);
    scene.device.write_all(&[&first, begun].concat()).await.unwrap();
    eventually("the first waits for its place in the queue", || scene.decoded.load(Ordering::SeqCst) == 1).await;
    tokio::time::advance(partial * 2).await;
    while !scene.commit().await {}
    assert_eq!(scene.hears().await, [0x40, 2, 0, 1]);
    assert!(scene.stays_silent(partial / 2).await, "it was ended for the gateway's own time");
    scene.device.write_all(rest).await.unwrap();
    assert!(scene.commit().await);
    assert_eq!(scene.hears().await, [0x40, 2, 0, 2]);
}

/// Promise 1: a PUBACK that is half written when the device stops reading stays half. Whatever came behind it would be read as its
/// rest: the acknowledgement of another message, which may not be on disk.
#[tokio::test(start_paused = true)]
async fn nothing_is_written_behind_half_an_acknowledgement() {
    let config = EndpointConfig { write_ms: 200, ..EndpointConfig::default() };
    let mut scene = Scene::taken(config, 3, b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x02m1").await;
    assert_eq!(scene.device.read_u8().await.unwrap(), 0x20);
    let mut connack = vec![0; usize::from(scene.device.read_u8().await.unwrap())];
    scene.device.read_exact(&mut connack).await.unwrap();
    scene.device.write_all(b"\x32\x11\x00\x0bvitals/m1/a\x00\x01\x00x").await.unwrap();
    assert!(scene.commit().await);
    eventually("it is ended", || scene.endpoint.stats.refused("slow_reader") == 1).await;
    let mut written = Vec::new();
    tokio::time::timeout(PATIENCE, scene.device.read_to_end(&mut written)).await.expect("it was not closed").unwrap();
    assert_eq!(written, [0x40, 2, 0]);
}
