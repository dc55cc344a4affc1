//! PgBouncer in front of the same server with the same budget, in both of its modes, started for the run.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;
use tenantry_testkit::PrivatePostgres;
use tokio::sync::{Mutex, MutexGuard};

use super::traffic::Contender;
use super::{DATABASES, connect, name};

/// Where Debian puts it, which is in no user's PATH.
const PROGRAMS: [&str; 3] = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];

/// One PgBouncer's way in.
#[derive(Clone)]
pub struct Port(PgConnectOptions);

impl Port {
    pub fn options(&self, tenant: usize) -> PgConnectOptions {
        self.0.clone().database(&name(tenant))
    }
}

/// The connections that clients keep, one for each client and database.
pub struct Kept {
    port: Port,
    clients: Vec<Vec<Mutex<Option<PgConnection>>>>,
}

impl Kept {
    /// A client's connection for a database.
    pub async fn connection(
        &self,
        client: usize,
        tenant: usize,
    ) -> Result<impl std::ops::DerefMut<Target = PgConnection> + '_> {
        let mut kept = self.clients[client][tenant].lock().await;
        if kept.is_none() {
            *kept = Some(connect(&self.port.options(tenant)).await?);
        }
        Ok(MutexGuard::map(kept, |kept| kept.as_mut().expect("it was connected")))
    }
}

pub struct Bouncer {
    _running: [Running; 2],
    pub transactions: Arc<Kept>,
    pub sessions: Port,
}

/// Ends with this.
struct Running {
    process: Child,
    _folder: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Bouncer {
    pub fn start(server: &PrivatePostgres, budget: u32) -> Result<Self> {
        // A client connection for each client and database, on both sides, in the same process and in its.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
        let (transactions, port) = start(server, budget, "transaction")?;
        let (sessions, sessions_port) = start(server, budget, "session")?;
        let clients = (0..super::CLIENTS).map(|_| (0..DATABASES).map(|_| Mutex::new(None)).collect()).collect();
        Ok(Self {
            _running: [transactions, sessions],
            transactions: Arc::new(Kept { port, clients }),
            sessions: sessions_port,
        })
    }

    /// Makes all connections that clients will keep, before anything is measured.
    pub async fn keep(&self, contenders: &[Contender], clients: usize) -> Result<()> {
        for contender in contenders {
            if let Contender::Transactions(kept) = contender {
                let tasks: Vec<_> = (0..clients)
                    .map(|client| {
                        let kept = kept.clone();
                        tokio::spawn(async move {
                            for turn in 0..DATABASES {
                                // In one order for all, so that the server's connections need not change for each.
                                drop(kept.connection(client, turn).await?);
                            }
                            anyhow::Ok(())
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await??;
                }
            }
        }
        Ok(())
    }
}

fn start(server: &PrivatePostgres, budget: u32, mode: &str) -> Result<(Running, Port)> {
    let program = PROGRAMS
        .iter()
        .find(|program| Path::new(program).is_file())
        .context("PgBouncer is missing: install Debian's `pgbouncer`")?;
    let folder = tempfile::tempdir()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let (host, server_port, user, password) = (server.host(), server.port(), server.superuser(), server.password());
    let users = folder.path().join("users.txt");
    fs::write(&users, format!("\"{user}\" \"{password}\"\n"))?;
    let settings = folder.path().join("pgbouncer.ini");
    fs::write(
        &settings,
        format!(
            "[databases]\n* = host={host} port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = {mode}\nmax_client_conn = 15000\n\
             default_pool_size = {budget}\nmax_user_connections = {budget}\nignore_startup_parameters = extra_float_digits\n\
             log_connections = 0\nlog_disconnections = 0\nquery_wait_timeout = 0\n",
            users.display()
        ),
    )?;
    let mut command = Command::new(program);
    if rustix::process::getuid().is_root() {
        // It refuses to run as root.
        command.args(["-u", "nobody"]);
        open_to_all(folder.path())?;
    }
    let process = command.arg(&settings).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut running = Running { process, _folder: folder };
    let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port).username(user).password(password);
    for _ in 0..200 {
        ensure!(running.process.try_wait()?.is_none(), "PgBouncer ended at once");
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok((running, Port(options)));
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    bail!("PgBouncer cannot be reached")
}

fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        fs::set_permissions(entry?.path(), fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}
