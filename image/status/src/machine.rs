//! The machine: release, slot, interfaces.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use serde::Serialize;

use crate::arguments::Arguments;
use crate::text::{plain, read_file};

/// Largest release or boot file, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024;
/// Most interfaces that are shown.
const INTERFACES_MAX: usize = 16;
/// Most addresses that are shown of one interface.
const ADDRESSES_MAX: usize = 8;

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What the kernel calls its state: `up`, `down`, ...
    pub state: String,
    /// Its hardware address.
    pub hardware: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// What the machine says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// The release file.
    pub release: BTreeMap<String, String>,
    /// What the first program of the boot found.
    pub boot: BTreeMap<String, String>,
    /// The interfaces, loopback left out.
    pub interfaces: Vec<Interface>,
}

impl Machine {
    /// Looks; what cannot be read is empty.
    #[must_use]
    pub fn look(arguments: &Arguments) -> Self {
        Self {
            release: assignments(&arguments.os_release),
            boot: assignments(&arguments.boot_env),
            interfaces: interfaces(&arguments.interfaces),
        }
    }

    /// A value of the release file.
    #[must_use]
    pub fn release(&self, key: &str) -> Option<&str> {
        self.release.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The version of the running image.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.release("IMAGE_VERSION").or_else(|| self.release("VERSION_ID"))
    }

    /// Addresses under which the page can be reached, the likeliest first.
    #[must_use]
    pub fn reachable(&self) -> Vec<IpAddr> {
        let up = self.interfaces.iter().filter(|interface| interface.state != "down");
        let mut addresses: Vec<IpAddr> = up.flat_map(|interface| interface.addresses.iter().copied()).collect();
        addresses.sort_by_key(|address| match address {
            IpAddr::V4(v4) if !v4.is_link_local() => 0,
            IpAddr::V6(v6) if !v6.is_unicast_link_local() => 1,
            IpAddr::V4(_) => 2,
            // Useless in a browser: it takes no zone.
            IpAddr::V6(_) => 3,
        });
        addresses.retain(|address| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()));
        addresses
    }
}

/// Lines of `KEY=value` or `KEY="value"`.
fn assignments(path: &Path) -> BTreeMap<String, String> {
    let bytes = read_file(path, FILE_BYTES_MAX).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().filter_map(|line| line.trim().split_once('='));
    lines.map(|(key, value)| (plain(key), plain(value.trim_matches(['"', '\''])))).collect()
}

fn interfaces(folder: &Path) -> Vec<Interface> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.retain(|name| name != "lo");
    names.sort_unstable();
    let mut addresses = addresses();
    let attribute = |name: &str, attribute: &str| {
        let bytes = read_file(&folder.join(name).join(attribute), FILE_BYTES_MAX).unwrap_or_default();
        plain(String::from_utf8_lossy(&bytes).trim())
    };
    let mut interface = |name: String| Interface {
        state: attribute(&name, "operstate"),
        hardware: attribute(&name, "address"),
        addresses: addresses.remove(&name).unwrap_or_default(),
        name: plain(&name),
    };
    // What is neither hardware nor in use is an idle invention of the kernel.
    let found = names.into_iter().map(|name| (folder.join(&name).join("device").exists(), interface(name)));
    let shown = found.filter(|(hardware, interface)| *hardware || !interface.addresses.is_empty()).map(|(_, interface)| interface);
    shown.take(INTERFACES_MAX).collect()
}

fn addresses() -> BTreeMap<String, Vec<IpAddr>> {
    let mut found: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return found };
    for entry in all {
        let Some(storage) = entry.address else { continue };
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let address = v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())));
        let known = found.entry(entry.interface_name).or_default();
        if let Some(address) = address
            && known.len() < ADDRESSES_MAX
        {
            known.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The release file is read in the form that os-release(5) gives it; anything else is left out.
    #[test]
    fn a_release_file_is_read_and_garbage_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("os-release");
        std::fs::write(&path, b"PRETTY_NAME=\"Vitalgate 0.1.0\"\n# x\nVERSION_ID=0.1.0\n\xff\n=\nSUPPORT_END=2031-12-31\n").unwrap();
        let machine = Machine { release: assignments(&path), ..Machine::default() };
        assert_eq!(machine.release("PRETTY_NAME"), Some("Vitalgate 0.1.0"));
        assert_eq!(machine.release("SUPPORT_END"), Some("2031-12-31"));
        assert_eq!(machine.release("BUILD_ID"), None);
        assert!(assignments(&folder.path().join("nowhere")).is_empty());
    }

    /// The address that a technician types stands first; one that no browser takes is left out.
    #[test]
    fn addresses_are_ordered_by_use() {
        let of = |addresses: &[&str]| addresses.iter().map(|address| address.parse().unwrap()).collect();
        let interface = |state: &str, addresses| Interface { name: "x".into(), state: state.into(), hardware: String::new(), addresses };
        let machine = Machine {
            interfaces: vec![
                interface("up", of(&["169.254.1.1", "fe80::1", "2001:db8::1", "192.0.2.7"])),
                interface("down", of(&["198.51.100.1"])),
            ],
            ..Machine::default()
        };
        assert_eq!(machine.reachable(), of(&["192.0.2.7", "2001:db8::1", "169.254.1.1"]));
    }

    /// Loopback is no interface of the page; the machine's own are found with a state.
    #[test]
    fn the_interfaces_of_this_machine_are_read() {
        let found = interfaces(Path::new("/sys/class/net"));
        assert!(found.iter().all(|interface| interface.name != "lo" && !interface.state.is_empty()), "{found:?}");
        assert!(interfaces(Path::new("/nowhere")).is_empty());
    }
}
