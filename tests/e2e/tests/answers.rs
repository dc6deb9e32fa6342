//! What a person is answered who asks where something is, lists, admits, or cannot be answered at all.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use vitalgate_domain::{DeviceId, UnixMs};
use vitalgate_e2e::Site;
use vitalgate_e2e::ward::recording;
use vitalgate_simulator::replay::wall_now;
use vitalgate_simulator::{ChartedSet, Message, MqttMonitor};
use vitalgate_test_support::gateway::{binary, command, write_config};
use vitalgate_test_support::{ConfigText, DeviceLine, GatewayProcess, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);
/// Messages on their way at a time: one after the other, a slow disk would take longer than the deadline.
const IN_FLIGHT: usize = 20;
/// Messages whose readings fill a trace's answer several times.
const MESSAGES: usize = 300;

fn device(patient: Option<&str>) -> Vec<DeviceLine> {
    vec![DeviceLine { patient: patient.map(str::to_owned), ..DeviceLine::mqtt(DeviceId::new("monitor-01").unwrap(), "") }]
}

fn set_messages(first: UnixMs, count: usize) -> Vec<Message> {
    let recording = recording().unwrap();
    let sets = recording.sets(recording.patients().next().unwrap()).to_vec();
    let of = |(counter, set): (u64, &ChartedSet)| Message::of_set(set, first.plus_ms(i64::try_from(counter).unwrap() * 100), counter);
    (0..).zip(sets.iter().cycle()).take(count).map(of).collect()
}

/// Publishes and waits until all are acknowledged.
async fn publish(site: &Site, messages: Vec<Message>) {
    let count = messages.len();
    let (source, queue) = mpsc::channel(count);
    for message in messages {
        source.send(message).await.unwrap();
    }
    drop(source);
    let (acknowledge, _acknowledged) = mpsc::unbounded_channel();
    let (_stop, stopped) = watch::channel(false);
    let monitor = MqttMonitor { in_flight_max: IN_FLIGHT, ..site.monitor("monitor-01").unwrap() };
    let report = tokio::time::timeout(DEADLINE, monitor.run(queue, acknowledge, stopped)).await.unwrap();
    assert_eq!((report.acknowledged, report.left), (count as u64, 0), "{}", site.gateway.log_end());
}

async fn held(site: &Site, readings: u64) {
    let held = wait_until("all readings to be held", DEADLINE, async || {
        (site.gateway.status().await.ok()?["store"]["dead_letters"] == readings).then_some(())
    });
    held.await.unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
}

async fn traced(site: &Site, at: UnixMs) -> anyhow::Result<String> {
    command(site.gateway.config_file(), &["trace", "--device", "monitor-01", "--at", &at.rfc3339(0)]).await
}

/// Promise 5: of a device that says much the asked moment is in the answer, and the answer says that it is not all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_shows_what_is_nearest_to_the_moment_and_says_that_there_is_more() {
    let site = Site::start(device(None), |_| {}).await.unwrap();
    let messages = set_messages(wall_now().plus_ms(-60_000), MESSAGES);
    let readings = messages.iter().map(|message| message.readings.len() as u64).sum::<u64>();
    assert!(readings > 1_000, "{readings}");
    let (asked, last) = (messages[MESSAGES / 2].time_unix_ms, messages[MESSAGES - 1].time.to_string());
    publish(&site, messages).await;
    let printed = traced(&site, asked).await.unwrap();
    let asked = asked.rfc3339(0);
    assert!(printed.contains(&format!("at {asked}")), "{printed}");
    assert!(!printed.contains(&last), "the farthest gives way:\n{printed}");
    assert!(printed.contains("these 200 are the nearest") && printed.contains("--window-s"), "{printed}");
    let window = async |seconds: &str| {
        let question = ["trace", "--device", "monitor-01", "--at", &asked, "--window-s", seconds];
        command(site.gateway.config_file(), &question).await
    };
    let printed = window("0").await.unwrap();
    assert!(printed.contains(&format!("at {asked}")) && !printed.contains("--window-s"), "{printed}");
    let refused = window("86401").await.unwrap_err().to_string();
    assert!(refused.contains("at most 86400"), "{refused}");

    held(&site, readings).await;
    let listed = command(site.gateway.config_file(), &["dead-letters", "list"]).await.unwrap();
    assert!(listed.contains(&format!("the newest 1000 of {readings} dead letters")), "{listed}");
}

