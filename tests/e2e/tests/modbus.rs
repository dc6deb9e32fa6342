//! Polled devices that others wrote: a pymodbus server, cross-checked by mbpoll. What is in its registers is in the EHR, and
//! one dead bus is nobody else's affair.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use vitalgate_domain::DeviceId;
use vitalgate_e2e::Site;
use vitalgate_e2e::programs::{Pymodbus, mbpoll};
use vitalgate_e2e::ward::recording;
use vitalgate_simulator::{ModbusMonitor, ServedSet};
use vitalgate_test_support::{DeviceLine, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);
/// Time between two polls, in milliseconds.
const POLL_MS: u64 = 100;

fn device(id: &str, address: std::net::SocketAddr, unit: u8) -> DeviceLine {
    DeviceLine {
        modbus: Some((address, unit, POLL_MS)),
        ..DeviceLine::modbus(DeviceId::new(id).unwrap(), &format!("Patient/{id}"), address, POLL_MS)
    }
}

/// LOINC code and what it states, components of a panel apart.
fn stated(observation: &Value) -> Vec<(String, String)> {
    let code = |part: &Value| part["code"]["coding"][0]["code"].as_str().unwrap_or_default().to_owned();
    let said = |part: &Value| {
        let quantity = &part["valueQuantity"];
        if quantity["value"].is_number() {
            format!("{} {}", quantity["value"], quantity["code"].as_str().unwrap_or_default())
        } else {
            part["dataAbsentReason"]["coding"][0]["code"].as_str().unwrap_or_default().to_owned()
        }
    };
    match observation["component"].as_array() {
        Some(parts) => parts.iter().map(|part| (code(part), said(part))).collect(),
        None => vec![(code(observation), said(observation))],
    }
}

fn all_stated(site: &Site, device: &str) -> BTreeSet<(String, String)> {
    site.observations(device).iter().flat_map(stated).collect()
}

fn expected(rows: &[(&str, String)]) -> BTreeSet<(String, String)> {
    rows.iter().map(|(code, said)| ((*code).to_owned(), said.clone())).collect()
}

fn tenths(word: u16, unit: &str) -> String {
    format!("{}.{} {unit}", word / 10, word % 10)
}

/// More Observations of the device than before: it was polled, and delivered.
async fn goes_on(site: &Site, device: &str) {
    let known = site.observations(device).len();
    wait_until(&format!("more from {device}"), DEADLINE, async || (site.observations(device).len() > known + 8).then_some(()))
        .await
        .unwrap_or_else(|error| panic!("{error}\n{}", site.gateway.log_end()));
}

async fn state(site: &Site, device: &str) -> Option<String> {
    let status = site.gateway.status().await.ok()?;
    let devices = status["devices"].as_array()?;
    devices.iter().find(|known| known["id"] == device)?["state"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_registers_are_in_the_ehr_and_a_dead_bus_is_its_own_affair() {
    let mut server = Pymodbus::start().await.unwrap();
    let recording = recording().unwrap();
    let patient = recording.patients().next().unwrap().clone();
    let neighbour =
        ModbusMonitor::start("127.0.0.1:0".parse().unwrap(), 1, ServedSet::of_set(&recording.sets(&patient)[0], 1)).await.unwrap();
    let devices = vec![device("one", server.address(), 1), device("two", server.address(), 2), device("neighbour", neighbour.address(), 1)];
    let mut site = Site::start(devices, |_| {}).await.unwrap();
    for device in ["one", "two", "neighbour"] {
        goes_on(&site, device).await;
    }

    // What mbpoll reads is what the EHR holds: of unit 1 every value, in every poll the same.
    let registers = mbpoll(server.address(), 1, "3", 0, 12).await.unwrap();
    let weight = f32::from_bits(u32::from(registers[7]) << 16 | u32::from(registers[8]));
    let of_one = expected(&[
        ("8867-4", format!("{} /min", registers[0])),
        ("2708-6", tenths(registers[1], "%")),
        ("9279-1", format!("{} /min", registers[2])),
        ("8310-5", tenths(registers[3], "Cel")),
        ("8480-6", format!("{} mm[Hg]", registers[4])),
        ("8462-4", format!("{} mm[Hg]", registers[5])),
        ("8478-0", format!("{} mm[Hg]", registers[6])),
        ("29463-7", format!("{weight} kg")),
    ]);
    assert_eq!(all_stated(&site, "one"), of_one);
    let raw = mbpoll(server.address(), 2, "3", 0, 12).await.unwrap();
    assert_eq!(raw[..4], [0xFFFF, 0, 18, 0x8000], "unit 2 has values that are none");
    let of_two = all_stated(&site, "two");
    assert!(of_two.contains(&("9279-1".to_owned(), "18 /min".to_owned())), "{of_two:?}");
    for code in ["8867-4", "2708-6", "8310-5", "29463-7"] {
        let said: Vec<_> = of_two.iter().filter(|(known, _)| known == code).collect();
        assert!(
            said.iter().all(|(_, said)| !said.is_empty() && !said.contains(|c: char| c.is_ascii_digit())),
            "{code} of unit 2 is absent, never a number: {said:?}"
        );
    }
    for observation in site.observations("two") {
        assert_eq!(observation["subject"]["reference"], "Patient/two");
        assert!(observation["meta"]["security"].to_string().contains("HTEST"), "the status register says test: {observation}");
    }

    // A dead server is said to be dead; its neighbour on the other bus does not notice.
    server.kill().await.unwrap();
    wait_until("the dead server to be noticed", DEADLINE, async || {
        let states = [state(&site, "one").await?, state(&site, "two").await?];
        states.iter().all(|state| state != "ok").then_some(())
    })
    .await
    .unwrap();
    assert_eq!(state(&site, "neighbour").await.as_deref(), Some("ok"));
    goes_on(&site, "neighbour").await;

    // It comes back by itself, and what it says is still its own.
    server.restart().await.unwrap();
    for device in ["one", "two"] {
        goes_on(&site, device).await;
    }
    assert_eq!(all_stated(&site, "one"), of_one);
    assert_eq!(all_stated(&site, "two"), of_two);
    assert!(site.ehr.duplicated_identifiers().is_empty());
    let ended = site.gateway.terminate().await.unwrap();
    assert!(ended.success(), "{ended}");
}
