//! Who may do what: tokens, their scopes, and the key that a token may be bound to.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;
use wharf_core::ids::{ParseIdError, PluginId, TaskName};
use wharf_core::key::Key;
use wharf_core::topic::{Pattern, Subscriptions, Topic};

/// The SHA-256 digest of a token. The token itself is kept nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenHash([u8; 32]);

/// The prefix of a hash as it is written.
const HASH_PREFIX: &str = "sha256:";

impl TokenHash {
    /// Returns the hash of a token.
    pub(crate) fn of(token: &str) -> TokenHash {
        TokenHash(Sha256::digest(token.as_bytes()).into())
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HASH_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenHash {
    type Err = String;

    fn from_str(text: &str) -> Result<TokenHash, String> {
        let digits = text.strip_prefix(HASH_PREFIX).filter(|digits| digits.len() == 64 && digits.is_ascii());
        let byte = |digits: &str, at: usize| u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok();
        let hash = digits.and_then(|digits| {
            // A sign would be read as part of a number.
            let digits = Some(digits).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
            (0..32).map(|at| byte(digits, at)).collect::<Option<Vec<u8>>>()
        });
        match hash.and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => Ok(TokenHash(bytes)),
            None => {
                Err("expected `sha256:` and 64 hexadecimal digits; `wharf token new` prints a token with its hash"
                    .into())
            }
        }
    }
}

/// The tasks that a token may enqueue jobs of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TaskPattern {
    /// Every task.
    All,
    /// Every task of one plugin.
    Plugin(PluginId),
    /// One task.
    Task(TaskName),
}

impl TaskPattern {
    fn matches(&self, task: &TaskName) -> bool {
        match self {
            TaskPattern::All => true,
            TaskPattern::Plugin(plugin) => task.plugin() == *plugin,
            TaskPattern::Task(one) => one == task,
        }
    }
}

impl FromStr for TaskPattern {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<TaskPattern, ParseIdError> {
        match text.strip_suffix("/*") {
            _ if text == "*" => Ok(TaskPattern::All),
            Some(plugin) => plugin.parse().map(TaskPattern::Plugin),
            None => text.parse().map(TaskPattern::Task),
        }
    }
}

impl fmt::Display for TaskPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TaskPattern::All => f.write_str("*"),
            TaskPattern::Plugin(plugin) => write!(f, "{plugin}/*"),
            TaskPattern::Task(task) => write!(f, "{task}"),
        }
    }
}

/// One thing that a token may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Read jobs, results, broadcasts, plugins, nodes, limits and metrics.
    Read,
    /// Enqueue jobs of these tasks.
    Enqueue(TaskPattern),
    /// Broadcast to the topics that match.
    Broadcast(Pattern),
    /// Cancel and retry jobs and set limits; includes `read`.
    Operate,
    /// Everything.
    Admin,
}

/// The scopes as they are written, for error texts.
const SCOPES: &str = "read, enqueue:PLUGIN/TASK, enqueue:PLUGIN/*, enqueue:*, broadcast:TOPIC, operate or admin";

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Scope, String> {
        let (name, pattern) = match text.split_once(':') {
            Some((name, pattern)) => (name, Some(pattern)),
            None => (text, None),
        };
        match (name, pattern) {
            ("read", None) => Ok(Scope::Read),
            ("operate", None) => Ok(Scope::Operate),
            ("admin", None) => Ok(Scope::Admin),
            ("enqueue", Some(tasks)) => {
                let pattern = tasks.parse().map_err(|error| format!("invalid scope `{text}`: {error}"))?;
                Ok(Scope::Enqueue(pattern))
            }
            ("broadcast", Some(topics)) => {
                let pattern = topics.parse().map_err(|error| format!("invalid scope `{text}`: {error}"))?;
                Ok(Scope::Broadcast(pattern))
            }
            ("enqueue", None) => {
                Err("invalid scope `enqueue`: it matches no task; write `enqueue:*` for every task".into())
            }
            ("broadcast", None) => {
                Err("invalid scope `broadcast`: it matches no topic; write `broadcast:>` for every topic".into())
            }
            _ => Err(format!("unknown scope `{text}`; expected {SCOPES}")),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Read => f.write_str("read"),
            Scope::Enqueue(tasks) => write!(f, "enqueue:{tasks}"),
            Scope::Broadcast(topics) => write!(f, "broadcast:{topics}"),
            Scope::Operate => f.write_str("operate"),
            Scope::Admin => f.write_str("admin"),
        }
    }
}

/// What one client may do: the rights of its token, or everything where the host needs none.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// Name of the token, the author of what the client changes.
    pub(crate) name: Arc<str>,
    scopes: Arc<[Scope]>,
    key: Option<Key>,
    /// Cancelled when the settings no longer have the token with these rights.
    pub(crate) revoked: CancellationToken,
}

