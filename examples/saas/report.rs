//! What is shown: the live line while the load runs, the closing table, and the verdict.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tenantry::{Counters, Stats};
use tokio::time::Instant;

use crate::database::{COUNTED, LOOKED_AT, Seen};
use crate::load::Record;
use crate::shutdown::Stopped;

/// The progress bar with the live line; where there is no terminal, a plain line now and then.
pub(crate) struct Live {
    bar: ProgressBar,
    plain: bool,
    before: Counters,
    start: Instant,
    /// When the last line was made, and how many requests had been answered by then.
    last: (Instant, u64),
    last_plain: u64,
}

impl Live {
    /// How often the line is made anew.
    pub(crate) const TICK: Duration = Duration::from_millis(250);
    /// The same in seconds, for lines that stay.
    const PLAIN: u64 = 5;

    /// `before`: what had happened before the load.
    pub(crate) fn start(seconds: u64, before: Counters) -> Self {
        let bar = ProgressBar::new(seconds);
        if let Ok(style) = ProgressStyle::with_template("{elapsed:>3} [{bar:10}] {wide_msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        let start = Instant::now();
        Self { bar, plain: !std::io::stderr().is_terminal(), before, start, last: (start, 0), last_plain: 0 }
    }

    /// `answered`: since the start.
    pub(crate) fn tick(&mut self, answered: u64, stats: &Stats) {
        let (then, before) = self.last;
        self.last = (Instant::now(), answered);
        let line = format!(
            "{:>5.0} requests/s, open {}/{}, warm {}, {} evictions, {} waiting",
            (answered - before) as f64 / then.elapsed().as_secs_f64(),
            stats.open(),
            stats.max,
            warm(&self.before, &stats.totals),
            stats.totals.evictions - self.before.evictions,
            stats.waiting,
        );
        let seconds = self.start.elapsed().as_secs();
        if self.plain && seconds >= self.last_plain + Self::PLAIN {
            println!("{seconds:>4} s  {line}");
            self.last_plain = seconds;
        }
        self.bar.set_position(seconds);
        self.bar.set_message(line);
    }

    pub(crate) fn finish(self) {
        self.bar.abandon();
    }
}

/// How many acquires got a connection that their tenant had already: at once, or handed over by the one before.
fn warm(before: &Counters, after: &Counters) -> String {
    let hits = |counters: &Counters| counters.warm_hits + counters.hand_overs;
    let all = |counters: &Counters| counters.warm_hits + counters.waits;
    match all(after) - all(before) {
        0 => "-".to_owned(),
        all => format!("{:.1} %", (hits(after) - hits(before)) as f64 * 100.0 / all as f64),
    }
}

/// All that is known at the end.
pub(crate) struct Report {
    pub(crate) budget: u32,
    pub(crate) record: Option<Record>,
    pub(crate) refused: u64,
    pub(crate) lost: usize,
    /// What tenantry had counted before the load and after it.
    pub(crate) counted: [Counters; 2],
    /// The part of the requests that goes to as many tenants as there may be connections, the busiest of them.
    pub(crate) busiest: f64,
    pub(crate) stopped: Stopped,
    /// `None`: not measured on this system.
    pub(crate) seen: Option<Seen>,
}

impl Report {
    /// Prints the table and the verdict; whether all of it is well.
    pub(crate) fn print(&self) -> bool {
        println!();
        let mut faults = Vec::new();
        if let Some(record) = &self.record {
            self.requests(record, &mut faults);
        }
        let [before, after] = &self.counted;
        row("connects", after.connects - before.connects);
        row("evictions", after.evictions - before.evictions);
        row("acquires that were warm", warm(before, after));
        let busiest = format!("requests to the {} busiest tenants", self.budget);
        row(&busiest, format!("{:.1} %", self.busiest * 100.0));
        row("leases out at the close", self.stopped.connections.in_use);
        if self.stopped.requests_left {
            faults.push("REQUESTS WERE CUT OFF".to_owned());
        }
        if self.stopped.connections.in_use > 0 {
            faults.push("LEASES WERE LEFT OUT".to_owned());
        }
        self.budget(&mut faults);
        println!();
        for fault in &faults {
            println!("{fault}");
        }
        if faults.is_empty() && self.seen.is_some() {
            println!("nothing was lost and the budget held");
        } else if faults.is_empty() {
            println!("nothing was lost; whether the budget held was not measured");
        }
        faults.is_empty()
    }

    fn requests(&self, record: &Record, faults: &mut Vec<String>) {
        let at = |quantile| format!("{:.2} ms", record.latency.value_at_quantile(quantile) as f64 / 1_000.0);
        row("requests answered", record.latency.len());
        row("errors", record.errors.len());
        row("refusals (503), each tried again", self.refused);
        row("p50, from first try to answer", at(0.5));
        row("p99, from first try to answer", at(0.99));
        row("writes acknowledged", record.written.len());
        row("of these lost", self.lost);
        row("notes seen by another tenant", record.strayed);
        if let Some(first) = record.errors.first() {
            faults.push(format!("REQUESTS FAILED, the first with: {first}"));
        }
        if self.lost > 0 {
            faults.push(format!("{} ACKNOWLEDGED WRITES WERE LOST", self.lost));
        }
        if record.strayed > 0 {
            faults.push("A TENANT SAW ANOTHER'S NOTES".to_owned());
        }
    }

    fn budget(&self, faults: &mut Vec<String>) {
        row("budget", self.budget);
        let Some(seen) = self.seen else {
            row(&format!("{COUNTED} at once"), format!("not measured: this system has no {LOOKED_AT}"));
            return;
        };
        let most = format!("{} ({} looks at {LOOKED_AT})", seen.most, seen.looks);
        row(&format!("{COUNTED} at once, at most"), most);
        row(&format!("{COUNTED} after the close"), seen.last);
        if seen.most > self.budget as usize {
            faults.push(format!("THE BUDGET WAS PASSED: {} {COUNTED}, {} allowed", seen.most, self.budget));
        }
        if seen.last > 0 {
            faults.push(format!("AFTER THE CLOSE THERE WERE STILL {} {COUNTED}", seen.last));
        }
        if seen.most == 0 {
            faults.push(format!("THE WITNESS SAW NO {COUNTED} AT ALL"));
        }
    }
}

fn row(name: &str, value: impl std::fmt::Display) {
    println!("{name:<40} {value}");
}
