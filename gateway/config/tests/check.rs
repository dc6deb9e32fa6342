//! What a configuration may say, and what is said about one that is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper of tests fails loudly")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vitalgate_config::schema::{self, Bounds, Kind};
use vitalgate_config::{
    ClientCertificate, Config, ConfigError, DestinationKind, DeviceSource, Fhir, KnownProfiles, LogFormat, LogLevel, ProfileKind,
    WriteMode, check, check_with_profiles,
};
use vitalgate_domain::{PatientReference, UnixMs};

const FULL: &str = include_str!("golden/full.toml");
const MINIMAL: &str = "[gateway]\nname = \"g1\"\nstate_dir = \"/var/lib/vitalgate\"\n";

fn known(_: Option<&Path>) -> KnownProfiles {
    let kinds = [("vitals-json", ProfileKind::Publish), ("vitals-modbus", ProfileKind::Polled)];
    KnownProfiles { kinds: kinds.map(|(id, kind)| (id.to_owned(), kind)).into(), faults: Vec::new() }
}

/// A folder with the files that `full.toml` names.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("profiles")).unwrap();
    for (name, mode) in [("ca.pem", 0o644), ("client.crt", 0o644), ("client.key", 0o640), ("token", 0o600)] {
        fs::write(folder.path().join(name), "x").unwrap();
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    folder
}

fn full(folder: &TempDir, text: &str) -> Result<Config, Vec<ConfigError>> {
    check_with_profiles(text, &folder.path().join("full.toml").display().to_string(), &known)
}

fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(|error| format!("{error}\n")).collect()
}

fn errors_of(text: &str) -> String {
    lines(&check(text, "x.toml").err().unwrap_or_default())
}

fn fhir(config: &Config, index: usize) -> &Fhir {
    match &config.destinations[index].kind {
        DestinationKind::Fhir(fhir) => fhir,
        other => panic!("{other:?}"),
    }
}

/// Accepts a reviewed change of the golden file with `UPDATE_GOLDEN=1`.
#[test]
fn one_file_with_everything_wrong_is_answered_with_everything_at_once() {
    let folder = folder();
    fs::set_permissions(folder.path().join("token"), fs::Permissions::from_mode(0o644)).unwrap();
    let file = folder.path().join("errors.toml").display().to_string();
    let errors = check_with_profiles(include_str!("golden/errors.toml"), &file, &known).unwrap_err();
    let said = lines(&errors).replace(&format!("{}/", folder.path().display()), "");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/errors.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &said).unwrap();
    }
    assert_eq!(said, fs::read_to_string(golden).unwrap());
    for secret in ["4711-secret", "4712-secret", "user:secret", "token-secret", "5ec2e7"] {
        assert!(!said.contains(secret), "{secret} reached an error text");
    }
}

