//! How scarce memory is, as it is measured: the manager's own places, the lock budget, the limits of the control groups, and
//! the time that the kernel says is lost waiting for memory.
//!
//! What cannot be read is `None`, never 0: a kernel without PSI, a process without a group.

use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;
use std::{fs, io};

use super::roll::Statistics;
use super::store::Store;
use crate::sys;

/// How much there is, and how much of it is taken, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Taken.
    pub used: u64,
    /// There.
    pub limit: u64,
}

impl Budget {
    /// The share that is taken; above 1 where a limit was lowered afterwards.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.limit == 0 { 1.0 } else { self.used as f64 / self.limit as f64 }
    }
}

/// One look at it all.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Pressure {
    /// The share of the manager's places that is taken.
    pub places: f64,
    /// Memory that the process has locked, and may (`RLIMIT_MEMLOCK`). `None` where it may without limit: by its limit, or with
    /// `CAP_IPC_LOCK`.
    pub lock: Option<Budget>,
    /// The tightest of the control groups that the process is in. `None` where none has a limit.
    pub group: Option<Budget>,
    /// The share of the last ten seconds in which some task waited for memory (`/proc/pressure/memory`).
    pub stalled: Option<f64>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// Nothing is scarce.
    #[default]
    Calm,
    /// Something is getting scarce.
    High,
    /// Something is about to be used up.
    Critical,
}

/// From where on it is [`Level::High`], and from where on [`Level::Critical`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// For shares of places, locks and groups.
    pub shares: (f64, f64),
    /// For the share of time that was stalled.
    pub stalled: (f64, f64),
}

impl Default for Thresholds {
    /// Four fifths and nineteen twentieths of anything; a tenth and two fifths of the time.
    fn default() -> Self {
        Self { shares: (0.8, 0.95), stalled: (0.1, 0.4) }
    }
}

impl Thresholds {
    pub(super) fn are_sound(&self) -> bool {
        [self.shares, self.stalled].iter().all(|(high, critical)| 0.0 < *high && high <= critical && *critical <= 1.0)
    }
}

/// What happens where a buffer is asked for that there is no place or no memory for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// It is refused.
    #[default]
    Refuse,
    /// The buffer that was not used for the longest time is wiped first, whoever owns it, unless somebody is within.
    EvictIdle,
}

impl Pressure {
    /// Looks. Reads three small files and those of the groups.
    pub(super) fn now(statistics: &Statistics) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            places: statistics.fullness(),
            lock: lock_budget(&read("/proc/self/status"), &read("/proc/self/limits")),
            group: groups(&read("/proc/self/cgroup")).iter().filter_map(tightest).max_by(by_share),
            stalled: stalled(&read("/proc/pressure/memory")),
        }
    }

    /// How bad it is, all in all.
    #[must_use]
    pub fn level(&self, thresholds: &Thresholds) -> Level {
        self.of_the_machine(thresholds).max(level(Some(self.places), thresholds.shares))
    }

    /// How bad it is without the manager's own places: those are refused one by one.
    pub(super) fn of_the_machine(&self, thresholds: &Thresholds) -> Level {
        let budget = |budget: Option<Budget>| level(budget.map(|it| it.share()), thresholds.shares);
        budget(self.lock).max(budget(self.group)).max(level(self.stalled, thresholds.stalled))
    }
}

/// Set when a store is gone, for the thread that looks for it.
#[derive(Debug, Default)]
pub(super) struct Gone(Mutex<bool>, Condvar);

impl Gone {
    pub(super) fn set(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.1.notify_all();
    }

    /// Waits for that, but no longer than `span`.
    fn wait(&self, span: Duration) -> bool {
        let gone = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.1.wait_timeout_while(gone, span, |gone| !*gone);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Looks every so often, by a thread of its own, until the store is gone or closed.
pub(super) fn watch(store: Weak<Store>, gone: Arc<Gone>, every: Duration) -> io::Result<()> {
    let every = every.max(Duration::from_millis(100)); // a look reads files
    sys::quiet_thread("secmem-pressure", move || {
        while !gone.wait(every) {
            let Some(store) = store.upgrade().filter(|store| store.open().is_ok()) else { return };
            store.look();
        }
    })
    .map(drop)
}

pub(super) fn level(share: Option<f64>, (high, critical): (f64, f64)) -> Level {
    match share {
        Some(share) if share >= critical => Level::Critical,
        Some(share) if share >= high => Level::High,
        _ => Level::Calm,
    }
}

fn by_share(a: &Budget, b: &Budget) -> std::cmp::Ordering {
    a.share().total_cmp(&b.share())
}

/// The number behind a name, in texts of `name: number` lines.
fn field(text: &str, name: &str, radix: u32) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    u64::from_str_radix(line.split_ascii_whitespace().next()?, radix).ok()
}

/// From proc_pid_status(5) and proc_pid_limits(5).
fn lock_budget(status: &str, limits: &str) -> Option<Budget> {
    const CAP_IPC_LOCK: u64 = 1 << 14;
    if field(status, "CapEff:", 16).unwrap_or(0) & CAP_IPC_LOCK != 0 {
        return None;
    }
    let used = field(status, "VmLck:", 10)?.saturating_mul(1024);
    let limit = field(limits, "Max locked memory", 10)?; // the soft one; `unlimited` is no number
    Some(Budget { used, limit })
}

/// From the kernel's Documentation/accounting/psi.rst: `some avg10=1.23 …`, in hundredths of the time.
fn stalled(text: &str) -> Option<f64> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let average = some.split(' ').find_map(|word| word.strip_prefix("avg10="))?;
    average.parse::<f64>().ok().filter(|average| average.is_finite()).map(|average| average / 100.0)
}

