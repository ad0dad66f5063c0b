//! Chinese addresses in running text: a province or city, then a street, then a number.

use super::{kind::Kind, scan::Scan, text};

/// Longest address, and how far before the first sign of one it may begin.
const MAX_BYTES: usize = 240;
const BACK: usize = 4;

/// Names of provinces and cities of their rank, two characters each.
const PROVINCES: &str = "北京天津河北山西辽宁吉林上海江苏浙江安徽福建江西山东河南湖北湖南广东广西海南重庆四川贵州云南西藏陕西甘肃青海宁夏新疆\
     台湾香港澳门";
const LONG_PROVINCES: [&str; 5] = ["内蒙古", "黑龙江", "广西壮族", "宁夏回族", "新疆维吾尔"];
const NAME_BYTES: usize = 6;

/// What a Han letter may be in an address.
#[derive(Clone, Copy, Default)]
struct Sign {
    street: bool,
    number: bool,
    digit: bool,
}

#[inline]
fn sign(letter: [u8; 3]) -> Sign {
    let none = Sign::default();
    let [first, second, third] = letter;
    let code = u32::from(first & 0x0F) << 12 | u32::from(second & 0x3F) << 6 | u32::from(third & 0x3F);
    match char::from_u32(code).unwrap_or_default() {
        '路' | '街' | '道' | '巷' | '镇' | '村' | '乡' | '园' => Sign { street: true, ..none },
        '弄' => Sign { street: true, number: true, ..none },
        // The second letter of 单元, too.
        '号' | '室' | '栋' | '幢' | '座' | '楼' | '元' | '层' | '組' => Sign { number: true, ..none },
        '一' | '二' | '三' | '四' | '五' | '六' | '七' | '八' | '九' | '十' => Sign { digit: true, ..none },
        _ => none,
    }
}

/// Looks around `省`, `市` or `自治区` at `start..behind`.
pub(super) fn around(scan: &mut Scan<'_>, start: usize, behind: usize) -> Option<usize> {
    let end = end_of(scan, behind)?;
    scan.push(Kind::Address, start_of(scan, start), end, "Chinese address");
    Some(end)
}

/// Where the name of the province or city begins.
fn start_of(scan: &Scan<'_>, sign: usize) -> usize {
    let before = scan.part(0, sign);
    if let Some(last) = before.last_chunk::<NAME_BYTES>()
        && PROVINCES.as_bytes().chunks_exact(NAME_BYTES).any(|name| name == last)
    {
        return sign - NAME_BYTES;
    }
    if let Some(name) = LONG_PROVINCES.iter().find(|name| before.ends_with(name.as_bytes())) {
        return sign - name.len();
    }
    let mut start = sign;
    for _ in 0..BACK {
        match start.checked_sub(3) {
            Some(before) if text::is_han(scan.bytes, before) => start = before,
            _ => break,
        }
    }
    start
}

/// Behind the last number of a house, if a street and a number follow.
fn end_of(scan: &Scan<'_>, from: usize) -> Option<usize> {
    let mut at = from;
    let (mut street, mut digits, mut end) = (false, false, None);
    let last = (from + MAX_BYTES).min(scan.bytes.len());
    while at < last {
        if let Some(letter) = scan.bytes.get(at..).and_then(<[u8]>::first_chunk).filter(|_| text::is_han(scan.bytes, at)) {
            at += 3;
            let sign = sign(*letter);
            street |= sign.street;
            digits |= sign.digit;
            if street && digits && sign.number {
                end = Some(at);
            }
        } else if scan.byte(at).is_ascii_alphanumeric() || matches!(scan.byte(at), b'-' | b'#' | b' ' | b'(' | b')') {
            digits |= scan.byte(at).is_ascii_digit();
            at += 1;
            // `18号楼2-301`: what follows the last word and is a number belongs to it.
            if end == Some(at - 1) && (scan.before(at).is_ascii_digit() || scan.before(at) == b'-') {
                end = Some(at);
            }
        } else {
            break;
        }
    }
    end
}
