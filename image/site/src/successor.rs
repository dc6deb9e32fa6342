//! What keeps a site file from following the one in service.

use std::collections::BTreeSet;

use vitalgate_config::{Destination, DestinationKind, canonical_url};
use vitalgate_domain::PatientReference;

use crate::site::Site;

impl Site {
    /// Why it may not follow `before` on an appliance in service: what readings depend on would be taken back. Empty where
    /// it may; holds neither patients nor secrets.
    pub fn obstacles_after(&self, before: &Self) -> Vec<String> {
        let mut obstacles = Vec::new();
        if self.gateway != before.gateway {
            obstacles.push(format!("gateway is {}: it stays {}, since readings are known by it", self.gateway, before.gateway));
        }
        if self.device_namespace != before.device_namespace {
            let (new, old) = (&self.device_namespace, &before.device_namespace);
            obstacles.push(format!("device_namespace is {new}: it stays {old}, since what a device sends again is known by it"));
        }
        for gone in before.destinations.iter().filter(|known| !self.destinations.iter().any(|one| one.id == known.id)) {
            obstacles.push(format!("destination {} is missing: what waits for it would never arrive", gone.id));
        }
        // What waits names such a patient by an id of the server of before, where another one may have somebody else under it.
        if before.names_literal_patients() {
            for known in &before.destinations {
                let stated =
                    self.same_server_as.iter().any(|(id, as_before)| *id == known.id.as_str() && Some(as_before) == url(known).as_ref());
                let moved = self.destinations.iter().any(|one| one.id == known.id && url(one) != url(known));
                if moved && !stated {
                    obstacles.push(format!(
                        "destination {} has another url: what waits for it names patients by ids of the server of before; if this is that \
                         server, name its url of before in same_server_as",
                        known.id
                    ));
                }
            }
        }
        if before.names_literal_patients() {
            let groups = self.of_patient_ids_of(before);
            let is_new = |one: &&Destination| !before.destinations.iter().any(|known| known.id == one.id);
            for new in self.destinations.iter().filter(is_new).filter(|new| !groups.contains(&self.patient_ids_of(new))) {
                obstacles.push(format!(
                    "destination {} is new and gets what is kept, which names patients by ids of another server; if it has the ids of a server \
                     of before, say so in same_patient_ids_as; otherwise bring first a file that names patients by identifier, and add it once \
                     nothing is queued, no dead letters are listed, and retention_days have passed since then",
                    new.id
                ));
            }
        }
        // Without a moment the patient is taken to have been there since ever: so it may only stay as it was.
        let since_ever = |site: &Self| -> Vec<_> {
            let devices = site.devices.iter().filter(|device| device.patient.is_some() && device.patient_since.is_none());
            devices.map(|device| (device.id.clone(), device.patient.clone())).collect()
        };
        let known = since_ever(before);
        for (device, _) in since_ever(self).iter().filter(|one| !known.contains(one)) {
            obstacles.push(format!("device {device}: say since when it has its patient, with patient_since"));
        }
        obstacles
    }

    fn names_literal_patients(&self) -> bool {
        self.devices.iter().any(|device| matches!(device.patient, Some(PatientReference::Literal(_))))
    }

    /// The destination whose ids of patients a destination has: its own, unless it is stated otherwise.
    fn patient_ids_of<'a>(&'a self, destination: &'a Destination) -> &'a str {
        let id = destination.id.as_str();
        self.same_patient_ids_as.iter().find(|(one, _)| one == id).map_or(id, |(_, as_of)| as_of)
    }

    /// Whose ids the patients of before have, as this file says it: those of a destination that was there. Where none was, those of
    /// the only one that there is now.
    fn of_patient_ids_of(&self, before: &Self) -> BTreeSet<&str> {
        let was_there = |one: &&Destination| before.destinations.iter().any(|known| known.id == one.id);
        let all: BTreeSet<_> = self.destinations.iter().map(|one| self.patient_ids_of(one)).collect();
        if before.destinations.is_empty() && all.len() == 1 {
            return all;
        }
        self.destinations.iter().filter(was_there).map(|one| self.patient_ids_of(one)).collect()
    }
}

fn url(destination: &Destination) -> Option<String> {
    match &destination.kind {
        DestinationKind::Fhir(fhir) => canonical_url(&fhir.url),
        _ => None,
    }
}
