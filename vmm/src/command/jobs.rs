//! `vmm explore --jobs N`: starts N processes, one for each shard of the search, shows their
//! progress, ends all of them when one finds a breach or a signal arrives, and merges their
//! results.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vmm::explore::merge::{check_all_there, merge, sum};
use vmm::explore::result::{Part, VerdictRecord};
use vmm::explore::{Config, Shard, check};

use super::interruption::{self, interrupted};
use super::progress::{self, Line, Wanted};
use super::shard::{Order, ShardProgress};
use super::{Refused, explored};

/// The longest time between two checks for a signal.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The time limit of a process if no time is left.
const LEAST_TIME: Duration = Duration::from_millis(1);

/// A message about the shard with this index.
#[derive(Debug)]
enum News {
    /// Its progress.
    Progress(u64, ShardProgress),
    /// It has closed its standard output, which means that it ends.
    End(u64),
}

/// A process that searches a shard.
#[derive(Debug)]
struct Job {
    shard: Shard,
    child: Child,
    result: PathBuf,
    complaints: PathBuf,
    progress: ShardProgress,
    has_ended: bool,
}

/// The processes of all shards. Those that still run are killed on drop.
#[derive(Debug)]
struct Jobs {
    all: Vec<Job>,
    /// Whether the processes were told to end.
    are_to_end: bool,
}

/// Searches with `count` processes. If their results together show that the search has to begin
/// anew with what was learnt, starts all of them again with that, as a single process would do.
///
/// # Errors
/// [`Refused`] if a process refused the search or died.
pub fn run(config: &Config, count: u64, progress: Wanted) -> Result<Part, Refused> {
    let begun = Instant::now();
    check(config).map_err(|error| explored::refused(&error))?;
    let directory = TempDir::with_prefix("vmm-explore-")
        .map_err(|error| host(format!("cannot make a directory for results: {error}")))?;
    let line = Line::endless(progress);
    let runs = config.strategy.runs();
    let mut config = config.clone();
    let limit = config.time;
    let mut rounds = 0;
    let mut searched = 0;
    loop {
        config.time = limit.map(|limit| limit.saturating_sub(begun.elapsed()).max(LEAST_TIME));
        let mut jobs = Jobs::start(&config, count, directory.path())?;
        let parts = jobs.finish(&line, runs)?;
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
        if whole.document.verdict.is_through() {
            check_all_there(&parts).map_err(|error| host(error.to_string()))?;
        }
        drop(line);
        whole.document.took_ms = searched;
        whole.document.counts.begun_anew += rounds;
        return Ok(whole);
    }
}

/// Starts `program` with `order` on its standard input. Its errors go to the file `complaints`.
fn started(program: &Path, order: &Order, complaints: &Path) -> io::Result<Child> {
    let order = serde_json::to_vec(order)?;
    let mut child = Command::new(program)
        .arg("shard")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(File::create(complaints)?)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // If the process has already died, its status and its complaints say more than this error.
        let _ = stdin.write_all(&order);
    }
    Ok(child)
}

fn host(message: String) -> Refused {
    Refused { message, status: 3 }
}

impl Jobs {
    /// Starts `count` processes. Each searches its shard of what `config` asks for, and writes its
    /// result to `directory`.
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
            // The previous round may have left one.
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
                progress: ShardProgress::default(),
                has_ended: false,
            });
        }
        Ok(jobs)
    }

    /// Waits for all processes, and returns the results that were written.
    fn finish(&mut self, line: &Line, runs: Option<u64>) -> Result<Vec<Part>, Refused> {
        let news = self.listen();
        let mut parts = Vec::new();
        let mut failed = None;
        let has_found = |part: &Part| matches!(part.document.verdict, VerdictRecord::Broke { .. });
        while self.all.iter().any(|job| !job.has_ended) {
            if interrupted() {
                self.end();
            }
            match news.recv_timeout(LOOK_EVERY) {
                Ok(News::Progress(index, progress)) => {
                    if let Some(job) = self.job(index) {
                        job.progress = progress;
                    }
                    let all = sum(self.all.iter().map(|job| &job.progress.counts));
                    let frontier = self.all.iter().map(Job::frontier).sum();
                    let going = self.all.iter().filter(|job| !job.has_ended).count();
                    let text = progress::searching(&all, frontier, runs, line.elapsed());
                    line.say(format!("{going} of {} shards: {text}", self.all.len()));
                }
                Ok(News::End(index)) => {
                    let were_to_end = self.are_to_end;
                    let Some(job) = self.job(index) else { continue };
                    match job.collect() {
                        Ok(part) => {
                            if has_found(&part) {
                                self.end();
                            }
                            parts.push(part);
                        }
                        // A process that is told to end before its search begins has no result.
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
        match failed {
            // A breach that one shard found counts even if another shard failed.
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

    /// Starts a thread for each process that passes on what the process reports.
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

    /// Tells all processes to end, unless they were told before.
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
                // The process may have ended by itself in the meantime.
                let _ = job.child.kill();
                let _ = job.child.wait();
            }
        }
    }
}

fn pass_on(index: u64, lines: impl BufRead, tell: &Sender<News>) {
    for line in lines.lines().map_while(Result::ok) {
        // A process that dies can leave half a line.
        if let Ok(progress) = serde_json::from_str(&line)
            && tell.send(News::Progress(index, progress)).is_err()
        {
            return;
        }
    }
    // If the receiver is gone, nothing waits for this message.
    let _ = tell.send(News::End(index));
}

impl Job {
    /// How many choices it has left to try, if it has said so.
    fn frontier(&self) -> Option<u64> {
        match self.has_ended {
            true => Some(0),
            false => self.progress.frontier,
        }
    }

    fn end(&self) {
        if let (false, Ok(id)) = (self.has_ended, i32::try_from(self.child.id())) {
            // SAFETY: kill() touches no memory. The process is a child that has not been waited
            // for, so its PID cannot have been reused.
            unsafe { libc::kill(id, libc::SIGTERM) };
        }
    }

    /// Waits for the process, which is about to end, and returns its result.
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
            // A single process would end with these as well. Every other status is a failure of
            // the host.
            status: code.filter(|code| [2, 5].contains(code)).unwrap_or(3),
        }
    }
}
