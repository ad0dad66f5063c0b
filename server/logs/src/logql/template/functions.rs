//! What templates can call. Values are texts; numbers are read from them where a function needs one.

use regex::{NoExpand, Regex};
use std::ops::RangeInclusive;

type Outcome = Result<String, String>;

/// Longest text that `repeat` and padding make.
const MADE_BYTES: usize = 1 << 20;

/// A function.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Function {
    Lower,
    Upper,
    Title,
    TrimSpace,
    TrimAll { text_first: bool },
    TrimLeft,
    TrimRight,
    TrimPrefix { text_first: bool },
    TrimSuffix { text_first: bool },
    Replace,
    ReplaceFirst,
    Truncate,
    Substring,
    Repeat,
    Default,
    Contains,
    HasPrefix,
    HasSuffix,
    Equal,
    Length,
    Sum,
    Difference,
    Product,
    Quotient,
    Remainder,
    SumFloat,
    DifferenceFloat,
    ProductFloat,
    QuotientFloat,
    Maximum,
    Minimum,
    Round,
    Ceiling,
    Floor,
    Whole,
    Float,
    Printf,
    UrlEncode,
    UrlDecode,
    Base64Encode,
    Base64Decode,
    RegexReplace,
    RegexReplaceLiteral,
    Count,
}

/// A function by its name, and how many arguments it takes.
pub(super) fn lookup(name: &str) -> Option<(Function, RangeInclusive<usize>)> {
    use Function as F;
    Some(match name {
        "ToLower" | "lower" => (F::Lower, 1..=1),
        "ToUpper" | "upper" => (F::Upper, 1..=1),
        "Title" | "title" => (F::Title, 1..=1),
        "TrimSpace" | "trim" => (F::TrimSpace, 1..=1),
        "Trim" => (F::TrimAll { text_first: true }, 2..=2),
        "trimAll" => (F::TrimAll { text_first: false }, 2..=2),
        "TrimLeft" => (F::TrimLeft, 2..=2),
        "TrimRight" => (F::TrimRight, 2..=2),
        "TrimPrefix" => (F::TrimPrefix { text_first: true }, 2..=2),
        "trimPrefix" => (F::TrimPrefix { text_first: false }, 2..=2),
        "TrimSuffix" => (F::TrimSuffix { text_first: true }, 2..=2),
        "trimSuffix" => (F::TrimSuffix { text_first: false }, 2..=2),
        "replace" => (F::Replace, 3..=3),
        "Replace" => (F::ReplaceFirst, 4..=4),
        "trunc" => (F::Truncate, 2..=2),
        "substr" => (F::Substring, 3..=3),
        "repeat" => (F::Repeat, 2..=2),
        "default" => (F::Default, 2..=2),
        "contains" => (F::Contains, 2..=2),
        "hasPrefix" => (F::HasPrefix, 2..=2),
        "hasSuffix" => (F::HasSuffix, 2..=2),
        "eq" => (F::Equal, 2..=2),
        "len" => (F::Length, 1..=1),
        "add" => (F::Sum, 1..=16),
        "sub" => (F::Difference, 2..=2),
        "mul" => (F::Product, 1..=16),
        "div" => (F::Quotient, 2..=2),
        "mod" => (F::Remainder, 2..=2),
        "addf" => (F::SumFloat, 1..=16),
        "subf" => (F::DifferenceFloat, 2..=2),
        "mulf" => (F::ProductFloat, 1..=16),
        "divf" => (F::QuotientFloat, 2..=2),
        "max" => (F::Maximum, 1..=16),
        "min" => (F::Minimum, 1..=16),
        "round" => (F::Round, 2..=2),
        "ceil" => (F::Ceiling, 1..=1),
        "floor" => (F::Floor, 1..=1),
        "int" => (F::Whole, 1..=1),
        "float64" => (F::Float, 1..=1),
        "printf" => (F::Printf, 1..=16),
        "urlencode" => (F::UrlEncode, 1..=1),
        "urldecode" => (F::UrlDecode, 1..=1),
        "b64enc" => (F::Base64Encode, 1..=1),
        "b64dec" => (F::Base64Decode, 1..=1),
        "regexReplaceAll" => (F::RegexReplace, 3..=3),
        "regexReplaceAllLiteral" => (F::RegexReplaceLiteral, 3..=3),
        "count" => (F::Count, 2..=2),
        _ => return None,
    })
}

fn whole(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("template: `{}` is not a whole number", shown(text)))
}

fn float(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("template: `{}` is not a number", shown(text)))
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

fn truth(is: bool) -> Outcome {
    Ok(is.to_string())
}

impl Function {
    pub(super) const fn takes_pattern(self) -> bool {
        matches!(self, Self::RegexReplace | Self::RegexReplaceLiteral | Self::Count)
    }

