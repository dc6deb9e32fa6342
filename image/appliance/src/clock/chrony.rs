//! What chrony says, as `chronyc -c` prints it (chrony 4.3, chronyc(1), "tracking", "sources", "authdata").

use std::time::Duration;

use crate::command::{Call, CommandError, Programs};

/// The daemon's own socket: no port is open for commands.
const SOCKET: &str = "/run/chrony/chronyd.sock";
/// How long chronyc may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Most sources that are read.
const SOURCES_MAX: usize = 64;

/// How the clock runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tracking {
    /// It follows, or has followed, a source since chrony's start.
    pub(crate) synchronised: bool,
    /// How far it may be off, in seconds.
    pub(crate) error_s: f64,
}

/// A source of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimeSource {
    /// As it is called in the configuration.
    pub(crate) name: String,
    /// The clock follows it, alone or with others.
    pub(crate) followed: bool,
    /// It answered one of the last eight questions.
    pub(crate) answers: bool,
    /// It proves who it is (NTS) and has.
    pub(crate) proven: bool,
}

/// What chrony knows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Known {
    /// The clock.
    pub(crate) tracking: Tracking,
    /// The sources.
    pub(crate) sources: Vec<TimeSource>,
}

impl Known {
    /// Whether the clock follows a source.
    pub(crate) fn follows(&self) -> bool {
        self.sources.iter().any(|source| source.followed)
    }
}

/// Asks chrony.
///
/// # Errors
/// When it does not answer, or not as it should.
pub(crate) fn ask(programs: &impl Programs) -> Result<Option<Known>, CommandError> {
    let tracking = command(programs, "tracking")?;
    let sources = command(programs, "sources")?;
    let proofs = command(programs, "authdata")?;
    Ok(parse_tracking(&tracking).map(|tracking| Known { tracking, sources: parse_sources(&sources, &proofs) }))
}

fn command(programs: &impl Programs, question: &str) -> Result<String, CommandError> {
    let call = Call::new("chronyc", "see whether chrony runs").arguments(["-h", SOCKET, "-c", "-N", question]).deadline(ANSWER_DEADLINE);
    Ok(programs.run(call)?.text())
}

/// Fields of `tracking`: 4 what is still to be corrected, 10 root delay, 11 root dispersion (seconds), 13 leap status. The error's
/// bound is chrony's own (chronyc(1), "tracking", "Root dispersion").
fn parse_tracking(line: &str) -> Option<Tracking> {
    let fields: Vec<&str> = line.trim().split(',').collect();
    let seconds = |index: usize| fields.get(index)?.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
    let synchronised = *fields.get(13)? != "Not synchronised";
    Some(Tracking { synchronised, error_s: seconds(4)?.abs() + seconds(10)?.abs() / 2.0 + seconds(11)?.abs() })
}

