//! Everything that is shown, at one moment: the page and `/status.json` are made from it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;
use vitalgate_layout::state::{Part, PartState};
use vitalgate_layout::{Slot, StateWord, Version, fact};

use crate::daemon::{Daemon, DaemonStatus};
use crate::machine::{Interface, Machine};
use crate::parts::{Parts, Said};
use crate::word::{Overall, overall};

/// 2026-01-01T00:00:00Z in Unix milliseconds: a clock before it was never set.
const CLOCK_FLOOR_UNIX_MS: i64 = 1_767_225_600_000;

/// How much longer than the time since power-on an age may be, in seconds: a clock may be corrected by so much while it runs.
const AGE_SLACK_S: u64 = 60;

/// What was found at one moment.
#[derive(Debug, Clone)]
pub struct Found {
    /// The state files.
    pub parts: Parts,
    /// The daemon.
    pub daemon: Daemon,
    /// The machine.
    pub machine: Machine,
    /// The certificate of the page; `None` while there is none.
    pub certificate: Option<Certificate>,
    /// The wall clock in Unix milliseconds.
    pub now_unix_ms: i64,
    /// Seconds since the status page started.
    pub up_s: u64,
    /// Seconds since power-on.
    pub powered_s: u64,
}

/// The page's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// SHA-256 over it, in pairs of hexadecimal digits.
    pub fingerprint: String,
    /// The day it ends, `YYYY-MM-DD`.
    pub ends: String,
    /// Whether it is kept; a temporary one goes with the next start.
    pub kept: bool,
}

/// Panel 1: identity, version and support end.
#[derive(Debug, Clone, Serialize)]
pub struct Identity {
    /// The product and its version.
    pub product: String,
    /// The version of the image.
    pub version: Option<String>,
    /// The build.
    pub build: Option<String>,
    /// The last day of support, `YYYY-MM-DD`.
    pub support_end: Option<String>,
    /// Whether that day has passed; absent while the date is not known well enough.
    pub support_ended: Option<bool>,
    /// The site.
    pub site: Option<String>,
    /// The gateway.
    pub gateway: Option<String>,
    /// The serial number.
    pub serial: Option<String>,
    /// Fingerprint of the key that signs the appliance's reports.
    pub report_key: Option<String>,
    /// Version of the daemon.
    pub daemon_version: Option<String>,
    /// Seconds since the daemon's start.
    pub uptime_s: Option<u64>,
    /// What the configuration allows against the advice.
    pub warnings: Vec<String>,
}

/// Panel 2: network and time trust.
#[derive(Debug, Clone, Serialize)]
pub struct Network {
    /// The interfaces.
    pub interfaces: Vec<Interface>,
    /// Where this page is.
    pub urls: Vec<String>,
    /// The page's certificate.
    pub certificate: Option<Certificate>,
    /// `authenticated`, `synchronised`, `free` or `unset`; absent while nobody knows.
    pub time_trust: Option<String>,
}

/// A row of panel 3.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceRow {
    /// The device.
    pub id: String,
    /// Its profile.
    pub profile: String,
    /// `mqtt` or `modbus`.
    pub driver: String,
    /// Seconds since its last stored reading.
    pub last_reading_age_s: Option<u64>,
    /// What its driver says of it.
    pub state: String,
    /// Whether its connection is open, where the driver knows.
    pub connected: Option<bool>,
    /// Why it counts as missing.
    pub missing: Option<String>,
}

/// Panel 4: the queue.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Queue {
    /// Entries that the slowest destination has not settled.
    pub depth: Option<u64>,
    /// Age of the oldest of them in seconds.
    pub oldest_age_s: Option<u64>,
    /// Days until the disk is full at today's rate.
    pub days_left: Option<f64>,
    /// Whether that rate is known: without days nothing comes in then.
    pub rate_known: bool,
    /// Bytes free.
    pub free_bytes: Option<u64>,
    /// Below this many free bytes nothing is acknowledged.
    pub floor_bytes: Option<u64>,
    /// Readings that could not be understood or delivered.
    pub dead_letters: Option<u64>,
    /// Damage that was found and what was done.
    pub damage: Vec<String>,
}

/// A row of panel 5.
#[derive(Debug, Clone, Serialize)]
pub struct DestinationRow {
    /// The destination.
    pub id: String,
    /// Entries that it has not settled.
    pub queued: Option<u64>,
    /// Age of the oldest of them in seconds.
    pub oldest_age_s: Option<u64>,
    /// Seconds since it last accepted something.
    pub last_acknowledgement_age_s: Option<u64>,
    /// What stands in the way.
    pub alarm: Option<String>,
}

