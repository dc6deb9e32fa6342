//! Who may greet (TLS handshake, CONNECT) at one time. One address that opens connections and says
//! nothing must not keep the others out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{GREETING_MAX, GREETING_PER_ADDRESS_MAX, WAITING_MAX, WAITING_PER_ADDRESS_MAX};
use crate::refusal::Refusal;

/// An IPv4 address or an IPv6 /64: what one host can easily have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Origin([u8; 8]);

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        let mut origin = [0; 8];
        match address.to_canonical() {
            IpAddr::V4(address) => origin.iter_mut().skip(4).zip(address.octets()).for_each(|(place, octet)| *place = octet),
            IpAddr::V6(address) => origin.iter_mut().zip(address.octets()).for_each(|(place, octet)| *place = octet),
        }
        Self(origin)
    }
}

#[derive(Debug)]
struct Door {
    seats: Arc<Semaphore>,
    users: usize,
}

/// Hands out the right to greet.
#[derive(Debug)]
pub(crate) struct Gate {
    seats: Arc<Semaphore>,
    doors: Mutex<HashMap<Origin, Door>>,
    users: Arc<Semaphore>,
}

/// A place in front of the gate; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Arc<Gate>,
    origin: Origin,
    _user: OwnedSemaphorePermit,
}

/// The right to greet; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
    _place: Place,
}

impl Gate {
    /// An empty gate.
    pub(crate) fn new() -> Self {
        Self {
            seats: Arc::new(Semaphore::new(GREETING_MAX)),
            doors: Mutex::new(HashMap::new()),
            users: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }

    /// A place in front of the gate; refused when too many of this address, or too many in all, wait there.
    pub(crate) fn place(self: &Arc<Self>, address: IpAddr) -> Result<Place, Refusal> {
        let user = Arc::clone(&self.users).try_acquire_owned().map_err(|_full| Refusal::GreetingsFull)?;
        let origin = Origin::from(address);
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        let door = doors.entry(origin).or_insert_with(|| Door { seats: Arc::new(Semaphore::new(GREETING_PER_ADDRESS_MAX)), users: 0 });
        if door.users >= WAITING_PER_ADDRESS_MAX {
            return Err(Refusal::GreetingsFull);
        }
        door.users += 1;
        Ok(Place { gate: Arc::clone(self), origin, _user: user })
    }
}

impl Place {
    /// Waits for the right to greet.
    pub(crate) async fn pass(self) -> Option<Pass> {
        let seats = {
            let doors = self.gate.doors.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&doors.get(&self.origin)?.seats)
        };
        let own = seats.acquire_owned().await.ok()?;
        let all = Arc::clone(&self.gate.seats).acquire_owned().await.ok()?;
        Some(Pass { _own: own, _all: all, _place: self })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut doors = self.gate.doors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(door) = doors.get_mut(&self.origin) {
            door.users = door.users.saturating_sub(1);
            if door.users == 0 {
                doors.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// One address that opens connections and says nothing leaves room for every other address, and its refusal names no setting:
    /// none would help.
    #[tokio::test]
    async fn a_silent_address_does_not_keep_others_out() {
        let gate = Arc::new(Gate::new());
        let hostile: IpAddr = "192.0.2.66".parse().unwrap();
        let mut passes = Vec::new();
        for _ in 0..GREETING_PER_ADDRESS_MAX {
            passes.push(gate.place(hostile).unwrap().pass().await.unwrap());
        }
        let waiting: Vec<Place> = (GREETING_PER_ADDRESS_MAX..WAITING_PER_ADDRESS_MAX).map(|_| gate.place(hostile).unwrap()).collect();
        let refusal = gate.place(hostile).unwrap_err();
        assert_eq!(refusal.label(), "greetings_full");
        assert!(!refusal.text().contains("connections_max"), "{}", refusal.text());
        let other = gate.place("192.0.2.7".parse().unwrap()).unwrap();
        let pass = tokio::time::timeout(Duration::from_secs(1), other.pass()).await.unwrap();
        assert!(pass.is_some());
        drop((pass, waiting, passes));
        assert!(gate.doors.lock().unwrap().is_empty());
        assert_eq!(gate.seats.available_permits(), GREETING_MAX);
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let origin = |text: &str| Origin::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::ffff:1"));
        assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
    }
}
