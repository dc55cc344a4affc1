//! What all measurements share: rounds in which the contenders take turns, so that a busy machine slows all of them, and the
//! medians of what they took.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// One contender in one workload.
pub struct Subject<'a> {
    pub name: String,
    /// Plays a round and returns what one operation cost.
    pub round: Box<dyn FnMut() -> f64 + 'a>,
}

impl<'a> Subject<'a> {
    pub fn new(name: impl Into<String>, round: impl FnMut() -> f64 + 'a) -> Self {
        Self { name: name.into(), round: Box::new(round) }
    }
}

/// What a contender took: the median of its rounds, and the median of its ratios to the first one's round beside it.
pub struct Taken {
    pub name: String,
    pub median: f64,
    pub ratio: f64,
}

/// Lets all play so many rounds, one after the other in each.
pub fn rounds(mut subjects: Vec<Subject<'_>>, rounds: usize) -> Vec<Taken> {
    let mut costs = vec![Vec::new(); subjects.len()];
    for round in 0..=rounds {
        for (subject, costs) in subjects.iter_mut().zip(&mut costs) {
            let cost = (subject.round)();
            // The first round warms up.
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    let first = costs[0].clone();
    let taken = subjects.into_iter().zip(costs).map(|(subject, costs)| {
        let ratios = costs.iter().zip(&first).map(|(cost, first)| cost / first).collect();
        Taken { name: subject.name, median: median(costs), ratio: median(ratios) }
    });
    taken.collect()
}

pub fn median(values: Vec<f64>) -> f64 {
    percentile(values, 50.0)
}

pub fn percentile(mut values: Vec<f64>, percentile: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * percentile / 100.0) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Nanoseconds that one of `times` operations took.
pub fn nanos_each(times: usize, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64() * 1e9 / times as f64
}

/// The processor time that this process has used.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Which of `n` things is asked for: the k-th with a frequency of 1/k.
#[derive(Clone)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    pub fn new(n: usize) -> Self {
        let mut sum = 0.0;
        let mut sums: Vec<f64> = (1..=n)
            .map(|k| {
                sum += 1.0 / k as f64;
                sum
            })
            .collect();
        sums.iter_mut().for_each(|s| *s /= sum);
        Self(sums)
    }

    pub fn pick(&self, random: &mut fastrand::Rng) -> usize {
        let at = random.f64();
        self.0.partition_point(|&sum| sum < at).min(self.0.len() - 1)
    }
}