/// Fields of `sources`: 0 mode, 1 state, 2 name, 5 reach (octal); of `authdata`: 0 name, 1 mode, 4 length of the key.
fn parse_sources(sources: &str, proofs: &str) -> Vec<TimeSource> {
    let proofs: Vec<Vec<&str>> = proofs.lines().map(|line| line.split(',').collect()).collect();
    let proven = |name: &str| {
        let own = proofs.iter().find(|fields| fields.first() == Some(&name));
        own.is_some_and(|fields| fields.get(1) == Some(&"NTS") && fields.get(4).is_some_and(|length| *length != "0"))
    };
    let read = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let (state, name) = (*fields.get(1)?, *fields.get(2)?);
        Some(TimeSource {
            name: name.to_owned(),
            followed: matches!(state, "*" | "+"),
            answers: *fields.get(5)? != "0",
            proven: proven(name),
        })
    };
    sources.lines().filter_map(read).take(SOURCES_MAX).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::command::Answer;

    /// chrony 4.3 at three moments: just started; following a server with NTS; following one without.
    pub(crate) const EARLY: [&str; 3] = [
        "00000000,,0,0.000000000,0.000000000,0.000000000,0.000000000,0.000,0.000,0.000,1.000000000,1.000000000,0.0,Not synchronised\n",
        "^,?,localhost,0,0,0,4294967295,0.000000000,0.000000000,0.000000000\n^,?,127.0.0.2,0,0,0,4294967295,0.000000000,0.000000000,0.000000000\n",
        "localhost,NTS,0,0,0,4294967295,1,0,0,0\n127.0.0.2,-,0,0,0,4294967295,0,0,0,0\n",
    ];
    pub(crate) const PROVEN: [&str; 3] = [
        "7F000001,localhost,4,1795322588.382803672,-0.000002783,-0.000000066,0.000001374,0.021,-0.002,0.027,0.000008145,0.000001023,1.0,Normal\n",
        "^,*,localhost,3,0,377,0,-0.000000047,-0.000000113,0.000004131\n^,?,127.0.0.2,3,0,377,1,0.000001160,0.000001100,0.000005560\n",
        "localhost,NTS,1,15,256,11,0,0,8,100\n127.0.0.2,-,0,0,0,4294967295,0,0,0,0\n",
    ];
    /// The same server, put right by five minutes since: the clock is slewed after it.
    pub(crate) const SLEWED: [&str; 3] = [
        "7F000001,localhost,4,1795322588.382803672,-300.000002783,-0.000000066,0.000001374,0.021,-0.002,0.027,0.000008145,0.000001023,1.0,Normal\n",
        PROVEN[1],
        PROVEN[2],
    ];
    pub(crate) const PLAIN: [&str; 3] = [
        "7F000002,127.0.0.2,4,1795322599.819319859,-0.000002800,-0.000001256,0.000000581,-0.169,-0.182,1.594,0.000007204,0.000001826,0.5,Normal\n",
        "^,*,127.0.0.2,3,-1,377,0,-0.000000454,-0.000001710,0.000003661\n^,?,127.0.0.3,0,6,0,4294967295,0.000000000,0.000000000,0.000000000\n",
        "127.0.0.2,-,0,0,0,4294967295,0,0,0,0\n127.0.0.3,-,0,0,0,4294967295,0,0,0,0\n",
    ];

    /// A chronyc that prints what it printed then; `None`: no chrony.
    pub(crate) struct Chronyc(pub(crate) Option<[&'static str; 3]>);

    impl Programs for Chronyc {
        fn attempt(&self, call: Call) -> Result<Answer, CommandError> {
            let line = call.line();
            assert!(line.starts_with("chronyc -h /run/chrony/chronyd.sock -c -N "), "{line}");
            let index = ["tracking", "sources", "authdata"].iter().position(|question| line.ends_with(question)).unwrap();
            let Some(printed) = self.0 else {
                return Ok(Answer {
                    success: false,
                    code: Some(1),
                    output: Vec::new(),
                    complaint: "Could not open connection to daemon".into(),
                });
            };
            Ok(Answer { success: true, code: Some(0), output: printed[index].into(), complaint: String::new() })
        }
    }

    pub(crate) fn known(printed: [&'static str; 3]) -> Known {
        ask(&Chronyc(Some(printed))).unwrap().unwrap()
    }

    #[test]
    fn real_answers_are_read() {
        let early = known(EARLY);
        assert!(!early.tracking.synchronised && early.sources.iter().all(|source| !source.followed && !source.answers));
        let proven = known(PROVEN);
        assert!(proven.tracking.synchronised && proven.tracking.error_s < 0.001);
        let expected = |name: &str, followed, proven| TimeSource { name: name.into(), followed, answers: true, proven };
        assert_eq!(proven.sources, [expected("localhost", true, true), expected("127.0.0.2", false, false)]);
        let plain = known(PLAIN);
        assert_eq!(plain.sources[0], expected("127.0.0.2", true, false));
        assert!(!plain.sources[1].answers);
        assert!(ask(&Chronyc(None)).is_err());
        for garbage in ["", ",", "a,b,c,d,e,f,g,h,i,j,k,l,m,Normal", ",,,,,,,,,,inf,nan,,Normal"] {
            assert_eq!(parse_tracking(garbage), None, "{garbage}");
            assert!(parse_sources(garbage, garbage).len() <= 1);
        }
    }
}
