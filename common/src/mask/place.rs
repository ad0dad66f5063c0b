//! Chinese addresses in running text: a province or city, then a street, then a number.

use super::{kind::Kind, scan::Scan, text};

/// Longest address, and how far before the first sign of one it may begin.
const MAX_BYTES: usize = 240;
const BACK: usize = 4;

const PROVINCES: [&str; 34] = [
    "北京",
    "天津",
    "河北",
    "山西",
    "内蒙古",
    "辽宁",
    "吉林",
    "黑龙江",
    "上海",
    "江苏",
    "浙江",
    "安徽",
    "福建",
    "江西",
    "山东",
    "河南",
    "湖北",
    "湖南",
    "广东",
    "广西",
    "海南",
    "重庆",
    "四川",
    "贵州",
    "云南",
    "西藏",
    "陕西",
    "甘肃",
    "青海",
    "宁夏",
    "新疆",
    "台湾",
    "香港",
    "澳门",
];
const STREETS: [[u8; 3]; 9] = letters("路街道巷弄镇村乡园");
/// The second letter of 单元, too.
const NUMBERS: [[u8; 3]; 10] = letters("号室栋幢座楼元弄层組");
const DIGITS: [[u8; 3]; 10] = letters("一二三四五六七八九十");

/// Han letters, three bytes each.
const fn letters<const N: usize>(text: &str) -> [[u8; 3]; N] {
    let bytes = text.as_bytes();
    let mut letters = [[0; 3]; N];
    let mut at = 0;
    while at < N {
        letters[at] = [bytes[at * 3], bytes[at * 3 + 1], bytes[at * 3 + 2]];
        at += 1;
    }
    letters
}

/// Looks around `省` or `市` at `start..behind`.
pub(super) fn around(scan: &mut Scan<'_>, start: usize, behind: usize) -> Option<usize> {
    let end = end_of(scan, behind)?;
    scan.push(Kind::Address, start_of(scan, start), end, "Chinese address");
    Some(end)
}

/// Where the name of the province or city begins.
fn start_of(scan: &Scan<'_>, sign: usize) -> usize {
    let known = PROVINCES.iter().find(|name| scan.part(0, sign).ends_with(name.as_bytes()));
    if let Some(name) = known {
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
            street |= STREETS.contains(letter);
            digits |= DIGITS.contains(letter);
            if street && digits && NUMBERS.contains(letter) {
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
