//! The file system in the opened volume is looked at before it is mounted: a power cut on flash may damage what the journal does
//! not cover, and a file system that was found damaged in service is read-only until somebody mends it.

use std::time::Duration;

use super::volume::Volume;
use crate::cli::say;
use crate::command::Call;

/// What one look may take, in seconds: a large disk that is read as a whole. One without damage takes less than a second.
const CHECK_DEADLINE_S: u64 = 1800;
/// What it may take until all of it is mended, in seconds: a second look mends what the first did not.
pub(crate) const CHECKS_DEADLINE_S: u64 = 2 * CHECK_DEADLINE_S;
/// Most lines of what was found that are logged.
const LINES_MAX: usize = 20;
/// Exit codes are sums (e2fsck(8)): damage was mended.
const MENDED: i32 = 1;
/// Damage is left.
const LEFT: i32 = 4;
/// It could not begin, such as with a damaged superblock, which `-y` takes from its copy.
const NOT_BEGUN: i32 = 8;

/// What was found, for a person.
const WAS_MENDED: &str = "the file system was damaged and is mended, see the log; if it comes again, replace the disk";
pub(super) const IS_DAMAGED: &str = "the file system is damaged and was not mended; replace the disk";

impl Volume<'_> {
    /// Mends the file system in the opened volume, which is not mounted; says what was found. A check that does not run, or does
    /// not end, keeps nothing closed: whether it can be mounted shows after that.
    pub(super) fn check(&self) -> Option<&'static str> {
        let code = self.run_check("-p")?;
        // What it mends only when told to is worth nothing to anybody else either: nobody stands by to be asked.
        let code = if code & (LEFT | NOT_BEGUN) == 0 { code } else { self.run_check("-y").unwrap_or(LEFT) };
        match code {
            left if left & LEFT != 0 => Some(IS_DAMAGED),
            mended if mended & MENDED != 0 => Some(WAS_MENDED),
            _ => None,
        }
    }

    /// The exit code, if the program ran to its end.
    fn run_check(&self, how: &str) -> Option<i32> {
        let call = Call::new("e2fsck", "the storage is mounted as it is")
            .arguments([how])
            .arguments([Self::mapping(self.places)])
            .deadline(Duration::from_secs(CHECK_DEADLINE_S));
        let answer = self.programs.attempt(call).inspect_err(|error| say(&error.to_string())).ok()?;
        if answer.code != Some(0) {
            let text = format!("{}\n{}", answer.text(), answer.complaint);
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            lines.take(LINES_MAX).for_each(|line| say(&format!("e2fsck {how}: {line}")));
        }
        answer.code
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::command::{Answer, CommandError, Programs, System};
    use crate::places::Places;

    fn check(places: &Places, programs: &dyn Programs) -> Option<&'static str> {
        Volume { programs, places, device: Path::new("/dev/vda6") }.check()
    }

    /// A file system in a plain file, made and then changed by these commands of debugfs.
    fn damaged(places: &Places, commands: &str) {
        fs::create_dir_all(places.at("/dev/mapper")).unwrap();
        fs::create_dir_all(places.at("/content/appliance")).unwrap();
        fs::write(places.at("/content/appliance/file"), "kept").unwrap();
        fs::write(places.at("/commands"), commands).unwrap();
        let mapping = Volume::mapping(places);
        fs::File::create(&mapping).unwrap().set_len(16 << 20).unwrap();
        let make = Call::new("mkfs.ext4", "").arguments(["-q", "-F", "-d"]).arguments([&places.at("/content"), &mapping]);
        System.run(make).unwrap();
        System.run(Call::new("debugfs", "").arguments(["-w", "-f"]).arguments([&places.at("/commands"), &mapping])).unwrap();
    }

    /// What power cuts and bad flash leave is mended before anybody mounts it, and said: the mark that damage was met in service,
    /// what is mended without asking, and what is not. A journal that is played back is no damage.
    #[test]
    fn a_damaged_file_system_is_mended_by_the_real_program() {
        let damage = [
            ("", None),
            ("jo\njw -b 1000 /dev/zero\njc", None),
            ("ssv state 2", Some(WAS_MENDED)),
            ("clri /appliance/file\nssv state 2", Some(WAS_MENDED)),
            ("sif /appliance/file mode 0\nssv state 2", Some(WAS_MENDED)),
        ];
        for (commands, said) in damage {
            let folder = tempfile::tempdir().unwrap();
            let places = Places::under(folder.path());
            damaged(&places, commands);
            assert_eq!(check(&places, &System), said, "{commands}");
            System.run(Call::new("e2fsck", "").arguments(["-fn"]).arguments([Volume::mapping(&places)])).unwrap();
            assert_eq!(check(&places, &System), None, "{commands}");
        }
    }

    /// A superblock that is gone comes back from its copy.
    #[test]
    fn a_lost_superblock_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::under(folder.path());
        damaged(&places, "");
        let mut bytes = fs::read(Volume::mapping(&places)).unwrap();
        bytes[1024..2048].fill(0xff);
        fs::write(Volume::mapping(&places), bytes).unwrap();
        assert_eq!(check(&places, &System), Some(WAS_MENDED));
    }

    /// Ends with this code, or not at all.
    struct Ends(Option<i32>);

    impl Programs for Ends {
        fn attempt(&self, call: Call) -> Result<Answer, CommandError> {
            match self.0 {
                Some(code) => Ok(Answer { code: Some(code), ..Answer::default() }),
                None => Err(CommandError::Deadline { program: call.program(), seconds: 1, remedy: "" }),
            }
        }
    }

    /// A program that does not run, hangs or cannot begin says nothing of the file system; damage that stays is said.
    #[test]
    fn a_check_that_fails_is_no_damage() {
        let places = Places::under(Path::new("/nowhere"));
        for (ends, said) in [(None, None), (Some(8), None), (Some(4), Some(IS_DAMAGED))] {
            assert_eq!(check(&places, &Ends(ends)), said, "{ends:?}");
        }
    }
}
