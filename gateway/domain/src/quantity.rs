//! A decimal value with its unit. No binary float crosses a crate boundary.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::unit::Unit;

/// A value and its UCUM unit. The decimal keeps the digits that the source gave (`37.0` is not `37`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantity {
    /// The number, with the source's own decimal places.
    pub value: Decimal,
    /// The unit of the number.
    pub unit: Unit,
}
