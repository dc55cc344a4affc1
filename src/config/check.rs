//! The bounds. Those of the builder's settings are the builder's to say; here are those that a service's settings have in
//! addition, and the way from a problem of the builder's to the variable that caused it.

use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::time::Duration;

use secrecy::ExposeSecret;
use serde::Deserialize;
use toml::{Table, Value};

use super::variables::{Kind, VARIABLES, Variable, spelled};
use super::{Config, SettingsError, SettingsProblem};
use crate::{FailureKind, Health, PoolFactory, TenantId};

/// The most bytes of a name in PostgreSQL, of which a tenant needs one.
const MAX_PREFIX: usize = 62;

/// A value as it was given, and the file if it is from one.
pub(super) struct Given {
    pub(super) value: Value,
    pub(super) file: Option<String>,
}

type AllGiven = BTreeMap<&'static str, Given>;

impl Config {
    /// Checks everything that [`load`](Self::load) checks, for settings that did not come from there. `prefix` is for the
    /// names in the error.
    ///
    /// # Errors
    /// [`SettingsError`] names everything that is wrong.
    pub fn check(&self, prefix: &str) -> Result<(), SettingsError> {
        let mut problems = Problems::new(prefix.trim_end_matches('_'));
        if let Some(password) = &self.password {
            problems.hide(password.expose_secret());
        }
        // As they would be written; a secret is not.
        let written = Table::try_from(self).unwrap_or_default();
        let given = written.into_iter().filter_map(|(key, value)| {
            let variable = Variable::find(&key)?;
            Some((variable.name, Given { value, file: None }))
        });
        all(self, &given.collect(), &mut problems);
        problems.into_result()
    }
}

/// Checks everything of a configuration that could be read.
pub(super) fn all(config: &Config, given: &AllGiven, problems: &mut Problems) {
    let number = |name: &str| match name {
        "max_connections" => Some(config.max_connections),
        "max_connections_per_db" => Some(config.max_connections_per_db),
        "port" => config.port.map(u32::from),
        _ => None,
    };
    for variable in VARIABLES {
        if let (Kind::Number(least, most), Some(value)) = (variable.kind, number(variable.name))
            && !(least..=most).contains(&value)
        {
            problems.of(variable.name, given, &bounds(least, most));
        }
    }
    texts(config, given, problems);
    if config.system_max_connections.is_some() && config.system_tenant.is_none() {
        let expected = format!("give {} as well: whose they are", spelled(&problems.prefix, "system_tenant"));
        problems.of("system_max_connections", given, &expected);
    }
    for problem in of_builder(config) {
        let (name, whose) = variable_of(&problem.setting, config);
        if let Some(whose) = whose {
            problems.in_table(name, &whose, &problem.value, given, &problem.expected);
        } else {
            problems.of(name, given, &problem.expected);
        }
    }
}

fn bounds(least: u32, most: u32) -> String {
    format!("give {least} to {most}")
}

fn texts(config: &Config, given: &AllGiven, problems: &mut Problems) {
    let host = &config.host;
    if host.is_empty() || host.contains("://") || host.contains(|c: char| c == '@' || c.is_whitespace()) {
        problems.of("host", given, "give a name, an address, or the folder of a socket; not a URL");
    }
    if let Some(Err(invalid)) = config.system_tenant.as_ref().map(TenantId::new) {
        problems.of("system_tenant", given, &invalid.to_string());
    }
    if config.prefix.len() > MAX_PREFIX {
        problems.of("prefix", given, &format!("give at most {MAX_PREFIX} bytes"));
    }
    let texts = [
        ("user", config.user.as_deref()),
        ("prefix", Some(&*config.prefix)),
        ("maintenance_database", config.maintenance_database.as_deref()),
        ("password", config.password.as_ref().map(ExposeSecret::expose_secret)),
    ];
    for (name, text) in texts {
        if text.is_some_and(|text| text.contains('\0')) {
            problems.of(name, given, "give text without NUL, which would end it");
        }
    }
    if config.sslrootcert.as_ref().is_some_and(|path| !path.is_file()) {
        problems.of("sslrootcert", given, "there is no such file");
    }
}

