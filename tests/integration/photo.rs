//! The main job on real input: a photograph becomes a thumbnail inside the sandbox.

use std::fs::File;
use std::process::Stdio;

use crate::harness::{Host, Setup, photo};

/// Width and height of a PNG, from its header.
fn png_size(bytes: &[u8]) -> (u32, u32) {
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n", "a PNG");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    (number(16), number(20))
}

fn thumbnail(host: &Host, input: &str) -> Vec<u8> {
    let thumb = host.dir().join("thumb.png");
    let output = host
        .cli(&["job", "enqueue", "thumbnail/make", "--input", input, "--wait"])
        .stdout(File::create(&thumb).expect("a file"))
        .stderr(Stdio::piped())
        .output()
        .expect("the CLI runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(&thumb).expect("the thumbnail")
}

#[test]
fn a_photograph_becomes_a_thumbnail() {
    let host = Setup::default().plugin("thumbnail").start();
    for name in ["chelsea.png", "hubble_deep_field.jpg"] {
        let (width, height) = png_size(&thumbnail(&host, &format!("@{}", photo(name).display())));
        assert!(width.max(height) == 256 && width.min(height) > 100, "{name}: {width} x {height}");
    }
}

#[test]
fn the_payload_carries_the_wanted_size() {
    let host = Setup::default().plugin("thumbnail").start();
    let mut payload = b"{\"width\": 90}\n".to_vec();
    payload.extend(std::fs::read(photo("chelsea.png")).expect("the photo"));
    let file = host.dir().join("order");
    std::fs::write(&file, payload).expect("written");
    let (width, _) = png_size(&thumbnail(&host, &format!("@{}", file.display())));
    assert_eq!(width, 90);
}

#[test]
fn a_broken_picture_is_discarded_with_a_reason() {
    let host = Setup::default().plugin("thumbnail").start();
    let reply = host.client().post_bytes(
        "/v1/jobs?task=thumbnail/make&wait=30s",
        "application/octet-stream",
        b"\x89PNG\r\n\x1a\n and then nothing",
    );
    let problem = reply.json();
    assert_eq!((reply.status, problem["code"].as_str()), (422, Some("job-failed")), "{problem}");
    let job = host.job(problem["job"].as_str().expect("which job it was"));
    assert_eq!(job["attempt"], 1, "a broken picture does not get better: {job}");
    let truncated = &std::fs::read(photo("chelsea.png")).expect("the photo")[..40_000];
    let reply = host.client().post_bytes("/v1/jobs?task=thumbnail/make&wait=30s", "image/png", truncated);
    assert_eq!(reply.status, 422, "{reply:?}");
}