    /// The functions with a pattern.
    pub(super) fn replace(self, regex: &Regex, arguments: &[String]) -> String {
        let text = |at: usize| arguments.get(at).map_or("", String::as_str);
        match self {
            Self::Count => regex.find_iter(text(0)).count().to_string(),
            Self::RegexReplace => regex.replace_all(text(0), text(1)).into_owned(),
            _ => regex.replace_all(text(0), NoExpand(text(1))).into_owned(),
        }
    }

    /// The other functions. The number of arguments was checked when the template was read.
    pub(super) fn call(self, arguments: &[String]) -> Outcome {
        let text = |at: usize| arguments.get(at).map_or("", String::as_str);
        match self {
            Self::Sum | Self::Difference | Self::Product | Self::Quotient | Self::Remainder => self.whole_numbers(arguments),
            Self::SumFloat
            | Self::DifferenceFloat
            | Self::ProductFloat
            | Self::QuotientFloat
            | Self::Maximum
            | Self::Minimum
            | Self::Round
            | Self::Ceiling
            | Self::Floor
            | Self::Whole
            | Self::Float => self.floats(arguments),
            Self::Contains => truth(text(1).contains(text(0))),
            Self::HasPrefix => truth(text(1).starts_with(text(0))),
            Self::HasSuffix => truth(text(1).ends_with(text(0))),
            Self::Equal => truth(text(0) == text(1)),
            Self::Length => Ok(text(0).len().to_string()),
            Self::Default => Ok(if text(1).is_empty() { text(0) } else { text(1) }.to_owned()),
            Self::Printf => printf(arguments),
            Self::Truncate => truncate(whole(text(0))?, text(1)),
            Self::Substring => substring(whole(text(0))?, whole(text(1))?, text(2)),
            Self::Repeat => repeat(whole(text(0))?, text(1)),
            Self::ReplaceFirst => Ok(match usize::try_from(whole(text(3))?) {
                Ok(times) => text(0).replacen(text(1), text(2), times),
                Err(_) => text(0).replace(text(1), text(2)),
            }),
            _ => self.texts(arguments),
        }
    }

    fn texts(self, arguments: &[String]) -> Outcome {
        let text = |at: usize| arguments.get(at).map_or("", String::as_str);
        let pair = |text_first: bool| if text_first { (text(0), text(1)) } else { (text(1), text(0)) };
        Ok(match self {
            Self::Lower => text(0).to_lowercase(),
            Self::Upper => text(0).to_uppercase(),
            Self::Title => title(text(0)),
            Self::TrimAll { text_first } => {
                let (of, signs) = pair(text_first);
                of.trim_matches(|c| signs.contains(c)).to_owned()
            }
            Self::TrimLeft => text(0).trim_start_matches(|c| text(1).contains(c)).to_owned(),
            Self::TrimRight => text(0).trim_end_matches(|c| text(1).contains(c)).to_owned(),
            Self::TrimPrefix { text_first } => {
                let (of, prefix) = pair(text_first);
                of.strip_prefix(prefix).unwrap_or(of).to_owned()
            }
            Self::TrimSuffix { text_first } => {
                let (of, suffix) = pair(text_first);
                of.strip_suffix(suffix).unwrap_or(of).to_owned()
            }
            Self::Replace => text(2).replace(text(0), text(1)),
            Self::UrlEncode => url_encode(text(0)),
            Self::UrlDecode => url_decode(text(0)).ok_or("template: the text is not percent-encoded UTF-8")?,
            Self::Base64Encode => base64_encode(text(0).as_bytes()),
            Self::Base64Decode => base64_decode(text(0)).ok_or("template: the text is not base64 of UTF-8")?,
            _ => text(0).trim().to_owned(),
        })
    }

    fn whole_numbers(self, arguments: &[String]) -> Outcome {
        let numbers = arguments.iter().map(|text| whole(text)).collect::<Result<Vec<_>, _>>()?;
        let (first, second) = (numbers.first().copied().unwrap_or(0), numbers.get(1).copied().unwrap_or(0));
        let made = match self {
            Self::Sum => numbers.iter().fold(0i64, |sum, number| sum.wrapping_add(*number)),
            Self::Difference => first.wrapping_sub(second),
            Self::Product => numbers.iter().fold(1i64, |product, number| product.wrapping_mul(*number)),
            _ if second == 0 => return Err("template: division by zero".to_owned()),
            Self::Quotient => first.wrapping_div(second),
            _ => first.wrapping_rem(second),
        };
        Ok(made.to_string())
    }

