//! What is to happen when: the heap of events. Among those of one moment the first one put in comes out first.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

pub(super) struct Agenda<T> {
    entries: BinaryHeap<Reverse<Entry<T>>>,
    put_in: u64,
}

struct Entry<T> {
    at: Duration,
    order: u64,
    what: T,
}

impl<T> Agenda<T> {
    pub(super) const fn new() -> Self {
        Self { entries: BinaryHeap::new(), put_in: 0 }
    }

    pub(super) fn put(&mut self, at: Duration, what: T) {
        self.put_in += 1;
        self.entries.push(Reverse(Entry { at, order: self.put_in, what }));
    }

    pub(super) fn next(&mut self) -> Option<(Duration, T)> {
        self.entries.pop().map(|Reverse(entry)| (entry.at, entry.what))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_at_once_comes_out_in_the_order_in_which_it_was_put_in() {
        let ms = Duration::from_millis;
        let mut agenda = Agenda::new();
        for (at, what) in [(5, "d"), (3, "a"), (3, "b"), (3, "c")] {
            agenda.put(ms(at), what);
        }
        let out: Vec<_> = std::iter::from_fn(|| agenda.next()).collect();
        assert_eq!(out, [(ms(3), "a"), (ms(3), "b"), (ms(3), "c"), (ms(5), "d")]);
    }
}