/// What the builder says, whatever driver it will be for.
fn of_builder(config: &Config) -> Vec<crate::ConfigProblem> {
    let mut config = config.clone();
    // A bad budget is named already; what depends on it is checked against the nearest good one.
    if let Some(Kind::Number(least, most)) = Variable::find("max_connections").map(|variable| variable.kind) {
        config.max_connections = config.max_connections.clamp(least, most);
    }
    // The same for the system database's name, so that its number is checked whatever it is called.
    if config.system_tenant.is_some() || config.system_max_connections.is_some() {
        config.system_tenant = Some(system_tenant(&config).to_owned());
    }
    config.builder(NoDriver).check().err().map_or_else(Vec::new, |error| error.problems)
}

/// The system database's tenant, or a good name in the place of one that is bad or missing.
fn system_tenant(config: &Config) -> &str {
    config.system_tenant.as_deref().filter(|tenant| TenantId::new(tenant).is_ok()).unwrap_or("system")
}

/// The variable that a problem of the builder's is about, and the entry where that is a table.
fn variable_of(setting: &str, config: &Config) -> (&'static str, Option<String>) {
    if let Some(variable) = VARIABLES.iter().find(|variable| variable.builder == Some(setting)) {
        return (variable.name, None);
    }
    let quoted = setting.split('"').nth(1).unwrap_or_default();
    if setting.starts_with("max_connections_on") {
        return ("servers", Some(quoted.to_owned()));
    }
    let what = setting.rsplit('.').next().unwrap_or(setting);
    match setting {
        _ if quoted == system_tenant(config) && config.system_max_connections.is_some() => {
            ("system_max_connections", None)
        }
        "tenant(..).reserve" if config.tenants.is_empty() => ("system_max_connections", None),
        "tenant" | "tenant(..).reserve" => ("tenants", Some(what.to_owned())),
        _ if !quoted.is_empty() => ("tenants", Some(format!("{quoted}.{what}"))),
        _ => ("max_connections", None),
    }
}

/// What is wrong so far, in no order.
pub(super) struct Problems {
    prefix: String,
    secrets: Vec<String>,
    found: Vec<SettingsProblem>,
}

