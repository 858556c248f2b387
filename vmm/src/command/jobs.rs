//! `vmm explore --jobs N`: starts N processes, each with a shard of the search, shows how far they
//! are, ends all when one has found something or a signal comes, and merges what they came to.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tempfile::TempDir;
use vmm::explore::merge::{check_all_there, merge, sum};
use vmm::explore::result::{Part, VerdictRecord};
use vmm::explore::search::Counts;
use vmm::explore::{Config, Shard, check};

use super::interruption::{self, interrupted};
use super::shard::Order;
use super::{Refused, explored, progress};

/// Between two looks whether a signal has come.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a process is given where no time is left.
const LEAST_TIME: Duration = Duration::from_millis(1);

/// What is heard of a shard.
#[derive(Debug)]
enum News {
    /// How far it is.
    Counts(u64, Counts),
    /// That it has closed its standard output, which it does when it ends.
    End(u64),
}

/// A process with a shard.
#[derive(Debug)]
struct Job {
    shard: Shard,
    child: Child,
    result: PathBuf,
    complaints: PathBuf,
    counts: Counts,
    has_ended: bool,
}

/// All of them. None outlives this.
#[derive(Debug)]
struct Jobs {
    all: Vec<Job>,
    /// Whether they have been told to end.
    are_to_end: bool,
}

/// Searches with `count` processes. If they find together that what they began with was not enough,
/// they begin anew with all that they know, as one process does.
///
/// # Errors
/// [`Refused`] if one of them was, or died.
pub fn run(config: &Config, count: u64) -> Result<Part, Refused> {
    let begun = Instant::now();
    check(config).map_err(|error| explored::refused(&error))?;
    let directory = TempDir::with_prefix("vmm-explore-")
        .map_err(|error| host(format!("cannot make a directory for results: {error}")))?;
    let bar = progress::spinner();
    let mut config = config.clone();
    let limit = config.time;
    let mut rounds = 0;
    let mut searched = 0;
    loop {
        config.time = limit.map(|limit| limit.saturating_sub(begun.elapsed()).max(LEAST_TIME));
        let mut jobs = Jobs::start(&config, count, directory.path())?;
        let parts = jobs.finish(&bar)?;
        let times = parts.iter().map(|part| part.document.took_ms);
        searched += times.max().unwrap_or(0);
        let merged = merge(&parts);
        if let Err(error) = &merged
            && let Some(more) = error.remedy()
        {
            config.known = Some(more.clone());
            rounds += 1;
            continue;
        }
        let mut whole = merged.map_err(|error| host(error.to_string()))?;
        if !matches!(
            whole.document.verdict,
            VerdictRecord::Broke { .. } | VerdictRecord::Stopped { .. }
        ) {
            check_all_there(&parts).map_err(|error| host(error.to_string()))?;
        }
        bar.finish_and_clear();
        whole.document.took_ms = searched;
        whole.document.counts.begun_anew += rounds;
        return Ok(whole);
    }
}

/// A process of `program` that does what `order` says, and whose errors go to the file
/// `complaints`.
fn started(program: &Path, order: &Order, complaints: &Path) -> io::Result<Child> {
    let order = serde_json::to_vec(order)?;
    let mut child = Command::new(program)
        .arg("shard")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(complaints)?)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // If it has died meanwhile, its status and its complaints say more.
        let _ = stdin.write_all(&order);
    }
    Ok(child)
}

fn host(message: String) -> Refused {
    Refused { message, status: 3 }
}

impl Jobs {
    /// Starts `count` processes, each of which searches its part of what `config` asks for, and
    /// leaves its result in `directory`.
    fn start(config: &Config, count: u64, directory: &Path) -> Result<Self, Refused> {
        let program = std::env::current_exe()
            .map_err(|error| host(format!("cannot tell where vmm itself is: {error}")))?;
        let mut jobs = Self {
            all: Vec::new(),
            are_to_end: false,
        };
        for index in 0..count {
            let shard = Shard { index, of: count };
            let result = directory.join(format!("{index}"));
            // There may be one of the round before.
            let _ = fs::remove_file(&result);
            let complaints = directory.join(format!("{index}.complaints"));
            let order = Order {
                config: Config {
                    shard,
                    ..config.clone()
                },
                result: result.clone().into_os_string(),
            };
            let child = started(&program, &order, &complaints)
                .map_err(|error| host(format!("cannot start shard {shard}: {error}")))?;
            jobs.all.push(Job {
                shard,
                child,
                result,
                complaints,
                counts: Counts::default(),
                has_ended: false,
            });
        }
        Ok(jobs)
    }

