//! The process as it is shipped: HTTPS with a pinned certificate, console lines, hostile visitors and files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test program")]
#![allow(missing_docs, unreachable_pub, reason = "shared with the preview")]

use std::io::{ErrorKind, PipeReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use vitalgate_layout::state::Part;
use vitalgate_test_support::pinned::client_config;

mod double;

use double::{Appliance, daemon_in_service, daemon_in_trouble};

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(60);

/// The running page.
struct Page {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
    pinned: [u8; 32],
}

impl Page {
    async fn start(appliance: &Appliance) -> Self {
        Self::start_with(appliance, &[]).await
    }

    async fn start_with(appliance: &Appliance, environment: &[(&str, &str)]) -> Self {
        let own = appliance.path("own/status.json");
        let _earlier = std::fs::remove_file(&own);
        // As its unit starts it: nothing it makes is for others unless it says so.
        let mut child = Command::new("sh")
            .args(["-c", "umask 077; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_vitalgate-status")])
            .args(appliance.arguments("127.0.0.1:0"))
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let facts = reported(&own).await;
        let port: u16 = facts["port"].as_str().unwrap().parse().unwrap();
        let pinned = unpair(facts["fingerprint"].as_str().unwrap());
        Self { child, lines, address: SocketAddr::from(([127, 0, 0, 1], port)), pinned }
    }

    /// The next console line that begins like this.
    async fn line(&mut self, beginning: &str) -> String {
        let found = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("the process ended");
                if line.starts_with(beginning) {
                    return line;
                }
            }
        };
        timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("no line {beginning:?}"))
    }

    /// Connects over TLS, and takes only the certificate with this fingerprint.
    async fn connect_pinned(&self, pinned: [u8; 32]) -> std::io::Result<TlsStream<TcpStream>> {
        let config = client_config(pinned).unwrap();
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(config).connect(ServerName::try_from("vitalgate.local").unwrap(), stream).await
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        self.connect_pinned(self.pinned).await.unwrap()
    }

    /// Asks over a pinned connection; head and body.
    async fn get(&self, path: &str) -> (String, String) {
        let mut stream = self.connect().await;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.1).unwrap()
    }
}

/// Waits for the page's own state file: what the commissioning report prints.
async fn reported(own: &Path) -> Value {
    let read = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            ticks.tick().await;
            match std::fs::read(own) {
                Ok(bytes) => return serde_json::from_slice::<Value>(&bytes).unwrap()["facts"].clone(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
            }
        }
    };
    timeout(DEADLINE, read).await.unwrap()
}

