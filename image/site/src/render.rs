//! From a site to the texts that the appliance's services read. Pure: the appliance writes them.

mod firewall;
mod network;
mod time;

use std::path::PathBuf;

use vitalgate_layout::path;

pub use firewall::render_firewall;
pub use network::render_network;
pub use time::render_time;

use crate::site::Site;

/// Name under which the update server's authorities are kept.
const UPDATE_AUTHORITY: &str = "update";
/// Name under which the time servers' authorities are kept.
pub(crate) const TIME_AUTHORITY: &str = "time";

/// Folders and names outside the site file that the daemon's configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The daemon's own folder.
    pub state_dir: PathBuf,
    /// Where destinations' authorities are; `None` leaves them out.
    pub authorities: Option<PathBuf>,
    /// The systemd credential with the key of the store; `None` lets the daemon keep its own.
    pub key_credential: Option<String>,
    /// What the appliance identifies itself with; `None` leaves it out.
    pub client_certificate: Option<OwnCertificate>,
}

/// The appliance's own certificate and where its key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCertificate {
    /// The certificate's file, PEM.
    pub file: PathBuf,
    /// The systemd credential with its key.
    pub key_credential: String,
}

impl Places {
    /// Those of the running appliance.
    pub fn of_the_appliance() -> Self {
        Self {
            state_dir: path::DAEMON_STATE.into(),
            authorities: Some(path::SITE_AUTHORITIES.into()),
            key_credential: Some(path::KEY_CREDENTIAL_NAME.to_owned()),
            client_certificate: Some(OwnCertificate {
                file: path::CLIENT_CERTIFICATE.into(),
                key_credential: path::CLIENT_KEY_CREDENTIAL_NAME.to_owned(),
            }),
        }
    }
}

/// The daemon's configuration on the appliance.
pub fn render_daemon_config(site: &Site) -> String {
    render_daemon_config_in(site, &Places::of_the_appliance())
}

/// The daemon's configuration with other folders.
pub fn render_daemon_config_in(site: &Site, places: &Places) -> String {
    site.passage.render(places)
}

/// Where the authorities of the update server or of the time servers are kept: under names that no
/// destination can have.
pub(crate) fn own_authority(name: &str) -> String {
    format!("{}/own+{name}.pem", path::SITE_AUTHORITIES)
}

/// Files that the other texts name, with their absolute paths: certificate authorities.
pub fn extra_files(site: &Site) -> Vec<(String, String)> {
    let update = site.update.as_ref().and_then(|update| update.ca_pem.as_ref());
    let own = [(UPDATE_AUTHORITY, update), (TIME_AUTHORITY, site.time.ca_pem.as_ref())];
    let own = own.into_iter().filter_map(|(name, pem)| Some((own_authority(name), pem?.clone())));
    let destinations = site.authorities.iter().map(|one| (format!("{}/{}.pem", path::SITE_AUTHORITIES, one.name), one.pem.clone()));
    destinations.chain(own).collect()
}
