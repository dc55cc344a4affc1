//! A service's start: settings from the environment, checked as a whole, then the pools.
//!
//! ```sh
//! DB_HOST=localhost DB_USER=shop DB_PASSWORD=.. DB_PREFIX=shop_ DB_MAX_CONNECTIONS=60 DB_SYSTEM_TENANT=system \
//!     cargo run --example from_env --features env,sqlx-postgres -- settings.toml
//! ```
//!
//! Try `DB_MAX_CONNECTIONS=5 DB_ACQUIRE_TIMEOUT=10 DB_PASWORD=x`: all that is wrong is said at once, and nothing is opened.
#![allow(clippy::print_stdout, reason = "an example talks")]

use anyhow::{Context, Result};
use tenantry::config::{Config, Loader};
use tenantry::sqlx::PostgresFactory;
use tenantry::{Replicas, TenantPools};

#[tokio::main]
async fn main() -> Result<()> {
    let mut loader = Config::loader("DB");
    if let Some(file) = std::env::args_os().nth(1) {
        loader = loader.file(file);
    }
    let config = read(&loader)?;
    let pools = start(&config).await?;
    println!("{pools:?}");
    pools.close().await;
    Ok(())
}

/// The settings, and a line for every variable that is somebody else's, as far as can be told.
fn read(loader: &Loader) -> Result<Config> {
    let config = loader.load()?;
    for name in &config.unknown {
        println!("{name} is none of the settings");
    }
    Ok(config)
}

/// The pools, and proof that the system database answers and that the server has room for all of them, so that a bad
/// password or budget is found now and not by a user.
async fn start(config: &Config) -> Result<TenantPools<PostgresFactory>> {
    let pools = config.builder(config.sqlx_postgres()).build()?;
    if let Some(system) = &config.system_tenant {
        pools.create(system).await.context("the system database cannot be made")?;
        let preflight = pools.preflight(system).await.context("the system database does not answer")?;
        // Two of this service run; a deployment starts the third before it stops the first.
        preflight.fits(Replicas { running: 2, surge: 1 })?;
    }
    Ok(pools)
}

#[cfg(test)]
mod postgres {
    use tenantry_testkit::PrivatePostgres;
    use tenantry_testkit::servers::Role;

    use super::*;

    const PASSWORD: &str = "it's a/mark3r:@ 100%?#";

    #[tokio::test]
    async fn a_service_starts_with_settings_from_the_environment_and_a_wrong_password_is_found_at_once() -> Result<()> {
        let server = PrivatePostgres::builder().role(Role::new("shop", PASSWORD).create_databases()).start()?;
        let port = server.port().to_string();
        let variables = [
            ("DB_HOST", server.host()),
            ("DB_PORT", &port),
            ("DB_USER", "shop"),
            ("DB_PASSWORD", PASSWORD),
            ("DB_PREFIX", "shop_"),
            ("DB_SYSTEM_TENANT", "system"),
            ("DB_MAX_CONNECTIONS", "30"),
        ];
        let loader = Config::loader("DB").environment(variables);
        let pools = start(&read(&loader)?).await?;
        let mut lease = pools.acquire("system").await?;
        let (database, user): (String, String) =
            sqlx::query_as("SELECT current_database()::text, current_user::text").fetch_one(&mut *lease).await?;
        assert_eq!((database.as_str(), user.as_str()), ("shop_system", "shop"));
        drop(lease);
        assert_eq!(pools.tenant_stats("system").map(|system| system.max), Some(5), "a tenth of the budget, at least 5");
        pools.close().await;

        let greedy = variables.map(|(name, value)| (name, if name == "DB_MAX_CONNECTIONS" { "40" } else { value }));
        let error = start(&read(&Config::loader("DB").environment(greedy))?).await.expect_err("three times 40 of 97");
        assert!(error.to_string().contains("max_connections is at most 32"), "{error}");

        let wrong = variables.map(|(name, value)| (name, if name == "DB_PASSWORD" { "mark3r" } else { value }));
        let error = start(&read(&Config::loader("DB").environment(wrong))?).await.expect_err("a wrong password");
        assert!(!format!("{error:?} {error:#}").contains("mark3r"), "{error:?}");
        Ok(())
    }
}
