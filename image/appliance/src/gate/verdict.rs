//! The gate's decision, from what is known and what was seen: no clock, no files, no programs.

use super::before::Before;
use super::daemon::Status;
use crate::storage::CHECKS_DEADLINE_S;

/// How long the daemon may take until it takes readings, in seconds.
pub(crate) const SERVICE_DEADLINE_S: u64 = 300;
/// How long devices and destinations may take to come back after an update, in seconds.
pub(crate) const RETURN_DEADLINE_S: u64 = 600;
/// How long sealed storage may take to open, in seconds; at the first boot it is made.
pub(crate) const DATA_DEADLINE_S: u64 = 600;
/// How long a version that is judged by it has where the TPM refused, in seconds: it is asked again each minute.
const DATA_AGAIN_S: u64 = 200;
/// How long the daemon must have run without a restart, in seconds.
pub(crate) const STEADY_S: u64 = 10;
/// Most devices that a reason names; of the others it says how many they are.
const DEVICES_NAMED_MAX: usize = 5;
/// Ends of the daemon after which a new version is given up at once.
pub(crate) const ENDS_MAX: u32 = 3;

const _: () = assert!(STEADY_S < SERVICE_DEADLINE_S && SERVICE_DEADLINE_S <= RETURN_DEADLINE_S);

/// What is known of this start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// The running version was installed and has not shown yet that it is healthy.
    pub(crate) on_trial: bool,
    /// Sealed storage was open when it was installed.
    pub(crate) data_was_open: bool,
    /// There is another slot to go back to.
    pub(crate) way_back: bool,
    /// What was there before the update.
    pub(crate) before: Before,
    /// When sealed storage was last seen closed, in seconds after the gate began.
    pub(crate) data_closed_s: u64,
    /// When the daemon was last seen well, or had no storage yet, in seconds after the gate began.
    pub(crate) not_unwell_s: u64,
}

impl Known {
    /// Takes what is seen into account: the daemon and the devices have their time from when storage opens, the daemon again from when it
    /// was well.
    pub(crate) fn note(&mut self, seen: &Seen, elapsed_s: u64) {
        if !seen.data {
            self.data_closed_s = elapsed_s;
        }
        if !seen.data || unwell(seen).is_none() {
            self.not_unwell_s = elapsed_s;
        }
    }
}

/// What is seen now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Sealed storage is open.
    pub(crate) data: bool,
    /// The file system of sealed storage is being looked at, and mended where it is damaged.
    pub(crate) data_checking: bool,
    /// Sealed storage was given up by the step that opens it.
    pub(crate) data_given_up: bool,
    /// A site file is in force.
    pub(crate) site: bool,
    /// It is for another serial number: the board was replaced, and a site file for this one has to come.
    pub(crate) site_for_another: bool,
    /// Why the running version turned it down, where it did.
    pub(crate) site_refused: Option<String>,
    /// What the daemon says; `None`: it does not answer.
    pub(crate) daemon: Option<Status>,
    /// How often the service manager had to start the daemon again.
    pub(crate) daemon_ends: u32,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not yet; for this it waits.
    Wait(String),
    /// Healthy.
    Pass,
    /// To be kept, but not well.
    Degraded(String),
    /// The new version is left.
    Return(String),
    /// Not healthy, and no other version would be better: neither kept nor left.
    Stay(String),
}

/// Decides `elapsed_s` seconds after the gate began.
pub(crate) fn decide(known: &Known, seen: &Seen, elapsed_s: u64) -> Verdict {
    if !seen.data {
        return without_data(known, seen, elapsed_s);
    }
    if !seen.site {
        // Waiting for the technician is what a new appliance is for.
        return Verdict::Pass;
    }
    if seen.site_for_another && !(known.on_trial && known.way_back) {
        // No version would start the gateway with it. Only one on trial may be wrong about the serial number, and has to show.
        return Verdict::Degraded("the site file is for another serial number".to_owned());
    }
    if let Some(reason) = unwell(seen) {
        // A full store is full in the other version as well.
        let full = seen.daemon.as_ref().is_some_and(|status| status.health.state == "STORE-FULL");
        if full {
            return Verdict::Degraded(reason);
        }
        let ended = seen.daemon_ends >= ENDS_MAX;
        let waited_s = elapsed_s.saturating_sub(known.not_unwell_s);
        if ended || waited_s >= SERVICE_DEADLINE_S {
            let ends = if ended { format!("; it ended {} times", seen.daemon_ends) } else { format!(" after {waited_s} s") };
            let why = seen.site_refused.iter().filter(|_| seen.daemon.is_none()).map(|why| format!(": {why}"));
            return failed(known, format!("{reason}{ends}{}", why.collect::<String>()));
        }
        return Verdict::Wait(reason);
    }
    let open_s = elapsed_s.saturating_sub(known.data_closed_s);
    match (known.on_trial, seen.daemon.as_ref().and_then(|status| missing(&known.before, status))) {
        (true, Some(missing)) if open_s < RETURN_DEADLINE_S => Verdict::Wait(missing),
        (true, Some(missing)) if known.way_back => Verdict::Return(format!("{missing} after {open_s} s, and was there before")),
        (true, Some(missing)) => Verdict::Degraded(missing),
        _ => Verdict::Pass,
    }
}

