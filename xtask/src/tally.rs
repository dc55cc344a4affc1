//! How many tests ran: read from the closing lines of nextest, of `cargo test` and of rustdoc.

use std::fmt;
use std::ops::AddAssign;

/// Tests that passed, failed and were left out.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Tally {
    /// Adds up the closing lines in what the runners said.
    pub(crate) fn read(said: &str) -> Self {
        let mut tally = Self::default();
        for line in said.lines().map(str::trim).filter(|l| l.starts_with("Summary [") || l.starts_with("test result:"))
        {
            let words: Vec<&str> = line.split([' ', ',', ';', ':', '.']).filter(|word| !word.is_empty()).collect();
            for pair in words.windows(2) {
                let Ok(count) = pair[0].parse::<u64>() else { continue };
                match pair[1] {
                    "passed" => tally.passed += count,
                    "failed" | "timed" => tally.failed += count,
                    "skipped" | "ignored" => tally.skipped += count,
                    _ => {}
                }
            }
        }
        tally
    }

    /// Whether not one test ran, which is no success.
    pub(crate) fn is_empty(self) -> bool {
        self.passed + self.failed == 0
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_lines_of_every_runner_add_up() {
        let said = "
     Summary [   0.03s] 14 tests run: 9 passed (1 slow), 3 failed, 2 timed out, 7 skipped
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
test prints_100_passed ... ok";
        assert_eq!(Tally::read(said), Tally { passed: 12, failed: 5, skipped: 8 });
        assert!(Tally::read("error: could not compile").is_empty());
    }
}
