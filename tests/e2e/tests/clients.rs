//! Promise 1 and 3 for devices that others wrote: what mosquitto and paho publish is in the EHR once, right in every part; and
//! nobody speaks for another.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use serde_json::Value;
use vitalgate_domain::{DeviceId, UnixMs};
use vitalgate_e2e::Site;
use vitalgate_e2e::programs::{Ended, python, run, script};
use vitalgate_simulator::replay::wall_now;
use vitalgate_test_support::gateway::command;
use vitalgate_test_support::{DeviceLine, wait_until};

/// Messages of one client; each states two readings.
const MESSAGES: i64 = 12;
/// Offset from UTC that the devices state, in minutes.
const OFFSET_MINUTES: i16 = 60;
const ARRIVAL: Duration = Duration::from_secs(60);

const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];

fn devices(ids: &[String]) -> Vec<DeviceLine> {
    ids.iter().map(|id| DeviceLine::mqtt(DeviceId::new(id).unwrap(), &format!("Patient/of-{id}"))).collect()
}

fn time(first: UnixMs, number: i64) -> String {
    first.plus_ms(number).rfc3339(OFFSET_MINUTES)
}

/// One message a line: heart rate 60, 61 … and a temperature with a digit after the point that must not get lost.
fn messages(first: UnixMs, count: i64) -> String {
    let line = |number| {
        format!(
            "{{\"time\":\"{}\",\"values\":[{{\"metric\":\"heart_rate\",\"value\":{},\"unit\":\"/min\"}},\
             {{\"metric\":\"body_temp\",\"value\":37.0,\"unit\":\"Cel\"}}]}}\n",
            time(first, number),
            60 + number % 100
        )
    };
    (0..count).map(line).collect()
}

/// Time, code, value with its digits, unit, its system, patient.
type Row = [String; 6];

fn row(observation: &Value) -> Row {
    let quantity = &observation["valueQuantity"];
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    [
        text(&observation["effectiveDateTime"]),
        text(&observation["code"]["coding"][0]["code"]),
        text(&quantity["value"]),
        text(&quantity["code"]),
        text(&quantity["system"]),
        text(&observation["subject"]["reference"]),
    ]
}

/// Waits for as many Observations as were sent, then compares every part of them, and that there are no others.
async fn arrived_once(site: &Site, device: &str, first: UnixMs, count: i64) {
    let wanted = usize::try_from(2 * count).unwrap();
    wait_until(&format!("the readings of {device}"), ARRIVAL, async || (site.observations(device).len() >= wanted).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}: {} of {wanted}\n{}", site.observations(device).len(), site.gateway.log_end()));
    let mut found: Vec<Row> = site.observations(device).iter().map(row).collect();
    let mut expected: Vec<Row> = Vec::new();
    for number in 0..count {
        let patient = format!("Patient/of-{device}");
        let line = |code: &str, value: String, unit: &str| {
            [time(first, number), code.to_owned(), value, unit.to_owned(), "http://unitsofmeasure.org".to_owned(), patient.clone()]
        };
        expected.push(line("8867-4", (60 + number % 100).to_string(), "/min"));
        expected.push(line("8310-5", "37.0".to_owned(), "Cel"));
    }
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "{device}");
    assert!(site.ehr.duplicated_identifiers().is_empty());
}

fn json_log(config: &mut vitalgate_test_support::ConfigText) {
    config.more.push(("log".to_owned(), "format = \"json\"".to_owned()));
}

/// Connection arguments of mosquitto's clients with the device's certificate.
fn certified(site: &Site, device: &str) -> Vec<String> {
    let file = |name| site.file(device, name).unwrap().display().to_string();
    let port = site.gateway.mqtt_address().port().to_string();
    let mut arguments: Vec<String> = ["-h", "localhost", "-p", &port].map(str::to_owned).to_vec();
    arguments.extend(["--cafile".to_owned(), file("ca.pem"), "--cert".to_owned(), file("certificate.pem")]);
    arguments.extend(["--key".to_owned(), file("key.pem")]);
    arguments
}

/// The same for a device that brings a password instead.
fn with_password(site: &Site, device: &str, password: &str) -> Vec<String> {
    let ca = site.file(device, "ca.pem").unwrap().display().to_string();
    let port = site.gateway.mqtt_address().port().to_string();
    ["-h", "localhost", "-p", &port, "--cafile", &ca, "-u", device, "-P", password].map(str::to_owned).to_vec()
}

async fn mosquitto(program: &str, mut connection: Vec<String>, rest: &[&str], input: &str) -> Ended {
    connection.extend(rest.iter().map(|&argument| argument.to_owned()));
    run(program, &connection, input).await.unwrap()
}

