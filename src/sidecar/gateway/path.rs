//! Paths that a server could read as leading out of a dependency's address.
//!
//! It changes no path: one is passed on as it came, or refused.

/// Number of times that servers behind each other may decode a path.
const MAX_DECODINGS: usize = 3;

/// Returns true if a server could read a part of the path as `.` or `..`.
///
/// Servers differ: some decode a path twice, accept `\` as a separator, cut parameters behind `;`,
/// accept dots in overlong or full-width form, drop spaces and control characters, or decode a path
/// before they split the query off. A path is refused if any of these readings has such a part.
///
/// # Source  RFC 3986, sections 5.2.4 and 6.2.2; RFC 3629, section 10.
pub(super) fn has_dot_segment(path: &str) -> bool {
    if is_plain(path) {
        return false;
    }
    let mut reading = path.as_bytes().to_vec();
    for _ in 0..MAX_DECODINGS {
        if is_leading_out(&reading) {
            return true;
        }
        let decoded = decode(&reading);
        if decoded == reading {
            return false;
        }
        reading = decoded;
    }
    is_leading_out(&reading)
}

/// Returns true for a path without anything that servers read in different ways, and without a part
/// that begins with a dot: nearly all are like this.
fn is_plain(path: &str) -> bool {
    let mut is_begin = true;
    path.bytes().all(|byte| {
        let begins = std::mem::replace(&mut is_begin, byte == b'/');
        match byte {
            b'%' | b'\\' => false,
            b'.' => !begins,
            byte => byte.is_ascii_graphic(),
        }
    })
}

/// Returns the begin of a text, of at most so many bytes.
pub(super) fn begin_of(text: &str, most: usize) -> &str {
    let most = most.min(text.len());
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

fn is_leading_out(path: &[u8]) -> bool {
    let path = simplify(path);
    path.split(|byte| matches!(byte, b'/' | b'\\')).any(is_dots)
}

/// Returns true for `.` and `..`, with parameters, spaces or control characters or without, and before
/// what some servers take for the end of a path.
fn is_dots(part: &[u8]) -> bool {
    // EDGE-5: a path that is decoded before it is split ends at `?` and `#`, and a text of C at its NUL.
    let is_end = |byte: &u8| matches!(byte, b';' | b'?' | b'#' | 0);
    let part = part.split(is_end).next().unwrap_or_default();
    let mut dots = 0;
    for byte in part {
        match byte {
            b'.' => dots += 1,
            0..=b' ' | 127 => {}
            _ => return false,
        }
    }
    dots == 1 || dots == 2
}

/// Decodes each `%XX` once, and each `%uXXXX` that some servers accept.
pub(super) fn decode(path: &[u8]) -> Vec<u8> {
    let digits = |at: usize, length: usize| {
        let digits = std::str::from_utf8(path.get(at..at + length)?).ok()?;
        let are_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        are_digits.then(|| u32::from_str_radix(digits, 16).ok())?
    };
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(byte) = path.get(at) {
        let is_percent = *byte == b'%';
        let is_wide = is_percent && matches!(path.get(at + 1), Some(b'u' | b'U'));
        if let Some(letter) = digits(at + 2, 4)
            .filter(|_| is_wide)
            .and_then(char::from_u32)
        {
            decoded.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            at += 6;
        } else if let Some(Ok(value)) = digits(at + 1, 2).filter(|_| is_percent).map(u8::try_from) {
            decoded.push(value);
            at += 3;
        } else {
            decoded.push(*byte);
            at += 1;
        }
    }
    decoded
}

/// Replaces overlong and full-width forms of ASCII letters by the letters.
fn simplify(path: &[u8]) -> Vec<u8> {
    let mut simple = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        let low = |at: usize| after.get(at).map_or(0, |byte| u32::from(byte & 0x3f));
        let (length, value) = match (byte, after) {
            // A lenient decoder looks at the lower bits of what follows only.
            (0xc0 | 0xc1, [_, ..]) => (2, u32::from(byte & 1) << 6 | low(0)),
            (0xe0, [0x80 | 0x81, _, ..]) => (3, low(0) << 6 | low(1)),
            (0xf0, [0x80, 0x80 | 0x81, _, ..]) => (4, low(1) << 6 | low(2)),
            // U+FF01 to U+FF5E.
            (0xef, [0xbc, _, ..]) => (3, low(1) + 0x20),
            (0xef, [0xbd, _, ..]) => (3, low(1) + 0x60),
            _ => (1, u32::from(*byte)),
        };
        simple.push(u8::try_from(value).unwrap_or(b'?'));
        rest = &rest[length..];
    }
    simple
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_4_the_begin_of_a_text_ends_between_its_letters() {
        assert_eq!(begin_of(&"a".repeat(5000), 100).len(), 100);
        let odd = format!("a{}", "\u{e9}".repeat(5000));
        assert_eq!(begin_of(&odd, 100).len(), 99);
        assert_eq!(begin_of("a", 100), "a");
    }

    #[test]
    fn edge_5_e7c_no_reading_of_a_path_leads_out() {
        for path in [
            "/..",
            "/.",
            "/\u{ff0e}\u{ff0e}/admin",
            "/\u{ff0e}",
            "/a/../b",
            "/a/./b",
            "/%2e%2E/admin",
            "/..%2fadmin",
            "/..%2Fadmin",
            "/a%2f..%2fb",
            "/a%2F%2e%2e",
            "/a\\..\\b",
            "/..\\admin",
            "/..%5cadmin",
            "/..%5Cadmin",
            "/%2e%2e%5cadmin",
            "/a/..%3fx",
            "/a/%2e%2e%23",
            "/..%00x",
            "/a/.%253Fx=1",
            "/..;/admin",
            "/..;a=b/admin",
            "/.;/admin",
            "/%2e%2e%3b/admin",
            "/..%3Bx=1/admin",
            "/%252e%252e/admin",
            "/..%252fadmin",
            "/%252e%252e%252fadmin",
            "/..%255cadmin",
            "/%25252e%25252e/admin",
            "/%c0%ae%c0%ae/admin",
            "/..%c0%afadmin",
            "/..%c1%9cadmin",
            "/%e0%80%ae%e0%80%ae/admin",
            "/%f0%80%80%ae./admin",
            "/%c0%2e%c0%2e/admin",
            "/%25c0%25ae./admin",
            "/%u002e%u002e/admin",
            "/..%u2215x/..%u002fadmin",
            "/%uff0e%uff0e/admin",
            "/%ef%bc%8e%ef%bc%8e/admin",
            "/..%ef%bc%8fadmin",
            "/..%00/admin",
            "/..%20/admin",
            "/.%09./admin",
            "/..%0a/admin",
        ] {
            assert!(has_dot_segment(path), "{path}");
        }
        for path in [
            "",
            "/",
            "/a",
            "/a...b/..c",
            "/...",
            "/v1..2/x",
            "/a..b/c",
            "/a.b/.well-known/c.",
            "/a%2fb",
            "/a%2Fb%5cc",
            "/a%2f%2e-%2eb",
            "/a;v=1.0/b",
            "/a;../b",
            "/%20/%2520/100%25",
            "/100%/50%2",
            "/%c3%a9.txt",
            "/%e2%80%a6",
            "/%f0%9f%98%80",
            "/%c0",
            "/file%2ename",
            "/%uzzzz",
            "/%",
        ] {
            assert!(!has_dot_segment(path), "{path}");
        }
    }
}
