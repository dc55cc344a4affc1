//! The drivers with these settings. No connection string is made on the way: nothing is escaped, parsed or quoted.

#![cfg_attr(
    not(any(
        feature = "sqlx-postgres",
        feature = "sqlx-mysql",
        feature = "diesel-postgres",
        feature = "diesel-mysql"
    )),
    allow(unused_imports, reason = "each driver uses its part")
)]

use secrecy::ExposeSecret;

use super::{Config, SslMode};

/// PostgreSQL's own, which every installation has.
#[cfg(any(feature = "sqlx-postgres", feature = "diesel-postgres"))]
const POSTGRES: &str = "postgres";

impl Config {
    /// [`Config::database_name`] without the rest of the settings.
    #[cfg(any(
        feature = "sqlx-postgres",
        feature = "sqlx-mysql",
        feature = "diesel-postgres",
        feature = "diesel-mysql"
    ))]
    fn database_names(&self) -> impl Fn(&crate::TenantId) -> String + Send + Sync + 'static {
        let prefix = self.prefix.clone();
        move |tenant| format!("{prefix}{tenant}")
    }
}

#[cfg(feature = "sqlx-postgres")]
mod sqlx_postgres {
    use super::{Config, ExposeSecret, POSTGRES, SslMode};
    use ::sqlx::postgres::{PgConnectOptions, PgSslMode};
    use tenantry_sqlx::PostgresFactory;

    impl Config {
        /// How to reach the server with sqlx; the database is the one for maintenance. What is not set is as sqlx finds it
        /// (`PGUSER`, `PGPASSWORD`, ..), but for host, encryption and database, which always come from here.
        #[must_use]
        pub fn sqlx_postgres_options(&self) -> PgConnectOptions {
            let mode = match self.sslmode {
                SslMode::Disable => PgSslMode::Disable,
                SslMode::Allow => PgSslMode::Allow,
                SslMode::Prefer => PgSslMode::Prefer,
                SslMode::Require => PgSslMode::Require,
                SslMode::VerifyCa => PgSslMode::VerifyCa,
                SslMode::VerifyFull => PgSslMode::VerifyFull,
            };
            let options = PgConnectOptions::new_without_pgpass().ssl_mode(mode).port(self.port.unwrap_or(5432));
            let mut options = options.database(self.maintenance_database.as_deref().unwrap_or(POSTGRES));
            options = if self.host.starts_with('/') { options.socket(&self.host) } else { options.host(&self.host) };
            if let Some(user) = &self.user {
                options = options.username(user);
            }
            if let Some(password) = &self.password {
                options = options.password(password.expose_secret());
            }
            if let Some(path) = &self.sslrootcert {
                options = options.ssl_root_cert(path);
            }
            options
        }

        /// The sqlx driver for PostgreSQL, with `prefix` before each tenant's name.
        #[must_use]
        pub fn sqlx_postgres(&self) -> PostgresFactory {
            let factory = PostgresFactory::new(self.sqlx_postgres_options()).database_names(self.database_names());
            match self.statement_timeout {
                Some(timeout) => factory.statement_timeout(timeout),
                None => factory,
            }
        }
    }
}

#[cfg(feature = "sqlx-mysql")]
mod sqlx_mysql {
    use super::{Config, ExposeSecret, SslMode};
    use ::sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
    use tenantry_sqlx::MySqlFactory;

    impl Config {
        /// How to reach the server with sqlx; the database is the one for maintenance.
        #[must_use]
        pub fn sqlx_mysql_options(&self) -> MySqlConnectOptions {
            let mode = match self.sslmode {
                SslMode::Disable => MySqlSslMode::Disabled,
                SslMode::Allow | SslMode::Prefer => MySqlSslMode::Preferred,
                SslMode::Require => MySqlSslMode::Required,
                SslMode::VerifyCa => MySqlSslMode::VerifyCa,
                SslMode::VerifyFull => MySqlSslMode::VerifyIdentity,
            };
            let options = MySqlConnectOptions::new().ssl_mode(mode).port(self.port.unwrap_or(3306));
            let mut options = options.database(self.maintenance_database.as_deref().unwrap_or("mysql"));
            options = if self.host.starts_with('/') { options.socket(&self.host) } else { options.host(&self.host) };
            if let Some(user) = &self.user {
                options = options.username(user);
            }
            if let Some(password) = &self.password {
                options = options.password(password.expose_secret());
            }
            if let Some(path) = &self.sslrootcert {
                options = options.ssl_ca(path);
            }
            options
        }

        /// The sqlx driver for MySQL and MariaDB, with `prefix` before each tenant's name.
        #[must_use]
        pub fn sqlx_mysql(&self) -> MySqlFactory {
            MySqlFactory::new(self.sqlx_mysql_options()).database_names(self.database_names())
        }
    }
}

