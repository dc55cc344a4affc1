//! [`SettingsError`]: everything that is wrong with the settings, at once, and nothing that is secret.

use std::error::Error;
use std::fmt;

/// One setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettingsProblem {
    /// The variable, as `DB_MAX_CONNECTIONS`, also where the value is from a file; a file's path where it could not be read.
    pub variable: String,
    /// The value as it was given. None where there is none, and where it is not shown: a secret's never is, nor is text that
    /// may hold one, such as a URL with a password.
    pub value: Option<String>,
    /// Where it was given, if not in the environment: the file.
    pub file: Option<String>,
    /// The bounds, or what else to do.
    pub expected: String,
}

impl fmt::Display for SettingsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.variable)?;
        if let Some(value) = &self.value {
            write!(f, " is {value}")?;
        }
        if let Some(file) = &self.file {
            write!(f, " (in {file})")?;
        }
        write!(f, ": {}", self.expected)
    }
}

/// Every setting that cannot be used, in the order of the documentation's table. Its text has a line for each.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettingsError {
    /// At least one.
    pub problems: Vec<SettingsProblem>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings that cannot be used:")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl Error for SettingsError {}
