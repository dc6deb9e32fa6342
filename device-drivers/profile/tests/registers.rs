//! What the registers of a polled device become.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use proptest::prelude::*;
use vitalgate_domain::{
    BootId, ClockTrust, DeadLetterKind, DecodedSample, DeviceId, Flags, RawSample, Received, SourceIdentity, UnixMs, Value,
};
use vitalgate_profile::{Block, Kind, PolledProfile, Profile, Profiles, ReadFunction, decode_block, decode_block_again};

fn loaded(text: &str) -> Arc<Profile> {
    let mut profiles = Profiles::builtin().unwrap();
    let id = profiles.load("test.toml", text).unwrap();
    profiles.get(&id).unwrap()
}

fn polled(profile: &Profile) -> &PolledProfile {
    match profile.kind() {
        Kind::Polled(polled) => polled,
        Kind::Publish(_) => panic!("not a polled profile"),
    }
}

fn decode(profile: &Profile, block: &Block, words: &[u16]) -> DecodedSample {
    let received = Received { wall: UnixMs(1), monotonic_ms: 5, boot: BootId::from_bytes([1; 16]), trust: ClockTrust::Unset };
    decode_block(profile, block, &DeviceId::new("bedside-1").unwrap(), words, received)
}

fn first(profile: &Profile, words: &[u16]) -> DecodedSample {
    decode(profile, &polled(profile).blocks()[0], words)
}

fn shown(decoded: &DecodedSample) -> Vec<String> {
    let value = |value: &Value| match value {
        Value::Quantity(quantity) => format!("{} {}", quantity.value, quantity.unit.ucum()),
        Value::Absent(reason) => format!("{reason:?}"),
    };
    decoded.readings.iter().map(|reading| format!("{}#{} {}", reading.metric.key(), reading.slot, value(&reading.value))).collect()
}

/// 36.6 as an f32, high word first.
const F32_36_6: [u16; 2] = [0x4212, 0x6666];

fn monitor(change: impl FnOnce(&mut [u16])) -> DecodedSample {
    let mut words = [72, 975, 14, 370, 120, 80, 93, 0x42A1, 0x0000, 0, 0, 7];
    change(&mut words);
    first(&Profiles::builtin().unwrap().get("vitals-modbus").unwrap(), &words)
}

#[test]
fn the_bedside_monitor_is_read_with_its_decimal_places() {
    let decoded = monitor(|_| {});
    assert_eq!(
        shown(&decoded),
        [
            "heart_rate#0 72 /min",
            "spo2#0 97.5 %",
            "resp_rate#0 14 /min",
            "body_temp#0 37.0 Cel",
            "nibp_sys#0 120 mm[Hg]",
            "nibp_dia#0 80 mm[Hg]",
            "nibp_mean#0 93 mm[Hg]",
            "body_weight#0 80.5 kg"
        ]
    );
    assert_eq!((&*decoded.channel, decoded.unreadable), ("vitals", None));
    for reading in decoded.readings {
        assert_eq!((reading.identity, reading.device_time, reading.flags), (SourceIdentity::None, None, Flags::default()));
    }
}

#[test]
fn every_sentinel_of_the_bedside_monitor_is_an_absence() {
    let decoded = monitor(|words| words[..9].copy_from_slice(&[0xFFFF, 0, 0xFFFF, 0x8000, 0xFFFF, 0xFFFF, 0, 0x7FC0, 0x0001]));
    let reasons: Vec<_> = shown(&decoded).iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(
        reasons,
        [
            "NotAvailable",
            "SensorDisconnected",
            "NotAvailable",
            "NotAvailable",
            "NotAvailable",
            "NotAvailable",
            "SensorDisconnected",
            "NotANumber"
        ]
    );
    for (float, reason) in
        [(0x7F80_0000_u32, "AboveRange"), (0xFF80_0000, "BelowRange"), (0x7FC0_0000, "NotAvailable"), (0x8000_0000, "SensorDisconnected")]
    {
        let decoded = monitor(|words| {
            words[7] = u16::try_from(float >> 16).unwrap();
            words[8] = u16::try_from(float & 0xFFFF).unwrap();
        });
        assert_eq!(shown(&decoded)[7], format!("body_weight#0 {reason}"));
    }
}