/// Promises 4 and 5: a message that did not become a reading is not said never to have arrived.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_names_a_message_that_became_a_dead_letter() {
    let site = Site::start(device(Some("Patient/p1")), |_| {}).await.unwrap();
    let now = wall_now();
    let mut message = set_messages(now, 1).remove(0);
    let values = r#"[{"metric":"body_temp","value":37.0,"unit":"furlong"}]"#;
    message.payload = format!(r#"{{"time":"{}","seq":0,"values":{values}}}"#, message.time).into();
    publish(&site, vec![message]).await;
    let printed = traced(&site, now).await.unwrap();
    let listed = command(site.gateway.config_file(), &["dead-letters", "list"]).await.unwrap();
    let mut words = listed.split_whitespace();
    let (number, kind) = (words.next().unwrap(), words.nth(2).unwrap().trim_end_matches(':'));
    assert!(printed.contains(&format!("dead letter {number}: {kind} of monitor-01")), "{printed}\n{listed}");
    assert!(printed.contains("waits to be replayed or discarded") && !printed.contains("furlong"), "{printed}");
    command(site.gateway.config_file(), &["dead-letters", "discard", number]).await.unwrap();
    let printed = traced(&site, now).await.unwrap();
    assert!(printed.contains("discarded by the administrator") && !printed.contains("waits to be"), "{printed}");
}

/// Promises 4 and 5: what nothing helps is counted and discarded by name, however much it is; `trace` says by whom, and never that it
/// was delivered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_counted_and_discarded_by_name() {
    let site = Site::start(device(None), |_| {}).await.unwrap();
    let mut messages = set_messages(wall_now().plus_ms(-60_000), MESSAGES);
    messages[0].payload = "nothing that a profile reads".into();
    let asked = messages[MESSAGES / 2].time_unix_ms;
    let readings = messages.iter().skip(1).map(|message| message.readings.len() as u64).sum::<u64>();
    assert!(readings > 1_000, "{readings}");
    publish(&site, messages).await;
    held(&site, readings + 1).await;
    let discard = async |more: &[&str]| {
        let words: Vec<&str> = ["dead-letters", "discard", "--json"].into_iter().chain(more.iter().copied()).collect();
        let said = command(site.gateway.config_file(), &words).await.unwrap();
        serde_json::from_str::<serde_json::Value>(&said).unwrap()
    };
    let mut counted = serde_json::Value::Null;
    let known = wait_until("the reasons to be at hand", DEADLINE, async || {
        counted = discard(&["--kind", "Unassigned", "--count"]).await;
        (counted["discarded"] == readings).then_some(())
    });
    known.await.unwrap_or_else(|error| panic!("{error}\n{counted}"));
    assert!(counted["remain"] == 1 && counted["kinds"]["Undecodable"]["remain"] == 1, "{counted}");
    for other in [["--device", "monitor-99"], ["--before", "2026-01-01"]] {
        let none = discard(&other).await;
        assert!(none["discarded"] == 0 && none["remain"] == readings + 1, "{none}");
    }
    for refused in [["discard"].as_slice(), &["discard", "--count"], &["discard", "--all", "--kind", "Unassigned"]] {
        let words: Vec<&str> = ["dead-letters"].into_iter().chain(refused.iter().copied()).collect();
        assert!(command(site.gateway.config_file(), &words).await.is_err(), "nothing named is not everything: {refused:?}");
    }
    held(&site, readings + 1).await;

    // Cut off, the same command goes on with the rest.
    let named = ["--kind", "Unassigned", "--device", "monitor-01", "--by", "A. Example (root key 77a0)"];
    let part = discard(&[named.as_slice(), &["--within-s", "0"]].concat()).await;
    let before = part["discarded"].as_u64().unwrap();
    assert!((1..readings).contains(&before) && part["stopped"].is_string(), "{part}");
    held(&site, readings + 1 - before).await;
    let done = discard(&named).await;
    assert!(done["discarded"] == readings - before && done["remain"] == 1 && done["stopped"].is_null(), "{done}");
    held(&site, 1).await;
    let printed = traced(&site, asked).await.unwrap();
    assert!(printed.contains("discarded by A. Example (root key 77a0)") && !printed.contains("delivered"), "{printed}");
    let log = std::fs::read_to_string(site.gateway.log_file()).unwrap();
    assert!(log.contains("discarded by A. Example"), "{}", site.gateway.log_end());

    let done = discard(&["--before", &wall_now().plus_ms(60_000).rfc3339(0)]).await;
    assert!(done["discarded"] == 1 && done["kinds"]["Undecodable"]["discarded"] == 1 && done["remain"] == 0, "{done}");
    let said = command(site.gateway.config_file(), &["dead-letters", "discard", "--all"]).await.unwrap();
    assert!(said.contains("0 discarded, 0 remain"), "{said}");
}