    fn floats(self, arguments: &[String]) -> Outcome {
        let numbers = arguments.iter().map(|text| float(text)).collect::<Result<Vec<_>, _>>()?;
        let (first, second) = (numbers.first().copied().unwrap_or(0.0), numbers.get(1).copied().unwrap_or(0.0));
        let made = match self {
            Self::SumFloat => numbers.iter().sum(),
            Self::DifferenceFloat => first - second,
            Self::ProductFloat => numbers.iter().product(),
            Self::QuotientFloat => first / second,
            Self::Maximum => numbers.iter().copied().fold(first, f64::max),
            Self::Minimum => numbers.iter().copied().fold(first, f64::min),
            Self::Round => {
                let scale = 10f64.powi(second.clamp(0.0, 15.0) as i32);
                (first * scale).round() / scale
            }
            Self::Ceiling => first.ceil(),
            Self::Floor => first.floor(),
            Self::Whole => first.trunc(),
            _ => first,
        };
        Ok(made.to_string())
    }
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .map(|c| {
            let made = if start { c.to_uppercase().next().unwrap_or(c) } else { c };
            start = c.is_whitespace();
            made
        })
        .collect()
}

/// The first characters, or with a negative number the last.
fn truncate(length: i64, text: &str) -> Outcome {
    let wanted = usize::try_from(length.unsigned_abs()).unwrap_or(usize::MAX);
    let skipped = if length < 0 { text.chars().count().saturating_sub(wanted) } else { 0 };
    Ok(text.chars().skip(skipped).take(wanted).collect())
}

fn substring(start: i64, end: i64, text: &str) -> Outcome {
    let start = usize::try_from(start).unwrap_or(0);
    let end = usize::try_from(end).unwrap_or(usize::MAX);
    Ok(text.chars().skip(start).take(end.saturating_sub(start)).collect())
}

fn repeat(times: i64, text: &str) -> Outcome {
    let times = usize::try_from(times).unwrap_or(0);
    if times.saturating_mul(text.len()) > MADE_BYTES {
        return Err(format!("template: `repeat` makes more than {MADE_BYTES} bytes"));
    }
    Ok(text.repeat(times))
}

/// `%s`, `%v`, `%q`, `%d`, `%f` with `-`, `0`, width and precision; `%%`.
fn printf(arguments: &[String]) -> Outcome {
    let Some((format, values)) = arguments.split_first() else { return Ok(String::new()) };
    let mut values = values.iter();
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        let verb = loop {
            match chars.next() {
                Some(c @ ('-' | '0'..='9' | '.')) if flags.len() < 16 => flags.push(c),
                Some(verb) => break verb,
                None => return Err("template: the format of `printf` ends within a `%`".to_owned()),
            }
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values.next().ok_or("template: `printf` has too few arguments")?;
        let (width, precision) = flags.split_once('.').unwrap_or((&flags, ""));
        let precision: Option<usize> = precision.parse().ok().filter(|precision| *precision <= 64);
        let made = match verb {
            's' | 'v' => value.chars().take(precision.unwrap_or(usize::MAX)).collect(),
            'q' => format!("{value:?}"),
            'd' => (float(value)? as i64).to_string(),
            'f' => format!("{:.*}", precision.unwrap_or(6), float(value)?),
            other => return Err(format!("template: `%{other}` is not supported")),
        };
        pad(&mut out, &made, width);
    }
    Ok(out)
}

fn pad(out: &mut String, text: &str, width: &str) {
    let (left, width) = width.strip_prefix('-').map_or((false, width), |width| (true, width));
    let fill = if !left && width.starts_with('0') { '0' } else { ' ' };
    let missing = width.parse::<usize>().unwrap_or(0).min(1_000).saturating_sub(text.chars().count());
    let padding = std::iter::repeat_n(fill, missing);
    if left {
        out.push_str(text);
        out.extend(padding);
    } else {
        out.extend(padding);
        out.push_str(text);
    }
}

fn url_encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            byte if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn url_decode(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(byte) = rest.bytes().next() {
        let mut length = 1;
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = rest.get(1..3).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
                length = 3;
            }
            _ => {
                length = rest.chars().next()?.len_utf8();
                out.extend_from_slice(rest.get(..length)?.as_bytes());
            }
        }
        rest = rest.get(length..)?;
    }
    String::from_utf8(out).ok()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64_encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let index = (bits >> (18 - 6 * at) & 63) as usize;
            let sign = ALPHABET.get(index).copied().map_or('=', char::from);
            out.push(if at <= chunk.len() { sign } else { '=' });
        }
    }
    out
}

fn base64_decode(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let (mut bits, mut have) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|sign| *sign == byte)?;
        bits = bits << 6 | value as u32;
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have & 255) as u8);
        }
    }
    String::from_utf8(out).ok()
}

/// A time as RFC 3339 in UTC, without needless zeros.
pub(super) fn rfc3339(ts_ns: i64) -> String {
    let (seconds, nanos) = (ts_ns.div_euclid(1_000_000_000), ts_ns.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01 in the proleptic Gregorian calendar.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60);
    if nanos != 0 {
        text.push_str(format!(".{nanos:09}").trim_end_matches('0'));
    }
    text.push('Z');
    text
}
