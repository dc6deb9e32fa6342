//! Provisioning: from a signed site file on a stick to an appliance in service, in two steps.
//!
//! [`provision`] waits for the stick labelled `PROVISION`, checks the site file and keeps it; then the
//! network, the clock and the gateway start from it. [`commission`] tests the appliance in its place,
//! makes the devices' credentials, signs the report, writes all of that to the stick that the site file
//! came from, hands the recovery key over, and closes the window. A power cut repeats the step that it
//! met; a stick with garbage, or none at all, stops nothing. After that a `PROVISION` stick brings a
//! successor of the site file ([`in_service`]).

mod accept;
mod commission;
mod credentials;
mod successor;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Context as _;
use vitalgate_layout::state::{Part, StateWord};
use vitalgate_layout::{fact, path};
use vitalgate_site::Site;

pub(crate) use accept::read_site;
pub(crate) use credentials::make_credentials;
#[cfg(test)]
pub(crate) use successor::TRIAL_WAIT;
pub(crate) use successor::{in_service, wait_for_trial};

use crate::command::{Programs, System};
use crate::places::Places;
use crate::state_file::{Said, StateFiles};
use crate::stick::{ManagedSticks, Plugged, Sticks};
use crate::{machine, site_file};

/// Waits for the site file and keeps it; done at once when it is there.
pub(crate) fn provision() -> anyhow::Result<ExitCode> {
    let places = Places::system();
    Provisioning::system(&places, &ManagedSticks::of(&places)).accept()?;
    Ok(ExitCode::SUCCESS)
}

/// Tests, reports and closes the window; done at once when it is closed.
pub(crate) fn commission() -> anyhow::Result<ExitCode> {
    let places = Places::system();
    Provisioning::system(&places, &ManagedSticks::of(&places)).commission()?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the window is closed.
pub(crate) fn is_commissioned(places: &Places) -> bool {
    places.at(path::COMMISSIONED).exists()
}

/// Both steps with what they work on.
struct Provisioning<'a> {
    programs: &'a dyn Programs,
    places: &'a Places,
    states: StateFiles,
    sticks: &'a dyn Sticks,
}

impl<'a> Provisioning<'a> {
    fn system(places: &'a Places, sticks: &'a dyn Sticks) -> Self {
        Self { programs: &System, places, states: StateFiles::of(places), sticks }
    }

    /// Waits for a stick with this label that was not tried before.
    fn next_stick(&self, label: &str, tried: &mut Option<Plugged>) -> Plugged {
        loop {
            let found = self.sticks.find(label);
            match &found {
                Some(stick) if tried.as_ref() != Some(stick) => {
                    tried.clone_from(&found);
                    return stick.clone();
                }
                Some(_) => {}
                None => *tried = None,
            }
            self.sticks.pause();
        }
    }

    fn say(&self, word: StateWord, code: Option<u16>, detail: &str, facts: BTreeMap<String, String>) -> anyhow::Result<()> {
        self.states
            .say(Part::Provision, Said { word, code, detail, facts })
            .context("the state file cannot be written; restart the appliance")
    }

    /// What the status page shows of the site.
    fn facts(&self, site: &Site) -> BTreeMap<String, String> {
        let mut facts = BTreeMap::from([
            (fact::SITE.to_owned(), site.name.clone()),
            (fact::GATEWAY.to_owned(), site.gateway.to_string()),
            (fact::SERIAL.to_owned(), machine::serial(self.places)),
            (fact::TECHNICIAN.to_owned(), site.technician.clone()),
        ]);
        facts.extend(site_file::accepted_unix_ms(self.places).map(|accepted| (fact::ACCEPTED.to_owned(), machine::moment(accepted))));
        facts.extend(site.storage.unsealed_reason.iter().map(|reason| (fact::UNSEALED_REASON.to_owned(), reason.clone())));
        // By the file itself: a power cut may have left the moment of the one before it.
        let signer = site_file::kept_and_signer(self.places).ok();
        facts.extend(signer.map(|(_, signed_by)| (fact::SIGNED_BY.to_owned(), signed_by.to_string())));
        facts.extend(crate::report::facts(self.places));
        facts.extend(crate::identity::facts(self.places));
        facts
    }

    /// Whether storage is sealed, or the site's signer has allowed that it is not.
    fn storage_suits(&self, site: &Site) -> bool {
        let sealed = self.states.read(Part::Data).and_then(|state| state.facts.get(fact::SEALED).cloned());
        sealed.as_deref() != Some(fact::SEALED_NO) || site.storage.unsealed_allowed
    }

    /// Says in which step the appliance is.
    fn say_step(&self) -> anyhow::Result<()> {
        let site = site_file::kept(self.places)?;
        anyhow::ensure!(self.storage_suits(&site), "storage was opened without a seal, and the accepted site file does not allow that");
        let facts = self.facts(&site);
        if is_commissioned(self.places) {
            let owed = if self.places.at(path::OWED_TO_STICK).exists() { successor::OWED } else { "" };
            return self.say(StateWord::Ready, None, owed, facts);
        }
        self.say(StateWord::Enrolling, None, "leave the PROVISION stick in until the report is on it", facts)
    }
}

/// A site file for tests.
#[cfg(test)]
pub(crate) const SITE_EXAMPLE: &str = r#"
[site]
name = "Practice on the market square"
gateway = "practice-01"
serial = ["VG-0001"]
expires = "2099-12-31"
technician = "A. Example"
[[network]]
match = "en*"
dhcp = true
[mqtt]
port = 8883
server_names = ["192.0.2.10"]
[[device]]
id = "monitor-01"
profile = "vitals-json"
patient = "Patient/4711"
[[device]]
id = "bedside-1"
profile = "vitals-modbus"
modbus = { address = "127.0.0.1:9", unit = 1 }
[[destination]]
id = "ehr"
kind = "fhir"
url = "https://192.0.2.20:8443/fhir"
"#;
