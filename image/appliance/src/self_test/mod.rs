//! The self test before commissioning.
