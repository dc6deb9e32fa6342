//! The six panels: identity, network and time, devices, queue, destinations, update slots.

use vitalgate_layout::state::Part;
use vitalgate_layout::{Slot, StateWord, fact};

use super::panel::{Cell, Panel, Row, Table, Tone};
use super::{Language, advice, spell};
use crate::snapshot::{DestinationRow, DeviceRow, PartRow, Queue, SlotRow, Snapshot};

/// Most devices on the page; `/status.json` has all of them.
const DEVICE_ROWS_MAX: usize = 200;
/// Facts that stand in rows of their own.
const SITE_FACTS: [&str; 3] = [fact::SITE, fact::GATEWAY, fact::SERIAL];
/// Fewer days left than this need somebody now.
const DAYS_LEFT_BAD: f64 = 1.0;
/// Fewer days left than this should be seen.
const DAYS_LEFT_ATTENTION: f64 = 7.0;

/// The six panels in their order.
pub(crate) fn all(snapshot: &Snapshot, language: Language) -> [Panel; 6] {
    [
        identity(snapshot, language),
        network(snapshot, language),
        devices(snapshot, language),
        queue(snapshot, language),
        destinations(snapshot, language),
        updates(snapshot, language),
    ]
}

fn identity(snapshot: &Snapshot, language: Language) -> Panel {
    let identity = &snapshot.identity;
    let tone = if identity.version.is_some() { Tone::Good } else { Tone::Unknown };
    let mut panel = Panel::new(language.pick("Identity and version", "Identität und Version"), tone);
    panel.row(language.pick("Site", "Standort"), Cell::known(identity.site.clone()));
    panel.row(language.pick("Gateway", "Gateway"), Cell::known(identity.gateway.clone()));
    panel.row(language.pick("Serial number", "Seriennummer"), Cell::fixed(identity.serial.clone().unwrap_or_default()));
    let version = Cell::known(identity.version.clone()).note(identity.build.clone().unwrap_or_default());
    panel.row(language.pick("Version", "Version"), version);
    let mut end = Cell::known(identity.support_end.clone());
    if identity.support_ended == Some(true) {
        end = end.tone(Tone::Attention).note(language.pick("has passed: update the appliance", "ist vorbei: Gerät aktualisieren"));
        panel.raise(Tone::Attention);
    }
    panel.row(language.pick("Supported until", "Unterstützt bis"), end);
    let uptime = identity.uptime_s.map(|seconds| spell::age(seconds, language));
    panel.row(language.pick("In service for", "In Betrieb seit"), Cell::known(uptime));
    part(&mut panel, snapshot, Part::Provision, language.pick("Commissioning", "Inbetriebnahme"), &SITE_FACTS, language);
    part(&mut panel, snapshot, Part::SelfTest, language.pick("Self test", "Selbsttest"), &SITE_FACTS, language);
    for warning in &identity.warnings {
        panel.raise(Tone::Attention);
        panel.notes.push(Cell::text(warning.clone()).tone(Tone::Attention));
    }
    panel
}

