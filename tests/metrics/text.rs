//! The text format of Prometheus, read strictly: each sample is of a family whose kind and help were said before, once.

use std::collections::BTreeMap;

/// One line's name and labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// What a text says.
#[derive(Debug, Default)]
pub(crate) struct Text {
    /// Family: kind.
    pub(crate) kinds: BTreeMap<String, String>,
    pub(crate) samples: Vec<(Series, f64)>,
}

impl Text {
    #[track_caller]
    pub(crate) fn parse(text: &str) -> Self {
        let (mut parsed, mut helped) = (Self::default(), Vec::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                helped.push(help.split_once(' ').unwrap().0.to_owned());
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (family, kind) = kind.split_once(' ').unwrap();
                assert!(parsed.kinds.insert(family.to_owned(), kind.to_owned()).is_none(), "{family} twice");
                assert!(helped.iter().any(|helped| helped == family), "no help for {family}");
            } else {
                let sample = sample(line);
                let known = |family: &String| sample.0.name == *family || parsed.is_part(&sample.0.name, family);
                assert!(parsed.kinds.keys().any(known), "of no family: {line}");
                assert!(!parsed.samples.iter().any(|(series, _)| *series == sample.0), "twice: {line}");
                parsed.samples.push(sample);
            }
        }
        parsed
    }

    fn is_part(&self, name: &str, family: &str) -> bool {
        let part = name.strip_prefix(family).is_some_and(|end| ["_bucket", "_sum", "_count"].contains(&end));
        part && self.kinds[family] == "histogram"
    }

    /// The one sample of that name with these labels.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has =
            |series: &Series| labels.iter().all(|(key, value)| series.labels.get(*key).is_some_and(|it| it == value));
        let found: Vec<f64> = self
            .samples
            .iter()
            .filter(|(series, _)| series.name == name && has(series))
            .map(|(_, value)| *value)
            .collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0]
    }
}

#[track_caller]
fn sample(line: &str) -> (Series, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let name = line[..end].to_owned();
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    assert!(name.chars().all(word) && !name.starts_with(|c: char| c.is_ascii_digit()), "{line}");
    let (labels, value) = match line[end..].strip_prefix('{') {
        None => (BTreeMap::new(), &line[end..]),
        Some(rest) => labels(rest),
    };
    let value = value.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line}"));
    (Series { name, labels }, value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

/// What stands behind the brace, and what behind the closing one.
#[track_caller]
fn labels(mut rest: &str) -> (BTreeMap<String, String>, &str) {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return (labels, rest);
        }
        let (key, quoted) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {rest}"));
        let (mut value, mut chars) = (String::new(), quoted.char_indices());
        let end = loop {
            match chars.next().unwrap_or_else(|| panic!("no end: {rest}")) {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    c @ ('"' | '\\') => c,
                    c => panic!("\\{c}: {rest}"),
                }),
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(key.to_owned(), value).is_none(), "{key} twice: {rest}");
        rest = quoted[end + 1..].strip_prefix(',').unwrap_or(&quoted[end + 1..]);
    }
}
