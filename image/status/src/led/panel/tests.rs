//! The driver over a real folder tree that looks as the kernel's does.

use std::os::unix::fs::symlink;

use super::*;

/// A folder of lights: links into the devices, as in `/sys/class/leds`.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("class/leds")).unwrap();
        Self(top)
    }

    fn class(&self) -> PathBuf {
        self.0.path().join("class/leds")
    }

    fn has(self, name: &str, files: &[(&str, &str)]) -> Self {
        let device = self.0.path().join("devices").join(name);
        fs::create_dir_all(&device).unwrap();
        let usual = [("brightness", "0\n"), ("max_brightness", "255\n"), ("trigger", "[none] timer heartbeat\n")];
        for (file, text) in usual.iter().chain(files) {
            fs::write(device.join(file), text).unwrap();
        }
        symlink(&device, self.class().join(name)).unwrap();
        self
    }

    fn file(&self, name: &str, file: &str) -> String {
        fs::read_to_string(self.class().join(name).join(file)).unwrap()
    }
}

/// Taken over from the kernel's trigger, lit and dark, and given back as it was.
#[test]
fn a_light_is_taken_lit_and_given_back() {
    let machine = Machine::new().has("green:status", &[("trigger", "none timer [heartbeat]\n"), ("brightness", "7\n")]);
    let machine = machine.has("input1::capslock", &[("trigger", "none [kbd-capslock]\n")]);
    let mut panel = Panel::of(machine.class());
    assert!(panel.is_empty());
    assert_eq!(panel.look(), None);
    assert!(!panel.is_empty());
    assert_eq!((machine.file("green:status", "trigger"), machine.file("green:status", "brightness")), ("none".into(), "0".into()));
    panel.show(Tone::Good, true);
    assert_eq!(machine.file("green:status", "brightness"), "255");
    panel.show(Tone::Good, false);
    assert_eq!(machine.file("green:status", "brightness"), "0");
    panel.show(Tone::Bad, true);
    panel.give_all_back();
    assert_eq!((machine.file("green:status", "trigger"), machine.file("green:status", "brightness")), ("heartbeat".into(), "7".into()));
    assert_eq!(machine.file("input1::capslock", "trigger"), "none [kbd-capslock]\n");
    assert!(panel.is_empty());
}

/// One that had no trigger gets its brightness back; one of several colours takes the tone's, and gives its own back.
#[test]
fn a_light_of_several_colours_takes_the_tones() {
    let parts =
        [("multi_index", "red green blue\n"), ("multi_intensity", "10 20 30\n"), ("max_brightness", "100\n"), ("brightness", "42\n")];
    let machine = Machine::new().has("rgb:status", &parts);
    let mut panel = Panel::of(machine.class());
    panel.look();
    for (tone, expected) in [(Tone::Good, "0 100 0"), (Tone::Busy, "0 0 100"), (Tone::Attention, "100 33 0"), (Tone::Bad, "100 0 0")] {
        panel.show(tone, true);
        assert_eq!(
            (machine.file("rgb:status", "multi_intensity").as_str(), machine.file("rgb:status", "brightness").as_str()),
            (expected, "100")
        );
    }
    panel.give_all_back();
    assert_eq!((machine.file("rgb:status", "multi_intensity"), machine.file("rgb:status", "brightness")), ("10 20 30".into(), "42".into()));
    assert_eq!(machine.file("rgb:status", "trigger"), "none");
}

/// A driver that loads late is found; a better light takes over, and the first one is what it was; one that is
/// pulled out stops nothing.
#[test]
fn lights_come_and_go() {
    let mut machine = Machine::new();
    let mut panel = Panel::of(machine.class());
    assert_eq!(panel.look(), None);
    machine = machine.has("green:power", &[("trigger", "none [default-on]\n")]);
    panel.look();
    panel.show(Tone::Good, true);
    assert_eq!(machine.file("green:power", "brightness"), "255");
    machine = machine.has("green:status", &[]);
    panel.look();
    panel.show(Tone::Good, true);
    assert_eq!((machine.file("green:power", "trigger"), machine.file("green:status", "brightness")), ("default-on".into(), "255".into()));
    fs::remove_dir_all(machine.0.path().join("devices/green:status")).unwrap();
    panel.show(Tone::Good, false);
    assert!(panel.is_empty());
    fs::remove_file(machine.class().join("green:status")).unwrap();
    panel.look();
    panel.show(Tone::Good, true);
    assert_eq!(machine.file("green:power", "brightness"), "255");
    assert_eq!(Panel::of(machine.0.path().join("nowhere")).look(), None);
}

/// A light that does not let itself be written is said once, not at once, and stops nothing; when it can be
/// written later, it is used, and what it was first is what it becomes again.
#[test]
fn a_light_that_takes_nothing_is_said_once() {
    let machine = Machine::new().has("green:status", &[("trigger", "none [heartbeat]\n")]);
    let brightness = machine.class().join("green:status/brightness");
    fs::remove_file(&brightness).unwrap();
    fs::create_dir(&brightness).unwrap();
    let mut panel = Panel::of(machine.class());
    let said: Vec<String> = (0..3 * FAILED_LOOKS_MAX).filter_map(|_| panel.look()).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("green:status"), "{said:?}");
    panel.show(Tone::Bad, true);
    fs::remove_dir(&brightness).unwrap();
    fs::write(&brightness, "3").unwrap();
    assert_eq!(panel.look(), None);
    panel.show(Tone::Bad, true);
    assert_eq!(fs::read_to_string(&brightness).unwrap(), "255");
    fs::remove_file(&brightness).unwrap();
    panel.show(Tone::Bad, false);
    fs::write(&brightness, "9").unwrap();
    panel.look();
    panel.give_all_back();
    assert_eq!((machine.file("green:status", "trigger"), fs::read_to_string(&brightness).unwrap()), ("heartbeat".into(), "3".into()));
}

/// Whatever lies in the folder, nothing panics and nothing waits.
#[test]
fn whatever_lies_in_the_folder_is_passed_over() {
    let machine = Machine::new().has("green:status", &[("max_brightness", "much\n")]).has("red:status", &[("trigger", "\u{1}\u{1}")]);
    fs::write(machine.class().join("blue:status"), "no folder").unwrap();
    symlink("amber:status", machine.class().join("amber:status")).unwrap();
    let mut panel = Panel::of(machine.class());
    panel.look();
    panel.show(Tone::Bad, true);
    assert_eq!(machine.file("red:status", "brightness"), "255");
    assert_eq!(machine.file("green:status", "brightness"), "0\n");
}
