//! What cargo knows of the workspace: the facade's features, the integration tests, where an example is built to.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::cargo;

/// The answer of `cargo metadata`.
pub(crate) struct Workspace(Value);

impl Workspace {
    /// Asks cargo.
    pub(crate) fn ask() -> Result<Self> {
        let answer = cargo("metadata --no-deps --format-version 1").output()?;
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        Ok(Self(serde_json::from_slice(&answer.stdout).context(said)?))
    }

    /// The features of the facade, `default` left out.
    pub(crate) fn features(&self) -> Vec<&str> {
        let facade = self.packages().find(|package| package["name"] == "tenantry");
        let features = facade.and_then(|package| package["features"].as_object());
        features
            .into_iter()
            .flat_map(|features| features.keys())
            .map(String::as_str)
            .filter(|f| *f != "default")
            .collect()
    }

    /// The names of the integration tests.
    pub(crate) fn test_targets(&self) -> BTreeSet<&str> {
        let targets = self.packages().filter_map(|package| package["targets"].as_array()).flatten();
        targets.filter(|target| target["kind"][0] == "test").filter_map(|target| target["name"].as_str()).collect()
    }

    /// Where an example is built to; the folder is named after the profile, but for `debug`.
    pub(crate) fn example(&self, folder: &str, name: &str) -> PathBuf {
        self.program(folder, &format!("examples/{name}"))
    }

    /// Where a program is built to.
    pub(crate) fn program(&self, folder: &str, name: &str) -> PathBuf {
        self.target().join(folder).join(name).with_extension(std::env::consts::EXE_EXTENSION)
    }

    /// The folder that everything is built into.
    pub(crate) fn target(&self) -> PathBuf {
        PathBuf::from(self.0["target_directory"].as_str().unwrap_or("target"))
    }

    /// Where a program of the dev profile is built to.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        let folder = PathBuf::from(self.0["target_directory"].as_str().unwrap_or("target"));
        folder.join("debug").join(name).with_extension(std::env::consts::EXE_EXTENSION)
    }

    fn packages(&self) -> impl Iterator<Item = &Value> {
        self.0["packages"].as_array().into_iter().flatten()
    }
}