#[test]
fn every_key_arrives_where_it_belongs() {
    let folder = folder();
    let config = full(&folder, FULL).unwrap_or_else(|errors| panic!("{}", lines(&errors)));
    assert_eq!(config.gateway.name.as_str(), "practice-01");
    assert_eq!(config.gateway.device_namespace.as_str(), "clinic-north");
    assert_eq!(config.gateway.state_dir, PathBuf::from("/var/lib/vitalgate"));
    assert_eq!(config.gateway.clock_trust_file, PathBuf::from("/run/clock"));
    assert!(config.gateway.clock_trust_promised);
    assert_eq!((config.store.free_space_floor_mib, config.store.retention_days), (512, 30));
    assert_eq!(config.store.key_credential.as_deref(), Some("vitalgate-kek"));
    let mqtt = config.mqtt.as_ref().unwrap();
    assert_eq!(mqtt.listen, "[::]:8883".parse().unwrap());
    assert_eq!(mqtt.server_names, ["gateway.local", "192.0.2.7", "2001:db8::1"]);
    assert_eq!(mqtt.client_certificate, ClientCertificate::Optional);
    assert_eq!(mqtt.plain_listen, Some("127.0.0.1:1883".parse().unwrap()));
    assert_eq!((mqtt.connections_max, mqtt.messages_per_second_max, mqtt.packet_bytes_max), (500, 100, 16_384));
    assert_eq!(config.profiles.dir, Some(folder.path().join("profiles")));
    let [first, second, third, fourth] = config.devices.as_slice() else { panic!("{:?}", config.devices) };
    assert_eq!((first.id.as_str(), first.profile.as_str(), &first.source), ("monitor-01", "vitals-json", &DeviceSource::Mqtt));
    assert_eq!(first.patient, Some(PatientReference::Literal("Patient/4711".into())));
    assert_eq!(first.line, 25);
    assert_eq!(first.patient_since, UnixMs::parse_rfc3339("2026-11-22T09:00:00.500Z"));
    assert_eq!((second.patient_since, third.patient_since), (None, None));
    assert_eq!(second.patient, None);
    let system = "urn:oid:1.2.276.0.76.4.8".into();
    assert_eq!(third.patient, Some(PatientReference::Identifier { system, value: "A 123".into() }));
    let DeviceSource::Modbus(bus) = &third.source else { panic!("{third:?}") };
    assert_eq!((bus.address.as_str(), bus.unit, bus.poll_interval_ms, bus.response_timeout_ms), ("192.0.2.9:502", 1, 2000, 500));
    let DeviceSource::Modbus(bus) = &fourth.source else { panic!("{fourth:?}") };
    assert_eq!((bus.unit, bus.poll_interval_ms, bus.response_timeout_ms), (255, 1000, 1000));
    let ehr = fhir(&config, 0);
    assert_eq!((ehr.url.as_str(), ehr.write), ("https://ehr.local/fhir/", WriteMode::Put));
    assert_eq!(ehr.ca_file, Some(folder.path().join("ca.pem")));
    assert_eq!(ehr.client_certificate_file, Some(folder.path().join("client.crt")));
    assert_eq!(ehr.client_key_file, Some(folder.path().join("client.key")));
    assert_eq!(ehr.bearer_token_file, Some(folder.path().join("token")));
    assert_eq!((ehr.batch_items_max, ehr.batch_bytes_max, ehr.requests_in_flight_max), (20, 65_536, 2));
    assert_eq!((ehr.request_timeout_ms, ehr.join_window_ms), (5_000, 0));
    assert_eq!(fhir(&config, 1).write, WriteMode::Conditional);
    assert_eq!(
        (config.console.listen, config.console.admin_socket.to_str()),
        ("[::1]:9000".parse().unwrap(), Some("/run/vitalgate/admin.sock"))
    );
    assert_eq!((config.log.format, config.log.level), (LogFormat::Json, LogLevel::Debug));
}

#[test]
fn what_is_left_out_takes_the_documented_default() {
    let text = format!("{MINIMAL}[mqtt]\n[[destination]]\nid = \"ehr\"\nkind = \"fhir\"\nurl = \"https://ehr.local\"\n");
    let config = check(&text, "x.toml").unwrap_or_else(|errors| panic!("{}", lines(&errors)));
    assert_eq!(config.gateway.device_namespace.as_str(), config.gateway.name.as_str(), "no other gateway has its devices");
    assert_eq!(config.gateway.clock_trust_file, PathBuf::from("/run/vitalgate/clock-trust"));
    assert!(!config.gateway.clock_trust_promised);
    assert_eq!((config.store.free_space_floor_mib, config.store.retention_days), (256, 7));
    assert_eq!(config.store.key_credential, None, "the key is a file unless a credential is named");
    let mqtt = config.mqtt.as_ref().unwrap();
    assert_eq!((mqtt.listen, mqtt.plain_listen), ("0.0.0.0:8883".parse().unwrap(), None));
    assert_eq!((mqtt.server_names.as_slice(), mqtt.client_certificate), (&["g1".to_owned()][..], ClientCertificate::Required));
    assert_eq!((mqtt.connections_max, mqtt.messages_per_second_max, mqtt.packet_bytes_max), (1_000, 2_000, 65_536));
    let ehr = fhir(&config, 0);
    assert_eq!((ehr.write, ehr.batch_items_max, ehr.batch_bytes_max), (WriteMode::Auto, 50, 524_288));
    assert_eq!((ehr.requests_in_flight_max, ehr.request_timeout_ms, ehr.join_window_ms), (4, 30_000, 2_000));
    assert_eq!(config.console.listen, "127.0.0.1:9464".parse().unwrap());
    assert_eq!(config.console.admin_socket, PathBuf::from("/var/lib/vitalgate/admin.sock"));
    assert_eq!((config.log.format, config.log.level), (LogFormat::Human, LogLevel::Info));
    assert!(config.devices.is_empty() && config.associations().is_empty());
    assert_eq!(check(MINIMAL, "x.toml").unwrap().mqtt, None);
}

