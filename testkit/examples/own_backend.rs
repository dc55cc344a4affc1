//! A backend of your own, complete: `cargo run -p tenantry-testkit --example own_backend`.
//!
//! Three parts. `engine` stands for the driver that you have: here a server in memory, so that nothing is needed to run it.
//! [`Backend`] is what you write: what tenantry asks of a driver, each answer with its reason. [`proof`] is how you show that
//! it keeps the contract: the facts that the conformance suite needs, and one call. `main` uses it as any other backend.
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::time::Duration;

use engine::{EngineError, Server, Session};
use tenantry_core::{Created, Dropped, FailureKind, Health, PoolFactory, Provision, TenantId, TenantPools};

/// The most bytes of a database's name with this engine.
const MAX_NAME: usize = 64;

/// What you write. It counts nothing, keeps nothing and never waits for room: all of that is tenantry's.
struct Backend {
    server: Server,
    password: String,
}

/// The driver's error, and what is ours. No text of it holds the password: errors end up in logs.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("a database's name has at most {MAX_NAME} bytes")]
    NameTooLong,
    #[error("the engine refused")]
    Engine(#[from] EngineError),
}

impl Backend {
    /// One name, one database: whatever an engine would cut, fold or read as a path has to be refused or escaped here.
    fn database(tenant: &TenantId) -> Result<&str, Error> {
        let name = tenant.as_str();
        if name.len() > MAX_NAME { Err(Error::NameTooLong) } else { Ok(name) }
    }
}

impl PoolFactory for Backend {
    type Connection = Session;
    type Error = Error;

    /// One connection, to a database that is there: a connect never makes one.
    async fn connect(&self, tenant: &TenantId) -> Result<Session, Error> {
        Ok(self.server.connect(Self::database(tenant)?, &self.password).await?)
    }

    /// Without a round trip, from what the driver knows. When in doubt, `Dirty`.
    fn health(&self, session: &mut Session) -> Health {
        if session.is_gone() {
            Health::Lost
        } else if session.is_in_transaction() || session.has_unread_answers() {
            Health::Dirty
        } else {
            Health::Clean
        }
    }

    /// Makes it as new, and proves that the server answers: it is also how an idle connection is asked whether it lives.
    async fn recycle(&self, session: &mut Session) -> Result<(), Error> {
        Ok(session.rollback().await?)
    }

    /// Ends when the server has let go, or at its bound: then the session is dropped, which closes its socket.
    async fn close(&self, session: Session, within: Duration) {
        let _ = tokio::time::timeout(within, session.goodbye()).await;
    }

    /// What tenantry does about a failure depends on this alone.
    fn classify(&self, error: &Error) -> FailureKind {
        match error {
            Error::NameTooLong => FailureKind::InvalidName,
            Error::Engine(EngineError::NoSuchDatabase) => FailureKind::NoSuchTenant,
            Error::Engine(EngineError::WrongPassword) => FailureKind::Auth,
            Error::Engine(EngineError::TooManySessions) => FailureKind::ServerFull,
            Error::Engine(EngineError::Gone) => FailureKind::Unreachable,
        }
    }
}

/// Only if tenants' databases are to be made and dropped through tenantry. A driver with pools of its own that users insist on
/// implements `NativePool` as well.
impl Provision for Backend {
    async fn create(&self, tenant: &TenantId) -> Result<Created, Error> {
        let is_new = self.server.create(Self::database(tenant)?).await?;
        Ok(if is_new { Created::New } else { Created::AlreadyThere })
    }

    async fn drop_database(&self, tenant: &TenantId) -> Result<Dropped, Error> {
        let was_there = self.server.remove(Self::database(tenant)?).await?;
        Ok(if was_there { Dropped::Gone } else { Dropped::WasAbsent })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let backend = Backend { server: Server::new(10), password: engine::PASSWORD.to_owned() };
    let pools = TenantPools::builder(backend).max_connections(2).build()?;
    for tenant in ["acme", "globex", "initech"] {
        pools.create(tenant).await?;
        let mut lease = pools.acquire(tenant).await?;
        lease.begin().await?;
        lease.put("never committed").await?;
        drop(lease); // in a transaction, so it is recycled before anyone else has it
        let mut lease = pools.acquire(tenant).await?;
        lease.put("hello").await?;
        println!("{tenant} holds {:?}", lease.words().await?);
    }
    println!("three tenants, {} connections", pools.stats().open());
    pools.close().await;
    Ok(())
}

/// The driver that you have; yours is a crate that speaks to a server.
mod engine {
    use std::collections::{HashMap, HashSet};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    pub(crate) const PASSWORD: &str = "open sesame";