impl Access {
    /// Returns the rights of a token.
    pub(crate) fn new(name: &str, scopes: Vec<Scope>, key: Option<Key>) -> Access {
        Access { name: name.into(), scopes: scopes.into(), key, revoked: CancellationToken::new() }
    }

    /// Returns the right to do everything.
    pub(crate) fn everything(name: &str) -> Access {
        Access::new(name, vec![Scope::Admin], None)
    }

    fn has(&self, found: impl Fn(&Scope) -> bool) -> bool {
        self.scopes.iter().any(|scope| *scope == Scope::Admin || found(scope))
    }

    /// Returns the key whose jobs alone the client sees and enqueues; `None` if it is bound to no key.
    pub(crate) fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// Returns true if the client sees jobs of this key.
    pub(crate) fn sees(&self, key: Option<&Key>) -> bool {
        self.key.is_none() || self.key.as_ref() == key
    }

    /// Returns true if the client may read.
    pub(crate) fn reads(&self) -> bool {
        self.has(|scope| matches!(scope, Scope::Read | Scope::Operate))
    }

    /// Returns true if the client may cancel and retry jobs and set limits.
    pub(crate) fn operates(&self) -> bool {
        self.has(|scope| matches!(scope, Scope::Operate))
    }

    /// Returns true if the client may do everything.
    pub(crate) fn is_admin(&self) -> bool {
        self.has(|_| false)
    }

    /// Returns true if the client may enqueue jobs of some task.
    pub(crate) fn enqueues_some(&self) -> bool {
        self.has(|scope| matches!(scope, Scope::Enqueue(_)))
    }

    /// Returns true if the client may enqueue jobs of this task.
    pub(crate) fn enqueues(&self, task: &TaskName) -> bool {
        self.has(|scope| matches!(scope, Scope::Enqueue(tasks) if tasks.matches(task)))
    }

    /// Returns true if the client may broadcast to some topic.
    pub(crate) fn broadcasts_some(&self) -> bool {
        self.has(|scope| matches!(scope, Scope::Broadcast(_)))
    }

    /// Returns true if the client may broadcast to this topic.
    pub(crate) fn broadcasts(&self, topic: &Topic) -> bool {
        self.has(|scope| match scope {
            Scope::Broadcast(pattern) => {
                let mut patterns = Subscriptions::default();
                patterns.add(pattern, ());
                !patterns.of(topic).is_empty()
            }
            _ => false,
        })
    }

    /// Waits until what the client opened must end: the host is stopping, or its token is no longer valid.
    pub(crate) fn end(&self, stopping: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        let revoked = self.revoked.clone();
        async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = revoked.cancelled() => {}
            }
        }
    }

    /// Returns true if both grant the same rights under the same name.
    fn equals(&self, other: &Access) -> bool {
        (&self.name, &self.scopes, &self.key) == (&other.name, &other.scopes, &other.key)
    }
}

/// The tokens that the settings have.
#[derive(Debug, Default)]
pub(crate) struct TokenTable(Vec<(TokenHash, Access)>);

impl TokenTable {
    /// Returns a table of these tokens.
    pub(crate) fn new(tokens: Vec<(TokenHash, Access)>) -> TokenTable {
        TokenTable(tokens)
    }

    /// Returns true if requests need no token.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the rights of a token. Takes as long for every token that is given.
    fn find(&self, given: &str) -> Option<Access> {
        let given = TokenHash::of(given);
        let mut found = None;
        for (hash, access) in &self.0 {
            if bool::from(hash.0.ct_eq(&given.0)) {
                found = Some(access);
            }
        }
        found.cloned()
    }
}

/// The tokens that are valid at this moment. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens(Arc<ArcSwap<TokenTable>>);

impl Tokens {
    /// Starts with these tokens.
    pub(crate) fn new(table: TokenTable) -> Tokens {
        Tokens(Arc::new(ArcSwap::from_pointee(table)))
    }

    /// Returns true if requests need no token.
    pub(crate) fn are_none(&self) -> bool {
        self.0.load().is_empty()
    }

    /// Returns the rights of a token, if it is valid.
    pub(crate) fn find(&self, given: &str) -> Option<Access> {
        self.0.load().find(given)
    }

