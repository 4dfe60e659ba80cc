//! Scopes, hashes, and tables of tokens that are replaced.

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
    let changes = tokens.replace(table(&[("a", "kept", "read"), ("c", "less", "read"), ("d", "new", "admin")]));
    let [added, removed, changed] = ["new", "gone", "less"].map(|name| vec![name.to_owned()]);
    assert_eq!(changes, TokenChanges { added, removed, changed });
    assert!(!kept.revoked.is_cancelled() && gone.revoked.is_cancelled() && less.revoked.is_cancelled());
    assert!(tokens.find("b").is_none() && tokens.find("d").is_some_and(|access| access.is_admin()));
    assert!(!tokens.find("c").unwrap().operates());
    tokens.replace(table(&[]));
    assert!(kept.revoked.is_cancelled() && tokens.anyone().is_some());
}

#[test]
fn one_hash_of_a_token_is_removed_without_the_other() {
    let token = access("ci", &["read"]);
    let both = ["old", "new"].map(|text| (TokenHash::of(text), token.clone()));
    let tokens = Tokens::new(TokenTable::new(both.to_vec()));
    let [old, new] = ["old", "new"].map(|text| tokens.find(text).unwrap());
    let changes = tokens.replace(TokenTable::new(vec![(TokenHash::of("new"), access("ci", &["read"]))]));
    assert_eq!(changes, TokenChanges { changed: vec!["ci".to_owned()], ..TokenChanges::default() });
    assert!(old.revoked.is_cancelled() && !new.revoked.is_cancelled());
    assert!(!tokens.find("new").unwrap().revoked.is_cancelled());
}

#[test]
fn who_needed_no_token_is_gone_once_there_is_one() {
    let tokens = Tokens::default();
    let anyone = tokens.anyone().unwrap();
    tokens.replace(TokenTable::default());
    assert!(!anyone.revoked.is_cancelled() && !tokens.anyone().unwrap().revoked.is_cancelled());
    tokens.replace(TokenTable::new(vec![(TokenHash::of("a"), access("a", &["read"]))]));
    assert!(anyone.revoked.is_cancelled() && tokens.anyone().is_none());
}
