//! The metrics that Vitalgate knows, with their codes.
//!
//! Source: HL7 FHIR R4 (4.0.1) vital-signs profiles; LOINC 2.82; IEEE 11073-10101 codes as used by
//! HL7 PHD and gematik ISiK Vitalparameter 4.0.0. Plausible ranges are limits of sensors, not
//! clinical limits. LOINC is a trademark of Regenstrief Institute; only the codes in use are listed.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;
use crate::unit::Unit;

/// The FHIR category of an Observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Category {
    /// `vital-signs`, with the rules of the R4 vital-signs profiles.
    VitalSigns,
    /// `laboratory` (glucose is not a vital sign).
    Laboratory,
}

/// What is fixed about a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricDefinition {
    /// Short stable key, used in profiles, topics and identities.
    pub key: &'static str,
    /// LOINC codes with their display, the one the profile demands first.
    pub loinc: &'static [(&'static str, &'static str)],
    /// IEEE 11073-10101 code and reference id, where verified.
    pub mdc: Option<(u32, &'static str)>,
    /// The unit it is stored and sent in; `None` for a panel, which has no value of its own.
    pub unit: Option<Unit>,
    /// Other units that the FHIR profile also allows; still converted to `unit`.
    pub category: Category,
    /// FHIR profile that a conforming Observation claims.
    pub profile: Option<&'static str>,
    /// The panel that it is a part of, and is never sent without.
    pub panel: Option<Metric>,
    /// Plausible range in hundredths of `unit`, inclusive.
    pub plausible_hundredths: Option<(i64, i64)>,
    /// Whether a value of 0 is what a disconnected sensor sends, and so an absence. A patient can stop to breathe: there 0 is a value.
    pub zero_is_absence: bool,
}

macro_rules! metrics {
    ($($variant:ident = $wire:literal { $key:literal, [$(($loinc:literal, $display:literal)),+], $mdc:expr, $unit:expr, $category:ident, $profile:expr, $panel:expr, $range:expr, $zero:literal };)*) => {
        /// A metric. The wire number never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "u16", into = "u16")]
        #[repr(u16)]
        #[allow(missing_docs)] // The table right below says what each is.
        pub enum Metric { $($variant = $wire,)* }

        impl Metric {
            /// Every metric.
            pub const ALL: &'static [Metric] = &[$(Metric::$variant),*];

            /// What is fixed about it.
            #[must_use]
            pub fn definition(self) -> &'static MetricDefinition {
                match self {
                    $(Metric::$variant => {
                        const DEFINITION: MetricDefinition = MetricDefinition {
                            key: $key,
                            loinc: &[$(($loinc, $display)),+],
                            mdc: $mdc,
                            unit: $unit,
                            category: Category::$category,
                            profile: $profile,
                            panel: $panel,
                            plausible_hundredths: $range,
                            zero_is_absence: $zero,
                        };
                        &DEFINITION
                    })*
                }
            }

            /// From its key.
            #[must_use]
            pub fn parse(key: &str) -> Option<Self> {
                match key { $($key => Some(Metric::$variant),)* _ => None }
            }
        }

        impl TryFrom<u16> for Metric {
            type Error = String;
            fn try_from(wire: u16) -> Result<Self, String> {
                match wire { $($wire => Ok(Metric::$variant),)* other => Err(format!("unknown metric number {other}")) }
            }
        }
    };
}

const HEART_RATE_PROFILE: &str = "http://hl7.org/fhir/StructureDefinition/heartrate";
const BP_PROFILE: &str = "http://hl7.org/fhir/StructureDefinition/bp";

