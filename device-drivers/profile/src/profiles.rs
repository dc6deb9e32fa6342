//! The profiles that are known: the built-in ones and those of the site.

use std::collections::BTreeMap;
use std::sync::Arc;

use vitalgate_domain::name::NAME_BYTES_MAX;
use vitalgate_domain::{DeviceTime, Flags, Received};

use crate::document::{Report, Section};
use crate::error::ProfileErrors;
use crate::json_profile::PublishProfile;
use crate::registers_profile::PolledProfile;

/// Largest profile file, in bytes.
pub const PROFILE_FILE_BYTES_MAX: usize = 256 * 1024;
/// Most profiles that one gateway loads.
const PROFILES_MAX: usize = 1_000;

const BUILTIN: &[(&str, &str)] = &[
    ("vitals-json.toml", include_str!("../profiles/vitals-json.toml")),
    ("vitals-json-flat.toml", include_str!("../profiles/vitals-json-flat.toml")),
    ("vitals-modbus.toml", include_str!("../profiles/vitals-modbus.toml")),
];

/// How a kind of device reports, and how what it says is read.
#[derive(Debug)]
pub struct Profile {
    id: Arc<str>,
    version: Arc<str>,
    kind: Kind,
}

/// The two ways of a device.
#[derive(Debug)]
pub enum Kind {
    /// It sends messages by itself.
    Publish(PublishProfile),
    /// It is asked.
    Polled(PolledProfile),
}

impl Profile {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its version, as its file says.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// How its devices report.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The marks of a device's time beside the time of its arrival, where that is known only later.
    /// A time that the profile has no rule for is doubted.
    #[must_use]
    pub fn doubts(&self, time: DeviceTime, received: &Received) -> Flags {
        let rule = match &self.kind {
            Kind::Publish(publish) => publish.time.as_ref(),
            Kind::Polled(_) => None,
        };
        rule.map_or(Flags::CLOCK_DOUBTFUL, |(_, rule)| rule.doubts(time, received))
    }
}

/// All profiles by name, each valid: there is no way to hold one that was not checked.
#[derive(Debug, Default)]
pub struct Profiles(BTreeMap<Arc<str>, Arc<Profile>>);

impl Profiles {
    /// The built-in profiles.
    ///
    /// # Errors
    /// A fault of a built-in profile; a test keeps that from being released.
    pub fn builtin() -> Result<Self, ProfileErrors> {
        let mut profiles = Self::default();
        for (file, text) in BUILTIN {
            profiles.load(file, text)?;
        }
        Ok(profiles)
    }

    /// Checks and adds a profile, and gives its id. With any fault nothing is added.
    ///
    /// # Errors
    /// Every fault of the file at once, each with line, place and remedy.
    pub fn load(&mut self, file_name: &str, toml_text: &str) -> Result<Arc<str>, ProfileErrors> {
        if toml_text.len() > PROFILE_FILE_BYTES_MAX {
            let mut report = Report::new(file_name, "");
            report.add(1, "", format!("the file is larger than {PROFILE_FILE_BYTES_MAX} bytes"), "split the profile");
            return report.finish(None);
        }
        let mut report = Report::new(file_name, toml_text);
        let document = report.parse(toml_text);
        let profile = self.read(Section::root(&document), &mut report);
        let profile = report.finish(profile)?;
        let id = profile.id.clone();
        self.0.insert(id.clone(), Arc::new(profile));
        Ok(id)
    }

    fn read(&self, mut root: Section<'_>, report: &mut Report) -> Option<Profile> {
        let id = root.required_text(report, "id");
        if let Some(id) = &id {
            let plain = id.value.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            if !plain || id.value.len() > NAME_BYTES_MAX {
                report.at(id, "is not an id", format!("use at most {NAME_BYTES_MAX} characters of a-z, 0-9 and '-'"));
            }
            if self.0.contains_key(id.value) {
                report.at(id, format!("{:?} is the id of a profile that is already loaded", id.value), "choose another id");
            }
        }
        if self.0.len() >= PROFILES_MAX {
            root.fault(report, format!("more than {PROFILES_MAX} profiles are loaded"), "take unused profiles out of the folder");
        }
        let version = root.required_text(report, "version");
        root.text(report, "title");
        root.source(report);
        let publish = root.section(report, "publish").map(|mut section| {
            let publish = PublishProfile::load(&mut section, report);
            section.close(report);
            Kind::Publish(publish)
        });
        let polled = root.section(report, "polled").map(|mut section| {
            let polled = PolledProfile::load(&mut section, report);
            section.close(report);
            Kind::Polled(polled)
        });
        if publish.is_some() == polled.is_some() {
            root.fault(report, "a profile either publishes or is polled", "keep exactly one of [publish] and [polled]");
        }
        root.close(report);
        Some(Profile { id: Arc::from(id?.value), version: Arc::from(version?.value), kind: publish.or(polled)? })
    }

    /// The profile of that id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<Profile>> {
        self.0.get(id).cloned()
    }

    /// Every id, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(AsRef::as_ref)
    }
}
