//! What keeps a site file from following the one in service.

use crate::site::Site;

impl Site {
    /// Why it may not follow `before` on an appliance in service: what readings depend on would be taken back. Empty where
    /// it may; holds neither patients nor secrets.
    pub fn obstacles_after(&self, before: &Self) -> Vec<String> {
        let mut obstacles = Vec::new();
        if self.gateway != before.gateway {
            obstacles.push(format!("gateway is {}: it stays {}, since readings are known by it", self.gateway, before.gateway));
        }
        for gone in before.destinations.iter().filter(|known| !self.destinations.iter().any(|one| one.id == known.id)) {
            obstacles.push(format!("destination {} is missing: what waits for it would never arrive", gone.id));
        }
        for device in self.devices.iter().filter(|device| device.patient.is_some() && device.patient_since.is_none()) {
            if before.devices.iter().any(|known| known.id == device.id && known.patient != device.patient) {
                obstacles.push(format!("device {} has another patient: say since when with patient_since", device.id));
            }
        }
        obstacles
    }
}