/// Why the daemon does not do its work.
fn unwell(seen: &Seen) -> Option<String> {
    match &seen.daemon {
        Some(status) if !status.health.ready => Some(format!("the gateway takes no readings ({})", status.health.state)),
        Some(status) if status.uptime_s < STEADY_S => Some("the gateway has only just started".to_owned()),
        Some(_) => None,
        None => Some("the gateway does not answer".to_owned()),
    }
}

fn without_data(known: &Known, seen: &Seen, elapsed_s: u64) -> Verdict {
    let reason = "sealed storage does not open".to_owned();
    let is_judged = known.on_trial && known.data_was_open;
    let deadline_s = match (seen.data_given_up, is_judged) {
        (true, true) => DATA_AGAIN_S,
        (true, false) => 0,
        // Nothing restarts while a file system is being mended.
        (false, true) if seen.data_checking => DATA_DEADLINE_S + CHECKS_DEADLINE_S,
        (false, _) => DATA_DEADLINE_S,
    };
    if elapsed_s < deadline_s {
        return Verdict::Wait(reason);
    }
    if is_judged {
        return failed(known, reason);
    }
    // The other version would not open it either: the technician's recovery key does.
    Verdict::Degraded(reason)
}

fn failed(known: &Known, reason: String) -> Verdict {
    if known.on_trial && known.way_back { Verdict::Return(reason) } else { Verdict::Stay(reason) }
}

