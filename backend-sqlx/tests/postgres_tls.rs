//! Encrypted connections to a server with a certificate: sqlx does it, and this says how a factory's options and errors
//! come out.

mod support;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use support::postgres::options;
use support::tenant;
use tenantry_core::{FailureKind, PoolFactory as _, Provision as _};
use tenantry_sqlx::PostgresFactory;
use tenantry_testkit::PrivatePostgres;
use tenantry_testkit::servers::Authority;

/// A server that speaks TLS and is called by `names`, with the database `acme`.
async fn encrypted(names: &[&str]) -> (PrivatePostgres, Authority) {
    let authority = Authority::new().expect("an authority");
    let certificate = authority.issue(names).expect("names");
    let server = PrivatePostgres::builder().certificate(certificate).start().expect("a server");
    server.run("postgres", "CREATE DATABASE acme").await.expect("a database");
    (server, authority)
}

fn trusting(server: &PrivatePostgres, authority: &Authority, mode: PgSslMode) -> PgConnectOptions {
    options(server).host("localhost").ssl_mode(mode).ssl_root_cert_from_pem(authority.pem().into_bytes())
}

async fn is_encrypted(options: PgConnectOptions) -> bool {
    let factory = PostgresFactory::new(options);
    let mut connection = factory.connect(&tenant("acme")).await.expect("connects");
    let ask = sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    ask.fetch_one(&mut connection).await.expect("a row")
}

async fn refused(options: PgConnectOptions) -> String {
    let factory = PostgresFactory::new(options);
    let error = factory.connect(&tenant("acme")).await.expect_err("refused");
    assert_eq!(factory.classify(&error), FailureKind::Unreachable, "{error:?}");
    format!("{error:?}")
}

#[tokio::test]
async fn a_server_that_the_authority_vouches_for_is_talked_to_in_secret() {
    let (server, authority) = encrypted(&["localhost", "127.0.0.1"]).await;
    let full = trusting(&server, &authority, PgSslMode::VerifyFull);
    assert!(is_encrypted(full.clone()).await);
    assert!(is_encrypted(full.clone().host("127.0.0.1")).await);
    assert!(!is_encrypted(full.clone().ssl_mode(PgSslMode::Disable)).await);

    let factory = PostgresFactory::new(full);
    factory.create(&tenant("new")).await.expect("made in secret");
}

#[tokio::test]
async fn a_server_that_another_authority_vouches_for_is_not_believed() {
    let (server, authority) = encrypted(&["localhost"]).await;
    let other = Authority::new().expect("an authority");
    for mode in [PgSslMode::VerifyFull, PgSslMode::VerifyCa] {
        let said = refused(trusting(&server, &other, mode)).await;
        assert!(said.contains("UnknownIssuer") || said.contains("BadSignature"), "{said}");
    }
    assert!(is_encrypted(trusting(&server, &authority, PgSslMode::VerifyFull)).await);
    // `require` encrypts and believes anybody, as the factory's documentation says.
    assert!(is_encrypted(trusting(&server, &other, PgSslMode::Require)).await);
}

#[tokio::test]
async fn a_server_of_another_name_is_not_believed() {
    let (server, authority) = encrypted(&["db.internal"]).await;
    let said = refused(trusting(&server, &authority, PgSslMode::VerifyFull)).await;
    assert!(said.contains("NotValidForName"), "{said}");
    assert!(is_encrypted(trusting(&server, &authority, PgSslMode::VerifyCa)).await, "the name is not looked at");
}

#[tokio::test]
async fn who_requires_encryption_gets_it_or_nothing() {
    let server = PrivatePostgres::new().expect("a server without TLS");
    server.run("postgres", "CREATE DATABASE acme").await.expect("a database");
    let said = refused(options(&server).ssl_mode(PgSslMode::Require)).await;
    assert!(said.contains("Tls"), "{said}");
    assert!(!is_encrypted(options(&server).ssl_mode(PgSslMode::Prefer)).await);
}
