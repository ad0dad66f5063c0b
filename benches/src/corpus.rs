//! Log lines as shops write them, with personal data and secrets planted at known places.
//!
//! nginx, Java (Spring, MyBatis), PHP (Laravel), Node (pino); English and Chinese. Beside what must be masked there are
//! numbers and words that look like it and must stay: order numbers that pass a card's check, waybills like mobile numbers,
//! digests, versions, `token_count`. JSON within JSON, `\u` and percent escapes, full-width signs, cut lines.
//!
//! # Invariants
//! - The same seed gives the same lines.
//! - Every planted value is of the form that its kind asks for: check digits are right, keys and shapes are real. All of
//!   them are made up.
//!
//! IP and interface addresses, devices, places and user names, which the default policy keeps, are in lines of their own
//! ([`Corpus::network`]), and so are events of several lines ([`Corpus::events`]).

mod templates;

use crate::random::Random;
use shipwatch_common::time::UnixMs;

/// A value that must not be readable any more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Planted {
    /// What it is.
    pub kind: &'static str,
    /// First byte in the line.
    pub start: usize,
    /// Behind its last byte.
    pub end: usize,
}

/// A line and what was planted in it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Line {
    /// Without a line break, unless it is an event of several lines.
    pub text: String,
    /// In order.
    pub planted: Vec<Planted>,
}

/// Makes lines.
#[derive(Debug)]
pub struct Corpus {
    random: Random,
    dense: &'static [&'static str],
    dense_percent: u64,
    ms: UnixMs,
}

impl Corpus {
    /// `dense_percent` of the lines have something planted. The first line's time is `start_ms`.
    #[must_use]
    pub const fn new(seed: u64, dense_percent: u64, start_ms: UnixMs) -> Self {
        Self { random: Random::new(seed), dense: templates::DENSE, dense_percent, ms: start_ms }
    }

    /// Lines with what only the policies `gdpr` and `strict` take.
    #[must_use]
    pub const fn network(seed: u64, start_ms: UnixMs) -> Self {
        Self { random: Random::new(seed), dense: templates::NETWORK, dense_percent: 100, ms: start_ms }
    }

    /// Events of several lines.
    #[must_use]
    pub const fn events(seed: u64, start_ms: UnixMs) -> Self {
        Self { random: Random::new(seed), dense: templates::EVENTS, dense_percent: 100, ms: start_ms }
    }

    /// The next line.
    pub fn line(&mut self) -> Line {
        self.ms += i64::from(self.random.below(40) == 0);
        let templates = if self.random.below(100) < self.dense_percent { self.dense } else { templates::CLEAN };
        let mut rest = *self.random.pick(templates);
        let mut line = Line::default();
        while let Some(at) = rest.find(['⟦', '⟨']) {
            line.text.push_str(&rest[..at]);
            let planted = rest[at..].starts_with('⟦');
            let body = &rest[at + '⟦'.len_utf8()..];
            let Some(end) = body.find(['⟧', '⟩']) else { break };
            let name = &body[..end];
            let start = line.text.len();
            if planted {
                let (kind, value) = self.planted(name);
                line.text.push_str(&value);
                line.planted.push(Planted { kind, start, end: line.text.len() });
            } else {
                let value = self.filler(name);
                line.text.push_str(&value);
            }
            rest = &body[end + '⟧'.len_utf8()..];
        }
        line.text.push_str(rest);
        line
    }

    /// Lines of at least this many bytes together, line breaks counted.
    pub fn lines(&mut self, bytes: usize) -> Vec<Line> {
        let (mut lines, mut made) = (Vec::new(), 0);
        while made < bytes {
            let line = self.line();
            made += line.text.len() + 1;
            lines.push(line);
        }
        lines
    }

