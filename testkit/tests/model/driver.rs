//! The ledger under test, with a hand for each end of it. It plays the commands that the reference worked out, and
//! compares all that can be seen of each with what the reference expects.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use tenantry_core::ledger::{
    Action, Ask, Decision, Failure, Held, Ledger, PermitKey, Polled, Refusal as Refused, TryDecision, WaiterKey,
};
use tenantry_core::{Settings, TenantId};

use super::compare::same_refusal;
use super::expectation::{Call, Command, Expected, Reply};
use super::operations::Trouble;
use super::world::{World, server_id, tenant_id};

/// Anybody's code may run when one of these is dropped, so the ledger may not drop any while it is at work.
#[derive(Debug)]
struct Outside(Arc<AtomicBool>);

impl Drop for Outside {
    fn drop(&mut self) {
        let at_work = self.0.load(Ordering::Relaxed) && !std::thread::panicking();
        assert!(!at_work, "the ledger dropped a connection, an error or a waker by itself");
    }
}

/// A connection, known by its number.
#[derive(Debug)]
pub(crate) struct Connection {
    number: u32,
    _outside: Outside,
}

/// A driver's error, known by its number.
#[derive(Debug)]
pub(crate) struct Oops {
    pub(crate) number: u32,
    _outside: Outside,
}

/// Notes who was woken.
struct Bell {
    waiter: u32,
    rung: Arc<Mutex<Vec<u32>>>,
    _outside: Outside,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.lock().expect("nobody panics with it").push(self.waiter);
    }
}

pub(crate) struct Driver {
    pub(crate) ledger: Ledger<Connection, Oops>,
    acquire_timeout: std::time::Duration,
    at_work: Arc<AtomicBool>,
    rung: Arc<Mutex<Vec<u32>>>,
    /// The ledger's names for the reference's numbers.
    permits: HashMap<u32, PermitKey>,
    waiters: HashMap<u32, WaiterKey>,
    /// Connections that are out: with a lease, or with a task that recycles or closes.
    out: HashMap<u32, Connection>,
}

/// What one command left: the connections to close and to recycle with their permits, the tenants to open for.
#[derive(Default)]
struct Asked {
    opens: Vec<(TenantId, PermitKey)>,
    closes: Vec<(PermitKey, Connection)>,
    recycles: Vec<(PermitKey, Connection)>,
}

type Seen = Result<Reply, Refused<Oops>>;

impl Driver {
    pub(crate) fn new(world: &World) -> Self {
        Self {
            ledger: Ledger::new(world.settings()),
            acquire_timeout: world.acquire_timeout,
            at_work: Arc::default(),
            rung: Arc::default(),
            permits: HashMap::new(),
            waiters: HashMap::new(),
            out: HashMap::new(),
        }
    }

    /// Calls a command and compares what came of it.
    pub(crate) fn play(&mut self, call: &Call, now: std::time::Duration) {
        let Call { command, expected } = call;
        self.at_work.store(true, Ordering::Relaxed);
        let (seen, left_over) = self.command(command, expected, now);
        let actions = self.ledger.take_actions();
        self.at_work.store(false, Ordering::Relaxed);
        drop(left_over);
        let mut asked = Asked::default();
        for action in actions {
            match action {
                Action::Open { permit, tenant } => asked.opens.push((tenant, permit)),
                Action::Close { permit, connection } => asked.closes.push((permit, connection)),
                Action::Recycle { permit, connection } => asked.recycles.push((permit, connection)),
                Action::Wake(waker) => waker.wake(),
                Action::DropWaker(_) | Action::DropError(_) | Action::Tell(_) => {}
            }
        }
        self.ledger.check();
        match (&seen, &expected.reply) {
            (Err(refused), Reply::Refused(refusal)) => same_refusal(refused, refusal, self.acquire_timeout),
            (Ok(reply), expected) => assert_eq!(reply, expected, "the reply to {command:?}"),
            (refused, expected) => panic!("{command:?} gave {refused:?}, not {expected:?}"),
        }
        self.compare_actions(asked, expected);
    }

    fn compare_actions(&mut self, asked: Asked, expected: &Expected) {
        let mut opens: Vec<TenantId> = asked.opens.iter().map(|(tenant, _)| tenant.clone()).collect();
        let mut expected_opens: Vec<TenantId> = expected.opens.iter().map(|&(_, tenant)| tenant_id(tenant)).collect();
        opens.sort();
        expected_opens.sort();
        assert_eq!(opens, expected_opens, "for whom a connection is to be opened");
        // Opens for one tenant that were asked for at once are as good as each other.
        let mut unbound = asked.opens;
        for &(permit, tenant) in &expected.opens {
            let at = unbound.iter().position(|(name, _)| *name == tenant_id(tenant)).expect("as many as expected");
            self.permits.insert(permit, unbound.remove(at).1);
        }
        self.put_out(asked.closes, &expected.closes, "closed");
        self.put_out(asked.recycles, &expected.recycles, "recycled");
        let mut woken = std::mem::take(&mut *self.rung.lock().expect("nobody panics with it"));
        let mut expected_woken = expected.woken.clone();
        woken.sort_unstable();
        expected_woken.sort_unstable();
        assert_eq!(woken, expected_woken, "who is woken");
    }

