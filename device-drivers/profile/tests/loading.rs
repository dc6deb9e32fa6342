//! What a profile file may say, and that everything wrong with it is said at once.

// Helpers of tests are not test functions for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use vitalgate_profile::{Kind, ProfileErrors, Profiles};

fn errors(text: &str) -> ProfileErrors {
    Profiles::builtin().unwrap().load("ward.toml", text).unwrap_err()
}

/// `line place` of every error.
fn places(text: &str) -> Vec<String> {
    errors(text).0.iter().map(|error| format!("{} {}", error.line, error.place)).collect()
}

#[test]
fn the_built_in_profiles_are_valid_and_of_their_kind() {
    let profiles = Profiles::builtin().unwrap();
    assert_eq!(profiles.ids().collect::<Vec<_>>(), ["vitals-json", "vitals-json-flat", "vitals-modbus"]);
    assert!(matches!(profiles.get("vitals-json").unwrap().kind(), Kind::Publish(_)));
    assert!(matches!(profiles.get("vitals-modbus").unwrap().kind(), Kind::Polled(_)));
    assert!(profiles.get("unknown").is_none());
}

/// A profile with as many faults as fit.
const FAULTY: &str = r#"id = "Ward 7"
version = 3
source = "Manual"
colour = "blue"
[polled]
min_poll_interval_ms = 5
[[polled.block]]
name = "a"
function = "write_registers"
address = 70000
count = 126
source = "Manual"
[[polled.block]]
name = "b"
function = "coils"
address = 0
count = 4
source = "Manual"
[[polled.register]]
block = "b"
address = 9
type = "u17"
order = "AABB"
metric = "mood"
unit = "/min"
[[polled.register]]
block = "c"
address = 0
type = "u16"
metric = "heart_rate"
unit = "kg"
divisor = 0
multiplier = "many"
absent = [{ code = 65536, means = "ok" }]
source = "Manual"
[[polled.status]]
block = "b"
address = 0
bit = 16
means = "odd"
metrics = ["mood"]
source = "Manual"
"#;

#[test]
fn every_fault_of_a_file_is_told_at_once_with_its_line() {
    let found = places(FAULTY);
    let expected = [
        "1 id",
        "2 version",
        "4 colour",
        "6 polled.min_poll_interval_ms",
        "9 polled.block[0].function",
        "10 polled.block[0].address",
        "15 polled.block[1].function",
        "11 polled.block[0].count",
        "19 polled.register[0].source",
        "21 polled.register[0].address",
        "22 polled.register[0].type",
        "23 polled.register[0].order",
        "24 polled.register[0].metric",
        "27 polled.register[1].block",
        "31 polled.register[1].unit",
        "32 polled.register[1].divisor",
        "33 polled.register[1].multiplier",
        "34 polled.register[1].absent[0].code",
        "39 polled.status[0].bit",
        "40 polled.status[0].means",
        "41 polled.status[0].metrics",
    ];
    for place in expected {
        assert!(found.iter().any(|found| found == place), "{place} was not told; told were {found:#?}");
    }
    let text = errors(FAULTY).to_string();
    assert!(text.contains("ward.toml:31: polled.register[1].unit: kg cannot be converted to /min, the unit of heart_rate; "), "{text}");
}

#[test]
fn every_fault_of_a_publish_profile_is_told_at_once() {
    let text = r#"id = "vitals-json"
version = "1"
source = "Manual"
[publish]
[publish.array]
list = "values"
metric_field = "/m"
value_field = "/m"
source = "Manual"
[[publish.array.name]]
name = "HF"
metric = "heart_rate"
source = "Manual"
[[publish.field]]
value_field = "/a/b"
metric = "nibp"
unit = "mm[Hg]"
source = "Manual"
[[publish.field]]
value_field = "/a"
metric = "glucose_blood_mass"
unit = "mmol/L"
source = "Manual"
[publish.status]
codes = [{ code = "x", means = "ok" }, { code = "x", means = "ok" }]
"#;
    let found = places(text);
    for place in [
        "1 id",
        "4 publish",
        "6 publish.array.list",
        "8 publish.array.value_field",
        "10 publish.array.name[0]",
        "16 publish.field[0].metric",
        "20 publish.field[1].value_field",
        "22 publish.field[1].unit",
        "24 publish.status.source",
        "25 publish.status.codes[1].code",
    ] {
        assert!(found.iter().any(|found| found == place), "{place} was not told; told were {found:#?}");
    }
}

