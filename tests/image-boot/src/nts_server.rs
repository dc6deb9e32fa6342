//! A time server of the host that proves who it is (NTS, RFC 8915): a real chrony with an authority of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use vitalgate_test_support::{free_port, wait_until};

use crate::command;
use crate::practice::HOST;

/// The appliance lets time of such a server come from this port only: it is the one without a word of the server.
const NTP_PORT: u16 = 123;
/// Longest wait until it listens.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Authority and certificate of a time server.
pub(crate) struct Credentials {
    folder: TempDir,
}

/// A running server; it is killed when this is dropped.
pub(crate) struct NtsServer {
    /// Where keys are agreed on (TCP).
    pub(crate) port: u16,
    _chronyd: Child,
    _folder: TempDir,
}

impl Credentials {
    /// New ones.
    ///
    /// # Errors
    /// When openssl fails.
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let made = Self { folder: tempfile::tempdir()? };
        let common = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"];
        let authority = [made.file("ca.key"), made.file("ca.crt")];
        let mut line: Vec<&OsStr> = common.iter().map(OsStr::new).collect();
        line.extend(["-subj", "/CN=authority of time", "-keyout"].map(OsStr::new));
        line.extend([authority[0].as_os_str(), OsStr::new("-out"), authority[1].as_os_str()]);
        command::run("openssl", line).await?;
        let (key, certificate) = (made.file("server.key"), made.file("server.crt"));
        let name = format!("subjectAltName=IP:{HOST}");
        let mut line: Vec<&OsStr> = common.iter().map(OsStr::new).collect();
        line.extend(["-subj", "/CN=time", "-addext", &name, "-addext", "basicConstraints=critical,CA:FALSE", "-CA"].map(OsStr::new));
        line.extend([authority[1].as_os_str(), OsStr::new("-CAkey"), authority[0].as_os_str(), OsStr::new("-keyout")]);
        line.extend([key.as_os_str(), OsStr::new("-out"), certificate.as_os_str()]);
        command::run("openssl", line).await?;
        Ok(made)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The authority (PEM).
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn authority(&self) -> anyhow::Result<String> {
        std::fs::read_to_string(self.file("ca.crt")).context("no authority of the time server")
    }
}

impl NtsServer {
    /// Starts chrony on loopback, without touching this host's clock; `port` of an earlier one, or a free one.
    ///
    /// # Errors
    /// When it cannot be started: only root may answer on the port of NTP.
    pub(crate) async fn start(credentials: &Credentials, port: Option<u16>, log: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = match port {
            Some(port) => port,
            None => free_port()?,
        };
        let file = folder.path().join("chrony.conf");
        std::fs::write(&file, configuration(credentials, port, folder.path()))?;
        let log = std::fs::File::create(log)?;
        let chronyd = Command::new("chronyd")
            .args(["-d", "-x", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("chronyd cannot be started; `make setup-image` installs it")?;
        let listens = async || TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop);
        wait_until("chronyd's port; only root may serve time", READY_WITHIN, listens).await?;
        Ok(Self { port, _chronyd: chronyd, _folder: folder })
    }
}

/// `chrony.conf(5)` of chrony 4.3.
fn configuration(credentials: &Credentials, port: u16, folder: &Path) -> String {
    let (key, certificate, folder) = (credentials.file("server.key"), credentials.file("server.crt"), folder.display());
    format!(
        "local stratum 3\nallow 127.0.0.1\nbindaddress 127.0.0.1\nport {NTP_PORT}\nntsport {port}\nntsserverkey {}\nntsservercert {}\n\
         ntsdumpdir {folder}\npidfile {folder}/pid\ncmdport 0\nbindcmdaddress /\nuser root\n",
        key.display(),
        certificate.display()
    )
}