#[test]
fn a_file_from_windows_says_the_same_and_its_errors_stand_on_the_same_lines() {
    let folder = folder();
    let windows = format!("\u{feff}{}", FULL.replace('\n', "\r\n"));
    assert_eq!(full(&folder, &windows).unwrap(), full(&folder, FULL).unwrap());
    let wrong = include_str!("golden/errors.toml");
    assert_eq!(errors_of(&wrong.replace('\n', "\r\n")), errors_of(wrong));
}

/// Every number of the schema, so that a new one cannot be forgotten.
#[test]
fn a_number_is_taken_up_to_its_limits_and_not_beyond() {
    let mut tried = 0;
    for section in schema::SECTIONS {
        for key in section.keys {
            let Kind::Integer(Bounds { min, max, .. }) = key.kind else { continue };
            let with = |value: &str| {
                let line = format!("{} = {value}", key.name);
                match section.title {
                    "[[device]] modbus" => {
                        let unit = if key.name == "unit" { "" } else { "unit = 1\n" };
                        format!("{MINIMAL}[[device]]\nid = \"d\"\nprofile = \"p\"\n[device.modbus]\naddress = \"h:1\"\n{unit}{line}\n")
                    }
                    "[[destination]]" => format!("{MINIMAL}[[destination]]\nid = \"d\"\nkind = \"fhir\"\nurl = \"https://h\"\n{line}\n"),
                    title => format!("{MINIMAL}{title}\n{line}\n"),
                }
            };
            for good in [min, max] {
                assert_eq!(errors_of(&with(&good.to_string())), "", "{} {}", section.title, key.name);
            }
            let below = i128::from(min) - 1;
            for bad in
                [below.to_string(), (max + 1).to_string(), "99999999999999999999999999".to_owned(), "1.0".to_owned(), "\"1\"".to_owned()]
            {
                let said = errors_of(&with(&bad));
                assert!(said.contains(key.name), "{} = {bad} was taken: {said}", key.name);
            }
            tried += 1;
        }
    }
    assert_eq!(tried, 13, "a number came or went: is its range right?");
}

#[test]
fn broken_toml_is_answered_with_each_broken_line() {
    let said = errors_of("[gateway]\nname = \nstate_dir = \"/x\"\n[store\nretention_days = 1\n");
    assert!(said.contains("x.toml:2: not valid TOML") && said.contains("x.toml:4: not valid TOML"), "{said}");
    let said = errors_of(&format!("{MINIMAL}name = \"again\"\n[log]\nlevel = \"loud\"\n"));
    assert!(said.contains("x.toml:4: not valid TOML: duplicate key"), "{said}");
    assert!(said.contains("x.toml:6: level in [log] is \"loud\""), "a key that stands twice hides nothing else: {said}");
    let nested = format!("{MINIMAL}x = {}1{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(!errors_of(&nested).is_empty());
}

#[test]
fn the_wrong_kind_of_brackets_is_explained() {
    let said = errors_of(&format!("{MINIMAL}[device]\nid = \"m1\"\n"));
    assert!(said.contains("x.toml:4: device must be a list of sections") && said.contains("[[device]]"), "{said}");
    let said = errors_of(&format!("{MINIMAL}[[mqtt]]\nlisten = \"0.0.0.0:8883\"\n"));
    assert!(said.contains("x.toml:4: [mqtt] may stand only once"), "{said}");
    assert!(errors_of("").contains("x.toml:1: there is no section [gateway]"));
}

#[test]
fn a_listener_that_would_take_anothers_port_is_refused() {
    // All addresses of IPv6 are those of IPv4 too.
    for all in ["0.0.0.0:8883", "[::]:8883"] {
        let said = errors_of(&format!("{MINIMAL}[mqtt]\nlisten = \"{all}\"\nplain_listen = \"127.0.0.1:8883\"\n"));
        let clash = format!("x.toml:6: plain_listen in [mqtt] is 127.0.0.1:8883, but listen in [mqtt] is {all} already");
        assert!(said.contains(&clash), "{said}");
    }
    let open = errors_of(&format!("{MINIMAL}[mqtt]\nplain_listen = \"[::]:1883\"\n[console]\nlisten = \"[::]:9464\"\n"));
    assert!(open.contains("x.toml:5: plain_listen in [mqtt] is [::]:1883: readings and passwords would cross"), "{open}");
    assert!(open.contains("x.toml:7: listen in [console] is [::]:9464, which other machines can reach"), "{open}");
    let separate =
        format!("{MINIMAL}[mqtt]\nlisten = \"127.0.0.1:0\"\nplain_listen = \"127.0.0.1:0\"\n[console]\nlisten = \"127.0.0.1:0\"\n");
    assert_eq!(errors_of(&separate), "", "port 0 is any free port");
}

/// Nobody looks for a fault in a line that nobody wrote: who takes the port of a default is told on the line that does.
#[test]
fn a_clash_with_a_default_is_told_where_something_is_written() {
    for console in ["", "[console]\nadmin_socket = \"a.sock\"\n"] {
        let said = errors_of(&format!("{MINIMAL}[mqtt]\nplain_listen = \"127.0.0.1:9464\"\n{console}"));
        let clash = "x.toml:5: plain_listen in [mqtt] is 127.0.0.1:9464, but listen in [console] is 127.0.0.1:9464 already";
        assert!(said.lines().count() == 1 && said.contains(clash), "{said}");
    }
}

/// A leave that nothing needs any more stops no gateway: what was moved to TLS goes on, and nobody is told that it goes without.
#[test]
fn leave_to_go_without_tls_stops_nothing_where_nothing_does() {
    let kept = "[mqtt]\nallow_plain_beyond_loopback = true\n[[destination]]\nid = \"ehr\"\nkind = \"fhir\"\nurl = \"https://ehr.local\"\n\
                allow_plain_beyond_loopback = true\nplain_reason = \"none yet\"\n";
    let config = check(&format!("{MINIMAL}{kept}"), "x.toml").unwrap();
    assert!(!config.warnings().iter().any(|warning| warning.contains("TLS")), "{:?}", config.warnings());
}

/// A pipe would let the check, and with it the start, wait for whoever writes to it.
#[test]
fn a_named_file_that_is_a_pipe_is_refused_at_once() {
    let folder = folder();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let text = format!("{MINIMAL}[[destination]]\nid = \"d\"\nkind = \"fhir\"\nurl = \"https://h\"\nca_file = {pipe:?}\n");
    let (done, answer) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(errors_of(&text)));
    let said = answer.recv_timeout(std::time::Duration::from_secs(60)).expect("an answer");
    assert!(said.contains("pipe is no file"), "{said}");
}

