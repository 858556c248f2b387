//! The tasks of a search that several workers do together: each takes one, and puts back what it
//! leaves to others. The search is over once there are none left and every worker waits for one.
//! Knows nothing of what a task is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The tasks that no worker has taken yet.
#[derive(Debug)]
pub struct Tasks<T> {
    state: Mutex<TasksState<T>>,
    has_changed: Condvar,
    workers: usize,
    /// How many tasks more than there are would be taken at once.
    wanted: AtomicUsize,
    /// Whether a worker had to stop where nobody else can go on.
    is_torn: AtomicBool,
}

#[derive(Debug)]
struct TasksState<T> {
    waiting: VecDeque<T>,
    /// Workers that wait for a task.
    idle: usize,
    is_over: bool,
}

impl<T> Tasks<T> {
    /// The first tasks of this number of workers.
    pub fn new(workers: usize, first: impl IntoIterator<Item = T>) -> Self {
        Self {
            state: Mutex::new(TasksState {
                waiting: first.into_iter().collect(),
                idle: 0,
                is_over: false,
            }),
            has_changed: Condvar::new(),
            workers,
            wanted: AtomicUsize::new(0),
            is_torn: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, TasksState<T>> {
        // A worker that panics leaves the list whole: nothing that is done under the lock panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a worker waits for a task that there is not. A hint: it can change at once.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    fn note_wanted(&self, state: &TasksState<T>) {
        let wanted = state.idle.saturating_sub(state.waiting.len());
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Leaves `task` to whichever worker takes it.
    pub fn put(&self, task: T) {
        let mut state = self.lock();
        state.waiting.push_back(task);
        self.note_wanted(&state);
        self.has_changed.notify_one();
    }

    /// Takes the task that waits longest, or waits for one. `None` once there is none and no worker is
    /// left that could put one, or once the search is over.
    pub fn take(&self) -> Option<T> {
        let mut state = self.lock();
        state.idle += 1;
        loop {
            if state.is_over {
                return None;
            }
            if let Some(task) = state.waiting.pop_front() {
                state.idle -= 1;
                self.note_wanted(&state);
                return Some(task);
            }
            if state.idle == self.workers {
                state.is_over = true;
                self.has_changed.notify_all();
                return None;
            }
            self.note_wanted(&state);
            state = (self.has_changed.wait(state)).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Has workers take tasks again after all of them have ended.
    pub fn go_on(&mut self) {
        let workers = self.workers;
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        (state.is_over, state.idle) = (false, 0);
        // Each of them comes for one.
        self.wanted = AtomicUsize::new(workers.saturating_sub(state.waiting.len()));
    }

    /// Looks at the tasks that no worker has taken.
    pub fn with<R>(&self, look: impl FnOnce(&VecDeque<T>) -> R) -> R {
        look(&self.lock().waiting)
    }

    /// Notes that a worker had to stop in a task where nobody else can go on.
    pub fn tear(&self) {
        self.is_torn.store(true, Ordering::Relaxed);
    }

    /// Whether the tasks that are left are all that is left to do.
    pub fn are_whole(&self) -> bool {
        !self.is_torn.load(Ordering::Relaxed)
    }

    /// Ends the search: no worker gets another task.
    pub fn end(&self) {
        self.lock().is_over = true;
        self.has_changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;

    #[test]
    fn every_task_is_taken_once_also_those_that_come_later() {
        let tasks = Tasks::new(4, [1000_u64]);
        let taken = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(size) = tasks.take() {
                        taken.fetch_add(1, Ordering::Relaxed);
                        if size > 1 {
                            tasks.put(size / 2);
                            tasks.put(size - size / 2);
                        }
                    }
                });
            }
        });
        // 1,000 tasks of size 1, and what was divided until they were.
        assert_eq!(taken.into_inner(), 1999);
    }

    #[test]
    fn who_waits_is_told_that_the_search_is_over() {
        let tasks = Tasks::<u64>::new(2, []);
        thread::scope(|scope| {
            let waits = scope.spawn(|| tasks.take());
            while !tasks.is_wanted() {
                thread::yield_now();
            }
            tasks.end();
            assert_eq!(waits.join().unwrap(), None);
        });
        assert_eq!(tasks.take(), None);
    }
}
