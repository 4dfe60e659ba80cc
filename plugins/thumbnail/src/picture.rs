//! A picture on its way from encoded bytes to a small PNG, within the memory that the manifest asks for.

use std::io::Cursor;

use image::{
    DynamicImage, ImageBuffer, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Limits, Pixel,
    codecs::png::PngEncoder,
    imageops::{self, FilterType},
    metadata::Orientation,
};

/// More is refused before it is decoded. A progressive JPEG takes six to nine bytes for each pixel while it is decoded,
/// another picture three to eight: with this bound all but progressive giants fit 256 MiB.
const DECODED_BYTES_MAX: u64 = 160 << 20;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Size {
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// Known by its header, not yet decoded.
pub(crate) struct Encoded<'a> {
    pub(crate) width: u32,
    pub(crate) height: u32,
    decoder: Box<dyn ImageDecoder + 'a>,
}

pub(crate) struct Picture {
    pixels: DynamicImage,
    /// Where the camera's top was: turned at the end, when there is little left to turn.
    orientation: Orientation,
    /// What the numbers mean as colours; without it a wide-gamut photo looks pale.
    profile: Option<Vec<u8>>,
}

pub(crate) fn open(bytes: &[u8]) -> Result<Encoded<'_>, String> {
    let reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|e| e.to_string())?;
    if reader.format().is_none() {
        return Err("this is no JPEG, PNG or WebP picture".into());
    }
    if reader.format() == Some(ImageFormat::Jpeg) && !is_whole(bytes) {
        return Err("the picture is cut off: its data ends before the end that a JPEG must have".into());
    }
    let mut decoder = reader.into_decoder().map_err(|e| broken(&e))?;
    let (width, height) = decoder.dimensions();
    let bytes = decoder.total_bytes();
    if bytes > DECODED_BYTES_MAX {
        return Err(format!(
            "{width} × {height} pixels are {} MiB, more than the {} MiB that this plugin decodes; send a smaller picture",
            bytes >> 20,
            DECODED_BYTES_MAX >> 20
        ));
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(DECODED_BYTES_MAX);
    decoder.set_limits(limits).map_err(|e| broken(&e))?;
    Ok(Encoded {
        width,
        height,
        decoder: Box::new(decoder),
    })
}

/// Whether a JPEG's end marker follows its data. The decoder would paint what is missing grey and call it a picture.
fn is_whole(jpeg: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xDA;
    const END: [u8; 2] = [0xFF, 0xD9];
    // Segments before the scan are stepped over: a camera's preview in one of them has an end marker of its own.
    let mut at = 2;
    while let Some(&[0xFF, marker, high, low]) = jpeg.get(at..at + 4) {
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
        if marker == START_OF_SCAN {
            return jpeg
                .get(at..)
                .is_some_and(|data| data.windows(2).any(|pair| pair == END));
        }
    }
    // Not laid out as expected: the decoder has a better word for that.
    true
}

impl Encoded<'_> {
    pub(crate) fn decode(mut self) -> Result<Picture, String> {
        // A picture whose notes about itself are damaged is still a picture.
        let orientation = self.decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let profile = self.decoder.icc_profile().ok().flatten();
        let pixels = DynamicImage::from_decoder(self.decoder).map_err(|e| broken(&e))?;
        Ok(Picture {
            pixels,
            orientation,
            profile,
        })
    }
}

fn broken(error: &image::ImageError) -> String {
    format!("the picture cannot be read: {error}")
}

impl Picture {
    /// Fits the picture into `size`, its proportions kept; a smaller one stays as it is.
    pub(crate) fn shrink(self, size: Size) -> Picture {
        let size = if turns_over(self.orientation) {
            Size {
                width: size.height,
                height: size.width,
            }
        } else {
            size
        };
        let mut pixels = match eight_bits(self.pixels) {
            DynamicImage::ImageLuma8(pixels) => fit(pixels, size).into(),
            DynamicImage::ImageLumaA8(pixels) => fit(pixels, size).into(),
            DynamicImage::ImageRgb8(pixels) => fit(pixels, size).into(),
            DynamicImage::ImageRgba8(pixels) => fit(pixels, size).into(),
            other => other,
        };
        pixels.apply_orientation(self.orientation);
        Picture {
            pixels,
            orientation: Orientation::NoTransforms,
            profile: self.profile,
        }
    }

    pub(crate) fn png(self) -> Result<Vec<u8>, String> {
        let mut png = Vec::new();
        let mut encoder = PngEncoder::new(&mut png);
        let colored = self.pixels.color().has_color();
        if let Some(profile) = self.profile.filter(|profile| describes(profile, colored)) {
            encoder
                .set_icc_profile(profile)
                .map_err(|e| format!("the colour profile cannot be kept: {e}"))?;
        }
        self.pixels
            .write_with_encoder(encoder)
            .map_err(|e| format!("the thumbnail cannot be encoded: {e}"))?;
        Ok(png)
    }
}

/// A thumbnail shows no more than eight bits of a channel; and four kinds of pixels are less code than ten.
fn eight_bits(pixels: DynamicImage) -> DynamicImage {
    match (pixels.color().has_color(), pixels.color().has_alpha()) {
        (true, true) => pixels.into_rgba8().into(),
        (true, false) => pixels.into_rgb8().into(),
        (false, true) => pixels.into_luma_alpha8().into(),
        (false, false) => pixels.into_luma8().into(),
    }
}

fn fit<P: Pixel<Subpixel = u8> + 'static>(
    mut pixels: ImageBuffer<P, Vec<u8>>,
    size: Size,
) -> ImageBuffer<P, Vec<u8>> {
    let (width, height) = pixels.dimensions();
    let scale = f64::min(
        f64::from(size.width) / f64::from(width),
        f64::from(size.height) / f64::from(height),
    );
    if scale >= 1.0 {
        return pixels;
    }
    let scaled = |side: u32, scale: f64| ((f64::from(side) * scale).round() as u32).max(1);
    // Averaging down to twice the size first is cheap in time and memory; Lanczos then has little to do, and looks the same.
    if scale < 0.25 {
        pixels = imageops::thumbnail(&pixels, scaled(width, 2.0 * scale), scaled(height, 2.0 * scale));
    }
    imageops::resize(
        &pixels,
        scaled(width, scale),
        scaled(height, scale),
        FilterType::Lanczos3,
    )
}

/// Whether width and height change places.
fn turns_over(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH)
}

/// A profile names the colour space of its numbers at byte 16. One for CMYK says nothing of the RGB that was decoded.
fn describes(profile: &[u8], colored: bool) -> bool {
    profile.get(16..20) == Some(if colored { b"RGB " } else { b"GRAY" })
}

#[cfg(test)]
mod tests;
