//! The secret of a host's dashboard, and what it signs: the cookie of a visitor who gave a token, and the marks of forms.
//!
//! The secret is drawn at each start and never leaves the process. A cookie neither has the token nor its hash; whoever has only the
//! settings of the host, with the hashes of its tokens, cannot make one.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use wharf_core::time::Timestamp;

use crate::access::{Access, TokenHash, Tokens};

/// The time after which a visitor is asked for the token again.
pub(super) const SESSION: Duration = Duration::from_secs(12 * 3600);

/// The system's source of random bytes.
const URANDOM: &str = "/dev/urandom";

/// The secret of one process.
pub(crate) struct Keys {
    secret: [u8; 32],
    /// The name of the cookie. Cookies do not tell ports apart, so its name does.
    cookie: String,
    /// The number of cookies that were made. Each has its own, so that signing out of one session ends no other of the same moment.
    made: AtomicU64,
}

impl Keys {
    /// Draws a secret for the dashboard of the host at this port.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub(crate) fn draw(port: u16) -> io::Result<Keys> {
        let mut secret = [0; 32];
        File::open(URANDOM)?.read_exact(&mut secret)?;
        Ok(Keys { secret, cookie: format!("wharf-{port}"), made: AtomicU64::new(0) })
    }

    fn sign(&self, purpose: &str, parts: &[&[u8]]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("a key may have any length");
        mac.update(purpose.as_bytes());
        for part in parts {
            // A length before each part: no two lists of parts are the same bytes.
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn session(&self, until: &str, number: &str, token: &TokenHash) -> String {
        self.sign("session", &[until.as_bytes(), number.as_bytes(), token.as_bytes()])
    }

    /// Returns the value of the header that gives a visitor the cookie of a token.
    pub(super) fn set_cookie(&self, token: &str, now: Timestamp, secure: bool) -> String {
        let until = (now + SESSION).as_millis().to_string();
        let number = self.made.fetch_add(1, Ordering::Relaxed).to_string();
        let signature = self.session(&until, &number, &TokenHash::of(token));
        self.cookie_header(&format!("{until}.{number}.{signature}"), SESSION.as_secs(), secure)
    }

    /// Returns the value of the header that takes the cookie away.
    pub(super) fn clear_cookie(&self, secure: bool) -> String {
        self.cookie_header("", 0, secure)
    }

    fn cookie_header(&self, value: &str, seconds: u64, secure: bool) -> String {
        // Without a path: the browser takes the folder of the page, which has the prefix that a proxy adds.
        let secure = if secure { "; Secure" } else { "" };
        format!("{}={value}; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}", self.cookie)
    }

    /// Returns the value of the visitor's cookie.
    pub(super) fn cookie<'h>(&self, headers: impl Iterator<Item = &'h str>) -> Option<&'h str> {
        let mut pairs = headers.flat_map(|header| header.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == self.cookie).map(|(_, value)| value)
    }

    /// Returns the rights of the token for which a cookie was made; `None` if it is too old, forged, or of a token that the host no
    /// longer has.
    pub(super) fn access(&self, cookie: &str, tokens: &Tokens, now: Timestamp) -> Option<Access> {
        let (until, rest) = cookie.split_once('.')?;
        let (number, signature) = rest.split_once('.')?;
        if Timestamp::from_millis(until.parse().ok()?) < now {
            return None;
        }
        tokens.find_hash(|hash| bool::from(self.session(until, number, hash).as_bytes().ct_eq(signature.as_bytes())))
    }

    /// Returns the end of a cookie's time, as it says itself.
    pub(super) fn end_of(cookie: &str) -> Option<Timestamp> {
        Some(Timestamp::from_millis(cookie.split_once('.')?.0.parse().ok()?))
    }

    /// Returns the mark that the forms of a visitor with this cookie carry.
    pub(super) fn mark(&self, cookie: Option<&str>) -> String {
        self.sign("form", &[cookie.unwrap_or_default().as_bytes()])
    }

    /// Returns true if a form carries the mark of this visitor.
    pub(super) fn is_mark(&self, given: &str, cookie: Option<&str>) -> bool {
        self.mark(cookie).as_bytes().ct_eq(given.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::TokenTable;

    fn tokens(all: &[&str]) -> Tokens {
        let table = all.iter().map(|token| (TokenHash::of(token), Access::everything(token)));
        Tokens::new(TokenTable::new(table.collect()))
    }

    #[test]
    fn a_cookie_is_of_its_token_until_it_is_too_old() {
        let (keys, now) = (Keys::draw(7070).unwrap(), Timestamp::from_millis(1_000_000));
        let header = keys.set_cookie("first", now, true);
        assert!(header.ends_with("; HttpOnly; SameSite=Strict; Max-Age=43200; Secure"), "{header}");
        assert!(!header.contains("first") && !header.contains("Path"), "{header}");
        let pair = header.split(';').next().unwrap();
        let others = format!("wharf-7071=x; {pair}; other=1");
        let cookie = keys.cookie([others.as_str()].into_iter()).unwrap();
        assert_eq!(Keys::end_of(cookie), Some(now + SESSION));
        let of = |tokens: &Tokens, at| keys.access(cookie, tokens, at).map(|access| access.name.to_string());
        assert_eq!(of(&tokens(&["second", "first"]), now).as_deref(), Some("first"));
        assert_eq!(of(&tokens(&["second"]), now), None, "a token that is gone");
        assert_eq!(of(&tokens(&["first"]), now + SESSION + Duration::from_secs(1)), None, "too old");
        let next = keys.set_cookie("first", now, true);
        assert_ne!(next, header, "two sessions of one token and one moment are two");
        let later = cookie.replacen("44200000", "54200000", 1);
        assert_ne!(later, cookie);
        assert!(keys.access(&later, &tokens(&["first"]), now).is_none(), "a cookie that was made longer");
        assert!(Keys::draw(7070).unwrap().access(cookie, &tokens(&["first"]), now).is_none(), "another process");
    }

    #[test]
    fn a_form_has_the_mark_of_its_visitor() {
        let keys = Keys::draw(1).unwrap();
        assert!(keys.is_mark(&keys.mark(Some("a")), Some("a")) && keys.is_mark(&keys.mark(None), None));
        assert!(!keys.is_mark(&keys.mark(Some("a")), Some("b")) && !keys.is_mark("", None));
    }
}
