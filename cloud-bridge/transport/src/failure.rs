//! A request without an answer: what it means for what was sent, and words that help to mend it.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, Error as TlsError};

/// Whether the server can have seen the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// No connection came about, or nothing was tried.
    No,
    /// The connection broke after it stood: the server may have done it.
    Unknown,
    /// Time ran out: the server may still be doing it.
    UnknownAndOngoing,
}

/// A request that got no answer. The words hold no URL, header or body.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// Whether the server can have seen it.
    pub(crate) sent: Sent,
    /// Whether only a person can mend it.
    pub(crate) needs_mending: bool,
    /// The class, as a metric label.
    pub(crate) class: &'static str,
    /// Place and remedy.
    pub(crate) detail: Arc<str>,
}

impl Failure {
    /// Something of our own that is missing, such as the token file.
    pub(crate) fn local(detail: String) -> Self {
        Self { sent: Sent::No, needs_mending: true, class: "local", detail: detail.into() }
    }

    /// An answer that came compressed, and whose meaning stands in what cannot be read.
    pub(crate) fn coded(coding: &str, place: &str) -> Self {
        let detail = format!(
            "the answer from {place} is compressed ({coding}), though it was asked for as it is: switch compression off in the server, or \
             in what stands before it"
        );
        Self { sent: Sent::Unknown, needs_mending: true, class: "compressed", detail: detail.into() }
    }

    /// From the HTTP client's error. Its own text is not used: it repeats the URL.
    pub(crate) fn from_error(error: &reqwest::Error, place: &str) -> Self {
        let tls = find::<TlsError>(error).map(tls_remedy).or_else(|| alert_in_words(error).as_ref().map(tls_remedy));
        if let Some(remedy) = tls {
            let sent = if error.is_connect() { Sent::No } else { Sent::Unknown };
            return Self { sent, needs_mending: false, class: "tls", detail: format!("TLS to {place}: {remedy}").into() };
        }
        if error.is_connect() {
            let why = if error.is_timeout() {
                "no answer to the connection attempt; check the address, the firewall and whether the server runs".to_owned()
            } else {
                connect_words(error)
            };
            return Self { sent: Sent::No, needs_mending: false, class: "connect", detail: format!("cannot reach {place}: {why}").into() };
        }
        if error.is_timeout() {
            let detail = format!("{place} did not answer in time; the server may be overloaded").into();
            return Self { sent: Sent::UnknownAndOngoing, needs_mending: false, class: "timeout", detail };
        }
        if error.is_builder() {
            return Self::local(format!("a request to {place} cannot be built; check the URL"));
        }
        // A server that does not let us in says so in an alert after our handshake (TLS 1.3), which the reset of a connection that
        // we were writing to can overtake.
        let demanding = error.url().is_some_and(|url| url.scheme() == "https");
        let hint = if demanding { "; if this stays, see whether the server demands a client certificate and knows ours" } else { "" };
        let detail = format!("the connection to {place} broke before the answer{hint}").into();
        Self { sent: Sent::Unknown, needs_mending: false, class: "broken", detail }
    }
}

fn connect_words(error: &reqwest::Error) -> String {
    if error.is_dns() {
        return "the name cannot be resolved; check the host name and the DNS server".to_owned();
    }
    match find::<io::Error>(error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused; check the port and whether the server runs".to_owned(),
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => "no route; check the network".to_owned(),
        Some(io::ErrorKind::TimedOut) => "no answer to the connection attempt; check the address and the firewall".to_owned(),
        Some(kind) => format!("{kind}"),
        None => "the connection could not be made".to_owned(),
    }
}

/// The first error of a kind in the chain, also inside the custom part of an [`io::Error`], which
/// `source()` leaps over.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next: Option<&'a (dyn StdError + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref::<E>() {
            return Some(found);
        }
        let inner = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => current.source(),
        };
    }
    None
}