/// Where the memory controllers of the process's groups have their files: cgroups(7), both versions.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    /// The root of the hierarchy.
    root: PathBuf,
    /// The group in it.
    path: PathBuf,
    /// The names of the files with the limit and with what is used.
    files: (&'static str, &'static str),
}

fn groups(text: &str) -> Vec<Group> {
    let group = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        // What lies outside of the namespace is not to be found by its path.
        let path = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect();
        if controllers.is_empty() {
            Some(Group { root: "/sys/fs/cgroup".into(), path, files: ("memory.max", "memory.current") })
        } else if controllers.split(',').any(|it| it == "memory") {
            let files = ("memory.limit_in_bytes", "memory.usage_in_bytes");
            Some(Group { root: "/sys/fs/cgroup/memory".into(), path, files })
        } else {
            None
        }
    };
    text.lines().filter_map(group).collect()
}

/// The tightest limit of the group and of those that it is in.
fn tightest(group: &Group) -> Option<Budget> {
    /// Version 1 says this, or a page less, for no limit.
    const NONE: u64 = i64::MAX as u64 - 0xFFFF;
    let place = group.root.join(&group.path);
    let levels = place.ancestors().take_while(|at| at.starts_with(&group.root));
    let read = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok(); // `max` is no number
    let budgets = levels.filter_map(|at| {
        let (limit, used) = (read(at.join(group.files.0))?, read(at.join(group.files.1))?);
        // What the kernel takes back before it refuses anything: pages of files that nobody has used lately.
        let cached = fs::read_to_string(at.join("memory.stat")).ok();
        let cached = cached.and_then(|text| field(&text, "inactive_file ", 10)).unwrap_or(0);
        (limit < NONE).then_some(Budget { used: used.saturating_sub(cached), limit })
    });
    budgets.max_by(by_share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_budget_is_read_and_a_capability_lifts_it() {
        let limits = "Limit       Soft Limit  Hard Limit  Units\nMax locked memory  8388608  16777216  bytes\n";
        let status = |caps: &str| format!("Name:\tx\nVmLck:\t    4096 kB\nCapEff:\t{caps}\n");

        let budget = lock_budget(&status("0000000000000000"), limits);
        assert_eq!(budget, Some(Budget { used: 4 << 20, limit: 8 << 20 }));
        assert_eq!(budget.map(|budget| budget.share()), Some(0.5));
        assert_eq!(lock_budget(&status("000001ffffffffff"), limits), None);
        assert_eq!(lock_budget(&status("0"), "Max locked memory  unlimited  unlimited  bytes\n"), None);
        assert_eq!(lock_budget("", ""), None);
    }

    #[test]
    fn stalls_are_read_and_their_absence_is_not_calm_but_unknown() {
        assert_eq!(stalled("some avg10=12.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=99.00"), Some(0.125));
        for text in ["", "full avg10=1.00", "some avg10=x", "some avg10=NaN"] {
            assert_eq!(stalled(text), None, "{text}");
        }
    }

    #[test]
    fn groups_of_both_versions_are_found_and_a_path_cannot_lead_out() {
        let found = groups("5:cpu:/a\n4:memory:/x/y\n0::/../../etc\nnonsense\n");

        let places: Vec<_> = found.iter().map(|group| group.root.join(&group.path)).collect();
        assert_eq!(places, [Path::new("/sys/fs/cgroup/memory/x/y"), Path::new("/sys/fs/cgroup/etc")]);
    }

    #[test]
    fn the_worst_of_all_counts_and_what_is_not_known_does_not() {
        let limits = Thresholds::default();
        let calm = Pressure { places: 0.1, lock: None, group: None, stalled: None };
        let budget = |used| Some(Budget { used, limit: 100 });

        assert_eq!(calm.level(&limits), Level::Calm);
        assert_eq!(Pressure { places: 0.8, ..calm }.level(&limits), Level::High);
        assert_eq!(Pressure { lock: budget(95), ..calm }.level(&limits), Level::Critical);
        assert_eq!(Pressure { group: budget(120), ..calm }.level(&limits), Level::Critical);
        assert_eq!(Pressure { stalled: Some(0.2), ..calm }.level(&limits), Level::High);
        assert_eq!(Pressure { places: 1.0, ..calm }.of_the_machine(&limits), Level::Calm);
        assert_eq!(Budget { used: 0, limit: 0 }.share(), 1.0);
    }
}
