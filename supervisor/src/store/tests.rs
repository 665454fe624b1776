use std::io::Write as _;

use super::blobs::Kind;
use super::*;
use crate::limits::{Limits, Resources};
use crate::registry::{Contract, HttpSocket, Linkage};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn id(namespace: Option<&str>, worker: &str) -> WorkerId {
    WorkerId { namespace: namespace.map(Into::into), name: worker.into() }
}

fn digest(byte: &str) -> Digest {
    Digest::parse(&byte.repeat(32)).unwrap()
}

fn version(id: &WorkerId) -> NewVersion {
    NewVersion {
        id: id.clone(),
        replaces: None,
        version: uuid::Uuid::now_v7().to_string().into(),
        digest: digest("ab"),
        size: 3,
        startup_ms: 7,
        manifest: Manifest {
            main_module: "worker".to_owned(),
            contract: Contract::Http,
            socket: HttpSocket::Listen,
            args: vec!["-x".to_owned()],
            linkage: Linkage::Dynamic { interpreter: "/lib64/ld-linux-x86-64.so.2".into() },
            bindings: [("S".to_owned(), StoredBinding::SecretText { sealed: "x".to_owned() })].into(),
            limits: Limits { cpu_ms: Some(50), ..Limits::default() },
            resources: Resources::default(),
            allow: BTreeSet::new(),
            instances: 1,
            concurrency: 8,
            files: None,
        },
        attestation: serde_json::json!({"landlock": 7}),
        tags: None,
    }
}

fn store() -> (tempfile::TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("db")).unwrap();
    (folder, store)
}

const ALL: Page = Page { offset: 0, limit: 1000 };

#[test]
fn what_was_put_is_there_after_opening_again() {
    let (folder, store) = store();
    store.create_namespace(&name("production")).unwrap();
    let put = store.put_version(&version(&id(Some("production"), "a"))).unwrap();
    drop(store);
    let store = SqliteStore::open(&folder.path().join("db")).unwrap();
    assert_eq!(store.worker(&put.id).unwrap(), put);
    assert_eq!(store.namespace(&name("production")).unwrap().workers, 1);
}

#[test]
fn a_worker_of_the_account_is_another_than_one_of_a_namespace() {
    let (_folder, store) = store();
    store.create_namespace(&name("n")).unwrap();
    store.put_version(&version(&id(None, "a"))).unwrap();
    assert!(matches!(store.worker(&id(Some("n"), "a")), Err(StoreError::NoWorker(_))));
    assert!(matches!(store.worker(&id(Some("m"), "a")), Err(StoreError::NoNamespace(_))));
    store.put_version(&version(&id(Some("n"), "a"))).unwrap();
    store.delete_worker(&id(None, "a")).unwrap();
    assert!(store.worker(&id(Some("n"), "a")).is_ok());
}

#[test]
fn a_namespace_takes_its_workers_with_it() {
    let (_folder, store) = store();
    store.create_namespace(&name("n")).unwrap();
    assert!(matches!(store.create_namespace(&name("n")), Err(StoreError::NamespaceExists(_))));
    store.put_version(&version(&id(Some("n"), "a"))).unwrap();
    store.delete_namespace(&name("n")).unwrap();
    assert!(!store.uses(&digest("ab")).unwrap());
    assert!(matches!(store.delete_namespace(&name("n")), Err(StoreError::NoNamespace(_))));
    let put = store.put_version(&version(&id(Some("n"), "a")));
    assert!(matches!(put, Err(StoreError::NoNamespace(_))));
}

#[test]
fn a_change_based_on_an_old_version_is_a_conflict() {
    let (_folder, store) = store();
    let worker = id(None, "a");
    let first = NewVersion { replaces: Some(None), ..version(&worker) };
    let put = store.put_version(&first).unwrap();
    assert!(matches!(store.put_version(&first), Err(StoreError::Conflict(_))));
    let next = NewVersion { replaces: Some(Some(put.version.id)), ..version(&worker) };
    assert_eq!(store.put_version(&next).unwrap().version.number, 2);
}

#[test]
fn old_versions_are_forgotten_and_numbers_never_come_back() {
    let (_folder, store) = store();
    for _ in 0..=KEPT_VERSIONS {
        store.put_version(&version(&id(None, "a"))).unwrap();
    }
    let versions = store.versions(&id(None, "a")).unwrap();
    assert_eq!(versions.len(), KEPT_VERSIONS as usize);
    assert_eq!(versions[0].number, u64::from(KEPT_VERSIONS) + 1);
}

#[test]
fn lists_are_filtered_by_tags_and_paged() {
    let (_folder, store) = store();
    for (worker, tags) in [("a", vec!["x"]), ("b", vec!["x", "y"]), ("c", vec![])] {
        let tags = Some(tags.into_iter().map(str::to_owned).collect());
        store.put_version(&NewVersion { tags, ..version(&id(None, worker)) }).unwrap();
    }
    let names = |filter: &Filter, page| {
        let (list, total) = store.workers(None, filter, page).unwrap();
        (list.into_iter().map(|worker| worker.id.name.to_string()).collect::<String>(), total)
    };
    let filter = |with: &[&str], without: &[&str]| Filter {
        with: with.iter().map(ToString::to_string).collect(),
        without: without.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(names(&filter(&[], &[]), ALL), ("abc".to_owned(), 3));
    assert_eq!(names(&filter(&[], &[]), Page { offset: 1, limit: 1 }), ("b".to_owned(), 3));
    assert_eq!(names(&filter(&["x"], &[]), ALL), ("ab".to_owned(), 2));
    assert_eq!(names(&filter(&["x", "y"], &[]), ALL), ("b".to_owned(), 1));
    assert_eq!(names(&filter(&["x"], &["y"]), ALL), ("a".to_owned(), 1));
    let tagged = store.set_tags(&id(None, "c"), &["z".to_owned()].into()).unwrap();
    assert!(tagged.tags.contains("z"));
}

#[test]
fn a_newer_schema_is_refused() {
    let (folder, store) = store();
    drop(store);
    let path = folder.path().join("db");
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(SqliteStore::open(&path), Err(StoreError::Newer { found: 99, .. })));
}