/// Promise 2: a patient who does not breathe is no sensor that is off. Where 0 means that one is off, what the device showed is kept.
#[test]
fn a_zero_in_a_register_is_never_lost() {
    let decoded = monitor(|words| (words[0], words[1], words[2]) = (0, 0, 0));
    assert_eq!(shown(&decoded)[..3], ["heart_rate#0 SensorDisconnected", "spo2#0 SensorDisconnected", "resp_rate#0 0 /min"]);
    let reported: Vec<_> =
        decoded.readings.iter().take(4).map(|reading| reading.reported.as_ref().map(|sent| (&*sent.value, &*sent.unit))).collect();
    assert_eq!(reported, [Some(("0", "/min")), Some(("0.0", "%")), None, None]);
}

#[test]
fn status_bits_speak_of_the_whole_block() {
    let off = monitor(|words| words[9] = 1);
    assert!(shown(&off).iter().all(|line| line.ends_with(" SensorDisconnected")), "{:?}", shown(&off));
    let test = monitor(|words| words[9] = 2);
    assert!(test.readings.iter().all(|reading| reading.flags == Flags::TEST));
    assert_eq!(shown(&test)[0], "heart_rate#0 72 /min");
}

fn profile(registers: &str) -> Arc<Profile> {
    profile_of_block("holding_registers", 100, 4, registers)
}

fn profile_of_block(function: &str, address: u16, count: u16, registers: &str) -> Arc<Profile> {
    loaded(&format!(
        r#"
        id = "test"
        version = "1"
        source = "Test"
        [polled]
        min_poll_interval_ms = 100
        block = [{{ name = "b", function = "{function}", address = {address}, count = {count}, source = "Test" }}]
        {registers}
    "#
    ))
}

fn register(encoding: &str, order: &str, more: &str) -> Arc<Profile> {
    profile(&format!(
        r#"register = [{{ block = "b", address = 100, type = "{encoding}", order = "{order}", metric = "body_temp", unit = "Cel", source = "Test" {more} }}]"#
    ))
}

/// Facts 4.1: devices lay out 32-bit numbers in all four ways.
#[test]
fn all_four_orders_give_the_same_number() {
    let [high, low] = F32_36_6;
    for (order, words) in [
        ("ABCD", [high, low]),
        ("CDAB", [low, high]),
        ("BADC", [high.swap_bytes(), low.swap_bytes()]),
        ("DCBA", [low.swap_bytes(), high.swap_bytes()]),
    ] {
        let decoded = first(&register("f32", order, ""), &[words[0], words[1], 9, 9]);
        assert_eq!(shown(&decoded), ["body_temp#0 36.6 Cel"], "{order}");
        let number = 0x0001_86A3_u32;
        let (high, low) = (u16::try_from(number >> 16).unwrap(), u16::try_from(number & 0xFFFF).unwrap());
        let words = match order {
            "ABCD" => [high, low],
            "CDAB" => [low, high],
            "BADC" => [high.swap_bytes(), low.swap_bytes()],
            _ => [low.swap_bytes(), high.swap_bytes()],
        };
        for encoding in ["u32", "i32"] {
            let decoded = first(&register(encoding, order, ", divisor = 1000"), &[words[0], words[1], 9, 9]);
            assert_eq!(shown(&decoded), ["body_temp#0 100.003 Cel"], "{encoding} {order}");
        }
    }
    let big: u64 = 0x0102_0304_0506_0708;
    for (order, words) in [
        ("ABCD", [0x0102, 0x0304, 0x0506, 0x0708]),
        ("CDAB", [0x0708, 0x0506, 0x0304, 0x0102]),
        ("BADC", [0x0201, 0x0403, 0x0605, 0x0807]),
        ("DCBA", [0x0807, 0x0605, 0x0403, 0x0201]),
    ] {
        assert_eq!(shown(&first(&register("u64", order, ""), &words)), [format!("body_temp#0 {big} Cel")], "{order}");
    }
}