async fn paho(site: &Site, device: &str, rest: &[&str], input: &str) -> Ended {
    let file = |name| site.file(device, name).unwrap().display().to_string();
    let mut arguments = vec![script("paho_publish.py").display().to_string(), "--port".to_owned()];
    arguments.extend([site.gateway.mqtt_address().port().to_string(), "--ca".to_owned(), file("ca.pem")]);
    arguments.extend(rest.iter().map(|&argument| argument.to_owned()));
    run(python().await.unwrap(), &arguments, input).await.unwrap()
}

/// mosquitto_pub over TLS with its certificate: both versions, every QoS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_mosquitto_publishes_is_in_the_ehr_once_and_right() {
    let cases: Vec<_> = VERSIONS.iter().flat_map(|version| ["0", "1", "2"].map(|qos| (*version, qos))).collect();
    let name = |(version, qos): &(&str, &str)| format!("mosquitto-{version}-{qos}");
    let site = Site::start(devices(&cases.iter().map(name).collect::<Vec<_>>()), |_| {}).await.unwrap();
    let mut sent = Vec::new();
    for case in &cases {
        let (device, first) = (name(case), wall_now());
        let topic = format!("vitals/{device}/bedside");
        let rest = ["-V", case.0, "-q", case.1, "-i", &device, "-t", &topic, "-l"];
        let ended = mosquitto("mosquitto_pub", certified(&site, &device), &rest, &messages(first, MESSAGES)).await;
        assert!(ended.success, "{case:?}: {}", ended.errors);
        sent.push((device, first));
    }
    for (device, first) in sent {
        arrived_once(&site, &device, first, MESSAGES).await;
    }
}

/// paho-mqtt over TLS with its certificate: both versions, QoS 1 and 2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_paho_publishes_is_in_the_ehr_once_and_right() {
    let cases: Vec<_> = ["3.1.1", "5"].iter().flat_map(|version| ["1", "2"].map(|qos| (*version, qos))).collect();
    let name = |(version, qos): &(&str, &str)| format!("paho-{version}-{qos}").replace('.', "");
    let site = Site::start(devices(&cases.iter().map(name).collect::<Vec<_>>()), |_| {}).await.unwrap();
    let mut sent = Vec::new();
    for case in &cases {
        let (device, first) = (name(case), wall_now());
        let ended = paho_certified(&site, &device, case.0, case.1, &[], &messages(first, MESSAGES)).await;
        assert!(ended.success && ended.output.contains(&format!("published {MESSAGES}")), "{case:?}: {ended:?}");
        sent.push((device, first));
    }
    for (device, first) in sent {
        arrived_once(&site, &device, first, MESSAGES).await;
    }
}

async fn paho_certified(site: &Site, device: &str, version: &str, qos: &str, more: &[&str], input: &str) -> Ended {
    let file = |name| site.file(device, name).unwrap().display().to_string();
    let (certificate, key, topic) = (file("certificate.pem"), file("key.pem"), format!("vitals/{device}/bedside"));
    let known = ["--client-id", device, "--version", version, "--qos", qos, "--topic", &topic];
    let own = ["--certificate", &certificate, "--key", &key];
    paho(site, device, &[&known[..], &own[..], more].concat(), input).await
}

/// A client with a session of its own comes back after a kill -9 of the gateway and sends again what it had no
/// acknowledgement for: still once. With QoS 2 the gateway has forgotten the exchange; the identity of the reading has not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_paho_publishes_through_kills_of_the_gateway_is_in_the_ehr_once() {
    const MANY: i64 = 600;
    let cases = [("3.1.1", "1"), ("3.1.1", "2"), ("5", "1"), ("5", "2")];
    let names: Vec<String> = (0..cases.len()).map(|index| format!("stubborn-{index}")).collect();
    let mut site = Site::start(devices(&names), |_| {}).await.unwrap();
    let first = wall_now();
    let mut clients = Vec::new();
    for (device, case) in names.iter().zip(cases) {
        let file = |name| site.file(device, name).unwrap().display().to_string();
        let mut arguments: Vec<String> = vec![script("paho_publish.py").display().to_string(), "--reconnect".to_owned()];
        for (option, value) in [
            ("--port", site.gateway.mqtt_address().port().to_string()),
            ("--ca", file("ca.pem")),
            ("--certificate", file("certificate.pem")),
            ("--key", file("key.pem")),
            ("--client-id", device.clone()),
            ("--version", case.0.to_owned()),
            ("--qos", case.1.to_owned()),
            ("--topic", format!("vitals/{device}/bedside")),
        ] {
            arguments.extend([option.to_owned(), value]);
        }
        let program = python().await.unwrap();
        clients.push(tokio::spawn(async move { run(program, &arguments, &messages(first, MANY)).await.unwrap() }));
    }
    for share in [1, 2] {
        let wanted = f64::from(share) * 100.0;
        wait_until("a part of the messages", ARRIVAL, async || {
            (site.metric("vitalgate_mqtt_acknowledged_total").await.ok()? >= wanted).then_some(())
        })
        .await
        .unwrap();
        site.gateway.kill9().await.unwrap();
        site.gateway.restart().await.unwrap();
    }
    for (client, case) in clients.into_iter().zip(cases) {
        let ended = client.await.unwrap();
        assert!(ended.success, "{case:?}: {ended:?}\n{}", site.gateway.log_end());
    }
    for device in &names {
        arrived_once(&site, device, first, MANY).await;
    }
}

