//! The command line: paths and addresses, each with the appliance's own as default.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use vitalgate_layout::{path, port};

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Arguments {
    /// Where the page is served.
    pub listen: SocketAddr,
    /// Where certificate and key are kept; may appear while the process runs.
    pub certificate_folder: PathBuf,
    /// The state files of the parts.
    pub state_folder: PathBuf,
    /// Our own state file.
    pub state_file: PathBuf,
    /// The daemon's loopback listener.
    pub daemon: SocketAddr,
    /// Terminals on which everything is drawn as a screen; `-` is standard error.
    pub screens: Vec<PathBuf>,
    /// The release file (os-release(5)).
    pub os_release: PathBuf,
    /// What the first program of the boot found.
    pub boot_env: PathBuf,
    /// The interfaces of sysfs.
    pub interfaces: PathBuf,
    /// The lights of sysfs.
    pub leds: PathBuf,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, port::STATUS_HTTPS)),
            certificate_folder: path::STATUS_STATE.into(),
            state_folder: path::STATE_FOLDER.into(),
            state_file: path::STATUS_FILE.into(),
            daemon: SocketAddr::from(([127, 0, 0, 1], port::DAEMON_CONSOLE)),
            screens: Vec::new(),
            os_release: "/etc/os-release".into(),
            boot_env: path::BOOT_ENV.into(),
            interfaces: "/sys/class/net".into(),
            leds: "/sys/class/leds".into(),
        }
    }
}

impl Arguments {
    /// Reads pairs of `--name value`.
    ///
    /// # Errors
    /// On an unknown name, a missing value, or an address that is none.
    pub fn parse(arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut parsed = Self::default();
        let mut arguments = arguments;
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
            let address = || value.parse().with_context(|| format!("{name}: {value:?} is no address with a port"));
            match name.as_str() {
                "--listen" => parsed.listen = address()?,
                "--daemon" => parsed.daemon = address()?,
                "--certificate-folder" => parsed.certificate_folder = value.into(),
                "--state-folder" => parsed.state_folder = value.into(),
                "--state-file" => parsed.state_file = value.into(),
                "--screen" => parsed.screens.push(value.into()),
                "--os-release" => parsed.os_release = value.into(),
                "--boot-env" => parsed.boot_env = value.into(),
                "--interfaces" => parsed.interfaces = value.into(),
                "--leds" => parsed.leds = value.into(),
                _ => bail!("{name} is no argument of vitalgate-status"),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> anyhow::Result<Arguments> {
        Arguments::parse(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    /// A misspelt argument in a unit is an error at the start, not a page on the wrong address.
    #[test]
    fn what_is_not_understood_is_refused() {
        let parsed = parse(&["--listen", "127.0.0.1:1", "--screen", "/dev/tty1", "--screen", "/dev/ttyS0"]).unwrap();
        assert_eq!((parsed.listen.port(), parsed.screens.len()), (1, 2));
        assert_eq!(parse(&[]).unwrap().listen.port(), port::STATUS_HTTPS);
        for wrong in [&["--listen"][..], &["--listen", "8443"], &["--daemon", "localhost"], &["--port", "1"], &["x"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
