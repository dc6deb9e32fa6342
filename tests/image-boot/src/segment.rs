//! Another station on the appliance's network segment: it sends raw frames and looks at what comes back.
//!
//! QEMU's own network forwards single ports. Whether any other port answers is only seen by somebody on
//! the same cable: this station asks for every TCP port with a SYN of its own (RFC 9293 section 3.5).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::UnixDatagram;
use tokio::time::Instant;

/// Our hardware address: locally administered.
const OUR_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x56, 0x47, 0xFE];
/// Our address on the segment.
const OUR_ADDRESS: [u8; 4] = [10, 0, 2, 77];
/// The port that we ask from.
const OUR_PORT: u16 = 40_077;
/// Ports asked in one go before listening again; more would be dropped by the guest's queue.
const BURST: usize = 64;
/// Wait for answers between two goes.
const BURST_PAUSE: Duration = Duration::from_millis(25);
/// Wait for late answers at the end of a round.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// Rounds over all ports: a frame may be lost.
const ROUNDS: usize = 2;
const LARGEST_FRAME: usize = 2048;
const ETHERTYPE_IP: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const SYN_ACK: u8 = 0x12;

/// What the ports said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// Took the connection.
    pub(crate) open: BTreeSet<u16>,
    /// Refused it; a firewall that drops leaves these empty.
    pub(crate) refused: BTreeSet<u16>,
}

/// Our end of the segment.
pub(crate) struct Station {
    socket: UnixDatagram,
    theirs: PathBuf,
    guest: ([u8; 6], [u8; 4]),
}

