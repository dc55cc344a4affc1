//! [`Watch`]: reads along what a connection is asked, by diesel's instrumentation.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use diesel::connection::{DebugQuery, Instrumentation, InstrumentationEvent, get_default_instrumentation};

use super::runtime::State;

/// What comes after the SQL in diesel's text of a query.
const BINDS: &str = " -- binds: ";

/// Tells a [`State`] what statements may have left, and the user's default instrumentation everything.
pub(super) struct Watch {
    state: Arc<State>,
    latest: Kind,
    default: Option<Box<dyn Instrumentation>>,
}

impl Watch {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state, latest: Kind::Plain, default: get_default_instrumentation() }
    }
}

impl Instrumentation for Watch {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        match &event {
            InstrumentationEvent::StartQuery { query, .. } => {
                self.state.saw_a_question();
                self.latest = Kind::of(&sql(*query));
                match self.latest {
                    Kind::Plain | Kind::Ends => {}
                    Kind::Begins => self.state.set_open(true),
                    Kind::Leaves => self.state.mark(),
                }
            }
            // Only one that went well: a COMMIT may fail and leave its transaction open.
            InstrumentationEvent::FinishQuery { error: None, .. } if self.latest == Kind::Ends => {
                self.state.set_open(false);
            }
            _ => {}
        }
        self.default.on_connection_event(event);
    }
}

/// The SQL of a query, without the values, which may be large.
fn sql(query: &dyn DebugQuery) -> String {
    struct Sql(String);
    impl fmt::Write for Sql {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            if part == BINDS && !self.0.is_empty() {
                return Err(fmt::Error);
            }
            self.0.push_str(part);
            Ok(())
        }
    }
    let mut sql = Sql(String::new());
    // The error is how it ends.
    let _ = write!(sql, "{query}");
    sql.0
}

/// What a statement leaves on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing.
    Plain,
    /// An open transaction.
    Begins,
    /// No open transaction, if it goes well.
    Ends,
    /// Whatever there may be: settings, temporary objects, attached databases. Several statements in one, too.
    Leaves,
}

impl Kind {
    fn of(sql: &str) -> Self {
        let statement = without_comments(sql);
        // A semicolon in a text counts as one between statements: that costs a little time and leaves nothing behind.
        let several = statement.split_once(';').is_some_and(|(_, rest)| !rest.trim().is_empty());
        if several {
            return Self::Leaves;
        }
        let mut words = statement.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
        let mut next = || words.next().unwrap_or_default().to_ascii_lowercase();
        match next().as_str() {
            "select" | "insert" | "update" | "delete" | "replace" | "with" | "values" | "explain" | "release" => {
                Self::Plain
            }
            "begin" | "savepoint" => Self::Begins,
            "commit" | "end" => Self::Ends,
            "rollback" => match next().as_str() {
                "" => Self::Ends,
                "transaction" if next().is_empty() => Self::Ends,
                // To a savepoint, of a transaction that goes on.
                _ => Self::Plain,
            },
            _ => Self::Leaves,
        }
    }
}

/// The text from its first word on.
fn without_comments(sql: &str) -> &str {
    let mut rest = sql.trim_start();
    loop {
        let comment = match () {
            () if rest.starts_with("--") => rest.split_once('\n'),
            () if rest.starts_with("/*") => rest[2..].split_once("*/"),
            () => return rest,
        };
        rest = comment.map_or("", |(_, after)| after.trim_start());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_statement_leaves_is_told_by_its_first_word() {
        for (sql, kind) in [
            ("SELECT 1", Kind::Plain),
            ("  -- a word\n /* two */ select 1;", Kind::Plain),
            ("INSERT INTO a VALUES (?)", Kind::Plain),
            ("ROLLBACK TO a", Kind::Plain),
            ("rollback transaction to savepoint a", Kind::Plain),
            ("RELEASE a", Kind::Plain),
            ("BEGIN IMMEDIATE", Kind::Begins),
            ("SAVEPOINT a", Kind::Begins),
            ("COMMIT", Kind::Ends),
            ("END;", Kind::Ends),
            ("ROLLBACK TRANSACTION", Kind::Ends),
            ("PRAGMA foreign_keys = OFF", Kind::Leaves),
            ("ATTACH 'a' AS b", Kind::Leaves),
            ("CREATE TEMP TABLE a (b)", Kind::Leaves),
            ("SELECT 1; ATTACH 'a' AS b", Kind::Leaves),
            ("COMMIT; BEGIN", Kind::Leaves),
            ("-- nothing else", Kind::Leaves),
            ("", Kind::Leaves),
        ] {
            assert_eq!(Kind::of(sql), kind, "{sql:?}");
        }
    }

    #[test]
    fn values_are_not_read() {
        let query = diesel::sql_query("SELECT ?").bind::<diesel::sql_types::Text, _>("; ATTACH 'a' AS b");
        assert_eq!(sql(&diesel::debug_query::<diesel::sqlite::Sqlite, _>(&query)), "SELECT ?");
        // A text that only looks as if the values began is read to its end.
        let query = diesel::sql_query("SELECT 1 -- binds: \n; ATTACH 'a' AS b");
        assert_eq!(Kind::of(&sql(&diesel::debug_query::<diesel::sqlite::Sqlite, _>(&query))), Kind::Leaves);
    }
}