/// The gateway without its buffer, as after damage: it is filled again from the journal.
async fn begin_buffer_anew(site: &mut Site) {
    site.gateway.terminate().await.unwrap();
    std::fs::remove_dir_all(site.gateway.config().state_dir.join("store/sled")).unwrap();
    site.gateway.restart().await.unwrap();
}

/// Asks again and again while the buffer is filled, and looks at each answer.
async fn traced_until(site: &Site, at: UnixMs, complete: impl Fn(&str) -> bool, look: impl Fn(&str)) {
    let mut printed = String::new();
    let known = wait_until("the trace to know all", DEADLINE, async || {
        printed = traced(site, at).await.ok()?;
        look(&printed);
        complete(&printed).then_some(())
    });
    known.await.unwrap_or_else(|error| panic!("{error}\n{printed}\n{}", site.gateway.log_end()));
}

fn was_held(printed: &str, until: &str) -> usize {
    printed.lines().filter(|line| line.contains("was a dead letter (Unassigned") && line.ends_with(until)).count()
}

/// A gateway that holds the readings of one message, for want of a patient: with the moment and their number.
async fn holding() -> (Site, UnixMs, usize) {
    let site = Site::start(device(None), |_| {}).await.unwrap();
    let now = wall_now();
    let messages = set_messages(now, 1);
    let readings = messages[0].readings.len();
    publish(&site, messages).await;
    held(&site, readings as u64).await;
    (site, now, readings)
}

/// Promise 5: a discarded reading is never said to be delivered, also not while the buffer is filled again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_never_calls_a_discarded_reading_delivered() {
    let (mut site, now, readings) = holding().await;
    let listed = command(site.gateway.config_file(), &["dead-letters", "list"]).await.unwrap();
    let numbers = listed.lines().map(|line| line.split_whitespace().next().unwrap());
    let discard: Vec<_> = ["dead-letters", "discard"].into_iter().chain(numbers).collect();
    command(site.gateway.config_file(), &discard).await.unwrap();
    held(&site, 0).await;
    begin_buffer_anew(&mut site).await;
    let discarded = |printed: &str| was_held(printed, "discarded by the administrator") == readings;
    traced_until(&site, now, discarded, |printed| assert!(!printed.contains("delivered"), "{printed}")).await;
}

