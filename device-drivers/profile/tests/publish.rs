//! What a publishing device's message becomes.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use proptest::prelude::*;
use vitalgate_domain::{
    BootId, ClockTrust, DeadLetterKind, DecodedSample, DeviceId, Flags, Metric, NoReading, RawSample, Received, SourceIdentity, UnixMs,
    Value,
};
use vitalgate_profile::{Profile, Profiles, decode_publish};

/// 2026-11-22T09:00:00Z.
const NOW: i64 = 1_795_338_000_000;

fn builtin(id: &str) -> Arc<Profile> {
    Profiles::builtin().unwrap().get(id).unwrap()
}

fn sample(bytes: &[u8]) -> RawSample {
    let received = Received { wall: UnixMs(NOW), monotonic_ms: 5, boot: BootId::from_bytes([1; 16]), trust: ClockTrust::Synchronised };
    RawSample { device: DeviceId::new("monitor-1").unwrap(), channel: Arc::from("vitals"), bytes: bytes.to_vec(), received }
}

fn decode(id: &str, text: &str) -> DecodedSample {
    decode_publish(&builtin(id), sample(text.as_bytes()))
}

fn list(values: &str) -> DecodedSample {
    decode("vitals-json", &format!(r#"{{"time":"2026-11-22T10:00:00.000+01:00","values":[{values}]}}"#))
}

/// Metric, slot and value as text, in order.
fn shown(decoded: &DecodedSample) -> Vec<String> {
    let value = |value: &Value| match value {
        Value::Quantity(quantity) => format!("{} {}", quantity.value, quantity.unit.ucum()),
        Value::Absent(reason) => format!("{reason:?}"),
    };
    decoded.readings.iter().map(|reading| format!("{}#{} {}", reading.metric.key(), reading.slot, value(&reading.value))).collect()
}

fn kind(decoded: &DecodedSample) -> Option<DeadLetterKind> {
    decoded.unreadable.as_ref().map(|(reason, _)| reason.kind)
}

fn detail(decoded: &DecodedSample) -> String {
    decoded.unreadable.as_ref().unwrap().0.detail.to_string()
}

#[test]
fn a_message_becomes_its_readings_with_the_digits_and_the_time_it_was_sent_with() {
    let decoded = decode(
        "vitals-json",
        r#"{"time":"2026-11-22T10:00:00.000+01:00","seq":17,"values":[
            {"metric":"heart_rate","value":72,"unit":"/min"},
            {"metric":"body_temp","value":37.0,"unit":"Cel"},
            {"metric":"spo2","value":null,"status":"sensor-off"}]}"#,
    );
    assert_eq!(shown(&decoded), ["heart_rate#0 72 /min", "body_temp#0 37.0 Cel", "spo2#0 SensorDisconnected"]);
    assert_eq!(decoded.unreadable, None);
    let first = &decoded.readings[0];
    assert_eq!(first.identity, SourceIdentity::Time(Arc::from("2026-11-22T10:00:00.000+01:00")));
    let time = first.device_time.unwrap();
    assert_eq!((time.unix_ms, time.offset_minutes), (UnixMs(NOW), Some(60)));
    assert_eq!((first.flags, &first.reported), (Flags::default(), &None));
}

