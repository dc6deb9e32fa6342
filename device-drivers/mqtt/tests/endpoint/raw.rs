//! A client that sends whatever a test wants.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use vitalgate_intake::IntakeQueue;

use crate::rig::{PATIENCE, Rig, next_event};

/// A packet of the given first byte.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let byte = u8::try_from(length % 128).unwrap();
        length /= 128;
        bytes.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// A string as MQTT writes it.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// CONNECT of 3.1.1.
pub(crate) fn connect(client_id: &str, keep_alive_s: u16, clean: bool) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([4, if clean { 2 } else { 0 }]);
    body.extend(keep_alive_s.to_be_bytes());
    body.extend(text(client_id));
    packet(0x10, &body)
}

/// CONNECT of v5 with flags, properties and what follows the client id.
pub(crate) fn connect5(client_id: &str, flags: u8, properties: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([5, flags, 0, 60, u8::try_from(properties.len()).unwrap()]);
    body.extend(properties);
    body.extend(text(client_id));
    body.extend(rest);
    packet(0x10, &body)
}

/// PUBLISH of 3.1.1.
pub(crate) fn publish(topic: &str, qos: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    body.extend(payload);
    packet(0x30 | qos << 1, &body)
}

/// PUBLISH of v5 with properties.
pub(crate) fn publish5(topic: &str, qos: u8, id: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    body.push(u8::try_from(properties.len()).unwrap());
    body.extend(properties);
    body.extend(payload);
    packet(0x30 | qos << 1, &body)
}

/// SUBSCRIBE; with a property section for v5.
pub(crate) fn subscribe(v5: bool, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if v5 {
        body.push(0);
    }
    for filter in filters {
        body.extend(text(filter));
        body.push(1);
    }
    packet(0x82, &body)
}

/// UNSUBSCRIBE; with a property section for v5.
pub(crate) fn unsubscribe(v5: bool, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if v5 {
        body.push(0);
    }
    filters.iter().for_each(|filter| body.extend(text(filter)));
    packet(0xA2, &body)
}

/// PUBREL.
pub(crate) fn pubrel(id: u16) -> Vec<u8> {
    packet(0x62, &id.to_be_bytes())
}

/// The acknowledgement with this first byte.
pub(crate) fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

/// A connection.
pub(crate) struct Raw<S = TcpStream>(pub(crate) S);

impl Raw {
    /// Opens a connection and says nothing.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Connects as 3.1.1 and is taken.
    pub(crate) async fn connected(address: SocketAddr, client_id: &str) -> Self {
        let mut raw = Self::open(address).await;
        raw.send(&connect(client_id, 60, true)).await;
        assert_eq!(raw.read().await, [0x20, 2, 0, 0]);
        raw
    }

    /// As [`Self::connected`], as soon as the gateway has a place.
    pub(crate) async fn connected_when_free(rig: &Rig, client_id: &str) -> Self {
        let asking = async {
            loop {
                let mut raw = Self::open(rig.address).await;
                raw.send(&connect(client_id, 60, true)).await;
                if raw.read().await[3] == 0 {
                    return raw;
                }
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.expect("no place became free")
    }

    /// As [`Self::connected`], where the test itself commits.
    pub(crate) async fn connected_later(rig: &Rig, queue: &mut IntakeQueue, client_id: &str) -> Self {
        let mut raw = Self::open(rig.address).await;
        raw.send(&connect(client_id, 60, true)).await;
        next_event(queue).await;
        assert_eq!(raw.read().await, [0x20, 2, 0, 0]);
        raw
    }

    /// As [`Self::connected5`], where the test itself commits.
    pub(crate) async fn connected5_later(rig: &Rig, queue: &mut IntakeQueue, client_id: &str) -> Self {
        let mut raw = Self::open(rig.address).await;
        raw.send(&connect5(client_id, 2, &[], &[])).await;
        next_event(queue).await;
        assert_eq!(raw.read().await[3], 0);
        raw
    }

    /// Connects as v5 and is taken.
    pub(crate) async fn connected5(address: SocketAddr, client_id: &str) -> Self {
        let mut raw = Self::open(address).await;
        raw.send(&connect5(client_id, 2, &[], &[])).await;
        let connack = raw.read().await;
        assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0, 0), "{connack:02x?}");
        raw
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Sends bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        tokio::time::timeout(PATIENCE, self.0.write_all(bytes)).await.expect("the gateway does not read").unwrap();
    }

    /// Sends bytes to a gateway that may have closed already.
    pub(crate) async fn send_anyhow(&mut self, bytes: &[u8]) {
        let _closed = tokio::time::timeout(PATIENCE, self.0.write_all(bytes)).await;
    }

    /// Reads one packet.
    pub(crate) async fn read(&mut self) -> Vec<u8> {
        tokio::time::timeout(PATIENCE, self.read_packet()).await.expect("no packet came").expect("closed instead of a packet")
    }

    async fn read_packet(&mut self) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![self.0.read_u8().await?];
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let byte = self.0.read_u8().await?;
            bytes.push(byte);
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let start = bytes.len();
        bytes.resize(start + length, 0);
        self.0.read_exact(&mut bytes[start..]).await?;
        Ok(bytes)
    }

    /// Everything that comes until the gateway closes.
    pub(crate) async fn until_closed(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await;
        // A reset is a close as well.
        let _reset = closed.expect("the gateway did not close");
        bytes
    }

    /// Whether nothing has come until a PINGREQ is answered: what was sent before it was taken without an answer.
    pub(crate) async fn is_silent(&mut self) -> bool {
        self.send(&[0xC0, 0]).await;
        self.read().await == [0xD0, 0]
    }
}
