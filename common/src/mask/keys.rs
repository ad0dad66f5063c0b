//! Keys: does the identifier that ends here tell what stands behind it?
//!
//! One walk from the identifier's end to its start through a radix tree of reversed phrases: `receiverMobile`,
//! `receiver_mobile`, `Receiver Mobile` and `receiver-mobile` all end in `mobile`; `token_count` does not end in `token`. Most
//! keys end before the first step, at their last two letters.

use super::{kind::Kind, phrases, text};
use std::collections::BTreeMap;

/// What a phrase says about the value behind it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Class {
    /// The value is of this kind.
    Value(Kind),
    /// The value is of this kind if it has at least so many letters and digits.
    Long(Kind, u8),
    /// The value is of this kind if it looks like one: the key is a word that has other uses.
    Soft(Kind),
    /// Plain `name`: a person's if it looks like one.
    PlainName,
    /// A header whose value is a scheme and credentials.
    Authorization,
    /// A header whose value is a list of `name=value; `.
    CookieHeader,
    /// Numbers behind it are numbers of things: orders, parcels, traces.
    Thing,
    /// Allowed by the configuration.
    Allowed,
    /// Says nothing, and keeps a shorter phrase from saying something (`ip_address` is no address).
    Neutral,
}

/// A key, or the end of one.
#[derive(Clone, Debug)]
pub(super) struct Phrase {
    /// Lower case, without separators.
    pub(super) text: String,
    pub(super) class: Class,
    /// Counts within a longer word, too: `dbpassword`.
    loose: bool,
}

impl Phrase {
    /// As somebody writes it in a configuration: only as whole words.
    pub(super) fn of_user(key: &str, class: Class) -> Self {
        let text =
            key.bytes().filter(|byte| letter_bit(*byte) != 0 || *byte >= 0x80).map(|byte| byte.to_ascii_lowercase()).collect::<Vec<_>>();
        Self { text: String::from_utf8(text).unwrap_or_default(), class, loose: false }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// The digits and letters that lead on, a bit each in their order.
    letters: u64,
    /// Letters between the one that led here and this node, in [`Keys::labels`].
    label: u16,
    label_len: u8,
    children: u8,
    first: u16,
    /// Position of the phrase plus one.
    accept: u16,
    loose: bool,
}

/// A phrase that was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Found {
    /// Where it starts.
    pub(super) start: usize,
    /// Its number, for [`Keys::text`].
    pub(super) id: u16,
    pub(super) class: Class,
}

/// All phrases.
#[derive(Debug)]
pub(super) struct Keys {
    root: Vec<u16>,
    /// One bit for each pair of last letters that a phrase has: most keys need no more than this look.
    endings: Vec<u64>,
    nodes: Vec<Node>,
    edges: Vec<(u8, u16)>,
    labels: Vec<u8>,
    phrases: Vec<Phrase>,
}

#[derive(Default)]
struct Draft {
    children: BTreeMap<u8, Self>,
    accept: u16,
}

impl Keys {
    /// The built-in phrases and `further` ones, which win.
    pub(super) fn new(further: impl Iterator<Item = Phrase>) -> Self {
        let built_in = phrases::all().map(|(text, class)| Phrase {
            text: text.trim_start_matches('~').to_owned(),
            class,
            loose: text.starts_with('~'),
        });
        let mut keys = Self {
            root: vec![0; 256],
            endings: vec![0; 1024],
            nodes: vec![Node::default()],
            edges: Vec::new(),
            labels: Vec::new(),
            phrases: built_in.chain(further).collect(),
        };
        let mut draft = Draft::default();
        for (at, phrase) in keys.phrases.iter().enumerate() {
            // More phrases than fit: the configuration's check allows far fewer.
            let Ok(id) = u16::try_from(at + 1) else { break };
            if let [.., before, last] = *phrase.text.as_bytes()
                && let Some(bits) = keys.endings.get_mut(ending(before, last).0)
            {
                *bits |= ending(before, last).1;
            }
            let mut node = &mut draft;
            for byte in phrase.text.bytes().rev() {
                node = node.children.entry(byte).or_default();
            }
            // `allow` never takes the sting out of a secret.
            let secret = node.accept.checked_sub(1).and_then(|at| keys.phrases.get(usize::from(at))).is_some_and(Phrase::is_secret);
            if !(phrase.text.is_empty() || secret && phrase.class == Class::Allowed) {
                node.accept = id;
            }
        }
        keys.flatten(&draft, 0);
        let root = keys.nodes.first().copied().unwrap_or_default();
        for (byte, node) in keys.edges_of(&root).to_vec() {
            if let Some(slot) = keys.root.get_mut(usize::from(byte)) {
                *slot = node;
            }
            if let Some(slot) = keys.root.get_mut(usize::from(byte.to_ascii_uppercase())) {
                *slot = node;
            }
        }
        keys
    }

