//! Hosts, ports and URLs.

use std::net::{IpAddr, SocketAddr};

/// The parts of an http or https URL that matter here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Url<'a> {
    pub(crate) tls: bool,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) path: &'a str,
}

/// Reads `http[s]://host[:port][/path]`; says what is wrong otherwise.
pub(crate) fn url(text: &str) -> Result<Url<'_>, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("has no scheme")?;
    let tls = match scheme {
        "https" => true,
        "http" => false,
        _ => return Err("is neither https:// nor http://"),
    };
    if text.contains(['?', '#']) {
        return Err("has a query or a fragment");
    }
    if text.chars().any(|character| character.is_whitespace() || character.is_control() || !character.is_ascii()) {
        return Err("holds a blank or a character that a URL cannot");
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("holds a user or a password");
    }
    let (host, port) = split_port(authority);
    let port = match port {
        Some(port) => port_number(port).ok_or("has a port that is none")?,
        None if tls => 443,
        None => 80,
    };
    if is_host(host) { Ok(Url { tls, host, port, path }) } else { Err("has no usable host") }
}

/// A URL in the one way of writing that all of its ways have in common; `None` where it is none.
#[must_use]
pub fn canonical_url(text: &str) -> Option<String> {
    let Url { tls, host, port, path } = url(text).ok()?;
    let scheme = if tls { "https" } else { "http" };
    Some(format!("{scheme}://{}{}", canonical(host, port)?, path.trim_end_matches('/')))
}

/// A `host:port` in the one way of writing that all of its ways have in common; `None` where it is none.
pub(crate) fn host_and_port(text: &str) -> Option<String> {
    let (host, port) = split_port(text);
    canonical(host, port_number(port?)?)
}

fn canonical(host: &str, port: u16) -> Option<String> {
    match address(host) {
        Some(address) => Some(SocketAddr::new(address.to_canonical(), port).to_string()),
        None => is_dns_name(host).then(|| format!("{}:{port}", host.to_ascii_lowercase())),
    }
}

/// Digits alone: `parse` would also take a sign, and what reads the text later does not.
fn port_number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// Whether a host can only be this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || address(host).is_some_and(|address| address.is_loopback())
}

/// Whether a text is a DNS name (RFC 1123) or an IP address.
pub(crate) fn is_name_or_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || is_dns_name(text)
}

fn is_host(host: &str) -> bool {
    address(host).is_some() || is_dns_name(host)
}

fn address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    let after_brackets = authority.rfind(']').map_or(0, |at| at + 1);
    match authority.get(after_brackets..).and_then(|rest| rest.rfind(':')) {
        Some(at) => (&authority[..after_brackets + at], Some(&authority[after_brackets + at + 1..])),
        None => (authority, None),
    }
}

/// Whether a text is a DNS name (RFC 1123).
#[must_use]
pub fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_a_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(label) && !last_is_a_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_that_can_be_nothing_else_counts_as_this_machine() {
        for host in ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1", "[::2]", "127.0.0.1.example", "0.0.0.0", "::1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_url_that_hides_something_is_refused() {
        for bad in [
            "ehr.local/fhir",
            "ftp://ehr",
            "https://",
            "https:///fhir",
            "https://user:secret@ehr/fhir",
            "https://ehr/fhir?x=1",
            "https://ehr:0/",
            "https://ehr:70000/",
            "https://ehr:x/",
            "https://ehr:+443/",
            "https://ehr local/",
            "https://1.2.3/",
            "https://[::1/",
            "https://ä/",
        ] {
            assert!(url(bad).is_err(), "{bad} was taken");
        }
        assert_eq!(url("https://ehr.local:8443/fhir"), Ok(Url { tls: true, host: "ehr.local", port: 8443, path: "/fhir" }));
        assert_eq!(url("http://[::1]"), Ok(Url { tls: false, host: "[::1]", port: 80, path: "" }));
    }

    #[test]
    fn a_server_is_the_same_however_its_url_is_written() {
        for (one, other) in [
            ("https://ehr.local/fhir", "https://EHR.local:443/fhir/"),
            ("https://ehr.local/fhir", "https://ehr.local:0443/fhir"),
            ("http://ehr.local:80", "http://ehr.local/"),
            ("https://[2001:DB8:0::9]/fhir", "https://[2001:db8::9]:443/fhir"),
            ("https://[::ffff:192.0.2.9]/fhir", "https://192.0.2.9/fhir"),
        ] {
            assert_eq!(canonical_url(one), canonical_url(other), "{one} {other}");
        }
        for other in ["http://ehr.local/fhir", "https://ehr.local:8443/fhir", "https://ehr.local/FHIR", "https://ehr.local/fhir/r4"] {
            assert_ne!(canonical_url("https://ehr.local/fhir"), canonical_url(other), "{other}");
        }
        assert_eq!(canonical_url("https://ehr.local:+443/fhir"), None);
    }

    #[test]
    fn a_bus_address_needs_a_host_and_a_port() {
        for good in ["192.0.2.9:502", "gateway.local:502", "[::1]:502"] {
            assert_eq!(host_and_port(good).as_deref(), Some(good));
        }
        for (written, meant) in [
            ("Gateway.LOCAL:0502", "gateway.local:502"),
            ("192.0.2.9:00502", "192.0.2.9:502"),
            ("[2001:DB8:0::9]:502", "[2001:db8::9]:502"),
            ("[::ffff:192.0.2.9]:502", "192.0.2.9:502"),
        ] {
            assert_eq!(host_and_port(written).as_deref(), Some(meant));
        }
        for bad in ["192.0.2.9", ":502", "host:", "host:+502", "host:0", "host:65536", "::1:502", "a b:502", "300.1.1.1:502"] {
            assert_eq!(host_and_port(bad), None, "{bad} was taken");
        }
    }
}
