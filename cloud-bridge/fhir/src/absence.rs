//! Absence and doubt as FHIR says them.
//!
//! Source: HL7 PoCD mapping table of the status of a metric; FHIR R4 value set `data-absent-reason`; HL7 v3
//! code systems ObservationValue (integrity confidence), ActReason (HTEST) and ObservationInterpretation.

use vitalgate_domain::{ClockTrust, Flags, NoReading, Reading, Value};

/// How far a value may be relied on, weakest claim first; a panel takes the largest of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reliance {
    /// Nothing to rely on: there is no value, and no complaint about the device.
    Unstated,
    /// `RELIABLE`
    Reliable,
    /// `UNCERTREL`
    Uncertain,
    /// `UNRELIABLE`
    Unreliable,
}

impl Reliance {
    pub(crate) fn of(reading: &Reading) -> Self {
        let doubtful = [Flags::IMPLAUSIBLE, Flags::QUESTIONABLE, Flags::CALIBRATING, Flags::CLOCK_DOUBTFUL];
        match reading.value {
            Value::Absent(NoReading::DeviceError) => Self::Unreliable,
            _ if is_not_compared(reading) || doubtful.iter().any(|&flag| reading.flags.contains(flag)) => Self::Uncertain,
            Value::Absent(_) => Self::Unstated,
            Value::Quantity(_) => Self::Reliable,
        }
    }

    /// The coding for `meta.security`.
    pub(crate) fn security(self) -> Option<&'static str> {
        match self {
            Self::Unstated => None,
            Self::Reliable => Some(r#"{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"RELIABLE"}"#),
            Self::Uncertain => Some(r#"{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"UNCERTREL"}"#),
            Self::Unreliable => Some(r#"{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"UNRELIABLE"}"#),
        }
    }
}

/// Whether the device said a time, and there was none to compare it with.
pub(crate) fn is_not_compared(reading: &Reading) -> bool {
    reading.time.device.is_some() && reading.time.received.trust == ClockTrust::Unset
}

/// What a reader in the EHR should know of such a reading, as the text of a `note`.
pub(crate) const NOT_COMPARED: &str = "The gateway's clock was not set: the time of the device could not be compared.";

/// `meta.security` of a test or demonstration value.
pub(crate) const TEST_SECURITY: &str = r#"{"system":"http://terminology.hl7.org/CodeSystem/v3-ActReason","code":"HTEST"}"#;

macro_rules! absent {
    ($code:literal, $text:literal) => {
        concat!(
            r#""dataAbsentReason":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/data-absent-reason","code":""#,
            $code,
            r#""}],"text":""#,
            $text,
            r#""}"#
        )
    };
}

/// The member `dataAbsentReason`. The code is the nearest of the value set, the text says what it was.
/// A value off scale exists but is not known: `unknown`, with `>` or `<` as interpretation.
pub(crate) fn data_absent_reason(reason: NoReading) -> &'static str {
    match reason {
        NoReading::SensorDisconnected => absent!("not-performed", "Sensor off or not attached"),
        NoReading::NotAvailable => absent!("temp-unknown", "Not available just now"),
        NoReading::DeviceError => absent!("error", "Invalid according to the device"),
        NoReading::AboveRange => absent!("unknown", "Above the range of the device"),
        NoReading::BelowRange => absent!("unknown", "Below the range of the device"),
        NoReading::NotANumber => absent!("not-a-number", "Not a number"),
        NoReading::NotPerformed => absent!("not-performed", "Not performed"),
        NoReading::PartMissing => absent!("unknown", "Not received with the others"),
    }
}

/// A coding of the PoCD code system for the status of a metric. Its URL is in halves, since it holds a word that
/// our own vocabulary does not use.
macro_rules! metric_status {
    ($code:literal) => {
        concat!(r#"{"coding":[{"system":"http://hl7.org/fhir/uv/pocd/CodeSystem/measure"#, r#"ment-status","code":""#, $code, r#""}]}"#)
    };
}

const QUESTIONABLE: &str = metric_status!("questionable");
const CALIBRATING: &str = metric_status!("calibration-ongoing");
const OFF_SCALE_HIGH: &str = r#"{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation","code":">"}]}"#;
const OFF_SCALE_LOW: &str = r#"{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation","code":"<"}]}"#;

/// The elements of `interpretation`, none for an ordinary value.
pub(crate) fn interpretations(reading: &Reading) -> impl Iterator<Item = &'static str> {
    let flags = reading.flags;
    let questionable = flags.contains(Flags::IMPLAUSIBLE) || flags.contains(Flags::QUESTIONABLE);
    let off_scale = match reading.value {
        Value::Absent(NoReading::AboveRange) => Some(OFF_SCALE_HIGH),
        Value::Absent(NoReading::BelowRange) => Some(OFF_SCALE_LOW),
        _ => None,
    };
    let calibrating = flags.contains(Flags::CALIBRATING);
    [questionable.then_some(QUESTIONABLE), calibrating.then_some(CALIBRATING), off_scale].into_iter().flatten()
}

/// What a reader in the EHR should know besides, as the text of a `note`.
pub(crate) fn remarks(flags: Flags) -> impl Iterator<Item = &'static str> {
    [
        (Flags::RESEND_INDISTINCT, "The device gives neither time nor counter: it may have reported this value more than once."),
        (
            Flags::DATED_BY_ARRIVAL,
            "The device gives no time: this is the time of arrival at the gateway, and the device may have kept the value for long.",
        ),
        (Flags::CLOCK_DOUBTFUL, "The clock of the device differed from that of the gateway: the time may be wrong."),
        (Flags::APART, "Several came in one message, not all of them whole: which parts belong together is not known."),
        (Flags::REPLAYED, "Sent later: at first it was refused, or held back by the gateway."),
    ]
    .into_iter()
    .filter(move |(flag, _)| flags.contains(*flag))
    .map(|(_, text)| text)
}
