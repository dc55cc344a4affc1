//! Encrypted connections to a server with a certificate: who is believed, who is not, and that the end of one is still the
//! server's.
#![cfg(all(feature = "postgres", feature = "tls-rustls"))]
#![allow(missing_docs, reason = "tests")]

mod support;

use std::error::Error as StdError;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel_async::SimpleAsyncConnection as _;
use support::{number, plain_query, tenant, text};
use tenantry_core::{AcquireError, FailureKind, Health, PoolFactory as _, Provision as _, TenantPools};
use tenantry_diesel::rustls;
use tenantry_diesel::tokio_postgres::Config;
use tenantry_diesel::tokio_postgres::config::{ChannelBinding, SslMode};
use tenantry_diesel::{Error, PostgresConnection, PostgresFactory, Tls};
use tenantry_testkit::PrivatePostgres;
use tenantry_testkit::servers::{Authority, Role, patient};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

const LONG: Duration = Duration::from_secs(60);

/// A server that speaks TLS, with the database `acme` and the role `one`, which may have one connection.
struct Encrypted {
    server: PrivatePostgres,
    authority: Authority,
}

impl Encrypted {
    async fn called(names: &[&str]) -> Self {
        let authority = Authority::new().expect("an authority");
        let certificate = authority.issue(names).expect("names");
        let builder = PrivatePostgres::builder().certificate(certificate);
        let server = builder.role(Role::new("one", "mark3r-role").connection_limit(1)).start().expect("a server");
        server.run("postgres", "CREATE DATABASE acme").await.expect("a database");
        Self { server, authority }
    }

    fn tls(&self) -> Tls {
        Tls::root_certificates(self.authority.pem()).expect("a certificate")
    }

    /// What to connect with to the server by a name that it may have.
    fn config(&self, host: &str, mode: SslMode) -> Config {
        let mut config = Config::new();
        config.host(host).hostaddr(Ipv4Addr::LOCALHOST.into()).port(self.server.port()).ssl_mode(mode);
        config.user(self.server.superuser()).password(self.server.password());
        config
    }

    fn factory(&self, host: &str, mode: SslMode) -> PostgresFactory {
        PostgresFactory::new(self.config(host, mode)).tls(self.tls())
    }

    fn one(&self, mode: SslMode) -> PostgresFactory {
        let mut config = self.config("localhost", mode);
        config.user("one").password("mark3r-role");
        PostgresFactory::new(config).tls(self.tls())
    }
}

/// Whether the server says that the session is encrypted.
async fn is_encrypted(connection: &mut PostgresConnection) -> bool {
    text(connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await == "true"
}

async fn connect(factory: &PostgresFactory) -> PostgresConnection {
    factory.connect(&tenant("acme")).await.expect("connects")
}

/// What rustls says, where it is the one who refuses, else the text.
async fn refused(factory: &PostgresFactory) -> Result<rustls::Error, String> {
    let error = factory.connect(&tenant("acme")).await.expect_err("refused");
    assert_eq!(factory.classify(&error), FailureKind::Unreachable, "{error:?}");
    let Error::Tls { source, .. } = &error else { panic!("{error:?}") };
    let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    inner.cloned().ok_or_else(|| source.to_string())
}

fn is_certificate(error: &rustls::Error, expected: impl Fn(&rustls::CertificateError) -> bool) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(error) if expected(error))
}

#[tokio::test]
async fn a_server_that_the_authority_vouches_for_is_talked_to_in_secret() {
    let encrypted = Encrypted::called(&["localhost", "127.0.0.1"]).await;
    for host in ["localhost", "127.0.0.1"] {
        for mode in [SslMode::Require, SslMode::Prefer] {
            let factory = encrypted.factory(host, mode);
            let mut connection = connect(&factory).await;
            assert!(is_encrypted(&mut connection).await, "{host} {mode:?}");
            factory.recycle(&mut connection).await.expect("recycles");
            assert_eq!(factory.health(&mut connection), Health::Clean);
            factory.close(connection, LONG).await;
        }
    }
    // Nobody asked for it.
    let mut connection = connect(&encrypted.factory("localhost", SslMode::Disable)).await;
    assert!(!is_encrypted(&mut connection).await);
    let mut connection = connect(&PostgresFactory::new(encrypted.config("localhost", SslMode::Prefer))).await;
    assert!(!is_encrypted(&mut connection).await);
}

