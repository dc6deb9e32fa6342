//! Any reading whatsoever becomes valid JSON that reads back as the same decimal, identity and text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code.

mod common;

use common::{batch, context, encoded, reading, single};
use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::Value as Json;
use vitalgate_domain::{BatchMode, DeviceTime, Flags, Metric, Quantity, Reported, Unit, UnixMs, Value};
use vitalgate_fhir::WriteMode;

fn single_metrics() -> Vec<Metric> {
    Metric::ALL.iter().copied().filter(|metric| metric.definition().panel.is_none() && metric.parts().is_empty()).collect()
}

/// The number as it stands in the text: a JSON library would make a binary float of it.
fn number_in(body: &str) -> &str {
    let (_, after) = body.split_once("\"valueQuantity\":{\"value\":").unwrap();
    after.split(',').next().unwrap()
}

proptest! {
    #[test]
    fn a_quantity_keeps_its_digits(
        mantissa in any::<i64>(), high in any::<u32>(), scale in 0_u32..=28, metric in prop::sample::select(single_metrics()),
        unit in prop::sample::select(Unit::ALL.to_vec()), flags in any::<u16>(), moment in any::<i64>(), offset in any::<Option<i16>>(),
        reported in any::<Option<(String, String)>>(), put in any::<bool>(),
    ) {
        let value = Decimal::try_from_i128_with_scale(i128::from(mantissa) * (i128::from(high) + 1), scale).unwrap_or(Decimal::MAX);
        let mut any = reading(1, metric, Value::Quantity(Quantity { value, unit }));
        any.flags = Flags(flags);
        any.time.device = Some(DeviceTime { unix_ms: UnixMs(moment), offset_minutes: offset });
        any.reported = reported.map(|(value, unit)| Reported { value: value.as_str().into(), unit: unit.as_str().into() });
        let id = any.id.to_string();
        let mode = if put { WriteMode::PutById } else { WriteMode::ConditionalCreate };
        let body = encoded(&batch(BatchMode::Separately, vec![single(any)]), &context(mode));
        let bundle: Json = serde_json::from_str(&body).unwrap();
        prop_assert_eq!(number_in(&body), value.to_string());
        prop_assert_eq!(number_in(&body).parse::<Decimal>().unwrap(), value);
        let entry = &bundle["entry"][0];
        prop_assert_eq!(&entry["resource"]["identifier"][0]["value"], &Json::from(format!("urn:uuid:{id}")));
        if put {
            prop_assert_eq!(&entry["request"]["url"], &Json::from(format!("Observation/{id}")));
            prop_assert_eq!(&entry["resource"]["id"], &Json::from(id));
        } else {
            prop_assert_eq!(&entry["request"]["ifNoneExist"], &Json::from(format!("identifier=urn:ietf:rfc:3986|urn:uuid:{id}")));
        }
    }
}

#[test]
fn trailing_zeros_are_part_of_the_value() {
    let body = encoded(
        &batch(BatchMode::Together, vec![single(reading(1, Metric::BodyTemperature, common::quantity("37.0", Unit::Celsius)))]),
        &context(WriteMode::PutById),
    );
    assert_eq!(number_in(&body), "37.0");
}

proptest! {
    /// Texts that come from a configuration cannot break out of the JSON.
    #[test]
    fn a_reference_or_system_with_any_characters_stays_one_text(patient in any::<String>(), system in any::<String>(), device in any::<String>()) {
        let mut odd = context(WriteMode::ConditionalCreate);
        odd.identifier_system = system;
        let batch = batch(BatchMode::Together, vec![single(reading(1, Metric::HeartRate, common::ordinary(Metric::HeartRate)))]);
        let body = vitalgate_fhir::encode(&batch, &odd, &|_| device.clone(), &patient).unwrap().body;
        let bundle: Json = serde_json::from_slice(&body).unwrap();
        let members = |json: &Json| json.as_object().unwrap().len();
        prop_assert_eq!(members(&bundle["entry"][0]), 2);
        prop_assert_eq!(members(&bundle["entry"][0]["resource"]["subject"]), 1);
    }
}
