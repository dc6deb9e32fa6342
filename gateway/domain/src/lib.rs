//! Types and rules of the field, without input or output.