#[tokio::test]
async fn a_server_that_another_authority_vouches_for_is_not_believed() {
    let encrypted = Encrypted::called(&["localhost"]).await;
    let other = Tls::root_certificates(Authority::new().expect("an authority").pem()).expect("a certificate");
    for tls in [other, Tls::webpki_roots()] {
        for mode in [SslMode::Require, SslMode::Prefer] {
            let factory = encrypted.factory("localhost", mode).tls(tls.clone());
            let error = refused(&factory).await.expect("rustls says why");
            // Two authorities of tests have the same name, so the signature is looked at.
            let is_expected = |error: &_| {
                matches!(error, rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature)
            };
            assert!(is_certificate(&error, is_expected), "{error:?}");
        }
    }
    let sessions = encrypted.server.sample().await.expect("a sample").in_database("acme");
    assert_eq!(sessions, 0, "nobody is talked to in the clear instead");
}

#[tokio::test]
async fn a_server_of_another_name_is_not_believed() {
    let encrypted = Encrypted::called(&["db.internal"]).await;
    for host in ["localhost", "127.0.0.1", "other.internal"] {
        let error = refused(&encrypted.factory(host, SslMode::Require)).await.expect("rustls says why");
        let is_name = |error: &_| matches!(error, rustls::CertificateError::NotValidForNameContext { .. });
        assert!(is_certificate(&error, is_name), "{host}: {error:?}");
    }
    let mut connection = connect(&encrypted.factory("db.internal", SslMode::Require)).await;
    assert!(is_encrypted(&mut connection).await);
}

#[tokio::test]
async fn who_requires_encryption_gets_it_or_nothing() {
    let server = PrivatePostgres::new().expect("a server without TLS");
    server.run("postgres", "CREATE DATABASE acme").await.expect("a database");
    let config = |mode| server.config("postgres").ssl_mode(mode).clone();
    let factory = |mode| PostgresFactory::new(config(mode)).tls(Tls::webpki_roots());
    let says = refused(&factory(SslMode::Require)).await.expect_err("not rustls");
    assert_eq!(says, "the server does not speak TLS");
    let says = refused(&PostgresFactory::new(config(SslMode::Require))).await.expect_err("not rustls");
    assert!(says.contains("was given no `tls`"), "{says}");
    let mut by_file =
        Config::new().host_path(server.socket_dir()).port(server.port()).ssl_mode(SslMode::Require).clone();
    by_file.user(server.superuser()).password(server.password());
    let says = refused(&PostgresFactory::new(by_file).tls(Tls::webpki_roots())).await.expect_err("not rustls");
    assert!(says.contains("Unix socket"), "{says}");

    let mut connection = connect(&factory(SslMode::Prefer)).await;
    assert!(!is_encrypted(&mut connection).await);
}

#[tokio::test]
async fn a_caller_learns_that_nobody_proved_to_be_the_server() {
    let encrypted = Encrypted::called(&["localhost"]).await;
    let factory = encrypted.factory("localhost", SslMode::Require).tls(Tls::webpki_roots());
    let pools = patient(TenantPools::builder(factory)).max_connections(2).build().expect("settings");
    let error = pools.acquire("acme").await.expect_err("refused");
    let AcquireError::Connect { kind, source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*kind, FailureKind::Unreachable);
    assert!(matches!(&**source, Error::Tls { .. }));
    let cause = error.source().and_then(StdError::source).map(ToString::to_string);
    assert!(cause.is_some_and(|cause| cause.contains("certificate")), "{error:?}");
}

