//! The facade's features: each alone compiles, and none, and all; the README's table says how large a tree each one brings.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};

use crate::run::{Loudness, cargo, must, root};
use crate::tally::Tally;
use crate::workspace::Workspace;

/// A service that chooses its driver by a feature of its own; the other half of it is compiled with the tests.
const BY_FEATURE: &str = "--package by_feature --no-default-features --features postgres";

/// Features only add: each alone compiles without a warning, and the README counts what each brings.
pub(crate) fn step(loudness: Loudness) -> Result<Tally> {
    let workspace = Workspace::ask()?;
    let features = workspace.features();
    let alone = features.iter().map(|feature| format!("--features {feature}"));
    let facade = alone.chain([String::new(), "--all-features".to_owned()]);
    let facade = facade.map(|chosen| format!("--package tenantry --lib --no-default-features {chosen}"));
    for what in facade.chain([BY_FEATURE.to_owned()]) {
        let check = format!("check {what}");
        let said = must(&mut cargo(&check), loudness)?;
        // Not by RUSTFLAGS, which would compile all dependencies anew.
        ensure!(!said.lines().any(|line| line.starts_with("warning:")), "$ cargo {check}\n{said}");
    }
    let readme = std::fs::read_to_string(root().join("README.md")).context("README.md")?;
    let mut wrong = String::new();
    for feature in [None].into_iter().chain(features.into_iter().map(Some)) {
        let name = feature.map_or("none".to_owned(), |feature| format!("`{feature}`"));
        let row = format!("| {name} | {} |", tree(feature)?);
        if !readme.contains(&row) {
            writeln!(wrong, "README.md: the table of features should have a row that begins with: {row}")?;
        }
    }
    ensure!(wrong.is_empty(), "{wrong}");
    Ok(Tally::default())
}

/// How many packages are built for the facade with this feature alone, or none, on Linux, tenantry's own included.
fn tree(feature: Option<&str>) -> Result<usize> {
    let chosen = feature.map_or_else(String::new, |feature| format!("--features {feature}"));
    let tree = "tree --locked --package tenantry --edges normal --prefix none --target x86_64-unknown-linux-gnu";
    let said = must(&mut cargo(&format!("{tree} --no-default-features {chosen}")), Loudness { verbose: false })?;
    // A package that was listed before has a mark behind its name and version.
    let names = said.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "));
    Ok(names.filter(|name| name.contains(" v")).collect::<BTreeSet<_>>().len())
}
