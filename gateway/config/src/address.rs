//! Hosts, ports and URLs.

use std::net::{IpAddr, SocketAddr};

/// The parts of an http or https URL that matter here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Url<'a> {
    pub(crate) tls: bool,
    pub(crate) host: &'a str,
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
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err("holds a user or a password");
    }
    let (host, port) = split_port(authority);
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return Err("has a port that is none");
    }
    if is_host(host) { Ok(Url { tls, host }) } else { Err("has no usable host") }
}

/// A `host:port` in the one way of writing that all of its ways have in common; `None` where it is none.
pub(crate) fn host_and_port(text: &str) -> Option<String> {
    let (host, port) = split_port(text);
    let port = port?.parse::<u16>().ok().filter(|port| *port != 0)?;
    match address(host) {
        Some(address) => Some(SocketAddr::new(address.to_canonical(), port).to_string()),
        None => is_dns_name(host).then(|| format!("{}:{port}", host.to_ascii_lowercase())),
    }
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
            "https://ehr local/",
            "https://1.2.3/",
            "https://[::1/",
            "https://ä/",
        ] {
            assert!(url(bad).is_err(), "{bad} was taken");
        }
        assert_eq!(url("https://ehr.local:8443/fhir"), Ok(Url { tls: true, host: "ehr.local" }));
        assert_eq!(url("http://[::1]:80"), Ok(Url { tls: false, host: "[::1]" }));
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
        for bad in ["192.0.2.9", ":502", "host:", "host:0", "host:65536", "::1:502", "a b:502", "300.1.1.1:502"] {
            assert_eq!(host_and_port(bad), None, "{bad} was taken");
        }
    }
}
