//! Against a Modbus server that others wrote, cross-checked by a client that others wrote.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{builtin, polled, shown, start, two_blocks, within};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use vitalgate_domain::Flags;
use vitalgate_modbus::{BusConfig, DeviceState, PollFault};

/// A Python that has pymodbus: the one that is named, or the one that `tools/setup devices` makes.
fn python() -> PathBuf {
    if let Some(named) = std::env::var_os("VITALGATE_TEST_PYTHON") {
        return named.into();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let made = std::process::Command::new(root.join("tools/setup")).arg("devices").status();
    let made = made.is_ok_and(|status| status.success());
    assert!(made, "tools/setup devices failed: make PyPI reachable once, or set VITALGATE_TEST_PYTHON to a Python that has pymodbus");
    root.join("target/venv/bin/python")
}

struct Server {
    _process: Child,
    port: u16,
}

async fn server() -> Server {
    let python = tokio::task::spawn_blocking(python).await.unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/pymodbus_server.py");
    let mut process = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let port = within("the server's port", lines.next_line()).await.unwrap().unwrap().parse().unwrap();
    Server { _process: process, port }
}

/// What mbpoll reads: unsigned registers, in order.
async fn mbpoll(port: u16, unit: u8, table: &str, first: u16, count: u16) -> Vec<u16> {
    let arguments = format!("-m tcp -a {unit} -0 -r {first} -c {count} -t {table} -1 -p {port} 127.0.0.1");
    let output = within("mbpoll", Command::new("mbpoll").args(arguments.split(' ')).output()).await;
    let output = output.expect("mbpoll does not start: install the package mbpoll");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let number = |line: &str| line.strip_prefix('[')?.split_once("]:")?.1.split_whitespace().next()?.parse::<u16>().ok();
    text.lines().filter_map(number).collect()
}

#[tokio::test]
async fn the_poller_and_mbpoll_read_the_same_from_pymodbus() {
    let server = server().await;
    let profile = builtin();
    let devices = vec![polled("one", 1, &profile, 50), polled("two", 2, &profile, 50)];
    let mut running = start(BusConfig::new(format!("127.0.0.1:{}", server.port), devices));
    let (mut one, mut two) = (None, None);
    while one.is_none() || two.is_none() {
        let sample = running.sample().await;
        if sample.device.as_str() == "one" { one = Some(sample) } else { two = Some(sample) }
    }
    let (one, two) = (one.unwrap(), two.unwrap());
    let registers = mbpoll(server.port, 1, "3", 0, 12).await;
    assert_eq!(registers.len(), 12);
    let tenths = |word: u16| format!("{}.{}", word / 10, word % 10);
    let weight = f32::from_bits(u32::from(registers[7]) << 16 | u32::from(registers[8]));
    let expected = [
        format!("heart_rate {}", registers[0]),
        format!("spo2 {}", tenths(registers[1])),
        format!("resp_rate {}", registers[2]),
        format!("body_temp {}", tenths(registers[3])),
        format!("nibp_sys {}", registers[4]),
        format!("nibp_dia {}", registers[5]),
        format!("nibp_mean {}", registers[6]),
        format!("body_weight {weight}"),
    ];
    assert_eq!(shown(&one), expected);
    assert_eq!(weight.to_string(), "80.5");
    assert_eq!(mbpoll(server.port, 2, "3", 0, 4).await, [0xFFFF, 0, 18, 0x8000]);
    assert_eq!(shown(&two)[..4], ["heart_rate NotAvailable", "spo2 SensorDisconnected", "resp_rate 18", "body_temp NotAvailable"]);
    assert!(two.readings.iter().all(|reading| reading.flags == Flags::TEST));
    running.end().await;
}

#[tokio::test]
async fn pymodbus_proves_its_coils_and_inputs_and_names_what_it_has_not() {
    let server = server().await;
    let identity = |function: &str, expect: &str| {
        two_blocks(&format!(r#"identity = {{ function = "{function}", address = 0, expect = {expect}, source = "Test" }}"#))
    };
    let absent = two_blocks(r#"identity = { function = "holding_registers", address = 500, expect = [1], source = "Test" }"#);
    let devices = vec![
        polled("coils", 1, &identity("coils", "[1, 0, 1, 1, 0, 0, 0, 1, 0, 1]"), 50),
        polled("inputs", 2, &identity("discrete_inputs", "[0, 1, 1]"), 50),
        polled("absent", 1, &absent, 50),
    ];
    let running = start(BusConfig::new(format!("127.0.0.1:{}", server.port), devices));
    for name in ["coils", "inputs"] {
        running.until(name, "ok", |status| status.state == DeviceState::Ok).await;
    }
    let status = running.until("absent", "in a fault", |status| status.failures > 0).await;
    assert_eq!(status.state.fault(), Some(PollFault::Exception(2)));
    assert_eq!(mbpoll(server.port, 1, "0", 0, 10).await, [1, 0, 1, 1, 0, 0, 0, 1, 0, 1]);
    running.end().await;
}

/// Passes frames between the poller and a server, and keeps the answers of the questions that
/// `held` names until the poller has closed that connection or has asked on it again.
struct SlowProxy {
    port: u16,
    /// Questions that came on a connection after an answer of it had been held back.
    asked_again: Arc<AtomicUsize>,
    /// Connections that the poller closed while an answer was held back.
    closed: Arc<AtomicUsize>,
}

async fn slow_proxy(upstream: u16, held: &'static [usize]) -> SlowProxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked_again, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (again, gone) = (asked_again.clone(), closed.clone());
    let questions = Arc::new(Mutex::new(0_usize));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
            tokio::spawn(relay(client, server, held, questions.clone(), again.clone(), gone.clone()));
        }
    });
    SlowProxy { port, asked_again, closed }
}

async fn frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 6];
    stream.read_exact(&mut bytes).await.ok()?;
    let rest = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
    bytes.resize(6 + rest, 0);
    stream.read_exact(&mut bytes[6..]).await.ok()?;
    Some(bytes)
}

