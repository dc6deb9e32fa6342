//! Units as UCUM codes, and the conversions between them in decimal arithmetic.
//!
//! Source of the factors: UCUM 2.1 table of units; glucose molar mass 180.156 g/mol (LOINC).

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;

macro_rules! units {
    ($($(#[$doc:meta])* $variant:ident = $wire:literal, $ucum:literal, $text:literal, [$($alias:literal),*];)*) => {
        /// A unit that a value can carry. The wire number never changes its meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "u16", into = "u16")]
        #[repr(u16)]
        pub enum Unit { $($(#[$doc])* $variant = $wire,)* }

        impl Unit {
            /// Every unit.
            pub const ALL: &'static [Unit] = &[$(Unit::$variant),*];

            /// The UCUM code (case sensitive form), as FHIR's `Quantity.code` wants it.
            #[must_use]
            pub fn ucum(self) -> &'static str {
                match self { $(Unit::$variant => $ucum,)* }
            }

            /// What a person reads beside the value.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $(Unit::$variant => $text,)* }
            }

            /// From a UCUM code or a spelling that devices are known to send for it.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($ucum $(| $alias)* => Some(Unit::$variant),)* _ => None }
            }
        }

        impl TryFrom<u16> for Unit {
            type Error = String;
            fn try_from(wire: u16) -> Result<Self, String> {
                match wire { $($wire => Ok(Unit::$variant),)* other => Err(format!("unknown unit number {other}")) }
            }
        }
    };
}

units! {
    /// Per minute.
    PerMinute = 1, "/min", "/min", ["bpm", "beats/min", "1/min", "brpm", "breaths/min", "{beat}/min", "{beats}/min", "{breath}/min", "{breaths}/min"];
    /// Percent.
    Percent = 2, "%", "%", ["percent"];
    /// Millimetre of mercury.
    MillimetreOfMercury = 3, "mm[Hg]", "mmHg", ["mmHg"];
    /// Kilopascal.
    Kilopascal = 4, "kPa", "kPa", [];
    /// Degree Celsius.
    Celsius = 5, "Cel", "°C", ["degC", "°C", "C"];
    /// Degree Fahrenheit.
    Fahrenheit = 6, "[degF]", "°F", ["degF", "°F", "F"];
    /// Kelvin.
    Kelvin = 7, "K", "K", [];
    /// Kilogram.
    Kilogram = 8, "kg", "kg", [];
    /// Gram.
    Gram = 9, "g", "g", [];
    /// Avoirdupois pound.
    Pound = 10, "[lb_av]", "lb", ["lb", "lbs"];
    /// Metre.
    Metre = 11, "m", "m", [];
    /// Centimetre.
    Centimetre = 12, "cm", "cm", [];
    /// Inch.
    Inch = 13, "[in_i]", "in", ["in"];
    /// Milligram per decilitre.
    MilligramPerDecilitre = 14, "mg/dL", "mg/dL", ["mg/dl"];
    /// Millimole per litre.
    MillimolePerLitre = 15, "mmol/L", "mmol/L", ["mmol/l"];
    /// Litre per minute.
    LitrePerMinute = 16, "L/min", "L/min", ["l/min"];
    /// Kilogram per square metre.
    KilogramPerSquareMetre = 17, "kg/m2", "kg/m²", [];
    /// Pascal.
    Pascal = 18, "Pa", "Pa", [];
}

impl From<Unit> for u16 {
    fn from(unit: Unit) -> Self {
        unit as u16
    }
}

/// Why a quantity cannot be given in another unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// The two units do not measure the same kind of thing, or the conversion would change the
    /// LOINC code (mass and molar glucose).
    #[error("{} cannot be converted to {}", from.ucum(), to.ucum())]
    Incompatible {
        /// The unit the value has.
        from: Unit,
        /// The unit that was asked for.
        to: Unit,
    },
    /// The value is too large for decimal arithmetic.
    #[error("the value is too large to convert")]
    Overflow,
}

/// `base = (value + shift) * factor`, exact as numerator and denominator.
struct ToBase {
    dimension: u8,
    shift: Decimal,
    numerator: Decimal,
    denominator: Decimal,
}

fn to_base(unit: Unit) -> ToBase {
    let plain = |dimension, numerator: Decimal, denominator: Decimal| ToBase { dimension, shift: Decimal::ZERO, numerator, denominator };
    let one = Decimal::ONE;
    match unit {
        Unit::PerMinute => plain(1, one, one),
        Unit::Percent => plain(2, one, one),
        Unit::Pascal => plain(3, one, one),
        Unit::Kilopascal => plain(3, Decimal::ONE_THOUSAND, one),
        Unit::MillimetreOfMercury => plain(3, Decimal::new(133_322_387_415, 9), one),
        Unit::Celsius => plain(4, one, one),
        Unit::Fahrenheit => {
            ToBase { dimension: 4, shift: Decimal::new(-32, 0), numerator: Decimal::new(5, 0), denominator: Decimal::new(9, 0) }
        }
        Unit::Kelvin => ToBase { dimension: 4, shift: Decimal::new(-27_315, 2), numerator: one, denominator: one },
        Unit::Kilogram => plain(5, Decimal::ONE_THOUSAND, one),
        Unit::Gram => plain(5, one, one),
        Unit::Pound => plain(5, Decimal::new(45_359_237, 5), one),
        Unit::Metre => plain(6, Decimal::ONE_HUNDRED, one),
        Unit::Centimetre => plain(6, one, one),
        Unit::Inch => plain(6, Decimal::new(254, 2), one),
        Unit::MilligramPerDecilitre => plain(7, one, one),
        Unit::MillimolePerLitre => plain(8, one, one),
        Unit::LitrePerMinute => plain(9, one, one),
        Unit::KilogramPerSquareMetre => plain(10, one, one),
    }
}

impl Quantity {
    /// The same quantity in another unit, to the decimal place of the source's last digit: it is off by at
    /// most half of what that digit can tell. Exact when the unit is the same.
    ///
    /// # Errors
    /// When the units differ in kind, or the value overflows decimal arithmetic.
    pub fn convert(self, to: Unit) -> Result<Self, ConversionError> {
        if self.unit == to {
            return Ok(self);
        }
        let (source, target) = (to_base(self.unit), to_base(to));
        if source.dimension != target.dimension {
            return Err(ConversionError::Incompatible { from: self.unit, to });
        }
        let converted = (self.value.checked_add(source.shift))
            .and_then(|value| value.checked_mul(source.numerator))
            .and_then(|value| value.checked_mul(target.denominator))
            .and_then(|value| value.checked_div(source.denominator))
            .and_then(|value| value.checked_div(target.numerator))
            .and_then(|value| value.checked_sub(target.shift))
            .ok_or(ConversionError::Overflow)?;
        let places = places_of(self.value, &source, &target).ok_or(ConversionError::Overflow)?;
        // As people round: 75 in (190.5 cm) are 191 cm.
        let rounded = converted.round_dp_with_strategy(places, RoundingStrategy::MidpointAwayFromZero);
        Ok(Self { value: rounded.normalize(), unit: to })
    }
}

/// Decimal places of a converted value: the coarsest whose step is no larger than one step of the source's last digit.
fn places_of(value: Decimal, source: &ToBase, target: &ToBase) -> Option<u32> {
    let factor = (source.numerator.checked_mul(target.denominator)?).checked_div(source.denominator.checked_mul(target.numerator)?)?;
    let magnitude = i64::from(factor.mantissa().unsigned_abs().checked_ilog10()?) - i64::from(factor.scale());
    u32::try_from((i64::from(value.scale()) - magnitude).max(0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(value: &str, from: Unit, to: Unit) -> String {
        Quantity { value: value.parse().unwrap(), unit: from }.convert(to).unwrap().value.to_string()
    }

    /// Promise 3: a value in the metric's unit says what the device said.
    #[test]
    fn a_converted_value_has_the_digits_of_its_source() {
        assert_eq!(converted("98.6", Unit::Fahrenheit, Unit::Celsius), "37");
        assert_eq!(converted("101.2", Unit::Fahrenheit, Unit::Celsius), "38.44");
        assert_eq!(converted("98", Unit::Fahrenheit, Unit::Celsius), "36.7");
        assert_eq!(converted("310.15", Unit::Kelvin, Unit::Celsius), "37");
        assert_eq!(converted("16.0", Unit::Kilopascal, Unit::MillimetreOfMercury), "120");
        assert_eq!(converted("18", Unit::Kilopascal, Unit::MillimetreOfMercury), "135");
        assert_eq!(converted("17", Unit::Kilopascal, Unit::MillimetreOfMercury), "128");
        assert_eq!(converted("9.6", Unit::Kilopascal, Unit::MillimetreOfMercury), "72");
        assert_eq!(converted("170", Unit::Pound, Unit::Kilogram), "77.1");
        assert_eq!(converted("70.5", Unit::Inch, Unit::Centimetre), "179.1");
        assert_eq!(converted("70", Unit::Inch, Unit::Centimetre), "178");
        assert_eq!(converted("75", Unit::Inch, Unit::Centimetre), "191");
        assert_eq!(converted("1.82", Unit::Metre, Unit::Centimetre), "182");
        assert_eq!(converted("3250", Unit::Gram, Unit::Kilogram), "3.25");
    }

    #[test]
    fn glucose_never_changes_between_mass_and_molar_silently() {
        let mass = Quantity { value: Decimal::new(100, 0), unit: Unit::MilligramPerDecilitre };
        assert!(matches!(mass.convert(Unit::MillimolePerLitre), Err(ConversionError::Incompatible { .. })));
    }

    #[test]
    fn a_code_means_one_unit_and_a_unit_has_one_wire_number() {
        for &unit in Unit::ALL {
            assert_eq!(Unit::parse(unit.ucum()), Some(unit));
            assert_eq!(Unit::try_from(u16::from(unit)), Ok(unit));
        }
    }

    /// What the divisions in between may be off.
    const ERROR_OF_ARITHMETIC: Decimal = Decimal::from_parts(1, 0, 0, false, 12);

    proptest::proptest! {
        /// Promise 3: whatever the units, a converted value tells what the device sent from the value a last digit beside
        /// it, and claims no digit more than that takes.
        #[test]
        fn a_conversion_is_off_by_half_a_step_of_the_source_at_most(mantissa in -9_999_999_i64..=9_999_999, scale in 0_u32..=4) {
            let sent = Decimal::new(mantissa, scale);
            let step = Decimal::new(1, scale);
            for (&from, &to) in Unit::ALL.iter().flat_map(|from| Unit::ALL.iter().map(move |to| (from, to))) {
                let Ok(converted) = (Quantity { value: sent, unit: from }).convert(to) else { continue };
                let (source, target) = (to_base(from), to_base(to));
                let back = (converted.value + target.shift) * target.numerator * source.denominator / target.denominator / source.numerator
                    - source.shift;
                let off = (back - sent).abs();
                proptest::prop_assert!(off <= step / Decimal::TWO + ERROR_OF_ARITHMETIC, "{sent} {from:?} as {converted:?}");
                let one_digit_less = Decimal::new(10, converted.value.scale()) * target.numerator * source.denominator;
                let is_needed = one_digit_less > step * source.numerator * target.denominator;
                proptest::prop_assert!(from == to || converted.value.scale() == 0 || is_needed, "{sent} {from:?} as {converted:?}");
            }
        }
    }
}