#[test]
fn a_device_needs_a_way_to_be_heard() {
    let device = "[[device]]\nid = \"m1\"\nprofile = \"vitals-json\"\n";
    let said = errors_of(&format!("{MINIMAL}{device}"));
    assert!(said.contains("but the file has no [mqtt]"), "{said}");
    assert_eq!(errors_of(&format!("{MINIMAL}[mqtt]\n{device}")), "");
}

#[test]
fn a_profile_must_fit_how_the_device_is_reached() {
    let polled = "[[device]]\nid = \"m1\"\nprofile = \"vitals-modbus\"\n";
    let publishes = "[[device]]\nid = \"m2\"\nprofile = \"vitals-json\"\nmodbus = { address = \"h:502\", unit = 1 }\n";
    let text = format!("{MINIMAL}[mqtt]\n{polled}{publishes}");
    let said = lines(&check_with_profiles(&text, "x.toml", &known).unwrap_err());
    assert!(said.contains("x.toml:7: profile of [[device]] m1 is \"vitals-modbus\", which is polled"), "{said}");
    assert!(said.contains("x.toml:10: profile of [[device]] m2 is \"vitals-json\", which publishes"), "{said}");
}

/// Every error at once: profiles that are wrong hide none of the others, and a device of one of them is no second error.
#[test]
fn wrong_profiles_hide_no_error_of_the_devices() {
    let faults = vec!["own.toml:3: unknown unit".to_owned(), "other.toml:1: no id".to_owned()];
    let broken = |folder: Option<&Path>| KnownProfiles { faults: faults.clone(), ..known(folder) };
    let polled = "[[device]]\nid = \"m1\"\nprofile = \"vitals-modbus\"\n";
    let own = "[[device]]\nid = \"m2\"\nprofile = \"own\"\n";
    let errors = check_with_profiles(&format!("{MINIMAL}[mqtt]\n{polled}{own}"), "x.toml", &broken).unwrap_err();
    let said = lines(&errors);
    assert!(said.contains("own.toml:3: unknown unit") && said.contains("other.toml:1: no id"), "{said}");
    assert!(said.contains("x.toml:7: profile of [[device]] m1 is \"vitals-modbus\", which is polled"), "{said}");
    assert_eq!(errors.len(), 3, "{said}");
}

