//! From a tenant's name to the name of a database or file, so that no two tenants ever share one: one rule for all drivers of an
//! engine, as two of them may serve the same tenants. [`InvalidName`] tells the user what is allowed.

/// Why a tenant's name cannot name a database of this kind. The name itself is not repeated: it may be hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    /// The name is longer than the engine or the file system takes, which would cut it or refuse it.
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
    /// A character outside of the allowed ones: a path separator, a NUL, a letter with an accent, ...
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
    /// A name that is taken: a device of Windows (`con`, `nul`, `com1`, ...), or a database of the server's own.
    #[error("the name is reserved by the system; use another key for the tenant")]
    Reserved,
}

/// What [`plain_name`] allows.
const PLAIN_CHARACTERS: &str = "a-z, 0-9, '-', '_', and inside of the name '.' and ' '";

/// The most bytes of a file's name before its extension: 255, less `.db` and the longest of what SQLite appends.
const MAX_STEM: usize = 255 - ".db-journal".len();

/// The most bytes of a name in PostgreSQL, which cuts off the rest without a word.
const MAX_POSTGRES: usize = 63;

/// The most characters of a name in MySQL.
const MAX_MYSQL: usize = 64;

/// MySQL's own databases.
const RESERVED_BY_MYSQL: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

/// The file name of a tenant, without its extension: the tenant's name itself, or an error.
pub fn file_stem(tenant: &str) -> Result<String, InvalidName> {
    plain_name(tenant, MAX_STEM)
}

/// The tenant's name itself if every system can name a file so, or an error.
///
/// Only lower case ASCII passes, so two names that differ also differ to a file system that folds case, or that takes
/// two spellings of one accented letter for one. The limits of all systems apply on each, so that a folder of
/// databases can be moved.
fn plain_name(tenant: &str, allowed: usize) -> Result<String, InvalidName> {
    for (at, c) in tenant.char_indices() {
        match c {
            'a'..='z' | '0'..='9' | '-' | '_' | '.' | ' ' => {}
            'A'..='Z' => return Err(InvalidName::UpperCase { at }),
            _ => {
                return Err(InvalidName::Character { at, allowed: PLAIN_CHARACTERS });
            }
        }
    }
    if tenant.starts_with(['.', ' ']) {
        return Err(InvalidName::Dots { at: 0 });
    }
    if tenant.ends_with(['.', ' ']) {
        return Err(InvalidName::Dots { at: tenant.len() - 1 });
    }
    if let Some(at) = tenant.find("..") {
        return Err(InvalidName::Dots { at });
    }
    if is_windows_device(tenant) {
        return Err(InvalidName::Reserved);
    }
    within(tenant, allowed)?;
    Ok(tenant.to_owned())
}

/// The file name of any tenant, without its extension: what [`file_stem`] would refuse is written as `%` and two lower
/// case hexadecimal digits per byte. One to one, since `%` itself is written so, too.
pub fn encoded_file_stem(tenant: &str) -> Result<String, InvalidName> {
    let device = is_windows_device(tenant);
    let last = tenant.len().saturating_sub(1);
    let mut stem = String::with_capacity(tenant.len());
    for (at, byte) in tenant.bytes().enumerate() {
        let plain = match byte {
            b'a'..=b'z' | b'0'..=b'9' => !(device && at == 0),
            b'-' | b'_' => true,
            // A dot only between two other characters, so that there is no `..` either.
            b'.' => at != 0 && at != last && tenant.as_bytes()[at - 1] != b'.',
            b' ' => at != 0 && at != last,
            _ => false,
        };
        if plain {
            stem.push(char::from(byte));
        } else {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            stem.push('%');
            stem.push(char::from(DIGITS[usize::from(byte >> 4)]));
            stem.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    within(&stem, MAX_STEM)?;
    Ok(stem)
}

/// `con`, `com1` and so on are devices to Windows, with any extension as well.
fn is_windows_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    match stem.as_bytes() {
        b"con" | b"prn" | b"aux" | b"nul" => true,
        [b'c', b'o', b'm', digit] | [b'l', b'p', b't', digit] => digit.is_ascii_digit(),
        _ => false,
    }
}

/// Whether PostgreSQL takes the name for a database of a tenant's: any text of at most 63 bytes, quoted wherever it stands in
/// SQL. A connection to one of the templates would keep anyone from creating a database.
pub fn postgres_name(name: &str) -> Result<(), InvalidName> {
    no_nul(name)?;
    if matches!(name, "template0" | "template1") {
        return Err(InvalidName::Reserved);
    }
    within(name, MAX_POSTGRES)
}

/// The tenant's own name as that of a database in MySQL, where no server takes it for that of another tenant: some fold case,
/// as their file system does.
pub fn plain_mysql_name(tenant: &str) -> Result<String, InvalidName> {
    let name = plain_name(tenant, MAX_MYSQL)?;
    mysql_name(&name)?;
    Ok(name)
}

/// Whether MySQL takes the name for a database of a tenant's: any text of at most 64 characters that does not end with a space,
/// quoted wherever it stands in SQL.
pub fn mysql_name(name: &str) -> Result<(), InvalidName> {
    no_nul(name)?;
    if RESERVED_BY_MYSQL.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
        return Err(InvalidName::Reserved);
    }
    if name.ends_with(' ') {
        return Err(InvalidName::Dots { at: name.len() - 1 });
    }
    if name.chars().count() > MAX_MYSQL {
        return Err(InvalidName::TooLong { bytes: name.len(), allowed: MAX_MYSQL });
    }
    // Of at most 3 bytes each.
    within(name, MAX_MYSQL * 3)
}

