//! Another station on the appliance's network segment: it sends raw frames and looks at what comes back.
//!
//! QEMU's own network forwards single ports. Whether any other port answers is only seen by somebody on
//! the same cable: this station asks every TCP port with a SYN of its own (RFC 9293 section 3.5) and every
//! UDP port with a datagram that a time server and a name server would answer.

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
/// How long one port has to answer.
const ONE_ANSWER: Duration = Duration::from_secs(1);
const LARGEST_FRAME: usize = 2048;
const ETHERTYPE_IP: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Ethernet header in bytes.
const ETHERNET: usize = 14;
const ICMP: u8 = 1;
/// "Destination unreachable" of ICMP (RFC 792).
const ICMP_UNREACHABLE: u8 = 3;
/// ICMP header in bytes; what could not be delivered comes after it.
const ICMP_HEADER: usize = 8;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const SYN_ACK: u8 = 0x12;
/// What a UDP port is asked: a time client's question (RFC 5905 section 7.3) that is a name client's, too.
const QUESTION: [u8; 48] = {
    let mut question = [0; 48];
    question[0] = 0x23;
    question
};

/// Whose ports are asked; its number in an IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Protocol {
    /// Connections.
    Tcp = 6,
    /// Datagrams.
    Udp = 17,
}

/// What the ports said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// Took the connection, or sent a datagram.
    pub(crate) open: BTreeSet<u16>,
    /// Refused it; a firewall that drops leaves these empty.
    pub(crate) refused: BTreeSet<u16>,
}

