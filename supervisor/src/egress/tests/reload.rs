//! Policy files: which one judges, and what happens when they change.

use super::*;

const ALLOW: &str = "version = 1\ndefault = \"allow\"\n";
const DENY: &str = "version = 1\n";

fn start(files: &[(&str, &str)]) -> (Arc<Egress>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        write(folder.path(), name, text);
    }
    let config = EgressConfig { policy_dir: Some(folder.path().to_owned()), ..EgressConfig::default() };
    (Egress::with_resolver(&config, Arc::new(Names::default())).unwrap(), folder)
}

/// Whether the policy lets this Worker ask (the name does not resolve, so nothing goes out).
async fn may(egress: &Egress, namespace: Option<&str>, name: &str) -> bool {
    let worker = WorkerId { namespace: namespace.map(Into::into), name: name.into() };
    match egress.fetch(&Caller { worker, ..caller() }, request("GET", "http://a.test/")).await {
        Err(EgressError::Denied { .. }) => false,
        Err(EgressError::Resolve { .. }) => true,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_most_specific_file_alone_decides() {
    let (egress, _folder) = start(&[
        ("default.toml", DENY),
        ("shops.toml", ALLOW),
        ("shops/closed.toml", DENY),
        ("account.toml", ALLOW),
        ("account/strict.toml", DENY),
        ("default/x.toml", ALLOW),
        ("readme.txt", "no policy"),
        (".hidden.toml", "no policy"),
        ("a/b/c.toml", "too deep"),
    ]);
    assert!(may(&egress, Some("shops"), "any").await);
    assert!(!may(&egress, Some("shops"), "closed").await);
    assert!(!may(&egress, Some("others"), "any").await);
    assert!(may(&egress, None, "dispatch").await);
    assert!(!may(&egress, None, "strict").await);
    // A namespace cannot take the account's files by its name, nor a Worker another's.
    assert!(!may(&egress, Some("account"), "any").await);
    assert!(!may(&egress, Some("default"), "x").await);
    assert!(!may(&egress, Some("shops/.."), "account").await);
    assert!(!may(&egress, Some(""), "shops").await);
}

#[tokio::test]
async fn without_policies_nothing_goes_out() {
    let egress = Egress::with_resolver(&EgressConfig::default(), Arc::new(Names::default())).unwrap();
    assert!(!may(&egress, None, "any").await);
    let (empty, _folder) = start(&[]);
    assert!(!may(&empty, Some("a"), "b").await);
    let nowhere =
        EgressConfig { policy_dir: Some("/nonexistent/policies".into()), ..EgressConfig::default() };
    let error = Egress::with_resolver(&nowhere, Arc::new(Names::default())).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/policies"), "{error}");
}

#[tokio::test]
async fn a_bad_file_is_refused_whole_and_the_old_one_stays() {
    let (egress, folder) = start(&[("default.toml", DENY), ("shops.toml", ALLOW)]);
    let mut changes = egress.policy_changes();
    assert!(may(&egress, Some("shops"), "any").await);

    write(folder.path(), "shops.toml", "version = 1\ndefault = \"deny\"\nmodus = 1\n");
    changes.changed().await.unwrap();
    assert!(may(&egress, Some("shops"), "any").await);
    let refused = egress.policies().into_iter().find(|file| file.file == Path::new("shops.toml")).unwrap();
    assert!(refused.refused.as_ref().unwrap().starts_with("shops.toml:3:1: modus:"), "{refused:?}");

    write(folder.path(), "shops.toml", DENY);
    changes.changed().await.unwrap();
    assert!(!may(&egress, Some("shops"), "any").await);
    assert!(egress.policies().iter().all(|file| file.refused.is_none()));

    // Replaced by renaming, as editors do.
    write(folder.path(), ".shops.toml.new", ALLOW);
    std::fs::rename(folder.path().join(".shops.toml.new"), folder.path().join("shops.toml")).unwrap();
    changes.changed().await.unwrap();
    assert!(may(&egress, Some("shops"), "any").await);

    std::fs::remove_file(folder.path().join("shops.toml")).unwrap();
    changes.changed().await.unwrap();
    assert!(!may(&egress, Some("shops"), "any").await);
}

#[tokio::test]
async fn a_file_that_was_bad_from_the_start_closes_its_scope() {
    let (egress, folder) =
        start(&[("default.toml", ALLOW), ("broken.toml", "version = 7"), ("latin.toml", ALLOW)]);
    let mut changes = egress.policy_changes();
    assert!(may(&egress, Some("others"), "any").await);
    assert!(!may(&egress, Some("broken"), "any").await);
    std::fs::write(folder.path().join("latin.toml"), b"version = 1 # \xe9").unwrap();
    changes.changed().await.unwrap();
    assert!(may(&egress, Some("latin"), "any").await);
    assert_eq!(egress.policies().iter().filter(|file| file.refused.is_some()).count(), 2);
}

#[tokio::test]
async fn new_folders_are_noticed() {
    let (egress, folder) = start(&[("default.toml", DENY)]);
    let mut changes = egress.policy_changes();
    write(folder.path(), "fresh/one.toml", ALLOW);
    changes.changed().await.unwrap();
    assert!(may(&egress, Some("fresh"), "one").await);
    assert!(!may(&egress, Some("fresh"), "two").await);
}
