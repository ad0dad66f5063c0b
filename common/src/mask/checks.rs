//! Check digits and number plans. Everything takes digits as ASCII bytes and says yes or no.

/// The value of a digit; anything else counts as zero, callers pass digits.
const fn value(byte: u8) -> u32 {
    if byte.is_ascii_digit() { (byte - b'0') as u32 } else { 0 }
}

/// The number that the digits make; stops growing where it would overflow.
fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0_u32, |sum, digit| sum.saturating_mul(10).saturating_add(value(*digit)))
}

/// The check of payment cards (ISO/IEC 7812-1).
pub(super) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let doubled = value(*digit) << (at % 2);
            if doubled > 9 { doubled - 9 } else { doubled }
        })
        .sum();
    sum.is_multiple_of(10) && digits.iter().any(|digit| *digit != b'0')
}

/// Whether an issuer gives out numbers of this length with these first digits.
pub(super) fn issued(digits: &[u8]) -> bool {
    let len = digits.len();
    let first = |count: usize| digits.get(..count).map_or(0, number);
    match (first(1), first(2), first(3), first(4)) {
        (4, ..) => matches!(len, 13 | 16 | 19),
        (_, 51..=55, ..) | (.., 2221..=2720) => len == 16,
        (_, 34 | 37, ..) | (.., 1800 | 2131) => len == 15,
        (_, 36 | 38 | 39, ..) | (_, _, 300..=305, _) => (14..=19).contains(&len),
        (_, 35 | 62 | 60 | 64 | 65 | 81, ..) => (16..=19).contains(&len),
        (_, 50 | 56..=58 | 63 | 67, ..) => (12..=19).contains(&len),
        _ => false,
    }
}

/// Provinces of the first two digits of a resident's identity number (GB/T 2260).
fn province(code: u32) -> bool {
    matches!(code, 11..=15 | 21..=23 | 31..=37 | 41..=46 | 50..=54 | 61..=65 | 71 | 81..=83 | 91)
}

fn date(year: u32, month: u32, day: u32) -> bool {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        1..=12 => 31,
        _ => return false,
    };
    (1..=days).contains(&day)
}

/// A Chinese resident's identity number of 18 places (GB 11643-1999).
pub(super) fn resident_id(id: &[u8]) -> bool {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    const CHECKS: &[u8; 11] = b"10X98765432";
    let (Some(body), [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, check]) = (id.get(..17), id) else { return false };
    let part = |from: usize, to: usize| body.get(from..to).map_or(0, number);
    let sum: u32 = body.iter().zip(WEIGHTS).map(|(digit, weight)| value(*digit) * weight).sum();
    body.iter().all(u8::is_ascii_digit)
        && province(part(0, 2))
        && (1800..=2200).contains(&part(6, 10))
        && date(part(6, 10), part(10, 12), part(12, 14))
        && CHECKS.get((sum % 11) as usize) == Some(&check.to_ascii_uppercase())
}

/// The form of 15 digits that was issued until 1999. It has no check digit.
pub(super) fn old_resident_id(digits: &[u8]) -> bool {
    let part = |from: usize, to: usize| digits.get(from..to).map_or(0, number);
    digits.len() == 15 && province(part(0, 2)) && date(1900 + part(6, 8), part(8, 10), part(10, 12))
}

/// Lengths of account numbers and the countries that have them (SWIFT IBAN registry).
const IBAN_COUNTRIES: [(u8, &str); 18] = [
    (15, "NO"),
    (16, "BE"),
    (18, "DKFKFIFOGLNLSD"),
    (19, "MKSI"),
    (20, "ATBAEEKZXKLTLUMN"),
    (21, "HRLVLICH"),
    (22, "BHBGCRGEDEIEMERSGBVA"),
    (23, "TLGIIQILSOAEOM"),
    (24, "ADCZMDPKROSASKESSETNVGDZ"),
    (25, "LYPTST"),
    (26, "ISTR"),
    (27, "FRGRITMCMRSMBIDJ"),
    (28, "ALAZBYCYDOSVGTHULBNIPL"),
    (29, "BREGPSQAUA"),
    (30, "JOKWMUYE"),
    (31, "MTSC"),
    (32, "LC"),
    (33, "RU"),
];