/// One answer to a question of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Open(Protocol, u16),
    Refused(Protocol, u16),
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

    /// Asks every port of a protocol.
    ///
    /// # Errors
    /// When frames cannot be sent.
    pub(crate) async fn ask_every_port(&self, protocol: Protocol) -> anyhow::Result<Answers> {
        let ports: Vec<u16> = (1..=u16::MAX).collect();
        let mut answers = Answers::default();
        for _ in 0..ROUNDS {
            for burst in ports.chunks(BURST) {
                for port in burst.iter().filter(|port| !answers.open.contains(port) && !answers.refused.contains(port)) {
                    self.send(&self.question(protocol, *port)).await?;
                }
                self.listen(protocol, BURST_PAUSE, &mut answers).await?;
            }
            self.listen(protocol, LAST_ANSWERS, &mut answers).await?;
        }
        Ok(answers)
    }

    /// Asks one TCP port until it takes a connection.
    ///
    /// # Errors
    /// When it never does, or frames cannot be sent.
    pub(crate) async fn until_open(&self, port: u16, within: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + within;
        let mut answers = Answers::default();
        while !answers.open.contains(&port) {
            anyhow::ensure!(Instant::now() < until, "port {port} takes no connection within {} s", within.as_secs());
            self.send(&self.question(Protocol::Tcp, port)).await?;
            self.listen(Protocol::Tcp, ONE_ANSWER, &mut answers).await?;
        }
        Ok(())
    }

    async fn send(&self, frame: &[u8]) -> anyhow::Result<()> {
        self.socket.send_to(frame, &self.theirs).await.map(drop).context("the segment takes no frame")
    }

    async fn listen(&self, protocol: Protocol, how_long: Duration, answers: &mut Answers) -> anyhow::Result<()> {
        let until = Instant::now() + how_long;
        let mut frame = [0; LARGEST_FRAME];
        while let Ok(received) = tokio::time::timeout_at(until, self.socket.recv(&mut frame)).await {
            let frame = &frame[..received.context("the segment is gone")?];
            if let Some(reply) = arp_reply(frame) {
                self.send(&reply).await?;
                continue;
            }
            // QEMU's own router is on the segment, too, and answers for hosts behind it.
            let theirs = frame.get(6..12).is_some_and(|from| from == self.guest.0);
            match theirs.then(|| answered(frame)).flatten() {
                Some(Answer::Open(of, port)) if of == protocol => {
                    answers.open.insert(port);
                    if protocol == Protocol::Tcp {
                        self.send(&self.tcp(port, RST)).await?;
                    }
                }
                Some(Answer::Refused(of, port)) if of == protocol => {
                    answers.refused.insert(port);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn question(&self, protocol: Protocol, port: u16) -> Vec<u8> {
        match protocol {
            Protocol::Tcp => self.tcp(port, SYN),
            Protocol::Udp => self.udp(port),
        }
    }

    /// A frame with one TCP segment without payload.
    fn tcp(&self, port: u16, flags: u8) -> Vec<u8> {
        let mut segment = Vec::with_capacity(20);
        segment.extend(OUR_PORT.to_be_bytes());
        segment.extend(port.to_be_bytes());
        // A reset in answer to a SYN-ACK carries the number that it acknowledged.
        segment.extend(if flags == RST { 2_u32 } else { 1 }.to_be_bytes());
        segment.extend([0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
        self.frame(Protocol::Tcp, segment, 16)
    }

    /// A frame with one datagram.
    fn udp(&self, port: u16) -> Vec<u8> {
        let length = 8 + QUESTION.len() as u16;
        let header = [OUR_PORT, port, length, 0].map(u16::to_be_bytes).concat();
        self.frame(Protocol::Udp, [&header[..], &QUESTION].concat(), 6)
    }

    /// Puts the headers of Ethernet and IP around `segment`, whose own sum is at `sum_at`.
    fn frame(&self, protocol: Protocol, mut segment: Vec<u8>, sum_at: usize) -> Vec<u8> {
        let (mac, address) = self.guest;
        let pseudo = [&OUR_ADDRESS[..], &address, &[0, protocol as u8], &(segment.len() as u16).to_be_bytes()].concat();
        let sum = checksum(&[&pseudo[..], &segment].concat());
        segment[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
        let mut header = vec![0x45, 0];
        header.extend((20 + segment.len() as u16).to_be_bytes());
        header.extend([0, 0, 0x40, 0, 64, protocol as u8, 0, 0]);
        header.extend(OUR_ADDRESS);
        header.extend(address);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        [&mac[..], &OUR_MAC, &ETHERTYPE_IP, &header, &segment].concat()
    }
}

/// The one's complement sum of IP, TCP and UDP (RFC 1071).
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

/// What the frame answers to a question of ours, if it does.
fn answered(frame: &[u8]) -> Option<Answer> {
    let packet = (frame.get(12..14)? == ETHERTYPE_IP).then(|| frame.get(ETHERNET..)).flatten()?;
    let (number, payload) = payload(packet)?;
    if packet.get(16..20)? != OUR_ADDRESS {
        return None;
    }
    if number == ICMP {
        let (number, asked) = payload.get(ICMP_HEADER..).filter(|_| payload[0] == ICMP_UNREACHABLE).and_then(self::payload)?;
        return (port(asked, 0)? == OUR_PORT).then_some(Answer::Refused(protocol(number)?, port(asked, 2)?));
    }
    let protocol = protocol(number)?;
    let from = (port(payload, 2)? == OUR_PORT).then(|| port(payload, 0)).flatten()?;
    match protocol {
        Protocol::Udp => Some(Answer::Open(protocol, from)),
        Protocol::Tcp if payload.get(13)? & SYN_ACK == SYN_ACK => Some(Answer::Open(protocol, from)),
        Protocol::Tcp => (payload.get(13)? & RST != 0).then_some(Answer::Refused(protocol, from)),
    }
}

/// Number of the protocol and what comes after the header of an IP packet (RFC 791).
fn payload(packet: &[u8]) -> Option<(u8, &[u8])> {
    let header = usize::from(packet.first()? & 0x0F) * 4;
    Some((*packet.get(9)?, packet.get(header..).filter(|payload| !payload.is_empty())?))
}

fn protocol(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp].into_iter().find(|protocol| *protocol as u8 == number)
}

fn port(header: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(header.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: ([u8; 6], [u8; 4]) = ([2, 0, 0, 0, 0, 1], [10, 0, 2, 15]);

    struct Cable {
        _folder: tempfile::TempDir,
        station: Station,
        host: UnixDatagram,
        ours: PathBuf,
    }

    fn cable() -> Cable {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
        let station = Station::bind(&ours, &theirs, GUEST).unwrap();
        let host = UnixDatagram::bind(&theirs).unwrap();
        Cable { _folder: folder, station, host, ours }
    }

    impl Cable {
        /// A question of the station, as it comes to the host.
        async fn asked(&self, protocol: Protocol, port: u16) -> Vec<u8> {
            self.station.send(&self.station.question(protocol, port)).await.unwrap();
            let mut frame = vec![0; LARGEST_FRAME];
            let length = self.host.recv(&mut frame).await.unwrap();
            frame.truncate(length);
            let pseudo = [&frame[26..34], &[0, protocol as u8], &((length - 34) as u16).to_be_bytes()].concat();
            assert_eq!(checksum(&frame[14..34]), 0, "the header's sum is right");
            assert_eq!(checksum(&[&pseudo[..], &frame[34..]].concat()), 0, "the segment's sum is right");
            frame
        }

        async fn answer(&self, frame: &[u8]) {
            self.host.send_to(frame, &self.ours).await.unwrap();
        }

        async fn heard(&self, protocol: Protocol) -> Answers {
            let mut answers = Answers::default();
            self.station.listen(protocol, Duration::from_millis(50), &mut answers).await.unwrap();
            answers
        }
    }

    /// The same frame on its way back.
    fn turned(frame: &[u8], from: [u8; 6]) -> Vec<u8> {
        let mut back = frame.to_vec();
        back[..6].copy_from_slice(&OUR_MAC);
        back[6..12].copy_from_slice(&from);
        for (one, other, length) in [(26, 30, 4), (34, 36, 2)] {
            back[other..other + length].copy_from_slice(&frame[one..one + length]);
            back[one..one + length].copy_from_slice(&frame[other..other + length]);
        }
        back
    }

    /// A host with one open and one refused port is seen as such; one that keeps silent is neither, and
    /// what another station says for it does not count.
    #[tokio::test]
    async fn open_and_refused_ports_are_told_apart() {
        let cable = cable();
        for (port, flags, from) in [(443, SYN_ACK, GUEST.0), (80, RST, GUEST.0), (23, SYN_ACK, [9; 6])] {
            let mut back = turned(&cable.asked(Protocol::Tcp, port).await, from);
            back[47] = flags;
            cable.answer(&back).await;
        }
        let heard = cable.heard(Protocol::Tcp).await;
        assert_eq!(heard, Answers { open: BTreeSet::from([443]), refused: BTreeSet::from([80]) });
    }

    /// A datagram back means open, "port unreachable" refused.
    #[tokio::test]
    async fn answers_to_datagrams_are_told_apart() {
        let cable = cable();
        let back = turned(&cable.asked(Protocol::Udp, 123).await, GUEST.0);
        cable.answer(&back).await;
        let asked = cable.asked(Protocol::Udp, 53).await;
        let mut back = turned(&asked, GUEST.0)[..34].to_vec();
        back[23] = ICMP;
        back.extend([ICMP_UNREACHABLE, 3, 0, 0, 0, 0, 0, 0]);
        back.extend(&asked[ETHERNET..]);
        cable.answer(&back).await;
        let heard = cable.heard(Protocol::Udp).await;
        assert_eq!(heard, Answers { open: BTreeSet::from([123]), refused: BTreeSet::from([53]) });
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