/// A slot of panel 6.
#[derive(Debug, Clone, Serialize)]
pub struct SlotRow {
    /// `a` or `b`.
    pub slot: &'static str,
    /// Whether it is the running one.
    pub booted: bool,
    /// Its version.
    pub version: Option<String>,
    /// What the slot is worth: `good, 3 starts left`, `not started any more`, `empty`.
    pub state: Option<String>,
}

/// Panel 6: update slots.
#[derive(Debug, Clone, Serialize)]
pub struct Updates {
    /// Both slots.
    pub slots: Vec<SlotRow>,
    /// The oldest version that may be installed.
    pub version_floor: Option<String>,
    /// Which version was left at the last rollback, and why.
    pub last_rollback: Option<String>,
    /// When, RFC 3339; absent while the clock was not set.
    pub last_rollback_at: Option<String>,
}

/// A part as it is shown.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartRow {
    /// What it says.
    Said(PartState),
    /// It has not said anything.
    Missing,
    /// Its file is no state, and why.
    Unreadable(String),
}

/// Everything that is shown.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// The word, its reason, and what else holds.
    #[serde(flatten)]
    pub overall: Overall,
    /// The moment, RFC 3339.
    pub as_of: String,
    /// The moment in Unix milliseconds.
    pub as_of_unix_ms: i64,
    /// Panel 1.
    pub identity: Identity,
    /// Panel 2.
    pub network: Network,
    /// Panel 3.
    pub devices: Vec<DeviceRow>,
    /// Panel 4.
    pub queue: Queue,
    /// Panel 5.
    pub destinations: Vec<DestinationRow>,
    /// Panel 6.
    pub updates: Updates,
    /// Why the daemon's part of the panels is empty.
    pub daemon_silent: Option<String>,
    /// The parts, by the name of their file.
    pub parts: BTreeMap<&'static str, PartRow>,
    /// Whether the clock was set since power-on.
    #[serde(skip)]
    clock_is_set: bool,
    /// Seconds since power-on.
    #[serde(skip)]
    powered_s: u64,
}

impl Snapshot {
    /// Puts together what was found. `port`: of the page.
    #[must_use]
    pub fn of(found: &Found, port: u16) -> Self {
        let status = found.daemon.status();
        let rows = Part::ALL.into_iter().map(|part| (part.file_name().trim_end_matches(".json"), row(found.parts.get(part))));
        Self {
            overall: overall(&found.parts, &found.daemon, found.up_s),
            as_of: rfc3339(found.now_unix_ms),
            as_of_unix_ms: found.now_unix_ms,
            identity: identity(found),
            network: network(found, port),
            devices: status.map(devices).unwrap_or_default(),
            queue: status.map(queue).unwrap_or_default(),
            destinations: status.map(destinations).unwrap_or_default(),
            updates: updates(found),
            daemon_silent: match &found.daemon {
                Daemon::Silent { reason, .. } => Some(reason.clone()),
                Daemon::Answers(_) => None,
            },
            parts: rows.collect(),
            clock_is_set: clock_is_set(found),
            powered_s: found.powered_s,
        }
    }

    /// What a part says, by the name of its file.
    #[must_use]
    pub fn part(&self, part: Part) -> &PartRow {
        self.parts.get(part.file_name().trim_end_matches(".json")).unwrap_or(&PartRow::Missing)
    }

    /// Seconds since a moment, if the clock allows to say so.
    #[must_use]
    pub fn age_s(&self, since_unix_ms: i64) -> Option<u64> {
        let age_s = u64::try_from(self.as_of_unix_ms.checked_sub(since_unix_ms)? / 1_000).ok()?;
        // What is told was told since power-on: a longer age was told by a clock that was set since.
        (self.clock_is_set && since_unix_ms >= CLOCK_FLOOR_UNIX_MS && age_s <= self.powered_s + AGE_SLACK_S).then_some(age_s)
    }
}

impl PartRow {
    /// What it says.
    #[must_use]
    pub fn state(&self) -> Option<&PartState> {
        match self {
            Self::Said(state) => Some(state),
            _ => None,
        }
    }

    /// Whether it says that all is well.
    #[must_use]
    pub fn in_order(&self) -> bool {
        self.state().is_some_and(|state| state.word == StateWord::Ready)
    }
}

/// RFC 3339 in UTC, to the second; empty for a moment that has none.
#[must_use]
pub fn rfc3339(unix_ms: i64) -> String {
    Timestamp::from_second(unix_ms.div_euclid(1_000)).map(|at| at.to_string()).unwrap_or_default()
}

fn row(said: &Said) -> PartRow {
    match said {
        Said::State(state) => PartRow::Said(state.clone()),
        Said::Missing => PartRow::Missing,
        Said::Unreadable(reason) => PartRow::Unreadable(reason.clone()),
    }
}

