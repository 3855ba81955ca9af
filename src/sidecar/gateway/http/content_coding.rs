//! The codings of a response's body, undone to read hints. What is passed on stays encoded.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use brotli_decompressor::{Decompressor, DecompressorWriter};
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use flate2::write;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use super::error_body::MAX_AHEAD;

/// Maximum number of codings on top of each other.
const MAX_CODINGS: usize = 3;

/// Returns the codings of a body in the order in which they were applied.
fn codings_of(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(CONTENT_ENCODING).iter();
    lines
        .flat_map(|line| line.to_str().unwrap_or("?").split(','))
        .map(|coding| coding.trim().to_ascii_lowercase())
        .filter(|coding| !coding.is_empty() && coding != "identity")
        .collect()
}

/// Returns the plain beginning of a body, or of the beginning of one; `None` if a coding is unknown.
/// The result is as bounded as what is read ahead.
pub(super) fn decoded<'b>(headers: &HeaderMap, body: &'b [u8]) -> Option<Cow<'b, [u8]>> {
    decoded_up_to(headers, body, MAX_AHEAD)
}

/// Returns the plain beginning of a body, of at most so many bytes; `None` if a coding is unknown.
pub(super) fn decoded_up_to<'b>(
    headers: &HeaderMap,
    body: &'b [u8],
    most: usize,
) -> Option<Cow<'b, [u8]>> {
    let codings = codings_of(headers);
    if codings.len() > MAX_CODINGS {
        return None;
    }
    let mut plain = Cow::Borrowed(body);
    // The last one was applied last.
    for coding in codings.iter().rev() {
        let decoded = match coding.as_str() {
            "gzip" | "x-gzip" => read(MultiGzDecoder::new(&*plain), most),
            // RFC 9110, section 8.4.1.2: with a zlib header, which some servers leave out.
            "deflate" => match read(ZlibDecoder::new(&*plain), most) {
                none if none.is_empty() => read(DeflateDecoder::new(&*plain), most),
                some => some,
            },
            "br" => read(Decompressor::new(&*plain, 4_096), most),
            _ => return None,
        };
        plain = Cow::Owned(decoded);
    }
    Some(plain)
}

/// Reads as far as the input goes, and no more than the bound.
fn read(decoder: impl Read, most: usize) -> Vec<u8> {
    let mut plain = Vec::new();
    // The input may be cut off. What was decoded until then stays in the buffer.
    let _ = decoder.take(most as u64).read_to_end(&mut plain);
    plain
}

/// A decoder of a body that comes in pieces.
pub(super) enum PieceDecoder {
    /// There is no coding.
    Plain,
    Gzip(Box<write::MultiGzDecoder<PlainPart>>),
    Deflate(Box<write::ZlibDecoder<PlainPart>>),
    Brotli(Box<DecompressorWriter<PlainPart>>),
    /// The body is not what its coding says: the rest of it cannot be read.
    Broken,
}

impl PieceDecoder {
    /// Creates the decoder of a body; `None` if its coding is unknown, or if there are several.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let codings = codings_of(headers);
        let names: Vec<&str> = codings.iter().map(String::as_str).collect();
        Some(match names[..] {
            [] => Self::Plain,
            ["gzip" | "x-gzip"] => {
                Self::Gzip(Box::new(write::MultiGzDecoder::new(PlainPart::default())))
            }
            ["deflate"] => Self::Deflate(Box::new(write::ZlibDecoder::new(PlainPart::default()))),
            ["br"] => Self::Brotli(Box::new(DecompressorWriter::new(
                PlainPart::default(),
                4_096,
            ))),
            _ => return None,
        })
    }

    /// Returns true if there is no coding.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Decodes the next piece, as far as it goes, and passes the plain parts on.
    pub(super) fn decode(&mut self, piece: &[u8], sink: &mut dyn FnMut(&[u8])) {
        if self.is_plain() {
            return sink(piece);
        }
        for part in piece.chunks(PART) {
            let pushed = match self {
                Self::Gzip(decoder) => push(&mut **decoder, part),
                Self::Deflate(decoder) => push(&mut **decoder, part),
                Self::Brotli(decoder) => push(&mut **decoder, part),
                Self::Plain | Self::Broken => return,
            };
            let plain = match self {
                Self::Gzip(decoder) => std::mem::take(decoder.get_mut()),
                Self::Deflate(decoder) => std::mem::take(decoder.get_mut()),
                Self::Brotli(decoder) => std::mem::take(decoder.get_mut()),
                Self::Plain | Self::Broken => return,
            };
            sink(&plain.0);
            if pushed.is_err() {
                *self = Self::Broken;
            }
        }
    }
}

