//! Every variable at and beyond its bounds, alone and with others; what is seen of secrets; the documentation's table.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt;

use serde::Deserialize;

use super::check::bounds_of_builder;
use super::variables::{BUILDERS, Kind, VARIABLES, Variable, spelled};
use super::{Config, SettingsError, SettingsProblem, SslMode};
use crate::{FailureKind, Health, PoolFactory, TenantId};

const MARKER: &str = "hunter2-mark3r";

fn load(pairs: &[(&str, &str)]) -> Result<Config, SettingsError> {
    Config::loader("DB").environment(pairs.iter().copied()).load()
}

#[track_caller]
fn good(pairs: &[(&str, &str)]) -> Config {
    load(pairs).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn bad(pairs: &[(&str, &str)]) -> Vec<SettingsProblem> {
    load(pairs).expect_err("these settings are bad").problems
}

fn names(problems: &[SettingsProblem]) -> Vec<&str> {
    problems.iter().map(|problem| problem.variable.as_str()).collect()
}

/// A good value that is not the default, and a bad one, for each variable that the environment can have.
const VALUES: &[(&str, &str, &str)] = &[
    ("DB_MAX_CONNECTIONS", "20", "19"),
    ("DB_MAX_CONNECTIONS", "10000", "10001"),
    ("DB_MAX_CONNECTIONS", " 200 ", "2e2"),
    ("DB_MAX_CONNECTIONS_PER_DB", "1", "0"),
    ("DB_MAX_CONNECTIONS_PER_DB", "50", "51"),
    ("DB_MAX_CONNECTIONS_PER_DB", "7", "many"),
    ("DB_CONNECTION_MAX_LIFETIME", "1h 30m", "10"),
    ("DB_CONNECTION_MAX_LIFETIME", "365days", "366days"),
    ("DB_CONNECTION_MAX_IDLE_TIME", "1ms", "0s"),
    ("DB_CONNECTION_MAX_IDLE_TIME", "30s", "soon"),
    ("DB_SYSTEM_TENANT", "system", "two\nlines"),
    ("DB_SYSTEM_MAX_CONNECTIONS", "7", "101"),
    ("DB_ACQUIRE_TIMEOUT", "2s", "2 s 2"),
    ("DB_CONNECT_TIMEOUT", "1day", "25h"),
    ("DB_RECYCLE_TIMEOUT", "1s", "1"),
    ("DB_CLOSE_TIMEOUT", "1s", "-1s"),
    ("DB_VALIDATE_AFTER_IDLE", "0", "2years"),
    ("DB_HANDOVER_BOUND", "0s", "2days"),
    ("DB_MAX_WAITERS", "5000", "-1"),
    ("DB_MAX_WAITERS_PER_TENANT", "0", "10001"),
    ("DB_MAX_CONNECTING", "1", "0"),
    ("DB_BACKGROUND_SHARE", "100", "101"),
    ("DB_BACKGROUND_STEALS_AFTER", "0s", "400days"),
    ("DB_LEASE_WARN_AFTER", "1m", "0s"),
    ("DB_FORGET_AFTER", "2h", "0s"),
    ("DB_MAX_KNOWN_TENANTS", "200000", "10000"),
    ("DB_TOMBSTONE_TTL", "1m", ""),
    ("DB_HOST", "db.internal", "http://db.internal"),
    ("DB_PORT", "6432", "0"),
    ("DB_PORT", "65535", "65536"),
    ("DB_USER", "shop", ""),
    ("DB_PASSWORD", "0123", ""),
    ("DB_PASSWORD_FILE", "", "/nowhere"),
    ("DB_SSLMODE", "verify-full", "on"),
    ("DB_SSLROOTCERT", "", "/nowhere"),
    ("DB_PREFIX", "shop_", "a-prefix-of-more-than-62-bytes-a-prefix-of-more-than-62-bytes-0"),
    ("DB_MAINTENANCE_DATABASE", "maintenance", ""),
    ("DB_STATEMENT_TIMEOUT", "30s", "30"),
];

/// With what it takes to be accepted at all.
fn with_company<'a>(name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    match name {
        "DB_SYSTEM_MAX_CONNECTIONS" => vec![(name, value), ("DB_SYSTEM_TENANT", "system")],
        _ => vec![(name, value)],
    }
}