metrics! {
    HeartRate = 1 { "heart_rate", [("8867-4", "Heart rate")], Some((147_842, "MDC_ECG_HEART_RATE")), Some(Unit::PerMinute), VitalSigns, Some(HEART_RATE_PROFILE), None, Some((2_000, 30_000)), true };
    PulseRateOximeter = 2 { "pulse_rate_spo2", [("8867-4", "Heart rate")], Some((149_530, "MDC_PULS_OXIM_PULS_RATE")), Some(Unit::PerMinute), VitalSigns, Some(HEART_RATE_PROFILE), None, Some((2_000, 30_000)), true };
    PulseRateCuff = 3 { "pulse_rate_nibp", [("8867-4", "Heart rate")], Some((149_546, "MDC_PULS_RATE_NON_INV")), Some(Unit::PerMinute), VitalSigns, Some(HEART_RATE_PROFILE), None, Some((2_000, 30_000)), true };
    RespiratoryRate = 4 { "resp_rate", [("9279-1", "Respiratory rate")], Some((151_562, "MDC_RESP_RATE")), Some(Unit::PerMinute), VitalSigns, Some("http://hl7.org/fhir/StructureDefinition/resprate"), None, Some((200, 8_000)), false };
    OxygenSaturation = 5 { "spo2", [("2708-6", "Oxygen saturation in Arterial blood"), ("59408-5", "Oxygen saturation in Arterial blood by Pulse oximetry")], Some((150_456, "MDC_PULS_OXIM_SAT_O2")), Some(Unit::Percent), VitalSigns, Some("http://hl7.org/fhir/StructureDefinition/oxygensat"), None, Some((4_000, 10_000)), true };
    BodyTemperature = 6 { "body_temp", [("8310-5", "Body temperature")], Some((150_364, "MDC_TEMP_BODY")), Some(Unit::Celsius), VitalSigns, Some("http://hl7.org/fhir/StructureDefinition/bodytemp"), None, Some((2_500, 4_500)), true };
    BloodPressureCuff = 7 { "nibp", [("85354-9", "Blood pressure panel with all children optional")], Some((150_020, "MDC_PRESS_BLD_NONINV")), None, VitalSigns, Some(BP_PROFILE), None, None, false };
    SystolicCuff = 8 { "nibp_sys", [("8480-6", "Systolic blood pressure")], Some((150_021, "MDC_PRESS_BLD_NONINV_SYS")), Some(Unit::MillimetreOfMercury), VitalSigns, Some(BP_PROFILE), Some(Metric::BloodPressureCuff), Some((3_000, 30_000)), true };
    DiastolicCuff = 9 { "nibp_dia", [("8462-4", "Diastolic blood pressure")], Some((150_022, "MDC_PRESS_BLD_NONINV_DIA")), Some(Unit::MillimetreOfMercury), VitalSigns, Some(BP_PROFILE), Some(Metric::BloodPressureCuff), Some((1_000, 20_000)), true };
    MeanCuff = 10 { "nibp_mean", [("8478-0", "Mean blood pressure")], Some((150_023, "MDC_PRESS_BLD_NONINV_MEAN")), Some(Unit::MillimetreOfMercury), VitalSigns, Some(BP_PROFILE), Some(Metric::BloodPressureCuff), Some((2_000, 25_000)), true };
    BloodPressureArterial = 11 { "abp", [("85354-9", "Blood pressure panel with all children optional")], Some((150_016, "MDC_PRESS_BLD")), None, VitalSigns, Some(BP_PROFILE), None, None, false };
    SystolicArterial = 12 { "abp_sys", [("8480-6", "Systolic blood pressure")], Some((150_037, "MDC_PRESS_BLD_ART_ABP_SYS")), Some(Unit::MillimetreOfMercury), VitalSigns, Some(BP_PROFILE), Some(Metric::BloodPressureArterial), Some((3_000, 30_000)), true };
    DiastolicArterial = 13 { "abp_dia", [("8462-4", "Diastolic blood pressure")], Some((150_038, "MDC_PRESS_BLD_ART_ABP_DIA")), Some(Unit::MillimetreOfMercury), VitalSigns, Some(BP_PROFILE), Some(Metric::BloodPressureArterial), Some((1_000, 20_000)), true };
    MeanArterial = 14 { "abp_mean", [("8478-0", "Mean blood pressure")], Some((150_039, "MDC_PRESS_BLD_ART_ABP_MEAN")), Some(Unit::MillimetreOfMercury), VitalSigns, Some(BP_PROFILE), Some(Metric::BloodPressureArterial), Some((2_000, 25_000)), true };
    BodyWeight = 15 { "body_weight", [("29463-7", "Body weight")], Some((188_736, "MDC_MASS_BODY_ACTUAL")), Some(Unit::Kilogram), VitalSigns, Some("http://hl7.org/fhir/StructureDefinition/bodyweight"), None, Some((20, 50_000)), true };
    BodyHeight = 16 { "body_height", [("8302-2", "Body height")], Some((188_740, "MDC_LEN_BODY_ACTUAL")), Some(Unit::Centimetre), VitalSigns, Some("http://hl7.org/fhir/StructureDefinition/bodyheight"), None, Some((2_000, 25_000)), true };
    GlucoseCapillaryMass = 17 { "glucose_capillary_mass", [("41653-7", "Glucose [Mass/volume] in Capillary blood by Glucometer")], Some((160_184, "MDC_CONC_GLU_CAPILLARY_WHOLEBLOOD")), Some(Unit::MilligramPerDecilitre), Laboratory, None, None, Some((1_000, 100_000)), true };
    GlucoseCapillaryMoles = 18 { "glucose_capillary_moles", [("14743-9", "Glucose [Moles/volume] in Capillary blood by Glucometer")], Some((160_184, "MDC_CONC_GLU_CAPILLARY_WHOLEBLOOD")), Some(Unit::MillimolePerLitre), Laboratory, None, None, Some((50, 5_500)), true };
    GlucoseBloodMass = 19 { "glucose_blood_mass", [("2339-0", "Glucose [Mass/volume] in Blood")], None, Some(Unit::MilligramPerDecilitre), Laboratory, None, None, Some((1_000, 100_000)), true };
}

