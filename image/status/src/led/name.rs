//! Which lights are ours, by the names that Linux gives them: `device:colour:function`
//! (`Documentation/leds/leds-class.rst`; words of `include/dt-bindings/leds/common.h`).

use crate::page::panel::Tone;

/// Beginnings of a device's name, followed by a number, whose lights belong to that device: a keyboard, a memory
/// card, a radio.
const OF_OTHERS: [&str; 3] = ["input", "mmc", "phy"];

/// What a light is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// The condition of the machine; the best suited first: `status`, `indicator`, one that has a number only, `power`.
    Condition(u8),
    /// `fault` or `alarm`: only for what needs somebody.
    Fault,
}

/// The colour, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Colour {
    /// Takes any.
    Any,
    /// Green, lime.
    Green,
    /// Blue, cyan, violet.
    Blue,
    /// Amber, yellow, orange.
    Amber,
    /// Red.
    Red,
    /// White, or not said.
    Other,
}

/// A name that was understood.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    /// What it is for.
    pub(crate) purpose: Purpose,
    /// The number, where there are several.
    number: u32,
    /// The colour.
    pub(crate) colour: Colour,
    /// The whole name.
    pub(crate) full: String,
}

impl Name {
    /// Reads a name; `None` for a light of somebody else.
    pub(crate) fn parse(full: &str) -> Option<Self> {
        let sections: Vec<&str> = full.split(':').collect();
        let (device, colour, function) = match sections.as_slice() {
            [colour, function] => ("", *colour, *function),
            [device, colour, function] => (*device, *colour, *function),
            _ => return None,
        };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if OF_OTHERS.iter().any(|other| device.strip_prefix(other).is_some_and(is_number)) {
            return None;
        }
        // The kernel adds "_1" to a name that is taken, and drivers "-1" to one that they give several times.
        let function = function.rsplit_once('_').filter(|(_, clash)| is_number(clash)).map_or(function, |(own, _)| own);
        let (function, number) = match function.rsplit_once('-').filter(|(_, number)| is_number(number)) {
            Some((function, number)) => (function, number.parse().ok()?),
            None => (function, 0),
        };
        let (purpose, number) = match function {
            "status" => (Purpose::Condition(0), number),
            "indicator" => (Purpose::Condition(1), number),
            text if is_number(text) && !colour.is_empty() => (Purpose::Condition(2), text.parse().ok()?),
            "power" => (Purpose::Condition(3), number),
            "fault" | "alarm" => (Purpose::Fault, number),
            _ => return None,
        };
        Some(Self { purpose, number, colour: colour_of(colour)?, full: full.to_owned() })
    }
}

/// `None` for light that nobody sees.
fn colour_of(word: &str) -> Option<Colour> {
    Some(match word {
        "multicolor" | "rgb" => Colour::Any,
        "green" | "lime" => Colour::Green,
        "blue" | "cyan" | "violet" => Colour::Blue,
        "amber" | "yellow" | "orange" => Colour::Amber,
        "red" => Colour::Red,
        "ir" => return None,
        _ => Colour::Other,
    })
}

/// Those of a machine's lights that are used: one of each colour for the condition, of the best suited kind, and
/// every fault light. The others stay as they are.
pub(crate) fn chosen(names: impl IntoIterator<Item = Name>) -> Vec<Name> {
    let mut names: Vec<Name> = names.into_iter().collect();
    names.sort_unstable();
    let kind = names.first().map(|name| name.purpose);
    let mut colours = Vec::new();
    names.retain(|name| match name.purpose {
        Purpose::Fault => true,
        Purpose::Condition(_) if Some(name.purpose) != kind || colours.contains(&name.colour) => false,
        Purpose::Condition(_) => {
            colours.push(name.colour);
            true
        }
    });
    names
}

