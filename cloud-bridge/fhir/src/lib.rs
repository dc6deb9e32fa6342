//! Batches to FHIR R4 bundles, and a server's answers to outcomes. Pure: no input, no output, no clock.
//!
//! Sources: HL7 FHIR R4 (4.0.1) Bundle, Observation, vital-signs profiles and RESTful API section 3.1.0.11;
//! HL7 PHD and PoCD implementation guides for device data; IEEE 11073-10101 codes.
//!
//! What leaves the encoder always has a subject, an identifier, a moment and either a value or the
//! reason why there is none. What cannot have them is an [`EncodeError`], never a guess.

#![forbid(unsafe_code)]

mod absence;
mod answer;
mod bounded;
mod bundle;
mod capability;
mod check;
mod coding;
mod context;
mod device;
mod instant;
mod json;
mod observation;
mod outcome;
mod search;

pub use answer::{Classified, classify};
pub use bundle::{EncodedBatch, encode};
pub use capability::{CAPABILITY_BYTES_MAX, Capability, CapabilityError, ResourceCapability, parse_capability};
pub use check::{EncodeError, ItemFault, faults};
pub use context::{EncodeContext, IDENTIFIER_SYSTEM, WriteMode, identifier_query, identifier_value};
pub use device::{EncodedDevice, device_resource_id, encode_device, encode_gateway, gateway_resource_id};
pub use outcome::{OUTCOME_TEXT_CHARS_MAX, outcome_codes};
pub use search::{
    Found, SearchError, Whose, find_in_search, find_observation, find_patient, next_page, parse_resource_id, read_observation,
};

/// Largest answer to a bundle that is read, in bytes. One hundred entries with the resources echoed
/// back take a tenth of it; what is larger counts as unreadable.
pub const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The media type of every request and answer.
pub const FHIR_JSON: &str = "application/fhir+json";
