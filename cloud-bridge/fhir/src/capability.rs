//! What a server says it can do (`GET metadata`).

use serde::Deserialize;

use crate::bounded::First;

/// Largest CapabilityStatement that is read, in bytes; full servers list every resource and search parameter.
pub const CAPABILITY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Resource types of one statement that are looked at; R4 has 148.
const RESOURCES_MAX: usize = 512;
/// Interactions and modes that are looked at.
const INTERACTIONS_MAX: usize = 32;
/// Longest version text that is kept, in characters.
const VERSION_CHARS_MAX: usize = 32;

/// Why a statement cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// Longer than [`CAPABILITY_BYTES_MAX`].
    #[error("the server's statement of capabilities is longer than {CAPABILITY_BYTES_MAX} bytes")]
    TooLong,
    /// No JSON, or no CapabilityStatement.
    #[error("what the server gives at /metadata is no CapabilityStatement in JSON; check the URL")]
    NotAStatement,
}

/// What the server says of one resource type. `None` where it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResourceCapability {
    /// Whether it lists the type at all.
    pub listed: bool,
    /// `updateCreate`: a PUT to a new id creates. What `versioning` says is not asked: servers that state `versioned-update` mostly
    /// take an update that names no version, and where one does not, what it refused is looked up.
    pub update_create: Option<bool>,
    /// `conditionalCreate`: `If-None-Exist` is honoured.
    pub conditional_create: Option<bool>,
}

/// What the gateway needs to know of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// The numbers of `fhirVersion`, such as `4.0.1`: an alarm shows them.
    pub fhir_version: String,
    /// Whether Observations may be created by PUT under our id.
    pub update_create: bool,
    /// Whether Observations may be created conditionally; `None` where the server says nothing.
    pub conditional_create: Option<bool>,
    /// Whether it takes transactions; `None` where it lists no system interactions.
    pub transaction: Option<bool>,
    /// Whether it takes batches; `None` where it lists no system interactions.
    pub batch: Option<bool>,
    /// Observation.
    pub observation: ResourceCapability,
    /// Device.
    pub device: ResourceCapability,
}

impl Capability {
    /// Whether the server speaks R4 or R4B.
    #[must_use]
    pub fn speaks_r4(&self) -> bool {
        self.fhir_version.starts_with("4.")
    }
}

#[derive(Deserialize)]
struct Statement {
    #[serde(rename = "resourceType")]
    resource_type: String,
    #[serde(rename = "fhirVersion", default)]
    fhir_version: String,
    #[serde(default)]
    rest: First<Rest, 4>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Rest {
    mode: String,
    resource: First<RestResource, RESOURCES_MAX>,
    interaction: First<Interaction, INTERACTIONS_MAX>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RestResource {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "updateCreate")]
    update_create: Option<bool>,
    #[serde(rename = "conditionalCreate")]
    conditional_create: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Interaction {
    code: String,
}

/// Reads a CapabilityStatement.
///
/// # Errors
/// When it is too long or not a statement.
pub fn parse_capability(body: &[u8]) -> Result<Capability, CapabilityError> {
    if body.len() > CAPABILITY_BYTES_MAX {
        return Err(CapabilityError::TooLong);
    }
    let statement: Statement = serde_json::from_slice(body).map_err(|_| CapabilityError::NotAStatement)?;
    if statement.resource_type != "CapabilityStatement" {
        return Err(CapabilityError::NotAStatement);
    }
    let server = statement.rest.0.iter().find(|rest| rest.mode == "server");
    let resource = |kind: &str| {
        let found = server.and_then(|rest| rest.resource.0.iter().find(|resource| resource.kind == kind));
        found.map_or(ResourceCapability::default(), |resource| ResourceCapability {
            listed: true,
            update_create: resource.update_create,
            conditional_create: resource.conditional_create,
        })
    };
    let interactions = server.map_or(&[][..], |rest| rest.interaction.0.as_slice());
    let offers = |code: &str| (!interactions.is_empty()).then(|| interactions.iter().any(|interaction| interaction.code == code));
    let observation = resource("Observation");
    Ok(Capability {
        fhir_version: statement.fhir_version.chars().take_while(|c| c.is_ascii_digit() || *c == '.').take(VERSION_CHARS_MAX).collect(),
        update_create: observation.update_create == Some(true),
        conditional_create: observation.conditional_create,
        transaction: offers("transaction"),
        batch: offers("batch"),
        observation,
        device: resource("Device"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_does_not_say_is_not_taken_for_a_yes() {
        let silent = parse_capability(br#"{"resourceType":"CapabilityStatement","fhirVersion":"4.0.1"}"#).unwrap();
        assert!(!silent.update_create);
        assert_eq!((silent.conditional_create, silent.transaction), (None, None));
        let body = br#"{"resourceType":"CapabilityStatement","fhirVersion":"4.0.1","rest":[{"mode":"client","resource":[{"type":"Observation","updateCreate":true}]},
            {"mode":"server","interaction":[{"code":"batch"}],"resource":[{"type":"Observation","updateCreate":false,"conditionalCreate":true}]}]}"#;
        let capability = parse_capability(body).unwrap();
        assert!(!capability.update_create, "a client's abilities are not the server's");
        assert_eq!(capability.conditional_create, Some(true));
        assert_eq!((capability.transaction, capability.batch), (Some(false), Some(true)));
        assert!(capability.speaks_r4() && !capability.device.listed);
    }

    /// What an alarm shows of a statement is no text of the server's own.
    #[test]
    fn a_version_is_numbers() {
        for (stated, kept) in [("5.0.0", "5.0.0"), ("5.0.0-Maria Muster", "5.0.0"), ("Maria Muster", "")] {
            let body = format!(r#"{{"resourceType":"CapabilityStatement","fhirVersion":"{stated}"}}"#);
            let capability = parse_capability(body.as_bytes()).unwrap();
            assert_eq!((capability.fhir_version.as_str(), capability.speaks_r4()), (kept, false));
        }
    }

    #[test]
    fn a_page_that_is_no_statement_is_told_apart() {
        for body in [&b"<html></html>"[..], b"{}", br#"{"resourceType":"Patient"}"#, b""] {
            assert_eq!(parse_capability(body), Err(CapabilityError::NotAStatement));
        }
    }
}