fn unpair(text: &str) -> [u8; 32] {
    let bytes: Vec<u8> = text.split(':').map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// From power-on to service: the console says each step, and the page that the printed fingerprint
/// belongs to says the same.
#[tokio::test]
async fn the_console_and_the_page_say_the_same() {
    let mut appliance = Appliance::switched_on();
    let mut page = Page::start(&appliance).await;
    assert_eq!(page.line("VITALGATE STATE").await, "VITALGATE STATE SELFTEST (opening the sealed storage)");
    appliance.goes_into_service();
    assert_eq!(page.line("VITALGATE STATE READY").await, "VITALGATE STATE READY");
    let mode = std::fs::metadata(appliance.path("own/status.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "the commissioning step could not read it");
    assert_eq!(page.line("VITALGATE KEY").await, "VITALGATE KEY 5d0e-77c2-91ab-40f3");
    let (head, html) = page.get("/").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains("cache-control: no-store"), "{head}");
    assert!(html.contains("<h1>READY") && html.contains("monitor-01") && html.contains("Praxis am Markt"));
    let status = page.json("/status.json").await;
    assert_eq!((&status["word"], &status["in_service"]), (&json!("READY"), &json!(true)));
    assert_eq!(status["destinations"][0]["last_acknowledgement_age_s"], 2);
    assert_eq!(unpair(status["network"]["certificate"]["fingerprint"].as_str().unwrap()), page.pinned);
    let (health, _) = page.get("/health").await;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    appliance.daemon_says(daemon_in_trouble());
    let line = page.line("VITALGATE STATE OFFLINE-BUFFERING").await;
    assert!(line.contains("certificate has expired") && line.contains("also DEGRADED"), "{line}");
}

/// Whoever sits between browser and appliance has another certificate; the appliance keeps its own
/// from start to start.
#[tokio::test]
async fn another_certificate_is_another_fingerprint() {
    let appliance = Appliance::switched_on();
    let page = Page::start(&appliance).await;
    page.connect().await;
    page.connect_pinned([0; 32]).await.unwrap_err();
    let before = page.pinned;
    drop(page);
    let again = Page::start(&appliance).await;
    assert_eq!(again.pinned, before);
    again.connect().await;
}

/// Files that are cut, garbage, huge or no files at all: the word says which, and the page stands.
#[tokio::test]
async fn hostile_state_files_are_shown_as_unknown() {
    let mut appliance = Appliance::switched_on();
    appliance.goes_into_service();
    appliance.put(Part::SelfTest, b"{\"word\":\"READY\"");
    appliance.put(Part::Slots, &vec![b'['; 200_000]);
    appliance.put(Part::Update, "[".repeat(60_000).as_bytes());
    std::fs::remove_file(appliance.path("state").join(Part::Clock.file_name())).unwrap();
    std::fs::create_dir(appliance.path("state").join(Part::Clock.file_name())).unwrap();
    let mut page = Page::start(&appliance).await;
    let line = page.line("VITALGATE STATE DEGRADED").await;
    assert!(line.contains("self-test.json cannot be read"), "{line}");
    let status = page.json("/status.json").await;
    for part in ["self-test", "slots", "update", "clock"] {
        assert!(status["parts"][part]["unreadable"].is_string(), "{part}: {}", status["parts"][part]);
    }
    assert_eq!(status["identity"]["site"], "Praxis am Markt");
    appliance.daemon_says(json!({"devices": "none"}));
    let (head, html) = page.get("/").await;
    assert!(head.starts_with("HTTP/1.1 200") && html.contains("cannot be read"));
}

/// A pipe that takes nothing more, in place of a terminal that was stopped; it stays so while the reader is held.
fn stopped_terminal() -> (PipeReader, Stdio) {
    let (reader, writer) = std::io::pipe().unwrap();
    let flags = |flags| fcntl(&writer, FcntlArg::F_SETFL(flags)).unwrap();
    flags(OFlag::O_NONBLOCK);
    while (&writer).write(&[0; 4096]).is_ok() {}
    flags(OFlag::empty());
    (reader, Stdio::from(writer))
}

/// Waits until a text stands in a file.
async fn shows(file: &Path, text: &str) {
    let wait = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        while !String::from_utf8_lossy(&std::fs::read(file).unwrap()).contains(text) {
            ticks.tick().await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{text} is never shown"));
}

/// Serial line and monitor are two terminals: one that is stopped (flow control, a cable pulled) leaves the other no old word, and the
/// page goes on, also where it has something to log.
#[tokio::test]
async fn a_stopped_terminal_holds_up_no_other() {
    for serial_is_stopped in [true, false] {
        let mut appliance = Appliance::switched_on();
        // Its state file cannot be written, which it logs.
        std::fs::remove_dir(appliance.path("own")).unwrap();
        let (_reader, stopped) = stopped_terminal();
        let other = appliance.path("terminal");
        let goes_on = Stdio::from(std::fs::File::create(&other).unwrap());
        let (serial, monitor) = if serial_is_stopped { (stopped, goes_on) } else { (goes_on, stopped) };
        let _page = Command::new(env!("CARGO_BIN_EXE_vitalgate-status"))
            .args(appliance.arguments("127.0.0.1:0"))
            .args(["--screen", "-"])
            .stdout(serial)
            .stderr(monitor)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        shows(&other, "SELFTEST").await;
        appliance.goes_into_service();
        shows(&other, "READY").await;
    }
}

/// Something that listens in the daemon's place, and answers without end, with nonsense, or not at
/// all, costs the page nothing: it says so and stands.
#[tokio::test]
async fn a_daemon_gone_mad_does_not_take_the_page_along() {
    for answer in
        ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnull", "", "nonsense\r\n\r\n", "HTTP/1.1 500 x\r\n\r\n"]
    {
        let mut appliance = Appliance::switched_on();
        appliance.goes_into_service();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        appliance.ask_instead(listener.local_addr().unwrap());
        let endless = answer.ends_with("OK\r\n\r\n");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(answer.as_bytes()).await;
                while endless && stream.write_all(&[b' '; 65_536]).await.is_ok() {}
                // Held open, and silent.
                tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
            }
        });
        let page = Page::start(&appliance).await;
        let status = page.json("/status.json").await;
        assert_eq!(status["in_service"], false, "{answer:?}");
        assert!(status["daemon_silent"].is_string(), "{answer:?}: {}", status["daemon_silent"]);
    }
}

