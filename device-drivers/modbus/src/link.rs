//! The one connection of a bus. A request takes the connection out and only a proper answer puts it
//! back: whatever goes wrong, and also when the request is dropped half-way, it is closed.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_modbus::client::{Client, Context, tcp};
use tokio_modbus::slave::{Slave, SlaveContext};
use tokio_modbus::{Error, Request, Response};
use vitalgate_profile::{Block, ReadFunction};

use crate::config::BusConfig;
use crate::fault::PollFault;

/// The connection of a bus, open or not.
pub(crate) struct Link {
    address: String,
    connect_timeout: Duration,
    response_timeout: Duration,
    /// How long the connection may lie idle.
    idle: Duration,
    context: Option<Context>,
    /// Counts the connections that were opened, to know what was proven on this one.
    generation: u64,
    /// When this connection last answered.
    answered: Option<Instant>,
}

impl Link {
    pub(crate) fn new(config: &BusConfig) -> Self {
        Self {
            address: config.address.clone(),
            connect_timeout: config.connect_timeout(),
            response_timeout: config.response_timeout(),
            idle: Duration::from_millis(config.idle_ms),
            context: None,
            generation: 0,
            answered: None,
        }
    }

    /// Whether the open connection has answered before: only such a one can have gone stale meanwhile.
    pub(crate) fn has_answered(&self) -> bool {
        self.answered.is_some() && self.context.is_some()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Opens the connection where there is none; true when it is a new one.
    pub(crate) async fn open(&mut self) -> Result<bool, PollFault> {
        if self.context.is_some() {
            return Ok(false);
        }
        let connected = timeout(self.connect_timeout, TcpStream::connect(self.address.as_str())).await;
        let stream = connected.map_err(|_elapsed| PollFault::Unreachable)?.map_err(|_refused| PollFault::Unreachable)?;
        stream.set_nodelay(true).map_err(|_closed| PollFault::Unreachable)?;
        self.context = Some(tcp::attach(stream));
        self.generation += 1;
        self.answered = None;
        Ok(true)
    }

    /// Closes the connection where nothing is asked on it for longer than it may lie idle: a firewall between forgets such a one,
    /// tells nobody, and the next question would be lost.
    pub(crate) fn rest_until(&mut self, next: Instant) {
        if self.answered.is_some_and(|answered| next.saturating_duration_since(answered) > self.idle) {
            self.context = None;
        }
    }

    /// Reads a block of a unit.
    pub(crate) async fn read(&mut self, unit_id: u8, block: &Block) -> Result<Vec<u16>, PollFault> {
        let mut context = self.context.take().ok_or(PollFault::ConnectionLost)?;
        context.set_slave(Slave(unit_id));
        let answer = timeout(self.response_timeout, context.call(request(block))).await;
        let outcome = match answer {
            Err(_elapsed) => return Err(PollFault::Timeout),
            Ok(Err(error)) => return Err(fault_of(&error)),
            Ok(Ok(Err(exception))) => Err(PollFault::Exception(exception.into())),
            Ok(Ok(Ok(response))) => Ok(words_of(block, response).ok_or(PollFault::Protocol)?),
        };
        self.answered = Some(Instant::now());
        self.context = Some(context);
        outcome
    }
}

fn request(block: &Block) -> Request<'static> {
    match block.function {
        ReadFunction::Coils => Request::ReadCoils(block.address, block.count),
        ReadFunction::DiscreteInputs => Request::ReadDiscreteInputs(block.address, block.count),
        ReadFunction::HoldingRegisters => Request::ReadHoldingRegisters(block.address, block.count),
        ReadFunction::InputRegisters => Request::ReadInputRegisters(block.address, block.count),
    }
}

/// The registers of an answer, if it is as long as the question asked; coils become 0 or 1.
fn words_of(block: &Block, response: Response) -> Option<Vec<u16>> {
    let count = usize::from(block.count);
    match (block.function, response) {
        (ReadFunction::HoldingRegisters, Response::ReadHoldingRegisters(words))
        | (ReadFunction::InputRegisters, Response::ReadInputRegisters(words)) => (words.len() == count).then_some(words),
        (ReadFunction::Coils, Response::ReadCoils(coils)) | (ReadFunction::DiscreteInputs, Response::ReadDiscreteInputs(coils)) => {
            // The codec gives whole bytes: the surplus bits of the last one are padding.
            (coils.len() == count.div_ceil(8) * 8).then(|| coils.into_iter().take(count).map(u16::from).collect())
        }
        _ => None,
    }
}

/// Tells a broken connection from an answer that is wrong. The codec reports a closed connection
/// with whatever error the system had last, so what is not known to be about bytes is a lost connection.
fn fault_of(error: &Error) -> PollFault {
    match error {
        Error::Protocol(_) => PollFault::Protocol,
        Error::Transport(error) => match error.kind() {
            ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof | ErrorKind::Other => PollFault::Protocol,
            _ => PollFault::ConnectionLost,
        },
    }
}