    fn planted(&mut self, name: &str) -> (&'static str, String) {
        let random = &mut self.random;
        match name {
            "email" => ("email", email(random)),
            "phone" => ("phone", phone(random)),
            "name" => ("name", person(random)),
            "escaped_name" => ("name", person(random).chars().map(|han| format!("\\u{:04x}", u32::from(han))).collect()),
            "address" => ("address", address(random)),
            "national_id" => ("national_id", national_id(random)),
            "card" => ("card", card(random)),
            "iban" => ("iban", iban(random)),
            "token" => ("token", jwt(random)),
            "api_key" => ("api_key", api_key(random)),
            "password" => ("password", random.text("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789!#*_", 12)),
            "latin_name" => ("name", latin_name(random)),
            "cvv" => ("cvv", random.digits(3)),
            "bank_account" => ("bank_account", format!("{}{}", 1 + random.below(9), random.digits(15))),
            "passport" => ("passport", format!("E{}", random.digits(8))),
            "birth_date" => ("birth_date", format!("{}-{:02}-{:02}", 1950 + random.below(55), 1 + random.below(12), 1 + random.below(28))),
            "user_id" => ("user_id", format!("o{}", random.text(LETTERS, 27))),
            "code" => ("code", random.digits(6)),
            "cookie" => ("cookie", format!("uid={}; cart={}", random.text(LETTERS, 20), random.digits(9))),
            "sql_param" => ("sql_param", format!("请放门口{}", person(random))),
            "private_key" => ("private_key", random.text(LETTERS, 64)),
            "us_ssn" => ("national_id", format!("{}-{:02}-{:04}", 100 + random.below(500), 1 + random.below(99), 1 + random.below(9_999))),
            "e164" => ("phone", format!("+49 151 {}", random.digits(8))),
            "bare_phone" => ("phone", format!("13{}", random.digits(9))),
            "wide_phone" => ("phone", wide(&format!("13{}", random.digits(9)))),
            "unicode_email" => ("email", email(random).replace('@', "\\u0040")),
            "percent_email" => ("email", email(random).replace('@', "%40")),
            "zero_width_email" => ("email", email(random).replace('@', "\u{200b}@")),
            "password_word" => ("password", random.text(LETTERS, 12)),
            "latin_address" => ("address", format!("{} {} Street, Springfield", 1 + random.below(900), latin_name(random))),
            "pccc" => ("national_id", format!("P{}", random.digits(12))),
            "cpf" => ("national_id", cpf(random)),
            "username" => ("username", random.text("abcdefghijkmnpqrstuvwxyz", 9)),
            "device_id" => ("device_id", format!("86{}", random.digits(13))),
            "geo" => ("geo", format!("{}.{}", 10 + random.below(80), random.digits(6))),
            "ip" => ("ip", format!("{}.{}.{}.{}", 11 + random.below(110), random.below(256), random.below(256), 1 + random.below(254))),
            "ip6" => ("ip", format!("2001:db8:{}::{}", random.text("123456789abcdef", 4), random.text("123456789abcdef", 3))),
            "mac" => ("mac", [0; 6].map(|_| random.text("0123456789abcdef", 2)).join(":")),
            other => ("unknown", other.to_owned()),
        }
    }

    fn filler(&mut self, name: &str) -> String {
        const HEX: &str = "0123456789abcdef";
        let seconds = self.ms.div_euclid(1000).rem_euclid(86_400);
        let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let (year, month, day) = civil(self.ms.div_euclid(86_400_000));
        let (ms, random) = (self.ms, &mut self.random);
        match name {
            "time" => format!("{year}-{month:02}-{day:02} {clock}.{:03}", ms.rem_euclid(1000)),
            "date" => format!("{year}-{month:02}-{day:02} {clock}"),
            "clf" => format!("{day:02}/{}/{year}:{clock} +0000", MONTHS.get(month as usize - 1).unwrap_or(&"Jan")),
            "epoch" => ms.to_string(),
            "ip" => format!("10.{}.{}.{}", random.below(256), random.below(256), 1 + random.below(254)),
            "small" => (1 + random.below(99)).to_string(),
            "number" => (100 + random.below(99_900)).to_string(),
            // Date, time and a sequence, as shops number their orders.
            "order" => format!("{year}{month:02}{day:02}{}{}", clock.replace(':', ""), random.digits(4)),
            "waybill" => random.digits(13),
            "quote" => "\"".to_owned(),
            "newline" => "\n".to_owned(),
            "phone_like" => format!("13{}", random.digits(9)),
            "card_like" => card(random),
            "ean" => ean(random),
            "hex" => random.text(HEX, 32),
            "sha" => random.text(HEX, 40),
            "short_hex" => random.text(HEX, 8),
            "uuid" => [8, 4, 4, 4, 12].map(|length| random.text(HEX, length)).join("-"),
            other => other.to_owned(),
        }
    }
}

const LETTERS: &str = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Year, month and day of a day since 1970, by counting years from March so that the leap day comes last.
pub(crate) const fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * from_march + 2) / 5 + 1) as u32;
    let month = (if from_march < 10 { from_march + 3 } else { from_march - 9 }) as u32;
    (year_of_era + era * 400 + (month <= 2) as i64, month, day)
}

