//! Whether a statement can leave something on the session, judged by its text alone. Asked by `executor.rs` for each
//! query; every doubt counts as "yes", which costs one recycle and never a leak.

/// How one engine reads SQL, as far as that matters here.
#[derive(Debug)]
pub struct Syntax {
    /// `/* a /* b */ c */` is one comment (PostgreSQL), not one that ends at the first `*/`.
    nested_comments: bool,
    /// `/*! .. */` is executed, and `--` opens a comment only before a blank (MySQL).
    mysql_comments: bool,
    /// A prepared statement can only be one statement. In SQLite it can be several.
    prepared_is_single: bool,
    /// `SELECT .. INTO` creates or sets something.
    select_into: bool,
    /// Functions and views by whose mention a statement is taken to change the session.
    names: &'static [&'static str],
    /// The same, for names that start so.
    prefixes: &'static [&'static str],
}

/// The statements after which a session can be as it was before.
const CLEAN: [&str; 6] = ["select", "insert", "update", "delete", "with", "values"];

impl Syntax {
    #[cfg(any(test, feature = "mysql"))]
    pub(crate) const MYSQL: Self = Self {
        nested_comments: false,
        mysql_comments: true,
        prepared_is_single: true,
        select_into: true,
        names: &["get_lock"],
        prefixes: &[],
    };
    #[cfg(any(test, feature = "postgres"))]
    pub(crate) const POSTGRES: Self = Self {
        nested_comments: true,
        mysql_comments: false,
        prepared_is_single: true,
        select_into: true,
        names: &["set_config", "pg_settings"],
        prefixes: &["pg_advisory_lock", "pg_try_advisory_lock"],
    };
    #[cfg(any(test, feature = "sqlite"))]
    pub(crate) const SQLITE: Self = Self {
        nested_comments: false,
        mysql_comments: false,
        prepared_is_single: false,
        select_into: false,
        names: &["load_extension"],
        prefixes: &[],
    };

    /// True when `sql` is one statement of a kind that leaves nothing behind and names no function known to.
    pub(crate) fn leaves_nothing(&self, sql: &str, prepared: bool) -> bool {
        let Some(rest) = self.skip_blank(sql) else {
            return false;
        };
        let end = rest.bytes().position(|b| !is_word(b)).unwrap_or(rest.len());
        let keyword = &rest[..end];
        CLEAN.iter().any(|clean| keyword.eq_ignore_ascii_case(clean))
            && (prepared && self.prepared_is_single || is_single(rest))
            && !self.names_state(rest)
    }

    /// Skips blanks and comments; `None` where the engines disagree on what is a comment.
    fn skip_blank<'a>(&self, sql: &'a str) -> Option<&'a str> {
        let mut rest = sql;
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
            if let Some(comment) = rest.strip_prefix("--") {
                if self.mysql_comments && !comment.starts_with(|c: char| c.is_ascii_whitespace()) {
                    return None;
                }
                let end = comment.find('\n')?;
                // PostgreSQL ends a comment at a lone carriage return, SQLite does not.
                let line = &comment[..end];
                if line.strip_suffix('\r').unwrap_or(line).contains('\r') {
                    return None;
                }
                rest = &comment[end..];
            } else if let Some(comment) = rest.strip_prefix("/*") {
                if self.mysql_comments && (comment.starts_with(['!', '+']) || comment.starts_with("M!")) {
                    return None;
                }
                rest = self.after_block_comment(comment)?;
            } else {
                return Some(rest);
            }
        }
    }

    fn after_block_comment<'a>(&self, inside: &'a str) -> Option<&'a str> {
        let mut rest = inside;
        let mut depth = 1_u32;
        while depth > 0 {
            let close = rest.find("*/")?;
            match rest[..close].find("/*") {
                Some(open) if self.nested_comments => {
                    depth += 1;
                    rest = &rest[open + 2..];
                }
                _ => {
                    depth -= 1;
                    rest = &rest[close + 2..];
                }
            }
        }
        Some(rest)
    }

    /// True when a word of `sql`, be it in a literal or a comment, is one of those that change a session.
    fn names_state(&self, sql: &str) -> bool {
        let bytes = sql.as_bytes();
        let mut previous = "";
        let mut at = 0;
        while at < bytes.len() {
            if !is_word(bytes[at]) {
                if self.mysql_comments && (bytes[at..].starts_with(b":=") || bytes[at..].starts_with(b"/*!")) {
                    return true;
                }
                at += 1;
                continue;
            }
            let end = bytes[at..].iter().position(|b| !is_word(*b)).map_or(bytes.len(), |n| at + n);
            let word = &sql[at..end];
            if self.is_state_word(word) || self.select_into && is_select_into(previous, word) {
                return true;
            }
            // An identifier in Unicode escapes can spell any name.
            if word.eq_ignore_ascii_case("u") && bytes[end..].starts_with(b"&\"") {
                return true;
            }
            previous = word;
            at = end;
        }
        false
    }

    fn is_state_word(&self, word: &str) -> bool {
        self.names.iter().any(|name| word.eq_ignore_ascii_case(name))
            || self.prefixes.iter().any(|prefix| {
                word.as_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
            })
    }
}

/// `INTO` belongs to an `INSERT` or a `MERGE`; anywhere else it is a `SELECT INTO`.
fn is_select_into(previous: &str, word: &str) -> bool {
    word.eq_ignore_ascii_case("into")
        && !["insert", "merge", "ignore", "low_priority", "high_priority", "delayed"]
            .iter()
            .any(|before| previous.eq_ignore_ascii_case(before))
}

