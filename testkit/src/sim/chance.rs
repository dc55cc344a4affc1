//! Everything random: how long something lasts, and which tenant it is about. All of it follows from the plan's seed.

use std::time::Duration;

use fastrand::Rng;

/// How long something takes, drawn anew each time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lasts {
    /// Always this long.
    Exactly(Duration),
    /// Anything from the first to the second, each as likely.
    Between(Duration, Duration),
    /// Exponential with this mean, cut off at twenty times of it: the time between independent events.
    Around(Duration),
    /// The first, but once in `one_in` times the second: a tail.
    Mostly {
        /// What it usually is.
        usual: Duration,
        /// How rare the other is.
        one_in: u32,
        /// What it is then.
        rare: Duration,
    },
}

impl Lasts {
    /// Nothing takes any time.
    pub const NONE: Self = Self::Exactly(Duration::ZERO);

    /// Exactly so many milliseconds.
    #[must_use]
    pub const fn ms(ms: u64) -> Self {
        Self::Exactly(Duration::from_millis(ms))
    }

    /// Exactly so many microseconds.
    #[must_use]
    pub const fn us(us: u64) -> Self {
        Self::Exactly(Duration::from_micros(us))
    }

    pub(super) fn draw(&self, rng: &mut Rng) -> Duration {
        match *self {
            Self::Exactly(time) => time,
            Self::Between(least, most) => between(rng, least, most),
            Self::Around(mean) => mean.mul_f64((-(1.0 - rng.f64()).ln()).min(20.0)),
            Self::Mostly { usual, one_in, rare } => {
                let time = if rng.u32(0..one_in.max(1)) == 0 { rare } else { usual };
                time.mul_f64(0.5 + rng.f64())
            }
        }
    }
}

pub(super) fn between(rng: &mut Rng, least: Duration, most: Duration) -> Duration {
    let span = most.saturating_sub(least);
    least + span.mul_f64(rng.f64())
}

/// True once in so many times as `probability` says.
pub(super) fn happens(rng: &mut Rng, probability: f64) -> bool {
    // Not asked where it cannot be, so that a plan without trouble draws nothing for it.
    probability > 0.0 && rng.f64() < probability
}

/// One of the numbers below `n`, the first ones more often: the k-th in proportion to `1 / k^exponent`.
#[derive(Clone, Debug)]
pub(super) struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    pub(super) fn new(n: u32, exponent: f64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=n.max(1)).map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        });
        Self { cumulative: weights.collect() }
    }

    pub(super) fn pick(&self, rng: &mut Rng) -> u32 {
        let all = self.cumulative.last().copied().unwrap_or_default();
        let point = rng.f64() * all;
        let index = self.cumulative.partition_point(|&sum| sum <= point).min(self.cumulative.len() - 1);
        u32::try_from(index).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zipf_draw_favours_the_first_and_reaches_the_last() {
        let (zipf, mut rng) = (Zipf::new(10, 1.0), Rng::with_seed(1));
        let mut drawn = [0_u32; 10];
        for _ in 0..100_000 {
            drawn[zipf.pick(&mut rng) as usize] += 1;
        }
        assert!(drawn.iter().all(|&times| times > 0), "{drawn:?}");
        let ratio = f64::from(drawn[0]) / f64::from(drawn[9]);
        assert!((9.0..11.0).contains(&ratio), "{drawn:?}");
    }

    #[test]
    fn an_exponential_draw_has_its_mean() {
        let mut rng = Rng::with_seed(1);
        let mean = Duration::from_millis(10);
        let all: Duration = (0..100_000).map(|_| Lasts::Around(mean).draw(&mut rng)).sum();
        let ratio = all.as_secs_f64() / 100_000.0 / mean.as_secs_f64();
        assert!((0.98..1.02).contains(&ratio), "{ratio}");
    }
}