/// The alert that the server ended the connection with, where HTTP/2 has it: of what breaks a connection it keeps the
/// words only. That we are not let in is told by TLS 1.3 after our handshake is done, so that it always breaks a connection.
fn alert_in_words(error: &(dyn StdError + 'static)) -> Option<TlsError> {
    const ALERTS: [AlertDescription; 9] = [
        AlertDescription::CertificateRequired,
        AlertDescription::UnknownCA,
        AlertDescription::BadCertificate,
        AlertDescription::UnsupportedCertificate,
        AlertDescription::CertificateUnknown,
        AlertDescription::CertificateExpired,
        AlertDescription::CertificateRevoked,
        AlertDescription::AccessDenied,
        AlertDescription::DecryptError,
    ];
    let chain = std::iter::successors(Some(error as &dyn StdError), |error| (*error).source());
    let words: Vec<String> = chain.map(ToString::to_string).collect();
    let said = |alert: &TlsError| words.iter().any(|words| words.contains(&alert.to_string()));
    ALERTS.into_iter().map(TlsError::AlertReceived).find(said)
}

/// What to do about a TLS error, in words for a technician. Holds no name or certificate content.
#[must_use]
pub fn tls_remedy(error: &TlsError) -> String {
    let text = match error {
        TlsError::InvalidCertificate(problem) => return certificate_remedy(problem),
        TlsError::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server wants a client certificate; configure client_certificate_file and client_key_file"
        }
        TlsError::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            // Another authority of the same name.
            | AlertDescription::DecryptError,
        ) => "the server does not accept our client certificate; register it or its issuer there",
        TlsError::AlertReceived(AlertDescription::CertificateExpired | AlertDescription::CertificateRevoked) => {
            "the server says that our client certificate is expired or revoked; renew it"
        }
        TlsError::AlertReceived(AlertDescription::ProtocolVersion) | TlsError::PeerIncompatible(_) => {
            "the server does not speak TLS 1.3; update the server or put a TLS 1.3 proxy before it"
        }
        TlsError::AlertReceived(AlertDescription::HandshakeFailure) => "the server found no common TLS parameters; it must offer TLS 1.3",
        TlsError::InvalidMessage(_) => "the server does not speak TLS on this port; check the port and the scheme of the URL",
        TlsError::NoCertificatesPresented => "the server showed no certificate",
        _ => "the secure connection could not be made; check the server's TLS settings",
    };
    text.to_owned()
}

fn certificate_remedy(problem: &CertificateError) -> String {
    let text = match problem {
        // A bad signature is a re-made authority of the same name, of which the old certificate is still entered.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the server's certificate comes from an authority that is not trusted here; enter its CA certificate as ca_file"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate is expired, or the clock of this gateway is wrong; renew the one or set the other"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet, or the clock of this gateway is wrong; set the clock"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the server's certificate is for another name; use the name in the certificate in the URL, or have it reissued"
        }
        CertificateError::Revoked => "the server's certificate is revoked; have it reissued",
        _ => "the server's certificate cannot be verified; have it reissued",
    };
    text.to_owned()
}

impl Failure {
    /// As the answer to a whole batch of which nothing was sent.
    pub(crate) fn answer(&self) -> vitalgate_domain::Answer {
        let detail = Arc::clone(&self.detail);
        if self.needs_mending {
            vitalgate_domain::Answer::Paused { detail }
        } else {
            vitalgate_domain::Answer::Transient { retry_after_ms: None, detail }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HTTP/2 keeps the words of what broke a connection and not the error: the server's alert is found in them.
    #[test]
    fn an_alert_is_found_in_the_words_that_are_left_of_it() {
        for (alert, words) in [
            (AlertDescription::CertificateRequired, "the server wants a client certificate"),
            (AlertDescription::UnknownCA, "the server does not accept our client certificate"),
            (AlertDescription::CertificateExpired, "our client certificate is expired or revoked"),
        ] {
            let left = io::Error::other(format!("connection error: {}", TlsError::AlertReceived(alert)));
            let found = alert_in_words(&left).unwrap();
            assert!(tls_remedy(&found).contains(words), "{}", tls_remedy(&found));
        }
        assert!(alert_in_words(&io::Error::other("broken pipe")).is_none());
    }
}
