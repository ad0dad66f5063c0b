//! Which words a block may have: a Bloom filter per block, 16 bits and 6 probes for each different token.
//!
//! A token is a run of word characters in lower case (ASCII letters, digits, `_`; other letters). Chinese and Japanese are
//! written without spaces, so each character and each pair of neighbours is a token: any word of two characters is found.
//!
//! # Invariants
//! - Never says no to a block that has the token. A damaged filter says yes.
//! - Token boundaries are word boundaries of the `regex` crate or stricter, so `\b` and tokens agree.
//! - The hash is part of the format: FNV-1a over the lower-case UTF-8, then a mix. Version 1: the bits as u64 LE, in a frame.

use super::frame::{self, Bad};

const BITS_PER_TOKEN: usize = 16;
const PROBES: u32 = 6;
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// One token of a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Token {
    pub(crate) hash: u64,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) kind: Kind,
}

/// What a token is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// A run of ASCII word characters.
    Ascii,
    /// A run with other letters in it, whose lower case is a matter of Unicode.
    Unicode,
    /// A character, or two neighbours, of a script without spaces.
    Cjk,
}

/// The lower case of the ASCII word characters; 0 for other bytes.
const WORD: [u8; 256] = {
    let mut word = [0; 256];
    let mut at = 0;
    while at < 128 {
        let byte = at as u8;
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            word[at] = byte.to_ascii_lowercase();
        }
        at += 1;
    }
    word
};

/// Calls `found` for each token of the text.
pub(crate) fn tokens(text: &str, mut found: impl FnMut(Token)) {
    let mut run: Option<Token> = None;
    let mut before: Option<(usize, u64)> = None;
    let bytes = text.as_bytes();
    let mut start = 0;
    while let Some(&byte) = bytes.get(start) {
        // The common case: a run of ASCII that nothing else touches.
        if byte.is_ascii() && run.is_none() {
            before = None;
            let mut hash = FNV_BASIS;
            let mut end = start;
            while let Some(lower) = bytes.get(end).map(|byte| WORD[usize::from(*byte)]).filter(|lower| *lower != 0) {
                hash = (hash ^ u64::from(lower)).wrapping_mul(FNV_PRIME);
                end += 1;
            }
            let token = Token { hash, start, end, kind: Kind::Ascii };
            if bytes.get(end).is_some_and(|byte| !byte.is_ascii()) && end > start {
                run = Some(token);
                start = end;
                continue;
            }
            if end > start {
                found(token);
            }
            start = end.max(start + 1);
            continue;
        }
        let Some(c) = text.get(start..).and_then(|rest| rest.chars().next()) else { break };
        let end = start + c.len_utf8();
        let at = std::mem::replace(&mut start, end);
        let start = at;
        if is_cjk(c) {
            if let Some(token) = run.take() {
                found(token);
            }
            let single = feed(FNV_BASIS, c);
            found(Token { hash: single, start, end, kind: Kind::Cjk });
            if let Some((start, hash)) = before {
                found(Token { hash: feed(hash, c), start, end, kind: Kind::Cjk });
            }
            before = Some((start, single));
            continue;
        }
        before = None;
        if c.is_ascii_alphanumeric() || c == '_' || (!c.is_ascii() && c.is_alphabetic()) {
            let token = run.get_or_insert(Token { hash: FNV_BASIS, start, end, kind: Kind::Ascii });
            if !c.is_ascii() {
                token.kind = Kind::Unicode;
            }
            // The common case without a table of Unicode.
            token.hash = if c.is_ascii() { feed(token.hash, c.to_ascii_lowercase()) } else { c.to_lowercase().fold(token.hash, feed) };
            token.end = end;
        } else if let Some(token) = run.take() {
            found(token);
        }
    }
    if let Some(token) = run {
        found(token);
    }
}

