//! Why a poll did not count.

/// Why a poll did not count. Its text holds place and remedy, never a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PollFault {
    /// No connection to the bus's address.
    #[error("no connection; check address, port, cabling and firewall")]
    Unreachable,
    /// No answer in time.
    #[error("no answer in time; check that the device is on and its unit id, or raise response_timeout_ms")]
    Timeout,
    /// The connection broke during the request.
    #[error("the connection broke during the request; check whether the device allows another connection")]
    ConnectionLost,
    /// The answer was not one to our question (transaction, unit, function or length), or no Modbus at all.
    #[error("the answer does not belong to the question or is not Modbus; check that nothing else answers at this address")]
    Protocol,
    /// The device answered with an exception code (Modbus Application Protocol V1.1b3, section 7).
    #[error(
        "the device answered with exception {0:#04x}; 0x01 to 0x03 mean that the profile does not fit, 0x0a and 0x0b that the gateway does not reach the unit"
    )]
    Exception(u8),
    /// The identity registers do not hold what the profile expects.
    #[error("the device is not of the kind that its profile describes; correct the profile or the address")]
    WrongDevice,
    /// A part of what was read could not be decoded; it is among the dead letters.
    #[error("a part of the registers could not be read; see its dead letter and correct the profile")]
    Undecodable,
    /// The gateway's disk took nothing.
    #[error("the gateway could not store the readings; see its free space")]
    NotStored,
    /// The device's profile is not for polling.
    #[error("the device's profile is not for polling; give it a polled profile")]
    Profile,
}

impl PollFault {
    /// One word for metrics and status.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::ConnectionLost => "connection-lost",
            Self::Protocol => "protocol",
            Self::Exception(_) => "exception",
            Self::WrongDevice => "wrong-device",
            Self::Undecodable => "undecodable",
            Self::NotStored => "not-stored",
            Self::Profile => "profile",
        }
    }
}
