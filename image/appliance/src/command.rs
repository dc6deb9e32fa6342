//! Other programs: called with a deadline, and with an error that names the program and what helps.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// Most of a program's output that is kept, in bytes.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most of what a program complained about that an error repeats, in characters.
const COMPLAINT_CHARS_MAX: usize = 400;
/// What a program that says nothing else is given, in seconds.
const DEADLINE_DEFAULT_S: u64 = 60;
/// How long the rest of the output is waited for once the program has ended, in seconds.
const OUTPUT_WAIT_S: u64 = 5;

/// One call of a program.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    program: &'static str,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    input: Vec<u8>,
    deadline: Duration,
    remedy: &'static str,
}

impl Call {
    /// A call; `remedy` says what a person can do when it fails.
    pub(crate) fn new(program: &'static str, remedy: &'static str) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            environment: Vec::new(),
            input: Vec::new(),
            deadline: Duration::from_secs(DEADLINE_DEFAULT_S),
            remedy,
        }
    }

    /// Adds arguments.
    pub(crate) fn arguments<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Adds a variable to the (otherwise empty) environment.
    pub(crate) fn environment(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name, value.as_ref().to_owned()));
        self
    }

    /// What the program reads; the only way a secret is handed over, since arguments can be seen by others.
    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// How long it may take.
    pub(crate) const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The program's name.
    #[cfg(test)]
    pub(crate) const fn program(&self) -> &'static str {
        self.program
    }

    /// The arguments as one line.
    #[cfg(test)]
    pub(crate) fn line(&self) -> String {
        let words: Vec<_> = self.arguments.iter().map(|word| word.to_string_lossy()).collect();
        format!("{} {}", self.program, words.join(" "))
    }

    /// What it is given to read.
    #[cfg(test)]
    pub(crate) fn given(&self) -> &[u8] {
        &self.input
    }
}

/// What a program answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    /// Whether it ended well.
    pub(crate) success: bool,
    /// Its exit code; `None`: ended by a signal.
    pub(crate) code: Option<i32>,
    /// What it printed.
    pub(crate) output: Vec<u8>,
    /// What it complained about.
    pub(crate) complaint: String,
}

impl Answer {
    /// What it printed, as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

/// Why a program did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// It could not be started.
    #[error("{program} cannot be started ({reason}); the image lacks it or the unit forbids it: install the appliance's image anew")]
    Start {
        /// The program.
        program: &'static str,
        /// Why.
        reason: io::Error,
    },
    /// It took too long and was stopped.
    #[error("{program} did not end within {seconds} s and was stopped; {remedy}")]
    Deadline {
        /// The program.
        program: &'static str,
        /// What it was given.
        seconds: u64,
        /// What helps.
        remedy: &'static str,
    },
    /// It failed.
    #[error("{program} failed{}: {complaint}; {remedy}", .code.map(|code| format!(" ({code})")).unwrap_or_default())]
    Failed {
        /// The program.
        program: &'static str,
        /// Its exit code.
        code: Option<i32>,
        /// The end of what it said.
        complaint: String,
        /// What helps.
        remedy: &'static str,
    },
    /// It could not be waited for.
    #[error("{program} cannot be waited for ({reason}); restart the appliance")]
    Wait {
        /// The program.
        program: &'static str,
        /// Why.
        reason: io::Error,
    },
}

/// What can carry out calls; tests put their own programs here.
pub(crate) trait Programs {
    /// Calls a program and gives its answer, however it ended.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time.
    fn attempt(&self, call: Call) -> Result<Answer, CommandError>;

    /// Calls a program that must end well.
    ///
    /// # Errors
    /// Like [`Programs::attempt`], and when it fails.
    fn run(&self, call: Call) -> Result<Answer, CommandError> {
        let (program, remedy) = (call.program, call.remedy);
        let answer = self.attempt(call)?;
        if answer.success {
            return Ok(answer);
        }
        let complaint = last_words(&answer.complaint);
        Err(CommandError::Failed { program, code: answer.code, complaint, remedy })
    }
}

/// The programs of the system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct System;

impl Programs for System {
    fn attempt(&self, call: Call) -> Result<Answer, CommandError> {
        let mut command = Command::new(call.program);
        command.args(&call.arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        command.envs(call.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|reason| CommandError::Start { program: call.program, reason })?;
        let output = child.stdout.take().map(collect);
        let complaint = child.stderr.take().map(collect);
        feed(&mut child, call.input);
        let status = wait(&mut child, call.program, call.deadline, call.remedy)?;
        let gather = |end: Option<mpsc::Receiver<Vec<u8>>>| {
            end.and_then(|end| end.recv_timeout(Duration::from_secs(OUTPUT_WAIT_S)).ok()).unwrap_or_default()
        };
        let (output, complaint) = (gather(output), gather(complaint));
        Ok(Answer { success: status.success(), code: status.code(), output, complaint: String::from_utf8_lossy(&complaint).into_owned() })
    }
}

/// Writes the input on a thread of its own: a program that does not read must not stop us.
fn feed(child: &mut Child, input: Vec<u8>) {
    if let Some(mut stdin) = child.stdin.take() {
        thread::spawn(move || {
            // A program may end before it has read all; its exit code then says what it thinks of it.
            let _ = stdin.write_all(&input);
        });
    }
}

fn collect(from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is worth keeping.
        let _ = from.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

fn wait(child: &mut Child, program: &'static str, deadline: Duration, remedy: &'static str) -> Result<ExitStatus, CommandError> {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        // Only looks (WNOWAIT): the number stays the child's own until it is reaped below.
        while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(nix::errno::Errno::EINTR) {}
        let _ = sender.send(());
    });
    let in_time = ended.recv_timeout(deadline) != Err(RecvTimeoutError::Timeout);
    if !in_time {
        let _ = kill(pid, Signal::SIGKILL);
    }
    let status = child.wait().map_err(|reason| CommandError::Wait { program, reason })?;
    if in_time { Ok(status) } else { Err(CommandError::Deadline { program, seconds: deadline.as_secs(), remedy }) }
}

/// The last lines of a complaint, on one line.
fn last_words(complaint: &str) -> String {
    let line = complaint.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" | ");
    if line.is_empty() {
        return "it said nothing".to_owned();
    }
    let skip = line.chars().count().saturating_sub(COMPLAINT_CHARS_MAX);
    line.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Call {
        Call::new("/bin/sh", "look at the script").arguments(["-c", script])
    }

    /// Input, output and exit code pass as they are.
    #[test]
    fn a_program_reads_answers_and_fails_by_name() {
        let answer = System.run(shell("cat; exit 0").input("secret")).unwrap();
        assert_eq!(answer.text(), "secret");
        let error = System.run(shell("echo broken >&2; exit 7")).unwrap_err().to_string();
        assert_eq!(error, "/bin/sh failed (7): broken; look at the script");
        assert_eq!(System.attempt(shell("exit 3")).unwrap().code, Some(3));
    }

    /// A program that hangs does not hang the boot.
    #[test]
    fn a_program_that_hangs_is_stopped() {
        let error = System.run(shell("exec sleep 1000").deadline(Duration::from_millis(50))).unwrap_err();
        assert!(matches!(error, CommandError::Deadline { .. }), "{error}");
    }

    /// Nothing of our environment reaches a program.
    #[test]
    fn the_environment_is_ours_to_give() {
        let answer = System.run(shell("env").environment("PASSWORD", "x")).unwrap().text();
        assert!(answer.contains("PASSWORD=x") && !answer.contains("CARGO"), "{answer}");
    }
}