fn network(snapshot: &Snapshot, language: Language) -> Panel {
    let network = &snapshot.network;
    let mut panel = Panel::new(language.pick("Network and time", "Netz und Zeit"), Tone::Good);
    for interface in &network.interfaces {
        let up = interface.state != "down" && interface.state != "lowerlayerdown";
        let addresses: Vec<_> = interface.addresses.iter().map(ToString::to_string).collect();
        let text = if addresses.is_empty() { language.pick("no address", "keine Adresse").to_owned() } else { addresses.join(", ") };
        let note = format!(
            "{} · {}",
            if up { language.pick("connected", "verbunden") } else { language.pick("no link", "kein Link") },
            interface.hardware
        );
        panel.row(&interface.name, Cell::fixed(text).note(note));
    }
    if network.urls.is_empty() {
        panel.raise(Tone::Attention);
        panel
            .row(language.pick("Network", "Netz"), Cell::text(language.pick("no address yet", "noch keine Adresse")).tone(Tone::Attention));
    }
    let (trust, tone) = time_trust(network.time_trust.as_deref(), language);
    if tone == Tone::Unknown && panel.tone == Tone::Good {
        panel.tone = Tone::Unknown;
    }
    panel.raise(tone);
    panel.row(language.pick("Time", "Uhrzeit"), Cell::text(trust).tone(tone).note(snapshot.as_of.clone()));
    part(&mut panel, snapshot, Part::Clock, language.pick("Time source", "Zeitquelle"), &[fact::TRUST], language);
    if let Some(certificate) = &network.certificate {
        let ends = format!("{} {}", language.pick("valid until", "gültig bis"), certificate.ends);
        let kept = if certificate.kept {
            ends
        } else {
            language.pick("temporary, until the storage is open", "vorläufig, bis der Speicher offen ist").to_owned()
        };
        panel.row(
            language.pick("Fingerprint of this page (SHA-256)", "Fingerabdruck dieser Seite (SHA-256)"),
            Cell::fixed(certificate.fingerprint.clone()).note(kept).wide(),
        );
    }
    panel
}

fn time_trust(trust: Option<&str>, language: Language) -> (&str, Tone) {
    match trust {
        Some("authenticated") => (language.pick("authenticated (NTS)", "authentifiziert (NTS)"), Tone::Good),
        Some("synchronised") => {
            (language.pick("synchronised, source not authenticated", "synchron, Quelle nicht authentifiziert"), Tone::Good)
        }
        Some("free") => (language.pick("runs by itself, no source answers", "läuft frei, keine Quelle antwortet"), Tone::Attention),
        Some("unset") => (language.pick("not set since power-on", "seit dem Einschalten nicht gestellt"), Tone::Attention),
        _ => (language.pick("unknown", "unbekannt"), Tone::Unknown),
    }
}

fn devices(snapshot: &Snapshot, language: Language) -> Panel {
    let mut panel = Panel::new(language.pick("Devices", "Geräte"), Tone::Good);
    if silent(&mut panel, snapshot, language) {
        return panel;
    }
    let missing = snapshot.devices.iter().filter(|device| device.missing.is_some()).count();
    let heard = snapshot.devices.iter().filter(|device| device.missing.is_none() && device.last_reading_age_s.is_some()).count();
    let total = snapshot.devices.len();
    let text = match language {
        Language::English => format!("{heard} of {total} heard"),
        Language::German => format!("{heard} von {total} melden sich"),
    };
    if missing > 0 || snapshot.devices.iter().any(|device| device_state(device, language).1 == Tone::Attention) {
        panel.raise(Tone::Attention);
    } else if heard < total || total == 0 {
        // Some are only awaited.
        panel.tone = Tone::Unknown;
    }
    panel.row(language.pick("Configured devices", "Eingerichtete Geräte"), Cell::text(text));
    if total == 0 {
        return panel;
    }
    let row = |device: &DeviceRow| {
        let age = device.last_reading_age_s.map(|seconds| spell::ago(seconds, language));
        let age = age.unwrap_or_else(|| language.pick("none yet", "noch keiner").to_owned());
        let (text, tone) = device_state(device, language);
        let state = Cell::text(text).tone(tone);
        let name = Cell::text(device.id.clone()).note(format!("{} · {}", device.profile, device.driver));
        Row { cells: vec![name, Cell::text(age), state], below: String::new() }
    };
    panel.table = Some(Table {
        head: vec![language.pick("Device", "Gerät"), language.pick("Last reading", "Letzter Wert"), language.pick("State", "Zustand")],
        rows: snapshot.devices.iter().take(DEVICE_ROWS_MAX).map(row).collect(),
        left_out: total.saturating_sub(DEVICE_ROWS_MAX),
    });
    panel
}