/// A visitor who opens connections and says nothing, or says it slowly, is put out; others are served meanwhile.
#[tokio::test]
async fn a_slow_visitor_is_put_out_and_others_are_served() {
    let mut appliance = Appliance::switched_on();
    appliance.goes_into_service();
    let page = Page::start(&appliance).await;
    let mut held = Vec::new();
    for _ in 0..100 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(IpAddr::from([127, 0, 0, 2]), 0)).unwrap();
        held.push(socket.connect(page.address).await.unwrap());
    }
    assert_eq!(page.json("/health").await["ready"], true);
    let mut slow = page.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    let mut rest = Vec::new();
    let _ended = timeout(DEADLINE, slow.read_to_end(&mut rest)).await.expect("a slow visitor is still connected");
    for mut stream in held {
        let mut nothing = [0; 1];
        let ended = timeout(DEADLINE, stream.read(&mut nothing)).await.expect("a silent visitor is still connected");
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
    assert_eq!(page.json("/health").await["word"], "READY");
}

/// The machine's light shows the word in its rhythm, and is what it was once the service is stopped.
#[tokio::test]
async fn the_light_shows_the_word_until_the_service_is_stopped() {
    let appliance = Appliance::switched_on();
    let light = appliance.path("leds/apu:green:1");
    std::fs::create_dir_all(&light).unwrap();
    for (file, text) in [("brightness", "0\n"), ("max_brightness", "255\n"), ("trigger", "none [heartbeat] timer\n")] {
        std::fs::write(light.join(file), text).unwrap();
    }
    let holds = |file: &'static str, text: &'static str| {
        let path = light.join(file);
        let wait = async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            while std::fs::read_to_string(&path).unwrap() != text {
                ticks.tick().await;
            }
        };
        async move { timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{file} is never {text:?}")) }
    };
    let mut page = Page::start(&appliance).await;
    holds("trigger", "none").await;
    for brightness in ["255", "0", "255", "0"] {
        holds("brightness", brightness).await;
    }
    let process = nix::unistd::Pid::from_raw(page.child.id().unwrap().try_into().unwrap());
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(timeout(DEADLINE, page.child.wait()).await.unwrap().unwrap().success());
    holds("trigger", "heartbeat").await;
}

/// systemd hears that the page is up and, from then on, that it is alive.
#[tokio::test]
async fn systemd_is_told_that_it_lives() {
    let appliance = Appliance::switched_on();
    let path = appliance.path("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let _page = Page::start_with(&appliance, &[("NOTIFY_SOCKET", path.to_str().unwrap())]).await;
    let mut message = [0; 64];
    for expected in ["READY=1\nWATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"] {
        let length = timeout(DEADLINE, socket.recv(&mut message)).await.unwrap().unwrap();
        assert_eq!(std::str::from_utf8(&message[..length]).unwrap(), expected);
    }
}

/// TLS 1.2 and plain HTTP get nothing, and nothing a visitor sends ends the process.
#[tokio::test]
async fn what_is_not_https_gets_nothing() {
    let mut appliance = Appliance::switched_on();
    appliance.daemon_says(daemon_in_service());
    let page = Page::start(&appliance).await;
    for bytes in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], &[0; 512], &[0x16, 3, 1, 0xff, 0xff]] {
        let mut stream = TcpStream::connect(page.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ended = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap();
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    let mut stream = page.connect().await;
    let endless = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let _refused = stream.write_all(endless.as_bytes()).await;
    let mut answer = Vec::new();
    let _ended = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    assert!(page.json("/status.json").await["word"].is_string());
}
