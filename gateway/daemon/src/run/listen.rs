//! Listeners: on all addresses also where there is no IPv6, with errors that say what to do.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context as _;
use tokio::net::TcpListener;

/// Binds a listener, with a message that says which and why not. `[::]` takes IPv4 as well, and alone where there is no IPv6.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = match TcpListener::bind(address).await {
        Err(error) if is_for_lack_of_ipv6(address, error.kind()) => {
            tracing::warn!(%address, %error, "there seems to be no IPv6 here; IPv4 alone is listened on");
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    let failed = bound.as_ref().err().map(std::io::Error::kind);
    bound.with_context(|| cannot_listen(address, failed))
}

fn is_for_lack_of_ipv6(address: SocketAddr, error: ErrorKind) -> bool {
    // These two mean the port; IPv4 alone would hide them.
    address.ip() == Ipv6Addr::UNSPECIFIED && !matches!(error, ErrorKind::AddrInUse | ErrorKind::PermissionDenied)
}

fn cannot_listen(address: SocketAddr, error: Option<ErrorKind>) -> String {
    let port = address.port();
    match error {
        Some(ErrorKind::PermissionDenied) => format!(
            "cannot listen on {address}: the system does not let this program use port {port}; \
             listen on a port from 1024 on, or give it the capability CAP_NET_BIND_SERVICE"
        ),
        Some(ErrorKind::AddrInUse) => format!("cannot listen on {address}: port {port} is in use; is another program using it?"),
        Some(ErrorKind::AddrNotAvailable) => format!("cannot listen on {address}: this machine does not have that address"),
        _ => format!("cannot listen on {address}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use tokio::net::TcpStream;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A device reaches the gateway by IPv4 and by IPv6, on one port; without IPv6 by IPv4.
    #[tokio::test]
    async fn one_listener_takes_both_families() {
        let listener = bind((Ipv6Addr::UNSPECIFIED, 0).into()).await.unwrap();
        let bound = listener.local_addr().unwrap();
        let reached = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        for from in reached.into_iter().take(if bound.is_ipv6() { 2 } else { 1 }) {
            let meet = async { tokio::join!(TcpStream::connect((from, bound.port())), listener.accept()) };
            let (called, taken) = tokio::time::timeout(PATIENCE, meet).await.unwrap();
            assert_eq!(taken.unwrap().1.ip().to_canonical(), from);
            called.unwrap();
        }
    }

    /// A port that is taken stays an error of its port, on all addresses too, and names it.
    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let listener = bind((Ipv6Addr::UNSPECIFIED, 0).into()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let said = bind((Ipv6Addr::UNSPECIFIED, port).into()).await.unwrap_err().to_string();
        assert_eq!(said, format!("cannot listen on [::]:{port}: port {port} is in use; is another program using it?"));
    }

    /// Only what a machine without IPv6 says lets IPv4 stand in, and only for all addresses.
    #[test]
    fn ipv4_stands_in_for_no_other_error() {
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 443));
        let unsupported = std::io::Error::from_raw_os_error(nix::errno::Errno::EAFNOSUPPORT as i32).kind();
        assert!(is_for_lack_of_ipv6(all, unsupported));
        assert!(!is_for_lack_of_ipv6((Ipv6Addr::LOCALHOST, 443).into(), unsupported));
        assert!(!is_for_lack_of_ipv6(all, ErrorKind::PermissionDenied));
        let said = cannot_listen(all, Some(ErrorKind::PermissionDenied));
        assert!(said.contains("use port 443") && said.contains("a port from 1024 on") && !said.contains("another program"), "{said}");
    }
}
