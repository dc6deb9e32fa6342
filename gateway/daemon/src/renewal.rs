//! The listener's certificate is looked at once a day, and follows before it ends, without a restart.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use vitalgate_domain::{GatewayId, Now, UnixMs};
use vitalgate_trust::{LocalAuthority, ServedCertificate};

/// Time between two looks, in milliseconds (one day).
const LOOK_INTERVAL_MS: u64 = 86_400_000;
/// Time until a renewal that failed is tried again, in milliseconds (one hour).
const RETRY_MS: u64 = 3_600_000;

/// Keeps the listener's certificate.
pub(crate) struct Renewal {
    authority: Arc<LocalAuthority>,
    names: Vec<String>,
    served: ServedCertificate,
    next_ms: u64,
}

impl Renewal {
    /// Opens or makes the local authority and the listener's certificate.
    ///
    /// # Errors
    /// When either cannot be had.
    pub(crate) fn start(folder: &Path, gateway: &GatewayId, names: &[String], now: &Now) -> anyhow::Result<Self> {
        let authority = LocalAuthority::open_or_create(folder, gateway).context("the local authority cannot be opened")?;
        let certificate = authority.issue_server_at(names, seconds(now)).context("no server certificate for devices")?;
        let served = ServedCertificate::new(certificate.chain, certificate.key).context("the server certificate cannot be used")?;
        let next_ms = now.monotonic_ms.saturating_add(LOOK_INTERVAL_MS);
        let renewal = Self { authority: Arc::new(authority), names: names.to_vec(), served, next_ms };
        renewal.tell_of_clock(now);
        Ok(renewal)
    }

    /// What the listener shows.
    pub(crate) fn served(&self) -> &ServedCertificate {
        &self.served
    }

    /// The authority's certificate in PEM.
    pub(crate) fn authority_pem(&self) -> &str {
        self.authority.ca_certificate_pem()
    }

    /// Whether the next look is due.
    pub(crate) fn is_due(&self, now: &Now) -> bool {
        now.monotonic_ms >= self.next_ms
    }

    /// Looks, and shows a new certificate where one was made. It reads and writes files and shakes hands
    /// with itself: some ten milliseconds.
    pub(crate) fn look(&mut self, now: &Now) {
        self.tell_of_clock(now);
        self.next_ms = now.monotonic_ms.saturating_add(match self.renew(now) {
            Ok(_) => LOOK_INTERVAL_MS,
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "the listener's certificate cannot be renewed; the one in use stays, and it is tried again in an hour");
                RETRY_MS
            }
        });
    }

    /// Whether another certificate is shown from now on.
    fn renew(&self, now: &Now) -> anyhow::Result<bool> {
        let certificate = self.authority.issue_server_at(&self.names, seconds(now))?;
        // Not only one that was made just now: a renewal that failed behind its last step left one on the disk.
        let is_another = self.served.replace(certificate.chain, certificate.key)?;
        if is_another {
            tracing::info!("devices that connect from now on are shown a new certificate");
        }
        Ok(is_another)
    }

    /// Beyond the authority's end there is no certificate to renew. The clock is wrong, or a new authority is due.
    fn tell_of_clock(&self, now: &Now) {
        let ends_unix_s = self.authority.ends_unix_s();
        if seconds(now) > ends_unix_s {
            let ended = UnixMs(i64::try_from(ends_unix_s).unwrap_or(i64::MAX).saturating_mul(1_000)).rfc3339(0);
            let clock = now.wall.rfc3339(0);
            tracing::warn!(
                "the clock says {clock}, and the local authority ended {ended}: check the clock; devices that show a certificate are not let in"
            );
        }
    }
}