#[test]
fn times_need_a_format_and_local_time_its_offset() {
    let of = |keys: &str| {
        let head = "id = \"x\"\nversion = \"1\"\nsource = \"M\"\n[[publish.field]]\nvalue_field = \"/a\"\nmetric = \"spo2\"\nunit = \"%\"\nsource = \"M\"\n";
        Profiles::default().load("t.toml", &format!("{head}[publish.time]\nfield = \"/t\"\nsource = \"M\"\n{keys}"))
    };
    assert!(of("formats = [\"rfc3339\", \"unix_s\"]").is_ok());
    assert!(of("formats = [\"local\"]\nzone = \"-03:30\"").is_ok());
    for bad in [
        "",
        "formats = []",
        "formats = [\"local\"]",
        "formats = [\"iso\"]",
        "formats = [\"unix_s\", \"unix_ms\"]",
        "formats = [\"local\"]\nzone = \"Europe/Berlin\"",
        "formats = [\"rfc3339\"]\nage_days_max = 0",
        "formats = \"rfc3339\"",
    ] {
        assert!(of(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_dates_and_what_tells_a_message_is_checked() {
    let of = |keys: &str, sections: &str| {
        let field = "field = [{ value_field = \"/a\", metric = \"spo2\", unit = \"%\", source = \"M\" }]";
        let text = format!("id = \"x\"\nversion = \"1\"\nsource = \"M\"\n[publish]\n{field}\n{keys}\n{sections}");
        Profiles::default().load("t.toml", &text).map_err(|errors| errors.to_string())
    };
    let time = "[publish.time]\nfield = \"/t\"\nformats = [\"unix_s\"]\nsource = \"M\"\n";
    let counter = "[publish.counter]\nfield = \"/n\"\nsource = \"M\"\n";
    let both = format!("{time}{counter}");
    for good in ["identity = \"counter\"", "identity = \"time\"", "arrival_is_moment = true"] {
        of(good, &both).unwrap();
    }
    let refused = |keys: &str, sections: &str| of(keys, sections).unwrap_err();
    assert!(refused("identity = \"counter\"", time).contains("no counter"));
    assert!(refused("identity = \"both\"", &both).contains("use time or counter"));
    assert!(refused("arrival_is_moment = true", time).contains("no effect"));
    assert!(refused("arrival_is_moment = \"yes\"", &both).contains("neither true nor false"));
}

#[test]
fn what_is_no_profile_is_refused_without_a_panic() {
    for text in ["", "id", "[", "id = \"a\"", "= 1\n[x", "publish = 3", "polled = []", "[polled]\nblock = [1]\nregister = {}", "\u{0}"] {
        assert!(!errors(text).0.is_empty(), "{text:?}");
    }
    assert!(!errors(&"[a]\n".repeat(100_000)).0.is_empty());
    assert!(!errors(&format!("a = {}", "[".repeat(50_000))).0.is_empty());
}

#[test]
fn registers_that_overlap_or_leave_their_block_are_refused() {
    let of = |first: u16, second: u16| {
        let register = |address, metric| {
            format!("{{ block = \"b\", address = {address}, type = \"u32\", metric = \"{metric}\", unit = \"/min\", source = \"M\" }}")
        };
        let text = format!(
            "id = \"x\"\nversion = \"1\"\nsource = \"M\"\n[polled]\nmin_poll_interval_ms = 100\nblock = [{{ name = \"b\", function = \"input_registers\", address = 10, count = 4, source = \"M\" }}]\nregister = [{}, {}]\n",
            register(first, "heart_rate"),
            register(second, "resp_rate")
        );
        Profiles::default().load("t.toml", &text)
    };
    assert!(of(10, 12).is_ok());
    for (first, second) in [(10, 11), (12, 13), (9, 12), (10, 13), (10, 10)] {
        assert!(of(first, second).is_err(), "{first} {second}");
    }
}

/// Promise 2: a code that never comes would let its absence pass for a value, and a multiplier of 0 makes every value the same.
#[test]
fn a_code_that_never_comes_and_a_multiplier_of_zero_are_refused() {
    let of = |encoding: &str, more: &str| {
        let text = format!(
            "id = \"x\"\nversion = \"1\"\nsource = \"M\"\n[polled]\nmin_poll_interval_ms = 100\nblock = [{{ name = \"b\", function = \"input_registers\", address = 0, count = 4, source = \"M\" }}]\n[[polled.register]]\nblock = \"b\"\naddress = 0\ntype = \"{encoding}\"\nmetric = \"spo2\"\nunit = \"%\"\nsource = \"M\"\n{more}\n"
        );
        Profiles::default().load("t.toml", &text).map_err(|errors| errors.0.into_iter().map(|error| (error.place, error.remedy)).collect())
    };
    let code = |number: &str| format!("absent = [{{ code = {number}, means = \"not_available\" }}]");
    for (encoding, number) in
        [("i16", "-999"), ("u16", "-999"), ("i32", "-999"), ("f32", "0x7FC00000"), ("f32", "0xFFFFFC19"), ("f32", "0")]
    {
        of(encoding, &code(number)).unwrap_or_else(|told: Vec<(_, _)>| panic!("{encoding} {number}: {told:?}"));
    }
    let told = of("f32", &code("-999")).unwrap_err();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, "polled.register[0].absent[0].code");
    assert!(told[0].1.contains("0xC479C000"), "{told:?}");

    of("u16", "multiplier = \"-0.5\"\noffset = \"0\"").unwrap();
    for zero in ["0", "0.00", "-0"] {
        let told = of("u16", &format!("multiplier = \"{zero}\"")).unwrap_err();
        assert_eq!(told.iter().map(|(place, _)| place.as_str()).collect::<Vec<_>>(), ["polled.register[0].multiplier"], "{zero}");
    }
}

#[test]
fn a_profile_does_not_replace_another() {
    let mut profiles = Profiles::builtin().unwrap();
    let text = "id = \"vitals-json\"\nversion = \"2\"\nsource = \"M\"\n[publish]\nresend_indistinct = true\nfield = [{ value_field = \"/a\", metric = \"spo2\", unit = \"%\", source = \"M\" }]\n";
    assert!(profiles.load("mine.toml", text).is_err());
    assert_eq!(profiles.get("vitals-json").unwrap().version(), "1");
    assert_eq!(&*profiles.load("mine.toml", &text.replace("vitals-json", "mine")).unwrap(), "mine");
}

/// A block is decoded by itself, so a status bit cannot speak of another block's values.
#[test]
fn what_would_be_read_for_nothing_is_refused() {
    let of = |more: &str| {
        let head = "id = \"x\"\nversion = \"1\"\nsource = \"M\"\n[polled]\nmin_poll_interval_ms = 100\n[[polled.block]]\nname = \"b\"\nfunction = \"input_registers\"\naddress = 0\ncount = 2\nsource = \"M\"\n[[polled.register]]\nblock = \"b\"\naddress = 0\ntype = \"u16\"\nmetric = \"spo2\"\nunit = \"%\"\nsource = \"M\"\n";
        Profiles::default().load("t.toml", &format!("{head}{more}"))
    };
    let status = |metric: &str| {
        format!("[[polled.status]]\nblock = \"b\"\naddress = 1\nbit = 0\nmeans = \"test\"\nmetrics = [\"{metric}\"]\nsource = \"M\"\n")
    };
    assert!(of("").is_ok() && of(&status("spo2")).is_ok());
    assert!(of(&status("heart_rate")).is_err());
    assert!(of("[[polled.block]]\nname = \"c\"\nfunction = \"holding_registers\"\naddress = 0\ncount = 8\nsource = \"M\"\n").is_err());
    // Coils hold no value, and what they say of the values of another block would be lost: told once, where it is asked for.
    for function in ["coils", "discrete_inputs"] {
        let block = format!("[[polled.block]]\nname = \"c\"\nfunction = \"{function}\"\naddress = 0\ncount = 8\nsource = \"M\"\n");
        let bit = status("spo2").replace("block = \"b\"", "block = \"c\"");
        let errors = of(&format!("{block}{bit}")).unwrap_err().0;
        let told: Vec<_> = errors.iter().map(|error| (error.line, error.place.as_str())).collect();
        assert_eq!(told, [(21, "polled.block[1].function")], "{errors:?}");
        assert!(errors[0].remedy.contains("holding_registers or input_registers"), "{errors:?}");
    }
}

/// Promise: a site's profiles still load. What a key once said and no longer does stays a key.
#[test]
fn a_profile_with_a_key_that_has_no_effect_any_more_loads() {
    let text = include_str!("../profiles/vitals-modbus.toml").replace("[polled]\n", "[polled]\nsingle_connection = true\n");
    assert!(text.contains("single_connection"));
    Profiles::default().load("mine.toml", &text).unwrap();
}

/// The guide is what people copy from: its examples are valid.
#[test]
fn the_examples_of_the_guide_are_valid() {
    let mut profiles = Profiles::builtin().unwrap();
    let guide = include_str!("../profiles/README.md");
    let examples: Vec<_> = guide.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        profiles.load("README.md", example).unwrap_or_else(|errors| panic!("{errors}"));
    }
}
