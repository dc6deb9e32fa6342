//! Time sources: chrony's configuration.

use crate::check::{NTP_PORT, NTS_PORT};
use crate::render::{TIME_AUTHORITY, own_authority};
use crate::site::Site;

/// `chrony.conf` (chrony 4.3, chrony.conf(5)). Neither serves time nor takes commands from the network.
pub fn render_time(site: &Site) -> String {
    let mut text = String::from("# Made from the site file at each boot.\n");
    for source in &site.time.nts {
        let port = if source.port == NTS_PORT { String::new() } else { format!(" ntsport {}", source.port) };
        text.push_str(&format!("server {} iburst nts{port}\n", source.host));
    }
    for source in &site.time.ntp {
        let port = if source.port == NTP_PORT { String::new() } else { format!(" port {}", source.port) };
        text.push_str(&format!(
            "# Without proof of its origin: counts as synchronised, not as authenticated.\nserver {} iburst{port}\n",
            source.host
        ));
    }
    if site.time.ca_pem.is_some() {
        text.push_str(&format!("nosystemcert\nntstrustedcerts {}\n", own_authority(TIME_AUTHORITY)));
    }
    text.push_str(
        "# A clock at 1970 must not refuse every certificate for good: the first update is let through.\n\
         nocerttimecheck 1\n\
         # Where both kinds are there, a source without proof never outvotes those with it.\n\
         authselectmode prefer\n\
         driftfile /var/lib/chrony/drift\n\
         ntsdumpdir /var/lib/chrony\n\
         makestep 1.0 3\n\
         rtcsync\n\
         port 0\n\
         cmdport 0\n\
         bindcmdaddress /run/chrony/chronyd.sock\n\
         user _chrony\n",
    );
    text
}