    /// Waits for all, and returns the results that there are.
    fn finish(&mut self, bar: &ProgressBar) -> Result<Vec<Part>, Refused> {
        let news = self.listen();
        let mut parts = Vec::new();
        let mut failed = None;
        while self.all.iter().any(|job| !job.has_ended) {
            if interrupted() {
                self.end();
            }
            match news.recv_timeout(LOOK_EVERY) {
                Ok(News::Counts(index, counts)) => {
                    if let Some(job) = self.job(index) {
                        job.counts = counts;
                    }
                    let all = sum(self.all.iter().map(|job| &job.counts));
                    let going = self.all.iter().filter(|job| !job.has_ended).count();
                    let text = progress::line(&all, bar.elapsed());
                    bar.set_message(format!("{going} of {} shards: {text}", self.all.len()));
                    bar.tick();
                }
                Ok(News::End(index)) => {
                    let were_to_end = self.are_to_end;
                    let Some(job) = self.job(index) else { continue };
                    match job.collect() {
                        Ok(part) => {
                            let is_found =
                                matches!(part.document.verdict, VerdictRecord::Broke { .. });
                            parts.push(part);
                            if is_found {
                                self.end();
                            }
                        }
                        // One that is told to end before it has begun has no result.
                        Err(_) if were_to_end => {}
                        Err(refused) => {
                            failed.get_or_insert(refused);
                            self.end();
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        let has_found = |part: &Part| matches!(part.document.verdict, VerdictRecord::Broke { .. });
        match failed {
            // What was found is not lost with another.
            Some(refused) if !parts.iter().any(has_found) => Err(refused),
            _ if parts.is_empty() => Err(Refused {
                message: "a signal came before the search had begun".to_owned(),
                status: interruption::status(),
            }),
            _ => Ok(parts),
        }
    }

    fn job(&mut self, index: u64) -> Option<&mut Job> {
        self.all.iter_mut().find(|job| job.shard.index == index)
    }

    /// Hears all of them.
    fn listen(&mut self) -> Receiver<News> {
        let (tell, hear) = mpsc::channel();
        for job in &mut self.all {
            let index = job.shard.index;
            if let Some(stdout) = job.child.stdout.take() {
                let tell = tell.clone();
                thread::spawn(move || pass_on(index, BufReader::new(stdout), &tell));
            }
        }
        hear
    }

    /// Tells all to end, once.
    fn end(&mut self) {
        if !self.are_to_end {
            self.are_to_end = true;
            self.all.iter().for_each(Job::end);
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        for job in &mut self.all {
            if !job.has_ended {
                // It may have ended by itself meanwhile.
                let _ = job.child.kill();
                let _ = job.child.wait();
            }
        }
    }
}

fn pass_on(index: u64, lines: impl BufRead, tell: &Sender<News>) {
    for line in lines.lines().map_while(Result::ok) {
        // The report at the end is for people.
        if let Ok(counts) = serde_json::from_str(&line)
            && tell.send(News::Counts(index, counts)).is_err()
        {
            return;
        }
    }
    // If nobody hears it, nobody waits for it.
    let _ = tell.send(News::End(index));
}

impl Job {
    fn end(&self) {
        if let (false, Ok(id)) = (self.has_ended, i32::try_from(self.child.id())) {
            // SAFETY: kill() touches no memory, and the process is a child that has not been waited
            // for, so that its number is no other's.
            unsafe { libc::kill(id, libc::SIGTERM) };
        }
    }

    /// The result of a job that is about to end.
    fn collect(&mut self) -> Result<Part, Refused> {
        let status = self.child.wait();
        self.has_ended = true;
        let status = status.map_err(|error| host(format!("cannot wait for a shard: {error}")))?;
        if self.result.exists() {
            return Part::read(&self.result).map_err(host);
        }
        Err(self.died(status))
    }

    fn died(&self, status: ExitStatus) -> Refused {
        let shard = self.shard;
        let complaints = fs::read_to_string(&self.complaints).unwrap_or_default();
        let complaints = complaints.trim().trim_start_matches("vmm: ");
        let message = if complaints.is_empty() {
            format!("shard {shard} has died without a result: {status}")
        } else {
            format!("shard {shard}: {complaints}")
        };
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        Refused {
            message,
            // Of these the message says as much to one process as to many; all else is a fault of
            // the host's.
            status: code.filter(|code| [2, 5].contains(code)).unwrap_or(3),
        }
    }
}