#[test]
fn a_folder_of_profiles_that_cannot_be_listed_is_said_once_and_no_profile_is_called_unknown() {
    let folder = folder();
    let said = lines(&full(&folder, &FULL.replace("\"profiles\"", "\"absent\"").replace("vitals-json", "own")).unwrap_err());
    assert!(said.contains(":23: dir in [profiles]: ") && said.contains("absent cannot be listed"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// A number that the endpoint cannot keep is refused here, not changed there.
#[test]
fn a_packet_size_that_the_endpoint_cannot_keep_is_refused() {
    let said = |bytes: u64| errors_of(&format!("{MINIMAL}[mqtt]\npacket_bytes_max = {bytes}\n"));
    for kept in [8_192, 65_536] {
        assert_eq!(said(kept), "");
    }
    for lost in [256, 8_191, 65_537, 131_072] {
        assert!(said(lost).contains("outside its range") && said(lost).contains("8192"), "{}", said(lost));
    }
}

/// One limit here and in the poller, which holds it to its number.
#[test]
fn a_device_may_be_given_as_long_to_answer_as_the_poller_waits() {
    let said = |ms: u64| {
        let device = format!("modbus = {{ address = \"h:502\", unit = 1, response_timeout_ms = {ms} }}");
        errors_of(&format!("{MINIMAL}[[device]]\nid = \"m1\"\nprofile = \"vitals-modbus\"\n{device}\n"))
    };
    let longest = vitalgate_domain::limits::RESPONSE_TIMEOUT_MS_MAX;
    assert_eq!(said(longest), "");
    assert!(said(longest + 1).contains("outside its range"), "{}", said(longest + 1));
}

/// Promise: no reading reaches another device's patient. However one device is written, it is polled under one name only.
#[test]
fn one_polled_device_has_one_name_however_its_address_is_written() {
    let checked = |first: (&str, u8), second: (&str, u8)| {
        let device = |id: &str, (address, unit): (&str, u8)| {
            format!("[[device]]\nid = {id:?}\nprofile = \"vitals-modbus\"\nmodbus = {{ address = {address:?}, unit = {unit} }}\n")
        };
        check(&format!("{MINIMAL}{}{}", device("a", first), device("b", second)), "x.toml")
    };
    for (first, second) in [
        (("192.0.2.9:502", 0), ("192.0.2.9:502", 255)),
        (("192.0.2.9:502", 255), ("192.0.2.9:502", 0)),
        (("192.0.2.9:502", 1), ("192.0.2.9:0502", 1)),
        (("Gateway:502", 1), ("gateway:502", 1)),
        (("[::1]:502", 1), ("[0:0:0:0:0:0:0:1]:502", 1)),
        (("192.0.2.9:502", 1), ("[::ffff:192.0.2.9]:502", 1)),
    ] {
        let said = lines(&checked(first, second).unwrap_err());
        assert!(said.contains("x.toml:11: modbus of [[device]] b is unit") && said.contains("on line 7"), "{first:?} {second:?}: {said}");
    }
    let config = checked(("Gateway:502", 1), ("gateway:0502", 2)).unwrap_or_else(|errors| panic!("{}", lines(&errors)));
    for device in &config.devices {
        let DeviceSource::Modbus(bus) = &device.source else { panic!("{device:?}") };
        assert_eq!(bus.address, "gateway:502", "two units of one bus share its connection");
    }
}

/// Where a certificate is required, nobody comes in without one: beyond this machine there is no plain listener then.
#[test]
fn what_requires_a_certificate_is_not_reachable_without_tls() {
    let said = |certificate: &str, address: &str| {
        let plain = format!("plain_listen = \"{address}:1883\"\nallow_plain_beyond_loopback = true\n");
        errors_of(&format!("{MINIMAL}[mqtt]\nclient_certificate = {certificate:?}\n{plain}"))
    };
    let refused = said("required", "0.0.0.0");
    assert!(refused.contains("x.toml:6: plain_listen in [mqtt] is 0.0.0.0:1883: without TLS no device can show"), "{refused}");
    assert_eq!(said("optional", "0.0.0.0"), "");
    assert_eq!(said("required", "127.0.0.1"), "");
}

#[test]
fn hundreds_of_errors_end_in_their_number() {
    let said = errors_of(&format!("{MINIMAL}{}", (0..300).map(|number| format!("key{number} = 1\n")).collect::<String>()));
    assert_eq!(said.lines().count(), 201);
    assert!(said.contains("100 more errors follow"), "{said}");
}

#[test]
fn too_many_devices_or_destinations_are_refused_as_a_whole() {
    let device = |number: usize| format!("[[device]]\nid = \"m{number}\"\nprofile = \"p\"\n");
    let devices = |count: usize| format!("{MINIMAL}[mqtt]\n{}", (0..count).map(device).collect::<String>());
    assert_eq!(errors_of(&devices(1_000)), "");
    assert!(errors_of(&devices(1_001)).contains("1001 devices are too many"));
    let destination = |number: usize| format!("[[destination]]\nid = \"d{number}\"\nkind = \"fhir\"\nurl = \"https://h{number}\"\n");
    let text = format!("{MINIMAL}{}", (0..9).map(destination).collect::<String>());
    assert!(errors_of(&text).contains("9 destinations are too many"));
}

#[test]
fn associations_have_no_end_and_name_the_file_that_confirmed_them() {
    let folder = folder();
    let associations = full(&folder, FULL).unwrap().associations();
    let devices: Vec<_> = associations.iter().map(|association| association.device.as_str()).collect();
    assert_eq!(devices, ["monitor-01", "bedside-modbus-1"]);
    for association in &associations {
        assert_eq!((association.until, association.confirmed_by.as_ref()), (None, "full.toml"));
    }
}

#[test]
fn what_goes_without_tls_is_said_for_the_status_page() {
    let folder = folder();
    let warnings = full(&folder, FULL).unwrap().warnings();
    assert_eq!(warnings, ["destination lab is written to without TLS: the lab's server has no TLS until March"]);
    let open = FULL.replace("127.0.0.1:1883", "0.0.0.0:1883").replace("beyond_loopback = false", "beyond_loopback = true");
    assert_eq!(full(&folder, &open).unwrap().warnings()[0], "MQTT without TLS is reachable on 0.0.0.0:1883");
}

#[test]
fn a_file_that_is_none_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vitalgate.toml");
    let said = |path: &Path| lines(&Config::load(path).unwrap_err());
    assert!(said(&path).contains("vitalgate.toml: cannot be read (No such file"), "{}", said(&path));
    fs::write(&path, b"[gateway]\nname = \"g\"\n# \xff\n").unwrap();
    assert!(said(&path).contains("vitalgate.toml:3: is not UTF-8 text"), "{}", said(&path));
    fs::write(&path, " ".repeat(1_048_577)).unwrap();
    assert!(said(&path).contains("has more than 1048576 bytes"), "{}", said(&path));
    fs::write(&path, MINIMAL).unwrap();
    assert_eq!(Config::load(&path).unwrap().gateway.name.as_str(), "g1");
    assert_eq!(Config::load_with_profiles(&path, &known).unwrap().gateway.name.as_str(), "g1");
}

/// Every byte of a good file replaced or removed: an answer each time, and on an error a line that exists.
#[test]
fn no_slip_of_the_keyboard_makes_the_check_fall_over() {
    let folder = folder();
    let line_count = u32::try_from(FULL.lines().count()).unwrap() + 1;
    let (mut taken, mut refused) = (0_u32, 0_u32);
    for at in 0..FULL.len() {
        for slip in ["", "\"", "]", "=", "\n", "9", "ü"] {
            let mut text = FULL.to_owned();
            text.replace_range(at..=at, slip);
            match full(&folder, &text) {
                Ok(_) => taken += 1,
                Err(errors) => {
                    refused += 1;
                    assert!(!errors.is_empty());
                    for error in errors {
                        assert!(error.line >= 1 && error.line <= line_count, "{error}");
                        assert!(!error.message.is_empty() && !error.remedy.is_empty(), "{error}");
                    }
                }
            }
        }
    }
    assert!(taken > 0 && refused > taken, "{taken} taken, {refused} refused");
}

/// The name is joined to a folder: nothing that leads out of it is taken.
#[test]
fn a_credential_has_a_plain_name() {
    let key = "5EC2e7".repeat(11).split_off(2);
    // A key itself, pasted here, would stand in the log of every start.
    for bad in ["", "../store.key", "a/b", ".hidden", "with space", &key, &format!("{key}=")] {
        let said = errors_of(&format!("{MINIMAL}[store]\nkey_credential = {bad:?}\n"));
        assert!(!said.contains(&key), "{said}");
        assert!(said.contains("x.toml:5: key_credential in [store]") && said.contains("LoadCredentialEncrypted"), "{bad}: {said}");
    }
}

/// A certificate has its one key in a file or in a credential, and what the credential is called leads nowhere else.
#[test]
fn a_client_certificate_has_one_key() {
    let folder = folder();
    let file =
        |name: &str| format!("{name} = {:?}\n", folder.path().join(if name.ends_with("key_file") { "client.key" } else { "client.crt" }));
    let destination = |lines: &str| {
        check(&format!("{MINIMAL}[[destination]]\nid = \"ehr\"\nkind = \"fhir\"\nurl = \"https://ehr.local\"\n{lines}"), "x.toml")
    };
    let (certificate, key) = (file("client_certificate_file"), file("client_key_file"));
    let credential = "client_key_credential = \"vitalgate-client-key\"\n";
    let config = destination(&format!("{certificate}{credential}")).unwrap_or_else(|errors| panic!("{}", lines(&errors)));
    assert_eq!(fhir(&config, 0).client_key_credential.as_deref(), Some("vitalgate-client-key"));
    assert_eq!(fhir(&config, 0).client_key_file, None);
    for (text, why) in [
        (format!("{certificate}{key}{credential}"), "has both client_key_file and client_key_credential"),
        (certificate.clone(), "but no key for it"),
        (key.clone(), "but no client_certificate_file"),
        (credential.to_owned(), "but no client_certificate_file"),
        (format!("{certificate}client_key_credential = \"../store.key\"\n"), "client_key_credential in [[destination]] ehr is"),
    ] {
        let said = lines(&destination(&text).unwrap_err());
        assert!(said.lines().count() == 1 && said.contains(why), "{why}: {said}");
    }
}

/// A moment that could mean two things attributes a reading to nobody: it is refused.
#[test]
fn since_when_a_patient_is_attached_is_one_moment() {
    let device = |line: &str| {
        let device = "[mqtt]\n[[device]]\nid = \"m1\"\nprofile = \"vitals-json\"\npatient = \"Patient/1\"\n";
        check(&format!("{MINIMAL}{device}{line}\n"), "x.toml")
    };
    for good in ["\"2026-11-22T10:00:00+01:00\"", "2026-11-22T10:00:00+01:00", "\"2026-11-22T09:00:00Z\""] {
        let config = device(&format!("patient_since = {good}")).unwrap_or_else(|errors| panic!("{}", lines(&errors)));
        assert_eq!(config.associations()[0].from, Some(UnixMs(1_795_338_000_000)), "{good}");
    }
    for bad in ["2026-11-22T10:00:00", "\"2026-11-22T10:00:00\"", "2026-11-22", "\"yesterday\"", "1795338000", "10:00:00", "\"\""] {
        let said = lines(&device(&format!("patient_since = {bad}")).unwrap_err());
        assert!(said.contains("x.toml:9: patient_since") && said.contains("2026-11-22T10:00:00+01:00"), "{bad}: {said}");
    }
    let alone = "[mqtt]\n[[device]]\nid = \"m1\"\nprofile = \"p\"\npatient_since = \"2026-11-22T10:00:00+01:00\"\n";
    let said = errors_of(&format!("{MINIMAL}{alone}"));
    assert!(said.contains("x.toml:8: [[device]] m1 has a patient_since, but no patient"), "{said}");
}

/// Promise 4: what the EHR could never find is refused while somebody looks, and who the patient is stays out of the error.
#[test]
fn an_identifier_that_finds_nobody_is_refused() {
    let said = |system: &str, value: &str| {
        let device = format!("[[device]]\nid = \"m1\"\nprofile = \"p\"\npatient = {{ system = '{system}', value = '{value}' }}\n");
        errors_of(&format!("{MINIMAL}[mqtt]\n{device}"))
    };
    assert_eq!(said("urn:oid:1.2.3", "A 4713"), "");
    for value in ["4713 ", " 4713", "\u{a0}4713", "4713\u{a0}", "4713|", ""] {
        let said = said("urn:oid:1.2.3", value);
        assert!(
            said.lines().count() == 1 && said.contains("x.toml:8: value in patient of [[device]] m1") && !said.contains("4713"),
            "{said}"
        );
    }
    for system in ["urn:4713|a", "urn:4713,a", "urn:4713$a", "urn:4713\\a", "urn:4713 a", "4713", "urn:"] {
        let said = said(system, "urn:oid:1.2.3");
        assert!(
            said.lines().count() == 1 && said.contains("x.toml:8: system in patient of [[device]] m1") && !said.contains("4713"),
            "{said}"
        );
    }
}

/// Promise 3: an id of one server is never taken for the same patient of another, unless the file says that they share their ids.
#[test]
fn an_id_of_one_server_names_nobody_on_another() {
    let device = |id: &str, patient: &str| format!("[[device]]\nid = {id:?}\nprofile = \"vitals-json\"\npatient = {patient}\n");
    let (literal, identifier) = (device("m1", "\"Patient/4711\""), device("m1", "{ system = \"urn:oid:1.2.3\", value = \"A1\" }"));
    let to = |id: &str, more: &str| format!("[[destination]]\nid = {id:?}\nkind = \"fhir\"\nurl = \"https://{id}.local\"\n{more}\n");
    let said = |devices: &str, destinations: &[String]| errors_of(&format!("{MINIMAL}[mqtt]\n{devices}{}", destinations.concat()));
    let same_as = |id: &str| format!("same_patient_ids_as = {id:?}");

    let twice = said(&literal, &[to("ehr", ""), to("lab", "")]);
    assert!(twice.contains("x.toml:8: patient of [[device]] m1 is an id of one server, but 2 destinations"), "{twice}");
    assert!(twice.contains("write { system") && !twice.contains("4711"), "{twice}");
    let third = said(&literal, &[to("ehr", ""), to("lab", &same_as("ehr")), to("cloud", "")]);
    assert!(third.lines().count() == 1 && third.contains("x.toml:8: patient of [[device]] m1"), "{third}");
    for (devices, destinations) in [
        (&literal, vec![to("ehr", "")]),
        (&identifier, vec![to("ehr", ""), to("lab", "")]),
        (&literal, vec![to("lab", &same_as("ehr")), to("ehr", ""), to("cloud", &same_as("ehr"))]),
    ] {
        assert_eq!(said(devices, &destinations), "");
    }
    for (first, second) in [("", "lab"), ("", "ehx"), ("", ""), ("lab", "ehr"), ("ehr", "ehr")] {
        let first = if first.is_empty() { String::new() } else { same_as(first) };
        let wrong = said("", &[to("ehr", &first), to("lab", &same_as(second))]);
        assert!(wrong.contains(&format!("is {second:?}, no other destination with patient ids of its own")), "{second}: {wrong}");
    }
}

/// One server under two names would get every reading twice over.
#[test]
fn one_server_is_one_destination_however_its_url_is_written() {
    let to = |id: &str, url: &str| format!("[[destination]]\nid = {id:?}\nkind = \"fhir\"\nurl = {url:?}\n");
    for other in ["https://EHR.local/fhir", "https://ehr.local:443/fhir", "https://ehr.local:0443/fhir/"] {
        let said = errors_of(&format!("{MINIMAL}{}{}", to("a", "https://ehr.local/fhir"), to("b", other)));
        assert!(said.contains("x.toml:11: [[destination]] b has the same url as the destination on line 7"), "{other}: {said}");
    }
    let said = errors_of(&format!("{MINIMAL}{}{}", to("a", "https://ehr.local/fhir"), to("b", "https://ehr.local/other")));
    assert_eq!(said, "");
}

/// Promise 2: giving up what waits for a destination is said plainly, and of none that is still to have it.
#[test]
fn a_destination_is_given_up_by_name_and_only_where_it_is_gone() {
    let with = |names: &str, id: &str| {
        format!("{MINIMAL}[store]\ngiven_up = {names}\n[[destination]]\nid = {id:?}\nkind = \"fhir\"\nurl = \"https://ehr.local\"\n")
    };
    let config = check(&with("[\"local\", \"lab\"]", "ehr"), "x.toml").unwrap_or_else(|errors| panic!("{}", lines(&errors)));
    assert_eq!(config.store.given_up.iter().map(ToString::to_string).collect::<Vec<_>>(), ["lab", "local"]);
    assert_eq!(check(MINIMAL, "x.toml").unwrap().store.given_up, []);
    let nine = format!("{:?}", ["a", "b", "c", "d", "e", "f", "g", "h", "i"]);
    for (names, why) in [
        ("[\"ehr\"]", "given_up in [store] names ehr, which is a destination on line 7"),
        ("[\"local\", \"local\"]", "given_up in [store] names \"local\" twice"),
        ("[\"no id\"]", "given_up in [store] holds \"no id\""),
        (&nine, "given_up in [store] names 9 destinations"),
        ("\"local\"", "given_up in [store] must be a list of texts"),
    ] {
        let said = errors_of(&with(names, "ehr"));
        assert!(said.lines().count() == 1 && said.contains("x.toml:5: ") && said.contains(why), "{why}: {said}");
    }
}
