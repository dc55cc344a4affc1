//! What can befall a server and those who use it, at will: a freeze, sessions that are ended, strangers who take every
//! place, a database that is dropped under load, a password that changes.

use std::fs;
use std::io;
use std::process::Command;

use tokio_postgres::Client;

use super::{Connecting, PostgresError, PrivatePostgres, connect, identifier, literal};
use crate::servers::template::run;

/// Ends the sessions of one role in one database, and waits until each of them is gone.
const END_SESSIONS: &str = "SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity \
                            WHERE usename = $1 AND datname = $2 AND pid <> pg_backend_pid()";

/// A freeze is complete when two looks in a row find the same processes; a postmaster that is stopped makes no more.
const LOOKS: u32 = 10;

impl PrivatePostgres {
    /// Stops every process of the server where it is (`SIGSTOP`), as a machine that swaps or a virtual machine that is
    /// moved does: sockets stay open, the system accepts new ones, nobody answers. Nothing if it is stopped.
    ///
    /// # Errors
    /// [`PostgresError::Setup`] when the system does not let it be done.
    pub fn freeze(&mut self) -> Result<(), PostgresError> {
        if self.running.is_none() {
            return Ok(());
        }
        self.frozen = true;
        // The postmaster first, so that it makes no more children while they are looked for.
        let mut seen = Vec::new();
        for _ in 0..LOOKS {
            let processes = self.processes().map_err(PostgresError::setup("list the server's processes"))?;
            if processes == seen {
                break;
            }
            self.signal("STOP", &processes)?;
            seen = processes;
        }
        Ok(())
    }

    /// Ends a [`freeze`](Self::freeze): everybody goes on where they were. Nothing if there is none.
    ///
    /// # Errors
    /// [`PostgresError::Setup`] when the system does not let it be done.
    pub fn thaw(&mut self) -> Result<(), PostgresError> {
        if !std::mem::take(&mut self.frozen) {
            return Ok(());
        }
        let processes = self.processes().map_err(PostgresError::setup("list the server's processes"))?;
        self.signal("CONT", &processes)
    }

    /// The postmaster, then its children.
    fn processes(&self) -> io::Result<Vec<u32>> {
        let file = fs::read_to_string(self.folder.path().join("data/postmaster.pid"))?;
        let first = file.lines().next().and_then(|line| line.trim().parse().ok());
        let postmaster = first.ok_or_else(|| io::Error::other("postmaster.pid does not begin with a number"))?;
        let mut processes = vec![postmaster];
        let mut children: Vec<u32> =
            parents()?.into_iter().filter(|(_, parent)| *parent == postmaster).map(|(child, _)| child).collect();
        children.sort_unstable();
        processes.extend(children);
        Ok(processes)
    }

    fn signal(&self, signal: &str, processes: &[u32]) -> Result<(), PostgresError> {
        // A child that has just ended makes `kill` complain, which is all right.
        let mut kill = self.account.command("/bin/sh");
        kill.args(["-c", "kill -$0 \"$@\" 2>/dev/null; true", signal]).args(processes.iter().map(u32::to_string));
        Ok(run(kill, "send a signal to the server")?)
    }

    /// Ends the sessions of `role` in `database` with SQLSTATE 57P01, as an administrator does (`pg_terminate_backend`),
    /// and resolves when they are gone, with their number.
    ///
    /// # Errors
    /// [`PostgresError::Sql`] with what the server said.
    ///
    /// # Cancel safety
    /// Some of them may be ended.
    pub async fn end_sessions(&self, role: &str, database: &str) -> Result<u64, PostgresError> {
        let (client, _) = connect(&self.config("postgres")).await?;
        let row = client.query_one(END_SESSIONS, &[&role, &database]).await?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
    }

    /// Drops a database with everybody who is in it (`WITH (FORCE)`, PostgreSQL 13 and later).
    ///
    /// # Errors
    /// [`PostgresError::Sql`] with what the server said.
    ///
    /// # Cancel safety
    /// It may be dropped or not.
    pub async fn drop_database(&self, database: &str) -> Result<(), PostgresError> {
        self.run("postgres", &format!("DROP DATABASE {} WITH (FORCE)", identifier(database))).await
    }

    /// Gives a role another password. Who is logged in stays so.
    ///
    /// # Errors
    /// [`PostgresError::Sql`] with what the server said.
    ///
    /// # Cancel safety
    /// It may be changed or not.
    pub async fn set_password(&self, role: &str, password: &str) -> Result<(), PostgresError> {
        let (role, password) = (identifier(role), literal(password));
        self.run("postgres", &format!("ALTER ROLE {role} PASSWORD {password}")).await
    }

    /// Has strangers take every connection that the server has for others than superusers: they log in as `role` until
    /// the server says that it is full.
    ///
    /// # Errors
    /// [`PostgresError::Sql`] when one is refused for another reason.
    ///
    /// # Cancel safety
    /// Those who are in leave.
    pub async fn fill(&self, role: &str, password: &str) -> Result<Strangers, PostgresError> {
        let mut config = self.config("postgres");
        config.user(role).password(password);
        let mut strangers = Strangers { sessions: Vec::new() };
        loop {
            match connect(&config).await {
                Ok(session) => strangers.sessions.push(session),
                Err(error) if error.code().is_some_and(|code| code.code() == "53300") => return Ok(strangers),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Sessions that take every place: see [`PrivatePostgres::fill`]. Dropped, they leave.
#[derive(Debug)]
#[must_use = "dropped, they leave"]
pub struct Strangers {
    sessions: Vec<(Client, Connecting)>,
}

impl Strangers {
    /// How many got in.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sessions.len()
    }
}

/// Every process with its parent.
fn parents() -> io::Result<Vec<(u32, u32)>> {
    let Ok(processes) = fs::read_dir("/proc") else {
        let listed = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output()?;
        return Ok(String::from_utf8_lossy(&listed.stdout).lines().filter_map(pair).collect());
    };
    let parent_of = |process: fs::DirEntry| {
        let pid = process.file_name().to_str()?.parse::<u32>().ok()?;
        let stat = fs::read_to_string(process.path().join("stat")).ok()?;
        // The second field is the program's name, in parentheses and with anything in it.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        Some((pid, parent))
    };
    Ok(processes.flatten().filter_map(parent_of).collect())
}

fn pair(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