impl Problems {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), secrets: Vec::new(), found: Vec::new() }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// No value with this in it is quoted.
    pub(super) fn hide(&mut self, secret: &str) {
        if !secret.is_empty() {
            self.secrets.push(secret.to_owned());
        }
    }

    pub(super) fn add(&mut self, variable: &str, value: Option<String>, file: Option<&str>, expected: &str) {
        let (variable, file) = (variable.to_owned(), file.map(str::to_owned));
        self.found.push(SettingsProblem { variable, value, file, expected: expected.to_owned() });
    }

    /// A problem of one of the table. Only the first of each variable: those that follow are its consequences.
    pub(super) fn of(&mut self, name: &str, given: &AllGiven, expected: &str) {
        let spelled = spelled(&self.prefix, name);
        if self.found.iter().any(|problem| problem.variable == spelled) {
            return;
        }
        let given = given.get(name);
        let value = match given {
            Some(given) => self.quoted(name, &given.value),
            None => Variable::find(name).map(|variable| format!("{} by default", variable.default)),
        };
        self.add(&spelled, value, given.and_then(|given| given.file.as_deref()), expected);
    }

    /// A problem of an entry of a table.
    fn in_table(&mut self, name: &str, entry: &str, value: &str, given: &AllGiven, expected: &str) {
        let file = given.get(name).and_then(|given| given.file.clone());
        let value = self.quoted(name, &Value::String(value.to_owned())).map(|value| value.trim_matches('"').to_owned());
        self.add(&format!("{name}.{entry}"), value, file.as_deref(), expected);
    }

    /// A value that is no number, no time, or not of the words that are allowed. The bounds are those of a number or time
    /// that is certainly out of them.
    pub(super) fn unreadable(&mut self, name: &str, given: &AllGiven, good: &Table) {
        let Some(variable) = Variable::find(name) else { return };
        let mut expected = match variable.kind {
            Kind::Number(least, most) => bounds(least, most),
            Kind::Checked => bounds_of_builder(variable, good).unwrap_or_else(|| "give a whole number".to_owned()),
            Kind::Time | Kind::FreeTime => {
                let bounds = bounds_of_builder(variable, good).unwrap_or_else(|| "give a time".to_owned());
                format!("{bounds}, with its unit: 500ms, 10m, 1h 30m")
            }
            Kind::SslMode => format!("give {}", variable.meaning.replace('`', "")),
            Kind::Text | Kind::File | Kind::Secret => "give text".to_owned(),
            Kind::Table => format!("give {}", variable.meaning.replace('`', "")),
        };
        let value = given.get(name).map(|given| &given.value);
        if name == "port" && matches!(value, Some(Value::String(text)) if text.starts_with("tcp://")) {
            expected.push_str("; Kubernetes sets this for a service called like the prefix: choose another prefix, or enableServiceLinks: false");
        }
        self.of(name, given, &expected);
    }

    /// The value, unless it is or may hold a secret.
    fn quoted(&self, name: &str, value: &Value) -> Option<String> {
        const MOST: usize = 100;
        let secret = Variable::find(name).is_none_or(|variable| variable.kind == Kind::Secret);
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let may_hold_one = text.contains('@') || self.secrets.iter().any(|secret| text.contains(secret));
        if secret || may_hold_one {
            return None;
        }
        let mut shown: String = text.chars().take(MOST).collect();
        if shown.len() < text.len() {
            shown.push_str("..");
        }
        Some(if matches!(value, Value::String(_)) { format!("{shown:?}") } else { shown })
    }

    pub(super) fn into_result(self) -> Result<(), SettingsError> {
        if self.found.is_empty() { Ok(()) } else { Err(self.into_error()) }
    }

    pub(super) fn into_error(mut self) -> SettingsError {
        let place = |problem: &SettingsProblem| {
            VARIABLES.iter().position(|variable| variable.spelled(&self.prefix) == problem.variable)
        };
        // What is not in the table comes last.
        self.found.sort_by_cached_key(|problem| (place(problem).unwrap_or(usize::MAX), problem.variable.clone()));
        SettingsError { problems: self.found }
    }
}

/// The builder's own words for the bounds of one of its settings, next to `others`: what it says of a value that no
/// bounds allow.
pub(super) fn bounds_of_builder(variable: &Variable, others: &Table) -> Option<String> {
    let extremes = match variable.kind {
        Kind::Time => [Value::String("100000days".to_owned()), Value::String("0s".to_owned())],
        _ => [Value::Integer(i64::from(u32::MAX)), Value::Integer(0)],
    };
    extremes.into_iter().find_map(|extreme| {
        let mut table = others.clone();
        table.insert(variable.name.to_owned(), extreme);
        let config = Config::deserialize(table).ok()?;
        let mut problems = of_builder(&config).into_iter();
        problems.find(|problem| variable_of(&problem.setting, &config).0 == variable.name).map(|found| found.expected)
    })
}

/// Stands where a driver will be: for checks that ask none.
struct NoDriver;

impl PoolFactory for NoDriver {
    type Connection = ();
    type Error = std::convert::Infallible;

    fn connect(&self, _: &TenantId) -> impl Future<Output = Result<(), Self::Error>> + Send {
        pending()
    }

    fn health(&self, (): &mut ()) -> Health {
        Health::Broken
    }

    async fn recycle(&self, (): &mut ()) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn close(&self, (): (), _: Duration) {}

    fn classify(&self, error: &Self::Error) -> FailureKind {
        match *error {}
    }
}