#[test]
fn a_second_supervisor_is_told_who_has_the_state() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let first = StateDir::open(&path, None).unwrap();
    let error = StateDir::open(&path, None).unwrap_err().to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    drop(first);
    StateDir::open(&path, None).unwrap();
}

#[test]
fn secrets_open_only_where_they_were_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let (worker, other) = (id(Some("n"), "a"), id(Some("n"), "b"));
    let sealed = Vault::open(&path).unwrap().seal(&worker, "S", "text").unwrap();
    let vault = Vault::open(&path).unwrap();
    assert_eq!(vault.unseal(&worker, "S", &sealed).unwrap(), "text");
    assert!(vault.unseal(&other, "S", &sealed).is_err());
    assert!(vault.unseal(&worker, "T", &sealed).is_err());
    assert!(vault.unseal(&worker, "S", "AAAA").is_err());
    let stranger = Vault::open(&folder.path().join("other")).unwrap();
    assert_ne!(vault.fingerprint(), stranger.fingerprint());
    assert!(stranger.unseal(&worker, "S", &sealed).is_err());
    std::fs::write(&path, "short").unwrap();
    assert!(matches!(Vault::open(&path), Err(VaultError::Length(_))));
}

#[test]
fn blobs_are_named_by_content_and_collected_when_unused() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path(), None).unwrap();
    let blobs = state.blobs().unwrap();
    let write = |text: &[u8]| {
        let mut staged = blobs.stage(100, b"MARK").unwrap();
        for byte in text {
            staged.append(&[*byte]).unwrap();
        }
        staged
    };
    assert!(write(b"xxMARKxx").marked() && !write(b"xxMARxKx").marked());
    let pinned = blobs.keep(write(b"abc"), Kind::Binary).unwrap();
    let digest = pinned.digest().clone();
    assert!(digest.as_str().starts_with("ba7816bf"));
    blobs.verify(Kind::Binary, &digest).unwrap();
    blobs.collect(&digest, || Ok(false)).unwrap();
    blobs.check(Kind::Binary, &digest, 3).unwrap();
    drop(pinned);
    blobs.collect(&digest, || Ok(true)).unwrap();
    blobs.check(Kind::Binary, &digest, 3).unwrap();
    blobs.collect(&digest, || Ok(false)).unwrap();
    assert!(blobs.check(Kind::Binary, &digest, 3).is_err());
    assert!(blobs.list().unwrap().is_empty());
    let mut large = blobs.stage(4, b"MARK").unwrap();
    assert!(matches!(large.append(b"12345"), Err(BlobError::TooLarge(4))));
    drop(large);
    assert_eq!(std::fs::read_dir(folder.path().join("staging")).unwrap().count(), 0);
}

fn archive(entries: &[(&str, tar::EntryType, &[u8])]) -> std::fs::File {
    let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
    for (path, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o4755);
        // Bypasses the writer's own checks, as a hostile archive would.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    let mut file = builder.into_inner().unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file
}

#[test]
fn a_bundle_is_rewritten_plain() {
    use tar::EntryType::{Directory, GNULongName, Link, Regular, Symlink, XHeader};
    let long = vec![0xff; 5000];
    let folder = tempfile::tempdir().unwrap();
    let blobs = StateDir::open(folder.path(), None).unwrap().blobs().unwrap();
    let repack = |file| super::repack(file, blobs.stage(1 << 20, b"").unwrap());

    let bundle = repack(archive(&[("./a/b/c", Regular, b"hello"), ("./a", Directory, b"")])).unwrap();
    assert_eq!(bundle.bytes, 4096);
    let mut written = tar::Archive::new(bundle.archive.reader().unwrap());
    let entries: Vec<_> = written
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap())
        })
        .collect();
    assert_eq!(entries, [("a".to_owned(), 0o555), ("a/b".to_owned(), 0o555), ("a/b/c".to_owned(), 0o555)]);

    for (entries, says) in [
        (vec![("../x", Regular, &b"x"[..])], ".."),
        (vec![("/x", Regular, &b"x"[..])], "absolute"),
        (vec![("x", Symlink, &b""[..])], "links"),
        (vec![("x", Link, &b""[..])], "links"),
        (vec![("x", Regular, &b""[..]), ("x", Regular, &b""[..])], "twice"),
        (vec![("x", GNULongName, &long[..]), ("x", Regular, &b"x"[..])], "at most 4096"),
        (vec![("x", XHeader, &long[..]), ("x", Regular, &b"x"[..])], "at most 4096"),
        (vec![], "no file"),
    ] {
        let error = repack(archive(&entries)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let mut gzip = tempfile::tempfile().unwrap();
    gzip.write_all(&[0x1f, 0x8b, 8, 0]).unwrap();
    std::io::Seek::rewind(&mut gzip).unwrap();
    assert!(repack(gzip).unwrap_err().to_string().contains("gzip"));
}