    fn put_out(&mut self, asked: Vec<(PermitKey, Connection)>, expected: &[(u32, u32)], what: &str) {
        let mut connections: Vec<u32> = asked.iter().map(|(_, connection)| connection.number).collect();
        let mut wanted: Vec<u32> = expected.iter().map(|&(_, connection)| connection).collect();
        connections.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(connections, wanted, "which connections are to be {what}");
        for (key, connection) in asked {
            let permit = expected.iter().find(|(_, number)| *number == connection.number).expect("just compared").0;
            assert_eq!(key, self.permits[&permit], "the permit of connection {}", connection.number);
            self.out.insert(permit, connection);
        }
    }

    /// Second, what was handed back that is to be dropped outside.
    fn command(&mut self, command: &Command, expected: &Expected, now: std::time::Duration) -> (Seen, Option<Waker>) {
        let mut left_over = None;
        let seen = match *command {
            Command::Acquire { tenant, pool, background, caller } => {
                match self.ledger.acquire(tenant_id(tenant).as_str(), Ask { pool, background, caller }, now) {
                    Decision::Take(held) => Ok(self.hold(held, expected)),
                    Decision::Wait(key) => Ok(self.wait(key, expected)),
                    Decision::Refuse(refusal) => Err(refusal),
                    Decision::Unknown => Ok(Reply::Unknown),
                }
            }
            Command::AcquireWarm { tenant, background, caller } => {
                let ask = Ask { pool: 0, background, caller };
                let name = tenant_id(tenant);
                let hash = self.ledger.name_hasher().hash(name.as_str());
                match self.ledger.acquire_warm(name.as_str(), hash, ask, now) {
                    Some(held) => Ok(self.hold(held, expected)),
                    None => Ok(Reply::NotIdle),
                }
            }
            Command::TryAcquire { tenant, caller } => {
                match self.ledger.try_acquire(tenant_id(tenant).as_str(), caller, now) {
                    TryDecision::Take(held) => Ok(self.hold(held, expected)),
                    TryDecision::NotIdle => Ok(Reply::NotIdle),
                    TryDecision::Draining => Err(Refused::Draining),
                    TryDecision::Removed => Err(Refused::Removed),
                    TryDecision::Closed => Err(Refused::Closed),
                }
            }
            Command::Poll { waiter } => {
                let outside = Outside(Arc::clone(&self.at_work));
                let bell = Waker::from(Arc::new(Bell { waiter, rung: Arc::clone(&self.rung), _outside: outside }));
                match self.ledger.poll(self.waiters[&waiter], bell.clone(), now) {
                    Polled::Pending(before) => {
                        left_over = before;
                        self.at_work.store(false, Ordering::Relaxed);
                        drop(bell);
                        Ok(Reply::Pending)
                    }
                    polled => {
                        left_over = Some(bell);
                        self.collected(polled, expected)
                    }
                }
            }
            Command::GiveUp { waiter } => {
                let polled = self.ledger.give_up(self.waiters[&waiter], now);
                self.collected(polled, expected)
            }
            _ => Ok(self.plain_command(command, now)),
        };
        (seen, left_over)
    }

