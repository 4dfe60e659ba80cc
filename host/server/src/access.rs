//! Who may do what: tokens, their scopes, and the key that a token may be bound to.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;
use wharf_core::author::Author;
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

    /// Returns the bytes of the digest.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
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
    /// Read jobs, results, broadcasts, plugins, nodes, limits, holds and metrics.
    Read,
    /// Enqueue jobs of these tasks.
    Enqueue(TaskPattern),
    /// Broadcast to the topics that match.
    Broadcast(Pattern),
    /// Cancel and retry jobs, set limits, hold and release jobs; includes `read`.
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

/// The name of the rights that every client has where the host asks for no token, for texts. A token may have it, too.
const NOBODY: &str = "none";

/// The rights of one client: those of its token, or all where the host needs none. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Access(Arc<Rights>);

/// The rights of a token.
#[derive(Clone, Debug)]
pub(crate) struct Rights {
    /// Name of the token, for texts.
    pub(crate) name: Arc<str>,
    /// True for the rights of a token.
    is_token: bool,
    scopes: Arc<[Scope]>,
    key: Option<Key>,
    /// Cancelled when the settings no longer have the token with these rights.
    pub(crate) revoked: CancellationToken,
}

impl Deref for Access {
    type Target = Rights;

    fn deref(&self) -> &Rights {
        &self.0
    }
}

impl Access {
    /// Returns the rights of a token.
    pub(crate) fn new(name: &str, scopes: Vec<Scope>, key: Option<Key>) -> Access {
        let revoked = CancellationToken::new();
        Access(Arc::new(Rights { name: name.into(), is_token: true, scopes: scopes.into(), key, revoked }))
    }

    /// Returns the right to do everything.
    pub(crate) fn everything(name: &str) -> Access {
        Access::new(name, vec![Scope::Admin], None)
    }

    /// Returns the rights of every client where the host asks for no token.
    fn anyone() -> Access {
        let rights = Access::everything(NOBODY);
        Access(Arc::new(Rights { is_token: false, ..Rights::clone(&rights) }))
    }

    /// Returns the same rights, to be revoked apart from these.
    fn apart(&self) -> Access {
        Access(Arc::new(Rights { revoked: CancellationToken::new(), ..Rights::clone(self) }))
    }

    /// Returns true if both grant the same rights under the same name.
    fn equals(&self, other: &Access) -> bool {
        (&self.name, &self.scopes, &self.key) == (&other.name, &other.scopes, &other.key)
    }
}

impl Rights {
    fn has(&self, found: impl Fn(&Scope) -> bool) -> bool {
        self.scopes.iter().any(|scope| *scope == Scope::Admin || found(scope))
    }

    /// Returns the author of what the client changes.
    pub(crate) fn author(&self) -> Author {
        if self.is_token { Author::token(&self.name) } else { Author::anyone() }
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

    /// Returns true if the client may cancel and retry jobs, set limits, and hold and release jobs.
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

    /// Returns true if the client may enqueue jobs of every task.
    pub(crate) fn enqueues_all(&self) -> bool {
        self.has(|scope| matches!(scope, Scope::Enqueue(TaskPattern::All)))
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
}

/// Names of the tokens that differ between two tables.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TokenChanges {
    pub(crate) added: Vec<String>,
    pub(crate) removed: Vec<String>,
    /// Tokens with other hashes, scopes or another key.
    pub(crate) changed: Vec<String>,
}

/// The tokens that the settings have.
#[derive(Debug)]
pub(crate) struct TokenTable {
    tokens: Vec<(TokenHash, Access)>,
    /// The rights of every client if there are no tokens.
    anyone: Access,
}

impl TokenTable {
    /// Returns a table of these tokens.
    pub(crate) fn new(tokens: Vec<(TokenHash, Access)>) -> TokenTable {
        // Each hash ends what it opened alone: the second one of a token stays valid when the first is removed.
        let tokens = tokens.into_iter().map(|(hash, access)| (hash, access.apart())).collect();
        TokenTable { tokens, anyone: Access::anyone() }
    }