/// Size of the parts in which a piece is decoded, and the most that one of them may become, in bytes.
const PART: usize = 4_096;
const MAX_PLAIN: usize = 8_000_000;

/// A part of a body without its coding, of a bounded size.
#[derive(Default)]
pub(super) struct PlainPart(Vec<u8>);

impl Write for PlainPart {
    fn write(&mut self, plain: &[u8]) -> io::Result<usize> {
        if self.0.len() + plain.len() > MAX_PLAIN {
            return Err(io::Error::other("it becomes too long"));
        }
        self.0.extend_from_slice(plain);
        Ok(plain.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn push(decoder: &mut impl Write, part: &[u8]) -> io::Result<()> {
    decoder.write_all(part)?;
    decoder.flush()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn with(coding: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, coding.parse().unwrap());
        headers
    }

    #[test]
    fn lim_1_e10b_each_coding_is_undone() {
        let text = br#"{"retry_after":7}"#.repeat(20);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&text).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(&text).unwrap();
        for (coding, body) in [
            ("gzip", gzip(&text)),
            ("X-GZIP", gzip(&text)),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", raw.finish().unwrap()),
            ("gzip, gzip", gzip(&gzip(&text))),
            ("identity", text.clone()),
        ] {
            assert_eq!(
                decoded(&with(coding), &body).as_deref(),
                Some(&*text),
                "{coding}"
            );
        }
        assert_eq!(decoded(&HeaderMap::new(), &text).as_deref(), Some(&*text));
        assert_eq!(decoded(&with("zstd"), &text), None);
        // An uncompressed meta-block of "hello", as in RFC 7932.
        let brotli = [0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];
        assert_eq!(
            decoded(&with("br"), &brotli).as_deref(),
            Some(&b"hello"[..])
        );
    }

    #[test]
    fn llm_8_a_body_is_decoded_piece_by_piece() {
        let text = br#"data: {"n":1}

"#
        .repeat(300);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&text).unwrap();
        for (coding, body) in [
            ("gzip", gzip(&text)),
            ("deflate", zlib.finish().unwrap()),
            ("identity", text.clone()),
        ] {
            for size in [1, 7, 10_000] {
                let mut decoder = PieceDecoder::of(&with(coding)).unwrap();
                let mut plain = Vec::new();
                for piece in body.chunks(size) {
                    decoder.decode(piece, &mut |part| plain.extend_from_slice(part));
                }
                assert_eq!(plain, text, "{coding} {size}");
            }
        }
        // What the server has flushed is there at once.
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&text).unwrap();
        encoder.flush().unwrap();
        let flushed = encoder.get_ref().clone();
        let mut decoder = PieceDecoder::of(&with("gzip")).unwrap();
        let mut plain = Vec::new();
        decoder.decode(&flushed, &mut |part| plain.extend_from_slice(part));
        assert_eq!(plain, text);
        let brotli = [0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];
        let mut decoder = PieceDecoder::of(&with("br")).unwrap();
        let mut plain = Vec::new();
        for byte in brotli {
            decoder.decode(&[byte], &mut |part| plain.extend_from_slice(part));
        }
        assert_eq!(plain, b"hello");
        for coding in ["zstd", "gzip, br"] {
            assert!(PieceDecoder::of(&with(coding)).is_none());
        }
        let mut garbled = PieceDecoder::of(&with("gzip")).unwrap();
        garbled.decode(b"no gzip at all", &mut |part| assert!(part.is_empty()));
        assert!(matches!(garbled, PieceDecoder::Broken));
    }

    #[test]
    fn lim_1_e10b_a_part_of_a_body_is_decoded_as_far_as_it_goes() {
        let noise: Vec<u8> = (0..60_000).map(|_| fastrand::u8(..)).collect();
        let whole = gzip(&[&b"{\"retry_after\":7,"[..], &noise].concat());
        let part = decoded(&with("gzip"), &whole[..40_000]).unwrap();
        assert!(part.starts_with(b"{\"retry_after\":7,") && part.len() > 20_000);
    }

    #[test]
    fn lim_1_e10b_a_bomb_is_bounded() {
        let bomb = gzip(&vec![0; 50_000_000]);
        assert_eq!(decoded(&with("gzip"), &bomb).unwrap().len(), MAX_AHEAD);
        assert_eq!(decoded(&with(&"gzip,".repeat(9)), &bomb), None);
    }
}
