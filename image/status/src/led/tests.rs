//! The rhythm over a real folder.

use std::fs;

use super::*;
use crate::led::rhythm::Rhythm;

fn one_light() -> (tempfile::TempDir, PathBuf) {
    let top = tempfile::tempdir().unwrap();
    let light = top.path().join("apu:green:1");
    fs::create_dir(&light).unwrap();
    for (file, text) in [("brightness", "0"), ("max_brightness", "1"), ("trigger", "none [heartbeat]")] {
        fs::write(light.join(file), text).unwrap();
    }
    (top, light)
}

/// The light follows the rhythm of the word from the moment it was said, and is dark once nobody says it any more.
#[test]
fn the_light_follows_the_word_and_goes_dark_without_it() {
    let (top, light_folder) = one_light();
    let brightness = || fs::read_to_string(light_folder.join("brightness")).unwrap();
    let mut panel = Panel::of(top.path().to_owned());
    let begun = Instant::now();
    assert_eq!(light(&mut panel, None, begun), WORD_STANDS);
    panel.look();
    let shown = Shown { word: StateWord::Tamper, begun, heard: begun };
    let mut now = begun;
    let mut flashes = 0;
    for (lit, length) in rhythm(StateWord::Tamper).round() {
        assert_eq!(light(&mut panel, Some(shown), now), length);
        assert_eq!(brightness(), if lit { "1" } else { "0" });
        flashes += usize::from(lit);
        now += length;
    }
    assert_eq!(Rhythm::Flashes { long: false, short: flashes }, rhythm(StateWord::Tamper));
    light(&mut panel, Some(shown), now);
    assert_eq!(brightness(), "1");
    // A moment at which the rhythm has light.
    let whole = now - begun;
    let forgotten = begun + whole * (WORD_STANDS.as_millis() / whole.as_millis() + 1).try_into().unwrap();
    assert!(rhythm(StateWord::Tamper).at(forgotten - begun).0 && forgotten - begun >= WORD_STANDS);
    light(&mut panel, Some(shown), forgotten);
    assert_eq!(brightness(), "0");
}

/// Whoever drops it gets the lights back.
#[test]
fn the_lights_are_given_back_at_the_end() {
    let (top, light_folder) = one_light();
    let leds = Leds::start(top.path().to_owned(), |_| {}).unwrap();
    leds.tell(StateWord::Ready);
    drop(leds);
    assert_eq!(fs::read_to_string(light_folder.join("trigger")).unwrap(), "heartbeat");
    let nowhere = Leds::start(top.path().join("nowhere"), |_| {}).unwrap();
    nowhere.tell(StateWord::Ready);
}
