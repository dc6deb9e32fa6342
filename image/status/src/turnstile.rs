//! Who may come in: limits on connections and on how often they come.
//!
//! Every visitor costs a handshake and some buffers. The limits keep both small whatever somebody
//! does on the network, and keep one address from shutting the others out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Most connections at once.
pub(crate) const CONNECTIONS_MAX: u32 = 64;
/// Most connections at once from one address (an IPv6 network of 64 bits counts as one).
pub(crate) const CONNECTIONS_PER_ADDRESS_MAX: u32 = 8;
/// New connections a second, all together.
const NEW_PER_S_MAX: u64 = 40;
/// New connections a second from one address.
const NEW_PER_ADDRESS_PER_S_MAX: u64 = 5;
/// Seconds of its rate that may come at once.
const BURST_S: u64 = 3;
/// Most addresses that are remembered.
const ADDRESSES_MAX: usize = 512;
/// Tokens are counted in thousandths, so that milliseconds add up.
const THOUSAND: u64 = 1_000;

/// A token bucket.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    per_s: u64,
    tokens: u64,
    at_ms: u64,
}

impl Bucket {
    fn full(per_s: u64, now_ms: u64) -> Self {
        Self { per_s, tokens: per_s * BURST_S * THOUSAND, at_ms: now_ms }
    }

    fn refill(&mut self, now_ms: u64) {
        let gained = now_ms.saturating_sub(self.at_ms).saturating_mul(self.per_s);
        self.tokens = self.tokens.saturating_add(gained).min(self.per_s * BURST_S * THOUSAND);
        self.at_ms = now_ms;
    }

    fn take(&mut self, now_ms: u64) -> bool {
        self.refill(now_ms);
        let enough = self.tokens >= THOUSAND;
        if enough {
            self.tokens -= THOUSAND;
        }
        enough
    }

    fn is_full(&mut self, now_ms: u64) -> bool {
        self.refill(now_ms);
        self.tokens >= self.per_s * BURST_S * THOUSAND
    }
}

#[derive(Debug)]
struct Visitor {
    open: u32,
    bucket: Bucket,
}

#[derive(Debug)]
struct State {
    open: u32,
    bucket: Bucket,
    visitors: HashMap<IpAddr, Visitor>,
}

/// The turnstile; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Turnstile(Arc<Mutex<State>>);

/// A place inside; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    turnstile: Turnstile,
    address: IpAddr,
}

impl Turnstile {
    /// An empty one. `now_ms`: any clock that only goes forward.
    pub(crate) fn new(now_ms: u64) -> Self {
        Self(Arc::new(Mutex::new(State { open: 0, bucket: Bucket::full(NEW_PER_S_MAX, now_ms), visitors: HashMap::new() })))
    }

    /// Lets somebody in, or not.
    pub(crate) fn enter(&self, address: IpAddr, now_ms: u64) -> Option<Place> {
        let address = network(address);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.open >= CONNECTIONS_MAX {
            return None;
        }
        if state.visitors.len() >= ADDRESSES_MAX {
            state.visitors.retain(|_, visitor| visitor.open > 0 || !visitor.bucket.is_full(now_ms));
        }
        if !state.visitors.contains_key(&address) && state.visitors.len() >= ADDRESSES_MAX {
            return None;
        }
        let fresh = || Visitor { open: 0, bucket: Bucket::full(NEW_PER_ADDRESS_PER_S_MAX, now_ms) };
        let visitor = state.visitors.entry(address).or_insert_with(fresh);
        // An address that is over its own limits takes nothing from the common one.
        if visitor.open >= CONNECTIONS_PER_ADDRESS_MAX || !visitor.bucket.take(now_ms) || !state.bucket.take(now_ms) {
            return None;
        }
        state.open += 1;
        if let Some(visitor) = state.visitors.get_mut(&address) {
            visitor.open += 1;
        }
        Some(Place { turnstile: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.turnstile.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.open = state.open.saturating_sub(1);
        if let Some(visitor) = state.visitors.get_mut(&self.address) {
            visitor.open = visitor.open.saturating_sub(1);
        }
    }
}

/// What counts as one address: an IPv4 address, or an IPv6 network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(number))
    }

    /// One address that holds on to everything it gets leaves room for the others.
    #[test]
    fn one_address_cannot_shut_the_others_out() {
        let turnstile = Turnstile::new(0);
        let held: Vec<_> = (0..1_000).filter_map(|ms| turnstile.enter(v4(1), ms)).collect();
        assert_eq!(held.len(), CONNECTIONS_PER_ADDRESS_MAX as usize);
        assert!(turnstile.enter(v4(2), 1_000).is_some());
        drop(held);
        assert!(turnstile.enter(v4(1), 10_000).is_some());
    }

    /// However many come, at most so many are inside, and those who leave make room.
    #[test]
    fn the_number_inside_is_bounded() {
        let turnstile = Turnstile::new(0);
        let mut held: Vec<_> = (0..10_000).filter_map(|number| turnstile.enter(v4(number), u64::from(number))).collect();
        assert_eq!(held.len(), CONNECTIONS_MAX as usize);
        held.pop();
        assert!(turnstile.enter(v4(77_777), 20_000).is_some());
    }

    /// Coming and going costs handshakes: their rate is bounded, for one and for all.
    #[test]
    fn the_rate_is_bounded() {
        let turnstile = Turnstile::new(0);
        let over_a_minute = |addresses: u32| (0..60_000).filter(|ms| turnstile.enter(v4(ms % addresses), u64::from(*ms)).is_some()).count();
        let one = over_a_minute(1);
        assert!((300..=316).contains(&one), "{one}");
        let many = over_a_minute(400);
        assert!(many <= 40 * 63, "{many}");
    }

    /// What is remembered is bounded, and a network of 64 bits counts as one visitor.
    #[test]
    fn the_memory_is_bounded() {
        let turnstile = Turnstile::new(0);
        for number in 0..100_000_u32 {
            let _gone = turnstile.enter(v4(number), u64::from(number));
            assert!(turnstile.0.lock().unwrap().visitors.len() <= ADDRESSES_MAX);
        }
        assert_eq!(network("2001:db8::1".parse().unwrap()), network("2001:db8::2:3:4".parse().unwrap()));
        assert_eq!(network("::ffff:192.0.2.7".parse().unwrap()), "192.0.2.7".parse::<IpAddr>().unwrap());
    }
}