async fn relay(
    mut client: TcpStream,
    mut server: TcpStream,
    held: &'static [usize],
    questions: Arc<Mutex<usize>>,
    asked_again: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
) {
    let mut late: Option<Vec<u8>> = None;
    loop {
        let Some(question) = frame(&mut client).await else {
            closed.fetch_add(usize::from(late.is_some()), Ordering::SeqCst);
            return;
        };
        let number = {
            let mut questions = questions.lock().unwrap();
            *questions += 1;
            *questions - 1
        };
        server.write_all(&question).await.unwrap();
        let answer = frame(&mut server).await.unwrap();
        if let Some(late) = late.take() {
            asked_again.fetch_add(1, Ordering::SeqCst);
            let _gone = client.write_all(&late).await;
        }
        if held.contains(&number) {
            late = Some(answer);
        } else if client.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// The late answer to block a must never become the value of block b, or of the next poll.
#[tokio::test]
async fn an_answer_that_comes_after_its_time_is_never_the_next_answer() {
    let server = server().await;
    let proxy = slow_proxy(server.port, &[2, 6, 9]).await;
    let mut config = BusConfig::new(format!("127.0.0.1:{}", proxy.port), vec![polled("a", 1, &two_blocks(""), 20)]);
    config.response_timeout_ms = 500;
    let mut running = start(config);
    let (mut heart, mut breath) = (0, 0);
    while heart < 12 || breath < 12 {
        for line in shown(&running.sample().await) {
            match line.as_str() {
                "heart_rate 72" => heart += 1,
                "resp_rate 14" => breath += 1,
                other => panic!("{other} is the answer to another question"),
            }
        }
    }
    let states = running.until("a", "ok", |status| status.state == DeviceState::Ok).await;
    assert_eq!(states.failures, 0);
    assert_eq!(proxy.asked_again.load(Ordering::SeqCst), 0, "a connection was used again after a timeout");
    let closed = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        while proxy.closed.load(Ordering::SeqCst) < 3 {
            ticks.tick().await;
        }
    };
    within("the close of the three connections that were late", closed).await;
    running.end().await;
}
