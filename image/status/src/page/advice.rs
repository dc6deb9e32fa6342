//! What each state word means, and what to do: the short form of the manual's table.

use vitalgate_layout::StateWord;

use super::Language;
use super::panel::Tone;

/// How urgent the word looks.
pub(crate) const fn tone(word: StateWord) -> Tone {
    match word {
        StateWord::Ready => Tone::Good,
        StateWord::Selftest | StateWord::Updating | StateWord::Enrolling | StateWord::AwaitProvision => Tone::Busy,
        StateWord::RolledBack | StateWord::Degraded | StateWord::OfflineBuffering | StateWord::TimeUntrusted => Tone::Attention,
        StateWord::ProvisionRejected | StateWord::StoreFull | StateWord::Tamper => Tone::Bad,
    }
}

/// The meaning in a sentence.
pub(crate) const fn meaning(word: StateWord, language: Language) -> &'static str {
    let (english, german) = match word {
        StateWord::Ready => ("In service. Readings are taken and delivered.", "In Betrieb. Messwerte werden angenommen und zugestellt."),
        StateWord::Selftest => ("The appliance is starting and testing itself.", "Das Gerät startet und prüft sich selbst."),
        StateWord::RolledBack => (
            "In service with the earlier version: the last update was undone.",
            "In Betrieb mit der vorherigen Version: Die letzte Aktualisierung wurde zurückgenommen.",
        ),
        StateWord::Degraded => ("A part is missing or needs attention.", "Ein Teil fehlt oder braucht Aufmerksamkeit."),
        StateWord::OfflineBuffering => (
            "In service. A destination does not take readings, or not all of them: they are kept. What it refused for good is set aside \
             and is sent again only by a stick REPLAY.",
            "In Betrieb. Ein Ziel nimmt Messwerte nicht an, oder nicht alle: Sie werden aufbewahrt. Was es endgültig abgelehnt hat, ist \
             zurückgelegt und wird nur durch einen Stick REPLAY erneut gesendet.",
        ),
        StateWord::TimeUntrusted => {
            ("In service. The time is not known well enough.", "In Betrieb. Die Uhrzeit ist nicht sicher genug bekannt.")
        }
        StateWord::Updating => {
            ("An update is being installed or waits for the restart.", "Eine Aktualisierung wird installiert oder wartet auf den Neustart.")
        }
        StateWord::AwaitProvision => ("Waiting for the stick with the site file.", "Wartet auf den Stick mit der Standortdatei."),
        StateWord::Enrolling => ("The site file is being applied.", "Die Standortdatei wird übernommen."),
        StateWord::ProvisionRejected => ("The site file was refused.", "Die Standortdatei wurde abgelehnt."),
        StateWord::StoreFull => (
            "Nothing is acknowledged until there is room; devices keep what they hold.",
            "Nichts wird quittiert, bis wieder Platz ist; die Geräte behalten ihre Werte.",
        ),
        StateWord::Tamper => (
            "The sealed storage did not open, or a part is not what it was.",
            "Der versiegelte Speicher ließ sich nicht öffnen, oder ein Teil ist nicht mehr der, der er war.",
        ),
    };
    language.pick(english, german)
}

/// What to do, where there is something to do.
pub(crate) const fn remedy(word: StateWord, language: Language) -> &'static str {
    let (english, german) = match word {
        StateWord::Ready | StateWord::Selftest | StateWord::Enrolling | StateWord::Updating => ("", ""),
        StateWord::RolledBack => (
            "Read the reason under Update slots; report it before the next attempt.",
            "Grund unter Systemplätze lesen und melden, bevor es erneut versucht wird.",
        ),
        StateWord::Degraded => (
            "Check the named device: power, cable, credentials. For damage, see the manual.",
            "Das genannte Gerät prüfen: Strom, Kabel, Zugangsdaten. Bei Schäden siehe Handbuch.",
        ),
        StateWord::OfflineBuffering => (
            "Read the line under Destinations: network, certificate, rights, address, or what it refuses. Once that is mended, what waits \
             goes on by itself; for what is set aside, see the manual.",
            "Zeile unter Ziele lesen: Netz, Zertifikat, Rechte, Adresse, oder was abgelehnt wird. Ist das behoben, geht Wartendes von \
             selbst weiter; für Zurückgelegtes siehe Handbuch.",
        ),
        StateWord::TimeUntrusted => {
            ("Check that the time servers of the site file can be reached.", "Prüfen, ob die Zeitserver der Standortdatei erreichbar sind.")
        }
        StateWord::AwaitProvision => ("Insert the stick labelled PROVISION.", "Den Stick mit der Bezeichnung PROVISION einstecken."),
        StateWord::ProvisionRejected => (
            "Read provision-report.txt on the stick; the manual lists the numbers.",
            "provision-report.txt auf dem Stick lesen; das Handbuch führt die Nummern auf.",
        ),
        StateWord::StoreFull => (
            "Bring the destination back, so that the queue can drain; it goes on by itself.",
            "Das Ziel wieder erreichbar machen, damit die Warteschlange abfließt; es geht von selbst weiter.",
        ),
        StateWord::Tamper => (
            "If nothing was changed on purpose, treat it as an incident. The recovery stick opens the storage.",
            "Wurde nichts absichtlich geändert, als Vorfall behandeln. Der Wiederherstellungs-Stick öffnet den Speicher.",
        ),
    };
    language.pick(english, german)
}