#[tokio::test]
async fn databases_are_made_and_dropped_in_secret() {
    let encrypted = Encrypted::called(&["localhost"]).await;
    let pools = patient(TenantPools::builder(encrypted.factory("localhost", SslMode::Require))).max_connections(2);
    let pools = pools.build().expect("settings");
    pools.create("new").await.expect("created");
    let mut lease = pools.acquire("new").await.expect("a lease");
    assert!(is_encrypted(&mut lease).await);
    drop(lease);
    pools.drain("new", LONG).await;
    pools.drop_database("new").await.expect("dropped");
    let clear = encrypted.factory("localhost", SslMode::Require).tls(Tls::webpki_roots());
    let error = clear.create(&tenant("another")).await.expect_err("nobody is believed");
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_login_is_bound_to_its_encryption() {
    let encrypted = Encrypted::called(&["localhost"]).await;
    let with = |mode| {
        let mut config = encrypted.config("localhost", mode);
        config.channel_binding(ChannelBinding::Require);
        PostgresFactory::new(config).tls(encrypted.tls())
    };
    assert!(is_encrypted(&mut connect(&with(SslMode::Require)).await).await);
    let error = with(SslMode::Disable).connect(&tenant("acme")).await.expect_err("nothing to bind it to");
    assert!(matches!(error, Error::Postgres { .. }), "{error:?}");
}

/// Sessions of the role that may have one, asked on a connection that is there already: a new one takes longer than a
/// session to go.
async fn sessions(watcher: &mut PostgresConnection) -> i64 {
    number(watcher, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'one'").await
}

#[tokio::test]
async fn the_server_has_let_go_when_an_encrypted_connection_is_closed() {
    let encrypted = Encrypted::called(&["localhost"]).await;
    let one = encrypted.one(SslMode::Require);
    let mut watcher = connect(&encrypted.factory("localhost", SslMode::Require)).await;
    for _ in 0..100 {
        let mut connection = one.connect(&tenant("acme")).await.expect("the one before is gone");
        plain_query(&mut connection).await;
        assert_eq!(sessions(&mut watcher).await, 1);
        one.close(connection, LONG).await;
        assert_eq!(sessions(&mut watcher).await, 0);
    }
}

/// A place to connect to the server through, and how each who did so began.
async fn relay(server: u16) -> (u16, Arc<Mutex<Vec<[u8; 8]>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let begins = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&begins);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut begin = [0; 8];
            client.read_exact(&mut begin).await.expect("a beginning");
            noted.lock().expect("no panic").push(begin);
            let mut server = TcpStream::connect(("127.0.0.1", server)).await.expect("connects");
            server.write_all(&begin).await.expect("writes");
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    (port, begins)
}

#[tokio::test]
async fn an_encrypted_query_that_was_dropped_half_way_is_cancelled_in_secret() {
    let encrypted = Encrypted::called(&["localhost"]).await;
    let (port, begins) = relay(encrypted.server.port()).await;
    let mut config = Config::new();
    config.host("localhost").hostaddr(Ipv4Addr::LOCALHOST.into()).port(port);
    config.user("one").password("mark3r-role").ssl_mode(SslMode::Require);
    let one = PostgresFactory::new(config).tls(encrypted.tls());
    let mut watcher = connect(&encrypted.factory("localhost", SslMode::Require)).await;
    for _ in 0..10 {
        let mut connection = one.connect(&tenant("acme")).await.expect("the one before is gone");
        let slow = connection.batch_execute("SELECT pg_sleep(3600)");
        tokio::time::timeout(Duration::from_millis(5), slow).await.expect_err("it takes its time");
        one.close(connection, LONG).await;
        assert_eq!(sessions(&mut watcher).await, 0);
    }
    assert!(encrypted.server.log().contains("canceling statement due to user request"));
    let begins = begins.lock().expect("no panic");
    assert!(begins.len() > 10, "requests to cancel as well");
    let asks_for_encryption = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    assert!(begins.iter().all(|begin| *begin == asks_for_encryption), "{begins:?}");
}