    /// Returns true if requests need no token.
    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Returns the names that differ between this table and its replacement.
    fn changes_to(&self, new: &TokenTable) -> TokenChanges {
        let (old, new) = (self.by_name(), new.by_name());
        let same = |one: &[&(TokenHash, Access)], other: &[&(TokenHash, Access)]| {
            let pairs = one.iter().zip(other);
            one.len() == other.len() && pairs.into_iter().all(|(one, other)| one.0 == other.0 && one.1.equals(&other.1))
        };
        let mut changes = TokenChanges::default();
        for (name, tokens) in &new {
            match old.get(name) {
                None => changes.added.push((*name).to_owned()),
                Some(before) if !same(before, tokens) => changes.changed.push((*name).to_owned()),
                Some(_) => {}
            }
        }
        changes.removed = old.keys().filter(|name| !new.contains_key(*name)).map(|name| (*name).to_owned()).collect();
        changes
    }

    fn by_name(&self) -> BTreeMap<&str, Vec<&(TokenHash, Access)>> {
        let mut names: BTreeMap<&str, Vec<&(TokenHash, Access)>> = BTreeMap::new();
        self.tokens.iter().for_each(|token| names.entry(&*token.1.name).or_default().push(token));
        names
    }

    /// Returns the rights of a token. Takes as long for every token that is given.
    fn find(&self, given: &str) -> Option<Access> {
        let given = TokenHash::of(given);
        let mut found = None;
        for (hash, access) in &self.tokens {
            if bool::from(hash.0.ct_eq(&given.0)) {
                found = Some(access);
            }
        }
        found.cloned()
    }
}

impl Default for TokenTable {
    fn default() -> TokenTable {
        TokenTable::new(Vec::new())
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

    /// Returns the rights of every client if requests need no token.
    pub(crate) fn anyone(&self) -> Option<Access> {
        let table = self.0.load();
        table.is_empty().then(|| table.anyone.clone())
    }

    /// Returns the rights of a token, if it is valid.
    pub(crate) fn find(&self, given: &str) -> Option<Access> {
        self.0.load().find(given)
    }

    /// Returns the rights of the token whose hash is the one that is looked for. Looks at every token.
    pub(crate) fn find_hash(&self, is_it: impl Fn(&TokenHash) -> bool) -> Option<Access> {
        let table = self.0.load();
        let found =
            table.tokens.iter().fold(None, |found, (hash, access)| if is_it(hash) { Some(access) } else { found });
        found.cloned()
    }

    /// Replaces all tokens at once and returns what changed. Streams and waits of a token go on if it keeps its name and
    /// rights; those of all others end.
    pub(crate) fn replace(&self, table: TokenTable) -> TokenChanges {
        let old = self.0.load_full();
        let changes = old.changes_to(&table);
        let kept = |hash: &TokenHash, access: &Access| {
            old.tokens.iter().find(|(known, had)| known == hash && had.equals(access)).map(|(_, had)| had.clone())
        };
        let tokens = table.tokens.into_iter().map(|(hash, access)| {
            let access = kept(&hash, &access).unwrap_or(access);
            (hash, access)
        });
        let anyone = if old.is_empty() { old.anyone.clone() } else { table.anyone };
        let new = TokenTable { tokens: tokens.collect(), anyone };
        let is_kept = |hash: &TokenHash, access: &Access| {
            new.tokens.iter().any(|(known, has)| known == hash && has.equals(access))
        };
        let mut revoked: Vec<Access> = Vec::new();
        let gone = old.tokens.iter().filter(|(hash, access)| !is_kept(hash, access));
        revoked.extend(gone.map(|(_, access)| access.clone()));
        if old.is_empty() && !new.is_empty() {
            // From here on, everyone needs a token.
            revoked.push(old.anyone.clone());
        }
        self.0.store(Arc::new(new));
        // Only now: whoever looks again because of it finds the new table.
        revoked.iter().for_each(|access| access.revoked.cancel());
        changes
    }
}

#[cfg(test)]
mod tests;
