//! What a statement's text says about the session after it: [`leaves`].

/// Words that a statement begins with which leaves nothing but, at most, a transaction. That one is seen in the status
/// that the server sends with its answer.
const PLAIN: [&str; 18] = [
    "select",
    "insert",
    "update",
    "delete",
    "replace",
    "with",
    "values",
    "table",
    "show",
    "explain",
    "describe",
    "desc",
    "start",
    "commit",
    "rollback",
    "savepoint",
    "release",
    "do",
];

/// Functions that leave something wherever they stand.
const FUNCTIONS: [&str; 1] = ["get_lock"];

/// What a session may be after a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    /// As before.
    Nothing,
    /// Another one: a setting, a variable, a lock, a temporary table, another database. The server's reset undoes it.
    Something,
    /// Another one for good: no reset gives back a role.
    ForGood,
}

/// What the statements of `text` may leave. It errs on the side of more.
pub(super) fn leaves(text: &str) -> Leaves {
    let statement = text.trim_end_matches(|letter: char| letter == ';' || letter.is_whitespace());
    let (word, rest) = first_word(statement);
    let begins_plainly = PLAIN.iter().any(|plain| word.eq_ignore_ascii_case(plain));
    // Not one that goes on: MariaDB takes `BEGIN NOT ATOMIC` for a block of statements.
    let begins = word.eq_ignore_ascii_case("begin") && (rest.is_empty() || rest.trim().eq_ignore_ascii_case("work"));
    // Variables have an `@`; two statements in one text have a semicolon between them.
    let is_one = (begins_plainly || begins) && !statement.contains(';');
    if is_one && !statement.contains('@') && !FUNCTIONS.iter().any(|function| contains(statement, function)) {
        Leaves::Nothing
    } else if !is_one && contains(statement, "set") && contains(statement, "role") {
        Leaves::ForGood
    } else {
        Leaves::Something
    }
}

/// The word that a statement begins with, behind blanks, parentheses and comments, and what comes after it.
fn first_word(mut text: &str) -> (&str, &str) {
    loop {
        text = text.trim_start_matches(|letter: char| letter == '(' || letter.is_whitespace());
        // What stands in `/*!` and `/*M!` is no comment.
        let is_comment = text.starts_with("/*") && !text.starts_with("/*!") && !text.starts_with("/*M!");
        let end = match text {
            _ if is_comment => text.find("*/").map(|at| at + 2),
            _ if text.starts_with("-- ") || text.starts_with('#') => text.find('\n'),
            _ => {
                let end = text.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(text.len());
                return text.split_at(end);
            }
        };
        text = &text[end.unwrap_or(text.len())..];
    }
}

fn contains(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_writes_or_resolves_leaves_nothing() {
        for text in [
            "SELECT 1",
            "  \n(select 1)",
            "/* of /orders */ SELECT `a`.`b` FROM `a` WHERE `c` = ?",
            "-- why\nINSERT INTO a VALUES (?)",
            "# why\nupdate a set b = ?;",
            "BEGIN",
            "begin work ;",
            "START TRANSACTION READ ONLY",
            "COMMIT",
            "ROLLBACK TO SAVEPOINT a",
            "WITH a AS (SELECT 1) SELECT * FROM a",
        ] {
            assert_eq!(leaves(text), Leaves::Nothing, "{text}");
        }
    }

    #[test]
    fn all_else_may() {
        for text in [
            "SET time_zone = '+01:00'",
            "SELECT @a := 1",
            "SELECT 1 INTO @a",
            "USE other",
            "CREATE TEMPORARY TABLE a (b INT)",
            "LOCK TABLES a READ",
            "SELECT Get_Lock('a', 0)",
            "DO GET_LOCK('a', 0)",
            "CALL a()",
            "BEGIN NOT ATOMIC SET SESSION sql_mode = ''; END",
            "SELECT 1; SET sql_mode = ''",
            "/*! SET sql_mode = '' */",
            "/*M! SET sql_mode = '' */",
            "/* never ends",
            "",
            "PREPARE a FROM 'SELECT 1'",
            "HANDLER a OPEN",
            "XA START 'a'",
        ] {
            assert_eq!(leaves(text), Leaves::Something, "{text}");
        }
    }

    #[test]
    fn a_role_is_for_good_wherever_it_is_set() {
        for text in ["SET ROLE admin", "set role none", "SELECT 1; SET ROLE a", "SET STATEMENT a = 1 FOR SET ROLE b"] {
            assert_eq!(leaves(text), Leaves::ForGood, "{text}");
        }
        assert_eq!(leaves("UPDATE account SET role = ?"), Leaves::Nothing);
    }
}
