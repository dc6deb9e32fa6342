//! A Python environment beside the build with the FHIR server `sekmet-fhir` and `fhir.resources` from PyPI.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// The packages and their versions.
const PACKAGE: &str = "sekmet-fhir==0.1.1";

/// The environment's `bin` folder, made on first use.
pub fn bin() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned();
    let folder = target.join("venv-sekmet");
    let lock = std::fs::File::create(target.join("venv-sekmet.lock")).unwrap();
    lock.lock().unwrap();
    let bin = folder.join("bin");
    if !bin.join("sekmet").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder), "install python3-venv");
        run(Command::new(bin.join("pip")).args(["install", "--quiet", PACKAGE]), "the test needs PyPI once");
    }
    bin
}

fn run(command: &mut Command, remedy: &str) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}; {remedy}"));
    assert!(status.success(), "{command:?} failed; {remedy}");
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
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
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
        let server = Self { child, url, _folder: folder };
        let listening = async {
            let mut pause = tokio::time::interval(Duration::from_millis(50));
            while TcpStream::connect(address).await.is_err() {
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
