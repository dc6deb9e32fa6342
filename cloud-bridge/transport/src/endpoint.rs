//! Where to deliver, and within which limits.

use std::net::IpAddr;
use std::path::PathBuf;

use reqwest::Url;
use vitalgate_domain::{DeviceNamespace, GatewayId, Sequence};
use vitalgate_fhir::IDENTIFIER_SYSTEM;

/// Time for one request in milliseconds, from connecting to the last byte of the answer, unless configured.
const REQUEST_TIMEOUT_MS: u64 = 30_000;
/// Time to connect including TLS, in milliseconds, unless configured.
const CONNECT_TIMEOUT_MS: u64 = 10_000;
/// Requests under way at a time, unless configured.
const REQUESTS_IN_FLIGHT_MAX: usize = 4;

/// How to write, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WritePolicy {
    /// As the server's `/metadata` allows: PUT by id if it says `updateCreate`, else conditional create, and that for good.
    #[default]
    Auto,
    /// PUT by id, without asking.
    Put,
    /// Conditional create, without asking.
    Conditional,
}

/// A FHIR server to deliver to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FhirEndpoint {
    /// Base URL, `https://host/fhir`; bundles go to exactly this form, with or without a slash at its end. Plain `http://` only to
    /// this machine, unless allowed below.
    pub base_url: String,
    /// This gateway.
    pub gateway: GatewayId,
    /// What the ids of its devices are unique within.
    pub device_namespace: DeviceNamespace,
    /// How to write.
    pub write: WritePolicy,
    /// The last that an earlier process can have sent, where one wrote there by conditional create: then an automatic choice stays
    /// with it, and what may still be under way is waited for.
    pub written_conditionally: Option<Sequence>,
    /// Time for one request in milliseconds, from connecting to the last byte of the answer.
    pub request_timeout_ms: u64,
    /// Time to connect including TLS, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Requests under way at a time, at least 1.
    pub requests_in_flight_max: usize,
    /// File with a bearer token; read again whenever it changes.
    pub bearer_token_file: Option<PathBuf>,
    /// System of the identifiers on Observations and Devices.
    pub identifier_system: String,
    /// Whether `http://` may leave this machine. The configuration demands a reason for it.
    pub allow_plain_beyond_loopback: bool,
}

impl FhirEndpoint {
    /// An endpoint with the usual limits.
    #[must_use]
    pub fn new(base_url: &str, gateway: GatewayId, device_namespace: DeviceNamespace) -> Self {
        Self {
            base_url: base_url.to_owned(),
            gateway,
            device_namespace,
            write: WritePolicy::Auto,
            written_conditionally: None,
            request_timeout_ms: REQUEST_TIMEOUT_MS,
            connect_timeout_ms: CONNECT_TIMEOUT_MS,
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX,
            bearer_token_file: None,
            identifier_system: IDENTIFIER_SYSTEM.to_owned(),
            allow_plain_beyond_loopback: false,
        }
    }

    /// The base URL, checked.
    pub(crate) fn checked_base(&self) -> Result<Base, EndpointError> {
        let invalid = |why: &'static str| EndpointError::Url { why };
        let url = Url::parse(&self.base_url).map_err(|_| invalid("it is no URL"))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("it must end with the path"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("credentials do not belong into a URL; use bearer_token_file or a client certificate"));
        }
        let host = url.host_str().ok_or_else(|| invalid("it names no host"))?.to_owned();
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(invalid("it must begin with https://")),
        };
        let loopback = host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !tls && !loopback && !self.allow_plain_beyond_loopback {
            return Err(EndpointError::PlainBeyondLoopback);
        }
        let place = match url.port_or_known_default() {
            Some(port) => format!("{host}:{port}"),
            None => host,
        };
        let bundle_path = if url.path().ends_with('/') { "/" } else { "" };
        Ok(Base { text: url.as_str().trim_end_matches('/').to_owned(), bundle_path, place, tls })
    }
}

/// A base URL that was checked.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    /// Without a slash at its end.
    pub(crate) text: String,
    /// What was cut off there: a server behind a proxy may take bundles only with it, or only without.
    pub(crate) bundle_path: &'static str,
    /// Host and port, for messages.
    pub(crate) place: String,
    /// Whether it is https.
    pub(crate) tls: bool,
}

/// Why a client cannot be made of an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The base URL is unusable.
    #[error("the URL of the FHIR server cannot be used: {why}")]
    Url {
        /// Which rule it breaks.
        why: &'static str,
    },
    /// Plain HTTP to another machine.
    #[error("http:// would send patient data unprotected to another machine; use https:// or allow it with a reason")]
    PlainBeyondLoopback,
    /// The HTTP client refused its settings.
    #[error("the HTTP client cannot be set up with this TLS configuration")]
    Client(#[source] reqwest::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(url: &str) -> Result<Base, EndpointError> {
        FhirEndpoint::new(url, GatewayId::new("g").unwrap(), DeviceNamespace::new("g").unwrap()).checked_base()
    }

    #[test]
    fn patient_data_leaves_the_machine_only_over_tls() {
        assert!(base("http://127.0.0.1:8090/fhir").is_ok());
        assert!(base("http://[::1]:8090/fhir").is_ok());
        assert_eq!(base("https://ehr.local/fhir/").unwrap().text, "https://ehr.local/fhir");
        assert!(matches!(base("http://ehr.local/fhir"), Err(EndpointError::PlainBeyondLoopback)));
        assert!(matches!(base("http://127.0.0.1.evil.example/"), Err(EndpointError::PlainBeyondLoopback)));
        for bad in ["ehr.local", "ftp://ehr.local", "https://user:pw@ehr.local/", "https://ehr.local/fhir?x=1"] {
            assert!(matches!(base(bad), Err(EndpointError::Url { .. })), "{bad}");
        }
    }
}
