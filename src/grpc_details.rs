//! The wait in the details of a gRPC status: Google's `RetryInfo`, which the header or trailer
//! `grpc-status-details-bin` carries.
//!
//! Only the fields on the way to the wait are read. It keeps nothing, and does not call itself: the
//! depth of the message is that of this file.

use std::time::Duration;

/// Name of the header, or trailer.
#[cfg(any(
    feature = "mcp",
    feature = "model",
    feature = "tower",
    feature = "reqwest"
))]
pub(crate) const DETAILS: &str = "grpc-status-details-bin";

/// Name of the message that holds a wait, at the end of its type's address.
const RETRY_INFO: &str = "google.rpc.RetryInfo";

/// Returns the longest wait in the values of a header: base64, padded or not, and between commas.
#[cfg(any(
    feature = "mcp",
    feature = "model",
    feature = "tower",
    feature = "reqwest"
))]
pub(crate) fn wait_in_text(line: &str) -> Option<Duration> {
    let waits = line.split(',').filter_map(|text| wait_in(&decoded(text)?));
    waits.max()
}

/// Returns the longest wait in a `google.rpc.Status`.
///
/// # Source  `google/rpc/status.proto` and `error_details.proto`: `Status.details` is 3,
/// `Any.type_url` 1, `Any.value` 2, `RetryInfo.retry_delay` 1.
pub(crate) fn wait_in(status: &[u8]) -> Option<Duration> {
    let details = MessageFields(status).filter_map(|field| match field {
        (3, FieldValue::Bytes(any)) => in_any(any),
        _ => None,
    });
    details.max()
}

/// Returns the wait in a `google.protobuf.Any`, if it is a `RetryInfo`.
fn in_any(any: &[u8]) -> Option<Duration> {
    let (mut address, mut value) = (&b""[..], &b""[..]);
    for field in MessageFields(any) {
        match field {
            (1, FieldValue::Bytes(bytes)) => address = bytes,
            (2, FieldValue::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    let name = address.rsplit(|byte| *byte == b'/').next();
    let fields = MessageFields(value).filter(|_| name == Some(RETRY_INFO.as_bytes()));
    let delays = fields.filter_map(|field| match field {
        (1, FieldValue::Bytes(span)) => Some(span),
        _ => None,
    });
    delays.last().and_then(in_span)
}

/// Returns a `google.protobuf.Duration`; `None` for a negative one.
fn in_span(span: &[u8]) -> Option<Duration> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in MessageFields(span) {
        match field {
            (1, FieldValue::Number(number)) => seconds = number,
            (2, FieldValue::Number(number)) => nanos = number,
            _ => {}
        }
    }
    let seconds = i64::try_from(seconds).ok()?.unsigned_abs();
    let nanos = u32::try_from(nanos).ok()?;
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
}

/// The value of a field, as far as it matters here.
enum FieldValue<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message of Protocol Buffers, up to the first one that cannot be read.
struct MessageFields<'a>(&'a [u8]);

impl<'a> MessageFields<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        // Ten bytes of seven bits hold 64 bits.
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self, length: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }
}

impl<'a> Iterator for MessageFields<'a> {
    type Item = (u64, FieldValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let tag = self.number()?;
            let value = match tag & 7 {
                0 => FieldValue::Number(self.number()?),
                2 => {
                    let length = self.number()?;
                    FieldValue::Bytes(self.bytes(length)?)
                }
                // Numbers of a fixed size: no field on the way is one.
                kind @ (1 | 5) => {
                    self.bytes(if kind == 1 { 8 } else { 4 })?;
                    continue;
                }
                _ => return None,
            };
            return Some((tag >> 3, value));
        }
    }
}

/// Decodes base64, of either alphabet; `None` for anything else.
#[cfg(any(
    feature = "mcp",
    feature = "model",
    feature = "tower",
    feature = "reqwest"
))]
fn decoded(text: &str) -> Option<Vec<u8>> {
    let text = text.trim().trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.bytes() {
        let six = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A field with bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).unwrap();
        [&[number << 3 | 2, length], bytes].concat()
    }

    /// A status with a `RetryInfo` of this span.
    pub(crate) fn status(span: &[u8]) -> Vec<u8> {
        let address = field(1, b"type.googleapis.com/google.rpc.RetryInfo");
        let info = [address, field(2, &field(1, span))].concat();
        let other = field(1, b"type.googleapis.com/google.rpc.QuotaFailure");
        let details = [field(3, &other), field(3, &info)].concat();
        [b"\x08\x08".to_vec(), field(2, b"quota"), details].concat()
    }

    #[test]
    fn lim_1_e10b_a_span_in_the_details_of_a_status_is_read() {
        let ms = |millis| Some(Duration::from_millis(millis));
        for (span, wait) in [
            (&b"\x08\x07"[..], ms(7_000)),
            (b"\x08\x07\x10\x80\xca\xb5\xee\x01", ms(7_500)),
            (b"\x10\x80\xca\xb5\xee\x01", ms(500)),
            (b"", ms(0)),
            // Negative: ten bytes.
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", None),
            // Unknown fields of each size beside it.
            (b"\x19aaaaaaaa\x25aaaa\x2a\x01a\x08\x07", ms(7_000)),
        ] {
            assert_eq!(wait_in(&status(span)), wait, "{span:?}");
        }
        let largest = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f";
        assert!(wait_in(&status(largest)) > ms(u64::MAX / 2));
        assert_eq!(wait_in(b""), None);
        assert_eq!(wait_in(&field(3, &field(1, b"a/google.rpc.Help"))), None);
    }

    #[cfg(feature = "model")]
    #[test]
    fn lim_1_e10b_no_part_of_a_status_breaks_its_reader() {
        use base64::Engine as _;
        use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};

        let whole = status(b"\x08\x07\x10\x80\xca\xb5\xee\x01");
        let wait = Some(Duration::from_millis(7_500));
        for coded in [
            STANDARD.encode(&whole),
            STANDARD_NO_PAD.encode(&whole),
            URL_SAFE.encode(&whole),
            format!("CAg, {}", STANDARD.encode(&whole)),
        ] {
            assert_eq!(wait_in_text(&coded), wait, "{coded}");
        }
        assert_eq!(wait_in_text("a~b"), None);
        for end in 0..whole.len() {
            let _ = wait_in(&whole[..end]);
            for byte in 0..=255 {
                let mut other = whole.clone();
                other[end] = byte;
                let _ = wait_in(&other);
            }
        }
    }
}