/// Where certificates are optional, a password over TLS does; a wrong one or none does not, and nothing of it is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_over_tls_is_enough_where_allowed_and_a_wrong_one_is_not() {
    let names: Vec<String> = VERSIONS.iter().map(|version| format!("password-{version}")).collect();
    let site = Site::start(devices(&names), |config| {
        config.client_certificate = "optional".to_owned();
        json_log(config);
    })
    .await
    .unwrap();
    let mut refusals = 0.0;
    for (version, device) in VERSIONS.into_iter().zip(&names) {
        let topic = format!("vitals/{device}/bedside");
        let rest = ["-V", version, "-q", "1", "-i", device, "-t", &topic];
        let (password, other) = (&site.credentials(device).unwrap().password, wall_now().plus_ms(5_000));
        let (known, last) = password.split_at(password.len() - 1);
        let wrong = format!("{known}{}", if last == "x" { "y" } else { "x" });
        let without = with_password(&site, device, "")[..6].to_vec();
        for refused in [with_password(&site, device, &wrong), without] {
            let line = messages(other, 1);
            let ended = mosquitto("mosquitto_pub", refused, &[&rest[..], &["-m", &line]].concat(), "").await;
            assert!(!ended.success, "{version}: {ended:?}");
            refusals += 1.0;
            site.wait_refused("credentials", refusals).await.unwrap();
        }
        let first = wall_now();
        let connection = with_password(&site, device, password);
        let ended = mosquitto("mosquitto_pub", connection, &[&rest[..], &["-l"]].concat(), &messages(first, MESSAGES)).await;
        assert!(ended.success, "{version}: {ended:?}");
        arrived_once(&site, device, first, MESSAGES).await;
    }
    let device = &names[1];
    let topic = format!("vitals/{device}/bedside");
    let password = site.credentials(device).unwrap().password.clone();
    let first = wall_now();
    let options = ["--client-id", device, "--version", "5", "--qos", "2", "--topic", &topic, "--password", &password];
    let ended = paho(&site, device, &options, &messages(first, 1)).await;
    assert!(ended.success, "{ended:?}");
    let log = std::fs::read_to_string(site.gateway.log_file()).unwrap();
    assert!(!log.contains(&password[..password.len() - 1]), "a password, even a wrong one, is in the log");
}

/// Nobody speaks for another device: neither by topic nor by client id, whatever the client; and nothing of it is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_speaks_for_another_device() {
    let names = ["liar".to_owned(), "victim".to_owned()];
    let site = Site::start(devices(&names), json_log).await.unwrap();
    let line = messages(wall_now(), 1);
    for (times, version) in VERSIONS.into_iter().enumerate() {
        let wanted = f64::from(u32::try_from(times).unwrap()) + 1.0;
        let rest = ["-V", version, "-q", "1", "-m", &line];
        let foreign_topic = [&rest[..], &["-i", "liar", "-t", "vitals/victim/bedside"]].concat();
        let ended = mosquitto("mosquitto_pub", certified(&site, "liar"), &foreign_topic, "").await;
        assert!(!ended.success, "{version}: a foreign topic was acknowledged: {ended:?}");
        site.wait_refused("foreign_topic", wanted).await.unwrap();

        let foreign_id = [&rest[..], &["-i", "victim", "-t", "vitals/victim/bedside"]].concat();
        let ended = mosquitto("mosquitto_pub", certified(&site, "liar"), &foreign_id, "").await;
        assert!(!ended.success && ended.errors.to_lowercase().contains("not authori"), "{version}: {ended:?}");
        site.wait_refused("foreign_client_id", wanted).await.unwrap();
    }
    // Without a certificate there is no connection at all, password or not.
    let password = site.credentials("victim").unwrap().password.clone();
    let rest = ["-q", "1", "-m", &line, "-i", "victim", "-t", "vitals/victim/bedside"];
    let ended = mosquitto("mosquitto_pub", with_password(&site, "victim", &password), &rest, "").await;
    assert!(!ended.success, "{ended:?}");
    site.wait_refused("tls_handshake", 1.0).await.unwrap();

    // What comes in order behind all that is stored, and nothing besides.
    let first = wall_now();
    let rest = ["-q", "1", "-i", "victim", "-t", "vitals/victim/bedside", "-l"];
    assert!(mosquitto("mosquitto_pub", certified(&site, "victim"), &rest, &messages(first, 3)).await.success);
    arrived_once(&site, "victim", first, 3).await;
    assert!(site.observations("liar").is_empty());
}