/// It would end the name on the wire.
fn no_nul(name: &str) -> Result<(), InvalidName> {
    name.find('\0').map_or(Ok(()), |at| Err(InvalidName::Character { at, allowed: "all but NUL" }))
}

/// A name of at least one and at most `allowed` bytes.
fn within(name: &str, allowed: usize) -> Result<(), InvalidName> {
    match name.len() {
        0 => Err(InvalidName::Empty),
        bytes if bytes > allowed => Err(InvalidName::TooLong { bytes, allowed }),
        _ => Ok(()),
    }
}

#[cfg(all(test, not(tenantry_loom)))]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn plain_names_are_file_names_as_they_are() {
        for name in ["a", "acme", "acme-corp_2", "shop.example.com", "two words", "0", "com10", "console", "a-.-b"] {
            assert_eq!(file_stem(name).as_deref(), Ok(name));
            assert_eq!(encoded_file_stem(name).as_deref(), Ok(name));
        }
    }

    #[test]
    fn names_that_leave_the_folder_or_trick_a_file_system_are_refused() {
        use InvalidName::{Character, Dots, Reserved, TooLong, UpperCase};
        let allowed = PLAIN_CHARACTERS;
        for (name, error) in [
            ("../acme", Character { at: 2, allowed }),
            ("/etc/passwd", Character { at: 0, allowed }),
            ("a\\b", Character { at: 1, allowed }),
            ("a\0", Character { at: 1, allowed }),
            ("a:b", Character { at: 1, allowed }),
            ("c%41", Character { at: 1, allowed }),
            ("caf\u{e9}", Character { at: 3, allowed }),
            ("cafe\u{301}", Character { at: 4, allowed }),
            ("\u{212a}elvin", Character { at: 0, allowed }),
            ("..", Dots { at: 0 }),
            (".hidden", Dots { at: 0 }),
            (" a", Dots { at: 0 }),
            ("a.", Dots { at: 1 }),
            ("a ", Dots { at: 1 }),
            ("a..b", Dots { at: 1 }),
            ("Acme", UpperCase { at: 0 }),
            ("acmE", UpperCase { at: 3 }),
            ("con", Reserved),
            ("nul.backup", Reserved),
            ("com1", Reserved),
            ("lpt9 .x", Reserved),
        ] {
            assert_eq!(file_stem(name), Err(error), "{name:?}");
        }
        let long = "a".repeat(MAX_STEM + 1);
        assert_eq!(file_stem(&long), Err(TooLong { bytes: 245, allowed: 244 }));
        assert!(file_stem(&long[1..]).is_ok());
    }

    #[test]
    fn an_error_says_what_to_do() {
        let upper = file_stem("Acme").unwrap_err().to_string();
        assert!(upper.contains("lower case") && upper.contains("encoded_names"), "{upper}");
        let separator = file_stem("a/b").unwrap_err().to_string();
        assert!(separator.contains("a-z, 0-9"), "{separator}");
    }

    #[test]
    fn encoded_names_are_one_to_one_even_where_case_folds() {
        let alphabet = ["a", "A", ".", " ", "%", "4", "1", "/", "\\", "é", "e\u{301}", "con", "nul", "-"];
        let mut seen = HashMap::new();
        for a in alphabet {
            for b in alphabet {
                for c in alphabet {
                    let name = [a, b, c].concat();
                    let stem = encoded_file_stem(&name).expect("short");
                    assert!(stem.is_ascii() && stem == stem.to_ascii_lowercase(), "{stem:?}");
                    assert!(!stem.contains(['/', '\\']) && !stem.contains("..") && !is_windows_device(&stem));
                    assert!(!stem.starts_with(['.', ' ']) && !stem.ends_with(['.', ' ']), "{stem:?}");
                    let before = seen.insert(stem.clone(), name.clone());
                    assert!(before.is_none_or(|before| before == name), "{stem:?} is both {name:?} and another");
                }
            }
        }
        assert_eq!(encoded_file_stem("A").as_deref(), Ok("%41"));
        assert_eq!(encoded_file_stem("..").as_deref(), Ok("%2e%2e"));
        assert_eq!(encoded_file_stem("con").as_deref(), Ok("%63on"));
    }

    #[test]
    fn what_a_server_would_cut_fold_or_misread_is_refused() {
        use InvalidName::{Character, Dots, Empty, Reserved, TooLong};
        let allowed = "all but NUL";
        for check in [postgres_name, mysql_name] {
            assert_eq!(check(""), Err(Empty));
            assert_eq!(check("a\0b"), Err(Character { at: 1, allowed }), "a NUL ends a name on the wire");
            assert_eq!(check("a\"; DROP"), Ok(()));
        }
        assert_eq!(postgres_name("template1"), Err(Reserved));
        assert_eq!(postgres_name(&"é".repeat(32)), Err(TooLong { bytes: 64, allowed: 63 }));
        assert_eq!(postgres_name(&"a".repeat(63)), Ok(()));
        assert_eq!(mysql_name("MySQL"), Err(Reserved));
        assert_eq!(mysql_name("a "), Err(Dots { at: 1 }));
        assert_eq!(mysql_name(&"é".repeat(65)), Err(TooLong { bytes: 130, allowed: 64 }));
        assert_eq!(mysql_name(&"é".repeat(64)), Ok(()));
        assert_eq!(plain_mysql_name("sys"), Err(Reserved));
        assert!(plain_mysql_name("Acme").is_err() && plain_mysql_name("con").is_err());
        assert_eq!(plain_mysql_name("acme").as_deref(), Ok("acme"));
    }
}
