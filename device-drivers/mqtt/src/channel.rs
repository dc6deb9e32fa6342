//! The topics of one device.

use std::sync::Arc;

use vitalgate_domain::DeviceId;

use crate::limits::{CHANNELS_MAX, TOPIC_BYTES_MAX};

/// Maps the device's topics to channels; the names of the few it uses are kept, not made anew for each message.
#[derive(Debug)]
pub(crate) struct Channels {
    prefix: String,
    time: String,
    acknowledgements: String,
    known: Vec<Arc<str>>,
    oldest: usize,
}

impl Channels {
    /// The topics of `device`.
    pub(crate) fn new(device: &DeviceId) -> Self {
        Self {
            prefix: format!("vitals/{device}/"),
            time: format!("devices/{device}/time"),
            acknowledgements: format!("devices/{device}/acknowledgements"),
            known: Vec::new(),
            oldest: 0,
        }
    }

    /// The channel of `vitals/<device-id>/<channel...>`; `None` for any other topic.
    pub(crate) fn of(&mut self, topic: &str) -> Option<Arc<str>> {
        if topic.len() > TOPIC_BYTES_MAX {
            return None;
        }
        let channel = topic.strip_prefix(self.prefix.as_str()).filter(|channel| !channel.is_empty())?;
        if let Some(known) = self.known.iter().find(|known| known.as_ref() == channel) {
            return Some(Arc::clone(known));
        }
        let channel: Arc<str> = Arc::from(channel);
        if self.known.len() < CHANNELS_MAX {
            self.known.push(Arc::clone(&channel));
        } else if let Some(place) = self.known.get_mut(self.oldest) {
            *place = Arc::clone(&channel);
            self.oldest = (self.oldest + 1) % CHANNELS_MAX;
        }
        Some(channel)
    }

    /// Where the device may hear the time.
    pub(crate) fn time_topic(&self) -> &str {
        &self.time
    }

    /// Where the device may hear how many of its messages are on disk.
    pub(crate) fn acknowledgements_topic(&self) -> &str {
        &self.acknowledgements
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_devices_own_topics_have_a_channel() {
        let mut channels = Channels::new(&DeviceId::new("m1").unwrap());
        assert_eq!(channels.of("vitals/m1/ecg/lead-2").as_deref(), Some("ecg/lead-2"));
        for foreign in ["vitals/m1", "vitals/m1/", "vitals/m10/a", "vitals/m2/a", "vitals/M1/a", "/vitals/m1/a", "vitals//a", "x"] {
            assert_eq!(channels.of(foreign), None, "{foreign}");
        }
        assert_eq!(channels.of(&format!("vitals/m1/{}", "x".repeat(TOPIC_BYTES_MAX))), None);
        for index in 0..3 * CHANNELS_MAX {
            assert_eq!(channels.of(&format!("vitals/m1/{index}")).as_deref(), Some(index.to_string().as_str()));
        }
        assert_eq!(channels.known.len(), CHANNELS_MAX);
    }
}
