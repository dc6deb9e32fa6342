//! Who a device is: what it proved must be what it calls itself.

use vitalgate_domain::DeviceId;

use crate::refusal::Refusal;
use crate::wire::connect::Connect;

/// What the endpoint asks of those who keep the devices' credentials.
pub trait Credentials: Send + Sync {
    /// If this is the device's password, a stamp that no other password of it has; not secret. Takes the same time
    /// whether the device exists or not.
    fn verify_password(&self, device: &DeviceId, password: &[u8]) -> Option<[u8; 32]>;

    /// Whether the device is configured here, not revoked, and may still use what it showed. Asked at CONNECT and
    /// every few seconds, so it must be quick.
    fn is_admitted(&self, device: &DeviceId, shown: &Shown) -> bool;
}

/// What a device was let in by. It must count for as long as the device is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Nothing, on a plain listener of this machine only.
    Nothing,
    /// The certificate with this SHA-256.
    Certificate([u8; 32]),
    /// The password with this stamp of [`Credentials::verify_password`].
    Password([u8; 32]),
}

/// The SHA-256 of a client certificate in DER.
pub(crate) type Fingerprint = [u8; 32];

/// What the transport proved before the first MQTT packet.
#[derive(Debug, Clone)]
pub(crate) enum Proof {
    /// Plain TCP that only this machine can reach: without a login the device is who it says.
    Loopback,
    /// Nothing, by TLS without a client certificate or by plain TCP that others can reach: a password must follow.
    Nothing,
    /// TLS with the certificate of this device.
    Certificate(DeviceId, Fingerprint),
}

/// Finds out who connects, and by what. An empty client id is taken as the device's own where the device proved itself.
pub(crate) fn identify(proof: &Proof, connect: &Connect, credentials: &dyn Credentials) -> Result<(DeviceId, Shown), Refusal> {
    let (device, shown) = match (proof, &connect.login) {
        (Proof::Certificate(device, fingerprint), _) => (device.clone(), Shown::Certificate(*fingerprint)),
        (Proof::Nothing | Proof::Loopback, Some(login)) => {
            let device = DeviceId::new(&login.username).map_err(|_invalid| Refusal::Credentials)?;
            let stamp = credentials.verify_password(&device, login.password.as_bytes()).ok_or(Refusal::Credentials)?;
            (device, Shown::Password(stamp))
        }
        (Proof::Nothing, None) => return Err(Refusal::Credentials),
        (Proof::Loopback, None) if connect.client_id.is_empty() => return Err(Refusal::NoClientId),
        (Proof::Loopback, None) => (DeviceId::new(&connect.client_id).map_err(|_invalid| Refusal::NotAdmitted)?, Shown::Nothing),
    };
    let claims_another = !connect.client_id.is_empty() && connect.client_id != device.as_str();
    let logs_in_as_another = match (proof, &connect.login) {
        (Proof::Certificate(..), Some(login)) => !login.username.is_empty() && login.username != device.as_str(),
        _ => false,
    };
    if claims_another || logs_in_as_another {
        return Err(Refusal::ForeignClientId);
    }
    if !credentials.is_admitted(&device, &shown) {
        return Err(Refusal::NotAdmitted);
    }
    Ok((device, shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Level;
    use crate::wire::connect::Login;

    struct Book;

    impl Credentials for Book {
        fn verify_password(&self, device: &DeviceId, password: &[u8]) -> Option<[u8; 32]> {
            (device.as_str() == "m1" && password == b"right").then_some([9; 32])
        }
        fn is_admitted(&self, device: &DeviceId, shown: &Shown) -> bool {
            device.as_str() != "revoked" && [Shown::Nothing, Shown::Certificate([7; 32]), Shown::Password([9; 32])].contains(shown)
        }
    }

    fn connect(client_id: &str, login: Option<(&str, &str)>) -> Connect {
        let login = login.map(|(username, password)| Login { username: username.to_owned(), password: password.to_owned() });
        Connect {
            level: Level::V5,
            client_id: client_id.to_owned(),
            clean: true,
            keep_alive_s: 0,
            session_expiry_s: 0,
            will_delay_s: None,
            login,
            packet_bytes_max: usize::MAX,
        }
    }

    fn certificate(device: &str, byte: u8) -> Proof {
        Proof::Certificate(DeviceId::new(device).unwrap(), [byte; 32])
    }

    /// Nobody may speak for another device, whatever it proved about itself.
    #[test]
    fn what_is_proven_must_be_what_is_claimed() {
        let cases = [
            (certificate("m1", 7), connect("m1", None), Ok("m1")),
            (certificate("m1", 7), connect("", None), Ok("m1")),
            (certificate("m1", 7), connect("m2", None), Err(Refusal::ForeignClientId)),
            (certificate("m1", 7), connect("m1", Some(("m2", "x"))), Err(Refusal::ForeignClientId)),
            (certificate("m1", 8), connect("m1", None), Err(Refusal::NotAdmitted)),
            (certificate("revoked", 7), connect("revoked", None), Err(Refusal::NotAdmitted)),
            (Proof::Nothing, connect("m1", Some(("m1", "right"))), Ok("m1")),
            (Proof::Nothing, connect("m1", Some(("m1", "wrong"))), Err(Refusal::Credentials)),
            (Proof::Nothing, connect("m2", Some(("m1", "right"))), Err(Refusal::ForeignClientId)),
            (Proof::Nothing, connect("m1", None), Err(Refusal::Credentials)),
            (Proof::Nothing, connect("m1", Some(("../m1", "right"))), Err(Refusal::Credentials)),
            (Proof::Loopback, connect("m1", None), Ok("m1")),
            (Proof::Loopback, connect("", None), Err(Refusal::NoClientId)),
            (Proof::Loopback, connect("a/b", None), Err(Refusal::NotAdmitted)),
            (Proof::Loopback, connect("revoked", None), Err(Refusal::NotAdmitted)),
            (Proof::Loopback, connect("m1", Some(("m1", "right"))), Ok("m1")),
            (Proof::Loopback, connect("", Some(("m1", "right"))), Ok("m1")),
            (Proof::Loopback, connect("m1", Some(("m1", "wrong"))), Err(Refusal::Credentials)),
            (Proof::Loopback, connect("m1", Some(("m2", "right"))), Err(Refusal::Credentials)),
            (Proof::Loopback, connect("m2", Some(("m1", "right"))), Err(Refusal::ForeignClientId)),
            (Proof::Loopback, connect("m1", Some(("", ""))), Err(Refusal::Credentials)),
        ];
        for (index, (proof, connect, expected)) in cases.into_iter().enumerate() {
            let found = identify(&proof, &connect, &Book);
            assert_eq!(found.as_ref().map(|(device, _)| device.as_str()).map_err(|refusal| *refusal), expected, "case {index}");
        }
    }
}