fn identity(found: &Found) -> Identity {
    let machine = &found.machine;
    let status = found.daemon.status();
    let fact = |name| found.parts.fact(Part::Provision, name).or_else(|| found.parts.fact(Part::SelfTest, name)).map(str::to_owned);
    let support_end = machine.release("SUPPORT_END").and_then(|text| text.parse::<Date>().ok());
    let today = clock_is_set(found).then(|| today(found.now_unix_ms)).flatten();
    Identity {
        product: machine.release("NAME").unwrap_or("Vitalgate").to_owned(),
        version: machine.version().map(str::to_owned),
        build: machine.release("BUILD_ID").map(str::to_owned),
        support_end: support_end.map(|date| date.to_string()),
        support_ended: support_end.zip(today).map(|(end, today)| today > end),
        site: fact(fact::SITE),
        gateway: status.and_then(|status| status.gateway.clone()).or_else(|| fact(fact::GATEWAY)),
        serial: fact(fact::SERIAL),
        report_key: fact(fact::REPORT_KEY),
        daemon_version: status.and_then(|status| status.version.clone()),
        uptime_s: status.and_then(|status| status.uptime_s),
        warnings: status.map(|status| status.warnings.clone()).unwrap_or_default(),
    }
}

/// Whether the clock was set since power-on, as far as anybody says. One that was not begins with the time of the build, or the last one
/// that was known.
fn clock_is_set(found: &Found) -> bool {
    time_trust(found).is_none_or(|trust| trust != "unset")
}

/// What the time service says of the clock, or the daemon, in small letters.
fn time_trust(found: &Found) -> Option<String> {
    let clock = found.parts.fact(Part::Clock, fact::TRUST).map(str::to_owned);
    let daemon = found.daemon.status().and_then(|status| status.clock_trust.clone());
    clock.or(daemon).map(|trust| trust.to_ascii_lowercase())
}

fn today(now_unix_ms: i64) -> Option<Date> {
    if now_unix_ms < CLOCK_FLOOR_UNIX_MS {
        return None;
    }
    let at = Timestamp::from_millisecond(now_unix_ms).ok()?;
    Some(at.to_zoned(jiff::tz::TimeZone::UTC).date())
}

fn network(found: &Found, port: u16) -> Network {
    let address = |address: std::net::IpAddr| format!("https://{}", std::net::SocketAddr::new(address, port));
    Network {
        interfaces: found.machine.interfaces.clone(),
        urls: found.machine.reachable().into_iter().map(address).collect(),
        certificate: found.certificate.clone(),
        time_trust: time_trust(found),
    }
}

fn devices(status: &DaemonStatus) -> Vec<DeviceRow> {
    let uptime_s = status.uptime_s.unwrap_or(0);
    let mut rows: Vec<DeviceRow> = status
        .devices
        .iter()
        .map(|device| DeviceRow {
            id: device.id.clone(),
            profile: device.profile.clone(),
            driver: device.driver.clone(),
            last_reading_age_s: device.last_reading_age_s,
            state: device.state.clone(),
            connected: device.connected,
            missing: device.missing(uptime_s),
        })
        .collect();
    // What needs somebody stands first.
    rows.sort_by(|a, b| b.missing.is_some().cmp(&a.missing.is_some()).then_with(|| a.id.cmp(&b.id)));
    rows
}

fn queue(status: &DaemonStatus) -> Queue {
    let slowest = status.destinations.iter().max_by_key(|destination| destination.queued);
    let waiting = || status.destinations.iter().filter(|destination| destination.queued.is_none_or(|queued| queued > 0));
    // One that does not know since when it waits may be the one that waits longest.
    let oldest_age_s = waiting().map(|destination| destination.oldest_age_s).collect::<Option<Vec<_>>>();
    Queue {
        depth: slowest.and_then(|slowest| slowest.queued),
        oldest_age_s: oldest_age_s.and_then(|ages| ages.into_iter().max()),
        days_left: status.store.days_left,
        rate_known: status.store.rate_known,
        free_bytes: status.store.free_bytes,
        floor_bytes: status.store.floor_bytes,
        dead_letters: status.store.dead_letters,
        damage: status.store.damage.clone(),
    }
}

fn destinations(status: &DaemonStatus) -> Vec<DestinationRow> {
    let row = |destination: &crate::daemon::Destination| DestinationRow {
        id: destination.id.clone(),
        queued: destination.queued,
        oldest_age_s: destination.oldest_age_s,
        last_acknowledgement_age_s: destination.last_acknowledgement_age_s,
        alarm: destination.alarm.clone(),
    };
    status.destinations.iter().map(row).collect()
}

