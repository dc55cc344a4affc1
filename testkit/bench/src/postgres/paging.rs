//! How many connects a trace of requests needs where so many databases may have a connection, one request at a time.

use std::collections::{BTreeSet, HashMap};

/// Where the database that was used longest ago makes room.
pub fn lru(trace: &[usize], room: usize) -> usize {
    misses(trace, room, |now, _| now)
}

/// Where the database that is not used for the longest time makes room: nothing does with fewer (Belady).
pub fn optimum(trace: &[usize], room: usize) -> usize {
    // The larger, the later it is used next.
    misses(trace, room, |_, next| usize::MAX - next)
}

/// The one whose rank is smallest makes room.
fn misses(trace: &[usize], room: usize, rank: impl Fn(usize, usize) -> usize) -> usize {
    let mut next = vec![usize::MAX; trace.len()];
    let mut seen: HashMap<usize, usize> = HashMap::new();
    for (at, &database) in trace.iter().enumerate().rev() {
        next[at] = seen.insert(database, at).unwrap_or(usize::MAX);
    }
    let (mut ranks, mut open, mut misses) = (HashMap::<usize, usize>::new(), BTreeSet::new(), 0);
    for (at, &database) in trace.iter().enumerate() {
        if let Some(before) = ranks.remove(&database) {
            open.remove(&(before, database));
        } else {
            misses += 1;
            if ranks.len() == room
                && let Some((_, victim)) = open.pop_first()
            {
                ranks.remove(&victim);
            }
        }
        let rank = rank(at, next[at]);
        ranks.insert(database, rank);
        open.insert((rank, database));
    }
    misses
}