/// What was there before and is not now.
fn missing(before: &Before, status: &Status) -> Option<String> {
    let seen = |id: &String| status.devices.iter().any(|device| device.id == *id && device.last_reading_age_s.is_some());
    let devices: Vec<&str> = before.devices.iter().filter(|id| !seen(id)).map(String::as_str).collect();
    if !devices.is_empty() {
        let named: Vec<&str> = devices.iter().take(DEVICES_NAMED_MAX).copied().collect();
        let others = devices.len() - named.len();
        let more = if others > 0 { format!(" and {others} more") } else { String::new() };
        return Some(format!("no reading from {}{more}", named.join(", ")));
    }
    let reached = |id: &String| {
        let destination = status.destinations.iter().find(|destination| destination.id == *id);
        destination.is_some_and(|destination| {
            // With nothing to deliver there is nothing to show that it would not be taken. What was refused was there to deliver.
            let idle = destination.queued == 0 && destination.refused_readings == 0;
            destination.alarm.is_none() && (destination.last_acknowledgement_age_s.is_some() || idle)
        })
    };
    let unreached = before.destinations.iter().find(|id| !reached(id))?;
    let alarm =
        status.destinations.iter().find(|destination| destination.id == *unreached).and_then(|destination| destination.alarm.clone());
    Some(format!("{unreached} accepts nothing{}", alarm.map(|alarm| format!(" ({alarm})")).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::super::daemon::{Destination, Device, Health};
    use super::*;

    fn trial() -> Known {
        let before = Before { at_unix_ms: 0, devices: vec!["m-1".into(), "m-2".into()], destinations: vec!["ehr".into()], settling: false };
        Known { on_trial: true, data_was_open: true, way_back: true, before, data_closed_s: 0, not_unwell_s: 0 }
    }

    fn well() -> Seen {
        let device = |id: &str| Device { id: id.into(), last_reading_age_s: Some(1) };
        let ehr = Destination { id: "ehr".into(), queued: 3, last_acknowledgement_age_s: Some(1), refused_readings: 0, alarm: None };
        let health = Health { ready: true, state: "READY".into() };
        let daemon = Status { uptime_s: 60, health, devices: vec![device("m-1"), device("m-2")], destinations: vec![ehr] };
        Seen {
            data: true,
            data_checking: false,
            data_given_up: false,
            site: true,
            site_for_another: false,
            site_refused: None,
            daemon: Some(daemon),
            daemon_ends: 0,
        }
    }

    fn silent() -> Seen {
        Seen { daemon: None, ..well() }
    }

    fn is_wait(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Wait(_))
    }

    /// A healthy update passes at once; a new appliance without a site file as well.
    #[test]
    fn a_healthy_start_passes() {
        assert_eq!(decide(&trial(), &well(), 0), Verdict::Pass);
        assert_eq!(decide(&Known::default(), &Seen { site: false, ..silent() }, 0), Verdict::Pass);
        // A device that is switched off does not matter where no update is on trial.
        let mut absent = well();
        absent.daemon.as_mut().unwrap().devices.clear();
        assert_eq!(decide(&Known { on_trial: false, ..trial() }, &absent, 0), Verdict::Pass);
    }

    /// A daemon that does not come up is waited for, then left; without a way back it stays.
    #[test]
    fn a_silent_daemon_is_left_after_its_deadline() {
        assert!(is_wait(&decide(&trial(), &silent(), SERVICE_DEADLINE_S - 1)));
        assert!(matches!(decide(&trial(), &silent(), SERVICE_DEADLINE_S), Verdict::Return(_)));
        for known in [Known { way_back: false, ..trial() }, Known { on_trial: false, ..trial() }] {
            assert!(matches!(decide(&known, &silent(), SERVICE_DEADLINE_S), Verdict::Stay(_)));
        }
        // One that ends again and again is not waited for.
        let ending = Seen { daemon_ends: ENDS_MAX, ..silent() };
        assert!(matches!(decide(&trial(), &ending, 5), Verdict::Return(reason) if reason.contains("ended 3 times")));
        // Up again for a moment between two ends is not up.
        let mut young = well();
        young.daemon.as_mut().unwrap().uptime_s = STEADY_S - 1;
        assert!(is_wait(&decide(&trial(), &young, 5)));
    }

    /// One answer that is missing is no reason to leave a version that was well a moment ago, and the daemon's time does not begin before its
    /// storage is open; a daemon that stays away is left all the same.
    #[test]
    fn a_daemon_has_its_time_from_when_it_could_be_well() {
        let young = {
            let mut young = well();
            young.daemon.as_mut().unwrap().uptime_s = STEADY_S - 1;
            young
        };
        for seen in [well(), Seen { data: false, ..silent() }] {
            let mut known = trial();
            known.note(&seen, 290);
            for (unwell, at_s) in [(silent(), 350), (young.clone(), 400)] {
                known.note(&unwell, at_s);
                assert!(is_wait(&decide(&known, &unwell, at_s)), "{at_s}");
            }
            assert!(is_wait(&decide(&known, &silent(), 290 + SERVICE_DEADLINE_S - 1)));
            assert!(matches!(decide(&known, &silent(), 290 + SERVICE_DEADLINE_S), Verdict::Return(_)));
        }
    }

    /// Waiting for a site file for a new board takes no try from a version that was kept already. One that is on trial may itself be
    /// wrong about the serial number: it is left like one that does not come up, where there is another.
    #[test]
    fn a_board_that_was_replaced_is_not_the_version_s_fault() {
        let seen = Seen { site_for_another: true, ..silent() };
        for known in [Known { on_trial: false, ..trial() }, Known { way_back: false, ..trial() }] {
            assert!(matches!(decide(&known, &seen, SERVICE_DEADLINE_S), Verdict::Degraded(_)));
        }
        assert!(is_wait(&decide(&trial(), &seen, SERVICE_DEADLINE_S - 1)));
        assert!(matches!(decide(&trial(), &seen, SERVICE_DEADLINE_S), Verdict::Return(_)));
    }

    /// What was there before the update must come back, each by its name.
    #[test]
    fn devices_and_destinations_must_come_back() {
        let mut absent = well();
        absent.daemon.as_mut().unwrap().devices[1].last_reading_age_s = None;
        assert!(is_wait(&decide(&trial(), &absent, RETURN_DEADLINE_S - 1)));
        assert!(matches!(decide(&trial(), &absent, RETURN_DEADLINE_S), Verdict::Return(reason) if reason.contains("m-2")));
        let no_way = Known { way_back: false, ..trial() };
        assert!(matches!(decide(&no_way, &absent, RETURN_DEADLINE_S), Verdict::Degraded(_)));

        let mut refused = well();
        let ehr = &mut refused.daemon.as_mut().unwrap().destinations[0];
        (ehr.last_acknowledgement_age_s, ehr.alarm) = (None, Some("connection refused".into()));
        assert!(matches!(decide(&trial(), &refused, RETURN_DEADLINE_S), Verdict::Return(reason) if reason.contains("connection refused")));
        // It accepted something and does not any more.
        let mut stopped = well();
        stopped.daemon.as_mut().unwrap().destinations[0].alarm = Some("422 for every reading".into());
        assert!(matches!(decide(&trial(), &stopped, RETURN_DEADLINE_S), Verdict::Return(reason) if reason.contains("422")));
        // What it refuses does not wait either.
        let mut refusing = well();
        let ehr = &mut refusing.daemon.as_mut().unwrap().destinations[0];
        (ehr.last_acknowledgement_age_s, ehr.queued, ehr.refused_readings) = (None, 0, 2);
        assert!(is_wait(&decide(&trial(), &refusing, RETURN_DEADLINE_S - 1)));
        assert!(matches!(decide(&trial(), &refusing, RETURN_DEADLINE_S), Verdict::Return(_)));
        // It was not reachable before either: not the new version's fault.
        let mut known = trial();
        known.before.destinations.clear();
        assert_eq!(decide(&known, &refused, 0), Verdict::Pass);
        // Nothing to deliver: nothing to wait for.
        let mut idle = well();
        let ehr = &mut idle.daemon.as_mut().unwrap().destinations[0];
        (ehr.last_acknowledgement_age_s, ehr.queued) = (None, 0);
        assert_eq!(decide(&trial(), &idle, 0), Verdict::Pass);
    }

    /// A rack that was switched off over night is no list of a thousand names: a reason stays readable.
    #[test]
    fn a_reason_names_some_devices_and_counts_the_others() {
        let mut known = trial();
        known.before.devices = (0..1000).map(|number| format!("m-{number}")).collect();
        let mut absent = well();
        absent.daemon.as_mut().unwrap().devices.clear();
        let verdict = decide(&known, &absent, RETURN_DEADLINE_S);
        let expected = "no reading from m-0, m-1, m-2, m-3, m-4 and 995 more after 600 s, and was there before";
        assert_eq!(verdict, Verdict::Return(expected.to_owned()));
    }

    /// Sealed storage that opened for the old version and not for the new is the new one's fault; a
    /// full store is not.
    #[test]
    fn storage_is_judged_by_what_it_was_before() {
        let closed = Seen { data: false, ..silent() };
        assert!(is_wait(&decide(&trial(), &closed, 1)));
        let given_up = Seen { data_given_up: true, ..closed.clone() };
        // A TPM that refused once may open it at the next try.
        assert!(is_wait(&decide(&trial(), &given_up, DATA_AGAIN_S - 1)));
        assert!(matches!(decide(&trial(), &given_up, DATA_AGAIN_S), Verdict::Return(_)));
        assert!(matches!(decide(&trial(), &closed, DATA_DEADLINE_S), Verdict::Return(_)));
        for known in [Known { data_was_open: false, ..trial() }, Known::default()] {
            assert!(matches!(decide(&known, &given_up, 1), Verdict::Degraded(_)));
        }
        // A damaged file system of a large disk is not left half mended, and devices have their time after that.
        let checking = Seen { data_checking: true, ..closed };
        let mended_s = CHECKS_DEADLINE_S + 1;
        assert!(is_wait(&decide(&trial(), &checking, mended_s)));
        assert!(matches!(decide(&trial(), &checking, DATA_DEADLINE_S + CHECKS_DEADLINE_S), Verdict::Return(_)));
        assert!(matches!(decide(&Known { on_trial: false, ..trial() }, &checking, DATA_DEADLINE_S), Verdict::Degraded(_)));
        let (mut known, mut absent) = (trial(), well());
        known.note(&checking, mended_s);
        absent.daemon.as_mut().unwrap().devices.clear();
        assert!(is_wait(&decide(&known, &absent, mended_s + RETURN_DEADLINE_S - 1)));
        assert!(matches!(decide(&known, &absent, mended_s + RETURN_DEADLINE_S), Verdict::Return(_)));
        let mut full = well();
        full.daemon.as_mut().unwrap().health = Health { ready: false, state: "STORE-FULL".into() };
        assert!(matches!(decide(&trial(), &full, SERVICE_DEADLINE_S), Verdict::Degraded(_)));
    }
}