#[cfg(feature = "diesel-postgres")]
mod diesel_postgres {
    use super::{Config, ExposeSecret, POSTGRES, SslMode};
    use tenantry_diesel::PostgresFactory;
    use tenantry_diesel::tokio_postgres;

    impl Config {
        /// How to reach the server with tokio-postgres; the database is the one for maintenance. It knows no more than
        /// whether encryption is required: for `verify-ca` and `verify-full` it is.
        #[must_use]
        pub fn diesel_postgres_config(&self) -> tokio_postgres::Config {
            let mut config = tokio_postgres::Config::new();
            config.host(&self.host).port(self.port.unwrap_or(5432));
            config.dbname(self.maintenance_database.as_deref().unwrap_or(POSTGRES));
            config.ssl_mode(match self.sslmode {
                SslMode::Disable => tokio_postgres::config::SslMode::Disable,
                SslMode::Allow | SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
                SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => tokio_postgres::config::SslMode::Require,
            });
            if let Some(user) = &self.user {
                config.user(user);
            }
            if let Some(password) = &self.password {
                config.password(password.expose_secret());
            }
            config
        }

        /// The diesel driver for PostgreSQL, with `prefix` before each tenant's name.
        ///
        /// With the feature `tls-rustls` it encrypts, and then always verifies, where the settings ask for that: `require`,
        /// `verify-ca` and `verify-full` alike, and the weaker modes if there is a `sslrootcert`, without which they stay in the
        /// clear. Whom it believes is in `sslrootcert`, else the authorities that Mozilla's browser believes. Without the
        /// feature, a mode that requires encryption fails at the first connect.
        ///
        /// # Errors
        /// When `sslrootcert` cannot be read, or holds no certificate.
        pub fn diesel_postgres(&self) -> std::io::Result<PostgresFactory> {
            let factory = PostgresFactory::new(self.diesel_postgres_config()).database_names(self.database_names());
            #[cfg(feature = "tls-rustls")]
            let factory = match (self.sslmode, &self.sslrootcert) {
                (SslMode::Disable, _) | (SslMode::Allow | SslMode::Prefer, None) => factory,
                (_, Some(path)) => factory.tls(tenantry_diesel::Tls::root_certificates(std::fs::read(path)?)?),
                (_, None) => factory.tls(tenantry_diesel::Tls::webpki_roots()),
            };
            Ok(match self.statement_timeout {
                Some(timeout) => factory.statement_timeout(timeout),
                None => factory,
            })
        }
    }
}

#[cfg(feature = "diesel-mysql")]
mod diesel_mysql {
    use super::{Config, ExposeSecret, SslMode};
    use tenantry_diesel::MySqlFactory;
    use tenantry_diesel::mysql_async::{OptsBuilder, SslOpts};

    impl Config {
        /// How to reach the server with mysql_async; the database is the one for maintenance. With encryption where
        /// [`diesel_mysql`](Self::diesel_mysql) says so.
        #[must_use]
        pub fn diesel_mysql_opts(&self) -> OptsBuilder {
            let opts = OptsBuilder::default().tcp_port(self.port.unwrap_or(3306)).user(self.user.as_ref());
            let opts = opts.pass(self.password.as_ref().map(ExposeSecret::expose_secret));
            let opts = opts.db_name(Some(self.maintenance_database.as_deref().unwrap_or("mysql")));
            let is_socket = self.host.starts_with('/');
            let opts = if is_socket { opts.socket(Some(&self.host)) } else { opts.ip_or_hostname(&self.host) };
            opts.ssl_opts(self.encrypts().then(|| match &self.sslrootcert {
                Some(path) => {
                    SslOpts::default().with_root_certs(vec![path.clone().into()]).with_disable_built_in_roots(true)
                }
                None => SslOpts::default(),
            }))
        }

        /// Required, or possible.
        fn encrypts(&self) -> bool {
            match self.sslmode {
                SslMode::Disable => false,
                SslMode::Allow | SslMode::Prefer => cfg!(feature = "tls-rustls") && self.sslrootcert.is_some(),
                SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => true,
            }
        }

        /// The diesel driver for MySQL and MariaDB, with `prefix` before each tenant's name.
        ///
        /// With the feature `tls-rustls` it encrypts, and then always verifies, where the settings ask for that: `require`,
        /// `verify-ca` and `verify-full` alike, and the weaker modes if there is a `sslrootcert`, without which they stay in the
        /// clear. Whom it believes is in `sslrootcert`, else the authorities that Mozilla's browser believes.
        ///
        /// # Errors
        /// When the settings require encryption and there is no feature `tls-rustls`.
        pub fn diesel_mysql(&self) -> std::io::Result<MySqlFactory> {
            if self.encrypts() && !cfg!(feature = "tls-rustls") {
                return Err(std::io::Error::other("encryption is required, and the feature `tls-rustls` is off"));
            }
            Ok(MySqlFactory::new(self.diesel_mysql_opts()).database_names(self.database_names()))
        }
    }
}
