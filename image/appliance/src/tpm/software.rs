//! A TPM in software (swtpm), for tests.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::DEVICE;
use crate::pause::pause;
use crate::places::Places;

/// Longest wait for swtpm's socket.
const READY_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A TPM with its power on. Dropping it cuts its power: nothing tells it to shut down.
pub(crate) struct SoftwareTpm {
    process: Child,
    pub(crate) socket: PathBuf,
}

impl SoftwareTpm {
    /// What it keeps is in this folder.
    pub(crate) fn on(folder: &Path) -> Self {
        let socket = folder.join("socket");
        let control = folder.join("socket.ctrl");
        for old in [&socket, &control] {
            let _ = std::fs::remove_file(old);
        }
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "startup-clear", "--tpmstate"])
            .arg(format!("dir={}", folder.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", control.display()))
            .spawn()
            .expect("swtpm is installed");
        let began = Instant::now();
        // A socket has its name before it takes connections.
        while ![&socket, &control].iter().all(|path| UnixStream::connect(path).is_ok()) {
            assert!(began.elapsed() < READY_WITHIN, "swtpm takes no connections");
            pause(LOOK_EVERY);
        }
        Self { process, socket }
    }

    /// The same as the TPM of an appliance below this folder.
    pub(crate) fn in_place(folder: &Path) -> (Self, Places) {
        let places = Places::under(folder);
        let device = places.at(DEVICE);
        std::fs::create_dir_all(device.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&device);
        let state = folder.join("tpm");
        std::fs::create_dir_all(&state).unwrap();
        let tpm = Self::on(&state);
        std::os::unix::fs::symlink(&tpm.socket, device).unwrap();
        (tpm, places)
    }

    /// What one of tpm2-tools says.
    pub(crate) fn tool(&self, name: &str, arguments: &[&str]) -> Output {
        Command::new(name)
            .args(arguments)
            .env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.socket.display()))
            .stdin(Stdio::null())
            .output()
            .expect("tpm2-tools are installed")
    }

    /// The same, which must end well.
    pub(crate) fn run(&self, name: &str, arguments: &[&str]) {
        let output = self.tool(name, arguments);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// What is loaded, by its handles.
    pub(crate) fn loaded(&self) -> String {
        let output = self.tool("tpm2_getcap", &["handles-transient"]);
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for SoftwareTpm {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
