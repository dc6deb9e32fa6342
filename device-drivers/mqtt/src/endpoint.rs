//! The listeners.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use vitalgate_domain::DeviceId;
use vitalgate_intake::Intake;

use crate::gate::{Gate, Place};
use crate::greeting;
use crate::identity::{Credentials, Proof};
use crate::limits::{DRAIN_MS, EndpointConfig};
use crate::probe;
use crate::refusal::Refusal;
use crate::roster::Roster;
use crate::stats::MqttStats;
use crate::wire::WireFault;
use crate::{Clock, Decode, PeerIdentity};

/// Pause in ms after a failed `accept` (no file descriptors left).
const ACCEPT_PAUSE_MS: u64 = 100;

/// The endpoint. One may serve several listeners; a device is connected once over all of them.
pub struct Endpoint {
    pub(crate) config: EndpointConfig,
    pub(crate) intake: Intake,
    pub(crate) decode: Decode,
    pub(crate) credentials: Arc<dyn Credentials>,
    pub(crate) clock: Clock,
    pub(crate) stats: MqttStats,
    pub(crate) roster: Arc<Roster>,
    gate: Arc<Gate>,
}

/// Who is connected to an endpoint.
#[derive(Clone)]
pub struct Presence(Arc<Roster>);

impl Presence {
    /// Whether a device with this id is connected now.
    #[must_use]
    pub fn is_connected(&self, device: &DeviceId) -> bool {
        self.0.is_connected(device)
    }
}

enum Door {
    Plain(Proof),
    Tls(TlsAcceptor, PeerIdentity),
}

impl Endpoint {
    /// An endpoint that submits to `intake`. `decode` reads payloads, `clock` tells the time of receipt.
    #[must_use]
    pub fn new(
        config: EndpointConfig,
        intake: Intake,
        decode: Decode,
        credentials: Arc<dyn Credentials>,
        clock: Clock,
        stats: MqttStats,
    ) -> Self {
        let config = config.clamped();
        let roster = Arc::new(Roster::new(config.connections_max));
        Self { config, intake, decode, credentials, clock, stats, roster, gate: Arc::new(Gate::new()) }
    }

    /// Who is connected, for those who only ask. It does not keep the endpoint, so that its end is not theirs to wait for.
    #[must_use]
    pub fn presence(&self) -> Presence {
        Presence(Arc::clone(&self.roster))
    }

    /// Serves TLS connections until `shutdown` is true (or its sender is gone) and every connection has ended; a connection
    /// ends within [`DRAIN_MS`] of that. `peer` finds the identity in a client certificate that `tls` has verified;
    /// a client without one must give its device id and password in CONNECT, where `tls` lets it come so far.
    pub async fn serve_tls(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        peer: PeerIdentity,
        shutdown: watch::Receiver<bool>,
    ) {
        self.serve(listener, Arc::new(Door::Tls(TlsAcceptor::from(tls), peer)), shutdown).await;
    }

    /// Serves plain connections likewise. Where other machines can reach the listener a device must give its id and password in
    /// CONNECT; on loopback it may, and is who it says otherwise.
    pub async fn serve_plain(self: Arc<Self>, listener: TcpListener, shutdown: watch::Receiver<bool>) {
        let loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let proof = if loopback { Proof::Loopback } else { Proof::Nothing };
        self.serve(listener, Arc::new(Door::Plain(proof)), shutdown).await;
    }

    async fn serve(self: Arc<Self>, listener: TcpListener, door: Arc<Door>, mut shutdown: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let stop = async move {
            let _sender_gone = shutdown.wait_for(|stop| *stop).await;
        };
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(_ended) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        let address = canonical(address);
                        match self.gate.place(address.ip()) {
                            Ok(place) => {
                                connections.spawn(Arc::clone(&self).open(stream, address, place, Arc::clone(&door)));
                            }
                            Err(refusal) => self.note(refusal, None, address, None),
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no connection could be accepted; raise the limit of open files if it persists");
                        tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                    }
                },
            }
        }
        drop(listener);
        self.roster.stop();
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_millis(2 * DRAIN_MS), drained).await.is_err() {
            connections.abort_all();
        }
    }

    async fn open(self: Arc<Self>, stream: TcpStream, address: SocketAddr, place: Place, door: Arc<Door>) {
        let Some(pass) = place.pass().await else { return };
        let deadline = Instant::now() + Duration::from_millis(self.config.greeting_ms);
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        probe::watch(&stream);
        match door.as_ref() {
            Door::Plain(proof) => greeting::receive(&self, stream, proof.clone(), address, pass, deadline).await,
            Door::Tls(acceptor, peer) => match tokio::time::timeout_at(deadline, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => match prove(&stream, peer) {
                    Some(proof) => greeting::receive(&self, stream, proof, address, pass, deadline).await,
                    None => self.note(Refusal::NotAdmitted, None, address, None),
                },
                Ok(Err(error)) => {
                    tracing::debug!(%address, %error, "TLS handshake");
                    self.note(Refusal::Handshake, None, address, None);
                }
                Err(_late) => self.note(Refusal::Greeting, None, address, None),
            },
        }
    }

    /// Counts a refusal and, within bounds, logs it.
    pub(crate) fn note(&self, refusal: Refusal, device: Option<&DeviceId>, address: SocketAddr, fault: Option<WireFault>) {
        let Some(suppressed) = self.stats.refuse(refusal) else { return };
        let device = device.map_or("-", DeviceId::as_str);
        let fault = fault.map(|fault| fault.to_string()).unwrap_or_default();
        tracing::warn!(reason = refusal.label(), device, %address, fault, suppressed, "MQTT connection refused: {}", refusal.text());
    }
}

/// The address as the device knows it: a listener for both families names an IPv4 peer `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What TLS proved; `None` for a certificate that names no device.
fn prove(stream: &TlsStream<TcpStream>, peer: &PeerIdentity) -> Option<Proof> {
    let (_, session) = stream.get_ref();
    match session.peer_certificates().and_then(<[_]>::first) {
        None => Some(Proof::Nothing),
        Some(certificate) => peer(certificate.as_ref()).map(|(device, fingerprint)| Proof::Certificate(device, fingerprint)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// A refusal names an IPv4 device by its IPv4 address, whatever the listener takes.
    #[tokio::test]
    async fn an_ipv4_device_has_an_ipv4_address() {
        let Ok(listener) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await else { return };
        let port = listener.local_addr().unwrap().port();
        let (called, taken) = tokio::join!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)), listener.accept());
        let (called, (_, taken)) = (called.unwrap(), taken.unwrap());
        assert!(taken.is_ipv6(), "{taken}");
        assert_eq!(canonical(taken), called.local_addr().unwrap());
    }
}
