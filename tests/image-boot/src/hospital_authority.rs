//! A hospital's own authority for clients, as its people would run it: with OpenSSL.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::command;

/// How long what it makes is valid, in days.
const VALID_DAYS: &str = "3650";
/// What the authority writes into a certificate for a client (RFC 5280, section 4.2.1).
const FOR_CLIENTS: &str = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n";

/// Key and certificate of the authority, in a folder.
pub(crate) struct HospitalAuthority {
    folder: PathBuf,
}

impl HospitalAuthority {
    /// A new one.
    ///
    /// # Errors
    /// When OpenSSL is missing or refuses.
    pub(crate) async fn new(folder: &Path) -> anyhow::Result<Self> {
        let authority = Self { folder: folder.to_owned() };
        std::fs::write(folder.join("for-clients.cnf"), FOR_CLIENTS)?;
        let (key, certificate) = (authority.key(), authority.certificate());
        let fixed = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", VALID_DAYS];
        let subject = ["-subj", "/O=Hospital of the boot tests/CN=Clients"];
        let files = [OsStr::new("-keyout"), key.as_os_str(), OsStr::new("-out"), certificate.as_os_str()];
        openssl(&[&fixed[..], &subject[..]].concat(), &files).await?;
        Ok(authority)
    }

    /// Its certificate as PEM.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn pem(&self) -> anyhow::Result<String> {
        std::fs::read_to_string(self.certificate()).context("the hospital's authority cannot be read")
    }

    /// Makes a certificate for a client of a request (PKCS #10), with the authority's own behind it, in a file `name`.
    ///
    /// # Errors
    /// When the request is none that OpenSSL signs.
    pub(crate) async fn issue(&self, request: &Path, name: &str) -> anyhow::Result<PathBuf> {
        let (key, authority, extensions) = (self.key(), self.certificate(), self.folder.join("for-clients.cnf"));
        let issued = self.folder.join(name);
        let files: [&OsStr; 10] = [
            "-in".as_ref(),
            request.as_os_str(),
            "-CA".as_ref(),
            authority.as_os_str(),
            "-CAkey".as_ref(),
            key.as_os_str(),
            "-extfile".as_ref(),
            extensions.as_os_str(),
            "-out".as_ref(),
            issued.as_os_str(),
        ];
        openssl(&["x509", "-req", "-days", VALID_DAYS, "-CAcreateserial"], &files).await?;
        let chain = std::fs::read_to_string(&issued)? + &self.pem()?;
        std::fs::write(&issued, chain)?;
        Ok(issued)
    }

    /// A certificate for somebody else's key.
    ///
    /// # Errors
    /// When OpenSSL refuses.
    pub(crate) async fn issue_to_a_stranger(&self) -> anyhow::Result<PathBuf> {
        let (key, request) = (self.folder.join("stranger.key"), self.folder.join("stranger.csr"));
        let fixed = ["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=Somebody else"];
        openssl(&fixed, &[OsStr::new("-keyout"), key.as_os_str(), OsStr::new("-out"), request.as_os_str()]).await?;
        self.issue(&request, "stranger.pem").await
    }

    fn key(&self) -> PathBuf {
        self.folder.join("hospital.key")
    }

    fn certificate(&self) -> PathBuf {
        self.folder.join("hospital.pem")
    }
}

async fn openssl(fixed: &[&str], files: &[&OsStr]) -> anyhow::Result<()> {
    let line = fixed.iter().map(OsStr::new).chain(files.iter().copied());
    command::run("openssl", line).await.map(drop)
}
