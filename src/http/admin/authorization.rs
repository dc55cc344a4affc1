//! [`Authorization`]: who may use the admin router, and for what.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use axum::http::header;
use axum::http::request::Parts;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The least bytes of a token.
const LEAST: usize = 16;

/// What somebody may do. Whoever may do more may do less as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Read totals, servers and metrics; no tenant's name.
    Read,
    /// See the tenants and their names, and drain, resume, evict and warm them.
    Admin,
}

type Checked = Pin<Box<dyn Future<Output = Option<Role>> + Send>>;

/// Who may use the admin router: those with a token, or whom a function of yours lets in.
pub struct Authorization(Kind);

enum Kind {
    /// Digests of the tokens, which are not kept themselves.
    Tokens(Vec<(Role, [u8; 32])>),
    Check(Box<dyn Fn(&Parts) -> Checked + Send + Sync>),
}

/// Why tokens were refused. The token itself is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeakToken {
    /// There is no token at all, so that nobody could get in.
    #[error("no token was given: nobody could use the router")]
    None,
    /// One is so short that it can be guessed.
    #[error(
        "a token has {bytes} bytes; at least 16 are needed, better 32 by chance, as `openssl rand -hex 32` makes them"
    )]
    #[non_exhaustive]
    Short {
        /// How many bytes it has.
        bytes: usize,
    },
    /// One holds a character that no header can carry as it is.
    #[error("a token holds other characters than visible ASCII ones")]
    NotVisible,
}

impl Authorization {
    /// Bearer tokens (`Authorization: Bearer ...`), each with its role. A role may have several, for the time when one takes
    /// another's place. They are compared as digests, all of them and in constant time, and only digests are kept.
    ///
    /// # Errors
    /// [`WeakToken`] where there is none, or one is shorter than 16 bytes or cannot be sent.
    pub fn tokens<T: AsRef<str>>(tokens: impl IntoIterator<Item = (Role, T)>) -> Result<Self, WeakToken> {
        let mut digests = Vec::new();
        for (role, token) in tokens {
            let token = token.as_ref().as_bytes();
            if token.len() < LEAST {
                return Err(WeakToken::Short { bytes: token.len() });
            }
            if !token.iter().all(u8::is_ascii_graphic) {
                return Err(WeakToken::NotVisible);
            }
            digests.push((role, Sha256::digest(token).into()));
        }
        if digests.is_empty() {
            return Err(WeakToken::None);
        }
        Ok(Self(Kind::Tokens(digests)))
    }

    /// A check of your own: by a session that a layer put into the extensions, a client's certificate, and so on. It takes
    /// what it needs from the request's head; None is answered with 401.
    ///
    /// Where it goes by a cookie, have the cookie `SameSite=Strict`. A browser's form cannot write here in any case: writes
    /// take JSON with its content type, which another site's page may not send.
    #[must_use]
    pub fn check<A>(check: impl Fn(&Parts) -> A + Send + Sync + 'static) -> Self
    where
        A: Future<Output = Option<Role>> + Send + 'static,
    {
        Self(Kind::Check(Box::new(move |head| Box::pin(check(head)))))
    }

    /// What the sender of this request may do; None for nothing at all.
    pub(super) async fn role(&self, head: &Parts) -> Option<Role> {
        match &self.0 {
            Kind::Tokens(digests) => granted(digests, bearer(head)?),
            Kind::Check(check) => check(head).await,
        }
    }
}

/// All are looked at, whichever is the right one.
fn granted(digests: &[(Role, [u8; 32])], token: &[u8]) -> Option<Role> {
    let sent = Sha256::digest(token);
    let mut granted = None;
    for (role, digest) in digests {
        if bool::from(digest.as_slice().ct_eq(&sent)) {
            granted = granted.max(Some(*role));
        }
    }
    granted
}

/// The token of the only `Authorization` header, if it is of that kind.
fn bearer(head: &Parts) -> Option<&[u8]> {
    let mut values = head.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Tokens(tokens) => write!(f, "Authorization({} tokens)", tokens.len()),
            Kind::Check(_) => f.write_str("Authorization(a check)"),
        }
    }
}
