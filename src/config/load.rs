//! [`Loader`]: collects what a file and the environment say, reads each value by itself so that one bad one hides no other,
//! and has all of it checked.
//!
//! Not figment: it guesses types, so that the password `0123` is refused, `"a"` is cut to `a` and bytes that are no text are
//! replaced. Nor the crate config: of two bad values it names one, and quotes it, which may be the secret. Around either,
//! all of this would still be here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use toml::{Table, Value};

use super::check::{self, Given, Problems};
use super::variables::{Kind, VARIABLES, Variable, spelled};
use super::{Config, SettingsError};

/// Where settings come from. The environment overrides the file.
#[derive(Debug, Clone)]
#[must_use = "nothing is read before `load`"]
pub struct Loader {
    prefix: String,
    file: Option<PathBuf>,
    optional: bool,
    strict: bool,
    /// In the place of the process's own.
    environment: Option<Vec<(OsString, OsString)>>,
}

impl Loader {
    pub(super) fn new(prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('_').to_owned();
        Self { prefix, file: None, optional: false, strict: false, environment: None }
    }

    /// A TOML file with more settings. It has to be there.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self.optional = false;
        self
    }

    /// The same, where it need not be there.
    pub fn optional_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self.optional = true;
        self
    }

    /// Whether every variable under the prefix that is not in the table is a problem. Default: no, only those that look
    /// like a slip of the keyboard.
    pub fn strict(mut self, on: bool) -> Self {
        self.strict = on;
        self
    }

    /// Other variables than the process's: for tests, which share one environment.
    pub fn environment<K: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let pairs = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.environment = Some(pairs.collect());
        self
    }

    /// Reads and checks everything. Opens no connection.
    ///
    /// # Errors
    /// [`SettingsError`] names everything that is wrong.
    pub fn load(&self) -> Result<Config, SettingsError> {
        let mut problems = Problems::new(&self.prefix);
        if self.prefix.is_empty() {
            problems.add("", None, None, "give a prefix: without one, USER and HOST of any shell are settings");
            return Err(problems.into_error());
        }
        let mut given = BTreeMap::new();
        let mut unknown = Vec::new();
        self.read_file(&mut given, &mut problems);
        self.read_environment(&mut given, &mut unknown, &mut problems);
        // For what may be quoted: before anything is.
        if let Some(Given { value: Value::String(password), .. }) = given.get("password") {
            problems.hide(password);
        }
        let mut good = Table::new();
        for (name, Given { value, .. }) in &given {
            let one = Table::from_iter([((*name).to_owned(), value.clone())]);
            if Config::deserialize(one).is_ok() {
                good.insert((*name).to_owned(), value.clone());
            } else {
                problems.unreadable(name, &given, &good);
            }
        }
        // Each of them could be read alone, and none depends on another.
        let Ok(mut config) = Config::deserialize(good) else { unreachable!("keys that can be read one by one") };
        config.unknown = unknown;
        read_password(&mut config, &given, &mut problems);
        check::all(&config, &given, &mut problems);
        problems.into_result().map(|()| config)
    }

    fn read_file(&self, given: &mut BTreeMap<&'static str, Given>, problems: &mut Problems) {
        let Some(path) = &self.file else { return };
        let shown = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if self.optional && error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => return problems.add(&shown, None, None, &format!("cannot be read: {error}")),
        };
        let table: Table = match text.parse() {
            Ok(table) => table,
            // Its own text would quote the line, which may be the password's.
            Err(error) => {
                let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                return problems.add(&shown, None, None, &format!("line {line} is not TOML"));
            }
        };
        for (key, value) in table {
            match Variable::find(&key) {
                Some(variable) => {
                    given.insert(variable.name, Given { value, file: Some(shown.clone()) });
                }
                None => problems.add(&key, None, Some(&shown), &unknown_name(&closest(&key))),
            }
        }
    }

    fn read_environment(
        &self,
        given: &mut BTreeMap<&'static str, Given>,
        unknown: &mut Vec<String>,
        problems: &mut Problems,
    ) {
        let mut variables = self.environment.clone().unwrap_or_else(|| std::env::vars_os().collect());
        variables.sort();
        for (name, value) in variables {
            let Some(name) = name.to_str() else { continue };
            let Some(key) = name.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('_')) else { continue };
            if value.is_empty() {
                continue;
            }
            let found = VARIABLES
                .iter()
                .find(|variable| variable.kind != Kind::Table && variable.name.to_ascii_uppercase() == key);
            match (found, value.into_string()) {
                (Some(variable), Ok(text)) => {
                    given.insert(variable.name, Given { value: Value::String(text), file: None });
                }
                (Some(_), Err(_)) => problems.add(name, None, None, "give text in UTF-8"),
                (None, _) => {
                    let meant = closest(&key.to_ascii_lowercase()).map(|meant| spelled(&self.prefix, meant));
                    if self.strict || meant.is_some() {
                        problems.add(name, None, None, &unknown_name(&meant));
                    } else {
                        unknown.push(name.to_owned());
                    }
                }
            }
        }
    }
}

fn unknown_name(meant: &Option<impl std::fmt::Display>) -> String {
    match meant {
        Some(meant) => format!("there is no such setting; did you mean {meant}?"),
        None => "there is no such setting".to_owned(),
    }
}

/// The name that somebody meant who wrote this one: at most two letters away, or one where it is short.
fn closest(key: &str) -> Option<&'static str> {
    let distance = |variable: &&Variable| strsim::damerau_levenshtein(key, variable.name);
    let in_reach = |variable: &&Variable| distance(variable) <= if variable.name.len() > 5 { 2 } else { 1 };
    VARIABLES.iter().filter(in_reach).min_by_key(distance).map(|variable| variable.name)
}

/// The password's file, read now: a connect is too late to learn that it is not there.
fn read_password(config: &mut Config, given: &BTreeMap<&'static str, Given>, problems: &mut Problems) {
    let Some(path) = &config.password_file else { return };
    if config.password.is_some() {
        let expected = format!("leave it out, or {}", spelled(problems.prefix(), "password"));
        return problems.of("password_file", given, &expected);
    }
    match read(path) {
        Ok(password) => {
            problems.hide(password.expose_secret());
            config.password = Some(password);
        }
        Err(why) => problems.of("password_file", given, &why),
    }
}

fn read(path: &Path) -> Result<SecretString, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("the file cannot be read: {error}"))?;
    // Editors and `echo` end a file with a line break; no other character is touched.
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() { Err("the file is empty".to_owned()) } else { Ok(password.into()) }
}