    /// Replaces all tokens at once. Streams and waits of a token go on if it keeps its name and rights; those of all others
    /// end.
    pub(crate) fn replace(&self, table: TokenTable) {
        let old = self.0.load_full();
        let kept = |hash: &TokenHash, access: &Access| {
            old.0.iter().find(|(known, had)| known == hash && had.equals(access)).map(|(_, had)| had.clone())
        };
        let tokens = table.0.into_iter().map(|(hash, access)| {
            let access = kept(&hash, &access).unwrap_or(access);
            (hash, access)
        });
        let new = TokenTable(tokens.collect());
        let is_kept =
            |hash: &TokenHash, access: &Access| new.0.iter().any(|(known, has)| known == hash && has.equals(access));
        let revoked: Vec<Access> =
            old.0.iter().filter(|(hash, access)| !is_kept(hash, access)).map(|(_, access)| access.clone()).collect();
        self.0.store(Arc::new(new));
        // Only now: whoever looks again because of it finds the new table.
        revoked.iter().for_each(|access| access.revoked.cancel());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(name: &str, scopes: &[&str]) -> Access {
        Access::new(name, scopes.iter().map(|scope| scope.parse().unwrap()).collect(), None)
    }

    #[test]
    fn a_scope_grants_what_it_names_and_no_more() {
        let ci = access("ci", &["enqueue:report/*", "enqueue:words/count", "broadcast:document.>"]);
        let task = |text: &str| text.parse::<TaskName>().unwrap();
        assert!(ci.enqueues(&task("report/build")) && ci.enqueues(&task("words/count")) && ci.enqueues_some());
        assert!(!ci.enqueues(&task("words/other")) && !ci.enqueues(&task("reports/build")));
        let topic = |text: &str| text.parse::<Topic>().unwrap();
        assert!(ci.broadcasts(&topic("document.saved")) && ci.broadcasts(&topic("document.saved.now")));
        assert!(!ci.broadcasts(&topic("document")) && !ci.broadcasts(&topic("documents.saved")));
        assert!(!ci.reads() && !ci.operates() && !ci.is_admin());
        let operator = access("operator", &["operate"]);
        assert!(operator.reads() && operator.operates() && !operator.is_admin() && !operator.enqueues_some());
        let admin = access("admin", &["admin"]);
        assert!(admin.is_admin() && admin.operates() && admin.reads() && admin.enqueues(&task("a/b")));
        assert!(admin.broadcasts(&topic("a.b")) && admin.broadcasts_some());
        let reader = access("reader", &["read"]);
        assert!(reader.reads() && !reader.operates() && !reader.broadcasts_some());
    }

    #[test]
    fn scopes_that_match_nothing_or_are_unknown_say_what_to_write() {
        let error = |text: &str| text.parse::<Scope>().unwrap_err();
        assert!(error("enqueue").contains("`enqueue:*`"));
        assert!(error("broadcast").contains("`broadcast:>`"));
        assert!(error("enqueue:report").contains("invalid scope `enqueue:report`"), "{}", error("enqueue:report"));
        assert!(error("broadcast:a..b").contains("invalid scope"));
        for unknown in ["", "reed", "read:jobs", "admin:*", "Read"] {
            assert!(error(unknown).contains("enqueue:PLUGIN/TASK"), "{unknown}");
        }
        for text in ["read", "enqueue:*", "enqueue:report/*", "enqueue:a/b", "broadcast:a.*.>", "operate", "admin"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_hash_is_written_as_it_is_read() {
        let hash = TokenHash::of("0123456789abcdef");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for wrong in ["", "sha256:", "sha256:zz", &hash.to_string()[1..], &format!("{hash}0"), "md5:00"] {
            assert!(wrong.parse::<TokenHash>().is_err(), "{wrong}");
        }
        let signs = format!("sha256:{}", "+1".repeat(32));
        assert!(signs.parse::<TokenHash>().is_err());
    }

    #[test]
    fn replaced_tokens_end_what_they_opened_and_kept_ones_do_not() {
        let table = |names: &[(&str, &str, &str)]| {
            let entry = |(token, name, scope): &(&str, &str, &str)| (TokenHash::of(token), access(name, &[scope]));
            TokenTable::new(names.iter().map(entry).collect())
        };
        let tokens = Tokens::new(table(&[("a", "kept", "read"), ("b", "gone", "read"), ("c", "less", "operate")]));
        let [kept, gone, less] = ["a", "b", "c"].map(|token| tokens.find(token).unwrap());
        tokens.replace(table(&[("a", "kept", "read"), ("c", "less", "read"), ("d", "new", "admin")]));
        assert!(!kept.revoked.is_cancelled() && gone.revoked.is_cancelled() && less.revoked.is_cancelled());
        assert!(tokens.find("b").is_none() && tokens.find("d").is_some_and(|access| access.is_admin()));
        assert!(!tokens.find("c").unwrap().operates());
        tokens.replace(table(&[]));
        assert!(kept.revoked.is_cancelled() && tokens.are_none());
    }
}
