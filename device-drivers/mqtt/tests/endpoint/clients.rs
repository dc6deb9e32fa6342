//! Real clients, in both versions and at every QoS: rumqttc and mosquitto_pub.

use std::process::{Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS as QoSV5;
use rumqttc::v5::mqttbytes::v5::Packet as PacketV5;
use rumqttc::{Event, Packet, QoS};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use vitalgate_mqtt::EndpointConfig;

use crate::rig::{PATIENCE, Rig, Seen, commit_all, eventually, texts};

const MESSAGES: usize = 300;

fn numbers() -> Vec<String> {
    (0..MESSAGES).map(|number| number.to_string()).collect()
}

/// Runs mosquitto_pub to its end with lines on its standard input.
pub(crate) async fn mosquitto_pub(rig: &Rig, arguments: &[&str], input: &str) -> Output {
    let port = rig.address.port().to_string();
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &port]).args(arguments).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("mosquitto_pub is missing; install it: apt-get install mosquitto-clients");
    let mut stdin = child.stdin.take().unwrap();
    let _gone = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("mosquitto_pub did not end").unwrap()
}

#[tokio::test]
async fn mosquitto_pub_is_served_in_both_versions_at_every_qos() {
    let (rig, queue) = Rig::plain(EndpointConfig::default()).await;
    let log = commit_all(queue);
    let lines = numbers().join("\n");
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let device = format!("monitor-{version}-{qos}");
            let topic = format!("vitals/{device}/a");
            let output = mosquitto_pub(&rig, &["-V", version, "-q", qos, "-i", &device, "-t", &topic, "-l"], &lines).await;
            assert!(output.status.success(), "{version} QoS {qos}: {}", String::from_utf8_lossy(&output.stderr));
            eventually(&format!("{MESSAGES} from {device}"), || texts(&log, &device).len() >= MESSAGES).await;
            assert_eq!(texts(&log, &device), numbers(), "{version} QoS {qos}");
        }
    }
    assert_eq!(rig.stats.messages(), 6 * u64::try_from(MESSAGES).unwrap());
}

#[tokio::test]
async fn mosquitto_pub_is_told_why_it_is_refused() {
    let (rig, queue) = Rig::plain(EndpointConfig::default()).await;
    let _log = commit_all(queue);
    for version in ["mqttv311", "mqttv5"] {
        let output = mosquitto_pub(&rig, &["-V", version, "-q", "1", "-i", "stranger", "-t", "vitals/stranger/a", "-m", "x"], "").await;
        assert!(!output.status.success());
        let words = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(words.contains("not authori"), "{version}: {words}");
    }
    rig.refused("not_admitted", 2).await;
}

async fn rumqttc_v4(rig: &Rig, device: &str, qos: QoS) {
    let mut options = rumqttc::MqttOptions::new(device, "127.0.0.1", rig.address.port());
    options.set_keep_alive(Duration::from_secs(5)).set_inflight(20);
    let (client, mut events) = rumqttc::AsyncClient::new(options, MESSAGES + 10);
    for text in numbers() {
        client.publish(format!("vitals/{device}/a"), qos, false, text).await.unwrap();
    }
    let mut acknowledged = 0;
    let mut sent = 0;
    while acknowledged < MESSAGES && sent < MESSAGES {
        match tokio::time::timeout(PATIENCE, events.poll()).await.expect("no event came").unwrap() {
            Event::Incoming(Packet::PubAck(_) | Packet::PubComp(_)) => acknowledged += 1,
            Event::Outgoing(rumqttc::Outgoing::Publish(_)) if qos == QoS::AtMostOnce => sent += 1,
            _ => {}
        }
    }
    client.disconnect().await.unwrap();
    while tokio::time::timeout(PATIENCE, events.poll()).await.expect("did not disconnect").is_ok() {}
}

async fn rumqttc_v5(rig: &Rig, device: &str, qos: QoSV5) {
    let mut options = rumqttc::v5::MqttOptions::new(device, "127.0.0.1", rig.address.port());
    options.set_keep_alive(Duration::from_secs(5)).set_outgoing_inflight_upper_limit(20);
    let (client, mut events) = rumqttc::v5::AsyncClient::new(options, MESSAGES + 10);
    for text in numbers() {
        client.publish(format!("vitals/{device}/a"), qos, false, text).await.unwrap();
    }
    let mut acknowledged = 0;
    while acknowledged < MESSAGES {
        let event = tokio::time::timeout(PATIENCE, events.poll()).await.expect("no event came").unwrap();
        if let rumqttc::v5::Event::Incoming(PacketV5::PubAck(_) | PacketV5::PubComp(_)) = event {
            acknowledged += 1;
        }
    }
    client.disconnect().await.unwrap();
    while tokio::time::timeout(PATIENCE, events.poll()).await.expect("did not disconnect").is_ok() {}
}

fn left(log: &Mutex<Vec<Seen>>, of: &str) -> bool {
    log.lock()
        .unwrap()
        .iter()
        .any(|seen| matches!(seen, Seen::Event { device, kind: vitalgate_domain::DeviceEventKind::Disconnected } if device == of))
}

#[tokio::test]
async fn rumqttc_is_served_in_both_versions_at_every_qos() {
    let (rig, queue) = Rig::plain(EndpointConfig::default()).await;
    let log = commit_all(queue);
    for (name, qos, qos_v5) in [
        ("monitor-q0", QoS::AtMostOnce, None),
        ("monitor-q1", QoS::AtLeastOnce, Some(QoSV5::AtLeastOnce)),
        ("monitor-q2", QoS::ExactlyOnce, Some(QoSV5::ExactlyOnce)),
    ] {
        rumqttc_v4(&rig, name, qos).await;
        eventually(&format!("good-bye of {name}"), || left(&log, name)).await;
        assert_eq!(texts(&log, name), numbers(), "{name}");
        if let Some(qos) = qos_v5 {
            let name = format!("{name}-v5");
            rumqttc_v5(&rig, &name, qos).await;
            eventually(&format!("good-bye of {name}"), || left(&log, &name)).await;
            assert_eq!(texts(&log, &name), numbers(), "{name}");
        }
    }
}
