//! From a tenant's name to the name of a database, so that no two tenants ever share one. Used by the factories;
//! [`InvalidName`] tells the user what is allowed.

/// Why a tenant's name cannot name a database of this kind. The name itself is not repeated: it may be hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// The name is longer than the server or the file system takes, which would cut it or refuse it.
    #[error("the name has {bytes} bytes; at most {allowed} are allowed here, so use a shorter key for the tenant")]
    #[non_exhaustive]
    TooLong {
        /// How many bytes it has, with whatever the factory adds.
        bytes: usize,
        /// How many it may have.
        allowed: usize,
    },
    /// The name is empty.
    #[error("the name of the database is empty")]
    Empty,
    /// A character outside of the allowed ones: a path separator, a letter with an accent, ...
    #[error("the character at byte {at} is not allowed; allowed are {allowed}")]
    #[non_exhaustive]
    Character {
        /// The byte offset of the first such character.
        at: usize,
        /// Which ones are allowed.
        allowed: &'static str,
    },
    /// An upper case letter in the name of a file, or of a database that a server may keep as one.
    #[error(
        "there is an upper case letter at byte {at}: on some systems `A` and `a` name one file or database, which two \
         tenants would share. Use lower case for the tenant, or the factory's rule for names (`encoded_names`, \
         `database_names`)"
    )]
    #[non_exhaustive]
    UpperCase {
        /// The byte offset of the first one.
        at: usize,
    },
    /// A dot or a space at the beginning or the end, or two dots in a row.
    #[error("a name neither begins nor ends with a dot or a space, and has no two dots in a row (see byte {at})")]
    #[non_exhaustive]
    Dots {
        /// The byte offset.
        at: usize,
    },
    /// A NUL, which ends a name in the server's protocol.
    #[error("there is a NUL at byte {at}")]
    #[non_exhaustive]
    Nul {
        /// The byte offset of the first one.
        at: usize,
    },
    /// A database of the server's own, or the one that serves maintenance; a device of Windows (`con`, `nul`, `com1`, ...).
    #[error("the name is reserved by the system; use another key for the tenant")]
    Reserved,
}

/// The most bytes of a name in PostgreSQL, which cuts off the rest without a word.
#[cfg(feature = "postgres")]
const MAX_POSTGRES: usize = 63;

/// The name of a database in PostgreSQL: any text of at most 63 bytes, as it is. A connection to one of the templates
/// would keep anyone from creating a database.
#[cfg(feature = "postgres")]
pub(crate) fn postgres_name(name: &str) -> Result<(), InvalidName> {
    if name.is_empty() {
        return Err(InvalidName::Empty);
    }
    if let Some(at) = name.find('\0') {
        return Err(InvalidName::Nul { at });
    }
    if matches!(name, "template0" | "template1") {
        return Err(InvalidName::Reserved);
    }
    if name.len() > MAX_POSTGRES {
        return Err(InvalidName::TooLong { bytes: name.len(), allowed: MAX_POSTGRES });
    }
    Ok(())
}

/// The most characters of a name in MySQL, of at most 3 bytes each.
#[cfg(feature = "mysql")]
const MAX_MYSQL: usize = 64;

/// The server's own databases.
#[cfg(feature = "mysql")]
const RESERVED_BY_MYSQL: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

/// The name of a database in MySQL: any text of at most 64 characters that does not end with a space.
#[cfg(feature = "mysql")]
pub(crate) fn mysql_name(name: &str) -> Result<(), InvalidName> {
    if name.is_empty() {
        return Err(InvalidName::Empty);
    }
    if let Some(at) = name.find('\0') {
        return Err(InvalidName::Nul { at });
    }
    if RESERVED_BY_MYSQL.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
        return Err(InvalidName::Reserved);
    }
    if name.ends_with(' ') {
        return Err(InvalidName::Dots { at: name.len() - 1 });
    }
    if name.chars().count() > MAX_MYSQL || name.len() > 3 * MAX_MYSQL {
        return Err(InvalidName::TooLong { bytes: name.len(), allowed: MAX_MYSQL });
    }
    Ok(())
}

/// A tenant's own name as that of a database, if no server takes it for that of another tenant: some fold case, as
/// their file system does.
#[cfg(feature = "mysql")]
pub(crate) fn mysql_default_name(tenant: &str) -> Result<(), InvalidName> {
    let allowed = "a-z, 0-9, '-', '_', and inside of the name '.' and ' '";
    for (at, letter) in tenant.char_indices() {
        match letter {
            'a'..='z' | '0'..='9' | '-' | '_' | '.' | ' ' => {}
            'A'..='Z' => return Err(InvalidName::UpperCase { at }),
            _ => return Err(InvalidName::Character { at, allowed }),
        }
    }
    if tenant.starts_with(['.', ' ']) {
        return Err(InvalidName::Dots { at: 0 });
    }
    if tenant.ends_with(['.', ' ']) {
        return Err(InvalidName::Dots { at: tenant.len() - 1 });
    }
    tenant.find("..").map_or(Ok(()), |at| Err(InvalidName::Dots { at }))
}

/// A name as SQL writes it, whatever it holds.
#[cfg(feature = "postgres")]
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_would_cut_or_misread_is_refused() {
        assert_eq!(postgres_name(""), Err(InvalidName::Empty));
        assert_eq!(postgres_name("a\0b"), Err(InvalidName::Nul { at: 1 }));
        assert_eq!(postgres_name("template1"), Err(InvalidName::Reserved));
        assert_eq!(postgres_name(&"é".repeat(32)), Err(InvalidName::TooLong { bytes: 64, allowed: 63 }));
        assert_eq!(postgres_name(&"a".repeat(63)), Ok(()));
    }

    #[test]
    fn quoting_keeps_a_name_in_one_piece() {
        assert_eq!(quoted(r#"a"; DROP DATABASE b; --"#), r#""a""; DROP DATABASE b; --""#);
    }
}
