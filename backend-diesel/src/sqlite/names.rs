//! From a tenant's name to the name of its file, so that no two tenants ever share one. The same rule as that of
//! `tenantry-sqlx`: one tenant's file is the same for both.

use crate::names::InvalidName;

/// What [`file_stem`] allows.
const PLAIN_CHARACTERS: &str = "a-z, 0-9, '-', '_', and inside of the name '.' and ' '";

/// The most bytes of a file's name before its extension: 255, less `.db` and the longest of what SQLite appends.
const MAX_STEM: usize = 255 - ".db-journal".len();

/// The file name of a tenant, without its extension: the tenant's name itself if every system can name a file so, or an
/// error.
///
/// Only lower case ASCII passes, so two names that differ also differ to a file system that folds case, or that takes
/// two spellings of one accented letter for one. The limits of all systems apply on each, so that a folder of
/// databases can be moved.
pub(super) fn file_stem(tenant: &str) -> Result<String, InvalidName> {
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
    bounded(tenant.to_owned())
}

/// The file name of any tenant, without its extension: what [`file_stem`] would refuse is written as `%` and two lower
/// case hexadecimal digits per byte. One to one, since `%` itself is written so, too.
pub(super) fn encoded_file_stem(tenant: &str) -> Result<String, InvalidName> {
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
    bounded(stem)
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

/// A name of at least one byte and at most as many as there may be.
fn bounded(name: String) -> Result<String, InvalidName> {
    if name.is_empty() {
        return Err(InvalidName::Empty);
    }
    if name.len() > MAX_STEM {
        return Err(InvalidName::TooLong { bytes: name.len(), allowed: MAX_STEM });
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_or_trick_a_file_system_are_refused() {
        use InvalidName::{Character, Dots, Empty, Reserved, TooLong, UpperCase};
        let allowed = PLAIN_CHARACTERS;
        for (name, error) in [
            ("", Empty),
            ("../acme", Character { at: 2, allowed }),
            ("a\\b", Character { at: 1, allowed }),
            ("a\0", Character { at: 1, allowed }),
            ("caf\u{e9}", Character { at: 3, allowed }),
            (".hidden", Dots { at: 0 }),
            ("a ", Dots { at: 1 }),
            ("a..b", Dots { at: 1 }),
            ("Acme", UpperCase { at: 0 }),
            ("nul.backup", Reserved),
        ] {
            assert_eq!(file_stem(name), Err(error), "{name:?}");
        }
        assert_eq!(file_stem(&"a".repeat(MAX_STEM + 1)), Err(TooLong { bytes: 245, allowed: 244 }));
        assert_eq!(file_stem("shop.example.com").as_deref(), Ok("shop.example.com"));
        assert_eq!(encoded_file_stem("A..").as_deref(), Ok("%41.%2e"));
        assert_eq!(encoded_file_stem("con").as_deref(), Ok("%63on"));
    }
}
