//! Users of a server, and the statements that make them: [`User`].

use std::fmt;
use std::fmt::Write;
use std::path::Path;

/// A user to make when the server starts, who may come from everywhere: it may log in, and nothing else unless told.
#[derive(Clone)]
pub struct User {
    name: String,
    password: String,
    max_user_connections: Option<u32>,
    databases: Vec<String>,
}

impl User {
    /// A user without a limit of its own.
    pub fn new(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self { name: name.into(), password: password.into(), max_user_connections: None, databases: Vec::new() }
    }

    /// `MAX_USER_CONNECTIONS`: how many connections it may have at once; 0 is no limit. Past it the server answers with
    /// error 1226.
    #[must_use]
    pub fn max_user_connections(mut self, max: u32) -> Self {
        self.max_user_connections = Some(max);
        self
    }

    /// It may do everything in this database, create it included, which need not exist yet.
    #[must_use]
    pub fn owns(mut self, database: impl Into<String>) -> Self {
        self.databases.push(database.into());
        self
    }

    fn statements(&self) -> String {
        let (name, password) = (identifier(&self.name), literal(&self.password));
        let limit = self.max_user_connections.map(|max| format!(" WITH MAX_USER_CONNECTIONS {max}"));
        let mut text = format!("CREATE USER {name}@`%` IDENTIFIED BY {password}{}; ", limit.unwrap_or_default());
        for database in &self.databases {
            // In a grant `_` and `%` stand for any letters.
            let database = database.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%");
            // Writing to a string does not fail.
            let _ = write!(text, "GRANT ALL ON {}.* TO {name}@`%`; ", identifier(&database));
        }
        text
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, limit) = (&self.name, &self.max_user_connections);
        f.debug_struct("User").field("name", name).field("limit", limit).finish_non_exhaustive()
    }
}

/// One statement that leaves `root` and `users` alone on the server, and then writes the empty file `made`. The
/// first thing that fails in it ends it.
pub(super) fn statements(root: &str, password: &str, users: &[User], made: &Path) -> String {
    let users: String = users.iter().map(User::statements).collect();
    let (root, password, made) = (identifier(root), literal(password), literal(&made.to_string_lossy()));
    format!(
        "BEGIN NOT ATOMIC DELETE FROM mysql.global_priv WHERE User IN ('root', ''); DELETE FROM mysql.proxies_priv; \
         FLUSH PRIVILEGES; CREATE USER {root}@`%` IDENTIFIED BY {password}; \
         GRANT ALL ON *.* TO {root}@`%` WITH GRANT OPTION; {users}SELECT '' INTO OUTFILE {made}; END;\n"
    )
}

fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// On one line, as the server reads its statements line by line.
fn literal(text: &str) -> String {
    let escape = |letter: char| match letter {
        '\\' => "\\\\".to_owned(),
        '\'' => "''".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\0' => "\\0".to_owned(),
        other => other.to_string(),
    };
    format!("'{}'", text.chars().map(escape).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_and_passwords_stay_one_word_on_one_line() {
        assert_eq!(identifier("a`b'"), "`a``b'`");
        assert_eq!(literal("p'\\\n;"), "'p''\\\\\\n;'");
        let statements = User::new("a", "b").owns("x_%\\").statements();
        assert!(statements.contains("GRANT ALL ON `x\\_\\%\\\\`.* TO `a`@`%`"), "{statements}");
    }

    #[test]
    fn nothing_that_is_printed_holds_the_password() {
        assert!(!format!("{:?}", User::new("a", "mark3r-role")).contains("mark3r-role"));
    }
}
