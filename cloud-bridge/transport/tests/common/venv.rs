//! A Python environment beside the build with the FHIR server `sekmet-fhir` and `fhir.resources` from PyPI.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use vitalgate_test_support::free_port;

/// The environment's `bin` folder; `tools/setup sekmet` makes it on first use.
pub fn bin() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let made = Command::new(root.join("tools/setup")).arg("sekmet").status();
    assert!(made.is_ok_and(|status| status.success()), "tools/setup sekmet failed: the test needs PyPI once");
    root.join("target/venv-sekmet/bin")
}

/// A running server that ends with the test.
pub struct Sekmet {
    child: Child,
    pub url: String,
    _folder: tempfile::TempDir,
}

impl Sekmet {
    pub async fn start() -> Self {
        let bin = tokio::task::spawn_blocking(bin).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        let url = format!("http://{address}/fhir");
        let child = Command::new(bin.join("sekmet"))
            .args(["serve", "--host", "127.0.0.1", "--port", &address.port().to_string()])
            .current_dir(folder.path())
            .env("SEKMET_BASE_URL", &url)
            .env("SEKMET_DB", folder.path().join("sekmet.db"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { child, url, _folder: folder };
        let listening = async {
            let mut pause = tokio::time::interval(Duration::from_millis(50));
            while TcpStream::connect(address).await.is_err() {
                let ended = server.child.try_wait().unwrap();
                assert!(ended.is_none(), "sekmet ended before it listened: {ended:?}");
                pause.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(90), listening).await.expect("sekmet listens within 90 s");
        server
    }
}

impl Drop for Sekmet {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
