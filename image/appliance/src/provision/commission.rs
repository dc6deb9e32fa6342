//! The second step: self test, credentials, report and recovery key onto the stick; then the window closes.

use std::path::Path;

use anyhow::Context as _;
use vitalgate_domain::DeviceId;
use vitalgate_layout::state::{Part, StateWord};
use vitalgate_layout::{fact, path, stick};
use vitalgate_site::{Signer, Site};

use super::credentials::Credentials;
use super::{Provisioning, is_commissioned};
use crate::identity::recovery_key;
use crate::report::{self, Report};
use crate::state_file::{now_unix_ms, remove, replace};
use crate::stick::{Mounted, Plugged, StickError, read_file, write_file};
use crate::text::for_windows;
use crate::{machine, self_test, site_file};

impl Provisioning<'_> {
    /// Tests, reports and closes the window. What goes wrong is said, and another stick is waited for.
    pub(super) fn commission(&self) -> anyhow::Result<()> {
        if is_commissioned(self.places) {
            return self.say_step();
        }
        let site = site_file::kept(self.places)?;
        let key = report::key(self.places)?;
        let test = self_test::run(&site, self.places, self.programs);
        self_test::say(&test, &self.states)?;
        let mut tried = None;
        loop {
            let plugged = self.next_stick(stick::PROVISION, &mut tried);
            match self.hand_over(&plugged, &site, &key, &test) {
                Ok(true) => break,
                Ok(false) => self.wait_on("this PROVISION stick holds another site file; plug in the one that was accepted", &site)?,
                Err(error) => self.wait_on(&format!("the report is not on the stick: {error:#}; plug it in once more"), &site)?,
            }
        }
        self.close_window()?;
        self.say_step()
    }

    fn wait_on(&self, detail: &str, site: &Site) -> anyhow::Result<()> {
        crate::cli::say(detail);
        self.say(StateWord::Enrolling, None, detail, self.facts(site))
    }

    /// Writes everything to the stick; `false` when it is not the one that the site file came from, which
    /// gets no credentials.
    pub(super) fn hand_over(&self, plugged: &Plugged, site: &Site, key: &Signer, test: &self_test::Outcome) -> anyhow::Result<bool> {
        let mounted = self.sticks.mount(plugged)?;
        let offered = read_file(mounted.folder(), stick::SITE_FILE, stick::SITE_FILE_BYTES_MAX)?;
        if offered.is_none() || offered != site_file::bytes(self.places).ok() {
            mounted.finish()?;
            return Ok(false);
        }
        let json = self.report_to(&*mounted, site, key, test, site.publishing_devices())?;
        self.write_recovery_key(mounted.folder())?;
        mounted.finish()?;
        replace(&self.places.at(path::COMMISSIONING_REPORT), json.as_bytes(), 0o600)?;
        Ok(true)
    }

    /// Writes the credentials of these devices and the report to a stick; gives the report.
    pub(super) fn report_to<'d>(
        &self,
        mounted: &dyn Mounted,
        site: &Site,
        key: &Signer,
        test: &self_test::Outcome,
        devices: impl Iterator<Item = &'d DeviceId>,
    ) -> anyhow::Result<String> {
        mounted.check_writable()?;
        let credentials = self.credentials(devices)?;
        let report = Report::new(self.places, &self.states, site, key, test, &credentials_of(&credentials))?;
        let (json, text) = (report.signed_json(key)?, report.signed_text(key)?);
        write_all(mounted, &credentials, &json, &text)?;
        Ok(json)
    }

    fn write_recovery_key(&self, folder: &Path) -> anyhow::Result<()> {
        let key = recovery_key(self.places).context(
            "what is in place of the recovery key cannot be handed over: power off and on; if that stays so, begin anew with RESET",
        )?;
        // Already taken away: the power went between the stick and the mark that the window is closed.
        let Some(key) = key else { return Ok(()) };
        let sealed = self.states.read(Part::Data).and_then(|state| state.facts.get(fact::SEALED).cloned());
        let copy = if sealed.as_deref() == Some(fact::SEALED_NO) {
            ".\nStorage is not sealed: the same key lies beside it on the disk,\nand whoever has the disk can read the stored readings."
        } else {
            "; the appliance has no copy."
        };
        let text = format!(
            "Vitalgate {}\n\nRecovery key. It opens the stored readings when the TPM does not. Print it or copy it\n\
             to a safe place, then delete this file{copy}\n\n{}\n\n\
             To use it, put this file on a stick labelled RECOVERY and power the appliance on.\n",
            machine::serial(self.places),
            key.text().as_str()
        );
        Ok(write_file(&folder.join(stick::RECOVERY_KEY), for_windows(&text).as_bytes())?)
    }

    /// From here on no stick is waited for.
    fn close_window(&self) -> anyhow::Result<()> {
        remove(&self.places.at(path::RECOVERY_KEY)).context("the recovery key cannot be removed")?;
        let now = format!("{}\n", machine::moment(now_unix_ms()));
        replace(&self.places.at(path::COMMISSIONED), now.as_bytes(), 0o600)
            .context("sealed storage does not take the mark; restart the appliance")
    }
}

fn credentials_of(credentials: &[Credentials]) -> Vec<report::Handed<'_>> {
    credentials.iter().map(|one| report::Handed { device: &one.device, folder: &one.folder, authority: one.authority() }).collect()
}

fn write_all(mounted: &dyn Mounted, credentials: &[Credentials], json: &str, text: &str) -> Result<(), StickError> {
    let devices = mounted.folder().join(stick::DEVICES);
    for one in credentials {
        for (name, bytes) in &one.files {
            write_file(&devices.join(&one.folder).join(name), bytes.as_bytes())?;
        }
    }
    if let Some(authority) = credentials.iter().find_map(Credentials::authority) {
        write_file(&devices.join("ca.pem"), authority)?;
    }
    write_file(&mounted.folder().join(stick::COMMISSIONING_REPORT), json.as_bytes())?;
    write_file(&mounted.folder().join(stick::COMMISSIONING_REPORT_TEXT), for_windows(text).as_bytes())
}
