//! Encrypted connections to a MariaDB with a certificate: who is believed and who is not.
#![cfg(all(feature = "mysql", feature = "tls-rustls"))]
#![allow(missing_docs, reason = "tests")]

#[path = "support/mysql.rs"]
mod support;

use diesel::QueryableByName;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl as _;
use support::{Server, in_time, opts};
use tenantry_core::{FailureKind, Health, PoolFactory as _};
use tenantry_diesel::MySqlFactory;
use tenantry_diesel::mysql_async::{OptsBuilder, SslOpts};
use tenantry_testkit::PrivateMariaDb;
use tenantry_testkit::servers::Authority;

#[derive(QueryableByName)]
struct Cipher {
    #[diesel(sql_type = Text)]
    cipher: String,
}

fn over_tls(opts: OptsBuilder, host: &str, authority: &Authority) -> MySqlFactory {
    let roots = vec![authority.pem().into_bytes().into()];
    let tls = SslOpts::default().with_root_certs(roots).with_disable_built_in_roots(true);
    MySqlFactory::new(opts.ip_or_hostname(host).ssl_opts(tls))
}

#[tokio::test]
async fn only_a_server_that_is_who_it_says_is_believed() {
    // Two of rustls's providers may be in one test's program; which one is for the program to say.
    let _ = tenantry_diesel::rustls::crypto::ring::default_provider().install_default();
    let authority = Authority::new().expect("an authority");
    let certificate = authority.issue(&["localhost"]).expect("a name");
    let server = Server::on(PrivateMariaDb::builder().certificate(certificate)).await;

    let factory = over_tls(opts(&server.server), "localhost", &authority);
    let mut connection = factory.connect(&server.acme).await.expect("it is who it says");
    let cipher =
        "SELECT variable_value AS cipher FROM information_schema.session_status WHERE variable_name = 'SSL_CIPHER'";
    let found: Cipher = diesel::sql_query(cipher).get_result(&mut connection).await.expect("an answer");
    assert!(!found.cipher.is_empty());
    assert_eq!(factory.health(&mut connection), Health::Clean);
    in_time(factory.close(connection, support::PATIENCE)).await;

    let stranger = Authority::new().expect("an authority");
    for wrong in [
        over_tls(opts(&server.server), "localhost", &stranger),
        over_tls(opts(&server.server), "127.0.0.1", &authority),
    ] {
        let error = wrong.connect(&server.acme).await.expect_err("it is somebody else");
        assert_eq!(wrong.classify(&error), FailureKind::Unreachable, "{error:?}");
    }
    // A server without TLS is not asked for less.
    let plain = Server::new().await;
    let error = over_tls(opts(&plain.server), "localhost", &authority).connect(&plain.acme).await.expect_err("refused");
    assert!(!format!("{error:?}").contains(plain.server.password()));
}