/// The same by the two letters, so that a look costs nothing.
const IBAN_LENS: [[u8; 26]; 26] = {
    let mut lens = [[0; 26]; 26];
    let mut row = 0;
    while row < IBAN_COUNTRIES.len() {
        let (len, names) = IBAN_COUNTRIES[row];
        let names = names.as_bytes();
        let mut at = 0;
        while at < names.len() {
            lens[(names[at] - b'A') as usize][(names[at + 1] - b'A') as usize] = len;
            at += 2;
        }
        row += 1;
    }
    lens
};

/// Length of the account numbers of a country, by its two letters.
pub(super) fn iban_len(country: [u8; 2]) -> Option<usize> {
    let [first, second] = country.map(|letter| usize::from(letter.to_ascii_uppercase().wrapping_sub(b'A')));
    IBAN_LENS.get(first)?.get(second).copied().filter(|len| *len > 0).map(usize::from)
}

/// The check of account numbers (ISO 13616): the rest of dividing by 97 is 1.
pub(super) fn iban(account: &[u8]) -> bool {
    let (Some(head), Some(body)) = (account.get(..4), account.get(4..)) else { return false };
    let mut rest = 0_u32;
    for byte in body.iter().chain(head) {
        rest = match byte {
            b'0'..=b'9' => rest * 10 + value(*byte),
            letter if letter.is_ascii_alphabetic() => rest * 100 + u32::from(letter.to_ascii_uppercase() - b'A') + 10,
            _ => return false,
        } % 97;
    }
    rest == 1
}

/// A social security number of the United States, nine digits: never 000, 666 or 9xx first, no part all zero.
pub(super) fn us_ssn(digits: &[u8]) -> bool {
    let part = |from: usize, to: usize| digits.get(from..to).map_or(0, number);
    let area = part(0, 3);
    digits.len() == 9 && area != 0 && area != 666 && area < 900 && part(3, 5) != 0 && part(5, 9) != 0
}

/// A Brazilian CPF, eleven digits with two check digits.
pub(super) fn cpf(digits: &[u8]) -> bool {
    let check = |len: usize| {
        let sum: u32 = digits.iter().take(len).enumerate().map(|(at, digit)| value(*digit) * (len + 1 - at) as u32).sum();
        (sum * 10 % 11) % 10 == digits.get(len).map_or(10, |digit| value(*digit))
    };
    digits.len() == 11 && digits.windows(2).any(|pair| matches!(pair, [a, b] if a != b)) && check(9) && check(10)
}

/// A Korean resident registration number, thirteen digits.
pub(super) fn korean_id(digits: &[u8]) -> bool {
    const WEIGHTS: [u32; 12] = [2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5];
    let part = |from: usize, to: usize| digits.get(from..to).map_or(0, number);
    let sum: u32 = digits.iter().zip(WEIGHTS).map(|(digit, weight)| value(*digit) * weight).sum();
    digits.len() == 13
        && date(2000, part(2, 4), part(4, 6))
        && (1..=8).contains(&part(6, 7))
        && (11 - sum % 11) % 10 == digits.get(12).map_or(10, |digit| value(*digit))
}

/// A mobile number of mainland China, eleven digits.
pub(super) fn cn_mobile(digits: &[u8]) -> bool {
    matches!(digits, [b'1', b'3'..=b'9', _, _, _, _, _, _, _, _, _])
}

/// A number of the North American plan, ten digits.
pub(super) fn nanp(digits: &[u8]) -> bool {
    matches!(digits, [b'2'..=b'9', _, _, b'2'..=b'9', _, _, _, _, _, _])
}