#[test]
fn scaling_is_decimal_and_exact() {
    for (more, word, expected) in [
        (", divisor = 10", 370_u16, "37.0"),
        (", divisor = 100", 3_705, "37.05"),
        (", multiplier = \"0.0625\"", 592, "37.0000"),
        (", multiplier = \"0.1\", offset = \"-10\"", 470, "37.0"),
        (", divisor = 3", 100, "33.333333"),
        (", offset = \"-273.15\"", 310, "36.85"),
        (", offset = \"25.5\"", 0, "25.5"),
    ] {
        let profile = register("i16", "ABCD", more);
        assert_eq!(shown(&first(&profile, &[word, 0, 0, 0])), [format!("body_temp#0 {expected} Cel")], "{more}");
    }
    let negative = first(&register("i16", "ABCD", ", divisor = 10"), &[0xFFF6, 0, 0, 0]);
    assert_eq!(shown(&negative), ["body_temp#0 -1.0 Cel"]);
}

#[test]
fn codes_are_bit_patterns_of_the_registers_own_width() {
    let codes = ", absent = [{ code = 0x8000, means = \"not_available\" }, { code = -32767, means = \"below_range\" }, { code = 0x7FFF, means = \"above_range\" }]";
    let profile = register("i16", "BADC", codes);
    for (word, reason) in [(0x0080_u16, "NotAvailable"), (0x0180, "BelowRange"), (0xFF7F, "AboveRange")] {
        assert_eq!(shown(&first(&profile, &[word, 0, 0, 0])), [format!("body_temp#0 {reason}")]);
    }
}

#[test]
fn a_converted_register_keeps_what_the_device_showed() {
    let profile = profile(
        r#"register = [
            { block = "b", address = 100, type = "u16", divisor = 10, metric = "body_temp", unit = "[degF]", source = "Test" },
            { block = "b", address = 101, type = "u16", metric = "body_temp", unit = "Cel", source = "Test" }]"#,
    );
    let decoded = first(&profile, &[1_012, 37, 0, 0]);
    assert_eq!(shown(&decoded), ["body_temp#0 38.44 Cel", "body_temp#1 37 Cel"]);
    let reported = decoded.readings[0].reported.clone().unwrap();
    assert_eq!((&*reported.value, &*reported.unit), ("101.2", "[degF]"));
}

#[test]
fn a_status_bit_can_speak_of_one_metric_and_mean_its_clear_state() {
    let profile = profile(
        r#"register = [
            { block = "b", address = 100, type = "u16", metric = "heart_rate", unit = "/min", source = "Test" },
            { block = "b", address = 101, type = "u16", metric = "spo2", unit = "%", source = "Test" }]
        status = [
            { block = "b", address = 102, bit = 15, means = "questionable", metrics = ["spo2"], source = "Test" },
            { block = "b", address = 103, bit = 0, when_clear = true, means = "device_error", metrics = ["heart_rate"], source = "Test" }]"#,
    );
    let decoded = first(&profile, &[72, 97, 0x8000, 0]);
    assert_eq!(shown(&decoded), ["heart_rate#0 DeviceError", "spo2#0 97 %"]);
    assert_eq!(decoded.readings[1].flags, Flags::QUESTIONABLE);
    assert_eq!(shown(&first(&profile, &[72, 97, 0, 1])), ["heart_rate#0 72 /min", "spo2#0 97 %"]);
}

#[test]
fn an_answer_that_does_not_fit_is_kept_as_bytes() {
    let profile = register("f32", "ABCD", "");
    let block = &polled(&profile).blocks()[0];
    for words in [&[1, 2, 3][..], &[], &[1, 2, 3, 4, 5]] {
        let decoded = decode(&profile, block, words);
        let (reason, bytes) = decoded.unreadable.unwrap();
        assert_eq!((decoded.readings.len(), reason.kind), (0, DeadLetterKind::Undecodable));
        assert_eq!(bytes.len(), words.len() * 2);
    }
    // 3.4e38 is a number that no decimal holds.
    let decoded = decode(&profile, block, &[0x7F7F, 0xFFFF, 1, 2]);
    assert_eq!(decoded.unreadable.unwrap().1, [0x7F, 0x7F, 0xFF, 0xFF, 0, 1, 0, 2]);
    let foreign = Block { name: Arc::from("b"), function: ReadFunction::InputRegisters, address: 100, count: 4 };
    assert!(decode(&profile, &foreign, &[0; 4]).unreadable.is_some());
}