#[test]
fn nothing_set_is_a_good_configuration_with_the_documented_defaults() {
    let config = good(&[]);
    assert_eq!((config.max_connections, config.max_connections_per_db), (100, 3));
    assert_eq!(config.connection_max_lifetime.as_secs(), 600);
    assert_eq!(config.connection_max_idle_time.as_secs(), 300);
    assert_eq!((config.host.as_str(), config.sslmode, config.prefix.as_str()), ("localhost", SslMode::Prefer, ""));
    let written = toml::Table::try_from(&config).unwrap();
    for variable in VARIABLES.iter().filter(|variable| variable.default.parse::<u32>().is_ok()) {
        assert_eq!(written[variable.name].to_string(), variable.default, "{}", variable.name);
    }
    for name in ["connection_max_lifetime", "connection_max_idle_time", "host", "sslmode"] {
        assert_eq!(written[name].as_str(), Some(Variable::find(name).unwrap().default));
    }
}

#[test]
fn every_variable_is_read_and_every_one_that_the_builder_knows_reaches_it() {
    let before = format!("{:?}", good(&[]).builder(Nothing));
    for variable in VARIABLES.iter().filter(|variable| variable.kind != Kind::Table) {
        let name = variable.spelled("DB");
        assert!(VALUES.iter().any(|(tested, _, _)| *tested == name), "{name} is in no test");
    }
    for (name, value, _) in VALUES.iter().filter(|(_, value, _)| !value.is_empty()) {
        let config = good(&with_company(name, value));
        let variable = VARIABLES.iter().find(|variable| variable.spelled("DB") == *name).unwrap();
        let default = toml::Table::try_from(Config::default()).unwrap().get(variable.name).cloned();
        let written = toml::Table::try_from(&config).unwrap().get(variable.name).cloned();
        assert!(written != default || variable.kind == Kind::Secret, "{name}: {written:?}");
        let built = format!("{:?}", config.builder(Nothing));
        assert_eq!(
            built != before,
            variable.builder.is_some() || variable.name.starts_with("system") || variable.name == "max_connections",
            "{name}: {built}"
        );
    }
}

#[test]
fn each_bad_value_is_named_with_what_was_given_and_what_to_do() {
    for (name, _, value) in VALUES.iter().filter(|(_, _, value)| !value.is_empty()) {
        let problems = bad(&with_company(name, value));
        assert_eq!(names(&problems), [*name], "{value}: {problems:?}");
        let error = load(&with_company(name, value)).unwrap_err().to_string();
        assert_eq!(problems[0].value.as_deref(), Some(format!("{value:?}").as_str()), "{name}");
        assert!(error.contains(&problems[0].expected) && problems[0].expected.len() > 5, "{error}");
        assert!(!error.contains("panic") && !error.contains("31536000"), "{error}");
    }
}

#[test]
fn the_bounds_are_in_the_problem_of_every_number_and_time_even_where_the_value_is_neither() {
    for variable in VARIABLES {
        let text = match variable.kind {
            Kind::Number(least, most) => format!("give {least} to {most}"),
            Kind::Checked | Kind::Time => {
                let name = variable.spelled("DB");
                if variable.name == "system_max_connections" {
                    "give 1 to 100".to_owned()
                } else {
                    bounds_of_builder(variable, &toml::Table::new()).unwrap_or_else(|| panic!("{name} has no bounds"))
                }
            }
            _ => continue,
        };
        let name = variable.spelled("DB");
        let problems = bad(&with_company(&name, "x"));
        assert!(problems[0].expected.starts_with(&text), "{name}: {problems:?}, not {text}");
        assert!(text.starts_with("give "), "{text}");
    }
}