/// True when nothing but blanks follows the first semicolon. One inside a literal counts as well: telling literals
/// apart differs between the engines, and being wrong the other way would be a leak.
fn is_single(sql: &str) -> bool {
    sql.bytes().skip_while(|b| *b != b';').all(|b| b == b';' || b.is_ascii_whitespace())
}

/// Bytes from 0x80 on are parts of words in every engine, so cutting at other bytes never splits a character.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    const MYSQL: Syntax = Syntax::MYSQL;
    const POSTGRES: Syntax = Syntax::POSTGRES;
    const SQLITE: Syntax = Syntax::SQLITE;

    fn simple(syntax: &Syntax, sql: &str) -> bool {
        syntax.leaves_nothing(sql, false)
    }

    #[test]
    fn the_six_kinds_of_statement_leave_nothing() {
        for sql in [
            "SELECT 1",
            "select 1;",
            " \n\tInsert INTO t VALUES (1) ; ; \n",
            "update t set a = 1",
            "DELETE FROM t",
            "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
            "values (1)",
            "-- a comment\r\nSELECT 1",
            "/* a */ -- b\n /**/ SELECT 1",
        ] {
            for syntax in [&POSTGRES, &SQLITE, &MYSQL] {
                assert!(simple(syntax, sql), "{sql:?} {syntax:?}");
            }
        }
    }

    #[test]
    fn every_other_statement_may_leave_something() {
        for sql in [
            "",
            ";",
            "-- only a comment",
            "/* open",
            "SET x = 1",
            "BEGIN",
            "PRAGMA foreign_keys = off",
            "CREATE TEMP TABLE t (a int)",
            "(SELECT 1)",
            "selects 1",
            "select_ 1",
            "selecté 1",
            "explain analyze select 1",
            "\u{feff}SELECT 1",
        ] {
            for syntax in [&POSTGRES, &SQLITE, &MYSQL] {
                assert!(!simple(syntax, sql), "{sql:?} {syntax:?}");
            }
        }
    }

    #[test]
    fn a_second_statement_may_leave_something() {
        for sql in ["SELECT 1; SET x = 1", "SELECT ';' ; SET x = 1", "SELECT 'a; -- '; SET x = 1", "SELECT 1;/**/"] {
            assert!(!simple(&POSTGRES, sql), "{sql:?}");
            assert!(!simple(&SQLITE, sql), "{sql:?}");
        }
        assert!(POSTGRES.leaves_nothing("SELECT ';' || $1", true), "a prepared statement is one statement");
        assert!(MYSQL.leaves_nothing("SELECT CONCAT(';', ?)", true), "in MySQL as well");
        assert!(!SQLITE.leaves_nothing("SELECT 1; PRAGMA x = 1", true), "in SQLite it can be several");
    }

    #[test]
    fn a_comment_ends_where_the_engine_says() {
        let nested = "/* a /* b */ SET x = 1 */ SELECT 1";
        assert!(simple(&POSTGRES, nested));
        assert!(!simple(&SQLITE, nested), "to SQLite the comment ends before SET");
        assert!(!simple(&MYSQL, nested), "to MySQL as well");
        let flat = "/* a /* b */ SELECT 1";
        assert!(simple(&SQLITE, flat) && simple(&MYSQL, flat));
        assert!(!simple(&POSTGRES, flat), "to PostgreSQL it never ends");
        assert!(!simple(&SQLITE, "-- a\rSELECT 1\nPRAGMA x = 1"));
        assert!(!simple(&MYSQL, "/*! SET x = 1, */ SELECT 1"));
        assert!(!simple(&MYSQL, "--1\nSELECT 1"));
        assert!(simple(&POSTGRES, "--1\nSELECT 1") && simple(&SQLITE, "--1\nSELECT 1"));
    }

    #[test]
    fn functions_that_change_the_session_are_known_by_name() {
        for sql in [
            "SELECT set_config('a', 'b', false)",
            "SELECT pg_catalog.SET_CONFIG('a', 'b', false)",
            "UPDATE pg_settings SET setting = 'b' WHERE name = 'a'",
            "select pg_advisory_lock(1)",
            "select Pg_Advisory_Lock_Shared(1)",
            "with a as (select pg_try_advisory_lock(1)) select * from a",
            "select \"pg_try_advisory_lock_shared\"(1)",
            "select U&\"p\\0067_advisory_lock\"(1)",
            "select * into temp t from a",
            "select 1 -- into",
        ] {
            assert!(!POSTGRES.leaves_nothing(sql, true), "{sql:?}");
        }
        for sql in [
            "SELECT pg_advisory_xact_lock(1)",
            "SELECT pg_try_advisory_xact_lock(1)",
            "select pg_advisory_unlock(1)",
            "INSERT INTO into_the_wild VALUES (1)",
        ] {
            assert!(POSTGRES.leaves_nothing(sql, true), "{sql:?}");
        }
        assert!(!simple(&SQLITE, "SELECT Load_Extension('x')"));
        assert!(!simple(&MYSQL, "SELECT GET_LOCK('a', 1)"));
        assert!(simple(&SQLITE, "SELECT 'put into'"), "SQLite has no SELECT INTO");
        assert!(!simple(&MYSQL, "SELECT 1 INTO @a"));
        assert!(!simple(&MYSQL, "SELECT @a := 1"));
        assert!(!simple(&MYSQL, "SELECT /*! GET_LOCK('a', 1) */ 1"));
        assert!(simple(&MYSQL, "INSERT IGNORE INTO t VALUES (1)"));
    }
}
