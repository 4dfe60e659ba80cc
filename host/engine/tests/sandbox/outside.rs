//! Tests access to the outside world: nothing is reachable unless it was granted.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wharf_core::bounds;
use wharf_core::outcome::Outcome;
use wharf_engine::{AttemptEnd, Plugin};

use crate::scene::{RecordingHost, Scene, assert_returned, call};

fn assert_denied(ended: &AttemptEnd) -> &str {
    match &ended.outcome {
        Outcome::Failed(_) => ended.outcome.report(),
        other => panic!("expected a refusal: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_there_by_default() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let run = async |order: &str| scene.run(&villain, call(&villain, "do", order)).await.0;
    assert_eq!(assert_returned(&run(r#"{"do":"env"}"#).await), "{}");
    assert_eq!(assert_returned(&run(r#"{"do":"args"}"#).await), "[]");
    assert_eq!(assert_returned(&run(r#"{"do":"stdin"}"#).await), "0");
    assert_denied(&run(r#"{"do":"read-file","path":"/etc/passwd"}"#).await);
    assert_denied(&run(r#"{"do":"write-file","path":"x"}"#).await);
    assert_denied(&run(r#"{"do":"list-dir","path":"."}"#).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn random_numbers_differ_from_one_attempt_to_the_next() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let random = async || scene.run(&villain, call(&villain, "do", r#"{"do":"random","bytes":16}"#)).await.0.outcome;
    let (one, other) = (random().await, random().await);
    assert!(matches!(&one, Outcome::Returned(bytes) if bytes.len() == 16), "{one:?}");
    assert_ne!(one, other);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_granted_is_there_and_read_only_unless_said() {
    let scene = Scene::new(4);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("in")).unwrap();
    std::fs::create_dir_all(folder.path().join("out")).unwrap();
    std::fs::write(folder.path().join("in/a.txt"), "hello").unwrap();
    std::fs::write(folder.path().join("secret"), "hidden").unwrap();
    std::os::unix::fs::symlink("../secret", folder.path().join("in/link")).unwrap();
    let at = folder.path().display();
    let granted = format!(
        "env = {{ COLOUR = \"blue\" }}\ndirs = [{{ host = \"{at}/in\", guest = \"/in\" }}, {{ host = \"{at}/out\", guest = \"/out\", writable = true }}]"
    );
    let villain = scene.load_with("villain", &granted).await;
    let run = async |order: &str| scene.run(&villain, call(&villain, "do", order)).await.0;
    assert_eq!(assert_returned(&run(r#"{"do":"env"}"#).await), r#"{"COLOUR":"blue"}"#);
    assert_eq!(assert_returned(&run(r#"{"do":"read-file","path":"/in/a.txt"}"#).await), "hello");
    assert_eq!(assert_returned(&run(r#"{"do":"list-dir","path":"/in"}"#).await), r#"["a.txt","link"]"#);
    assert_denied(&run(r#"{"do":"write-file","path":"/in/b.txt","text":"x"}"#).await);
    assert_returned(&run(r#"{"do":"write-file","path":"/out/b.txt","text":"x"}"#).await);
    assert_eq!(std::fs::read_to_string(folder.path().join("out/b.txt")).unwrap(), "x");
    for path in ["/in/../secret", "/in/link", "/out/../../etc/passwd", "/secret"] {
        assert_denied(&run(&format!(r#"{{"do":"read-file","path":"{path}"}}"#)).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifo_is_refused_and_holds_up_nobody() {
    let scene = Scene::new(64);
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    rustix::fs::mkfifoat(rustix::fs::CWD, at.join("fifo"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("fifo", at.join("link")).unwrap();
    std::fs::hard_link(at.join("fifo"), at.join("hard")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at.join("socket")).unwrap();
    std::fs::write(at.join("a.txt"), "hello").unwrap();
    let granted = format!("dirs = [{{ host = \"{}\", guest = \"/d\", writable = true }}]", at.display());
    let (villain, other) = (scene.load_with("villain", &granted).await, scene.load_with("villain", &granted).await);
    // More than a runtime has threads for files.
    let orders: Vec<String> = (0..40)
        .map(|n| match n % 5 {
            0 => r#"{"do":"read-file","path":"/d/fifo"}"#.to_owned(),
            1 => r#"{"do":"read-file","path":"/d/link"}"#.to_owned(),
            2 => r#"{"do":"write-file","path":"/d/hard","text":"x"}"#.to_owned(),
            3 => r#"{"do":"list-dir","path":"/d/fifo"}"#.to_owned(),
            _ => r#"{"do":"read-file","path":"/d/socket"}"#.to_owned(),
        })
        .collect();
    let runs = orders.iter().map(|order| scene.run(&villain, call(&villain, "do", order)));
    for (ended, order) in futures_util::future::join_all(runs).await.iter().zip(&orders) {
        let report = assert_denied(&ended.0);
        assert!(!report.contains("timed out"), "{order}: {report}");
    }
    let run = async |order: &str| scene.run(&other, call(&other, "do", order)).await.0;
    assert_eq!(assert_returned(&run(r#"{"do":"read-file","path":"/d/a.txt"}"#).await), "hello");
    assert_returned(&run(r#"{"do":"write-file","path":"/d/a.txt","text":"new"}"#).await);
    assert_eq!(std::fs::read_to_string(at.join("a.txt")).unwrap(), "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_folder_that_is_gone_is_the_host_s_fault() {
    let scene = Scene::new(4);
    let villain = scene.load_with("villain", r#"dirs = [{ host = "/nowhere/at/all", guest = "/in" }]"#).await;
    let ended = scene.run(&villain, call(&villain, "do", r#"{"do":"echo"}"#)).await.0;
    assert!(matches!(ended.outcome, Outcome::Interrupted(..)), "{:?}", ended.outcome);
    assert!(ended.outcome.report().contains("could not open the folder /nowhere/at/all that is granted to `villain`"));
}

/// A server that answers each request with the request itself, or with a body that is too large.
async fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&request[..read]).into_owned();
                if text.starts_with("GET /silent") {
                    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
                }
                let body = if text.starts_with("GET /big") {
                    "x".repeat(20 << 20)
                } else {
                    text.lines().take(2).collect::<Vec<_>>().join("|")
                };
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(body.as_bytes()).await;
            });
        }
    });
    port
}

async fn get(scene: &Scene, plugin: &Arc<Plugin>, url: &str) -> (AttemptEnd, Arc<RecordingHost>) {
    scene.run(plugin, call(plugin, "do", format!(r#"{{"do":"http-get","url":"{url}"}}"#))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn http_goes_where_it_is_granted_and_nowhere_else() {
    let scene = Scene::new(4);
    let port = server().await;
    let granted = format!(r#"http = ["http://127.0.0.1:{port}", "http://localhost:{port}", "http://example.invalid"]"#);
    let plugin = scene.load_with("villain-http", &granted).await;

    let (ended, _) = get(&scene, &plugin, &format!("http://127.0.0.1:{port}/path?q=1")).await;
    let shown = assert_returned(&ended);
    assert!(shown.contains("GET /path?q=1 HTTP/1.1") && shown.contains(&format!("host: 127.0.0.1:{port}")), "{shown}");
    assert!(ended.usage.in_bytes > 40, "{:?}", ended.usage);

    let (ended, recorded) = get(&scene, &plugin, &format!("http://127.0.0.1:{}/", port + 1)).await;
    assert!(assert_denied(&ended).contains("HttpRequestDenied"), "{}", ended.outcome.report());
    let line = format!(
        "request to http://127.0.0.1:{} refused: not granted; to grant it, set http = [\"http://127.0.0.1:{}\"] under [plugins.villain-http]",
        port + 1,
        port + 1
    );
    assert!(recorded.stderr().contains(&line), "{}", recorded.stderr());

    assert!(
        assert_denied(&get(&scene, &plugin, &format!("https://127.0.0.1:{port}/")).await.0)
            .contains("HttpRequestDenied")
    );
    // `127.0.0.1` is granted as an address: a name that leads there needs `addresses`.
    assert!(
        assert_denied(&get(&scene, &plugin, &format!("http://localhost:{port}/")).await.0)
            .contains("DestinationIpProhibited")
    );
    assert_denied(&get(&scene, &plugin, "http://example.invalid/").await.0);
    assert_denied(&get(&scene, &plugin, &format!("http://user@127.0.0.1:{port}/")).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_name_does_not_open_the_inside() {
    let scene = Scene::new(4);
    let port = server().await;
    let named = scene.load_with("villain-http", &format!(r#"http = ["http://localhost:{port}"]"#)).await;
    let (ended, recorded) = get(&scene, &named, &format!("http://localhost:{port}/")).await;
    assert!(assert_denied(&ended).contains("DestinationIpProhibited"), "{}", ended.outcome.report());
    assert!(
        recorded.stderr().contains("which is not on the public internet; to grant it, set addresses = ["),
        "{}",
        recorded.stderr()
    );
    let both = scene
        .load_with("villain-http", &format!("http = [\"http://localhost:{port}\"]\naddresses = [\"127.0.0.0/8\"]"))
        .await;
    assert_returned(&get(&scene, &both, &format!("http://localhost:{port}/")).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_are_bounded_in_size_and_in_patience() {
    let scene = Scene::new(4);
    let port = server().await;
    let plugin = scene.load_with("villain-http", &format!(r#"http = ["http://127.0.0.1:{port}"]"#)).await;
    let (ended, _) = get(&scene, &plugin, &format!("http://127.0.0.1:{port}/big")).await;
    assert!(assert_denied(&ended).to_lowercase().contains("body"), "{}", ended.outcome.report());
    let silent = call(&plugin, "hurried", format!(r#"{{"do":"http-get","url":"http://127.0.0.1:{port}/silent"}}"#));
    let (ended, _) = scene.run(&plugin, silent).await;
    assert!(!matches!(ended.outcome, Outcome::Returned(_)), "{:?}", ended.outcome);
    assert!(ended.usage.wall < std::time::Duration::from_secs(5), "{:?}", ended.usage);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_bounded_in_number() {
    let scene = Scene::new(4);
    let port = server().await;
    let plugin = scene.load_with("villain-http", &format!(r#"http = ["http://127.0.0.1:{port}"]"#)).await;
    let words = scene.load("words").await;
    let times = async |times: u32| {
        let order = format!(r#"{{"do":"http-get","url":"http://127.0.0.1:{port}/","times":{times}}}"#);
        scene.run_beside(&words, &plugin, call(&plugin, "do", order)).await
    };
    assert_returned(&times(bounds::HTTP_REQUESTS_MAX).await.0);
    let (ended, recorded) = times(bounds::HTTP_REQUESTS_MAX + 1).await;
    let shown = assert_denied(&ended);
    assert!(shown.contains(", 101: ") && shown.contains("ConnectionLimitReached"), "{shown}");
    let line = "wharf: request refused, as all later ones: the limit is 100 for an attempt";
    assert!(recorded.stderr().contains(line), "{}", recorded.stderr());
}