impl From<Metric> for u16 {
    fn from(metric: Metric) -> Self {
        metric as u16
    }
}

impl Metric {
    /// The stable key.
    #[must_use]
    pub fn key(self) -> &'static str {
        self.definition().key
    }

    /// The parts of a panel in the order they are sent; empty for what is no panel.
    #[must_use]
    pub fn parts(self) -> &'static [Metric] {
        match self {
            Metric::BloodPressureCuff => &[Metric::SystolicCuff, Metric::DiastolicCuff, Metric::MeanCuff],
            Metric::BloodPressureArterial => &[Metric::SystolicArterial, Metric::DiastolicArterial, Metric::MeanArterial],
            _ => &[],
        }
    }

    /// The parts that a panel must name even when they never arrived (FHIR R4 `bp`: systolic and diastolic 1..1).
    #[must_use]
    pub fn required_parts(self) -> &'static [Metric] {
        self.parts().get(..2).unwrap_or_default()
    }

    /// Whether the quantity lies in the plausible range of the metric's sensors; true where none is known.
    #[must_use]
    pub fn is_plausible(self, quantity: &Quantity) -> bool {
        let Some((low, high)) = self.definition().plausible_hundredths else { return true };
        quantity.value >= Decimal::new(low, 2) && quantity.value <= Decimal::new(high, 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_found_by_its_key_and_its_wire_number() {
        for &metric in Metric::ALL {
            assert_eq!(Metric::parse(metric.key()), Some(metric));
            assert_eq!(Metric::try_from(u16::from(metric)), Ok(metric));
        }
    }

    #[test]
    fn a_part_names_the_panel_that_names_it() {
        for &metric in Metric::ALL {
            let definition = metric.definition();
            assert_eq!(definition.unit.is_none(), !metric.parts().is_empty(), "{} has a value or parts", definition.key);
            if let Some(panel) = definition.panel {
                assert!(panel.parts().contains(&metric), "{}", definition.key);
            }
        }
    }

    /// Promise 2: that a patient does not breathe is said as it was sent, and marked as beyond what is plausible.
    #[test]
    fn a_respiratory_rate_of_zero_is_an_implausible_value() {
        let zero = Quantity { value: Decimal::ZERO, unit: Unit::PerMinute };
        assert!(!Metric::RespiratoryRate.definition().zero_is_absence && !Metric::RespiratoryRate.is_plausible(&zero));
        assert!(Metric::HeartRate.definition().zero_is_absence);
    }

    #[test]
    fn oxygen_saturation_carries_the_code_the_profile_demands_and_the_oximetry_code() {
        let codes: Vec<_> = Metric::OxygenSaturation.definition().loinc.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, ["2708-6", "59408-5"]);
    }
}