fn email(random: &mut Random) -> String {
    let letters = "abcdefghijklmnopqrstuvwxyz";
    let length = 3 + random.below(8) as usize;
    let local = random.text(letters, length);
    let more = if random.below(2) == 0 { format!(".{}", random.text(letters, 4)) } else { random.digits(3) };
    let domain = random.pick(&["gmail.com", "qq.com", "163.com", "outlook.de", "example.co.uk", "mail.shop.example"]);
    format!("{local}{more}@{domain}")
}

fn phone(random: &mut Random) -> String {
    let (second, rest) = (3 + random.below(7), random.digits(9));
    match random.below(5) {
        0 => format!("+861{second}{rest}"),
        1 => format!("1{second}{}-{}-{}", &rest[..1], &rest[1..5], &rest[5..]),
        _ => format!("1{second}{rest}"),
    }
}

fn person(random: &mut Random) -> String {
    let family = random.pick(&["王", "李", "张", "刘", "陈", "杨", "赵", "黄", "周", "吴", "徐", "孙", "欧阳"]);
    let given = random.pick(&["伟", "芳", "秀英", "娜", "敏", "静", "丽", "强", "磊", "洋", "艳梅", "子轩", "雨桐", "建国"]);
    format!("{family}{given}")
}

fn latin_name(random: &mut Random) -> String {
    let given = random.pick(&["Anna", "Jonas", "Maria", "Peter", "Wei", "Olivia"]);
    format!("{given} {}", random.pick(&["Keller", "Smith", "Garcia", "Novak", "Zhang"]))
}

/// In full-width signs.
fn wide(text: &str) -> String {
    text.chars().map(|sign| char::from_u32(u32::from(sign) + 0xFEE0).unwrap_or(sign)).collect()
}

fn address(random: &mut Random) -> String {
    let city = random.pick(&["广东省深圳市南山区", "浙江省杭州市西湖区", "江苏省苏州市工业园区", "四川省成都市武侯区", "上海市浦东新区"]);
    let street = random.pick(&["科技园路", "文三路", "人民南路", "世纪大道", "中山北街"]);
    format!("{city}{street}{}号{}栋{}室", 1 + random.below(900), 1 + random.below(30), 101 + random.below(2_000))
}

/// Eighteen characters with the check digit of GB 11643.
fn national_id(random: &mut Random) -> String {
    let region = random.pick(&["110101", "310115", "440305", "330106", "510107", "320506"]);
    let (year, month, day) = (1950 + random.below(55), 1 + random.below(12), 1 + random.below(28));
    let body = format!("{region}{year}{month:02}{day:02}{}", random.digits(3));
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let sum: u32 = body.bytes().zip(WEIGHTS).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
    format!("{body}{}", char::from(b"10X98765432"[sum as usize % 11]))
}

/// Sixteen or nineteen digits with an issuer's beginning and Luhn's check digit.
fn card(random: &mut Random) -> String {
    let (issuer, length) = *random.pick(&[("4", 16), ("52", 16), ("6222", 19), ("6217", 16), ("55", 16)]);
    let body = format!("{issuer}{}", random.digits(length - 1 - issuer.len()));
    let sum: u32 = body
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let digit = u32::from(digit - b'0');
            if at % 2 == 0 { digit * 2 / 10 + digit * 2 % 10 } else { digit }
        })
        .sum();
    format!("{body}{}", (10 - sum % 10) % 10)
}

/// A German account number with the check digits of ISO 13616.
fn iban(random: &mut Random) -> String {
    let account = random.digits(18);
    // Behind the account come D, E as 13, 14 and the check digits as 00.
    let rest = format!("{account}131400").bytes().fold(0u32, |rest, digit| (rest * 10 + u32::from(digit - b'0')) % 97);
    format!("DE{:02}{account}", 98 - rest)
}

fn jwt(random: &mut Random) -> String {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // {"alg":"HS256"} and {"sub":"…
    format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOi{}.{}", random.text(alphabet, 60), random.text(alphabet, 43))
}