/// Promise 5: a reading that was held and replayed is delivered once, and its first place says what became of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trace_tells_a_replayed_reading_from_the_place_where_it_was_held() {
    let (mut site, now, readings) = holding().await;
    site.gateway.terminate().await.unwrap();
    site.gateway.configure(|config| config.devices = device(Some("Patient/p1"))).unwrap();
    site.gateway.restart().await.unwrap();
    command(site.gateway.config_file(), &["dead-letters", "replay"]).await.unwrap();
    let delivered = |printed: &str| printed.lines().filter(|line| line.contains("ehr: delivered as ")).count();
    let told = |printed: &str| (was_held(printed, "replayed by the administrator"), delivered(printed)) == (readings, readings);
    traced_until(&site, now, told, |_| ()).await;
    begin_buffer_anew(&mut site).await;
    traced_until(&site, now, told, |printed| assert!(delivered(printed) <= readings, "{printed}")).await;
}

/// Promise 5: a gateway that could not be asked does not start; the error says where and what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_administrators_socket_the_gateway_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none/admin.sock");
    let mut config = ConfigText::new(folder.path()).unwrap();
    config.more.push(("console".to_owned(), format!("admin_socket = {socket:?}")));
    let Err(refused) = GatewayProcess::start(config.clone(), folder.path()).await else { panic!("it started") };
    let refused = refused.to_string();
    assert!(refused.contains("/none exists and is writable"), "{refused}");

    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "mine").unwrap();
    config.more = vec![("console".to_owned(), format!("admin_socket = {file:?}"))];
    let Err(refused) = GatewayProcess::start(config, folder.path()).await else { panic!("it started") };
    let refused = refused.to_string();
    assert!(refused.contains("notes.txt is there and is no socket"), "{refused}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

fn not_running(folder: &Path) -> (ConfigText, std::path::PathBuf) {
    let mut config = ConfigText::new(folder).unwrap();
    config.devices = device(None);
    let config_file = write_config(&config, folder).unwrap();
    (config, config_file)
}

/// Credentials count only when they can be handed over, and nobody else may read them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_keeps_what_it_has_when_new_credentials_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let (config, config_file) = not_running(folder.path());
    let registry = || std::fs::read(config.state_dir.join("trust/devices.json")).unwrap();
    let (blocked, output) = (folder.path().join("file"), folder.path().join("output"));
    let (key, all) = (output.join("key.pem"), ["ca.pem", "certificate.pem", "key.pem"].map(str::to_owned));
    let add = async |folder: &Path, replace: bool| {
        let mut arguments = vec!["device", "add", "monitor-01", "--output-dir", folder.to_str().unwrap()];
        arguments.extend(replace.then_some("--replace"));
        command(&config_file, &arguments).await
    };
    let names = || -> BTreeSet<String> {
        std::fs::read_dir(&output).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    std::fs::write(&blocked, "").unwrap();
    std::fs::create_dir(&output).unwrap();
    std::fs::write(&key, "open to all").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    add(&output, false).await.unwrap();
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(), all.clone().into());

    let before = registry();
    for replace in [true, false] {
        let refused = add(&blocked.join("stick"), replace).await.unwrap_err().to_string();
        assert!(refused.contains("cannot make"), "{refused}");
        assert_eq!(registry(), before, "what the device has is still good, and no place for a certificate is taken");
    }
    for _ in 0..3 {
        add(&output, false).await.unwrap();
    }
    let admitted = std::fs::read(&key).unwrap();
    let refused = add(&output, false).await.unwrap_err().to_string();
    assert!(refused.contains("certificates already"), "{refused}");
    assert_eq!(std::fs::read(&key).unwrap(), admitted, "it is still the key of what is admitted");
    assert_eq!(names(), all.into());
}

/// Who has read enough of an answer gets no panic and no core.
#[test]
fn a_reader_that_leaves_ends_a_command_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let (_, config_file) = not_running(folder.path());
    for arguments in [&["device", "list"][..], &["device", "add", "none-such"][..]] {
        let vitalgate = || {
            let mut vitalgate = std::process::Command::new(binary().unwrap());
            vitalgate.arg("--config").arg(&config_file).args(arguments);
            vitalgate
        };
        let heard = vitalgate().output().unwrap().status;
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let unheard = vitalgate().stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap();
        assert_eq!(unheard, heard, "{arguments:?}");
    }
}