    #[derive(Debug, thiserror::Error)]
    pub(crate) enum EngineError {
        #[error("there is no such database")]
        NoSuchDatabase,
        #[error("wrong password")]
        WrongPassword,
        #[error("too many sessions")]
        TooManySessions,
        #[error("the server is gone, or has ended the session")]
        Gone,
    }

    #[derive(Debug, Default)]
    struct State {
        is_down: bool,
        is_silent: bool,
        max_sessions: usize,
        databases: HashMap<String, Vec<String>>,
        sessions: HashMap<u64, String>,
        killed: HashSet<u64>,
        next: u64,
    }

    #[derive(Debug, Clone)]
    pub(crate) struct Server(Arc<Mutex<State>>);

    impl Server {
        pub(crate) fn new(max_sessions: usize) -> Self {
            Self(Arc::new(Mutex::new(State { max_sessions, ..State::default() })))
        }

        fn state(&self) -> MutexGuard<'_, State> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// There and back.
        async fn round_trip(&self) -> Result<(), EngineError> {
            tokio::task::yield_now().await;
            let is_silent = self.state().is_silent;
            if is_silent {
                std::future::pending::<()>().await;
            }
            if self.state().is_down { Err(EngineError::Gone) } else { Ok(()) }
        }

        pub(crate) async fn connect(&self, database: &str, password: &str) -> Result<Session, EngineError> {
            self.round_trip().await?;
            let mut state = self.state();
            if password != PASSWORD {
                return Err(EngineError::WrongPassword);
            }
            if !state.databases.contains_key(database) {
                return Err(EngineError::NoSuchDatabase);
            }
            if state.sessions.len() >= state.max_sessions {
                return Err(EngineError::TooManySessions);
            }
            state.next += 1;
            let (id, database) = (state.next, database.to_owned());
            state.sessions.insert(id, database.clone());
            Ok(Session { server: self.clone(), id, database, transaction: None, asked: 0, answered: 0, is_gone: false })
        }

        pub(crate) async fn create(&self, database: &str) -> Result<bool, EngineError> {
            self.round_trip().await?;
            let mut state = self.state();
            let is_new = !state.databases.contains_key(database);
            state.databases.entry(database.to_owned()).or_default();
            Ok(is_new)
        }

        pub(crate) async fn remove(&self, database: &str) -> Result<bool, EngineError> {
            self.round_trip().await?;
            Ok(self.state().databases.remove(database).is_some())
        }
    }

    /// What an administrator does, and a network.
    #[cfg(test)]
    impl Server {
        pub(crate) fn with<const N: usize>(max_sessions: usize, databases: [&str; N]) -> Self {
            let server = Self::new(max_sessions);
            server.state().databases = databases.map(|name| (name.to_owned(), Vec::new())).into();
            server
        }

        pub(crate) fn sessions_in(&self, database: &str) -> usize {
            self.state().sessions.values().filter(|name| *name == database).count()
        }

        pub(crate) fn kill(&self, session: &Session) {
            self.state().sessions.remove(&session.id);
            self.state().killed.insert(session.id);
        }

        pub(crate) fn set_silent(&self, is_silent: bool) {
            self.state().is_silent = is_silent;
        }

        pub(crate) fn set_down(&self) {
            self.state().is_down = true;
        }
    }

    #[derive(Debug)]
    pub(crate) struct Session {
        server: Server,
        id: u64,
        database: String,
        /// What was put since `begin`.
        transaction: Option<Vec<String>>,
        asked: u64,
        answered: u64,
        is_gone: bool,
    }

    impl Session {
        /// A question and its answer; dropped in between, the answer is still to come.
        async fn ask(&mut self) -> Result<(), EngineError> {
            self.asked += 1;
            let answered = self.server.round_trip().await;
            self.answered = self.asked;
            if answered.is_err() || self.server.state().killed.contains(&self.id) {
                self.is_gone = true;
                return Err(EngineError::Gone);
            }
            Ok(())
        }

        pub(crate) async fn begin(&mut self) -> Result<(), EngineError> {
            self.transaction.get_or_insert_default();
            self.ask().await
        }

        pub(crate) async fn rollback(&mut self) -> Result<(), EngineError> {
            self.ask().await?;
            self.transaction = None;
            Ok(())
        }