fn updates(found: &Found) -> Updates {
    let fact = |name: &str| found.parts.fact(Part::Slots, name);
    let booted = found.machine.boot.get("VITALGATE_SLOT").map(String::as_str);
    let slot = |slot: Slot| {
        let (version, state) = fact(fact::slot(slot)).map_or((None, None), slot_words);
        let is_booted = booted == Some(slot.letter());
        let running = if is_booted { found.machine.version() } else { None };
        SlotRow { slot: slot.letter(), booted: is_booted, version: version.or(running).map(str::to_owned), state }
    };
    let at = fact(fact::LAST_ROLLBACK_UNIX_MS).and_then(|text| text.parse().ok()).filter(|at| *at >= CLOCK_FLOOR_UNIX_MS);
    Updates {
        slots: Slot::ALL.into_iter().map(slot).collect(),
        version_floor: fact(fact::VERSION_FLOOR).map(str::to_owned),
        last_rollback: fact(fact::LAST_ROLLBACK).map(str::to_owned),
        last_rollback_at: at.map(rfc3339),
    }
}

/// Version and state of a slot: `0.2.0 good, 3 starts left`, `0.3.0 not started any more`, `empty`.
fn slot_words(text: &str) -> (Option<&str>, Option<String>) {
    match text.split_once(' ') {
        Some((version, rest)) if Version::parse(version).is_some() => (Some(version), Some(rest.to_owned())),
        _ => (None, Some(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_slot_are_taken_apart() {
        assert_eq!(slot_words("0.2.0 good, 3 starts left"), (Some("0.2.0"), Some("good, 3 starts left".to_owned())));
        assert_eq!(slot_words("empty"), (None, Some("empty".to_owned())));
        assert_eq!(slot_words("no one knows"), (None, Some("no one knows".to_owned())));
    }

    /// An age is only given by a clock that was set, and never into the future.
    #[test]
    fn a_clock_that_was_never_set_gives_no_age() {
        let machine = Machine::default();
        let daemon = Daemon::Answers(Box::default());
        let found = |now_unix_ms| Found {
            parts: Parts::of([]),
            daemon: daemon.clone(),
            machine: machine.clone(),
            certificate: None,
            now_unix_ms,
            up_s: 1,
            powered_s: 3_600,
        };
        let now = CLOCK_FLOOR_UNIX_MS + 60_000;
        assert_eq!(Snapshot::of(&found(now), 1).age_s(CLOCK_FLOOR_UNIX_MS), Some(60));
        assert_eq!(Snapshot::of(&found(now), 1).age_s(5), None);
        assert_eq!(Snapshot::of(&found(5_000), 1).age_s(CLOCK_FLOOR_UNIX_MS), None);
        assert_eq!(Snapshot::of(&found(i64::MIN), 1).age_s(i64::MAX), None);
    }

    /// A clock that was never set may show a day that has come (the one of the build), and one that was set since makes what was told
    /// before look old: no age and no end of support is told by either.
    #[test]
    fn a_clock_that_shows_the_day_of_the_build_gives_no_age() {
        let now = CLOCK_FLOOR_UNIX_MS + 300 * 86_400_000;
        let age = |trust: &str, since_unix_ms| {
            let facts = [(fact::TRUST.to_owned(), trust.to_owned())].into();
            let state = PartState { word: StateWord::Ready, code: None, detail: String::new(), since_unix_ms: 0, facts };
            let found = Found {
                parts: Parts::of([(Part::Clock, Said::State(state))]),
                daemon: Daemon::Answers(Box::default()),
                machine: Machine { release: [("SUPPORT_END".to_owned(), "2026-02-01".to_owned())].into(), ..Machine::default() },
                certificate: None,
                now_unix_ms: now,
                up_s: 1,
                powered_s: 600,
            };
            let snapshot = Snapshot::of(&found, 1);
            (snapshot.age_s(since_unix_ms), snapshot.identity.support_ended)
        };
        assert_eq!(age("unset", now - 60_000), (None, None));
        assert_eq!(age("free", now - 60_000), (Some(60), Some(true)));
        assert_eq!(age("free", now - 200 * 86_400_000).0, None, "longer than since power-on");
    }

    /// Support ends after its last day, and nobody claims so while the date is not known.
    #[test]
    fn the_end_of_support_is_told_by_a_clock_that_was_set() {
        let release = [("SUPPORT_END".to_owned(), "2026-11-22".to_owned())].into();
        let machine = Machine { release, ..Machine::default() };
        let at = |now_unix_ms| {
            let found = Found {
                parts: Parts::of([]),
                daemon: Daemon::Answers(Box::default()),
                machine: machine.clone(),
                certificate: None,
                now_unix_ms,
                up_s: 1,
                powered_s: 3_600,
            };
            Snapshot::of(&found, 1).identity.support_ended
        };
        const NOON_OF_THE_DAY: i64 = 1_795_348_800_000;
        const DAY_MS: i64 = 86_400_000;
        assert_eq!([at(NOON_OF_THE_DAY), at(NOON_OF_THE_DAY + DAY_MS), at(0)], [Some(false), Some(true), None]);
    }
}