#[test]
fn all_problems_are_named_at_once_and_each_pair_as_well() {
    let mut worst: Vec<(&str, &str)> = Vec::new();
    for (name, _, value) in VALUES.iter().filter(|(_, _, value)| !value.is_empty()) {
        if !worst.iter().any(|(named, _)| named == name) {
            worst.push((name, value));
        }
    }
    let problems = bad(&worst);
    for (name, _) in &worst {
        assert!(names(&problems).contains(name), "{name} is missing: {problems:?}");
    }
    assert_eq!(problems.len(), worst.len(), "and nothing else: {problems:?}");
    for (index, one) in worst.iter().enumerate() {
        for two in &worst[index + 1..] {
            let mut pair = with_company(one.0, one.1);
            pair.extend(with_company(two.0, two.1).into_iter().filter(|(name, _)| *name != one.0));
            let both = bad(&pair);
            assert!(names(&both).contains(&one.0) && names(&both).contains(&two.0), "{one:?} {two:?}: {both:?}");
        }
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused_before_anything_is_opened() {
    for (pairs, name) in [
        (&[("DB_MAX_CONNECTIONS", "20"), ("DB_MAX_CONNECTIONS_PER_DB", "21")][..], "DB_MAX_CONNECTIONS_PER_DB"),
        (&[("DB_MAX_WAITERS", "10"), ("DB_MAX_WAITERS_PER_TENANT", "11")], "DB_MAX_WAITERS_PER_TENANT"),
        (&[("DB_MAX_CONNECTIONS", "20"), ("DB_BACKGROUND_SHARE", "21")], "DB_BACKGROUND_SHARE"),
        (&[("DB_MAX_CONNECTIONS", "20"), ("DB_MAX_CONNECTING", "21")], "DB_MAX_CONNECTING"),
        (&[("DB_MAX_WAITERS", "20000"), ("DB_MAX_KNOWN_TENANTS", "20000")], "DB_MAX_KNOWN_TENANTS"),
        (
            &[("DB_SYSTEM_TENANT", "system"), ("DB_MAX_CONNECTIONS", "20"), ("DB_SYSTEM_MAX_CONNECTIONS", "21")],
            "DB_SYSTEM_MAX_CONNECTIONS",
        ),
        (&[("DB_SYSTEM_MAX_CONNECTIONS", "5")], "DB_SYSTEM_MAX_CONNECTIONS"),
        (&[("DB_PASSWORD", "a"), ("DB_PASSWORD_FILE", "/nowhere")], "DB_PASSWORD_FILE"),
    ] {
        assert_eq!(names(&bad(pairs)), [name], "{pairs:?}");
    }
    let problems = bad(&[("DB_MAX_CONNECTIONS", "5"), ("DB_MAX_CONNECTIONS_PER_DB", "10")]);
    assert_eq!(names(&problems), ["DB_MAX_CONNECTIONS"], "the consequences of one bad value are not named");
}

#[test]
fn a_slip_of_the_keyboard_is_a_problem_and_others_variables_are_listed() {
    for (name, meant) in [
        ("DB_MAX_CONECTIONS", "DB_MAX_CONNECTIONS"),
        ("DB_MAX_CONNECTION", "DB_MAX_CONNECTIONS"),
        ("DB_SSL_MODE", "DB_SSLMODE"),
        ("DB_host", "DB_HOST"),
        ("DB_PASWORD", "DB_PASSWORD"),
        ("DB_TENANTS", "DB_TENANTS"),
    ] {
        let problems = bad(&[(name, MARKER)]);
        assert_eq!(names(&problems), [name]);
        assert!(problems[0].expected.contains(meant) || name == meant, "{problems:?}");
        assert_eq!(problems[0].value, None, "it may be a password");
    }
    let others = [("DB_PORT_5432_TCP", "tcp://10.0.0.7:5432"), ("DB_SERVICE_HOST", "10.0.0.7"), ("DB_DUMP_DIR", "/d")];
    let config = good(&others);
    assert_eq!(config.unknown, ["DB_DUMP_DIR", "DB_PORT_5432_TCP", "DB_SERVICE_HOST"]);
    let strict = Config::loader("DB").strict(true).environment(others).load().unwrap_err();
    assert_eq!(strict.problems.len(), 3, "{strict}");
    assert!(good(&[("DBX_HOST", "x"), ("XDB_HOST", "x"), ("HOST", "x"), ("DB", "x")]).unknown.is_empty());
}

#[test]
fn what_kubernetes_makes_of_a_service_is_explained() {
    let problems = bad(&[("DB_PORT", "tcp://10.0.0.7:5432")]);
    assert_eq!(names(&problems), ["DB_PORT"]);
    assert!(problems[0].expected.contains("enableServiceLinks"), "{problems:?}");
}

#[test]
fn the_prefix_is_the_callers() {
    let from = |prefix: &str| Config::loader(prefix).environment([("SHOP_DB_MAX_CONNECTIONS", "40")]).load();
    assert_eq!(from("SHOP_DB").unwrap().max_connections, 40);
    assert_eq!(from("SHOP_DB_").unwrap().max_connections, 40);
    assert_eq!(from("DB").unwrap().max_connections, 100);
    assert!(from("").unwrap_err().to_string().contains("prefix"));
    let error = Config::loader("SHOP_DB").environment([("SHOP_DB_PORT", "no")]).load().unwrap_err();
    assert_eq!(names(&error.problems), ["SHOP_DB_PORT"]);
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn a_file_is_read_and_the_environment_overrides_it() {
    let file = file(
        "max_connections = 60\nmax_connections_per_db = \"4\"\nhost = 'file'\nconnection_max_lifetime = '1m'\n\
         [servers]\neast = 30\n[tenants.big]\nmax = 9\nreserve = 2\n",
    );
    let load = |pairs: &[(&str, &str)]| Config::loader("DB").file(file.path()).environment(pairs.to_vec()).load();
    let config = load(&[("DB_HOST", "environment"), ("DB_MAX_CONNECTIONS_PER_DB", "")]).unwrap();
    assert_eq!((config.max_connections, config.max_connections_per_db), (60, 4), "an empty one is not set");
    assert_eq!((config.host.as_str(), config.connection_max_lifetime.as_secs()), ("environment", 60));
    let built = format!("{:?}", config.builder(Nothing));
    assert!(built.contains("\"east\"): 30") || built.contains("east"), "{built}");
    assert!(built.contains("big") && built.contains("max: Some(9), reserve: Some(2)"), "{built}");
    // What is wrong with a file's value says so, under the name that the environment has for it.
    let problems = load(&[("DB_MAX_CONNECTIONS", "25")]).unwrap_err().problems;
    assert_eq!(names(&problems), ["servers.east"]);
    assert_eq!((problems[0].value.as_deref(), problems[0].expected.as_str()), (Some("30"), "give 1 to 25"));
    assert_eq!(problems[0].file.as_deref(), file.path().to_str());
}

#[test]
fn a_files_own_mistakes_are_named() {
    let load = |path: &std::path::Path| Config::loader("DB").file(path).environment([("", ""); 0]).load();
    let nowhere = std::path::Path::new("/nowhere.toml");
    assert!(load(nowhere).unwrap_err().to_string().contains("/nowhere.toml: cannot be read"));
    let optional = Config::loader("DB").optional_file(nowhere).environment([("", ""); 0]).load();
    assert_eq!(optional.unwrap().max_connections, 100);
    let broken = file(&format!("host = 'x'\npassword = \"{MARKER}\nport = 1\n"));
    let error = load(broken.path()).unwrap_err();
    assert!(error.to_string().contains("line 2 is not TOML") && !format!("{error:?}").contains(MARKER), "{error}");
    let wrong = file("max_conections = 5\nport = 70000\nprefix = 7\npool = 1\npassword = 7\nmax_waiters = 1.5\n");
    let problems = load(wrong.path()).unwrap_err().problems;
    let expected = ["DB_MAX_WAITERS", "DB_PORT", "DB_PASSWORD", "DB_PREFIX", "max_conections", "pool"];
    assert_eq!(names(&problems), expected, "{problems:?}");
    assert_eq!(problems[2].value, None);
    assert!(problems.iter().all(|problem| problem.file.as_deref() == wrong.path().to_str()));
}

#[test]
fn the_passwords_file_is_read_at_once() {
    let secret = file(&format!("{MARKER} \r\n"));
    let path = secret.path().to_str().unwrap();
    let config = good(&[("DB_PASSWORD_FILE", path)]);
    let password =
        config.password.as_ref().map(|password| super::secrecy::ExposeSecret::expose_secret(password).to_owned());
    assert_eq!(password.as_deref(), Some("hunter2-mark3r "), "without the line's end, and nothing else is cut");
    assert!(!format!("{config:?}").contains(MARKER));
    let empty = file("\n");
    assert_eq!(names(&bad(&[("DB_PASSWORD_FILE", empty.path().to_str().unwrap())])), ["DB_PASSWORD_FILE"]);
}

#[test]
fn the_password_is_seen_nowhere() {
    let url = format!("postgres://shop:{MARKER}@db/x");
    let config = good(&[("DB_PASSWORD", MARKER), ("DB_USER", "shop")]);
    let mut seen = format!("{config:?} {config:#?} {}", toml::to_string(&config).unwrap());
    write!(seen, "{:?}", config.builder(Nothing)).unwrap();
    #[cfg(feature = "sqlx-postgres")]
    write!(seen, "{:?}", config.sqlx_postgres()).unwrap();
    #[cfg(feature = "sqlx-mysql")]
    write!(seen, "{:?}", config.sqlx_mysql()).unwrap();
    #[cfg(feature = "diesel-postgres")]
    write!(seen, "{:?}", config.diesel_postgres().unwrap()).unwrap();
    #[cfg(feature = "diesel-mysql")]
    write!(seen, "{:?}", config.diesel_mysql().unwrap()).unwrap();
    // Beside any bad value, and in the place of one.
    for (name, _, value) in VALUES {
        for pairs in [
            vec![("DB_PASSWORD", MARKER), (name, value)],
            vec![(name, url.as_str())],
            vec![("DB_PASSWORD", MARKER), (name, MARKER)],
        ] {
            if let Err(error) = load(&pairs) {
                write!(seen, "{error} {error:?} {error:#?}").unwrap();
            }
        }
    }
    let mut bytes = MARKER.as_bytes().to_vec();
    bytes.push(0xff);
    let broken = [("DB_PASSWORD", OsString::from_vec(bytes.clone())), ("DB_HOST", OsString::from_vec(bytes))];
    let error = Config::loader("DB").environment(broken).load().unwrap_err();
    assert_eq!(names(&error.problems), ["DB_HOST", "DB_PASSWORD"]);
    write!(seen, "{error} {error:?}").unwrap();
    // As a part of somebody's own settings, by serde alone.
    let foreign = format!("max_connections = \"{MARKER}\"\npassword = \"{MARKER}\"");
    let parsed: Result<Config, _> =
        toml::Table::deserialize(toml::de::Deserializer::parse(&foreign).unwrap()).and_then(Config::deserialize);
    write!(seen, "{:?}", parsed.map_err(|error| error.message().to_owned())).unwrap();
    assert!(!seen.contains("mark3r"), "{seen}");
    assert!(seen.contains("DB_MAX_CONNECTIONS") && seen.contains("REDACTED"));
}

#[test]
fn a_configuration_made_in_code_is_checked_in_the_same_words() {
    let mut config = good(&[("DB_PASSWORD", MARKER)]);
    config.check("DB").unwrap();
    config.max_connections = 5;
    config.connection_max_idle_time = std::time::Duration::ZERO;
    config.host = format!("shop:{MARKER}@db");
    let error = config.check("APP").unwrap_err();
    assert_eq!(names(&error.problems), ["APP_MAX_CONNECTIONS", "APP_CONNECTION_MAX_IDLE_TIME", "APP_HOST"]);
    assert_eq!(error.problems[0].value.as_deref(), Some("5"));
    assert!(!error.to_string().contains(MARKER));
    let written = toml::to_string(&good(&[("DB_ACQUIRE_TIMEOUT", "1m 5s"), ("DB_PORT", "1")])).unwrap();
    let read: Config = toml::from_str(&written).unwrap();
    assert_eq!(toml::to_string(&read).unwrap(), written, "it comes back as it was written");
}

#[test]
fn the_system_database_has_its_share_of_the_budget() {
    let share = |pairs: &[(&str, &str)]| format!("{:?}", good(pairs).builder(Nothing));
    let given = share(&[("DB_SYSTEM_TENANT", "system"), ("DB_SYSTEM_MAX_CONNECTIONS", "8")]);
    assert!(given.contains("max: Some(8), reserve: Some(8)"), "{given}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _inside = runtime.enter();
    let by_default = good(&[("DB_SYSTEM_TENANT", "system")]).builder(Nothing).build().unwrap();
    assert_eq!(by_default.tenant_stats("system").unwrap().max, 10);
}

#[cfg(feature = "sqlx-postgres")]
#[test]
fn sqlx_gets_what_was_given_without_a_url() {
    let config = good(&[
        ("DB_HOST", "db.internal"),
        ("DB_PORT", "6432"),
        ("DB_USER", "shop"),
        ("DB_PASSWORD", "as:it/is@ 100%"),
        ("DB_SSLMODE", "verify-full"),
        ("DB_MAINTENANCE_DATABASE", "main"),
    ]);
    let options = config.sqlx_postgres_options();
    assert_eq!((options.get_host(), options.get_port(), options.get_username()), ("db.internal", 6432, "shop"));
    assert_eq!(options.get_database(), Some("main"));
    assert!(matches!(options.get_ssl_mode(), ::sqlx::postgres::PgSslMode::VerifyFull));
    let socket = good(&[("DB_HOST", "/run/postgresql")]).sqlx_postgres_options();
    assert_eq!(socket.get_socket().and_then(|path| path.to_str()), Some("/run/postgresql"));
    assert_eq!((socket.get_port(), socket.get_database()), (5432, Some("postgres")));
}

#[cfg(feature = "diesel-postgres")]
#[test]
fn diesel_gets_what_was_given_and_never_less_encryption() {
    let config = good(&[("DB_HOST", "db"), ("DB_PASSWORD", "as:it/is@ 100%"), ("DB_SSLMODE", "verify-full")]);
    let config = config.diesel_postgres_config();
    assert_eq!(config.get_password(), Some("as:it/is@ 100%".as_bytes()));
    assert_eq!(config.get_dbname(), Some("postgres"));
    assert_eq!(config.get_ssl_mode(), tenantry_diesel::tokio_postgres::config::SslMode::Require);
    good(&[("DB_SSLMODE", "require")]).diesel_postgres().unwrap();
    let no_certificate = file("hello");
    let with_file = good(&[("DB_SSLROOTCERT", no_certificate.path().to_str().unwrap())]);
    assert_eq!(with_file.diesel_postgres().is_err(), cfg!(feature = "tls-rustls"));
}

#[cfg(feature = "diesel-mysql")]
#[test]
fn diesel_gets_for_mysql_what_was_given_and_never_less_encryption() {
    let config = good(&[("DB_HOST", "db"), ("DB_PASSWORD", "as:it/is@ 100%"), ("DB_SSLMODE", "verify-full")]);
    let opts = tenantry_diesel::mysql_async::Opts::from(config.diesel_mysql_opts());
    assert_eq!((opts.ip_or_hostname(), opts.tcp_port(), opts.db_name()), ("db", 3306, Some("mysql")));
    assert_eq!(opts.pass(), Some("as:it/is@ 100%"));
    assert!(opts.ssl_opts().is_some());
    assert_eq!(config.diesel_mysql().is_err(), !cfg!(feature = "tls-rustls"));
    let opts = tenantry_diesel::mysql_async::Opts::from(good(&[("DB_HOST", "/run/socket")]).diesel_mysql_opts());
    assert_eq!((opts.socket(), opts.ssl_opts().is_some()), (Some("/run/socket"), false));
}

/// The table of the module's documentation, made of the same table that the loader reads.
#[test]
fn the_documentation_has_every_variable() {
    let mut table = "| variable | value | default | what it is |\n|---|---|---|---|\n".to_owned();
    for variable in VARIABLES {
        let Variable { name, kind, builder, default, meaning } = variable;
        let value = match kind {
            Kind::Number(least, most) => format!("{least} to {most}"),
            Kind::Checked => "number".to_owned(),
            Kind::Time | Kind::FreeTime => "time".to_owned(),
            Kind::Text => "text".to_owned(),
            Kind::SslMode => "a word".to_owned(),
            Kind::File => "path".to_owned(),
            Kind::Secret => "secret".to_owned(),
            Kind::Table => "in a file only".to_owned(),
        };
        let shown = if *kind == Kind::Table { format!("`{name}`") } else { format!("`{}`", spelled("DB", name)) };
        let default = match builder {
            Some(method) if *default == BUILDERS => format!("[the builder's](crate::Builder::{method})"),
            _ => (*default).to_owned(),
        };
        writeln!(table, "| {shown} | {value} | {default} | {meaning} |").unwrap();
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/variables.md");
    if std::env::var_os("TENANTRY_WRITE_DOCS").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let documented = std::fs::read_to_string(path).unwrap();
    assert_eq!(documented, table, "run this test with TENANTRY_WRITE_DOCS=1 and commit the result");
}

/// A driver that is never asked.
struct Nothing;

impl PoolFactory for Nothing {
    type Connection = ();
    type Error = std::convert::Infallible;

    fn connect(&self, _: &TenantId) -> impl Future<Output = Result<(), Self::Error>> + Send {
        std::future::pending()
    }

    fn health(&self, (): &mut ()) -> Health {
        Health::Clean
    }

    async fn recycle(&self, (): &mut ()) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn close(&self, (): (), _: std::time::Duration) {}

    fn classify(&self, error: &Self::Error) -> FailureKind {
        match *error {}
    }
}