        pub(crate) async fn put(&mut self, word: &str) -> Result<(), EngineError> {
            self.ask().await?;
            match &mut self.transaction {
                Some(words) => words.push(word.to_owned()),
                None => self.server.state().databases.entry(self.database.clone()).or_default().push(word.to_owned()),
            }
            Ok(())
        }

        pub(crate) async fn words(&mut self) -> Result<Vec<String>, EngineError> {
            self.ask().await?;
            Ok(self.server.state().databases.get(&self.database).cloned().unwrap_or_default())
        }

        pub(crate) async fn goodbye(mut self) {
            // Whatever the answer is, the drop comes next.
            let _ = self.ask().await;
        }

        pub(crate) fn is_gone(&self) -> bool {
            self.is_gone
        }

        pub(crate) fn is_in_transaction(&self) -> bool {
            self.transaction.is_some()
        }

        pub(crate) fn has_unread_answers(&self) -> bool {
            self.answered < self.asked
        }
    }

    impl Drop for Session {
        fn drop(&mut self) {
            self.server.state().sessions.remove(&self.id);
        }
    }
}

/// How you show that it keeps the contract.
#[cfg(test)]
mod proof {
    use tenantry_testkit::conformance::{Limited, NotPossible, Subject, Suite, Trouble};

    use super::*;

    impl Subject for Backend {
        type Factory = Self;

        fn factory(&self) -> &Self {
            self
        }

        fn tenants(&self) -> [TenantId; 2] {
            ["acme", "other"].map(|name| name.parse().expect("a tenant"))
        }

        fn missing_tenant(&self) -> TenantId {
            "missing".parse().expect("a tenant")
        }

        fn secrets(&self) -> Vec<String> {
            vec![engine::PASSWORD.to_owned(), "wrong-password".to_owned()]
        }

        async fn server_side(&self, tenant: &TenantId) -> Result<u64, Trouble> {
            Ok(self.server.sessions_in(tenant.as_str()) as u64)
        }

        async fn ask(&self, session: &mut Session) -> Result<(), Trouble> {
            session.words().await?;
            Ok(())
        }

        async fn keep(&self, session: &mut Session, word: &str) -> Result<(), Trouble> {
            Ok(session.put(word).await?)
        }

        async fn words(&self, session: &mut Session) -> Result<Vec<String>, Trouble> {
            Ok(session.words().await?)
        }

        fn ways_to_leave(&self) -> Vec<&'static str> {
            vec!["a transaction"]
        }

        async fn leave(&self, session: &mut Session, _way: &'static str) -> Result<(), Trouble> {
            Ok(session.begin().await?)
        }

        async fn left(&self, session: &mut Session) -> Result<Vec<String>, Trouble> {
            let left = [(session.is_in_transaction(), "a transaction"), (session.has_unread_answers(), "an answer")];
            Ok(left.into_iter().filter(|(is_left, _)| *is_left).map(|(_, what)| what.to_owned()).collect())
        }

        async fn interruptible(&self, session: &mut Session) -> Result<(), Trouble> {
            session.begin().await?;
            session.put("half-way").await?;
            Ok(session.rollback().await?)
        }

        async fn kill(&self, session: &mut Session) -> Result<(), NotPossible> {
            self.server.kill(session);
            Ok(())
        }

        async fn silence(&self, silent: bool) -> Result<(), NotPossible> {
            self.server.set_silent(silent);
            Ok(())
        }

        fn with_wrong_password(&self) -> Result<Self, NotPossible> {
            Ok(Self { server: self.server.clone(), password: "wrong-password".to_owned() })
        }

        fn with_unreachable_server(&self) -> Result<Self, NotPossible> {
            let server = Server::new(10);
            server.set_down();
            Ok(Self { server, password: engine::PASSWORD.to_owned() })
        }

        fn with_limited_server(&self) -> Result<Limited<Self>, NotPossible> {
            let factory = Self { server: Server::with(2, ["acme"]), password: self.password.clone() };
            Ok(Limited { factory, tenant: "acme".parse().expect("a tenant"), limit: 2 })
        }
    }

    #[tokio::test]
    async fn the_backend_keeps_the_contract() {
        let backend = Backend { server: Server::with(10, ["acme", "other"]), password: engine::PASSWORD.to_owned() };
        let report = Suite::of(&backend).provision().run().await;
        report.assert_passed();
        assert_eq!(report.not_made(), [""; 0], "everything was checked");
    }

    #[test]
    fn the_example_runs() {
        main().expect("it works");
    }
}
