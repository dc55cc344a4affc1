//! How long a close is counted on by the one to whom its permit was promised.

use super::rig::{MS, Rig};

fn closing(rig: &Rig) -> Vec<&str> {
    rig.closes.iter().map(|(_, connection)| connection.tenant.as_str()).collect()
}

#[test]
fn after_a_close_that_came_in_time_the_next_is_waited_for_no_longer_than_the_first() {
    let mut rig = Rig::with(5, 3);
    for idle in ["p", "q", "r", "s", "t"] {
        rig.warm_up(idle);
    }
    rig.wait("a");
    rig.pass(MS * 100);
    assert_eq!(closing(&rig), ["p", "q"], "the first is late, and the second may take twice as long");
    rig.wait("a");
    let (permit, connection) = rig.closes.remove(1);
    rig.step(|ledger, now| ledger.closed(permit, now));
    drop(connection);
    rig.wait("a");
    assert_eq!(closing(&rig), ["p", "r", "s"]);
    rig.pass(MS * 99);
    assert_eq!(closing(&rig), ["p", "r", "s"]);
    rig.pass(MS);
    assert_eq!(closing(&rig), ["p", "r", "s", "t"], "the one that was promised after that is late");
}
