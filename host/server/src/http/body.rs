//! Reads a request's body: bounded in size, and in how long it may say nothing.

use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, HeaderValue, header};
use bytesize::ByteSize;
use futures_util::StreamExt;
use wharf_core::bounds;

use super::problem::{Kind, Problem};

/// A sender that is silent for longer does not get to hold memory.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Nor does one that sends a byte now and then: besides a minute for all, each of these amounts has a second.
const TOTAL_MIN: Duration = Duration::from_secs(60);
const BYTES_PER_SECOND_MIN: usize = 64 * 1024;

/// How long a body may have taken of which so much has come.
fn patience(bytes: usize) -> Duration {
    TOTAL_MIN + Duration::from_secs((bytes / BYTES_PER_SECOND_MIN) as u64)
}

/// What comes after a body was found too large is read and thrown away, up to so much: most clients hear an answer
/// only when they have sent all, and a connection that is closed before says nothing but "broken pipe".
const LINGER_BYTES: u64 = 256 * bounds::MIB;
const LINGER: Duration = Duration::from_secs(10);

/// What a body says of itself: the media type without its parameters, in lower case; empty where it says nothing.
pub(crate) fn media_type(headers: &HeaderMap) -> Result<String, Problem> {
    let mut given = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(value) = given.next() else { return Ok(String::new()) };
    if given.next().is_some() {
        return Err(Problem::bad_request("`Content-Type` is given twice, and only one can hold; leave one out"));
    }
    let text = value.to_str().map_err(|_| Problem::bad_request("`Content-Type` is no text; write it in ASCII"))?;
    Ok(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Headers that would change what a body means, and are not heeded here.
fn heeded(headers: &HeaderMap) -> Result<(), Problem> {
    let plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    match headers.get_all(header::CONTENT_ENCODING).iter().find(|value| !plain(value)) {
        None => Ok(()),
        Some(value) => Err(Problem::bad_request(format!(
            "the body is encoded as {value:?}, which would be taken for what is in it; send it as it is, without `Content-Encoding`"
        ))),
    }
}

/// A client that sends this counts on being heard once, however often it asks.
pub(crate) fn no_idempotency_key(headers: &HeaderMap, instead: &str) -> Result<(), Problem> {
    if headers.contains_key("idempotency-key") {
        return Err(Problem::bad_request(format!("`Idempotency-Key` is not read here; {instead}")));
    }
    Ok(())
}

/// The whole of a body of at most `max` bytes.
pub(crate) async fn read(headers: &HeaderMap, body: Body, max: u64) -> Result<Vec<u8>, Problem> {
    heeded(headers)?;
    let too_large = || {
        let max = ByteSize(max).display().iec();
        Problem::new(Kind::TOO_LARGE, format!("the body is larger than the {max} that are possible here"))
    };
    let declared: Option<u64> =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut stream = body.into_data_stream();
    if declared.is_some_and(|length| length > max) {
        linger(stream).await;
        return Err(too_large());
    }
    // Room is taken as bytes come, not as they are announced.
    let mut bytes = Vec::with_capacity(usize::try_from(declared.unwrap_or(0).min(64 * 1024)).unwrap_or(0));
    let began = Instant::now();
    loop {
        let left = patience(bytes.len()).saturating_sub(began.elapsed());
        match tokio::time::timeout(SILENCE_MAX.min(left), stream.next()).await {
            Ok(None) => return Ok(bytes),
            Ok(Some(Ok(part))) if (bytes.len() + part.len()) as u64 > max => {
                drop(bytes);
                linger(stream).await;
                return Err(too_large());
            }
            Ok(Some(Ok(part))) => bytes.extend_from_slice(&part),
            Ok(Some(Err(error))) => return Err(Problem::bad_request(format!("the body broke off: {error}"))),
            Err(_) if left < SILENCE_MAX => {
                let detail = format!(
                    "{} bytes came in {} seconds; {} each second are expected after the first minute; nothing was enqueued",
                    bytes.len(),
                    began.elapsed().as_secs(),
                    ByteSize(BYTES_PER_SECOND_MIN as u64).display().iec()
                );
                return Err(Problem::new(Kind::TOO_SLOW, detail));
            }
            Err(_) => {
                let detail = format!("nothing came for {} seconds; nothing was enqueued", SILENCE_MAX.as_secs());
                return Err(Problem::new(Kind::TOO_SLOW, detail));
            }
        }
    }
}

async fn linger(mut stream: BodyDataStream) {
    let mut left = LINGER_BYTES;
    let through = async {
        while let Some(Ok(part)) = stream.next().await {
            left = left.saturating_sub(part.len() as u64);
            if left == 0 {
                return;
            }
        }
    };
    // Whether it came to its end or not, the answer is the same.
    let _ = tokio::time::timeout(LINGER, through).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(headers: &HeaderMap, body: &'static str, max: u64) -> String {
        format!("{:?}", read(headers, Body::from(body), max).await)
    }

    #[test]
    fn a_large_body_may_take_longer() {
        assert_eq!((patience(0), patience(6_400 * 1024)), (Duration::from_secs(60), Duration::from_secs(160)));
    }

    #[tokio::test]
    async fn a_body_is_bounded_by_what_comes_and_by_what_is_announced() {
        let none = HeaderMap::new();
        assert_eq!(read(&none, Body::from("12345"), 5).await.unwrap(), b"12345");
        assert!(told(&none, "123456", 5).await.contains("too-large"));
        let announced = HeaderMap::from_iter([(header::CONTENT_LENGTH, "6".parse().unwrap())]);
        assert!(told(&announced, "", 5).await.contains("too-large"));
    }

    #[tokio::test]
    async fn headers_that_change_what_a_body_means_are_heeded_or_refused() {
        let of = |pairs: &[(header::HeaderName, &str)]| -> HeaderMap {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(name, value.parse().unwrap());
            }
            headers
        };
        assert!(told(&of(&[(header::CONTENT_ENCODING, "gzip")]), "x", 5).await.contains("encoded as \\\"gzip\\\""));
        assert_eq!(read(&of(&[(header::CONTENT_ENCODING, "Identity")]), Body::from("x"), 5).await.unwrap(), b"x");
        let media = |pairs: &[&str]| {
            media_type(&of(&pairs.iter().map(|value| (header::CONTENT_TYPE, *value)).collect::<Vec<_>>()))
        };
        assert_eq!(media(&["Application/JSON; charset=utf-8"]).unwrap(), "application/json");
        assert_eq!(media(&[]).unwrap(), "");
        let key = of(&[(header::HeaderName::from_static("idempotency-key"), "1")]);
        assert!(no_idempotency_key(&key, "").is_err() && no_idempotency_key(&HeaderMap::new(), "").is_ok());
        assert!(media(&["a/b", "c/d"]).is_err() && media(&["a/\u{fffd}"]).is_err());
    }
}