    /// Lays out what follows `draft`, whose own bytes led to the node at `at`.
    fn flatten(&mut self, draft: &Draft, at: usize) {
        let label = self.labels.len();
        let mut draft = draft;
        // No node for a letter that only leads on.
        while let (0, Some((byte, child))) = (draft.accept, draft.children.first_key_value())
            && draft.children.len() == 1
            && at > 0
        {
            self.labels.push(CODES[usize::from(*byte)]);
            draft = child;
        }
        let first = self.edges.len();
        let base = self.nodes.len();
        let mut letters = 0;
        for byte in draft.children.keys() {
            self.edges.push((*byte, u16::try_from(self.nodes.len()).unwrap_or(0)));
            self.nodes.push(Node::default());
            letters |= letter_bit(*byte);
        }
        let phrase = usize::from(draft.accept).checked_sub(1).and_then(|id| self.phrases.get(id));
        let node = Node {
            letters,
            label: u16::try_from(label).unwrap_or(0),
            label_len: u8::try_from(self.labels.len() - label).unwrap_or(0),
            children: u8::try_from(draft.children.len()).unwrap_or(0),
            first: u16::try_from(first).unwrap_or(0),
            accept: draft.accept,
            loose: phrase.is_some_and(|phrase| phrase.loose),
        };
        if let Some(slot) = self.nodes.get_mut(at) {
            *slot = node;
        }
        for (offset, child) in draft.children.values().enumerate() {
            self.flatten(child, base + offset);
        }
    }

    fn edges_of(&self, node: &Node) -> &[(u8, u16)] {
        let first = usize::from(node.first);
        self.edges.get(first..first + usize::from(node.children)).unwrap_or(&[])
    }

    /// The child for a byte's code. Edges are in the order of their bytes, those of letters first.
    #[inline]
    fn step(&self, node: &Node, code: u8) -> Option<u16> {
        if code >= 0x80 {
            return self.edges_of(node).iter().find(|(edge, _)| *edge == code).map(|(_, child)| *child);
        }
        let bit = if code < LETTERS { 1 << code } else { 0 };
        if node.letters & bit == 0 {
            return None;
        }
        let before = (node.letters & (bit - 1)).count_ones() as usize;
        self.edges.get(usize::from(node.first) + before).map(|(_, child)| *child)
    }

    /// The longest phrase that ends right before `end`.
    pub(super) fn find(&self, bytes: &[u8], end: usize) -> Option<Found> {
        let last = end.checked_sub(1)?;
        let (word, bit) = ending(*bytes.get(last.checked_sub(1)?)?, *bytes.get(last)?);
        if self.endings.get(word)? & bit == 0 {
            return None;
        }
        self.walk(bytes, last)
    }

    fn walk(&self, bytes: &[u8], last: usize) -> Option<Found> {
        // What is yet to be looked at, from its end.
        let mut rest = bytes.get(..last)?;
        let mut node = *self.root.get(usize::from(*bytes.get(last)?))?;
        let mut best = None;
        'walk: while node != 0 {
            let here = self.nodes.get(usize::from(node))?;
            let from = usize::from(here.label);
            for code in self.labels.get(from..from + usize::from(here.label_len))? {
                match before(rest) {
                    Some((head, found)) if found == *code => rest = head,
                    _ => break 'walk,
                }
            }
            if here.accept != 0 && (here.loose || starts_word(bytes, rest.len())) {
                best = Some((rest.len(), here.accept - 1));
            }
            let Some((head, code)) = before(rest) else { break };
            let Some(next) = self.step(here, code) else { break };
            (rest, node) = (head, next);
        }
        let (start, id) = best?;
        Some(Found { start, id, class: self.phrases.get(usize::from(id))?.class })
    }

    /// The phrase's text.
    pub(super) fn text(&self, id: u16) -> &str {
        self.phrases.get(usize::from(id)).map_or("", |phrase| &phrase.text)
    }
}