/// A device may hear the time on its own topic, and nothing of anybody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_hears_the_time_and_nothing_of_others() {
    let names = ["listener".to_owned(), "speaker".to_owned()];
    let site = Site::start(devices(&names), |_| {}).await.unwrap();
    for version in VERSIONS {
        let rest = ["-V", version, "-i", "listener", "-C", "1", "-W", "20", "-t"];
        let before = wall_now();
        let heard = mosquitto("mosquitto_sub", certified(&site, "listener"), &[&rest[..], &["devices/listener/time"]].concat(), "").await;
        assert!(heard.success, "{version}: {heard:?}");
        let said: Value = serde_json::from_str(heard.output.trim()).unwrap();
        let told = UnixMs::parse_rfc3339(said["time"].as_str().unwrap()).unwrap();
        assert!(before <= told && told <= wall_now(), "{version}: {said}");
        for foreign in ["devices/speaker/time", "vitals/speaker/bedside", "vitals/#", "#", "devices/+/time"] {
            let refused = mosquitto("mosquitto_sub", certified(&site, "listener"), &[&rest[..], &[foreign]].concat(), "").await;
            assert!(refused.output.is_empty(), "{version} {foreign}: {refused:?}");
            let said = refused.errors.to_lowercase();
            assert!(said.contains("denied") || said.contains("not authori"), "{version} {foreign}: {refused:?}");
        }
    }
}

/// Whether the gateway acknowledges a message of this device over this connection.
async fn publishes(device: &str, connection: Vec<String>) -> bool {
    let (topic, line) = (format!("vitals/{device}/bedside"), messages(wall_now(), 1));
    mosquitto("mosquitto_pub", connection, &["-q", "1", "-i", device, "-t", &topic, "-m", &line], "").await.success
}

/// Credentials that were lost are worth nothing once the device was out of the configuration, though it comes back; a device
/// that stayed goes on with its own. Whoever takes a device's credentials back with new ones takes them all back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_comes_back_is_not_let_in_by_what_was_lost() {
    let names = ["stays".to_owned(), "lost".to_owned()];
    let optional = |config: &mut vitalgate_test_support::ConfigText| config.client_certificate = "optional".to_owned();
    let mut site = Site::start(devices(&names), optional).await.unwrap();
    let (stolen, password) = (certified(&site, "lost"), site.credentials("lost").unwrap().password.clone());
    assert!(publishes("lost", stolen.clone()).await);
    assert!(publishes("lost", with_password(&site, "lost", &password)).await);

    for configured in [&names[..1], &names] {
        site.gateway.terminate().await.unwrap();
        site.gateway.configure(|config| config.devices = devices(configured)).unwrap();
        site.gateway.restart().await.unwrap();
        assert!(!publishes("lost", stolen.clone()).await, "the lost certificate, {configured:?}");
        assert!(!publishes("lost", with_password(&site, "lost", &password)).await, "the lost password, {configured:?}");
        assert!(publishes("stays", certified(&site, "stays")).await, "{configured:?}");
    }
    let log = std::fs::read_to_string(site.gateway.log_file()).unwrap();
    assert_eq!(log.lines().filter(|line| line.contains("its credentials are revoked")).count(), 1, "{log}");
    assert!(!log.contains(&password), "a password is in the log");

    // Each hand-over makes them anew; only those of the last one are good, however often it was tried.
    let mut earlier = stolen;
    for number in 0..6 {
        let folder = site.folder.path().join(format!("again-{number}"));
        let arguments = ["device", "add", "lost", "--replace", "--output-dir", folder.to_str().unwrap()];
        command(site.gateway.config_file(), &arguments).await.unwrap();
        let own = |name: &str| folder.join(name).display().to_string();
        let mut renewed = earlier.clone();
        for (option, file) in [("--cert", own("certificate.pem")), ("--key", own("key.pem"))] {
            let at = renewed.iter().position(|argument| argument == option).unwrap();
            renewed[at + 1] = file;
        }
        wait_until("the new certificate to be good", ARRIVAL, async || publishes("lost", renewed.clone()).await.then_some(()))
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
        assert!(!publishes("lost", earlier).await, "the certificate before the new one, {number}");
        earlier = renewed;
    }
}