fn device_state(device: &DeviceRow, language: Language) -> (String, Tone) {
    if device.missing.is_some() {
        let why = match (device.state.as_str(), device.last_reading_age_s) {
            ("down", _) => language.pick("no answer", "keine Antwort"),
            (_, Some(_)) => language.pick("silent", "stumm"),
            (_, None) => language.pick("no reading", "kein Wert"),
        };
        return (why.to_owned(), Tone::Attention);
    }
    match (device.connected, device.state.as_str()) {
        (Some(true), _) => (language.pick("connected", "verbunden").to_owned(), Tone::Good),
        (Some(false), _) => (language.pick("not connected", "nicht verbunden").to_owned(), Tone::Unknown),
        (None, "ok" | "seen") => (language.pick("heard", "meldet sich").to_owned(), Tone::Good),
        (None, "degraded") => (language.pick("faulty answers", "fehlerhaft").to_owned(), Tone::Attention),
        (None, _) if device.last_reading_age_s.is_none() => (language.pick("waiting", "wird erwartet").to_owned(), Tone::Unknown),
        (None, other) => (other.to_owned(), Tone::Unknown),
    }
}

fn queue(snapshot: &Snapshot, language: Language) -> Panel {
    let mut panel = Panel::new(language.pick("Queue and storage", "Warteschlange und Speicher"), Tone::Good);
    if !silent(&mut panel, snapshot, language) {
        queue_rows(&mut panel, &snapshot.queue, language);
    }
    if snapshot.overall.word == StateWord::StoreFull {
        panel.raise(Tone::Bad);
    }
    part(&mut panel, snapshot, Part::Data, language.pick("Sealed storage", "Versiegelter Speicher"), &[], language);
    panel
}

fn queue_rows(panel: &mut Panel, queue: &Queue, language: Language) {
    let waiting = language.pick("waiting", "warten");
    let depth = queue.depth.map(|depth| format!("{} {waiting}", spell::count(depth)));
    panel.row(language.pick("Readings", "Messwerte"), Cell::known(depth));
    let oldest = match (queue.oldest_age_s, queue.depth) {
        (Some(age_s), _) => Some(spell::age(age_s, language)),
        (None, Some(0)) => Some(language.pick("nothing waits", "nichts wartet").to_owned()),
        (None, Some(_)) => Some(language.pick("unknown", "unbekannt").to_owned()),
        (None, None) => None,
    };
    panel.row(language.pick("Oldest waits for", "Ältester wartet seit"), Cell::known(oldest));
    let left = match (queue.days_left, queue.rate_known) {
        (Some(days), _) => Cell::text(spell::days(days, language)).tone(days_left_tone(days)),
        (None, true) => Cell::text(language.pick("nothing comes in", "es kommt nichts herein")),
        (None, false) => Cell::text(language.pick("no rate yet", "noch keine Rate")),
    };
    panel.raise(left.tone.unwrap_or(Tone::Good));
    panel.row(language.pick("Room left without delivery", "Platz ohne Zustellung"), left);
    let below = language.pick("stops taking readings below", "nimmt nichts an unter");
    let floor = queue.floor_bytes.map(|floor| format!("{below} {}", spell::size(floor)));
    let free = Cell::known(queue.free_bytes.map(spell::size)).note(floor.unwrap_or_default());
    panel.row(language.pick("Free on disk", "Frei auf der Platte"), free);
    if let Some(letters) = queue.dead_letters {
        let tone = if letters > 0 { Tone::Attention } else { Tone::Good };
        let note = language.pick("not understood or refused", "unverständlich oder abgelehnt");
        panel.raise(tone);
        panel.row(language.pick("Set aside", "Zurückgelegt"), Cell::text(spell::count(letters)).note(note).tone(tone));
    }
    for damage in &queue.damage {
        panel.raise(Tone::Attention);
        panel.notes.push(Cell::text(damage.clone()).tone(Tone::Attention));
    }
}

fn days_left_tone(days: f64) -> Tone {
    match days {
        _ if days < DAYS_LEFT_BAD => Tone::Bad,
        _ if days < DAYS_LEFT_ATTENTION => Tone::Attention,
        _ => Tone::Good,
    }
}