    /// The commands that never refuse.
    fn plain_command(&mut self, command: &Command, now: std::time::Duration) -> Reply {
        let keys = |me: &Self, permits: &[u32]| -> Vec<PermitKey> { permits.iter().map(|id| me.permits[id]).collect() };
        match command {
            &Command::Admit { tenant, server } => self.ledger.admit(tenant_id(tenant), &server_id(server), now),
            Command::Cancel { waiter } => self.ledger.cancel(self.waiters[waiter], now),
            &Command::Release { permit, health } => {
                let connection = self.out.remove(&permit).expect("a lease's connection is out");
                self.ledger.release(self.permits[&permit], connection, health, now);
            }
            &Command::Opened { permit, connection, random } => {
                let connection = Connection { number: connection, _outside: Outside(Arc::clone(&self.at_work)) };
                self.ledger.opened(self.permits[&permit], connection, random, now);
            }
            &Command::OpenFailed { permit, trouble, error, random } => {
                let failure = self.failure(trouble, error);
                self.ledger.open_failed(self.permits[&permit], failure, random, now);
            }
            Command::Recycled { permit } => {
                let connection = self.out.remove(permit).expect("a connection that is recycled is out");
                self.ledger.recycled(self.permits[permit], connection, now);
            }
            Command::FoundLost { permit } => self.ledger.found_lost(self.permits[permit]),
            Command::RecycleFailed { permit } => self.ledger.recycle_failed(self.permits[permit], now),
            Command::Closed { permit } => {
                self.at_work.store(false, Ordering::Relaxed);
                self.out.remove(permit);
                self.at_work.store(true, Ordering::Relaxed);
                self.ledger.closed(self.permits[permit], now);
            }
            Command::ClosingPool { permits } => self.ledger.closing_pool(&keys(self, permits), now),
            Command::FreePool { permits } => self.ledger.free_pool(&keys(self, permits), now),
            &Command::Drain { tenant } => return Reply::Was(self.ledger.drain(tenant_id(tenant).as_str(), now)),
            &Command::Resume { tenant, server } => {
                return Reply::Was(self.ledger.resume(tenant_id(tenant).as_str(), &server_id(server), now));
            }
            &Command::Remove { tenant } => return Reply::Was(self.ledger.remove(tenant_id(tenant).as_str(), now)),
            &Command::DropBegins { tenant } => {
                return Reply::Was(self.ledger.drop_begins(tenant_id(tenant).as_str(), now));
            }
            &Command::DropEnds { tenant, server } => {
                self.ledger.drop_ends(tenant_id(tenant).as_str(), &server_id(server), now);
            }
            &Command::Created { tenant } => self.ledger.created(tenant_id(tenant).as_str(), now),
            &Command::Pause { server } => self.ledger.pause(&server_id(server), now),
            &Command::Unpause { server } => return Reply::Was(self.ledger.unpause(&server_id(server), now)),
            Command::SetLimits(settings) => self.ledger.set_limits(Settings::clone(settings), now),
            &Command::Renew { tenant } => {
                let name = tenant.map(tenant_id);
                return Reply::Evicted(self.ledger.renew(name.as_ref().map(|name| name.as_str()), now));
            }
            &Command::Evict { tenant } => return Reply::Evicted(self.ledger.evict(tenant_id(tenant).as_str(), now)),
            Command::Tick => {
                let long = self.ledger.tick(now);
                let by_number =
                    |name: &TenantId| (0..).find(|&tenant| tenant_id(tenant) == *name).expect("one of ours");
                let mut long: Vec<_> = long.iter().map(|lease| (by_number(&lease.tenant), lease.held)).collect();
                long.sort_unstable();
                return Reply::LongLeases(long);
            }
            Command::Close => self.ledger.close(now),
            other => unreachable!("{other:?} may refuse"),
        }
        Reply::Nothing
    }

    fn failure(&self, trouble: Trouble, number: u32) -> Failure<Oops> {
        let source = || Arc::new(Oops { number, _outside: Outside(Arc::clone(&self.at_work)) });
        match trouble {
            Trouble::Error(kind) => Failure::Error { kind, source: source() },
            Trouble::TimedOut => Failure::TimedOut,
            Trouble::Panicked => Failure::Panicked,
        }
    }

    fn hold(&mut self, held: Held<Connection>, expected: &Expected) -> Reply {
        let Reply::Connection { permit, .. } = expected.reply else {
            panic!("connection {} was handed out, expected was {:?}", held.connection.number, expected.reply)
        };
        let connection = held.connection.number;
        assert_eq!(held.permit, self.permits[&permit], "the permit of connection {connection}");
        self.out.insert(permit, held.connection);
        Reply::Connection { permit, connection }
    }

    fn wait(&mut self, key: WaiterKey, expected: &Expected) -> Reply {
        let Reply::Waits(waiter) = expected.reply else {
            panic!("an acquire waits, expected was {:?}", expected.reply)
        };
        self.waiters.insert(waiter, key);
        Reply::Waits(waiter)
    }

    fn collected(&mut self, polled: Polled<Connection, Oops>, expected: &Expected) -> Seen {
        match (polled, &expected.reply) {
            (Polled::Connection(held), _) => Ok(self.hold(held, expected)),
            (Polled::Pool(keys), Reply::Pool(permits)) if keys.len() == permits.len() => {
                self.permits.extend(permits.iter().copied().zip(keys));
                Ok(Reply::Pool(permits.clone()))
            }
            (Polled::Pool(keys), reply) => panic!("{} permits for a pool lease, expected was {reply:?}", keys.len()),
            (Polled::Refused(refusal), _) => Err(refusal),
            (Polled::Pending(_), _) => Ok(Reply::Pending),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // What a failed comparison leaves behind may be dropped anywhere.
        self.at_work.store(false, Ordering::Relaxed);
    }
}