impl Phrase {
    const fn is_secret(&self) -> bool {
        match self.class {
            Class::Value(kind) | Class::Long(kind, _) | Class::Soft(kind) => kind.is_secret(),
            Class::Authorization | Class::CookieHeader => true,
            _ => false,
        }
    }
}

/// Digits and letters have the codes below this.
const LETTERS: u8 = 36;
/// Stands between two words: `card_number`, `Card Number`.
const JOINT: u8 = 64;
const OTHER: u8 = 65;

/// What a byte is in a key: a digit or a letter in either case, in the order of the bytes; a joint; another sign; from 0x80 on itself.
const CODES: [u8; 256] = {
    let mut codes = [OTHER; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        codes[at] = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            b'A'..=b'Z' => byte - b'A' + 10,
            b'_' | b'-' | b'.' | b' ' => JOINT,
            0x80.. => byte,
            _ => OTHER,
        };
        at += 1;
    }
    codes
};

/// The bit of a digit or a letter; 0 for other bytes.
const fn letter_bit(byte: u8) -> u64 {
    let code = CODES[byte as usize];
    if code < LETTERS { 1 << code } else { 0 }
}

/// Place of a pair of letters in the table of endings.
#[inline]
fn ending(before: u8, last: u8) -> (usize, u64) {
    let pair = usize::from(CODES[usize::from(before)]) << 8 | usize::from(CODES[usize::from(last)]);
    (pair >> 6, 1 << (pair & 63))
}

/// The code of the last byte, past one joint between two words, and what is before it.
#[inline]
fn before(bytes: &[u8]) -> Option<(&[u8], u8)> {
    let (last, head) = bytes.split_last()?;
    match CODES[usize::from(*last)] {
        JOINT => head.split_last().map(|(last, head)| (head, CODES[usize::from(*last)])),
        code => Some((head, code)),
    }
}

/// Whether a word starts at `at`: nothing, a sign, a digit or Han before it, or the hump of camel case, or an escape such as `\n`.
#[inline]
fn starts_word(bytes: &[u8], at: usize) -> bool {
    let Some(before) = at.checked_sub(1).and_then(|before| bytes.get(before)) else { return true };
    let first = bytes.get(at).copied().unwrap_or(0);
    !before.is_ascii_alphabetic()
        || first >= 0x80
        || (first.is_ascii_uppercase() && before.is_ascii_lowercase())
        || text::follows_break(bytes, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_key_tells() {
        let keys = Keys::new(std::iter::empty());
        for (key, expected) in [
            ("password", "password"),
            ("DB_PASSWORD", "password"),
            ("dbpassword", "password"),
            ("receiverMobile", "mobile"),
            ("receiver_mobile", "mobile"),
            ("Card Number", "cardnumber"),
            ("wildcard", ""),
            ("token_count", ""),
            ("tokenCount", ""),
            ("status", ""),
            ("ip_address", "ipaddress"),
            ("shipping_address", "shippingaddress"),
            ("design", ""),
            ("客户姓名", "客户姓名"),
            ("新收货人", "收货人"),
            ("", ""),
        ] {
            let found = keys.find(key.as_bytes(), key.len());
            assert_eq!(found.map_or("", |found| keys.text(found.id)), expected, "{key}");
        }
        assert_eq!(keys.find(b"ip_address", 10).unwrap().class, Class::Neutral);
    }

    #[test]
    fn own_keys_win_but_never_over_a_secret() {
        let own = [
            Phrase::of_user("Khach_Hang", Class::Value(Kind::Name)),
            Phrase::of_user("warehouse_phone", Class::Allowed),
            Phrase::of_user("password", Class::Allowed),
        ];
        let keys = Keys::new(own.into_iter());
        let class = |key: &str| keys.find(key.as_bytes(), key.len()).map(|found| found.class);
        assert_eq!(class("khachHang"), Some(Class::Value(Kind::Name)));
        assert_eq!(class("warehousePhone"), Some(Class::Allowed));
        assert_eq!(class("phone"), Some(Class::Value(Kind::Phone)));
        assert_eq!(class("password"), Some(Class::Value(Kind::Password)));
    }
}