/// How long national numbers of a calling code are; `None` for codes that are not assigned. (ITU E.164, libphonenumber's metadata.)
fn plan(code: u32) -> Option<std::ops::RangeInclusive<usize>> {
    Some(match code {
        1 => 10..=10,
        7 => 10..=10,
        33 => 9..=9,
        34 | 48 | 51 | 56 | 351 | 420 | 966 | 971 | 972 | 976 => 8..=9,
        31 | 32 | 41 | 61 | 64 | 66 | 27 | 84 => 8..=10,
        44 | 63 | 90 | 91 | 92 | 98 | 57 | 52 | 58 => 9..=10,
        86 => 10..=11,
        81 | 82 | 886 => 8..=11,
        852 | 853 | 65 | 45 | 47 | 216 | 371 => 8..=8,
        60 | 62 | 55 | 54 | 39 | 43 | 49 | 46 | 358 => 6..=12,
        20 | 30 | 36 | 40 | 53 | 93..=95 => 7..=10,
        210..=299 | 350..=389 | 420..=423 | 500..=509 | 590..=599 | 670..=692 | 850 | 855..=856 | 880 | 960..=998 => 6..=10,
        _ => return None,
    })
}

/// Whether digits behind a `+` are a number that can be called.
pub(super) fn e164(digits: &[u8]) -> bool {
    if !(8..=15).contains(&digits.len()) || digits.first() == Some(&b'0') {
        return false;
    }
    (1..=3).any(|code_len| {
        let code = digits.get(..code_len).map_or(0, number);
        let national = digits.get(code_len..).unwrap_or_default();
        plan(code).is_some_and(|lens| lens.contains(&national.len()))
            && (code != 1 || nanp(national))
            && (code != 86 || national.first() != Some(&b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(test: fn(&[u8]) -> bool, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(test(text.as_bytes()), "{text} must pass");
        }
        for text in bad {
            assert!(!test(text.as_bytes()), "{text} must not pass");
        }
    }

    #[test]
    fn cards() {
        check(
            |d| luhn(d) && issued(d),
            &[
                "4111111111111111",
                "5500005555555559",
                "378282246310005",
                "30569309025904",
                "3530111333300000",
                "6222021234567890128",
                "6011111111111117",
                "2223003122003222",
                "6759649826438453",
                "4222222222222",
            ],
            &["4111111111111112", "0000000000000000", "1234567812345670", "2026112312345678", "", "4"],
        );
    }

    #[test]
    fn identities() {
        check(
            resident_id,
            &["11010519491231002X", "11010519491231002x", "440524188001010014"],
            &["110105194912310021", "110105194913310025", "991105194912310025", "1101051949123100", ""],
        );
        check(old_resident_id, &["110105491231002"], &["110105491331002", "001105491231002", "11010549123100"]);
        check(us_ssn, &["123456789", "899010001"], &["000123456", "666123456", "900123456", "123006789", "123450000"]);
        check(cpf, &["52998224725", "11144477735"], &["52998224724", "11111111111", "5299822472"]);
        check(korean_id, &["8803201234564"], &["8803201234567", "8813201234564"]);
    }

    #[test]
    fn accounts() {
        check(
            |a| iban(a) && a.first_chunk().and_then(|c| iban_len(*c)) == Some(a.len()),
            &[
                "DE89370400440532013000",
                "GB29NWBK60161331926819",
                "FR1420041010050500013M02606",
                "gb29nwbk60161331926819",
                "NO9386011117947",
            ],
            &["DE89370400440532013001", "DE8937040044053201300", "XX89370400440532013000", "DE8"],
        );
    }

    #[test]
    fn phones() {
        check(cn_mobile, &["13812345678", "19912345678"], &["12812345678", "1381234567", "23812345678"]);
        check(
            e164,
            &["8613912345679", "14155552671", "442071838750", "85298765432", "4930901820", "8675512345678"],
            &["0813912345679", "11234567890", "123", "8601012345678", "99912345678901234"],
        );
    }
}
