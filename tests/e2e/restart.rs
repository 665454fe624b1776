//! What is deployed outlives the supervisor, however it ends.

use http::Method;

use crate::{platform, server};

#[tokio::test]
async fn state_survives_a_restart() {
    let mut platform = platform().await;
    server("a").deploy(&platform).await;
    platform.http().get("http://a.test/").await.expect(200);
    assert!(platform.stop().success());
    platform.run().await;
    platform.http().get("http://a.test/").await.expect(200);
}

#[tokio::test]
async fn state_survives_a_kill() {
    let mut platform = platform().await;
    for name in ["a", "b", "c"] {
        server(name).deploy(&platform).await;
    }
    platform.delete(Some("production"), "b").await.expect(200);
    platform.kill();
    platform.run().await;
    platform.http().get("http://a.test/").await.expect(200);
    platform.http().get("http://b.test/").await.expect_failure(404, 1042);
    platform.http().get("http://c.test/").await.expect(200);
    let list =
        platform.api(Method::GET, "/dispatch/namespaces/production/scripts", None).await.expect(200).json();
    assert_eq!(list["result"].as_array().unwrap().len(), 2, "{list}");
}

#[tokio::test]
async fn an_upload_cut_by_a_kill_leaves_the_old_version() {
    let mut platform = platform().await;
    server("a").args(&["old"]).deploy(&platform).await;
    {
        // A start that takes longer than the supervisor has left to live.
        let upload = server("a").args(&["late", "60000"]);
        let upload = upload.send(&platform);
        tokio::pin!(upload);
        let waited = tokio::time::timeout(std::time::Duration::from_millis(500), &mut upload).await;
        assert!(waited.is_err(), "the upload was over early");
    }
    platform.kill();
    platform.run().await;
    assert_eq!(platform.http().get("http://a.test/args").await.expect(200).text(), "a\nold\n");
}
