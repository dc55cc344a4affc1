//! [`TenantId`] and [`ServerId`]: the two names everything else is counted by.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The most bytes a tenant's name may have. 255 is what the common file systems allow for one name;
/// a driver may ask for less and say so with [`FailureKind::InvalidName`](crate::FailureKind::InvalidName).
pub(crate) const MAX_TENANT_BYTES: usize = 255;

/// The name of one tenant, and so of one database: 1 to 255 bytes of text without control characters.
///
/// Cloning it counts a reference; it never copies the text. Two ids are the same tenant when their bytes are
/// the same: case counts, and nothing is trimmed or folded.
///
/// ```
/// use tenantry_core::TenantId;
///
/// let tenant: TenantId = "acme".parse()?;
/// assert_eq!(tenant.as_ref(), "acme");
/// assert!("".parse::<TenantId>().is_err());
/// # Ok::<(), tenantry_core::InvalidTenant>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

/// Why a text is no [`TenantId`]. The text itself is not repeated: it may be hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTenant {
    /// The name has no bytes. Pass the tenant's name.
    #[error("a tenant's name is empty; it needs 1 to 255 bytes")]
    Empty,
    /// The name is longer than 255 bytes. Use a shorter key, such as the tenant's id.
    #[error("a tenant's name has {bytes} bytes; at most 255 are allowed")]
    #[non_exhaustive]
    TooLong {
        /// How many bytes it has.
        bytes: usize,
    },
    /// The name holds a control character (NUL, a line break, ...). Check where the name comes from.
    #[error("a tenant's name has a control character at byte {at}; none is allowed")]
    #[non_exhaustive]
    ControlCharacter {
        /// The byte offset of the first one.
        at: usize,
    },
}

impl TenantId {
    /// Checks `name` and makes an id of it.
    ///
    /// # Errors
    /// [`InvalidTenant`] when the name is empty, longer than 255 bytes or holds a control character.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidTenant> {
        let name = name.as_ref();
        Self::check(name)?;
        Ok(Self::checked(name))
    }

    /// Of a name that passed [`check`](Self::check).
    pub(crate) fn checked(name: &str) -> Self {
        debug_assert!(Self::check(name).is_ok());
        Self(name.into())
    }

    /// The line for work on a server beside its tenants' connections. Its control character keeps it apart from every
    /// tenant's.
    pub(crate) fn maintenance(server: &ServerId) -> Self {
        Self(format!("\u{1}maintenance {}", server.as_str()).into())
    }

    pub(crate) fn is_maintenance(&self) -> bool {
        self.0.starts_with('\u{1}')
    }

    /// The check alone, for looking up a name without keeping it.
    pub(crate) fn check(name: &str) -> Result<(), InvalidTenant> {
        if name.is_empty() {
            return Err(InvalidTenant::Empty);
        }
        if name.len() > MAX_TENANT_BYTES {
            return Err(InvalidTenant::TooLong { bytes: name.len() });
        }
        // Bytes first: nearly all names are ASCII, and this runs on every acquire.
        let suspicious = name.bytes().any(|b| !(0x20..0x7f).contains(&b));
        if suspicious && let Some((at, _)) = name.char_indices().find(|(_, c)| c.is_control()) {
            return Err(InvalidTenant::ControlCharacter { at });
        }
        Ok(())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for TenantId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TenantId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl FromStr for TenantId {
    type Err = InvalidTenant;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

/// What enforces a connection limit in the real world, such as one PostgreSQL cluster. Every tenant lives on one.
///
/// The default is "the only server", which is all that a service with one cluster needs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ServerId(Option<Arc<str>>);

impl ServerId {
    /// The name, empty for the default.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("")
    }
}

impl From<&str> for ServerId {
    fn from(name: &str) -> Self {
        Self((!name.is_empty()).then(|| name.into()))
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.as_deref().unwrap_or("the only server"))
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(feature = "serde")]
mod serial {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::{ServerId, TenantId};

    impl Serialize for TenantId {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(self.as_str())
        }
    }

    /// Checked, as [`TenantId::new`] does.
    impl<'de> Deserialize<'de> for TenantId {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Self::new(Cow::<str>::deserialize(deserializer)?).map_err(D::Error::custom)
        }
    }

    impl Serialize for ServerId {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(self.as_str())
        }
    }

    impl<'de> Deserialize<'de> for ServerId {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Ok(Self::from(&*Cow::<str>::deserialize(deserializer)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_1_to_255_bytes() {
        assert_eq!(TenantId::new(""), Err(InvalidTenant::Empty));
        assert!(TenantId::new("a".repeat(255)).is_ok());
        assert_eq!(TenantId::new("a".repeat(256)), Err(InvalidTenant::TooLong { bytes: 256 }));
        assert_eq!(TenantId::new("a".repeat(300)), Err(InvalidTenant::TooLong { bytes: 300 }));
        assert!(TenantId::new("é".repeat(128)).is_err(), "bytes are counted, not characters");
    }

    #[test]
    fn control_characters_are_refused_wherever_they_stand() {
        for (name, at) in [("\0", 0), ("a\nb", 1), ("ab\x7f", 2), ("a\u{85}", 1), ("é\u{1b}", 2)] {
            assert_eq!(TenantId::new(name), Err(InvalidTenant::ControlCharacter { at }), "{name:?}");
        }
        for name in ["a b", "../x", "Ünïcode", "日本", "a'b\"c"] {
            assert!(TenantId::new(name).is_ok(), "{name:?} is for the driver to judge");
        }
    }

    #[test]
    fn an_error_does_not_repeat_the_name() {
        let error = TenantId::new("secret\0").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
    }

    #[test]
    fn an_empty_server_name_is_the_default_server() {
        assert_eq!(ServerId::from(""), ServerId::default());
        assert_ne!(ServerId::from("a"), ServerId::default());
        assert_eq!(ServerId::default().to_string(), "the only server");
    }
}
