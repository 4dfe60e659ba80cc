//! The payload: a picture's bytes as they are in its file, or one line of JSON and then those bytes.
//!
//! No picture begins with `{`, so the two need no mark to tell them apart; and a picture need not be dressed in base64.

use serde::Deserialize;

use crate::picture::Size;

/// What a thumbnail measures at most when the order does not say.
const SIZE: Size = Size {
    width: 256,
    height: 256,
};
/// Larger is no thumbnail, and what shrinking takes in between has to fit the memory that the manifest asks for.
const SIDE_MAX: u32 = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    width: Option<u32>,
    height: Option<u32>,
}

pub(crate) fn read(payload: &[u8]) -> Result<(Size, &[u8]), String> {
    if payload.is_empty() {
        return Err("the payload is empty; send the bytes of a JPEG, PNG or WebP picture".into());
    }
    if payload[0] != b'{' {
        return Ok((SIZE, payload));
    }
    let end = payload.iter().position(|&byte| byte == b'\n');
    let end = end.ok_or(r#"after {"width": …} a line feed must follow, and then the picture's bytes"#)?;
    let line: Line =
        serde_json::from_slice(&payload[..end]).map_err(|e| format!("the payload's first line: {e}"))?;
    // One side alone leaves the other free, up to the bound.
    let size = match (line.width, line.height) {
        (None, None) => SIZE,
        (width, height) => Size {
            width: width.unwrap_or(SIDE_MAX),
            height: height.unwrap_or(SIDE_MAX),
        },
    };
    if [size.width, size.height]
        .iter()
        .any(|side| !(1..=SIDE_MAX).contains(side))
    {
        return Err(format!(
            "the size {} × {} is out of bounds; each side must be from 1 to {SIDE_MAX}",
            size.width, size.height
        ));
    }
    Ok((size, &payload[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_alone_get_the_usual_size() {
        assert_eq!(read(b"\xff\xd8rest"), Ok((SIZE, &b"\xff\xd8rest"[..])));
    }

    #[test]
    fn a_line_before_the_bytes_says_the_size() {
        let sized = |width, height| Ok((Size { width, height }, &b"rest"[..]));
        assert_eq!(read(b"{\"width\": 320, \"height\": 200}\nrest"), sized(320, 200));
        assert_eq!(read(b"{\"height\": 200}\r\nrest"), sized(SIDE_MAX, 200));
        assert_eq!(read(b"{}\nrest"), Ok((SIZE, &b"rest"[..])));
    }

    #[test]
    fn an_order_that_makes_no_sense_is_told_why() {
        for (payload, reason) in [
            (&b""[..], "empty"),
            (b"{\"width\": 320}", "line feed"),
            (b"{\"wdth\": 320}\nrest", "unknown field `wdth`"),
            (b"{\"width\": 0}\nrest", "0 × 1024 is out of bounds"),
            (b"{\"width\": 5000}\nrest", "each side must be from 1 to 1024"),
        ] {
            let error = read(payload).expect_err("this order makes no sense");
            assert!(error.contains(reason), "{error}");
        }
    }
}
