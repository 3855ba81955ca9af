//! Mutations of a corpus, the same ones for the same seed.

/// Longest input.
const LONGEST: usize = 8 * 1024;

/// Parts that parsers treat in a way of their own.
const PARTS: [&[u8]; 48] = [
    b"0",
    b"-1",
    b"1",
    b"+5",
    b"00",
    b"1e9",
    b"1e308",
    b"1e400",
    b"0.1",
    b".",
    b"..",
    b"18446744073709551615",
    b"18446744073709551616",
    b"9223372036854775808",
    b"4294967296",
    b"-9223372036854775809",
    b"NaN",
    b"inf",
    b"null",
    b"true",
    b"false",
    b"{}",
    b"[]",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\\"",
    b"\\u0000",
    b"\\ud800",
    b":",
    b",",
    b"=",
    b"\n",
    b"\r\n",
    b"\r",
    b"\n\n",
    b" ",
    b"\t",
    b"%2e",
    b"%",
    b"/",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    "\u{e9}\u{2028}\u{1f600}".as_bytes(),
];

/// Maker of mutations.
pub(super) struct Mutator<'a> {
    corpus: &'a [Vec<u8>],
    /// Words of the corpus.
    words: Vec<&'a [u8]>,
    random: fastrand::Rng,
}

impl<'a> Mutator<'a> {
    pub(super) fn new(corpus: &'a [Vec<u8>], seed: u64) -> Self {
        let is_end = |byte: &u8| !byte.is_ascii_alphanumeric() && !b"_-.".contains(byte);
        let words = corpus.iter().flat_map(|input| input.split(is_end));
        let mut words: Vec<&[u8]> = words.filter(|word| !word.is_empty()).collect();
        words.sort_unstable();
        words.dedup();
        Self {
            corpus,
            words,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Returns an input with one to eight changes.
    pub(super) fn next(&mut self) -> Vec<u8> {
        let mut input = self.any().clone();
        for _ in 0..self.random.u32(1..=8) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn any(&mut self) -> &'a Vec<u8> {
        &self.corpus[self.random.usize(..self.corpus.len())]
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let (begin, end) = self.range(input.len());
        match self.random.u32(0..9) {
            0 => {
                input.drain(begin..end);
            }
            1 => {
                let part = input[begin..end].to_vec();
                let times = self.random.usize(1..4);
                insert(input, end, &part.repeat(times));
            }
            2 if begin < input.len() => input[begin] ^= 1 << self.random.u32(0..8),
            3 if begin < input.len() => input[begin] = self.random.u8(..),
            4 => {
                let byte = self.random.u8(..);
                input.insert(begin, byte);
            }
            5 => insert(input, begin, PARTS[self.random.usize(..PARTS.len())]),
            6 if !self.words.is_empty() => {
                let word = self.words[self.random.usize(..self.words.len())];
                input.splice(begin..end, word.iter().copied());
            }
            7 => {
                let other = self.any();
                let (from, to) = self.range(other.len());
                insert(input, begin, &other[from..to]);
            }
            _ => input.truncate(end),
        }
    }

    /// Returns the begin and the end of a part: mostly a short one.
    fn range(&mut self, length: usize) -> (usize, usize) {
        let begin = self.random.usize(..=length);
        let most = if self.random.u32(0..4) > 0 {
            12
        } else {
            length
        };
        let end = (begin + self.random.usize(..=most)).min(length);
        (begin, end)
    }
}

fn insert(input: &mut Vec<u8>, at: usize, part: &[u8]) {
    if input.len() + part.len() <= 2 * LONGEST {
        input.splice(at..at, part.iter().copied());
    }
}