impl Station {
    /// Binds `ours`; the machine sends its frames there and takes ours at `theirs`.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub(crate) fn bind(ours: &Path, theirs: &Path, guest: ([u8; 6], [u8; 4])) -> anyhow::Result<Self> {
        if ours.exists() {
            std::fs::remove_file(ours)?;
        }
        let socket = UnixDatagram::bind(ours).context("no socket for raw frames")?;
        Ok(Self { socket, theirs: theirs.to_owned(), guest })
    }

    /// Asks every TCP port.
    ///
    /// # Errors
    /// When frames cannot be sent.
    pub(crate) async fn ask_every_port(&self) -> anyhow::Result<Answers> {
        let ports: Vec<u16> = (1..=u16::MAX).collect();
        let mut answers = Answers::default();
        // The segment is shared: what came before is not for us.
        self.listen(Duration::from_millis(10), &mut answers).await?;
        answers = Answers::default();
        for _ in 0..ROUNDS {
            for burst in ports.chunks(BURST) {
                for port in burst.iter().filter(|port| !answers.open.contains(port) && !answers.refused.contains(port)) {
                    self.send(&self.tcp(*port, SYN)).await?;
                }
                self.listen(BURST_PAUSE, &mut answers).await?;
            }
            self.listen(LAST_ANSWERS, &mut answers).await?;
        }
        Ok(answers)
    }

    async fn send(&self, frame: &[u8]) -> anyhow::Result<()> {
        self.socket.send_to(frame, &self.theirs).await.map(drop).context("the segment takes no frame")
    }

    async fn listen(&self, how_long: Duration, answers: &mut Answers) -> anyhow::Result<()> {
        let until = Instant::now() + how_long;
        let mut frame = [0; LARGEST_FRAME];
        while let Ok(received) = tokio::time::timeout_at(until, self.socket.recv(&mut frame)).await {
            let frame = &frame[..received.context("the segment is gone")?];
            if let Some(reply) = arp_reply(frame) {
                self.send(&reply).await?;
            } else if let Some((port, flags)) = answered(frame) {
                if flags & SYN_ACK == SYN_ACK {
                    answers.open.insert(port);
                    self.send(&self.tcp(port, RST)).await?;
                } else if flags & RST != 0 {
                    answers.refused.insert(port);
                }
            }
        }
        Ok(())
    }

    /// A frame with one TCP segment without payload.
    fn tcp(&self, port: u16, flags: u8) -> Vec<u8> {
        let mut segment = Vec::with_capacity(20);
        segment.extend(OUR_PORT.to_be_bytes());
        segment.extend(port.to_be_bytes());
        // A reset in answer to a SYN-ACK carries the number that it acknowledged.
        segment.extend(if flags == RST { 2_u32 } else { 1 }.to_be_bytes());
        segment.extend([0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
        let (mac, address) = self.guest;
        let pseudo = [&OUR_ADDRESS[..], &address, &[0, 6, 0, 20]].concat();
        let sum = checksum(&[&pseudo[..], &segment].concat());
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut header = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
        header.extend(OUR_ADDRESS);
        header.extend(address);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        [&mac[..], &OUR_MAC, &ETHERTYPE_IP, &header, &segment].concat()
    }
}

/// The one's complement sum of IP and TCP (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

/// The answer to "who has our address" (RFC 826), if the frame asks that.
fn arp_reply(frame: &[u8]) -> Option<Vec<u8>> {
    let asks = frame.len() >= 42 && frame[12..14] == ETHERTYPE_ARP && frame[20..22] == [0, 1] && frame[38..42] == OUR_ADDRESS;
    if !asks {
        return None;
    }
    let asker = &frame[22..32];
    let mut reply = [&asker[..6], &OUR_MAC, &ETHERTYPE_ARP, &[0, 1, 8, 0, 6, 4, 0, 2], &OUR_MAC, &OUR_ADDRESS, asker].concat();
    reply.resize(60, 0);
    Some(reply)
}

/// Port and flags, if the frame is a TCP segment for our port.
fn answered(frame: &[u8]) -> Option<(u16, u8)> {
    let ours = frame.len() >= 54 && frame[12..14] == ETHERTYPE_IP && frame[23] == 6 && frame[30..34] == OUR_ADDRESS;
    let begin = 14 + usize::from(frame.get(14)? & 0x0F) * 4;
    let segment = frame.get(begin..begin + 20)?;
    let to = u16::from_be_bytes([segment[2], segment[3]]);
    (ours && to == OUR_PORT).then(|| (u16::from_be_bytes([segment[0], segment[1]]), segment[13]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: ([u8; 6], [u8; 4]) = ([2, 0, 0, 0, 0, 1], [10, 0, 2, 15]);

    /// A host with one open and one refused port is seen as such; one that keeps silent is neither.
    #[tokio::test]
    async fn open_and_refused_ports_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
        let station = Station::bind(&ours, &theirs, GUEST).unwrap();
        let host = UnixDatagram::bind(&theirs).unwrap();
        let turned = |frame: &[u8], flags: u8| {
            let mut back = frame.to_vec();
            back[26..30].copy_from_slice(&frame[30..34]);
            back[30..34].copy_from_slice(&frame[26..30]);
            back[34..36].copy_from_slice(&frame[36..38]);
            back[36..38].copy_from_slice(&frame[34..36]);
            back[47] = flags;
            back
        };
        let mut answers = Answers::default();
        for (port, flags) in [(443, SYN_ACK), (80, RST)] {
            station.send(&station.tcp(port, SYN)).await.unwrap();
            let mut frame = [0; 100];
            let length = host.recv(&mut frame).await.unwrap();
            assert_eq!(checksum(&frame[14..34]), 0, "the header's sum is right");
            host.send_to(&turned(&frame[..length], flags), &ours).await.unwrap();
        }
        station.listen(Duration::from_millis(50), &mut answers).await.unwrap();
        assert_eq!(answers, Answers { open: BTreeSet::from([443]), refused: BTreeSet::from([80]) });
    }

    #[test]
    fn a_question_for_our_address_is_answered() {
        let mut question = vec![0xFF; 6];
        question.extend(GUEST.0);
        question.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        question.extend(GUEST.0);
        question.extend(GUEST.1);
        question.extend([0; 6]);
        question.extend(OUR_ADDRESS);
        let reply = arp_reply(&question).unwrap();
        assert_eq!((&reply[..6], &reply[22..28], &reply[28..32]), (&GUEST.0[..], &OUR_MAC[..], &OUR_ADDRESS[..]));
        question[41] ^= 1;
        assert_eq!(arp_reply(&question), None);
    }
}