/// Whether this light of the chosen ones shows the rhythm of a word with this tone; the others are dark.
pub(crate) fn shows(chosen: &[Name], name: &Name, tone: Tone) -> bool {
    if name.purpose == Purpose::Fault {
        return matches!(tone, Tone::Attention | Tone::Bad);
    }
    let liked = match tone {
        Tone::Good => [Colour::Any, Colour::Green, Colour::Other, Colour::Blue, Colour::Amber, Colour::Red],
        Tone::Busy | Tone::Unknown => [Colour::Any, Colour::Blue, Colour::Other, Colour::Green, Colour::Amber, Colour::Red],
        Tone::Attention => [Colour::Any, Colour::Amber, Colour::Red, Colour::Other, Colour::Blue, Colour::Green],
        Tone::Bad => [Colour::Any, Colour::Red, Colour::Amber, Colour::Other, Colour::Blue, Colour::Green],
    };
    let condition = || chosen.iter().filter(|name| name.purpose != Purpose::Fault);
    let best = liked.into_iter().find(|colour| condition().any(|name| name.colour == *colour));
    Some(name.colour) == best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Vec<String> {
        chosen(names.iter().filter_map(|name| Name::parse(name))).into_iter().map(|name| name.full).collect()
    }

    fn shown(names: &[&str], tone: Tone) -> Vec<String> {
        let chosen = chosen(names.iter().filter_map(|name| Name::parse(name)));
        chosen.iter().filter(|name| shows(&chosen, name, tone)).map(|name| name.full.clone()).collect()
    }

    /// A keyboard's, a disk's, a network card's lights stay what they are.
    #[test]
    fn lights_of_others_are_left_alone() {
        for other in [
            "input3::numlock",
            "mmc0::status",
            "phy0-led",
            "phy1:green:status",
            "red:disk",
            "white:flash",
            ":kbd_backlight",
            "ACT",
            "",
            "a:b:c:status",
            "enp1s0:green:lan",
            "ir:status",
            "::",
            "platform::micmute",
            ":1",
            "green:status-x",
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    /// The boxes that Debian's kernel knows: PC Engines APU (`apu:green:1` to `3`), Siemens IPCs (two colours in
    /// three places), a single light, one that a driver had to name twice.
    #[test]
    fn one_light_a_colour_is_taken_of_the_best_kind() {
        assert_eq!(of(&["apu:green:3", "apu:green:1", "apu:green:2"]), ["apu:green:1"]);
        assert_eq!(
            of(&["red:status-2", "green:status-1", "red:status-1", "green:status-2", "green:power"]),
            ["green:status-1", "red:status-1"]
        );
        assert_eq!(of(&["green:power", "red:fault", "x:red:alarm-1"]), ["green:power", "red:fault", "x:red:alarm-1"]);
        assert_eq!(of(&["green:status_1", "input2::capslock"]), ["green:status_1"]);
        assert_eq!(of(&["platform:multicolor:status", "white:indicator"]), ["platform:multicolor:status"]);
        assert_eq!(of(&["input2::capslock"]), [""; 0]);
    }

    /// The colour that fits is used where there is one, any other where there is none; a fault light is no sign
    /// that all is well.
    #[test]
    fn the_fitting_colour_shows_the_word() {
        let two = ["red:status-1", "green:status-1"];
        assert_eq!(shown(&two, Tone::Good), ["green:status-1"]);
        assert_eq!(shown(&two, Tone::Busy), ["green:status-1"]);
        assert_eq!(shown(&two, Tone::Attention), ["red:status-1"]);
        assert_eq!(shown(&two, Tone::Bad), ["red:status-1"]);
        for tone in [Tone::Good, Tone::Busy, Tone::Attention, Tone::Bad] {
            assert_eq!(shown(&["apu:green:1"], tone), ["apu:green:1"]);
            assert_eq!(shown(&["rgb:status", "green:status"], tone), ["rgb:status"]);
        }
        assert_eq!(shown(&["green:power", "red:fault"], Tone::Good), ["green:power"]);
        assert_eq!(shown(&["green:power", "red:fault"], Tone::Bad), ["green:power", "red:fault"]);
        assert_eq!(shown(&["red:fault"], Tone::Busy), [""; 0]);
    }
}