#[test]
fn identity_is_the_time_else_the_counter_else_said_to_be_none() {
    let values = r#""values":[{"metric":"heart_rate","value":72,"unit":"/min"}]"#;
    let of = |head: &str| {
        let decoded = decode("vitals-json", &format!("{{{head}{values}}}"));
        assert_eq!(decoded.unreadable, None, "{head}");
        (decoded.readings[0].identity.clone(), decoded.readings[0].flags)
    };
    let counter = |epoch: &str, sequence| SourceIdentity::Counter { epoch: Arc::from(epoch), sequence };
    assert_eq!(of(r#""seq":17,"#), (counter("", 17), Flags::DATED_BY_ARRIVAL));
    assert_eq!(of(r#""seq":17,"run":"a1","time":null,"#), (counter("a1", 17), Flags::DATED_BY_ARRIVAL));
    assert_eq!(of(r#""seq":18446744073709551615,"run":3,"#), (counter("3", u64::MAX), Flags::DATED_BY_ARRIVAL));
    assert_eq!(of(""), (SourceIdentity::None, Flags::RESEND_INDISTINCT.with(Flags::DATED_BY_ARRIVAL)));
    assert_eq!(of(r#""time":"2026-11-22T09:00:00Z","seq":17,"#), (SourceIdentity::Time("2026-11-22T09:00:00Z".into()), Flags::default()));
    for bad in [r#""seq":1.5,"#, r#""seq":-1,"#, r#""seq":"x","#, r#""seq":99999999999999999999,"#, r#""seq":1,"run":{},"#] {
        let decoded = decode("vitals-json", &format!("{{{bad}{values}}}"));
        assert_eq!((decoded.readings.len(), kind(&decoded)), (0, Some(DeadLetterKind::Undecodable)), "{bad}");
    }
}

/// Promise 3: a device that keeps readings and says no time may send them long after; only its profile says that it keeps none.
/// And a profile whose time is too coarse tells messages apart by their counter.
#[test]
fn a_profile_says_what_dates_and_what_tells_a_message() {
    let own = |keys: &str| {
        let text = include_str!("../profiles/vitals-json.toml").replace("[publish]\n", &format!("[publish]\n{keys}\n"));
        let mut profiles = Profiles::default();
        let profile = profiles.load("own.toml", &text).unwrap();
        profiles.get(&profile).unwrap()
    };
    let of = |keys: &str, head: &str| {
        let text = format!(r#"{{{head}"values":[{{"metric":"heart_rate","value":72,"unit":"/min"}}]}}"#);
        let decoded = decode_publish(&own(keys), sample(text.as_bytes()));
        assert_eq!((decoded.unreadable, decoded.payload), (None, text.into_bytes()), "what admission refuses can be read again");
        let [reading] = &decoded.readings[..] else { panic!("one reading") };
        (reading.identity.clone(), reading.device_time.is_some(), reading.flags)
    };
    let counter = SourceIdentity::Counter { epoch: "".into(), sequence: 17 };
    let time = SourceIdentity::Time("2026-11-22T09:00:00Z".into());
    let (counted, timed) = (r#""seq":17,"#, r#""time":"2026-11-22T09:00:00Z","#);
    let both = format!("{counted}{timed}");
    assert_eq!(of("arrival_is_moment = true", counted), (counter.clone(), false, Flags::default()));
    assert_eq!(of("arrival_is_moment = false", counted), (counter, false, Flags::DATED_BY_ARRIVAL));
    let of_both = |text: &str| SourceIdentity::Counter { epoch: format!("\u{1f}{text}").into(), sequence: 17 };
    assert_eq!(of(r#"identity = "counter""#, &both), (of_both("2026-11-22T09:00:00Z"), true, Flags::default()));
    let begun_anew = format!("{counted}{}", timed.replace("09:00", "10:00"));
    assert_eq!(of(r#"identity = "counter""#, &begun_anew).0, of_both("2026-11-22T10:00:00Z"), "it is another reading");
    assert_eq!(of(r#"identity = "counter""#, timed), (time.clone(), true, Flags::default()), "it has no counter");
    assert_eq!(of(r#"identity = "time""#, &both), (time, true, Flags::default()));
}

#[test]
fn a_time_that_cannot_be_makes_a_dead_letter_and_one_that_is_doubtful_a_mark() {
    let at = |time: &str| {
        decode("vitals-json", &format!(r#"{{"time":{time},"seq":1,"values":[{{"metric":"heart_rate","value":72,"unit":"/min"}}]}}"#))
    };
    for bad in [
        r#""1970-01-01T00:00:05Z""#,
        r#""2000-01-31T00:00:05Z""#,
        r#""2026-11-22T10:00:00""#,
        r#""""#,
        "12",
        "true",
        r#""2226-11-22T10:00:00Z""#,
    ] {
        let decoded = at(bad);
        assert_eq!((decoded.readings.len(), kind(&decoded)), (0, Some(DeadLetterKind::ImpossibleTime)), "{bad}");
    }
    for (time, doubtful) in
        [("2026-11-22T09:01:59Z", false), ("2026-11-22T09:05:00Z", true), ("2026-11-01T09:00:00Z", false), ("2025-11-22T09:00:00Z", true)]
    {
        let decoded = at(&format!("\"{time}\""));
        assert_eq!(decoded.readings[0].flags.contains(Flags::CLOCK_DOUBTFUL), doubtful, "{time}");
    }
}

#[test]
fn absence_is_data_in_every_way_a_device_says_it() {
    for (element, reason) in [
        (r#"{"metric":"heart_rate","value":null}"#, NoReading::NotAvailable),
        (r#"{"metric":"heart_rate"}"#, NoReading::NotAvailable),
        (r#"{"metric":"heart_rate","value":0,"unit":"/min"}"#, NoReading::SensorDisconnected),
        (r#"{"metric":"heart_rate","value":-0.00,"unit":"/min"}"#, NoReading::SensorDisconnected),
        (r#"{"metric":"heart_rate","value":"NaN","unit":"/min"}"#, NoReading::NotANumber),
        (r#"{"metric":"heart_rate","value":72,"unit":"/min","status":"invalid"}"#, NoReading::DeviceError),
        (r#"{"metric":"heart_rate","unit":"/min","status":"off"}"#, NoReading::NotPerformed),
        (r#"{"metric":"heart_rate","value":null,"unit":"/min"}"#, NoReading::NotAvailable),
        (r#"{"metric":"heart_rate","value":null,"status":["test","above-range"]}"#, NoReading::AboveRange),
    ] {
        let decoded = list(element);
        assert_eq!(decoded.readings.first().map(|reading| reading.value), Some(Value::Absent(reason)), "{element}");
        assert_eq!(decoded.unreadable, None, "{element}");
    }
    let flat = decode("vitals-json-flat", r#"{"ts":1795338000000,"hr":-1.0,"spo2":null,"temp":"36.60"}"#);
    assert_eq!(shown(&flat), ["heart_rate#0 NotAvailable", "spo2#0 NotAvailable", "body_temp#0 36.60 Cel"]);
}

/// Promise 2: a device in apnoea sends a respiratory rate of 0, and that is a value. Where 0 means that a sensor is off, the 0 that
/// was sent is kept beside the absence.
#[test]
fn a_zero_is_never_lost() {
    let decoded = list(
        r#"{"metric":"resp_rate","value":0,"unit":"/min","status":"ok"},{"metric":"heart_rate","value":"0.0","unit":"bpm"},
           {"metric":"body_weight","value":0,"unit":"lb"},{"metric":"spo2","value":0},{"metric":"resp_rate","value":0,"status":"sensor-off"}"#,
    );
    let off = ["heart_rate#0 SensorDisconnected", "body_weight#0 SensorDisconnected", "spo2#0 SensorDisconnected"];
    assert_eq!(shown(&decoded), ["resp_rate#0 0 /min", off[0], off[1], off[2], "resp_rate#1 SensorDisconnected"]);
    let reported: Vec<_> =
        decoded.readings.iter().map(|reading| reading.reported.as_ref().map(|sent| (&*sent.value, &*sent.unit))).collect();
    assert_eq!(reported, [None, Some(("0.0", "bpm")), Some(("0", "lb")), Some(("0", "")), None]);
    let long = list(&format!(r#"{{"metric":"heart_rate","value":0.{},"unit":"{}"}}"#, "0".repeat(20), "ü".repeat(30_000)));
    let kept = long.readings[0].reported.as_ref().unwrap();
    assert!(
        kept.value.len() <= 64 && kept.unit.len() <= 64 && kept.unit.starts_with('ü'),
        "{} and {} bytes",
        kept.value.len(),
        kept.unit.len()
    );
    let flat = decode("vitals-json-flat", r#"{"ts":1795338000000,"rr":0,"hr":0}"#);
    assert_eq!(shown(&flat), ["heart_rate#0 SensorDisconnected", "resp_rate#0 0 /min"]);
    assert_eq!(flat.readings[0].reported.as_ref().map(|sent| (&*sent.value, &*sent.unit)), Some(("0", "/min")));
}

/// Promise 3: where a message holds several of a panel's parts and not equally many, or some of whom nobody knows what they are, nobody
/// knows which belong together, and each says so.
#[test]
fn parts_of_which_nobody_knows_the_others_are_marked() {
    let part = |key: &str, value: &str| format!(r#"{{"metric":"nibp_{key}","value":{value},"unit":"mm[Hg]"}}"#);
    let marked = |parts: &[(&str, &str)]| {
        let decoded = list(&parts.iter().map(|(key, value)| part(key, value)).collect::<Vec<_>>().join(","));
        decoded.readings.iter().map(|reading| reading.flags.contains(Flags::APART)).collect::<Vec<_>>()
    };
    assert_eq!(marked(&[("sys", "120"), ("sys", "135"), ("dia", "85")]), [true; 3]);
    assert_eq!(marked(&[("sys", "120"), ("sys", "135")]), [true; 2], "the others may come in another message");
    assert_eq!(marked(&[("sys", "120"), ("sys", "135"), ("dia", "85"), ("mean", "99")]), [true; 4]);
    assert_eq!(marked(&[("sys", "120"), ("dia", "80"), ("sys", "135"), ("dia", "85"), ("mean", "99")]), [false, false, false, false, true]);
    for sure in [&[("sys", "120"), ("dia", "80"), ("mean", "93")][..], &[("sys", "120")], &[("sys", "120"), ("mean", "93")]] {
        assert!(!marked(sure).contains(&true), "{sure:?}");
    }
    let with_null = [("sys", "120"), ("dia", "null"), ("sys", "135"), ("dia", "85")];
    assert_eq!(marked(&with_null), [false; 4], "the missing one was said to be missing");
    let one_unread = [("sys", "120"), ("dia", "\"?\""), ("sys", "135"), ("dia", "85")];
    assert_eq!(marked(&one_unread), [false; 3], "what cannot be read keeps its place");
    let among = |between: &str| {
        let decoded = list(&[&part("sys", "120"), between, &part("dia", "70")].join(","));
        decoded.readings.iter().map(|reading| reading.flags.contains(Flags::APART)).collect::<Vec<_>>()
    };
    let nameless = r#"{"metric":null,"value":80,"unit":"mm[Hg]"}"#;
    let twice = r#"{"metric":"nibp_sys","value":100,"value":110,"unit":"mm[Hg]"}"#;
    assert_eq!(among(&format!("{nameless},{twice}")), [true; 2], "they may be the rest of both");
    let pulse = r#"{"metric":"heart_rate","value":72,"unit":"/min"}"#;
    assert_eq!(among(&format!("{nameless},{pulse},{twice}")), [true, false, true], "a heart rate is of no panel");
    assert_eq!(among(nameless), [false; 2], "one alone leaves no other pair");
    let foreign = r#"{"metric":"mood","value":1}"#;
    assert_eq!(among(&format!("{foreign},{foreign}")), [false; 2], "a name that is not a pressure's");
    assert!(list(&format!("{pulse},{pulse}")).readings.iter().all(|reading| !reading.flags.contains(Flags::APART)));
}

/// Promise 2: a message that contradicts itself is never guessed at, wherever in it a key stands twice.
#[test]
fn an_object_that_stands_twice_is_not_put_together() {
    let text = r#"
        id = "nested"
        version = "1"
        source = "Test"
        [publish]
        resend_indistinct = true
        [publish.array]
        list = "/list"
        metric_field = "/m"
        value_field = "/q/v"
        unit_field = "/q/u"
        catalogue_names = true
        source = "Test"
        [[publish.field]]
        value_field = "/t/v"
        unit_field = "/t/u"
        metric = "body_temp"
        source = "Test"
    "#;
    let mut profiles = Profiles::default();
    let id = profiles.load("nested.toml", text).unwrap();
    let profile = profiles.get(&id).unwrap();
    let read = |text: &str| decode_publish(&profile, sample(text.as_bytes()));
    assert_eq!(shown(&read(r#"{"t":{"v":36.5,"u":"Cel"},"x":{"v":1},"x":{"v":2}}"#)), ["body_temp#0 36.5 Cel"]);
    for twice in [r#"{"t":{"v":36.5},"t":{"u":"[degF]"}}"#, r#"{"t":null,"t":{"v":36.5,"u":"Cel"}}"#, r#"{"t":{"v":1,"u":"Cel"},"t":7}"#] {
        assert_eq!((shown(&read(twice)).len(), kind(&read(twice))), (0, Some(DeadLetterKind::Undecodable)), "{twice}");
    }
    let good = r#"{"m":"heart_rate","q":{"v":72,"u":"/min"}}"#;
    let decoded = read(&format!(r#"{{"list":[{good},{{"m":"body_temp","q":{{"v":98}},"q":{{"u":"[degF]"}}}}]}}"#));
    assert_eq!((shown(&decoded), kind(&decoded)), (vec!["heart_rate#0 72 /min".to_owned()], Some(DeadLetterKind::Undecodable)));
}

#[test]
fn a_status_marks_the_value_and_an_unknown_one_does_not_pass_for_good() {
    let decoded = list(r#"{"metric":"heart_rate","value":72,"unit":"/min","status":["test","questionable"]}"#);
    assert_eq!(decoded.readings[0].flags, Flags::TEST.with(Flags::QUESTIONABLE));
    let decoded = list(r#"{"metric":"heart_rate","value":72,"unit":"/min","status":"new-firmware-state"}"#);
    assert_eq!((decoded.readings.len(), kind(&decoded)), (0, Some(DeadLetterKind::Undecodable)));
}

#[test]
fn another_unit_is_converted_and_what_was_reported_is_kept() {
    let decoded = list(r#"{"metric":"body_temp","value":"101.2","unit":"degF"},{"metric":"heart_rate","value":7.20e1,"unit":"bpm"}"#);
    assert_eq!(shown(&decoded), ["body_temp#0 38.44 Cel", "heart_rate#0 72.0 /min"]);
    let reported = decoded.readings[0].reported.clone().unwrap();
    assert_eq!((&*reported.value, &*reported.unit), ("101.2", "degF"));
    assert_eq!(decoded.readings[1].reported, None, "another name of the same unit is no conversion");
}

/// Nothing is dropped: the good values go on, the bad part is kept with all bytes and the reason.
#[test]
fn one_bad_value_does_not_spoil_the_others_and_is_not_lost() {
    let good = r#"{"metric":"spo2","value":97,"unit":"%"}"#;
    let bad = [
        (r#"{"metric":"heart_rate","value":true,"unit":"/min"}"#, DeadLetterKind::Undecodable),
        (r#"{"metric":"heart_rate","value":{"a":1},"unit":"/min"}"#, DeadLetterKind::Undecodable),
        (r#"{"metric":"heart_rate","value":"","unit":"/min"}"#, DeadLetterKind::Undecodable),
        (r#"{"metric":"heart_rate","value":1e400,"unit":"/min"}"#, DeadLetterKind::Undecodable),
        (r#"{"metric":"heart_rate","value":99999999999999999999999999999999,"unit":"/min"}"#, DeadLetterKind::Undecodable),
        (r#"{"metric":"heart_rate","value":72,"value":73,"unit":"/min"}"#, DeadLetterKind::Undecodable),
        (r#"{"metric":"heart_rate","value":72}"#, DeadLetterKind::WrongUnit),
        (r#"{"metric":"heart_rate","value":72,"unit":"furlong"}"#, DeadLetterKind::WrongUnit),
        (r#"{"metric":"heart_rate","value":72,"unit":"kg"}"#, DeadLetterKind::WrongUnit),
        (r#"{"metric":"heart_rate","value":72,"unit":7}"#, DeadLetterKind::WrongUnit),
        (r#"{"metric":"glucose_blood_mass","value":5,"unit":"mmol/L"}"#, DeadLetterKind::WrongUnit),
        (r#"{"metric":"mood","value":72,"unit":"/min"}"#, DeadLetterKind::UnknownMetric),
        (r#"{"metric":"nibp","value":72,"unit":"mm[Hg]"}"#, DeadLetterKind::UnknownMetric),
        (r#"{"value":72,"unit":"/min"}"#, DeadLetterKind::Undecodable),
        (r#"{"metric":"heart_rate","val":72,"unit":"/min"}"#, DeadLetterKind::Undecodable),
        (r#"{"metric":"heart_rate","val":72,"unit":"/min","status":"test"}"#, DeadLetterKind::Undecodable),
        ("7", DeadLetterKind::Undecodable),
        ("[1,[2]]", DeadLetterKind::Undecodable),
        ("null", DeadLetterKind::Undecodable),
    ];
    for (element, expected) in bad {
        let text = format!(r#"{{"values":[{good},{element}],"time":"2026-11-22T10:00:00Z"}}"#);
        let decoded = decode("vitals-json", &text);
        assert_eq!(shown(&decoded), ["spo2#0 97 %"], "{element}");
        assert_eq!(kind(&decoded), Some(expected), "{element}");
        assert_eq!(decoded.unreadable.as_ref().unwrap().1, text.as_bytes());
        assert!(detail(&decoded).starts_with("/values/1 "), "{}", detail(&decoded));
    }
}

/// A dead letter's reason is shown and logged: it must not carry what the device sent.
#[test]
fn the_reason_names_the_place_and_never_the_content() {
    let decoded =
        list(r#"{"metric":"Muster Anna","value":1},{"metric":"spo2","value":"Muster Anna"},{"metric":"spo2","value":9,"unit":"Muster"}"#);
    assert!(detail(&decoded).contains("2 more parts"), "{}", detail(&decoded));
    assert!(!detail(&decoded).contains("Muster"));
    for text in
        [r#"{"time":"Muster Anna","values":[]}"#, r#"{"values":"Muster Anna"}"#, r#"{"Muster Anna"}"#, r#"{"seq":"Muster","values":[]}"#]
    {
        assert!(!detail(&decode("vitals-json", text)).contains("Muster"), "{text}");
    }
}

#[test]
fn equal_metrics_of_a_message_are_told_apart_by_their_place() {
    let of = |value: &str| format!(r#"{{"metric":"heart_rate","value":{value},"unit":"/min"}}"#);
    let decoded = list(&[of("70"), of("\"?\""), of("72")].join(","));
    assert_eq!(shown(&decoded), ["heart_rate#0 70 /min", "heart_rate#2 72 /min"], "a bad one keeps its place for its replay");
}

#[test]
fn what_is_no_message_becomes_a_dead_letter_with_its_bytes() {
    let deep = format!("{{\"values\":{}", "[".repeat(60_000));
    let deep_ignored = format!("{{\"x\":{}{},\"values\":1}}", "[".repeat(30_000), "]".repeat(30_000));
    let many = format!(r#"{{"seq":1,"values":[{}]}}"#, vec!["{}"; 257].join(","));
    let long = format!(r#"{{"seq":1,"x":"{}","values":[]}}"#, "x".repeat(65_536));
    let cases: Vec<&[u8]> = vec![
        b"",
        b"{",
        b"hello",
        b"42",
        b"null",
        b"[]",
        b"{}",
        b"{\"values\":{}}",
        b"{\"values\":3}",
        b"\xff\xfe{\x00}\x00",
        b"{\"values\":[]} x",
        b"{\"values\":[],\"values\":[]}",
        b"{\"seq\":1,\"seq\":2,\"values\":[]}",
        b"{\"values\":[{\"metric\":\"heart_rate\",\"value\":NaN}]}",
        b"{\"values\":[{\"metric\":\"heart_rate\",\"value\":072}]}",
        b"{\"values\":[\"\xff\"]}",
        b"{\"values\":[1,]}",
        b"{\"values\":[1e999]}",
        deep.as_bytes(),
        deep_ignored.as_bytes(),
        many.as_bytes(),
        long.as_bytes(),
    ];
    for bytes in cases {
        let decoded = decode_publish(&builtin("vitals-json"), sample(bytes));
        assert_eq!(
            (decoded.readings.len(), kind(&decoded)),
            (0, Some(DeadLetterKind::Undecodable)),
            "{:?}",
            String::from_utf8_lossy(bytes).get(..60)
        );
        assert_eq!(decoded.unreadable.unwrap().1, bytes);
    }
}

#[test]
fn what_is_odd_but_clear_is_read() {
    let mut marked = b"\xef\xbb\xbf".to_vec();
    marked.extend_from_slice(
        r#" {"va\u006cues" : [ {"metric":"heart\u005frate","value": 72 ,"unit":"\/min","x":{"value":[1]}} ] , "seq":1} "#.as_bytes(),
    );
    let decoded = decode_publish(&builtin("vitals-json"), sample(&marked));
    assert_eq!((shown(&decoded), decoded.unreadable), (vec!["heart_rate#0 72 /min".to_owned()], None));
    let greeting = decode("vitals-json", r#"{"seq":1,"values":[]}"#);
    assert_eq!((greeting.readings.len(), greeting.unreadable), (0, None));
}

#[test]
fn a_profile_of_a_site_reads_nested_fields_units_and_local_time() {
    let text = r#"
        id = "ward-7"
        version = "3"
        source = "Device manual, section 4"
        [publish]
        silent_channels = ["hello"]
        [publish.time]
        field = "/head/at"
        formats = ["local"]
        zone = "+02:00"
        source = "4.1"
        [publish.status]
        source = "4.3"
        codes = [{ code = "2", means = "calibrating" }, { code = "false", means = "device_error" }]
        [[publish.field]]
        value_field = "/data/0/v"
        unit_field = "/data/0/u"
        status_field = "/data/0/s"
        metric = "body_weight"
        absent = [{ code = "---", means = "not_performed" }]
        source = "4.2"
        [[publish.field]]
        value_field = "/data/1/v"
        metric = "body_weight"
        unit = "g"
        source = "4.2"
    "#;
    let mut profiles = Profiles::default();
    let id = profiles.load("ward-7.toml", text).unwrap();
    let profile = profiles.get(&id).unwrap();
    let read = |text: &str| decode_publish(&profile, sample(text.as_bytes()));
    let decoded = read(r#"{"head":{"at":"2026-11-22T11:00:00"},"data":[{"v":"170","u":"lb","s":2},{"v":3250,"s":0},{"v":1}]}"#);
    assert_eq!(shown(&decoded), ["body_weight#0 77.1 kg", "body_weight#1 3.25 kg"]);
    assert_eq!(decoded.readings[0].flags, Flags::CALIBRATING);
    let time = decoded.readings[0].device_time.unwrap();
    assert_eq!((time.unix_ms, time.offset_minutes), (UnixMs(NOW), None));
    let second_only = read(r#"{"head":{"at":"2026-11-22T11:00:00"},"data":[{},{"v":3250}]}"#);
    assert_eq!(shown(&second_only), ["body_weight#1 3.25 kg"], "a field that is left out does not move the slot of the other");
    let absent = read(r#"{"head":{"at":"2026-11-22T11:00:00"},"data":[{"v":"---"},{"v":1,"x":0}]}"#);
    assert_eq!(shown(&absent), ["body_weight#0 NotPerformed", "body_weight#1 0.001 kg"]);
    assert_eq!(kind(&read(r#"{"head":{"at":"2026-11-22T11:00:00"},"data":[{"v":"80","s":false}]}"#)), None);
    // A device that lost its clock sends what it kept: none of it is of now.
    for without_time in [r#"{"head":{"at":null},"data":[{"v":80,"u":"kg"}]}"#, r#"{"data":[{"v":80,"u":"kg"}]}"#] {
        let decoded = read(without_time);
        assert_eq!((decoded.readings.len(), kind(&decoded)), (0, Some(DeadLetterKind::Undecodable)), "{without_time}");
    }
    let mut hello = sample(b"hello");
    hello.channel = Arc::from("hello");
    assert_eq!(decode_publish(&profile, hello).unreadable, None);
}

#[test]
fn a_polled_profile_does_not_read_messages() {
    assert_eq!(kind(&decode("vitals-modbus", r#"{"hr":1}"#)), Some(DeadLetterKind::Undecodable));
}

fn json_like() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just(":".to_owned()),
        Just(",".to_owned()),
        Just("\"values\"".to_owned()),
        Just("\"metric\"".to_owned()),
        Just("\"value\"".to_owned()),
        Just("\"unit\"".to_owned()),
        Just("\"time\"".to_owned()),
        Just("\"seq\"".to_owned()),
        Just("\"status\"".to_owned()),
        Just("\"heart_rate\"".to_owned()),
        Just("\"/min\"".to_owned()),
        Just("null".to_owned()),
        "-?[0-9]{1,40}(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,5})?",
        "\"[^\"]{0,12}\"",
    ];
    proptest::collection::vec(token, 0..60).prop_map(|tokens| tokens.concat())
}

proptest! {
    /// A frame from outside never panics, and is never passed over: readings, a dead letter, or an empty list.
    #[test]
    fn any_bytes_are_read_or_kept(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for id in ["vitals-json", "vitals-json-flat"] {
            let decoded = decode_publish(&builtin(id), sample(&bytes));
            prop_assert_eq!(decoded.unreadable.map(|(_, kept)| kept), Some(bytes.clone()));
        }
    }

    #[test]
    fn anything_like_json_is_read_or_kept(text in json_like()) {
        for id in ["vitals-json", "vitals-json-flat"] {
            let decoded = decode(id, &text);
            if let Some((_, kept)) = decoded.unreadable {
                prop_assert_eq!(kept, text.as_bytes());
            }
        }
    }

    #[test]
    fn any_heart_rate_keeps_its_digits(whole in 1_u32..100_000, fraction in "[0-9]{0,8}") {
        let number = if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") };
        let decoded = list(&format!(r#"{{"metric":"heart_rate","value":{number},"unit":"/min"}}"#));
        prop_assert_eq!(decoded.readings[0].metric, Metric::HeartRate);
        prop_assert_eq!(shown(&decoded), vec![format!("heart_rate#0 {number} /min")]);
    }
}