fn destinations(snapshot: &Snapshot, language: Language) -> Panel {
    let mut panel = Panel::new(language.pick("Destinations", "Ziele"), Tone::Good);
    if silent(&mut panel, snapshot, language) {
        return panel;
    }
    if snapshot.destinations.is_empty() {
        panel.tone = Tone::Unknown;
        panel.notes.push(Cell::text(language.pick("none configured", "keine eingerichtet")));
        return panel;
    }
    let row = |destination: &DestinationRow| {
        let acknowledged = destination.last_acknowledgement_age_s.map(|seconds| spell::ago(seconds, language));
        let acknowledged = acknowledged.unwrap_or_else(|| language.pick("not since the start", "nicht seit dem Start").to_owned());
        let state = match &destination.alarm {
            Some(_) => Cell::text(language.pick("held up", "steht")).tone(Tone::Attention),
            None if destination.last_acknowledgement_age_s.is_none() => {
                Cell::text(language.pick("nothing taken yet", "noch nichts angenommen")).tone(Tone::Unknown)
            }
            None => Cell::text(language.pick("delivers", "stellt zu")).tone(Tone::Good),
        };
        let waiting = destination.queued.map(spell::count).unwrap_or_default();
        let oldest = destination.oldest_age_s.map(|seconds| spell::age(seconds, language)).unwrap_or_default();
        let cells = vec![Cell::text(destination.id.clone()), Cell::text(acknowledged), Cell::text(waiting).note(oldest), state];
        Row { cells, below: destination.alarm.clone().unwrap_or_default() }
    };
    if snapshot.destinations.iter().any(|destination| destination.alarm.is_some()) {
        panel.raise(Tone::Attention);
    } else if snapshot.destinations.iter().any(|destination| destination.last_acknowledgement_age_s.is_none()) {
        // Nothing was sent there since the start: whether it takes anything nobody knows.
        panel.tone = Tone::Unknown;
    }
    panel.table = Some(Table {
        head: vec![
            language.pick("Name", "Ziel"),
            language.pick("Acknowledged", "Quittiert"),
            language.pick("Waiting", "Wartend"),
            language.pick("State", "Zustand"),
        ],
        rows: snapshot.destinations.iter().map(row).collect(),
        left_out: 0,
    });
    panel
}

fn updates(snapshot: &Snapshot, language: Language) -> Panel {
    let updates = &snapshot.updates;
    let known = snapshot.part(Part::Slots).state().is_some();
    let mut panel = Panel::new(language.pick("Update slots", "Systemplätze"), if known { Tone::Good } else { Tone::Unknown });
    let row = |slot: &SlotRow| {
        let name = Cell::text(slot.slot.to_uppercase()).note(if slot.booted { language.pick("running", "läuft") } else { "" });
        let (text, tone) = match slot.state.as_deref() {
            Some(state) if state.starts_with("good") => (language.pick("good", "gut"), Tone::Good),
            Some("empty") => (language.pick("empty", "leer"), Tone::Unknown),
            Some("not started any more") => (language.pick("not started", "gesperrt"), Tone::Attention),
            Some(other) => (other, Tone::Unknown),
            None => (language.pick("unknown", "unbekannt"), Tone::Unknown),
        };
        Row { cells: vec![name, Cell::known(slot.version.clone()), Cell::text(text).tone(tone)], below: String::new() }
    };
    panel.table_first = true;
    panel.table = Some(Table {
        head: vec![language.pick("Slot", "Platz"), language.pick("Version", "Version"), language.pick("State", "Zustand")],
        rows: updates.slots.iter().map(row).collect(),
        left_out: 0,
    });
    let rollback = match &updates.last_rollback {
        Some(rollback) => {
            let cell = Cell::text(rollback.clone()).note(updates.last_rollback_at.clone().unwrap_or_default());
            // One that a later version has made up for is history.
            if snapshot.part(Part::Slots).in_order() { cell } else { cell.tone(Tone::Attention) }
        }
        None => Cell::text(language.pick("none", "keine")),
    };
    panel.row(language.pick("Last rollback", "Letzte Rücknahme"), rollback);
    panel.row(language.pick("Oldest version allowed", "Älteste erlaubte Version"), Cell::known(updates.version_floor.clone()));
    let own =
        [fact::RUNNING, fact::slot(Slot::A), fact::slot(Slot::B), fact::VERSION_FLOOR, fact::LAST_ROLLBACK, fact::LAST_ROLLBACK_UNIX_MS];
    part(&mut panel, snapshot, Part::Slots, language.pick("Health gate", "Bewährung"), &own, language);
    part(&mut panel, snapshot, Part::Update, language.pick("Update", "Aktualisierung"), &[], language);
    panel
}