#[test]
fn the_identity_registers_must_hold_what_the_kind_of_device_holds() {
    let profile = profile(
        r#"identity = { function = "input_registers", address = 7938, expect = [0xABCD, 0x0001], source = "Test" }
        register = [{ block = "b", address = 100, type = "u16", metric = "heart_rate", unit = "/min", source = "Test" }]"#,
    );
    let check = polled(&profile).identity_check().unwrap();
    assert_eq!((check.block().address, check.block().count), (7_938, 2));
    assert!(check.matches(&[0xABCD, 1]));
    assert!(!check.matches(&[1, 0xABCD]) && !check.matches(&[0xABCD]) && !check.matches(&[]));
}

proptest! {
    #[test]
    fn any_registers_are_read_or_kept(words in proptest::collection::vec(any::<u16>(), 12)) {
        let profile = Profiles::builtin().unwrap().get("vitals-modbus").unwrap();
        let decoded = first(&profile, &words);
        prop_assert_eq!(decoded.readings.len() + usize::from(decoded.unreadable.is_some()), 8);
    }

    /// 36.6 must not become 36.599998474121094.
    #[test]
    fn an_f32_becomes_the_shortest_decimal_that_is_that_f32(tenths in 1_u32..100_000) {
        let bits = (f64::from(tenths) / 10.0) as f32;
        let bits = bits.to_bits();
        let words = [u16::try_from(bits >> 16).unwrap(), u16::try_from(bits & 0xFFFF).unwrap(), 0, 0];
        let decoded = first(&register("f32", "ABCD", ""), &words);
        let expected = format!("body_temp#0 {} Cel", f32::from_bits(bits));
        prop_assert_eq!(shown(&decoded), vec![expected]);
        prop_assert!(shown(&decoded)[0].len() <= "body_temp#0 9999.9 Cel".len());
    }
}

/// Promise 4: what a poll could not read is read once the profile is mended, and by no profile that reads another place.
#[test]
fn kept_registers_are_read_again_by_the_mended_profile_of_the_same_place() {
    let of = |function: &str, address: u16, count: u16, encoding: &str| {
        let place = format!("block = \"b\", address = {address}, type = \"{encoding}\"");
        let register = format!("register = [{{ {place}, metric = \"body_weight\", unit = \"kg\", source = \"Test\" }}]");
        profile_of_block(function, address, count, &register)
    };
    let kept = first(&of("holding_registers", 100, 2, "f32"), &[0x7F7F, 0xFFFF]);
    let (reason, bytes) = kept.unreadable.unwrap();
    let sample = RawSample { device: kept.device, channel: kept.channel, bytes, received: kept.received };
    let again = |profile: &Profile, sample: &RawSample| decode_block_again(profile, &reason, sample);
    let read = again(&of("holding_registers", 100, 2, "u16"), &sample).unwrap();
    assert_eq!((shown(&read), read.unreadable, read.received), (vec!["body_weight#0 32639 kg".to_owned()], None, sample.received));
    assert!(again(&of("holding_registers", 100, 2, "f32"), &sample).unwrap().unreadable.is_some(), "still not readable");
    for elsewhere in [of("holding_registers", 102, 2, "u16"), of("input_registers", 100, 2, "u16"), of("holding_registers", 100, 3, "u16")]
    {
        assert!(again(&elsewhere, &sample).is_none());
    }
    let odd = RawSample { bytes: vec![1, 2, 3], ..sample };
    assert!(again(&of("holding_registers", 100, 2, "u16"), &odd).is_none());
}