fn seconds(now: &Now) -> u64 {
    u64::try_from(now.wall.0 / 1_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use vitalgate_domain::{BootId, ClockTrust};

    use super::*;

    const DAY_MS: u64 = 86_400_000;
    const START: UnixMs = UnixMs(1_795_341_600_000);

    fn on_day(day: u64) -> Now {
        let wall = START.plus_ms(i64::try_from(day * DAY_MS).unwrap());
        Now { wall, monotonic_ms: 5_000 + day * DAY_MS, boot: BootId::from_bytes([1; 16]), trust: ClockTrust::Free }
    }

    /// Twelve years of a gateway that is never restarted, by the virtual clock: one look a day, one new certificate, a year
    /// before the first one ends.
    #[test]
    fn the_certificate_follows_a_year_before_it_ends_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["gateway.local".to_owned()];
        let mut renewal = Renewal::start(folder.path(), &GatewayId::new("g1").unwrap(), &names, &on_day(0)).unwrap();
        let stored = || std::fs::read(folder.path().join("server.pem")).unwrap();
        let mut before = stored();
        let mut renewed_on = Vec::new();
        // Every eleventh day is enough to see the year; each look comes when it is due and not before.
        for day in (11..12 * 365).step_by(11) {
            assert!(renewal.is_due(&on_day(day)));
            renewal.look(&on_day(day));
            assert!(!renewal.is_due(&on_day(day)), "once a day");
            let now = stored();
            if now != before {
                renewed_on.push(day);
                before = now;
            }
        }
        let [day] = renewed_on.as_slice() else { panic!("{renewed_on:?}") };
        assert!((9 * 365 - 5..9 * 365 + 15).contains(day), "renewed on day {day}");
    }

    /// A certificate that came to the disk by a renewal that failed behind its last step is shown at the next look.
    #[test]
    fn what_a_failed_renewal_left_on_the_disk_is_shown_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (gateway, names) = (GatewayId::new("g1").unwrap(), ["gateway.local".to_owned()]);
        let renewal = Renewal::start(folder.path(), &gateway, &names, &on_day(0)).unwrap();
        assert!(!renewal.renew(&on_day(1)).unwrap());
        let due = on_day(9 * 365 + 30);
        let other = LocalAuthority::open_or_create(folder.path(), &gateway).unwrap();
        assert!(other.issue_server_at(&names, seconds(&due)).unwrap().reissued);
        assert!(renewal.renew(&due).unwrap(), "another one than before is shown");
        assert!(!renewal.renew(&due).unwrap());
    }

    /// Readings are taken and delivered also with a clock that is decades ahead.
    #[test]
    fn a_clock_beyond_the_authority_keeps_nothing_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let (gateway, names) = (GatewayId::new("g1").unwrap(), ["gateway.local".to_owned()]);
        Renewal::start(folder.path(), &gateway, &names, &on_day(0)).unwrap();
        let ahead = on_day(40 * 365);
        let mut renewal = Renewal::start(folder.path(), &gateway, &names, &ahead).unwrap();
        renewal.look(&ahead);
        assert!(!renewal.renew(&ahead).unwrap(), "it is the same at each look");
        Renewal::start(folder.path(), &gateway, &names, &on_day(0)).unwrap();
    }

    /// A disk that cannot be written leaves the certificate in use, and is asked again within the hour.
    #[test]
    fn a_renewal_that_fails_is_tried_again_and_breaks_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("trust");
        let names = ["gateway.local".to_owned()];
        let mut renewal = Renewal::start(&place, &GatewayId::new("g1").unwrap(), &names, &on_day(0)).unwrap();
        std::fs::rename(&place, folder.path().join("elsewhere")).unwrap();
        renewal.look(&on_day(1));
        let in_an_hour = Now { monotonic_ms: on_day(1).monotonic_ms + RETRY_MS, ..on_day(1) };
        assert!(!renewal.is_due(&on_day(1)) && renewal.is_due(&in_an_hour));
        std::fs::rename(folder.path().join("elsewhere"), &place).unwrap();
        renewal.look(&in_an_hour);
        assert!(!renewal.is_due(&in_an_hour));
    }
}
