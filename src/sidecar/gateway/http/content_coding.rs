//! The codings of a response's body, undone to read hints. What is passed on stays encoded.

use std::borrow::Cow;
use std::io::Read;

use brotli_decompressor::Decompressor;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use super::error_body::MAX_AHEAD;

/// Maximum number of codings on top of each other.
const MAX_CODINGS: usize = 3;

/// Returns the plain beginning of a body, or of the beginning of one; `None` if a coding is unknown.
/// The result is as bounded as what is read ahead.
pub(super) fn decoded<'b>(headers: &HeaderMap, body: &'b [u8]) -> Option<Cow<'b, [u8]>> {
    let lines = headers.get_all(CONTENT_ENCODING).iter();
    let codings: Vec<String> = lines
        .flat_map(|line| line.to_str().unwrap_or("?").split(','))
        .map(|coding| coding.trim().to_ascii_lowercase())
        .filter(|coding| !coding.is_empty() && coding != "identity")
        .collect();
    if codings.len() > MAX_CODINGS {
        return None;
    }
    let mut plain = Cow::Borrowed(body);
    // The last one was applied last.
    for coding in codings.iter().rev() {
        let decoded = match coding.as_str() {
            "gzip" | "x-gzip" => read(MultiGzDecoder::new(&*plain)),
            // RFC 9110, section 8.4.1.2: with a zlib header, which some servers leave out.
            "deflate" => match read(ZlibDecoder::new(&*plain)) {
                none if none.is_empty() => read(DeflateDecoder::new(&*plain)),
                some => some,
            },
            "br" => read(Decompressor::new(&*plain, 4_096)),
            _ => return None,
        };
        plain = Cow::Owned(decoded);
    }
    Some(plain)
}

/// Reads as far as the input goes, and no more than the bound.
fn read(decoder: impl Read) -> Vec<u8> {
    let mut plain = Vec::new();
    // The input may be cut off. What was decoded until then stays in the buffer.
    let _ = decoder.take(MAX_AHEAD as u64).read_to_end(&mut plain);
    plain
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
