//! With real pictures, and with what cameras and broken uploads make of them.

use image::{ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};

use super::*;

const HUBBLE: &[u8] = include_bytes!("../../../../tests/data/hubble_deep_field.jpg");
const CHELSEA: &[u8] = include_bytes!("../../../../tests/data/chelsea.png");

fn thumbnail(bytes: &[u8], width: u32, height: u32) -> Result<DynamicImage, String> {
    let png = open(bytes)?.decode()?.shrink(Size { width, height }).png()?;
    Ok(image::load_from_memory_with_format(&png, ImageFormat::Png).expect("a thumbnail is a PNG"))
}

fn encoded(pixels: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    pixels
        .into()
        .write_to(&mut bytes, format)
        .expect("the picture fits the format");
    bytes.into_inner()
}

#[test]
fn proportions_are_kept() {
    for (bytes, width, height, expected) in [
        (HUBBLE, 256, 256, (256, 223)),
        (HUBBLE, 1024, 50, (57, 50)),
        (CHELSEA, 100, 1024, (100, 67)),
        (CHELSEA, 1, 1, (1, 1)),
    ] {
        let small = thumbnail(bytes, width, height).expect("a good picture");
        assert_eq!((small.width(), small.height()), expected);
    }
}

#[test]
fn a_small_picture_stays_as_it_is() {
    let pixels = RgbaImage::from_fn(9, 7, |x, y| Rgba([x as u8, y as u8, 3, 200]));
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let small = thumbnail(&encoded(pixels.clone(), format), 256, 256).expect("a good picture");
        assert_eq!(small, pixels.clone().into(), "{format:?}");
    }
}

#[test]
fn the_thumbnail_looks_like_the_picture() {
    let whole = image::load_from_memory(HUBBLE).expect("a good picture");
    let small = thumbnail(HUBBLE, 100, 100).expect("a good picture");
    let brightness = |picture: &DynamicImage| {
        let pixels = picture.to_luma8();
        pixels.iter().map(|&value| f64::from(value)).sum::<f64>() / pixels.len() as f64
    };
    assert!((brightness(&whole) - brightness(&small)).abs() < 2.0);
}

/// A picture that is red at the top left and blue elsewhere, stored as a camera would that was held in each of the eight ways.
#[test]
fn every_orientation_comes_out_upright() {
    for value in 1..=8 {
        let upright = RgbImage::from_fn(32, 16, |x, y| {
            if x < 16 && y < 8 {
                Rgb([255, 0, 0])
            } else {
                Rgb([0, 0, 255])
            }
        });
        let mut stored = DynamicImage::from(upright);
        stored.apply_orientation(undoing(value));
        let jpeg = with_exif_orientation(&encoded(stored, ImageFormat::Jpeg), value);
        let small = thumbnail(&jpeg, 32, 32).expect("a good picture").into_rgb8();
        assert_eq!(small.dimensions(), (32, 16), "orientation {value}");
        let red = |x, y| small.get_pixel(x, y)[0] > 128;
        assert_eq!(
            [red(4, 4), red(28, 4), red(4, 12), red(28, 12)],
            [true, false, false, false],
            "orientation {value}"
        );
    }
}

fn undoing(exif: u8) -> Orientation {
    match Orientation::from_exif(exif).expect("1 to 8") {
        Orientation::Rotate90 => Orientation::Rotate270,
        Orientation::Rotate270 => Orientation::Rotate90,
        own_inverse => own_inverse,
    }
}

/// Puts an EXIF segment that holds nothing but the orientation behind a JPEG's first two bytes.
fn with_exif_orientation(jpeg: &[u8], value: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([value, 0, 0, 0, 0, 0, 0]);
    let length = (exif.len() + 2) as u16;
    [
        &jpeg[..2],
        &[0xFF, 0xE1],
        &length.to_be_bytes(),
        &exif,
        &jpeg[2..],
    ]
    .concat()
}

#[test]
fn sixteen_bits_and_grey_are_understood() {
    let grey = image::ImageBuffer::from_pixel(20, 10, image::Luma([40_000_u16]));
    let small = thumbnail(
        &encoded(DynamicImage::ImageLuma16(grey), ImageFormat::Png),
        10,
        10,
    )
    .expect("a good picture");
    assert_eq!((small.color(), small.width()), (image::ColorType::L8, 10));
}

#[test]
fn a_broken_picture_is_told_from_a_good_one() {
    let cut = &HUBBLE[..HUBBLE.len() / 2];
    let giant = giant_png();
    for (bytes, reason) in [
        (&b"hello"[..], "no JPEG, PNG or WebP"),
        (cut, "cut off"),
        (&CHELSEA[..CHELSEA.len() / 2], "cannot be read"),
        (&HUBBLE[..20], "cannot be read"),
        (&giant, "send a smaller picture"),
    ] {
        let error = thumbnail(bytes, 256, 256).expect_err(reason);
        assert!(error.contains(reason), "{error}");
    }
}

/// A PNG whose header claims more pixels than any memory has.
fn giant_png() -> Vec<u8> {
    let mut png = encoded(RgbImage::new(1, 1), ImageFormat::Png);
    png[16..24].copy_from_slice(&[0, 1, 0x80, 0, 0, 1, 0x80, 0]);
    // The header's checksum comes after its 17 bytes.
    let sum = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&sum.to_be_bytes());
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 {
                sum >> 1 ^ 0xEDB8_8320
            } else {
                sum >> 1
            };
        }
    }
    !sum
}
