//! Tables of Markdown, and what the report says about the machine.

use std::fmt::Write;

/// Rows under a head; the first column is text, all others are numbers.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&str]) -> Self {
        let rule = (0..head.len()).map(|column| if column == 0 { "---" } else { "---:" }.to_owned()).collect();
        Self { rows: vec![head.iter().map(|&cell| cell.to_owned()).collect(), rule] }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }
}

/// A number with about three digits that mean something.
pub fn number(value: f64) -> String {
    match value.abs() {
        _ if value.is_nan() => "-".to_owned(),
        large if large >= 99.5 => {
            let digits = format!("{value:.0}");
            let groups: Vec<&str> =
                digits.as_bytes().rchunks(3).rev().filter_map(|c| std::str::from_utf8(c).ok()).collect();
            groups.join(",")
        }
        some if some >= 9.95 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The processor's name and how many of it there are.
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).and_then(|rest| rest.split(':').nth(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} cores", model.map_or("an unknown processor", str::trim))
}

/// The versions of what is compared, as locked.
pub fn versions() -> String {
    let lock = include_str!("../Cargo.lock");
    let version = |name: &str| {
        let after = lock.split(&format!("name = \"{name}\"\nversion = \"")).nth(1)?;
        Some(format!("{name} {}", after.split('"').next()?))
    };
    let names = ["deadpool", "bb8", "moka", "dashmap", "sqlx", "deadpool-postgres", "tokio-postgres", "tokio"];
    names.into_iter().filter_map(version).collect::<Vec<_>>().join(", ")
}
