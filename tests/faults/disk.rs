//! Disks that fill up, and files that rot.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cloister_tests::Platform;

use crate::{config, platform, server};

/// A small tmpfs, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, mib: u32) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={mib}m,mode=755");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(at).status().unwrap();
        assert!(mounted.success());
        Self(at.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _status = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_uploads_and_keeps_serving() {
    let mut platform = Platform::prepare(config());
    let _disk = Small::mount(&platform.state(), 24);
    platform.run().await;
    platform.namespace("production").await;
    server("a").deploy(&platform).await;
    let mut refused = None;
    for n in 0..40 {
        // Each is another content, so each needs room.
        let mut program = std::fs::read(cloister_tests::compile_c("http/server.c").path).unwrap();
        program.extend_from_slice(&vec![n; 2 << 20]);
        let upload = cloister_tests::Upload::bytes("b", program).namespace("production").http();
        let answer = upload.send(&platform).await;
        if !answer.status.is_success() {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("40 programs of 2 MiB fit into 24 MiB");
    assert!(refused.status.is_server_error(), "{}", refused.text());
    assert!(platform.log().to_lowercase().contains("no space"), "{}", platform.log());
    platform.http().get("http://a.test/").await.expect(200);
    platform.http().get("http://b.test/").await.expect(200);
    // Room again: uploads work again.
    platform.delete(Some("production"), "b").await.expect(200);
    platform.stop();
    platform.run().await;
    platform.http().get("http://a.test/").await.expect(200);
}

/// Replaces a file by one with other bytes, mode and owner kept.
fn change(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let before = std::fs::metadata(path).unwrap();
    let mut content = std::fs::read(path).unwrap();
    change(&mut content);
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, content).unwrap();
    std::os::unix::fs::chown(path, Some(before.uid()), Some(before.gid())).unwrap();
    std::fs::set_permissions(path, before.permissions()).unwrap();
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// The one stored program.
fn binary(platform: &Platform) -> PathBuf {
    let mut all = Vec::new();
    files(&platform.state(), &mut all);
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.len() == 64);
    all.into_iter().find(named).expect("a file named by its digest")
}

#[tokio::test]
async fn a_binary_that_was_cut_is_never_run() {
    let mut platform = platform().await;
    server("a").deploy(&platform).await;
    platform.stop();
    let binary = binary(&platform);
    change(&binary, |content| content.truncate(content.len() / 2));
    platform.run().await;
    let answer = platform.http().get("http://a.test/").await;
    assert!(answer.code().is_some(), "it ran: {} {}", answer.status, answer.text());
    let digest = binary.file_name().unwrap().to_str().unwrap();
    assert!(platform.log().contains(digest), "{}", platform.log());
    // Uploading it again heals it.
    server("a").deploy(&platform).await;
    platform.http().get("http://a.test/").await.expect(200);
}

#[tokio::test]
async fn bytes_that_rot_are_told_by_verify() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    let verify = async || {
        let url = "http://admin/client/v4/accounts/default/cloister/verify";
        platform.admin().get(url).await.expect(200).json()["result"].take()
    };
    assert_eq!(verify().await["damaged"].as_array().unwrap().len(), 0);
    let binary = binary(&platform);
    change(&binary, |content| {
        let middle = content.len() / 2;
        content[middle] ^= 1;
    });
    let damaged = verify().await;
    assert_eq!(damaged["damaged"][0]["digest"], binary.file_name().unwrap().to_str().unwrap(), "{damaged}");
    server("a").deploy(&platform).await;
    assert_eq!(verify().await["damaged"].as_array().unwrap().len(), 0, "the upload did not heal it");
}

#[tokio::test]
async fn a_damaged_database_is_named_and_left_alone() {
    let mut platform = platform().await;
    platform.stop();
    let mut all = Vec::new();
    files(&platform.state(), &mut all);
    let database =
        all.iter().find(|path| std::fs::read(path).unwrap().starts_with(b"SQLite format 3")).unwrap();
    let garbage = vec![b'#'; 65536];
    std::fs::write(database, &garbage).unwrap();
    platform.try_run().await.expect_err("it started on a damaged database");
    assert!(platform.log().contains(platform.state().to_str().unwrap()), "{}", platform.log());
    assert_eq!(std::fs::read(database).unwrap(), garbage, "it was changed");
}