/// Where the daemon does not answer, the panel says so and nothing else.
fn silent(panel: &mut Panel, snapshot: &Snapshot, language: Language) -> bool {
    let Some(reason) = &snapshot.daemon_silent else { return false };
    panel.tone = Tone::Unknown;
    let commissioned = snapshot.part(Part::Data).in_order() && snapshot.part(Part::Provision).in_order();
    let note = if commissioned {
        Cell::text(language.pick("The gateway does not answer.", "Das Gateway antwortet nicht.")).note(reason.clone())
    } else {
        Cell::text(language.pick(
            "Not in service yet: storage and site file come first.",
            "Noch nicht in Betrieb: Zuerst kommen Speicher und Standortdatei.",
        ))
    };
    panel.notes.push(note);
    true
}

/// What a part says of itself, and its facts but those shown elsewhere.
fn part(panel: &mut Panel, snapshot: &Snapshot, which: Part, name: &str, elsewhere: &[&str], language: Language) {
    let said = snapshot.part(which);
    let mut cell = match said {
        PartRow::Missing => Cell::text(language.pick("has not reported yet", "noch keine Meldung")),
        PartRow::Unreadable(reason) => {
            let text = language.pick("unknown: its report cannot be read", "unbekannt: Meldung nicht lesbar");
            Cell::text(text).note(reason.clone()).tone(Tone::Attention)
        }
        PartRow::Said(state) => {
            let code = state.code.map(|code| format!(" ({code})")).unwrap_or_default();
            let since = snapshot.age_s(state.since_unix_ms).map(|age| spell::since(age, language)).unwrap_or_default();
            let good = state.word == StateWord::Ready;
            let text = if good { language.pick("in order", "in Ordnung").to_owned() } else { format!("{}{code}", state.word) };
            let note = if state.detail.is_empty() { since } else { state.detail.clone() };
            Cell::text(text).note(note).tone(advice::tone(state.word))
        }
    };
    // One part in order does not make a panel good whose other half nobody knows.
    panel.raise(cell.tone.filter(|tone| *tone > Tone::Good).unwrap_or(Tone::Unknown));
    let facts = said.state().into_iter().flat_map(|state| &state.facts);
    let (passed, others): (Vec<_>, Vec<_>) =
        facts.filter(|(fact, _)| !elsewhere.contains(&fact.as_str())).partition(|(_, value)| value.as_str() == fact::OK);
    if !passed.is_empty() {
        let names: Vec<_> = passed.iter().map(|(fact, _)| spell::fact(fact, language)).collect();
        cell.note = format!("ok: {}", names.join(", "));
    }
    panel.row(name, cell);
    for (fact, value) in others {
        let cell = Cell::text(spell::moment(value));
        let is_unsealed = fact == fact::SEALED && value != fact::SEALED_YES;
        let cell = if value.starts_with(fact::FAILED) || is_unsealed { cell.tone(Tone::Attention) } else { cell };
        panel.raise(cell.tone.unwrap_or(Tone::Unknown));
        panel.rows.push((spell::fact(fact, language), cell));
    }
}