fn api_key(random: &mut Random) -> String {
    const HEX: &str = "0123456789abcdef";
    match random.below(8) {
        0 => format!("AKIA{}", random.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)),
        1 => format!("AKID{}", random.text(LETTERS, 32)),
        2 => format!("ghp_{}", random.text(LETTERS, 36)),
        3 => format!("sk_live_{}", random.text(LETTERS, 24)),
        4 => format!("shpat_{}", random.text(HEX, 32)),
        5 => format!("amzn.mws.{}", [8, 4, 4, 4, 12].map(|length| random.text(HEX, length)).join("-")),
        6 => format!("AIza{}", random.text(LETTERS, 35)),
        _ => format!("LTAI5t{}", random.text(LETTERS, 18)),
    }
}

/// Eleven digits with the two check digits of a CPF.
fn cpf(random: &mut Random) -> String {
    let mut digits: Vec<u64> = (0..9).map(|_| random.below(10)).collect();
    for _ in 0..2 {
        let len = digits.len() as u64;
        let sum: u64 = digits.iter().zip(0..).map(|(digit, at)| digit * (len + 1 - at)).sum();
        digits.push(sum * 10 % 11 % 10);
    }
    digits.iter().map(ToString::to_string).collect()
}

/// Thirteen digits with the check digit of EAN-13.
fn ean(random: &mut Random) -> String {
    let body = format!("690{}", random.digits(9));
    let sum: u32 = body.bytes().enumerate().map(|(at, digit)| u32::from(digit - b'0') * if at % 2 == 0 { 1 } else { 3 }).sum();
    format!("{body}{}", (10 - sum % 10) % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_is_planted_lies_where_it_is_said_to() {
        let (first, second) = (Corpus::new(5, 60, 0).lines(200_000), Corpus::new(5, 60, 0).lines(200_000));
        assert_eq!(first, second, "the same seed gave other lines");
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        let dense = first.iter().filter(|line| !line.planted.is_empty()).count();
        assert!((0.55..0.65).contains(&(dense as f64 / first.len() as f64)), "{dense} of {}", first.len());
        for line in &first {
            assert!(!line.text.contains(['⟦', '⟧', '⟨', '⟩', '\n']), "{}", line.text);
            for planted in &line.planted {
                *kinds.entry(planted.kind).or_default() += 1;
                let value = &line.text[planted.start..planted.end];
                let fits = match planted.kind {
                    "email" => ["@", "%40", "\\u0040"].iter().any(|sign| value.contains(sign)),
                    "phone" => value.chars().filter(|sign| sign.is_numeric()).count() >= 11,
                    "token" => value.starts_with("eyJ"),
                    "iban" => value.starts_with("DE") && value.len() == 22,
                    "national_id" => matches!(value.len(), 11 | 13 | 18),
                    _ => !value.is_empty(),
                };
                assert!(fits, "{planted:?} {value}");
            }
        }
        let all = [
            "address",
            "api_key",
            "bank_account",
            "birth_date",
            "card",
            "code",
            "cookie",
            "cvv",
            "email",
            "iban",
            "name",
            "national_id",
            "passport",
            "password",
            "phone",
            "private_key",
            "sql_param",
            "token",
            "user_id",
        ];
        assert!(kinds.keys().copied().eq(all), "{kinds:?}");
    }

    #[test]
    fn dates() {
        for (days, date) in [(0, (1970, 1, 1)), (11_016, (2000, 2, 29)), (20_781, (2026, 11, 24)), (-1, (1969, 12, 31))] {
            assert_eq!(civil(days), date);
        }
    }

    #[test]
    fn check_digits_are_right() {
        let mut random = Random::new(9);
        for _ in 0..200 {
            let card: Vec<u32> = card(&mut random).bytes().rev().map(|digit| u32::from(digit - b'0')).collect();
            let luhn = card.iter().enumerate().map(|(at, d)| if at % 2 == 1 { d * 2 / 10 + d * 2 % 10 } else { *d }).sum::<u32>();
            assert_eq!(luhn % 10, 0, "{card:?}");
            let iban = iban(&mut random);
            let moved = format!("{}1314{}", &iban[4..], &iban[2..4]);
            let rest = moved.bytes().fold(0, |rest, digit| (rest * 10 + u32::from(digit - b'0')) % 97);
            assert_eq!(rest, 1, "{iban}");
        }
        // Computed by hand from the table of GB 11643.
        let id = national_id(&mut Random::new(1));
        let weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2, 1];
        let sum: u32 = id.bytes().zip(weights).map(|(c, w)| w * if c == b'X' { 10 } else { u32::from(c - b'0') }).sum();
        assert_eq!(sum % 11, 1, "{id}");
    }
}