/// The hashes of those tokens that every text has which contains `literal`: a token at the literal's edge may go on in the
/// text. With `any_case`, only tokens whose case is plain.
pub(crate) fn necessary(literal: &str, any_case: bool, whole_words: bool) -> Vec<u64> {
    let mut hashes = Vec::new();
    tokens(literal, |token| {
        let inside = whole_words || (token.start > 0 && token.end < literal.len());
        if token.kind == Kind::Cjk || (inside && !(any_case && token.kind == Kind::Unicode)) {
            hashes.push(token.hash);
        }
    });
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

/// Ideographs, their extensions, and kana.
const fn is_cjk(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

fn feed(hash: u64, c: char) -> u64 {
    if c.is_ascii() {
        return (hash ^ u64::from(c)).wrapping_mul(FNV_PRIME);
    }
    let mut bytes = [0; 4];
    c.encode_utf8(&mut bytes).bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
}

/// Collects the different tokens of a block.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    hashes: Vec<u64>,
    tidy_at: usize,
    /// Hashes that were added lately, by their low bits: most words come again and again.
    lately: Vec<u64>,
}

const LATELY: usize = 1 << 13;
/// Low bits of a hash that do not choose its slot.
const SLOT_BITS: u32 = 20;

impl Builder {
    pub(crate) fn add(&mut self, text: &str) {
        if self.lately.is_empty() {
            self.lately.resize(LATELY, 0);
            // No slot begins with a hash that belongs there.
            self.lately[0] = 1 << SLOT_BITS;
        }
        let (hashes, lately) = (&mut self.hashes, &mut self.lately);
        tokens(text, |token| match lately.get_mut((token.hash >> SLOT_BITS) as usize % LATELY) {
            Some(known) if *known == token.hash => {}
            Some(known) => {
                *known = token.hash;
                hashes.push(token.hash);
            }
            None => hashes.push(token.hash),
        });
        if self.hashes.len() > self.tidy_at.max(1 << 16) {
            self.tidy();
            self.tidy_at = self.hashes.len() * 2;
        }
    }

    fn tidy(&mut self) {
        self.hashes.sort_unstable();
        self.hashes.dedup();
    }

    pub(crate) fn finish(mut self) -> Result<Vec<u8>, Bad> {
        self.tidy();
        let words = (self.hashes.len() * BITS_PER_TOKEN).div_ceil(64).max(1);
        let mut bits = vec![0u64; words];
        for hash in self.hashes {
            for bit in probes(hash, words) {
                if let Some(word) = bits.get_mut(bit / 64) {
                    *word |= 1 << (bit % 64);
                }
            }
        }
        let raw: Vec<u8> = bits.iter().flat_map(|word| word.to_le_bytes()).collect();
        frame::pack(&raw, 0)
    }
}

fn probes(hash: u64, words: usize) -> impl Iterator<Item = usize> {
    let mixed = mix(hash);
    let (mut at, step) = (mixed, mix(mixed) | 1);
    let bits = words as u64 * 64;
    (0..PROBES).map(move |_| {
        at = at.wrapping_add(step);
        (at % bits) as usize
    })
}

const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The filter of one block.
#[derive(Debug)]
pub(crate) struct Bloom(Vec<u8>);

impl Bloom {
    pub(crate) fn decode(packed: &[u8]) -> Result<Self, Bad> {
        let raw = frame::unpack(packed)?;
        if raw.is_empty() || raw.len() % 8 != 0 { Err(Bad("a filter has a wrong size")) } else { Ok(Self(raw)) }
    }

    /// Whether the block may have all of these tokens.
    pub(crate) fn may_have(&self, hashes: &[u64]) -> bool {
        hashes
            .iter()
            .all(|hash| probes(*hash, self.0.len() / 8).all(|bit| self.0.get(bit / 8).is_some_and(|byte| byte & (1 << (bit % 8)) != 0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bloom(texts: &[&str]) -> Bloom {
        let mut builder = Builder::default();
        texts.iter().for_each(|text| builder.add(text));
        Bloom::decode(&builder.finish().unwrap()).unwrap()
    }

    fn words(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        tokens(text, |token| found.push(&text[token.start..token.end]));
        found
    }

    #[test]
    fn texts_are_cut_into_tokens() {
        for (text, expected) in [
            ("GET /api/v1?id=7_a", vec!["GET", "api", "v1", "id", "7_a"]),
            ("订单支付", vec!["订", "单", "订单", "支", "单支", "付", "支付"]),
            ("user张三ok", vec!["user", "张", "三", "张三", "ok"]),
            ("Größe—x²", vec!["Größe", "x"]),
            ("", vec![]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn only_whole_tokens_are_necessary() {
        assert!(necessary("timeout", false, false).is_empty());
        assert_eq!(necessary("timeout", false, true).len(), 1);
        assert_eq!(necessary("a-bcd-e", false, false), necessary("BCD", false, true));
        assert_eq!(necessary("支付", false, false).len(), 3);
        assert!(necessary("-größe-", true, false).is_empty());
        assert_eq!(necessary("-größe-", false, false).len(), 1);
    }

    #[test]
    fn few_blocks_are_read_in_vain() {
        let many: Vec<String> = (0..4000).map(|n| format!("request-{n:08x}")).collect();
        let filter = bloom(&many.iter().map(String::as_str).collect::<Vec<_>>());
        let wrong = (4000..24000).filter(|n| filter.may_have(&necessary(&format!("{n:08x}"), false, true))).count();
        assert!(wrong < 40, "{wrong} of 20000");
    }

    /// The first bits of a known filter: a change of tokens or hash would lose lines of old blocks.
    #[test]
    fn the_first_version_is_read() {
        let packed: Vec<u8> = include_str!("../../fixtures/bloom_v1.hex")
            .trim()
            .as_bytes()
            .chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect();
        let mut builder = Builder::default();
        builder.add("ERROR order-42 支付失败 größe");
        let now = builder.finish().unwrap();
        assert_eq!(now, packed, "{}", now.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }

    proptest! {
        #[test]
        fn a_part_of_a_text_is_never_denied(text in "[a-cA-C_0-1 .\\-支付失败éÉ]{0,30}", at in any::<prop::sample::Index>(), length in 1usize..12) {
            let chars: Vec<char> = text.chars().collect();
            let start = at.index(chars.len().max(1)).min(chars.len());
            let part: String = chars[start..(start + length).min(chars.len())].iter().collect();
            let filter = bloom(&["other line", &text]);
            prop_assert!(filter.may_have(&necessary(&part, false, false)), "{part:?} in {text:?}");
            prop_assert!(filter.may_have(&necessary(&part.to_ascii_uppercase(), true, false)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(raw in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(filter) = Bloom::decode(&frame::pack(&raw, 0).unwrap()) {
                filter.may_have(&[1, u64::MAX]);
            }
        }
    }
}
