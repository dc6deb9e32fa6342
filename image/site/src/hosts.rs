//! Hosts and ports.

use std::fmt;
use std::net::IpAddr;

use vitalgate_config::is_dns_name;

/// A host with a port. The host is a DNS name (RFC 1123) or an IP address without brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// TCP or UDP port.
    pub port: u16,
}

impl Endpoint {
    /// Reads `host:port`, or `host` where there is a default port; IPv6 addresses stand in brackets.
    pub fn parse(text: &str, default_port: Option<u16>) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
            }
            None if text.parse::<std::net::Ipv6Addr>().is_ok() => (text, None),
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok().filter(|port| *port != 0)?,
            Some(_) => return None,
            None => default_port?,
        };
        // An IPv4 address that is written in the way of IPv6 is reached by IPv4.
        let host = match host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().to_string(),
            Err(_) => is_dns_name(host).then(|| host.to_owned())?,
        };
        Some(Self { host, port })
    }

    /// Where an http or https URL leads.
    pub fn of_url(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let port = match scheme {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        Self::parse(rest.split('/').next()?, Some(port))
    }

    /// The address, where the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(IpAddr::V6(address)) => write!(formatter, "[{address}]:{}", self.port),
            _ => write!(formatter, "{}:{}", self.host, self.port),
        }
    }
}

/// Whether a text is `https://host[:port][/path]` and nothing more.
pub(crate) fn is_https_url(text: &str) -> bool {
    text.starts_with("https://")
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'@' | b'"' | b'\\' | b'\''))
        && Endpoint::of_url(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_they_are_written() {
        for good in ["192.0.2.9:502", "ehr.local:443", "[2001:db8::1]:123"] {
            assert_eq!(Endpoint::parse(good, None).unwrap().to_string(), good);
        }
        assert_eq!(Endpoint::parse("2001:db8::1", Some(123)).unwrap().to_string(), "[2001:db8::1]:123");
        assert_eq!(Endpoint::of_url("https://[::1]/x").unwrap().to_string(), "[::1]:443");
        for bad in ["", ":1", "a b", "host:0", "host:70000", "host:1;drop", "[::1", "[::1]x", "1.2.3", "a..b", "host:+1", "x\ny"] {
            assert_eq!(Endpoint::parse(bad, Some(1)), None, "{bad}");
        }
    }

    #[test]
    fn a_url_that_hides_something_is_none() {
        assert!(is_https_url("https://updates.example/vitalgate"));
        for bad in ["http://x", "https://", "https://u:p@x/", "https://x/?a", "https://x y/", "https://x/\"\n"] {
            assert!(!is_https_url(bad), "{bad}");
        }
    }
}
